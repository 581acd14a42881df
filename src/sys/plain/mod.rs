//! System calls just as a program makes them: paths as they are spelled, descriptors that may be bad, and the errno as
//! a plain number.
//!
//! For asking a mounted view what a program would be told. Whoever works on the layers of a mount uses the rest of
//! [`crate::sys`], which follows no path.

mod descriptor;
mod memory;
mod path;
mod process;

pub(crate) use descriptor::*;
pub(crate) use memory::*;
pub(crate) use path::*;
pub(crate) use process::*;

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

/// A value, or the errno.
pub(crate) type Answer<T> = Result<T, i32>;

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Turns the usual -1 into the errno.
fn check<T: PartialOrd + Default>(returned: T) -> Answer<T> {
    if returned < T::default() {
        Err(errno())
    } else {
        Ok(returned)
    }
}

/// Seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Time(pub i64, pub i64);

/// What stat(2) tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u64,
    pub rdev: u64,
    pub size: i64,
    pub mtime: Time,
    pub ctime: Time,
    pub atime: Time,
}

impl Stat {
    pub(crate) fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// A file with setgid and without group-execute: once the mark of mandatory locking.
    pub(crate) fn is_locking(&self) -> bool {
        self.kind() == libc::S_IFREG && self.mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }
}

pub(crate) fn stat_at(dir: RawFd, path: &CStr, flags: i32) -> Answer<Stat> {
    // SAFETY: an all-zero stat is a valid value to be filled in.
    let mut st: libc::stat64 = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is a C string and `st` a stat buffer, both alive over the call.
    check(unsafe { libc::fstatat64(dir, path.as_ptr(), &mut st, flags) })?;
    Ok(Stat {
        dev: st.st_dev,
        ino: st.st_ino,
        mode: st.st_mode,
        uid: st.st_uid,
        gid: st.st_gid,
        nlink: st.st_nlink,
        rdev: st.st_rdev,
        size: st.st_size,
        mtime: Time(st.st_mtime, st.st_mtime_nsec),
        ctime: Time(st.st_ctime, st.st_ctime_nsec),
        atime: Time(st.st_atime, st.st_atime_nsec),
    })
}

pub(crate) fn lstat(path: &CStr) -> Answer<Stat> {
    stat_at(libc::AT_FDCWD, path, libc::AT_SYMLINK_NOFOLLOW)
}

pub(crate) fn fstat(fd: RawFd) -> Answer<Stat> {
    stat_at(fd, c"", libc::AT_EMPTY_PATH)
}

pub(crate) fn open_at(dir: RawFd, path: &CStr, flags: i32, mode: u32) -> Answer<OwnedFd> {
    // SAFETY: `path` is a C string; the descriptor returned is ours alone.
    unsafe {
        let fd = check(libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC, mode))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

pub(crate) fn read_link_at(dir: RawFd, path: &CStr) -> Answer<Vec<u8>> {
    let mut buffer = vec![0u8; 4097];
    // SAFETY: the buffer is as long as told.
    let got = check(unsafe { libc::readlinkat(dir, path.as_ptr(), buffer.as_mut_ptr().cast(), 4097) })?;
    buffer.truncate(got as usize);
    Ok(buffer)
}

/// Where an attribute is asked for: a path, itself or through symlinks, or a descriptor.
#[derive(Clone, Copy)]
pub(crate) enum Of<'a> {
    Path(&'a CStr),
    Link(&'a CStr),
    Fd(RawFd),
}

pub(crate) fn set_xattr(of: Of, name: &CStr, value: &[u8], flags: i32) -> Answer<()> {
    let (data, len) = (value.as_ptr().cast(), value.len());
    // SAFETY: strings and buffer are valid over the call.
    check(unsafe {
        match of {
            Of::Path(path) => libc::setxattr(path.as_ptr(), name.as_ptr(), data, len, flags),
            Of::Link(path) => libc::lsetxattr(path.as_ptr(), name.as_ptr(), data, len, flags),
            Of::Fd(fd) => libc::fsetxattr(fd, name.as_ptr(), data, len, flags),
        }
    })
    .map(drop)
}

thread_local! {
    /// Room for the greatest attribute or list of them; a fresh one for each call would cost more than the call.
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; 65536]);
}

pub(crate) fn get_xattr(of: Of, name: &CStr) -> Answer<Vec<u8>> {
    ROOM.with_borrow_mut(|room| {
        let (data, len) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: the buffer is as long as told.
        let got = check(unsafe {
            match of {
                Of::Path(path) => libc::getxattr(path.as_ptr(), name.as_ptr(), data, len),
                Of::Link(path) => libc::lgetxattr(path.as_ptr(), name.as_ptr(), data, len),
                Of::Fd(fd) => libc::fgetxattr(fd, name.as_ptr(), data, len),
            }
        })?;
        Ok(room.get(..got as usize).unwrap_or_default().to_vec())
    })
}

