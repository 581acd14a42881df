//! Doing one call, in the worker.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::bytes::Bytes;
use super::names::Stream;
use super::op::{Call, SLOTS, Slot, When};
use super::outcome::Value;
use super::sys::{self, Answer, Of, check, errno};

/// The open descriptors of a worker.
pub struct Hands {
    slots: Vec<Option<OwnedFd>>,
    streams: Vec<Option<Stream>>,
    root_dev: u64,
}

impl Hands {
    pub fn new(root_dev: u64) -> Self {
        let slots = (0..SLOTS).map(|_| None).collect();
        let streams = (0..SLOTS).map(|_| None).collect();
        Self {
            slots,
            streams,
            root_dev,
        }
    }

    fn fd(&self, slot: Slot) -> RawFd {
        self.slots[slot as usize].as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    pub fn put_away(&mut self, slot: Slot) {
        self.slots[slot as usize] = None;
        self.streams[slot as usize] = None;
    }

    pub fn fstat(&self, slot: Slot) -> Answer<sys::Stat> {
        if self.fd(slot) < 0 {
            return Err(libc::EBADF);
        }
        self.one_device(sys::fstat(self.fd(slot)))
    }

    pub fn lstat(&self, path: &Bytes) -> Answer<sys::Stat> {
        self.one_device(sys::lstat(&path.c()))
    }

    /// All objects of a mount of layers on one file system have the mount's st_dev (K41).
    fn one_device(&self, stat: Answer<sys::Stat>) -> Answer<sys::Stat> {
        stat.map(|mut st| {
            st.dev = u64::from(st.dev != self.root_dev);
            st
        })
    }

    pub fn perform(&mut self, call: &Call) -> Answer<Value> {
        use Call::*;
        match call {
            Open {
                slot,
                path,
                flags,
                mode,
            } => {
                let fd = sys::open_at(libc::AT_FDCWD, &path.c(), *flags, *mode)?;
                self.put_away(*slot);
                self.slots[*slot as usize] = Some(fd);
                Ok(Value::Done)
            }
            Close { slot } => {
                let held = self.slots[*slot as usize].take();
                self.streams[*slot as usize] = None;
                held.map(|_| Value::Done).ok_or(libc::EBADF)
            }
            NextNames { slot, count } => {
                let fd = self.fd(*slot);
                self.streams[*slot as usize]
                    .get_or_insert_default()
                    .next(fd, *count)
            }
            SeekNames { slot, nth } => {
                let fd = self.fd(*slot);
                self.streams[*slot as usize]
                    .get_or_insert_default()
                    .seek(fd, *nth)
            }
            _ => match self.on_slot(call) {
                Some(answer) => answer,
                None => self.on_path(call),
            },
        }
    }

    fn on_slot(&mut self, call: &Call) -> Option<Answer<Value>> {
        use Call::*;
        // Offsets of directories are cookies: only names.rs may move among them.
        if let Seek { slot, .. } | SeekSparse { slot, .. } = *call
            && sys::fstat(self.fd(slot)).is_ok_and(|st| st.is_dir())
        {
            return Some(Err(libc::EISDIR));
        }
        // SAFETY, for each call: descriptors may be bad, buffers are as long as told, strings end in zero.
        let returned = |r: i32| check(r).map(|_| Value::Done);
        Some(match *call {
            Read { slot, len } => {
                let mut buffer = vec![0u8; len as usize];
                check(unsafe { libc::read(self.fd(slot), buffer.as_mut_ptr().cast(), buffer.len()) })
                    .map(|got| Value::data(&buffer[..got as usize]))
            }
            Pread { slot, at, len } => {
                sys::pread(self.fd(slot), at, len as usize).map(|bytes| Value::data(&bytes))
            }
            Write { slot, data } => {
                let bytes = data.bytes();
                check(unsafe { libc::write(self.fd(slot), bytes.as_ptr().cast(), bytes.len()) })
                    .map(|n| Value::Number(n as i64))
            }
            Pwrite { slot, at, data } => {
                let bytes = data.bytes();
                check(unsafe { libc::pwrite64(self.fd(slot), bytes.as_ptr().cast(), bytes.len(), at) })
                    .map(|n| Value::Number(n as i64))
            }
            Seek { slot, to, whence } => {
                check(unsafe { libc::lseek64(self.fd(slot), to, whence) }).map(Value::Number)
            }
            SeekSparse { slot, at, hole } => seek_sparse(self.fd(slot), at, hole),
            Ftruncate { slot, len } => returned(unsafe { libc::ftruncate64(self.fd(slot), len) }),
            Fallocate { slot, mode, at, len } => {
                returned(unsafe { libc::fallocate64(self.fd(slot), mode, at, len) })
            }
            Fsync {
                slot,
                data_only: true,
            } => returned(unsafe { libc::fdatasync(self.fd(slot)) }),
            Fsync {
                slot,
                data_only: false,
            } => returned(unsafe { libc::fsync(self.fd(slot)) }),
            Fstat { slot } => self.fstat(slot).map(Value::Stat),
            Fchmod { slot, mode } => returned(unsafe { libc::fchmod(self.fd(slot), mode) }),
            Fchown { slot, uid, gid } => returned(unsafe { libc::fchown(self.fd(slot), uid, gid) }),
            Futimens { slot, access, modify } => {
                let times = [timespec(access), timespec(modify)];
                returned(unsafe { libc::futimens(self.fd(slot), times.as_ptr()) })
            }
            Fsetxattr {
                slot,
                ref name,
                ref value,
                flags,
            } => sys::set_xattr(Of::Fd(self.fd(slot)), &name.c(), &value.0, flags).map(|()| Value::Done),
            Fgetxattr { slot, ref name } => {
                sys::get_xattr(Of::Fd(self.fd(slot)), &name.c()).map(|value| Value::data(&value))
            }
            MmapWrite { slot, at, data } => mmap(self.fd(slot), at, data.len, Some(&data.bytes())),
            MmapRead { slot, at, len } => mmap(self.fd(slot), at, len, None),
            CopyRange {
                from,
                from_at,
                to,
                to_at,
                len,
            } => copy_range(self.fd(from), from_at, self.fd(to), to_at, len as usize),
            LinkSlot { slot, ref path } => {
                if self.fd(slot) < 0 {
                    return Some(Err(libc::EBADF));
                }
                let (fd, path) = (self.fd(slot), path.c());
                returned(unsafe {
                    libc::linkat(
                        fd,
                        c"".as_ptr(),
                        libc::AT_FDCWD,
                        path.as_ptr(),
                        libc::AT_EMPTY_PATH,
                    )
                })
            }
            Flock { slot, how } => returned(unsafe { libc::flock(self.fd(slot), how | libc::LOCK_NB) }),
            Lock {
                slot,
                kind,
                at,
                len,
                of_file,
            } => lock(self.fd(slot), kind, at, len, of_file),
            GetFlags { slot } => {
                let mut flags: libc::c_long = 0;
                check(unsafe { libc::ioctl(self.fd(slot), libc::FS_IOC_GETFLAGS, &mut flags) })
                    .map(|_| Value::Number(flags))
            }
            _ => return None,
        })
    }

    fn on_path(&mut self, call: &Call) -> Answer<Value> {
        use Call::*;
        let done = |r: i32| check(r).map(|_| Value::Done);
        let here = libc::AT_FDCWD;
        // SAFETY, for each call: strings end in zero and live over the call.
        match call {
            Truncate { path, len } => done(unsafe { libc::truncate64(path.c().as_ptr(), *len) }),
            ReadFile { path } => {
                let fd = sys::open_at(here, &path.c(), libc::O_RDONLY | libc::O_NONBLOCK, 0)?;
                let mut all = Vec::new();
                loop {
                    let more = sys::pread(fd.as_raw_fd(), all.len() as i64, 1 << 16)?;
                    if more.is_empty() || all.len() > 1 << 22 {
                        return Ok(Value::data(&all));
                    }
                    all.extend(more);
                }
            }
            WriteFile {
                path,
                flags,
                mode,
                data,
            } => {
                let fd = sys::open_at(here, &path.c(), *flags, *mode)?;
                let bytes = data.bytes();
                check(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
                    .map(|n| Value::Number(n as i64))
            }
            Mkdir { path, mode } => done(unsafe { libc::mkdir(path.c().as_ptr(), *mode) }),
            Mknod {
                path,
                mode,
                major,
                minor,
            } => done(unsafe { libc::mknod(path.c().as_ptr(), *mode, libc::makedev(*major, *minor)) }),
            Symlink { target, path } => {
                done(unsafe { libc::symlink(target.c().as_ptr(), path.c().as_ptr()) })
            }
            Readlink { path } => sys::read_link_at(here, &path.c()).map(|target| Value::data(&target)),
            Link { from, to, follow } => {
                let flags = if *follow { libc::AT_SYMLINK_FOLLOW } else { 0 };
                done(unsafe { libc::linkat(here, from.c().as_ptr(), here, to.c().as_ptr(), flags) })
            }
            Unlink { path } => done(unsafe { libc::unlink(path.c().as_ptr()) }),
            Rmdir { path } => done(unsafe { libc::rmdir(path.c().as_ptr()) }),
            Rename { from, to, flags } => {
                done(unsafe { libc::renameat2(here, from.c().as_ptr(), here, to.c().as_ptr(), *flags) })
            }
            Chmod { path, mode } => done(unsafe { libc::chmod(path.c().as_ptr(), *mode) }),
            Chown {
                path,
                uid,
                gid,
                follow,
            } => {
                let flags = if *follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
                done(unsafe { libc::fchownat(here, path.c().as_ptr(), *uid, *gid, flags) })
            }
            Utimens {
                path,
                access,
                modify,
                follow,
            } => {
                let times = [timespec(*access), timespec(*modify)];
                let flags = if *follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
                done(unsafe { libc::utimensat(here, path.c().as_ptr(), times.as_ptr(), flags) })
            }
            SetXattr {
                path,
                name,
                value,
                flags,
                follow,
            } => sys::set_xattr(of(&path.c(), *follow), &name.c(), &value.0, *flags).map(|()| Value::Done),
            GetXattr { path, name, follow } => {
                sys::get_xattr(of(&path.c(), *follow), &name.c()).map(|value| Value::data(&value))
            }
            ListXattr { path, follow } => sys::list_xattr(of(&path.c(), *follow))
                .map(|names| Value::Words(names.into_iter().map(Bytes).collect())),
            RemoveXattr { path, name, follow } => {
                sys::remove_xattr(of(&path.c(), *follow), &name.c()).map(|()| Value::Done)
            }
            Stat { path, follow } => {
                let flags = if *follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
                self.one_device(sys::stat_at(here, &path.c(), flags))
                    .map(Value::Stat)
            }
            Access {
                path,
                mode,
                effective,
            } => {
                let flags = if *effective { libc::AT_EACCESS } else { 0 };
                done(unsafe { libc::faccessat(here, path.c().as_ptr(), *mode, flags) })
            }
            Statfs { path } => statfs(&path.c()),
            List { path } => {
                let fd = sys::open_at(here, &path.c(), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
                Stream::default().next(fd.as_raw_fd(), u32::MAX)
            }
            Chdir { path } => done(unsafe { libc::chdir(path.c().as_ptr()) }),
            Umask { mask } => Ok(Value::Number(i64::from(unsafe { libc::umask(*mask) }))),
            _ => Err(libc::ENOSYS),
        }
    }
}

fn of(path: &std::ffi::CStr, follow: bool) -> Of<'_> {
    if follow { Of::Path(path) } else { Of::Link(path) }
}

fn timespec(when: When) -> libc::timespec {
    match when {
        When::At(tv_sec, nsec) => libc::timespec {
            tv_sec,
            tv_nsec: i64::from(nsec),
        },
        When::Now => libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_NOW,
        },
        When::Omit => libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_OMIT,
        },
    }
}

