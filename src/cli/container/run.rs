//! `plyfs container run` and `start`.

use std::path::Path;

use clap::Args;

use super::create::Wanted;
use crate::cli::Failure;
use crate::cli::store::open;

use crate::store::container::Container;

const EXAMPLES: &str = "\
Examples:
  plyfs container run --rm debian cat /etc/os-release
  plyfs container run -it --name play debian bash
  plyfs container run -v /srv/data:/data:ro --network none debian ls /data

Exit status: the command's; 125 if plyfs or the runtime failed, 126 if the
command cannot be run, 127 if there is none of that name; 2 if the command line
makes no sense. The runtime is crun, or else runc. This is no prison for hostile programs: see
docs/containers.md for what separates a container from the machine.";

/// Make a container of an image and run its command.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Remove the container when its command has ended.
    #[arg(long = "rm")]
    remove: bool,
}

/// Run the command of a container, and wait for its end.
///
/// Its changes are kept: the next start finds them.
#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// The container.
    container: String,
}

impl RunArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let wanted = self.wanted;
        open(root)
            .and_then(|store| run(wanted.create(&store, self.remove)?))
            .map_err(told)
    }
}

impl StartArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        open(root)
            .and_then(|store| run(store.container(&self.container)?))
            .map_err(told)
    }
}

fn run(mut container: Container<'_>) -> Result<(), Failure> {
    let ended = container.run();
    if container.record.host_config.auto_remove {
        container.remove()?;
    }
    let ended = ended?;
    if let Some(reason) = &ended.reason {
        eprintln!("plyfs: the command could not be run: {reason}");
    }
    match ended.status {
        0 => Ok(()),
        status => Err(Failure::Status(status)),
    }
}

/// Says why it failed, and gives it docker's status, which no command is likely to have.
fn told(failure: Failure) -> Failure {
    const FAILED: u8 = 125;
    match failure {
        Failure::Status(status) => Failure::Status(status),
        Failure::Usage(reason) | Failure::Failed(reason) => {
            eprintln!("plyfs: {reason}");
            Failure::Status(FAILED)
        }
    }
}
