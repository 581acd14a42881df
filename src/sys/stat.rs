//! Attributes of an object, as statx(2) gives them.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags};

use super::Result;

/// A point in time: seconds since 1970 (negative before), and nanoseconds 0 to 999,999,999 after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub secs: i64,
    /// Nanoseconds to add, 0 to 999,999,999.
    pub nanos: u32,
}

/// What statx(2) told about one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Inode number on its file system.
    pub ino: u64,
    /// The file system's device number.
    pub dev: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Link count.
    pub nlink: u32,
    /// Owner, in the server's user namespace.
    pub uid: u32,
    /// Group, in the server's user namespace.
    pub gid: u32,
    /// Device number of a device node, as makedev(3) packs it.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred size of a read or write, bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the data.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// The object is the root of a mount: something is mounted on this name.
    pub mount_root: bool,
}

impl Stat {
    fn from_statx(x: &Statx) -> Self {
        let time = |t: &rustix::fs::StatxTimestamp| Time {
            secs: t.tv_sec,
            nanos: t.tv_nsec,
        };
        Self {
            ino: x.stx_ino,
            dev: libc::makedev(x.stx_dev_major, x.stx_dev_minor),
            mode: u32::from(x.stx_mode),
            nlink: x.stx_nlink,
            uid: x.stx_uid,
            gid: x.stx_gid,
            rdev: libc::makedev(x.stx_rdev_major, x.stx_rdev_minor),
            size: x.stx_size,
            blocks: x.stx_blocks,
            blksize: x.stx_blksize,
            atime: time(&x.stx_atime),
            mtime: time(&x.stx_mtime),
            ctime: time(&x.stx_ctime),
            mount_root: x.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        }
    }

    /// The type bits of the mode (`S_IFMT`).
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }

    /// True for a character device 0/0, the overlay's whiteout (K30).
    pub fn is_whiteout(&self) -> bool {
        self.kind() == libc::S_IFCHR && self.rdev == 0
    }
}

/// Attributes of `name` in `dir`; a symlink is not followed, an automount not triggered.
///
/// # Errors
/// As statx(2): ENOENT, ENAMETOOLONG, EACCES, EIO and so on.
pub fn stat_at(dir: impl AsFd, name: &[u8]) -> Result<Stat> {
    statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

/// As [`stat_at`], but takes what the kernel has cached.
///
/// On a network or FUSE file system no request is sent, so that looking at a name on which this very
/// view is mounted cannot make the server wait for itself.
///
/// # Errors
/// As statx(2).
pub fn stat_at_cached(dir: impl AsFd, name: &[u8]) -> Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    statx(dir, name, flags)
}

/// Attributes of an open descriptor, `O_PATH` ones too.
///
/// # Errors
/// As statx(2).
pub fn stat_fd(fd: impl AsFd) -> Result<Stat> {
    statx(fd, b"", AtFlags::EMPTY_PATH)
}

/// When the object behind a descriptor was made, `O_PATH` ones too; `None` where the file system does not tell.
///
/// Unlike every other time it cannot be set, so a copy of an object has another.
///
/// # Errors
/// As statx(2).
pub fn birth_time(fd: impl AsFd) -> Result<Option<Time>> {
    let x = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME)?;
    Ok((x.stx_mask & StatxFlags::BTIME.bits() != 0).then_some(Time {
        secs: x.stx_btime.tv_sec,
        nanos: x.stx_btime.tv_nsec,
    }))
}

fn statx(dir: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Stat> {
    let x = rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)?;
    Ok(Stat::from_statx(&x))
}

/// How many names an inode may have, by the type of the file system behind `object`; none where that is not known.
///
/// # Errors
/// As fstatfs(2).
pub fn link_limit(object: impl AsFd) -> Result<Option<u64>> {
    const EXT: i64 = 0xef53;
    const XFS: i64 = 0x5846_5342;
    const BTRFS: i64 = 0x9123_683e;
    const F2FS: i64 = 0xf2f5_2010;
    Ok(match rustix::fs::fstatfs(object)?.f_type {
        EXT => Some(65_000),
        XFS => Some(0x7fff_ffff),
        // In one directory.
        BTRFS => Some(65_535),
        F2FS => Some(0xffff_ffff),
        _ => None,
    })
}
