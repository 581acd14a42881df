//! `plyfs layer`: the builder on plain directories, with no store behind it.

mod apply;
mod clone;
mod diff;
mod verify;

pub(super) use self::diff::record;

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Failure;
use crate::builder::TreePath;
use crate::builder::manifest::Text;

const EXAMPLES: &str = "\
A layer is a whole root tree. A child starts as a clone of its parent, in which
every file is a hard link to the parent's; what changes gets a new inode, so the
parent stays as it is.

Examples:
  plyfs layer apply base.tar.gz base                       a tree out of an archive
  plyfs layer apply --parent base change.tar child         a child with changes
  plyfs layer clone --manifest child.manifest base child   a child without changes
  plyfs layer verify child --manifest child.manifest       is it still the same?
  plyfs layer diff base child                              what changed

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
    Apply(apply::ApplyArgs),
    Clone(clone::CloneArgs),
    Diff(diff::DiffArgs),
    Verify(verify::VerifyArgs),
}

impl LayerArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        env_logger::init();
        match self.command {
            Command::Apply(arguments) => arguments.run(),
            Command::Clone(arguments) => arguments.run(),
            Command::Diff(arguments) => arguments.run(),
            Command::Verify(arguments) => arguments.run(),
        }
    }
}

/// Opens the root of a tree.
fn open_tree(path: &Path) -> Result<File, Failure> {
    let dir = File::open(path).map_err(|error| named(path, &error))?;
    if dir.metadata().map_err(|error| named(path, &error))?.is_dir() {
        Ok(dir)
    } else {
        Err(Failure::Failed(format!("{}: not a directory", path.display())))
    }
}

fn named(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}

/// A path of a tree for programs: a string, or a list of bytes where it is not UTF-8.
fn json_path(path: &TreePath) -> Text {
    Text([b"/", path.as_bytes()].concat())
}

/// A manifest that is being written; removed when it is dropped before [`NewManifest::keep`].
struct NewManifest {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl NewManifest {
    /// The file must not exist.
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create_new(path).map_err(|error| named(path, &error))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            kept: false,
        })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewManifest {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::warn!("{}: half a manifest is left: {error}", self.path.display());
        }
    }
}
