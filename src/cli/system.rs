//! `plyfs system`: the store as a whole.

mod check;
mod df;
mod prune;

use std::path::Path;

use clap::{Args, Subcommand};

use super::Failure;

const EXAMPLES: &str = "\
Examples:
  plyfs system df         what each image costs, and what removing it would free
  plyfs system check      is everything as it was?
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
    Df(df::DfArgs),
    Check(check::CheckArgs),
    Prune(prune::PruneArgs),
}

impl SystemArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        env_logger::init();
        match self.command {
            Command::Df(arguments) => arguments.run(root),
            Command::Check(arguments) => arguments.run(root),
            Command::Prune(arguments) => arguments.run(root),
        }
    }
}
