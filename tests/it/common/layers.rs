//! Lower, upper, work and merged in one temporary directory, and mounts of them that end with their value.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::plant::{self, Node};
use super::sys::{self, Errno};

/// Whose overlay a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fs {
    Kernel,
    Plyfs,
}

impl Fs {
    pub const BOTH: [Fs; 2] = [Fs::Kernel, Fs::Plyfs];

    pub fn name(self) -> &'static str {
        match self {
            Fs::Kernel => "kernel",
            Fs::Plyfs => "plyfs",
        }
    }

    pub fn other(self) -> Fs {
        match self {
            Fs::Kernel => Fs::Plyfs,
            Fs::Plyfs => Fs::Kernel,
        }
    }

    /// The sides that can run here and that `PLYFS_TEST_SIDES` asks for.
    pub fn sides() -> Vec<Fs> {
        match std::env::var("PLYFS_TEST_SIDES").as_deref() {
            Ok("kernel") => vec![Fs::Kernel],
            Ok("ours") => vec![Fs::Plyfs],
            _ if !kernel_overlay_works() => vec![Fs::Plyfs],
            _ => Fs::BOTH.to_vec(),
        }
    }
}

/// Whether this machine lets us mount the kernel's overlay; asked once.
pub fn kernel_overlay_works() -> bool {
    static WORKS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *WORKS.get_or_init(|| {
        let layers = Layers::new();
        let works = layers.try_mount(Fs::Kernel, &[]).is_ok();
        if !works {
            super::skip(
                "the kernel's side of all scenarios",
                "the kernel's overlay cannot be mounted here",
            );
        }
        works
    })
}

/// The program under test: plyfs, or `PLYFS_TEST_OURS`.
pub enum Program {
    Plyfs(PathBuf),
    Other(PathBuf),
    Kernel,
}

pub fn program() -> Program {
    match std::env::var_os("PLYFS_TEST_OURS") {
        Some(word) if word == "kernel" => Program::Kernel,
        Some(path) => Program::Other(path.into()),
        None => Program::Plyfs(env!("CARGO_BIN_EXE_plyfs").into()),
    }
}

/// True when plyfs itself is tested; tests of what only plyfs has (messages, commands) ask first.
pub fn ours_is_plyfs() -> bool {
    matches!(program(), Program::Plyfs(_))
}

/// True when the kernel's overlay stands in for plyfs, to prove the tests themselves.
pub fn program_is_kernel() -> bool {
    matches!(program(), Program::Kernel)
}

/// Why a mount did not come to be.
#[derive(Debug)]
pub struct Refused {
    /// The kernel's answer; none from a program.
    pub errno: Option<Errno>,
    /// A program's exit status; none from the kernel.
    pub status: Option<i32>,
    /// What the program printed on stderr.
    pub message: String,
}

/// A directory with `l`, `u`, `w` and `m` in it, and `l2`, `l3` and so on for further lowers. All of it, mounts
/// included, goes when the value does.
pub struct Layers {
    base: PathBuf,
    pub lower: PathBuf,
    /// Further lowers, each below the former.
    pub below: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    pub merged: PathBuf,
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

impl Layers {
    pub fn new() -> Self {
        let within = std::env::var_os("PLYFS_TEST_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        Self::within(&within)
    }

    /// The same in a directory of the caller's choice, such as a small file system mounted for the test.
    pub fn within(within: &Path) -> Self {
        let base = tempfile::Builder::new().prefix("plyfs-test-").tempdir_in(within);
        let base = base.expect("a temporary directory").keep();
        sys::chmod(&base, 0o755).expect("chmod");
        let [lower, upper, work, merged] = ["l", "u", "w", "m"].map(|name| base.join(name));
        for dir in [&lower, &upper, &work, &merged] {
            sys::mkdir(dir, 0o755).expect("mkdir");
        }
        Layers {
            base,
            lower,
            below: Vec::new(),
            upper,
            work,
            merged,
        }
    }

    /// A further lower, below those that there are.
    #[must_use]
    pub fn with_below(mut self, nodes: &[Node]) -> Self {
        let path = self.base.join(format!("l{}", self.below.len() + 2));
        sys::mkdir(&path, 0o755).expect("mkdir");
        plant::plant(&path, nodes);
        self.below.push(path);
        self
    }

    /// All lowers, the topmost first.
    pub fn lowers(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.lower).chain(&self.below)
    }

