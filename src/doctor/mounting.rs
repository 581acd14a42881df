//! Mounting a tiny view: as this user is, and as root of a user namespace.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use super::child::ask;
use super::device::plain;
use super::{Area, Check, User, Way};
use crate::mount::control::counters;
use crate::mount::unmount::unmount;
use crate::mount::{Directories, MountError, Options, Outcome, Request, mount, registry};
use crate::sys::fusedev::{self, exit_now};
use crate::sys::namespaces;

/// What the check of mounting found.
pub(super) struct Mounting {
    /// The way that works.
    pub way: Way,
    /// Check by check.
    pub checks: Vec<Check>,
}

/// What is in the view.
const CONTENT: &str = "plyfs\n";
/// The size of a file of holes, and the distance of the places that are read: no read-ahead covers two.
const SIZE: u64 = 64 << 20;
const DISTANCE: usize = 1 << 20;

/// What was seen of a mounted view.
#[derive(Serialize, Deserialize)]
struct Seen {
    /// Requests that the server answered while [`SIZE`] / [`DISTANCE`] places were read; none if it cannot tell.
    requests: Option<u64>,
}

pub(super) fn examine(user: &User) -> Mounting {
    let tried = match Scene::new() {
        Ok(scene) => attempts(scene.path(), user),
        // For want of a place for two small files.
        Err(reason) => Attempts {
            direct: Err(reason.clone()),
            inside: Err(reason.clone()),
            overlay: Err(reason),
            placeless: true,
        },
    };
    let Attempts {
        direct,
        inside,
        overlay,
        placeless,
    } = tried;
    let way = match (&direct, &inside) {
        (Ok(_), _) if fusedev::may_mount().is_ok() => Way::Itself,
        (Ok(_), _) => Way::Fusermount3,
        (Err(_), Ok(_)) => Way::Namespace,
        (Err(_), Err(_)) => Way::No,
    };
    let mut direct_check = direct_check(&direct, way);
    if placeless {
        direct_check = direct_check
            .means("It could not be tried, for want of a place for two small files.")
            .remedy("TMPDIR=DIR plyfs doctor, with a directory that this user may write to");
    }
    let checks = vec![
        direct_check,
        inside_check(&inside, user),
        passthrough(direct.as_ref().or(inside.as_ref()).ok(), user),
        overlay_check(&overlay, user),
    ];
    Mounting { way, checks }
}

/// What became of them.
struct Attempts {
    /// A view, as this user is.
    direct: Result<Seen, String>,
    /// A view, as root of a user namespace.
    inside: Result<Seen, String>,
    /// The kernel's overlay.
    overlay: Result<(), String>,
    /// There was no place to try in.
    placeless: bool,
}

fn attempts(base: &Path, user: &User) -> Attempts {
    Attempts {
        direct: ask(|| view(base)).and_then(|seen| seen),
        inside: ask(|| {
            namespaces::become_root_alone().map_err(|errno| format!("no user namespace: {errno}"))?;
            view(base)
        })
        .and_then(|seen| seen),
        overlay: ask(|| kernel_overlay(base, user)).and_then(|done| done),
        placeless: false,
    }
}

/// Directories and files for the attempts; gone when dropped.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Result<Self, String> {
        let make = || -> std::io::Result<Self> {
            let dir = tempfile::Builder::new().prefix("plyfs-doctor-").tempdir()?;
            for name in ["lower", "other", "merged", "kernel"] {
                std::fs::create_dir(dir.path().join(name))?;
            }
            std::fs::write(dir.path().join("lower/name"), CONTENT)?;
            File::create(dir.path().join("lower/holes"))?.set_len(SIZE)?;
            Ok(Self { dir })
        };
        make().map_err(|error| format!("{}: {}", std::env::temp_dir().display(), plain(&error)))
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Mounts a read-only view, reads in it, and unmounts it. Asks nothing of the file system but directories.
fn view(base: &Path) -> Result<Seen, String> {
    let merged = base.join("merged");
    let mut options = Options::default();
    options.attributes.read_only = true;
    let request = Request {
        directories: Directories {
            lowers: vec![base.join("lower")],
            upper: None,
            merged: merged.clone(),
        },
        options,
        source: None,
        foreground: false,
        engine: false,
        remove_mount_point: false,
        log: false,
        foreign: false,
        // If this process is killed, the view goes too.
        passing: true,
    };
    match mount(&request, |_| {}).map_err(|error| error.to_string())? {
        // This is the server, and it is done.
        Outcome::Ended => exit_now(0),
        Outcome::Ready(_) => {}
    }
    let seen = look(&merged);
    unmount(&merged, false, |_| {}).map_err(|error: MountError| error.to_string())?;
    seen
}

