//! `docs/engines.md`: a table for each engine between two markers, and words around them that are written by hand.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::programs::By;

/// What one way to mount did in one case.
pub enum Cell {
    /// The others were compared with it, in so many observations.
    Reference(usize),
    /// The names of the differences.
    Compared(Vec<&'static str>),
    /// It could not be done: why.
    Cannot(Vec<&'static str>),
}

/// A case.
pub struct Row {
    pub case: &'static str,
    pub cells: BTreeMap<By, Cell>,
}

fn cell(cell: Option<&Cell>) -> String {
    match cell {
        None => "-".into(),
        Some(Cell::Reference(_)) => "reference".into(),
        Some(Cell::Compared(names)) if names.is_empty() => "the same".into(),
        Some(Cell::Compared(names)) => format!("differs: {}", names.join("; ")),
        Some(Cell::Cannot(names)) => format!("cannot: {}", names.join("; ")),
    }
}

/// The programs of an engine with their versions; an error when one is missing.
pub fn versions(engine: &str) -> Result<String, String> {
    let programs: &[&[&str]] = match engine.split([',', ' ']).next().unwrap_or_default() {
        "docker" => &[&["fuse-overlayfs", "--version"]],
        "buildah" => &[
            &["buildah", "--version"],
            &["crun", "--version"],
            &["fuse-overlayfs", "--version"],
        ],
        _ => &[
            &["podman", "--version"],
            &["crun", "--version"],
            &["fuse-overlayfs", "--version"],
        ],
    };
    let mut lines = Vec::new();
    for words in programs {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let said = super::nest::finish(command).ok(words[0])?;
        let line = said
            .lines()
            .find(|line| line.contains(words[0]))
            .unwrap_or_default();
        lines.push(line.trim().to_owned());
    }
    Ok(lines.join(", "))
}

/// The table of an engine.
fn table(rows: &[Row]) -> String {
    let mut text = String::from("| case | kernel's overlay | fuse-overlayfs | plyfs |\n|---|---|---|---|\n");
    for row in rows {
        let cells: Vec<_> = By::ALL.iter().map(|by| cell(row.cells.get(by))).collect();
        text += &format!("| {} | {} |\n", row.case, cells.join(" | "));
    }
    text
}

/// Checks that the page has this table, or writes it there.
pub fn agree(engine: &str, rows: &[Row]) {
    static PAGE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/engines.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    let (begin, end) = (
        format!("<!-- {engine} -->\n"),
        format!("<!-- end of {engine} -->\n"),
    );
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("docs/engines.md has no marker {begin:?}"));
    let (old, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("docs/engines.md has no marker {end:?}"));
    let new = table(rows);
    if std::env::var_os("PLYFS_TEST_BLESS").is_some() {
        std::fs::write(path, format!("{before}{begin}{new}{end}{after}")).unwrap();
    } else {
        assert_eq!(
            old, new,
            "docs/engines.md: run PLYFS_TEST_BLESS=1 scripts/test engines"
        );
    }
}
