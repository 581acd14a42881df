//! `plyfs container commit`.

use std::path::Path;

use clap::Args;

use crate::cli::Failure;
use crate::cli::output::print;
use crate::cli::progress::Bar;
use crate::cli::store::open;
use crate::store::Name;
use crate::store::container::Commit;

const EXAMPLES: &str = "\
Examples:
  plyfs container commit web web:v2
  plyfs container commit -m 'with curl' --change 'CMD [\"bash\"]' play debian:curl

The new layer is the image's tree by hard links, with the changes laid over it.
The id of the new image is printed. Unmount the container first, or let nobody
write to it meanwhile: a file that changes while it is read fails the commit.";

/// Make an image of a container's image and its changes.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CommitArgs {
    /// The container.
    container: String,
    /// Names for the new image.
    names: Vec<String>,
    /// What was done, for the image's history.
    #[arg(long, short)]
    message: Option<String>,
    /// Who did it.
    #[arg(long, short)]
    author: Option<String>,
    /// An instruction of a Containerfile that changes the new image's settings. May be given several times.
    #[arg(long, short, value_name = "INSTRUCTION")]
    change: Vec<String>,
}

impl CommitArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let names = self
            .names
            .iter()
            .map(|name| name.parse::<Name>())
            .collect::<Result<Vec<_>, _>>()?;
        let store = open(root)?;
        let container = store.container(&self.container)?;
        let commit = Commit {
            message: self.message,
            author: self.author,
            changes: self.change,
        };
        let bar = Bar::new();
        let committed = container.commit(&commit, &names, &bar);
        drop(bar);
        let committed = committed?;
        for left_out in &committed.skipped {
            eprintln!("plyfs: left out: {left_out}");
        }
        Ok(print(format!("{}\n", committed.image).as_bytes())?)
    }
}
