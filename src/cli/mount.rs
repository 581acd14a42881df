//! `plyfs mount`, and the form of mount(8).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Args, Parser};

use super::Failure;
use super::output::{Fields, print};
use crate::mount::unmount::remount;
use crate::mount::{Directories, Entry, Options, Outcome, Request, mount, private};

const WORDS: &str = "\
Words for -o, separated by commas. A backslash keeps ',' ':' and '\\' in a name:
  lowerdir=DIR[:DIR...] upperdir=DIR workdir=DIR
                  the directories, in the form of mount(8); of several lowers the
                  first is the topmost
  ro rw nosuid nodev noexec noatime nodiratime relatime strictatime
  nosymfollow sync dirsync
                  as for every mount (and suid, dev, exec, atime, async)
  allow_other     let other users in. A mount made by root or in a user
                  namespace does so anyway; through fusermount3 it needs
                  'user_allow_other' in /etc/fuse.conf
  allow_root      let root in, and nobody else
  auto_unmount    unmount even if the server is killed
  fsync=auto      the data of a copied-up file is on disk before the copy is
                  seen (default)
  fsync=strict    so is every copied-up object and its directory
  fsync=volatile, volatile
                  nothing is ever synced
  userxattr       keep private marks in 'user.overlay.' attributes instead of
                  'trusted.overlay.'
  foreign         marks of other tools in the lowers count: '.wh.NAME' and
                  '.wh..wh..opq' as container engines unpack them, opaque
                  directories of 'trusted.overlay.', 'user.overlay.' and
                  'user.fuseoverlayfs.'
  timeout=SECONDS how long the kernel may trust names and attributes (default
                  86400); 0 if the layers change underneath
  passthrough=upper
                  the kernel reads and writes files of the upper by itself, and
                  files of the lower in a read-only view (default)
  passthrough=all files of the lower too; a file opened before it is copied up
                  is then read with its old data until it is closed
  passthrough=off everything goes through the server
  writeback       the kernel gathers what is written and hands it on when a
                  file is closed or synced; for mounts by an ordinary user,
                  whose files cannot be passed through (then none is)
  latency=low     while requests flow, keep idle processors from sleeping
                  deeply, where the server may ask for it (default)
  latency=any     leave them alone
  fsname=NAME     the source that mount(8), findmnt and df show (default: the
                  SOURCE of the form of mount(8), or the lower directory)
  debug           log every decision: to standard error with -f, else to a
                  file, which is printed

Accepted because they say what is so anyway: default_permissions,
subtype=plyfs, xino=on|off|auto, uuid=auto|off|null, and index=, redirect_dir=,
metacopy=, nfs_export=, verity= with the value 'off'. Their other values and
everything unknown are errors. Words that mount(8) and systemd keep for
themselves (x-*, nofail, _netdev, user, ...) are passed over.";

const EXAMPLES: &str = "\
Examples:
  plyfs mount /srv/base
      A fresh mount point and a private upper, both printed. The next mount of
      /srv/base finds the same upper.
  plyfs mount ~/project ~/try && cd ~/try && make; cd; plyfs umount ~/try
      Build in a view; the project itself stays as it is.
  plyfs mount / ~/root --read-only
      Look at everything, change nothing.
  plyfs mount /srv/base /mnt/view --upper /data/upper --work /data/work \\
        -o nosuid,noexec
      Your own directories. Upper and work lie on one mount.
  plyfs mount /srv/patches --below /srv/base --below /srv/oldbase ~/view
      Three lowers: what is in one hides what the ones below it have under the
      same name, directories are merged. The kernel's overlay does the same.
  RUST_LOG=plyfs=debug plyfs mount -f /srv/base ~/view
      Stay in the foreground and log every decision. Ctrl-C unmounts.

A mount in the background answers when the command returns with status 0.";

