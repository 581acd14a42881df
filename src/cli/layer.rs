//! `plyfs layer`: the builder on plain directories, with no store behind it.

mod clone;

use clap::{Args, Subcommand};

use super::Failure;

const EXAMPLES: &str = "\
A layer is a whole root tree. A child starts as a clone of its parent, in which
every file is a hard link to the parent's; what changes gets a new inode, so the
parent stays as it is.

Examples:
  plyfs layer clone base child            a child without changes

Never write in a tree that has clones, but through a mount of it: what is changed
in place changes in all of them.";

/// Make, change, compare and verify layers: whole trees that share files by hard links.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct LayerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Clone(clone::CloneArgs),
}

impl LayerArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        env_logger::init();
        match self.command {
            Command::Clone(arguments) => arguments.run(),
        }
    }
}
