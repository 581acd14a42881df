//! File handles: a number by which a file system knows an object for good.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

use super::{Errno, Result};

/// The opaque handle that name_to_handle_at(2) gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// The file system's own type number.
    pub kind: i32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

const MAX_HANDLE: usize = 128;

#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    data: [u8; MAX_HANDLE],
}

/// The handle of `name` in `dir` (an empty name: of `dir` itself). Needs no privilege.
///
/// # Errors
/// EOPNOTSUPP where the file system has no handles; else as name_to_handle_at(2).
pub fn of_name(dir: impl AsFd, name: &[u8]) -> Result<Handle> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let mut raw = RawHandle {
        bytes: MAX_HANDLE as u32,
        kind: 0,
        data: [0; MAX_HANDLE],
    };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: the name is NUL-terminated; `raw` has the layout of struct file_handle with the room it
    // claims; `mount_id` is an int.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_fd().as_raw_fd(),
            name.as_ptr(),
            &mut raw as *mut RawHandle,
            &mut mount_id as *mut libc::c_int,
            libc::AT_EMPTY_PATH,
        )
    };
    if ret != 0 {
        return Err(super::last_errno());
    }
    let bytes = raw.data.get(..raw.bytes as usize).ok_or(Errno::OVERFLOW)?;
    Ok(Handle {
        kind: raw.kind,
        bytes: bytes.to_vec(),
    })
}

/// The UUID of the file system behind an open descriptor (not an `O_PATH` one), Linux 6.9 and later.
///
/// # Errors
/// ENOTTY where the kernel or the file system cannot tell; EBADF for an `O_PATH` descriptor.
pub fn fs_uuid(fd: impl AsFd) -> Result<[u8; 16]> {
    #[repr(C)]
    struct FsUuid {
        len: u8,
        uuid: [u8; 16],
    }
    /// `FS_IOC_GETFSUUID`: `_IOR(0x15, 0, struct fsuuid2)`.
    const FS_IOC_GETFSUUID: libc::c_ulong = 0x8011_1500;
    let mut answer = FsUuid {
        len: 0,
        uuid: [0; 16],
    };
    // SAFETY: the ioctl writes at most the 17 bytes of `answer`.
    let ret = unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            FS_IOC_GETFSUUID as _,
            &mut answer as *mut FsUuid,
        )
    };
    if ret != 0 {
        return Err(super::last_errno());
    }
    if answer.len != 16 {
        return Err(Errno::NOTTY);
    }
    Ok(answer.uuid)
}
