//! Everything about an object but its name and its data.

use std::os::fd::AsFd;

use crate::sys::at::{self, SetTime};
use crate::sys::stat::{Stat, Time};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, Result};

/// What sort of object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl Kind {
    /// The kind that the type bits of a mode name.
    ///
    /// # Errors
    /// EINVAL for bits that name none.
    pub fn of_mode(mode: u32) -> Result<Self> {
        Ok(match mode & libc::S_IFMT {
            libc::S_IFDIR => Self::Directory,
            libc::S_IFREG => Self::File,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => return Err(Errno::INVAL),
        })
    }

    /// The type bits of a mode.
    pub fn bits(self) -> u32 {
        match self {
            Self::Directory => libc::S_IFDIR,
            Self::File => libc::S_IFREG,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// Its full name, with the namespace.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Type, permissions, owner, times and extended attributes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 0 to 0o7777. A symlink's mean nothing.
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as makedev(3) packs it; else 0.
    pub rdev: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the data.
    pub mtime: Time,
    /// All extended attributes, POSIX ACLs and capabilities with them, in the order of their names.
    pub xattrs: Vec<Xattr>,
}

impl Meta {
    /// Reads what statx(2) did not tell.
    ///
    /// # Errors
    /// EINVAL for an unknown type; else as listxattr(2) and getxattr(2). A file system without extended
    /// attributes has none.
    pub fn read(target: Target<'_>, stat: &Stat) -> Result<Self> {
        Ok(Self {
            kind: Kind::of_mode(stat.mode)?,
            permissions: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            rdev: stat.rdev,
            atime: stat.atime,
            mtime: stat.mtime,
            xattrs: read_xattrs(target)?,
        })
    }

    /// Gives all of this to `name` in `dir`, an object of the same kind that nothing else shares.
    ///
    /// Owner first, since a change of owner drops setuid bits and capabilities; times last. The attributes of the
    /// object are added to those given, which a fresh object has none of, but for ACLs inherited from the
    /// directory.
    ///
    /// # Errors
    /// As chown(2), setxattr(2), chmod(2) and utimensat(2).
    pub fn give(&self, dir: impl AsFd, name: &[u8]) -> Result<()> {
        self.give_fd(at::open_path(&dir, name)?)
    }

    /// As [`Meta::give`], through a descriptor, `O_PATH` ones too.
    ///
    /// # Errors
    /// As chown(2), setxattr(2), chmod(2) and utimensat(2).
    pub fn give_fd(&self, fd: impl AsFd) -> Result<()> {
        at::chown_fd(&fd, Some(self.uid), Some(self.gid))?;
        for attribute in &self.xattrs {
            xattr::set(Target::Fd(fd.as_fd()), &attribute.name, &attribute.value, 0)?;
        }
        if self.kind != Kind::Symlink {
            at::chmod_fd(&fd, self.permissions)?;
        }
        at::set_times_fd(&fd, SetTime::At(self.atime), SetTime::At(self.mtime))
    }
}

fn read_xattrs(target: Target<'_>) -> Result<Vec<Xattr>> {
    let list = match xattr::list(target) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        list => list?,
    };
    let mut found = Vec::new();
    for name in xattr::names(&list) {
        found.push(Xattr {
            name: name.to_vec(),
            value: xattr::get(target, name)?,
        });
    }
    found.sort_unstable();
    Ok(found)
}
