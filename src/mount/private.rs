//! Directories that plyfs makes for who names none: a private upper and work for each lower, and fresh mount points.
//!
//! ```text
//!   STATE/mounts/NAME-HASH/lower    the paths of the lowers, for people
//!   STATE/mounts/NAME-HASH/upper    found again by the next mount of the same lower
//!   STATE/mounts/NAME-HASH/work
//!   STATE/merged/NAME               a fresh mount point, removed after the unmount
//! ```
//! STATE is `/var/lib/plyfs` for root, else `$XDG_STATE_HOME/plyfs`, else `~/.local/state/plyfs`.

use std::ffi::{OsStr, OsString};
use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Gid, Mode, StatxFlags, Timespec, Timestamps, Uid, fchmod, fchown, fstat, futimens, mkdirat,
    statx,
};

use super::error::{MountError, Role};
use super::place::path_of;
use super::setup::{make_dir, open_parent};
use super::who;
use crate::sys::Errno;

/// The private upper and work of a lower.
#[derive(Debug, Clone)]
pub struct PrivateLayers {
    /// The writable layer.
    pub upper: PathBuf,
    /// The work directory beside it.
    pub work: PathBuf,
    /// Whether an earlier mount had made them.
    pub existed: bool,
}

fn state_dir() -> Result<PathBuf, MountError> {
    who::own_directory("XDG_STATE_HOME", ".local/state").ok_or_else(|| MountError::Place {
        path: PathBuf::from("~/.local/state"),
        why: "there is no home directory to keep a private upper in: set HOME or XDG_STATE_HOME, or name --upper \
                and --work"
            .to_owned(),
    })
}

/// Makes `path` in the state directory, and what is missing above it.
fn make_all(state: &Path, path: &Path, mode: u32) -> Result<OwnedFd, MountError> {
    // Not the shell's umask: root's views are for everyone, so the way to them must be open.
    let outer = if who::is_true_root() { 0o755 } else { 0o700 };
    for (path, mode) in [(state, outer), (path, mode)] {
        let umask = rustix::process::umask(Mode::empty());
        let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
        rustix::process::umask(umask);
        made.map_err(MountError::io("cannot make the private directory", path))?;
    }
    open_parent(path).map_err(MountError::io("cannot open the private directory", path))
}

/// The private upper and work of `lower` over the lowers `below`, made if this is their first mount. Other lowers below
/// are another view, with an upper of its own.
///
/// # Errors
/// When a lower cannot be opened, or the state directory cannot be written.
pub fn layers(lower: &Path, below: &[PathBuf]) -> Result<PrivateLayers, MountError> {
    let open = |path: &Path| {
        let failed = |errno| MountError::Open {
            role: Role::Lower,
            path: path.to_owned(),
            errno,
        };
        let dir = open_parent(path).map_err(failed)?;
        let real = path_of(dir.as_fd()).map_err(failed)?;
        Ok((dir, real))
    };
    let (dir, real) = open(lower)?;
    let mut all = vec![real];
    for path in below {
        all.push(open(path)?.1);
    }
    let state = state_dir()?;
    let home = state.join("mounts").join(name_of(&all));
    let parent = make_all(&state, &home, 0o700)?;
    let failed = |name: &str| {
        let path = home.join(name);
        move |errno: Errno| MountError::io("cannot make the private directory", &path)(errno)
    };

    note_lowers(&home, &all)?;
    let existed = match mkdirat(&parent, "upper", Mode::RWXU) {
        Ok(()) => {
            let upper = make_dir(parent.as_fd(), OsStr::new("upper"), Mode::RWXU).map_err(failed("upper"))?;
            look_like_open(&dir, &upper).map_err(failed("upper"))?;
            false
        }
        Err(Errno::EXIST) => true,
        Err(errno) => return Err(failed("upper")(errno)),
    };
    make_dir(parent.as_fd(), OsStr::new("work"), Mode::RWXU).map_err(failed("work"))?;
    Ok(PrivateLayers {
        upper: home.join("upper"),
        work: home.join("work"),
        existed,
    })
}

/// The private upper and work of `lower` that an earlier mount made; `None` if there was none.
///
/// # Errors
/// When the lower cannot be opened, or there is no state directory.
pub fn find(lower: &Path) -> Result<Option<PrivateLayers>, MountError> {
    let open = |errno| MountError::Open {
        role: Role::Lower,
        path: lower.to_owned(),
        errno,
    };
    let dir = open_parent(lower).map_err(open)?;
    let home = state_dir()?
        .join("mounts")
        .join(name_of(&[path_of(dir.as_fd()).map_err(open)?]));
    let layers = PrivateLayers {
        upper: home.join("upper"),
        work: home.join("work"),
        existed: true,
    };
    Ok((layers.upper.is_dir() && layers.work.is_dir()).then_some(layers))
}

