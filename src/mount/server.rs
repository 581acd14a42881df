//! From checked directories to an answering server, in the foreground or behind the caller's back.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, getrlimit, setrlimit, waitpid};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::{MountError, Role};
use super::options::Options;
use super::registry::{Entry, JsonPath};
use super::setup::{Checked, Directories};
use super::take_down::{TakeDown, mount_id};
use super::watcher::Watcher;
use super::{adopt, control, helper, orphan, readahead, registry, setup, unmount};
use crate::format::Links;
use crate::fuse::{ServeOptions, Server};
use crate::overlay::{LayerConfig, Overlay, UpperDirs};
use crate::sys::{Errno, creds, fusedev, memory};

/// Threads that answer requests: one keeps the other from waiting for the disk.
const THREADS: usize = 2;

/// More lowers than these may need more open files than a process has by default, before there is a server.
const FEW_LOWERS: usize = 100;

/// What to mount, and how.
#[derive(Debug)]
pub struct Request {
    /// The directories.
    pub directories: Directories,
    /// The words.
    pub options: Options,
    /// The first column of mount(8), if it is not the lower's path.
    pub source: Option<OsString>,
    /// Marks of other tools in the lowers count ([`LayerConfig::foreign`]), and a lower may be there twice or lie in
    /// another one.
    pub foreign: bool,
    /// Stay in the foreground.
    pub foreground: bool,
    /// The mount point was made for this mount and goes with it.
    pub remove_mount_point: bool,
    /// Write a log even though the server is in the background.
    pub log: bool,
    /// The view is for the calling process only: it is unmounted when that ends, however it ends.
    pub passing: bool,
    /// A container engine asks: a dead view on the mount point gives way, an upper that fuse-overlayfs wrote is taken
    /// over, and the view need not be in the list of live mounts if there is no place for that.
    pub engine: bool,
}

/// What became of a mount.
#[derive(Debug)]
pub enum Outcome {
    /// The view answers; a background server has it.
    Ready(Box<Entry>),
    /// This *is* the server, in the foreground or in the background, and its view has been unmounted.
    Ended,
}

/// What the background server tells its parent.
#[derive(Serialize, Deserialize)]
enum Report {
    Ready(Entry),
    Failed(String),
}

/// Checks, mounts, and returns when the view answers; with `foreground`, when it has been unmounted again.
/// `on_ready` is called in the foreground once the view answers.
///
/// Splits the process: to be called before there are threads, and the caller ends on [`Outcome::Ended`].
///
/// # Errors
/// Whatever stood in the way; nothing is mounted then.
pub fn mount(request: &Request, on_ready: impl FnOnce(&Entry)) -> Result<Outcome, MountError> {
    // Whatever the caller's shell says: who uses the view brings a umask along with each request.
    rustix::process::umask(Mode::empty());
    if request.engine || request.directories.lowers.len() > FEW_LOWERS {
        raise_descriptor_limit();
    }
    let checked = if request.engine {
        check_for_engine(request)?
    } else {
        setup::check(
            &request.directories,
            request.options.attributes.read_only,
            request.foreign,
        )?
    };
    let runtime = match registry::directory() {
        Err(error) if request.engine => {
            log::info!("not in the list of live mounts: {error}");
            None
        }
        found => Some(found?),
    };
    let runtime = runtime.as_deref();
    let merged = checked.paths.merged.clone();
    if request.foreground {
        serve(request, checked, runtime, None, |entry| {
            on_ready(entry);
            Ok(())
        })?;
        return Ok(Outcome::Ended);
    }
    let (reader, writer) =
        pipe_with(PipeFlags::CLOEXEC).map_err(MountError::io("cannot make a pipe for", &merged))?;
    let asking = request.passing.then(rustix::process::getpid);
    match fusedev::fork().map_err(MountError::io("cannot start a server for", &merged))? {
        fusedev::Forked::Parent(child) => {
            drop((checked, writer));
            wait_until_ready(reader, child, &merged)
        }
        fusedev::Forked::Child => {
            drop(reader);
            be_background(request, checked, runtime, File::from(writer), asking);
            Ok(Outcome::Ended)
        }
    }
}

/// As [`setup::check`], in the manner of engines.
fn check_for_engine(request: &Request) -> Result<Checked, MountError> {
    let directories = &request.directories;
    if let Some((upper, _)) = &directories.upper {
        orphan::make_way(upper);
    }
    let check = || setup::check(directories, request.options.attributes.read_only, true);
    let checked = match check() {
        Err(MountError::DeadMount {
            role: Role::Merged, ..
        }) => {
            unmount::clear_dead(&directories.merged)?;
            check()?
        }
        found => found?,
    };
    if let (Some((upper, work)), Some((path, _))) = (&checked.upper, &checked.paths.upper) {
        adopt::take_over(upper.as_fd(), work.as_fd(), request.options.xattr, path)?;
    }
    Ok(checked)
}

