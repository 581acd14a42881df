//! `plyfs container mount` and `umount`.

use std::path::Path;

use clap::Args;

use crate::cli::Failure;
use crate::cli::output::print;
use crate::cli::store::open;
use crate::mount::who;

/// Mount a container and print where its tree is seen.
///
/// It stays mounted until 'plyfs container umount'. An ordinary user's containers are mounted in the user's own
/// namespace: 'plyfs unshare' gives a shell in which they are seen.
#[derive(Debug, Args)]
pub(super) struct MountArgs {
    /// The container.
    container: String,
}

/// Unmount a container; when it returns, every change is on disk.
#[derive(Debug, Args)]
pub(super) struct UmountArgs {
    /// The containers.
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Take the view out of sight even though it is in use.
    #[arg(long, short)]
    lazy: bool,
}

impl MountArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let outside = !rustix::process::geteuid().is_root();
        // So that two first mounts do not each make a namespace.
        let turn = outside.then(crate::store::userns::turn).transpose()?;
        let store = open(root)?;
        let container = store.container(&self.container)?;
        let merged = container.mount()?;
        drop(turn);
        if outside && !who::is_true_root() {
            eprintln!("plyfs: it is seen inside 'plyfs unshare', where this user's containers are mounted");
        }
        let mut line = merged.into_os_string();
        line.push("\n");
        Ok(print(line.as_encoded_bytes())?)
    }
}

impl UmountArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        for reference in &self.containers {
            store.container(reference)?.unmount(self.lazy)?;
        }
        Ok(())
    }
}
