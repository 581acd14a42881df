//! What an explanation is made of: plain data, the same in `--json`.

use serde::{Deserialize, Serialize};

use super::rules::Rule;
use crate::mount::JsonPath;

/// All there is to say of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The path below the root of the view, from `/`; symlinks on the way to it were followed.
    pub path: JsonPath,
    /// Where the view is mounted, if it is.
    pub merged: Option<JsonPath>,
    /// The read-only layer, the topmost if there are several.
    pub lower: JsonPath,
    /// The further read-only layers, each below the former.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<JsonPath>,
    /// The writable layer.
    pub upper: Option<JsonPath>,
    /// What shows at the path; of a path that shows nothing, why not.
    pub answer: Answer,
    /// The errno of a lookup of the path (`ENOENT`, ...); none if something shows.
    pub errno: Option<String>,
    /// Name by name, the root first. It ends early where the way ends.
    pub steps: Vec<Step>,
    /// What changes would do. Of a path whose way ends early there are none.
    pub operations: Vec<Operation>,
}

/// One name on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The path so far.
    pub path: JsonPath,
    /// What shows.
    pub answer: Answer,
    /// Why, in words.
    pub why: String,
    /// The rules it goes by.
    pub rules: Vec<Rule>,
    /// What the upper has there, a whiteout too.
    pub upper: Option<RealFile>,
    /// What the lower has there, also where it does not show. Unknown (none) below what hides the lower. Of several
    /// lowers it is the topmost that has anything, a whiteout too.
    pub lower: Option<RealFile>,
    /// What the lowers below that one have there, the topmost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<RealFile>,
    /// What is known of a copy-up.
    pub copied: Option<Copied>,
}

/// Which layer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A directory in both layers.
    Merged,
    /// The upper alone.
    Upper,
    /// The lower alone.
    Lower,
    /// Nothing: a whiteout in the upper.
    Whiteout,
    /// Nothing: neither layer has it.
    Absent,
    /// Nothing: what is there cannot be shown.
    Refused,
}

/// A real object in a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealFile {
    /// Where it is.
    pub path: JsonPath,
    /// Of an object in one of several lowers: which, counted from 1, the topmost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// Another layer hides it.
    #[serde(default)]
    pub hidden: bool,
    /// `directory`, `file`, `symlink`, `fifo`, `socket`, `character device`, `block device`, `whiteout`.
    pub kind: String,
    /// Inode number on its own file system.
    pub inode: u64,
    /// Device number of that file system.
    pub device: u64,
    /// Permission bits, octal: `0644`.
    pub mode: String,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that take room on disk: what a copy-up has to move at most.
    pub allocated: u64,
    /// Link count.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the data, RFC 3339.
    pub modified: String,
    /// The text of a symlink.
    pub target: Option<JsonPath>,
    /// Its private extended attributes.
    pub marks: Vec<Mark>,
}

/// A private extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The whole name, such as `trusted.overlay.opaque`.
    pub name: String,
    /// The value: text where it is, else `0x...`.
    pub value: String,
    /// What it says, in words.
    pub meaning: String,
}

/// What is known of a copy-up: the origin mark remembers what was copied, the copy's own inode when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The lower's inode.
    pub from: u64,
    /// When the copy was made, RFC 3339; none where the upper's file system does not keep it.
    pub when: Option<String>,
    /// What is different from the lower's object of the same name: `owner`, `mode`, `size`, `mtime`; from this the
    /// kind of change that copied it up can be told. None if the lower has that inode under another name.
    pub differs: Option<Vec<String>>,
    /// The operations that may have copied it up, in words.
    pub by: String,
}

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// open(2) for writing.
    OpenForWriting,
    /// unlink(2).
    Unlink,
    /// rename(2) to a free name in the same directory.
    Rename,
    /// rmdir(2).
    Rmdir,
    /// chmod(2).
    Chmod,
    /// A new file under this name (`O_CREAT`, mkdir(2), ...).
    Create,
}

/// What a change would do. Whether the caller is allowed to is another question, which the kernel answers by modes and
/// ACLs before plyfs is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which.
    pub change: Change,
    /// The errno it would get (`EXDEV`, ...); none if it would be done.
    pub errno: Option<String>,
    /// The plan, one step a line.
    pub plan: Vec<String>,
    /// What would be copied up, in this order.
    pub copies: Vec<Copy>,
    /// What the upper would hold under this name afterwards.
    pub upper_after: After,
    /// What the upper would hold under the new name; only of a rename that is done.
    pub target_after: Option<After>,
    /// The rules it goes by.
    pub rules: Vec<Rule>,
}

/// An object to be copied up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Its path in the view.
    pub path: JsonPath,
    /// File data to be moved, bytes, at most (holes and reflinks move none); 0 for what is no regular file.
    pub bytes: u64,
}

/// What the upper holds under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// What it held before.
    Unchanged,
    /// Nothing.
    Nothing,
    /// A whiteout.
    Whiteout,
    /// An object.
    Object,
    /// A directory that hides the lower's.
    OpaqueDirectory,
}
