//! A store in a temporary directory, and a small root file system with a shell.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The programs of the small root file system.
const PROGRAMS: [&str; 19] = [
    "sh", "ls", "cat", "rm", "mv", "cp", "mkdir", "rmdir", "ln", "id", "chmod", "chown", "touch", "stat",
    "sleep", "env", "test", "true", "false",
];

/// A store, and room beside it; everything goes when it is dropped.
pub struct Bench {
    dir: tempfile::TempDir,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: &Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}\n{}", self.out, self.err);
        self.out
    }

    /// The message of a command that failed.
    #[track_caller]
    pub fn fails(self, with: &[&str]) -> String {
        assert_eq!(self.status, 1, "{}\n{}", self.out, self.err);
        for words in with {
            assert!(self.err.contains(words), "{words:?} is not in: {}", self.err);
        }
        self.err
    }
}

impl Bench {
    pub fn new() -> Self {
        let base = std::env::var_os("PLYFS_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        let dir = tempfile::Builder::new()
            .prefix("plyfs-test-")
            .tempdir_in(base)
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    /// With the small root file system as the image `base`.
    pub fn with_base() -> Self {
        let bench = Self::new();
        let root = bench.path("base-root");
        small_root(&root);
        bench
            .plyfs(&["image", "import", "--tag", "base", root.to_str().unwrap()])
            .ok();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Writes a file, and the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command
            .env("PLYFS_ROOT", self.store())
            .env_remove("SOURCE_DATE_EPOCH");
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    pub fn plyfs(&self, arguments: &[&str]) -> Said {
        Said::of(&self.command().args(arguments).output().unwrap())
    }

    /// The RootDir of an image.
    pub fn root(&self, image: &str) -> PathBuf {
        let format = "{{ .GraphDriver.Data.RootDir }}";
        PathBuf::from(
            self.plyfs(&["image", "inspect", "-f", format, image])
                .ok()
                .trim_end(),
        )
    }

    /// The config of an image, as it is kept.
    pub fn config(&self, image: &str) -> serde_json::Value {
        let id = self.plyfs(&["image", "inspect", "-f", "{{ .Id }}", image]).ok();
        let id = id.trim_end().trim_start_matches("sha256:").to_owned();
        let text = fs::read(self.store().join("images").join(id).join("config")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The names in `overlay/`.
    pub fn layers(&self) -> BTreeSet<String> {
        names(&self.store().join("overlay"))
    }

    /// Nothing is half made, and nothing is wrong.
    #[track_caller]
    pub fn check(&self) {
        self.plyfs(&["system", "check"]).ok();
        let left = names(&self.store().join("tmp"));
        assert!(left.is_empty(), "left in tmp/: {left:?}");
    }
}

pub fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A root file system with a shell and what tests call from it, taken from this machine.
pub fn small_root(root: &Path) {
    for dir in [
        "bin",
        "etc",
        "tmp",
        "usr/share/doc/old",
        "var/empty",
        "opt",
        "root",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nwww:x:33:44:www:/:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nwww:x:44:\nstaff:x:50:www\n").unwrap();
    fs::write(root.join("etc/motd"), "hello\n").unwrap();
    fs::write(root.join("usr/share/doc/old/readme"), "read me\n").unwrap();
    fs::write(root.join("opt/a"), "a\n").unwrap();
    fs::hard_link(root.join("opt/a"), root.join("opt/b")).unwrap();
    std::os::unix::fs::symlink("/opt", root.join("outlink")).unwrap();
    std::os::unix::fs::symlink("usr/share", root.join("share")).unwrap();
    let mut needed = BTreeSet::new();
    for program in PROGRAMS {
        let path = ["/bin", "/usr/bin"]
            .iter()
            .map(|dir| Path::new(dir).join(program))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("this machine has no {program}"));
        fs::copy(&path, root.join("bin").join(program)).unwrap();
        let output = Command::new("ldd").arg(&path).output().unwrap();
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            if word.starts_with('/') {
                needed.insert(PathBuf::from(word));
            }
        }
    }
    for library in needed {
        let to = root.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&library, &to).unwrap();
    }
}

pub fn ino(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}
