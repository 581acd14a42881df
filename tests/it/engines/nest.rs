//! Where an engine runs: a mount and a process namespace of its own.
//!
//! An engine leaves mounts and servers to later commands, so its namespace lives as long as the value. What is left
//! over at the end is then easily told: every mount that was not there at the beginning, every process but the first.
//! Private to it are also what podman would share with other stores (`/run`, the locks in `/dev/shm`), a fuse device
//! that ordinary users may open, a user with subordinate ids, and a view without the second version of control
//! groups, beside which crun and dockerd refuse to work.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::sys;

/// Whose engine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Root,
    /// An ordinary user with 65536 subordinate ids.
    User,
}

/// The ordinary user, and the first of the subordinate ids.
pub const UID: u32 = 1001;
pub const SUBIDS: u32 = 100_000;

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Who::Root => "root",
            Who::User => "rootless",
        }
    }
}

/// What a command said and how it ended.
#[derive(Clone, Debug)]
pub struct Said {
    /// The exit status; 128 + the signal when it was killed.
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// The namespaces, and the directory for all files in them.
pub struct Nest {
    keeper: Child,
    /// The first process of the namespaces, in the test's own numbers.
    pub pid: u32,
    pub who: Who,
    pub path: PathBuf,
    environment: Vec<(String, String)>,
    mounts: BTreeSet<String>,
}

/// No command takes longer; one that does is stuck.
const PATIENCE: Duration = Duration::from_secs(180);

impl Nest {
    /// Makes the namespaces. `path` is made, and removed again with the value.
    pub fn new(who: Who, path: &Path) -> Result<Self, String> {
        remove(path);
        std::fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))?;
        for name in ["home", "tmp", "bin", "work"] {
            let dir = path.join(name);
            std::fs::create_dir(&dir).unwrap();
            if who == Who::User && name != "bin" {
                sys::chown(&dir, UID, UID).unwrap();
            }
        }
        let owner = if who == Who::User { UID } else { 0 };
        let script = SETUP
            .replace("BASE", &path.display().to_string())
            .replace("SUBIDS", &SUBIDS.to_string())
            .replace("UID", &UID.to_string())
            .replace("OWNER", &owner.to_string());
        let log = std::fs::File::create(path.join("nest.log")).unwrap();
        let keeper = Command::new("unshare")
            .args([
                "--mount",
                "--propagation=private",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["sh", "-euc", &script])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut nest = Nest {
            keeper,
            pid: 0,
            who,
            path: path.to_owned(),
            environment: Vec::new(),
            mounts: BTreeSet::new(),
        };
        let begun = Instant::now();
        while !path.join("ready").exists() {
            let ended = nest.keeper.try_wait().unwrap();
            if ended.is_some() || begun.elapsed() > Duration::from_secs(20) {
                let log = std::fs::read_to_string(path.join("nest.log")).unwrap_or_default();
                return Err(format!("no namespace for the engine: {}", log.trim()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let keeper = nest.keeper.id();
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        nest.pid = children
            .trim()
            .parse()
            .map_err(|e| format!("children {children:?}: {e}"))?;
        let mut set = |name: &str, value: String| nest.environment.push((name.into(), value));
        let at = |name: &str| path.join(name).display().to_string();
        set(
            "PATH",
            format!("{}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", at("bin")),
        );
        set("HOME", at("home"));
        set("TMPDIR", at("tmp"));
        set("LC_ALL", "C".into());
        set("TZ", "UTC".into());
        if who == Who::User {
            set("XDG_RUNTIME_DIR", format!("/run/user/{UID}"));
            set("USER", "ann".into());
        }
        nest.mounts = nest.mounted();
        Ok(nest)
    }

    /// Sets a variable for all later commands.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.into()));
    }

    /// Puts a directory first in PATH.
    pub fn before_in_path(&mut self, dir: &Path) {
        let (_, path) = self.environment.iter().find(|(name, _)| name == "PATH").unwrap();
        let path = format!("{}:{path}", dir.display());
        self.set("PATH", &path);
    }

    /// A command in the namespaces, as the user whose engine it is.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        self.command_as(self.who, words)
    }

    pub fn command_as<S: AsRef<OsStr>>(&self, who: Who, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.pid))
            .args(["--mount", "--pid"]);
        if who == Who::User {
            let id = UID.to_string();
            command.args(["setpriv", "--reuid", &id, "--regid", &id, "--init-groups"]);
        }
        // Not by nsenter's own option, whose directory would be one of the namespace outside.
        command.arg("env").arg("--chdir").arg(self.path.join("work"));
        command.args(words).env_clear().stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Said {
        finish(self.command(words))
    }

    /// What it prints; an error when its status is not 0.
    pub fn ok<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<String, String> {
        let words: Vec<_> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let shown = words
            .iter()
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ");
        self.run(words).ok(&shown)
    }

    /// The mount points of the namespace, each as `type path`.
    fn mounted(&self) -> BTreeSet<String> {
        let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", self.pid)).unwrap_or_default();
        let lines = table.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            Some(format!(
                "{} {}",
                after.split(' ').next()?,
                before.split(' ').nth(4)?
            ))
        });
        lines.collect()
    }

    /// Mounts that came since the beginning, here and in the namespace of the user's engine as long as that lives.
    pub fn new_mounts(&self) -> Vec<String> {
        self.mounted().difference(&self.mounts).cloned().collect()
    }

    /// The processes, but for the first and its helpers: number in the test's namespace and command line.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = namespace(self.pid);
        let mut list = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let Some(pid) = entry
                .unwrap()
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if pid == self.pid || ours.is_none() || namespace(pid) != ours {
                continue;
            }
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line)
                .trim_end_matches('\0')
                .replace('\0', " ");
            if !line.is_empty() && line != IDLE {
                list.push((pid, line));
            }
        }
        list
    }

    /// The processes whose program's path ends so.
    pub fn processes_of(&self, program: &str) -> Vec<(u32, String)> {
        let mut list = self.processes();
        list.retain(|(_, line)| line.split(' ').next().unwrap_or_default().ends_with(program));
        list
    }

    /// Kills the one server of that name, and waits until it is gone.
    pub fn kill_server(&self, program: &str) -> Result<(), String> {
        let servers = self.processes_of(program);
        let [(pid, _)] = servers.as_slice() else {
            let all = self.processes();
            return Err(format!("one server is expected: {servers:?}, of {all:?}"));
        };
        // SAFETY: a server of this test's own namespace.
        unsafe { libc::kill(i32::try_from(*pid).unwrap(), libc::SIGKILL) };
        if self.until(|| self.processes_of(program).is_empty()) {
            Ok(())
        } else {
            Err("the server does not die".into())
        }
    }

    /// Waits until the condition holds; false when it does not within five seconds.
    pub fn until(&self, condition: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        while !condition() {
            if begun.elapsed() > Duration::from_secs(5) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        // Its first process goes with it, and with that all others and all mounts.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let begun = Instant::now();
        while Path::new(&format!("/proc/{}", self.pid)).exists() && begun.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        remove(&self.path);
    }
}

