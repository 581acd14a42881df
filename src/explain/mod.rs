//! Why a view shows what it shows, and what a change would do: `plyfs explain`, and for other programs.
//!
//! [`Layers`] opens the layers of a view, mounted or not, for looking at only. [`Layers::explain`] goes down a path
//! name by name and answers with plain data ([`Explanation`]): what each layer has, which of them answers, by which
//! rule, and what would happen on a change. All decisions are those of [`crate::overlay`]; nothing is decided here, so
//! an explanation cannot say something else than a mount does.
//!
//! ```
//! use std::path::Path;
//! use plyfs::explain::{Answer, Layers, Named};
//!
//! # let scratch = tempfile::tempdir()?;
//! # let [base, changes] = ["base", "changes"].map(|name| scratch.path().join(name));
//! # for layer in [&base, &changes] {
//! #     std::fs::create_dir_all(layer.join("etc"))?;
//! #     std::fs::write(layer.join("etc/motd"), "hello")?;
//! # }
//! let layers = Layers::open(&Named {
//!     lower: base,
//!     upper: Some(changes),
//!     ..Named::default()
//! })?;
//! let told = layers.explain(Path::new("etc/motd"))?;
//! let last = told.steps.last().ok_or("no such path")?;
//! println!("{:?}: {}", last.answer, last.why);
//! assert_eq!(last.answer, Answer::Upper);
//! # Ok::<(), Box<dyn std::error::Error>>(())
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
