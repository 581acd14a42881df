//! Open files: opening, and the calls on what is open.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Overlay;
use super::attr::{self, Place};
use super::config::FsyncMode;
use super::create::{Caller, NewObject};
use super::dirs::Layer;
use super::node::{Node, NodeId, OpenFile, State};
use crate::sys::stat::{self, Stat};
use crate::sys::{Errno, Result, at, io};

/// Flags of open(2) that reach the real file. Appending and direct I/O are the kernel's business on the
/// view; creating and truncating are done by calls of their own.
const PASSED_ON: i32 = libc::O_ACCMODE | libc::O_DSYNC | libc::O_SYNC;
/// Set by the kernel when it opens a file to run it (`FMODE_EXEC`, include/linux/fs.h).
const TO_RUN: i32 = 0x20;

impl Overlay {
    /// Opens a regular file (FUSE OPEN), copying it up if it may be written (K60). `ready` may be the file, open for
    /// reading already, and whether it is the lower's.
    ///
    /// # Errors
    /// EROFS; EISDIR; ETXTBSY for a file being run that is to be cut; ESTALE, also for an id by which the lower is
    /// still read after a copy-up ([`Node::known_as`]): the kernel then looks the name up again; else as copy-up
    /// and open(2).
    pub fn open_file(
        &self,
        id: NodeId,
        flags: i32,
        pid: u32,
        ready: Option<(Arc<OwnedFd>, bool)>,
    ) -> Result<Arc<OpenFile>> {
        let node = self.node(id)?;
        if node.is_dir() {
            return Err(Errno::ISDIR);
        }
        if node.known_as() != id && is_pinned(&node) {
            return Err(Errno::STALE);
        }
        let truncate = flags & libc::O_TRUNC != 0;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        // The kernel refuses to write what is being run before it asks for the open, but to cut it only after.
        if truncate && attr::is_run(&mut node.state().open) {
            return Err(Errno::TXTBSY);
        }
        if writes || truncate {
            self.copy_up(&node, truncate.then_some(0))?;
            if node.known_as() != id {
                if is_pinned(&node) {
                    return Err(Errno::STALE);
                }
                // Written by this id, it changes behind what the kernel knows of it by the other.
                node.written_by_both.store(true, Ordering::Relaxed);
                self.attributes_changed(&node);
            }
        }
        if truncate {
            let fd = self.open_upper(&node, libc::O_WRONLY)?;
            // Before the file system does it by itself, for a server without privilege, and the kernel is not told.
            self.drop_suid(&node, &fd, pid)?;
            io::truncate(&fd, 0)?;
        }
        let mut tries = 8;
        let mut ready = ready.filter(|(_, lower)| !writes && *lower == node.upper().is_none());
        loop {
            let (file, on_lower, stat) = match ready.take() {
                Some((file, lower)) => {
                    let stat = stat::stat_fd(&file)?;
                    (file, lower, stat)
                }
                None => self.at_spot(&node, |spot| {
                    let file = open_place(&spot.place, flags & PASSED_ON)?;
                    let stat = stat::stat_fd(&file)?;
                    spot.check(&stat)?;
                    Ok((Arc::new(file), spot.layer != Layer::Upper, stat))
                })?,
            };
            let stat = self.told_open(&node, on_lower, &*file, stat)?;
            let mut open = OpenFile::new(Arc::clone(&node), file, on_lower, writes, &stat);
            open.id = id;
            open.runs = flags & TO_RUN != 0;
            let open = Arc::new(open);
            let mut state = node.state();
            // A copy-up that ended in between did not know of this file.
            if on_lower && state.upper.is_some() && tries > 0 {
                tries -= 1;
                continue;
            }
            state.open.retain(|file| file.strong_count() > 0);
            if node.is_renewed() && is_busy(&state, &open) {
                return Err(Errno::TXTBSY);
            }
            state.open.push(Arc::downgrade(&open));
            return Ok(open);
        }
    }

    /// Creates and opens a file (FUSE CREATE); opens it if it is there already and `O_EXCL` is not given.
    ///
    /// # Errors
    /// EEXIST with `O_EXCL`; else as [`Overlay::make`] and [`Overlay::open_file`].
    pub fn create(
        &self,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Arc<Node>, Stat, Arc<OpenFile>)> {
        match self.make(parent, name, NewObject::File(flags & PASSED_ON), mode, caller) {
            Ok(made) => {
                let file = made.file.ok_or(Errno::IO)?;
                let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
                let open = OpenFile::new(Arc::clone(&made.node), file, false, writes, &made.stat);
                let open = Arc::new(open);
                made.node.state().open.push(Arc::downgrade(&open));
                Ok((made.node, made.stat, open))
            }
            Err(Errno::EXIST) if flags & libc::O_EXCL == 0 => {
                let (node, _) = self.lookup(parent, name)?;
                let mut opened = self.open_file(node.known_as(), flags, caller.pid, None);
                if matches!(opened, Err(Errno::STALE)) && node.is_renewed() {
                    opened = self.open_file(node.known_as(), flags, caller.pid, None);
                }
                let opened = opened.and_then(|open| Ok((self.attributes(&node)?, open)));
                if opened.is_err() {
                    self.forget(node.id, 1);
                }
                opened.map(|(stat, open)| (node, stat, open))
            }
            Err(errno) => Err(errno),
        }
    }

