//! `plyfs image build`.

use std::io::{IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::builder::Progress;
use crate::cli::Failure;
use crate::cli::output::print;
use crate::cli::progress::Bar;
use crate::cli::store::open;
use crate::store::Name;
use crate::store::build::context::{FileGiven, Given};
use crate::store::build::{ImageBuildError, Reason, Report, Request, build};
use crate::store::runtime::Network;

const EXAMPLES: &str = "\
Examples:
  plyfs image build -t app .                 from ./Containerfile or ./Dockerfile
  plyfs image build -t app -f ci/app.containerfile --build-arg VERSION=3 .
  plyfs image build --target test .          only up to the stage 'test'
  tar c . | plyfs image build -t app -       the context as an archive

Each step that changes files makes one layer, in which files that did not change
are hard links to the layer below. A step that was done before, with the same
files, is taken from the cache. RUN needs crun or runc on PATH.

What .containerignore (or .dockerignore, or FILE.dockerignore) names is no part
of the context. Nothing is downloaded. Set SOURCE_DATE_EPOCH to date everything
new alike: the same files then give the same image id.";

/// Build an image from a Containerfile, and print its id.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BuildArgs {
    /// The directory that COPY and ADD take files from, or - for a tar archive on standard input.
    context: PathBuf,
    /// The Containerfile, - for standard input [default: Containerfile or Dockerfile in the context].
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// A name for the image; may be given several times.
    #[arg(long, short, value_name = "NAME")]
    tag: Vec<String>,
    /// A value for an ARG; without =VALUE the one in the environment.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Build up to this stage, a name or number [default: the last].
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Do every step, whether it was done before or not.
    #[arg(long)]
    no_cache: bool,
    /// The network that RUN sees.
    #[arg(long, value_enum, default_value_t = Net::Host)]
    network: Net,
    /// Write the image's id to this file.
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Print nothing but the id, and what fails.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Net {
    /// The machine's.
    Host,
    /// Nothing but a loopback device.
    None,
}

impl From<ImageBuildError> for Failure {
    fn from(error: ImageBuildError) -> Self {
        let text = error.to_string();
        match *error.reason {
            Reason::Store(store) => match Self::from(store) {
                Self::Usage(_) => Self::Usage(text),
                Self::Failed(_) | Self::Status(_) => Self::Failed(text),
            },
            _ => Self::Failed(text),
        }
    }
}

impl BuildArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let dash = |path: &Path| path.as_os_str() == "-";
        let file = match self.file {
            None => FileGiven::Usual,
            Some(path) if dash(&path) => FileGiven::Input,
            Some(path) => FileGiven::Path(path),
        };
        let context = if dash(&self.context) {
            Given::Archive
        } else {
            Given::Directory(self.context)
        };
        match (&context, &file) {
            (Given::Archive, FileGiven::Input) => {
                return Err(Failure::usage(
                    "context and Containerfile cannot both come from standard input",
                ));
            }
            (Given::Archive, _) | (_, FileGiven::Input) if std::io::stdin().is_terminal() => {
                return Err(Failure::usage(
                    "standard input is a terminal, and '-' asks for an archive or a Containerfile there",
                ));
            }
            _ => {}
        }
        let request = Request {
            context,
            file,
            tags: self
                .tag
                .iter()
                .map(|tag| tag.parse::<Name>())
                .collect::<Result<_, _>>()?,
            args: self
                .build_args
                .iter()
                .map(|arg| pair(arg))
                .collect::<Result<_, _>>()?,
            target: self.target,
            no_cache: self.no_cache,
            network: match self.network {
                Net::Host => Network::Host,
                Net::None => Network::None,
            },
            epoch: epoch()?,
        };
        let store = open(root)?;
        let output = if self.quiet { Some(silence()?) } else { None };
        let mut report = Lines {
            quiet: self.quiet,
            failed: None,
        };
        let id = build(&store, &request, &mut report)?;
        if let Some(error) = report.failed {
            return Err(error.into());
        }
        let id = format!("{id}\n");
        if let Some(path) = &self.iidfile {
            std::fs::write(path, id.trim_end())
                .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))?;
        }
        if !self.quiet {
            for tag in &request.tags {
                print(format!("Tagged {tag}\n").as_bytes())?;
            }
        }
        match output {
            Some(output) => Ok(std::fs::File::from(output).write_all(id.as_bytes())?),
            None => Ok(print(id.as_bytes())?),
        }
    }
}

/// `NAME=VALUE`, or `NAME` for the value in the environment.
fn pair(text: &str) -> Result<(String, String), Failure> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, std::env::var(text).ok()),
    };
    match (name, value) {
        ("", _) => Err(Failure::usage(format!(
            "--build-arg {text}: there is no name before the ="
        ))),
        (name, Some(value)) => Ok((name.to_owned(), value)),
        (name, None) => Err(Failure::usage(format!(
            "--build-arg {name}: it has no value, and there is no {name} in the environment"
        ))),
    }
}

fn epoch() -> Result<Option<i64>, Failure> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    match seconds {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Failure::usage(format!(
            "SOURCE_DATE_EPOCH is {}: a number of seconds is expected",
            text.display()
        ))),
    }
}

/// Sends what commands print nowhere; answers where it went before.
fn silence() -> Result<OwnedFd, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot silence the output: {error}"));
    let before =
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(|errno| failed(errno.into()))?;
    let nowhere = std::fs::File::options()
        .write(true)
        .open("/dev/null")
        .map_err(failed)?;
    rustix::stdio::dup2_stdout(&nowhere).map_err(|errno| failed(errno.into()))?;
    Ok(before)
}

/// Prints the course of a build as lines.
struct Lines {
    quiet: bool,
    /// Standard output is full or gone: told at the end.
    failed: Option<std::io::Error>,
}

impl Lines {
    fn line(&mut self, line: &str) {
        if !self.quiet
            && let Err(error) = print(format!("{line}\n").as_bytes())
        {
            self.failed.get_or_insert(error);
        }
    }
}

impl Report for Lines {
    fn step(&mut self, line: &str) {
        self.line(line);
    }

    fn note(&mut self, line: &str) {
        self.line(line);
    }

    fn warn(&mut self, line: &str) {
        eprintln!("plyfs: {line}");
    }

    fn progress(&mut self) -> Box<dyn Progress> {
        Box::new(Bar::new())
    }
}
