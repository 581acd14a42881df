//! Writing the manifest of a tree.

use std::cmp::Ordering;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;

use serde::Serialize;

use super::line::{Line, Text};
use super::reader::{Footer, Header, Object, Reader, Skipped};
use crate::builder::apply::Hashes;
use crate::builder::links::Groups;
use crate::builder::scan::{Known, scan};
use crate::builder::walk::{Step, order};
use crate::builder::{BuildError, Kind, Progress, Result, TreePath};

/// The tree that the new one was cloned from.
pub struct Parent<'a> {
    /// Its manifest.
    pub manifest: Box<dyn Read + Send + 'a>,
    /// Its root, by which it is seen that the manifest still is its own.
    pub root: BorrowedFd<'a>,
}

/// What is known of a tree before its manifest is written.
#[derive(Default)]
pub struct Recording<'a> {
    /// What stands in the parent's manifest of an inode that both share at the same path is taken from there; the
    /// object is not looked at. Without a parent, or if its manifest is not that of the tree given, all is read.
    pub parent: Option<Parent<'a>>,
    /// Digests that need not be made again.
    pub known: Option<&'a Hashes>,
    /// What was left out of the tree, and why.
    pub skipped: &'a [(TreePath, String)],
    /// Threads that hash; 0 for one each processor.
    pub jobs: usize,
}

/// What a manifest holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Objects, the root among them.
    pub objects: u64,
    /// Bytes of regular files, each inode counted once.
    pub file_bytes: u64,
    /// Inodes with several names in the tree.
    pub groups: Groups,
    /// Objects taken over from the parent's manifest.
    pub inherited: u64,
}

/// Writes the manifest of the tree.
///
/// # Errors
/// If an object cannot be read or is written meanwhile, the parent's manifest is damaged, or `to` does not take it.
pub fn record(
    root: BorrowedFd<'_>,
    recording: Recording<'_>,
    to: impl Write,
    progress: &dyn Progress,
) -> Result<Summary> {
    let groups = Groups::of(root)?;
    let mut to = Writer::new(to)?;
    let header = Header::of(root).map_err(|errno| BuildError::Call {
        what: "look at",
        path: TreePath::root(),
        errno,
    })?;
    to.line(&header)?;
    let mut parent = recording.parent.map(Inherited::open).transpose()?.flatten();
    let known = |step: &Step<'_>| {
        if let Some(parent) = &mut parent
            && let Some(line) = parent.take(step)?
        {
            return Ok(Known::Line(line));
        }
        let digest = match recording.known {
            Some(known) => known.get(step.ino)?,
            None => None,
        };
        Ok(digest.map_or(Known::Nothing, Known::Digest))
    };
    let mut summary = Summary::default();
    progress.begin("record", None);
    scan(root, &groups, jobs(recording.jobs), known, |object| {
        summary.objects = summary.objects.saturating_add(1);
        if object.line.same.is_none() {
            summary.file_bytes = summary.file_bytes.saturating_add(object.line.size);
        }
        progress.advance(1);
        if progress.stopped() {
            return Err(BuildError::Interrupted);
        }
        to.line(&object.line)
    })?;
    summary.inherited = parent.map_or(0, |parent| parent.taken);
    let skipped = recording.skipped.iter().map(|(path, reason)| Skipped {
        path: Text(path.as_bytes().to_vec()),
        reason: reason.clone(),
    });
    to.line(&Footer {
        objects: summary.objects,
        skipped: skipped.collect(),
    })?;
    to.finish()?;
    summary.groups = groups;
    Ok(summary)
}

/// How many threads hash.
pub(in crate::builder) fn jobs(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        wanted => wanted,
    }
}

/// Lines of JSON, compressed.
struct Writer<W: Write> {
    to: zstd::Encoder<'static, W>,
}

impl<W: Write> Writer<W> {
    fn new(to: W) -> Result<Self> {
        let mut to = zstd::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed)?;
        // A flipped bit in the file is found.
        to.include_checksum(true).map_err(failed)?;
        Ok(Self { to })
    }

    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.to, line).map_err(|error| failed(error.into()))?;
        self.to.write_all(b"\n").map_err(failed)
    }

    fn finish(self) -> Result<()> {
        self.to.finish().and_then(|mut to| to.flush()).map_err(failed)
    }
}

fn failed(source: std::io::Error) -> BuildError {
    BuildError::Stream {
        what: "write the manifest",
        source,
    }
}

/// The parent's manifest, read along with the walk over the child.
struct Inherited<'a> {
    reader: Reader<'a>,
    /// The object that the walk has not passed yet.
    next: Option<Object>,
    taken: u64,
}

impl<'a> Inherited<'a> {
    /// `None` if the manifest is not that of the tree.
    fn open(parent: Parent<'a>) -> Result<Option<Self>> {
        let mut reader = Reader::new(parent.manifest)?;
        let is_own = reader
            .header()
            .is_of(parent.root)
            .map_err(|errno| BuildError::Call {
                what: "look at the parent of",
                path: TreePath::root(),
                errno,
            })?;
        if !is_own {
            log::info!("the parent's manifest was made elsewhere: everything is read again");
            return Ok(None);
        }
        let next = reader.advance()?;
        Ok(Some(Self {
            reader,
            next,
            taken: 0,
        }))
    }

    /// The parent's line of the object, if both are the same inode.
    fn take(&mut self, step: &Step<'_>) -> Result<Option<Line>> {
        let path = step.path();
        while let Some(next) = &self.next {
            match order(&next.path, &path) {
                Ordering::Less => self.next = self.reader.advance()?,
                Ordering::Greater => return Ok(None),
                Ordering::Equal => {
                    let next = self.next.take();
                    self.next = self.reader.advance()?;
                    return Ok(next
                        .map(|object| object.line)
                        .filter(|line| {
                            line.kind != Kind::Directory && line.kind == step.kind && line.ino == step.ino
                        })
                        .inspect(|_| self.taken = self.taken.saturating_add(1)));
                }
            }
        }
        Ok(None)
    }
}
