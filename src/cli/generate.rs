//! `plyfs completions` and `plyfs man`, both made from the grammar itself.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Failure;
use super::output::print;

const COMPLETION_EXAMPLES: &str = "\
Examples:
  plyfs completions bash > ~/.local/share/bash-completion/completions/plyfs
  plyfs completions zsh > ~/.zfunc/_plyfs
  plyfs completions fish > ~/.config/fish/completions/plyfs.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  plyfs man | man -l -                      read the page of plyfs itself
  plyfs man --dir ~/.local/share/man/man1   write one page for each command; then 'man plyfs-mount'";

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = COMPLETION_EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

impl CompletionsArgs {
    pub(super) fn run(self, command: &mut Command) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, command, "plyfs", &mut text);
        Ok(print(&text)?)
    }
}

/// Print the manual page, or write one for each command.
#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(super) struct ManArgs {
    /// Write plyfs.1, plyfs-mount.1 and so on to this directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl ManArgs {
    pub(super) fn run(self, command: Command) -> Result<(), Failure> {
        match self.dir {
            None => {
                let mut page = Vec::new();
                Man::new(command).render(&mut page)?;
                Ok(print(&page)?)
            }
            Some(dir) => write_pages(command, &dir),
        }
    }
}

fn write_pages(command: Command, dir: &Path) -> Result<(), Failure> {
    let named = |path: &Path, error: std::io::Error| Failure::Failed(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(dir).map_err(|error| named(dir, error))?;
    clap_mangen::generate_to(command.disable_help_subcommand(true), dir).map_err(|error| named(dir, error))
}
