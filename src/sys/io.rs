//! Reading, writing and the other calls on an open file.

use std::os::fd::AsFd;

use rustix::fs::{FallocateFlags, StatVfs};

use super::{Errno, Result, fault};

/// Reads up to the buffer's length at `position`, as often as needed; fewer bytes mean the end of the file.
///
/// # Errors
/// As pread(2), never EINTR.
pub fn read_at(fd: impl AsFd, buffer: &mut [u8], position: u64) -> Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..)
        && !rest.is_empty()
    {
        match rustix::io::pread(&fd, rest, position.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            // What was read before the error is handed out first.
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Writes the data at `position`; answers the bytes written, fewer than asked only when the disk is full
/// or failing after a part.
///
/// # Errors
/// As pwrite(2), never EINTR.
pub fn write_at(fd: impl AsFd, data: &[u8], position: u64) -> Result<usize> {
    fault::point()?;
    let mut done = 0;
    while let Some(rest) = data.get(done..)
        && !rest.is_empty()
    {
        match rustix::io::pwrite(&fd, rest, position.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Writes all of the data.
///
/// # Errors
/// As [`write_at`]; ENOSPC when only a part went in.
pub fn write_all_at(fd: impl AsFd, data: &[u8], position: u64) -> Result<()> {
    if write_at(fd, data, position)? == data.len() {
        Ok(())
    } else {
        Err(Errno::NOSPC)
    }
}

/// True for a descriptor by which nothing can be read.
///
/// # Errors
/// As fcntl(2).
pub fn is_write_only(fd: impl AsFd) -> Result<bool> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(flags.intersection(rustix::fs::OFlags::RWMODE) == rustix::fs::OFlags::WRONLY)
}

/// Sets the size of an open file.
///
/// # Errors
/// As ftruncate(2).
pub fn truncate(fd: impl AsFd, size: u64) -> Result<()> {
    fault::point()?;
    rustix::fs::ftruncate(fd, size)
}

/// As [`truncate`], but by truncate(2), which treats the times of a file that keeps its size differently.
///
/// # Errors
/// As truncate(2).
pub fn truncate_path(fd: impl AsFd, size: u64) -> Result<()> {
    fault::point()?;
    let path = std::ffi::CString::new(super::at::proc_path(fd)).map_err(|_| Errno::INVAL)?;
    let size = libc::off_t::try_from(size).map_err(|_| Errno::FBIG)?;
    // SAFETY: the path is NUL-terminated.
    if unsafe { libc::truncate(path.as_ptr(), size) } == 0 {
        return Ok(());
    }
    Err(super::last_errno())
}

/// Brings an open file to disk; with `data_only` without times that nobody needs to read it back.
///
/// # Errors
/// As fsync(2).
pub fn sync(fd: impl AsFd, data_only: bool) -> Result<()> {
    fault::point()?;
    if data_only {
        rustix::fs::fdatasync(fd)
    } else {
        rustix::fs::fsync(fd)
    }
}

/// Brings the whole file system of an open file to disk.
///
/// # Errors
/// As syncfs(2).
pub fn sync_fs(fd: impl AsFd) -> Result<()> {
    rustix::fs::syncfs(fd)
}

/// Reserves, zeroes or punches a range; `mode` is that of fallocate(2).
///
/// # Errors
/// As fallocate(2).
pub fn allocate(fd: impl AsFd, mode: i32, offset: u64, len: u64) -> Result<()> {
    fault::point()?;
    rustix::fs::fallocate(fd, FallocateFlags::from_bits_retain(mode as u32), offset, len)
}

/// Finds data or a hole; `whence` is `SEEK_DATA` or `SEEK_HOLE`.
///
/// # Errors
/// ENXIO past the end, EINVAL for another `whence`; else as lseek(2).
pub fn seek(fd: impl AsFd, offset: i64, whence: i32) -> Result<u64> {
    let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
    let to = match whence {
        libc::SEEK_DATA => rustix::fs::SeekFrom::Data(offset),
        libc::SEEK_HOLE => rustix::fs::SeekFrom::Hole(offset),
        _ => return Err(Errno::INVAL),
    };
    rustix::fs::seek(fd, to)
}

/// Copies a range between two open files inside the kernel.
///
/// # Errors
/// As copy_file_range(2).
pub fn copy_range(from: impl AsFd, from_at: u64, to: impl AsFd, to_at: u64, len: usize) -> Result<usize> {
    fault::point()?;
    let (mut from_at, mut to_at) = (from_at, to_at);
    rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), len)
}

/// Numbers of the file system.
///
/// # Errors
/// As fstatvfs(3).
pub fn stat_fs(fd: impl AsFd) -> Result<StatVfs> {
    rustix::fs::fstatvfs(fd)
}

/// The number that tells the kind of a file system (statfs(2), `f_type`).
///
/// # Errors
/// As fstatfs(2).
pub fn fs_kind(fd: impl AsFd) -> Result<u64> {
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)] // 32 or 64 bits, signed or not, by platform
    rustix::fs::fstatfs(fd).map(|fs| fs.f_type as u64 & 0xffff_ffff)
}

/// The inode flags that lsattr(1) shows (`FS_IOC_GETFLAGS`).
///
/// # Errors
/// ENOTTY where the file system has none.
pub fn inode_flags(fd: impl AsFd) -> Result<u32> {
    rustix::fs::ioctl_getflags(fd).map(|flags| flags.bits())
}