fn look(merged: &Path) -> Result<Seen, String> {
    let failed = |error: std::io::Error| format!("the view does not answer: {}", plain(&error));
    let content = std::fs::read_to_string(merged.join("name")).map_err(failed)?;
    if content != CONTENT {
        return Err("the view shows something else than the lower".to_owned());
    }
    let socket = registry::live()
        .map_err(|error| error.to_string())?
        .into_iter()
        .find(|live| live.entry.merged.path() == merged)
        .map(|live| live.socket);
    let asked = || counters(socket.as_ref()?).ok().map(|counters| counters.requests);
    let file = File::open(merged.join("holes")).map_err(failed)?;
    let before = asked();
    let mut byte = [0];
    for place in (0..SIZE).step_by(DISTANCE) {
        file.read_exact_at(&mut byte, place).map_err(failed)?;
    }
    let requests = before
        .zip(asked())
        .map(|(before, after)| after.saturating_sub(before));
    Ok(Seen { requests })
}

fn direct_check(direct: &Result<Seen, String>, way: Way) -> Check {
    const NAME: &str = "mount";
    match (direct, way) {
        (Ok(_), Way::Itself) => Check::ok(Area::Mounting, NAME, "a view was mounted and read: by itself"),
        (Ok(_), _) => Check::ok(Area::Mounting, NAME, "a view was mounted and read: through fusermount3")
            .means("Such views are nosuid and nodev, and end with 'fusermount3 -u' too."),
        (Err(reason), Way::Namespace) => Check::limited(Area::Mounting, NAME, format!("failed: {reason}"))
            .means("As root of a user namespace this user can mount; rootless engines, 'plyfs try' and the store work.")
            .remedy("unshare -Urm plyfs mount LOWER MERGED"),
        (Err(reason), _) => Check::missing(Area::Mounting, NAME, format!("failed: {reason}"))
            .means("This user can mount no view.")
            .remedy("do what the lines marked 'missing' here say"),
    }
}

fn inside_check(inside: &Result<Seen, String>, user: &User) -> Check {
    const NAME: &str = "mount in a user namespace";
    match inside {
        Ok(_) => Check::ok(Area::Mounting, NAME, "a view was mounted and read"),
        Err(reason) => {
            let found = format!("failed: {reason}");
            let means = "Rootless podman, 'plyfs try' and the store of an ordinary user mount there.";
            let check = if user.true_root {
                Check::limited(Area::Mounting, NAME, found)
            } else {
                Check::missing(Area::Mounting, NAME, found)
            };
            check
                .means(means)
                .remedy("see 'user namespaces' and '/dev/fuse' here")
        }
    }
}

fn passthrough(seen: Option<&Seen>, user: &User) -> Check {
    const NAME: &str = "passthrough";
    const MEANS: &str = "File data goes through the server, which is slower.";
    let places = SIZE.checked_div(DISTANCE as u64).unwrap_or_default();
    let requests = match seen {
        None => {
            return Check::limited(Area::Mounting, NAME, "not tried, as nothing can be mounted").means(MEANS);
        }
        Some(seen) => seen.requests,
    };
    match requests {
        Some(requests) if requests < places / 2 => {
            let found = format!("{places} reads, {requests} requests: the kernel reads by itself");
            Check::ok(Area::Mounting, NAME, found)
        }
        Some(requests) => {
            let check = Check::limited(
                Area::Mounting,
                NAME,
                format!("{places} reads, {requests} requests: every read goes through the server"),
            )
            .means(MEANS);
            if user.true_root {
                check.remedy("a kernel from Linux 6.9 on, with CONFIG_FUSE_PASSTHROUGH")
            } else {
                check.remedy("mount as root, to whom alone the kernel grants it")
            }
        }
        None => {
            Check::limited(Area::Mounting, NAME, "the server did not tell what it was asked").means(MEANS)
        }
    }
}

/// A read-only overlay of the kernel's: it asks nothing of the file system.
fn kernel_overlay(base: &Path, user: &User) -> Result<(), String> {
    let alone = if user.root {
        namespaces::new_mount_namespace()
    } else {
        namespaces::become_root_alone()
    };
    alone.map_err(|errno| format!("no namespace: {errno}"))?;
    // Relative names have no commas or colons to quote.
    std::env::set_current_dir(base).map_err(|error| plain(&error))?;
    let words = if user.true_root {
        c"lowerdir=lower:other"
    } else {
        c"lowerdir=lower:other,userxattr"
    };
    rustix::mount::mount(c"overlay", c"kernel", c"overlay", MountFlags::RDONLY, Some(words))
        .map_err(|errno| errno.to_string())?;
    rustix::mount::unmount(c"kernel", UnmountFlags::DETACH).map_err(|errno| errno.to_string())
}

fn overlay_check(overlay: &Result<(), String>, user: &User) -> Check {
    const NAME: &str = "the kernel's overlay";
    let by = if user.root { "" } else { " (in a user namespace)" };
    match overlay {
        Ok(()) => Check::ok(Area::Mounting, NAME, format!("can be mounted too{by}"))
            .means("plyfs does without; an upper of one mounts in the other."),
        Err(reason) => Check::limited(
            Area::Mounting,
            NAME,
            format!("cannot be mounted by this user: {reason}"),
        )
        .means("plyfs does without."),
    }
}
