//! Somebody's own layers, as trees of the same form as in the lesson: `plyfs explain --html`.
//!
//! The upper is shown whole. Of the lower only those directories are opened that the upper has, or that lead to a path
//! that was asked for: the rest shows as it is. Who answers for each name is what [`crate::explain`] says, and so what
//! a mount does.

use std::collections::BTreeSet;
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
    let mut lower = look("L", "lower", &first.lower.path(), Some(&opened))?;
    let mut view = View::new("M", "view").absent("").tree;
    view.absent = None;

    let mut paths: Vec<&Text> = [&lower, &upper]
        .into_iter()
        .flat_map(|tree| tree.entries.iter().map(|entry| &entry.path))
        .collect();
    paths.sort_by(|a, b| order(a, b));
    paths.dedup();
    let mut shown = Vec::new();
    let mut copied = BTreeSet::new();
    for path in paths {
        let one = layers.explain(Path::new(OsStr::from_bytes(&path.0)))?;
        if one.steps.last().is_some_and(|step| step.copied.is_some()) {
            copied.insert(path.0.clone());
        }
        let (answers, layer) = match one.answer {
            Answer::Lower => (Answers::Lower, &lower),
            Answer::Upper => (Answers::Upper, &upper),
            Answer::Merged => (Answers::Both, &upper),
            // What cannot be shown is listed in a view, but nothing is known of it there.
            Answer::Whiteout | Answer::Absent | Answer::Refused => continue,
        };
        if let Some(entry) = layer.get_path(path) {
            shown.push(Entry {
                answers: Some(answers),
                marks: Vec::new(),
                ..entry.clone()
            });
        }
    }
    view.entries = shown;
    for (tree, side) in [(&mut lower, Answers::Lower), (&mut upper, Answers::Upper)] {
        for entry in &mut tree.entries {
            let answers = view.get_path(&entry.path).and_then(|shown| shown.answers);
            entry.hidden =
                entry.sort != Sort::Whiteout && answers != Some(side) && answers != Some(Answers::Both);
        }
    }
    for entry in &mut upper.entries {
        entry.change = change(entry, &lower, copied.contains(&entry.path.0));
    }
    Ok(vec![lower, upper, view])
}

/// How an object came into the upper, as far as its marks tell.
fn change(entry: &Entry, lower: &Tree, copied: bool) -> Option<Change> {
    if entry.sort == Sort::Whiteout {
        return None;
    }
    let place = |path: &Text| Place {
        tree: "L".to_owned(),
        path: path.clone(),
    };
    let below = lower.get_path(&entry.path);
    match below {
        Some(below) if copied => Some(Change::Copied(place(&below.path))),
        // A directory that was made apart and is merged all the same.
        Some(below)
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
