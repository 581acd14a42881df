//! Where a directory really is: which of two lies inside the other, whatever paths, symlinks and bind mounts lead
//! to them.
//!
//! Two questions are asked, and either may say yes. Going up by `..` and comparing device and inode sees the tree
//! as this process does. The kernel's own name of the directory *within its file system* sees through bind mounts,
//! which a walk upwards leaves at the bind's mount point.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, readlinkat, statx};

use super::mountinfo::MountEntry;
use crate::sys::{Errno, Result};

/// An identified directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// The kernel's path of it.
    pub path: PathBuf,
    /// The mount it was reached through.
    pub mount: u64,
    /// The type of the file system, from the mount table.
    pub kind: Option<String>,
    object: (u32, u32, u64),
    within: Option<(String, PathBuf)>,
}

impl Place {
    /// Identifies an open directory.
    ///
    /// # Errors
    /// What statx(2) or readlink(2) say.
    pub fn of(dir: BorrowedFd<'_>, mounts: &[MountEntry]) -> Result<Self> {
        let path = path_of(dir)?;
        // Ask the file system itself: a dead FUSE mount still answers from what the kernel remembers.
        statx(
            dir,
            "",
            AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC,
            StatxFlags::BASIC_STATS,
        )?;
        let (object, mount) = identity(dir)?;
        let entry = mounts.iter().find(|entry| entry.id == mount);
        let within = entry.and_then(|entry| {
            let below = path.strip_prefix(&entry.point).ok()?;
            Some((entry.device.clone(), entry.root.join(below)))
        });
        Ok(Self {
            path,
            mount,
            kind: entry.map(|entry| entry.kind.clone()),
            object,
            within,
        })
    }

    /// Whether both are one directory.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.object == other.object
    }
}

/// One of `outer` that is `inner` or that `inner` lies anywhere below; `None` if there is none.
///
/// # Errors
/// What openat(2) or statx(2) say on the way up.
pub fn first_outside<'a>(inner: (&Place, BorrowedFd<'_>), outer: &[&'a Place]) -> Result<Option<&'a Place>> {
    let (place, dir) = inner;
    let by_path = outer.iter().find(|outer| {
        matches!((&place.within, &outer.within), (Some((device, path)), Some((other_device, other_path)))
            if device == other_device && path.starts_with(other_path))
    });
    match by_path {
        Some(found) => Ok(Some(*found)),
        None => climb(dir, outer),
    }
}

/// Goes up from `dir` until it meets one of `wanted` or the root.
fn climb<'a>(dir: BorrowedFd<'_>, wanted: &[&'a Place]) -> Result<Option<&'a Place>> {
    let mut here: Option<OwnedFd> = None;
    let mut last = None;
    loop {
        let current = here.as_ref().map_or(dir, AsFd::as_fd);
        let (object, mount) = identity(current)?;
        if let Some(met) = wanted.iter().find(|place| place.object == object) {
            return Ok(Some(*met));
        }
        if last == Some((object, mount)) {
            return Ok(None);
        }
        last = Some((object, mount));
        match openat(
            current,
            "..",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(parent) => here = Some(parent),
            // Out of sight for this user; what can be seen has been compared.
            Err(Errno::ACCESS) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

/// The kernel's path of an open directory.
///
/// # Errors
/// What readlink(2) says, such as ENOENT without /proc.
pub fn path_of(dir: BorrowedFd<'_>) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let bytes = readlinkat(rustix::fs::CWD, Path::new(&link), Vec::new())?.into_bytes();
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

fn identity(dir: BorrowedFd<'_>) -> Result<((u32, u32, u64), u64)> {
    let found = statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::MNT_ID)?;
    Ok((
        (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
        found.stx_mnt_id,
    ))
}
