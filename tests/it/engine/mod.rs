//! plyfs as container engines call it, without an engine.

mod adopt;
mod call;
#[cfg(feature = "fault-injection")]
mod crash;
mod environment;
mod ids;
mod stage;
mod stated;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::common::layers::{self, ours_is_plyfs, servers_of};
use crate::common::*;

/// Layers, and the program under the name that engines look for.
pub(crate) struct Call {
    pub layers: Layers,
    pub program: PathBuf,
}

impl Call {
    /// `None`, with a word, where the test named `name` cannot run.
    pub fn new(name: &str) -> Option<Self> {
        if !ours_is_plyfs() {
            skip(name, "about plyfs");
            return None;
        }
        if !need_root(name) {
            return None;
        }
        let layers = Layers::new();
        fs::create_dir(layers.base().join("bin")).unwrap();
        let program = layers.base().join("bin/fuse-overlayfs");
        // The build directory may be closed to other users, or covered by a test.
        copy_program(env!("CARGO_BIN_EXE_plyfs"), &program);
        sys::chmod(&program, 0o755).unwrap();
        Some(Self { layers, program })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.layers.base().join(name)
    }

    /// The program with `-o WORDS TARGET`, as podman and dockerd start it.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("-o")
            .arg(words)
            .arg(&self.layers.merged)
            .current_dir(self.layers.base());
        command
    }

    /// `lowerdir=..,upperdir=..,workdir=..` and more words.
    pub fn words(&self, more: &str) -> String {
        let mut words = self.layers.options(&[]).into_string().unwrap();
        words.push_str(more);
        words
    }

    /// Mounts or fails the test; answers what was said on standard error.
    pub fn mount(&self, words: &str) -> String {
        let output = finish(self.command(words));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words}: {said}");
        assert!(
            layers::is_mounted(&self.layers.merged),
            "{words}: nothing is mounted"
        );
        said
    }

    /// What is said of a call that must fail; nothing is mounted, and no server is left.
    pub fn refused(&self, words: &str) -> (i32, String) {
        self.refused_but_for(words, 0)
    }

    /// The same, where so many servers are there anyway.
    pub fn refused_but_for(&self, words: &str, servers: usize) -> (i32, String) {
        let output = finish(self.command(words));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{words}: it was mounted");
        assert!(!said.trim().is_empty(), "{words}: not a word");
        assert!(!layers::is_mounted(&self.layers.merged), "{words}: {said}");
        eventually("no server is left", || self.servers().len() == servers);
        (output.status.code().unwrap(), said)
    }

    pub fn servers(&self) -> Vec<i32> {
        let is_ours = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            program.ends_with(b"/fuse-overlayfs") || program.ends_with(b"/plyfs")
        };
        servers_of(&self.layers.merged)
            .into_iter()
            .filter(is_ours)
            .collect()
    }

    /// The one server.
    pub fn server(&self) -> i32 {
        let servers = self.servers();
        assert_eq!(servers.len(), 1, "{servers:?}");
        servers[0]
    }

    /// Unmounts as podman does, and waits for the server.
    pub fn unmount(&self) {
        fusermount(&self.layers.merged);
        eventually("the server has left", || self.servers().is_empty());
    }

    /// The line of the mount table for the target.
    pub fn mountinfo(&self) -> String {
        let point = format!(" {} ", self.layers.merged.display());
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table
            .lines()
            .find(|line| line.contains(&point))
            .unwrap_or_default()
            .to_owned()
    }
}

/// Runs to the end of the program *and* of its standard error, as podman does: a server that kept the pipe would hang
/// it.
pub(crate) fn finish(mut command: Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    receiver
        .recv_timeout(Duration::from_secs(30))
        .unwrap_or_else(|_| panic!("{command:?}: no end of its output after 30 s"))
}

pub(crate) fn fusermount(target: &Path) {
    let done = finish({
        let mut command = Command::new("fusermount3");
        command.arg("-u").arg(target);
        command
    });
    assert!(done.status.success(), "{done:?}");
}

pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "not so after 10 s: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}
