//! Why a view shows what it shows, and what a change would do: `plyfs explain`, and for other programs.
//!
//! [`Layers`] opens the layers of a view, mounted or not, for looking at only. [`Layers::explain`] goes down a path
//! name by name and answers with plain data ([`Explanation`]): what each layer has, which of them answers, by which
//! rule, and what would happen on a change. All decisions are those of [`crate::overlay`]; nothing is decided here, so
//! an explanation cannot say something else than a mount does.
//!
//! ```no_run
//! use std::path::Path;
//! use plyfs::explain::{Answer, Layers, Named};
//!
//! let layers = Layers::open(&Named {
//!     lower: "/srv/base".into(),
//!     upper: Some("/srv/changes".into()),
//!     ..Named::default()
//! })?;
//! let told = layers.explain(Path::new("etc/motd"))?;
//! if let Some(step) = told.steps.last() {
//!     println!("{:?}: {}", step.answer, step.why);
//!     println!("from the upper: {}", step.answer == Answer::Upper);
//! }
//! # Ok::<(), plyfs::explain::ExplainError>(())
//! ```

mod data;
mod find;
mod layers;
mod rules;
mod told;
mod walk;
mod why;

pub use data::{After, Answer, Change, Copied, Copy, Explanation, Mark, Operation, RealFile, Step};
pub use find::{Viewed, find};
pub use layers::{ExplainError, Layers, Named};
pub use rules::Rule;
