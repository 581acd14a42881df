//! Further lowers, to lie above the nasty one: with whiteouts, opaque directories, and other objects under its names.

use std::collections::BTreeSet;

use super::bytes::Bytes;
use super::layers::{Item, Layers, What};
use super::op::Fill;
use super::pair::Pair;
use super::rng::Rng;
use super::way::Way;

/// The layers of a program, with lowers above the nasty one if both ways of mounting know several.
pub fn with_tops(seed: u64, mut layers: Layers, ways: &Pair<Way>) -> Layers {
    if ways.a.takes_lowers() && ways.b.takes_lowers() {
        layers.tops = tops(seed, &layers.lower);
    }
    layers
}

/// The lowers above `lower` in the program of this seed, the topmost first: one or two for every fourth seed, so that
/// the others are what they always were.
fn tops(seed: u64, lower: &[Item]) -> Vec<Vec<Item>> {
    if seed % 4 != 3 {
        return Vec::new();
    }
    let mut rng = Rng::new(seed ^ 0x746f_7073);
    let count = 1 + (seed / 4) % 2;
    let mut below: Vec<Item> = lower.to_vec();
    let mut tops = Vec::new();
    for number in 0..count {
        let top = top(&mut rng, &below, number);
        below.extend(top.iter().cloned());
        tops.insert(0, top);
    }
    tops
}

/// A lower that has some of the directories below it, and hides some of the names.
fn top(rng: &mut Rng, below: &[Item], number: u64) -> Vec<Item> {
    let mut items = vec![Item {
        path: Bytes::default(),
        what: What::Mode { mode: 0o777 },
    }];
    // The directories it has; names are looked at once, whichever lowers have them.
    let mut dirs: BTreeSet<Bytes> = BTreeSet::from([Bytes::default()]);
    let mut seen = BTreeSet::new();
    for item in below {
        let is_dir = match item.what {
            What::Dir { .. } => true,
            What::File { .. }
            | What::Sparse { .. }
            | What::Symlink { .. }
            | What::Node { .. }
            | What::HardLink { .. } => false,
            What::Owner { .. } | What::Mode { .. } | What::Xattr { .. } | What::Times { .. } => continue,
        };
        let parent = Bytes::from(item.path.parent());
        if !dirs.contains(&parent) || !seen.insert(item.path.clone()) {
            continue;
        }
        let mut add = |what| {
            items.push(Item {
                path: item.path.clone(),
                what,
            });
        };
        match rng.below(100) {
            0..=44 if is_dir => {
                add(What::Dir {
                    mode: rng.pick(&[0o777, 0o777, 0o755, 0o1777]),
                });
                match rng.below(100) {
                    0..=11 => add(opaque(b"y")),
                    12..=15 => add(opaque(b"n")),
                    16..=25 => add(What::Owner { uid: 1001, gid: 1002 }),
                    _ => {}
                }
                dirs.insert(item.path.clone());
            }
            45..=56 => add(What::Node {
                mode: libc::S_IFCHR,
                major: 0,
                minor: 0,
            }),
            57..=64 => add(file(rng)),
            65..=67 => {
                add(What::Dir { mode: 0o777 });
                dirs.insert(item.path.clone());
            }
            68..=70 => add(What::Symlink {
                target: Bytes::from("f"),
            }),
            _ => {}
        }
    }
    for dir in &dirs {
        if rng.chance(30) {
            let path = dir.join(format!("top{number}").as_bytes());
            let other = dir.join(format!("top{number}-link").as_bytes());
            items.push(Item {
                path: path.clone(),
                what: file(rng),
            });
            if rng.chance(30) {
                items.push(Item {
                    path: other,
                    what: What::HardLink { to: path },
                });
            }
        }
    }
    items
}

fn opaque(value: &[u8]) -> What {
    What::Xattr {
        name: Bytes::from("trusted.overlay.opaque"),
        value: Bytes::from(value),
    }
}

fn file(rng: &mut Rng) -> What {
    What::File {
        mode: rng.pick(&[0o666, 0o644, 0o600]),
        data: Fill {
            seed: rng.below(256) as u8,
            len: rng.below(5000) as u32,
        },
    }
}

#[cfg(test)]
#[test]
fn every_fourth_seed_has_them_and_they_hide_something() {
    let lower = super::nasty::layers(&mut Rng::new(3)).lower;
    assert!([0, 1, 2, 4].iter().all(|seed| tops(*seed, &lower).is_empty()));
    let (one, two) = (tops(3, &lower), tops(7, &lower));
    assert_eq!((one.len(), two.len()), (1, 2));
    assert_eq!(one, tops(3, &lower), "the same seed, the same layers");
    let marked = (0..50).map(|n| tops(4 * n + 3, &lower)).any(|tops| {
        let mut all = tops.into_iter().flatten();
        all.any(|item| matches!(item.what, What::Xattr { .. }))
    });
    assert!(marked);
}
