//! `plyfs upper`: the changes of a view that is not mounted.

mod apply;
mod check;
mod diff;
mod drop;
mod vacuum;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use clap::{Args, Subcommand};

use super::Failure;
use super::layer::record;
use super::output::{print, print_json};
use crate::builder::TreePath;
use crate::builder::diff::Change;
use crate::format::Namespace;
use crate::mount::{JsonPath, private};
use crate::upper::Layers;

const EXAMPLES: &str = "\
Examples:
  plyfs upper diff --lower base --upper changes --work work
  plyfs upper check --lower base --upper changes --work work
  plyfs upper apply --lower base --upper changes --work work       into the lower
  plyfs upper apply --undo --lower base --upper changes --work work
  plyfs upper drop --lower base --upper changes --work work /etc/motd
  plyfs upper vacuum --lower base --upper changes --work work

Without --upper and --work the private ones that 'plyfs mount LOWER' made. None of
the layers may be in use by a live mount. In words: docs/upper.md.";

/// Tell, check, apply or drop the changes of a view that is not mounted.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct UpperArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Diff(diff::DiffArgs),
    Check(check::CheckArgs),
    Apply(apply::ApplyArgs),
    Drop(drop::DropArgs),
    Vacuum(vacuum::VacuumArgs),
}

impl UpperArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        env_logger::init();
        match self.command {
            Command::Diff(arguments) => arguments.run(),
            Command::Check(arguments) => arguments.run(),
            Command::Apply(arguments) => arguments.run(),
            Command::Drop(arguments) => arguments.run(),
            Command::Vacuum(arguments) => arguments.run(),
        }
    }
}

/// Prints the changes, a line or a record each.
fn tell(changes: &[Change], json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&changes.iter().map(record).collect::<Vec<_>>());
    }
    let mut text = String::new();
    for change in changes {
        text.push_str(&format!("{} {}\n", change.letter.as_char(), change.path));
    }
    Ok(print(text.as_bytes())?)
}

/// Which layers.
#[derive(Debug, Args)]
struct LayerPaths {
    /// The lower directory of the view.
    #[arg(long, value_name = "DIR")]
    lower: PathBuf,
    /// Its upper directory [default: the private one of the lower].
    #[arg(long, value_name = "DIR", requires = "work")]
    upper: Option<PathBuf>,
    /// Its work directory.
    #[arg(long, value_name = "DIR", requires = "upper")]
    work: Option<PathBuf>,
    /// The mount keeps its marks in user.overlay.*; told by the upper where it can be.
    #[arg(long)]
    userxattr: bool,
}

impl LayerPaths {
    fn open(&self) -> Result<Layers, Failure> {
        let namespace = self.userxattr.then_some(Namespace::User);
        let (upper, work) = match (&self.upper, &self.work) {
            (Some(upper), Some(work)) => (upper.clone(), work.clone()),
            _ => {
                let layers = private::find(&self.lower)?.ok_or_else(|| {
                    Failure::Failed(format!(
                        "{}: 'plyfs mount' has made no private upper for it: name --upper and --work",
                        self.lower.display()
                    ))
                })?;
                (layers.upper, layers.work)
            }
        };
        Ok(Layers::open(&self.lower, &upper, &work, namespace)?)
    }
}

/// A path of the view, as a person writes it: with or without a `/` in front.
pub(super) fn view_path(path: &Path) -> Result<TreePath, Failure> {
    let mut clean = TreePath::root();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean = clean.join(name.as_bytes()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Failure::usage(format!(
                    "{}: a path from the root of the view, without '..'",
                    path.display()
                )));
            }
        }
    }
    Ok(clean)
}

/// A path of the view for programs.
pub(super) fn json_path(path: &TreePath) -> JsonPath {
    let bytes = [b"/", path.as_bytes()].concat();
    JsonPath::from(Path::new(OsStr::from_bytes(&bytes)))
}
