//! `plyfs try`: a command on a throw-away view, by root and by an ordinary user, and what becomes of its changes.

mod decisions;
mod user;
mod whole;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::*;

/// Shell words that take away, in a mount namespace of one's own, what other tests have mounted meanwhile: a trial of
/// the whole root would go over all of it.
fn alone(base: &Path) -> String {
    format!(
        "awk '$5 ~ /plyfs-test-/ && index($5, \"{}/\") != 1 {{ print $5 }}' /proc/self/mountinfo | \
         while read -r other; do umount -l \"$other\" 2>/dev/null || :; done;",
        base.display()
    )
}

/// A directory to try on, with a state directory of its own beside it. Everything goes with it.
pub struct Room {
    layers: Layers,
}

impl Room {
    /// `None` where there is no root, which sets the stage, with a line that says so.
    pub fn new(name: &str) -> Option<Self> {
        if !need_root(name) {
            return None;
        }
        let layers = Layers::new().with_lower(&[
            file("a", "one\n"),
            file("b", "two\n"),
            dir("d"),
            file("d/deep", "deep\n"),
        ]);
        Some(Self { layers })
    }

    pub fn base(&self) -> &Path {
        self.layers.base()
    }

    /// The directory that is tried on.
    pub fn dir(&self) -> PathBuf {
        self.layers.lower.clone()
    }

    /// `plyfs try`, with all of its state in this room: root's own place is covered in a mount namespace, and what
    /// other tests have mounted meanwhile is not there.
    pub fn command(&self, words: &[&str]) -> Command {
        let state = self.base().join("state");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::create_dir_all("/var/lib/plyfs").unwrap();
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c"]);
        let alone = alone(self.base());
        command.arg(format!(
            "{alone} mount --bind \"$0\" /var/lib/plyfs && exec \"$@\""
        ));
        command
            .arg(&state)
            .arg(env!("CARGO_BIN_EXE_plyfs"))
            .arg("try")
            .args(words);
        command.current_dir(self.dir());
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What it printed; it must succeed.
    pub fn done(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }

    pub fn fails(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn trials(&self) -> Vec<String> {
        let json: serde_json::Value = serde_json::from_str(&self.done(&["ls", "--json"])).unwrap();
        let names = json.as_array().unwrap().iter();
        names
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    }

    pub fn text(&self, path: &str) -> String {
        sys::text(self.dir().join(path)).unwrap()
    }
}
