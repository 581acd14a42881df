//! `plyfs container create`, and the options it shares with `run`.

use std::path::Path;

use clap::Args;

use crate::cli::Failure;
use crate::cli::output::print;
use crate::cli::store::open;
use crate::store::Store;
use crate::store::container::{Container, HostSettings, Wish};
use crate::store::runtime::Volume;

const EXAMPLES: &str = "\
Examples:
  plyfs container create --name web debian
  plyfs container create -e LANG=C.UTF-8 -w /srv debian ls -l

The id is printed. 'plyfs container mount' shows the tree of the container, and
'plyfs container start' runs its command.";

/// Make a container of an image.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Remove it when its command has ended.
    #[arg(long = "rm")]
    remove: bool,
}

/// How a container is to be.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// Its name [default: an invented one].
    #[arg(long)]
    name: Option<String>,
    /// Set a variable; NAME alone takes the value it has here. May be given several times.
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Where the command starts.
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it: a name or number of the image, and perhaps a group.
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Another program instead of the image's entry point; "" for none.
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// The host name it sees [default: the beginning of its id].
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Show a directory or file of this machine inside. May be given several times.
    #[arg(long, short, value_name = "SOURCE:TARGET[:ro]")]
    volume: Vec<Volume>,
    /// The network it sees: this machine's, or none.
    #[arg(long, value_name = "host|none", default_value = "host", value_parser = ["host", "none"])]
    network: String,
    /// Give it a terminal.
    #[arg(long, short)]
    tty: bool,
    /// Give it the standard input.
    #[arg(long, short)]
    interactive: bool,
    /// Refuse changes of its root file system.
    #[arg(long)]
    read_only: bool,
    /// The image: a name, an id, or the beginning of an id.
    image: String,
    /// The command, instead of the image's.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Wanted {
    pub(super) fn create(self, store: &Store, auto_remove: bool) -> Result<Container<'_>, Failure> {
        let image = store.image(&self.image)?;
        let mut env = Vec::new();
        for variable in self.env {
            if variable.contains('=') {
                env.push(variable);
            } else if let Some(value) = std::env::var_os(&variable) {
                let value = value
                    .into_string()
                    .map_err(|_| Failure::usage(format!("--env {variable}: its value is not UTF-8")))?;
                env.push(format!("{variable}={value}"));
            }
        }
        let wish = Wish {
            name: self.name,
            image: self.image,
            cmd: self.command,
            entrypoint: self.entrypoint.map(|program| {
                Some(program)
                    .filter(|program| !program.is_empty())
                    .into_iter()
                    .collect()
            }),
            env,
            working_dir: self.workdir,
            user: self.user,
            hostname: self.hostname,
            tty: self.tty,
            stdin: self.interactive,
            host: HostSettings {
                binds: self.volume.iter().map(ToString::to_string).collect(),
                network_mode: self.network,
                readonly_rootfs: self.read_only,
                auto_remove,
            },
        };
        Ok(store.create_container(&image, wish)?)
    }
}

impl CreateArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        let container = self.wanted.create(&store, self.remove)?;
        Ok(print(format!("{}\n", container.record.id).as_bytes())?)
    }
}
