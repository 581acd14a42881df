//! Calls on one name in an open directory.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, Uid,
};

use super::stat::Time;
use super::{Errno, Result, fault};

/// The bits of a mode that chmod(2) takes.
pub const PERMISSION_BITS: u32 = 0o7777;

fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits & PERMISSION_BITS)
}

/// Opens `name` in `dir` with open(2) `flags`; a symlink as last component gives ELOOP.
///
/// # Errors
/// As openat(2).
pub fn open_at(dir: impl AsFd, name: &[u8], flags: i32) -> Result<OwnedFd> {
    let flags = OFlags::from_bits_retain(flags as u32) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Creates and opens `name` in `dir`; it must not exist.
///
/// # Errors
/// As openat(2), EEXIST among them.
pub fn create_at(dir: impl AsFd, name: &[u8], flags: i32, permissions: u32) -> Result<OwnedFd> {
    fault::point()?;
    let flags = OFlags::from_bits_retain(flags as u32)
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, mode(permissions))
}

/// Opens a regular file that has no name yet (`O_TMPFILE`), for reading and writing.
///
/// # Errors
/// EOPNOTSUPP or EISDIR where the file system has no unnamed files; else as openat(2).
pub fn open_unnamed(dir: impl AsFd) -> Result<OwnedFd> {
    fault::point()?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c".", flags, mode(0o600))
}

/// Opens the directory `name` in `dir` as an `O_PATH` descriptor.
///
/// Neither a symlink nor a mount point is crossed, so the result lies in the same layer (K28).
///
/// # Errors
/// EXDEV for a mount point, ELOOP or ENOTDIR for a symlink or another object; else as openat2(2).
pub fn open_dir_path(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve)
}

/// Opens the directory `name` in `dir` for reading its names; its access time stays where that is allowed.
///
/// Neither a symlink nor a mount point is crossed.
///
/// # Errors
/// EXDEV for a mount point, ELOOP or ENOTDIR for a symlink or another object; else as openat2(2).
pub fn open_dir_list(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rustix::fs::openat2(&dir, name, flags | OFlags::NOATIME, Mode::empty(), resolve) {
        // Only the owner may leave it alone.
        Err(Errno::PERM) => rustix::fs::openat2(&dir, name, flags, Mode::empty(), resolve),
        done => done,
    }
}

/// Opens the directory that holds the open directory `dir`, for reading its names.
///
/// The caller compares it with the one expected: `dir` may have been moved.
///
/// # Errors
/// As openat(2).
pub fn open_parent(dir: impl AsFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c"..", flags, Mode::empty())
}

/// Opens the regular file `name` in `dir` for reading; its access time stays where that is allowed.
///
/// # Errors
/// As openat(2); ELOOP for a symlink.
pub fn open_data(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    // What was a file when it was looked at may be a fifo now: opening it must not wait.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    match open_at(&dir, name, flags | libc::O_NOATIME) {
        Err(Errno::PERM) => open_at(&dir, name, flags),
        done => done,
    }
}

/// Opens any object `name` in `dir` as an `O_PATH` descriptor, a symlink itself and not its target.
///
/// # Errors
/// As openat(2).
pub fn open_path(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Opens what lies at `path` below `dir`, empty for `dir` itself; no symlink on the way, nor at its end, is followed.
///
/// Mount points are crossed: for trees that a person named, not for layers.
///
/// # Errors
/// ELOOP for a symlink, EXDEV for a way out of `dir`; else as openat2(2).
pub fn open_beneath(dir: impl AsFd, path: &[u8], flags: i32) -> Result<OwnedFd> {
    let flags = OFlags::from_bits_retain(flags as u32) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let path = if path.is_empty() { b"." } else { path };
    rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)
}

/// Whether something lies at `path` below `dir`, not through a symlink and not on another mount.
///
/// # Errors
/// ELOOP for a symlink on the way, EXDEV for a mount point; else as openat2(2), but ENOENT is an answer.
pub fn look_beneath(dir: impl AsFd, path: &[u8]) -> Result<bool> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory known by an `O_PATH` descriptor for reading its names.
///
/// # Errors
/// As openat(2).
pub fn reopen_dir(dir: impl AsFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c".", flags, Mode::empty())
}

/// Opens an open file once more, with other flags.
///
/// # Errors
/// As openat(2).
pub fn reopen(fd: impl AsFd, flags: i32) -> Result<OwnedFd> {
    let flags = OFlags::from_bits_retain(flags as u32) | OFlags::CLOEXEC;
    rustix::fs::openat(rustix::fs::CWD, proc_path(&fd).as_bytes(), flags, Mode::empty())
}

/// Makes a directory.
///
/// # Errors
/// As mkdirat(2).
pub fn mkdir_at(dir: impl AsFd, name: &[u8], permissions: u32) -> Result<()> {
    fault::point()?;
    rustix::fs::mkdirat(dir, name, mode(permissions))
}

/// Makes a file, fifo, socket or device node; `full_mode` carries the type.
///
/// # Errors
/// As mknodat(2): EPERM for devices without the privilege.
pub fn mknod_at(dir: impl AsFd, name: &[u8], full_mode: u32, rdev: u64) -> Result<()> {
    fault::point()?;
    let kind = FileType::from_raw_mode(full_mode);
    rustix::fs::mknodat(dir, name, kind, mode(full_mode), rdev as Dev)
}

