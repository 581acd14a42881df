//! `plyfs upper diff`.

use clap::Args;

use super::{LayerPaths, tell};
use crate::cli::Failure;

const EXAMPLES: &str = "\
A line is A (added), C (changed) or D (deleted) and a path, sorted. A directory in
which something changed is C; what was in a deleted directory is not told. It costs
the size of the changes, whatever the size of the lower.

With --json, a list of objects with change (A, C or D), path (a list of bytes if it
is not UTF-8), kind, and differences, as 'plyfs layer diff --json' tells them.

'plyfs layer diff --upper' answers the same of a view that is mounted.";

/// Tell what the upper changes.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    layers: LayerPaths,
    /// For programs.
    #[arg(long)]
    json: bool,
}

impl DiffArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let changes = self.layers.open()?.changes()?;
        tell(&changes, self.json)
    }
}
