//! `plyfs system df`.

use std::path::Path;

use clap::Args;

use crate::cli::Failure;
use crate::cli::image::short_id;
use crate::cli::output::{Table, bytes, print, print_json};
use crate::cli::store::open;
use crate::store::{Space, Usage};

const EXAMPLES: &str = "\
Columns: TOTAL is what an image alone would take, SHARED what others need of it,
FREED what removing it gives back. Inodes count as much as bytes: each layer has
its own directories.

With --json, an object with images (id, names, total, shared, unique: each bytes
and inodes; containers), layers, layer_space, unneeded, containers,
container_space, links (highest, limit or null) and copies.";

/// Show what the store takes on disk, and what removing each image would free.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DfArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
}

impl DfArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let usage = open(root)?.usage()?;
        if self.json {
            return print_json(&usage);
        }
        Ok(print(for_people(&usage).as_bytes())?)
    }
}

fn space(space: Space) -> String {
    format!("{}, {} inodes", bytes(space.bytes), space.inodes)
}

fn for_people(usage: &Usage) -> String {
    let mut table = Table::new(&["IMAGE", "NAME", "TOTAL", "SHARED", "FREED", "CONTAINERS"]);
    for image in &usage.images {
        let name = image
            .names
            .first()
            .map_or_else(|| "<none>".to_owned(), ToString::to_string);
        table.row(vec![
            short_id(&image.id),
            name,
            space(image.total),
            space(image.shared),
            space(image.unique),
            image.containers.to_string(),
        ]);
    }
    let mut text = table.finish();
    let mut line = |label: &str, value: String| text.push_str(&format!("{label:<12}{value}\n"));
    line(
        "\nlayers",
        format!("{}: {}", usage.layers, space(usage.layer_space)),
    );
    line("unneeded", space(usage.unneeded));
    line(
        "containers",
        format!("{}: {}", usage.containers, space(usage.container_space)),
    );
    let limit = match usage.links.limit {
        Some(limit) => format!(
            "{} names on one inode; this file system allows {limit}, {} more",
            usage.links.highest,
            limit.saturating_sub(usage.links.highest)
        ),
        None => format!(
            "{} names on one inode; the limit of this file system is not known",
            usage.links.highest
        ),
    };
    line("links", limit);
    line(
        "copies",
        format!("{} files, where no link could be made", usage.copies),
    );
    text
}
