//! `plyfs unshare`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use clap::Args;

use super::{Failure, store};
use crate::store::userns;

const EXAMPLES: &str = "\
Examples:
  plyfs unshare                              a shell
  plyfs unshare ls -l \"$(plyfs container mount web)\"
  plyfs unshare plyfs layer clone base copy  the owners of all files are kept

Root has no need of it: the command is run as it is.";

/// Run a command, or a shell, where this user is root of its own store.
///
/// The files of an image belong to many ids, which an ordinary user has only inside a user namespace. All commands on
/// the store go there by themselves; this one takes you along. Mounted containers are seen there, too.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UnshareArgs {
    /// The command and its arguments [default: $SHELL].
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl UnshareArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        env_logger::init();
        userns::enter(&store::place(root)?)?;
        let mut words = self.command.into_iter();
        let program = words
            .next()
            .or_else(|| std::env::var_os("SHELL").filter(|shell| !shell.is_empty()))
            .unwrap_or_else(|| "/bin/sh".into());
        // Comes back only if it failed.
        let error = Command::new(&program).args(words).exec();
        Err(Failure::Failed(format!(
            "cannot run {}: {error}",
            program.display()
        )))
    }
}