    /// Opens the upper file of a node that has been copied up.
    pub(super) fn open_upper(&self, node: &Arc<Node>, flags: i32) -> Result<Arc<OwnedFd>> {
        self.at_spot(node, |spot| {
            let file = open_place(&spot.place, flags)?;
            spot.check(&stat::stat_fd(&file)?)?;
            Ok(Arc::new(file))
        })
    }

    /// Writes; `stranger` is the caller's process id if the kernel says that it may not keep setuid bits (K103).
    ///
    /// # Errors
    /// As pwrite(2).
    pub fn write(&self, open: &OpenFile, data: &[u8], position: u64, stranger: Option<u32>) -> Result<usize> {
        let file = open.file();
        if let Some(pid) = stranger {
            self.drop_suid(&open.node, &*file, pid)?;
        }
        io::write_at(&*file, data, position)
    }

    /// Reserves, zeroes or punches a range; `pid` is the caller's (K103).
    ///
    /// # Errors
    /// As fallocate(2).
    pub fn allocate(&self, open: &OpenFile, mode: i32, range: (u64, u64), pid: u32) -> Result<()> {
        let file = open.file();
        // Also when the call then fails, as the kernel does.
        self.drop_suid(&open.node, &*file, pid)?;
        io::allocate(&*file, mode, range.0, range.1)
    }

    /// Copies between two open files; positions come with the files, `pid` is the caller's (K103).
    ///
    /// # Errors
    /// As copy_file_range(2).
    pub fn copy_range(
        &self,
        from: (&OpenFile, u64),
        to: (&OpenFile, u64),
        len: usize,
        pid: u32,
    ) -> Result<usize> {
        let target = to.0.file();
        self.drop_suid(&to.0.node, &*target, pid)?;
        io::copy_range(&*from.0.file(), from.1, &*target, to.1, len)
    }

    /// Brings an open file to disk (K121); nothing to do on the lower or in a volatile mount (K122).
    ///
    /// # Errors
    /// As fsync(2).
    pub fn fsync(&self, open: &OpenFile, data_only: bool) -> Result<()> {
        if self.fsync == FsyncMode::Volatile || open.on_lower() && open.node.upper().is_none() {
            return Ok(());
        }
        if open.on_lower() {
            // It reads the lower by itself, but the file is the upper's now.
            let spot = self.at_spot(&open.node, |spot| open_place(&spot.place, libc::O_RDONLY));
            return spot.and_then(|file| io::sync(file, data_only));
        }
        io::sync(&*open.file(), data_only)
    }

    /// Brings a directory of the upper to disk.
    ///
    /// # Errors
    /// As fsync(2).
    pub fn fsync_dir(&self, node: &Arc<Node>) -> Result<()> {
        if node.upper().is_none() || self.fsync == FsyncMode::Volatile {
            return Ok(());
        }
        let dir = self.dirs.get(node, Layer::Upper)?;
        io::sync(at::reopen_dir(&dir)?, false)
    }

    /// The inode flags of a directory, from the layer that gives its attributes.
    ///
    /// # Errors
    /// ENOTTY where the file system has none; else as open(2).
    pub fn directory_flags(&self, node: &Arc<Node>) -> Result<u32> {
        io::inode_flags(at::reopen_dir(&self.dirs.get(node, attributes_from(node)?)?)?)
    }

    /// True for a view without an upper: no file of the lower is ever copied up.
    pub fn lower_is_final(&self) -> bool {
        self.work.is_none()
    }

    /// True if reading a file of a lower changes nothing of it, its access time neither (K114), and nobody can
    /// open one for writing: the lowers are reached over mounts that are read-only, as the server's own ones are.
    pub fn lower_is_read_only(&self) -> bool {
        self.dirs.lower_roots().iter().all(|root| {
            io::stat_fs(&**root).is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        })
    }

    /// Numbers of the upper's file system, or of the topmost lower's in a view without upper (K16).
    ///
    /// # Errors
    /// As statfs(2).
    pub fn stat_fs(&self) -> Result<rustix::fs::StatVfs> {
        let root = self.node(super::ROOT)?;
        io::stat_fs(&*self.dirs.get(&root, attributes_from(&root)?)?)
    }
}

/// The layer that gives a directory's attributes.
///
/// # Errors
/// ENOTTY for one that cannot be entered.
fn attributes_from(node: &Node) -> Result<Layer> {
    if node.upper().is_some() {
        return Ok(Layer::Upper);
    }
    let parts = node.parts().ok_or(Errno::NOTTY)?;
    Ok(Layer::Lower(parts.first()))
}

/// True while the kernel reads the lower's file by itself, for somebody who opened it before it was copied up.
fn is_pinned(node: &Node) -> bool {
    let state = node.state();
    let mut open = state.open.iter().filter_map(std::sync::Weak::upgrade);
    open.any(|file| file.is_pinned())
}

/// True if one runs what the other writes (K113), each by an id of its own: among opens of one id the kernel sees
/// to that.
fn is_busy(state: &State, new: &OpenFile) -> bool {
    let mut open = state.open.iter().filter_map(std::sync::Weak::upgrade);
    open.any(|old| old.id != new.id && (old.runs && new.writes || old.writes && new.runs))
}

fn open_place(place: &Place, flags: i32) -> Result<OwnedFd> {
    match place {
        Place::Fd(fd) => at::reopen(fd, flags),
        Place::At(dir, link) if flags & libc::O_ACCMODE == libc::O_RDONLY => {
            super::copy_up::open_lower(dir, &link.name)
        }
        Place::At(dir, link) => at::open_at(dir, &link.name, flags | libc::O_NONBLOCK),
    }
}
