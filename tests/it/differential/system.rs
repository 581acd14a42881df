//! The two systems under test, and mounting them so that nothing is ever left behind.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::sys::{self, check};

/// The four directories of a mount.
#[derive(Clone, Debug)]
pub struct Place {
    pub lower: PathBuf,
    pub upper: PathBuf,
    pub work: PathBuf,
    pub merged: PathBuf,
}

impl Place {
    pub fn options(&self) -> String {
        format!(
            "lowerdir={},upperdir={},workdir={}",
            self.lower.display(),
            self.upper.display(),
            self.work.display()
        )
    }
}

/// A way to mount a view of two directories.
pub trait System: Sync {
    fn name(&self) -> String;
    fn mount(&self, place: &Place) -> Result<Mounted, String>;
}

/// The system under test: the program built here, or what `PLYFS_TEST_OURS` names.
pub fn ours() -> Box<dyn System> {
    match std::env::var_os("PLYFS_TEST_OURS") {
        Some(word) if word == "kernel" => Box::new(Kernel),
        Some(path) => Box::new(Program::other(path.into())),
        None => Box::new(Program::built_here()),
    }
}

/// The kernel's own overlay: the reference.
pub struct Kernel;

impl System for Kernel {
    fn name(&self) -> String {
        "the kernel's overlay".into()
    }

    fn mount(&self, place: &Place) -> Result<Mounted, String> {
        mount("overlay", &place.merged, "overlay", 0, &place.options()).map_err(|e| format!("mount: {e}"))?;
        Ok(Mounted {
            at: place.merged.clone(),
            connection: None,
        })
    }
}

/// A program that mounts by FUSE.
pub struct Program {
    pub path: PathBuf,
    /// Words added to the options, with a leading comma.
    pub words: String,
    /// `PROGRAM -o OPTIONS MERGED` instead of `PROGRAM MERGED -o OPTIONS`.
    pub options_first: bool,
}

impl Program {
    fn built_here() -> Self {
        Self {
            path: env!("CARGO_BIN_EXE_plyfs").into(),
            words: std::env::var("PLYFS_TEST_OURS_OPTIONS").unwrap_or(",dev,suid".into()),
            options_first: false,
        }
    }

    pub fn other(path: PathBuf) -> Self {
        let words = std::env::var("PLYFS_TEST_OURS_OPTIONS").unwrap_or(",allow_other,dev,suid".into());
        Self {
            path,
            words,
            options_first: true,
        }
    }
}

impl System for Program {
    fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    fn mount(&self, place: &Place) -> Result<Mounted, String> {
        // The server of the mount before may need a moment to be gone; until then the layers are in use.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match self.try_mount(place) {
                Err(text) if Instant::now() > deadline => return Err(text),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
                mounted => return mounted,
            }
        }
    }
}

impl Program {
    fn try_mount(&self, place: &Place) -> Result<Mounted, String> {
        let options = format!("{}{}", place.options(), self.words);
        let log = place.merged.with_extension("log");
        let stderr = std::fs::File::create(&log).map_err(|e| e.to_string())?;
        let mut command = Command::new(&self.path);
        if self.options_first {
            command.arg("-o").arg(&options).arg(&place.merged);
        } else {
            command.arg(&place.merged).arg("-o").arg(&options);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn();
        let child = child.map_err(|e| format!("{}: {e}", self.path.display()))?;
        let status = wait(child, Duration::from_secs(15))?;
        let connection = connection(&place.merged);
        let mounted = Mounted {
            at: place.merged.clone(),
            connection,
        };
        if !status.success() || connection.is_none() {
            std::mem::forget(mounted);
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!(
                "{} did not mount ({status}): {}",
                self.path.display(),
                said.trim()
            ));
        }
        Ok(mounted)
    }
}

