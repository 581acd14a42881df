//! That docs/kernel-rules.md and the tests speak of the same rules.

use std::collections::{BTreeMap, BTreeSet};

use plyfs::compare::known::KNOWN_DIFFERENCES;

/// Rules without a test of that name here, and where they are tried, or why they cannot be.
const ELSEWHERE: &[(u32, &str)] = &[
    (46, "k44_layers_on_different_file_systems and every k41 test"),
    (
        66,
        "k65_everything_is_kept: each step out of order would lose something it compares",
    ),
    (67, "k101_userxattr_mode"),
    (
        69,
        "the differences by unmapped owners in rootless.rs; needs a file system that refuses ids",
    ),
    (
        71,
        "k42_a_lower_hard_link_group, k42_open_group_members_write_apart",
    ),
    (91, "the matrix: which primitive it was is seen in the uppers"),
    (97, "not offered"),
    (122, "k8_volatile_leaves_its_mark"),
    (123, "crash.rs, and every scenario looks for leftovers"),
    (135, "rootless.rs"),
    (140, "every scenario"),
    (141, "every scenario"),
    (142, "every scenario"),
    (150, "k41 tests"),
    (151, "k42 tests"),
    (153, "k116 tests"),
    (154, "k88_tmpfile"),
    (156, "k103 tests"),
    (157, "k112 tests"),
    (158, "k96_flags, k60_chattr_copies_up"),
    (159, "every scenario, without waiting between change and look"),
    (160, "rootless.rs"),
];

fn documented() -> BTreeSet<u32> {
    let page = include_str!("../../../docs/kernel-rules.md");
    page.lines()
        .filter_map(|line| line.strip_prefix("| K")?.split(' ').next()?.parse().ok())
        .collect()
}

/// Rule numbers in the names of tests: `fn k84_...`.
fn tried() -> BTreeSet<u32> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/rules");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines() {
            let name = line.trim_start();
            let name = name.strip_prefix("fn k").or_else(|| name.strip_prefix('k'));
            found.extend(name.and_then(|n| n.split('_').next()?.parse::<u32>().ok()));
        }
    }
    found
}

#[test]
fn every_rule_is_tried_or_says_where() {
    let (documented, tried) = (documented(), tried());
    let elsewhere: BTreeMap<_, _> = ELSEWHERE.iter().copied().collect();
    let missing: Vec<_> = documented
        .iter()
        .filter(|k| !tried.contains(k) && !elsewhere.contains_key(k))
        .collect();
    assert!(missing.is_empty(), "rules that nothing tries: {missing:?}");
    let stale: Vec<_> = elsewhere
        .keys()
        .filter(|k| tried.contains(k) || !documented.contains(k))
        .collect();
    assert!(
        stale.is_empty(),
        "listed as tried elsewhere, but tried here or not a rule: {stale:?}"
    );
    let unknown: Vec<_> = tried.difference(&documented).collect();
    assert!(
        unknown.is_empty(),
        "tests of rules that are not in docs/kernel-rules.md: {unknown:?}"
    );
}

#[test]
fn every_difference_names_a_rule_and_is_used() {
    let documented = documented();
    let mut tests = String::new();
    let mut todo = vec![std::path::PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it"
    ))];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if !path.ends_with("common/known.rs") && path.extension().is_some_and(|e| e == "rs") {
            tests += &std::fs::read_to_string(path).unwrap();
        }
    }
    for d in KNOWN_DIFFERENCES {
        for rule in d.rule.split(", ").filter_map(|rule| rule.strip_prefix('K')) {
            assert!(
                documented.contains(&rule.parse().unwrap()),
                "{}: K{rule} is no rule",
                d.id
            );
        }
        assert!(
            tests.contains(&format!("\"{}\"", d.id)),
            "no test allows the difference {}",
            d.id
        );
    }
}
