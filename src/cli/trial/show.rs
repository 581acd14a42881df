//! What a trial changed, for people and for programs.

use serde::Serialize;
use similar::TextDiff;

use super::shown;
use crate::builder::Kind;
use crate::builder::diff::Letter;
use crate::cli::Failure;
use crate::cli::output::bytes;
use crate::mount::JsonPath;
use crate::trial::{Side, Told, Trial};

/// The largest file whose difference is shown.
const MOST: u64 = 1 << 20;

/// A change in `--json`.
#[derive(Serialize)]
pub(super) struct Record {
    change: char,
    path: JsonPath,
    size: Option<u64>,
    differences: Vec<&'static str>,
}

pub(super) fn records(changes: &[Told]) -> Vec<Record> {
    changes
        .iter()
        .map(|told| Record {
            change: told.change.letter.as_char(),
            path: JsonPath::from(told.path.as_path()),
            size: told.size,
            differences: told.change.differences.iter().map(|what| what.word()).collect(),
        })
        .collect()
}

/// A directory that is told only because of what is below it.
pub(super) fn is_way(told: &Told) -> bool {
    told.change.letter == Letter::Changed
        && told.change.kind == Kind::Directory
        && told.change.differences.is_empty()
}

/// Lines, differences of text if asked for, and a sum.
pub(super) fn text(trial: &Trial, changes: &[Told], diff: bool) -> Result<String, Failure> {
    let mut text = String::new();
    let (mut added, mut changed, mut deleted, mut size) = (0_u64, 0_u64, 0_u64, 0_u64);
    for told in changes.iter().filter(|told| !is_way(told)) {
        let count = match told.change.letter {
            Letter::Added => &mut added,
            Letter::Changed => &mut changed,
            Letter::Deleted => &mut deleted,
        };
        *count = count.saturating_add(1);
        size = size.saturating_add(told.size.unwrap_or(0));
        let shown_size = told
            .size
            .map_or_else(String::new, |size| format!("  {}", bytes(size)));
        text.push_str(&format!(
            "{} {}{shown_size}\n",
            told.change.letter.as_char(),
            shown(&told.path)
        ));
        if diff && told.change.kind == Kind::File {
            text.push_str(&difference(trial, told)?);
        }
    }
    text.push_str(&format!(
        "{added} added, {changed} changed, {deleted} deleted, {} of files\n",
        bytes(size)
    ));
    Ok(text)
}

/// The difference of a text file; nothing for another one.
fn difference(trial: &Trial, told: &Told) -> Result<String, Failure> {
    let read = |side| trial.data(told, side, MOST);
    let old = match told.change.letter {
        Letter::Added => Some(Vec::new()),
        _ => read(Side::Before)?,
    };
    let new = match told.change.letter {
        Letter::Deleted => Some(Vec::new()),
        _ => read(Side::After)?,
    };
    let (Some(old), Some(new)) = (old, new) else {
        return Ok(String::new());
    };
    let (Ok(old), Ok(new)) = (String::from_utf8(old), String::from_utf8(new)) else {
        return Ok(String::new());
    };
    if old.contains('\0') || new.contains('\0') {
        return Ok(String::new());
    }
    let lines = TextDiff::from_lines(&old, &new);
    let unified = lines.unified_diff().context_radius(3).to_string();
    // A terminal obeys control characters.
    let tame = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    Ok(unified
        .lines()
        .map(|line| format!("    {}\n", line.chars().map(tame).collect::<String>()))
        .collect())
}
