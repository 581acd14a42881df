//! `plyfs system check`.

use std::path::Path;

use clap::Args;

use crate::cli::Failure;
use crate::cli::output::{print, print_json};
use crate::cli::progress::Bar;
use crate::cli::store::open;
use crate::store::Checked;

const EXAMPLES: &str = "\
Every object of every layer is compared with what was recorded at its birth, the
data of files with it; and every name, image and container is looked at.

With --repair, names of nothing, images that cannot be used and layers that
nothing needs are removed; load the images again. Containers are left alone.

With --json, an object with wrong (a list of subject, why, repair: null if
nothing was done), images, layers and objects that were looked at.

Exit status: 0 everything is sound (or was repaired), 1 something is wrong.";

/// Check the whole store.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// Put right what can be.
    #[arg(long)]
    repair: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        let bar = Bar::new();
        let checked = store.check(self.repair, &bar)?;
        drop(bar);
        if self.json {
            print_json(&checked)?;
        } else {
            print(for_people(&checked).as_bytes())?;
        }
        if checked.sound() {
            return Ok(());
        }
        let wrong = checked
            .wrong
            .iter()
            .filter(|wrong| wrong.repair.is_none())
            .count();
        Err(Failure::Failed(format!(
            "{} things are wrong with {}{}",
            wrong,
            store.path().display(),
            if self.repair {
                ""
            } else {
                "; --repair puts right what can be"
            }
        )))
    }
}

fn for_people(checked: &Checked) -> String {
    let mut text = String::new();
    for wrong in &checked.wrong {
        let repair = wrong
            .repair
            .as_ref()
            .map_or_else(String::new, |repair| format!(" ({repair})"));
        text.push_str(&format!("{}: {}{repair}\n", wrong.subject, wrong.why));
    }
    text.push_str(&format!(
        "{} images, {} layers, {} objects: {}\n",
        checked.images,
        checked.layers,
        checked.objects,
        if checked.sound() { "sound" } else { "not sound" }
    ));
    text
}
