//! `plyfs system prune`.

use std::path::Path;

use clap::Args;

use crate::cli::Failure;
use crate::cli::image::list_removal;
use crate::cli::output::print;
use crate::cli::store::open;

const EXAMPLES: &str = "\
Removed are images that have neither a name nor a container, layers that no image
and no container needs (those that only the build cache keeps as well), and what
killed processes left. What another process is using stays.";

/// Remove what nothing needs, and say what that freed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PruneArgs {}

impl PruneArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        let removal = store.prune()?;
        let mut text = list_removal(&removal);
        if removal.rubbish > 0 {
            text.push_str(&format!("Left by killed processes: {}\n", removal.rubbish));
        }
        if text.is_empty() {
            text.push_str("Nothing to remove.\n");
        }
        Ok(print(text.as_bytes())?)
    }
}
