//! The command in namespaces of its own: whatever it mounts and every process it starts is gone when it ends, however
//! it ends.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{WaitOptions, wait};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::sys::namespaces::{be_killed_with_parent, new_pid_namespace_for_children};
use crate::sys::plain as sys;

/// Says which process of the three this is.
pub(super) const STAGE: &str = "PLYFS_COMPARE_STAGE";
/// Where the last of them may work.
pub(super) const SCRATCH: &str = "PLYFS_COMPARE_SCRATCH";
/// The runtime directory of root's mounts: what is mounted here is no business of `plyfs list`.
const REGISTRY: &str = "/run/plyfs";

/// What [`apart`] came to.
#[derive(Debug)]
pub enum Apart {
    /// This process is in namespaces of its own: go on, in that directory.
    Here(PathBuf),
    /// Another process did it all, and ended like this.
    Done(ExitStatus),
    /// A signal ended it all.
    Stopped,
}

/// Runs this program again with the same arguments, in a mount and a process namespace of its own, and waits; in that
/// second run it returns [`Apart::Here`]. `dir` is where to work, in the place of the usual directory for temporary
/// files.
///
/// # Errors
/// What could not be set up, in words.
pub fn apart(dir: Option<&Path>) -> Result<Apart, String> {
    match std::env::var_os(STAGE) {
        None => outside(dir),
        Some(stage) if stage == "first" => first(),
        Some(_) => match std::env::var_os(SCRATCH) {
            Some(scratch) => Ok(Apart::Here(scratch.into())),
            None => Err(format!("{SCRATCH} is not set: {STAGE} is for plyfs itself")),
        },
    }
}

fn again(stage: &str) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut command = Command::new(program);
    command.args(arguments).env(STAGE, stage);
    Ok(command)
}

/// The process that was called: waits, and tidies up.
fn outside(dir: Option<&Path>) -> Result<Apart, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can mount the kernel's overlay and act as several users: try sudo".into());
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|e| format!("signals: {e}"))?;
    }
    let parent = dir.map_or_else(std::env::temp_dir, Path::to_owned);
    let scratch = Scratch::new(&parent)?;
    new_pid_namespace_for_children().map_err(|e| {
        format!("cannot make a process namespace: {e}; root in a container needs CAP_SYS_ADMIN")
    })?;
    let mut first = again("first")?
        .env(SCRATCH, &scratch.0)
        .spawn()
        .map_err(|e| format!("cannot start: {e}"))?;
    let ended = watch(&mut first, &stop);
    drop(scratch);
    ended
}

/// Waits for the first process inside. All others end with it.
fn watch(first: &mut Child, stop: &AtomicBool) -> Result<Apart, String> {
    loop {
        match first.try_wait() {
            Ok(Some(status)) => return Ok(Apart::Done(status)),
            Ok(None) if stop.load(Ordering::Relaxed) => {
                first.kill().map_err(|e| format!("cannot stop: {e}"))?;
                first.wait().map_err(|e| format!("cannot wait: {e}"))?;
                return Ok(Apart::Stopped);
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(format!("cannot wait: {error}")),
        }
    }
}

/// The first process of the namespace: makes it fit to live in, starts the one that works, and buries the dead.
fn first() -> Result<Apart, String> {
    let failed = |what: &'static str| move |e: i32| format!("{what}: {}", sys::errno_name(e));
    be_killed_with_parent().map_err(|e| format!("prctl: {e}"))?;
    sys::own_mounts().map_err(failed("cannot make a mount namespace"))?;
    sys::mount(c"proc", c"/proc", c"proc", 0, c"").map_err(failed("cannot mount /proc"))?;
    let registry = std::fs::DirBuilder::new().mode(0o700).create(REGISTRY);
    match registry {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(format!("{REGISTRY}: {e}")),
        _ => sys::mount(c"none", &sys::c(REGISTRY.as_bytes()), c"tmpfs", 0, c"mode=700")
            .map_err(failed("cannot mount /run/plyfs"))?,
    }
    let second = again("second")?
        .spawn()
        .map_err(|e| format!("cannot start: {e}"))?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if i64::from(pid.as_raw_nonzero().get()) == i64::from(second.id()) => {
                use std::os::unix::process::ExitStatusExt;
                return Ok(Apart::Done(ExitStatus::from_raw(status.as_raw())));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("cannot wait: {error}")),
        }
    }
}

/// A directory that goes with its value. All that was mounted in it is gone by then.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self, String> {
        let path = parent.join(format!("plyfs-compare-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        path.canonicalize()
            .map(Self)
            .map_err(|e| format!("{}: {e}", path.display()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!("{} is left behind: {error}", self.0.display());
        }
    }
}
