//! `plyfs image ls`.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::cli::Failure;
use crate::cli::output::{Table, ago, bytes, print, print_json};
use crate::cli::store::open;
use crate::store::{Image, ImageId, Store};

const EXAMPLES: &str = "\
Examples:
  plyfs image ls
  plyfs image ls --json | jq -r '.[].id'

With --json, a list of objects with id, names, created (RFC 3339, or null), size
(bytes of the layers' files), layers (their diff ids).";

/// List images, the newest first.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, visible_alias = "list")]
pub(super) struct LsArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
    /// Only the ids.
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Whole ids.
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Serialize)]
struct Record {
    id: ImageId,
    names: Vec<String>,
    created: Option<String>,
    size: u64,
    layers: Vec<String>,
}

impl LsArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        let mut images = store.images()?;
        images.sort_by(|a, b| b.config().created().cmp(a.config().created()));
        let records = images
            .iter()
            .map(|image| record(&store, image))
            .collect::<Result<Vec<_>, Failure>>()?;
        if self.json {
            return print_json(&records);
        }
        let id = |record: &Record| {
            if self.no_trunc {
                record.id.to_string()
            } else {
                short(&record.id)
            }
        };
        if self.quiet {
            let lines: String = records.iter().map(|record| id(record) + "\n").collect();
            return Ok(print(lines.as_bytes())?);
        }
        let mut table = Table::new(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
        for (image, record) in images.iter().zip(&records) {
            let rest = [
                id(record),
                record.created.as_deref().map_or_else(|| "N/A".to_owned(), ago),
                bytes(record.size),
            ];
            let names: Vec<[String; 2]> = match image.names() {
                [] => vec![["<none>".to_owned(), "<none>".to_owned()]],
                names => names
                    .iter()
                    .map(|name| [name.repository().to_owned(), name.tag().to_owned()])
                    .collect(),
            };
            for name in names {
                table.row(name.into_iter().chain(rest.iter().cloned()).collect());
            }
        }
        Ok(print(table.finish().as_bytes())?)
    }
}

/// The twelve digits that docker shows.
pub(in crate::cli) fn short(id: &ImageId) -> String {
    id.hex().chars().take(12).collect()
}

fn record(store: &Store, image: &Image) -> Result<Record, Failure> {
    Ok(Record {
        id: *image.id(),
        names: image.names().iter().map(ToString::to_string).collect(),
        created: image.config().created().clone(),
        size: store.image_size(image)?,
        layers: image.diff_ids().iter().map(ToString::to_string).collect(),
    })
}
