//! System calls by path and by descriptor, with the error number as the error.
//!
//! Nothing here is clever: one function, one call, so that a test reads like the C it stands for. Every
//! descriptor is close-on-exec, since the tests start programs in parallel.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An error number that prints as its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

pub type R<T = ()> = Result<T, Errno>;
pub type Fd = OwnedFd;
pub type Stat = libc::stat;

macro_rules! errnos {
    ($($name:ident)*) => {
        $(pub const $name: Errno = Errno(libc::$name);)*
        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $(libc::$name => f.write_str(stringify!($name)),)*
                    other => write!(f, "errno {other}"),
                }
            }
        }
    };
}
errnos! {
    E2BIG EACCES EAGAIN EBADF EBUSY ECHILD ECONNABORTED EDQUOT EEXIST EFAULT EFBIG EINTR EINVAL EIO EISDIR ELOOP EMFILE EMLINK
    ENAMETOOLONG ENFILE ENODATA ENODEV ENOENT ENOEXEC ENOMEM ENOSPC ENOSYS ENOTCONN ENOTDIR ENOTEMPTY ENOTTY ENXIO
    EOPNOTSUPP EOVERFLOW EPERM EPIPE ERANGE EREMOTE EROFS ESPIPE ESRCH ESTALE ETXTBSY EXDEV
}

impl From<std::io::Error> for Errno {
    fn from(e: std::io::Error) -> Self {
        Errno(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

fn last() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn done(result: libc::c_int) -> R {
    if result < 0 { Err(last()) } else { Ok(()) }
}

fn count(result: libc::ssize_t) -> R<usize> {
    usize::try_from(result).map_err(|_| last())
}

pub fn c(path: impl AsRef<OsStr>) -> CString {
    CString::new(path.as_ref().as_bytes()).expect("a path without a zero byte")
}

// SAFETY for the whole file: every pointer handed to the kernel points into a value that lives until the call
// returns, with the length that goes with it.

// ---- opening, reading, writing

pub fn open_mode(path: impl AsRef<Path>, flags: i32, mode: u32) -> R<Fd> {
    let fd = unsafe { libc::open(c(path.as_ref()).as_ptr(), flags | libc::O_CLOEXEC, mode) };
    if fd < 0 {
        Err(last())
    } else {
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

pub fn open(path: impl AsRef<Path>, flags: i32) -> R<Fd> {
    open_mode(path, flags, 0o644)
}

/// `O_CREAT | O_EXCL`, read and write.
pub fn create(path: impl AsRef<Path>, mode: u32) -> R<Fd> {
    open_mode(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, mode)
}

pub fn read(fd: &Fd, len: usize) -> R<Vec<u8>> {
    let mut buf = vec![0; len];
    let n = count(unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), len) })?;
    buf.truncate(n);
    Ok(buf)
}

pub fn pread(fd: &Fd, len: usize, at: i64) -> R<Vec<u8>> {
    let mut buf = vec![0; len];
    let n = count(unsafe { libc::pread(fd.as_raw_fd(), buf.as_mut_ptr().cast(), len, at) })?;
    buf.truncate(n);
    Ok(buf)
}

pub fn write(fd: &Fd, data: &[u8]) -> R<usize> {
    count(unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len()) })
}

pub fn pwrite(fd: &Fd, data: &[u8], at: i64) -> R<usize> {
    count(unsafe { libc::pwrite(fd.as_raw_fd(), data.as_ptr().cast(), data.len(), at) })
}

pub fn write_all_to(fd: RawFd, mut data: &[u8]) -> R {
    while !data.is_empty() {
        let n = count(unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) })?;
        data = &data[n..];
    }
    Ok(())
}

/// The whole file, as `cat` reads it.
pub fn cat(path: impl AsRef<Path>) -> R<Vec<u8>> {
    let fd = open(path, libc::O_RDONLY)?;
    let mut all = Vec::new();
    loop {
        let part = read(&fd, 1 << 17)?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend(part);
    }
}

/// The whole file as text, for readable expectations.
pub fn text(path: impl AsRef<Path>) -> R<String> {
    cat(path).map(|b| String::from_utf8_lossy(&b).into_owned())
}

/// As `echo -n data > path`: opens with `O_CREAT | O_TRUNC`.
pub fn put(path: impl AsRef<Path>, data: impl AsRef<[u8]>) -> R {
    let fd = open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)?;
    write_all_to(fd.as_raw_fd(), data.as_ref())
}

