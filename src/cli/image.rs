//! `plyfs image`: the images of the store.

mod build;
mod history;
mod import;
mod inspect;
mod load;
mod ls;
mod rm;
mod save;
mod tag;

use std::path::Path;

use clap::{Args, Subcommand};

use super::Failure;

pub(super) use ls::short as short_id;
pub(super) use rm::list as list_removal;

const EXAMPLES: &str = "\
An image is a config and a chain of layers. Each layer is a whole root tree in
which every file that did not change is a hard link to the one below.

Examples:
  plyfs image load debian.tar          what 'docker save' or 'skopeo copy' wrote
  plyfs image build -t app .           from a Containerfile
  plyfs image ls
  plyfs image inspect -f '{{ .GraphDriver.Data.RootDir }}' debian
  plyfs image rm debian

IMAGE is a name (debian, debian:12), an id (sha256:...) or the beginning of one.";

/// Load, show, name and remove images.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct ImageArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(build::BuildArgs),
    Load(load::LoadArgs),
    Import(import::ImportArgs),
    Save(save::SaveArgs),
    Ls(ls::LsArgs),
    Inspect(inspect::InspectArgs),
    History(history::HistoryArgs),
    Tag(tag::TagArgs),
    Rm(rm::RmArgs),
}

impl ImageArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        env_logger::init();
        match self.command {
            Command::Build(arguments) => arguments.run(root),
            Command::Load(arguments) => arguments.run(root),
            Command::Import(arguments) => arguments.run(root),
            Command::Save(arguments) => arguments.run(root),
            Command::Ls(arguments) => arguments.run(root),
            Command::Inspect(arguments) => arguments.run(root),
            Command::History(arguments) => arguments.run(root),
            Command::Tag(arguments) => arguments.run(root),
            Command::Rm(arguments) => arguments.run(root),
        }
    }
}
