//! A directory for one test of the builder, and file systems of its own in it.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use plyfs::builder::manifest::{Recording, Summary, record};
use plyfs::builder::{Fault, Silent, verify};

use crate::common::sys;

pub const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");

/// A directory; what is mounted in it goes with it.
pub struct Room {
    dir: tempfile::TempDir,
    mounts: Vec<PathBuf>,
}

impl Room {
    pub fn new() -> Self {
        let within = std::env::var_os("PLYFS_TEST_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        let dir = tempfile::Builder::new()
            .prefix("plyfs-builder-")
            .tempdir_in(within)
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            dir,
            mounts: Vec::new(),
        }
    }

    pub fn base(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new directory.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// A file system in memory on a new directory.
    pub fn tmpfs(&mut self, name: &str) -> PathBuf {
        let path = self.dir(name);
        sys::mount("tmpfs", &path, "tmpfs", 0, "mode=755").unwrap();
        self.mounts.push(path.clone());
        path
    }

    /// A directory on an ext4: a plain one where the room lies on ext4, else an image file mounted there.
    pub fn ext4(&mut self, name: &str) -> PathBuf {
        const EXT4: i64 = 0xef53;
        let path = self.dir(name);
        #[allow(clippy::unnecessary_cast)] // its type differs by platform
        let kind = sys::statfs(self.base()).unwrap().f_type as i64;
        if kind != EXT4 {
            let image = self.path(&format!("{name}.image"));
            File::create(&image).unwrap().set_len(64 << 20).unwrap();
            run(Command::new("mkfs.ext4")
                .args(["-q", "-F", "-I", "256"])
                .arg(&image));
            run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path));
            self.mounts.push(path.clone());
        }
        path
    }

    /// What lies in the room.
    pub fn names(&self) -> Vec<String> {
        names(self.base())
    }

    pub fn plyfs(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PLYFS);
        command
            .args(arguments)
            .current_dir(self.base())
            .stdin(Stdio::null());
        command
    }

    /// Standard output of a command that succeeds.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.plyfs(arguments);
        assert!(output.status.success(), "plyfs {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a command that fails.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.plyfs(arguments);
        assert_eq!(output.status.code(), Some(1), "plyfs {arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for path in self.mounts.iter().rev() {
            while sys::umount(path, libc::MNT_DETACH).is_ok() {}
        }
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

pub fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// The manifest of a tree, all of it read.
pub fn manifest(root: &Path) -> Vec<u8> {
    manifest_with(root, Recording::default()).0
}

pub fn manifest_with(root: &Path, recording: Recording<'_>) -> (Vec<u8>, Summary) {
    let mut bytes = Vec::new();
    let summary = record(open(root).as_fd(), recording, &mut bytes, &Silent).unwrap();
    (bytes, summary)
}

/// Every difference of a tree to a manifest, as the command prints them.
pub fn faults(root: &Path, manifest: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let checked = verify(open(root).as_fd(), manifest, 2, &Silent, &mut |fault| {
        let Fault {
            path,
            what,
            expected,
            found,
        } = fault;
        lines.push(format!("{path}: {what}: {expected} -> {found}"));
        Ok(())
    })
    .unwrap();
    assert_eq!(checked.faults, lines.len() as u64);
    lines
}

/// Inode numbers of two names.
pub fn same_inode(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| {
        let stat = sys::lstat(path).unwrap();
        (stat.st_dev, stat.st_ino)
    };
    id(a) == id(b)
}

/// Sets or clears the immutable flag; `false` where the file system has none.
pub fn set_immutable(path: &Path, on: bool) -> bool {
    const FS_IMMUTABLE_FL: u32 = 0x10;
    let fd = sys::open(path, libc::O_RDONLY).unwrap();
    let Ok(flags) = sys::getflags(&fd) else {
        return false;
    };
    let flags = if on {
        flags | FS_IMMUTABLE_FL
    } else {
        flags & !FS_IMMUTABLE_FL
    };
    match sys::setflags(&fd, flags) {
        Ok(()) => true,
        Err(sys::EOPNOTSUPP | sys::ENOTTY) => false,
        Err(errno) => panic!("{}: {errno:?}", path.display()),
    }
}
