//! Somebody's own layers, as trees of the same form as in the lesson: `plyfs explain --html`.
//!
//! The upper is shown whole. Of the lower only those directories are opened that the upper has, or that lead to a path
//! that was asked for: the rest shows as it is. Who answers for each name is what [`crate::explain`] says, and so what
//! a mount does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::change::order;
use super::error::{LessonError, Result};
use super::model::{Answers, Change, Entry, Place, Sort, Tree};
use super::shot::View;
use crate::builder::manifest::Text;
use crate::explain::{Answer, Explanation, Layers};

/// The trees L, U and M of the layers that `told` explains paths of. In the upper is marked what was copied up and what
/// was made there.
///
/// # Errors
/// When a layer cannot be read, or holds too much to be shown.
pub fn trees(layers: &Layers, told: &[Explanation]) -> Result<Vec<Tree>> {
    let Some(first) = told.first() else {
        return Ok(Vec::new());
    };
    let mut upper = match &first.upper {
        Some(upper) => look("U", "upper", &upper.path(), None)?,
        None => {
            View::new("U", "upper")
                .absent("there is none: the view is read-only")
                .tree
        }
    };
    let opened = opened(&upper, told);
    let mut lowers = Vec::new();
    for (index, path) in std::iter::once(&first.lower).chain(&first.below).enumerate() {
        let number = index.saturating_add(1);
        let (label, role) = if first.below.is_empty() {
            ("L".to_owned(), "lower".to_owned())
        } else {
            (format!("L{number}"), format!("lower {number}"))
        };
        lowers.push(look(&label, &role, &path.path(), Some(&opened))?);
    }
    let mut view = View::new("M", "view").absent("").tree;
    view.absent = None;

    let mut paths: Vec<&Text> = lowers
        .iter()
        .chain([&upper])
        .flat_map(|tree| tree.entries.iter().map(|entry| &entry.path))
        .collect();
    paths.sort_by(|a, b| order(a, b));
    paths.dedup();
    let mut shown = Vec::new();
    let mut copied = BTreeSet::new();
    // Which lowers show at a path, the topmost being the first.
    let mut visible = BTreeMap::new();
    for path in paths {
        let one = layers.explain(Path::new(OsStr::from_bytes(&path.0)))?;
        if one.steps.last().is_some_and(|step| step.copied.is_some()) {
            copied.insert(path.0.clone());
        }
        let step = one.steps.last();
        let files = step
            .into_iter()
            .flat_map(|step| step.lower.iter().chain(&step.below));
        let numbers = files
            .filter(|file| !file.hidden)
            .map(|file| file.number.unwrap_or(1));
        let numbers: Vec<usize> = numbers.map(usize::from).collect();
        let topmost = lowers.get(numbers.first().map_or(0, |number| number.saturating_sub(1)));
        let (answers, layer) = match one.answer {
            Answer::Lower => match topmost {
                Some(lower) => (Answers::Lower, lower),
                None => continue,
            },
            Answer::Upper => (Answers::Upper, &upper),
            Answer::Merged => (Answers::Both, &upper),
            // What cannot be shown is listed in a view, but nothing is known of it there.
            Answer::Whiteout | Answer::Absent | Answer::Refused => continue,
        };
        visible.insert(path.0.clone(), numbers);
        if let Some(entry) = layer.get_path(path) {
            shown.push(Entry {
                answers: Some(answers),
                marks: Vec::new(),
                ..entry.clone()
            });
        }
    }
    view.entries = shown;
    for (index, lower) in lowers.iter_mut().enumerate() {
        for entry in &mut lower.entries {
            let shows = |numbers: &Vec<usize>| numbers.contains(&index.saturating_add(1));
            entry.hidden = entry.sort != Sort::Whiteout && !visible.get(&entry.path.0).is_some_and(shows);
        }
    }
    for entry in &mut upper.entries {
        let answers = view.get_path(&entry.path).and_then(|shown| shown.answers);
        entry.hidden =
            entry.sort != Sort::Whiteout && !matches!(answers, Some(Answers::Upper | Answers::Both));
        entry.change = change(entry, &lowers, copied.contains(&entry.path.0));
    }
    Ok(lowers.into_iter().chain([upper, view]).collect())
}

/// How an object came into the upper, as far as its marks tell.
fn change(entry: &Entry, lowers: &[Tree], copied: bool) -> Option<Change> {
    if entry.sort == Sort::Whiteout {
        return None;
    }
    let below = lowers
        .iter()
        .find_map(|lower| Some((&lower.label, lower.get_path(&entry.path)?)));
    match below {
        Some((label, below)) if copied => Some(Change::Copied(Place {
            tree: label.clone(),
            path: below.path.clone(),
        })),
        // A directory that was made apart and is merged all the same.
        Some((_, below))
            if below.sort == Sort::Directory && entry.sort == Sort::Directory && !entry.is_opaque() =>
        {
            None
        }
        _ => Some(Change::Added),
    }
}

fn look(label: &str, role: &str, path: &Path, opened: Option<&BTreeSet<Vec<u8>>>) -> Result<Tree> {
    let view = View {
        opened,
        // A page is shown around; what is in somebody's files is no part of the explanation.
        contents: false,
        ..View::new(label, role)
    };
    let shot = view.look(path).map_err(|source| LessonError::Look {
        path: path.to_owned(),
        source,
    })?;
    Ok(shot.tree)
}

/// The directories of the upper, and those on the way to what was asked for.
fn opened(upper: &Tree, told: &[Explanation]) -> BTreeSet<Vec<u8>> {
    let directory = |entry: &&Entry| entry.sort == Sort::Directory;
    let mut opened: BTreeSet<Vec<u8>> = upper
        .entries
        .iter()
        .filter(directory)
        .map(|entry| entry.path.0.clone())
        .collect();
    for step in told.iter().flat_map(|told| &told.steps) {
        let path: PathBuf = step.path.path();
        let inside = path.as_os_str().as_bytes();
        opened.insert(inside.strip_prefix(b"/").unwrap_or(inside).to_vec());
    }
    opened
}
