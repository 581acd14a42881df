//! The builder on plain directories.

mod clone;
mod diff;
mod layer_tar;
mod limits;
mod room;
mod verify;