/// Holes may lie elsewhere after a copy; what must hold is that nothing but zeros is skipped.
fn seek_sparse(fd: RawFd, at: i64, hole: bool) -> Answer<Value> {
    // SAFETY: plain calls on a descriptor that may be bad.
    let stood = check(unsafe { libc::lseek64(fd, 0, libc::SEEK_CUR) })?;
    let whence = if hole { libc::SEEK_HOLE } else { libc::SEEK_DATA };
    let found = check(unsafe { libc::lseek64(fd, at, whence) });
    check(unsafe { libc::lseek64(fd, stood, libc::SEEK_SET) })?;
    let size = sys::fstat(fd)?.size;
    let zeros = |from: i64, to: i64| -> Answer<bool> {
        let len = (to - from).clamp(0, 1 << 22) as usize;
        // A write-only descriptor cannot be read: then there is nothing to check.
        match sys::pread(fd, from, len) {
            Err(libc::EBADF) => Ok(true),
            other => other.map(|bytes| bytes.iter().all(|&b| b == 0)),
        }
    };
    let sound = match (found, hole) {
        (Ok(found), true) => found >= at && found <= size && (found == size || zeros(found, found + 1)?),
        (Ok(found), false) => found >= at && found < size && zeros(at, found)?,
        // No data after here.
        (Err(libc::ENXIO), false) if at < size && at >= 0 => zeros(at, size)?,
        (Err(errno), _) => return Err(errno),
    };
    Ok(Value::Text(if sound {
        "sound".into()
    } else {
        format!("wrong: {found:?} of {size}")
    }))
}

