//! `plyfs upper vacuum`.

use clap::Args;
use serde::Serialize;

use super::{LayerPaths, json_path};
use crate::builder::TreePath;
use crate::cli::Failure;
use crate::cli::output::{bytes, print, print_json};
use crate::mount::JsonPath;
use crate::upper::vacuum;

const EXAMPLES: &str = "\
Removed are whiteouts and opaque marks that hide nothing, and copies that differ from
the lower's object in nothing: neither in data, owner, mode, times, links nor extended
attributes. The view is the same before and after, and at every step between.";

/// Remove whiteouts, marks and copies that change nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct VacuumArgs {
    #[command(flatten)]
    layers: LayerPaths,
    /// Tell what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    whiteouts: Vec<JsonPath>,
    opaque_marks: Vec<JsonPath>,
    copies: Vec<JsonPath>,
    bytes: u64,
}

impl VacuumArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let done = vacuum(&self.layers.open()?, self.dry_run)?;
        if self.json {
            let list = |paths: &[TreePath]| paths.iter().map(json_path).collect();
            return print_json(&Answer {
                whiteouts: list(&done.whiteouts),
                opaque_marks: list(&done.opaque_marks),
                copies: list(&done.copies),
                bytes: done.bytes,
            });
        }
        let mut text = String::new();
        for (what, paths) in [
            ("whiteout", &done.whiteouts),
            ("opaque mark", &done.opaque_marks),
            ("copy", &done.copies),
        ] {
            for path in paths {
                text.push_str(&format!("{what} {path}\n"));
            }
        }
        let verb = if self.dry_run { "would free" } else { "freed" };
        let count = done.whiteouts.len() + done.opaque_marks.len() + done.copies.len();
        text.push_str(&format!("{count} useless, {verb} {}\n", bytes(done.bytes)));
        Ok(print(text.as_bytes())?)
    }
}
