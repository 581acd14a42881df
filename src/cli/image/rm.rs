//! `plyfs image rm`.

use std::path::Path;

use clap::Args;

use crate::cli::Failure;
use crate::cli::output::{bytes, print};
use crate::cli::store::open;
use crate::store::Removal;

const EXAMPLES: &str = "\
Examples:
  plyfs image rm debian:12
  plyfs image rm --force sha256:1f2e3d   with all its names

Of several names only the one given is taken away. With the last one goes the
image, and every layer that nothing else needs. An image that a container or a
mount uses is refused; with --force it loses its name.";

/// Take names away from images, and remove those that have none left.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, visible_alias = "remove")]
pub(super) struct RmArgs {
    /// Names or ids.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// All names of an id; of an image in use, only its names.
    #[arg(long, short)]
    force: bool,
}

impl RmArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        let mut failed = Vec::new();
        for reference in &self.images {
            match store.remove_image(reference, self.force) {
                Ok(removal) => print(list(&removal).as_bytes())?,
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

/// What was removed, as docker says it.
pub(in crate::cli) fn list(removal: &Removal) -> String {
    let mut text = String::new();
    for name in &removal.untagged {
        text.push_str(&format!("Untagged: {name}\n"));
    }
    for id in &removal.images {
        text.push_str(&format!("Deleted: {id}\n"));
    }
    for id in &removal.layers {
        text.push_str(&format!("Deleted: {id}\n"));
    }
    if removal.freed.inodes > 0 {
        text.push_str(&format!(
            "Freed: {} and {} inodes\n",
            bytes(removal.freed.bytes),
            removal.freed.inodes
        ));
    }
    text
}
