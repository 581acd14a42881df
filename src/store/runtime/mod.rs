//! Running a command in a merged view, through an OCI runtime found on PATH.
//!
//! ```text
//!   plyfs                       crun, in a mount namespace of its own     the command
//!   ─────                       ────────────────────────────────────     ───────────
//!   mount the view (view.rs)
//!   write the bundle: config.json (spec.rs), hosts, hostname, resolv.conf
//!   start ────────────────────▶ hide cgroups it could not use
//!   pass signals on             new namespaces, mounts, pivot_root
//!   wait                        start ─────────────────────────────────▶ ...
//!                               ◀───────────────────────────────────────  exit status
//!   ◀────────────────────────── the same status
//!   unmount the view
//! ```
//!
//! The runtime is told to leave cgroups alone: there is nothing here that they would be needed for, and neither an
//! ordinary user nor every machine can use them.

mod guard;
mod program;
mod spec;
mod streams;
mod user;

use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::view::{Lasting, View};
use super::{Result, Store, StoreError, TmpDir};
use crate::mount::Directories;

pub(super) use guard::kill_command;
pub use spec::{Network, Volume};

/// The command to run.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `NAME=value`, later ones win. PATH, HOME, HOSTNAME and (with a terminal) TERM are added where they are missing.
    pub env: Vec<String>,
    /// The working directory; empty for `/`. It is made if it is missing.
    pub cwd: String,
    /// As in an image's config: a name or number, perhaps with `:` and a group; empty for root.
    pub user: String,
    /// Give it a terminal: this process's own.
    pub tty: bool,
    /// Give it this process's standard input.
    pub stdin: bool,
}

/// A command in a merged view.
#[derive(Debug)]
pub struct Run<'a> {
    /// Where the bundle is kept meanwhile.
    pub store: &'a Store,
    /// Lower, upper and work, and an empty directory to mount on.
    pub directories: Directories,
    /// What `mount` shows as the view's source; its lower, if nothing is said.
    pub source: Option<String>,
    /// The command.
    pub process: Process,
    /// The host name it sees.
    pub hostname: String,
    /// Directories and files of the machine to show inside.
    pub volumes: Vec<Volume>,
    /// The network it sees.
    pub network: Network,
    /// Refuse changes of the root file system.
    pub read_only: bool,
    /// Nothing of the view is wanted after a crash.
    pub volatile: bool,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The command's exit status, 128 and the signal's number if it was killed; 125 if the runtime failed, 126 if the
    /// command cannot be run, 127 if there is no such command.
    pub status: u8,
    /// Why the command did not even start.
    pub reason: Option<String>,
}

/// Mounts the view, runs the command, and unmounts.
///
/// To be called while this process has no threads: the view's server is a copy of it.
///
/// # Errors
/// When the view cannot be mounted, no runtime is installed, or the user is not known. That the command failed is no
/// error.
pub fn run(run: &Run<'_>) -> Result<Ended> {
    run_in(run, |_| Ok(()))
}

/// As [`run`]; `started` is told the runtime's process when the command is about to start.
///
/// # Errors
/// As [`run`], and what `started` answers.
pub fn run_in(run: &Run<'_>, started: impl FnOnce(u32) -> Result<()>) -> Result<Ended> {
    if run.process.argv.is_empty() {
        return Err(StoreError::Refused(
            "no command was given, and the image names none: add one behind the image's name".to_owned(),
        ));
    }
    if run.process.tty && !std::io::stdin().is_terminal() {
        return Err(StoreError::Refused(
            "the standard input is no terminal, which -t asks for: leave -t out".to_owned(),
        ));
    }
    let runtime = program::find()?;
    let lasting = if run.volatile {
        Lasting::Volatile
    } else {
        Lasting::WithProcess
    };
    let view = View::mount(
        run.directories.clone(),
        run.source.clone().map(Into::into),
        lasting,
        false,
    )?;
    // From here on this process may hold what the server must not.
    let ended = in_view(run, &runtime, view.path(), started);
    let unmounted = view.unmount();
    let ended = ended?;
    unmounted?;
    Ok(ended)
}

