//! `plyfs container export`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::Failure;
use crate::cli::store::open;
use crate::store::StoreError;

/// Write a container's whole tree as a tar archive.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The container.
    container: String,
    /// Where to write [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl ExportArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let stdout = std::io::stdout();
        if self.output.is_none() && stdout.is_terminal() {
            return Err(Failure::usage(
                "standard output is a terminal: name a file with --output, or redirect it",
            ));
        }
        let store = open(root)?;
        let container = store.container(&self.container)?;
        let written = match &self.output {
            Some(path) => {
                let file = std::fs::File::create(path).map_err(StoreError::io("write", path))?;
                let written = container.export(&file);
                if written.is_err() {
                    // Half an archive is of no use.
                    std::fs::remove_file(path).map_err(StoreError::io("remove", path))?;
                }
                written?
            }
            None => container.export(stdout.lock())?,
        };
        for (path, why) in &written.skipped {
            eprintln!("plyfs: left out: {path}: {why}");
        }
        Ok(())
    }
}
