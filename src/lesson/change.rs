//! What a command did: two looks at the same trees, compared. Pure.

use std::cmp::Ordering;

use super::model::{self, Answers, Change, Entry, Place, Sort, Tree};
use super::shot::Shot;
use crate::builder::manifest::Text;

/// The trees of `after`, with what is different from `before` marked, and who answers for what in the view.
#[must_use]
pub fn compare(before: &[Shot], after: &[Shot]) -> Vec<Tree> {
    let mut trees: Vec<Tree> = after
        .iter()
        .map(|shot| {
            let old = before.iter().find(|old| old.tree.label == shot.tree.label);
            Comparison { before, after, old }.tree(shot)
        })
        .collect();
    answer(&mut trees);
    trees
}

/// The trees as they are: nothing marked as changed.
#[must_use]
pub fn plain(shots: &[Shot]) -> Vec<Tree> {
    let mut trees: Vec<Tree> = shots.iter().map(|shot| shot.tree.clone()).collect();
    answer(&mut trees);
    trees
}

struct Comparison<'a> {
    before: &'a [Shot],
    after: &'a [Shot],
    /// The same tree before.
    old: Option<&'a Shot>,
}

impl Comparison<'_> {
    fn tree(&self, shot: &Shot) -> Tree {
        let mut tree = shot.tree.clone();
        let is_view = tree.label == "M";
        let old: &[Entry] = match self.old {
            Some(old) if old.tree.absent.is_none() => &old.tree.entries,
            // A view that appears as a whole has not changed; a layer that is made has.
            _ if is_view => return tree,
            _ => &[],
        };
        if tree.absent.is_some() {
            return tree;
        }
        let find = |path: &Text| {
            let at = old.binary_search_by(|entry| order(&entry.path, path));
            old.get(at.ok()?)
        };
        for (entry, origin) in tree.entries.iter_mut().zip(&shot.origins) {
            entry.change = match find(&entry.path) {
                Some(was) if was.sort == entry.sort && was.inode == entry.inode => {
                    differs(&shot.tree.label, was, entry).then_some(Change::Changed)
                }
                Some(was) => Some(self.source(shot, entry, *origin).unwrap_or_else(|| {
                    if was.sort == Sort::Whiteout && entry.sort != Sort::Whiteout {
                        Change::Added
                    } else {
                        Change::Changed
                    }
                })),
                None => Some(self.source(shot, entry, *origin).unwrap_or(Change::Added)),
            };
        }
        let gone: Vec<Entry> = old
            .iter()
            .filter(|was| shot.tree.get_path(&was.path).is_none())
            .map(|was| Entry {
                change: Some(Change::Removed),
                ..was.clone()
            })
            .collect();
        tree.entries.extend(gone);
        tree.entries.sort_by(|a, b| order(&a.path, &b.path));
        tree
    }

    /// Where an object that is new under its name came from.
    fn source(&self, shot: &Shot, entry: &Entry, origin: Option<u64>) -> Option<Change> {
        if let Some(change) = self.same_inode(shot, entry) {
            return Some(change);
        }
        // A layer is filled from the one that stands before it.
        let from: &[&str] = match shot.tree.label.as_str() {
            _ if entry.sort == Sort::Whiteout => &[],
            "U" => &["L"],
            "C" => &["U", "L"],
            _ => &[],
        };
        from.iter().find_map(|from| {
            let layer = &self.before.iter().find(|shot| shot.tree.label == *from)?.tree;
            copied(layer, entry, origin)
        })
    }

    /// The same inode under another name, now or before.
    fn same_inode(&self, shot: &Shot, entry: &Entry) -> Option<Change> {
        // A number that was freed may be used again at once; an object that moved keeps its times.
        let same = |other: &Entry| {
            other.inode == entry.inode
                && other.sort == entry.sort
                && other.modified == entry.modified
                && other.size == entry.size
        };
        let on_disk = |other: &&Shot| other.device == shot.device;
        let place = |tree: &Tree, found: &Entry| Place {
            tree: tree.label.clone(),
            path: found.path.clone(),
        };
        let is_here = |found: &Entry| found.path == entry.path;
        if entry.sort != Sort::Directory {
            let others = self
                .after
                .iter()
                .filter(on_disk)
                .filter(|other| (other.tree.label == "M") == (shot.tree.label == "M"));
            for other in others {
                let same_tree = other.tree.label == shot.tree.label;
                let mut found = other.tree.entries.iter().filter(|found| same(found));
                let old_name = |found: &&Entry| {
                    !(same_tree && is_here(found)) && self.was_there(&other.tree.label, found)
                };
                if let Some(found) = found.find(old_name) {
                    return Some(Change::Linked(place(&other.tree, found)));
                }
            }
        }
        let old = self.old?;
        if old.device != shot.device {
            return None;
        }
        let gone =
            |found: &&Entry| same(found) && !is_here(found) && shot.tree.get_path(&found.path).is_none();
        let found = old.tree.entries.iter().find(gone)?;
        Some(Change::Moved(place(&old.tree, found)))
    }

    fn was_there(&self, label: &str, found: &Entry) -> bool {
        let old = self.before.iter().find(|shot| shot.tree.label == label);
        old.and_then(|old| old.tree.get_path(&found.path))
            .is_some_and(|was| was.inode == found.inode)
    }
}

