//! `plyfs upper apply`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{LayerPaths, tell, view_path};
use crate::cli::Failure;
use crate::cli::output::{print, print_json};
use crate::cli::progress::Bar;
use crate::sys::stat::Time;
use crate::upper::{self, ApplyOptions, Pending};

const EXAMPLES: &str = "\
Examples:
  plyfs upper apply --dry-run --lower base --upper changes --work work
  plyfs upper apply --lower base --upper changes --work work /etc /usr/local
  plyfs upper apply --undo --lower base --upper changes --work work

First every new object is made beside its place, then names change places in single
steps: whoever reads the lower meanwhile sees of each name the old object or the new.
A full disk is met before anything changes. A command that is killed in the middle
is ended by --finish or taken back by --rollback; until then the upper cannot be
mounted. What was replaced is kept for --undo until the next apply or --forget.
In words: docs/upper.md.";

/// Bring the upper's changes into the lower.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    layers: LayerPaths,
    /// Only the changes at and below these paths of the view.
    #[arg(value_name = "PATH", conflicts_with_all = ["finish", "rollback", "undo", "forget"])]
    paths: Vec<PathBuf>,
    /// Refuse if the lower was changed after TIME (RFC 3339) where the upper changes it.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["finish", "rollback", "undo", "forget"])]
    since: Option<jiff::Timestamp>,
    /// Tell what would be applied.
    #[arg(long, conflicts_with_all = ["finish", "rollback", "undo", "forget"])]
    dry_run: bool,
    /// End an apply, rollback or undo that was interrupted.
    #[arg(long, group = "later")]
    finish: bool,
    /// Take back an apply that was interrupted.
    #[arg(long, group = "later")]
    rollback: bool,
    /// Take back the last apply: lower and upper are as they were.
    #[arg(long, group = "later")]
    undo: bool,
    /// Remove what is kept for --undo.
    #[arg(long, group = "later")]
    forget: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// The answer in `--json`.
#[derive(Serialize)]
struct Answer {
    done: &'static str,
    added: u64,
    changed: u64,
    deleted: u64,
}

impl ApplyArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let layers = self.layers.open()?;
        if self.dry_run {
            return self.tell(&layers);
        }
        let mut answer = Answer {
            done: "nothing",
            added: 0,
            changed: 0,
            deleted: 0,
        };
        let text = if self.finish {
            match upper::finish(&layers)? {
                Pending::Half => {
                    answer.done = "applied";
                    "the interrupted apply is complete; --undo takes it back".to_owned()
                }
                Pending::HalfUndone => {
                    answer.done = "undone";
                    "everything is taken back: lower and upper are as they were before the apply".to_owned()
                }
                Pending::Remains => {
                    "the interrupted apply had not begun to change the lower; what it left is removed"
                        .to_owned()
                }
                Pending::Done => "the last apply is complete already".to_owned(),
            }
        } else if self.rollback {
            upper::roll_back(&layers)?;
            answer.done = "rolled back";
            "everything is taken back: lower and upper are as they were before the apply".to_owned()
        } else if self.undo {
            upper::undo(&layers)?;
            answer.done = "undone";
            "everything is taken back: lower and upper are as they were before the apply".to_owned()
        } else if self.forget {
            if upper::forget_undo(&layers)? {
                answer.done = "forgotten";
                "what was kept for --undo is removed".to_owned()
            } else {
                "nothing was kept".to_owned()
            }
        } else {
            let options = ApplyOptions {
                only: self
                    .paths
                    .iter()
                    .map(|path| view_path(path))
                    .collect::<Result<_, _>>()?,
                since: self.since.map(time),
                known: Vec::new(),
            };
            let applied = upper::apply(&layers, &options, &Bar::new())?;
            (answer.added, answer.changed, answer.deleted) =
                (applied.added, applied.changed, applied.deleted);
            if applied.total() == 0 {
                "nothing to apply: the upper changes nothing".to_owned()
            } else {
                answer.done = "applied";
                format!(
                    "applied: {} added, {} changed, {} deleted; --undo takes it back, --forget frees the room",
                    applied.added, applied.changed, applied.deleted
                )
            }
        };
        if self.json {
            return print_json(&answer);
        }
        Ok(print(format!("{text}\n").as_bytes())?)
    }

    fn tell(&self, layers: &upper::Layers) -> Result<(), Failure> {
        let wanted = self
            .paths
            .iter()
            .map(|path| view_path(path))
            .collect::<Result<Vec<_>, _>>()?;
        let changes = upper::chosen(&layers.changes()?, &wanted);
        tell(&changes, self.json)
    }
}

fn time(stamp: jiff::Timestamp) -> Time {
    // Before 1970 the seconds round towards zero and the rest is negative.
    let (secs, nanos) = (stamp.as_second(), stamp.subsec_nanosecond());
    match u32::try_from(nanos) {
        Ok(nanos) => Time { secs, nanos },
        Err(_) => Time {
            secs: secs.saturating_sub(1),
            nanos: u32::try_from(nanos.saturating_add(1_000_000_000)).unwrap_or(0),
        },
    }
}
