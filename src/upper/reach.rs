//! From the root of a tree to an object in it, name by name; no symlink and no mount point is crossed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::error::call;
use super::{Result, UpperError};
use crate::builder::TreePath;
use crate::sys::stat::{self, Stat};
use crate::sys::{Errno, at};

/// A tree and what messages call it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) name: &'static str,
}

impl Tree<'_> {
    /// The directory at `path`, as an `O_PATH` descriptor.
    pub(super) fn dir(&self, path: &TreePath) -> Result<OwnedFd> {
        let failed = |what: &'static str| call(what, self.name, path);
        let mut here = at::open_dir_path(self.root, b".").map_err(failed("open"))?;
        for name in path.names() {
            here = at::open_dir_path(&here, name).map_err(|errno| match errno {
                Errno::XDEV => UpperError::Refused(format!(
                    "{path} of the {}: something is mounted on the way; unmount it first",
                    self.name
                )),
                errno => failed("open")(errno),
            })?;
        }
        Ok(here)
    }

    /// The directory that holds `path`, and the name in it.
    pub(super) fn parent<'p>(&self, path: &'p TreePath) -> Result<(OwnedFd, &'p [u8])> {
        let root = || UpperError::Refused(format!("{path} of the {} has no directory above it", self.name));
        let name = path.names().next_back().ok_or_else(root)?;
        let (above, _) = path.split().ok_or_else(root)?;
        Ok((self.dir(&above)?, name))
    }

    /// The object at `path`; none also where a directory on the way is missing.
    pub(super) fn look(&self, path: &TreePath) -> Result<Option<Stat>> {
        let Some((above, name)) = path.split() else {
            return stat::stat_fd(self.root)
                .map(Some)
                .map_err(call("look at", self.name, path));
        };
        match self.dir(&above) {
            Ok(dir) => look_in(dir.as_fd(), name).map_err(call("look at", self.name, path)),
            Err(UpperError::Call {
                errno: Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The object `name` in `dir`, if there is one.
pub(super) fn look_in(dir: BorrowedFd<'_>, name: &[u8]) -> crate::sys::Result<Option<Stat>> {
    match stat::stat_at(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
        Err(errno) => Err(errno),
    }
}
