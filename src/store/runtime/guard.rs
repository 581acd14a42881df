//! A small process that ends the command if the process that runs it is killed.
//!
//! A signal to the runtime would not do: what is process 1 in its namespace gets only those it asks for.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::store::{Result, StoreError};
use crate::sys::fusedev::{Forked, exit_now, fork, keep_only};
use crate::sys::{self, Errno};

/// How often the command of a runtime is looked for that has lost its caller, and how long to wait in between.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// This process's end of a pipe to the guard; the kernel closes it however this process ends.
#[derive(Debug)]
pub(super) struct Guard {
    pipe: File,
    child: Pid,
}

impl Guard {
    /// Starts the guard. To be called before there are threads.
    pub(super) fn start(bundle: &Path) -> Result<Self> {
        let (reader, writer) =
            pipe_with(PipeFlags::CLOEXEC).map_err(StoreError::errno("make a pipe for", bundle))?;
        match fork().map_err(StoreError::io("start a process to guard", bundle))? {
            Forked::Parent(child) => Ok(Self {
                pipe: File::from(writer),
                child,
            }),
            Forked::Child => exit_now(guard(reader)),
        }
    }

    /// Tells it which runtime to look after.
    pub(super) fn watch(&mut self, runtime: u32) {
        self.tell(&format!("{runtime}\n"));
    }

    /// Tells it that the runtime has ended.
    pub(super) fn done(mut self) {
        self.tell("done\n");
        drop(self.pipe);
        if let Err(errno) = rustix::io::retry_on_intr(|| waitpid(Some(self.child), WaitOptions::empty())) {
            log::debug!("the guard: {errno}");
        }
    }

    fn tell(&mut self, line: &str) {
        if let Err(error) = self.pipe.write_all(line.as_bytes()) {
            log::warn!("the process that guards the command is gone: {error}");
        }
    }
}

/// The life of the guard: nothing, until the pipe says more or breaks.
fn guard(pipe: OwnedFd) -> i32 {
    let Ok(pipe) = keep_only(pipe) else { return 1 };
    // Out of the session, so that Ctrl-C does not reach this process.
    if rustix::process::setsid().is_err() || rustix::process::chdir("/").is_err() {
        return 1;
    }
    let mut heard = String::new();
    let mut pipe = std::mem::ManuallyDrop::new(File::from(pipe));
    if pipe.read_to_string(&mut heard).is_err() {
        return 1;
    }
    let mut lines = heard.lines();
    let (Some(Ok(runtime)), None) = (lines.next().map(str::parse), lines.next()) else {
        return 0;
    };
    // It may be just about to start the command.
    for _ in 0..TRIES {
        if !matches!(kill_command(runtime), Ok(true)) {
            return 0;
        }
        std::thread::sleep(PAUSE);
    }
    1
}

/// Kills what the runtime `runtime` started, so that the runtime ends in good order. Answers whether the runtime is
/// there at all.
///
/// # Errors
/// As kill(2).
pub(in crate::store) fn kill_command(runtime: u32) -> sys::Result<bool> {
    let Ok(children) = std::fs::read_to_string(format!("/proc/{runtime}/task/{runtime}/children")) else {
        return Ok(false);
    };
    let pids = children
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok());
    for pid in pids.filter_map(Pid::from_raw) {
        match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}
