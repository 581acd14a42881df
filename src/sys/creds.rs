//! Under whose ids new objects are born.
//!
//! A server that may change ids lets its thread take the caller's file system ids before it creates
//! something, so that the real file system itself applies ownership, setgid directories, the umask and
//! default ACLs (K80, K133). The thread keeps its capabilities (`SECBIT_NO_SETUID_FIXUP`): the kernel has
//! checked the caller on the merged view already, what is left is to name the owner.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;
use rustix::thread::{CapabilitiesSecureBits, UnshareFlags};

use super::Result;

/// Ids and umask of the process that sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// File system user id, in the server's user namespace.
    pub uid: u32,
    /// File system group id, in the server's user namespace.
    pub gid: u32,
}

static CAN_CHANGE: AtomicBool = AtomicBool::new(false);

/// What a thread creates objects with.
#[derive(Debug, Clone, Copy)]
struct Birth {
    ids: Ids,
    umask: u32,
}

thread_local! {
    /// `None` until the thread was prepared.
    static THREAD: Cell<Option<Birth>> = const { Cell::new(None) };
}

/// The server's own ids, which never change.
pub fn own() -> Ids {
    static OWN: OnceLock<Ids> = OnceLock::new();
    *OWN.get_or_init(|| Ids {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    })
}

/// Prepares the process; call it before the threads that serve requests are made.
///
/// Without the privilege (an ordinary user outside a user namespace) nothing changes, and objects are
/// born with the server's own ids.
pub fn init_process() {
    let bits = match rustix::thread::capabilities_secure_bits() {
        Ok(bits) => bits | CapabilitiesSecureBits::NO_SETUID_FIXUP,
        Err(errno) => return log::debug!("cannot read the secure bits: {errno}"),
    };
    match rustix::thread::set_capabilities_secure_bits(bits) {
        Ok(()) => CAN_CHANGE.store(true, Ordering::Relaxed),
        Err(errno) => log::debug!("objects are born with the server's own ids: {errno}"),
    }
}

fn set_fs_id(call: libc::c_long, id: u32) -> bool {
    // SAFETY: both calls take a number, change only this thread, and cannot fail in a harmful way: the
    // second, with an invalid id, only reports what is in force.
    unsafe {
        libc::syscall(call, libc::c_ulong::from(id));
        libc::syscall(call, libc::c_ulong::from(u32::MAX)) == libc::c_long::from(id)
    }
}

/// Makes this thread create objects as `ids`, with `umask`.
///
/// Answers the ids under which objects will really be born: those asked for, or the server's own where it
/// may not change them. The umask counts only where the parent has no default ACL; the real file system
/// sees to that.
///
/// # Errors
/// What unshare(2) says when the thread cannot have a umask of its own.
pub fn act_as(ids: Ids, umask: u32) -> Result<Ids> {
    let current = match THREAD.get() {
        Some(current) => current,
        None => {
            // A umask and a working directory of its own, so that threads do not disturb each other.
            // SAFETY: CLONE_FS changes no memory or descriptors.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS)? };
            rustix::process::umask(Mode::from_raw_mode(umask));
            Birth { ids: own(), umask }
        }
    };
    let mut now = current.ids;
    if CAN_CHANGE.load(Ordering::Relaxed) {
        if now.gid != ids.gid && set_fs_id(libc::SYS_setfsgid, ids.gid) {
            now.gid = ids.gid;
        }
        if now.uid != ids.uid && set_fs_id(libc::SYS_setfsuid, ids.uid) {
            now.uid = ids.uid;
        }
    }
    if current.umask != umask {
        rustix::process::umask(Mode::from_raw_mode(umask));
    }
    THREAD.set(Some(Birth { ids: now, umask }));
    Ok(now)
}

/// The ids that stand for those without a place in a user namespace: what an administrator chose, else 65534.
pub fn overflow_ids() -> Ids {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
        text.trim().parse().ok()
    };
    Ids {
        uid: read("overflowuid").unwrap_or(65_534),
        gid: read("overflowgid").unwrap_or(65_534),
    }
}

/// Makes this thread create objects as the server itself, with no umask.
///
/// # Errors
/// As [`act_as`].
pub fn act_as_server() -> Result<()> {
    act_as(own(), 0).map(|_| ())
}
