//! An upper that `fuse-overlayfs` wrote, made one of ours before it is used.
//!
//! ```text
//!   .wh.NAME          a file                     -> NAME, a character device 0/0, where nothing else has the name
//!   .wh..wh..opq, .wh..opq                       -> overlay.opaque=y on the directory they lie in
//!   user.fuseoverlayfs.opaque, user.overlay.opaque -> overlay.opaque=y
//!   user.fuseoverlayfs.override_stat             -> user.containers.override_stat
//!   user.fuseoverlayfs.origin and the like       -> nothing; it says where an inode number came from
//! ```
//!
//! The new mark is there before the old one goes, so a kill at any moment leaves an upper that means the same to both
//! programs. An upper with marks of `redirect_dir` or `metacopy`, which only the kernel's overlay writes, is refused.
//!
//! A note in `work/work` says that plyfs was the last to use an upper, which is then not looked through again. Every
//! other program empties that directory when it takes the upper.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::{MountError, Role};
use crate::format::{Namespace, aufs, marks, statement};
use crate::overlay::XattrNamespace;
use crate::sys::at::{self, SetTime};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, Result, dirent, io, stat};

/// The note; it holds the upper's inode number.
const NOTE: &[u8] = b"plyfs-upper";
const OPAQUE: [&[u8]; 2] = [aufs::OPAQUE, b".wh..opq"];
const THEIR_OPAQUE: &[u8] = b"user.fuseoverlayfs.opaque";
const USER_OPAQUE: &[u8] = b"user.overlay.opaque";
/// What only the kernel's overlay can follow.
const REFUSED: [&[u8]; 4] = [
    b"trusted.overlay.redirect",
    b"trusted.overlay.metacopy",
    b"user.overlay.redirect",
    b"user.overlay.metacopy",
];

/// Makes the upper one of ours, unless it is known to be. `path` is its name for messages.
///
/// # Errors
/// An object that cannot be looked at or changed, by its path; one whose marks cannot be followed.
pub(super) fn take_over(
    upper: BorrowedFd<'_>,
    work: BorrowedFd<'_>,
    wanted: XattrNamespace,
    path: &Path,
) -> std::result::Result<(), MountError> {
    let failed = |errno| MountError::io("cannot look into the work directory of", path)(errno);
    forget_volatile(work).map_err(failed)?;
    if has_note(work, upper).map_err(failed)? {
        return Ok(());
    }
    let mut walk = Walk {
        wanted,
        namespace: None,
        changed: 0,
    };
    walk.run(upper, path)?;
    if walk.changed > 0 {
        log::info!(
            "upper {}: {} marks of fuse-overlayfs turned into those of plyfs",
            path.display(),
            walk.changed
        );
    }
    Ok(())
}

/// Notes that the upper is ours from here on. Without the note it is looked through again, which harms nothing.
pub(super) fn note(work: BorrowedFd<'_>, upper: BorrowedFd<'_>) {
    let noted = stat::stat_fd(upper).and_then(|upper| {
        let dir = at::open_dir_path(work, b"work")?;
        let file = at::create_at(&dir, NOTE, libc::O_WRONLY, 0o600)?;
        io::write_all_at(&file, &upper.ino.to_ne_bytes(), 0)
    });
    if let Err(errno) = noted {
        log::debug!("work/work/{}: {errno}", String::from_utf8_lossy(NOTE));
    }
}

