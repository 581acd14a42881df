//! What must hold for any two trees, and for any upper: the changes, laid over the old tree, make the new one.
//!
//! Every run tries the same cases: `PLYFS_PROPERTY_SEED` (a number) chooses others, `PLYFS_PROPERTY_SECONDS` gives
//! each property more time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use plyfs::builder::apply::{ApplyOptions, apply_tar};
use plyfs::builder::diff::{Change, Letter, Upper, diff_trees, diff_upper};
use plyfs::builder::layer_tar::{write_layer_trees, write_layer_upper};
use plyfs::builder::{Linker, Silent, clone_tree};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::random::{self, Care, perform};
use crate::common::{Fs, Layers, Tree, need_root, snapshot, sys};

fn variable(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().expect(name))
}

/// Tries cases until the time is over.
fn hold<S: Strategy>(seconds: u64, strategy: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seconds = variable("PLYFS_PROPERTY_SECONDS").unwrap_or(seconds);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&variable("PLYFS_PROPERTY_SEED").unwrap_or(20).to_le_bytes());
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut cases = 0;
    while Instant::now() < end {
        let case = strategy.new_tree(&mut runner).unwrap();
        if let Err(error) = runner.run_one(case, &property) {
            panic!("after {cases} cases: {error}");
        }
        cases += 1;
    }
    println!("{cases} cases");
}

fn root(path: &Path) -> File {
    File::open(path).unwrap()
}

/// A tree as it is compared: with exact times, with hard links as the first name of each group, and with
/// attributes as an archive names them. Link counts tell of other trees too.
fn seen(root: &Path) -> Tree {
    let mut tree = snapshot(root).without(&["nlink", "same", "d_ino", "d_type"]);
    let mut groups: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for (path, entry) in &mut tree.0 {
        let meta = root.join(path).symlink_metadata().unwrap();
        entry.insert(
            "mtime".into(),
            format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()),
        );
        if !meta.is_dir() {
            let first = groups
                .entry((meta.dev(), meta.ino()))
                .or_insert_with(|| path.clone());
            if first != path {
                entry.insert("link to".into(), first.display().to_string());
            }
        }
        let names: Vec<_> = entry
            .keys()
            .filter(|key| key.contains(".overlay.overlay."))
            .cloned()
            .collect();
        for name in names {
            let value = entry.remove(&name).unwrap();
            entry.insert(name.replacen("overlay.overlay.", "overlay.", 1), value);
        }
    }
    tree
}

/// The modification time of a directory is no change: one that is not told keeps the time it had, and one that is
/// told, and new ones, have the new time. The root's is nobody's.
fn expected(old: &Tree, new: &Tree, changes: &[Change]) -> Tree {
    let told: BTreeSet<PathBuf> = changes.iter().map(path_of).collect();
    let mut expected = new.clone();
    for (path, entry) in &mut expected.0 {
        if entry.get("type").is_some_and(|kind| kind == "directory")
            && !told.contains(path)
            && let Some(time) = old.0.get(path).and_then(|entry| entry.get("mtime"))
        {
            entry.insert("mtime".into(), time.clone());
        }
    }
    expected
}

fn path_of(change: &Change) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(change.path.as_bytes()));
    if change.path.is_root() {
        PathBuf::from(".")
    } else {
        path.to_owned()
    }
}

fn without_root_time(mut tree: Tree) -> Tree {
    if let Some(root) = tree.0.get_mut(Path::new(".")) {
        root.remove("mtime");
    }
    tree
}

fn equal(what: &str, here: &Tree, there: &Tree) -> Result<(), TestCaseError> {
    let differences = here.differences(there, "expected", "found");
    prop_assert!(differences.is_empty(), "{what}:\n  {}", differences.join("\n  "));
    Ok(())
}

/// Lays the archive over a clone of `old` in the empty directory `at`.
fn child(old: &Path, archive: &[u8], at: &Path) -> Result<(), TestCaseError> {
    let fail = |error: plyfs::builder::BuildError| TestCaseError::fail(error.to_string());
    let (old, new) = (root(old), root(at));
    clone_tree(old.as_fd(), new.as_fd(), &Linker::new(), &Silent).map_err(fail)?;
    apply_tar(new.as_fd(), archive, ApplyOptions::default(), &Silent).map_err(fail)?;
    Ok(())
}