    /// `lowerdir=` and the lowers.
    pub fn lowerdir(&self) -> OsString {
        let mut data = OsString::from("lowerdir=");
        data.push(&self.lower);
        for below in &self.below {
            data.push(":");
            data.push(below);
        }
        data
    }

    #[must_use]
    pub fn with_lower(self, nodes: &[Node]) -> Self {
        plant::plant(&self.lower, nodes);
        self
    }

    #[must_use]
    pub fn with_upper(self, nodes: &[Node]) -> Self {
        plant::plant(&self.upper, nodes);
        self
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    /// `lowerdir=..,upperdir=..,workdir=..` and the words.
    pub fn options(&self, words: &[&str]) -> OsString {
        let mut data = self.lowerdir();
        data.push(",upperdir=");
        data.push(&self.upper);
        data.push(",workdir=");
        data.push(&self.work);
        for word in words {
            data.push(",");
            data.push(word);
        }
        data
    }

    /// What is in `work/work` beside whiteouts (the shared inode of K33) and the volatile mark.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let is_whiteout = |path: &PathBuf| {
            sys::lstat(path).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFCHR && st.st_rdev == 0)
        };
        let within = self.work.join("work");
        let mut list = sys::walk(&within);
        list.retain(|path| !is_whiteout(path) && !path.starts_with(within.join("incompat")));
        list
    }

    /// Mounts, or fails the test.
    pub fn mount(&self, fs: Fs, words: &[&str]) -> Mounted {
        match self.try_mount(fs, words) {
            Ok(mounted) => mounted,
            Err(refused) => panic!("mount of {} with {words:?}: {refused:?}", fs.name()),
        }
    }

    pub fn try_mount(&self, fs: Fs, words: &[&str]) -> Result<Mounted, Refused> {
        try_mount(fs, &self.options(words), &self.merged)
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        for target in mounts_below(&self.base) {
            let _ = sys::umount(&target, libc::MNT_DETACH);
        }
        for pid in servers_of(&self.base) {
            // SAFETY: a process whose command line names this test's own directory.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        if std::env::var_os("PLYFS_TEST_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.base);
        }
    }
}

/// Mounts with a whole option string of the kernel's form on any directory.
pub fn try_mount(fs: Fs, options: &OsStr, merged: &Path) -> Result<Mounted, Refused> {
    let mounted = || Mounted {
        fs,
        options: options.to_owned(),
        merged: merged.to_owned(),
        live: true,
    };
    let kernel = || match sys::mount("overlay", merged, "overlay", 0, options) {
        Ok(()) => Ok(mounted()),
        Err(errno) => Err(Refused {
            errno: Some(errno),
            status: None,
            message: String::new(),
        }),
    };
    let mut command = match (fs, program()) {
        (Fs::Kernel, _) | (_, Program::Kernel) => return kernel(),
        (_, Program::Plyfs(path)) => {
            let mut command = Command::new(path);
            command.arg(merged);
            // Words for how a view is served, such as passthrough=off; those of a test itself come later and count.
            // With passthrough=all some tests of K42, K110 to K112 and K116 fail: that is what it gives up.
            if let Some(words) = std::env::var_os("PLYFS_TEST_OPTIONS") {
                command.arg("-o").arg(words);
            }
            command.arg("-o").arg(options);
            command
        }
        (_, Program::Other(path)) => {
            let mut command = Command::new(path);
            command.arg("-o").arg(options).arg(merged);
            command
        }
    };
    let (status, message) = run(&mut command);
    if status != 0 {
        return Err(Refused {
            errno: None,
            status: Some(status),
            message,
        });
    }
    if !is_mounted(merged) {
        let message = format!("exit status 0 but nothing is mounted; stderr: {message}");
        return Err(Refused {
            errno: None,
            status: Some(0),
            message,
        });
    }
    Ok(mounted())
}

/// Runs to the end, without waiting for whoever still holds stderr; exit status and what stderr got.
/// A program that has not ended after 30 s is killed and counts as status -1.
pub fn run(command: &mut Command) -> (i32, String) {
    let path = tempfile::NamedTempFile::new()
        .expect("a temporary file")
        .into_temp_path();
    let stderr = File::create(&path).expect("a temporary file");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let until = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status.code().unwrap_or(-2);
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            break -1;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    (
        status,
        String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned(),
    )
}

