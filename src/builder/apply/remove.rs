//! Removing a directory with all that is in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::place::Dir;
use crate::builder::{BuildError, Result, TreePath};
use crate::sys::{at, dirent, stat};

/// Directories that one listing remembers. More are found by the next listing.
const AT_ONCE: usize = 256;

/// Removes a name that is no directory: the directory, the name, its inode number, the path of the directory.
pub(super) type RemoveName<'a> = &'a mut dyn FnMut(BorrowedFd<'_>, &[u8], u64, &TreePath) -> Result<()>;

/// Removes the directory `name`. One descriptor is open at a time, and the way back up is `..`, so depth costs
/// nothing but the names on the way.
pub(super) fn tree(dir: &Dir, name: &[u8], privileged: bool, remove: RemoveName<'_>) -> Result<()> {
    struct Level {
        name: Vec<u8>,
        below: Vec<Vec<u8>>,
        more: bool,
    }
    let call = |what, path: &TreePath, errno| BuildError::Call {
        what,
        path: path.clone(),
        errno,
    };
    let mut path = dir.join(name);
    let mut here = enter(dir.fd.as_fd(), name, &path, privileged)?;
    let mut levels = vec![Level {
        name: name.to_vec(),
        below: Vec::new(),
        more: true,
    }];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.below.pop() {
            path = path.join(&name);
            here = enter(here.as_fd(), &name, &path, privileged)?;
            levels.push(Level {
                name,
                below: Vec::new(),
                more: true,
            });
            continue;
        }
        if level.more {
            level.below = clear_names(here.as_fd(), &path, remove)?;
            level.more = level.below.len() == AT_ONCE;
            continue;
        }
        let name = std::mem::take(&mut level.name);
        levels.pop();
        let above = if levels.is_empty() {
            None
        } else {
            let up = at::open_at(&here, b"..", libc::O_PATH | libc::O_DIRECTORY);
            Some(up.map_err(|errno| call("leave", &path, errno))?)
        };
        let fd = above.as_ref().map_or(dir.fd.as_fd(), OwnedFd::as_fd);
        at::rmdir_at(fd, &name).map_err(|errno| call("remove the directory", &path, errno))?;
        path = path.split().map(|(above, _)| above).unwrap_or_default();
        if let Some(above) = above {
            here = above;
        }
    }
    Ok(())
}

fn enter(dir: BorrowedFd<'_>, name: &[u8], path: &TreePath, privileged: bool) -> Result<OwnedFd> {
    let call = |errno| BuildError::Call {
        what: "open",
        path: path.clone(),
        errno,
    };
    let fd = at::open_dir_path(dir, name).map_err(call)?;
    if !privileged && stat::stat_fd(&fd).map_err(call)?.mode & 0o700 != 0o700 {
        at::chmod_fd(&fd, 0o700).map_err(call)?;
    }
    Ok(fd)
}

/// Removes all names that are no directories; answers some that are.
fn clear_names(dir: BorrowedFd<'_>, path: &TreePath, remove: RemoveName<'_>) -> Result<Vec<Vec<u8>>> {
    let call = |errno| BuildError::Call {
        what: "list",
        path: path.clone(),
        errno,
    };
    let mut below = Vec::new();
    let mut failed = None;
    let list = at::reopen_dir(dir).map_err(call)?;
    dirent::read_names(&list, |entry| {
        let is_dir = match entry.kind {
            0 => stat::stat_at(dir, &entry.name)?.is_dir(),
            kind => kind == libc::S_IFDIR,
        };
        if is_dir {
            below.push(entry.name.into_vec());
            return Ok(below.len() < AT_ONCE);
        }
        if let Err(error) = remove(dir, &entry.name, entry.ino, path) {
            failed = Some(error);
        }
        Ok(failed.is_none())
    })
    .map_err(call)?;
    failed.map_or(Ok(below), Err)
}