/// As `echo -n data >> path`.
pub fn append(path: impl AsRef<Path>, data: impl AsRef<[u8]>) -> R {
    let fd = open(path, libc::O_WRONLY | libc::O_APPEND)?;
    write_all_to(fd.as_raw_fd(), data.as_ref())
}

pub fn lseek(fd: &Fd, at: i64, whence: i32) -> R<i64> {
    let at = unsafe { libc::lseek(fd.as_raw_fd(), at, whence) };
    if at < 0 { Err(last()) } else { Ok(at) }
}

pub fn fsync(fd: &Fd) -> R {
    done(unsafe { libc::fsync(fd.as_raw_fd()) })
}

pub fn fdatasync(fd: &Fd) -> R {
    done(unsafe { libc::fdatasync(fd.as_raw_fd()) })
}

pub fn syncfs(fd: &Fd) -> R {
    done(unsafe { libc::syncfs(fd.as_raw_fd()) })
}

pub fn fallocate(fd: &Fd, mode: i32, at: i64, len: i64) -> R {
    done(unsafe { libc::fallocate(fd.as_raw_fd(), mode, at, len) })
}

pub fn copy_file_range(from: &Fd, from_at: i64, to: &Fd, to_at: i64, len: usize) -> R<usize> {
    let (mut a, mut b) = (from_at, to_at);
    count(unsafe { libc::copy_file_range(from.as_raw_fd(), &mut a, to.as_raw_fd(), &mut b, len, 0) })
}

// ---- names

pub fn mkdir(path: impl AsRef<Path>, mode: u32) -> R {
    done(unsafe { libc::mkdir(c(path.as_ref()).as_ptr(), mode) })
}

pub fn rmdir(path: impl AsRef<Path>) -> R {
    done(unsafe { libc::rmdir(c(path.as_ref()).as_ptr()) })
}

pub fn unlink(path: impl AsRef<Path>) -> R {
    done(unsafe { libc::unlink(c(path.as_ref()).as_ptr()) })
}

pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> R {
    done(unsafe { libc::rename(c(from.as_ref()).as_ptr(), c(to.as_ref()).as_ptr()) })
}

pub fn rename2(from: impl AsRef<Path>, to: impl AsRef<Path>, flags: u32) -> R {
    let (from, to) = (c(from.as_ref()), c(to.as_ref()));
    done(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) })
}

/// Does not follow a symlink at `from`, as link(2).
pub fn link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> R {
    done(unsafe { libc::link(c(from.as_ref()).as_ptr(), c(to.as_ref()).as_ptr()) })
}

/// Gives an unnamed file (`O_TMPFILE`) a name.
pub fn link_fd(fd: &Fd, to: impl AsRef<Path>) -> R {
    let from = c(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let to = c(to.as_ref());
    done(unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    })
}

pub fn make_symlink(target: impl AsRef<OsStr>, path: impl AsRef<Path>) -> R {
    done(unsafe { libc::symlink(c(target).as_ptr(), c(path.as_ref()).as_ptr()) })
}

pub fn readlink(path: impl AsRef<Path>) -> R<OsString> {
    Ok(std::fs::read_link(path)?.into_os_string())
}

/// `mode` holds the type (`S_IFIFO`, `S_IFCHR`, ...) and the permissions.
pub fn mknod(path: impl AsRef<Path>, mode: u32, major: u32, minor: u32) -> R {
    done(unsafe { libc::mknod(c(path.as_ref()).as_ptr(), mode, libc::makedev(major, minor)) })
}

// ---- attributes

pub fn stat(path: impl AsRef<Path>) -> R<Stat> {
    let mut st = unsafe { std::mem::zeroed() };
    done(unsafe { libc::stat(c(path.as_ref()).as_ptr(), &mut st) })?;
    Ok(st)
}

pub fn lstat(path: impl AsRef<Path>) -> R<Stat> {
    let mut st = unsafe { std::mem::zeroed() };
    done(unsafe { libc::lstat(c(path.as_ref()).as_ptr(), &mut st) })?;
    Ok(st)
}

pub fn fstat(fd: &Fd) -> R<Stat> {
    let mut st = unsafe { std::mem::zeroed() };
    done(unsafe { libc::fstat(fd.as_raw_fd(), &mut st) })?;
    Ok(st)
}

/// Whether the name is there, by lstat.
pub fn exists(path: impl AsRef<Path>) -> bool {
    lstat(path).is_ok()
}

pub fn mode(path: impl AsRef<Path>) -> R<u32> {
    lstat(path).map(|st| st.st_mode & 0o7777)
}