fn mmap(fd: RawFd, at: i64, len: u32, write: Option<&[u8]>) -> Answer<Value> {
    let stat = sys::fstat(fd)?;
    let start = at & !4095;
    let end = (at + i64::from(len)).min(stat.size);
    let protection = if write.is_some() {
        libc::PROT_READ | libc::PROT_WRITE
    } else {
        libc::PROT_READ
    };
    let map_len = ((at + i64::from(len) - start) as usize).max(1);
    // SAFETY: a new mapping that only this function uses, and only below the end of the file.
    unsafe {
        let map = libc::mmap(
            std::ptr::null_mut(),
            map_len,
            protection,
            libc::MAP_SHARED,
            fd,
            start,
        );
        if map == libc::MAP_FAILED {
            return Err(errno());
        }
        let usable = (end - at).max(0) as usize;
        let place = map.cast::<u8>().add((at - start) as usize);
        let answer = if let Some(data) = write {
            touch(place, &mut data[..usable].to_vec(), true)
                .and_then(|()| check(libc::msync(map, map_len, libc::MS_SYNC)))
                .map(|_| Value::Number(usable as i64))
        } else {
            let mut data = vec![0u8; usable];
            touch(place, &mut data, false).map(|()| Value::data(&data))
        };
        libc::munmap(map, map_len);
        answer
    }
}

