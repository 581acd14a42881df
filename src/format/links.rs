//! The file `links` beside a layer's tree: which of its inodes have several names *in this tree*.
//!
//! A layer shares its unchanged files with other layers by hard links, so the link count of an inode says nothing
//! about the tree it is seen in. The mount of a layer shows every file that is not listed here with one name.
//!
//! ```text
//!   8 bytes    PLYLINK1
//!   8          inode number of the tree's root directory
//!   8, 4       its birth: seconds (signed) and nanoseconds; both 0 where the file system tells none
//!   8          how many records follow
//!   8, 4 each  inode number, number of names; ascending by inode number
//! ```
//!
//! All numbers are little-endian. Inode numbers hold only where the tree was made: in a store that was copied
//! elsewhere the root directory is another one, and the file is ignored.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use crate::sys::Result;
use crate::sys::stat::{self, Time};

const MAGIC: &[u8; 8] = b"PLYLINK1";
const HEADER: usize = 8 + TREE + 8;
const TREE: usize = 8 + 8 + 4;
const RECORD: usize = 8 + 4;

/// Which root directory a tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeId {
    ino: u64,
    birth: Time,
}

impl TreeId {
    /// The identity of the root directory `root`.
    ///
    /// # Errors
    /// As statx(2).
    pub fn of(root: impl AsFd) -> Result<Self> {
        let ino = stat::stat_fd(&root)?.ino;
        let birth = stat::birth_time(root)?.unwrap_or_default();
        Ok(Self { ino, birth })
    }
}

/// The inodes of one tree that have several names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    tree: TreeId,
    /// Inode number and names, ascending.
    several: Vec<(u64, u32)>,
}

impl Links {
    /// For the tree `tree`, from inode numbers of what is no directory and how many names each has in it. One that
    /// comes more than once has all those names; those with a single name in the end are left out.
    pub fn new(tree: TreeId, names: impl IntoIterator<Item = (u64, u32)>) -> Self {
        let mut sums = BTreeMap::<u64, u32>::new();
        for (ino, count) in names {
            let sum = sums.entry(ino).or_default();
            *sum = sum.saturating_add(count);
        }
        let several = sums.into_iter().filter(|(_, count)| *count > 1).collect();
        Self { tree, several }
    }

    /// The tree these numbers belong to.
    pub fn tree(&self) -> TreeId {
        self.tree
    }

    /// How many names in the tree the inode `ino` has.
    pub fn names_of(&self, ino: u64) -> u32 {
        let found = self.several.binary_search_by_key(&ino, |(ino, _)| *ino);
        found
            .ok()
            .and_then(|at| self.several.get(at))
            .map_or(1, |(_, names)| *names)
    }

    /// The content of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER.saturating_add(self.several.len().saturating_mul(RECORD)));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.tree.ino.to_le_bytes());
        bytes.extend_from_slice(&self.tree.birth.secs.to_le_bytes());
        bytes.extend_from_slice(&self.tree.birth.nanos.to_le_bytes());
        bytes.extend_from_slice(&(self.several.len() as u64).to_le_bytes());
        for (ino, names) in &self.several {
            bytes.extend_from_slice(&ino.to_le_bytes());
            bytes.extend_from_slice(&names.to_le_bytes());
        }
        bytes
    }

    /// True for a file that says to be of this kind, whole or not.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Reads the content of the file; `None` if it is not whole.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (ino, rest) = rest.split_first_chunk()?;
        let (secs, rest) = rest.split_first_chunk()?;
        let (nanos, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let tree = TreeId {
            ino: u64::from_le_bytes(*ino),
            birth: Time {
                secs: i64::from_le_bytes(*secs),
                nanos: u32::from_le_bytes(*nanos),
            },
        };
        let (records, cut) = rest.as_chunks::<RECORD>();
        if !cut.is_empty() || records.len() as u64 != u64::from_le_bytes(*count) {
            return None;
        }
        let mut several = Vec::with_capacity(records.len());
        for record in records {
            let (ino, names) = record.split_first_chunk()?;
            let names = names.first_chunk()?;
            several.push((u64::from_le_bytes(*ino), u32::from_le_bytes(*names)));
        }
        let ascending = several.windows(2).all(|pair| match pair {
            [(a, _), (b, _)] => a < b,
            _ => false,
        });
        ascending.then_some(Self { tree, several })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Links {
        let tree = TreeId {
            ino: 77,
            birth: Time {
                secs: -5,
                nanos: 999_999_999,
            },
        };
        Links::new(tree, [(9, 1), (4, 1), (1 << 40, 3), (9, 1), (5, 1), (9, 2)])
    }

    #[test]
    fn what_is_written_reads_back() {
        let links = sample();
        assert_eq!(Links::decode(&links.encode()), Some(links.clone()));
        assert_eq!(links.names_of(9), 4);
        assert_eq!(links.names_of(1 << 40), 3);
        assert_eq!((links.names_of(4), links.names_of(6)), (1, 1));
        let none = Links::new(links.tree(), []);
        assert_eq!(Links::decode(&none.encode()), Some(none));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let good = sample().encode();
        for len in 0..good.len() {
            assert_eq!(Links::decode(&good[..len]), None, "{len} bytes of it");
        }
        assert!(Links::is_one(&good[..8]) && !Links::is_one(b"PLY"));
        let mut swapped = good.clone();
        let at = HEADER;
        swapped[at] = 255;
        swapped[at + 7] = 255;
        assert_eq!(Links::decode(&swapped), None, "out of order");
        let more = [good, vec![0]].concat();
        assert_eq!(Links::decode(&more), None);
    }

    #[test]
    fn a_directory_made_anew_is_another_tree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        std::fs::create_dir(&path).unwrap();
        let before = TreeId::of(std::fs::File::open(&path).unwrap()).unwrap();
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        let moved = TreeId::of(std::fs::File::open(dir.path().join("moved")).unwrap()).unwrap();
        assert_eq!(before, moved);
        std::fs::create_dir(&path).unwrap();
        assert_ne!(before, TreeId::of(std::fs::File::open(&path).unwrap()).unwrap());
    }
}
