//! Trees as literals: a list of nodes, parents before children, planted below a directory.
//!
//! Everything planted gets a fixed modification time (unless given another), so that two plantings are equal and a
//! time made later is told from a planted one.

use std::ffi::OsString;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::sys;

/// Modification time of what is planted: 2020-02-02 02:02:02.020202020 UTC.
pub const PLANTED: (i64, i64) = (1_580_608_922, 20_202_020);

#[derive(Clone, Debug)]
enum Kind {
    Dir,
    File(Vec<u8>),
    Sparse(u64, Vec<(u64, Vec<u8>)>),
    Symlink(OsString),
    Special(u32, u32, u32),
    Socket,
    Hard(PathBuf),
}

#[derive(Clone, Debug)]
pub struct Node {
    path: PathBuf,
    kind: Kind,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    mtime: (i64, i64),
    xattrs: Vec<(String, Vec<u8>)>,
}

fn node(path: impl Into<PathBuf>, kind: Kind) -> Node {
    Node {
        path: path.into(),
        kind,
        mode: None,
        owner: None,
        mtime: PLANTED,
        xattrs: Vec::new(),
    }
}

/// A directory, 0755.
pub fn dir(path: impl Into<PathBuf>) -> Node {
    node(path, Kind::Dir)
}

/// A file, 0644.
pub fn file(path: impl Into<PathBuf>, data: impl AsRef<[u8]>) -> Node {
    node(path, Kind::File(data.as_ref().to_vec()))
}

/// A file of `size` bytes with data only at the given places.
pub fn sparse(path: impl Into<PathBuf>, size: u64, parts: &[(u64, &[u8])]) -> Node {
    node(
        path,
        Kind::Sparse(
            size,
            parts.iter().map(|(at, data)| (*at, data.to_vec())).collect(),
        ),
    )
}

pub fn symlink(path: impl Into<PathBuf>, target: impl Into<OsString>) -> Node {
    node(path, Kind::Symlink(target.into()))
}

pub fn fifo(path: impl Into<PathBuf>) -> Node {
    node(path, Kind::Special(libc::S_IFIFO, 0, 0))
}

pub fn sock(path: impl Into<PathBuf>) -> Node {
    node(path, Kind::Socket)
}

/// A character device; needs privilege unless 0/0.
pub fn chr(path: impl Into<PathBuf>, major: u32, minor: u32) -> Node {
    node(path, Kind::Special(libc::S_IFCHR, major, minor))
}

/// What the kernel writes for a removed name: a character device 0/0, mode 0000.
pub fn whiteout(path: impl Into<PathBuf>) -> Node {
    node(path, Kind::Special(libc::S_IFCHR, 0, 0)).mode(0)
}

/// Another name of `to`, which comes earlier in the list.
pub fn hard(path: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Node {
    node(path, Kind::Hard(to.into()))
}

impl Node {
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    #[must_use]
    pub fn own(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    #[must_use]
    pub fn mtime(mut self, seconds: i64, nanoseconds: i64) -> Self {
        self.mtime = (seconds, nanoseconds);
        self
    }

    #[must_use]
    pub fn xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.xattrs.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Below the directory it is planted in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn xattrs(&self) -> &[(String, Vec<u8>)] {
        &self.xattrs
    }

    fn make(&self, root: &Path) {
        let path = root.join(&self.path);
        let at = || format!("planting {}", path.display());
        match &self.kind {
            Kind::Dir => sys::mkdir(&path, 0o755).expect(&at()),
            Kind::File(data) => sys::put(&path, data).expect(&at()),
            Kind::Sparse(size, parts) => {
                let fd = sys::create(&path, 0o644).expect(&at());
                sys::ftruncate(&fd, *size as i64).expect(&at());
                for (place, data) in parts {
                    assert_eq!(sys::pwrite(&fd, data, *place as i64), Ok(data.len()), "{}", at());
                }
            }
            Kind::Symlink(target) => sys::make_symlink(target, &path).expect(&at()),
            Kind::Special(kind, major, minor) => {
                sys::mknod(&path, kind | 0o644, *major, *minor).expect(&at());
            }
            Kind::Socket => drop(UnixListener::bind(&path).expect(&at())),
            Kind::Hard(to) => return sys::link(root.join(to), &path).expect(&at()),
        }
        if let Some((uid, gid)) = self.owner {
            sys::chown(&path, uid, gid).expect(&at());
        }
        if !matches!(self.kind, Kind::Symlink(_)) {
            let usual = if matches!(self.kind, Kind::Dir | Kind::Socket) {
                0o755
            } else {
                0o644
            };
            sys::chmod(&path, self.mode.unwrap_or(usual)).expect(&at());
        }
        for (name, value) in &self.xattrs {
            sys::setxattr(&path, name, value).expect(&at());
        }
    }
}

/// Makes the nodes below `root`; sets all times last, so that adding a child does not disturb its parent's.
pub fn plant(root: &Path, nodes: &[Node]) {
    for node in nodes {
        node.make(root);
    }
    for node in nodes.iter().rev() {
        if !matches!(node.kind, Kind::Hard(_)) {
            sys::utimens(root.join(&node.path), node.mtime, node.mtime).expect("planting times");
        }
    }
    sys::utimens(root, PLANTED, PLANTED).expect("planting times");
}