pub fn ino(path: impl AsRef<Path>) -> R<u64> {
    lstat(path).map(|st| st.st_ino)
}

pub fn nlink(path: impl AsRef<Path>) -> R<u64> {
    #[allow(clippy::unnecessary_cast)]
    lstat(path).map(|st| st.st_nlink as u64)
}

pub fn owner(path: impl AsRef<Path>) -> R<(u32, u32)> {
    lstat(path).map(|st| (st.st_uid, st.st_gid))
}

pub fn mtime(path: impl AsRef<Path>) -> R<(i64, i64)> {
    lstat(path).map(|st| (st.st_mtime, st.st_mtime_nsec))
}

pub fn chmod(path: impl AsRef<Path>, mode: u32) -> R {
    done(unsafe { libc::chmod(c(path.as_ref()).as_ptr(), mode) })
}

pub fn fchmod(fd: &Fd, mode: u32) -> R {
    done(unsafe { libc::fchmod(fd.as_raw_fd(), mode) })
}

/// Does not follow symlinks. `u32::MAX` leaves that side as it is.
pub fn chown(path: impl AsRef<Path>, uid: u32, gid: u32) -> R {
    done(unsafe { libc::lchown(c(path.as_ref()).as_ptr(), uid, gid) })
}

pub fn fchown(fd: &Fd, uid: u32, gid: u32) -> R {
    done(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) })
}

pub fn truncate(path: impl AsRef<Path>, len: i64) -> R {
    done(unsafe { libc::truncate(c(path.as_ref()).as_ptr(), len) })
}

pub fn ftruncate(fd: &Fd, len: i64) -> R {
    done(unsafe { libc::ftruncate(fd.as_raw_fd(), len) })
}

/// Access and modification time as seconds and nanoseconds; symlinks are not followed.
pub fn utimens(path: impl AsRef<Path>, atime: (i64, i64), mtime: (i64, i64)) -> R {
    let times = [atime, mtime].map(|(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec });
    let path = c(path.as_ref());
    done(unsafe {
        libc::utimensat(
            libc::AT_FDCWD,
            path.as_ptr(),
            times.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })
}

pub fn access(path: impl AsRef<Path>, mode: i32) -> R {
    // faccessat2 by number: glibc's access(2) asks with the real ids, this asks with the effective ones.
    let path = c(path.as_ref());
    let r = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            mode,
            libc::AT_EACCESS,
        )
    };
    if r < 0 { Err(last()) } else { Ok(()) }
}

/// Magic number, block size, total blocks, files and name length.
pub fn statfs(path: impl AsRef<Path>) -> R<libc::statfs> {
    let mut st = unsafe { std::mem::zeroed() };
    done(unsafe { libc::statfs(c(path.as_ref()).as_ptr(), &mut st) })?;
    Ok(st)
}

/// `FS_IOC_GETFLAGS`, what lsattr shows.
pub fn getflags(fd: &Fd) -> R<u32> {
    let mut flags: libc::c_long = 0;
    done(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &mut flags) })?;
    Ok(flags as u32)
}

/// `FS_IOC_SETFLAGS`, what chattr does.
pub fn setflags(fd: &Fd, flags: u32) -> R {
    let flags = libc::c_long::from(flags);
    done(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_SETFLAGS as _, &flags) })
}

// ---- extended attributes (never following symlinks)

pub fn setxattr(path: impl AsRef<Path>, name: &str, value: impl AsRef<[u8]>) -> R {
    setxattr_flags(path, name, value, 0)
}

pub fn setxattr_flags(path: impl AsRef<Path>, name: &str, value: impl AsRef<[u8]>, flags: i32) -> R {
    let (path, name, value) = (c(path.as_ref()), c(name), value.as_ref());
    done(unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    })
}

pub fn getxattr(path: impl AsRef<Path>, name: &str) -> R<Vec<u8>> {
    let (path, name) = (c(path.as_ref()), c(name));
    let mut buf = vec![0; 65536];
    let n =
        count(unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) })?;
    buf.truncate(n);
    Ok(buf)
}

pub fn removexattr(path: impl AsRef<Path>, name: &str) -> R {
    done(unsafe { libc::lremovexattr(c(path.as_ref()).as_ptr(), c(name).as_ptr()) })
}

/// Sorted names.
pub fn listxattr(path: impl AsRef<Path>) -> R<Vec<String>> {
    let path = c(path.as_ref());
    let mut buf = vec![0u8; 65536];
    let n = count(unsafe { libc::llistxattr(path.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) })?;
    let mut names: Vec<String> = buf[..n]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    names.sort();
    Ok(names)
}

