//! Images, layers and containers on disk, laid out as the old Docker driver did.
//!
//! ```text
//!   <root>/
//!     overlay/<layer>/            an image layer, named by its chain id (64 hex digits); born and gone whole
//!       root/                     its complete tree
//!       parent                    the chain id of the layer below; absent for a base
//!       diff                      its diff id: the digest of its uncompressed archive
//!       birth                     what its birth cost: names linked, files copied, bytes of the archive
//!       size                      bytes of regular files in that archive
//!       manifest                  every object of the tree, to verify it
//!       links                     inodes with several names in the tree, for the mount
//!       tar-split                 what the archive held beside file data, to write it again byte for byte
//!       overflow/                 inodes that take over where the link count of one in root/ is full
//!     overlay/<id>-init/          a container's first layer: lower-id, upper/, work/
//!     overlay/<id>/               a container: lower-id, upper/, work/, merged/ (while mounted)
//!     images/<id>/                an image, named by the digest of its config: config, manifest (byte for byte)
//!     containers/<id>             a container's settings
//!     repositories.json           names of images
//!     tmp/                        what is being made or deleted; nothing elsewhere is ever partial
//!     lock                        shared by users, exclusive for who deletes
//! ```

mod birth;
pub mod build;
mod check;
pub mod container;
mod delete;
mod doubt;
mod error;
mod gc;
mod id;
mod image;
mod import;
mod layer;
mod layout;
mod load;
mod lock;
mod name;
mod names;
mod piped;
mod remove;
pub mod runtime;
mod save;
mod tmp;
mod tree;
mod usage;
pub mod userns;
pub mod view;

pub use check::{Checked, Wrong};
pub use delete::Freed;
pub use error::{Result, StoreError};
pub use gc::ContainerUse;
pub use id::{BlobId, ChainId, DiffId, ImageId};
pub use image::{Image, LARGEST_JSON};
pub use layer::Layer;
pub use layout::Store;
pub use load::{LoadOptions, Loaded, Platform, Source};
pub use lock::{Exclusive, Shared};
pub use name::Name;
pub use names::Names;
pub use remove::Removal;
pub use save::{Compression, Format, SaveOptions};
pub use tmp::{Published, Swept, TmpDir};
pub use tree::Birth;
pub use usage::{ImageUsage, Space, Usage};
