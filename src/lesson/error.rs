//! Why a walk did not come to its end.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::builder::BuildError;

/// Why a walk did not come to its end. The text says what was tried, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LessonError {
    /// A file or directory of the scratch directory could not be used.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A tree could not be looked at.
    #[error("{}: {source}", path.display())]
    Look {
        /// The root of the tree.
        path: PathBuf,
        /// The reason.
        source: BuildError,
    },
    /// A path of somebody's own layers could not be explained.
    #[error(transparent)]
    Explain(#[from] crate::explain::ExplainError),
    /// The view did not come to be.
    #[error("the lesson's view cannot be mounted: {said}{}", remedy(.said))]
    Mount {
        /// What the server said.
        said: String,
    },
    /// A command of the walk did not do what the walk goes on with.
    #[error("'{command}' ended with status {status}: {said}")]
    Command {
        /// The command.
        command: String,
        /// Its exit status, or -1 for one that was killed.
        status: i32,
        /// What it printed.
        said: String,
    },
    /// Something took longer than anybody would wait.
    #[error("'{what}' has not ended after {seconds} s; is the machine out of disk or memory?")]
    Endless {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// The copy-up that was to be cut short did not happen so.
    #[error("the copy-up of M/big could not be cut short: {0}")]
    Crash(String),
    /// Somebody wants the walk to end.
    #[error("interrupted")]
    Interrupted,
    /// The viewer's terminal, or the file that is written, failed.
    #[error("cannot show the lesson: {0}")]
    Show(#[from] io::Error),
}

/// What the server cannot know: that its directories may be made elsewhere.
fn remedy(said: &str) -> &'static str {
    if said.contains("attributes") || said.contains("whiteouts") || said.contains("RENAME_") {
        " ('plyfs lesson --dir DIR' makes the scratch directory on another file system)"
    } else {
        ""
    }
}

impl LessonError {
    /// For `map_err`: `what` was tried at `path`.
    pub(super) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io {
            what,
            path,
            source: source.into(),
        }
    }
}

/// What a function of the lesson answers.
pub type Result<T> = std::result::Result<T, LessonError>;
