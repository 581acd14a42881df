//! The layers that a program starts from, as a list of things to make: so they can be made twice, shrunk and
//! printed.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::op::Fill;
use crate::sys::plain::{self as sys, Answer, Of};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Layers {
    pub lower: Vec<Item>,
    /// Further lowers, above that one; the topmost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tops: Vec<Vec<Item>>,
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
pub fn build(root: &Path, items: &[Item]) -> Result<(), String> {
    let times = |path: &Bytes, access, modify| {
        set_times(path, access, modify)
            .map_err(|e| format!("cannot set the times of {path:?}: {}", sys::errno_name(e)))
    };
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
                return Err(format!("cannot make {item:?}: {}", sys::errno_name(errno)));
            }
        }
    }
    // Deepest last in, first out: making an entry changes its parent's time.
    for (index, path) in made.iter().enumerate().rev() {
        let at = 1_000_000_000 + index as i64 * 1009;
        times(&full(path), (at - 77, 123_000_001), (at, 456_000_789))?;
    }
    times(&root, (999_999_900, 1), (999_999_999, 999_999_999))?;
    for item in items {
        if let What::Times { access, modify } = item.what {
            match set_times(&full(&item.path), access, modify) {
                Ok(()) | Err(libc::ENOENT | libc::ENOTDIR) => {}
                Err(errno) => return Err(format!("cannot set times: {}", sys::errno_name(errno))),
            }
        }
    }
    Ok(())
}

/// Makes the empty directory `to` a copy of `from`, with all attributes, or leaves it empty.
pub fn copy(from: Option<&Path>, to: &Path) -> Result<(), String> {
    let Some(from) = from else { return Ok(()) };
    // Only the whole program has hard links, holes, ACLs and special files right, and it is there wherever a shell is.
    let done = Command::new("cp")
        .args(["-a", "--reflink=auto", "--sparse=always", "-T", "--"])
        .args([from, to])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot copy {}: cp: {e}", from.display()))?;
    if done.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&done.stderr);
        Err(format!("cannot copy {}: {}", from.display(), said.trim()))
    }
}

fn set_times(path: &Bytes, access: (i64, u32), modify: (i64, u32)) -> Answer<()> {
    let spec = |(tv_sec, nsec): (i64, u32)| libc::timespec {
        tv_sec,
        tv_nsec: i64::from(nsec),
    };
    let times = [spec(access), spec(modify)];
    sys::utimens(&path.c(), &times, false)
}

/// True if a new name was made.
fn make(path: &Bytes, what: &What, full: &dyn Fn(&Bytes) -> Bytes) -> Answer<bool> {
    let c = path.c();
    match what {
        What::Dir { mode } => {
            sys::mkdir(&c, 0o755)?;
            sys::chmod(&c, *mode)?;
        }
        What::File { mode, data } => write_pieces(path, *mode, &[(0, *data)], i64::from(data.len))?,
        What::Sparse { mode, pieces, size } => write_pieces(path, *mode, pieces, *size)?,
        What::Symlink { target } => {
            sys::symlink(&target.c(), &c)?;
        }
        What::Node { mode, major, minor } => {
            sys::mknod(&c, *mode, *major, *minor)?;
        }
        What::HardLink { to } => {
            sys::link(&full(to).c(), &c, false)?;
        }
        What::Owner { uid, gid } => {
            sys::chown(&c, *uid, *gid, false)?;
            return Ok(false);
        }
        What::Mode { mode } => {
            sys::chmod(&c, *mode)?;
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
        sys::pwrite(fd.as_raw_fd(), *at, &bytes)?;
    }
    sys::ftruncate(fd.as_raw_fd(), size)?;
    sys::fchmod(fd.as_raw_fd(), mode)
}
