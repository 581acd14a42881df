//! The user namespace in which an ordinary user's store is built.
//!
//! The files of an image belong to many ids. An ordinary user has only one, but may be given *subordinate* ids by
//! /etc/subuid and /etc/subgid: in a user namespace these stand for 1 and up, and the user itself for 0. There a
//! store command may give files away and make mounts, in a mount namespace of its own.
//!
//! ```text
//!   inside     0      1 ........ 65536
//!              |      |              |
//!   outside  1001  100000 ..... 165535      user  |  its line in /etc/subuid
//! ```
//!
//! The process itself moves there, at its start, while it has no threads. A view that outlives its command (`container
//! mount`) keeps the namespaces alive through its server; the next command enters the same ones, so that all such
//! views are seen together.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, waitpid};

use super::{Result, StoreError};
use crate::mount::registry;
use crate::sys::caller::Caller;
use crate::sys::fusedev::{Forked, exit_now, fork};
use crate::sys::{Errno, namespaces};

/// Where a process stands after [`enter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// Root, or root of a namespace already: nothing had to be done.
    AsItWas,
    /// In a fresh user and mount namespace.
    Fresh,
    /// In those that a mounted container of this store keeps alive.
    Joined,
}

/// Moves an ordinary user's process into the user namespace for the store at `store`, which need not exist yet.
///
/// To be called at the start of a process, before it has threads. Root stays where it is, and so does who is root of
/// a namespace already.
///
/// # Errors
/// When the machine allows no user namespaces, or the user has no subordinate ids, or the programs that assign them
/// are missing: the message says what to do.
pub fn enter(store: &Path) -> Result<Entered> {
    if rustix::process::geteuid().is_root() || Caller::read(std::process::id()).may_build_trees() {
        return Ok(Entered::AsItWas);
    }
    if let Some(server) = keeper(store)
        && join(server)?
    {
        return Ok(Entered::Joined);
    }
    make()?;
    Ok(Entered::Fresh)
}

fn refused(text: impl Into<String>) -> StoreError {
    StoreError::Refused(text.into())
}

/// The server of a view of this store that outlives its command.
fn keeper(store: &Path) -> Option<u32> {
    let overlay = store.canonicalize().ok()?.join("overlay");
    let live = registry::live()
        .inspect_err(|error| log::debug!("{error}"))
        .ok()?;
    live.iter()
        .find(|live| !live.entry.passing && live.entry.merged.path().starts_with(&overlay))
        .map(|live| live.entry.pid)
}

/// Enters the namespaces of a server; whether there was something to enter.
fn join(server: u32) -> Result<bool> {
    let here = std::env::current_dir();
    match namespaces::enter_namespaces_of(server) {
        Ok(()) => {}
        // Gone meanwhile, or in this namespace.
        Err(errno @ (Errno::SRCH | Errno::INVAL | Errno::PERM)) => {
            log::debug!("the namespaces of process {server}: {errno}");
            return Ok(false);
        }
        Err(errno) => {
            return Err(refused(format!(
                "cannot enter the namespaces of process {server}, which serves a container of this store: {errno}"
            )));
        }
    }
    if let Err(error) = here.and_then(std::env::set_current_dir) {
        log::debug!("the working directory is not seen there: {error}");
    }
    Ok(true)
}

/// One process at a time, from [`enter`] until its view is mounted: two first ones would make two namespaces.
#[derive(Debug)]
pub struct Turn {
    file: std::fs::File,
}

/// Waits for one's turn.
///
/// # Errors
/// When there is no runtime directory, or the lock cannot be had.
pub fn turn() -> Result<Turn> {
    let path = registry::directory()?.join("namespace.lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
        .map_err(StoreError::errno("lock", &path))?;
    Ok(Turn { file })
}

impl Drop for Turn {
    fn drop(&mut self) {
        // By hand: the server of a view is a copy of this process and has the file open as well.
        if let Err(errno) = flock(&self.file, FlockOperation::Unlock) {
            log::debug!("namespace.lock: {errno}");
        }
    }
}

/// A range of subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u32,
    count: u32,
}

/// The lines of /etc/subuid or /etc/subgid that are this user's: by name or by number.
fn parse_ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let uid = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split('#').next()?.trim().split(':');
            let owner = fields.next()?;
            if Some(owner) != name && owner != uid {
                return None;
            }
            let start = fields.next()?.parse().ok()?;
            let count = fields.next()?.parse().ok().filter(|count| *count > 0)?;
            Some(Range { start, count })
        })
        .collect()
}

/// The arguments of newuidmap: the user as 0, then the ranges one after the other.
fn mapping(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut words = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inside = 1_u32;
    for range in ranges {
        words.extend([inside, range.start, range.count].map(|number| number.to_string()));
        inside = inside.saturating_add(range.count);
    }
    words
}

/// Who is being moved.
struct User {
    uid: u32,
    gid: u32,
    name: Option<String>,
}

