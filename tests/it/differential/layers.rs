//! The layers that a program starts from, as a list of things to make: so they can be made twice, shrunk and
//! printed.

use std::os::fd::AsRawFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::op::Fill;
use super::sys::{self, Answer, Of, check};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Layers {
    pub lower: Vec<Item>,
    pub upper: Vec<Item>,
}

/// One thing in a layer. An item whose parent is missing is skipped, so that any item can be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub path: Bytes,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum What {
    Dir {
        mode: u32,
    },
    File {
        mode: u32,
        data: Fill,
    },
    /// Pieces of data at offsets, holes between, and a final size.
    Sparse {
        mode: u32,
        pieces: Vec<(i64, Fill)>,
        size: i64,
    },
    Symlink {
        target: Bytes,
    },
    /// `mode` with its type; fifos, sockets, devices.
    Node {
        mode: u32,
        major: u32,
        minor: u32,
    },
    HardLink {
        to: Bytes,
    },
    Owner {
        uid: u32,
        gid: u32,
    },
    Mode {
        mode: u32,
    },
    Xattr {
        name: Bytes,
        value: Bytes,
    },
    Times {
        access: (i64, u32),
        modify: (i64, u32),
    },
}

/// Makes a layer in the empty directory `root` and gives everything a fixed old time.
pub fn build(root: &Path, items: &[Item]) -> Answer<()> {
    let root = Bytes::from(std::os::unix::ffi::OsStrExt::as_bytes(root.as_os_str()));
    let full = |path: &Bytes| {
        if path.0.is_empty() {
            root.clone()
        } else {
            root.join(&path.0)
        }
    };
    let mut made: Vec<&Bytes> = Vec::new();
    for item in items {
        if matches!(item.what, What::Times { .. }) {
            continue;
        }
        match make(&full(&item.path), &item.what, &full) {
            Ok(true) => made.push(&item.path),
            Ok(false) => {}
            // The parent, or the thing to be changed, was left out.
            Err(libc::ENOENT | libc::ENOTDIR) => {}
            Err(errno) => {
                eprintln!("cannot make {:?} of a layer: {}", item, sys::errno_name(errno));
                return Err(errno);
            }
        }
    }
    // Deepest last in, first out: making an entry changes its parent's time.
    for (index, path) in made.iter().enumerate().rev() {
        let at = 1_000_000_000 + index as i64 * 1009;
        set_times(&full(path), (at - 77, 123_000_001), (at, 456_000_789))?;
    }
    set_times(&root, (999_999_900, 1), (999_999_999, 999_999_999))?;
    for item in items {
        if let What::Times { access, modify } = item.what {
            match set_times(&full(&item.path), access, modify) {
                Ok(()) | Err(libc::ENOENT | libc::ENOTDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

fn set_times(path: &Bytes, access: (i64, u32), modify: (i64, u32)) -> Answer<()> {
    let spec = |(tv_sec, nsec): (i64, u32)| libc::timespec {
        tv_sec,
        tv_nsec: i64::from(nsec),
    };
    let times = [spec(access), spec(modify)];
    // SAFETY: valid string and two times.
    check(unsafe {
        libc::utimensat(
            libc::AT_FDCWD,
            path.c().as_ptr(),
            times.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })
    .map(drop)
}

/// True if a new name was made.
fn make(path: &Bytes, what: &What, full: &dyn Fn(&Bytes) -> Bytes) -> Answer<bool> {
    let c = path.c();
    // SAFETY, for each call: strings are valid.
    match what {
        What::Dir { mode } => {
            check(unsafe { libc::mkdir(c.as_ptr(), 0o755) })?;
            check(unsafe { libc::chmod(c.as_ptr(), *mode) })?;
        }
        What::File { mode, data } => write_pieces(path, *mode, &[(0, *data)], i64::from(data.len))?,
        What::Sparse { mode, pieces, size } => write_pieces(path, *mode, pieces, *size)?,
        What::Symlink { target } => {
            check(unsafe { libc::symlink(target.c().as_ptr(), c.as_ptr()) })?;
        }
        What::Node { mode, major, minor } => {
            check(unsafe { libc::mknod(c.as_ptr(), *mode, libc::makedev(*major, *minor)) })?;
        }
        What::HardLink { to } => {
            check(unsafe { libc::link(full(to).c().as_ptr(), c.as_ptr()) })?;
        }
        What::Owner { uid, gid } => {
            check(unsafe { libc::lchown(c.as_ptr(), *uid, *gid) })?;
            return Ok(false);
        }
        What::Mode { mode } => {
            check(unsafe { libc::chmod(c.as_ptr(), *mode) })?;
            return Ok(false);
        }
        What::Xattr { name, value } => {
            sys::set_xattr(Of::Link(&c), &name.c(), &value.0, 0)?;
            return Ok(false);
        }
        What::Times { .. } => return Ok(false),
    }
    Ok(true)
}

fn write_pieces(path: &Bytes, mode: u32, pieces: &[(i64, Fill)], size: i64) -> Answer<()> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let fd = sys::open_at(libc::AT_FDCWD, &path.c(), flags, 0o600)?;
    for (at, data) in pieces {
        let bytes = data.bytes();
        // SAFETY: an open descriptor and a buffer as long as told.
        check(unsafe { libc::pwrite64(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), *at) })?;
    }
    // SAFETY: plain calls on an open descriptor.
    unsafe {
        check(libc::ftruncate64(fd.as_raw_fd(), size))?;
        check(libc::fchmod(fd.as_raw_fd(), mode))?;
    }
    Ok(())
}