/// The parent's part: exit status 0 is promised only for a view that answers.
fn wait_until_ready(
    reader: OwnedFd,
    child: rustix::process::Pid,
    merged: &Path,
) -> Result<Outcome, MountError> {
    let died = |how: String| MountError::ServerDied {
        path: merged.to_owned(),
        how,
    };
    let mut text = Vec::new();
    File::from(reader)
        .read_to_end(&mut text)
        .map_err(MountError::io("cannot hear from the server of", merged))?;
    match serde_json::from_slice(&text) {
        Ok(Report::Ready(entry)) => match std::fs::metadata(merged) {
            Ok(_) => Ok(Outcome::Ready(Box::new(entry))),
            Err(error) => Err(died(format!("looking at the mount point: {error}"))),
        },
        Ok(Report::Failed(reason)) => Err(MountError::FromServer(reason)),
        Err(_) => {
            let status = waitpid(Some(child), WaitOptions::empty())
                .map_err(MountError::io("cannot wait for the server of", merged))?;
            Err(died(
                match status.map(|(_, status)| (status.terminating_signal(), status.exit_status())) {
                    Some((Some(signal), _)) => format!("killed by signal {signal}"),
                    Some((None, Some(code))) => format!("exit status {code}"),
                    _ => "for an unknown reason".to_owned(),
                },
            ))
        }
    }
}

/// The child's part, which the caller's terminal, pipes and directory have nothing to do with.
fn be_background(
    request: &Request,
    checked: Checked,
    runtime: Option<&Path>,
    pipe: File,
    asking: Option<Pid>,
) {
    let mut pipe = Some(pipe);
    let merged = checked.paths.merged.clone();
    let prepared = rustix::process::setsid()
        .and_then(|_| asking.map_or(Ok(()), end_with))
        .map_err(MountError::io("cannot start a session for", &merged))
        .and_then(|()| runtime.filter(|_| request.log).map(open_log).transpose());
    let ended = prepared.and_then(|log| {
        if let Some((file, path)) = &log {
            rustix::stdio::dup2_stderr(file).map_err(MountError::io("cannot log to", path))?;
        }
        let path = log.as_ref().map(|(_, path)| path.as_path());
        serve(request, checked, runtime, path, |entry| {
            fusedev::silence(log.as_ref().map(|(file, _)| file.as_fd()))
                .map_err(MountError::io("cannot open", Path::new("/dev/null")))?;
            report(&mut pipe, &Report::Ready(entry.clone()))
        })
    });
    if let Err(error) = ended {
        // Told by the parent, if that still waits; else there is only the log.
        if pipe.is_none() {
            log::error!("{error}");
        } else if let Err(error) = report(&mut pipe, &Report::Failed(error.to_string())) {
            log::error!("{error}");
        }
    }
}

/// Makes the end of the parent `asking` a signal to take the view down.
fn end_with(asking: Pid) -> Result<(), Errno> {
    crate::sys::namespaces::end_with_parent()?;
    // It may have ended already.
    if rustix::process::getppid() == Some(asking) {
        Ok(())
    } else {
        Err(Errno::SRCH)
    }
}

/// Tells the waiting parent how it went, once.
fn report(pipe: &mut Option<File>, report: &Report) -> Result<(), MountError> {
    let Some(mut pipe) = pipe.take() else {
        return Ok(());
    };
    let failed = MountError::io("cannot report to", Path::new("the waiting command"));
    // In one go: each piece would wake the other side.
    let told = serde_json::to_vec(report).map_err(std::io::Error::from);
    match told.and_then(|text| pipe.write_all(&text)) {
        // It was killed while it waited; the mount was asked for and stays.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(failed),
    }
}

fn open_log(runtime: &Path) -> Result<(File, PathBuf), MountError> {
    let path = runtime.join(format!("{}.log", std::process::id()));
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(MountError::io("cannot write the log", &path))?;
    Ok((file, path))
}

