//! A copy of one object with all its metadata.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::{Linker, Source, Spot, call};
use crate::builder::{BuildError, Kind, Meta, Result};
use crate::sys::copy::{Method, copy_data};
use crate::sys::xattr::Target;
use crate::sys::{Errno, at, stat};

impl Linker {
    /// Copies the source to `name` in `dir`; answers the new inode's number. `to` is what messages name.
    pub(super) fn copy(
        &self,
        source: &Source<'_>,
        kind: Kind,
        dir: BorrowedFd<'_>,
        name: &[u8],
        to: &Spot<'_>,
    ) -> Result<u64> {
        let failed = |errno| call("copy", to, errno);
        let (made, meta) = if kind == Kind::File {
            let from = at::open_data(source.dir, source.name).map_err(failed)?;
            let before = stat::stat_fd(&from).map_err(failed)?;
            let made = at::create_at(dir, name, libc::O_RDWR, 0o600).map_err(failed)?;
            let (method, bytes) = copy_data(&from, &made, before.size).map_err(failed)?;
            let meta = Meta::read(Target::Fd(from.as_fd()), &before).map_err(failed)?;
            let after = stat::stat_fd(&from).map_err(failed)?;
            if (before.size, before.mtime) != (after.size, after.mtime) {
                return Err(BuildError::Refused {
                    path: to.path(),
                    reason: "it was written while it was copied; try again when nobody writes the tree"
                        .into(),
                });
            }
            self.count(method, bytes);
            (made, meta)
        } else {
            let meta = Meta::read(Target::At(source.dir, source.name), &source.stat).map_err(failed)?;
            if kind == Kind::Symlink {
                let target = at::readlink_at(source.dir, source.name).map_err(failed)?;
                at::symlink_at(&target, dir, name).map_err(failed)?;
            } else {
                at::mknod_at(dir, name, kind.bits() | 0o600, meta.rdev).map_err(failed)?;
            }
            self.copied.fetch_add(1, Ordering::Relaxed);
            (at::open_path(dir, name).map_err(failed)?, meta)
        };
        self.give(meta, &made)
            .map_err(|errno| call(super::GIVE, to, errno))?;
        Ok(stat::stat_fd(&made).map_err(failed)?.ino)
    }

    /// Gives a new inode its metadata.
    pub(in crate::builder) fn give(&self, mut meta: Meta, fd: &OwnedFd) -> crate::sys::Result<()> {
        match meta.give_fd(fd) {
            Err(Errno::PERM) if self.without_owners => {}
            done => return done,
        }
        let own = stat::stat_fd(fd)?;
        if (own.uid, own.gid) != (meta.uid, meta.gid) {
            self.disowned.fetch_add(1, Ordering::Relaxed);
            (meta.uid, meta.gid) = (own.uid, own.gid);
            meta.permissions &= 0o1777;
        }
        meta.xattrs
            .retain(|xattr| !xattr.name.starts_with(b"security.") && !xattr.name.starts_with(b"trusted."));
        meta.give_fd(fd)
    }

    fn count(&self, method: Method, bytes: u64) {
        if method == Method::Reflink {
            self.reflinked.fetch_add(1, Ordering::Relaxed);
        } else {
            self.copied.fetch_add(1, Ordering::Relaxed);
            self.bytes_copied.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}
