//! The builder against other people's programs: umoci, podman (driver vfs) and docker 20.10 with its own driver
//! `overlay`, after which plyfs is made.
//!
//! Every image of [`crate::common::images`] is loaded by plyfs and by each of them, and the trees are compared entry
//! by entry: type, mode, owner, size, data, target, device, link group, attributes and times. What may differ
//! stands in [`accepted`], and nowhere else. A program that is not there is skipped, with a line that says so;
//! with `PLYFS_ORACLES=required` (as `scripts/test` runs it) that is a failure.
//!
//! `PLYFS_ORACLES_OURS=podman|docker|umoci` lets one of them stand in for plyfs, to prove the comparison itself.

mod accepted;
mod changes;
mod compare;
mod programs;
mod saved;

use std::path::Path;

use crate::common::images::{Ours, Packing, Quirk, Shape, quirks};
use crate::common::{need_root, skip};
use compare::tree_of;
use programs::{Oracle, Program, Scratch};

/// The shape and packing in which an image goes to a program: all of them in turn, since they must not matter.
fn dress(number: usize, oracle: Oracle) -> (Shape, Packing) {
    let packing = [Packing::Gzip, Packing::Plain, Packing::Zstd][number % 3];
    match oracle {
        // It knows neither docker's archives nor zstd.
        Oracle::Umoci => (Shape::OciDirectory, [Packing::Gzip, Packing::Plain][number % 2]),
        // docker 20.10 knows no zstd by magic in its first shape, and no OCI layout without a manifest.json.
        Oracle::Docker => {
            let shape = [Shape::Docker, Shape::Skopeo, Shape::Docker25][number % 3];
            (shape, [Packing::Gzip, Packing::Plain][number % 2])
        }
        Oracle::Podman => (
            [Shape::Docker, Shape::OciArchive, Shape::Skopeo][number % 3],
            packing,
        ),
        Oracle::Plyfs => (Shape::ALL[number % 5], packing),
    }
}

/// What one program makes of one image: its tree, or why it is refused.
fn outcome(program: &dyn Program, oracle: Oracle, number: usize, quirk: &Quirk, within: &Path) -> Outcome {
    let (shape, packing) = dress(number, oracle);
    let file = within.join(format!("{}-{}", oracle.name(), quirk.name));
    quirk.image.write(&file, shape, packing);
    match program.load(&file, &quirk.image) {
        Ok(root) => Outcome::Tree(tree_of(&root)),
        Err(message) => Outcome::Refused(message),
    }
}

enum Outcome {
    Tree(crate::common::Tree),
    Refused(String),
}

/// A program, where it can run.
fn ready(oracle: Oracle, scratch: &Scratch) -> Option<Box<dyn Program>> {
    oracle
        .start(scratch)
        .map_err(|why| missing(oracle.name(), &why))
        .ok()
}

/// A program is not there: that is a failure where it is required, else a skipped test.
fn missing(name: &str, why: &str) {
    let required = std::env::var_os("PLYFS_ORACLES").is_some_and(|word| word == "required");
    assert!(!required, "{name} is required: {why}");
    skip(&format!("the comparison with {name}"), why);
}

/// Loads every image with plyfs and with the oracle, and complains of every difference that is not accepted, and of
/// every accepted one that is not there.
fn compare_with(oracle: Oracle) {
    if !need_root(oracle.name()) {
        return;
    }
    let scratch = Scratch::new(oracle.name());
    let Some(theirs) = ready(oracle, &scratch) else {
        return;
    };
    let ours_is = Oracle::ours();
    let ours = ours_is.start(&scratch).unwrap();
    let mut complaints = Vec::new();
    let mut used = accepted::Used::new(oracle);
    for (number, quirk) in quirks().iter().enumerate() {
        let mine = outcome(&*ours, ours_is, number, quirk, &scratch.path);
        if ours_is == Oracle::Plyfs {
            match (&mine, quirk.ours) {
                (Outcome::Tree(_), Ours::Loads) => {}
                (Outcome::Refused(message), Ours::Refuses(words)) if message.contains(words) => {}
                (Outcome::Refused(message), _) => {
                    complaints.push(format!("{}: plyfs refuses it: {message}", quirk.name));
                    continue;
                }
                (Outcome::Tree(_), Ours::Refuses(_)) => {
                    complaints.push(format!("{}: plyfs loads it", quirk.name));
                }
            }
        }
        let lines = match (mine, outcome(&*theirs, oracle, number, quirk, &scratch.path)) {
            (Outcome::Tree(mine), Outcome::Tree(theirs)) => {
                mine.differences(&theirs, ours_is.name(), oracle.name())
            }
            (Outcome::Refused(_), Outcome::Refused(_)) => Vec::new(),
            (Outcome::Refused(_), Outcome::Tree(_)) => vec![format!("{} loads it", oracle.name())],
            (Outcome::Tree(_), Outcome::Refused(message)) => {
                vec![format!("{} refuses it: {message}", oracle.name())]
            }
        };
        let found = lines.into_iter().filter(|line| !used.allows(quirk.name, line));
        complaints.extend(found.map(|line| format!("{}: {line}", quirk.name)));
    }
    let unused = used.unused();
    complaints.extend(unused.map(|what| format!("accepted, but not there: {what}")));
    assert!(
        complaints.is_empty(),
        "{} differences between {} and {}:\n{}",
        complaints.len(),
        ours_is.name(),
        oracle.name(),
        complaints.join("\n")
    );
}

#[test]
fn trees_are_those_of_umoci() {
    compare_with(Oracle::Umoci);
}

#[test]
fn trees_are_those_of_podman_with_vfs() {
    compare_with(Oracle::Podman);
}

#[test]
fn trees_are_those_of_docker_with_its_own_overlay() {
    compare_with(Oracle::Docker);
}

/// The flaw of the old driver, seen live: a hard link whose entry has another mode writes to the file that the parent
/// shares, so that the parent image changes. With plyfs it does not.
#[test]
fn docker_changes_the_parent_layer_and_plyfs_does_not() {
    if !need_root("the parent layer") {
        return;
    }
    let scratch = Scratch::new("parent");
    let child = quirks()
        .into_iter()
        .find(|quirk| quirk.name == "hard-link-with-another-mode")
        .unwrap()
        .image;
    let mut parent = child.clone();
    parent.layers.truncate(1);
    for (oracle, changed) in [(Oracle::Docker, true), (Oracle::Plyfs, false)] {
        let Some(program) = ready(oracle, &scratch) else {
            continue;
        };
        let (one, two) = (scratch.path.join("parent"), scratch.path.join("child"));
        parent.write(&one, Shape::Docker, Packing::Plain);
        child.write(&two, Shape::Docker, Packing::Plain);
        let root = program.load(&one, &parent).unwrap();
        let before = tree_of(&root);
        program.load(&two, &child).unwrap();
        let lines = before.differences(&tree_of(&root), "before", "after");
        assert_eq!(!lines.is_empty(), changed, "{}: {lines:#?}", oracle.name());
    }
}
