//! Shared mappings of files.

use std::os::fd::RawFd;

use super::{Answer, check, errno};

/// Maps `span` bytes from `start` (whole pages) and hands the bytes at `offset` to `work`.
fn mapped<T>(
    fd: RawFd,
    start: i64,
    span: usize,
    protection: i32,
    work: impl FnOnce(*mut libc::c_void) -> Answer<T>,
) -> Answer<T> {
    // SAFETY: a new mapping, which nobody but `work` uses, and which is gone when this returns.
    unsafe {
        let map = libc::mmap(
            std::ptr::null_mut(),
            span,
            protection,
            libc::MAP_SHARED,
            fd,
            start,
        );
        if map == libc::MAP_FAILED {
            return Err(errno());
        }
        let answer = work(map);
        libc::munmap(map, span);
        answer
    }
}

/// Writes `data` at `at` of a file through a shared mapping, and waits until it is written back. No more than
/// `usable` bytes are written, which must end with the file.
pub(crate) fn write_mapped(fd: RawFd, at: i64, data: &[u8], usable: usize) -> Answer<()> {
    let start = at & !4095;
    let before = (at - start) as usize;
    let span = (before + data.len()).max(1);
    let mut data = data.get(..usable).unwrap_or(data).to_vec();
    mapped(fd, start, span, libc::PROT_READ | libc::PROT_WRITE, |map| {
        touch(map.wrapping_byte_add(before), &mut data, true)?;
        // SAFETY: the mapping is there, and as long as told.
        check(unsafe { libc::msync(map, span, libc::MS_SYNC) }).map(drop)
    })
}

/// Reads `usable` bytes at `at` of a file through a shared mapping of `len` bytes.
pub(crate) fn read_mapped(fd: RawFd, at: i64, len: usize, usable: usize) -> Answer<Vec<u8>> {
    let start = at & !4095;
    let before = (at - start) as usize;
    let mut data = vec![0u8; usable.min(len)];
    mapped(fd, start, (before + len).max(1), libc::PROT_READ, |map| {
        touch(map.wrapping_byte_add(before), &mut data, false)
    })?;
    Ok(data)
}

/// Reads or writes mapped memory through the kernel: a page that is not there gives EFAULT, not SIGBUS.
fn touch(place: *mut libc::c_void, data: &mut [u8], write: bool) -> Answer<()> {
    let local = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    let mapped = libc::iovec {
        iov_base: place,
        iov_len: data.len(),
    };
    // SAFETY: one's own memory; `data` is as long as told, and the kernel checks `place`.
    let done = check(unsafe {
        let me = libc::getpid();
        if write {
            libc::process_vm_writev(me, &local, 1, &mapped, 1, 0)
        } else {
            libc::process_vm_readv(me, &local, 1, &mapped, 1, 0)
        }
    })?;
    if done as usize == data.len() {
        Ok(())
    } else {
        Err(libc::EFAULT)
    }
}
