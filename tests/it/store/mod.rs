//! The store: images, containers, builds.
//!
//! - [`bench`]: a store in a temporary directory, and a small root file system with a shell.

pub mod bench;
mod build;
