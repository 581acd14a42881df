//! Why a mount, an unmount or a look at the mounts failed: on which path, for what reason, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::overlay::SetupError;
use crate::sys::Errno;

/// The part a directory plays in a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The read-only layer.
    Lower,
    /// The writable layer.
    Upper,
    /// Where changes are prepared.
    Work,
    /// Where the view is seen.
    Merged,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lower => "lower directory",
            Self::Upper => "upper directory",
            Self::Work => "work directory",
            Self::Merged => "mount point",
        })
    }
}

/// A reason to stop. Every message names the path, the reason and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A directory cannot be opened.
    #[error("{role} {}: {}{}", path.display(), words(*errno), open_remedy(*errno, *role, path))]
    Open {
        /// Which.
        role: Role,
        /// As typed.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// U and W on different mounts (K3).
    #[error(
        "upper directory {} and work directory {} are on different mounts: a finished file is renamed from one to the \
         other; use two directories side by side on one mount",
        upper.display(), work.display()
    )]
    DifferentMounts {
        /// The upper.
        upper: PathBuf,
        /// The work directory.
        work: PathBuf,
    },
    /// U and W, or two lowers, are one, or one lies in the other (K3, K4).
    #[error(
        "{inner_role} {} is {} {outer_role} {}: they must be separate directories; {}",
        inner.display(), if *same { "the same directory as" } else { "inside the" }, outer.display(),
        nested_remedy(*inner_role)
    )]
    Nested {
        /// The part of the inner one.
        inner_role: Role,
        /// The inner one.
        inner: PathBuf,
        /// The part of the outer one.
        outer_role: Role,
        /// The outer one.
        outer: PathBuf,
        /// Whether they are one directory.
        same: bool,
    },
    /// L is U, or lies below U or W (K4).
    #[error(
        "lower directory {} is {} {role} {}: the lower would change while it is used (ELOOP); use a directory outside \
         of it as {role}",
        lower.display(), if *same { "the same directory as the" } else { "below the" }, other.display()
    )]
    LowerInside {
        /// The lower.
        lower: PathBuf,
        /// Upper or work.
        role: Role,
        /// Its path.
        other: PathBuf,
        /// Whether they are one directory.
        same: bool,
    },
    /// M is U or W.
    #[error(
        "mount point {} is the {role} itself: the view would hide the directory it writes to; mount on another \
         directory, or on the lower",
        merged.display()
    )]
    MergedIsLayer {
        /// The mount point.
        merged: PathBuf,
        /// Upper or work.
        role: Role,
    },
    /// A killed server left its mount.
    #[error("{role} {0} is a dead mount, left by a server that was killed: clear it with 'plyfs umount {0}'", path.display())]
    DeadMount {
        /// Which.
        role: Role,
        /// Its path.
        path: PathBuf,
    },
    /// K6
    #[error("{role} {} is in use by another view (EBUSY){by}: unmount that one, or use another directory", path.display())]
    InUse {
        /// Upper or work.
        role: Role,
        /// Its path.
        path: PathBuf,
        /// Who, if that is known.
        by: String,
    },
    /// The image layer is being removed.
    #[error("{role} {} is an image layer that is being removed or repaired just now: try again when that is done", path.display(), role = Role::Lower)]
    LayerGoing {
        /// Its path.
        path: PathBuf,
    },
    /// K5
    #[error("upper directory {} is on {kind}, which cannot hold an upper: {why}; use a directory on a writable local file system", path.display())]
    UnsuitableUpper {
        /// Its path.
        path: PathBuf,
        /// The type of the file system.
        kind: String,
        /// The reason.
        why: &'static str,
    },
    /// No /dev/fuse, or not for this user.
    #[error("/dev/fuse: {}: {}", words(*errno), fuse_remedy(*errno))]
    Device {
        /// The kernel's reason.
        errno: Errno,
    },
    /// An ordinary user needs the setuid helper.
    #[error(
        "fusermount3 is not installed, and this user may not mount without it: apt install fuse3 (or work inside 'unshare -Urm')"
    )]
    NoHelper,
    /// The setuid helper refused.
    #[error("fusermount3 on {}: {said}", path.display())]
    Helper {
        /// The mount point.
        path: PathBuf,
        /// Its own words.
        said: String,
    },
    /// The layers cannot make a view.
    #[error("{}{}", layers(source, lowers, upper.as_deref(), work.as_deref()), setup_remedy(source, work.as_deref()))]
    Layers {
        /// The overlay's reason.
        source: SetupError,
        /// The lowers, the topmost first.
        lowers: Vec<PathBuf>,
        /// The upper, if there is one.
        upper: Option<PathBuf>,
        /// The work directory, if there is one.
        work: Option<PathBuf>,
    },
    /// The background server ended before the view answered.
    #[error("the server of {} ended before the view answered: {how}", path.display())]
    ServerDied {
        /// The mount point.
        path: PathBuf,
        /// What is known.
        how: String,
    },
    /// What the background server said before it ended.
    #[error("{0}")]
    FromServer(String),
    /// Nothing of ours is mounted there.
    #[error("{}: {found}: 'plyfs list' shows the views that are mounted", path.display())]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// A view of another mount namespace.
    #[error("{} is mounted in another mount namespace: end its server (kill {pid}), or use 'nsenter -t {pid} -U -m'", path.display())]
    Elsewhere {
        /// The path.
        path: PathBuf,
        /// Its server.
        pid: u32,
    },
    /// Someone uses the view.
    #[error("{} is in use (EBUSY): end what uses it, or 'plyfs umount --lazy {0}' to let it go with its last user{users}", path.display())]
    Busy {
        /// The path.
        path: PathBuf,
        /// Who, one per line.
        users: String,
    },
    /// A private place cannot be used.
    #[error("{}: {why}", path.display())]
    Place {
        /// The path.
        path: PathBuf,
        /// The reason, and what to do.
        why: String,
    },
    /// Anything else, told by the kernel.
    #[error("{what} {}: {}", path.display(), plain(error))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