/// Merge LOWER and an upper directory, and mount the view.
///
/// LOWER is never written. Every change goes to the upper directory: the one named by --upper, or a private one
/// that is kept for LOWER in ~/.local/state/plyfs (root: /var/lib/plyfs).
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{WORDS}"))]
pub(super) struct MountArgs {
    /// The read-only directory.
    lower: PathBuf,
    /// Where to see the view [default: a fresh directory, which is printed].
    merged: Option<PathBuf>,
    /// A further read-only directory, below LOWER; may be given several times, each below the former.
    #[arg(long, short, value_name = "DIR")]
    below: Vec<PathBuf>,
    /// The directory that takes the changes.
    #[arg(long, short, value_name = "DIR", requires = "work")]
    upper: Option<PathBuf>,
    /// An empty directory on the same mount as the upper, for changes in the making.
    #[arg(long, short, value_name = "DIR", requires = "upper")]
    work: Option<PathBuf>,
    /// Refuse every change; without --upper, show nothing but LOWER.
    #[arg(long, short)]
    read_only: bool,
    /// Mount options, separated by commas; may be given several times.
    #[arg(short = 'o', long = "options", value_name = "WORDS")]
    options: Vec<OsString>,
    /// Serve in the foreground until the view is unmounted; Ctrl-C unmounts.
    #[arg(long, short)]
    foreground: bool,
    /// Print only the mount point.
    #[arg(long, short)]
    quiet: bool,
}

/// Mount a view, in the form of mount(8).
#[derive(Debug, Parser)]
#[command(
    name = "plyfs", version,
    override_usage = "plyfs [SOURCE] MERGED -o lowerdir=LOWER[:LOWER...][,upperdir=UPPER,workdir=WORK][,WORDS]",
    after_help = WORDS
)]
pub(super) struct KernelForm {
    /// The source, if two are given, and the mount point.
    // Hidden, as clap shows the optional one last; the usage line says it right.
    #[arg(required = true, num_args = 1..=2, value_names = ["SOURCE", "MERGED"], hide = true)]
    operands: Vec<OsString>,
    /// Mount options, separated by commas; may be given several times.
    #[arg(short = 'o', long = "options", value_name = "WORDS", required = true)]
    options: Vec<OsString>,
    /// Serve in the foreground until the view is unmounted.
    #[arg(long, short)]
    foreground: bool,
}

fn parse(arguments: &[OsString]) -> Result<Options, Failure> {
    let mut options = Options::default();
    for argument in arguments {
        options.parse(argument)?;
    }
    Ok(options)
}

/// The upper and work of the option words, which come in a pair or not at all.
fn pair(upper: Option<OsString>, work: Option<OsString>) -> Result<Option<(PathBuf, PathBuf)>, Failure> {
    match (upper, work) {
        (Some(upper), Some(work)) => Ok(Some((upper.into(), work.into()))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::usage(
            "mount option 'upperdir=' needs 'workdir=': an empty directory on the same mount as the upper",
        )),
        (None, Some(_)) => Err(Failure::usage(
            "mount option 'workdir=' makes no sense without 'upperdir='",
        )),
    }
}

impl MountArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut options = parse(&self.options)?;
        options.attributes.read_only |= self.read_only;
        if !options.lowers.is_empty() {
            return Err(Failure::usage(
                "mount option 'lowerdir=': the lower directory is the first argument already; --below names further \
                 ones",
            ));
        }
        if options.remount {
            return Err(Failure::usage(
                "mount option 'remount': it belongs to mount(8), as in mount -o remount,ro MERGED",
            ));
        }
        let in_words = pair(options.upper.take(), options.work.take())?;
        let named = match (self.upper.zip(self.work), in_words) {
            (Some(_), Some(_)) => {
                return Err(Failure::usage(
                    "the upper is given twice, by --upper and by the option 'upperdir='",
                ));
            }
            (named, in_words) => named.or(in_words),
        };
        let log = start_logging(&options, self.foreground);

        let mut private_upper = None;
        let upper = match named {
            Some(pair) => Some(pair),
            None if options.attributes.read_only => None,
            None => {
                let layers = private::layers(&self.lower, &self.below)?;
                private_upper = Some(if layers.existed {
                    "(private, from an earlier mount)"
                } else {
                    "(private, new)"
                });
                Some((layers.upper, layers.work))
            }
        };
        let fresh = self.merged.is_none();
        let foreign = options.foreign;
        let merged = match self.merged {
            Some(merged) => merged,
            None => private::fresh_mount_point(&self.lower)?,
        };
        let request = Request {
            directories: Directories {
                lowers: std::iter::once(self.lower).chain(self.below).collect(),
                upper,
                merged,
            },
            options,
            source: None,
            foreign,
            foreground: self.foreground,
            remove_mount_point: fresh,
            log,
            passing: false,
            engine: false,
        };
        let show = |entry: &Entry| show(entry, private_upper, self.quiet);
        match mount(&request, |entry| {
            show(entry).unwrap_or_else(|error| log::debug!("{error}"))
        }) {
            Ok(Outcome::Ready(entry)) => show(&entry).map_err(Failure::from),
            Ok(Outcome::Ended) => Ok(()),
            Err(error) => {
                if fresh {
                    // Nothing was mounted on it; if it is not empty, it is not ours to remove.
                    std::fs::remove_dir(&request.directories.merged).unwrap_or_else(|error| {
                        log::debug!("{}: {error}", request.directories.merged.display())
                    });
                }
                Err(error.into())
            }
        }
    }
}

