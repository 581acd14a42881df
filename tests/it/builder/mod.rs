//! The builder on plain directories.

mod apply;
mod diff;
mod hostile;
mod layer_tar;
mod stage;
