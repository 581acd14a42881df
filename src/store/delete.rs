//! Deleting a tree of any depth with few descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::{Errno, Result, at, dirent, stat};

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
pub(super) fn delete_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match at::unlink_at(dir, name) {
        // EISDIR as Linux has it, EPERM as POSIX has it.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    let mut path: Vec<(Box<[u8]>, Level)> = vec![(name.into(), enter(dir, name)?)];
    // Names that directories too deep get at the top: no file system gives such a name to anything else in tmp/.
    let mut moved: u64 = 0;
    while let Some((_, level)) = path.last_mut() {
        if let Some(name) = level.left.pop() {
            if path.len() < DEEPEST {
                let Some((_, level)) = path.last() else { break };
                let next = enter(level.dir.as_fd(), &name)?;
                path.push((name, next));
            } else {
                move_up(&mut path, &name, &mut moved)?;
            }
            continue;
        }
        let Some((name, level)) = path.pop() else { break };
        drop(level);
        let parent = path.last().map_or(dir, |(_, level)| level.dir.as_fd());
        match at::rmdir_at(parent, &name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
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
fn enter(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Level> {
    allow(dir, name)?;
    let opened = at::reopen_dir(at::open_dir_path(dir, name)?)?;
    let mut names = Vec::new();
    dirent::read_names(&opened, |entry| {
        names.push((entry.name, entry.kind));
        Ok(true)
    })?;
    let mut left = Vec::new();
    for (name, kind) in names {
        if kind == libc::S_IFDIR {
            left.push(name);
            continue;
        }
        match at::unlink_at(&opened, &name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => left.push(name),
            Err(errno) => return Err(errno),
        }
    }
    Ok(Level { dir: opened, left })
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
        delete_tree(top.as_fd(), b"tree").unwrap();
        delete_tree(top.as_fd(), b"tree").unwrap();
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
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0)).unwrap();
        }
        delete_tree(open(place.path()).as_fd(), b"t").unwrap();
        assert!(!place.path().join("t").exists());
    }
}
