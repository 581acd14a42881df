//! Images that the tests make themselves: layers written as literals, packed into every shape that images come in.
//!
//! - [`archive`]: one layer: a list of entries to a tar archive, odd ones included.
//! - [`image`]: layers and a config to a docker archive (three shapes) or an OCI layout (a directory or a tar).
//! - [`quirks`]: the images on which other programs differ, and those on which they must agree.

pub mod archive;
pub mod image;
pub mod quirks;

pub use image::{Image, Packing, Shape};
pub use quirks::{Ours, Quirk, quirks};