pub(crate) fn list_xattr(of: Of) -> Answer<Vec<Vec<u8>>> {
    ROOM.with_borrow_mut(|room| {
        let (data, len) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: the buffer is as long as told.
        let got = check(unsafe {
            match of {
                Of::Path(path) => libc::listxattr(path.as_ptr(), data, len),
                Of::Link(path) => libc::llistxattr(path.as_ptr(), data, len),
                Of::Fd(fd) => libc::flistxattr(fd, data, len),
            }
        })?;
        let names = room.get(..got as usize).unwrap_or_default().split(|&b| b == 0);
        let mut names: Vec<Vec<u8>> = names
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        names.sort();
        Ok(names)
    })
}

pub(crate) fn remove_xattr(of: Of, name: &CStr) -> Answer<()> {
    // SAFETY: strings are valid over the call.
    check(unsafe {
        match of {
            Of::Path(path) => libc::removexattr(path.as_ptr(), name.as_ptr()),
            Of::Link(path) => libc::lremovexattr(path.as_ptr(), name.as_ptr()),
            Of::Fd(fd) => libc::fremovexattr(fd, name.as_ptr()),
        }
    })
    .map(drop)
}

/// One record of getdents64.
pub(crate) struct Dirent {
    pub name: Vec<u8>,
    pub ino: u64,
    pub kind: u8,
    /// Where lseek goes on after this entry.
    pub next: i64,
}

pub(crate) fn getdents(fd: RawFd, buffer_len: usize) -> Answer<Vec<Dirent>> {
    let mut buffer = vec![0u8; buffer_len];
    // SAFETY: the buffer is as long as told.
    let got = check(unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer_len) })?;
    let mut entries = Vec::new();
    let mut rest = buffer.get(..got as usize).unwrap_or_default();
    while let Some((entry, length)) = record(rest) {
        entries.push(entry);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(entries)
}

/// The first record of a buffer of getdents64, and its length.
fn record(bytes: &[u8]) -> Option<(Dirent, usize)> {
    let (ino, rest) = bytes.split_first_chunk::<8>()?;
    let (next, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (&kind, _) = rest.split_first()?;
    let length = usize::from(u16::from_ne_bytes(*length));
    let name = bytes.get(19..length)?.split(|&b| b == 0).next()?;
    let entry = Dirent {
        name: name.to_vec(),
        ino: u64::from_ne_bytes(*ino),
        kind,
        next: i64::from_ne_bytes(*next),
    };
    Some((entry, length))
}

/// Every entry of an open directory but `.` and `..`, from the start.
pub(crate) fn list(fd: &OwnedFd) -> Answer<Vec<Dirent>> {
    seek(fd.as_raw_fd(), 0, libc::SEEK_SET)?;
    let mut entries = Vec::new();
    loop {
        let batch = getdents(fd.as_raw_fd(), 32768)?;
        if batch.is_empty() {
            return Ok(entries);
        }
        entries.extend(batch.into_iter().filter(|e| e.name != b"." && e.name != b".."));
        if entries.len() > 200_000 {
            return Err(libc::ELOOP);
        }
    }
}

/// A C string; what follows a zero byte is left out.
pub(crate) fn c(bytes: &[u8]) -> CString {
    CString::new(bytes.split(|&b| b == 0).next().unwrap_or_default()).unwrap_or_default()
}

/// The name of an errno, for people.
pub(crate) fn errno_name(errno: i32) -> String {
    const NAMES: &[(i32, &str)] = &[
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::E2BIG, "E2BIG"),
        (libc::EBADF, "EBADF"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EXDEV, "EXDEV"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::EMFILE, "EMFILE"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::EFBIG, "EFBIG"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::ESPIPE, "ESPIPE"),
        (libc::EROFS, "EROFS"),
        (libc::EMLINK, "EMLINK"),
        (libc::ERANGE, "ERANGE"),
        (libc::ENAMETOOLONG, "ENAMETOOLONG"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ENOTEMPTY, "ENOTEMPTY"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENODATA, "ENODATA"),
        (libc::EOVERFLOW, "EOVERFLOW"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::ENOTCONN, "ENOTCONN"),
        (libc::ESTALE, "ESTALE"),
        (libc::ECONNABORTED, "ECONNABORTED"),
    ];
    NAMES
        .iter()
        .find(|(n, _)| *n == errno)
        .map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).into())
}
