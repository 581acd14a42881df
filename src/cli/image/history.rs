//! `plyfs image history`.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::ls::short;
use crate::cli::Failure;
use crate::cli::output::{Table, ago, bytes, print, print_json};
use crate::cli::store::open;
use crate::store::DiffId;

const EXAMPLES: &str = "\
Example:
  plyfs image history debian

With --json, a list of objects with created, created_by, comment (null where the
image does not tell), layer (the diff id, null for a step that changed no file)
and size (bytes of the layer's files).";

/// Show the steps an image was made by, the last first.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HistoryArgs {
    /// A name or id.
    image: String,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// Whole commands.
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Serialize)]
struct Step {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    layer: Option<DiffId>,
    size: u64,
}

impl HistoryArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        let image = store.image(&self.image)?;
        let mut layers = Vec::new();
        for (diff, id) in image.diff_ids().iter().zip(image.chain()) {
            layers.push((*diff, store.layer(&id)?.size()?));
        }
        let mut layers = layers.into_iter();
        let mut steps = Vec::new();
        for item in image.config().history().iter().flatten() {
            let layer = match item.empty_layer() {
                Some(true) => None,
                _ => layers.next(),
            };
            steps.push(Step {
                created: item.created().clone(),
                created_by: item.created_by().clone(),
                comment: item.comment().clone(),
                layer: layer.map(|(diff, _)| diff),
                size: layer.map_or(0, |(_, size)| size),
            });
        }
        // Layers that the history does not tell of.
        steps.extend(layers.map(|(diff, size)| Step {
            created: None,
            created_by: None,
            comment: None,
            layer: Some(diff),
            size,
        }));
        steps.reverse();
        if self.json {
            return print_json(&steps);
        }
        let mut table = Table::new(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
        for (at, step) in steps.iter().enumerate() {
            let by = step.created_by.clone().unwrap_or_default();
            table.row(vec![
                if at == 0 {
                    short(image.id())
                } else {
                    "<missing>".to_owned()
                },
                step.created.as_deref().map_or_else(|| "N/A".to_owned(), ago),
                if self.no_trunc { by } else { cut(&by) },
                bytes(step.size),
                step.comment.clone().unwrap_or_default(),
            ]);
        }
        Ok(print(table.finish().as_bytes())?)
    }
}

/// At most 45 characters, as docker shows.
fn cut(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 45 {
        return line;
    }
    line.chars().take(44).chain(['…']).collect()
}