impl KernelForm {
    /// As if this had been typed.
    pub(super) fn of(source: OsString, merged: OsString, options: Vec<OsString>) -> Self {
        Self {
            operands: vec![source, merged],
            options,
            foreground: false,
        }
    }

    pub(super) fn run(self) -> Result<(), Failure> {
        let mut options = parse(&self.options)?;
        let (source, merged) = match <[OsString; 2]>::try_from(self.operands) {
            Ok([source, merged]) => (Some(source), merged),
            Err(operands) => (None, operands.into_iter().next().unwrap_or_default()),
        };
        if options.remount {
            return Ok(remount(Path::new(&merged), options.attributes)?);
        }
        let lowers = std::mem::take(&mut options.lowers);
        if lowers.is_empty() {
            return Err(Failure::usage("the mount option 'lowerdir=' is missing"));
        }
        let upper = pair(options.upper.take(), options.work.take())?;
        let foreign = options.foreign;
        // As in the kernel, want of an upper makes the view read-only (K2).
        options.attributes.read_only |= upper.is_none();
        let log = start_logging(&options, self.foreground);
        let request = Request {
            directories: Directories {
                lowers: lowers.into_iter().map(PathBuf::from).collect(),
                upper,
                merged: merged.into(),
            },
            options,
            source,
            foreign,
            foreground: self.foreground,
            remove_mount_point: false,
            log,
            passing: false,
            engine: false,
        };
        match mount(&request, |_| {})? {
            Outcome::Ready(entry) => {
                if let Some(log) = &entry.log {
                    eprintln!("plyfs: logging to {}", log.path().display());
                }
                Ok(())
            }
            Outcome::Ended => Ok(()),
        }
    }
}

/// Sets up env_logger; whether a background server shall keep a log, which only who asked for one gets.
pub(super) fn start_logging(options: &Options, foreground: bool) -> bool {
    let asked = options.debug || std::env::var_os("RUST_LOG").is_some_and(|filter| filter != OsStr::new(""));
    let default = if options.debug { "plyfs=debug" } else { "warn" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(default)).init();
    asked && !foreground
}

fn show(entry: &Entry, private_upper: Option<&str>, quiet: bool) -> std::io::Result<()> {
    let merged = entry.merged.path();
    if quiet {
        let mut line = merged.into_os_string();
        line.push("\n");
        return print(line.as_encoded_bytes());
    }
    let mut fields = Fields::default();
    fields.path("merged", &merged, None);
    for (index, lower) in entry.lowers().enumerate() {
        fields.path(if index == 0 { "lower" } else { "below" }, &lower, None);
    }
    if let Some(upper) = &entry.upper {
        fields.path("upper", &upper.path(), private_upper);
    }
    if let Some(work) = &entry.work {
        fields.path("work", &work.path(), None);
    }
    fields.text(
        "server",
        &format!(
            "process {}{}",
            entry.pid,
            if entry.read_only { ", read-only" } else { "" }
        ),
    );
    if let Some(log) = &entry.log {
        fields.path("log", &log.path(), None);
    }
    print(&fields.finish())
}
