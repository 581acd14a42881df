//! Doing one call, in the worker.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::bytes::Bytes;
use super::names::Stream;
use super::op::{Call, SLOTS, Slot, When};
use super::outcome::Value;
use crate::sys::plain::{self as sys, Answer, Of};

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
        let held = self.slots.get(usize::from(slot)).and_then(Option::as_ref);
        held.map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Holds `fd` in the slot; what was there before is closed and returned as a flag.
    fn hold(&mut self, slot: Slot, fd: Option<OwnedFd>) -> bool {
        if let Some(stream) = self.streams.get_mut(usize::from(slot)) {
            *stream = None;
        }
        let place = self.slots.get_mut(usize::from(slot));
        place.and_then(|place| std::mem::replace(place, fd)).is_some()
    }

    fn stream(&mut self, slot: Slot) -> Answer<&mut Stream> {
        let stream = self.streams.get_mut(usize::from(slot)).ok_or(libc::EBADF)?;
        Ok(stream.get_or_insert_default())
    }

    /// Closes the slot, if there is something in it.
    pub fn put_away(&mut self, slot: Slot) {
        self.hold(slot, None);
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
                self.hold(*slot, Some(fd));
                Ok(Value::Done)
            }
            Close { slot } => {
                let held = self.hold(*slot, None);
                held.then_some(Value::Done).ok_or(libc::EBADF)
            }
            NextNames { slot, count } => {
                let fd = self.fd(*slot);
                self.stream(*slot)?.next(fd, *count)
            }
            SeekNames { slot, nth } => {
                let fd = self.fd(*slot);
                self.stream(*slot)?.seek(fd, *nth)
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
        let done = |answer: Answer<()>| answer.map(|()| Value::Done);
        Some(match *call {
            Read { slot, len } => sys::read(self.fd(slot), len as usize).map(|bytes| Value::data(&bytes)),
            Pread { slot, at, len } => {
                sys::pread(self.fd(slot), at, len as usize).map(|bytes| Value::data(&bytes))
            }
            Write { slot, data } => sys::write(self.fd(slot), &data.bytes()).map(Value::Number),
            Pwrite { slot, at, data } => sys::pwrite(self.fd(slot), at, &data.bytes()).map(Value::Number),
            Seek { slot, to, whence } => sys::seek(self.fd(slot), to, whence).map(Value::Number),
            SeekSparse { slot, at, hole } => seek_sparse(self.fd(slot), at, hole),
            Ftruncate { slot, len } => done(sys::ftruncate(self.fd(slot), len)),
            Fallocate { slot, mode, at, len } => done(sys::fallocate(self.fd(slot), mode, at, len)),
            Fsync { slot, data_only } => done(sys::fsync(self.fd(slot), data_only)),
            Fstat { slot } => self.fstat(slot).map(Value::Stat),
            Fchmod { slot, mode } => done(sys::fchmod(self.fd(slot), mode)),
            Fchown { slot, uid, gid } => done(sys::fchown(self.fd(slot), uid, gid)),
            Futimens { slot, access, modify } => {
                let times = [timespec(access), timespec(modify)];
                done(sys::futimens(self.fd(slot), &times))
            }
            Fsetxattr {
                slot,
                ref name,
                ref value,
                flags,
            } => done(sys::set_xattr(Of::Fd(self.fd(slot)), &name.c(), &value.0, flags)),
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
            } => sys::copy_range(self.fd(from), from_at, self.fd(to), to_at, len as usize).map(Value::Number),
            LinkSlot { slot, ref path } => {
                if self.fd(slot) < 0 {
                    return Some(Err(libc::EBADF));
                }
                done(sys::link_descriptor(self.fd(slot), &path.c()))
            }
            Flock { slot, how } => done(sys::flock(self.fd(slot), how)),
            Lock {
                slot,
                kind,
                at,
                len,
                of_file,
            } => match sys::lock_range(self.fd(slot), kind, at, len, of_file) {
                // POSIX leaves the choice between the two.
                Err(libc::EACCES) => Err(libc::EAGAIN),
                other => done(other),
            },
            GetFlags { slot } => sys::inode_flags(self.fd(slot)).map(Value::Number),
            _ => return None,
        })
    }

    fn on_path(&mut self, call: &Call) -> Answer<Value> {
        use Call::*;
        let done = |answer: Answer<()>| answer.map(|()| Value::Done);
        let here = libc::AT_FDCWD;
        match call {
            Truncate { path, len } => done(sys::truncate(&path.c(), *len)),
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
                sys::write(fd.as_raw_fd(), &data.bytes()).map(Value::Number)
            }
            Mkdir { path, mode } => done(sys::mkdir(&path.c(), *mode)),
            Mknod {
                path,
                mode,
                major,
                minor,
            } => done(sys::mknod(&path.c(), *mode, *major, *minor)),
            Symlink { target, path } => done(sys::symlink(&target.c(), &path.c())),
            Readlink { path } => sys::read_link_at(here, &path.c()).map(|target| Value::data(&target)),
            Link { from, to, follow } => done(sys::link(&from.c(), &to.c(), *follow)),
            Unlink { path } => done(sys::unlink(&path.c())),
            Rmdir { path } => done(sys::rmdir(&path.c())),
            Rename { from, to, flags } => done(sys::rename(&from.c(), &to.c(), *flags)),
            Chmod { path, mode } => done(sys::chmod(&path.c(), *mode)),
            Chown {
                path,
                uid,
                gid,
                follow,
            } => done(sys::chown(&path.c(), *uid, *gid, *follow)),
            Utimens {
                path,
                access,
                modify,
                follow,
            } => {
                let times = [timespec(*access), timespec(*modify)];
                done(sys::utimens(&path.c(), &times, *follow))
            }
            SetXattr {
                path,
                name,
                value,
                flags,
                follow,
            } => done(sys::set_xattr(
                of(&path.c(), *follow),
                &name.c(),
                &value.0,
                *flags,
            )),
            GetXattr { path, name, follow } => {
                sys::get_xattr(of(&path.c(), *follow), &name.c()).map(|value| Value::data(&value))
            }
            ListXattr { path, follow } => sys::list_xattr(of(&path.c(), *follow))
                .map(|names| Value::Words(names.into_iter().map(Bytes).collect())),
            RemoveXattr { path, name, follow } => done(sys::remove_xattr(of(&path.c(), *follow), &name.c())),
            Stat { path, follow } => {
                let flags = if *follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
                self.one_device(sys::stat_at(here, &path.c(), flags))
                    .map(Value::Stat)
            }
            Access {
                path,
                mode,
                effective,
            } => done(sys::access(&path.c(), *mode, *effective)),
            Statfs { path } => statfs(&path.c()),
            List { path } => {
                let fd = sys::open_at(here, &path.c(), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
                Stream::default().next(fd.as_raw_fd(), u32::MAX)
            }
            Chdir { path } => done(sys::chdir(&path.c())),
            Umask { mask } => Ok(Value::Number(i64::from(sys::umask(*mask)))),
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
    let stood = sys::seek(fd, 0, libc::SEEK_CUR)?;
    let whence = if hole { libc::SEEK_HOLE } else { libc::SEEK_DATA };
    let found = sys::seek(fd, at, whence);
    sys::seek(fd, stood, libc::SEEK_SET)?;
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

/// Only below the end of the file: how much of `len` bytes at `at` that is.
fn mmap(fd: RawFd, at: i64, len: u32, write: Option<&[u8]>) -> Answer<Value> {
    let end = (at + i64::from(len)).min(sys::fstat(fd)?.size);
    let usable = (end - at).max(0) as usize;
    match write {
        Some(data) => sys::write_mapped(fd, at, data, usable).map(|()| Value::Number(usable as i64)),
        None => sys::read_mapped(fd, at, len as usize, usable).map(|data| Value::data(&data)),
    }
}

/// What must agree: sizes and limits. Free space changes under our hands.
fn statfs(path: &std::ffi::CStr) -> Answer<Value> {
    let st = sys::statfs(path)?;
    Ok(Value::Text(format!(
        "bsize {} frsize {} namelen {} blocks {} files {}",
        st.f_bsize, st.f_frsize, st.f_namelen, st.f_blocks, st.f_files
    )))
}