impl User {
    fn this() -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self {
            uid,
            gid: rustix::process::getgid().as_raw(),
            name: namespaces::name_of_user(uid).and_then(|name| name.into_string().ok()),
        }
    }

    fn own_ranges(&self, kind: Ids) -> Result<Vec<Range>> {
        match kind {
            Ids::Users => self.ranges("/etc/subuid", "--add-subuids"),
            Ids::Groups => self.ranges("/etc/subgid", "--add-subgids"),
        }
    }

    fn ranges(&self, file: &str, option: &str) -> Result<Vec<Range>> {
        let text = match std::fs::read_to_string(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(StoreError::io("read", file))?,
        };
        let ranges = parse_ranges(&text, self.name.as_deref(), self.uid);
        if ranges.is_empty() {
            let who = self.name.clone().unwrap_or_else(|| self.uid.to_string());
            return Err(refused(format!(
                "{file} gives user {who} no subordinate ids, which the files of an image need: as root, run 'usermod \
                 {option} 100000-165535 {who}' (another range if that is taken), or work as root"
            )));
        }
        Ok(ranges)
    }
}

/// Which of the two kinds of subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// /etc/subuid
    Users,
    /// /etc/subgid
    Groups,
}

/// How many subordinate ids this user has.
///
/// # Errors
/// When it has none, or the file cannot be read.
pub fn own_ids(kind: Ids) -> Result<u64> {
    let ranges = User::this().own_ranges(kind)?;
    Ok(ranges.iter().map(|range| u64::from(range.count)).sum())
}

fn make() -> Result<()> {
    let user = User::this();
    let uids = mapping(user.uid, &user.own_ranges(Ids::Users)?);
    let gids = mapping(user.gid, &user.own_ranges(Ids::Groups)?);
    let programs = [find("newuidmap")?, find("newgidmap")?];

    // The ids are assigned from outside, by setuid programs: a child stays there and runs them.
    let failed = |what: &'static str| StoreError::io(what, "/proc/self/ns/user");
    let (go, ready) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe for")(e.into()))?;
    let (answer, said) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe for")(e.into()))?;
    let own = std::process::id().to_string();
    let child = match fork().map_err(failed("start a helper for"))? {
        Forked::Child => {
            drop((ready, answer));
            let mut byte = [0];
            // Nothing comes if the namespace could not be made.
            let goes = std::fs::File::from(go).read_exact(&mut byte).is_ok();
            let done = if goes {
                assign(&programs, &own, [&uids, &gids])
            } else {
                Ok(())
            };
            if let Err(reason) = done
                && std::fs::File::from(said).write_all(reason.as_bytes()).is_err()
            {
                exit_now(2);
            }
            exit_now(0);
        }
        Forked::Parent(child) => child,
    };
    drop((go, said));
    let moved = namespaces::new_user_namespace();
    if moved.is_ok() {
        std::fs::File::from(ready)
            .write_all(&[1])
            .map_err(failed("start a helper for"))?;
    } else {
        drop(ready);
    }
    let mut reason = String::new();
    std::fs::File::from(answer)
        .read_to_string(&mut reason)
        .map_err(failed("hear from the helper for"))?;
    let status = rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()))
        .map_err(|e| failed("wait for the helper for")(e.into()))?;
    moved.map_err(no_namespace)?;
    if !reason.is_empty() {
        return Err(refused(reason));
    }
    if status.is_none_or(|(_, status)| status.exit_status() != Some(0)) {
        return Err(refused("the helper that assigns subordinate ids was killed"));
    }
    namespaces::new_mount_namespace().map_err(no_namespace)
}

fn no_namespace(errno: Errno) -> StoreError {
    let why = match errno {
        Errno::NOSPC => "there are as many as this machine allows (sysctl user.max_user_namespaces)",
        Errno::PERM => {
            "this machine allows none to ordinary users (sysctl kernel.unprivileged_userns_clone=1, or \
             kernel.apparmor_restrict_unprivileged_userns=0), or this is a container without that right"
        }
        _ => "see user_namespaces(7)",
    };
    refused(format!("cannot make a user namespace: {errno}: {why}"))
}

/// A program of the package uidmap, on PATH or where Debian has it.
///
/// # Errors
/// When it is not installed.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin"), PathBuf::from("/bin")])
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            refused(format!(
                "{name} is not installed, by which an ordinary user's ids are assigned: apt install uidmap"
            ))
        })
}

/// Runs newuidmap and newgidmap on the process `pid`.
fn assign(programs: &[PathBuf; 2], pid: &str, maps: [&[String]; 2]) -> std::result::Result<(), String> {
    for (program, map) in programs.iter().zip(maps) {
        let words = map.iter().map(OsString::from);
        let output = Command::new(program)
            .arg(OsStr::new(pid))
            .args(words)
            .output()
            .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "{} refused: {}: see /etc/subuid and /etc/subgid, and that the program is setuid root",
                program.display(),
                said.trim()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_name_and_number() {
        let text = "# a remark\nann:100000:65536\nbob:200000:10\n1001:300000:5\nann:1:0\nann:x:1\n";
        let range = |start, count| Range { start, count };
        assert_eq!(
            parse_ranges(text, Some("ann"), 1001),
            [range(100_000, 65_536), range(300_000, 5)]
        );
        assert_eq!(parse_ranges(text, None, 1002), []);
    }

    #[test]
    fn ranges_follow_each_other() {
        let range = |start, count| Range { start, count };
        let words = mapping(1001, &[range(100_000, 65_536), range(300_000, 5)]).join(" ");
        assert_eq!(words, "0 1001 1 1 100000 65536 65537 300000 5");
    }
}
