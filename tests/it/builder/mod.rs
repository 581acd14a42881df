//! The builder on plain directories.

mod diff;
