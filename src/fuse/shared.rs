//! What all serving threads share, and how answers are given.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fuser::{FileHandle, FopenFlags, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr, Request};
use parking_lot::Mutex;

use super::border::Border;
use super::convert::{errno, file_attr};
use super::fill::fill;
use super::io_mode::{Answered, Modes};
use super::wire::{Answer, EntryOut};
use crate::overlay::{Node, NodeId, OpenFile, Overlay};
use crate::sys::stat::Stat;
use crate::sys::{Errno, Result, io};

/// Copying more than this up is left to a thread of its own, so that other requests need not wait.
const LARGE: u64 = 1 << 20;

/// The view, the device, and what is open.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) overlay: Arc<Overlay>,
    pub(super) device: OwnedFd,
    pub(super) modes: Modes,
    pub(super) border: Border,
    pub(super) ttl: Duration,
    /// The kernel gathers what is written.
    pub(super) writeback: AtomicBool,
    /// The kernel may be told to open directories by itself.
    pub(super) opens_dirs: AtomicBool,
    /// Open files, each with the user it was opened for.
    pub(super) files: Mutex<HashMap<u64, (Arc<OpenFile>, u32)>>,
    pub(super) next_handle: AtomicU64,
}

impl Shared {
    pub(super) fn handle(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn file(&self, handle: FileHandle) -> Result<Arc<OpenFile>> {
        self.files
            .lock()
            .get(&handle.0)
            .map(|(open, _)| Arc::clone(open))
            .ok_or(Errno::BADF)
    }

    /// The node with the attributes that the view shows.
    pub(super) fn entry_out<'a>(&self, node: NodeId, stat: &'a Stat) -> EntryOut<'a> {
        let node = self.overlay.known_as(node);
        EntryOut {
            node,
            stat: Some(stat),
            name_ttl: self.ttl,
            attr_ttl: self.attr_ttl(node),
        }
    }

    fn attr_ttl(&self, id: NodeId) -> Duration {
        if self.overlay.is_passing(id) {
            Duration::ZERO
        } else {
            self.ttl
        }
    }

    /// Sends an answer in which nodes were counted as looked up; takes the counts back if nobody gets it.
    pub(super) fn deliver(&self, answer: Answer, counted: &[NodeId]) -> bool {
        let sent = answer.send(&self.device);
        if let Err(errno) = sent {
            log::debug!("an answer was not wanted any more: {errno}");
            counted.iter().for_each(|node| self.overlay.forget(*node, 1));
        }
        sent.is_ok()
    }

    pub(super) fn reply_entry(&self, req: &Request, reply: ReplyEntry, result: Result<(Arc<Node>, Stat)>) {
        match result {
            Ok((node, mut stat)) => {
                self.border.show(&mut stat);
                let mut answer = Answer::new(req.unique().0);
                answer.entry(&self.entry_out(node.id, &stat));
                self.deliver(answer, &[node.id]);
                // The answer is out; fuser's own would be a second one. Nothing but a reference is lost.
                std::mem::forget(reply);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// The attributes of the node that the kernel asked for by `id`.
    pub(super) fn reply_attr(&self, reply: ReplyAttr, id: NodeId, result: Result<Stat>) {
        match result {
            Ok(mut stat) => {
                self.border.show(&mut stat);
                reply.attr(&self.attr_ttl(id), &file_attr(&stat));
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Gives an open file its handle, and chooses who does its I/O.
    ///
    /// # Errors
    /// ETXTBSY for a setuid file that root has open at this time; ESTALE for one that the kernel has to look up again.
    pub(super) fn add_file(&self, open: Arc<OpenFile>, uid: u32) -> Result<(u64, FopenFlags, u32)> {
        let handle = self.handle();
        let (mode, backing) = match self.modes.enter(&open, uid) {
            Answered::Passthrough(backing) => (FopenFlags::FOPEN_PASSTHROUGH, backing),
            // All writes come through the view, so what the kernel has cached stays true between opens.
            Answered::Cached { keep } if keep && !self.ttl.is_zero() => (FopenFlags::FOPEN_KEEP_CACHE, 0),
            Answered::Cached { .. } => (FopenFlags::empty(), 0),
            Answered::Stale => return Err(Errno::STALE),
            Answered::Busy => return Err(Errno::TXTBSY),
        };
        let mode = if self.writeback.load(Ordering::Relaxed) && io::is_write_only(&*open.file())? {
            mode | FopenFlags::FOPEN_DIRECT_IO
        } else {
            mode
        };
        self.files.lock().insert(handle, (open, uid));
        Ok((handle, mode | FopenFlags::FOPEN_NOFLUSH, backing))
    }

    pub(super) fn remove_file(&self, handle: u64) {
        let removed = self.files.lock().remove(&handle);
        if let Some((open, uid)) = removed {
            self.modes.leave(&open, uid);
        }
    }

    pub(super) fn reply_open(&self, unique: u64, uid: u32, reply: ReplyOpen, result: Result<Arc<OpenFile>>) {
        let result = result.inspect(|open| fill(self, open));
        match result.and_then(|open| self.add_file(open, uid)) {
            Ok((handle, flags, backing)) => {
                let mut answer = Answer::new(unique);
                answer.open(handle, flags.bits(), backing);
                if let Err(errno) = answer.send(&self.device) {
                    log::debug!("an open file was not wanted any more: {errno}");
                    self.remove_file(handle);
                }
                std::mem::forget(reply);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// True if setuid bits given to the node now would survive a write by somebody who must not keep them (K103).
    pub(super) fn would_keep_suid(&self, node: NodeId) -> bool {
        self.overlay.node(node).is_ok_and(|node| {
            [node.id, node.known_as()]
                .into_iter()
                .any(|id| self.modes.would_keep_suid(id))
        })
    }

    /// The flags to open a real file with: who gathers writes has to read the rest of a page first.
    pub(super) fn real_flags(&self, flags: i32) -> i32 {
        if self.writeback.load(Ordering::Relaxed) && flags & libc::O_ACCMODE == libc::O_WRONLY {
            flags & !libc::O_ACCMODE | libc::O_RDWR
        } else {
            flags
        }
    }

    /// True if an operation on the node means copying much data first.
    pub(super) fn is_large(&self, node: NodeId) -> bool {
        let Ok(node) = self.overlay.node(node) else {
            return false;
        };
        node.is_file()
            && node.upper().is_none()
            && self.overlay.attributes(&node).is_ok_and(|stat| stat.size > LARGE)
    }
}

pub(super) fn reply_empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn reply_xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>>) {
    match result {
        Err(error) => reply.error(errno(error)),
        Ok(value) if size == 0 => match u32::try_from(value.len()) {
            Ok(len) => reply.size(len),
            Err(_) => reply.error(fuser::Errno::E2BIG),
        },
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(fuser::Errno::ERANGE),
    }
}