/// The life of a server.
fn serve(
    request: &Request,
    checked: Checked,
    runtime: Option<&Path>,
    log: Option<&Path>,
    on_ready: impl FnOnce(&Entry) -> Result<(), MountError>,
) -> Result<(), MountError> {
    let Checked {
        lowers,
        clones: _clones,
        layers,
        upper,
        merged,
        fuse,
        paths,
        helper,
    } = checked;
    raise_descriptor_limit();
    make_room_for_descriptors(&merged);
    memory::large_blocks_apart();
    rustix::process::chdir("/").map_err(MountError::io("cannot go to", Path::new("/")))?;
    let mut watcher = if request.options.auto_unmount {
        Some(Watcher::start(&paths.merged, helper.as_ref())?)
    } else {
        None
    };
    // From here on a signal waits until the view can be taken down.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(MountError::io("cannot handle signals for", &paths.merged))?;
    // The locks on upper and work last until the last write is on disk, whatever the overlay does with its own.
    let locks = keep_locked(upper.as_ref(), &paths)?;
    let (_layer_locks, names): (Vec<_>, Vec<_>) =
        layers.into_iter().map(|layer| (layer.lock, layer.names)).unzip();
    let names = names.into_iter().next().flatten();
    let overlay = open_overlay(request, lowers, names, upper, &paths)?;
    if let (true, [upper, work]) = (request.engine, locks.as_slice()) {
        adopt::note(work.as_fd(), upper.as_fd());
    }
    let presentation = &request.options.presentation;
    let mut ids = presentation.ids.clone();
    if !ids.is_unmapped() {
        ids.set_overflow(creds::overflow_ids());
    }
    let options = ServeOptions {
        timeout: request.options.timeout,
        passthrough: request.options.passthrough,
        writeback: request.options.writeback,
        allow_root: request.options.allow_root,
        threads: THREADS,
        low_latency: request.options.low_latency,
        ids,
        static_nlink: presentation.static_nlink,
        no_acl: presentation.has_no_acls(),
    };
    let start = |fuse| {
        Server::start(fuse, Arc::clone(&overlay), &options).map_err(MountError::io(
            "the kernel does not speak with the server of",
            &paths.merged,
        ))
    };

    let source = source(request, &paths.lowers);
    let (server, take_down) = if let Some(helper) = helper {
        // The helper mounts in sight of everyone, so the handshake comes second.
        let wide = request.options.allow_other || request.options.allow_root;
        let fuse = helper::mount(
            &helper,
            &paths.merged,
            &source,
            request.options.attributes,
            &presentation.labels,
            wide,
        )?;
        let take_down = TakeDown::of_topmost(&paths.merged, Some(helper));
        let server = start(fuse).inspect_err(|_| take_down.after_failure())?;
        (server, take_down)
    } else {
        let mount = fusedev::create_mount(
            fuse.as_fd(),
            &source,
            request.options.attributes,
            &presentation.labels,
        )
        .map_err(MountError::io("cannot make a mount for", &paths.merged))?;
        let server = start(fuse)?;
        let mount_id =
            mount_id(mount.as_fd()).map_err(MountError::io("cannot read", Path::new("/proc/self/fdinfo")))?;
        let take_down = TakeDown {
            mount_id,
            merged: paths.merged.clone(),
            helper: None,
        };
        fusedev::attach(mount.as_fd(), merged.as_fd()).map_err(|errno| match errno {
            Errno::NOENT => MountError::Open {
                role: Role::Merged,
                path: paths.merged.clone(),
                errno,
            },
            errno => MountError::io("cannot mount on", &paths.merged)(errno),
        })?;
        // An open descriptor of the mount would keep it busy.
        drop(mount);
        (server, take_down)
    };
    drop(merged);
    readahead::widen(take_down.mount_id);
    if let Some(watcher) = &mut watcher {
        watcher.mounted(take_down.mount_id);
    }

    let announced = announce(request, &paths, runtime, log, &take_down, &overlay, signals)
        .and_then(|announced| on_ready(&announced.entry).map(|()| announced));
    let ended = match &announced {
        Ok(_) => server.run().map_err(MountError::io(
            "the connection to the kernel broke for",
            &paths.merged,
        )),
        Err(_) => Ok(()),
    };
    if announced.is_err() || ended.is_err() {
        take_down.after_failure();
    }
    let synced = overlay.sync().map_err(MountError::io(
        "the last changes may not be on disk for",
        &paths.merged,
    ));
    if request.remove_mount_point
        && let Err(error) = std::fs::remove_dir(&paths.merged)
    {
        log::debug!("{}: {error}", paths.merged.display());
    }
    if let Some(watcher) = watcher {
        watcher.done();
    }
    announced.map(drop).and(ended).and(synced)
}

/// Copies of the descriptors that carry the locks.
fn keep_locked(upper: Option<&(OwnedFd, OwnedFd)>, paths: &Directories) -> Result<Vec<OwnedFd>, MountError> {
    let Some((upper, work)) = upper else {
        return Ok(Vec::new());
    };
    [upper, work]
        .into_iter()
        .map(|dir| {
            dir.try_clone()
                .map_err(MountError::io("cannot keep the locks of", &paths.merged))
        })
        .collect()
}

