//! Namespaces, views, the command, and everything away again.
//!
//! ```text
//!   plyfs try          stays outside; asks afterwards
//!    └ master          user, network and mount namespace; mounts the views; waits; unmounts
//!       ├ servers      one for each view; end with the master
//!       └ init         process 1 of a process namespace: when it ends, everything the command left is killed
//!          └ command
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};
use signal_hook::consts::{SIGINT, SIGQUIT};

use super::layout::{self, How};
use super::record::Trial;
use super::{Result, TrialError, failed};
use crate::mount::unmount::unmount;
use crate::mount::{Directories, Options, Outcome, Request, mount, mountinfo};
use crate::sys::fusedev::{self, Forked, exit_now, fork};
use crate::sys::{Errno, namespaces};

/// The exit status for "plyfs failed", which no command is likely to have.
const FAILED: u8 = 125;

/// Runs the command on the trial's view, and answers its exit status: 128 and the signal if it was killed, 126 if it
/// cannot be run, 127 if there is none.
///
/// The view of the whole root becomes the root directory; another one lies over its own lower. `network` leaves the
/// command the machine's network. To be called while this process has no threads.
///
/// # Errors
/// When a namespace or the view cannot be made.
pub fn run(trial: &Trial, command: &[OsString], network: bool) -> Result<u8> {
    let here = Path::new("/proc/self");
    // Ctrl-C is for the command: a handler keeps it from ending us, and unlike ignoring is not passed on.
    let idle = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGQUIT] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&idle))
            .map_err(failed("catch signals in", here))?;
    }
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe for", here))?;
    let child = match fork().map_err(failed("start a process for", here))? {
        Forked::Parent(child) => child,
        Forked::Child => {
            drop(reader);
            let status = match master(trial, command, network, &writer) {
                Ok(status) => status,
                Err(error) => {
                    if File::from(writer)
                        .write_all(error.to_string().as_bytes())
                        .is_err()
                    {
                        eprintln!("plyfs: {error}");
                    }
                    FAILED
                }
            };
            exit_now(i32::from(status));
        }
    };
    drop(writer);
    let mut reason = String::new();
    File::from(reader)
        .read_to_string(&mut reason)
        .map_err(failed("hear from", here))?;
    let status = rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()))
        .map_err(failed("wait for", here))?;
    idle.store(true, Ordering::SeqCst);
    if !reason.is_empty() {
        return Err(TrialError::Refused(reason));
    }
    Ok(status.map_or(FAILED, |(_, status)| code(status)))
}

fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| {
        status
            .terminating_signal()
            .map(|signal| signal.saturating_add(128))
    });
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

/// What was made in the mount namespace, in order.
enum Made {
    View(PathBuf),
    Shown(PathBuf),
}

fn master(trial: &Trial, command: &[OsString], network: bool, report: &OwnedFd) -> Result<u8> {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    // A mount clears it; the command gets it back.
    let umask = rustix::process::umask(Mode::empty());
    namespaces::end_with_parent().map_err(failed("prepare", Path::new("/proc/self")))?;
    if !rustix::process::geteuid().is_root() {
        enter_user_namespace()?;
    }
    if !network {
        namespaces::new_network_namespace().map_err(failed("make a network namespace for", &trial.dir()))?;
    }
    namespaces::new_mount_namespace().map_err(failed("make a mount namespace for", &trial.dir()))?;
    let mut made = Vec::new();
    let done = build(trial, &mut made).and_then(|()| live(trial, command, (&here, umask), report));
    let cleared = tear_down(made);
    let status = done?;
    cleared?;
    Ok(status)
}

/// A user namespace in which this user is itself, and nobody else exists.
fn enter_user_namespace() -> Result<()> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    namespaces::new_user_namespace().map_err(|errno| {
        TrialError::Refused(format!(
            "cannot make a user namespace: {errno}: this machine allows none to ordinary users (sysctl \
             kernel.unprivileged_userns_clone=1, user.max_user_namespaces, or \
             kernel.apparmor_restrict_unprivileged_userns=0); or try as root"
        ))
    })?;
    for (path, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid} {uid} 1")),
        ("/proc/self/gid_map", format!("{gid} {gid} 1")),
    ] {
        std::fs::write(path, text).map_err(failed("write", Path::new(path)))?;
    }
    Ok(())
}

/// Puts the view together: the directory's own, then what is mounted below it.
fn build(trial: &Trial, made: &mut Vec<Made>) -> Result<()> {
    let dir = trial.dir();
    let mounts = mountinfo::read().map_err(failed("read", Path::new("/proc/self/mountinfo")))?;
    for part in layout::parts(&mounts, &dir, Path::is_dir) {
        let below = part.point.strip_prefix(&dir).unwrap_or(Path::new(""));
        let target = if below.as_os_str().is_empty() {
            trial.merged()
        } else {
            trial.merged().join(below)
        };
        let number = trial
            .layers()
            .iter()
            .position(|layer| layer.point.path() == part.point);
        let layered = match (part.how, number) {
            (How::Layer, Some(number)) => view(trial, number, &target),
            // Mounted after the trial was made: there is no upper for it.
            (How::Layer, None) => Err("it was mounted after the trial was made".to_owned()),
            _ => Err(String::new()),
        };
        match layered {
            Ok(()) => made.push(Made::View(target)),
            Err(reason) if part.point == dir => return Err(TrialError::Refused(reason)),
            Err(reason) => {
                if !reason.is_empty() {
                    eprintln!(
                        "plyfs: {} cannot be layered, and is read-only: {reason}",
                        part.point.display()
                    );
                }
                match show(&part.point, &target, part.how != How::Show) {
                    Ok(()) => made.push(Made::Shown(target)),
                    // Out of this user's sight, or hidden by another mount.
                    Err(errno) => {
                        eprintln!("plyfs: {} is left out: {errno}", part.point.display());
                    }
                }
            }
        }
    }
    Ok(())
}

