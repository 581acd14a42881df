//! What is told of two planted trees, as lines.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use plyfs::builder::BuildError;
use plyfs::builder::diff::{Change, Upper, diff_trees, diff_upper};
use plyfs::format::Namespace;

use crate::common::{Layers, Node};

/// A line for each change: the letter, the path, and in brackets in what it differs.
pub fn line(change: &Change) -> String {
    let words: Vec<_> = change.differences.iter().map(|what| what.word()).collect();
    let what = if words.is_empty() {
        String::new()
    } else {
        format!(" ({})", words.join(" "))
    };
    format!("{} {}{what}", change.letter.as_char(), change.path)
}

pub fn root(path: &Path) -> File {
    File::open(path).unwrap()
}

pub fn try_trees(old: &Path, new: &Path) -> Result<Vec<String>, BuildError> {
    let mut lines = Vec::new();
    diff_trees(root(old).as_fd(), root(new).as_fd(), &mut |change| {
        lines.push(line(&change));
        Ok(())
    })?;
    Ok(lines)
}

pub fn trees(old: &Path, new: &Path) -> Vec<String> {
    try_trees(old, new).unwrap()
}

/// How the upper is looked at.
#[derive(Clone, Copy, Default)]
pub struct How<'a> {
    pub init: Option<&'a Path>,
    pub namespace: Option<Namespace>,
    /// Every inode of the lower has so many names in its tree.
    pub names: Option<u32>,
}

pub fn try_upper(upper: &Path, lower: &Path, how: How<'_>) -> Result<Vec<String>, BuildError> {
    let mut lines = Vec::new();
    let init = how.init.map(root);
    let names = how.names.map(|names| move |_| names);
    let (upper, lower) = (root(upper), root(lower));
    diff_upper(
        Upper {
            upper: upper.as_fd(),
            lower: lower.as_fd(),
            init: init.as_ref().map(AsFd::as_fd),
            namespace: how.namespace,
            names: names
                .as_ref()
                .map(|names| names as &plyfs::builder::diff::Names<'_>),
        },
        &mut |change| {
            lines.push(line(&change));
            Ok(())
        },
    )?;
    Ok(lines)
}

pub fn upper(upper: &Path, lower: &Path) -> Vec<String> {
    try_upper(upper, lower, How::default()).unwrap()
}

/// Two trees planted apart; `l` is the old one and `u` the new one.
pub fn planted(old: &[Node], new: &[Node]) -> Layers {
    Layers::new().with_lower(old).with_upper(new)
}

pub fn told(old: &[Node], new: &[Node]) -> Vec<String> {
    let layers = planted(old, new);
    trees(&layers.lower, &layers.upper)
}

pub fn link(tree: &Path, from: &str, to: &str) {
    fs::hard_link(tree.join(from), tree.join(to)).unwrap();
}

/// The new tree as a clone of the old one: every file the same inode.
pub fn cloned(old: &[Node], change: impl FnOnce(&Path)) -> Vec<String> {
    let layers = Layers::new().with_lower(old);
    let status = std::process::Command::new("cp")
        .args(["-al", "--"])
        .arg(layers.lower.join("."))
        .arg(&layers.upper)
        .status();
    assert!(status.unwrap().success());
    change(&layers.upper);
    trees(&layers.lower, &layers.upper)
}
