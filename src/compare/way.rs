//! The ways to mount a view, and mounting so that nothing is ever left behind.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::bench::{Place, c_path};
use crate::sys::plain as sys;

/// How long a command may take to mount.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a server of an earlier mount may need until it is gone and its layers are free.
const LINGERING: Duration = Duration::from_secs(5);

/// A way to mount a view of two directories.
#[derive(Clone, Debug)]
pub struct Way {
    name: String,
    /// A shell command; without one, it is the kernel's overlay.
    command: Option<String>,
}

/// What stands for the four directories in a command.
const PLACES: [&str; 4] = ["{lower}", "{upper}", "{work}", "{merged}"];

/// How other programs are called, for those that are known by name.
const PEERS: [(&str, &str); 2] = [
    (
        "fuse-overlayfs",
        "fuse-overlayfs -o lowerdir={lower},upperdir={upper},workdir={work},allow_other,dev,suid {merged}",
    ),
    (
        "unionfs-fuse",
        "unionfs -o cow,allow_other,use_ino,default_permissions,dev,suid {upper}=RW:{lower}=RO {merged}",
    ),
];

impl Way {
    /// The kernel's own overlay.
    #[must_use]
    pub fn kernel() -> Self {
        Self {
            name: "the kernel's overlay".into(),
            command: None,
        }
    }

    /// The program `plyfs` at that path; `words` are added to its mount options, with a leading comma.
    #[must_use]
    pub fn plyfs(program: &Path, words: &str) -> Self {
        let program = quoted(program);
        Self {
            name: "plyfs".into(),
            command: Some(format!(
                "{program} {{merged}} -o lowerdir={{lower}},upperdir={{upper}},workdir={{work}}{words}"
            )),
        }
    }

