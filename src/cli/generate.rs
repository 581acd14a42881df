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
  plyfs man --dir ~/.local/share/man/man1   write one page for each command; then 'man plyfs-mount',
                                            'man plyfs-layer-clone'";

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
    /// Write plyfs.1, plyfs-mount.1, plyfs-layer-clone.1 and so on to this directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl ManArgs {
    pub(super) fn run(self, command: Command) -> Result<(), Failure> {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        let Some(dir) = self.dir else {
            return Ok(print(&page(&command)?)?);
        };
        let named =
            |path: &Path, error: std::io::Error| Failure::Failed(format!("{}: {error}", path.display()));
        std::fs::create_dir_all(&dir).map_err(|error| named(&dir, error))?;
        let mut commands = vec![&command];
        while let Some(command) = commands.pop() {
            commands.extend(
                command
                    .get_subcommands()
                    .filter(|below| below.get_name() != "help"),
            );
            let path = dir.join(format!(
                "{}.1",
                command.get_display_name().unwrap_or(command.get_name())
            ));
            std::fs::write(&path, page(command)?).map_err(|error| named(&path, error))?;
        }
        Ok(())
    }
}

/// The page of one command. Examples and notes keep their lines, which clap_mangen would fill.
fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(notes) = command.get_after_long_help().or(command.get_after_help()) {
        page.extend_from_slice(b".SH EXAMPLES AND NOTES\n.nf\n");
        page.extend_from_slice(verbatim(&notes.to_string()).as_bytes());
        page.extend_from_slice(b".fi\n");
    }
    Ok(page)
}

/// Text as roff shows it unchanged.
fn verbatim(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.lines()
        .map(|line| {
            let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
            format!("{guard}{line}\n")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roff_leaves_it_alone() {
        assert_eq!(verbatim("'a' \\: -o\n  .b"), "\\&'a' \\e: \\-o\n  .b\n");
    }
}
