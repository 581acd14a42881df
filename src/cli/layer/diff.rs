//! `plyfs layer diff`.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::builder::diff::{self, Change, Upper};
use crate::builder::layer_tar::{self, Written};
use crate::builder::{BuildError, Kind, Progress, Result};
use crate::cli::Failure;
use crate::cli::progress::Bar;
use crate::format::Namespace;
use crate::mount::JsonPath;
use crate::mount::layer::StoredLayer;

const EXAMPLES: &str = "\
Examples:
  plyfs layer diff base child
  plyfs layer diff --upper changes --lower base --json | jq -r '.[].path'
  plyfs layer diff base child --tar layer.tar

A line is A (added), C (changed) or D (deleted) and a path, as docker prints them,
but sorted. A directory in which something changed is C; what was in a deleted
directory is not told. The modification time of a directory does not count. In
words: docs/layers.md.

With --json, a list of objects with change (A, C or D), path (a list of bytes if it
is not UTF-8), kind, and differences: some of kind, mode, owner, device, size,
mtime, target, xattrs, content, links.

With --tar, a layer archive that makes NEW of OLD. FILE appears when it is
complete. Names that begin with .wh. are refused, sockets left out with a note.

Exit status 0 also when there are differences.";

/// Tell what changed between two trees, or in an upper over its lower.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DiffArgs {
    /// The tree before.
    #[arg(required_unless_present = "upper")]
    old: Option<PathBuf>,
    /// The tree after.
    #[arg(required_unless_present = "upper")]
    new: Option<PathBuf>,
    /// The upper directory of a mount, whose changes are asked for.
    #[arg(long, value_name = "DIR", requires = "lower", conflicts_with_all = ["old", "new"])]
    upper: Option<PathBuf>,
    /// The mount's lower.
    #[arg(long, value_name = "DIR", requires = "upper")]
    lower: Option<PathBuf>,
    /// An upper whose changes do not count: that of a container's first layer.
    #[arg(long, value_name = "DIR", requires = "upper")]
    init: Option<PathBuf>,
    /// The mount keeps its marks in user.overlay.*; told by the upper where it can be.
    #[arg(long, requires = "upper")]
    userxattr: bool,
    /// Write a layer archive to FILE, or to standard output.
    #[arg(long, value_name = "FILE|-", conflicts_with = "json")]
    tar: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// A change in `--json`.
#[derive(Serialize)]
pub(in crate::cli) struct Record {
    change: char,
    path: JsonPath,
    kind: &'static str,
    differences: Vec<&'static str>,
}

/// What is compared.
enum Question<'a> {
    Trees(BorrowedFd<'a>, BorrowedFd<'a>),
    Upper(Upper<'a>),
}

impl DiffArgs {
    pub(super) fn run(self) -> std::result::Result<(), Failure> {
        if let (Some(old), Some(new)) = (&self.old, &self.new) {
            let (old, new) = (open(old)?, open(new)?);
            return self.answer(&Question::Trees(old.as_fd(), new.as_fd()));
        }
        let (Some(upper), Some(lower)) = (&self.upper, &self.lower) else {
            return Err(Failure::usage("two trees are needed, or --upper and --lower"));
        };
        let (upper, below) = (open(upper)?, open(lower)?);
        let init = self.init.as_deref().map(open).transpose()?;
        let layer = StoredLayer::find(below.as_fd(), lower)?;
        let links = layer.as_ref().and_then(|layer| layer.names.as_ref());
        let names = links.map(|links| |ino| links.names_of(ino));
        self.answer(&Question::Upper(Upper {
            upper: upper.as_fd(),
            lower: below.as_fd(),
            init: init.as_ref().map(AsFd::as_fd),
            namespace: self.userxattr.then_some(Namespace::User),
            names: names.as_ref().map(|names| names as &diff::Names<'_>),
        }))
    }

    fn answer(&self, question: &Question<'_>) -> std::result::Result<(), Failure> {
        match &self.tar {
            None => self.lines(question),
            Some(path) if path.as_os_str() == "-" => {
                let stdout = io::stdout().lock();
                if stdout.is_terminal() {
                    return Err(Failure::usage(
                        "an archive is not written to a terminal: redirect it",
                    ));
                }
                say_skipped(&question.archive(BufWriter::new(stdout))?);
                Ok(())
            }
            Some(path) => {
                say_skipped(&to_file(question, path)?);
                Ok(())
            }
        }
    }

    fn lines(&self, question: &Question<'_>) -> std::result::Result<(), Failure> {
        let mut to = BufWriter::new(io::stdout().lock());
        let mut first = true;
        let told = question.changes(&mut |change| {
            let done = if self.json {
                let before = if first { "[\n  " } else { ",\n  " };
                first = false;
                write!(to, "{before}").and_then(|()| Ok(serde_json::to_writer(&mut to, &record(&change))?))
            } else {
                writeln!(to, "{} {}", change.letter.as_char(), change.path)
            };
            done.map_err(unwritten)
        });
        let told = told.and_then(|()| {
            let end = match (self.json, first) {
                (false, _) => "",
                (true, true) => "[]\n",
                (true, false) => "\n]\n",
            };
            let done = to.write_all(end.as_bytes()).and_then(|()| to.flush());
            done.map_err(unwritten)
        });
        match told {
            // The reader has seen enough.
            Err(BuildError::Stream { source, .. }) if source.kind() == ErrorKind::BrokenPipe => Ok(()),
            told => Ok(told?),
        }
    }
}

impl Question<'_> {
    fn changes(&self, each: &mut dyn FnMut(Change) -> Result<()>) -> Result<()> {
        match *self {
            Self::Trees(old, new) => diff::diff_trees(old, new, each),
            Self::Upper(upper) => diff::diff_upper(upper, each),
        }
    }

