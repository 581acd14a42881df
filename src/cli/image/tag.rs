//! `plyfs image tag`.

use std::path::Path;

use clap::Args;

use crate::cli::Failure;
use crate::cli::store::open;
use crate::store::Name;

const EXAMPLES: &str = "\
Example:
  plyfs image tag debian:12 localhost/base:stable

An image that had the name loses it.";

/// Give an image one more name.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TagArgs {
    /// A name or id.
    image: String,
    /// The name, as REGISTRY/REPOSITORY:TAG; the registry and the tag may be left out.
    name: String,
}

impl TagArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let name: Name = self.name.parse()?;
        let store = open(root)?;
        let image = store.image(&self.image)?;
        store.tag(image.id(), &name)?;
        Ok(())
    }
}
