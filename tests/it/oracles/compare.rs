//! A tree in the form in which two programs' trees are compared.

use std::collections::HashMap;
use std::path::Path;

use crate::common::{Tree, snapshot};

/// The tree below `root`. Link counts are left out, since names in other layers count there: in their place `same`
/// names the first name of a group of several names in this tree. Groups of symlinks do not count: docker and
/// podman make each symlink anew.
pub fn tree_of(root: &Path) -> Tree {
    let mut tree = snapshot(root).without(&["nlink"]);
    let mut names = HashMap::new();
    for entry in tree.0.values() {
        if let Some(first) = entry.get("same") {
            *names.entry(first.clone()).or_insert(0) += 1;
        }
    }
    for entry in tree.0.values_mut() {
        let symlink = entry.get("type").is_some_and(|kind| kind == "symlink");
        let alone = entry.get("same").is_some_and(|first| names[first] == 1);
        if symlink || alone {
            entry.remove("same");
        }
    }
    tree
}