/// Mounts the view of a layer.
fn view(trial: &Trial, number: usize, target: &Path) -> std::result::Result<(), String> {
    let Some(layer) = trial.layers().get(number) else {
        return Err("it has no upper".to_owned());
    };
    let [upper, work] = trial.directories(number);
    let request = Request {
        directories: Directories {
            lowers: vec![layer.point.path()],
            upper: Some((upper, work)),
            merged: target.to_owned(),
        },
        options: Options::default(),
        source: None,
        foreign: false,
        foreground: false,
        remove_mount_point: false,
        log: false,
        passing: true,
        engine: false,
    };
    match mount(&request, |_| {}).map_err(|error| error.to_string())? {
        Outcome::Ready(_) => Ok(()),
        // This is the server, at its end.
        Outcome::Ended => exit_now(0),
    }
}

fn open(path: &Path) -> crate::sys::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn show(point: &Path, target: &Path, read_only: bool) -> crate::sys::Result<()> {
    let clone = fusedev::clone_tree(open(point)?.as_fd(), read_only)?;
    fusedev::attach(clone.as_fd(), open(target)?.as_fd())
}

/// Starts process 1 and waits for its end.
fn live(trial: &Trial, command: &[OsString], from: (&Path, Mode), report: &OwnedFd) -> Result<u8> {
    let own = Path::new("/proc/self");
    namespaces::new_pid_namespace_for_children().map_err(failed("make a process namespace in", own))?;
    let init = match fork().map_err(failed("start a process in", own))? {
        Forked::Parent(init) => init,
        Forked::Child => {
            let status = match init(trial, command, from) {
                Ok(status) => status,
                Err(error) => {
                    let told = report.try_clone().map(File::from);
                    if told
                        .and_then(|mut pipe| pipe.write_all(error.to_string().as_bytes()))
                        .is_err()
                    {
                        eprintln!("plyfs: {error}");
                    }
                    FAILED
                }
            };
            exit_now(i32::from(status));
        }
    };
    let status = rustix::io::retry_on_intr(|| waitpid(Some(init), WaitOptions::empty()))
        .map_err(failed("wait for", own))?;
    Ok(status.map_or(FAILED, |(_, status)| code(status)))
}

/// Process 1: puts the view where the command expects it, runs the command, and waits for it.
fn init(trial: &Trial, command: &[OsString], (here, umask): (&Path, Mode)) -> Result<u8> {
    let dir = trial.dir();
    namespaces::be_killed_with_parent().map_err(failed("prepare", &dir))?;
    namespaces::new_mount_namespace().map_err(failed("make a mount namespace for", &dir))?;
    let merged = open(&trial.merged()).map_err(failed("open", &trial.merged()))?;
    if dir == Path::new("/") {
        namespaces::enter_root(merged.as_fd())
            .map_err(failed("make a root directory of", &trial.merged()))?;
    } else {
        let clone = fusedev::clone_tree(merged.as_fd(), false).map_err(failed("show", &dir))?;
        let over = open(&dir).map_err(failed("open", &dir))?;
        fusedev::attach(clone.as_fd(), over.as_fd()).map_err(failed("mount on", &dir))?;
    }
    drop(merged);
    if let Err(errno) = namespaces::mount_process_table(Path::new("/proc")) {
        log::info!("/proc stays that of the outer processes: {errno}");
    }
    // Anew, by path: the old one is below the view.
    let start = if here.starts_with(&dir) { here } else { &dir };
    std::env::set_current_dir(start)
        .or_else(|_| std::env::set_current_dir(&dir))
        .map_err(failed("go to", start))?;
    let Some((program, words)) = command.split_first() else {
        return Err(TrialError::Refused("there is no command".to_owned()));
    };
    rustix::process::umask(umask);
    let child = match Command::new(program)
        .args(words)
        .env("PLYFS_TRY", trial.name())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => {
            eprintln!("plyfs: cannot run {}: {error}", program.display());
            return Ok(if error.kind() == std::io::ErrorKind::NotFound {
                127
            } else {
                126
            });
        }
    };
    let wanted = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid) == wanted => return Ok(code(status)),
            // An orphan, which process 1 is left with.
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("wait for", &dir)(errno)),
        }
    }
}

/// Takes everything away, the last first; each server has written everything when it is gone.
fn tear_down(made: Vec<Made>) -> Result<()> {
    let mut done = Ok(());
    for made in made.into_iter().rev() {
        let taken = match &made {
            Made::Shown(path) => fusedev::detach(path, true).map_err(failed("unmount", path)),
            // Whoever looks at all mounts may have it open for a moment.
            Made::View(path) => unmount(path, false, |_| {})
                .or_else(|_| unmount(path, true, |_| {}))
                .map(drop)
                .map_err(TrialError::from),
        };
        if done.is_ok() {
            done = taken;
        }
    }
    done
}
