//! `plyfs upper drop`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{LayerPaths, json_path, view_path};
use crate::cli::Failure;
use crate::cli::output::{print, print_json};
use crate::mount::JsonPath;
use crate::upper::drop_path;

const EXAMPLES: &str = "\
Examples:
  plyfs upper drop --lower base --upper changes --work work /etc/motd
  plyfs upper drop --lower base --upper changes --work work /       all of them

What was changed at PATH and below it is gone for good, and the lower's object shows
again. A renamed file is two changes: one at the old name, one at the new.";

/// Drop what the upper changes at a path and below it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DropArgs {
    #[command(flatten)]
    layers: LayerPaths,
    /// Paths of the view.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    path: JsonPath,
    objects: u64,
    lower_shows: bool,
}

impl DropArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let layers = self.layers.open()?;
        let mut lines = Vec::new();
        let mut text = String::new();
        for path in &self.paths {
            let path = view_path(path)?;
            let dropped = drop_path(&layers, &path)?;
            let now = match (path.is_root(), dropped.lower_shows) {
                (true, _) => "the view is the lower",
                (false, true) => "the lower's object shows",
                (false, false) => "nothing is there now",
            };
            text.push_str(&format!("dropped {path}: {now}\n"));
            lines.push(Line {
                path: json_path(&path),
                objects: dropped.objects,
                lower_shows: dropped.lower_shows,
            });
        }
        if self.json {
            return print_json(&lines);
        }
        Ok(print(text.as_bytes())?)
    }
}
