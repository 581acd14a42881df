//! A server that dies in the middle of a copy-up, by no luck of timing.
//!
//! The server may make no file longer than a part of the large one (RLIMIT_FSIZE), so the copy cannot be completed
//! however fast the machine is: if nobody stops the server before, the kernel kills it there (SIGXFSZ). Meanwhile it
//! runs in short slices between SIGCONT and SIGSTOP, until its copy has data in it: that moment is shown. Then it is
//! killed.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process, prlimit, waitid,
};

use super::change::order;

use super::error::{LessonError, Result};
use super::model::{Action, Entry, Scene, Sort, readable};
use super::room::{PATIENCE, Room};
use super::text::size;
use crate::builder::manifest::Text;
use crate::sys::Errno;
use crate::sys::stat;

/// The size of the file that is copied up.
pub(super) const LARGE: u64 = 64 << 20;
/// No copy gets longer than this.
const LIMIT: u64 = 48 << 20;
/// How long the server runs between two looks.
const SLICE: Duration = Duration::from_micros(300);

const COMMAND: &str = "echo 'one more line' >> M/big &";

/// An unfinished copy: a file that the server has open in the work directory.
struct Unfinished {
    /// Its name as /proc has it.
    name: Vec<u8>,
    /// The link below /proc.
    link: PathBuf,
    entry: Entry,
}

fn failed(what: &'static str) -> impl Fn(Errno) -> LessonError {
    move |errno| LessonError::Crash(format!("cannot {what} the server: {errno}"))
}

/// Starts the copy-up of `M/big`, stops the server in the middle of it, and kills it there.
pub(super) fn in_the_middle(room: &mut Room<'_>) -> Result<Vec<Scene>> {
    let server = room.server()?;
    limit(server)?;
    halt(server)?;
    let mut writer = room.start(COMMAND.trim_end_matches(" &"))?;
    let found = run_until_half(room, server, &mut writer.0);
    let mut scenes = Vec::new();
    let halfway = match found {
        Ok(halfway) => halfway,
        Err(error) => {
            // Whoever waits for the server is let go.
            kill_process(server, Signal::KILL).map_err(failed("kill"))?;
            room.end_server();
            return match room.finish(COMMAND, writer) {
                Ok(ran) if matches!(error, LessonError::Crash(_)) => {
                    Err(LessonError::Crash(format!("{error}: {}", ran.said.trim_end())))
                }
                _ => Err(error),
            };
        }
    };
    room.silence("its server is stopped: who looked now would wait");
    let killed = if let Some(unfinished) = halfway {
        scenes.push(middle(room, server, &unfinished)?);
        kill_process(server, Signal::KILL).map_err(failed("kill"))?;
        format!("kill -KILL {}", server.as_raw_nonzero())
    } else {
        format!(
            "{COMMAND}\n# the kernel kills {} (SIGXFSZ): its copy has reached {LIMIT} bytes",
            server.as_raw_nonzero()
        )
    };
    room.end_server();
    let ran = room.finish(COMMAND, writer)?;
    room.end_of_silence();
    let mut scene = room.scene(Action::Server, &killed, ran.said, Some(ran.status))?;
    scene.note = Some(
        "The command that waited for the copy fails. M belongs to nobody now, and the unfinished copy is gone with \
         the last process that had it open."
            .to_owned(),
    );
    scenes.push(scene);
    Ok(scenes)
}

/// Makes it certain that the copy is not completed.
fn limit(server: Pid) -> Result<()> {
    let own = getrlimit(Resource::Fsize);
    let limit = Rlimit {
        current: Some(own.current.map_or(LIMIT, |current| current.min(LIMIT))),
        maximum: own.maximum,
    };
    prlimit(Some(server), Resource::Fsize, limit).map_err(failed("limit"))?;
    let core = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    prlimit(Some(server), Resource::Core, core).map_err(failed("limit"))?;
    Ok(())
}

