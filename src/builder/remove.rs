//! Removing a whole tree.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::walk::Listing;
use super::{BuildError, Result, TreePath};
use crate::sys::{Errno, at, stat};

/// Directories of a path that are held open; those above are reached again through `..`.
const HELD_OPEN: usize = 128;

#[derive(Debug)]
struct Level {
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    /// Names of directories that are still to be removed; the last is the one in work.
    below: Vec<Box<[u8]>>,
}

/// Removes `name` in `parent` and everything below it, to any depth; one that is not there is no error.
///
/// Directories that cannot be written are made writable first. A mount point is not crossed.
///
/// # Errors
/// As unlinkat(2) and openat2(2), EXDEV for a mount point; the path in the message starts at `name`.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let mut path: Vec<Box<[u8]>> = Vec::new();
    let failed = |path: &[Box<[u8]>], what, errno| {
        let mut shown = TreePath::root().join(name);
        for name in path {
            shown = shown.join(name);
        }
        BuildError::Call {
            what,
            path: shown,
            errno,
        }
    };
    match at::unlink_at(parent, name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(failed(&path, "remove", errno)),
    }
    let mut levels = vec![empty_of_files(parent, name).map_err(|errno| failed(&path, "empty", errno))?];
    while let Some(level) = levels.last_mut() {
        let dir = level
            .fd
            .as_ref()
            .ok_or_else(|| failed(&path, "empty", Errno::BADF))?;
        if let Some(next) = level.below.last() {
            path.push(next.clone());
            let next = empty_of_files(dir, next).map_err(|errno| failed(&path, "empty", errno))?;
            levels.push(next);
            let far = levels.len().checked_sub(HELD_OPEN + 1);
            if let Some(level) = far.and_then(|at| levels.get_mut(at)) {
                level.fd = None;
            }
            continue;
        }
        let done = levels.pop().and_then(|level| level.fd);
        let Some(above) = levels.last_mut() else { break };
        let dir = match (&above.fd, &done) {
            (Some(dir), _) => dir,
            (None, Some(done)) => {
                let dir = back(done, above.identity).map_err(|errno| failed(&path, "go back from", errno))?;
                above.fd.insert(dir)
            }
            (None, None) => return Err(failed(&path, "go back from", Errno::BADF)),
        };
        if let Some(name) = above.below.pop() {
            at::rmdir_at(dir, &name).map_err(|errno| failed(&path, "remove", errno))?;
        }
        path.pop();
    }
    at::rmdir_at(parent, name).map_err(|errno| failed(&path, "remove", errno))
}

fn back(from: &OwnedFd, identity: (u64, u64)) -> crate::sys::Result<OwnedFd> {
    let dir = at::open_parent(from)?;
    let stat = stat::stat_fd(&dir)?;
    if (stat.dev, stat.ino) == identity {
        Ok(dir)
    } else {
        Err(Errno::STALE)
    }
}

/// Removes everything but directories from a directory.
fn empty_of_files(parent: impl std::os::fd::AsFd, name: &[u8]) -> crate::sys::Result<Level> {
    let fd = match at::open_dir_list(&parent, name) {
        Err(Errno::ACCESS) => {
            at::chmod_fd(at::open_dir_path(&parent, name)?, 0o700)?;
            at::open_dir_list(&parent, name)?
        }
        opened => opened?,
    };
    let found = stat::stat_fd(&fd)?;
    if found.mode & 0o300 != 0o300 {
        at::chmod_fd(&fd, 0o700)?;
    }
    let mut below = Vec::new();
    for raw in Listing::read(&fd)?.iter() {
        let kind = match raw.kind {
            0 => stat::stat_at(&fd, raw.name)?.kind(),
            kind => kind,
        };
        if kind == libc::S_IFDIR {
            below.push(raw.name.into());
        } else {
            at::unlink_at(&fd, raw.name)?;
        }
    }
    Ok(Level {
        fd: Some(fd),
        identity: (found.dev, found.ino),
        below,
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn to_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        at::mkdir_at(&root, b"t", 0o755).unwrap();
        let mut fd = at::open_dir_list(&root, b"t").unwrap();
        for depth in 0..HELD_OPEN * 3 {
            at::mkdir_at(&fd, b"d", 0o755).unwrap();
            at::mkdir_at(&fd, b"e", 0o500).unwrap();
            at::symlink_at(b"/", &fd, b"s").unwrap();
            fd = at::open_dir_list(&fd, if depth % 2 == 0 { b"d" } else { b"e" }).unwrap();
            at::chmod_fd(&fd, 0o755).unwrap();
        }
        remove_tree(root.as_fd(), b"t").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        remove_tree(root.as_fd(), b"t").unwrap();
    }
}
