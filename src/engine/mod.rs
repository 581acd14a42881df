//! What a container engine asks of the program that mounts its layers.
//!
//! Engines know one such program by its command line, that of `fuse-overlayfs`: `PROGRAM -o OPTS TARGET`. Whoever calls
//! plyfs in that way, or under that name, is answered in the same terms:
//!
//! ```text
//!   arguments   the command line        -> a version, a help text, or a mount     (pure)
//!   words       the words after -o      -> what is wanted, and what is passed over (pure)
//!   call        a mount                 -> a view that answers, or the reason
//! ```
//!
//! `setup` makes an engine call it.
//!
//! What it does otherwise than [`mod@crate::mount`] alone: layers may carry marks of other tools, an upper may have been
//! written by `fuse-overlayfs`, a dead view on the target gives way, and words that nobody knows are no error.

pub mod arguments;
pub mod call;
pub mod setup;
pub mod words;

pub use arguments::{Asked, CallError, MountCall, is_call};
pub use words::{Note, Words};
