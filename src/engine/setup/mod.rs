//! Telling an engine to mount by plyfs, and taking that back.
//!
//! ```text
//!   podman, buildah   storage.conf: driver = "overlay", and mount_program = PROGRAM for it
//!   docker            daemon.json: "storage-driver": "fuse-overlayfs"; and in dockerd's PATH
//!                     a link fuse-overlayfs -> PROGRAM
//! ```
//!
//! Everything else that stands in these files stays as it is, byte for byte. Beside the file a record (`NAME.plyfs`)
//! keeps what was there before, by which [`undo`] brings that back.

mod docker;
mod link;
mod podman;
mod record;
mod text;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use docker::Daemon;
pub use podman::Storage;
use record::{Change, Record};
pub use text::Syntax;

/// The engines that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// podman and buildah, and what else uses containers/storage.
    Podman,
    /// dockerd.
    Docker,
}

impl Engine {
    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }
}

/// Whose engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The machine's, configured in /etc.
    System,
    /// This user's own, without root.
    User,
}

/// Why an engine was not set up.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel's reason.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// A configuration that the engine itself could not read.
    #[error("{} is no valid {syntax}, so the engine cannot read it either: {reason}: mend it first", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// TOML or JSON.
        syntax: Syntax,
        /// Where and what.
        reason: String,
    },
    /// Something that has to be decided by a person.
    #[error("{0}")]
    Refused(String),
}

impl EngineError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io {
            what,
            path: path.to_owned(),
            error,
        }
    }
}

type Result<T> = std::result::Result<T, EngineError>;

/// What a set-up would do.
#[derive(Debug)]
pub struct Plan {
    /// Which engine.
    pub engine: Engine,
    /// The file, all symlinks resolved.
    pub config: PathBuf,
    /// What it will hold.
    pub text: String,
    /// A link by which the engine finds the program.
    pub link: Option<PathBuf>,
    /// The program, an absolute path.
    pub program: PathBuf,
    /// What a person should know.
    pub remarks: Vec<String>,
    /// What is in the file now; none if there is no file.
    before: Option<String>,
    /// The link has to be made.
    link_missing: bool,
    changes: Vec<Change>,
    syntax: Syntax,
}

/// What became of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was written.
    Set,
    /// It said so already; nothing was written.
    Already,
    /// What was there before is back.
    Undone,
    /// There was nothing to take back.
    Nothing,
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub state: State,
    /// The configuration.
    pub config: PathBuf,
    /// The record beside it, by which this can be undone.
    pub record: Option<PathBuf>,
    /// The link that was made, or taken away.
    pub link: Option<PathBuf>,
    /// What a person should know.
    pub remarks: Vec<String>,
}

/// What has to be known for a set-up, apart from the engine.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose engine.
    pub scope: Scope,
    /// The program that shall mount: an absolute path of a file that can be run.
    pub program: PathBuf,
    /// The directory for docker's link; none for the usual one.
    pub bin: Option<PathBuf>,
}

/// Finds out what would be written.
///
/// # Errors
/// When the configuration cannot be read or understood, or something stands in the way that a person has to
/// decide about.
pub fn plan(engine: Engine, wanted: &Wanted) -> Result<Plan> {
    match engine {
        Engine::Podman => podman::plan(wanted),
        Engine::Docker => docker::plan(wanted),
    }
}

impl Plan {
    /// Writes the record, the link and the configuration, in this order: what is killed in between can be undone.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub fn carry_out(self) -> Result<Done> {
        let recorded = record::path(&self.config);
        let same = self.before.as_deref() == Some(self.text.as_str());
        let earlier = Record::read(&self.config)?;
        let done = |state| Done {
            state,
            config: self.config.clone(),
            record: (state == State::Set || earlier.is_some()).then(|| recorded.clone()),
            link: self.link.clone(),
            remarks: self.remarks.clone(),
        };
        if same && !self.link_missing {
            return Ok(done(State::Already));
        }
        let mut new = Record {
            note: format!(
                "What was here before 'plyfs engine setup {0}'; '--undo' needs it.",
                self.engine.name()
            ),
            before: self.before.clone(),
            after: self.text.clone(),
            changes: self.changes,
            made: Vec::new(),
            link: self.link.clone().filter(|_| self.link_missing),
        };
        if let Some(earlier) = earlier.clone() {
            new.follow(earlier, self.syntax);
        }
        if let Some(dir) = self.config.parent() {
            new.made.extend(record::make_dirs(dir)?);
        }
        new.write(&self.config)?;
        if self.link_missing
            && let Some(link) = &self.link
        {
            link::make(link, &self.program)?;
        }
        if !same {
            record::replace(&self.config, &self.text)?;
        }
        Ok(Done {
            state: State::Set,
            config: self.config.clone(),
            record: Some(recorded),
            link: self.link.clone(),
            remarks: self.remarks.clone(),
        })
    }
}

/// Brings back what was there before the first set-up.
///
/// # Errors
/// When the lines that were written have been changed since, or a file cannot be written.
pub fn undo(engine: Engine, scope: Scope) -> Result<Done> {
    let (config, syntax) = match engine {
        Engine::Podman => (podman::config(scope)?, Syntax::Toml),
        Engine::Docker => (docker::config(scope)?, Syntax::Json),
    };
    let config = record::resolve(&config)?;
    let now = record::read(&config)?;
    let mut done = Done {
        state: State::Nothing,
        config: config.clone(),
        record: None,
        link: None,
        remarks: Vec::new(),
    };
    let Some(record) = Record::read(&config)? else {
        if let Some(now) = &now
            && match engine {
                Engine::Podman => podman::names_plyfs(now),
                Engine::Docker => docker::names_us(now),
            }
        {
            return Err(EngineError::Refused(format!(
                "{} was not written by 'plyfs engine setup' (there is no {}): edit it by hand",
                config.display(),
                record::path(&config).display()
            )));
        }
        return Ok(done);
    };
    record.restore(&config, now.as_deref(), syntax)?;
    if let Some(link) = &record.link {
        match link::remove(link)? {
            link::Removed::Done => done.link = Some(link.clone()),
            link::Removed::NotOurs => done.remarks.push(format!(
                "{} is no longer the link that was made; it is left alone",
                link.display()
            )),
        }
    }
    record.forget(&config)?;
    done.state = State::Undone;
    match engine {
        Engine::Podman => done.remarks.extend(podman::after_undo(scope, &config)?),
        Engine::Docker => done.remarks.push(docker::restart(scope)),
    }
    Ok(done)
}

/// The file that a person edits: `variable`/`below` or `~/.config`/`below`.
fn in_home(below: &str) -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|dir| dir.join(below))
        .ok_or_else(|| {
            EngineError::Refused("there is no home directory: set HOME or XDG_CONFIG_HOME".to_owned())
        })
}

/// This user's data directory, by `XDG_DATA_HOME` or the usual one.
fn data_home() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
}

/// The program's path as a configuration can hold it.
fn as_text(program: &Path) -> Result<&str> {
    program.to_str().ok_or_else(|| {
        EngineError::Refused(format!(
            "{} is not UTF-8, which the engine's configuration cannot say: put the program elsewhere",
            program.display()
        ))
    })
}
