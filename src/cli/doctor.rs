//! `plyfs doctor`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{print, print_json};
use super::{Failure, store};
use crate::doctor::{Area, Check, Report, Status, Way, examine};
use crate::mount::who;

const EXAMPLES: &str = "\
Examples:
  plyfs doctor                    what works here, and what to do about the rest
  plyfs doctor --dir /srv/data    can an upper, or images, live there?
  sudo -u ann plyfs doctor        another user may see another picture
  plyfs doctor --json | jq -r '.checks[] | select(.status == \"missing\") | .remedy'

Exit status: 0 if this user can mount a view, 1 if not.

With --json, an object with version, kernel, uid, user, way (itself, fusermount3,
namespace or no) and checks: a list of objects with area, directory (or null), name,
status (ok, limited or missing), found, means and remedy (or null).";

/// Tell what works on this machine for this user, and what to do about the rest.
///
/// Where it can, it tries: it mounts a tiny view, makes namespaces, and probes an upper in the current directory and where
/// private uppers and images are kept. Nothing is left behind.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Look at the file system of this directory; may be given several times [default: the current directory, and those for
    /// private uppers and images].
    #[arg(long = "dir", value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Say of everything what it means.
    #[arg(long, short)]
    verbose: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// The exit status of a machine on which this user can mount nothing.
const NO_VIEW: u8 = 1;

impl DoctorArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        env_logger::init();
        let directories = if self.directories.is_empty() {
            usual(root)
        } else {
            self.directories
        };
        let report = examine(&directories);
        if self.json {
            print_json(&report)?;
        } else {
            print(for_people(&report, self.verbose).as_bytes())?;
        }
        if report.can_mount() {
            Ok(())
        } else {
            Err(Failure::Status(NO_VIEW))
        }
    }
}

/// Where views and images of this user come to lie.
fn usual(root: Option<&Path>) -> Vec<PathBuf> {
    let here = std::env::current_dir().ok();
    // Without a home there are no such directories; that is told by the commands that need them.
    let state = who::own_directory("XDG_STATE_HOME", ".local/state");
    let images = store::place(root).ok();
    let mut list: Vec<PathBuf> = Vec::new();
    for dir in [here, state, images].into_iter().flatten() {
        if !list.contains(&dir) {
            list.push(dir);
        }
    }
    list
}

fn for_people(report: &Report, verbose: bool) -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        // What programs and file systems say is shown, not obeyed.
        text.extend(line.chars().map(|c| if c.is_control() { '?' } else { c }));
        text.push('\n');
    };
    let user = match &report.user {
        Some(name) => format!("{name} ({})", report.uid),
        None => report.uid.to_string(),
    };
    line(match report.way {
        Way::Itself => "Views can be mounted by this user.",
        Way::Fusermount3 => "Views can be mounted by this user, through fusermount3.",
        Way::Namespace => "Views can be mounted by this user only in a user namespace (unshare -Urm).",
        Way::No => "Views cannot be mounted by this user.",
    });
    line(&format!(
        "plyfs {}, Linux {}, user {user}",
        report.version, report.kernel
    ));
    for area in Area::ALL {
        let mut heading = String::new();
        for check in report.checks.iter().filter(|check| check.area == area) {
            let wanted = match &check.directory {
                Some(directory) => format!("directory {}", directory.path().display()),
                None => title(area).to_owned(),
            };
            if heading != wanted {
                line("");
                line(&wanted);
                heading = wanted;
            }
            for told in tell(check, verbose) {
                line(&told);
            }
        }
    }
    text
}

fn title(area: Area) -> &'static str {
    match area {
        Area::Mounting => "mounting",
        Area::Namespaces => "user namespaces",
        Area::Kernel => "kernel",
        Area::Directory => "directory",
        Area::Engines => "container engines",
    }
}

fn tell(check: &Check, verbose: bool) -> Vec<String> {
    let status = match check.status {
        Status::Ok => "ok",
        Status::Limited => "limited",
        Status::Missing => "missing",
    };
    let mut lines = vec![format!("  {status:<8}{:<27} {}", check.name, check.found)];
    let (bad, indent) = (check.status != Status::Ok, " ".repeat(10));
    if !check.means.is_empty() && (bad || verbose) {
        lines.push(format!("{indent}{}", check.means));
    }
    if let Some(remedy) = &check.remedy
        && (bad || verbose)
    {
        lines.push(format!("{indent}-> {remedy}"));
    }
    lines
}
