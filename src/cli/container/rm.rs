//! `plyfs container rm`.

use std::path::Path;

use clap::Args;

use crate::cli::Failure;
use crate::cli::store::open;

/// Remove containers and what was changed in them.
#[derive(Debug, Args)]
#[command(visible_alias = "remove")]
pub(super) struct RmArgs {
    /// The containers.
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Unmount one that is mounted, and end the command of one that runs.
    #[arg(long, short)]
    force: bool,
}

impl RmArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        let mut failed = Vec::new();
        for reference in &self.containers {
            let removed = store.container(reference).and_then(|container| {
                if self.force {
                    container.release()?;
                }
                container.remove()
            });
            match removed {
                Ok(()) => println!("{reference}"),
                // The others are removed all the same.
                Err(error) => failed.push(error.to_string()),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(Failure::Failed(failed.join("\nplyfs: ")))
    }
}
