//! The first layer of a container: the names that a runtime needs to mount over.
//!
//! It lies in an upper of its own, `<id>-init`, so that what a container changed can be told from what it was given.
//! As in docker each name of [`WANTED`] becomes what is wanted there, unless the image has a directory under it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::builder::Meta;
use crate::store::{Result, StoreError};
use crate::sys::at::{self, SetTime};
use crate::sys::stat::{self, Time};
use crate::sys::xattr::Target;
use crate::sys::{self, Errno};

#[derive(Debug, Clone, Copy)]
enum Thing {
    Directory,
    EmptyFile,
    Symlink(&'static [u8]),
}

/// In which directory, under which name, what.
const WANTED: [(&[u8], &[u8], Thing); 10] = [
    (b"", b".dockerenv", Thing::EmptyFile),
    (b"dev", b"console", Thing::EmptyFile),
    (b"dev", b"pts", Thing::Directory),
    (b"dev", b"shm", Thing::Directory),
    (b"etc", b"hostname", Thing::EmptyFile),
    (b"etc", b"hosts", Thing::EmptyFile),
    (b"etc", b"mtab", Thing::Symlink(b"/proc/mounts")),
    (b"etc", b"resolv.conf", Thing::EmptyFile),
    (b"", b"proc", Thing::Directory),
    (b"", b"sys", Thing::Directory),
];

/// Permissions of files and directories alike, as docker has them.
const PERMISSIONS: u32 = 0o755;

/// Fills the empty directory `upper` for use over `lower`, the tree of an image; everything new gets the time `now`.
///
/// # Errors
/// When the lower cannot be read, or the upper not be written.
pub(super) fn fill(upper: BorrowedFd<'_>, lower: BorrowedFd<'_>, now: Time) -> Result<()> {
    let failed = |errno| StoreError::errno("make the first layer of a container", "in the store")(errno);
    inherit(lower, upper).map_err(failed)?;
    for dir in [&b"dev"[..], b"etc", b""] {
        let wanted = WANTED
            .iter()
            .filter(|(within, ..)| *within == dir)
            .map(|(_, name, thing)| (*name, *thing));
        fill_directory(upper, lower, dir, wanted, now).map_err(failed)?;
    }
    at::set_times_fd(upper, SetTime::Keep, SetTime::At(now)).map_err(failed)
}

/// Owner, permissions, attributes and times of the directory `from`.
fn inherit(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> sys::Result<()> {
    let stat = stat::stat_fd(from)?;
    Meta::read(Target::Fd(from), &stat)?.give_fd(to)
}

fn fill_directory(
    upper: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    name: &[u8],
    wanted: impl Iterator<Item = (&'static [u8], Thing)>,
    now: Time,
) -> sys::Result<()> {
    let below = match name {
        b"" => Some(lower.try_clone_to_owned().map_err(|_| Errno::MFILE)?),
        name => directory(lower, name)?,
    };
    let mut missing = Vec::new();
    for (name, thing) in wanted {
        // A directory of the image stays whatever is wanted; everything else gives way.
        let stays = match &below {
            Some(below) => directory(below.as_fd(), name)?.is_some(),
            None => false,
        };
        if !stays {
            missing.push((name, thing));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let own = match name {
        b"" => at::reopen_dir(upper)?,
        name => {
            // A copy of the image's directory, or one of our own.
            at::mkdir_at(upper, name, PERMISSIONS)?;
            let made = at::open_dir_path(upper, name)?;
            match &below {
                Some(below) => inherit(below.as_fd(), made.as_fd())?,
                None => at::chmod_fd(&made, PERMISSIONS)?,
            }
            made
        }
    };
    for (name, thing) in missing {
        make(own.as_fd(), name, thing, now)?;
    }
    at::set_times_fd(&own, SetTime::Keep, SetTime::At(now))
}

/// The directory `name` in `dir`; none where there is none, or something else.
fn directory(dir: BorrowedFd<'_>, name: &[u8]) -> sys::Result<Option<OwnedFd>> {
    match at::open_dir_path(dir, name) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn make(dir: BorrowedFd<'_>, name: &[u8], thing: Thing, now: Time) -> sys::Result<()> {
    match thing {
        Thing::Directory => at::mkdir_at(dir, name, PERMISSIONS)?,
        Thing::EmptyFile => drop(at::create_at(dir, name, libc::O_WRONLY, PERMISSIONS)?),
        Thing::Symlink(text) => at::symlink_at(text, dir, name)?,
    }
    let made = at::open_path(dir, name)?;
    if !matches!(thing, Thing::Symlink(_)) {
        // Whatever the umask took away, or a default ACL added.
        at::chmod_fd(&made, PERMISSIONS)?;
    }
    at::set_times_fd(&made, SetTime::At(now), SetTime::At(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn open(path: &std::path::Path) -> fs::File {
        fs::File::open(path).unwrap()
    }

    #[test]
    fn what_the_image_has_is_honoured() {
        let base = tempfile::tempdir().unwrap();
        let (lower, upper) = (base.path().join("l"), base.path().join("u"));
        for dir in ["l", "u", "l/etc", "l/etc/hosts", "l/proc"] {
            fs::create_dir(base.path().join(dir)).unwrap();
        }
        fs::set_permissions(&lower, fs::Permissions::from_mode(0o751)).unwrap();
        fs::set_permissions(lower.join("etc"), fs::Permissions::from_mode(0o711)).unwrap();
        // In the way: a link out of the tree, and a file.
        symlink("/run/resolv.conf", lower.join("etc/resolv.conf")).unwrap();
        symlink("/tmp", lower.join("dev")).unwrap();
        fs::write(lower.join("sys"), "a file").unwrap();
        let now = Time { secs: 5, nanos: 6 };
        fill(open(&upper).as_fd(), open(&lower).as_fd(), now).unwrap();
        let mode = |name: &str| {
            fs::symlink_metadata(upper.join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("") & 0o7777, 0o751);
        assert_eq!(mode("etc") & 0o7777, 0o711);
        assert_eq!(mode("dev"), libc::S_IFDIR | 0o755);
        assert_eq!(mode("dev/console"), libc::S_IFREG | 0o755);
        assert_eq!(mode("etc/resolv.conf"), libc::S_IFREG | 0o755);
        assert_eq!(mode("sys"), libc::S_IFDIR | 0o755);
        assert_eq!(
            fs::read_link(upper.join("etc/mtab")).unwrap().to_str(),
            Some("/proc/mounts")
        );
        for absent in ["etc/hosts", "proc"] {
            assert!(
                !upper.join(absent).exists(),
                "{absent}: the image's directory does"
            );
        }
    }
}
