//! Why an image was not built.

use std::fmt;

use thiserror::Error;

use crate::builder::BuildError;
use crate::store::StoreError;

/// Why an image was not built: where in the Containerfile, and the reason.
#[derive(Debug, Error)]
#[error("{place}{reason}")]
pub struct ImageBuildError {
    /// Where.
    pub place: Place,
    /// Why.
    pub reason: Box<Reason>,
}

/// Where a build failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The Containerfile; empty when it was not even found.
    pub file: String,
    /// The line, from 1; 0 for the whole file.
    pub line: usize,
    /// Which step, in words: `step 3/5, COPY a b`.
    pub step: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_empty() {
            return Ok(());
        }
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        match &self.step {
            Some(step) => write!(f, "{step}: "),
            None => Ok(()),
        }
    }
}

/// Why a build failed.
#[derive(Debug, Error)]
pub enum Reason {
    /// The store could not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tree could not be read or written.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A file outside the store could not be used.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// Where.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The Containerfile, or the command line, asks for something that cannot be.
    #[error("{0}")]
    Refused(String),
    /// The command of a RUN failed.
    #[error("the command ended with status {0}")]
    Ended(u8),
    /// The command of a RUN did not even start.
    #[error("the command did not start: {0}")]
    NotStarted(String),
}

impl From<String> for Reason {
    fn from(words: String) -> Self {
        Self::Refused(words)
    }
}

/// What a part of a build answers.
pub type Result<T> = std::result::Result<T, Reason>;
