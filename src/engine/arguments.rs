//! The command line of an engine: `PROGRAM [-f] [-d] [-o WORDS]... [SOURCE] TARGET`, `--version`, `--help`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::words::{Note, Words};
use crate::mount::OptionError;

/// The name by which engines look for a program that mounts their layers.
pub const NAME: &str = "fuse-overlayfs";

/// The version of `fuse-overlayfs` whose words are understood.
const LIKE: &str = "1.10";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// `--version`, `-V`
    Version,
    /// `--help`, `-h`
    Help,
    /// A view.
    Mount(Box<MountCall>),
}

/// A view to be mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountCall {
    /// What the words say.
    pub words: Words,
    /// Where.
    pub target: PathBuf,
    /// What stands before the target, as mount(8) and its helpers have it.
    pub source: Option<OsString>,
    /// `-f`
    pub foreground: bool,
}

/// Why a command line makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// A word.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// `-o` at the end.
    #[error("'-o' needs words after it, as in '-o lowerdir=A:B,upperdir=U,workdir=W'")]
    NoWords,
    /// No target.
    #[error("no mount point: name the directory to mount on as the last argument")]
    NoTarget,
    /// Too many names.
    #[error("too many arguments: '{0}' comes before a source and a mount point")]
    TooMany(String),
    /// No lower.
    #[error("the mount option 'lowerdir=' is missing")]
    NoLower,
    /// An upper alone.
    #[error("mount option 'upperdir=' needs 'workdir=': an empty directory on the same mount as the upper")]
    NoWork,
}

/// Whether the command line is one of an engine: the program is called `fuse-overlayfs`, in whatever directory, or the
/// first argument is `-o` (with its words in the same argument or the next).
///
/// All else is for people and for mount(8), which name a command or the mount point first.
#[must_use]
pub fn is_call(arguments: &[OsString]) -> bool {
    is_named(arguments)
        || arguments
            .get(1)
            .is_some_and(|first| first.as_bytes().starts_with(b"-o"))
}

/// Whether the program was started under the name that engines know.
fn is_named(arguments: &[OsString]) -> bool {
    arguments
        .first()
        .is_some_and(|program| Path::new(program).file_name() == Some(OsStr::new(NAME)))
}

/// The name to show for the program: the one it is called by if that is known to engines.
fn program(arguments: &[OsString]) -> &'static str {
    if is_named(arguments) { NAME } else { "plyfs" }
}

/// The text for `--version`, in the form of the first line that `fuse-overlayfs` prints.
#[must_use]
pub fn version() -> String {
    format!("{NAME}: version {LIKE} (plyfs {})\n", env!("CARGO_PKG_VERSION"))
}

/// The text for `--help`.
#[must_use]
pub fn help(arguments: &[OsString]) -> String {
    let program = program(arguments);
    format!(
        "usage: {program} [options] <mountpoint>

This is plyfs, called as container engines call {NAME}.

    -o WORDS               words, separated by commas; several -o add up
    -f                     serve in the foreground until the view is unmounted
    -d, --debug            log every decision to standard error (implies -f)
    -h, --help             print this help
    -V, --version          print the version

Words:
    lowerdir=A:B:C         the read-only directories, the topmost first
    upperdir=U,workdir=W   where changes go; without them the view is read-only
    volatile, fsync=0      nothing is ever synced
    uidmapping=, gidmapping=LAYERS:VIEW:COUNT[:...]
                           ids in the layers, ids as shown, how many
    squash_to_root, squash_to_uid=, squash_to_gid=
                           everything belongs to root, to this user, to this group
    xattr_permissions=0|1|2, noacl, static_nlink, timeout=SECONDS
    and those of every mount: 'plyfs mount --help' has them.
Unknown words are told on standard error and passed over.
"
    )
}

/// Reads a command line for which [`is_call`] is true; the first argument is the program's name.
///
/// # Errors
/// What is missing, or the first word that is wrong.
pub fn parse(arguments: &[OsString]) -> Result<Asked, CallError> {
    let mut call = MountCall::default();
    // As fuse-overlayfs mounts: engines bring devices into a container themselves.
    call.words.options.attributes.nodev = true;
    let mut operands = Vec::new();
    let mut rest = arguments.iter().skip(1);
    let mut options_end = false;
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        if options_end || !bytes.starts_with(b"-") || bytes == b"-" {
            operands.push(argument);
            continue;
        }
        match bytes {
            b"--" => options_end = true,
            b"-V" | b"--version" => return Ok(Asked::Version),
            b"-h" | b"--help" => return Ok(Asked::Help),
            b"-f" => call.foreground = true,
            // One thread would be slower and is not safer.
            b"-s" => {}
            b"-d" | b"--debug" => {
                call.foreground = true;
                call.words.options.debug = true;
            }
            b"-o" => call.words.parse(rest.next().ok_or(CallError::NoWords)?)?,
            _ => match bytes.strip_prefix(b"-o") {
                Some(words) => call.words.parse(OsStr::from_bytes(words))?,
                None => call.words.notes.push(Note {
                    word: argument.to_string_lossy().into_owned(),
                    why: None,
                }),
            },
        }
    }
    match operands.as_slice() {
        [] => return Err(CallError::NoTarget),
        [target] => {
            call.source = Some(OsString::from(program(arguments)));
            call.target = PathBuf::from(target);
        }
        [source, target] => {
            call.source = Some((*source).clone());
            call.target = PathBuf::from(target);
        }
        [first, ..] => return Err(CallError::TooMany(first.to_string_lossy().into_owned())),
    }
    complete(&mut call)?;
    Ok(Asked::Mount(Box::new(call)))
}