// ---- directories

/// One record of getdents64: where the next one starts is `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirent {
    pub name: OsString,
    pub ino: u64,
    pub off: i64,
    pub kind: u8,
}

/// One getdents64 call with a buffer of `size` bytes; empty at the end.
pub fn getdents(fd: &Fd, size: usize) -> R<Vec<Dirent>> {
    let mut buf = vec![0u8; size];
    let r = unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buf.as_mut_ptr(), size) };
    let n = usize::try_from(r).map_err(|_| last())?;
    let mut list = Vec::new();
    let mut at = 0;
    while at < n {
        let u64_at = |i: usize| u64::from_ne_bytes(buf[at + i..at + i + 8].try_into().unwrap());
        let len = usize::from(u16::from_ne_bytes([buf[at + 16], buf[at + 17]]));
        let name = &buf[at + 19..at + len];
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        list.push(Dirent {
            name: OsString::from_vec(name[..end].to_vec()),
            ino: u64_at(0),
            off: u64_at(8) as i64,
            kind: buf[at + 18],
        });
        at += len;
    }
    Ok(list)
}

/// All records in the order the directory gives them, `.` and `..` included.
pub fn dirents(path: impl AsRef<Path>) -> R<Vec<Dirent>> {
    rest_of(&open(path, libc::O_RDONLY | libc::O_DIRECTORY)?)
}

/// What an open directory still has to give.
pub fn rest_of(fd: &Fd) -> R<Vec<Dirent>> {
    let mut all = Vec::new();
    loop {
        let part = getdents(fd, 1 << 15)?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend(part);
    }
}

/// Names without `.` and `..`, in the directory's order.
pub fn names(path: impl AsRef<Path>) -> R<Vec<OsString>> {
    Ok(dirents(path)?
        .into_iter()
        .map(|d| d.name)
        .filter(|n| n != "." && n != "..")
        .collect())
}

/// Names without `.` and `..`, sorted.
pub fn sorted_names(path: impl AsRef<Path>) -> R<Vec<OsString>> {
    let mut list = names(path)?;
    list.sort();
    Ok(list)
}

// ---- locks

/// flock(2) without waiting.
pub fn flock(fd: &Fd, operation: i32) -> R {
    done(unsafe { libc::flock(fd.as_raw_fd(), operation | libc::LOCK_NB) })
}

fn lock_of(kind: i32) -> libc::flock {
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock
}

/// A POSIX record lock on the whole file (`F_WRLCK`, `F_RDLCK`, `F_UNLCK`), without waiting.
pub fn setlk(fd: &Fd, kind: i32) -> R {
    done(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLK, &lock_of(kind)) })
}

/// The same as an open-file-description lock.
pub fn ofd_setlk(fd: &Fd, kind: i32) -> R {
    done(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock_of(kind)) })
}

// ---- mappings

/// A file mapping that ends with its value.
pub struct Map {
    at: *mut u8,
    len: usize,
}

pub fn mmap_shared(fd: &Fd, len: usize, write: bool) -> R<Map> {
    let prot = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            prot,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        Err(last())
    } else {
        Ok(Map { at: at.cast(), len })
    }
}

impl Map {
    pub fn bytes(&self) -> Vec<u8> {
        unsafe { std::slice::from_raw_parts(self.at, self.len) }.to_vec()
    }

    pub fn set(&mut self, at: usize, data: &[u8]) {
        assert!(at + data.len() <= self.len);
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.at.add(at), data.len()) };
    }

    pub fn sync(&self) -> R {
        done(unsafe { libc::msync(self.at.cast(), self.len, libc::MS_SYNC) })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

// ---- mounts

pub fn mount(source: &str, target: &Path, kind: &str, flags: u64, data: impl AsRef<OsStr>) -> R {
    let (source, target, kind, data) = (c(source), c(target), c(kind), c(data));
    done(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags as _,
            data.as_ptr().cast(),
        )
    })
}

/// Unmounts. What is busy is tried again for three seconds: a program being started by a parallel test may hold our
/// descriptors for the moment between fork and exec.
pub fn umount(target: &Path, flags: i32) -> R {
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        match done(unsafe { libc::umount2(c(target).as_ptr(), flags) }) {
            Err(EBUSY) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            answer => return answer,
        }
    }
}

/// Every path below `root`, parents before their children, symlinks not followed, `root` itself not included.
pub fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for name in sorted_names(&dir).unwrap_or_default() {
            let path = dir.join(name);
            if lstat(&path).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFDIR) {
                todo.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}
