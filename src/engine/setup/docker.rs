//! dockerd: `daemon.json`, and the name `fuse-overlayfs` in its PATH.

use std::path::{Path, PathBuf};

use super::link::{self, There};
use super::record::{self, Change};
use super::{Engine, EngineError, Plan, Result, Scope, Syntax, Wanted, data_home, in_home};

const SYSTEM: &str = "/etc/docker/daemon.json";
const DRIVER: &str = "storage-driver";
/// dockerd's driver that runs the program of this name.
const VALUE: &str = "\"fuse-overlayfs\"";
/// Where a system service looks for programs, in this order.
const SERVICE_PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// How dockerd is configured for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// The file, if there is one.
    pub config: Option<PathBuf>,
    /// `storage-driver`; none if dockerd chooses.
    pub driver: Option<String>,
    /// The program that the driver `fuse-overlayfs` finds, all links resolved.
    pub program: Option<PathBuf>,
    /// Where images and containers lie.
    pub data_root: PathBuf,
    /// Images are kept by containerd, which knows no such driver.
    pub containerd: bool,
}

impl Daemon {
    /// What counts for this scope now.
    ///
    /// # Errors
    /// When the file cannot be read or is no JSON.
    pub fn in_effect(scope: Scope) -> Result<Self> {
        let path = config(scope)?;
        let text = record::read(&path)?;
        let mut daemon = Self::parse(scope, &path, text.as_deref().unwrap_or_default())?;
        daemon.config = text.map(|_| path);
        Ok(daemon)
    }

    fn parse(scope: Scope, path: &Path, text: &str) -> Result<Self> {
        let failed = |reason: String| EngineError::Syntax {
            path: path.to_owned(),
            syntax: Syntax::Json,
            reason,
        };
        let value = |name: &str| -> Result<Option<serde_json::Value>> {
            match Syntax::Json.get(text, &[name.to_owned()]).map_err(failed)? {
                Some(raw) => serde_json::from_str(&raw)
                    .map(Some)
                    .map_err(|error| failed(error.to_string())),
                None => Ok(None),
            }
        };
        let word = |name: &str| -> Result<Option<String>> {
            Ok(value(name)?
                .as_ref()
                .and_then(serde_json::Value::as_str)
                .filter(|word| !word.is_empty())
                .map(str::to_owned))
        };
        let root = match word("data-root")? {
            Some(root) => PathBuf::from(root),
            None => match (scope, data_home()) {
                (Scope::User, Some(data)) => data.join("docker"),
                _ => PathBuf::from("/var/lib/docker"),
            },
        };
        let features = value("features")?;
        Ok(Self {
            config: Some(path.to_owned()),
            driver: word(DRIVER)?,
            program: link::first(link::NAME, search(scope)).and_then(|path| path.canonicalize().ok()),
            data_root: root,
            containerd: features
                .as_ref()
                .and_then(|features| features.get("containerd-snapshotter"))
                .is_some_and(|value| value.as_bool() == Some(true)),
        })
    }

    /// Drivers other than `fuse-overlayfs` that have layers in the data directory.
    #[must_use]
    pub fn other_drivers(&self) -> Vec<&'static str> {
        [
            "overlay2",
            "overlay",
            "vfs",
            "btrfs",
            "zfs",
            "aufs",
            "devicemapper",
        ]
        .into_iter()
        .filter(|driver| {
            let layers = self.data_root.join("image").join(driver).join("layerdb/sha256");
            std::fs::read_dir(layers).is_ok_and(|mut names| names.next().is_some())
        })
        .collect()
    }
}

/// Where the daemon of this scope looks for programs.
fn search(scope: Scope) -> Box<dyn Iterator<Item = PathBuf>> {
    match scope {
        Scope::System => Box::new(SERVICE_PATH.into_iter().map(PathBuf::from)),
        Scope::User => Box::new(user_path().into_iter()),
    }
}

fn user_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .collect()
}