fn wait(mut child: Child, patience: Duration) -> Result<ExitStatus, String> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Ok(None) => {
                child.kill().ok();
                child.wait().ok();
                return Err("the mounting program does not return".into());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The number of the FUSE connection of a mount: the minor device number. The mount itself is not touched.
fn connection(at: &Path) -> Option<u32> {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").ok()?;
    let place = at.to_str()?;
    table.lines().rev().find_map(|line| {
        let mut words = line.split(' ');
        let minor = words.nth(2)?.split(':').nth(1)?.parse().ok()?;
        (words.nth(1)? == place && line.contains(" - fuse")).then_some(minor)
    })
}

/// A live mount. Dropping it unmounts, by force if it must.
pub struct Mounted {
    at: PathBuf,
    connection: Option<u32>,
}

impl Mounted {
    /// The orderly way; an error if it was still busy after some seconds.
    pub fn unmount(self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match umount(&self.at, 0) {
                Ok(()) => {
                    std::mem::forget(self);
                    return Ok(());
                }
                Err(libc::EBUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Err(errno) => return Err(format!("umount: {}", sys::errno_name(errno))),
            }
        }
    }

    /// Ends every request that waits, so that no caller hangs on.
    pub fn abort(&self) {
        if let Some(number) = self.connection {
            std::fs::write(format!("/sys/fs/fuse/connections/{number}/abort"), "1").ok();
        }
    }

    /// A remount with the same flags makes the kernel forget every unused name of the mount.
    pub fn drop_caches(&self) -> Result<(), String> {
        let path = c_path(&self.at);
        // SAFETY: valid strings, and a zeroed buffer to be filled in.
        unsafe {
            let mut st: libc::statfs64 = std::mem::zeroed();
            check(libc::statfs64(path.as_ptr(), &mut st)).map_err(sys::errno_name)?;
            let kept = (libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC | libc::ST_RDONLY) as i64;
            let flags = (st.f_flags & kept) as u64 | libc::MS_REMOUNT;
            let none = std::ptr::null();
            check(libc::mount(none, path.as_ptr(), none, flags, none.cast())).map_err(sys::errno_name)?;
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if umount(&self.at, 0).is_err() {
            self.abort();
            umount(&self.at, libc::MNT_DETACH).ok();
        }
    }
}

pub fn c_path(path: &Path) -> CString {
    sys::c(path.as_os_str().as_bytes())
}

fn umount(at: &Path, flags: i32) -> Result<(), i32> {
    // SAFETY: a valid string.
    check(unsafe { libc::umount2(c_path(at).as_ptr(), flags) }).map(drop)
}

pub fn mount(source: &str, at: &Path, kind: &str, flags: u64, words: &str) -> std::io::Result<()> {
    let (source, kind, words) = (
        sys::c(source.as_bytes()),
        sys::c(kind.as_bytes()),
        sys::c(words.as_bytes()),
    );
    // SAFETY: valid strings.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            c_path(at).as_ptr(),
            kind.as_ptr(),
            flags,
            words.as_ptr().cast(),
        )
    })
    .map(drop)
    .map_err(std::io::Error::from_raw_os_error)
}

/// A place to work in: a fresh tmpfs in a mount name space that only this thread and its children see.
pub struct Bench {
    root: PathBuf,
    on_disk: bool,
    cases: std::cell::Cell<u32>,
}

impl Bench {
    /// `PLYFS_DIFF_DIR` names a directory on another file system to work on.
    pub fn new() -> Result<Self, String> {
        // SAFETY: plain call; it concerns this thread only.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) })
            .map_err(|e| format!("no mount name space of its own: {}", sys::errno_name(e)))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        mount("none", Path::new("/"), "none", private, "").map_err(|e| format!("private /: {e}"))?;
        let control = Path::new("/sys/fs/fuse/connections");
        if control.is_dir()
            && control
                .read_dir()
                .is_ok_and(|mut entries| entries.next().is_none())
        {
            mount("none", control, "fusectl", 0, "").ok();
        }
        let disk = std::env::var_os("PLYFS_DIFF_DIR").map(PathBuf::from);
        let on_disk = disk.is_some();
        let unique = format!(
            "plyfs-diff-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let unique = unique.replace(['(', ')'], "");
        let root = disk.unwrap_or_else(std::env::temp_dir).join(unique);
        std::fs::create_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        if !on_disk {
            mount("none", &root, "tmpfs", libc::MS_NOATIME, "mode=755,inode64").map_err(|e| e.to_string())?;
        }
        Ok(Self {
            root,
            on_disk,
            cases: std::cell::Cell::new(0),
        })
    }

    /// Inode numbers of deleted files do not come back.
    pub fn numbers_are_unique(&self) -> bool {
        !self.on_disk
    }

    /// Two sets of empty layers.
    pub fn case(&self) -> Result<Case, String> {
        self.cases.set(self.cases.get() + 1);
        let root = self.root.join(self.cases.get().to_string());
        let make = |path: &Path| std::fs::create_dir(path).map_err(|e| format!("{}: {e}", path.display()));
        make(&root)?;
        if !self.on_disk {
            mount("none", &root, "tmpfs", libc::MS_NOATIME, "mode=755,inode64").map_err(|e| e.to_string())?;
        }
        let case = Case {
            root: root.clone(),
            on_disk: self.on_disk,
        };
        for side in ["1", "2"] {
            let at = root.join(side);
            make(&at)?;
            for name in ["l", "u", "w", "m"] {
                make(&at.join(name))?;
            }
        }
        Ok(case)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !self.on_disk {
            umount(&self.root, libc::MNT_DETACH).ok();
        }
        std::fs::remove_dir_all(&self.root).ok();
    }
}

/// The directories of one run of a program.
pub struct Case {
    root: PathBuf,
    on_disk: bool,
}

impl Case {
    /// The layers of the first (0) or the second (1) system.
    pub fn place(&self, side: usize) -> Place {
        let at = self.root.join(if side == 0 { "1" } else { "2" });
        Place {
            lower: at.join("l"),
            upper: at.join("u"),
            work: at.join("w"),
            merged: at.join("m"),
        }
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if self.on_disk {
            std::fs::remove_dir_all(&self.root).ok();
        } else {
            umount(&self.root, libc::MNT_DETACH).ok();
            std::fs::remove_dir(&self.root).ok();
        }
    }
}
