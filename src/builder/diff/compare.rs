//! Telling two objects apart.

use std::os::fd::OwnedFd;

use super::Difference;
use super::groups::{Groups, id};
use super::side::{Rules, Seen};
use super::walk::call;
use crate::builder::{BuildError, Kind, Result, TreePath};
use crate::sys::xattr::Target;
use crate::sys::{Errno, at, io, stat};

/// Bytes compared in one step.
const STEP: usize = 256 * 1024;

/// In what `new` differs from `old`, the object that had its name before.
///
/// Data is read only where nothing else tells: an edit within the clock's grain, or one whose time was put back.
pub(super) fn compare(
    rules: &Rules<'_>,
    groups: &Groups,
    old: Seen<'_>,
    new: Seen<'_>,
    path: &TreePath,
) -> Result<Vec<Difference>> {
    let mut differences = Vec::new();
    let (was, is) = (&old.found.stat, &new.found.stat);
    if old.found.kind != new.found.kind {
        return Ok(vec![Difference::Kind]);
    }
    let kind = new.found.kind;
    let linked = kind != Kind::Directory && groups.changed(old.found, new.found);
    if kind != Kind::Directory && id(old.found) == id(new.found) {
        return Ok(if linked {
            vec![Difference::Links]
        } else {
            differences
        });
    }
    let mut tell = |differs: bool, what: Difference| {
        if differs {
            differences.push(what);
        }
    };
    tell(was.mode != is.mode, Difference::Mode);
    tell((was.uid, was.gid) != (is.uid, is.gid), Difference::Owner);
    tell(
        matches!(kind, Kind::CharDevice | Kind::BlockDevice) && was.rdev != is.rdev,
        Difference::Device,
    );
    tell(kind == Kind::File && was.size != is.size, Difference::Size);
    tell(
        kind != Kind::Directory && was.mtime != is.mtime,
        Difference::Mtime,
    );
    if kind == Kind::Symlink {
        tell(target(old, path)? != target(new, path)?, Difference::Target);
    }
    tell(
        rules.xattrs(old, path)? != rules.xattrs(new, path)?,
        Difference::Xattrs,
    );
    tell(linked, Difference::Links);
    if kind == Kind::File && differences.is_empty() && !same_data(old, new, path)? {
        differences.push(Difference::Content);
    }
    Ok(differences)
}

/// The text of a symlink.
pub(super) fn target(seen: Seen<'_>, path: &TreePath) -> Result<Vec<u8>> {
    match seen.target {
        Target::At(dir, name) => at::readlink_at(dir, name).map_err(call("read", path)),
        Target::Fd(_) => Err(call("read", path)(Errno::INVAL)),
    }
}

/// Opens a regular file for reading, the very one that was seen.
pub(super) fn open(seen: Seen<'_>, path: &TreePath) -> Result<OwnedFd> {
    let Target::At(dir, name) = seen.target else {
        return Err(call("open", path)(Errno::INVAL));
    };
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    // The access time is left alone where that is allowed.
    let file = match at::open_at(dir, name, flags | libc::O_NOATIME) {
        Err(Errno::PERM) => at::open_at(dir, name, flags),
        open => open,
    };
    let file = file.map_err(call("open", path))?;
    let found = stat::stat_fd(&file).map_err(call("look at", path))?;
    if (found.dev, found.ino) != id(seen.found) {
        return Err(moved(path));
    }
    Ok(file)
}

/// The error for an object that changed while it was read.
pub(super) fn moved(path: &TreePath) -> BuildError {
    BuildError::Refused {
        path: path.clone(),
        reason: "changed while it was read; stop what writes to it, and try again".to_owned(),
    }
}

/// Compares two files of the same size.
fn same_data(old: Seen<'_>, new: Seen<'_>, path: &TreePath) -> Result<bool> {
    let size = new.found.stat.size;
    if size == 0 {
        return Ok(true);
    }
    let (old, new) = (open(old, path)?, open(new, path)?);
    let (mut left, mut right) = (vec![0; STEP], vec![0; STEP]);
    let mut position = 0;
    while position < size {
        // What is a hole in both is equal.
        position = next_data(&old, position, size, path)?.min(next_data(&new, position, size, path)?);
        let got = io::read_at(&old, &mut left, position).map_err(call("read", path))?;
        let also = io::read_at(&new, &mut right, position).map_err(call("read", path))?;
        if left.get(..got) != right.get(..also) {
            return Ok(false);
        }
        if got == 0 && position < size {
            return Err(moved(path));
        }
        position = position.saturating_add(got as u64);
    }
    Ok(true)
}

/// Where the next data is, or the end.
fn next_data(file: &OwnedFd, position: u64, size: u64, path: &TreePath) -> Result<u64> {
    let from = i64::try_from(position).map_err(|_| call("read", path)(Errno::FBIG))?;
    match io::seek(file, from, libc::SEEK_DATA) {
        Ok(at) => Ok(at),
        Err(Errno::NXIO) => Ok(size),
        // A file system that does not know: all is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(position),
        Err(errno) => Err(call("read", path)(errno)),
    }
}