/// The directory for the link: for a user the first one of its own in PATH.
fn usual_bin(scope: Scope) -> Result<PathBuf> {
    if scope == Scope::System {
        return Ok(PathBuf::from("/usr/local/bin"));
    }
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute())
        .ok_or_else(|| {
            EngineError::Refused("there is no home directory: set HOME, or name --bin".to_owned())
        })?;
    Ok(user_path()
        .into_iter()
        .find(|dir| dir.starts_with(&home))
        .unwrap_or_else(|| home.join("bin")))
}

/// The file that is written for this scope, whether or not it exists.
pub(super) fn config(scope: Scope) -> Result<PathBuf> {
    match scope {
        Scope::System => Ok(PathBuf::from(SYSTEM)),
        Scope::User => in_home("docker/daemon.json"),
    }
}

/// Whether this text names the driver that a set-up names.
pub(super) fn names_us(text: &str) -> bool {
    Syntax::Json
        .get(text, &[DRIVER.to_owned()])
        .is_ok_and(|driver| driver.as_deref() == Some(VALUE))
}

pub(super) fn plan(wanted: &Wanted) -> Result<Plan> {
    let scope = wanted.scope;
    let config = record::resolve(&config(scope)?)?;
    let before = record::read(&config)?;
    let start = before.clone().unwrap_or_default();
    let failed = |reason| EngineError::Syntax {
        path: config.clone(),
        syntax: Syntax::Json,
        reason,
    };
    let daemon = Daemon::parse(scope, &config, &start)?;
    let change = Change::plan(Syntax::Json, &start, &[DRIVER], VALUE.to_owned()).map_err(failed)?;
    let text = if change.before.as_ref() == Some(&change.after) {
        start
    } else {
        Syntax::Json
            .set(&start, &change.key, &change.after)
            .map_err(failed)?
    };
    let mut remarks = Vec::new();
    // The package of that name has it in /usr/bin already.
    let found = daemon.program.as_deref() == Some(wanted.program.as_path());
    let (link, link_missing) = match &wanted.bin {
        None if found => (link::first(link::NAME, search(scope)), false),
        bin => {
            let dir = match bin {
                Some(dir) => std::path::absolute(dir).map_err(EngineError::io("find", dir))?,
                None => usual_bin(scope)?,
            };
            let link = dir.join(link::NAME);
            let missing = match link::look(&link, &wanted.program)? {
                There::Ours => false,
                There::Nothing | There::OtherPlyfs => true,
                There::Foreign => return Err(link::refused(&link)),
            };
            remarks.extend(shadowed(scope, &dir));
            (Some(link), missing)
        }
    };
    remarks.extend(notes(scope, &daemon));
    Ok(Plan {
        engine: Engine::Docker,
        config,
        text,
        link,
        program: wanted.program.clone(),
        remarks,
        before,
        link_missing,
        changes: vec![change],
        syntax: Syntax::Json,
    })
}

/// Another program of that name that is found before ours, or a directory that is not looked into.
fn shadowed(scope: Scope, dir: &Path) -> Option<String> {
    for candidate in search(scope) {
        if candidate == dir {
            return None;
        }
        let other = candidate.join(link::NAME);
        if other.is_file() {
            return Some(format!(
                "{} is found first: remove that one, or name its directory's forerunner in PATH by --bin",
                other.display()
            ));
        }
    }
    Some(format!(
        "dockerd has to look into {}: put it into the PATH of its service",
        dir.display()
    ))
}

fn notes(scope: Scope, daemon: &Daemon) -> Vec<String> {
    let mut notes = Vec::new();
    if daemon.containerd {
        notes.push(
            "\"containerd-snapshotter\" is true in \"features\": containerd then keeps the images, and the storage \
             driver does not count; set it to false"
                .to_owned(),
        );
    }
    let others = daemon.other_drivers();
    if !others.is_empty() {
        notes.push(format!(
            "{} has images of the driver {}: they stay on disk, and are seen again after --undo",
            daemon.data_root.display(),
            others.join(", ")
        ));
    }
    notes.push(restart(scope));
    notes
}

/// dockerd reads its file once.
pub(super) fn restart(scope: Scope) -> String {
    match scope {
        Scope::System => "it counts when dockerd is started again: systemctl restart docker",
        Scope::User => "it counts when dockerd is started again: systemctl --user restart docker",
    }
    .to_owned()
}
