//! Where a directory really is: which of two lies inside the other, whatever paths, symlinks and bind mounts lead
//! to them.
//!
//! Two questions are asked, and either may say yes. Going up by `..` and comparing device and inode sees the tree
//! as this process does. The kernel's own name of the directory *within its file system* sees through bind mounts,
//! which a walk upwards leaves at the bind's mount point.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, readlinkat, statx};

use super::mountinfo::MountEntry;
use crate::sys::{Errno, Result};

/// Device and inode.
type Object = (u32, u32, u64);

/// An identified directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// The kernel's path of it.
    pub path: PathBuf,
    /// The mount it was reached through.
    pub mount: u64,
    /// The type of the file system, from the mount table.
    pub kind: Option<String>,
    object: Object,
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

    /// Whether an open directory is this one, through whichever mount.
    #[must_use]
    pub fn is_the_object(&self, dir: BorrowedFd<'_>) -> bool {
        identity(dir).is_ok_and(|(object, _)| object == self.object)
    }

    /// Whether an open directory was reached through the same mount.
    #[must_use]
    pub fn is_on_mount_of(&self, dir: BorrowedFd<'_>) -> bool {
        identity(dir).is_ok_and(|(_, mount)| mount == self.mount)
    }
}

/// Looks for directories that lie inside others, from below. What one climb has passed, the next need not pass again:
/// of hundreds of layers in one directory each costs a step or two.
#[derive(Debug)]
pub struct Climbs<'a> {
    outer: Vec<&'a Place>,
    by_object: HashMap<Object, usize>,
    by_path: HashMap<(&'a str, &'a Path), usize>,
    /// Met by earlier climbs, which found nothing from there to the root.
    passed: HashSet<(Object, u64)>,
}

impl<'a> Climbs<'a> {
    /// Will look whether something is one of `outer` or lies below one of them.
    pub fn to(outer: impl IntoIterator<Item = &'a Place>) -> Self {
        let outer: Vec<&Place> = outer.into_iter().collect();
        let (mut by_object, mut by_path) = (HashMap::new(), HashMap::new());
        for (index, place) in outer.iter().copied().enumerate() {
            by_object.entry(place.object).or_insert(index);
            if let Some((device, path)) = &place.within {
                by_path.entry((device.as_str(), path.as_path())).or_insert(index);
            }
        }
        Self {
            outer,
            by_object,
            by_path,
            passed: HashSet::new(),
        }
    }

    /// One of the directories that `inner` is or that it lies anywhere below; `None` if there is none. If `inner` is
    /// itself among them, its number is `own`, and only the others count.
    ///
    /// # Errors
    /// What openat(2) or statx(2) say on the way up.
    pub fn from(
        &mut self,
        inner: &Place,
        dir: BorrowedFd<'_>,
        own: Option<usize>,
    ) -> Result<Option<&'a Place>> {
        let by_path = inner.within.as_ref().and_then(|(device, path)| {
            path.ancestors()
                .filter_map(|above| self.by_path.get(&(device.as_str(), above)).copied())
                .find(|found| own != Some(*found))
        });
        let found = match by_path {
            Some(found) => Some(found),
            None => self.climb(dir, own)?,
        };
        Ok(found.and_then(|found| self.outer.get(found).copied()))
    }

    /// Goes up from `dir` until it meets one of them or the root.
    fn climb(&mut self, dir: BorrowedFd<'_>, own: Option<usize>) -> Result<Option<usize>> {
        let mut here: Option<OwnedFd> = None;
        let mut passed = Vec::new();
        loop {
            let current = here.as_ref().map_or(dir, AsFd::as_fd);
            let (object, mount) = identity(current)?;
            let met = self.by_object.get(&object).copied();
            if let Some(met) = met.filter(|met| own != Some(*met)) {
                return Ok(Some(met));
            }
            // Above the root is the root.
            if self.passed.contains(&(object, mount)) || passed.last() == Some(&(object, mount)) {
                break;
            }
            passed.push((object, mount));
            match openat(
                current,
                "..",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            ) {
                Ok(parent) => here = Some(parent),
                // Out of sight for this user; what can be seen has been compared.
                Err(Errno::ACCESS) => break,
                Err(errno) => return Err(errno),
            }
        }
        self.passed.extend(passed);
        Ok(None)
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

fn identity(dir: BorrowedFd<'_>) -> Result<(Object, u64)> {
    let found = statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::MNT_ID)?;
    Ok((
        (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
        found.stx_mnt_id,
    ))
}
