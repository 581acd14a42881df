//! podman, buildah and all that use containers/storage: `storage.conf`.

use std::path::{Path, PathBuf};

use super::record::{self, Change};
use super::{Engine, EngineError, Plan, Result, Scope, Syntax, Wanted, as_text, data_home, in_home};

/// Names another file, for root and users alike.
const VARIABLE: &str = "CONTAINERS_STORAGE_CONF";
const SYSTEM: &str = "/etc/containers/storage.conf";
/// What a distribution ships; it counts for root if the one in /etc is missing.
const SHIPPED: &str = "/usr/share/containers/storage.conf";

const DRIVER: [&str; 2] = ["storage", "driver"];
const PROGRAM: [&str; 4] = ["storage", "options", "overlay", "mount_program"];
const OLD_PROGRAM: [&str; 3] = ["storage", "options", "mount_program"];

/// How containers/storage is configured for somebody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storage {
    /// The file that counts; none if there is none.
    pub config: Option<PathBuf>,
    /// `driver`; none if it is not said (then it is found out).
    pub driver: Option<String>,
    /// `mount_program` of the overlay driver.
    pub mount_program: Option<PathBuf>,
    /// Where images and containers lie.
    pub graphroot: PathBuf,
}

impl Storage {
    /// What counts for this scope now.
    ///
    /// # Errors
    /// When the file cannot be read or is no TOML.
    pub fn in_effect(scope: Scope) -> Result<Self> {
        let own = config(scope)?;
        let mut places = vec![own];
        if scope == Scope::System {
            places.push(PathBuf::from(SHIPPED));
        }
        for place in places {
            if let Some(text) = record::read(&place)? {
                return Self::parse(scope, Some(&place), &text);
            }
        }
        Self::parse(scope, None, "")
    }

    fn parse(scope: Scope, config: Option<&Path>, text: &str) -> Result<Self> {
        let failed = |reason| EngineError::Syntax {
            path: config.unwrap_or(Path::new(SYSTEM)).to_owned(),
            syntax: Syntax::Toml,
            reason,
        };
        let value = |key: &[&str]| string(text, key).map_err(failed);
        let mount_program = match value(&PROGRAM)? {
            Some(program) => Some(program),
            None => value(&OLD_PROGRAM)?,
        };
        let named = match scope {
            Scope::System => None,
            Scope::User => value(&["storage", "rootless_storage_path"])?,
        };
        let graphroot = match named {
            Some(path) => Some(path),
            None => value(&["storage", "graphroot"])?,
        };
        Ok(Self {
            config: config.map(Path::to_owned),
            driver: value(&DRIVER)?.filter(|driver| !driver.is_empty()),
            mount_program: mount_program
                .filter(|program| !program.is_empty())
                .map(PathBuf::from),
            graphroot: graphroot
                // Variables such as $UID stand in it; the engine knows them all.
                .filter(|path| !path.is_empty() && !path.contains('$'))
                .map_or_else(|| default_graphroot(scope), PathBuf::from),
        })
    }

    /// Drivers other than `overlay` that have images in this storage.
    #[must_use]
    pub fn other_drivers(&self) -> Vec<&'static str> {
        ["vfs", "btrfs", "zfs", "aufs", "devicemapper"]
            .into_iter()
            .filter(|driver| {
                let list = self.graphroot.join(format!("{driver}-layers/layers.json"));
                std::fs::metadata(list).is_ok_and(|found| found.len() > "[]\n".len() as u64)
            })
            .collect()
    }

    fn has_overlay_images(&self) -> bool {
        std::fs::metadata(self.graphroot.join("overlay-layers/layers.json"))
            .is_ok_and(|found| found.len() > "[]\n".len() as u64)
    }
}

fn default_graphroot(scope: Scope) -> PathBuf {
    match (scope, data_home()) {
        (Scope::User, Some(data)) => data.join("containers/storage"),
        _ => PathBuf::from("/var/lib/containers/storage"),
    }
}

fn string(text: &str, key: &[&str]) -> std::result::Result<Option<String>, String> {
    let key: Vec<String> = key.iter().map(ToString::to_string).collect();
    let Some(raw) = Syntax::Toml.get(text, &key)? else {
        return Ok(None);
    };
    let value: toml_edit::Value = raw
        .parse()
        .map_err(|error: toml_edit::TomlError| error.to_string())?;
    match value.as_str() {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(format!("'{}' is no text", key.join("."))),
    }
}

