//! `plyfs try`.

mod ask;
mod show;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use self::ask::Choice;
use super::Failure;
use super::output::{Table, print, print_json};
use super::progress::Bar;
use crate::mount::JsonPath;
use crate::trial::{self, Trial, TrialError, Wanted};
use crate::upper::UpperError;

const EXAMPLES: &str = "\
Examples:
  plyfs try -- make install            on a view of the working directory
  plyfs try -C ~/project -- sh
  sudo plyfs try --root --net -- apt-get install hello
  plyfs try --later --name big -- ./migrate && plyfs try --resume big -- ./check
  plyfs try ls                         trials that wait for a decision
  plyfs try show 1 --diff
  plyfs try keep 1 && plyfs try undo 1
  plyfs try drop 1

Only what is below DIR is thrown away: what the command writes elsewhere is real. With
--root that is everything that can be layered; /proc and /dev are the machine's. This
is no prison for hostile programs. In words: docs/try.md.

Without a terminal, and without --keep or --drop, the changes are left for later.

Exit status: the command's; 125 if plyfs failed, 126 if the command cannot be run,
127 if there is none of that name; 2 if the command line makes no sense.";

/// Run a command on a throw-away view of a directory, and decide afterwards.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(super) struct TryArgs {
    #[command(subcommand)]
    command: Option<Verb>,
    /// The directory [default: the working directory].
    #[arg(short = 'C', long = "directory", value_name = "DIR", conflicts_with_all = ["whole", "resume"])]
    dir: Option<PathBuf>,
    /// The whole root file system, with what is mounted in it; before `--`, `--root` means the same.
    #[arg(long = "whole-root", id = "whole", conflicts_with = "resume")]
    whole: bool,
    /// Leave the command the machine's network.
    #[arg(long)]
    net: bool,
    /// What the trial is called [default: a number].
    #[arg(long, value_name = "NAME", conflicts_with = "resume")]
    name: Option<String>,
    /// Go on with a trial that was left for later.
    #[arg(long, value_name = "NAME")]
    resume: Option<String>,
    /// Show the differences of text files, too.
    #[arg(long)]
    diff: bool,
    /// Keep all changes, if the command succeeds.
    #[arg(long, group = "decision")]
    keep: bool,
    /// Drop all changes.
    #[arg(long, group = "decision")]
    drop: bool,
    /// Leave the changes for later.
    #[arg(long, group = "decision")]
    later: bool,
    /// The command and its arguments [default: $SHELL].
    #[arg(last = true, value_name = "CMD")]
    words: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the trials.
    Ls {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Show what a trial changed.
    Show {
        /// The trial.
        name: String,
        /// Show the differences of text files, too.
        #[arg(long)]
        diff: bool,
        /// For programs.
        #[arg(long, conflicts_with = "diff")]
        json: bool,
    },
    /// Keep the changes of a trial, all or those at and below some paths.
    Keep {
        /// The trial.
        name: String,
        /// Whole paths, or paths from the working directory.
        paths: Vec<PathBuf>,
        /// Also over what somebody changed underneath in the meantime.
        #[arg(long)]
        force: bool,
    },
    /// Take back what was kept.
    Undo {
        /// The trial.
        name: String,
    },
    /// Drop trials, and what is kept to undo them.
    Drop {
        /// The trials.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// `plyfs try --root` has no directory, unlike the `--root DIR` of all other commands: here it is another option.
pub(super) fn translate(arguments: &mut [OsString]) {
    if arguments.get(1).is_none_or(|first| first != "try") {
        return;
    }
    for word in arguments.iter_mut().take_while(|word| *word != "--") {
        if word == "--root" {
            *word = "--whole-root".into();
        }
    }
}

impl From<TrialError> for Failure {
    fn from(error: TrialError) -> Self {
        Self::Failed(error.to_string())
    }
}

#[derive(Serialize)]
struct Line {
    name: String,
    dir: JsonPath,
    kept: bool,
    status: Option<u8>,
}

impl TryArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        env_logger::init();
        match self.command {
            None => self.start().map_err(told),
            Some(Verb::Ls { json }) => list(json),
            Some(Verb::Show { name, diff, json }) => {
                let trial = Trial::find(&name)?;
                let changes = trial.changes()?;
                if json {
                    return print_json(&show::records(&changes));
                }
                Ok(print(show::text(&trial, &changes, diff)?.as_bytes())?)
            }
            Some(Verb::Keep { name, paths, force }) => keep(Trial::find(&name)?, &paths, force),
            Some(Verb::Undo { name }) => {
                Trial::find(&name)?.undo()?;
                say(&format!(
                    "trial {name}: what was kept is taken back; its changes wait again"
                ))
            }
            Some(Verb::Drop { names }) => {
                for name in names {
                    Trial::find(&name)?.drop_all()?;
                }
                Ok(())
            }
        }
    }

    fn start(self) -> Result<(), Failure> {
        let mut trial = match &self.resume {
            Some(name) => {
                let trial = Trial::find(name)?;
                if trial.kept() {
                    return Err(Failure::Failed(format!(
                        "trial {name} is kept: 'plyfs try undo {name}' takes that back, 'plyfs try drop {name}' forgets it"
                    )));
                }
                trial
            }
            None => Trial::make(&Wanted {
                dir: match (&self.dir, self.whole) {
                    (_, true) => PathBuf::from("/"),
                    (Some(dir), _) => dir.clone(),
                    (None, _) => PathBuf::from("."),
                },
                name: self.name.clone(),
            })?,
        };
        let command = if self.words.is_empty() {
            let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
            vec![shell.unwrap_or_else(|| "/bin/sh".into())]
        } else {
            self.words.clone()
        };
        let status = match trial::run(&trial, &command, self.net) {
            Ok(status) => status,
            Err(error) => {
                // Nothing ran in a new one.
                if self.resume.is_none() {
                    trial.remove()?;
                }
                return Err(error.into());
            }
        };
        trial.ended(status)?;
        self.decide(trial, status)?;
        match status {
            0 => Ok(()),
            status => Err(Failure::Status(status)),
        }
    }

    fn decide(&self, trial: Trial, status: u8) -> Result<(), Failure> {
        let changes = trial.changes()?;
        if changes.is_empty() {
            eprintln!("plyfs: nothing changed");
            return Ok(trial.drop_all()?);
        }
        eprint!("{}", show::text(&trial, &changes, self.diff)?);
        let choice = if self.keep && status != 0 {
            eprintln!(
                "plyfs: the command failed with status {status}, so its changes are not kept by themselves"
            );
            Choice::Later
        } else if self.keep {
            Choice::Keep(Vec::new())
        } else if self.drop {
            Choice::Drop
        } else if self.later {
            Choice::Later
        } else {
            ask::ask(&trial, &changes)?
        };
        match choice {
            Choice::Keep(paths) => keep(trial, &paths, false),
            Choice::Drop => Ok(trial.drop_all()?),
            Choice::Later => {
                let name = trial.name();
                eprintln!(
                    "plyfs: left for later as trial {name}: 'plyfs try keep {name}', 'plyfs try drop {name}', or 'plyfs try \
                     --resume {name}'"
                );
                Ok(())
            }
        }
    }
}

