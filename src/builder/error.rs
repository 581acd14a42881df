//! Why a tree was not built.

use thiserror::Error;

use super::TreePath;
use crate::sys::Errno;

/// Why a tree was not cloned, changed, compared or verified. The text names the path and the reason.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A system call failed.
    #[error("cannot {what} {path}: {errno}")]
    Call {
        /// What was tried, as a verb: "read", "link", "create".
        what: &'static str,
        /// Where in the tree.
        path: TreePath,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The data asks for something that is refused.
    #[error("{path}: {reason}")]
    Refused {
        /// The entry.
        path: TreePath,
        /// Why it is refused.
        reason: String,
    },
    /// A new tree cannot appear at its place.
    #[error("{}: {reason}", place.display())]
    Place {
        /// The place as it was given.
        place: std::path::PathBuf,
        /// Why not.
        reason: String,
    },
    /// Somebody wants the work to end.
    #[error("interrupted")]
    Interrupted,
    /// The stream could not be read or written.
    #[error("cannot {what}: {source}")]
    Stream {
        /// What was tried: "read the layer archive", "write the layer archive".
        what: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// The archive is not what it should be.
    #[error("the archive is damaged at byte {position}: {reason}")]
    Damaged {
        /// Where in the uncompressed archive.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// More than the limits allow.
    #[error("{what} is more than the limit of {limit}; raise it with {option} if this is meant")]
    Limit {
        /// What there is too much of: "the size of the unpacked layer".
        what: &'static str,
        /// The limit.
        limit: u64,
        /// The option that raises it.
        option: &'static str,
    },
    /// A digest is not the expected one.
    #[error("{what} has the digest {found}, not {expected}: the data is damaged or was replaced")]
    Digest {
        /// What was hashed.
        what: String,
        /// The digest that was promised, with its algorithm.
        expected: String,
        /// The digest of the data.
        found: String,
    },
}

impl BuildError {
    /// The kernel's error number behind this, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            Self::Stream { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}
