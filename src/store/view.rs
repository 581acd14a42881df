//! A merged view of a layer for the store's own use.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Result, StoreError};
use crate::format::Namespace;
use crate::mount::unmount::unmount;
use crate::mount::{Directories, Options, Outcome, Request, mount, mountinfo, who};
use crate::overlay::FsyncMode;
use crate::sys::Errno;
use crate::sys::caller::Caller;
use crate::sys::fusedev::{self, exit_now};

/// How long a view lasts, and how safe its changes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Until somebody unmounts it.
    Own,
    /// It is unmounted when this process ends, however it ends.
    WithProcess,
    /// The same, and nothing of it is wanted after a crash: nothing is brought to disk.
    Volatile,
}

/// A mounted view; unmounted when it is dropped, unless it was left to itself.
#[derive(Debug)]
pub struct View {
    merged: PathBuf,
    live: bool,
}

impl View {
    /// Mounts. What `mount` and `df` show as its source is `source`, or the lower's path. The background server is a copy of this process: to be called while it has no threads, and holds no
    /// lock but those that the view shall keep.
    ///
    /// # Errors
    /// Whatever stood in the way; nothing is mounted then.
    pub fn mount(
        directories: Directories,
        source: Option<OsString>,
        lasting: Lasting,
        read_only: bool,
    ) -> Result<Self> {
        let mut options = Options::default();
        options.attributes.read_only = read_only;
        if lasting == Lasting::Volatile {
            options.fsync = FsyncMode::Volatile;
        }
        let merged = directories.merged.clone();
        let request = Request {
            directories,
            options,
            source,
            foreign: false,
            foreground: false,
            remove_mount_point: false,
            log: false,
            passing: lasting != Lasting::Own,
            engine: false,
        };
        match mount(&request, |_| {})? {
            Outcome::Ready(_) => Ok(Self { merged, live: true }),
            // This is the server, at its end: what else there is in this process belongs to the other one.
            Outcome::Ended => exit_now(0),
        }
    }

    /// Where it is seen.
    pub fn path(&self) -> &Path {
        &self.merged
    }

    /// It stays when this is dropped.
    pub fn leave(mut self) {
        self.live = false;
    }

    /// Unmounts, and waits until all changes are in the upper.
    ///
    /// # Errors
    /// When somebody else uses it.
    pub fn unmount(mut self) -> Result<()> {
        self.live = false;
        // Somebody who looks at all mounts, a desktop's file manager say, may have it open for a moment.
        unmount(&self.merged, false, |_| {})
            .or_else(|_| unmount(&self.merged, true, |_| {}))
            .map(|_| ())
            .map_err(StoreError::from)
    }
}

/// In which namespace a view that this process mounts keeps its private marks.
#[must_use]
pub fn marks() -> Namespace {
    // As the mount's own probe finds: `trusted.` attributes are for root of the machine.
    const CAP_SYS_ADMIN: u32 = 21;
    if who::is_true_root() && Caller::read(std::process::id()).has(CAP_SYS_ADMIN) {
        Namespace::Trusted
    } else {
        Namespace::User
    }
}

/// Takes away the dead views below `place` that killed servers left: a directory with one in it cannot be deleted.
///
/// # Errors
/// When the mount table cannot be read, or one cannot be unmounted.
pub fn clear_dead(place: &Path) -> Result<()> {
    let table = Path::new("/proc/self/mountinfo");
    let mounts = mountinfo::read().map_err(StoreError::io("read", table))?;
    let ours = mounts
        .iter()
        .filter(|mount| mount.kind == mountinfo::KIND && mount.point.starts_with(place));
    for mount in ours {
        let dead = matches!(
            rustix::fs::statfs(&mount.point),
            Err(Errno::NOTCONN | Errno::CONNABORTED)
        );
        if dead {
            log::info!("{}: a dead view is cleared away", mount.point.display());
            fusedev::detach(&mount.point, true).map_err(StoreError::errno("unmount", &mount.point))?;
        }
    }
    Ok(())
}

impl Drop for View {
    fn drop(&mut self) {
        if self.live
            && let Err(error) = unmount(&self.merged, true, |_| {})
        {
            log::warn!("{error}");
        }
    }
}
