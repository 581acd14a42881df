//! `plyfs engine`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::Failure;
use super::output::{Fields, print, print_json};
use crate::engine::setup::{self, Done, Engine, EngineError, Scope, State, Wanted};
use crate::mount::{JsonPath, who};

const EXAMPLES: &str = "\
Examples:
  plyfs engine setup podman            root's podman and buildah, in /etc/containers/storage.conf;
                                       for an ordinary user his own, in ~/.config
  plyfs engine setup podman --print    only show what the file would hold
  plyfs engine setup docker            dockerd, in /etc/docker/daemon.json
  plyfs engine setup docker --user     a user's own dockerd (rootless docker)
  plyfs engine setup podman --undo     what was there before is back

Everything else in these files stays as it is. What was there before is kept beside
the file, in NAME.plyfs. --undo refuses if the lines that were written have been
changed since; other changes stay.

With --json, an object with engine, scope, state (set, already, undone or nothing),
config, record, link and program (paths or null), remarks (a list of texts); with
--print also text. A path that is not UTF-8 is a list of its bytes.";

/// Container engines.
#[derive(Debug, Args)]
pub(super) struct EngineArgs {
    #[command(subcommand)]
    command: EngineCommand,
}

#[derive(Debug, Subcommand)]
enum EngineCommand {
    Setup(SetupArgs),
}

/// The engines, as they are typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// podman and buildah, which share one configuration.
    Podman,
    /// The same.
    Buildah,
    /// dockerd, with its driver fuse-overlayfs.
    Docker,
}

/// Make a container engine mount by plyfs, or take that back.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct SetupArgs {
    /// The engine.
    #[arg(value_enum)]
    engine: Name,
    /// The engine of this ordinary user, which runs without root.
    #[arg(long)]
    user: bool,
    /// Bring back what was there before.
    #[arg(long, conflicts_with_all = ["print", "bin"])]
    undo: bool,
    /// Show what would be written, and write nothing.
    #[arg(long)]
    print: bool,
    /// For docker: where to put the link fuse-overlayfs, a directory in dockerd's PATH [default: /usr/local/bin; with --user
    /// the first one in PATH below the home directory].
    #[arg(long, value_name = "DIR")]
    bin: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The answer of `--json`.
#[derive(Serialize)]
struct Answer<'a> {
    engine: Engine,
    scope: Scope,
    state: Option<State>,
    config: JsonPath,
    record: Option<JsonPath>,
    link: Option<JsonPath>,
    program: Option<JsonPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    remarks: &'a [String],
}

impl EngineArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        env_logger::init();
        match self.command {
            EngineCommand::Setup(arguments) => arguments.run(),
        }
    }
}

impl SetupArgs {
    fn run(self) -> Result<(), Failure> {
        let engine = match self.engine {
            Name::Podman | Name::Buildah => Engine::Podman,
            Name::Docker => Engine::Docker,
        };
        if self.bin.is_some() && engine != Engine::Docker {
            return Err(Failure::usage(
                "--bin is for docker: podman is told the program's path",
            ));
        }
        let scope = scope(engine, self.user)?;
        if self.undo {
            let done = setup::undo(engine, scope)?;
            return self.tell(engine, scope, &done, None);
        }
        let program = this_program()?;
        let plan = setup::plan(
            engine,
            &Wanted {
                scope,
                program: program.clone(),
                bin: self.bin.clone(),
            },
        )?;
        if !self.print {
            let done = plan.carry_out()?;
            return self.tell(engine, scope, &done, Some(&program));
        }
        say(&plan.remarks);
        if self.json {
            return print_json(&Answer {
                engine,
                scope,
                state: None,
                config: plan.config.as_path().into(),
                record: None,
                link: plan.link.as_deref().map(JsonPath::from),
                program: Some(program.as_path().into()),
                text: Some(&plan.text),
                remarks: &plan.remarks,
            });
        }
        eprintln!("plyfs: {} would hold:", plan.config.display());
        Ok(print(plan.text.as_bytes())?)
    }

    fn tell(&self, engine: Engine, scope: Scope, done: &Done, program: Option<&Path>) -> Result<(), Failure> {
        if self.json {
            return print_json(&Answer {
                engine,
                scope,
                state: Some(done.state),
                config: done.config.as_path().into(),
                record: done.record.as_deref().map(JsonPath::from),
                link: done.link.as_deref().map(JsonPath::from),
                program: program.map(JsonPath::from),
                text: None,
                remarks: &done.remarks,
            });
        }
        let mut fields = Fields::default();
        let state = match done.state {
            State::Set => "mounts by plyfs from now on",
            State::Already => "mounts by plyfs already; nothing was changed",
            State::Undone => "is configured as it was before",
            State::Nothing => "was not set up by plyfs; nothing was changed",
        };
        fields.text(engine.name(), state);
        fields.path("config", &done.config, None);
        if let Some(link) = &done.link {
            let remark = (done.state == State::Undone).then_some("(removed)");
            fields.path("link", link, remark);
        }
        if let Some(program) = program {
            fields.path("program", program, None);
        }
        if let Some(record) = &done.record {
            fields.path("before", record, Some("(for --undo)"));
        }
        print(&fields.finish())?;
        say(&done.remarks);
        Ok(())
    }
}

fn say(remarks: &[String]) {
    for remark in remarks {
        eprintln!("plyfs: note: {remark}");
    }
}

/// Whose engine is meant: root's podman reads nothing in a home, and only root may write to /etc.
fn scope(engine: Engine, user: bool) -> Result<Scope, Failure> {
    match (who::is_true_root(), user, engine) {
        (true, false, _) => Ok(Scope::System),
        (true, true, _) => Err(Failure::usage(
            "--user is for the engine of an ordinary user: run it as that user",
        )),
        (false, true, _) | (false, false, Engine::Podman) => Ok(Scope::User),
        (false, false, Engine::Docker) => Err(Failure::usage(
            "dockerd is root's: run it as root, or with --user for a rootless dockerd of this user",
        )),
    }
}

/// Where this program lies, without links.
fn this_program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::Failed(format!("cannot find out where this program lies: {error}")))?;
    if program.is_file() {
        return Ok(program);
    }
    Err(Failure::Failed(format!(
        "{}: this program has been removed or replaced while it ran: start it again",
        program.display()
    )))
}