/// Whether `entry` was copied from `layer`: by its origin mark, else by what is in it.
fn copied(layer: &Tree, entry: &Entry, origin: Option<u64>) -> Option<Change> {
    let place = |from: &Entry| {
        Change::Copied(Place {
            tree: layer.label.clone(),
            path: from.path.clone(),
        })
    };
    let same_path = layer.entries.iter().find(|from| from.path == entry.path);
    if let Some(number) = origin {
        let same_number = || layer.entries.iter().find(|from| from.inode == number);
        return same_path
            .filter(|from| from.inode == number)
            .or_else(same_number)
            .map(place);
    }
    // Names of a hard-link group carry no origin (K42): they are known by what is in them.
    same_path
        .filter(|from| from.sort == entry.sort && !entry.is_opaque())
        .filter(|from| match (&from.text, &entry.text) {
            (Some(from), Some(now)) => now.starts_with(from.as_str()),
            _ => from.modified == entry.modified,
        })
        .map(place)
}

impl Tree {
    /// The entry under a path, also one that is gone. Entries stand in the order of a walk.
    pub(super) fn get_path(&self, path: &Text) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| order(&entry.path, path));
        self.entries.get(at.ok()?)
    }
}

/// Whether an object that is still itself is not as it was.
fn differs(label: &str, was: &Entry, now: &Entry) -> bool {
    let data = now.sort != Sort::Directory && (was.size != now.size || was.modified != now.modified);
    // Other names elsewhere come and go; in the upper and work directories they are the point.
    let links = match label {
        "W" => now.sort != Sort::Directory && was.links != now.links,
        "U" => now.sort == Sort::File && was.links != now.links,
        _ => false,
    };
    data || links || was.text != now.text || was.mode != now.mode || was.marks != now.marks
}

/// Paths in the order of a walk: a directory before what is in it.
pub(super) fn order(a: &Text, b: &Text) -> Ordering {
    a.0.split(|byte| *byte == b'/')
        .cmp(b.0.split(|byte| *byte == b'/'))
}

/// Tells for each name of the view who answers, and which objects of the layers it does not show (K20 to K24).
fn answer(trees: &mut [Tree]) {
    let (Some(lower), Some(upper)) = (model::tree(trees, "L").cloned(), model::tree(trees, "U").cloned())
    else {
        return;
    };
    let Some(view) = trees
        .iter_mut()
        .find(|tree| tree.label == "M" && tree.absent.is_none())
    else {
        return;
    };
    let present = |tree: &Tree, path: &Text| {
        tree.get_path(path)
            .filter(|entry| entry.change != Some(Change::Removed))
            .cloned()
    };
    for entry in &mut view.entries {
        if entry.change == Some(Change::Removed) {
            entry.answers = None;
            continue;
        }
        let above = present(&upper, &entry.path);
        let below = present(&lower, &entry.path).is_some_and(|below| below.sort == Sort::Directory);
        let reaches = !covered(&upper, &entry.path);
        entry.answers = Some(match above {
            Some(above) if above.sort == Sort::Directory && below && reaches && !above.is_opaque() => {
                Answers::Both
            }
            Some(_) => Answers::Upper,
            None => Answers::Lower,
        });
    }
    let view = view.clone();
    let shows = |path: &Text, side: Answers| {
        present(&view, path)
            .is_some_and(|shown| shown.answers == Some(side) || shown.answers == Some(Answers::Both))
    };
    for (label, side) in [("L", Answers::Lower), ("U", Answers::Upper)] {
        let layer = trees.iter_mut().find(|tree| tree.label == label);
        for entry in layer.into_iter().flat_map(|tree| &mut tree.entries) {
            entry.hidden = entry.sort != Sort::Whiteout && !shows(&entry.path, side);
        }
    }
}

