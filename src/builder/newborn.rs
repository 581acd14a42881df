//! A tree that appears whole or not at all.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::remove::remove_tree;
use super::{BuildError, Result};
use crate::sys::at::RenameHow;
use crate::sys::{Errno, at, io, stat};

/// A number nobody guesses, for temporary names.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Where a new tree is to appear: a name that does not exist, or an empty directory.
#[derive(Debug)]
pub struct Place {
    shown: PathBuf,
    parent: OwnedFd,
    name: Vec<u8>,
}

impl Place {
    /// Looks at a place. Nothing is made yet.
    ///
    /// # Errors
    /// If it is taken, or its directory cannot be reached.
    pub fn find(place: &Path) -> Result<Self> {
        let bad = |reason: String| BuildError::Place {
            place: place.to_path_buf(),
            reason,
        };
        let broken = |error: std::io::Error| bad(error.to_string());
        // An existing directory may be named by a symlink, or as "."; the new one takes its place.
        let whole = match std::fs::canonicalize(place) {
            Ok(whole) => {
                if std::fs::read_dir(&whole).map_err(broken)?.next().is_some() {
                    return Err(bad("it is not empty: give a name that does not exist".into()));
                }
                whole
            }
            Err(_) if place.is_symlink() => {
                return Err(bad(
                    "it is a symlink that leads nowhere: give a name that does not exist".into(),
                ));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => place.to_path_buf(),
            Err(error) => return Err(broken(error)),
        };
        let name = whole
            .file_name()
            .ok_or_else(|| bad("it has no name that could be given to a new tree".into()))?;
        let dir = match whole.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let parent =
            std::fs::File::open(dir).map_err(|error| bad(format!("cannot reach its directory: {error}")))?;
        Ok(Self {
            shown: place.to_path_buf(),
            parent: parent.into(),
            name: name.as_bytes().to_vec(),
        })
    }

    /// Whether the place lies in the tree whose root is open.
    ///
    /// # Errors
    /// If the way up cannot be gone.
    pub fn lies_in(&self, root: BorrowedFd<'_>) -> Result<bool> {
        self.is_in(root)
            .map_err(|errno| self.bad("cannot look at its directories", errno))
    }

    fn is_in(&self, root: BorrowedFd<'_>) -> crate::sys::Result<bool> {
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

    /// Makes an empty directory (mode 0700) beside the place.
    ///
    /// # Errors
    /// If the directory around cannot be written.
    pub fn make(self) -> Result<Newborn> {
        let temporary = format!(".plyfs-{:016x}", random()).into_bytes();
        let made = at::mkdir_at(&self.parent, &temporary, 0o700);
        let root = made.and_then(|()| at::open_dir_list(&self.parent, &temporary));
        match root {
            Ok(root) => Ok(Newborn {
                place: self,
                temporary: Some(temporary),
                root,
            }),
            Err(errno) => Err(self.bad("cannot make a directory beside it", errno)),
        }
    }

    fn bad(&self, what: &str, errno: Errno) -> BuildError {
        BuildError::Place {
            place: self.shown.clone(),
            reason: format!("{what}: {errno}"),
        }
    }
}

/// A directory built under a temporary name beside its place, and renamed when it is done.
///
/// Dropped before [`Newborn::publish`], it is removed with everything in it.
#[derive(Debug)]
pub struct Newborn {
    place: Place,
    /// The temporary name; `None` once published.
    temporary: Option<Vec<u8>>,
    root: OwnedFd,
}

impl Newborn {
    /// An empty directory beside `place`, which must not exist or be an empty directory.
    ///
    /// # Errors
    /// As [`Place::find`] and [`Place::make`].
    pub fn at(place: &Path) -> Result<Self> {
        Place::find(place)?.make()
    }

    /// The new tree's root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Brings the file system of the tree to disk, so that a machine that dies after [`Newborn::publish`] has the
    /// data of its files too. Names and links need no such help on file systems with a journal.
    ///
    /// # Errors
    /// As syncfs(2): ENOSPC, EDQUOT, EIO.
    pub fn sync(&self) -> Result<()> {
        io::sync_fs(&self.root)
            .map_err(|errno| self.place.bad("cannot bring the finished tree to disk", errno))
    }

    /// Gives the tree its name, in one step.
    ///
    /// # Errors
    /// As renameat(2): ENOTEMPTY or ENOTDIR if the name is taken by now.
    pub fn publish(mut self) -> Result<()> {
        if let Some(temporary) = self.temporary.take() {
            let Place { parent, name, .. } = &self.place;
            // Of all there may be, rename(2) lets a directory replace an empty directory only.
            let done = at::rename_at(parent, &temporary, parent, name, RenameHow::Replace);
            if let Err(errno) = done {
                let error = self.place.bad("cannot give the finished tree this name", errno);
                self.temporary = Some(temporary);
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take()
            && let Err(error) = remove_tree(self.place.parent.as_fd(), &temporary)
        {
            log::warn!("what was built so far is left behind: {error}");
        }
    }
}