/// Runs a command to its end; one that is stuck fails with status 124 and is left to the end of the namespaces.
///
/// Files take what it says, and not pipes: those would be held open by whatever it leaves running.
pub fn finish(mut command: Command) -> Said {
    let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap());
    let read = |mut file: std::fs::File| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            let err = format!("cannot be started: {e}");
            return Said {
                status: 127,
                out: String::new(),
                err,
            };
        }
    };
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            break 124;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if std::env::var_os("PLYFS_ENGINES_TIMES").is_some_and(|word| word == "commands") {
        let words: Vec<_> = command
            .get_args()
            .skip(6)
            .map(|word| word.to_string_lossy())
            .collect();
        eprintln!(
            "{:6.2} s  {status}  {}",
            begun.elapsed().as_secs_f64(),
            words.join(" ")
        );
    }
    Said {
        status,
        out: read(out),
        err: read(err),
    }
}

impl Said {
    pub fn ok(self, what: &str) -> Result<String, String> {
        if self.status == 0 {
            return Ok(self.out);
        }
        let lines: Vec<_> = self.err.trim().lines().chain(self.out.trim().lines()).collect();
        let end = &lines[lines.len().saturating_sub(6)..];
        Err(format!(
            "{what}: exit status {}: {}",
            self.status,
            end.join(" | ")
        ))
    }
}

/// Not std's own removal, which cannot enter directories of any depth.
pub fn remove(path: &Path) {
    let _ = Command::new("rm")
        .arg("-rf")
        .arg("--one-file-system")
        .arg(path)
        .status();
}

/// The command line of the first process's helper.
const IDLE: &str = "sleep infinity";

/// What the first process does, with the words in capitals replaced. It then waits for orphans, for ever. `/run/engine` is
/// for podman's run root, whose path has 50 bytes at most.
const SETUP: &str = r#"
awk '$5 ~ /plyfs-test-/ && index($5, "BASE/") != 1 { print $5 }' /proc/self/mountinfo |
    while read -r copy; do umount -l "$copy" 2>/dev/null || :; done
umount /sys/fs/cgroup/unified 2>/dev/null || :
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 locks /dev/shm
mkdir -p -m 700 /run/user/UID /run/engine
chown OWNER:OWNER /run/user/UID /run/engine
mkdir BASE/dev
mount -t tmpfs -o mode=755 dev BASE/dev
mknod BASE/dev/fuse c 10 229
chmod 666 BASE/dev/fuse
mount --bind BASE/dev/fuse /dev/fuse
umount -l BASE/dev
rmdir BASE/dev
mkdir BASE/etc
for file in passwd group subuid subgid; do
    touch BASE/etc/$file
    [ ! -e /etc/$file ] || cp /etc/$file BASE/etc/$file
done
sed -i '/^ann:/d; /^[^:]*:[^:]*:UID:/d' BASE/etc/passwd BASE/etc/group
echo ann:x:UID:UID::BASE/home:/bin/sh >>BASE/etc/passwd
echo ann:x:UID: >>BASE/etc/group
echo ann:SUBIDS:65536 | tee BASE/etc/subuid >BASE/etc/subgid
for file in passwd group subuid subgid; do mount --bind BASE/etc/$file /etc/$file; done
[ ! -d /var/lib/containers ] || mount -t tmpfs -o mode=700 containers /var/lib/containers
sleep infinity &
: >BASE/ready
while :; do wait $!; done
"#;
