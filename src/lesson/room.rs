//! The scratch directory: layers, a server of its own, commands that are really run, and looks at what they left.
//!
//! ```text
//!   SCRATCH/L  the lower      SCRATCH/W  the work directory
//!   SCRATCH/U  the upper      SCRATCH/M  the view      SCRATCH/C  a child layer, at the end
//! ```
//! All of it goes when the value does, the server and its mount too.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, renameat};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::change;
use super::error::{LessonError, Result};
use super::model::{Action, Scene};
use super::shot::{Shot, View};
use crate::format::OriginReader;
use crate::mount::unmount;
use crate::sys::{Errno, namespaces};

/// No command of the walk takes this long.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How often somebody who wants to stop is heard.
const TICK: Duration = Duration::from_millis(200);

/// How the view is mounted, as one would type it.
pub(super) const MOUNT: &str = "plyfs mount -f L M --upper U --work W &";

/// What a command printed, and its exit status.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) said: String,
    pub(super) status: i32,
}

/// The scratch directory of one walk.
pub struct Room<'a> {
    program: PathBuf,
    /// A child of this process, in the foreground as far as it knows.
    server: Option<Child>,
    /// Open as long as the server lives: it may write there.
    said: Option<ChildStdout>,
    /// Nothing can be read through the view, and why.
    silent: Option<String>,
    /// There is a child layer, and no view any more.
    child_layer: bool,
    origins: Option<OriginReader>,
    last: Vec<Shot>,
    stopped: &'a dyn Fn() -> bool,
    base: PathBuf,
    // Removed after everything above.
    _scratch: Option<TempDir>,
}

