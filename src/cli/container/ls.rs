//! `plyfs container ls`.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::cli::Failure;
use crate::cli::output::{Table, ago, print, print_json};
use crate::cli::store::open;
use crate::store::container::{Container, Status, Use};

const EXAMPLES: &str = "\
Examples:
  plyfs container ls
  plyfs container ls --json | jq -r '.[].name'

With --json, a list of objects with id, name, image (as it was asked for),
image_id, command, created (RFC 3339), status (created, running, exited),
mounted, exit_code.";

/// List containers, the newest first.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, visible_alias = "list")]
pub(super) struct LsArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
    /// All are listed anyway.
    #[arg(long, short, hide = true)]
    all: bool,
    /// Only the ids.
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Whole ids and commands.
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Serialize)]
struct Listed {
    id: String,
    name: String,
    image: String,
    image_id: String,
    command: String,
    created: String,
    status: &'static str,
    mounted: bool,
    exit_code: u8,
    #[serde(skip)]
    words: String,
}

impl LsArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        let mut list = Vec::new();
        for mut container in store.containers()?.into_iter().rev() {
            let found = container.settle()?;
            list.push(look(&container, found));
        }
        if self.json {
            return print_json(&list);
        }
        let cut = |text: &str, length: usize| {
            if self.no_trunc || text.chars().count() <= length {
                text.to_owned()
            } else {
                text.chars().take(length).collect()
            }
        };
        if self.quiet {
            let lines: String = list.iter().map(|one| cut(&one.id, 12) + "\n").collect();
            return Ok(print(lines.as_bytes())?);
        }
        let mut table = Table::new(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAME"]);
        for one in &list {
            table.row(vec![
                cut(&one.id, 12),
                one.image.clone(),
                cut(&one.command, 24),
                ago(&one.created),
                one.words.clone(),
                one.name.clone(),
            ]);
        }
        Ok(print(table.finish().as_bytes())?)
    }
}

fn look(container: &Container<'_>, found: Use) -> Listed {
    let record = &container.record;
    let state = &record.state;
    let mut words = match state.status {
        Status::Created => "created".to_owned(),
        Status::Running => format!("running since {}", ago(&state.started_at)),
        Status::Exited if state.finished_at.is_empty() => format!("exited ({})", state.exit_code),
        Status::Exited => format!("exited ({}) {}", state.exit_code, ago(&state.finished_at)),
    };
    if found == Use::Mounted {
        words.push_str(", mounted");
    }
    Listed {
        id: record.id.clone(),
        name: record.name.clone(),
        image: record.config.image.clone(),
        image_id: record.image.clone(),
        command: record.config.argv().join(" "),
        created: record.created.clone(),
        status: state.status.word(),
        mounted: found != Use::Idle,
        exit_code: state.exit_code,
        words,
    }
}
