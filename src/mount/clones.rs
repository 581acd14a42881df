//! Private read-only clones of the mounts that lowers lie on.
//!
//! Through such a clone nobody writes to a lower, whatever the server does, and reading changes no time of access. All
//! lowers on one mount share one clone where they can: each clone costs the kernel a wait when it is closed, and there
//! may be hundreds of lowers.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::place::Place;
use super::setup::open_parent;
use crate::sys::{Errno, Result, fusedev};

/// Puts directories on clones in place of `lowers`, which `places` identifies, where that may be done; the others stay
/// as they are. What is returned has to live as long as the lowers.
pub fn replace(lowers: &mut [OwnedFd], places: &[Place]) -> Vec<OwnedFd> {
    let mut clones = Vec::new();
    let mut mounts: Vec<u64> = places.iter().map(|place| place.mount).collect();
    mounts.sort_unstable();
    mounts.dedup();
    for mount in mounts {
        let mut members: Vec<(&mut OwnedFd, &Place)> = lowers
            .iter_mut()
            .zip(places)
            .filter(|(_, place)| place.mount == mount)
            .collect();
        if members.len() > 1 {
            match share(&mut members) {
                Ok(clone) => {
                    clones.push(clone);
                    continue;
                }
                Err(errno) => log::debug!("no clone for {} lowers together: {errno}", members.len()),
            }
        }
        for (lower, place) in members {
            match fusedev::clone_read_only(lower.as_fd()) {
                Ok(clone) => *lower = clone,
                Err(errno) => log::debug!(
                    "lower {}: no private read-only clone ({errno}), used as it is",
                    place.path.display()
                ),
            }
        }
    }
    clones
}

/// One clone for lowers on one mount: of the lowest directory that they all lie in.
fn share(members: &mut [(&mut OwnedFd, &Place)]) -> Result<OwnedFd> {
    let above = common(members.iter().map(|(_, place)| place.path.as_path())).ok_or(Errno::NOENT)?;
    let parent = open_parent(&above)?;
    // Something else may be mounted there, or may have come there meanwhile.
    if members
        .first()
        .is_none_or(|(_, place)| !place.is_on_mount_of(parent.as_fd()))
    {
        return Err(Errno::XDEV);
    }
    let clone = fusedev::clone_read_only(parent.as_fd())?;
    let mut found = Vec::with_capacity(members.len());
    for (_, place) in members.iter() {
        let below = place.path.strip_prefix(&above).map_err(|_| Errno::NOENT)?;
        let below = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let lower = openat2(&clone, below, flags, Mode::empty(), resolve)?;
        if !place.is_the_object(lower.as_fd()) {
            return Err(Errno::STALE);
        }
        found.push(lower);
    }
    for ((lower, _), found) in members.iter_mut().zip(found) {
        **lower = found;
    }
    Ok(clone)
}

/// The longest path that all begin with.
fn common<'a>(mut paths: impl Iterator<Item = &'a Path>) -> Option<PathBuf> {
    let first = paths.next()?;
    paths
        .try_fold(first, |above, path| {
            above.ancestors().find(|above| path.starts_with(above))
        })
        .map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_directory_of_all() {
        for (paths, above) in [
            (&["/a/b/c", "/a/b/d"][..], "/a/b"),
            (&["/a/b/c", "/a/bc"], "/a"),
            (&["/a/b", "/a/b/c", "/a/b"], "/a/b"),
            (&["/a", "/b"], "/"),
            (&["/", "/b"], "/"),
        ] {
            let found = common(paths.iter().map(Path::new));
            assert_eq!(found.as_deref(), Some(Path::new(above)), "{paths:?}");
        }
        assert_eq!(common(std::iter::empty()), None);
    }
}
