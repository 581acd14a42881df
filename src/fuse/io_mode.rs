//! Which open files the kernel reads and writes by itself (FUSE passthrough).
//!
//! The kernel keeps one mode for all opens of a node at a time: either its own page cache, with requests
//! to this server, or one backing file; a mixture, or a second backing file, is EIO. The rule that makes
//! a wrong backing impossible: **an id is passed through only to a file that it never changes**. That is one of
//! the upper; in a read-only view it is one of the lower too. An id that is open in cached mode stays so until
//! its last close, also when its file was copied up in between.
//!
//! With `passthrough=all` files of the lower are passed through on a writable view as well. When such a file is
//! copied up, its id keeps the lower's file for as long as that is open: the node gets a second id
//! ([`Node::known_as`]), an open by the first one is refused (ESTALE), the kernel looks the name up again and opens
//! the second one. What was open before goes on reading the old data. Who comes by the first id when nobody reads
//! the lower by it any more (a mount on the file, an `O_PATH` descriptor) is passed through to the upper's file,
//! never cached, so that both ids show the same. `docs/io-modes.md` has the whole story.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::kept::{Backing, Kept, Registered};
use crate::overlay::{Node, NodeId, OpenFile, Overlay};
use crate::sys::{Errno, Result, fusectl};

/// A node whose file the kernel reads and writes.
///
/// The kernel writes with the privileges under which the file was registered, whoever writes. If root opened
/// it first, CAP_FSETID is among them and setuid bits stay, as they do when root writes (K103); else they
/// fall, also when root writes later.
#[derive(Debug)]
struct Passed {
    opens: u32,
    /// If it is the lower's, all opens are pinned to it.
    to: Registered,
    /// How many opens are for writing.
    writers: u32,
    /// How many of those are not root's.
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
    /// Not under this id: its file was copied up since, and the name has to be looked up again.
    Stale,
    /// Not now: root has the file open, and its setuid bits would survive this caller's writes (K103).
    Busy,
}

/// Whose files the kernel may read and write by itself (option `passthrough=`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Passthrough {
    /// Nobody's.
    Off,
    /// The upper's; in a read-only view the lower's too.
    #[default]
    Upper,
    /// The upper's and the lower's. What was opened before a copy-up goes on reading the old data.
    All,
}

/// The modes of all ids that are open.
#[derive(Debug)]
pub struct Modes {
    device: Arc<OwnedFd>,
    /// Files may be passed through, and so may those of the lower.
    allowed: AtomicBool,
    lower_too: AtomicBool,
    /// File systems do not know the setuid bits of their files, and cannot drop them.
    suid_is_stated: AtomicBool,
    nodes: Mutex<Ids>,
}

#[derive(Debug)]
struct Ids {
    open: HashMap<NodeId, Mode>,
    /// Of ids that are not open.
    kept: Kept,
}

impl Modes {
    /// No file is passed through until [`Modes::allow`] is called.
    pub fn new(device: OwnedFd) -> Self {
        Self {
            device: Arc::new(device),
            allowed: AtomicBool::new(false),
            lower_too: AtomicBool::new(false),
            suid_is_stated: AtomicBool::new(false),
            nodes: Mutex::new(Ids {
                open: HashMap::new(),
                kept: Kept::new(Kept::limit()),
            }),
        }
    }

    /// The kernel offers passthrough; use it as the option says, so far as that changes nothing of the lower.
    pub fn allow(&self, wanted: Passthrough, overlay: &Overlay) {
        let lower = match wanted {
            Passthrough::Off => false,
            Passthrough::Upper => overlay.lower_is_final(),
            Passthrough::All => true,
        };
        let safe = lower && overlay.lower_is_read_only();
        if lower && !safe {
            log::info!("no passthrough of the lower: it is not reached over a read-only mount");
        }
        self.suid_is_stated
            .store(overlay.states_modes(), Ordering::Relaxed);
        self.lower_too.store(safe, Ordering::Relaxed);
        self.allowed.store(wanted != Passthrough::Off, Ordering::Relaxed);
    }

