//! `plyfs layer apply`.

use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::{NewManifest, json_path, named, open_tree};
use crate::builder::apply::{
    Applied, ApplyOptions, Changes, Limits, Notes, Owners, apply_directory, apply_tar, apply_upper,
};
use crate::builder::manifest::{Parent, Recording, Text, record};
use crate::builder::newborn::Place;
use crate::builder::{BuildError, Linker, Progress, clone_tree};
use crate::cli::Failure;
use crate::cli::output::{bytes, print};
use crate::cli::progress::Bar;
use crate::format::Namespace;
use crate::sys::{Errno, at};

const EXAMPLES: &str = "\
Examples:
  plyfs layer apply base.tar.gz base
      Unpack a root file system into the new directory base.
  plyfs layer apply --parent base change.tar child
      Clone base by hard links and lay a layer archive over the clone; base stays
      bit for bit what it was.
  zcat layer.gz | plyfs layer apply --parent base - child
  plyfs layer apply --parent base ~/changes child
      Make a layer of the upper directory of a mount.
  plyfs layer apply --parent base --as directory ./overlay child

CHANGES is taken for an archive (plain, gzip or zstd: told by its first bytes) if
it is a file or '-', and for the upper directory of a mount if it is a directory:
a character device 0/0 removes the name, a directory marked opaque (trusted. or
user. namespace) takes the place of the one below. --as directory takes every
object for what it looks like.

In an archive '.wh.NAME' removes NAME, and '.wh..wh..opq' all in its directory
that the archive itself did not put there. An entry replaces what has its name,
but directories join. What would act as a mark of an overlay once NEWROOT is
mounted is not made, and told: character devices 0/0, attributes of overlays
(those are kept under an escaped name where there is one).

NEWROOT appears when it is complete; after an error nothing is left.

With --json, an object with diff_id (the digest of the uncompressed archive) and
archive_bytes (both null for a directory), entries, file_bytes, notes (a list of
objects with path and reason) and more_notes. A path that is not UTF-8 is a list
of its bytes.";

/// Make a new tree: a clone of its parent with changes laid over it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ApplyArgs {
    /// A layer archive, '-' for standard input, or a directory.
    changes: PathBuf,
    /// The new tree; it must not exist, or be an empty directory.
    newroot: PathBuf,
    /// The tree that the changes are based on; it is only read [default: an empty tree].
    #[arg(long, value_name = "ROOT")]
    parent: Option<PathBuf>,
    /// What CHANGES is [default: tar for a file, upper for a directory].
    #[arg(long = "as", value_name = "WHAT")]
    kind: Option<What>,
    /// Of an upper directory, take only marks in 'user.overlay.' attributes [default: its root tells].
    #[arg(long)]
    userxattr: bool,
    /// Write the new tree's manifest, for 'plyfs layer verify'; the file must not exist.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// The parent's own manifest: files that are linked take their digests from it and are not read.
    #[arg(long, value_name = "FILE", requires = "manifest", requires = "parent")]
    parent_manifest: Option<PathBuf>,
    /// The digest that the uncompressed archive must have: sha256:HEX.
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    diff_id: Option<Digest>,
    /// Skip devices that may not be made, and tell, instead of failing.
    #[arg(long)]
    skip_devices: bool,
    /// Make everything your own, whoever owns it in CHANGES.
    #[arg(long)]
    no_owner: bool,
    /// Refuse more entries than this, directories that no entry describes with them.
    #[arg(long, value_name = "N", default_value_t = Limits::default().entries)]
    max_entries: u64,
    /// Refuse more bytes than this (K, M, G, T: powers of 1024), of the uncompressed archive or of its files, holes
    /// with them.
    #[arg(long, value_name = "SIZE", default_value = "256G", value_parser = size)]
    max_bytes: u64,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// What the changes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// A layer archive.
    Tar,
    /// The upper directory of a mount.
    Upper,
    /// A plain directory.
    Directory,
}

type Digest = [u8; 32];

fn digest(text: &str) -> Result<Digest, String> {
    let wrong = || "not of the form sha256: and 64 hexadecimal digits".to_owned();
    let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?;
    let mut digest = [0; 32];
    hex::decode_to_slice(hex, &mut digest).map_err(|_| wrong())?;
    Ok(digest)
}

