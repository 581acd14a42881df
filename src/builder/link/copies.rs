//! The copies that carry further links in the place of an inode that cannot.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::{Linker, Source, Spot, call};
use crate::builder::newborn::random;
use crate::builder::walk::Walk;
use crate::builder::{Kind, Result, TreePath};
use crate::sys::at::{RenameHow, SetTime};
use crate::sys::{Errno, at, stat};

/// By device and inode number of the original.
type ByInode = HashMap<(u64, u64), Arc<Mutex<Group>>>;

/// All originals for which a copy was needed.
#[derive(Debug, Default)]
pub(super) struct Copies {
    groups: Mutex<ByInode>,
}

/// One original and its copies.
#[derive(Debug, Default)]
struct Group {
    /// The copy that takes further links.
    current: Option<Copy>,
    /// Inodes, the original among them, that were full when a name was to be linked.
    full: Vec<u64>,
    /// The counter in the overflow directory of the copy in use.
    counter: u32,
}

#[derive(Debug, Clone)]
struct Copy {
    ino: u64,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    /// In the new tree.
    Tree(TreePath),
    /// In the overflow directory.
    Overflow(Vec<u8>),
}

impl Copies {
    fn group(&self, source: &Source<'_>) -> Arc<Mutex<Group>> {
        let key = (source.stat.dev, source.stat.ino);
        Arc::clone(self.groups.lock().entry(key).or_default())
    }
}

impl Linker {
    /// Makes a name for an object with several names, whose inode takes no link for the reason `errno`.
    ///
    /// The group's lock is held meanwhile, so that two threads do not make two copies of one object.
    pub(super) fn instead_of_group(
        &self,
        source: &Source<'_>,
        kind: Kind,
        to: &Spot<'_>,
        errno: Errno,
    ) -> Result<()> {
        let group = self.copies.group(source);
        let mut group = group.lock();
        if errno == Errno::MLINK && group.full.is_empty() {
            group.full.push(source.stat.ino);
        }
        if let Some(copy) = group.current.clone() {
            match self.link_copy(&copy, to) {
                Ok(()) => return Ok(()),
                Err(Errno::MLINK) => {
                    group.full.push(copy.ino);
                    group.current = None;
                }
                // What was built over it has replaced it meanwhile.
                Err(Errno::NOENT) => group.current = None,
                Err(errno) => return Err(call("link a copy to", to, errno)),
            }
        }
        let birth = at::open_path(source.dir, source.name)
            .and_then(stat::birth_time)
            .map_err(|errno| call("look at", to, errno))?;
        let copy = match (&self.overflow, birth) {
            // The birth time tells an overflow that was copied elsewhere, where the numbers mean other files.
            (Some(overflow), Some(birth)) if errno == Errno::MLINK => {
                let original = format!("{}-{}.{:09}", source.stat.ino, birth.secs, birth.nanos);
                self.overflow_copy(overflow, &original, source, kind, to, &mut group)?
            }
            _ => Copy {
                ino: self.copy(source, kind, to.dir, to.name, to)?,
                place: Place::Tree(to.path()),
            },
        };
        group.current = Some(copy);
        Ok(())
    }