/// Stops the server; false if it has ended.
fn halt(server: Pid) -> Result<bool> {
    kill_process(server, Signal::STOP).map_err(failed("stop"))?;
    let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status =
        rustix::io::retry_on_intr(|| waitid(WaitId::Pid(server), options)).map_err(failed("wait for"))?;
    Ok(status.is_some_and(|status| status.stopped()))
}

/// Lets the server run until its copy has data; none if the kernel killed it before that was seen.
fn run_until_half(room: &Room<'_>, server: Pid, writer: &mut Child) -> Result<Option<Unfinished>> {
    let until = Instant::now() + PATIENCE;
    loop {
        room.check_stopped()?;
        if Instant::now() > until {
            return Err(LessonError::Endless {
                what: COMMAND.to_owned(),
                seconds: PATIENCE.as_secs(),
            });
        }
        kill_process(server, Signal::CONT).map_err(failed("continue"))?;
        std::thread::sleep(SLICE);
        if !halt(server)? {
            return Ok(None);
        }
        if let Some(found) = unfinished(room, server)? {
            return Ok(Some(found));
        }
        // Only where the copy failed, for want of room perhaps.
        let ended = writer
            .try_wait()
            .map_err(LessonError::io("wait for a shell in", room.base()))?;
        if let Some(status) = ended {
            return Err(LessonError::Crash(format!(
                "the command ended before that ({status})"
            )));
        }
    }
}

/// The open file of the server that lies in `W/work` and has data in it.
fn unfinished(room: &Room<'_>, server: Pid) -> Result<Option<Unfinished>> {
    let list = PathBuf::from(format!("/proc/{}/fd", server.as_raw_nonzero()));
    let work = room.base().join("W/work");
    for item in std::fs::read_dir(&list).map_err(LessonError::io("read", &list))? {
        let link = item.map_err(LessonError::io("read", &list))?.path();
        let Ok(target) = std::fs::read_link(&link) else {
            continue;
        };
        let Ok(name) = target.strip_prefix(&work) else {
            continue;
        };
        let stat = std::fs::File::open(&link).and_then(|file| Ok(stat::stat_fd(&file)?));
        let stat = stat.map_err(LessonError::io("look at", &link))?;
        if !stat.is_file() || stat.size == 0 || stat.size >= LARGE {
            continue;
        }
        let name = name.as_os_str().as_bytes().to_vec();
        let entry = Entry {
            path: Text([b"work/", name.as_slice()].concat()),
            sort: Sort::File,
            mode: stat.mode & 0o7777,
            size: stat.size,
            inode: stat.ino,
            links: stat.nlink,
            modified: i128::from(stat.mtime.secs) * 1_000_000_000 + i128::from(stat.mtime.nanos),
            text: None,
            marks: Vec::new(),
            answers: None,
            hidden: false,
            change: None,
        };
        return Ok(Some(Unfinished { name, link, entry }));
    }
    Ok(None)
}

/// What lies where while the copy is half done.
fn middle(room: &mut Room<'_>, server: Pid, unfinished: &Unfinished) -> Result<Scene> {
    let mut shots = room.look()?;
    for shot in shots.iter_mut().filter(|shot| shot.tree.label == "W") {
        // A file without a name is in no listing; the kernel tells of it under /proc.
        if !shot
            .tree
            .entries
            .iter()
            .any(|entry| entry.inode == unfinished.entry.inode)
        {
            shot.tree.entries.push(unfinished.entry.clone());
            shot.origins.push(None);
            // Nothing in W has an origin, so these need no sorting.
            shot.tree.entries.sort_by(|a, b| order(&a.path, &b.path));
        }
    }
    let command = format!("{COMMAND}\nkill -STOP {}", server.as_raw_nonzero());
    let mut scene = room.scene_of(Action::Server, &command, String::new(), None, shots)?;
    scene.note = Some(format!(
        "{} of {} are copied. The copy lies in W as an open file of the server, without a name that anybody could \
         find: {} -> W/work/{}",
        size(unfinished.entry.size),
        size(LARGE),
        unfinished.link.display(),
        readable(&unfinished.name),
    ));
    Ok(scene)
}