impl MountError {
    /// For `map_err` after a call on `path`.
    pub fn io<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |error| Self::Io {
            what,
            path: path.to_owned(),
            error: error.into(),
        }
    }
}

/// "No such file or directory", without the "(os error 2)" that `io::Error` adds.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error")
        .map_or(text.as_str(), |(words, _)| words)
        .to_owned()
}

fn words(errno: Errno) -> String {
    plain(&errno.into())
}

fn open_remedy(errno: Errno, role: Role, path: &Path) -> String {
    match errno {
        Errno::NOENT if role == Role::Lower => ": check the spelling".to_owned(),
        Errno::NOENT => format!(": make it first (mkdir {})", path.display()),
        Errno::NOTDIR => ": a view is made of directories; name a directory".to_owned(),
        Errno::ACCESS => ": this user may not open it; change its mode or mount as its owner".to_owned(),
        _ => String::new(),
    }
}

fn nested_remedy(role: Role) -> &'static str {
    match role {
        Role::Lower => "name each lower once",
        _ => "make the work directory beside the upper",
    }
}

fn fuse_remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => {
            "this kernel has no FUSE: load it (modprobe fuse), or in a container pass --device /dev/fuse"
        }
        Errno::ACCESS | Errno::PERM => {
            "this user may not use FUSE: root can allow it (chmod 666 /dev/fuse), or mount as root"
        }
        _ => "FUSE cannot be used",
    }
}

fn layers(source: &SetupError, lowers: &[PathBuf], upper: Option<&Path>, work: Option<&Path>) -> String {
    use std::fmt::Write as _;
    let reason = match source {
        SetupError::Step { step, errno } => format!("{step}: {}", words(*errno)),
        other => other.to_string(),
    };
    /// More lowers than these are only counted.
    const MOST: usize = 3;
    let mut text = format!("cannot make a view: {reason} (lower ");
    for (index, lower) in lowers.iter().take(MOST).enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        write!(text, "{comma}{}", lower.display()).ok();
    }
    if lowers.len() > MOST {
        write!(text, " and {} more", lowers.len().saturating_sub(MOST)).ok();
    }
    for (name, path) in [("upper", upper), ("work", work)] {
        if let Some(path) = path {
            // Writing into a String cannot fail.
            write!(text, ", {name} {}", path.display()).ok();
        }
    }
    text.push(')');
    text
}

fn setup_remedy(source: &SetupError, work: Option<&Path>) -> String {
    match source {
        SetupError::Incompat(name) => {
            let path = work.unwrap_or(Path::new("WORK")).join("work/incompat").join(name);
            format!(
                ": if the upper was last used by a volatile mount its content may be incomplete after a crash; to use it \
                 nevertheless, rm -r {}",
                path.display()
            )
        }
        SetupError::Indexed => {
            ": mount it with the kernel's overlay and index=on, or use another upper".to_owned()
        }
        SetupError::Unsuitable(_) => {
            ": use an upper and work directory on ext4, xfs, btrfs or tmpfs".to_owned()
        }
        SetupError::Step { .. } | SetupError::Lowers(_) => String::new(),
    }
}