/// Reads or writes mapped memory through the kernel: a page that is not there gives EFAULT, not SIGBUS.
fn touch(place: *mut u8, data: &mut [u8], write: bool) -> Answer<()> {
    let local = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    let mapped = libc::iovec {
        iov_base: place.cast(),
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

fn copy_range(from: RawFd, mut from_at: i64, to: RawFd, mut to_at: i64, len: usize) -> Answer<Value> {
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
    Ok(Value::Number(copied as i64))
}

fn lock(fd: RawFd, kind: i32, at: i64, len: i64, of_file: bool) -> Answer<Value> {
    let mut lock = libc::flock64 {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: at,
        l_len: len,
        l_pid: 0,
    };
    let command = if of_file { libc::F_OFD_SETLK } else { libc::F_SETLK };
    // SAFETY: the lock record lives over the call.
    match check(unsafe { libc::fcntl(fd, command, &mut lock) }) {
        // POSIX leaves the choice between the two.
        Err(libc::EACCES) => Err(libc::EAGAIN),
        other => other.map(|_| Value::Done),
    }
}

/// What must agree: sizes and limits. Free space changes under our hands.
fn statfs(path: &std::ffi::CStr) -> Answer<Value> {
    // SAFETY: an all-zero buffer to be filled in.
    let mut st: libc::statfs64 = unsafe { std::mem::zeroed() };
    check(unsafe { libc::statfs64(path.as_ptr(), &mut st) })?;
    Ok(Value::Text(format!(
        "bsize {} frsize {} namelen {} blocks {} files {}",
        st.f_bsize, st.f_frsize, st.f_namelen, st.f_blocks, st.f_files
    )))
}
