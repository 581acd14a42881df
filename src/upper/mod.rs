//! The changes of a view that is not mounted: told, checked, applied to the lower, dropped, tidied.
//!
//! ```text
//!   layers     lower, upper and work: open, told apart, locked against live mounts
//!   inspect    what is odd in an upper                                  (reads only)
//!   vacuum     takes away what changes nothing                          (each step leaves the view as it is)
//!   forget     drops the changes of one path                            (one rename)
//!   apply      brings the changes into the lower:
//!     plan       from the difference to steps                           (pure)
//!     stage      every new object is made beside its place              (the lower is not touched)
//!     journal    what is to be done, on disk
//!     publish    names change places, one call each; and back again
//! ```
//!
//! `docs/upper.md` tells the rules.

mod apply;
mod error;
mod forget;
mod inspect;
mod journal;
mod layers;
mod plan;
mod publish;
mod reach;
mod stage;
mod vacuum;

pub use apply::{
    Applied, ApplyOptions, Pending, Restored, apply, finish, forget_undo, pending, roll_back, undo,
};
pub use error::UpperError;
pub use forget::{Dropped, drop_path};
pub use inspect::{Finding, Severity, Trouble, inspect};
pub use layers::Layers;
pub use plan::chosen;
pub use vacuum::{Vacuumed, vacuum};

/// What a function on an upper answers.
pub type Result<T> = std::result::Result<T, UpperError>;