/// The lines, but for those that are told because of hard links alone: of a group that falls apart, the upper
/// leaves the part that is still in the lower, and a comparison of views any.
fn lines(changes: &[Change]) -> BTreeMap<String, (Letter, Vec<&'static str>)> {
    let line = |change: &Change| {
        let words: Vec<_> = change
            .differences
            .iter()
            .map(|what| what.word())
            .filter(|word| *word != "links")
            .collect();
        (change.path.to_string(), (change.letter, words))
    };
    let mut lines: BTreeMap<_, _> = changes.iter().map(line).collect();
    lines.retain(|_, (letter, words)| *letter != Letter::Changed || !words.is_empty());
    lines
}

fn trees(old: &Path, new: &Path) -> Vec<Change> {
    let mut changes = Vec::new();
    diff_trees(root(old).as_fd(), root(new).as_fd(), &mut |change| {
        changes.push(change);
        Ok(())
    })
    .unwrap();
    changes
}

/// How the second tree comes to be.
#[derive(Clone, Copy, Debug)]
enum From {
    /// Out of nothing.
    Nothing,
    /// A copy of the first.
    Copy,
    /// A clone of the first, which shares its files.
    Clone,
}

#[test]
fn the_changes_between_two_trees_make_the_second_of_the_first() {
    if !need_root("the_changes_between_two_trees_make_the_second_of_the_first") {
        return;
    }
    let from = prop_oneof![Just(From::Nothing), Just(From::Copy), Just(From::Clone)];
    let case = (random::changes(40), from, random::changes(30));
    hold(8, case, |(first, from, second)| {
        let layers = Layers::new();
        let (a, b, c) = (&layers.lower, &layers.upper, &layers.merged);
        perform(a, &first, Care::InPlace);
        let care = match from {
            From::Nothing => Care::InPlace,
            From::Copy => {
                let status = Command::new("cp")
                    .args(["-a", "--"])
                    .arg(a.join("."))
                    .arg(b)
                    .status();
                prop_assert!(status.unwrap().success());
                Care::InPlace
            }
            From::Clone => {
                clone_tree(root(a).as_fd(), root(b).as_fd(), &Linker::new(), &Silent).unwrap();
                Care::Shared
            }
        };
        perform(b, &second, care);
        let (was, new) = (seen(a), seen(b));
        let changes = trees(a, b);
        let mut archive = Vec::new();
        write_layer_trees(root(a).as_fd(), root(b).as_fd(), &mut archive).unwrap();
        child(a, &archive, c)?;
        let expected = without_root_time(expected(&was, &new, &changes));
        equal("the child", &expected, &without_root_time(seen(c)))?;
        equal("the parent", &was, &seen(a))?;
        prop_assert_eq!(trees(c, b), [], "no change is left");
        Ok(())
    });
}

#[test]
fn the_changes_in_an_upper_make_the_view_of_the_lower() {
    if !need_root("the_changes_in_an_upper_make_the_view_of_the_lower") {
        return;
    }
    let case = (random::changes(40), random::changes(30), any::<bool>());
    hold(10, case, |(first, second, recorded)| {
        let layers = Layers::new();
        let lower = &layers.lower;
        perform(lower, &first, Care::InPlace);
        let was = seen(lower);
        let mounted = layers.mount(Fs::Plyfs, &[]);
        perform(mounted.path(), &second, Care::InPlace);
        let new = seen(mounted.path());
        let by_view = trees(lower, mounted.path());
        mounted.umount();

        // With a record of the links in the lower, or by looking for them.
        let mut counts = HashMap::new();
        for path in sys::walk(lower) {
            *counts.entry(sys::lstat(path).unwrap().st_ino).or_insert(0) += 1;
        }
        let names = |number| counts.get(&number).copied().unwrap_or(1);
        let (top, below) = (root(&layers.upper), root(lower));
        let upper = Upper {
            upper: top.as_fd(),
            lower: below.as_fd(),
            init: None,
            namespace: None,
            names: recorded.then_some(&names),
        };
        let mut changes = Vec::new();
        diff_upper(upper, &mut |change| {
            changes.push(change);
            Ok(())
        })
        .unwrap();
        prop_assert_eq!(
            lines(&changes),
            lines(&by_view),
            "the upper's lines, and the view's"
        );
        let mut archive = Vec::new();
        write_layer_upper(upper, &mut archive).unwrap();
        let made = layers.base().join("child");
        sys::mkdir(&made, 0o755).unwrap();
        child(lower, &archive, &made)?;
        let expected = without_root_time(expected(&was, &new, &changes));
        equal("the child", &expected, &without_root_time(seen(&made)))?;
        equal("the lower", &was, &seen(lower))
    });
}