fn say(text: &str) -> Result<(), Failure> {
    Ok(print(format!("{text}\n").as_bytes())?)
}

fn keep(mut trial: Trial, paths: &[PathBuf], force: bool) -> Result<(), Failure> {
    let paths = paths
        .iter()
        .map(std::path::absolute)
        .collect::<Result<Vec<_>, _>>()?;
    let done = trial.keep(&paths, force, &Bar::new());
    let name = trial.name();
    let done = done.map_err(|error| match error {
        TrialError::Upper(UpperError::Changed { .. }) => Failure::Failed(format!(
            "{error}; 'plyfs try keep {name} PATH...' keeps other changes, 'plyfs try keep --force {name}' these too"
        )),
        error => error.into(),
    })?;
    eprintln!(
        "plyfs: kept: {} added, {} changed, {} deleted; 'plyfs try undo {name}' takes it back, 'plyfs try drop {name}' \
         frees the room",
        done.added, done.changed, done.deleted
    );
    Ok(())
}

fn list(json: bool) -> Result<(), Failure> {
    let trials = trial::all()?;
    if json {
        let lines: Vec<Line> = trials
            .iter()
            .map(|trial| Line {
                name: trial.name().to_owned(),
                dir: JsonPath::from(trial.dir().as_path()),
                kept: trial.kept(),
                status: trial.status(),
            })
            .collect();
        return print_json(&lines);
    }
    let mut table = Table::new(&["NAME", "DIRECTORY", "COMMAND ENDED", "STATE"]);
    for trial in &trials {
        table.row(vec![
            trial.name().to_owned(),
            trial.dir().display().to_string(),
            trial
                .status()
                .map_or_else(|| "-".to_owned(), |status| status.to_string()),
            if trial.kept() {
                "kept, can be undone"
            } else {
                "waits"
            }
            .to_owned(),
        ]);
    }
    Ok(print(table.finish().as_bytes())?)
}

/// Says why it failed, with a status that no command is likely to have.
fn told(failure: Failure) -> Failure {
    match failure {
        Failure::Failed(reason) => {
            eprintln!("plyfs: {reason}");
            Failure::Status(125)
        }
        other => other,
    }
}

/// A whole path without what a terminal would obey.
fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    crate::builder::TreePath::from_clean(bytes.strip_prefix(b"/").unwrap_or(bytes)).to_string()
}
