//! What changed between two trees, or in an upper directory over its lower.
//!
//! Both questions are one: compare an *old* view with a *new* one, name by name in sorted order.
//!
//! ```text
//!   trees    old: OLD                     new: NEW
//!   upper    old: [init upper over] L     new: U over L       only names in an upper are looked at,
//!                                                             and all names where U hides L's directory
//! ```
//!
//! `side` knows what a view shows, `walk` goes through two of them in step, `compare` tells two objects
//! apart, `groups` tells which names are hard links of each other in one view and not in the other.
//! What docker's rules say about the letters is in `changes`.
//!
//! ```
//! use std::fs::File;
//! use std::os::fd::AsFd;
//! use plyfs::builder::diff::{Letter, diff_trees};
//!
//! # let scratch = tempfile::tempdir()?;
//! # let [old, new] = ["old", "new"].map(|name| scratch.path().join(name));
//! # std::fs::create_dir(&old)?;
//! # std::fs::create_dir(&new)?;
//! # std::fs::write(new.join("hello"), "world")?;
//! let (old, new) = (File::open(old)?, File::open(new)?);
//! let mut added = Vec::new();
//! diff_trees(old.as_fd(), new.as_fd(), &mut |change| {
//!     if change.letter == Letter::Added {
//!         added.push(change.path.to_string());
//!     }
//!     Ok(())
//! })?;
//! assert_eq!(added, ["/hello"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod changes;
mod compare;
mod groups;
pub(super) mod side;
mod walk;

use std::os::fd::BorrowedFd;

use super::{Kind, Result, TreePath};
use crate::format::Namespace;

pub(in crate::builder) use changes::{Object, Sink, changes};
pub(in crate::builder) use side::Views;
pub use side::tell_namespaces;
pub(in crate::builder) use walk::call;

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Letter {
    /// It is new.
    Added,
    /// It is another object than before, or a directory in which something changed.
    Changed,
    /// It is gone; what was below it is not told.
    Deleted,
}

impl Letter {
    /// `A`, `C` or `D`, as docker prints it.
    pub fn as_char(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// In what an object differs from the one that had its name before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Difference {
    /// It is of another kind: nothing else is compared.
    Kind,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Device number.
    Device,
    /// Size of a file.
    Size,
    /// Modification time, to the nanosecond; never told of a directory.
    Mtime,
    /// Target of a symlink.
    Target,
    /// Extended attributes, ACLs and capabilities with them.
    Xattrs,
    /// Data; looked for only where nothing else told that the object changed.
    Content,
    /// The names that are hard links of it.
    Links,
}

impl Difference {
    /// One word, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Device => "device",
            Self::Size => "size",
            Self::Mtime => "mtime",
            Self::Target => "target",
            Self::Xattrs => "xattrs",
            Self::Content => "content",
            Self::Links => "links",
        }
    }
}

/// One line of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub letter: Letter,
    /// To which name.
    pub path: TreePath,
    /// What the object is, or was before it was deleted.
    pub kind: Kind,
    /// In what it differs; empty for added and deleted names, and for a directory that is told only because
    /// something below it changed.
    pub differences: Vec<Difference>,
}

/// Tells how many names an inode has in its tree.
pub type Names<'a> = dyn Fn(u64) -> u32 + Sync + 'a;

/// An upper directory and what it lies over.
#[derive(Clone, Copy)]
pub struct Upper<'a> {
    /// The writable layer of a mount.
    pub upper: BorrowedFd<'a>,
    /// The mount's lower.
    pub lower: BorrowedFd<'a>,
    /// A container's first layer: what it holds does not count as changed. Its own lower is the same one.
    pub init: Option<BorrowedFd<'a>>,
    /// In which namespace the mount keeps its marks; with `None` both, unless the upper's root has trusted ones.
    pub namespace: Option<Namespace>,
    /// How many names an inode of the lower has in the lower's tree (`Links::names_of`). Without it the lower is
    /// searched for the other names of a file that was copied up and not changed, if it has a link count.
    pub names: Option<&'a Names<'a>>,
}

/// Tells each change from the tree `old` to the tree `new`, directories before what is below them, names in
/// byte order.
///
/// A file that is the same inode in both is unchanged. Of two inodes with the same size, owner, mode, times
/// and attributes the data is compared.
///
/// # Errors
/// A directory or object that cannot be read, a mount inside a tree, or what `each` answers.
pub fn diff_trees(
    old: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    each: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    changes(&Views::trees(old, new)?, &mut Lines(each))
}

/// Tells each change that an upper makes to its lower, in the order of [`diff_trees`].
///
/// Costs the size of the upper, not of the lower (but see [`Upper::names`]).
///
/// # Errors
/// As [`diff_trees`]; marks of `metacopy` or `redirect_dir`, whose data lies elsewhere.
pub fn diff_upper(upper: Upper<'_>, each: &mut dyn FnMut(Change) -> Result<()>) -> Result<()> {
    changes(&Views::upper(upper)?, &mut Lines(each))
}

/// Hands on the line and nothing else.
struct Lines<'a>(&'a mut dyn FnMut(Change) -> Result<()>);

impl Sink for Lines<'_> {
    fn change(&mut self, change: Change, _object: Option<&Object<'_>>) -> Result<()> {
        (self.0)(change)
    }
}