/// The file that is written for this scope, whether or not it exists.
pub(super) fn config(scope: Scope) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return std::path::absolute(&named).map_err(EngineError::io("find", Path::new(&named)));
    }
    match scope {
        Scope::System => Ok(PathBuf::from(SYSTEM)),
        Scope::User => in_home("containers/storage.conf"),
    }
}

/// Whether this text makes some plyfs the mount program.
pub(super) fn names_plyfs(text: &str) -> bool {
    string(text, &PROGRAM).is_ok_and(|program| {
        program.is_some_and(|program| {
            Path::new(&program)
                .file_name()
                .is_some_and(|name| name == "plyfs")
        })
    })
}

/// A new file says everything that the engine asks for: once there is one, nothing else is read.
fn new_file(scope: Scope) -> Result<String> {
    let head = "# Made by 'plyfs engine setup podman'; see containers-storage.conf(5).\n[storage]\ndriver = \"overlay\"\n";
    match scope {
        Scope::System => match record::read(Path::new(SHIPPED))? {
            Some(shipped) => Ok(shipped),
            None => Ok(format!(
                "{head}runroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n"
            )),
        },
        Scope::User => {
            // The one word of the machine's file that says where a user's images lie.
            let system = record::read(Path::new(SYSTEM))?.unwrap_or_default();
            let rootless = string(&system, &["storage", "rootless_storage_path"])
                .ok()
                .flatten();
            Ok(match rootless.filter(|path| !path.is_empty()) {
                Some(path) => format!("{head}rootless_storage_path = {}\n", toml_edit::Value::from(path)),
                None => head.to_owned(),
            })
        }
    }
}

pub(super) fn plan(wanted: &Wanted) -> Result<Plan> {
    let scope = wanted.scope;
    let config = record::resolve(&config(scope)?)?;
    let before = record::read(&config)?;
    let start = match &before {
        Some(text) => text.clone(),
        None => new_file(scope)?,
    };
    let failed = |reason| EngineError::Syntax {
        path: config.clone(),
        syntax: Syntax::Toml,
        reason,
    };
    let program = toml_edit::Value::from(as_text(&wanted.program)?).to_string();
    let mut text = start;
    let mut changes = Vec::new();
    for (key, value) in [
        (DRIVER.as_slice(), "\"overlay\"".to_owned()),
        (PROGRAM.as_slice(), program),
    ] {
        let found = string(&text, key).map_err(failed)?;
        let mut change = Change::plan(Syntax::Toml, &text, key, value).map_err(failed)?;
        // The same word in other quotes is no change.
        let said = string(&format!("{} = {}", key.join("."), change.after), key).map_err(failed)?;
        match &change.before {
            Some(before) if found == said => change.after.clone_from(before),
            _ => {
                text = Syntax::Toml
                    .set(&text, &change.key, &change.after)
                    .map_err(failed)?
            }
        }
        changes.push(change);
    }
    let storage = Storage::parse(scope, Some(&config), &text)?;
    Ok(Plan {
        engine: Engine::Podman,
        remarks: remarks(&storage),
        config,
        text,
        link: None,
        program: wanted.program.clone(),
        before,
        link_missing: false,
        changes,
        syntax: Syntax::Toml,
    })
}

fn remarks(storage: &Storage) -> Vec<String> {
    let mut remarks = Vec::new();
    for driver in storage.other_drivers() {
        remarks.push(format!(
            "{} has images of the driver {driver}, and podman stays with the driver of its storage: save what you need \
             ('podman save'), then 'podman system reset', which removes all images and containers",
            storage.graphroot.display()
        ));
    }
    for (variable, what) in [("STORAGE_DRIVER", "the driver"), ("STORAGE_OPTS", "the options")] {
        if std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
            remarks.push(format!(
                "{variable} is set in the environment and overrules {what} of the file: unset it"
            ));
        }
    }
    remarks
}

/// What to know once the file is as it was.
pub(super) fn after_undo(scope: Scope, config: &Path) -> Result<Vec<String>> {
    let storage = Storage::in_effect(scope)?;
    if storage.mount_program.is_some() || !storage.has_overlay_images() {
        return Ok(Vec::new());
    }
    log::debug!("{}: no mount program", config.display());
    Ok(vec![format!(
        "images unpacked meanwhile in {} keep deletions as files named '.wh.NAME', which the kernel's overlay shows: \
         remove them and pull them again ('podman rmi'), or 'podman system reset'",
        storage.graphroot.display()
    )])
}
