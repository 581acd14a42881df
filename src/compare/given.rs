//! A script or a program of the user's, run once in each view.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::accepted::Counts;
use super::apart::{SCRATCH, STAGE};
use super::bench::{Bench, c_path};
use super::engine::{End, Layered, Run, Stop};
use super::hunt::{CROSS_MOUNT, Setting};
use super::judge::Difference;
use super::nasty;
use super::op::{Call, Look};
use super::pair::{Pair, Side};
use super::rng::Rng;
use super::tops;
use super::way::{Way, mount_of};
use super::worker::{Reply, Request};
use crate::sys::plain as sys;

/// What is compared of one command.
#[derive(Clone, Debug)]
pub struct Given {
    /// The program and its arguments. It runs as root, its working directory is the view.
    pub command: Vec<OsString>,
    /// A directory of which each side gets a copy as its lower; without one, the layers are generated from `seed`.
    pub lower: Option<PathBuf>,
    /// The same for the upper; without one it is empty if `lower` is given.
    pub upper: Option<PathBuf>,
    /// Chooses among the parts of generated layers.
    pub seed: u64,
    /// How long the command may take in one view.
    pub limit: Duration,
}

/// What was compared, one after the other: a check is not reached when one before it found a difference.
pub const CHECKS: [&str; 8] = [
    "the view before",
    "the view still there",
    "exit status",
    "standard output",
    "standard error",
    "merged tree and upper",
    "after a remount",
    "each on the layers of the other",
];

/// What came out.
#[derive(Debug)]
pub struct Compared {
    /// How the command ended in the view of the reference, if it got so far.
    pub status: Option<String>,
    /// The names of the checks that found no difference.
    pub passed: Vec<&'static str>,
    /// What the next one found.
    pub difference: Option<Difference>,
    /// How often each accepted difference was met.
    pub counts: Counts,
    /// How long all took.
    pub took: Duration,
}

impl Given {
    /// Runs the command on both sides and compares.
    ///
    /// This thread moves into a mount name space of its own, so it should do nothing else afterwards.
    ///
    /// # Errors
    /// Trouble with the machine, with the layers or with the reference (also when the command hangs there), in words.
    pub fn run(&self, setting: &Setting, ways: &Pair<Way>) -> Result<Compared, String> {
        let bench = Bench::new(setting)?;
        let engine = setting.engine(ways, &bench);
        let start = Instant::now();
        let layers = match (&self.lower, &self.upper) {
            (None, None) => Layered::Made(tops::with_tops(
                self.seed,
                nasty::layers(&mut Rng::new(self.seed)),
                ways,
            )),
            (lower, upper) => Layered::Copied {
                lower: lower.as_deref(),
                upper: upper.as_deref(),
            },
        };
        let view = bench.view()?;
        let (mut passed, mut status) = (Vec::new(), None);
        let crosses = !setting.ignored.iter().any(|field| field == CROSS_MOUNT);
        let report = engine.run_with(&layers, &mut |run| {
            run.given(self, &view, crosses, &mut passed, &mut status)
        })?;
        let difference = match report.end {
            End::Differs(difference) => Some(difference),
            End::Agreed | End::Accepted => None,
        };
        Ok(Compared {
            status,
            passed,
            difference,
            counts: report.counts,
            took: start.elapsed(),
        })
    }
}

/// What a command left.
struct Ended {
    status: ExitStatus,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Run<'_> {
    fn given(
        &mut self,
        given: &Given,
        view: &Path,
        crosses: bool,
        passed: &mut Vec<&'static str>,
        status: &mut Option<String>,
    ) -> Result<(), Stop> {
        let mut checks = CHECKS.into_iter();
        let mut pass = || passed.extend(checks.next());
        self.begin()?;
        self.compare("before the command")?;
        pass();
        let ended = Pair::try_make(|side| {
            let ended = self.command(given, view, side)?;
            self.still_there(side)?;
            Ok::<_, Stop>(ended)
        })?;
        pass();
        *status = Some(ended.a.status.to_string());
        if ended.a.status != ended.b.status {
            let text = format!(
                "the command ended with {} against {}",
                ended.a.status, ended.b.status
            );
            let said = String::from_utf8_lossy(&ended.b.err).trim().to_owned();
            return Err(Difference::new("exit status", format!("{text}: {said}")).into());
        }
        pass();
        for (what, one, other) in [
            ("standard output", &ended.a.out, &ended.b.out),
            ("standard error", &ended.a.err, &ended.b.err),
        ] {
            if let Some(text) = first_line_that_differs(one, other) {
                return Err(Difference::new(what, format!("{what}, {text}")).into());
            }
            pass();
        }
        self.compare("after the command")?;
        pass();
        self.end()?;
        self.layers_unmounted()?;
        self.begin()?;
        self.compare("after a remount")?;
        self.end()?;
        self.layers_unmounted()?;
        pass();
        if crosses {
            self.swap();
            self.begin()?;
            self.compare("each on the layers of the other")?;
            self.end()?;
            self.layers_unmounted()?;
            pass();
        }
        Ok(())
    }

