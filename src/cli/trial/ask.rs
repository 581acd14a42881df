//! Asking what becomes of the changes.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use super::{show, shown};
use crate::cli::Failure;
use crate::trial::{Told, Trial};

/// What was decided.
pub(super) enum Choice {
    /// Keep these, or all if there are none.
    Keep(Vec<PathBuf>),
    Drop,
    Later,
}

/// Asks on a terminal; without one everything is left for later.
pub(super) fn ask(trial: &Trial, changes: &[Told]) -> Result<Choice, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(Choice::Later);
    }
    loop {
        eprint!("Keep all (k), keep some (s), show differences (f), drop (d), leave for later (l)? ");
        match line()?.as_deref() {
            Some("k") => return Ok(Choice::Keep(Vec::new())),
            Some("s") => {
                let paths = some(changes)?;
                if paths.is_empty() {
                    eprintln!("Nothing was chosen.");
                } else {
                    return Ok(Choice::Keep(paths));
                }
            }
            Some("f") => eprint!("{}", show::text(trial, changes, true)?),
            Some("d") => return Ok(Choice::Drop),
            Some("l") | None => return Ok(Choice::Later),
            Some(_) => {}
        }
    }
}

/// Asks for each change; what is below a new directory goes with it.
fn some(changes: &[Told]) -> Result<Vec<PathBuf>, Failure> {
    let mut chosen: Vec<PathBuf> = Vec::new();
    let mut decided: Option<PathBuf> = None;
    for told in changes.iter().filter(|told| !show::is_way(told)) {
        if decided.as_ref().is_some_and(|above| told.path.starts_with(above)) {
            continue;
        }
        eprint!(
            "{} {}: keep (y/n)? ",
            told.change.letter.as_char(),
            shown(&told.path)
        );
        if line()?.as_deref() == Some("y") {
            chosen.push(told.path.clone());
        }
        decided = Some(told.path.clone());
    }
    Ok(chosen)
}

/// A line without spaces around; none at the end.
fn line() -> Result<Option<String>, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().read_line(&mut text)?;
    Ok((read > 0).then(|| text.trim().to_lowercase()))
}
