//! A server that nobody can reach any more.
//!
//! A server is a process of the mount namespace that it was started in, and keeps it. An engine without privilege may
//! make a namespace for each command; a view that it does not unmount stays then with its server alone, and holds the
//! upper, until the same upper is wanted again: here.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process};

use super::registry;
use crate::sys::Errno;

/// The command names of programs that serve a file system, and do not use one.
const SERVERS: [&[u8]; 2] = [b"fuse-overlayfs", b"plyfs"];

/// If `upper` is in use by a server whose mount namespace has no process but such servers, asks that one to leave: it
/// unmounts its view, and the lock on the upper is free when everything is on disk.
pub(super) fn make_way(upper: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = rustix::fs::open(upper, flags, Mode::empty()) else {
        // To be told by who opens it in earnest.
        return;
    };
    if flock(&dir, FlockOperation::NonBlockingLockExclusive) != Err(Errno::WOULDBLOCK) {
        return;
    }
    let found = std::fs::canonicalize(upper)
        .ok()
        .and_then(|path| registry::user_of(&path));
    let Some(entry) = found.filter(|entry| is_alone(entry.pid)) else {
        return;
    };
    log::info!(
        "{}: its server {} is alone in its mount namespace, and is asked to leave",
        upper.display(),
        entry.pid
    );
    let pid = i32::try_from(entry.pid).ok().and_then(Pid::from_raw);
    if let Some(Err(errno)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
        log::debug!("process {}: {errno}", entry.pid);
    }
}

/// Whether no process but servers is in the mount namespace of `pid`, which is not our own.
fn is_alone(pid: u32) -> bool {
    let namespace = |process: &Path| std::fs::read_link(process.join("ns/mnt")).ok();
    let Some(theirs) = namespace(&PathBuf::from(format!("/proc/{pid}"))) else {
        return false;
    };
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return false;
    };
    let is_server = |process: &Path| {
        let name = std::fs::read(process.join("comm")).unwrap_or_default();
        SERVERS.contains(&name.trim_ascii_end())
    };
    namespace(Path::new("/proc/self")).is_some_and(|ours| ours != theirs)
        && processes
            .flatten()
            .filter(|process| {
                process
                    .file_name()
                    .as_bytes()
                    .first()
                    .is_some_and(u8::is_ascii_digit)
            })
            .map(|process| process.path())
            .all(|process| namespace(&process).as_ref() != Some(&theirs) || is_server(&process))
}
