//! Registered files that nobody has open any more, kept so that the next open needs no system call.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use lru::LruCache;

use crate::overlay::NodeId;
use crate::sys::{fusectl, memory};

/// A file registered with the kernel; unregistered when dropped.
#[derive(Debug)]
pub struct Backing {
    /// The descriptor of the FUSE device it is registered with.
    pub device: Arc<OwnedFd>,
    /// Its number in answers to OPEN and CREATE.
    pub id: u32,
}

impl Drop for Backing {
    fn drop(&mut self) {
        if let Err(errno) = fusectl::backing_close(self.device.as_fd(), self.id) {
            log::debug!("backing file {}: {errno}", self.id);
        }
    }
}

/// A registered file, and how it was registered.
#[derive(Debug)]
pub struct Registered {
    /// Its registration.
    pub backing: Backing,
    /// The file, if it is open for reading only. One that is open for writing is not kept: it would hold up who
    /// wants to run the file, or make its file system read-only.
    pub file: Option<Arc<OwnedFd>>,
    /// It is a file of the lower.
    pub lower: bool,
    /// Setuid bits stay when it is written (K103).
    pub keeps_suid: bool,
}

/// The files that are kept, the last used ones first to stay.
#[derive(Debug)]
pub struct Kept {
    files: LruCache<NodeId, Registered>,
}

impl Kept {
    /// Keeps at most `limit` files.
    pub fn new(limit: usize) -> Self {
        Self {
            files: memory::cache(NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN)),
        }
    }

    /// An eighth of the descriptors that the process may have, within reason: each file takes one.
    pub fn limit() -> usize {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        usize::try_from(limit.unwrap_or(1 << 16) / 8)
            .unwrap_or(2048)
            .clamp(16, 2048)
    }

    /// Keeps a file. Answers what has to go: the file itself, or the one used longest ago.
    pub fn put(&mut self, id: NodeId, registered: Registered) -> Option<Registered> {
        if registered.file.is_none() {
            return Some(registered);
        }
        self.files.push(id, registered).map(|(_, gone)| gone)
    }

    /// Takes a file out.
    pub fn take(&mut self, id: NodeId) -> Option<Registered> {
        self.files.pop(&id)
    }

    /// Looks at a file.
    pub fn get(&self, id: NodeId) -> Option<&Registered> {
        self.files.peek(&id)
    }
}
