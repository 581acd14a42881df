//! Paths inside a tree, with symlinks followed as if the tree's root were `/`: they never lead out.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::builder::{BuildError, Result, TreePath};
use crate::sys::stat::{Stat, stat_at, stat_fd};
use crate::sys::{Errno, at};

/// As many symlinks as the kernel follows in one path.
const LINKS: usize = 40;

/// A tree reached through the descriptor of its root.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    root: BorrowedFd<'a>,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path without symlinks in it.
    pub path: TreePath,
    /// What is there; nothing if it, or a directory above it, is missing.
    pub stat: Option<Stat>,
}

impl Place {
    /// True for a directory that is there.
    pub fn is_dir(&self) -> bool {
        self.stat.is_some_and(|stat| stat.is_dir())
    }
}

/// What to do with a symlink that a path ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is what is meant.
    Keep,
    /// What it points to is meant.
    Follow,
}

impl<'a> Tree<'a> {
    /// The tree below `root`.
    pub fn new(root: BorrowedFd<'a>) -> Self {
        Self { root }
    }

    /// Where `path` leads, absolute or not: it starts at the root.
    ///
    /// # Errors
    /// ELOOP for too many symlinks, ENOTDIR for a file used as a directory; else as openat2(2) and readlink(2).
    pub fn resolve(self, path: &[u8], last: Last) -> Result<Place> {
        self.resolve_from(&TreePath::root(), path, last)
    }

    /// As [`Tree::resolve`], from a directory whose path has no symlinks in it.
    ///
    /// # Errors
    /// As [`Tree::resolve`].
    pub fn resolve_from(self, from: &TreePath, path: &[u8], last: Last) -> Result<Place> {
        let names = |path: &[u8]| {
            let names = path.split(|byte| *byte == b'/');
            names
                .filter(|name| !name.is_empty() && *name != b".")
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        };
        let mut left: VecDeque<Vec<u8>> = names(path).into();
        let mut here = if path.starts_with(b"/") {
            TreePath::root()
        } else {
            from.clone()
        };
        let mut links = 0;
        let mut missing = false;
        while let Some(name) = left.pop_front() {
            if name == b".." {
                here = here.split().map(|(dir, _)| dir).unwrap_or_default();
                missing = false;
                continue;
            }
            let next = here.join(&name);
            if missing {
                here = next;
                continue;
            }
            let Some((dir, stat)) = self.look(&here, &name)? else {
                missing = true;
                here = next;
                continue;
            };
            if stat.kind() == libc::S_IFLNK && (!left.is_empty() || last == Last::Follow) {
                links += 1;
                if links > LINKS {
                    return Err(call("follow", &next, Errno::LOOP));
                }
                let target = at::readlink_at(&dir, &name).map_err(|errno| call("read", &next, errno))?;
                if target.starts_with(b"/") {
                    here = TreePath::root();
                }
                for name in names(&target).into_iter().rev() {
                    left.push_front(name);
                }
                continue;
            }
            if !stat.is_dir() && left.iter().any(|name| name != b"..") {
                return Err(call("go into", &next, Errno::NOTDIR));
            }
            here = next;
        }
        let stat = match here.split() {
            None => Some(stat_fd(self.root).map_err(|errno| call("look at", &here, errno))?),
            Some((dir, name)) => self.look(&dir, name)?.map(|(_, stat)| stat),
        };
        Ok(Place { path: here, stat })
    }

    /// What is at `path`, which has no symlinks in it above its last name.
    ///
    /// # Errors
    /// As openat2(2) and statx(2).
    pub fn at(self, path: &TreePath) -> Result<Option<Stat>> {
        match path.split() {
            None => stat_fd(self.root)
                .map(Some)
                .map_err(|errno| call("look at", path, errno)),
            Some((dir, name)) => Ok(self.look(&dir, name)?.map(|(_, stat)| stat)),
        }
    }

