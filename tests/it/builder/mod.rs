//! The builder on plain directories.

mod apply;
mod diff;
mod layer_tar;
mod stage;
