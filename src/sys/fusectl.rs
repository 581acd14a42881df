//! The two ioctls of the FUSE device that register files for passthrough.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::thread::CapabilitySet;

use super::Result;

/// `struct fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// `FUSE_DEV_IOC_BACKING_OPEN`: `_IOW(229, 1, struct fuse_backing_map)`.
const BACKING_OPEN: libc::c_ulong = 0x4010_e501;
/// `FUSE_DEV_IOC_BACKING_CLOSE`: `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: libc::c_ulong = 0x4004_e502;

fn check(ret: libc::c_int) -> Result<u32> {
    u32::try_from(ret).map_err(|_| super::last_errno())
}

/// Registers an open file; answers its number for replies to OPEN and CREATE.
///
/// The kernel will write the file with the privileges held now. Without `keeps_suid` CAP_FSETID is not among
/// them, so that the file's own file system drops setuid bits on a write (K103); nobody else would.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN in the first user namespace; ELOOP when the file lies on a stacked file
/// system; ENOTTY on kernels without passthrough.
pub fn backing_open(device: BorrowedFd<'_>, file: BorrowedFd<'_>, keeps_suid: bool) -> Result<u32> {
    if keeps_suid {
        return register(device, file);
    }
    let all = rustix::thread::capabilities(None)?;
    let mut fewer = all;
    fewer.effective.remove(CapabilitySet::FSETID);
    rustix::thread::set_capabilities(None, fewer)?;
    let id = register(device, file);
    rustix::thread::set_capabilities(None, all)?;
    id
}

fn register(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<u32> {
    let map = BackingMap {
        fd: file.as_raw_fd(),
        flags: 0,
        padding: 0,
    };
    // SAFETY: the ioctl reads the struct; the descriptor in it is open for the time of the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BACKING_OPEN as _, &map as *const BackingMap) })
}

/// Takes a registration back; files open through it go on.
///
/// # Errors
/// ENOENT for an unknown number.
pub fn backing_close(device: BorrowedFd<'_>, id: u32) -> Result<()> {
    // SAFETY: the ioctl reads one u32.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BACKING_CLOSE as _, &id as *const u32) }).map(drop)
}