    /// Files of the lower are passed through.
    pub fn passes_lower(&self) -> bool {
        self.lower_too.load(Ordering::Relaxed) && self.allowed.load(Ordering::Relaxed)
    }

    /// Chooses the mode of one more open.
    pub fn enter(&self, open: &OpenFile, uid: u32) -> Answered {
        let node = &open.node;
        let stranger = is_stranger(open, uid);
        let mut nodes = self.nodes.lock();
        // A node gets a second id while the first one is passed to the lower, which changes under this lock only:
        // if it is not so now, the first id stays the only one as long as the mode chosen here lasts.
        let former = open.id != node.known_as();
        let other = if former { node.known_as() } else { node.id };
        let (mut other_cached, mut other_writes) = (false, false);
        match nodes.open.get(&other) {
            Some(Mode::Cached(_)) if node.is_renewed() => other_cached = true,
            Some(Mode::Passthrough(passed)) if node.is_renewed() => other_writes = passed.writers > 0,
            _ => {}
        }
        if former && open.writes && other_cached {
            // Its pages would not show what is written here.
            return Answered::Stale;
        }
        let keep = |node: &Node| !node.cache_bypassed.swap(false, Ordering::Relaxed);
        match nodes.open.get_mut(&open.id) {
            Some(Mode::Cached(count)) => {
                *count = count.saturating_add(1);
                return Answered::Cached { keep: keep(node) };
            }
            Some(Mode::Passthrough(passed)) => {
                if passed.to.lower != open.pin() {
                    // Copied up since, and the kernel takes no other file for this id.
                    return Answered::Stale;
                }
                let has_suid = open.mode & (libc::S_ISUID | libc::S_ISGID) != 0;
                if passed.to.keeps_suid && stranger > 0 && has_suid {
                    return Answered::Busy;
                }
                passed.opens = passed.opens.saturating_add(1);
                passed.writers = passed.writers.saturating_add(u32::from(open.writes));
                passed.strangers = passed.strangers.saturating_add(stranger);
                if open.writes {
                    node.cache_bypassed.store(true, Ordering::Relaxed);
                }
                return Answered::Passthrough(passed.to.backing.id);
            }
            None => {}
        }
        // Two ids of one file do not go together with pages cached by one of them.
        let never_cached = former || other_writes;
        let stated = self.suid_is_stated.load(Ordering::Relaxed);
        let keeps_suid = uid == 0 && !never_cached || stated;
        let kept = nodes.kept.take(open.id);
        match self.register(open, keeps_suid, never_cached, kept) {
            Some(to) => {
                let id = to.backing.id;
                if open.writes {
                    node.cache_bypassed.store(true, Ordering::Relaxed);
                }
                let passed = Passed {
                    opens: 1,
                    to,
                    writers: u32::from(open.writes),
                    strangers: stranger,
                };
                nodes.open.insert(open.id, Mode::Passthrough(passed));
                Answered::Passthrough(id)
            }
            None if never_cached => Answered::Stale,
            None => {
                nodes.open.insert(open.id, Mode::Cached(1));
                Answered::Cached { keep: keep(node) }
            }
        }
    }

