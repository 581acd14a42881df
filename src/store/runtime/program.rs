//! Which OCI runtime there is, and how it says what went wrong.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::store::{Result, StoreError};

/// The runtimes that are looked for, best first, and the Debian package of each.
const KNOWN: [&str; 2] = ["crun", "runc"];

/// An OCI runtime.
#[derive(Debug)]
pub(super) struct Runtime {
    /// The program.
    pub(super) path: PathBuf,
    name: &'static str,
}

/// The first runtime on PATH.
pub(super) fn find() -> Result<Runtime> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = || std::env::split_paths(&path).chain(["/usr/bin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    KNOWN
        .into_iter()
        .find_map(|name| {
            let path = places().map(|dir| dir.join(name)).find(|path| path.is_file())?;
            Some(Runtime { path, name })
        })
        .ok_or_else(|| {
            StoreError::Refused(
                "no OCI runtime is installed, which starts the command in a container: apt install crun (or runc)"
                    .to_owned(),
            )
        })
}

impl Runtime {
    /// Its own options, which come before the command.
    pub(super) fn options(&self) -> &'static [&'static str] {
        if self.name == "crun" {
            &["--cgroup-manager", "disabled"]
        } else {
            &[]
        }
    }

    /// Whether it must not see the machine's cgroups: crun gives up where both versions are mounted, even if it is not
    /// to use them. runc does without those that it may not use.
    pub(super) fn hides_cgroups(&self) -> bool {
        self.name == "crun" && Path::new("/sys/fs/cgroup/unified").is_dir()
    }
}

/// A line of the runtime's log.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// What the runtime logged as an error, with the exit status that docker would give for it.
pub(super) fn failure(log: &Path) -> Option<(u8, String)> {
    let text = std::fs::read_to_string(log).ok()?;
    let reason = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter(|line| line.level == "error")
        .map(|line| line.msg)
        .next_back()?;
    Some((classify(&reason), reason))
}

fn classify(reason: &str) -> u8 {
    let says = |words: &str| reason.contains(words);
    if says("executable file") && (says("not found") || says("No such file"))
        || says("no such file or directory: unknown")
    {
        return 127;
    }
    let starting = says("exec") || says("open executable");
    if starting && says("No such file or directory") || says("exec:") && says("no such file or directory") {
        return 127;
    }
    if (starting || says("exec format"))
        && (says("ermission denied") || says("xec format error") || says("s a directory"))
    {
        return 126;
    }
    125
}

#[cfg(test)]
mod tests {
    use super::classify;

    #[test]
    fn as_docker_numbers_them() {
        assert_eq!(
            classify("executable file `nix` not found in $PATH: No such file or directory"),
            127
        );
        assert_eq!(classify("exec: \"nix\": executable file not found in $PATH"), 127);
        assert_eq!(classify("open executable: Permission denied"), 126);
        assert_eq!(classify("exec /x: Exec format error"), 126);
        assert_eq!(classify("mount `proc` to `/proc`: Operation not permitted"), 125);
    }
}
