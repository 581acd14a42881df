//! What a person typed.
//!
//! Three grammars share the program: commands (`plyfs mount ...`); the form mount(8) uses for every file system (`plyfs
//! SOURCE MERGED -o words`); and that of container engines (`plyfs -o words TARGET`, or any line under the name
//! `fuse-overlayfs`). The name and the first word decide.

mod call;
mod compare;
mod container;
mod doctor;
mod engine;
mod explain;
mod explain_page;
mod generate;
mod image;
mod inspect;
mod layer;
mod lesson;
mod limits;
mod list;
mod mount;
mod mount_helper;
mod output;
mod page;
mod progress;
mod store;
mod system;
mod trace;
mod trial;
mod umount;
mod unshare;
mod upper;

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The exit status of a command line that makes no sense, as clap has it.
const WRONG_USAGE: u8 = 2;

const ABOUT: &str = "Merge a read-only directory and a writable one into one view";

const LONG_ABOUT: &str = "\
Merge a read-only directory and a writable one into one view.

A view shows the content of a lower directory, which is never written, with the changes kept in an upper directory \
laid over it. It follows the rules of the Linux kernel's overlay file system, and needs no privilege.";

const EXAMPLES: &str = "\
Examples:
  plyfs mount /srv/base          change /srv/base at will, in a fresh directory
  plyfs mount /srv/base ~/view   the same, in a directory of your own
  plyfs mount /srv/base ~/view --upper ~/changes --work ~/work
  plyfs list                     what is mounted, and what it has done
  plyfs umount ~/view            unmount; returns when everything is on disk

The form of mount(8), for fstab and as a drop-in for 'mount -t overlay':
  plyfs [SOURCE] MERGED -o lowerdir=LOWER,upperdir=UPPER,workdir=WORK
  mount -t fuse.plyfs SOURCE MERGED -o lowerdir=LOWER[,WORDS]
'plyfs mount --help' explains the words.

The form of fuse-overlayfs, for container engines, also under that name:
  plyfs -o lowerdir=A:B:C,upperdir=UPPER,workdir=WORK[,WORDS] TARGET

Exit status: 0 done, 1 failed (the reason is on standard error), 2 wrong usage.";

/// The commands.
#[derive(Debug, Parser)]
#[command(name = "plyfs", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// Where images and containers are kept [default: ~/.local/share/plyfs, for root /var/lib/plyfs].
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PLYFS_ROOT",
        hide_env_values = true
    )]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mount(mount::MountArgs),
    Umount(umount::UmountArgs),
    List(list::ListArgs),
    Explain(explain::ExplainArgs),
    Trace(trace::TraceArgs),
    Image(image::ImageArgs),
    Container(container::ContainerArgs),
    System(system::SystemArgs),
    Layer(layer::LayerArgs),
    Lesson(lesson::LessonArgs),
    Try(trial::TryArgs),
    Upper(upper::UpperArgs),
    Engine(engine::EngineArgs),
    Doctor(doctor::DoctorArgs),
    Unshare(unshare::UnshareArgs),
    Compare(compare::CompareArgs),
    /// A process of 'plyfs compare' that does the steps.
    #[command(name = crate::compare::WORKER, hide = true)]
    CompareWorker,
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

/// Why a command did not do what was asked.
#[derive(Debug)]
enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// It could not be done.
    Failed(String),
    /// Everything has been said; the exit status is that of a command that was run.
    Status(u8),
}

impl Failure {
    fn usage(reason: impl Display) -> Self {
        Self::Usage(reason.to_string())
    }
}

impl From<crate::mount::MountError> for Failure {
    fn from(error: crate::mount::MountError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<crate::builder::BuildError> for Failure {
    fn from(error: crate::builder::BuildError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<crate::upper::UpperError> for Failure {
    fn from(error: crate::upper::UpperError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<crate::mount::OptionError> for Failure {
    fn from(error: crate::mount::OptionError) -> Self {
        Self::usage(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Does what the command line says.
#[must_use]
pub fn run(mut arguments: Vec<OsString>) -> ExitCode {
    if mount_helper::is_meant(arguments.first()) {
        return mount_helper::run(arguments);
    }
    let called = crate::engine::is_call(&arguments);
    if !called {
        trial::translate(&mut arguments);
    }
    let done = if called {
        call::run(&arguments)
    } else if is_command(arguments.get(1)) {
        match Cli::try_parse_from(arguments) {
            Ok(cli) => cli.run(),
            Err(error) => return say(&error),
        }
    } else {
        match mount::KernelForm::try_parse_from(arguments) {
            Ok(form) => form.run(),
            Err(error) => return say(&error),
        }
    };
    exit_status(done)
}

/// Says why it failed, and makes the exit status of it.
fn exit_status(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(reason)) => {
            eprintln!("plyfs: {reason}\nTry 'plyfs --help'.");
            ExitCode::from(WRONG_USAGE)
        }
        Err(Failure::Failed(reason)) => {
            eprintln!("plyfs: {reason}");
            ExitCode::FAILURE
        }
        Err(Failure::Status(status)) => ExitCode::from(status),
    }
}

/// Whether the command grammar is meant: a known command, a request for help or the version, or nothing at all.
fn is_command(first: Option<&OsString>) -> bool {
    let Some(first) = first else { return true };
    if matches!(
        first.to_str(),
        Some("help" | "-h" | "--help" | "-V" | "--version" | "--root")
    ) || first.as_encoded_bytes().starts_with(b"--root=")
    {
        return true;
    }
    Cli::command()
        .get_subcommands()
        .any(|command| first == command.get_name())
}

/// Help and versions go to standard output with status 0, everything else to standard error with status 2.
fn say(error: &clap::Error) -> ExitCode {
    let status = if error.use_stderr() { WRONG_USAGE } else { 0 };
    // A closed pipe behind 'plyfs --help | head' is not worth a word.
    error.print().ok();
    ExitCode::from(status)
}

impl Cli {
    fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Mount(arguments) => arguments.run(),
            Command::Umount(arguments) => arguments.run(),
            Command::List(arguments) => arguments.run(),
            Command::Explain(arguments) => arguments.run(),
            Command::Trace(arguments) => arguments.run(),
            Command::Image(arguments) => arguments.run(self.root.as_deref()),
            Command::Container(arguments) => arguments.run(self.root.as_deref()),
            Command::System(arguments) => arguments.run(self.root.as_deref()),
            Command::Layer(arguments) => arguments.run(),
            Command::Lesson(arguments) => arguments.run(),
            Command::Try(arguments) => arguments.run(),
            Command::Upper(arguments) => arguments.run(),
            Command::Engine(arguments) => arguments.run(),
            Command::Doctor(arguments) => arguments.run(self.root.as_deref()),
            Command::Unshare(arguments) => arguments.run(self.root.as_deref()),
            Command::Compare(arguments) => arguments.run(),
            Command::CompareWorker => Ok(crate::compare::worker()?),
            Command::Completions(arguments) => arguments.run(&mut Self::command()),
            Command::Man(arguments) => arguments.run(Self::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammars_are_sound() {
        Cli::command().debug_assert();
        mount::KernelForm::command().debug_assert();
        mount_helper::HelperForm::command().debug_assert();
    }

    #[test]
    fn the_first_word_decides() {
        let command = |word: &str| is_command(Some(&OsString::from(word)));
        assert!(is_command(None));
        assert!(command("mount") && command("umount") && command("list") && command("--version"));
        assert!(!command("-o") && !command("overlay") && !command("/srv/base"));
    }
}
