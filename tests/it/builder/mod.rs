//! The builder on plain directories.

mod apply;
mod clone;
mod coverage;
mod diff;
mod diff_command;
mod diff_upper;
mod hostile;
mod lay;
mod layer_tar;
mod limits;
mod properties;
mod random;
mod room;
mod stage;
mod told;
mod verify;
