//! `plyfs umount`.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::mount::unmount::{Unmounted, unmount};

const EXAMPLES: &str = "\
Examples:
  plyfs umount ~/view          when it returns, every change is on disk
  plyfs umount --lazy ~/view   out of sight now; the server leaves with the last
                               user of the view

A view whose server was killed answers 'Transport endpoint is not connected';
this command clears it, too. umount(8) and 'fusermount3 -u' work as well, but do
not wait for the server. A view of another user's server is not waited for.";

/// Unmount a view and wait until everything is on disk.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UmountArgs {
    /// The mount points.
    #[arg(required = true)]
    merged: Vec<PathBuf>,
    /// Take the view out of sight even though it is in use.
    #[arg(long, short)]
    lazy: bool,
}

impl UmountArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        env_logger::init();
        for merged in &self.merged {
            let waiting = |pid| {
                eprintln!(
                    "plyfs: {}: waiting for process {pid} to write its changes to disk",
                    merged.display()
                );
            };
            if let Unmounted::StillUsed { pid } = unmount(merged, self.lazy, waiting)? {
                eprintln!(
                    "plyfs: {}: still in use; process {pid} serves it to its last user",
                    merged.display()
                );
            }
        }
        Ok(())
    }
}
