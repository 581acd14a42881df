//! A walk over a tree: by descriptors, names sorted, to any depth, with few descriptors open.

use std::cmp::Ordering;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{BuildError, Kind, Result, TreePath};
use crate::sys::{Errno, at, dirent, io, stat};

/// File systems whose directories tell the inode numbers that stat(2) tells: ext2 to ext4, tmpfs, XFS, Btrfs, F2FS.
const TRUE_NUMBERS: [u64; 5] = [0xef53, 0x0102_1994, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];

/// True where the directories of the file system of `dir` tell the inode numbers that stat(2) tells.
///
/// # Errors
/// As fstatfs(2).
pub fn has_true_numbers(dir: impl AsFd) -> crate::sys::Result<bool> {
    io::fs_kind(dir).map(|kind| TRUE_NUMBERS.contains(&kind))
}

/// Directories of a path that are held open; those above are reached again through `..`.
const HELD_OPEN: usize = 128;

/// One name of a directory. Names lie one behind the other in the listing's own memory.
#[derive(Debug, Clone, Copy)]
struct Slot {
    ino: u64,
    start: u32,
    len: u16,
    kind: u16,
}

/// The names of one directory, sorted bytewise; some 16 bytes and the name itself for each.
#[derive(Debug, Default)]
pub struct Listing {
    text: Vec<u8>,
    slots: Vec<Slot>,
}

impl Listing {
    /// Reads the names of a directory that is open for reading.
    ///
    /// # Errors
    /// As getdents64(2); EFBIG for more than 4 GiB of names.
    pub fn read(dir: impl AsFd) -> crate::sys::Result<Self> {
        let mut listing = Self::default();
        dirent::read_raw::<Errno>(dir, |raw| {
            let start = u32::try_from(listing.text.len()).map_err(|_| Errno::FBIG)?;
            listing.text.extend_from_slice(raw.name);
            listing.slots.push(Slot {
                ino: raw.ino,
                start,
                len: u16::try_from(raw.name.len()).map_err(|_| Errno::NAMETOOLONG)?,
                // The type bits are the upper four of sixteen.
                kind: u16::try_from(raw.kind).map_err(|_| Errno::INVAL)?,
            });
            Ok(true)
        })?;
        let Self { text, slots } = &mut listing;
        slots.sort_unstable_by(|a, b| name_in(text, a).cmp(name_in(text, b)));
        Ok(listing)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True for an empty directory.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = dirent::Raw<'_>> {
        self.slots.iter().map(|slot| self.raw(slot))
    }

    fn get(&self, index: usize) -> Option<dirent::Raw<'_>> {
        self.slots.get(index).map(|slot| self.raw(slot))
    }

    fn raw(&self, slot: &Slot) -> dirent::Raw<'_> {
        dirent::Raw {
            name: name_in(&self.text, slot),
            kind: u32::from(slot.kind),
            ino: slot.ino,
        }
    }
}

fn name_in<'a>(text: &'a [u8], slot: &Slot) -> &'a [u8] {
    let start = slot.start as usize;
    text.get(start..start.saturating_add(usize::from(slot.len)))
        .unwrap_or_default()
}

/// One object on the walk.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The open directory that holds it.
    pub dir: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// Its inode number.
    pub ino: u64,
    /// Names in its path: 1 for an object in the root.
    pub depth: usize,
    path: &'a [u8],
}

impl Step<'_> {
    /// Its path from the root.
    pub fn path(&self) -> TreePath {
        TreePath::from_clean(self.path)
    }
}

#[derive(Debug)]
struct Level {
    /// Closed while the walk is far below.
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    listing: Listing,
    next: usize,
    /// Length of the path of this directory.
    path: usize,
}

/// A walk over everything below a root, parents before children, names sorted bytewise.
///
/// [`Walk::advance`] gives the next object; [`Walk::enter`] makes the walk go into the directory just given. One that
/// is not entered is passed by. Neither symlinks nor mount points are crossed.
///
/// ```no_run
/// # use plyfs::builder::{Kind, Result, walk::Walk};
/// # fn show(root: std::os::fd::BorrowedFd<'_>) -> Result<()> {
/// let mut walk = Walk::new(root)?;
/// while let Some(step) = walk.advance()? {
///     println!("{}", step.path());
///     if step.kind == Kind::Directory {
///         walk.enter()?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Walk {
    levels: Vec<Level>,
    path: Vec<u8>,
    /// Listings tell the right inode numbers.
    true_numbers: bool,
}

impl Walk {
    /// A walk over what is below `root`; the root itself is not given.
    ///
    /// # Errors
    /// If the root cannot be read.
    pub fn new(root: BorrowedFd<'_>) -> Result<Self> {
        let fd = at::reopen_dir(root).map_err(|errno| call("open", TreePath::root(), errno))?;
        let true_numbers = has_true_numbers(&fd).map_err(|errno| call("look at", TreePath::root(), errno))?;
        let mut walk = Self {
            levels: Vec::new(),
            path: Vec::new(),
            true_numbers,
        };
        walk.push(fd)?;
        Ok(walk)
    }

