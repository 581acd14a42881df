//! Whole root trees that share files by hard links: clone, apply, diff, verify, on plain directories.
//!
//! A *layer* here is a complete tree. A child starts as a hard-link clone of its parent; then the changes are
//! laid over it, each by a new inode, so that no shared inode is ever written:
//!
//! ```text
//!   parent/root           child/root
//!     bin/ls  ──inode 7──  bin/ls        unchanged: one inode, two names
//!     etc/motd  inode 8    etc/motd      changed: a new inode, the parent's is untouched
//!     opt/old   inode 9                  removed: the parent keeps its name
//! ```
//!
//! Nothing here knows images or containers (the store does), nor the mount.

pub mod apply;
pub mod clone;
pub mod diff;
mod error;
pub mod layer_tar;
pub mod link;
pub mod links;
pub mod manifest;
mod meta;
pub mod newborn;
mod path;
mod progress;
pub mod remove;
mod scan;
pub mod tar_split;
mod verify;
pub mod walk;

pub use clone::{CloneReport, clone_tree};
pub use error::BuildError;
pub use link::{LinkReport, Linker, Spot};
pub use meta::{Kind, Meta, Xattr};
pub use path::TreePath;
pub use progress::{Progress, Silent};
pub use verify::{Checked, Fault, verify};
pub use walk::{Step, Walk};

/// What a builder function answers.
pub type Result<T> = std::result::Result<T, BuildError>;
