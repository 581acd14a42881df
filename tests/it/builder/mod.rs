//! The builder on plain directories.

mod apply;
mod clone;
mod diff;
mod layer_tar;
mod limits;
mod room;
mod stage;
mod verify;
