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
    /// Under which name the overflow directory keeps copies; none are kept there without one.
    kept_as: Option<String>,
    /// The counter, behind that name, of the copy in use.
    counter: u32,
    /// A copy was made because all others were full when the group was brought together.
    followed: bool,
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
        if group.kept_as.is_none() && errno == Errno::MLINK && self.overflow.is_some() {
            let birth = at::open_path(source.dir, source.name)
                .and_then(stat::birth_time)
                .map_err(|errno| call("look at", to, errno))?;
            // The birth time tells an overflow that was copied elsewhere, where the numbers mean other files.
            group.kept_as =
                birth.map(|birth| format!("{}-{}.{:09}", source.stat.ino, birth.secs, birth.nanos));
        }
        self.next_copy(source, kind, to, &mut group)
    }

    /// Makes the next copy, linked to `to` and used from now on.
    fn next_copy(&self, source: &Source<'_>, kind: Kind, to: &Spot<'_>, group: &mut Group) -> Result<()> {
        let copy = match (&self.overflow, group.kept_as.clone()) {
            (Some(overflow), Some(name)) => self.overflow_copy(overflow, &name, source, kind, to, group)?,
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
        // A copy that fills up on the way is followed by one more; all of the group then goes there.
        while !self.regroup_once(root)? {}
        Ok(())
    }

    /// `false` if a copy filled up, so that it is to be done again.
    fn regroup_once(&self, root: BorrowedFd<'_>) -> Result<bool> {
        let groups: Vec<_> = self.copies.groups.lock().values().cloned().collect();
        let mut moved: HashMap<u64, &Mutex<Group>> = HashMap::new();
        for group in &groups {
            moved.extend(group.lock().full.iter().map(|ino| (*ino, &**group)));
        }
        if moved.is_empty() {
            return Ok(true);
        }
        let mut walk = Walk::new(root)?;
        while let Some(step) = walk.advance()? {
            if step.kind == Kind::Directory {
                walk.enter()?;
            } else if let Some(group) = moved.get(&step.ino) {
                let path = step.path();
                let (dir_path, name) = path.split().unwrap_or_default();
                let to = Spot {
                    root,
                    dir: step.dir,
                    dir_path: &dir_path,
                    name,
                };
                if !self.replace(&mut group.lock(), step.kind, &to)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Turns a name into a link to the group's copy, its directory keeps its times; `false` if the copy was full and
    /// there is a new one.
    fn replace(&self, group: &mut Group, kind: Kind, to: &Spot<'_>) -> Result<bool> {
        let failed = |errno| call("link a copy to", to, errno);
        let times = stat::stat_fd(to.dir).map_err(failed)?;
        let temporary = format!(".plyfs-{:016x}", random()).into_bytes();
        let beside = Spot {
            name: &temporary,
            ..*to
        };
        let linked = match &group.current {
            Some(copy) => self.link_copy(copy, &beside),
            None => Err(Errno::MLINK),
        };
        let goes_on = match linked {
            Ok(()) => {
                self.linked.fetch_sub(1, Ordering::Relaxed);
                true
            }
            Err(Errno::MLINK) => {
                self.follow_full_copy(group, kind, to, &beside)?;
                false
            }
            Err(errno) => return Err(failed(errno)),
        };
        at::rename_at(to.dir, &temporary, to.dir, to.name, RenameHow::Replace).map_err(failed)?;
        at::set_times_fd(to.dir, SetTime::At(times.atime), SetTime::At(times.mtime)).map_err(failed)?;
        Ok(goes_on)
    }

    /// Makes one more copy, at `beside`, which is going to be renamed to `to`.
    fn follow_full_copy(
        &self,
        group: &mut Group,
        kind: Kind,
        to: &Spot<'_>,
        beside: &Spot<'_>,
    ) -> Result<()> {
        if let Some(full) = group.current.take() {
            if group.followed {
                // Not even a fresh copy has room beside its name in the overflow directory: it does without that.
                if group.kept_as.take().is_none() {
                    return Err(call("link a copy to", to, Errno::MLINK));
                }
            }
            group.full.push(full.ino);
        }
        group.followed = true;
        let source = Source {
            dir: to.dir,
            name: to.name,
            stat: stat::stat_at(to.dir, to.name).map_err(|errno| call("look at", to, errno))?,
        };
        self.next_copy(&source, kind, beside, group)?;
        // One of a kept copy's two names replaces a name that is counted already.
        if group.kept_as.is_some() {
            self.linked.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(Copy {
            place: Place::Tree(path),
            ..
        }) = &mut group.current
        {
            *path = to.path();
        }
        Ok(())
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
