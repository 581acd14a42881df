//! The live mounts of one user: a directory in the runtime dir with one JSON file for each.
//!
//! A server holds a lock on its file for as long as it lives, so a file without a lock is left over from a server
//! that was killed; whoever sees it removes it.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::MountError;
use super::who;
use crate::sys::Errno;

/// A path in JSON: text when it is UTF-8, a list of bytes when not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum JsonPath {
    /// The usual case.
    Text(String),
    /// A name that is not UTF-8.
    Bytes(Vec<u8>),
}

impl JsonPath {
    /// The path itself.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Text(text) => PathBuf::from(text),
            Self::Bytes(bytes) => PathBuf::from(OsString::from_vec(bytes.clone())),
        }
    }
}

impl From<&Path> for JsonPath {
    fn from(path: &Path) -> Self {
        path.to_str().map_or_else(
            || Self::Bytes(path.as_os_str().as_bytes().to_vec()),
            |text| Self::Text(text.to_owned()),
        )
    }
}

/// What is known of one mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The server.
    pub pid: u32,
    /// When it began to answer, in seconds since 1970.
    pub since: i64,
    /// The kernel's number of the mount.
    pub mount_id: u64,
    /// The read-only layer, the topmost if there are several.
    pub lower: JsonPath,
    /// Further read-only layers, each below the former.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<JsonPath>,
    /// The writable layer.
    pub upper: Option<JsonPath>,
    /// The work directory.
    pub work: Option<JsonPath>,
    /// Where the view is seen.
    pub merged: JsonPath,
    /// Whether the view refuses every change.
    pub read_only: bool,
    /// Whether marks of other tools count in the lowers.
    #[serde(default)]
    pub foreign: bool,
    /// Where the server logs to, if it does.
    pub log: Option<JsonPath>,
    /// The view ends with the command that made it.
    #[serde(default)]
    pub passing: bool,
}

impl Entry {
    /// The paths of all lowers, the topmost first.
    pub fn lowers(&self) -> impl Iterator<Item = PathBuf> + '_ {
        std::iter::once(&self.lower)
            .chain(&self.below)
            .map(JsonPath::path)
    }
}

/// A registered mount; the file goes away when this is dropped.
#[derive(Debug)]
pub struct Registered {
    path: PathBuf,
    // Holds the lock.
    _file: File,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

/// Where the runtime directory may be, best first: `/run/plyfs` for root; else `$XDG_RUNTIME_DIR/plyfs` and
/// `/run/user/UID/plyfs`; at last `/tmp/plyfs-UID`.
fn candidates() -> Vec<PathBuf> {
    let uid = who::outer_uid();
    let mut places = Vec::new();
    if who::is_true_root() {
        places.push(PathBuf::from("/run/plyfs"));
    } else {
        let named = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        places.extend(named.into_iter().map(|path| path.join("plyfs")));
        places.push(usual.join("plyfs"));
    }
    places.push(PathBuf::from(format!("/tmp/plyfs-{uid}")));
    places.dedup();
    places
}

/// The runtime directory for a new mount.
///
/// # Errors
/// When none can be made, or they are not this user's alone.
pub fn directory() -> Result<PathBuf, MountError> {
    let mut refusal = MountError::Place {
        path: PathBuf::from("/tmp"),
        why: "there is no place for a runtime directory".to_owned(),
    };
    for path in candidates() {
        match make_private(&path) {
            Ok(()) => return Ok(path),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Makes a directory that only this user can enter, or checks that it is one.
fn make_private(path: &Path) -> Result<(), MountError> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(MountError::io("cannot make the runtime directory", path)(error)),
    }
    if is_private(path) {
        Ok(())
    } else {
        Err(MountError::Place {
            path: path.to_owned(),
            why: "must be a directory that belongs to this user, with mode 0700: remove it, or set XDG_RUNTIME_DIR"
                .to_owned(),
        })
    }
}

/// Whether nobody else can have put anything there.
fn is_private(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| {
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0
    })
}

/// Writes the file of a new mount and locks it.
///
/// # Errors
/// When the runtime directory cannot be written.
pub fn register(directory: &Path, name: &OsStr, entry: &Entry) -> Result<Registered, MountError> {
    let path = directory.join(name).with_extension("json");
    let unfinished = directory.join(name).with_extension("new");
    let failed = |error: std::io::Error| MountError::io("cannot write", &path)(error);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(MountError::io("cannot write", &unfinished))?;
    // Locked before it has its final name: a reader never sees a live file without a lock.
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| failed(errno.into()))?;
    let text = serde_json::to_vec(entry).map_err(|error| failed(error.into()))?;
    file.write_all(&text).map_err(failed)?;
    std::fs::rename(&unfinished, &path).map_err(failed)?;
    Ok(Registered { path, _file: file })
}

/// A live mount as found.
#[derive(Debug)]
pub struct Live {
    /// What its server wrote.
    pub entry: Entry,
    /// The server's control socket.
    pub socket: PathBuf,
    /// Its file, locked by the server as long as that lives.
    pub file: File,
}

/// All live mounts of this user, in the order they were mounted. Removes what dead servers left.
///
/// # Errors
/// When the runtime directory cannot be read.
pub fn live() -> Result<Vec<Live>, MountError> {
    let mut found = Vec::new();
    // All of them: a view mounted from a desktop is unmounted from a cron job without XDG_RUNTIME_DIR.
    for directory in candidates().into_iter().filter(|path| is_private(path)) {
        let listing = std::fs::read_dir(&directory).map_err(MountError::io("cannot read", &directory))?;
        for item in listing {
            let path = item.map_err(MountError::io("cannot read", &directory))?.path();
            if path.extension() != Some(OsStr::new("json")) {
                continue;
            }
            match look(&path) {
                Ok(Some(live)) => found.push(live),
                Ok(None) => {}
                Err(error) => log::warn!("{}: {error}", path.display()),
            }
        }
    }
    found.sort_by_key(|live| (live.entry.since, live.entry.mount_id));
    Ok(found)
}

fn look(path: &Path) -> std::io::Result<Option<Live>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Its server has just left.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let socket = path.with_extension("sock");
    match flock(file.as_fd(), FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => {}
        Err(errno) => return Err(errno.into()),
        Ok(()) => {
            for stale in [path, &socket] {
                match std::fs::remove_file(stale) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            return Ok(None);
        }
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(Some(Live {
        entry: serde_json::from_slice(&text)?,
        socket,
        file,
    }))
}

/// Which of this user's mounts writes to `layer`, for a message.
pub(super) fn user_of(layer: &Path) -> Option<Entry> {
    let uses = |path: &Option<JsonPath>| path.as_ref().is_some_and(|path| path.path() == layer);
    live()
        .ok()?
        .into_iter()
        .map(|live| live.entry)
        .find(|entry| uses(&entry.upper) || uses(&entry.work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_json() {
        for path in [OsStr::new("/a b"), OsStr::from_bytes(b"/\xff\x01")] {
            let before = JsonPath::from(Path::new(path));
            let text = serde_json::to_string(&before).unwrap();
            let after: JsonPath = serde_json::from_str(&text).unwrap();
            assert_eq!(after.path(), Path::new(path));
        }
    }
}