fn in_view(
    run: &Run<'_>,
    runtime: &program::Runtime,
    merged: &Path,
    started: impl FnOnce(u32) -> Result<()>,
) -> Result<Ended> {
    let root = File::open(merged).map_err(StoreError::io("open", merged))?;
    let user = user::resolve(&root, &run.process.user)?;
    drop(root);
    let bundle = TmpDir::new(run.store, 0o700)?;
    let path = bundle.path().to_owned();
    let spec = spec::config(run, merged, &path, &user)?;
    let text = serde_json::to_vec(&spec).map_err(|error| StoreError::io("write", &path)(error.into()))?;
    bundle.write("config.json", &text)?;
    for (name, content) in spec::own_files(run) {
        bundle.write(name, &content)?;
        crate::sys::at::open_path(bundle.dir()?, name.as_bytes())
            .and_then(|fd| crate::sys::at::chmod_fd(fd, 0o644))
            .map_err(StoreError::errno("change the mode of", path.join(name)))?;
    }
    let ended = execute(run, runtime, &bundle, started);
    bundle.remove()?;
    ended
}

/// Starts the runtime, passes signals on, waits.
fn execute(
    run: &Run<'_>,
    runtime: &program::Runtime,
    bundle: &TmpDir,
    started: impl FnOnce(u32) -> Result<()>,
) -> Result<Ended> {
    // The runtime keeps the bundle's lock, so that nobody deletes it while that runs.
    let lock = bundle.dir()?;
    let bundle = bundle.path();
    let log: PathBuf = bundle.join("log");
    let mut command = Command::new(&runtime.path);
    command.arg("--root").arg(bundle.join("state"));
    command.arg("--log").arg(&log).args(["--log-format", "json"]);
    command.args(runtime.options());
    command.arg("run").arg("--bundle").arg(bundle);
    command.arg(bundle.file_name().unwrap_or_default());
    if !run.process.stdin && !run.process.tty {
        command.stdin(Stdio::null());
    }
    crate::sys::namespaces::start_apart(&mut command, runtime.hides_cgroups(), lock);
    let owners = streams::Owners::remember();
    let mut guard = guard::Guard::start(bundle)?;
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2])
        .map_err(StoreError::io("handle signals for", bundle))?;
    let mut child = command
        .spawn()
        .map_err(StoreError::io("start the runtime", &runtime.path))?;
    let pid = child.id();
    guard.watch(pid);
    let told = started(pid);
    // What the keyboard sends goes to the runtime as well, since it is in the same foreground group.
    let by_keyboard = std::io::stdin().is_terminal();
    let handle = signals.handle();
    let passing = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in &mut signals {
                if by_keyboard && matches!(signal, SIGINT | SIGQUIT) {
                    continue;
                }
                pass_on(pid, signal);
            }
        });
    let passing = passing.map_err(StoreError::io("start a thread for", bundle));
    let status = child
        .wait()
        .map_err(StoreError::io("wait for the runtime", &runtime.path));
    guard.done();
    owners.restore();
    handle.close();
    if passing?.join().is_err() {
        log::debug!("the thread that passes signals on broke");
    }
    let status = status?;
    told?;
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(125),
        (None, Some(signal)) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(0)),
        (None, None) => 125,
    };
    match program::failure(&log) {
        Some((status, reason)) if code != 0 => Ok(Ended {
            status,
            reason: Some(reason),
        }),
        _ => Ok(Ended {
            status: code,
            reason: None,
        }),
    }
}

fn pass_on(pid: u32, signal: i32) {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let signal = Signal::from_named_raw(signal);
    if let (Some(target), Some(signal)) = (target, signal)
        && let Err(errno) = kill_process(target, signal)
    {
        log::debug!("signal {signal:?} for the runtime: {errno}");
    }
}