    fn look(self, dir: &TreePath, name: &[u8]) -> Result<Option<(OwnedFd, Stat)>> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let opened = match at::open_beneath(self.root, dir.as_bytes(), flags) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            opened => opened.map_err(|errno| call("open", dir, errno))?,
        };
        match stat_at(&opened, name) {
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(call("look at", &dir.join(name), errno)),
            Ok(stat) => Ok(Some((opened, stat))),
        }
    }

    /// Opens what is at `path`, which has no symlinks in it.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn open(self, path: &TreePath, flags: i32) -> Result<OwnedFd> {
        at::open_beneath(self.root, path.as_bytes(), flags).map_err(|errno| call("open", path, errno))
    }

    /// The directory that holds `path`, as an `O_PATH` descriptor, and its name there.
    ///
    /// # Errors
    /// As openat2(2); EINVAL for the root, which nothing in the tree holds.
    pub fn holder(self, path: &TreePath) -> Result<(OwnedFd, &[u8])> {
        let (dir, name) = path.split().ok_or_else(|| call("open", path, Errno::INVAL))?;
        Ok((self.open(&dir, libc::O_PATH | libc::O_DIRECTORY)?, name))
    }

    /// The content of a small file, symlinks followed; none if it is not there or no file.
    ///
    /// # Errors
    /// As openat2(2) and read(2); a file of more than `limit` bytes is refused.
    pub fn read(self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>> {
        let place = self.resolve(path, Last::Follow)?;
        match place.stat {
            Some(stat) if stat.is_file() => {}
            _ => return Ok(None),
        }
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = File::from(self.open(&place.path, flags)?);
        let mut content = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|error| {
                call(
                    "read",
                    &place.path,
                    Errno::from_io_error(&error).unwrap_or(Errno::IO),
                )
            })?;
        if content.len() as u64 > limit {
            return Err(BuildError::Refused {
                path: place.path,
                reason: format!("it is larger than {limit} bytes"),
            });
        }
        Ok(Some(content))
    }

    /// The root's descriptor.
    pub fn root(self) -> BorrowedFd<'a> {
        self.root
    }
}

impl AsFd for Tree<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root
    }
}

pub(super) fn call(what: &'static str, path: &TreePath, errno: Errno) -> BuildError {
    BuildError::Call {
        what,
        path: path.clone(),
        errno,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("usr/lib/x")).unwrap();
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/passwd"), "inside").unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("../../../../etc", root.join("usr/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("nowhere/x", root.join("dangling")).unwrap();
        let root = File::open(root).unwrap();
        let tree = Tree::new(root.as_fd());
        let path = |path: &str, last| {
            let place = tree.resolve(path.as_bytes(), last).unwrap();
            (place.path.to_string(), place.stat.is_some())
        };
        let there = |path: &str| (path.to_owned(), true);
        let missing = |path: &str| (path.to_owned(), false);
        assert_eq!(path("/lib/x", Last::Keep), there("/usr/lib/x"));
        assert_eq!(path("lib", Last::Keep), there("/lib"));
        assert_eq!(path("lib", Last::Follow), there("/usr/lib"));
        assert_eq!(path("absolute", Last::Follow), there("/etc/passwd"));
        assert_eq!(path("usr/up/passwd", Last::Follow), there("/etc/passwd"));
        assert_eq!(path("../../..", Last::Follow), there("/"));
        assert_eq!(path("dangling", Last::Follow), missing("/nowhere/x"));
        assert_eq!(path("lib/new/deep", Last::Follow), missing("/usr/lib/new/deep"));
        assert_eq!(path("new/../etc/passwd", Last::Follow), there("/etc/passwd"));
        let errno = |path: &str| tree.resolve(path.as_bytes(), Last::Follow).unwrap_err().errno();
        assert_eq!(errno("loop"), Some(Errno::LOOP));
        assert_eq!(errno("etc/passwd/x"), Some(Errno::NOTDIR));
        assert_eq!(tree.read(b"absolute", 100).unwrap().unwrap(), b"inside");
        assert!(tree.read(b"absolute", 3).is_err());
        assert_eq!(tree.read(b"dangling", 3).unwrap(), None);
    }
}
