//! Deleting a tree of any depth with few descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::stat::Stat;
use crate::sys::{Errno, Result, at, dirent, stat};

/// What a deletion gave back to the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Bytes of disk blocks. A file with names elsewhere frees none.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Freed {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            inodes: self.inodes.saturating_sub(other.inodes),
        }
    }

    /// One object, with its last name.
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            bytes: stat.blocks.saturating_mul(512),
            inodes: 1,
        }
    }
}

/// A directory deeper than this below the one to delete is first moved up.
const DEEPEST: usize = 64;

/// An open directory on the way down, and its subdirectories that are still to be deleted.
struct Level {
    dir: OwnedFd,
    left: Vec<Box<[u8]>>,
}

/// Deletes `name` in `dir` and everything below it; directories without write permission too.
///
/// A mount point below is not crossed. A name that is gone already is no error.
///
/// # Errors
/// As unlinkat(2) and openat2(2): EXDEV for a mount point below, EPERM for an immutable file.
pub(super) fn delete_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Freed> {
    let mut freed = Freed::default();
    if !unlink(dir, name, &mut freed)? {
        return Ok(freed);
    }
    let mut path: Vec<(Box<[u8]>, Level)> = vec![(name.into(), enter(dir, name, &mut freed)?)];
    // Names that directories too deep get at the top: no file system gives such a name to anything else in tmp/.
    let mut moved: u64 = 0;
    while let Some((_, level)) = path.last_mut() {
        if let Some(name) = level.left.pop() {
            if path.len() < DEEPEST {
                let Some((_, level)) = path.last() else { break };
                let next = enter(level.dir.as_fd(), &name, &mut freed)?;
                path.push((name, next));
            } else {
                move_up(&mut path, &name, &mut moved)?;
            }
            continue;
        }
        let Some((name, level)) = path.pop() else { break };
        freed = freed.and(Freed::of(&stat::stat_fd(&level.dir)?));
        drop(level);
        let parent = path.last().map_or(dir, |(_, level)| level.dir.as_fd());
        match at::rmdir_at(parent, &name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(freed)
}

/// Deletes a name that is no directory; whether it is one.
fn unlink(dir: BorrowedFd<'_>, name: &[u8], freed: &mut Freed) -> Result<bool> {
    let stat = match stat::stat_at(dir, name) {
        Err(Errno::NOENT) => return Ok(false),
        stat => stat?,
    };
    if stat.is_dir() {
        return Ok(true);
    }
    match at::unlink_at(dir, name) {
        Ok(()) if stat.nlink == 1 => *freed = freed.and(Freed::of(&stat)),
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    Ok(false)
}

/// Moves `name` of the last level to the first one, under a fresh name.
fn move_up(path: &mut [(Box<[u8]>, Level)], name: &[u8], moved: &mut u64) -> Result<()> {
    let [(_, top), .., (_, last)] = path else {
        return Err(Errno::INVAL);
    };
    // Its `..` changes, which asks for write permission on the directory itself.
    allow(last.dir.as_fd(), name)?;
    loop {
        *moved = moved.saturating_add(1);
        let fresh = format!("deep-{moved}").into_bytes();
        match at::rename_at(&last.dir, name, &top.dir, &fresh, at::RenameHow::NoReplace) {
            Ok(()) => {
                top.left.push(fresh.into());
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn allow(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let target = at::open_dir_path(dir, name)?;
    if stat::stat_fd(&target)?.mode & 0o700 == 0o700 {
        return Ok(());
    }
    at::chmod_fd(&target, 0o700)
}

/// Opens a directory, deletes everything in it that is none, and remembers its subdirectories.
fn enter(dir: BorrowedFd<'_>, name: &[u8], freed: &mut Freed) -> Result<Level> {
    allow(dir, name)?;
    let opened = at::reopen_dir(at::open_dir_path(dir, name)?)?;
    let mut left = Vec::new();
    dirent::read_names(&opened, |entry| {
        left.push(entry.name);
        Ok(true)
    })?;
    let mut failed = None;
    left.retain(|name| {
        unlink(opened.as_fd(), name, freed).unwrap_or_else(|errno| {
            failed = Some(errno);
            false
        })
    });
    match failed {
        None => Ok(Level { dir: opened, left }),
        Some(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open(path: &std::path::Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }

    #[test]
    fn deep_and_read_only() {
        let place = tempfile::tempdir().unwrap();
        let top = open(place.path());
        at::mkdir_at(&top, b"tree", 0o755).unwrap();
        let mut dir = at::open_dir_path(&top, b"tree").unwrap();
        // Deeper than PATH_MAX allows, and than descriptors are kept.
        for _ in 0..1000 {
            at::mkdir_at(&dir, b"a-name-of-some-length", 0o755).unwrap();
            at::symlink_at(b"/etc", &dir, b"link").unwrap();
            let next = at::open_dir_path(&dir, b"a-name-of-some-length").unwrap();
            at::chmod_fd(&dir, 0o500).unwrap();
            dir = next;
        }
        std::fs::write(place.path().join("beside"), b"").unwrap();
        assert_eq!(delete_tree(top.as_fd(), b"tree").unwrap().inodes, 2001);
        assert_eq!(delete_tree(top.as_fd(), b"tree").unwrap(), Freed::default());
        let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn wide() {
        let place = tempfile::tempdir().unwrap();
        for n in 0..300 {
            let dir = place.path().join(format!("t/{n}"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("f"), b"").unwrap();
            std::fs::hard_link(dir.join("f"), place.path().join(format!("kept-{n}"))).unwrap();
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o000)).unwrap();
        }
        assert_eq!(delete_tree(open(place.path()).as_fd(), b"t").unwrap().inodes, 301);
        assert!(!place.path().join("t").exists());
    }
}
