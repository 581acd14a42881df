//! A store in a temporary directory, and the commands on it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

pub const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");

/// Removed with everything in it when it is dropped.
pub struct Shop {
    place: tempfile::TempDir,
    store: PathBuf,
}

impl Shop {
    pub fn new() -> Self {
        let within = std::env::var_os("PLYFS_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        Self::within(within)
    }

    /// In a directory of the caller's: on another file system, say.
    pub fn within(dir: impl AsRef<Path>) -> Self {
        let place = tempfile::Builder::new()
            .prefix("plyfs-store-")
            .tempdir_in(dir)
            .unwrap();
        let store = place.path().join("store");
        Self { place, store }
    }

    /// A path beside the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn store(&self) -> &Path {
        &self.store
    }

    /// A file beside the store.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PLYFS);
        command
            .arg("--root")
            .arg(&self.store)
            .args(arguments)
            .env_remove("PLYFS_ROOT")
            .env_remove("RUST_LOG")
            .current_dir(self.place.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// What it printed; it must have succeeded.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "plyfs {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Why it failed.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "plyfs {arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// With this on standard input.
    pub fn fed(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A command that refuses early does not read it all.
                stdin.write_all(input).ok();
            });
            child.wait_with_output().unwrap()
        })
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    /// The tree of an image's uppermost layer.
    pub fn root_of(&self, image: &str) -> PathBuf {
        self.ok(&["image", "inspect", "-f", "{{ .GraphDriver.Data.RootDir }}", image])
            .trim_end()
            .into()
    }

    /// Names in a directory of the store, sorted.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.store.join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Sound, with so many images and layers, and nothing in the making.
    pub fn is_sound(&self, images: usize, layers: usize) {
        self.ok(&["system", "check"]);
        assert_eq!(self.names("images").len(), images, "images");
        assert_eq!(self.names("overlay").len(), layers, "layers");
        assert_eq!(self.names("tmp"), Vec::<String>::new());
    }

    /// As if nothing had been done.
    pub fn is_empty(&self) {
        for dir in ["images", "overlay", "tmp", "containers"] {
            assert_eq!(self.names(dir), Vec::<String>::new(), "{dir}");
        }
        assert_eq!(self.ok(&["image", "ls", "--quiet"]), "");
    }
}

/// An argument of a path.
pub fn arg(path: &(impl AsRef<OsStr> + ?Sized)) -> &str {
    path.as_ref().to_str().unwrap()
}