fn size(text: &str) -> Result<u64, String> {
    let wrong = || "not a number, or one with K, M, G or T behind it".to_owned();
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (text.strip_suffix('K'), 10),
        Some(b'M') => (text.strip_suffix('M'), 20),
        Some(b'G') => (text.strip_suffix('G'), 30),
        Some(b'T') => (text.strip_suffix('T'), 40),
        _ => (Some(text), 0),
    };
    let number: u64 = digits.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too great".to_owned())
}

#[derive(Serialize)]
struct Record {
    diff_id: Option<String>,
    archive_bytes: Option<u64>,
    entries: u64,
    file_bytes: u64,
    notes: Vec<Noted>,
    more_notes: u64,
}

#[derive(Serialize)]
struct Noted {
    path: Text,
    reason: String,
}

/// Where the changes come from.
enum Source {
    Archive(File),
    /// Standard input, or another stream that may keep one waiting.
    Stream(File),
    Upper(File),
    Directory(File),
}

impl ApplyArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let parent = self.parent.as_deref().map(open_tree).transpose()?;
        let source = self.source()?;
        let place = Place::find(&self.newroot)?;
        if let (Some(tree), Some(path)) = (&parent, &self.parent) {
            self.outside(&place, tree, path)?;
        }
        if let Source::Upper(tree) | Source::Directory(tree) = &source {
            self.outside(&place, tree, &self.changes)?;
        }
        let inherited = match (&self.parent_manifest, &parent) {
            (Some(path), Some(parent)) => Some(Parent {
                manifest: Box::new(File::open(path).map_err(|error| named(path, &error))?),
                root: parent.as_fd(),
            }),
            _ => None,
        };
        // Before anything is made: from here on Ctrl-C tidies up.
        let bar = Bar::new();
        let manifest = self.manifest.as_deref().map(NewManifest::create).transpose()?;
        let newborn = place.make()?;
        match (&parent, &self.parent) {
            (Some(parent), Some(path)) => {
                let mut linker = Linker::new();
                if self.no_owner {
                    linker = linker.without_owners();
                }
                let cloned = clone_tree(parent.as_fd(), newborn.root(), &linker, &bar);
                cloned.map_err(|error| about(path, error))?;
            }
            // What the archive says of the root itself comes later.
            _ => at::chmod_fd(newborn.root(), 0o755).map_err(std::io::Error::from)?,
        }
        let applied = self.apply(newborn.root(), source, &bar);
        let (archive, changes) = applied.map_err(|error| about(&self.changes, error))?;
        if let Some(manifest) = &manifest {
            let recording = Recording {
                parent: inherited,
                known: Some(&changes.hashes),
                skipped: &changes.notes.list,
                ..Recording::default()
            };
            record(newborn.root(), recording, BufWriter::new(&manifest.file), &bar)?;
        }
        newborn.sync()?;
        newborn.publish()?;
        if let Some(manifest) = manifest {
            manifest.keep();
        }
        drop(bar);
        tell(&changes.notes);
        let text = if self.json {
            let mut text = serde_json::to_vec_pretty(&answer(archive, changes)).map_err(io::Error::from)?;
            text.push(b'\n');
            text
        } else {
            for_people(archive, &changes).into_bytes()
        };
        Ok(print(&text)?)
    }

    fn outside(&self, place: &Place, tree: &File, path: &Path) -> Result<(), Failure> {
        if !place.lies_in(tree.as_fd())? {
            return Ok(());
        }
        Err(Failure::Failed(format!(
            "{}: it lies in {}, which is only read: choose a place outside",
            self.newroot.display(),
            path.display()
        )))
    }

    /// Opens the changes.
    fn source(&self) -> Result<Source, Failure> {
        let path = &self.changes;
        if path.as_os_str() == "-" {
            if matches!(self.kind, Some(What::Upper | What::Directory)) {
                return Err(Failure::usage("a directory cannot be read from standard input"));
            }
            let stdin = io::stdin().as_fd().try_clone_to_owned()?;
            return Ok(Source::Stream(stdin.into()));
        }
        let file = File::open(path).map_err(|error| named(path, &error))?;
        let found = file.metadata().map_err(|error| named(path, &error))?;
        let usual = if found.is_dir() { What::Upper } else { What::Tar };
        match (self.kind.unwrap_or(usual), found.is_dir()) {
            (What::Tar, false) if found.is_file() => Ok(Source::Archive(file)),
            (What::Tar, false) => Ok(Source::Stream(file)),
            (What::Upper, true) => Ok(Source::Upper(file)),
            (What::Directory, true) => Ok(Source::Directory(file)),
            (What::Tar, true) => Err(Failure::usage(format!(
                "{}: a directory is no archive",
                path.display()
            ))),
            (_, false) => Err(Failure::usage(format!("{}: not a directory", path.display()))),
        }
    }

    fn apply(
        &self,
        root: BorrowedFd<'_>,
        source: Source,
        bar: &Bar,
    ) -> crate::builder::Result<(Option<(Digest, u64)>, Changes)> {
        let options = ApplyOptions {
            limits: Limits {
                entries: self.max_entries,
                bytes: self.max_bytes,
            },
            skip_devices: self.skip_devices,
            owners: if self.no_owner { Owners::Mine } else { Owners::Kept },
            expected: self.diff_id,
            namespace: self.userxattr.then_some(Namespace::User),
            hash_files: self.manifest.is_some(),
            ..ApplyOptions::default()
        };
        let of_archive = |applied: Applied| (Some((applied.diff_id, applied.archive_bytes)), applied.changes);
        match source {
            Source::Archive(file) => {
                bar.begin("applying", file.metadata().ok().map(|found| found.len()));
                apply_tar(root, file, options, bar).map(of_archive)
            }
            Source::Stream(file) => {
                bar.begin("applying", None);
                apply_tar(root, Patient { file, bar }, options, bar).map(of_archive)
            }
            Source::Upper(dir) => {
                bar.begin("applying", None);
                apply_upper(root, dir.as_fd(), &options, bar).map(|changes| (None, changes))
            }
            Source::Directory(dir) => {
                bar.begin("applying", None);
                apply_directory(root, dir.as_fd(), &options, bar).map(|changes| (None, changes))
            }
        }
    }
}

