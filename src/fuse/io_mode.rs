//! Which open files the kernel reads and writes by itself (FUSE passthrough).
//!
//! The kernel keeps one mode for all opens of a node at a time: either its own page cache, with requests
//! to this server, or one backing file; a mixture, or a second backing file, is EIO. The rule that makes
//! a wrong backing impossible: **only a file that never changes its real file is ever passed through**. That is
//! one of the upper; one of the lower does when it is copied up under a reader, but in a read-only view it is
//! not. A node that is open in cached mode stays so until its last close, also when it was copied up in between.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::overlay::{Node, NodeId, OpenFile};
use crate::sys::{Errno, Result, fusectl};

/// A file registered with the kernel; unregistered when dropped.
#[derive(Debug)]
struct Backing {
    device: Arc<OwnedFd>,
    id: u32,
}

impl Drop for Backing {
    fn drop(&mut self) {
        if let Err(errno) = fusectl::backing_close(self.device.as_fd(), self.id) {
            log::debug!("backing file {}: {errno}", self.id);
        }
    }
}

/// A node whose file the kernel reads and writes.
///
/// The kernel writes with the privileges under which the file was registered, whoever writes. If root opened
/// it first, CAP_FSETID is among them and setuid bits stay, as they do when root writes (K103); else they
/// fall, also when root writes later.
#[derive(Debug)]
struct Passed {
    opens: u32,
    backing: Backing,
    keeps_suid: bool,
    /// How many opens for writing are not root's.
    strangers: u32,
}

#[derive(Debug)]
enum Mode {
    Cached(u32),
    Passthrough(Passed),
}

/// How an open is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The kernel reads and writes this backing file.
    Passthrough(u32),
    /// Through the kernel's page cache; `keep` says that what is in it is true.
    Cached {
        /// Pages cached before may be kept.
        keep: bool,
    },
    /// Not now: root has the file open, and its setuid bits would survive this caller's writes (K103).
    Busy,
}

/// The modes of all nodes that are open.
#[derive(Debug)]
pub struct Modes {
    device: Arc<OwnedFd>,
    allowed: AtomicBool,
    lower_too: bool,
    nodes: Mutex<HashMap<NodeId, Mode>>,
}

impl Modes {
    /// No file is passed through until [`Modes::allow`] is called; then those of the upper, and `lower_too` says
    /// whether those of the lower.
    pub fn new(device: OwnedFd, lower_too: bool) -> Self {
        Self {
            device: Arc::new(device),
            allowed: AtomicBool::new(false),
            lower_too,
            nodes: Mutex::default(),
        }
    }

    /// The kernel offers passthrough.
    pub fn allow(&self) {
        self.allowed.store(true, Ordering::Relaxed);
    }

    /// Files of the lower are passed through.
    pub fn passes_lower(&self) -> bool {
        self.lower_too && self.allowed.load(Ordering::Relaxed)
    }

    /// Chooses the mode of one more open.
    pub fn enter(&self, open: &OpenFile, uid: u32) -> Answered {
        let node = &open.node;
        let stranger = is_stranger(open, uid);
        let mut nodes = self.nodes.lock();
        let keep = |node: &Node| !node.cache_bypassed.swap(false, Ordering::Relaxed);
        match nodes.get_mut(&node.id) {
            Some(Mode::Cached(count)) => {
                *count = count.saturating_add(1);
                return Answered::Cached { keep: keep(node) };
            }
            Some(Mode::Passthrough(passed)) => {
                let has_suid = open.mode & (libc::S_ISUID | libc::S_ISGID) != 0;
                if passed.keeps_suid && stranger > 0 && has_suid {
                    return Answered::Busy;
                }
                passed.opens = passed.opens.saturating_add(1);
                passed.strangers = passed.strangers.saturating_add(stranger);
                if open.writes {
                    node.cache_bypassed.store(true, Ordering::Relaxed);
                }
                return Answered::Passthrough(passed.backing.id);
            }
            None => {}
        }
        let keeps_suid = uid == 0;
        match self.register(open, keeps_suid) {
            Some(backing) => {
                let id = backing.id;
                if open.writes {
                    node.cache_bypassed.store(true, Ordering::Relaxed);
                }
                let passed = Passed {
                    opens: 1,
                    backing,
                    keeps_suid,
                    strangers: stranger,
                };
                nodes.insert(node.id, Mode::Passthrough(passed));
                Answered::Passthrough(id)
            }
            None => {
                nodes.insert(node.id, Mode::Cached(1));
                Answered::Cached { keep: keep(node) }
            }
        }
    }

    fn register(&self, open: &OpenFile, keeps_suid: bool) -> Option<Backing> {
        let has_suid = open.mode & (libc::S_ISUID | libc::S_ISGID) != 0;
        let never = has_suid || open.on_lower() && !self.lower_too;
        if never || !self.allowed.load(Ordering::Relaxed) {
            return None;
        }
        let registered: Result<u32> =
            fusectl::backing_open(self.device.as_fd(), open.file().as_fd(), keeps_suid);
        match registered {
            Ok(id) => Some(Backing {
                device: Arc::clone(&self.device),
                id,
            }),
            Err(errno) => {
                if matches!(errno, Errno::PERM | Errno::LOOP | Errno::OPNOTSUPP | Errno::NOTTY) {
                    log::info!("no passthrough here: {errno}");
                    self.allowed.store(false, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// True if setuid bits given to the node now would survive a write by somebody who must not keep them.
    pub fn would_keep_suid(&self, node: NodeId) -> bool {
        match self.nodes.lock().get(&node) {
            Some(Mode::Passthrough(passed)) => passed.keeps_suid && passed.strangers > 0,
            _ => false,
        }
    }

    /// One open of the node, answered to `uid`, was closed.
    pub fn leave(&self, open: &OpenFile, uid: u32) {
        let node = open.node.id;
        let mut nodes = self.nodes.lock();
        let last = match nodes.get_mut(&node) {
            Some(Mode::Cached(opens)) => {
                *opens = opens.saturating_sub(1);
                *opens == 0
            }
            Some(Mode::Passthrough(passed)) => {
                passed.opens = passed.opens.saturating_sub(1);
                passed.strangers = passed.strangers.saturating_sub(is_stranger(open, uid));
                passed.opens == 0
            }
            None => false,
        };
        let gone = if last { nodes.remove(&node) } else { None };
        drop(nodes);
        drop(gone);
    }
}

/// 1 for an open for writing by another user than root.
fn is_stranger(open: &OpenFile, uid: u32) -> u32 {
    u32::from(open.writes && uid != 0)
}