    fn archive(&self, to: impl Write) -> Result<Written> {
        match *self {
            Self::Trees(old, new) => layer_tar::write_layer_trees(old, new, to),
            Self::Upper(upper) => layer_tar::write_layer_upper(upper, to),
        }
    }
}

/// Writes beside the file and renames, so that there is never a part of an archive under its name.
fn to_file(question: &Question<'_>, path: &Path) -> std::result::Result<Written, Failure> {
    let failed = |error: io::Error| named(path, &error);
    if fs::metadata(path).is_ok_and(|known| !known.is_file()) {
        // A pipe or a device.
        let file = File::options().write(true).open(path).map_err(failed)?;
        return Ok(question.archive(BufWriter::new(file))?);
    }
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".part-{}", std::process::id()));
    let bar = Bar::new();
    bar.begin("writing the layer", None);
    let file = File::create_new(&part).map_err(failed)?;
    let to = Stoppable { to: &file, bar: &bar };
    let written = question.archive(BufWriter::new(to)).map_err(Failure::from);
    let written = written.and_then(|written| {
        fs::rename(&part, path).map_err(failed)?;
        Ok(written)
    });
    if written.is_err()
        && let Err(error) = fs::remove_file(&part)
    {
        eprintln!(
            "plyfs: {}: cannot be removed: {error}",
            Path::new(&part).display()
        );
    }
    written
}

/// A file that takes no more when the work is to stop.
struct Stoppable<'a> {
    to: &'a File,
    bar: &'a Bar,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bar.stopped() {
            return Err(io::Error::other("it was interrupted"));
        }
        let count = self.to.write(bytes)?;
        self.bar.advance(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn say_skipped(written: &Written) {
    for (path, reason) in &written.skipped {
        eprintln!("plyfs: {path}: left out: {reason}");
    }
}

fn unwritten(source: io::Error) -> BuildError {
    BuildError::Stream {
        what: "write the changes",
        source,
    }
}

fn open(path: &Path) -> std::result::Result<File, Failure> {
    let dir = File::open(path).map_err(|error| named(path, &error))?;
    if dir.metadata().map_err(|error| named(path, &error))?.is_dir() {
        Ok(dir)
    } else {
        Err(Failure::Failed(format!("{}: not a directory", path.display())))
    }
}

fn named(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}

/// A change as programs read it.
pub(in crate::cli) fn record(change: &Change) -> Record {
    let path = [b"/", change.path.as_bytes()].concat();
    Record {
        change: change.letter.as_char(),
        path: JsonPath::from(Path::new(std::ffi::OsStr::from_bytes(&path))),
        kind: word(change.kind),
        differences: change.differences.iter().map(|what| what.word()).collect(),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Directory => "directory",
        Kind::File => "file",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
    }
}