/// What goes together.
fn complete(call: &mut MountCall) -> Result<(), CallError> {
    let options = &mut call.words.options;
    if options.remount {
        return Ok(());
    }
    if options.lowers.is_empty() {
        return Err(CallError::NoLower);
    }
    match (&options.upper, &options.work) {
        (Some(_), None) => return Err(CallError::NoWork),
        // Without an upper there is nothing to prepare.
        (None, _) => {
            options.work = None;
            options.attributes.read_only = true;
        }
        (Some(_), Some(_)) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn mounts(words: &[&str]) -> MountCall {
        let line = line(words);
        assert!(is_call(&line), "{words:?}");
        match parse(&line) {
            Ok(Asked::Mount(call)) => *call,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn the_name_or_the_first_argument_decides() {
        for words in [
            &["fuse-overlayfs"][..],
            &["/usr/bin/fuse-overlayfs", "mount"],
            &["./a/fuse-overlayfs", "--version"],
            &["plyfs", "-o", "lowerdir=/l", "/m"],
            &["plyfs", "-olowerdir=/l", "/m"],
        ] {
            assert!(is_call(&line(words)), "{words:?}");
        }
        for words in [
            &[][..],
            &["plyfs"],
            &["plyfs", "/m", "-o", "lowerdir=/l"],
            &["plyfs", "overlay", "/m", "-o", "lowerdir=/l"],
            &["plyfs", "-f", "/m", "-o", "lowerdir=/l"],
            &["plyfs", "--version"],
            &["mount.fuse-overlayfs", "mount"],
        ] {
            assert!(!is_call(&line(words)), "{words:?}");
        }
    }

    #[test]
    fn podman_and_dockerd() {
        let call = mounts(&[
            "/opt/plyfs",
            "-o",
            "lowerdir=/l,upperdir=/u,workdir=/w,volatile",
            "/g/merged",
        ]);
        assert_eq!(call.target, Path::new("/g/merged"));
        assert_eq!(call.source.unwrap(), "plyfs");
        assert!(!call.words.options.attributes.read_only && call.words.options.attributes.nodev);
        assert!(!call.foreground);
        let call = mounts(&["/usr/bin/fuse-overlayfs", "-o", "lowerdir=/l,dev", "/m"]);
        assert_eq!(call.source.unwrap(), NAME);
        assert!(call.words.options.attributes.read_only && !call.words.options.attributes.nodev);
    }

    #[test]
    fn mount_8_containerd_and_apptainer() {
        let call = mounts(&[
            "fuse-overlayfs",
            "overlay",
            "/m",
            "-o",
            "workdir=/w,lowerdir=/l",
            "-oupperdir=/u",
        ]);
        assert_eq!(
            (call.source.unwrap(), call.target),
            ("overlay".into(), "/m".into())
        );
        assert_eq!(call.words.options.upper.unwrap(), "/u");
        let call = mounts(&["fuse-overlayfs", "-f", "-o", "lowerdir=/l", "--", "-m"]);
        assert!(call.foreground);
        assert_eq!(call.target, Path::new("-m"));
        let call = mounts(&[
            "fuse-overlayfs",
            "-d",
            "-s",
            "--frob",
            "/m",
            "-o",
            "lowerdir=/l,workdir=/w",
        ]);
        assert!(call.foreground && call.words.options.debug);
        assert_eq!(call.words.options.work, None);
        assert_eq!(
            call.words.notes.first().unwrap().to_string(),
            "unknown argument ignored: --frob"
        );
    }

    #[test]
    fn versions_and_help() {
        for word in ["--version", "-V"] {
            assert_eq!(parse(&line(&["fuse-overlayfs", word])), Ok(Asked::Version));
        }
        for word in ["--help", "-h"] {
            assert_eq!(parse(&line(&["fuse-overlayfs", "-f", word])), Ok(Asked::Help));
        }
        let first = version().lines().next().unwrap().to_owned();
        assert!(
            first.starts_with("fuse-overlayfs: version 1.10 (plyfs "),
            "{first}"
        );
        assert!(help(&line(&["x/fuse-overlayfs"])).starts_with("usage: fuse-overlayfs "));
        assert!(help(&line(&["plyfs", "-o"])).starts_with("usage: plyfs "));
    }

    #[test]
    fn what_makes_no_sense() {
        for (words, error) in [
            (&["-o"][..], CallError::NoWords),
            (&["-o", "lowerdir=/l"], CallError::NoTarget),
            (
                &["-o", "lowerdir=/l", "a", "b", "c"],
                CallError::TooMany("a".into()),
            ),
            (&["-o", "upperdir=/u,workdir=/w", "m"], CallError::NoLower),
            (&["-o", "lowerdir=/l,upperdir=/u", "m"], CallError::NoWork),
        ] {
            let mut all = vec!["fuse-overlayfs"];
            all.extend(words);
            assert_eq!(parse(&line(&all)), Err(error), "{words:?}");
        }
        let bad = parse(&line(&["fuse-overlayfs", "-o", "timeout=x", "m"]));
        assert!(matches!(bad, Err(CallError::Option(_))));
    }

    #[test]
    fn a_remount_needs_no_layers() {
        let call = mounts(&["fuse-overlayfs", "overlay", "/m", "-o", "remount,ro"]);
        assert!(call.words.options.remount && call.words.options.attributes.read_only);
    }
}
