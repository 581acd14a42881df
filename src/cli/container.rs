//! `plyfs container`: an upper of one's own over an image.

mod commit;
mod create;
mod diff;
mod export;
mod inspect;
mod ls;
mod mount;
mod rm;
mod run;

use std::path::Path;

use clap::{Args, Subcommand};

use super::Failure;

const EXAMPLES: &str = "\
A container is a writable layer over an image's tree, and settings to run a
command in it. CONTAINER is a name, an id, or the beginning of an id.

Examples:
  plyfs container run -it debian bash
  plyfs container create --name web debian
  plyfs container mount web            prints where; change files there at will
  plyfs container diff web             what was added, changed, deleted
  plyfs container umount web
  plyfs container commit web web:v2    an image of it";

/// Make, mount, run and remove containers.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct ContainerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::CreateArgs),
    Run(run::RunArgs),
    Start(run::StartArgs),
    Mount(mount::MountArgs),
    Umount(mount::UmountArgs),
    Ls(ls::LsArgs),
    Inspect(inspect::InspectArgs),
    Diff(diff::DiffArgs),
    Commit(commit::CommitArgs),
    Export(export::ExportArgs),
    Rm(rm::RmArgs),
}

impl ContainerArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        env_logger::init();
        match self.command {
            Command::Run(arguments) => arguments.run(root),
            Command::Start(arguments) => arguments.run(root),
            Command::Create(arguments) => arguments.run(root),
            Command::Mount(arguments) => arguments.run(root),
            Command::Umount(arguments) => arguments.run(root),
            Command::Ls(arguments) => arguments.run(root),
            Command::Inspect(arguments) => arguments.run(root),
            Command::Diff(arguments) => arguments.run(root),
            Command::Commit(arguments) => arguments.run(root),
            Command::Export(arguments) => arguments.run(root),
            Command::Rm(arguments) => arguments.run(root),
        }
    }
}
