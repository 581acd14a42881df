//! Calls on a descriptor, which may be bad: the answer is then the kernel's.

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::{Answer, check};

/// read(2) of up to `len` bytes.
pub(crate) fn read(fd: RawFd, len: usize) -> Answer<Vec<u8>> {
    let mut buffer = vec![0u8; len];
    // SAFETY: the buffer is as long as told.
    let got = check(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), len) })?;
    buffer.truncate(got as usize);
    Ok(buffer)
}

/// pread(2) of up to `len` bytes.
pub(crate) fn pread(fd: RawFd, at: i64, len: usize) -> Answer<Vec<u8>> {
    let mut buffer = vec![0u8; len];
    // SAFETY: the buffer is as long as told.
    let got = check(unsafe { libc::pread64(fd, buffer.as_mut_ptr().cast(), len, at) })?;
    buffer.truncate(got as usize);
    Ok(buffer)
}

/// write(2): how much was taken.
pub(crate) fn write(fd: RawFd, data: &[u8]) -> Answer<i64> {
    // SAFETY: the buffer is as long as told.
    check(unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) }).map(|n| n as i64)
}

/// pwrite(2): how much was taken.
pub(crate) fn pwrite(fd: RawFd, at: i64, data: &[u8]) -> Answer<i64> {
    // SAFETY: the buffer is as long as told.
    check(unsafe { libc::pwrite64(fd, data.as_ptr().cast(), data.len(), at) }).map(|n| n as i64)
}

/// lseek(2).
pub(crate) fn seek(fd: RawFd, to: i64, whence: i32) -> Answer<i64> {
    // SAFETY: plain call.
    check(unsafe { libc::lseek64(fd, to, whence) })
}

/// ftruncate(2).
pub(crate) fn ftruncate(fd: RawFd, len: i64) -> Answer<()> {
    // SAFETY: plain call.
    check(unsafe { libc::ftruncate64(fd, len) }).map(drop)
}

/// fallocate(2).
pub(crate) fn fallocate(fd: RawFd, mode: i32, at: i64, len: i64) -> Answer<()> {
    // SAFETY: plain call.
    check(unsafe { libc::fallocate64(fd, mode, at, len) }).map(drop)
}

/// fsync(2), or fdatasync(2).
pub(crate) fn fsync(fd: RawFd, data_only: bool) -> Answer<()> {
    // SAFETY: plain calls.
    check(unsafe {
        if data_only {
            libc::fdatasync(fd)
        } else {
            libc::fsync(fd)
        }
    })
    .map(drop)
}

/// fchmod(2).
pub(crate) fn fchmod(fd: RawFd, mode: u32) -> Answer<()> {
    // SAFETY: plain call.
    check(unsafe { libc::fchmod(fd, mode) }).map(drop)
}

/// fchown(2).
pub(crate) fn fchown(fd: RawFd, uid: u32, gid: u32) -> Answer<()> {
    // SAFETY: plain call.
    check(unsafe { libc::fchown(fd, uid, gid) }).map(drop)
}

/// futimens(2): access and modification time.
pub(crate) fn futimens(fd: RawFd, times: &[libc::timespec; 2]) -> Answer<()> {
    // SAFETY: two times that live over the call.
    check(unsafe { libc::futimens(fd, times.as_ptr()) }).map(drop)
}

/// linkat(2) of an open file itself.
pub(crate) fn link_descriptor(fd: RawFd, path: &CStr) -> Answer<()> {
    // SAFETY: strings that live over the call.
    check(unsafe {
        libc::linkat(
            fd,
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// flock(2) without waiting.
pub(crate) fn flock(fd: RawFd, how: i32) -> Answer<()> {
    // SAFETY: plain call.
    check(unsafe { libc::flock(fd, how | libc::LOCK_NB) }).map(drop)
}

/// A lock on a range without waiting: of the open file, or of the process.
pub(crate) fn lock_range(fd: RawFd, kind: i32, at: i64, len: i64, of_file: bool) -> Answer<()> {
    let mut lock = libc::flock64 {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: at,
        l_len: len,
        l_pid: 0,
    };
    let command = if of_file { libc::F_OFD_SETLK } else { libc::F_SETLK };
    // SAFETY: the lock record lives over the call.
    check(unsafe { libc::fcntl(fd, command, &mut lock) }).map(drop)
}

/// FS_IOC_GETFLAGS.
pub(crate) fn inode_flags(fd: RawFd) -> Answer<i64> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the number lives over the call.
    check(unsafe { libc::ioctl(fd, libc::FS_IOC_GETFLAGS, &mut flags) }).map(|_| flags)
}

/// copy_file_range(2), called again until `len` bytes were copied, the end was met, or it fails.
pub(crate) fn copy_range(
    from: RawFd,
    mut from_at: i64,
    to: RawFd,
    mut to_at: i64,
    len: usize,
) -> Answer<i64> {
    let mut copied = 0usize;
    while copied < len {
        // SAFETY: offsets live over the call.
        let n = check(unsafe { libc::copy_file_range(from, &mut from_at, to, &mut to_at, len - copied, 0) });
        match n {
            Ok(0) => break,
            Ok(n) => copied += n as usize,
            Err(errno) if copied == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(copied as i64)
}
