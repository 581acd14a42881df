//! The store: images, containers, builds, through the commands as a person uses them.
//!
//! - [`pack`]: images made here, packed in every shape that tools write.
//! - [`shop`]: a store in a temporary directory, and the commands on it.

mod crash;
#[cfg(feature = "fault-injection")]
mod faults;
mod hostile;
mod images;
mod pack;
mod room;
mod sharing;
mod shop;
