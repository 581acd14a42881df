//! What works on this machine for this user, and what to do about the rest.
//!
//! Where it can, a check tries the thing itself and does not deduce it: a tiny view is mounted (here, and in a user
//! namespace), namespaces are made, an upper is probed in each directory. What is tried happens in a child process and
//! leaves nothing behind.
//!
//! ```standalone_crate
//! let report = plyfs::doctor::examine(&[std::env::temp_dir()]);
//! for check in &report.checks {
//!     println!("{}: {}", check.name, check.found);
//! }
//! println!("a view can be mounted: {}", report.can_mount());
//! ```

mod child;
mod device;
mod directory;
mod engines;
mod kernel;
mod mounting;
mod namespaces;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::mount::{JsonPath, who};
use crate::sys::namespaces::name_of_user;

/// How well something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Something can be had only in part, or only by another way.
    Limited,
    /// It is not there.
    Missing,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The way a view is mounted.
    Mounting,
    /// User namespaces, by which rootless engines work.
    Namespaces,
    /// The kernel and its limits.
    Kernel,
    /// A directory, and the file system it lies on.
    Directory,
    /// Container engines.
    Engines,
}

impl Area {
    /// In the order in which they are told.
    pub const ALL: [Self; 5] = [
        Self::Mounting,
        Self::Namespaces,
        Self::Kernel,
        Self::Directory,
        Self::Engines,
    ];
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it is about.
    pub area: Area,
    /// The directory, of checks of one.
    pub directory: Option<JsonPath>,
    /// A short name, the same on every machine.
    pub name: String,
    /// How well it works.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What that means for views.
    pub means: String,
    /// One command, or one sentence: what to do.
    pub remedy: Option<String>,
}

impl Check {
    fn new(area: Area, name: &str, status: Status, found: impl Into<String>) -> Self {
        Self {
            area,
            directory: None,
            name: name.to_owned(),
            status,
            found: without_numbers(&found.into()),
            means: String::new(),
            remedy: None,
        }
    }

    fn ok(area: Area, name: &str, found: impl Into<String>) -> Self {
        Self::new(area, name, Status::Ok, found)
    }

    fn limited(area: Area, name: &str, found: impl Into<String>) -> Self {
        Self::new(area, name, Status::Limited, found)
    }

    fn missing(area: Area, name: &str, found: impl Into<String>) -> Self {
        Self::new(area, name, Status::Missing, found)
    }

    fn means(mut self, text: impl Into<String>) -> Self {
        self.means = text.into();
        self
    }

    fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }
}

/// How this user can mount a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// By mount(2).
    Itself,
    /// By the setuid program fusermount3.
    Fusermount3,
    /// Only as root of a user namespace.
    Namespace,
    /// Not at all.
    No,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of plyfs.
    pub version: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// The user's number.
    pub uid: u32,
    /// The user's name, if it has one.
    pub user: Option<String>,
    /// How it can mount a view.
    pub way: Way,
    /// Check by check.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether this user can mount a view, if need be in a user namespace.
    #[must_use]
    pub fn can_mount(&self) -> bool {
        self.way != Way::No
    }
}

/// Looks at everything; of the file systems at those below `directories`, which need not exist yet.
///
/// Splits the process: to be called before there are threads.
#[must_use]
pub fn examine(directories: &[PathBuf]) -> Report {
    let uid = rustix::process::geteuid().as_raw();
    let user = User {
        root: rustix::process::geteuid().is_root(),
        true_root: who::is_true_root(),
    };
    let mut checks = device::examine(&user);
    let mounting = mounting::examine(&user);
    checks.extend(mounting.checks);
    checks.extend(namespaces::examine(&user));
    checks.extend(kernel::examine(&user));
    for directory in directories {
        checks.extend(directory::examine(directory));
    }
    checks.extend(engines::examine(&user));
    Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        uid,
        user: name_of_user(uid).map(|name| name.to_string_lossy().into_owned()),
        way: mounting.way,
        checks,
    }
}

/// "Permission denied", where the library says "Permission denied (os error 13)".
fn without_numbers(text: &str) -> String {
    let mut plain = String::new();
    for (index, part) in text.split(" (os error ").enumerate() {
        let rest = match part.split_once(')') {
            Some((number, rest)) if index > 0 && number.parse::<u32>().is_ok() => rest,
            _ => part,
        };
        plain.push_str(rest);
    }
    plain
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
struct User {
    /// Root, of the machine or of a user namespace.
    root: bool,
    /// Root of the machine.
    true_root: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_in_words() {
        let text = "no pipe: Too many open files (os error 24), and: No such file or directory (os error 2)";
        assert_eq!(
            without_numbers(text),
            "no pipe: Too many open files, and: No such file or directory"
        );
        assert_eq!(without_numbers("(plain) text"), "(plain) text");
    }
}
