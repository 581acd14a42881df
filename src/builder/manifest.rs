//! The manifest of a tree: what every object was at birth, to verify it later.
//!
//! Zstandard over lines of JSON, one for each object in the order of [`super::walk`], so that two manifests, or a
//! manifest and a tree, are compared in one pass that holds a line of each:
//!
//! ```text
//! {"plyfs_manifest":1,"root":{"ino":1234,"birth":"1700000000.000000000"}}
//! {"depth":0,"name":"","kind":"directory","mode":"0755","uid":0,"gid":0,"mtime":"1700000000.000000000","ino":1234}
//! {"depth":1,"name":"motd","kind":"file", ... "size":3,"sha256":"98ea..."}
//! {"objects":2}
//! ```
//!
//! A path is told by depth and name, since all of it would grow with the square of the depth. A name (or symlink
//! target) that is not UTF-8 is a list of its bytes. Times are seconds and nanoseconds after them. `names` and `same`
//! stand with what has several names in the tree: how many, and the path of the first. The last line tells the
//! number of objects, and what was left out of the tree (`skipped`: devices where they cannot be made).

mod line;
mod reader;
mod record;

pub use line::{Attribute, Line, Text};
pub(super) use line::{kind_word, time_text};
pub use reader::{Header, Object, Reader};
pub(super) use record::jobs;
pub use record::{Parent, Recording, Summary, record};

/// The version that is written and read.
const VERSION: u32 = 1;
