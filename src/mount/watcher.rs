//! `auto_unmount`: a small process that waits for the server's end, and takes the mount away if the server could
//! not.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::pipe::{PipeFlags, pipe_with};

use super::error::MountError;
use super::take_down::TakeDown;
use crate::sys::fusedev::{Forked, exit_now, fork, keep_only};

/// The server's end of a pipe to the watcher; the kernel closes it however the server ends.
#[derive(Debug)]
pub(super) struct Watcher {
    pipe: File,
}

impl Watcher {
    /// Starts the watcher. To be called before there are threads.
    pub(super) fn start(merged: &Path, helper: Option<&PathBuf>) -> Result<Self, MountError> {
        let (reader, writer) =
            pipe_with(PipeFlags::CLOEXEC).map_err(MountError::io("cannot make a pipe to watch", merged))?;
        match fork().map_err(MountError::io("cannot start a process to watch", merged))? {
            Forked::Parent(_) => Ok(Self {
                pipe: File::from(writer),
            }),
            Forked::Child => {
                let take_down = TakeDown {
                    mount_id: 0,
                    merged: merged.to_owned(),
                    helper: helper.cloned(),
                };
                exit_now(watch(reader, take_down));
            }
        }
    }

    /// Tells the watcher which mount to look after.
    pub(super) fn mounted(&mut self, mount_id: u64) {
        self.tell(&format!("{mount_id}\n"));
    }

    /// Tells the watcher that there is nothing left to do.
    pub(super) fn done(mut self) {
        self.tell("done\n");
    }

    fn tell(&mut self, line: &str) {
        if let Err(error) = self.pipe.write_all(line.as_bytes()) {
            log::warn!("auto_unmount: the watching process is gone: {error}");
        }
    }
}

/// The life of the watcher: nothing, until the pipe says more or breaks.
fn watch(pipe: OwnedFd, mut take_down: TakeDown) -> i32 {
    let Ok(pipe) = keep_only(pipe) else { return 1 };
    // Out of the server's session, so that Ctrl-C at a server in the foreground does not reach this process.
    if rustix::process::setsid().is_err() || rustix::process::chdir("/").is_err() {
        return 1;
    }
    let mut heard = String::new();
    let mut pipe = std::mem::ManuallyDrop::new(File::from(pipe));
    if pipe.read_to_string(&mut heard).is_err() {
        return 1;
    }
    let mut lines = heard.lines();
    match (lines.next().map(str::parse), lines.next()) {
        (Some(Ok(mount_id)), None) => {
            take_down.mount_id = mount_id;
            i32::from(take_down.run(true).is_err())
        }
        _ => 0,
    }
}
