//! What a merged view is made of, and why it may not come to be.

use std::os::fd::OwnedFd;

use crate::format::{Links, Namespace};

/// How an upper and its work directory reach the overlay: as open directories.
#[derive(Debug)]
pub struct UpperDirs {
    /// The writable layer.
    pub upper: OwnedFd,
    /// The work directory (`W` itself, not `W/work`), on the same mount as `upper`.
    pub work: OwnedFd,
}

/// Which extended attribute namespace holds the private marks (K100, K101).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrNamespace {
    /// Probe at mount: `trusted.overlay.` where it can be set, else `user.overlay.`.
    Auto,
    /// `trusted.overlay.`
    Trusted,
    /// `user.overlay.` (the `userxattr` option)
    User,
}

impl XattrNamespace {
    /// The namespaces to try, the first that can be set counts.
    pub fn candidates(self) -> &'static [Namespace] {
        match self {
            Self::Auto => &[Namespace::Trusted, Namespace::User],
            Self::Trusted => &[Namespace::Trusted],
            Self::User => &[Namespace::User],
        }
    }
}

/// When copied-up objects and `fsync` calls reach the disk (K120-K122).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsyncMode {
    /// File data is on disk before a copy-up is published.
    Auto,
    /// Every copied-up object and its directory is on disk before the call returns.
    Strict,
    /// Nothing is ever synced.
    Volatile,
}

/// Which attribute holds a stated owner and mode ([`OwnershipMode::Stated`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatedIn {
    /// `security.fuseoverlayfs.override_stat`, for a privileged server (`xattr_permissions=1`).
    Security,
    /// `user.containers.override_stat` (`xattr_permissions=2`).
    User,
}

/// Where the upper has the owners and modes of its objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OwnershipMode {
    /// Objects are really owned by whom they show.
    #[default]
    Real,
    /// As before where that is possible; an owner that cannot be given is done without, since another one shows anyway.
    Indifferent,
    /// An attribute states them; all objects really belong to the server, which need not be able to give any away.
    /// Symlinks and special files have no such attribute: of those as much is real as can be.
    Stated(StatedIn),
}

/// The layers and rules of one merged view.
#[derive(Debug)]
pub struct LayerConfig {
    /// The read-only layers, opened as directories, the topmost first; 1 to [`MOST_LOWERS`](super::MOST_LOWERS).
    pub lowers: Vec<OwnedFd>,
    /// Which inodes of a single lower have several names, where that is recorded; else their link counts tell.
    pub names: Option<Links>,
    /// Marks of other tools in the lowers count: `.wh.NAME` and `.wh..wh..opq`, opaque directories of any private
    /// namespace; and the private attributes of all of them are hidden.
    pub foreign: bool,
    /// The writable layer; `None` makes a read-only view.
    pub upper: Option<UpperDirs>,
    /// Where private marks live.
    pub xattr: XattrNamespace,
    /// Durability.
    pub fsync: FsyncMode,
    /// Owners and modes.
    pub ownership: OwnershipMode,
}

/// Why a merged view cannot be set up. The caller adds the paths.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// None, or too many (K10).
    #[error("a view has 1 to {most} lowers, and this one {0}", most = super::MOST_LOWERS)]
    Lowers(usize),
    /// A probe or clean-up step failed; says which, and on which of the directories.
    #[error("{step}: {errno}")]
    Step {
        /// What was tried, in words that name the directory (`lower`, `upper`, `work`).
        step: String,
        /// The kernel's reason.
        errno: crate::sys::Errno,
    },
    /// The upper's file system lacks something an upper needs.
    #[error("the upper's file system cannot hold an upper: {0}")]
    Unsuitable(String),
    /// `work/incompat` holds something (K8).
    #[error("the work directory holds work/incompat/{0}: an earlier mount left it")]
    Incompat(String),
    /// `index` in the work directory holds entries (section 12 of the rules).
    #[error(
        "the upper was used with index=on: hard links that only the index in the work directory holds would be cut"
    )]
    Indexed,
}

/// How many directory descriptors may be kept open besides `fixed` ones: half of what the process may have more, within
/// reason.
pub(super) fn descriptor_limit(fixed: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(1 << 16);
    let left = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(fixed);
    (left / 2).clamp(16, 4096)
}
