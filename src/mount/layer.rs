//! A lower that is the tree of an image layer: `overlay/<id>/root`, with the file `links` beside it.
//!
//! The server holds a shared lock on the directory `overlay/<id>` for as long as it lives, so that nobody removes
//! the layer under it, and a server that is killed frees it. From `links` the view learns which files have several
//! names in the tree, since the link counts of a layer's files count their names in all other layers, too.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};

use super::error::{MountError, Role};
use crate::format::{Links, TreeId};
use crate::sys::{Errno, at, io, stat};

/// The name of a layer's tree in its directory.
const ROOT: &[u8] = b"root";
/// The name of the record in a layer's directory.
const LINKS: &[u8] = b"links";

/// An image layer in use.
#[derive(Debug)]
pub struct StoredLayer {
    /// Keeps the layer from being removed.
    pub lock: OwnedFd,
    /// Which inodes have several names; `None` for a copied store, where the numbers are others.
    pub names: Option<Links>,
}

impl StoredLayer {
    /// Whether the directory with this path, by the kernel, may be the tree of an image layer: by its name, before
    /// anything is opened.
    #[must_use]
    pub fn may_be(real: &Path) -> bool {
        real.file_name() == Some(OsStr::from_bytes(ROOT))
    }

    /// Looks whether `lower`, opened as `path`, is the tree of an image layer, and takes hold of it.
    ///
    /// # Errors
    /// When the layer is being removed, or what belongs to it cannot be read.
    pub fn find(lower: BorrowedFd<'_>, path: &Path) -> Result<Option<Self>, MountError> {
        let io_error = |errno: Errno| MountError::io("cannot read the layer of", path)(errno);
        let parent = openat(
            lower,
            c"..",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let parent = match parent {
            Ok(parent) => parent,
            Err(errno) if is_failure(errno) => return Err(io_error(errno)),
            // Another user's directory, say. Without the right to read it there is no lock to hold.
            Err(errno) => {
                log::debug!("{}: what it lies in is out of reach: {errno}", path.display());
                return Ok(None);
            }
        };
        let Some(bytes) = read_links(parent.as_fd()).map_err(io_error)? else {
            return Ok(None);
        };
        let own = stat::stat_fd(lower).map_err(io_error)?;
        let is_root = |stat: &stat::Stat| (stat.dev, stat.ino) == (own.dev, own.ino);
        if !stat::stat_at(&parent, ROOT).is_ok_and(|stat| is_root(&stat)) {
            return Ok(None);
        }
        match flock(&parent, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let path = path.to_owned();
                return Err(MountError::LayerGoing { path });
            }
            Err(errno) => return Err(io_error(errno)),
        }
        // It may have been removed between the look at it and the lock.
        let again = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let again = again.and_then(stat::stat_fd);
        if !again.as_ref().is_ok_and(is_root) {
            return Err(MountError::Open {
                role: Role::Lower,
                path: path.to_owned(),
                errno: again.err().unwrap_or(Errno::NOENT),
            });
        }
        let names = match Links::decode(&bytes) {
            Some(links) if TreeId::of(lower).map_err(io_error)? == links.tree() => Some(links),
            Some(_) => {
                log::info!(
                    "{}: the record of its links is of another place: link counts show as they are",
                    path.display()
                );
                None
            }
            None => {
                log::warn!(
                    "{}: the record of its links is damaged: link counts show as they are ('plyfs system check')",
                    path.display()
                );
                None
            }
        };
        Ok(Some(Self { lock: parent, names }))
    }
}

/// Whether it says nothing about what is there, but that this machine is in trouble.
fn is_failure(errno: Errno) -> bool {
    matches!(errno, Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// The file `links`, if there is one of ours.
fn read_links(dir: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    let file = match at::open_at(dir, LINKS, libc::O_RDONLY | libc::O_NONBLOCK) {
        Ok(file) => file,
        Err(errno) if is_failure(errno) => return Err(errno),
        // Nothing of ours, or nothing that we may read.
        Err(_) => return Ok(None),
    };
    let stat = stat::stat_fd(&file)?;
    let mut start = [0; 8];
    if !stat.is_file() || io::read_at(&file, &mut start, 0)? < start.len() || !Links::is_one(&start) {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(stat.size).map_err(|_| Errno::FBIG)?];
    let read = io::read_at(&file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}
