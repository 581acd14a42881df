//! Why the store did not do what was asked.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::builder::BuildError;
use crate::sys::Errno;

/// Why the store did not do what was asked. The text names what it is about, the reason, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A tree could not be built, read or compared.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// As [`StoreError::Build`], with the thing that was worked on.
    #[error("{subject}: {source}")]
    BuildOf {
        /// What was worked on: "layer sha256:...".
        subject: String,
        /// The reason.
        source: BuildError,
    },
    /// A file or directory of the store, or one that was named, could not be used.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// No image has this name or id.
    #[error("no such image: {reference}; 'plyfs image ls' shows those there are")]
    NoImage {
        /// As it was typed.
        reference: String,
    },
    /// No such layer.
    #[error("no such layer: {id}; the store has lost it, 'plyfs system check' shows what else is wrong")]
    NoLayer {
        /// The chain id.
        id: String,
    },
    /// Several images begin with these digits.
    #[error("{reference} is the beginning of several ids: {}; give more digits", .ids.join(", "))]
    Ambiguous {
        /// As it was typed.
        reference: String,
        /// The ids.
        ids: Vec<String>,
    },
    /// A name or id that cannot be one.
    #[error("'{}' is not {what}: {why}", text.escape_debug())]
    Grammar {
        /// As it was typed.
        text: String,
        /// What was expected: "an image name".
        what: &'static str,
        /// Why it is none.
        why: &'static str,
    },
    /// Somebody uses it.
    #[error("{what} is in use by {user}; {remedy}")]
    InUse {
        /// What.
        what: String,
        /// Who uses it.
        user: String,
        /// What to do.
        remedy: String,
    },
    /// A file of the store does not hold what it should.
    #[error("{}: {why}; 'plyfs system check --repair' removes what is damaged", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An image archive or layout that is refused.
    #[error("{member}: {why}")]
    Archive {
        /// What in it: the name of a member, or the archive itself.
        member: String,
        /// Why it is refused.
        why: String,
    },
    /// A view could not be mounted or unmounted.
    #[error(transparent)]
    Mount(#[from] crate::mount::MountError),
    /// What was asked makes no sense here.
    #[error("{0}")]
    Refused(String),
}

/// What a function of the store answers.
pub type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    /// For `map_err` on a call that gave an error number.
    pub(crate) fn errno(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Self {
        let path = path.as_ref().to_owned();
        move |errno| Self::Io {
            what,
            path,
            source: errno.into(),
        }
    }

    /// For `map_err` on a call of the standard library.
    pub(crate) fn io(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// For `map_err` on a builder's answer about `subject`.
    pub(crate) fn of(subject: impl Into<String>) -> impl FnOnce(BuildError) -> Self {
        let subject = subject.into();
        move |source| Self::BuildOf { subject, source }
    }

    /// A refused member of an image archive.
    pub(crate) fn archive(member: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Archive {
            member: member.into(),
            why: why.into(),
        }
    }
}
