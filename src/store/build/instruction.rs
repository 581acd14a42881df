//! What a Containerfile says, as plain values.

use super::heredoc::HereDoc;

/// A Containerfile.
#[derive(Debug)]
pub struct File {
    /// `ARG`s before the first FROM: name and default.
    pub global_args: Vec<(String, Option<String>)>,
    /// The stages, in order; at least one.
    pub stages: Vec<Stage>,
    /// The escape character.
    pub escape: char,
}

/// One FROM and what follows it.
#[derive(Debug)]
pub struct Stage {
    /// Line of the FROM, from 1.
    pub line: usize,
    /// The FROM as it was typed.
    pub text: String,
    /// What it builds on, not yet expanded.
    pub image: String,
    /// `--platform`, not yet expanded.
    pub platform: Option<String>,
    /// The name after AS, in small letters.
    pub name: Option<String>,
    /// The instructions.
    pub steps: Vec<Step>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its line, from 1.
    pub line: usize,
    /// As it was typed, continuations joined, here-documents left out.
    pub text: String,
    /// What it asks for.
    pub instruction: Instruction,
}

/// What a step asks for. Texts are as typed: variables and quotes are still in them, except where noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Names and defaults.
    Arg(Vec<(String, Option<String>)>),
    /// Names and values.
    Env(Vec<(String, String)>),
    /// Names and values.
    Label(Vec<(String, String)>),
    /// Files from the context, a stage or an image.
    Copy(Copy),
    /// As COPY, and archives are unpacked.
    Add(Copy),
    /// A command.
    Run(Run),
    /// The default arguments or command.
    Cmd(Command),
    /// The program of the image.
    Entrypoint(Command),
    /// What runs the shell form; not expanded.
    Shell(Vec<String>),
    /// Ports.
    Expose(Vec<String>),
    /// Directories that hold data from elsewhere.
    Volume(Vec<String>),
    /// Who runs commands.
    User(String),
    /// Where commands run.
    Workdir(String),
    /// What stops a container.
    Stopsignal(String),
    /// Options by name, and the command; none for NONE.
    Healthcheck(Vec<(String, String)>, Option<Command>),
    /// An instruction for images built on this one.
    Onbuild(String),
    /// Who wrote it.
    Maintainer(String),
}

/// A command in one of its two forms; never expanded by the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `["program", "argument"]`
    Exec(Vec<String>),
    /// A line for the shell.
    Shell(String),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: Command,
    /// The here-documents in it, in order.
    pub docs: Vec<HereDoc>,
    /// `--network`.
    pub network: Option<String>,
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// `--from`: a stage or an image; never expanded.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--exclude`, any number.
    pub excludes: Vec<String>,
    /// What to copy; at least one.
    pub sources: Vec<Source>,
    /// Where to.
    pub destination: String,
}

/// One source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path, or for ADD an address.
    Path(String),
    /// A file written in the Containerfile.
    Inline(HereDoc),
}