    /// The first copy in the overflow directory that takes a link, made if there is none; linked to `to`.
    fn overflow_copy(
        &self,
        overflow: &OwnedFd,
        original: &str,
        source: &Source<'_>,
        kind: Kind,
        to: &Spot<'_>,
        group: &mut Group,
    ) -> Result<Copy> {
        let in_overflow = |errno| call("keep a copy in the overflow directory of", to, errno);
        loop {
            group.counter = group.counter.saturating_add(1);
            let name = format!("{original}.{}", group.counter).into_bytes();
            let found = match stat::stat_at(overflow, &name) {
                Ok(stat) => Some(stat.ino),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(in_overflow(errno)),
            };
            let ino = match found {
                Some(ino) => ino,
                None => {
                    let temporary = format!("new-{:016x}", random()).into_bytes();
                    let ino = self.copy(source, kind, overflow.as_fd(), &temporary, to)?;
                    let named = at::rename_at(overflow, &temporary, overflow, &name, RenameHow::NoReplace);
                    if named.is_err() {
                        at::unlink_at(overflow, &temporary).map_err(in_overflow)?;
                    }
                    match named {
                        Ok(()) => ino,
                        // Another clone of the same source was first.
                        Err(Errno::EXIST) => stat::stat_at(overflow, &name).map_err(in_overflow)?.ino,
                        Err(errno) => return Err(in_overflow(errno)),
                    }
                }
            };
            let copy = Copy {
                ino,
                place: Place::Overflow(name),
            };
            match self.link_copy(&copy, to) {
                Ok(()) => return Ok(copy),
                Err(Errno::MLINK) => group.full.push(ino),
                Err(errno) => return Err(in_overflow(errno)),
            }
        }
    }

    /// Links a copy; ENOENT if it is no longer where it was.
    fn link_copy(&self, copy: &Copy, to: &Spot<'_>) -> crate::sys::Result<()> {
        let opened;
        let (dir, name) = match &copy.place {
            Place::Overflow(name) => {
                let dir = self.overflow.as_ref().ok_or(Errno::NOENT)?;
                (dir.as_fd(), name.as_slice())
            }
            Place::Tree(path) => {
                let (dir, name) = path.split().ok_or(Errno::NOENT)?;
                opened = open_below(to.root, &dir)?;
                (opened.as_fd(), name)
            }
        };
        let stat = stat::stat_at(dir, name)?;
        if stat.ino != copy.ino {
            return Err(Errno::NOENT);
        }
        if self.limit.is_some_and(|limit| stat.nlink >= limit) {
            return Err(Errno::MLINK);
        }
        at::link_at(dir, name, to.dir, to.name)?;
        self.linked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Brings groups together again whose inode became full in their middle: every name in the new tree that shares
    /// a full inode becomes a link to the copy that took over.
    ///
    /// # Errors
    /// If a name cannot be replaced.
    pub(in crate::builder) fn regroup(&self, root: BorrowedFd<'_>) -> Result<()> {
        let mut moved: HashMap<u64, Copy> = HashMap::new();
        for group in self.copies.groups.lock().values() {
            let group = group.lock();
            if let Some(copy) = &group.current {
                moved.extend(group.full.iter().map(|ino| (*ino, copy.clone())));
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        let mut walk = Walk::new(root)?;
        while let Some(step) = walk.advance()? {
            if step.kind == Kind::Directory {
                walk.enter()?;
            } else if let Some(copy) = moved.get(&step.ino) {
                let path = step.path();
                let (dir_path, name) = path.split().unwrap_or_default();
                let to = Spot {
                    root,
                    dir: step.dir,
                    dir_path: &dir_path,
                    name,
                };
                self.replace(copy, &to)
                    .map_err(|errno| call("link a copy to", &to, errno))?;
            }
        }
        Ok(())
    }

    /// Turns a name into a link to the copy; the directory keeps its times.
    fn replace(&self, copy: &Copy, to: &Spot<'_>) -> crate::sys::Result<()> {
        let times = stat::stat_fd(to.dir)?;
        let temporary = format!(".plyfs-{:016x}", random()).into_bytes();
        let beside = Spot {
            name: &temporary,
            ..*to
        };
        self.link_copy(copy, &beside)?;
        self.linked.fetch_sub(1, Ordering::Relaxed);
        at::rename_at(to.dir, &temporary, to.dir, to.name, RenameHow::Replace)?;
        at::set_times_fd(to.dir, SetTime::At(times.atime), SetTime::At(times.mtime))
    }
}

/// Opens a directory of a tree name by name, through no symlink.
fn open_below(root: BorrowedFd<'_>, path: &TreePath) -> crate::sys::Result<OwnedFd> {
    let mut dir = at::open_dir_path(root, b".")?;
    for name in path.names() {
        dir = at::open_dir_path(&dir, name)?;
    }
    Ok(dir)
}