    /// A program that is called as fuse-overlayfs is.
    #[must_use]
    pub fn like_fuse_overlayfs(program: &Path, words: &str) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let program = quoted(program);
        Self {
            name: name.into_owned(),
            command: Some(format!(
                "{program} -o lowerdir={{lower}},upperdir={{upper}},workdir={{work}}{words} {{merged}}"
            )),
        }
    }

    /// True for plyfs with `passthrough=all`: a descriptor from before a copy-up reads the old data, and its locks
    /// are its own (see docs/io-modes.md).
    #[must_use]
    pub fn has_old_readers(&self) -> bool {
        self.command
            .as_ref()
            .is_some_and(|command| command.contains("passthrough=all"))
    }

    /// What a user named: `kernel`, `plyfs` (the program at `plyfs`), `fuse-overlayfs`, `unionfs-fuse`, or a shell
    /// command in which `{lower}`, `{upper}`, `{work}` and `{merged}` stand for the directories.
    ///
    /// # Errors
    /// When it is neither such a word nor a command that names lower, upper and merged.
    pub fn named(spec: &str, plyfs: &Path) -> Result<Self, String> {
        match spec {
            "kernel" => return Ok(Self::kernel()),
            "plyfs" => return Ok(Self::plyfs(plyfs, ",dev,suid")),
            _ => {}
        }
        if let Some((name, command)) = PEERS.iter().find(|(name, _)| *name == spec) {
            return Ok(Self {
                name: (*name).into(),
                command: Some((*command).into()),
            });
        }
        for place in PLACES.iter().filter(|place| **place != "{work}") {
            if !spec.contains(place) {
                return Err(format!(
                    "'{spec}' is no way to mount: it must be kernel, plyfs, fuse-overlayfs, unionfs-fuse, or a command \
                     that contains {{lower}}, {{upper}}, {{merged}} and perhaps {{work}}; {place} is missing"
                ));
            }
        }
        let first = spec.split_whitespace().next().unwrap_or(spec);
        let name = first.rsplit('/').next().unwrap_or(first);
        Ok(Self {
            name: name.to_owned(),
            command: Some(spec.to_owned()),
        })
    }

    /// Whether it can mount several lowers.
    #[must_use]
    pub fn takes_lowers(&self) -> bool {
        self.command
            .as_ref()
            .is_none_or(|command| command.contains("lowerdir={lower}"))
    }

    /// The shell command that mounts, with the names of shell variables in the place of the directories; `tops` is the
    /// number of lowers above the one that is always there.
    #[must_use]
    pub fn as_shell(&self, tops: usize) -> String {
        let tops: String = (1..=tops).map(|number| format!("$dir/t{number}:")).collect();
        let lower = format!("{tops}$dir/l");
        match &self.command {
            Some(command) => command
                .replace("{lower}", &lower)
                .replace("{upper}", "$dir/u")
                .replace("{work}", "$dir/w")
                .replace("{merged}", "$dir/m"),
            None => {
                format!("mount -t overlay overlay -o lowerdir={lower},upperdir=$dir/u,workdir=$dir/w $dir/m")
            }
        }
    }

    /// Mounts at `place`. On layers that were mounted before (`again`) it is tried for some seconds: their server may
    /// need a moment to be gone.
    ///
    /// # Errors
    /// What the kernel or the command said.
    pub(super) fn mount(&self, place: &Place, again: bool) -> Result<Mounted, String> {
        let Some(command) = &self.command else {
            return mount_kernel(place);
        };
        let words = [
            ("{lower}", &place.lowerdir()),
            ("{upper}", &place.upper),
            ("{work}", &place.work),
            ("{merged}", &place.merged),
        ];
        let command = words.iter().fold(command.clone(), |line, (word, path)| {
            line.replace(word, &quoted(path))
        });
        let deadline = Instant::now() + LINGERING;
        loop {
            match try_mount(&command, place) {
                Err(text) if !again || Instant::now() > deadline => {
                    return Err(format!("{}: {text}", self.name));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
                mounted => return mounted,
            }
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A path as a word of the shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:".contains(c);
    if text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn mount_kernel(place: &Place) -> Result<Mounted, String> {
    let words = format!(
        "lowerdir={},upperdir={},workdir={}",
        place.lowerdir().display(),
        place.upper.display(),
        place.work.display()
    );
    let words = sys::c(words.as_bytes());
    sys::mount(c"overlay", &c_path(&place.merged), c"overlay", 0, &words)
        .map_err(|e| format!("mount: {}", sys::errno_name(e)))?;
    Ok(Mounted {
        at: Some(place.merged.clone()),
        connection: None,
        server: None,
    })
}

fn try_mount(command: &str, place: &Place) -> Result<Mounted, String> {
    let log = place.merged.with_extension("log");
    let stderr = std::fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(|e| format!("/bin/sh: {e}"))?;
    let mut mounted = Mounted {
        at: None,
        connection: None,
        server: Some(Server(child)),
    };
    let status = wait(mounted.server.as_mut(), place)?;
    if let Some(found) = mount_of(&place.merged) {
        mounted.at = Some(place.merged.clone());
        mounted.connection = found.connection;
    }
    if status.is_some() {
        mounted.server = None;
    }
    if mounted.at.is_none() || status.is_some_and(|status| !status.success()) {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let how = status.map_or_else(|| "it still runs".to_owned(), |status| status.to_string());
        return Err(format!("did not mount ({how}): {}", said.trim()));
    }
    Ok(mounted)
}

/// Waits until the command has ended. None if it stays, as the server of a mount that is there.
fn wait(server: Option<&mut Server>, place: &Place) -> Result<Option<ExitStatus>, String> {
    let Some(Server(child)) = server else {
        return Ok(None);
    };
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) if start.elapsed() > Duration::from_secs(2) && mount_of(&place.merged).is_some() => {
                return Ok(None);
            }
            Ok(None) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
            Ok(None) => return Err("the command that mounts does not return, and mounts nothing".into()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// A mount, as the kernel's table tells.
pub(super) struct MountOf {
    /// The number of its FUSE connection: the minor device number.
    connection: Option<u32>,
}

/// The mount on `at`, which is itself not touched.
pub(super) fn mount_of(at: &Path) -> Option<MountOf> {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").ok()?;
    let place = at.to_str()?;
    table.lines().rev().find_map(|line| {
        let mut words = line.split(' ');
        let minor = words.nth(2)?.split(':').nth(1)?.parse().ok()?;
        (words.nth(1)? == place).then(|| MountOf {
            connection: line.contains(" - fuse").then_some(minor),
        })
    })
}

/// A server that runs in the foreground. Killed with its children when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            kill_process_group(group, Signal::KILL).ok();
        }
        self.0.wait().ok();
    }
}

/// A live mount. Dropping it unmounts, by force if it must.
pub(super) struct Mounted {
    at: Option<PathBuf>,
    connection: Option<u32>,
    server: Option<Server>,
}

impl Mounted {
    /// The orderly way; an error if it was still busy after some seconds.
    pub fn unmount(mut self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Some(at) = &self.at {
            match sys::umount(&c_path(at), 0) {
                Ok(()) => self.at = None,
                Err(libc::EBUSY) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(errno) => return Err(format!("umount: {}", sys::errno_name(errno))),
            }
        }
        // A server in the foreground has written everything when it ends by itself.
        while let Some(Server(child)) = &mut self.server {
            match child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                _ => break,
            }
        }
        Ok(())
    }

    /// Ends every request that waits, so that no caller hangs on.
    pub fn abort(&self) {
        if let Some(number) = self.connection {
            std::fs::write(format!("/sys/fs/fuse/connections/{number}/abort"), "1").ok();
        }
    }

    /// Makes the kernel forget every unused name of the mount.
    pub fn drop_caches(&self) -> Result<(), String> {
        let Some(at) = &self.at else { return Ok(()) };
        sys::remount_as_is(&c_path(at)).map_err(sys::errno_name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(at) = &self.at else { return };
        if sys::umount(&c_path(at), 0).is_err() {
            self.abort();
            sys::umount(&c_path(at), libc::MNT_DETACH).ok();
        }
    }
}

#[cfg(test)]
#[test]
fn ways_are_named() {
    let plyfs = Path::new("/opt/my plyfs");
    assert!(Way::named("kernel", plyfs).unwrap().command.is_none());
    let ours = Way::named("plyfs", plyfs).unwrap();
    assert!(
        ours.as_shell(0)
            .starts_with("'/opt/my plyfs' $dir/m -o lowerdir=$dir/l,")
    );
    assert_eq!(
        Way::named("/bin/x {lower} {upper} {merged}", plyfs)
            .unwrap()
            .to_string(),
        "x"
    );
    assert!(
        Way::named("x {lower} {merged}", plyfs)
            .unwrap_err()
            .contains("{upper} is missing")
    );
}
