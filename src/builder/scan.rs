//! Looking at every object of a tree, with the digests of its files.
//!
//! One thread walks and looks, some read and hash, and the caller gets the objects in the order of the walk:
//!
//! ```text
//!   walk ──objects, in order──────────────────▶ caller
//!     └──open files──▶ hashing ──digest of one──┘
//! ```

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crossbeam_channel::{Receiver, Sender, bounded};
use sha2::{Digest, Sha256};

use super::links::Groups;
use super::manifest::{Line, Object};
use super::walk::{Step, Walk};
use super::{BuildError, Kind, Meta, Result, TreePath};
use crate::sys::stat::Stat;
use crate::sys::xattr::Target;
use crate::sys::{Errno, at, io, stat};

/// Objects that may wait for the caller.
const AHEAD: usize = 256;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// What is known of an object before it is looked at.
pub(super) enum Known {
    /// Nothing: look at it and read its data.
    Nothing,
    /// The digest of its data, if it is a file.
    Digest([u8; 32]),
    /// Everything.
    Line(Line),
}

/// An object on its way to the caller.
struct Found {
    object: Object,
    digest: Awaited,
}

enum Awaited {
    Here,
    Coming(Receiver<Result<[u8; 32]>>),
    /// That of an earlier name of the same inode.
    OfFirst,
}

/// A file to be hashed.
struct Job {
    file: OwnedFd,
    before: Stat,
    path: TreePath,
    answer: Sender<Result<[u8; 32]>>,
}

/// Gives every object of the tree to `each`, the root first, in the order of the walk.
///
/// `known` is asked for every object but the root, in the same order, in another thread. `jobs` threads hash.
///
/// # Errors
/// If something cannot be read, or is written meanwhile; or what `each` answers.
pub(super) fn scan(
    root: BorrowedFd<'_>,
    groups: &Groups,
    jobs: usize,
    known: impl FnMut(&Step<'_>) -> Result<Known> + Send,
    mut each: impl FnMut(Object) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (objects, given) = bounded::<Result<Found>>(AHEAD);
        let (files, taken) = bounded::<Job>(jobs.saturating_mul(4));
        for _ in 0..jobs.max(1) {
            let taken = taken.clone();
            scope.spawn(move || hash_all(&taken));
        }
        drop(taken);
        scope.spawn(move || {
            let walker = Walker {
                groups,
                first: HashMap::new(),
                objects,
                files,
            };
            walker.run(root, known);
        });
        let mut firsts: HashMap<u64, [u8; 32]> = HashMap::new();
        for found in given {
            let Found { mut object, digest } = found?;
            let line = &mut object.line;
            match digest {
                Awaited::Here => {}
                Awaited::Coming(answer) => {
                    // The sender is gone only with its thread.
                    let answer = answer
                        .recv()
                        .unwrap_or_else(|_| Err(call("hash", &object.path, Errno::IO)));
                    line.sha256 = Some(answer?);
                }
                Awaited::OfFirst => line.sha256 = firsts.get(&line.ino).copied(),
            }
            if let (Some(_), Some(digest)) = (line.names, line.sha256) {
                firsts.entry(line.ino).or_insert(digest);
            }
            each(object)?;
        }
        Ok(())
    })
}

/// The receiver is gone when the caller has given up; then there is nobody to tell.
struct GivenUp;

struct Walker<'a> {
    groups: &'a Groups,
    /// The first name of each inode with several.
    first: HashMap<u64, TreePath>,
    objects: Sender<Result<Found>>,
    files: Sender<Job>,
}

