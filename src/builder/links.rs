//! Which inodes have several names in one tree.

use std::os::fd::BorrowedFd;

use super::{BuildError, Kind, Result, TreePath, Walk};
use crate::format::links::{Links, TreeId};

/// The groups of hard links of a tree: what is no directory and has more than one name in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// Inode number and number of names, ascending.
    groups: Vec<(u64, u32)>,
}

impl Groups {
    /// Counts the names of a tree: lists its directories and looks at nothing else. Takes 8 bytes for each name.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn of(root: BorrowedFd<'_>) -> Result<Self> {
        let mut numbers = Vec::new();
        let mut walk = Walk::new(root)?;
        while let Some(step) = walk.advance()? {
            if step.kind == Kind::Directory {
                walk.enter()?;
            } else {
                numbers.push(step.ino);
            }
        }
        numbers.sort_unstable();
        let groups = numbers
            .chunk_by(|a, b| a == b)
            .filter(|names| names.len() > 1)
            .filter_map(|names| Some((*names.first()?, u32::try_from(names.len()).unwrap_or(u32::MAX))))
            .collect();
        Ok(Self { groups })
    }

    /// How many names in the tree an inode has.
    pub fn names_of(&self, ino: u64) -> u32 {
        let found = self.groups.binary_search_by_key(&ino, |(ino, _)| *ino);
        found
            .ok()
            .and_then(|at| self.groups.get(at))
            .map_or(1, |(_, names)| *names)
    }

    /// What goes into the file `links` beside the tree, for the mount.
    ///
    /// # Errors
    /// If the root cannot be looked at.
    pub fn links(&self, root: BorrowedFd<'_>) -> Result<Links> {
        let tree = TreeId::of(root).map_err(|errno| BuildError::Call {
            what: "look at",
            path: TreePath::root(),
            errno,
        })?;
        Ok(Links::new(tree, self.groups.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn names_in_the_tree_count_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("tree/d")).unwrap();
        std::fs::write(path("tree/a"), "").unwrap();
        std::fs::write(path("tree/b"), "").unwrap();
        std::fs::hard_link(path("tree/a"), path("tree/d/a")).unwrap();
        std::fs::hard_link(path("tree/b"), path("outside")).unwrap();
        std::os::unix::fs::symlink("x", path("tree/s")).unwrap();
        std::fs::hard_link(path("tree/s"), path("tree/d/s")).unwrap();
        let root = std::fs::File::open(path("tree")).unwrap();
        let groups = Groups::of(root.as_fd()).unwrap();
        let ino = |name: &str| {
            use std::os::unix::fs::MetadataExt;
            path(name).symlink_metadata().unwrap().ino()
        };
        let counts = ["tree/a", "tree/b", "tree/s"].map(|name| groups.names_of(ino(name)));
        assert_eq!(counts, [2, 1, 2]);
        let links = groups.links(root.as_fd()).unwrap();
        assert_eq!(links.names_of(ino("tree/d/a")), 2);
    }
}