/// Whether a directory of the upper above `path` hides the lower's.
fn covered(upper: &Tree, path: &Text) -> bool {
    let ends = path.0.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ends.filter_map(|(end, _)| path.0.get(..end)).any(|parent| {
        upper.entries.iter().any(|entry| {
            entry.path.0 == parent
                && entry.change != Some(Change::Removed)
                && (entry.sort != Sort::Directory || entry.is_opaque())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, inode: u64, text: &str) -> Entry {
        Entry {
            path: Text(path.into()),
            sort: Sort::File,
            mode: 0o644,
            size: text.len() as u64,
            inode,
            links: 1,
            modified: 5,
            text: Some(text.into()),
            marks: Vec::new(),
            answers: None,
            hidden: false,
            change: None,
        }
    }

    fn dir(path: &str, inode: u64, marks: &[&str]) -> Entry {
        Entry {
            sort: Sort::Directory,
            text: None,
            marks: marks.iter().map(ToString::to_string).collect(),
            ..file(path, inode, "")
        }
    }

    fn whiteout(path: &str, inode: u64) -> Entry {
        Entry {
            sort: Sort::Whiteout,
            text: None,
            ..file(path, inode, "")
        }
    }

    fn shot(label: &str, entries: Vec<Entry>) -> Shot {
        Shot {
            origins: vec![None; entries.len()],
            tree: Tree {
                label: label.into(),
                role: String::new(),
                absent: None,
                entries,
            },
            device: u64::from(label == "M"),
        }
    }

    fn change(trees: &[Tree], label: &str, path: &str) -> Option<Change> {
        let tree = model::tree(trees, label).unwrap();
        tree.get_path(&Text(path.into())).unwrap().change.clone()
    }

    fn place(tree: &str, path: &str) -> Place {
        Place {
            tree: tree.into(),
            path: Text(path.into()),
        }
    }

    #[test]
    fn a_copy_up_comes_from_the_lower() {
        let before = [
            shot("L", vec![dir("d", 1, &[]), file("d/f", 2, "a\n")]),
            shot("U", vec![]),
            shot("M", vec![dir("d", 1, &[]), file("d/f", 2, "a\n")]),
        ];
        let mut upper = shot("U", vec![dir("d", 8, &["origin"]), file("d/f", 9, "a\nb\n")]);
        upper.origins = vec![Some(1), Some(2)];
        let after = [
            before[0].clone(),
            upper,
            shot("M", vec![dir("d", 1, &[]), file("d/f", 2, "a\nb\n")]),
        ];
        let trees = compare(&before, &after);
        assert_eq!(change(&trees, "L", "d/f"), None);
        assert_eq!(change(&trees, "U", "d"), Some(Change::Copied(place("L", "d"))));
        assert_eq!(
            change(&trees, "U", "d/f"),
            Some(Change::Copied(place("L", "d/f")))
        );
        assert_eq!(change(&trees, "M", "d"), None);
        assert_eq!(change(&trees, "M", "d/f"), Some(Change::Changed));
        let view = model::entry(&trees, "M", "d").unwrap();
        assert_eq!(view.answers, Some(Answers::Both));
        assert!(model::entry(&trees, "L", "d/f").unwrap().hidden);
        assert!(!model::entry(&trees, "U", "d/f").unwrap().hidden);
    }

    #[test]
    fn new_content_over_an_old_name_is_no_copy() {
        let lower = shot("L", vec![file("f", 2, "a\n")]);
        let before = [lower.clone(), shot("U", vec![])];
        let trees = compare(&before, &[lower, shot("U", vec![file("f", 9, "new\n")])]);
        assert_eq!(change(&trees, "U", "f"), Some(Change::Added));
    }

    #[test]
    fn what_is_gone_stays_in_sight_and_what_moved_is_followed() {
        let before = [shot("U", vec![file("a", 1, "x"), file("b", 2, "y")])];
        let trees = compare(&before, &[shot("U", vec![file("c", 1, "x")])]);
        assert_eq!(change(&trees, "U", "a"), Some(Change::Removed));
        assert_eq!(change(&trees, "U", "b"), Some(Change::Removed));
        assert_eq!(change(&trees, "U", "c"), Some(Change::Moved(place("U", "a"))));
        assert!(model::entry(&trees, "U", "a").is_none());
        // A number used again for something else is not a move.
        let trees = compare(&before, &[shot("U", vec![file("c", 1, "other")])]);
        assert_eq!(change(&trees, "U", "c"), Some(Change::Added));
    }

    #[test]
    fn whiteouts_are_links_of_the_one_in_the_work_directory() {
        let before = [shot("U", vec![]), shot("W", vec![whiteout("work/#1", 7)])];
        let after = [
            shot("U", vec![whiteout("f", 7)]),
            shot(
                "W",
                vec![Entry {
                    links: 2,
                    ..whiteout("work/#1", 7)
                }],
            ),
        ];
        let trees = compare(&before, &after);
        assert_eq!(
            change(&trees, "U", "f"),
            Some(Change::Linked(place("W", "work/#1")))
        );
        assert_eq!(change(&trees, "W", "work/#1"), Some(Change::Changed));
    }

    #[test]
    fn an_opaque_directory_hides_all_below() {
        let shots = [
            shot("L", vec![dir("d", 1, &[]), file("d/f", 2, "")]),
            shot("U", vec![dir("d", 3, &["opaque"])]),
            shot("M", vec![dir("d", 3, &[])]),
        ];
        let trees = plain(&shots);
        assert_eq!(
            model::entry(&trees, "M", "d").unwrap().answers,
            Some(Answers::Upper)
        );
        assert!(model::entry(&trees, "L", "d").unwrap().hidden);
        assert!(model::entry(&trees, "L", "d/f").unwrap().hidden);
    }
}
