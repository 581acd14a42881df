//! Hard links, and what takes their place where one cannot be made.
//!
//! The file system may refuse a link: the inode has as many as it can carry (EMLINK: 65,000 on ext4), the trees lie
//! on different file systems (EXDEV), the file may not be linked (EPERM: immutable, or another user's under
//! `protected_hardlinks`), or there are no links (EOPNOTSUPP). Then a copy is made with all metadata, sharing
//! blocks where the file system can (reflink), and later names of the same inode become links to that copy.

mod copies;
mod copy;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use self::copies::Copies;
use super::links::Groups;
use super::{BuildError, Kind, Result, TreePath};
use crate::sys::stat::Stat;
use crate::sys::{Errno, at, fault, stat};

/// Where a name is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The root of the new tree.
    pub root: BorrowedFd<'a>,
    /// The open directory.
    pub dir: BorrowedFd<'a>,
    /// The path of that directory below the root.
    pub dir_path: &'a TreePath,
    /// The name, which must not exist.
    pub name: &'a [u8],
}

impl Spot<'_> {
    /// The whole path.
    pub fn path(&self) -> TreePath {
        self.dir_path.join(self.name)
    }
}

/// What became of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// Names that share an inode with the source, or with a copy that took over.
    pub linked: u64,
    /// Files copied with their blocks shared.
    pub reflinked: u64,
    /// Objects copied whole.
    pub copied: u64,
    /// Bytes of data those took.
    pub bytes_copied: u64,
    /// Objects that belong to the caller because their owner could not be kept; see [`Linker::without_owners`].
    pub disowned: u64,
    /// Objects left out, and why: sockets that cannot be linked.
    pub skipped: Vec<(TreePath, String)>,
}

impl LinkReport {
    /// Inodes that were made because a link could not be.
    pub fn new_inodes(&self) -> u64 {
        self.reflinked.saturating_add(self.copied)
    }
}

/// Links names of one tree into another. May be used by several threads at once.
#[derive(Debug, Default)]
pub struct Linker {
    overflow: Option<OwnedFd>,
    limit: Option<u32>,
    without_owners: bool,
    copies: Copies,
    /// The trees lie on different file systems, so a link need not be tried.
    crossed: AtomicBool,
    /// Which inodes of the source have several names there, where that is known: only their copies are remembered.
    groups: Mutex<Option<Groups>>,
    linked: AtomicU64,
    reflinked: AtomicU64,
    copied: AtomicU64,
    bytes_copied: AtomicU64,
    disowned: AtomicU64,
    skipped: Mutex<Vec<(TreePath, String)>>,
}

impl Linker {
    /// A linker that remembers its copies as long as it lives.
    pub fn new() -> Self {
        Self {
            limit: fault::link_limit(),
            ..Self::default()
        }
    }

    /// A linker that keeps copies of full inodes in the directory `dir`, on the file system of the source, for
    /// later clones of the same source.
    pub fn with_overflow(dir: OwnedFd) -> Self {
        Self {
            overflow: Some(dir),
            ..Self::new()
        }
    }

    /// Takes an inode with `limit` names as full, as if the file system could carry no more.
    #[must_use]
    pub fn link_limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Gets ready for the trees `from` and `to`. If they lie on different file systems, counts the names of each
    /// inode of `from`: all copies would have to be remembered else, since in a layer no link count is 1.
    pub(super) fn prepare(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        let device = |root| {
            stat::stat_fd(root)
                .map(|stat| stat.dev)
                .map_err(|errno| BuildError::Call {
                    what: "look at",
                    path: TreePath::root(),
                    errno,
                })
        };
        let crossed = device(from)? != device(to)?;
        self.crossed.store(crossed, Ordering::Relaxed);
        *self.groups.lock() = if crossed { Some(Groups::of(from)?) } else { None };
        Ok(())
    }

    /// Whether the source surely has no other name that is going to be asked for.
    fn is_alone(&self, stat: &Stat) -> bool {
        stat.nlink == 1
            || self
                .groups
                .lock()
                .as_ref()
                .is_some_and(|groups| groups.names_of(stat.ino) == 1)
    }

    /// Lets a new inode belong to the caller where its owner cannot be kept (without privilege). It then has neither
    /// setuid and setgid bits nor attributes that only a privileged caller may set.
    #[must_use]
    pub fn without_owners(mut self) -> Self {
        self.without_owners = true;
        self
    }

    /// Gives the object `from` in `from_dir`, which is no directory, a name at `to`; or makes a copy there.
    ///
    /// # Errors
    /// If neither can be made. A file that is written meanwhile is refused, not copied half.
    pub fn link(&self, from_dir: BorrowedFd<'_>, from: &[u8], to: &Spot<'_>) -> Result<()> {
        let errno = match self.try_link(from_dir, from, to) {
            Ok(()) => {
                self.linked.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(errno) => errno,
        };
        match errno {
            Errno::XDEV => self.crossed.store(true, Ordering::Relaxed),
            Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP => {}
            _ => return Err(call("link", to, errno)),
        }
        let source = Source {
            dir: from_dir,
            name: from,
            stat: stat::stat_at(from_dir, from).map_err(|errno| call("look at", to, errno))?,
        };
        self.instead(&source, to, errno)
    }

    /// What was done so far.
    pub fn report(&self) -> LinkReport {
        LinkReport {
            linked: self.linked.load(Ordering::Relaxed),
            reflinked: self.reflinked.load(Ordering::Relaxed),
            copied: self.copied.load(Ordering::Relaxed),
            bytes_copied: self.bytes_copied.load(Ordering::Relaxed),
            disowned: self.disowned.load(Ordering::Relaxed),
            skipped: self.skipped.lock().clone(),
        }
    }

    fn try_link(&self, from_dir: BorrowedFd<'_>, from: &[u8], to: &Spot<'_>) -> crate::sys::Result<()> {
        if self.crossed.load(Ordering::Relaxed) {
            return Err(Errno::XDEV);
        }
        if let Some(limit) = self.limit
            && stat::stat_at(from_dir, from)?.nlink >= limit
        {
            return Err(Errno::MLINK);
        }
        at::link_at(from_dir, from, to.dir, to.name)
    }

    /// A copy, or a link to the copy made for an earlier name.
    fn instead(&self, source: &Source<'_>, to: &Spot<'_>, errno: Errno) -> Result<()> {
        let kind = Kind::of_mode(source.stat.mode).map_err(|errno| call("look at", to, errno))?;
        if source.stat.mount_root {
            return Err(BuildError::Refused {
                path: to.path(),
                reason: "something is mounted on it: unmount that first".into(),
            });
        }
        match kind {
            Kind::Directory => Err(call("link", to, Errno::ISDIR)),
            Kind::Socket => {
                let reason = format!("a socket that cannot be linked ({errno}) is left out");
                self.skipped.lock().push((to.path(), reason));
                Ok(())
            }
            _ if self.is_alone(&source.stat) => self.copy(source, kind, to.dir, to.name, to).map(|_| ()),
            _ => self.instead_of_group(source, kind, to, errno),
        }
    }
}

/// What is tried when a new inode gets its metadata, in messages.
pub const GIVE: &str = "give owner, attributes and times to";

/// An object to be linked or copied.
#[derive(Debug)]
struct Source<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    stat: Stat,
}

fn call(what: &'static str, to: &Spot<'_>, errno: Errno) -> BuildError {
    BuildError::Call {
        what,
        path: to.path(),
        errno,
    }
}
