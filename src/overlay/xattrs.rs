//! Extended attributes of the view (section 8 of the rules).

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use super::Overlay;
use super::node::{Lower, Node, NodeId};
use crate::format::marks;
use crate::sys::caller::Caller as Process;
use crate::sys::stat::Stat;
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, Result};

const CAPABILITY: &[u8] = b"security.capability";
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

impl Overlay {
    /// The real name behind one that a caller gives.
    ///
    /// # Errors
    /// EINVAL for the bare prefix, which names nothing.
    fn real_name<'a>(&self, name: &'a [u8]) -> Result<std::borrow::Cow<'a, [u8]>> {
        if self.private().contains(&name) {
            return Err(Errno::INVAL);
        }
        Ok(marks::to_real(self.private(), name))
    }

    /// The value of an attribute (K100).
    ///
    /// # Errors
    /// ENODATA; else as getxattr(2).
    pub fn getxattr(&self, id: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let node = self.node(id)?;
        let real = self.real_name(name)?;
        if is_covered(&node) || self.stated.hides(name) {
            return Err(Errno::NODATA);
        }
        match self.at_spot(&node, |spot| xattr::get(spot.place.target(), &real)) {
            // Removed, and nobody has it open: the kernel still asks, to check access to what it remembers.
            Err(Errno::STALE) if node.state().removed.is_some() => Err(Errno::NODATA),
            done => done,
        }
    }

    /// The names of all attributes that the caller `pid` may see, each ended by a NUL byte (K100, K102).
    ///
    /// # Errors
    /// As listxattr(2).
    pub fn listxattr(&self, id: NodeId, pid: u32) -> Result<Vec<u8>> {
        let node = self.node(id)?;
        if is_covered(&node) {
            return Ok(Vec::new());
        }
        let real = self.at_spot(&node, |spot| xattr::list(spot.place.target()))?;
        let mut sees_trusted = None;
        let mut names = Vec::with_capacity(real.len());
        for name in xattr::names(&real) {
            let Some(view) = marks::to_view(self.private(), name).filter(|_| !self.stated.hides(name)) else {
                continue;
            };
            if view.starts_with(b"trusted.")
                && !*sees_trusted.get_or_insert_with(|| Process::read(pid).sees_trusted())
            {
                continue;
            }
            names.extend_from_slice(&view);
            names.push(0);
        }
        Ok(names)
    }

    /// Sets an attribute; `flags` are those of setxattr(2).
    ///
    /// # Errors
    /// EROFS; EPERM for a statement of owner and mode where those count; else as copy-up and setxattr(2). The object is
    /// copied up first, also when the call then fails, as the kernel does.
    pub fn setxattr(&self, id: NodeId, name: &[u8], value: &[u8], flags: i32, pid: u32) -> Result<()> {
        let node = self.node(id)?;
        self.work()?;
        let real = self.real_name(name)?;
        if self.stated.hides(name) {
            return Err(Errno::PERM);
        }
        let fd = self.upper_object(&node)?;
        xattr::set(xattr::of(&fd), &real, value, flags)?;
        self.changed_as(id, &node);
        self.acl_changed(&node, &fd, name, pid)
    }

    /// A changed access ACL changes the mode; and by chmod's rule, who is not in the file's group loses its
    /// setgid bit.
    fn acl_changed(&self, node: &Node, fd: &OwnedFd, name: &[u8], pid: u32) -> Result<()> {
        if name != ACCESS_ACL {
            return Ok(());
        }
        self.drop_setgid(node, fd, pid)
    }

    fn drop_setgid(&self, node: &Node, fd: &OwnedFd, pid: u32) -> Result<()> {
        let stat = self.upper_stat(fd)?;
        if self.loses_setgid(&stat, pid) {
            self.set_mode(fd, stat.mode & !libc::S_ISGID)?;
        }
        self.attributes_changed(node);
        Ok(())
    }

    /// Whether a change of the access ACL by this caller takes the setgid bit.
    fn loses_setgid(&self, stat: &Stat, pid: u32) -> bool {
        if stat.mode & libc::S_ISGID == 0 {
            return false;
        }
        let caller = Process::read(pid);
        !caller.in_group(self.group_of_callers(stat.gid)) && !caller.gives_setgid()
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// ENODATA, before anything is copied up (K61) unless an access ACL is meant and the caller's change of it
    /// takes the setgid bit (K155); EROFS; else as copy-up and removexattr(2).
    pub fn removexattr(&self, id: NodeId, name: &[u8], pid: u32) -> Result<()> {
        let node = self.node(id)?;
        self.work()?;
        let real = self.real_name(name)?;
        if is_covered(&node) || self.stated.hides(name) {
            return Err(Errno::NODATA);
        }
        if name == ACCESS_ACL {
            // Before the question whether there is one, as the kernel has it.
            let stat = self.attributes(&node)?;
            if self.loses_setgid(&stat, pid) {
                let fd = self.upper_object(&node)?;
                self.drop_setgid(&node, &fd, pid)?;
            }
        }
        if node.upper().is_none() {
            self.at_spot(&node, |spot| {
                let target: Target<'_> = spot.place.target();
                xattr::size_of(target, &real)
            })?;
        }
        let fd = self.upper_object(&node)?;
        xattr::remove(xattr::of(&fd), &real)?;
        if name == CAPABILITY {
            node.capability_removed.store(true, Ordering::Relaxed);
        }
        self.changed_as(id, &node);
        self.acl_changed(&node, &fd, name, pid)
    }
}

/// What is under a mount point cannot be asked: its attributes would be those of what is mounted (K28).
fn is_covered(node: &Node) -> bool {
    let state = node.state();
    state.upper.is_none() && matches!(state.lower, Some(Lower::Covered(..)))
}
