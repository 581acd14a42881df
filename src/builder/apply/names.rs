//! Which names a layer has, to tell its own from its parent's, and to refuse one that comes twice.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use sha2::{Digest, Sha256};

use super::scratch::Records;
use crate::builder::Result;

/// Names that stay in memory: about 18 MiB.
const IN_MEMORY: usize = 450_000;
/// Bytes of a name's digest: enough that nobody can make two names the same.
const KEY: usize = 16;

/// A set of names, kept as digests; its memory does not grow for ever.
#[derive(Debug)]
pub(super) struct Names {
    fresh: HashSet<[u8; KEY]>,
    old: Records<KEY>,
    most: usize,
}

impl Names {
    pub(super) fn new() -> Self {
        Self::with_room(IN_MEMORY)
    }

    fn with_room(most: usize) -> Self {
        Self {
            fresh: HashSet::new(),
            old: Records::new(most),
            most,
        }
    }

    fn key(name: &[u8]) -> [u8; KEY] {
        let digest = <[u8; 32]>::from(Sha256::digest(name));
        let mut key = [0; KEY];
        for (to, from) in key.iter_mut().zip(digest) {
            *to = from;
        }
        key
    }

    /// Adds a name; false if it is there already. `dir` says on which file system old names go.
    pub(super) fn add(&mut self, name: &[u8], dir: BorrowedFd<'_>) -> Result<bool> {
        let key = Self::key(name);
        if self.old.last_with(&key)?.is_some() || !self.fresh.insert(key) {
            return Ok(false);
        }
        if self.fresh.len() >= self.most {
            let names = self.fresh.drain().collect();
            self.old.add_run(names, dir)?;
        }
        Ok(true)
    }

    /// True if the name was added.
    pub(super) fn contains(&self, name: &[u8]) -> Result<bool> {
        let key = Self::key(name);
        Ok(self.fresh.contains(&key) || self.old.last_with(&key)?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_name_comes_once_however_long_ago() {
        let dir = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(dir.path()).unwrap();
        let mut names = Names::with_room(100);
        for n in 0..1000_u32 {
            assert!(names.add(&n.to_le_bytes(), dir.as_fd()).unwrap());
        }
        for n in 0..1000_u32 {
            assert!(!names.add(&n.to_le_bytes(), dir.as_fd()).unwrap());
            assert!(names.contains(&n.to_le_bytes()).unwrap());
        }
        assert!(!names.contains(b"other").unwrap());
    }
}