    /// Registers the open's file where that is allowed (`suid_too`: with setuid bits too), or uses what was kept. If
    /// the file is the lower's, the open is pinned to it.
    fn register(
        &self,
        open: &OpenFile,
        keeps_suid: bool,
        suid_too: bool,
        mut kept: Option<Registered>,
    ) -> Option<Registered> {
        loop {
            let lower = open.on_lower();
            let has_suid = open.mode & (libc::S_ISUID | libc::S_ISGID) != 0;
            let never = has_suid && !suid_too || lower && !self.lower_too.load(Ordering::Relaxed);
            if never || !self.allowed.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(kept) = kept.take()
                && (kept.lower, kept.keeps_suid) == (lower, keeps_suid)
                && open.pin() == lower
            {
                return Some(kept);
            }
            let registered: Result<u32> =
                fusectl::backing_open(self.device.as_fd(), open.file().as_fd(), keeps_suid);
            match registered {
                Ok(id) => {
                    let device = Arc::clone(&self.device);
                    let backing = Backing { device, id };
                    // It may have been copied up in between; that happens once.
                    if open.pin() == lower {
                        return Some(Registered {
                            backing,
                            file: (!open.writes).then(|| open.file()),
                            lower,
                            keeps_suid,
                        });
                    }
                }
                Err(errno) => {
                    self.refused(errno, lower);
                    return None;
                }
            }
        }
    }

    /// Does without passthrough where it is refused for good. ELOOP is about one layer's file system alone.
    fn refused(&self, errno: Errno, lower: bool) {
        let (what, which) = match (errno, lower) {
            (Errno::LOOP, true) => (&self.lower_too, "of the lower"),
            (Errno::PERM | Errno::LOOP | Errno::OPNOTSUPP | Errno::NOTTY, _) => (&self.allowed, "here"),
            _ => return,
        };
        log::info!("no passthrough {which}: {errno}");
        what.store(false, Ordering::Relaxed);
    }

    /// True if setuid bits given to the node now would survive a write by somebody who must not keep them.
    pub fn would_keep_suid(&self, node: NodeId) -> bool {
        match self.nodes.lock().open.get(&node) {
            Some(Mode::Passthrough(passed)) => passed.to.keeps_suid && passed.strangers > 0,
            _ => false,
        }
    }

    /// One open of the node, answered to `uid`, was closed.
    pub fn leave(&self, open: &OpenFile, uid: u32) {
        let mut nodes = self.nodes.lock();
        open.unpin();
        let last = match nodes.open.get_mut(&open.id) {
            Some(Mode::Cached(opens)) => {
                *opens = opens.saturating_sub(1);
                *opens == 0
            }
            Some(Mode::Passthrough(passed)) => {
                passed.opens = passed.opens.saturating_sub(1);
                passed.writers = passed.writers.saturating_sub(u32::from(open.writes));
                passed.strangers = passed.strangers.saturating_sub(is_stranger(open, uid));
                passed.opens == 0
            }
            None => false,
        };
        let closed = if last { nodes.open.remove(&open.id) } else { None };
        let gone = match closed {
            // The room of a removed file is to be free now. An id that had a second one is hardly opened again.
            Some(Mode::Passthrough(passed)) if open.node.is_removed() || open.node.is_renewed() => {
                Some(passed.to)
            }
            Some(Mode::Passthrough(passed)) => nodes.kept.put(open.id, passed.to),
            _ => None,
        };
        drop(nodes);
        drop(gone);
    }

    /// The file to read for one more open of this id, if it need not be opened for that; and whether it is the lower's.
    pub fn ready(&self, id: NodeId) -> Option<(Arc<OwnedFd>, bool)> {
        let nodes = self.nodes.lock();
        let registered = match nodes.open.get(&id) {
            Some(Mode::Passthrough(passed)) => Some(&passed.to),
            Some(Mode::Cached(_)) => None,
            None => nodes.kept.get(id),
        }?;
        let file = registered.file.as_ref()?;
        Some((Arc::clone(file), registered.lower))
    }

    /// Keeps nothing of this id: its node lost a name, or is known no more.
    pub fn let_go(&self, id: NodeId) {
        let gone = self.nodes.lock().kept.take(id);
        drop(gone);
    }

    /// True if something of this id is kept.
    pub fn keeps(&self, id: NodeId) -> bool {
        self.nodes.lock().kept.get(id).is_some()
    }
}

/// 1 for an open for writing by another user than root.
fn is_stranger(open: &OpenFile, uid: u32) -> u32 {
    u32::from(open.writes && uid != 0)
}