    /// Runs the command in the view of one side, which it sees at the same path as that of the other.
    fn command(&self, given: &Given, view: &Path, side: Side) -> Result<Ended, Stop> {
        let trouble = |what: &str, e: std::io::Error| Stop::Trouble(format!("{what}: {e}"));
        let merged = self.place(side).merged;
        sys::mount(&c_path(&merged), &c_path(view), c"none", libc::MS_BIND, c"")
            .map_err(|e| Stop::Trouble(format!("cannot bind the view: {}", sys::errno_name(e))))?;
        let _bound = Bound(view);
        let (out, err) = (merged.with_extension("out"), merged.with_extension("err"));
        let mut words = given.command.iter();
        let program = words.next().map(OsString::as_os_str).unwrap_or_default();
        let child = Command::new(program)
            .args(words)
            .current_dir(view)
            .env("PWD", view)
            .env_remove(STAGE)
            .env_remove(SCRATCH)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(File::create(&out).map_err(|e| trouble("output", e))?)
            .stderr(File::create(&err).map_err(|e| trouble("output", e))?)
            .spawn()
            .map_err(|e| Stop::Trouble(format!("cannot run {}: {e}", program.display())))?;
        let status = match wait(Group(child), given.limit) {
            Ok(status) => status.map_err(|e| trouble("waiting for the command", e))?,
            Err(hanging) => {
                self.abort(side);
                drop(hanging);
                let text = format!(
                    "the command did not end within {} s on {}, and was killed",
                    given.limit.as_secs(),
                    self.name(side)
                );
                return Err(Self::fault(side, "command hangs", text));
            }
        };
        let read = |path: &Path| std::fs::read(path).map_err(|e| trouble("output", e));
        Ok(Ended {
            status,
            out: read(&out)?,
            err: read(&err)?,
        })
    }

    /// A command may unmount the view, or kill its server.
    fn still_there(&mut self, side: Side) -> Result<(), Stop> {
        let gone = |run: &Self, why: &str| {
            let text = format!("after the command the view of {} is gone: {why}", run.name(side));
            Self::fault(side, "mount gone", text)
        };
        if mount_of(&self.place(side).merged).is_none() {
            return Err(gone(self, "it was unmounted"));
        }
        // Attributes may come from the kernel's cache; this asks the server.
        let statfs = Request::Do {
            call: Call::Statfs { path: ".".into() },
            look: Look::No,
        };
        match self.ask(side, 0, &statfs)? {
            Reply::Did(outcome) => match outcome.result {
                Ok(_) => Ok(()),
                Err(errno) => Err(gone(
                    self,
                    &format!("its server answers {}", sys::errno_name(errno)),
                )),
            },
            other => Err(Stop::Trouble(format!(
                "a worker answers something else: {other:?}"
            ))),
        }
    }
}

/// The view at its second path, until it is dropped.
struct Bound<'a>(&'a Path);

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        sys::umount(&c_path(self.0), libc::MNT_DETACH).ok();
    }
}

/// The command and all that it started and did not put into a group of its own. Killed when dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
        self.0.wait().ok();
    }
}

/// Waits until the command ends; it is given back if it does not.
fn wait(mut group: Group, limit: Duration) -> Result<std::io::Result<ExitStatus>, Group> {
    let deadline = Instant::now() + limit;
    loop {
        match group.0.try_wait() {
            Ok(Some(status)) => return Ok(Ok(status)),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => return Err(group),
            Err(error) => return Ok(Err(error)),
        }
    }
}

fn first_line_that_differs(a: &[u8], b: &[u8]) -> Option<String> {
    if a == b {
        return None;
    }
    let (mut one, mut other) = (a.split(|&c| c == b'\n'), b.split(|&c| c == b'\n'));
    let mut number = 1;
    loop {
        let show = |line: Option<&[u8]>| match line {
            Some(line) => format!("'{}'", String::from_utf8_lossy(line)),
            None => "the end".into(),
        };
        match (one.next(), other.next()) {
            (None, None) => return None,
            (x, y) if x == y => number += 1,
            (x, y) => return Some(format!("line {number}: {} against {}", show(x), show(y))),
        }
    }
}

#[cfg(test)]
#[test]
fn the_first_line_that_differs() {
    assert_eq!(first_line_that_differs(b"a\nb\n", b"a\nb\n"), None);
    let text = first_line_that_differs(b"a\nb\n", b"a\nc\n");
    assert_eq!(text.as_deref(), Some("line 2: 'b' against 'c'"));
    let text = first_line_that_differs(b"a", b"a\n");
    assert_eq!(text.as_deref(), Some("line 2: the end against ''"));
}
