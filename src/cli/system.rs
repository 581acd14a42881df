//! `plyfs system`: the store as a whole.

mod prune;

use std::path::Path;

use clap::{Args, Subcommand};

use super::Failure;

const EXAMPLES: &str = "\
Example:
  plyfs system prune      remove what nothing needs";

/// What the store holds and costs, whether it is sound, and making room.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct SystemArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Prune(prune::PruneArgs),
}

impl SystemArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        env_logger::init();
        match self.command {
            Command::Prune(arguments) => arguments.run(root),
        }
    }
}
