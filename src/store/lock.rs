//! Who may do what at the same time: flock(2) on files and directories of the store.
//!
//! - The file `lock`: shared for the moment in which something is published (a layer, an image, a name, a
//!   container), exclusive for the moment in which is decided what nobody needs and that is renamed to `tmp/`.
//!   Neither is held while a tree is built or deleted.
//! - The directory of a layer: shared by everybody who relies on the layer (a [`super::Layer`], the server of a
//!   mount); who removes it must have it exclusively.
//! - An entry of `tmp/`: shared by who makes it. Without a lock it is rubbish.
//! - A file `tmp/birth-<chain-id>`: exclusive for who builds that layer; the next one waits, and finds it.
//!
//! The kernel drops a lock with its process, so nothing is left of one that was killed.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FlockOperation, flock};

use super::{Result, Store, StoreError};
use crate::sys::{self, Errno, at, stat};

/// While this lives, nothing is decided to be rubbish. Hold it shortly: who deletes waits for it.
#[derive(Debug)]
pub struct Shared {
    _file: OwnedFd,
}

/// While this lives, nothing is published.
#[derive(Debug)]
pub struct Exclusive {
    _file: OwnedFd,
}

impl Store {
    /// Keeps everybody from removing what is in use by nobody yet, until the answer is dropped.
    ///
    /// For the moment in which something is published that refers to something else. A thread that holds it must
    /// not ask for [`Store::exclusive`].
    ///
    /// # Errors
    /// When the file `lock` cannot be opened or locked.
    pub fn hold(&self) -> Result<Shared> {
        self.lock(FlockOperation::LockShared)
            .map(|file| Shared { _file: file })
    }

    /// Waits until nobody publishes, and keeps everybody from it until the answer is dropped.
    ///
    /// # Errors
    /// When the file `lock` cannot be opened or locked.
    pub fn exclusive(&self) -> Result<Exclusive> {
        self.lock(FlockOperation::LockExclusive)
            .map(|file| Exclusive { _file: file })
    }

    /// As [`Store::exclusive`]; none if somebody holds it.
    pub(super) fn try_exclusive(&self) -> Result<Option<Exclusive>> {
        let (file, path) = self.lock_file()?;
        let taken = try_exclusive(&file).map_err(StoreError::errno("lock", &path))?;
        Ok(taken.then_some(Exclusive { _file: file }))
    }

    fn lock(&self, how: FlockOperation) -> Result<OwnedFd> {
        let (file, path) = self.lock_file()?;
        wait(&file, how).map_err(StoreError::errno("lock", &path))?;
        Ok(file)
    }

    fn lock_file(&self) -> Result<(OwnedFd, std::path::PathBuf)> {
        let path = self.path().join("lock");
        let file =
            at::open_at(self.dir(), b"lock", libc::O_RDWR).map_err(StoreError::errno("open", &path))?;
        Ok((file, path))
    }
}

/// flock(2) that waits.
pub(super) fn wait(file: impl AsFd, how: FlockOperation) -> sys::Result<()> {
    loop {
        match flock(&file, how) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// Takes an exclusive lock if nobody has one; whether it was taken.
pub(super) fn try_exclusive(file: impl AsFd) -> sys::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether `name` in `dir` is still the object behind `fd`, which may have been removed before it was locked.
pub(super) fn still_named(dir: impl AsFd, name: &[u8], fd: impl AsFd) -> sys::Result<bool> {
    let ours = stat::stat_fd(fd)?;
    match stat::stat_at(dir, name) {
        Ok(named) => Ok((named.dev, named.ino) == (ours.dev, ours.ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
