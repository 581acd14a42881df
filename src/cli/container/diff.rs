//! `plyfs container diff`.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::cli::Failure;
use crate::cli::output::{print, print_json};
use crate::cli::store::open;
use crate::mount::JsonPath;

const EXAMPLES: &str = "\
Each line is a letter and a path: A added, C changed, D deleted. What every
container is given (/etc/hosts and the like) shows only when it was changed. It
costs the size of the change, whatever the size of the image.

With --json, a list of objects with change (A, C, D) and path (a list of bytes,
if it is not UTF-8).";

/// Tell what was changed in a container.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DiffArgs {
    /// The container.
    container: String,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    change: char,
    path: JsonPath,
}

impl DiffArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        use std::os::unix::ffi::OsStrExt;

        let store = open(root)?;
        let container = store.container(&self.container)?;
        let mut text = String::new();
        let mut lines = Vec::new();
        container.diff(&mut |change| {
            let letter = change.letter.as_char();
            if self.json {
                let path = [b"/", change.path.as_bytes()].concat();
                lines.push(Line {
                    change: letter,
                    path: Path::new(std::ffi::OsStr::from_bytes(&path)).into(),
                });
            } else {
                text.push_str(&format!("{letter} {}\n", change.path));
            }
            Ok(())
        })?;
        if self.json {
            return print_json(&lines);
        }
        Ok(print(text.as_bytes())?)
    }
}