fn has_note(work: BorrowedFd<'_>, upper: BorrowedFd<'_>) -> Result<bool> {
    let opened = at::open_dir_path(work, b"work")
        .and_then(|dir| at::open_at(&dir, NOTE, libc::O_RDONLY | libc::O_NONBLOCK));
    let file = match opened {
        Ok(file) => file,
        // Not there; or in a directory of mode 0000, as the kernel leaves it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    let mut ino = [0; 8];
    let whole = io::read_at(&file, &mut ino, 0)? == ino.len();
    Ok(whole && u64::from_ne_bytes(ino) == stat::stat_fd(upper)?.ino)
}

/// A volatile mount leaves a mark that the upper may be incomplete after a crash. Engines judge that by themselves and
/// take the mark away before they mount; those that do not know it would be refused a restart.
fn forget_volatile(work: BorrowedFd<'_>) -> Result<()> {
    let gone = |done: Result<()>| match done {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    };
    let dir = match at::open_dir_path(work, b"work").and_then(|dir| at::open_dir_path(&dir, b"incompat")) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    match at::open_dir_path(&dir, b"volatile") {
        Ok(mark) => gone(at::unlink_at(&mark, b"dirty"))?,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    gone(at::rmdir_at(&dir, b"volatile"))
}

struct Walk {
    wanted: XattrNamespace,
    /// Where our marks go, once that has been tried.
    namespace: Option<Namespace>,
    changed: u64,
}

/// A directory of which some subdirectories are still to be seen.
struct Open {
    dir: OwnedFd,
    path: PathBuf,
    below: VecDeque<Box<[u8]>>,
}

impl Walk {
    /// Depth first, with a descriptor for each directory on the way down.
    fn run(&mut self, upper: BorrowedFd<'_>, path: &Path) -> std::result::Result<(), MountError> {
        let named = |path: &Path, errno| MountError::Open {
            role: Role::Upper,
            path: path.to_owned(),
            errno,
        };
        let root = at::open_dir_list(upper, b".").map_err(|errno| named(path, errno))?;
        self.attributes(Target::Fd(root.as_fd()), true, path)?;
        let mut stack = vec![self.directory(root, path.to_owned())?];
        while let Some(open) = stack.last_mut() {
            let Some(name) = open.below.pop_front() else {
                stack.pop();
                continue;
            };
            let path = open.path.join(OsStr::from_bytes(&name));
            let dir = match at::open_dir_list(&open.dir, &name) {
                Ok(dir) => dir,
                // Without the right to read it nobody sees it in the view either.
                Err(Errno::ACCESS) => {
                    log::warn!("{}: not looked through: {}", path.display(), Errno::ACCESS);
                    continue;
                }
                Err(errno) => return Err(named(&path, errno)),
            };
            let found = self.directory(dir, path)?;
            stack.push(found);
        }
        Ok(())
    }

    /// The names of one directory.
    fn directory(&mut self, dir: OwnedFd, path: PathBuf) -> std::result::Result<Open, MountError> {
        let named = |name: &[u8], errno| {
            MountError::io(
                "cannot take over what fuse-overlayfs left in the upper:",
                &path.join(OsStr::from_bytes(name)),
            )(errno)
        };
        let before = stat::stat_fd(&dir).map_err(|errno| named(b"", errno))?;
        let marks = self.changed;
        let mut names = Vec::new();
        dirent::read_names(&dir, |entry| {
            names.push(entry);
            Ok(true)
        })
        .map_err(|errno| named(b"", errno))?;
        let mut below = VecDeque::new();
        let mut opaque = Vec::new();
        for entry in names {
            let name = entry.name;
            let stat = stat::stat_at(&dir, &name).map_err(|errno| named(&name, errno))?;
            let is_mark = stat.is_file() || stat.is_whiteout();
            if let Some(hidden) = name.strip_prefix(aufs::MARK)
                && is_mark
            {
                if OPAQUE.contains(&&*name) {
                    opaque.push(name);
                } else {
                    whiteout(&dir, &name, hidden, stat.is_whiteout()).map_err(|errno| named(&name, errno))?;
                    self.changed = self.changed.saturating_add(1);
                }
                continue;
            }
            if stat.mount_root || !(stat.is_dir() || stat.is_file()) {
                continue;
            }
            let object = path.join(OsStr::from_bytes(&name));
            self.attributes(Target::At(dir.as_fd(), &name), stat.is_dir(), &object)?;
            if stat.is_dir() {
                below.push_back(name);
            }
        }
        if !opaque.is_empty() {
            self.set_opaque(Target::Fd(dir.as_fd()))
                .map_err(|errno| named(b"", errno))?;
        }
        for name in opaque {
            at::unlink_at(&dir, &name).map_err(|errno| named(&name, errno))?;
            self.changed = self.changed.saturating_add(1);
        }
        if self.changed != marks {
            at::set_times_fd(&dir, SetTime::At(before.atime), SetTime::At(before.mtime))
                .map_err(|errno| named(b"", errno))?;
        }
        Ok(Open { dir, path, below })
    }

    /// The private attributes of one object.
    fn attributes(
        &mut self,
        object: Target<'_>,
        is_dir: bool,
        path: &Path,
    ) -> std::result::Result<(), MountError> {
        let failed = |errno| MountError::io("cannot take over the marks of", path)(errno);
        let list = match xattr::list(object) {
            Ok(list) => list,
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        for name in xattr::names(&list) {
            if REFUSED.contains(&name) {
                return Err(MountError::Place {
                    path: path.to_owned(),
                    why: format!(
                        "carries {}, by which the kernel's overlay finds its content elsewhere (redirect_dir, metacopy): \
                         plyfs cannot show it; use this upper with the kernel's overlay, or begin a new one",
                        String::from_utf8_lossy(name)
                    ),
                });
            }
            if name != USER_OPAQUE && !name.starts_with(marks::FUSE_OVERLAYFS) {
                continue;
            }
            self.attribute(object, name, is_dir).map_err(failed)?;
        }
        Ok(())
    }

    fn attribute(&mut self, object: Target<'_>, name: &[u8], is_dir: bool) -> Result<()> {
        let value = match xattr::get(object, name) {
            Err(Errno::NODATA) => return Ok(()),
            value => value?,
        };
        if is_dir && (name == THEIR_OPAQUE || name == USER_OPAQUE) && value.first() == Some(&b'y') {
            self.set_opaque(object)?;
        }
        if name == USER_OPAQUE {
            // Ours, or one that a view with marks in `trusted.` shows to nobody's harm.
            return Ok(());
        }
        if name == statement::FUSE_OVERLAYFS {
            // It counts before one of the other name, which fuse-overlayfs copies up and then leaves alone.
            xattr::set(object, statement::CONTAINERS, &value, 0)?;
        }
        self.changed = self.changed.saturating_add(1);
        xattr::remove(object, name)
    }

    /// Where that is allowed in `trusted.`, else in `user.`, as the overlay itself decides.
    fn set_opaque(&mut self, dir: Target<'_>) -> Result<()> {
        if let Some(namespace) = self.namespace {
            return namespace.set_opaque(dir);
        }
        let mut reason = Errno::OPNOTSUPP;
        for namespace in self.wanted.candidates() {
            match namespace.set_opaque(dir) {
                Ok(()) => {
                    self.namespace = Some(*namespace);
                    return Ok(());
                }
                Err(errno @ (Errno::PERM | Errno::OPNOTSUPP)) => reason = errno,
                Err(errno) => return Err(errno),
            }
        }
        Err(reason)
    }
}

/// Replaces the whiteout `name` of `hidden`. What has that name in this very directory was made after the whiteout, and
/// a kill kept that from being removed: it stays.
fn whiteout(dir: &OwnedFd, name: &[u8], hidden: &[u8], is_device: bool) -> Result<()> {
    let meaningless =
        hidden.is_empty() || hidden == b"." || hidden == b".." || hidden.starts_with(aufs::MARK);
    // A device of such a name is left beside the marks of an opaque directory, and hides nothing.
    if !meaningless && !is_device {
        match at::mknod_at(dir, hidden, libc::S_IFCHR, 0) {
            Ok(()) | Err(Errno::EXIST | Errno::NAMETOOLONG) => {}
            Err(errno) => return Err(errno),
        }
    }
    at::unlink_at(dir, name)
}