/// Makes a symlink `name` with the text `target`.
///
/// # Errors
/// As symlinkat(2).
pub fn symlink_at(target: &[u8], dir: impl AsFd, name: &[u8]) -> Result<()> {
    fault::point()?;
    rustix::fs::symlinkat(target, dir, name)
}

/// Reads the text of a symlink.
///
/// # Errors
/// As readlinkat(2): EINVAL when it is none.
pub fn readlink_at(dir: impl AsFd, name: &[u8]) -> Result<Vec<u8>> {
    rustix::fs::readlinkat(dir, name, Vec::new()).map(CString::into_bytes)
}

/// Gives an object a second name.
///
/// # Errors
/// As linkat(2): EEXIST, EMLINK, EXDEV, EPERM.
pub fn link_at(dir: impl AsFd, name: &[u8], to: impl AsFd, to_name: &[u8]) -> Result<()> {
    fault::point()?;
    rustix::fs::linkat(dir, name, to, to_name, AtFlags::empty())
}

/// Gives an open file, unnamed until now, the name `name`.
///
/// # Errors
/// As linkat(2).
pub fn link_fd(fd: impl AsFd, dir: impl AsFd, name: &[u8]) -> Result<()> {
    fault::point()?;
    // AT_EMPTY_PATH asks for CAP_DAC_READ_SEARCH in the first user namespace on older kernels.
    match rustix::fs::linkat(fd.as_fd(), c"", dir.as_fd(), name, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT | Errno::PERM) => {
            let path = proc_path(&fd);
            rustix::fs::linkat(
                rustix::fs::CWD,
                path.as_bytes(),
                dir,
                name,
                AtFlags::SYMLINK_FOLLOW,
            )
        }
        done => done,
    }
}

/// Removes a name that is no directory.
///
/// # Errors
/// As unlinkat(2).
pub fn unlink_at(dir: impl AsFd, name: &[u8]) -> Result<()> {
    fault::point()?;
    rustix::fs::unlinkat(dir, name, AtFlags::empty())
}

/// Removes an empty directory.
///
/// # Errors
/// As unlinkat(2): ENOTEMPTY, ENOTDIR.
pub fn rmdir_at(dir: impl AsFd, name: &[u8]) -> Result<()> {
    fault::point()?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// How a rename treats the two names; see renameat2(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameHow {
    /// The target, if any, is replaced.
    Replace,
    /// The target must not exist.
    NoReplace,
    /// The two names change places.
    Exchange,
    /// A whiteout is left at the old name.
    Whiteout,
}

/// Renames in one step.
///
/// # Errors
/// As renameat2(2).
pub fn rename_at(dir: impl AsFd, name: &[u8], to: impl AsFd, to_name: &[u8], how: RenameHow) -> Result<()> {
    fault::point()?;
    let flags = match how {
        RenameHow::Replace => return rustix::fs::renameat(dir, name, to, to_name),
        RenameHow::NoReplace => RenameFlags::NOREPLACE,
        RenameHow::Exchange => RenameFlags::EXCHANGE,
        RenameHow::Whiteout => RenameFlags::WHITEOUT,
    };
    rustix::fs::renameat_with(dir, name, to, to_name, flags)
}

/// Changes owner and group of the object behind a descriptor, `O_PATH` ones too.
///
/// # Errors
/// As fchownat(2).
pub fn chown_fd(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    fault::point()?;
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH)
}

/// Changes the permission bits of the object behind a descriptor, `O_PATH` ones too; not of a symlink.
///
/// # Errors
/// As fchmodat(2).
pub fn chmod_fd(fd: impl AsFd, permissions: u32) -> Result<()> {
    fault::point()?;
    match rustix::fs::fchmod(&fd, mode(permissions)) {
        // chmod(2) follows the magic link of /proc to the very object; fchmod(2) refuses O_PATH.
        Err(Errno::BADF) => rustix::fs::chmodat(
            rustix::fs::CWD,
            proc_path(&fd).as_bytes(),
            mode(permissions),
            AtFlags::empty(),
        ),
        done => done,
    }
}

/// A change of one of the two settable times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// Left alone.
    Keep,
    /// The time of the call.
    Now,
    /// This time.
    At(Time),
}

/// Sets access and modification time of the object behind a descriptor, `O_PATH` ones too.
///
/// # Errors
/// As utimensat(2).
pub fn set_times_fd(fd: impl AsFd, atime: SetTime, mtime: SetTime) -> Result<()> {
    fault::point()?;
    let times = Timestamps {
        last_access: timespec(atime),
        last_modification: timespec(mtime),
    };
    rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH)
}

fn timespec(time: SetTime) -> Timespec {
    match time {
        SetTime::Keep => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        SetTime::Now => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        },
        SetTime::At(t) => Timespec {
            tv_sec: t.secs,
            tv_nsec: i64::from(t.nanos),
        },
    }
}

/// `/proc/self/fd/N`: the one kind of path this crate makes, always the magic link of its own descriptor.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
