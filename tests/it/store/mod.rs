//! The store: images, containers, builds, through the commands as a person uses them.
//!
//! - [`bench`]: a store in a temporary directory, and a small root file system with a shell.
//! - [`pack`]: images made here, packed in every shape that tools write.
//! - [`shop`]: a store in a temporary directory, and the commands on it.

pub mod bench;
mod build;
mod containers;
mod crash;
#[cfg(feature = "fault-injection")]
mod faults;
mod hostile;
mod images;
mod pack;
mod room;
mod sharing;
mod shop;
