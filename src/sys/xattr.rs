//! Extended attributes of a name in a directory, or of an open descriptor.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::buffer::spare_capacity;

use super::at::proc_path;
use super::{Errno, Result, fault};

/// Where an object is reached.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// One name in an open directory; a symlink itself, not its target.
    At(BorrowedFd<'a>, &'a [u8]),
    /// An open descriptor, `O_PATH` ones too.
    Fd(BorrowedFd<'a>),
}

/// The greatest value and the greatest list of names that the kernel hands out.
pub const XATTR_MAX: usize = 65536;

/// False once the kernel has answered ENOSYS to one of the `*xattrat` calls (before Linux 6.13).
static HAVE_XATTRAT: AtomicBool = AtomicBool::new(true);

const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Errno::INVAL)
}

fn check(ret: libc::c_long) -> Result<usize> {
    usize::try_from(ret).map_err(|_| super::last_errno())
}

/// Runs `at` with the `*xattrat` form, or `path` with a /proc path where the kernel lacks it.
fn with_target<T>(
    target: Target<'_>,
    at: impl FnOnce(BorrowedFd<'_>, &CString) -> Result<T>,
    by_path: impl FnOnce(&str, bool, Option<&[u8]>) -> Result<T>,
) -> Result<T> {
    match target {
        Target::At(dir, name) => {
            if HAVE_XATTRAT.load(Ordering::Relaxed) {
                match at(dir, &c_name(name)?) {
                    Err(Errno::NOSYS) => HAVE_XATTRAT.store(false, Ordering::Relaxed),
                    done => return done,
                }
            }
            by_path(&proc_path(dir), false, Some(name))
        }
        Target::Fd(fd) => by_path(&proc_path(fd), true, None),
    }
}

fn joined(dir: &str, name: Option<&[u8]>) -> Vec<u8> {
    let mut path = Vec::from(dir.as_bytes());
    if let Some(name) = name {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

/// The value of one attribute.
///
/// # Errors
/// ENODATA when it is not there, EOPNOTSUPP where the file system has none; else as getxattr(2).
pub fn get(target: Target<'_>, name: &[u8]) -> Result<Vec<u8>> {
    let mut size = 256;
    loop {
        let mut value = Vec::with_capacity(size);
        match get_into(target, name, &mut value) {
            Ok(()) => return Ok(value),
            Err(Errno::RANGE) if size < XATTR_MAX => size = XATTR_MAX,
            Err(errno) => return Err(errno),
        }
    }
}

/// The size of one attribute's value in bytes.
///
/// # Errors
/// As [`get`].
pub fn size_of(target: Target<'_>, name: &[u8]) -> Result<usize> {
    get(target, name).map(|value| value.len())
}

fn get_into(target: Target<'_>, name: &[u8], value: &mut Vec<u8>) -> Result<()> {
    let attr = c_name(name)?;
    let value = std::cell::RefCell::new(value);
    with_target(
        target,
        |dir, object| {
            let mut value = value.borrow_mut();
            let args = XattrArgs {
                value: value.as_mut_ptr() as u64,
                size: u32::try_from(value.capacity()).unwrap_or(u32::MAX),
                flags: 0,
            };
            // SAFETY: both strings are NUL-terminated and `args` describes the vector's own spare room.
            let ret = unsafe {
                libc::syscall(
                    SYS_GETXATTRAT,
                    dir.as_raw_fd(),
                    object.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    attr.as_ptr(),
                    &args as *const XattrArgs,
                    size_of_val(&args),
                )
            };
            let len = check(ret)?;
            // SAFETY: the kernel wrote `len` bytes, which is at most the capacity it was told.
            unsafe { value.set_len(len) };
            Ok(())
        },
        |dir, follow, name| {
            let path = joined(dir, name);
            let mut value = value.borrow_mut();
            let buffer = spare_capacity(&mut value);
            if follow {
                rustix::fs::getxattr(path.as_slice(), attr.as_c_str(), buffer)?;
            } else {
                rustix::fs::lgetxattr(path.as_slice(), attr.as_c_str(), buffer)?;
            }
            Ok(())
        },
    )
}

/// The names of all attributes, each ended by a NUL byte; empty where the file system has none.
///
/// # Errors
/// As listxattr(2), but EOPNOTSUPP becomes an empty list.
pub fn list(target: Target<'_>) -> Result<Vec<u8>> {
    let mut size = 512;
    loop {
        let mut names = Vec::with_capacity(size);
        match list_into(target, &mut names) {
            Ok(()) => return Ok(names),
            Err(Errno::RANGE) if size < XATTR_MAX => size = XATTR_MAX,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    }
}

fn list_into(target: Target<'_>, names: &mut Vec<u8>) -> Result<()> {
    let names = std::cell::RefCell::new(names);
    with_target(
        target,
        |dir, object| {
            let mut names = names.borrow_mut();
            // SAFETY: the name is NUL-terminated, pointer and length describe the vector's spare room.
            let ret = unsafe {
                libc::syscall(
                    SYS_LISTXATTRAT,
                    dir.as_raw_fd(),
                    object.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    names.as_mut_ptr(),
                    names.capacity(),
                )
            };
            let len = check(ret)?;
            // SAFETY: the kernel wrote `len` bytes, at most the capacity.
            unsafe { names.set_len(len) };
            Ok(())
        },
        |dir, follow, name| {
            let path = joined(dir, name);
            let mut names = names.borrow_mut();
            let buffer = spare_capacity(&mut names);
            if follow {
                rustix::fs::listxattr(path.as_slice(), buffer)?;
            } else {
                rustix::fs::llistxattr(path.as_slice(), buffer)?;
            }
            Ok(())
        },
    )
}

/// Splits a list of names at its NUL bytes.
pub fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == 0).filter(|name| !name.is_empty())
}

/// Sets an attribute; `flags` are those of setxattr(2) (`XATTR_CREATE`, `XATTR_REPLACE` or 0).
///
/// # Errors
/// As setxattr(2): EEXIST, ENODATA, ENOSPC, EDQUOT, EPERM, EOPNOTSUPP.
pub fn set(target: Target<'_>, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
    fault::point()?;
    let attr = c_name(name)?;
    with_target(
        target,
        |dir, object| {
            let args = XattrArgs {
                value: value.as_ptr() as u64,
                size: u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?,
                flags: flags as u32,
            };
            // SAFETY: both strings are NUL-terminated and `args` describes `value`, which is only read.
            let ret = unsafe {
                libc::syscall(
                    SYS_SETXATTRAT,
                    dir.as_raw_fd(),
                    object.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    attr.as_ptr(),
                    &args as *const XattrArgs,
                    size_of_val(&args),
                )
            };
            check(ret).map(|_| ())
        },
        |dir, follow, name| {
            let path = joined(dir, name);
            let flags = rustix::fs::XattrFlags::from_bits_retain(flags as u32);
            if follow {
                rustix::fs::setxattr(path.as_slice(), attr.as_c_str(), value, flags)
            } else {
                rustix::fs::lsetxattr(path.as_slice(), attr.as_c_str(), value, flags)
            }
        },
    )
}

/// Removes an attribute.
///
/// # Errors
/// ENODATA when it is not there; else as removexattr(2).
pub fn remove(target: Target<'_>, name: &[u8]) -> Result<()> {
    fault::point()?;
    let attr = c_name(name)?;
    with_target(
        target,
        |dir, object| {
            // SAFETY: both strings are NUL-terminated.
            let ret = unsafe {
                libc::syscall(
                    SYS_REMOVEXATTRAT,
                    dir.as_raw_fd(),
                    object.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    attr.as_ptr(),
                )
            };
            check(ret).map(|_| ())
        },
        |dir, follow, name| {
            let path = joined(dir, name);
            if follow {
                rustix::fs::removexattr(path.as_slice(), attr.as_c_str())
            } else {
                rustix::fs::lremovexattr(path.as_slice(), attr.as_c_str())
            }
        },
    )
}

/// A target that borrows a descriptor.
pub fn of<Fd: AsFd>(fd: &Fd) -> Target<'_> {
    Target::Fd(fd.as_fd())
}
