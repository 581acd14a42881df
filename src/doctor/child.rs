//! Trying something in a child process, so that neither its failure nor its success changes this one.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::Errno;
use crate::sys::fusedev::{Forked, exit_now, fork};

/// How long anything may take: what hangs is a finding, too.
const PATIENCE: Duration = Duration::from_secs(20);

/// The answer that `question` gives in a child process.
///
/// # Errors
/// In words: when there can be no child, or it ended or hung without an answer.
pub(super) fn ask<T: Serialize + DeserializeOwned>(question: impl FnOnce() -> T) -> Result<T, String> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| format!("no pipe: {errno}"))?;
    let child = match fork().map_err(|error| format!("no child process: {error}"))? {
        Forked::Child => {
            drop(reader);
            let mut line = serde_json::to_vec(&question()).unwrap_or_default();
            line.push(b'\n');
            let told = std::fs::File::from(writer).write_all(&line).is_ok();
            exit_now(if told { 0 } else { 1 });
        }
        Forked::Parent(child) => child,
    };
    drop(writer);
    // Up to the end of the line: something that the child left running may hold the pipe open.
    let mut line = Vec::new();
    let mut pipe = std::fs::File::from(reader);
    let until = Instant::now() + PATIENCE;
    let heard = loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => break Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => break Err(format!("cannot wait: {errno}")),
        }
        let mut piece = [0; 4096];
        match pipe.read(&mut piece) {
            Ok(0) => break Ok(()),
            Ok(count) => line.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break Err(format!("cannot hear: {error}")),
        }
        if line.ends_with(b"\n") {
            break Ok(());
        }
    };
    if heard.is_err()
        && let Err(errno) = kill_process(child, Signal::KILL)
    {
        log::debug!("{child:?}: {errno}");
    }
    let status = rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()))
        .map_err(|errno| format!("cannot wait for the child: {errno}"))?;
    heard?;
    serde_json::from_slice(&line).map_err(|_| {
        match status.and_then(|(_, status)| status.terminating_signal()) {
            Some(signal) => format!("the attempt was killed by signal {signal}"),
            None => "the attempt ended without an answer".to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_deaths() {
        // Test threads: the process has to be split by hand, which `fork` refuses.
        if std::fs::read_dir("/proc/self/task").unwrap().count() > 1 {
            let refused = ask(|| 1).unwrap_err();
            assert!(refused.contains("no child process"), "{refused}");
        } else {
            assert_eq!(ask(|| 1), Ok(1));
        }
    }
}
