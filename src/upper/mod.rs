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
//!
//! ```
//! use plyfs::builder::Silent;
//! use plyfs::upper::{ApplyOptions, Layers, apply, forget_undo};
//!
//! # let scratch = tempfile::tempdir()?;
//! # let [base, changes, work] = ["base", "changes", "work"].map(|name| scratch.path().join(name));
//! # for layer in [&base, &changes, &work] {
//! #     std::fs::create_dir(layer)?;
//! # }
//! # std::fs::write(changes.join("new"), "from the view")?;
//! let layers = Layers::open(&base, &changes, &work, None)?;
//! for change in layers.changes()? {
//!     println!("{:?} {}", change.letter, change.path);
//! }
//! let applied = apply(&layers, &ApplyOptions::default(), &Silent)?;
//! assert_eq!(applied.added, 1);
//! assert_eq!(std::fs::read_to_string(base.join("new"))?, "from the view");
//! // It could be undone until this:
//! forget_undo(&layers)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