/// Whether `dir` is the root of a mount (even of one whose server is dead).
pub fn is_mounted(dir: &Path) -> bool {
    mount_points().iter().any(|m| m == dir)
}

fn mount_points() -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let field = |line: &[u8]| line.split(|b| *b == b' ').nth(4).map(unescape);
    table.split(|b| *b == b'\n').filter_map(field).collect()
}

fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::new();
    let mut at = 0;
    while at < field.len() {
        let octal = field
            .get(at + 1..at + 4)
            .and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) if field[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(field[at]);
                at += 1;
            }
        }
    }
    OsString::from_vec(out).into()
}

/// Deepest first.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mut list: Vec<_> = mount_points()
        .into_iter()
        .filter(|m| m.starts_with(dir))
        .collect();
    list.reverse();
    list
}

/// Processes whose command line names `path` or something below it.
pub fn servers_of(path: &Path) -> Vec<i32> {
    let wanted = path.as_os_str().as_bytes();
    let me = std::process::id() as i32;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != me && line.windows(wanted.len()).any(|part| part == wanted) {
            found.push(pid);
        }
    }
    found
}

/// A live mount. Dropping it unmounts, waits for the server and complains of neither; `umount` complains.
pub struct Mounted {
    pub fs: Fs,
    options: OsString,
    merged: PathBuf,
    live: bool,
}

impl Mounted {
    pub fn path(&self) -> &Path {
        &self.merged
    }

    /// Unmounts cleanly and returns when the server is gone.
    pub fn umount(mut self) {
        self.end()
            .unwrap_or_else(|e| panic!("{}: umount {}: {e}", self.fs.name(), self.merged.display()));
    }

    /// Unmounts and mounts again with the same options.
    #[must_use]
    pub fn remount(mut self) -> Mounted {
        self.end()
            .unwrap_or_else(|e| panic!("{}: umount {}: {e}", self.fs.name(), self.merged.display()));
        try_mount(self.fs, &self.options, &self.merged).unwrap_or_else(|e| panic!("remount: {e:?}"))
    }

    /// The server's process, for tests that look at it or kill it.
    pub fn server(&self) -> Option<i32> {
        servers_of(&self.merged).first().copied()
    }

    fn end(&mut self) -> Result<(), String> {
        self.live = false;
        let servers = servers_of(&self.merged);
        sys::umount(&self.merged, 0).map_err(|e| format!("{e:?}"))?;
        wait_for(&servers, &self.merged)
    }
}

/// Waits until the processes are gone: no thread is left but perhaps a leader that nobody has waited for. (On its
/// way out a process loses its command line before it closes its files, so it is asked by number.)
fn wait_for(servers: &[i32], merged: &Path) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(60);
    let mut look_for_copies = Instant::now() + Duration::from_secs(1);
    let gone = |pid: &i32| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        tasks == 0
            || tasks == 1
                && stat
                    .rsplit(") ")
                    .next()
                    .is_some_and(|rest| rest.starts_with(['Z', 'X']))
    };
    while !servers.iter().all(gone) {
        if Instant::now() > until {
            return Err(format!("the server {servers:?} is still there after 60 s"));
        }
        if Instant::now() > look_for_copies {
            detach_copies(merged);
            look_for_copies = Instant::now() + Duration::from_secs(5);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A mount namespace that some program made while our mount was there has a copy of it, which keeps the file system
/// alive after our unmount. Takes the copies away.
fn detach_copies(merged: &Path) {
    let mut seen = std::collections::HashSet::new();
    seen.insert(std::fs::read_link("/proc/self/ns/mnt").ok());
    let needle = merged.as_os_str().as_bytes();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let namespace = process.path().join("ns/mnt");
        let table = std::fs::read(process.path().join("mountinfo")).unwrap_or_default();
        let has_copy = table.windows(needle.len()).any(|part| part == needle);
        if !has_copy || !seen.insert(std::fs::read_link(&namespace).ok()) {
            continue;
        }
        let Ok(namespace) = File::open(namespace) else {
            continue;
        };
        super::who::in_thread(|| {
            // SAFETY: a descriptor of a mount namespace; only this thread enters it.
            if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) } == 0 {
                let _ = sys::umount(merged, libc::MNT_DETACH);
            }
        });
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.live && self.end().is_err() {
            let _ = sys::umount(&self.merged, libc::MNT_DETACH);
            for pid in servers_of(&self.merged) {
                // SAFETY: a process whose command line names this test's own directory.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }
}