impl std::fmt::Debug for Room<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl<'a> Room<'a> {
    /// A fresh scratch directory below `parent`, where `program` is plyfs itself. `stopped` is asked now and then;
    /// with `keep` the directory stays.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(parent: &Path, program: &Path, keep: bool, stopped: &'a dyn Fn() -> bool) -> Result<Self> {
        let scratch = tempfile::Builder::new()
            .prefix("plyfs-lesson-")
            .tempdir_in(parent)
            .map_err(LessonError::io("make a scratch directory in", parent))?;
        let base = scratch
            .path()
            .canonicalize()
            .map_err(LessonError::io("find", scratch.path()))?;
        let scratch = if keep {
            // Answers the path it had.
            drop(scratch.keep());
            None
        } else {
            Some(scratch)
        };
        Ok(Self {
            program: program.to_owned(),
            server: None,
            said: None,
            silent: Some("not mounted".to_owned()),
            child_layer: false,
            origins: None,
            last: Vec::new(),
            stopped,
            base,
            _scratch: scratch,
        })
    }

    /// The scratch directory.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The layers as they were at the last look, nothing marked.
    pub(super) fn now(&self) -> Vec<super::model::Tree> {
        change::plain(&self.last)
    }

    pub(super) fn check_stopped(&self) -> Result<()> {
        if (self.stopped)() {
            Err(LessonError::Interrupted)
        } else {
            Ok(())
        }
    }

    /// Runs a line of shell in the scratch directory.
    pub(super) fn run(&self, line: &str) -> Result<Ran> {
        self.finish(line, self.start(line)?)
    }

    /// Starts a line of shell; it is to be waited for with [`Room::finish`].
    pub(super) fn start(&self, line: &str) -> Result<(Child, std::io::PipeReader)> {
        self.check_stopped()?;
        let failed = |error: std::io::Error| LessonError::io("run a shell in", &self.base)(error);
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let twin = writer.try_clone().map_err(failed)?;
        let mut command = self.command("sh");
        command
            .arg("-c")
            .arg(format!("umask 022\nplyfs() {{ \"$PLYFS\" \"$@\"; }}\n{line}"))
            .stdout(writer)
            .stderr(twin);
        let child = command.spawn().map_err(failed)?;
        Ok((child, reader))
    }

    /// What a started line printed, once it has ended.
    pub(super) fn finish(&self, line: &str, started: (Child, std::io::PipeReader)) -> Result<Ran> {
        let (mut child, mut reader) = started;
        let mut bytes = Vec::new();
        let read = self.read_all(&mut reader, &mut bytes, line);
        if read.is_err() {
            // It may wait for a server that was stopped; whatever it is, it is not waited for.
            child
                .kill()
                .unwrap_or_else(|error| log::debug!("{line}: {error}"));
        }
        let status = child
            .wait()
            .map_err(LessonError::io("wait for a shell in", &self.base))?;
        read?;
        Ok(Ran {
            said: String::from_utf8_lossy(&bytes).into_owned(),
            status: status.code().unwrap_or(-1),
        })
    }

    fn read_all(&self, reader: &mut std::io::PipeReader, bytes: &mut Vec<u8>, line: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut chunk = [0; 4096];
        loop {
            self.wait_for(&*reader, until, line)?;
            let read = reader
                .read(&mut chunk)
                .map_err(LessonError::io("hear from a shell in", &self.base))?;
            match read {
                0 => return Ok(()),
                n => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            }
        }
    }

    /// Waits until there is something to read.
    fn wait_for(&self, fd: impl AsFd, until: Instant, what: &str) -> Result<()> {
        let failed = |errno: Errno| LessonError::io("wait for a command in", &self.base)(errno);
        let tick = Timespec::try_from(TICK).map_err(|_| failed(Errno::INVAL))?;
        loop {
            self.check_stopped()?;
            if Instant::now() > until {
                return Err(LessonError::Endless {
                    what: what.to_owned(),
                    seconds: PATIENCE.as_secs(),
                });
            }
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&tick)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.base)
            .stdin(Stdio::null())
            .env("PLYFS", &self.program)
            .env("LC_ALL", "C")
            // What the lesson shows does not depend on how its viewer looks for faults.
            .env_remove("RUST_LOG");
        command
    }

    /// Runs a line and shows what it left. With `must` it has to succeed.
    pub(super) fn shell(&mut self, line: &str, must: bool) -> Result<Scene> {
        let ran = self.run(line)?;
        if must && ran.status != 0 {
            return Err(LessonError::Command {
                command: line.to_owned(),
                status: ran.status,
                said: ran.said.trim_end().to_owned(),
            });
        }
        self.scene(Action::Shell, line, ran.said, Some(ran.status))
    }

    /// rename(2) itself, since mv(1) does something else when it fails.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<Scene> {
        let done = renameat(CWD, self.base.join(from), CWD, self.base.join(to));
        let said = match done {
            Ok(()) => "0\n".to_owned(),
            Err(errno) => {
                let name = match errno {
                    Errno::XDEV => "EXDEV",
                    Errno::NOTEMPTY | Errno::EXIST => "ENOTEMPTY",
                    _ => "-1",
                };
                format!("{name}: {errno}\n")
            }
        };
        self.scene(Action::Call, &format!("rename(\"{from}\", \"{to}\")"), said, None)
    }

    /// Starts a server and returns when its view answers.
    pub(super) fn mount(&mut self) -> Result<Scene> {
        self.check_stopped()?;
        let failed = |error: std::io::Error| LessonError::io("start a server in", &self.base)(error);
        let log = self.base.join("server.log");
        let errors = std::fs::File::create(&log).map_err(LessonError::io("make", &log))?;
        let mut command = self.command(&self.program);
        command
            .args(["mount", "-f", "L", "M", "--upper", "U", "--work", "W"])
            .stdout(Stdio::piped())
            .stderr(errors);
        // A signal from the terminal is for the walk, which takes the server down in good order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        namespaces::end_with_this_process(&mut command);
        let mut child = command.spawn().map_err(failed)?;
        let Some(mut stdout) = child.stdout.take() else {
            return Err(failed(Errno::BADF.into()));
        };
        // From here on there may be a mount, which goes with the room.
        self.server = Some(child);
        self.silent = Some("its server has not answered".to_owned());
        self.wait_for(&stdout, Instant::now() + PATIENCE, MOUNT)?;
        // One write, once the view answers; nothing at all if it never does.
        let mut bytes = vec![0; 4096];
        let read = stdout.read(&mut bytes).map_err(failed)?;
        bytes.truncate(read);
        if read == 0 {
            self.end_server();
            let said = std::fs::read_to_string(&log).map_err(LessonError::io("read", &log))?;
            let said = said.trim().trim_start_matches("plyfs: ");
            return Err(LessonError::Mount {
                said: if said.is_empty() {
                    "its server ended without a word".to_owned()
                } else {
                    said.to_owned()
                },
            });
        }
        self.said = Some(stdout);
        self.silent = None;
        let said = String::from_utf8_lossy(&bytes).into_owned();
        self.scene(Action::Mount, MOUNT, said, None)
    }

    /// `plyfs umount M`, and the end of the server.
    pub(super) fn unmount(&mut self) -> Result<Scene> {
        const LINE: &str = "plyfs umount M";
        let ran = self.run(LINE)?;
        if ran.status != 0 {
            return Err(LessonError::Command {
                command: LINE.to_owned(),
                status: ran.status,
                said: ran.said.trim_end().to_owned(),
            });
        }
        self.end_server();
        self.silent = Some("not mounted".to_owned());
        self.scene(Action::Unmount, LINE, ran.said, Some(ran.status))
    }

    /// From here on there is a child layer `C` in the place of work directory and view.
    pub(super) fn show_child_layer(&mut self) {
        self.child_layer = true;
    }

    /// The server's process.
    pub(super) fn server(&self) -> Result<Pid> {
        let id = self.server.as_ref().map(|server| server.id());
        id.and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| LessonError::Crash("there is no server".to_owned()))
    }

    /// Nothing is to be read through the view from now on: who tried would wait for ever.
    pub(super) fn silence(&mut self, why: &str) {
        self.silent = Some(why.to_owned());
    }

    /// The view is to be looked at, whatever comes of it.
    pub(super) fn end_of_silence(&mut self) {
        self.silent = None;
    }

    /// Looks at everything, compares it with the last look, and remembers it for the next.
    pub(super) fn scene(
        &mut self,
        action: Action,
        command: &str,
        said: String,
        status: Option<i32>,
    ) -> Result<Scene> {
        let shots = self.look()?;
        self.scene_of(action, command, said, status, shots)
    }

    /// As [`Room::scene`], with a look that was taken by hand.
    pub(super) fn scene_of(
        &mut self,
        action: Action,
        command: &str,
        said: String,
        status: Option<i32>,
        shots: Vec<Shot>,
    ) -> Result<Scene> {
        let trees = change::compare(&self.last, &shots);
        self.last = shots;
        Ok(Scene {
            action,
            command: command.to_owned(),
            said,
            status,
            note: None,
            trees,
        })
    }

    /// A look at every tree there is.
    pub(super) fn look(&mut self) -> Result<Vec<Shot>> {
        let lower = self.base.join("L");
        if self.origins.is_none()
            && let Ok(root) = std::fs::File::open(&lower)
        {
            self.origins = OriginReader::learn(&[root]);
        }
        let mut shots = vec![
            self.look_at("L", "lower", &lower)?,
            self.look_at("U", "upper", &self.base.join("U"))?,
        ];
        if self.child_layer {
            shots.push(self.look_at("C", "child layer", &self.base.join("C"))?);
            return Ok(shots);
        }
        shots.push(self.look_at("W", "work", &self.base.join("W"))?);
        shots.push(match &self.silent {
            Some(why) => self.view("M", "view").absent(why),
            None => self.look_at("M", "view", &self.base.join("M"))?,
        });
        Ok(shots)
    }

    fn view<'b>(&'b self, label: &'b str, role: &'b str) -> View<'b> {
        View {
            origins: (label == "U").then_some(self.origins.as_ref()).flatten(),
            ..View::new(label, role)
        }
    }

    fn look_at(&self, label: &str, role: &str, path: &Path) -> Result<Shot> {
        let view = self.view(label, role);
        match view.look(path) {
            Ok(shot) => Ok(shot),
            Err(crate::builder::BuildError::Call {
                errno: errno @ (Errno::NOTCONN | Errno::CONNABORTED | Errno::NOENT),
                path,
                ..
            }) if path.is_root() => Ok(view.absent(&errno.to_string())),
            Err(source) => Err(LessonError::Look {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Waits for the server's end, having asked for it.
    pub(super) fn end_server(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        let id = server.id();
        if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
            // It may be stopped; a signal it handles reaches it when it goes on.
            for signal in [Signal::TERM, Signal::CONT] {
                if let Err(errno) = kill_process(pid, signal) {
                    log::debug!("server {id}: {errno}");
                }
            }
        }
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match server.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => {
                    log::warn!("the lesson's server {id} does not end; killed");
                    if let Err(error) = server.kill().and_then(|()| server.wait().map(drop)) {
                        log::warn!("the lesson's server {id}: {error}");
                    }
                    return;
                }
                Ok(Some(_)) => return,
                Err(error) => {
                    log::warn!("the lesson's server {id}: {error}");
                    return;
                }
            }
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.end_server();
        // A server that was killed leaves a dead mount.
        let view = self.base.join("M");
        if self.silent.as_deref() != Some("not mounted")
            && let Err(error) = unmount::unmount(&view, true, |_| {})
        {
            log::debug!("{error}");
        }
    }
}