/// The first column of mount(8), of which the kernel takes no more than 255 bytes: the end of a longer name, which tells
/// more than its beginning.
fn source(request: &Request, lowers: &[PathBuf]) -> OsString {
    const LONGEST: usize = 255;
    let name = request
        .options
        .fsname
        .as_deref()
        .or(request.source.as_deref())
        .or(lowers.first().map(|lower| lower.as_os_str()))
        .unwrap_or(OsStr::new("plyfs"));
    match name.len().checked_sub(LONGEST) {
        None | Some(0) => name.to_owned(),
        Some(over) => {
            let end = over.saturating_add("...".len());
            let mut short = b"...".to_vec();
            short.extend_from_slice(name.as_bytes().get(end..).unwrap_or_default());
            OsString::from_vec(short)
        }
    }
}

fn open_overlay(
    request: &Request,
    lowers: Vec<OwnedFd>,
    names: Option<Links>,
    upper: Option<(OwnedFd, OwnedFd)>,
    paths: &Directories,
) -> Result<Arc<Overlay>, MountError> {
    let config = LayerConfig {
        lowers,
        names,
        foreign: request.foreign,
        upper: upper.map(|(upper, work)| UpperDirs { upper, work }),
        xattr: request.options.xattr,
        fsync: request.options.fsync,
        ownership: request.options.presentation.ownership(),
    };
    Overlay::open(config)
        .map(Arc::new)
        .map_err(|source| MountError::Layers {
            source,
            lowers: paths.lowers.clone(),
            upper: paths.upper.as_ref().map(|(upper, _)| upper.clone()),
            work: paths.upper.as_ref().map(|(_, work)| work.clone()),
        })
}

/// What others see of a live mount, as long as it lives.
struct Announced {
    entry: Entry,
    _control: Option<control::Control>,
    _registered: Option<registry::Registered>,
}

/// Starts the threads beside the server, and enters the mount into the list.
fn announce(
    request: &Request,
    paths: &Directories,
    runtime: Option<&Path>,
    log: Option<&Path>,
    take_down: &TakeDown,
    overlay: &Arc<Overlay>,
    mut signals: Signals,
) -> Result<Announced, MountError> {
    let (lower, below) = match paths.lowers.split_first() {
        Some((lower, below)) => (lower.as_path(), below),
        None => (Path::new(""), Default::default()),
    };
    let entry = Entry {
        pid: std::process::id(),
        since: jiff::Timestamp::now().as_second(),
        mount_id: take_down.mount_id,
        lower: lower.into(),
        below: below.iter().map(|lower| lower.as_path().into()).collect(),
        upper: paths.upper.as_ref().map(|(upper, _)| upper.as_path().into()),
        work: paths.upper.as_ref().map(|(_, work)| work.as_path().into()),
        merged: paths.merged.as_path().into(),
        read_only: request.options.attributes.read_only,
        foreign: request.foreign,
        log: log.map(JsonPath::from),
        passing: request.passing,
    };
    let on_signal = take_down.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in &mut signals {
                log::info!("signal {signal}: unmounting {}", on_signal.merged.display());
                if let Err(error) = on_signal.run(false) {
                    log::error!("{error}");
                }
            }
        })
        .map_err(MountError::io("cannot start a thread for", &paths.merged))?;
    let listed = runtime.map(|runtime| list(runtime, &entry, overlay)).transpose();
    let listed = match listed {
        Err(error) if request.engine => {
            log::info!("not in the list of live mounts: {error}");
            None
        }
        listed => listed?,
    };
    let (control, registered) = listed.unzip();
    Ok(Announced {
        entry,
        _control: control,
        _registered: registered,
    })
}

/// Enters the mount into the list, with its control socket.
fn list(
    runtime: &Path,
    entry: &Entry,
    overlay: &Arc<Overlay>,
) -> Result<(control::Control, registry::Registered), MountError> {
    let name = format!("{}-{}", entry.pid, entry.mount_id);
    let control = control::listen(runtime.join(&name).with_extension("sock"), Arc::clone(overlay))?;
    let registered = registry::register(runtime, OsStr::new(&name), entry)?;
    Ok((control, registered))
}

/// The overlay keeps many directories open; the hard limit is what an administrator meant to allow.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(errno) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    ) {
        log::debug!("cannot raise the limit of open files: {errno}");
    }
}

/// Descriptors for which the kernel's table has room from the start: those of directories and files that are kept open.
const ROOM: u64 = 8192;

/// The kernel doubles the table of a process's descriptors when it is full, and while the process has several threads it
/// first waits until nobody can be looking at the old one, for ten milliseconds and more, at each of 64, 128, 256, ...
/// descriptors. Alone a process need not wait, and the table never becomes smaller.
fn make_room_for_descriptors(any: &OwnedFd) {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(ROOM);
    let Some(highest) = limit
        .min(ROOM)
        .checked_sub(1)
        .and_then(|number| i32::try_from(number).ok())
    else {
        return;
    };
    if let Err(errno) = rustix::io::fcntl_dupfd_cloexec(any, highest) {
        log::debug!("no room for descriptors in advance: {errno}");
    }
}