    /// The next object; `None` at the end.
    ///
    /// # Errors
    /// If an object's type cannot be read, or a directory on the way back was moved.
    pub fn advance(&mut self) -> Result<Option<Step<'_>>> {
        loop {
            let Some(level) = self.levels.last_mut() else {
                return Ok(None);
            };
            self.path.truncate(level.path);
            if level.next < level.listing.len() {
                level.next = level.next.saturating_add(1);
                return self.step().map(Some);
            }
            self.pop()?;
        }
    }

    /// Goes into the directory given last.
    ///
    /// # Errors
    /// If it cannot be read; a mount point is refused with EXDEV.
    pub fn enter(&mut self) -> Result<()> {
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        let (Some(dir), Some(raw)) = (
            &level.fd,
            level.next.checked_sub(1).and_then(|at| level.listing.get(at)),
        ) else {
            return Ok(());
        };
        let fd = at::open_dir_list(dir, raw.name).map_err(|errno| self.failed("open", errno))?;
        self.push(fd)
    }

    fn step(&mut self) -> Result<Step<'_>> {
        let Some(level) = self.levels.last() else {
            return Err(self.failed("read", Errno::BADF));
        };
        let (Some(dir), Some(raw)) = (
            &level.fd,
            level.next.checked_sub(1).and_then(|at| level.listing.get(at)),
        ) else {
            return Err(self.failed("read", Errno::BADF));
        };
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(raw.name);
        let (mode, ino) = if raw.kind == 0 || !self.true_numbers {
            let stat = stat::stat_at(dir, raw.name).map_err(|errno| self.failed("look at", errno))?;
            (stat.mode, stat.ino)
        } else {
            (raw.kind, raw.ino)
        };
        let kind = Kind::of_mode(mode).map_err(|errno| self.failed("look at", errno))?;
        Ok(Step {
            dir: dir.as_fd(),
            name: raw.name,
            kind,
            ino,
            depth: self.levels.len(),
            path: &self.path,
        })
    }

    fn push(&mut self, fd: OwnedFd) -> Result<()> {
        let stat = stat::stat_fd(&fd).map_err(|errno| self.failed("look at", errno))?;
        let listing = Listing::read(&fd).map_err(|errno| self.failed("list", errno))?;
        self.levels.push(Level {
            fd: Some(fd),
            identity: (stat.dev, stat.ino),
            listing,
            next: 0,
            path: self.path.len(),
        });
        let far = self.levels.len().checked_sub(HELD_OPEN + 1);
        // The root stays open: it may have no parent that can be read.
        if let Some(level) = far.filter(|at| *at > 0).and_then(|at| self.levels.get_mut(at)) {
            level.fd = None;
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<()> {
        let below = self.levels.pop().and_then(|level| level.fd);
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        if level.fd.is_some() {
            return Ok(());
        }
        let path = || TreePath::from_clean(self.path.get(..level.path).unwrap_or_default());
        let failed = |errno| call("go back to", path(), errno);
        let fd = at::open_parent(below.ok_or(Errno::BADF).map_err(failed)?).map_err(failed)?;
        let stat = stat::stat_fd(&fd).map_err(failed)?;
        if (stat.dev, stat.ino) != level.identity {
            return Err(BuildError::Refused {
                path: path(),
                reason: "a directory in it was moved away while the tree was read".into(),
            });
        }
        level.fd = Some(fd);
        Ok(())
    }

    fn failed(&self, what: &'static str, errno: Errno) -> BuildError {
        call(what, TreePath::from_clean(self.path.as_slice()), errno)
    }
}

fn call(what: &'static str, path: TreePath, errno: Errno) -> BuildError {
    BuildError::Call { what, path, errno }
}

/// How two paths follow each other on a walk: a directory before what is in it, and that before its next sibling.
///
/// Not the order of the bytes, where `a-b` comes between `a` and `a/b`.
pub fn order(a: &TreePath, b: &TreePath) -> Ordering {
    a.names().cmp(b.names())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(root: &std::path::Path) -> Vec<String> {
        let root = std::fs::File::open(root).unwrap();
        let mut walk = Walk::new(root.as_fd()).unwrap();
        let mut paths = Vec::new();
        while let Some(step) = walk.advance().unwrap() {
            paths.push(step.path().to_string());
            if step.kind == Kind::Directory {
                walk.enter().unwrap();
            }
        }
        paths
    }

    #[test]
    fn sorted_by_name_and_not_by_path() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/b", "a-b", "B/c/d", "z"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let paths = all(dir.path());
        assert_eq!(
            paths,
            ["/B", "/B/c", "/B/c/d", "/a", "/a/b", "/a-b", "/link", "/z"]
        );
        let paths: Vec<_> = paths
            .iter()
            .map(|path| TreePath::from_clean(&path.as_bytes()[1..]))
            .collect();
        assert!(paths.is_sorted_by(|a, b| order(a, b).is_lt()));
    }

    #[test]
    fn deeper_than_descriptors_are_held_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut fd: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        for _ in 0..HELD_OPEN * 3 {
            at::mkdir_at(&fd, b"d", 0o755).unwrap();
            at::mkdir_at(&fd, b"e", 0o755).unwrap();
            fd = at::open_dir_list(&fd, b"d").unwrap();
        }
        assert_eq!(all(dir.path()).len(), HELD_OPEN * 6);
    }
}
