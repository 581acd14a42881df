//! Taking one's own mount out of the tree.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::error::MountError;
use super::setup::mounted_at;
use super::{helper, mountinfo};
use crate::sys::{Errno, fusedev};

/// How to take one mount out of the tree, and never another one that has come to lie at the same place.
#[derive(Debug, Clone)]
pub(super) struct TakeDown {
    pub(super) mount_id: u64,
    pub(super) merged: PathBuf,
    pub(super) helper: Option<PathBuf>,
}

impl TakeDown {
    /// For the view that was just mounted on `merged` by the helper, which does not tell its number.
    pub(super) fn of_topmost(merged: &Path, helper: Option<PathBuf>) -> Self {
        let mount_id = mountinfo::read()
            .ok()
            .and_then(|mounts| mounted_at(&mounts, merged).map(|entry| entry.id))
            .unwrap_or_default();
        Self {
            mount_id,
            merged: merged.to_owned(),
            helper,
        }
    }

    /// Unmounts; a mount in use leaves the tree at once and ends with its last user.
    pub(super) fn run(&self, lazy: bool) -> Result<(), MountError> {
        let mounts =
            mountinfo::read().map_err(MountError::io("cannot read", Path::new("/proc/self/mountinfo")))?;
        let Some(ours) = mounts
            .iter()
            .find(|entry| entry.id == self.mount_id && entry.kind == mountinfo::KIND)
        else {
            return Ok(());
        };
        if mountinfo::topmost(&mounts, &ours.point).is_some_and(|top| top.id != ours.id) {
            return Err(MountError::Busy {
                path: ours.point.clone(),
                users: "\n  another file system is mounted over it".to_owned(),
            });
        }
        if let Some(helper) = &self.helper {
            let failed = |said| MountError::Helper {
                path: ours.point.clone(),
                said,
            };
            return match helper::unmount(helper, &ours.point, lazy) {
                Err(_) if !lazy => helper::unmount(helper, &ours.point, true).map_err(failed),
                other => other.map_err(failed),
            };
        }
        match fusedev::detach(&ours.point, lazy) {
            Err(Errno::BUSY) => {
                log::info!(
                    "{} is in use: it leaves the tree now and ends with its last user",
                    ours.point.display()
                );
                fusedev::detach(&ours.point, true)
            }
            other => other,
        }
        .map_err(MountError::io("cannot unmount", &ours.point))
    }

    /// The same, where nobody waits for the answer.
    pub(super) fn after_failure(&self) {
        if let Err(error) = self.run(true) {
            log::error!("{error}");
        }
    }
}

/// The number of the mount that an open descriptor lies on, asked without a request to its server.
pub(super) fn mount_id(mount: BorrowedFd<'_>) -> std::io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", mount.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| std::io::Error::other("no mnt_id"))
}
