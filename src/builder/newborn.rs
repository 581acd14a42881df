//! A tree that appears whole or not at all.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::remove::remove_tree;
use super::{BuildError, Result, TreePath};
use crate::sys::at::RenameHow;
use crate::sys::{Errno, at, stat};

/// A number nobody guesses, for temporary names.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A directory built under a temporary name beside its place, and renamed when it is done.
///
/// Dropped before [`Newborn::publish`], it is removed with everything in it.
#[derive(Debug)]
pub struct Newborn {
    parent: OwnedFd,
    name: Vec<u8>,
    /// The temporary name; `None` once published.
    temporary: Option<Vec<u8>>,
    root: OwnedFd,
}

impl Newborn {
    /// An empty directory (mode 0700) beside `place`, which must not exist or be an empty directory.
    ///
    /// # Errors
    /// If `place` is taken, or its directory cannot be written. The path in the message is `place`'s last name.
    pub fn at(place: &Path) -> Result<Self> {
        let shown = || TreePath::from_clean(place.as_os_str().as_bytes());
        let refused = |reason: &str| BuildError::Refused {
            path: shown(),
            reason: reason.into(),
        };
        let failed = |what, errno| BuildError::Call {
            what,
            path: shown(),
            errno,
        };
        let broken =
            |what, error: &std::io::Error| failed(what, Errno::from_io_error(error).unwrap_or(Errno::IO));
        // An existing directory may be named by a symlink, or as "."; the new one takes its place.
        let whole = match std::fs::canonicalize(place) {
            Ok(whole) => {
                let mut names = std::fs::read_dir(&whole).map_err(|error| broken("list", &error))?;
                if names.next().is_some() {
                    return Err(refused("it is not empty: give a name that does not exist"));
                }
                whole
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => place.to_path_buf(),
            Err(error) => return Err(broken("reach", &error)),
        };
        let name = whole
            .file_name()
            .ok_or_else(|| refused("it cannot be replaced"))?;
        let dir = match whole.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let dir = std::fs::File::open(dir).map_err(|error| broken("reach the directory of", &error))?;
        Self::in_dir(dir.into(), name).map_err(|errno| failed("make a directory beside", errno))
    }

    fn in_dir(parent: OwnedFd, name: &OsStr) -> crate::sys::Result<Self> {
        let temporary = format!(".plyfs-{:016x}", random()).into_bytes();
        at::mkdir_at(&parent, &temporary, 0o700)?;
        let root = at::open_dir_list(&parent, &temporary)?;
        Ok(Self {
            parent,
            name: name.as_bytes().to_vec(),
            temporary: Some(temporary),
            root,
        })
    }

    /// The new tree's root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether the new tree lies in the tree whose root is open.
    ///
    /// # Errors
    /// As openat(2) on the way up.
    pub fn lies_in(&self, root: BorrowedFd<'_>) -> crate::sys::Result<bool> {
        let identity = |fd: BorrowedFd<'_>| stat::stat_fd(fd).map(|stat| (stat.dev, stat.ino));
        let wanted = identity(root)?;
        let mut dir = at::open_path(&self.parent, b".")?;
        loop {
            let here = identity(dir.as_fd())?;
            if here == wanted {
                return Ok(true);
            }
            let above = at::open_path(&dir, b"..")?;
            if identity(above.as_fd())? == here {
                return Ok(false);
            }
            dir = above;
        }
    }

    /// Gives the tree its name, in one step.
    ///
    /// # Errors
    /// As renameat(2): ENOTEMPTY or ENOTDIR if the name is taken by now.
    pub fn publish(mut self) -> Result<()> {
        if let Some(temporary) = self.temporary.take() {
            // Of all there may be, rename(2) lets a directory replace an empty directory only.
            let done = at::rename_at(
                &self.parent,
                &temporary,
                &self.parent,
                &self.name,
                RenameHow::Replace,
            );
            if let Err(errno) = done {
                self.temporary = Some(temporary);
                return Err(BuildError::Call {
                    what: "give its name to",
                    path: TreePath::from_clean(self.name.as_slice()),
                    errno,
                });
            }
        }
        Ok(())
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take()
            && let Err(error) = remove_tree(self.parent.as_fd(), &temporary)
        {
            log::warn!("what was built so far is left behind: {error}");
        }
    }
}
