//! Why something was not done to an upper.

use std::path::PathBuf;

use thiserror::Error;

use crate::builder::{BuildError, TreePath};
use crate::mount::MountError;
use crate::sys::Errno;

/// A reason to stop. The text names the path, the reason and, where there is one, the remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UpperError {
    /// The directories cannot be used, or are in use.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A tree could not be read or compared.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A system call failed.
    #[error("cannot {what} {path} of the {tree}: {errno}")]
    Call {
        /// What was tried, as a verb.
        what: &'static str,
        /// Which tree: "lower", "upper", "work directory".
        tree: &'static str,
        /// Where in it.
        path: TreePath,
        /// The kernel's reason.
        errno: Errno,
    },
    /// Somebody wrote to the lower.
    #[error("{path}: {how}: nothing was applied")]
    Changed {
        /// Where.
        path: TreePath,
        /// What is other than expected.
        how: &'static str,
    },
    /// An earlier apply did not come to its end.
    #[error(
        "an earlier apply of {} was interrupted: end it with 'plyfs upper apply --finish', or take it back with \
         'plyfs upper apply --rollback', with the same layers",
        upper.display()
    )]
    Pending {
        /// The upper.
        upper: PathBuf,
    },
    /// It is refused.
    #[error("{0}")]
    Refused(String),
}

impl UpperError {
    /// The kernel's error number behind this, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            Self::Build(error) => error.errno(),
            _ => None,
        }
    }
}

/// For `map_err` after a call.
pub(super) fn call(
    what: &'static str,
    tree: &'static str,
    path: &TreePath,
) -> impl FnOnce(Errno) -> UpperError + use<> {
    let path = path.clone();
    move |errno| UpperError::Call {
        what,
        tree,
        path,
        errno,
    }
}
