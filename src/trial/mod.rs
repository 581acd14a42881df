//! Trials: a command on a throw-away view, and the decision afterwards.
//!
//! ```text
//!   record     STATE/try/NAME: what is tried on, since when; an upper and a work directory for each layer
//!   layout     which mounts are layered, which are shown as they are        (pure)
//!   stage      namespaces, views, the command, and everything away again
//!   decide     what changed; kept, undone, dropped: by the offline verbs of `upper`
//! ```
//!
//! STATE is `/var/lib/plyfs` for root, else `$XDG_STATE_HOME/plyfs`, else `~/.local/state/plyfs`.

mod decide;
mod layout;
mod record;
mod stage;

pub use decide::{Side, Told};
pub use record::{Trial, Wanted, all};
pub use stage::run;

use thiserror::Error;

use crate::mount::MountError;
use crate::upper::UpperError;

/// Why a trial did not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrialError {
    /// A view could not be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The changes could not be read or applied.
    #[error(transparent)]
    Upper(#[from] UpperError),
    /// Anything else; the text names the path, the reason and the remedy.
    #[error("{0}")]
    Refused(String),
}

/// What a function on trials answers.
pub type Result<T> = std::result::Result<T, TrialError>;

/// For `map_err` after a call on `path`.
fn failed<E: std::fmt::Display>(what: &str, path: &std::path::Path) -> impl FnOnce(E) -> TrialError {
    move |error| TrialError::Refused(format!("cannot {what} {}: {error}", path.display()))
}