impl Walker<'_> {
    fn run(mut self, root: BorrowedFd<'_>, known: impl FnMut(&Step<'_>) -> Result<Known>) {
        match self.walk(root, known) {
            Ok(Ok(()) | Err(GivenUp)) => {}
            Err(error) => self.give(Err(error)).unwrap_or(()),
        }
    }

    fn give(&self, found: Result<Found>) -> std::result::Result<(), GivenUp> {
        self.objects.send(found).map_err(|_| GivenUp)
    }

    fn walk(
        &mut self,
        root: BorrowedFd<'_>,
        mut known: impl FnMut(&Step<'_>) -> Result<Known>,
    ) -> Result<std::result::Result<(), GivenUp>> {
        let line = look_at_root(root)?;
        let root_found = Found {
            object: Object {
                path: TreePath::root(),
                line,
            },
            digest: Awaited::Here,
        };
        if self.give(Ok(root_found)).is_err() {
            return Ok(Err(GivenUp));
        }
        let mut walk = Walk::new(root)?;
        while let Some(step) = walk.advance()? {
            let known = known(&step)?;
            let is_directory = step.kind == Kind::Directory;
            let (found, job) = self.look(&step, known)?;
            if let Some(job) = job
                && self.files.send(job).is_err()
            {
                return Ok(Err(GivenUp));
            }
            if self.give(Ok(found)).is_err() {
                return Ok(Err(GivenUp));
            }
            if is_directory {
                walk.enter()?;
            }
        }
        Ok(Ok(()))
    }

    fn look(&mut self, step: &Step<'_>, known: Known) -> Result<(Found, Option<Job>)> {
        let path = step.path();
        let (mut line, digest, stat) = match known {
            Known::Line(line) => (line, None, None),
            Known::Digest(digest) => {
                let (line, stat) = look_at(step, &path)?;
                (line, Some(digest), Some(stat))
            }
            Known::Nothing => {
                let (line, stat) = look_at(step, &path)?;
                (line, None, Some(stat))
            }
        };
        let is_file = line.kind == Kind::File;
        let names = if line.kind == Kind::Directory {
            1
        } else {
            self.groups.names_of(line.ino)
        };
        let first = (names > 1).then(|| self.first.get(&line.ino).cloned()).flatten();
        line.set_group(names, first.as_ref());
        if names > 1 && first.is_none() {
            self.first.insert(line.ino, path.clone());
        }
        let mut job = None;
        let awaited = match (digest, stat) {
            (Some(digest), _) => {
                line.sha256 = is_file.then_some(digest);
                Awaited::Here
            }
            (None, Some(stat)) if is_file => {
                if first.is_some() {
                    Awaited::OfFirst
                } else {
                    let (answer, coming) = bounded(1);
                    let file =
                        at::open_data(step.dir, step.name).map_err(|errno| call("open", &path, errno))?;
                    job = Some(Job {
                        file,
                        before: stat,
                        path: path.clone(),
                        answer,
                    });
                    Awaited::Coming(coming)
                }
            }
            _ => Awaited::Here,
        };
        let found = Found {
            object: Object { path, line },
            digest: awaited,
        };
        Ok((found, job))
    }
}

fn look_at_root(root: BorrowedFd<'_>) -> Result<Line> {
    let path = TreePath::root();
    let stat = stat::stat_fd(root).map_err(|errno| call("look at", &path, errno))?;
    let meta =
        Meta::read(Target::Fd(root), &stat).map_err(|errno| call("read the attributes of", &path, errno))?;
    Ok(Line::new(0, b"", &stat, meta, None))
}

fn look_at(step: &Step<'_>, path: &TreePath) -> Result<(Line, Stat)> {
    let stat = stat::stat_at(step.dir, step.name).map_err(|errno| call("look at", path, errno))?;
    let meta = Meta::read(Target::At(step.dir, step.name), &stat)
        .map_err(|errno| call("read the attributes of", path, errno))?;
    let target = match meta.kind {
        Kind::Symlink => {
            Some(at::readlink_at(step.dir, step.name).map_err(|errno| call("read the link", path, errno))?)
        }
        _ => None,
    };
    Ok((Line::new(step.depth, step.name, &stat, meta, target), stat))
}

fn hash_all(jobs: &Receiver<Job>) {
    let mut buffer = vec![0; CHUNK];
    for job in jobs {
        let digest = hash(&job, &mut buffer);
        if job.answer.send(digest).is_err() {
            log::debug!("nobody waits for the digest of {}", job.path);
        }
    }
}

fn hash(job: &Job, buffer: &mut [u8]) -> Result<[u8; 32]> {
    let failed = |errno| call("read", &job.path, errno);
    let mut hasher = Sha256::new();
    let mut position: u64 = 0;
    loop {
        let n = io::read_at(job.file.as_fd(), buffer, position).map_err(failed)?;
        let Some(data) = buffer.get(..n).filter(|data| !data.is_empty()) else {
            break;
        };
        hasher.update(data);
        position = position.saturating_add(n as u64);
        if position > job.before.size {
            // It grows, perhaps as fast as it is read.
            break;
        }
    }
    let after = stat::stat_fd(&job.file).map_err(failed)?;
    let same = (job.before.ino, job.before.size, job.before.mtime) == (after.ino, position, after.mtime);
    if !same {
        return Err(BuildError::Refused {
            path: job.path.clone(),
            reason: "it was written while it was read; try again when nobody writes the tree".into(),
        });
    }
    Ok(hasher.finalize().into())
}

fn call(what: &'static str, path: &TreePath, errno: Errno) -> BuildError {
    BuildError::Call {
        what,
        path: path.clone(),
        errno,
    }
}
