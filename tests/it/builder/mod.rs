//! The builder on plain directories.

mod diff;
mod layer_tar;
