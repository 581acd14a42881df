//! Which container engines are here, and by what they mount.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::child::ask;
use super::{Area, Check, User};
use crate::engine::setup::{Daemon, Scope, Storage};

const AREA: Area = Area::Engines;

pub(super) fn examine(user: &User) -> Vec<Check> {
    let scope = if user.true_root {
        Scope::System
    } else {
        Scope::User
    };
    // These are programs of others.
    ask(|| look(scope)).unwrap_or_else(|reason| vec![Check::limited(AREA, "engines", reason)])
}

fn look(scope: Scope) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut absent = Vec::new();
    for name in ["podman", "buildah"] {
        match find(name) {
            Some(program) => checks.push(containers_storage(name, &program, scope)),
            None => absent.push(name),
        }
    }
    match find("dockerd") {
        Some(program) => checks.push(docker(&program, scope)),
        None => absent.push("docker"),
    }
    if !absent.is_empty() {
        checks.push(Check::ok(
            AREA,
            "others",
            format!("not installed: {}", absent.join(", ")),
        ));
    }
    checks
}

/// A program in PATH, or where a daemon's program may be for who has a short PATH.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}

/// The first line that a program prints of its version.
fn version(program: &Path) -> String {
    // podman makes directories in its home and runtime directory even for that.
    let Ok(home) = tempfile::Builder::new().prefix("plyfs-doctor-").tempdir() else {
        return "of unknown version".to_owned();
    };
    let text = Command::new(program)
        .arg("--version")
        .env("HOME", home.path())
        .envs(
            [
                "XDG_RUNTIME_DIR",
                "XDG_CONFIG_HOME",
                "XDG_DATA_HOME",
                "XDG_STATE_HOME",
            ]
            .map(|name| (name, home.path())),
        )
        .stdin(Stdio::null())
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines()
        .next()
        .and_then(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        })
        .map_or_else(
            || "of unknown version".to_owned(),
            |word| word.trim_end_matches(',').to_owned(),
        )
}

/// Whether a program is some plyfs, also under the name of another.
fn is_plyfs(program: &Path) -> bool {
    program
        .canonicalize()
        .is_ok_and(|real| real.file_name().is_some_and(|name| name == "plyfs"))
}

fn containers_storage(name: &str, program: &Path, scope: Scope) -> Check {
    let version = version(program);
    let storage = match Storage::in_effect(scope) {
        Ok(storage) => storage,
        Err(error) => {
            return Check::limited(AREA, name, format!("{version}; {error}"))
                .means("It cannot read its configuration.");
        }
    };
    let by = match &storage.config {
        Some(config) => format!(" ({})", config.display()),
        None => String::new(),
    };
    let setup = "plyfs engine setup podman";
    let driver = storage.driver.as_deref();
    if let Some(driver) = driver.filter(|driver| !matches!(*driver, "overlay" | "overlay2")) {
        return Check::ok(AREA, name, format!("{version}, driver {driver}{by}")).remedy(setup);
    }
    match &storage.mount_program {
        Some(program) if is_plyfs(program) => {
            Check::ok(AREA, name, format!("{version}, mounts by plyfs{by}"))
        }
        Some(program) if !program.is_file() => Check::missing(
            AREA,
            name,
            format!(
                "{version}, mounts by {}, which is not there{by}",
                program.display()
            ),
        )
        .means("It cannot start a container.")
        .remedy(setup),
        Some(program) => Check::ok(
            AREA,
            name,
            format!("{version}, mounts by {}{by}", program.display()),
        )
        .remedy(setup),
        None => Check::ok(
            AREA,
            name,
            format!("{version}, chooses by itself how to mount{by}"),
        )
        .means("That is the kernel's overlay where it may be mounted, else fuse-overlayfs from PATH.")
        .remedy(setup),
    }
}

fn docker(program: &Path, scope: Scope) -> Check {
    const NAME: &str = "docker";
    let version = version(program);
    let daemon = match Daemon::in_effect(scope) {
        Ok(daemon) => daemon,
        Err(error) => {
            return Check::limited(AREA, NAME, format!("{version}; {error}"))
                .means("dockerd cannot read its configuration.");
        }
    };
    let setup = match scope {
        Scope::System => "plyfs engine setup docker",
        Scope::User => "plyfs engine setup docker --user (rootless docker), or as root without --user",
    };
    let driver = daemon.driver.as_deref();
    match (driver, &daemon.program) {
        (Some("fuse-overlayfs"), Some(program)) if is_plyfs(program) => {
            let check = Check::ok(AREA, NAME, format!("{version}, mounts by plyfs"));
            if daemon.containerd {
                return Check::limited(AREA, NAME, format!("{version}, images kept by containerd"))
                    .means("The storage driver does not count then.")
                    .remedy("set \"containerd-snapshotter\" to false in \"features\" of daemon.json");
            }
            check
        }
        (Some("fuse-overlayfs"), Some(program)) => {
            Check::ok(AREA, NAME, format!("{version}, mounts by {}", program.display())).remedy(setup)
        }
        (Some("fuse-overlayfs"), None) => Check::missing(
            AREA,
            NAME,
            format!("{version}, driver fuse-overlayfs, but no such program is found"),
        )
        .means("dockerd does not start.")
        .remedy(setup),
        (Some(driver), _) => Check::ok(AREA, NAME, format!("{version}, driver {driver}")).remedy(setup),
        (None, _) => Check::ok(AREA, NAME, format!("{version}, chooses its driver by itself")).remedy(setup),
    }
}
