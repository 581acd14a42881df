//! The on-disk language of an upper directory, shared with the kernel's overlay.
//!
//! A *whiteout* hides a name of the lower: a character device 0/0 (K30). A directory marked *opaque* hides
//! all names of the lower's directory (K21). An *origin* remembers which lower object a copy came from (K42).
//! Everything else in an upper is what it looks like.
//!
//! Beside a layer's tree lies the file [`links`], which tells the files with several names from those whose inode
//! is only shared with other layers.

pub mod aufs;
pub mod links;
pub mod marks;
pub mod origin;
pub mod statement;

pub use links::{Links, TreeId};
pub use marks::{Marks, Namespace};
pub use origin::{Origin, OriginReader};
pub use statement::Statement;