/// A stream that may keep one waiting, but not when the work is to stop.
struct Patient<'a> {
    file: File,
    bar: &'a Bar,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        loop {
            if self.bar.stopped() {
                return Err(io::Error::other("it was interrupted"));
            }
            let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return self.file.read(buffer),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn about(path: &Path, error: BuildError) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}

/// Tells what was left out.
fn tell(notes: &Notes) {
    for (path, reason) in &notes.list {
        eprintln!("plyfs: {path}: {reason}");
    }
    if notes.more > 0 {
        eprintln!("plyfs: and {} notes more", notes.more);
    }
}

fn answer(archive: Option<(Digest, u64)>, changes: Changes) -> Record {
    let notes = changes.notes.list.into_iter().map(|(path, reason)| Noted {
        path: json_path(&path),
        reason,
    });
    Record {
        diff_id: archive.map(|(digest, _)| shown(digest)),
        archive_bytes: archive.map(|(_, length)| length),
        entries: changes.entries,
        file_bytes: changes.file_bytes,
        notes: notes.collect(),
        more_notes: changes.notes.more,
    }
}

fn shown(digest: Digest) -> String {
    format!("sha256:{}", hex::encode(digest))
}

fn for_people(archive: Option<(Digest, u64)>, changes: &Changes) -> String {
    let mut text = format!(
        "{} entries, {} of files\n",
        changes.entries,
        bytes(changes.file_bytes)
    );
    if let Some((digest, _)) = archive {
        text.push_str(&format!("diff id {}\n", shown(digest)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_digests_as_typed() {
        assert_eq!(size("12"), Ok(12));
        assert_eq!(size("3K"), Ok(3072));
        assert_eq!(size("1T"), Ok(1 << 40));
        assert_eq!(size("256G"), Ok(Limits::default().bytes));
        for wrong in ["", "K", "1k", "-1", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(digest(&format!("sha256:{}", "ab".repeat(32))), Ok([0xab; 32]));
        for wrong in ["", "sha256:", "sha512:ab", "ab"] {
            assert!(digest(wrong).is_err(), "{wrong}");
        }
    }
}
