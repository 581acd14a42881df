//! How changes are laid over a tree, and what came of it.

use std::io::Write;

use super::Hashes;
use crate::builder::TreePath;
use crate::format::Namespace;

/// What is refused as too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries, and directories made because an entry's is missing. Option `--max-entries`.
    pub entries: u64,
    /// Bytes of the uncompressed archive, and of all its files with their holes. Option `--max-bytes`.
    pub bytes: u64,
}

impl Default for Limits {
    /// Ten million entries, 256 GiB.
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            bytes: 256 << 30,
        }
    }
}

/// Who owns what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owners {
    /// Whoever the changes say.
    #[default]
    Kept,
    /// Whoever runs this: for an ordinary user without a user namespace.
    Mine,
}

/// How changes are laid over a tree.
#[derive(Default)]
pub struct ApplyOptions<'a> {
    /// What is refused as too much.
    pub limits: Limits,
    /// Where to write what an archive holds beside file data, for [`assemble`](crate::builder::tar_split::assemble).
    pub record: Option<&'a mut dyn Write>,
    /// Skip devices that may not be made, with a note, instead of failing.
    pub skip_devices: bool,
    /// Who owns what is made.
    pub owners: Owners,
    /// Take the digests of the files that are written.
    pub hash_files: bool,
    /// The digest that the uncompressed archive must have.
    pub expected: Option<[u8; 32]>,
    /// The archive is no layer but just files: a name that would be a mark in a layer is refused.
    pub refuse_marks: bool,
    /// Whose marks an upper directory has. If not given, its root tells: where it has marks of the trusted namespace,
    /// those of the user namespace are data of whoever set them; else both count.
    pub namespace: Option<Namespace>,
}

/// What of the changes is not in the tree, and why. Only the first ten thousand are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The first: the object, and what was left out.
    pub list: Vec<(TreePath, String)>,
    /// How many more there are.
    pub more: u64,
}

impl Notes {
    const MOST: usize = 10_000;

    pub(super) fn add(&mut self, path: &TreePath, what: impl Into<String>) {
        if self.list.len() >= Self::MOST {
            self.more = self.more.saturating_add(1);
            return;
        }
        self.list.push((path.clone(), what.into()));
    }
}

/// What was laid over a tree.
#[derive(Debug, Default)]
pub struct Changes {
    /// Entries of the archive, or objects of the directory.
    pub entries: u64,
    /// Bytes of the regular files among them, holes with them.
    pub file_bytes: u64,
    /// Digests of the files that were written, if asked for.
    pub hashes: Hashes,
    /// What was left out.
    pub notes: Notes,
}

/// What came of an archive.
#[derive(Debug)]
pub struct Applied {
    /// The sha256 of the uncompressed archive, to its very last byte.
    pub diff_id: [u8; 32],
    /// Bytes of the uncompressed archive.
    pub archive_bytes: u64,
    /// What was laid over the tree.
    pub changes: Changes,
}