/// Gives a new upper the owner, mode and times of the lower's root, as far as this user may.
///
/// # Errors
/// When one of them cannot be opened, or the upper cannot be changed.
pub fn look_like(lower: &Path, upper: &Path) -> Result<(), Errno> {
    look_like_open(&open_parent(lower)?, &{
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(upper, flags, Mode::empty())?
    })
}

/// The root of the view takes its owner, mode and times from the upper, so a new upper gets those of the lower.
fn look_like_open(lower: &OwnedFd, upper: &OwnedFd) -> Result<(), Errno> {
    let wanted = fstat(lower)?;
    let mut mode = Mode::from_raw_mode(wanted.st_mode);
    if rustix::process::geteuid().is_root() {
        let owner = (Uid::from_raw(wanted.st_uid), Gid::from_raw(wanted.st_gid));
        match fchown(upper, Some(owner.0), Some(owner.1)) {
            // An owner that a user namespace does not know: the view's root then belongs to its user.
            Ok(()) | Err(Errno::INVAL | Errno::OVERFLOW | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    } else {
        // The upper belongs to the user, who could not write to it otherwise.
        mode |= Mode::RWXU;
    }
    fchmod(upper, mode)?;
    let times = statx(lower, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let time = |stamp: rustix::fs::StatxTimestamp| Timespec {
        tv_sec: stamp.tv_sec,
        tv_nsec: stamp.tv_nsec.into(),
    };
    futimens(
        upper,
        &Timestamps {
            last_access: time(times.stx_atime),
            last_modification: time(times.stx_mtime),
        },
    )
}

/// Notes for people which lowers a private upper belongs to, one on a line.
fn note_lowers(home: &Path, lowers: &[PathBuf]) -> Result<(), MountError> {
    let path = home.join("lower");
    let note = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    match note {
        Ok(mut file) => {
            let lines = lowers
                .iter()
                .flat_map(|lower| [lower.as_os_str().as_bytes(), b"\n"]);
            let text = lines.collect::<Vec<_>>().concat();
            std::io::Write::write_all(&mut file, &text).map_err(MountError::io("cannot write", &path))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(MountError::io("cannot write", &path)(error)),
    }
}

/// A fresh, empty directory to see a view of `lower` in.
///
/// # Errors
/// When the state directory cannot be written.
pub fn fresh_mount_point(lower: &Path) -> Result<PathBuf, MountError> {
    let state = state_dir()?;
    let parent_path = state.join("merged");
    let parent = make_all(&state, &parent_path, 0o755)?;
    let base = readable(lower);
    for number in 1_u32.. {
        let mut name = base.clone();
        if number > 1 {
            name.push(format!("-{number}"));
        }
        // Left over and unused: a mount point is not removed by rmdir(2), nor is one with content.
        let made = mkdirat(&parent, &name, Mode::from_raw_mode(0o755)).or_else(|_| {
            rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR)?;
            mkdirat(&parent, &name, Mode::from_raw_mode(0o755))
        });
        match made {
            Ok(()) => return Ok(parent_path.join(name)),
            Err(Errno::EXIST | Errno::BUSY | Errno::NOTEMPTY | Errno::NOTDIR | Errno::NOTCONN) => {}
            Err(errno) => {
                return Err(MountError::io("cannot make a mount point in", &parent_path)(
                    errno,
                ));
            }
        }
    }
    Err(MountError::io("cannot make a mount point in", &parent_path)(
        Error::from(ErrorKind::AlreadyExists),
    ))
}

/// `base-1f2e3d4c5b6a7988`: a name a person recognises, and a hash of the whole paths that tells namesakes apart.
fn name_of(lowers: &[PathBuf]) -> OsString {
    let mut name = readable(lowers.first().map_or(Path::new("/"), PathBuf::as_path));
    let paths: Vec<&[u8]> = lowers.iter().map(|lower| lower.as_os_str().as_bytes()).collect();
    // No path has a NUL byte.
    name.push(format!("-{:016x}", hash(&paths.join(&0))));
    name
}

fn readable(lower: &Path) -> OsString {
    /// Leaves room for the hash within a file name.
    const LONGEST: usize = 200;
    let name = lower.file_name().unwrap_or(OsStr::new("root"));
    OsStr::from_bytes(name.as_bytes().get(..LONGEST).unwrap_or(name.as_bytes())).to_owned()
}

/// FNV-1a: the same in every run and release, which the hashers of the standard library do not promise.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_and_distinct() {
        let name_of = |paths: &[&str]| name_of(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        let name = name_of(&["/srv/base"]);
        assert!(name.to_str().unwrap().starts_with("base-"));
        assert_ne!(name, name_of(&["/opt/base"]));
        assert_ne!(name, name_of(&["/srv/base", "/opt/base"]));
        assert_ne!(name_of(&["/a", "/b", "/c"]), name_of(&["/a", "/c", "/b"]));
        assert!(name_of(&["/"]).to_str().unwrap().starts_with("root-"));
        assert!(name_of(&[&format!("/{}", "x".repeat(255))]).len() < 255);
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
