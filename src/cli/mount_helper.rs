//! `mount.fuse.plyfs` and `mount.plyfs`: the names under which mount(8) looks for a helper of the types `fuse.plyfs` and
//! `plyfs`.
//!
//! Such a program is called by a fixed grammar (`SPEC DIR [-sfnvN] [-o WORDS] [-t TYPE]`), in which `-f` means to do
//! nothing, and a SPEC may be any word, also the name of a command.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use super::mount::KernelForm;
use super::{exit_status, say};

const NAMES: [&[u8]; 2] = [b"mount.fuse.plyfs", b"mount.plyfs"];

/// Whether the program was called by a name of a mount helper.
pub(super) fn is_meant(program: Option<&OsString>) -> bool {
    program
        .and_then(|program| Path::new(program).file_name())
        .is_some_and(|name| NAMES.contains(&name.as_bytes()))
}

/// Mount a view, for mount(8).
#[derive(Debug, Parser)]
#[command(
    name = "mount.fuse.plyfs",
    version,
    after_help = "mount(8) calls this program for 'mount -t fuse.plyfs SOURCE MERGED -o lowerdir=LOWER[,WORDS]'. 'plyfs mount \
--help' explains the words."
)]
pub(super) struct HelperForm {
    /// What mount(8), findmnt and df show as the source.
    source: OsString,
    /// Where to see the view.
    merged: OsString,
    /// Mount options, separated by commas.
    #[arg(short = 'o', value_name = "WORDS")]
    options: Vec<OsString>,
    /// Fake: do nothing.
    #[arg(short)]
    fake: bool,
    /// Accepted, without effect: unknown words are errors here, too.
    #[arg(short)]
    sloppy: bool,
    /// Accepted, without effect: plyfs writes no /etc/mtab.
    #[arg(short)]
    no_mtab: bool,
    /// Say what is done.
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Another mount namespace.
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
    /// The type, which is known.
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<OsString>,
}

/// Does what mount(8) asks for.
pub(super) fn run(arguments: Vec<OsString>) -> ExitCode {
    let form = match HelperForm::try_parse_from(arguments) {
        Ok(form) => form,
        Err(error) => return say(&error),
    };
    if form.verbose > 0 {
        eprintln!("plyfs: mounting on {}", Path::new(&form.merged).display());
    }
    // mount(8) has entered a namespace that was named, before it called.
    log::debug!(
        "type {:?}, namespace {:?}, sloppy {}, no mtab {}",
        form.kind,
        form.namespace,
        form.sloppy,
        form.no_mtab
    );
    if form.fake {
        return ExitCode::SUCCESS;
    }
    exit_status(KernelForm::of(form.source, form.merged, form.options).run())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides() {
        let meant = |name: &str| is_meant(Some(&OsString::from(name)));
        assert!(meant("/sbin/mount.fuse.plyfs") && meant("mount.plyfs"));
        assert!(!meant("/usr/bin/plyfs") && !meant("mount") && !is_meant(None));
    }

    #[test]
    fn what_mount_calls() {
        let words = [
            "mount.fuse.plyfs",
            "list",
            "/m",
            "-sfnv",
            "-o",
            "rw,lowerdir=/l",
            "-t",
            "fuse.plyfs",
        ];
        let form = HelperForm::try_parse_from(words).unwrap();
        assert!(form.fake && form.sloppy && form.no_mtab && form.verbose == 1);
        assert_eq!(
            (form.source.to_str(), form.merged.to_str()),
            (Some("list"), Some("/m"))
        );
        assert!(HelperForm::try_parse_from(["mount.plyfs", "only"]).is_err());
    }
}
