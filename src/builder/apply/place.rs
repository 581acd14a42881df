//! Where an entry goes: its name made clean, its directory found without leaving the tree.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use lru::LruCache;

use crate::builder::{BuildError, Result, TreePath};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, at, memory};

/// Directories that stay open.
const OPEN: NonZeroUsize = match NonZeroUsize::new(64) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};
/// Symlinks followed on one way, as in the kernel.
const LINKS: usize = 40;
/// How many names from the end of a path an open directory is looked for.
const NEAR: usize = 4;

/// An open directory of the tree.
#[derive(Debug)]
pub(super) struct Dir {
    /// Opened with `O_PATH`.
    pub(super) fd: OwnedFd,
    /// Where it is, no symlink on the way.
    pub(super) path: TreePath,
    /// Its inode number.
    pub(super) ino: u64,
    default_acl: Cell<Option<bool>>,
}

impl Dir {
    /// The path of a name in here.
    pub(super) fn join(&self, name: &[u8]) -> TreePath {
        self.path.join(name)
    }

    /// The attributes of a name in here; `None` if there is none.
    pub(super) fn look(&self, name: &[u8]) -> Result<Option<Stat>> {
        match stat::stat_at(&self.fd, name) {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(Some).map_err(|errno| self.call("look at", name, errno)),
        }
    }

    /// A failed call on a name in here.
    pub(super) fn call(&self, what: &'static str, name: &[u8], errno: Errno) -> BuildError {
        BuildError::Call {
            what,
            path: self.join(name),
            errno,
        }
    }

    /// True if what is made in here gets an access list without being asked.
    pub(super) fn has_default_acl(&self) -> Result<bool> {
        if let Some(known) = self.default_acl.get() {
            return Ok(known);
        }
        let found = match xattr::get(Target::Fd(self.fd.as_fd()), DEFAULT_ACL) {
            Ok(_) => true,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => false,
            Err(errno) => {
                return Err(BuildError::Call {
                    what: "read the access list of",
                    path: self.path.clone(),
                    errno,
                });
            }
        };
        self.default_acl.set(Some(found));
        Ok(found)
    }
}

/// The attribute that holds the access list of what will be made in a directory.
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Makes a directory on the way.
pub(super) type Maker<'a> = &'a mut dyn FnMut(&Dir, &[u8]) -> Result<()>;

/// The directories of a tree.
#[derive(Debug)]
pub(super) struct Places {
    root: Rc<Dir>,
    open: LruCache<TreePath, Rc<Dir>>,
}

impl Places {
    /// The tree below `root`.
    pub(super) fn new(root: BorrowedFd<'_>) -> Result<Self> {
        let call = |errno| BuildError::Call {
            what: "open",
            path: TreePath::root(),
            errno,
        };
        let root = at::open_path(root, b".").map_err(call)?;
        let ino = stat::stat_fd(&root).map_err(call)?.ino;
        Ok(Self {
            root: Rc::new(dir(root, TreePath::root(), ino)),
            open: memory::cache(OPEN),
        })
    }

    /// The root.
    pub(super) fn root(&self) -> Rc<Dir> {
        Rc::clone(&self.root)
    }

    /// Closes all directories: what was found at a path may be something else now.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// The directory at `path`; symlinks on the way are followed inside the tree. What is missing, also where a
    /// symlink leads, is made with `make`; without it the answer is `None`.
    ///
    /// # Errors
    /// When something on the way is no directory.
    pub(super) fn find(&mut self, path: &TreePath, make: Option<Maker<'_>>) -> Result<Option<Rc<Dir>>> {
        if path.is_root() {
            return Ok(Some(self.root()));
        }
        if let Some(dir) = self.open.get(path) {
            return Ok(Some(Rc::clone(dir)));
        }
        let (start, steps) = self.start(path);
        let found = self.walk(&start, steps, path, make)?;
        if let Some(dir) = &found {
            self.open.put(path.clone(), Rc::clone(dir));
        }
        Ok(found)
    }

    /// The directory at `path` if no symlink is on the way; `None` if it is not there.
    pub(super) fn find_plain(&mut self, path: &TreePath) -> Result<Option<Rc<Dir>>> {
        if path.is_root() {
            return Ok(Some(self.root()));
        }
        let (mut here, mut steps) = self.start(path);
        while let Some(name) = steps.pop() {
            here = match at::open_dir_path(&here.fd, &name) {
                Ok(fd) => opened(&here, &name, fd)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(here.call("open", &name, errno)),
            };
        }
        self.open.put(path.clone(), Rc::clone(&here));
        Ok(Some(here))
    }

    /// An open directory from which to walk to `path`, and the names from there, the next one last.
    fn start(&mut self, path: &TreePath) -> (Rc<Dir>, Vec<Vec<u8>>) {
        if let Some(dir) = self.open.get(path) {
            return (Rc::clone(dir), Vec::new());
        }
        let mut steps = Vec::new();
        let mut rest = path.clone();
        while let Some((above, name)) = rest.split() {
            steps.push(name.to_vec());
            if let Some(dir) = self.open.get(&above) {
                return (Rc::clone(dir), steps);
            }
            if steps.len() == NEAR {
                // Far from anything open: all names at once, for a path may have thousands.
                return (self.root(), path.names().rev().map(<[u8]>::to_vec).collect());
            }
            rest = above;
        }
        (self.root(), steps)
    }

    /// Walks `steps`, the next one last, from `start`.
    fn walk(
        &self,
        start: &Rc<Dir>,
        mut steps: Vec<Vec<u8>>,
        whole: &TreePath,
        mut make: Option<Maker<'_>>,
    ) -> Result<Option<Rc<Dir>>> {
        let refused = |reason: String| BuildError::Refused {
            path: whole.clone(),
            reason,
        };
        let mut here = Rc::clone(start);
        let mut links = 0_usize;
        while let Some(name) = steps.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    here = self.above(&here)?;
                    continue;
                }
                _ => {}
            }
            let errno = match at::open_dir_path(&here.fd, &name) {
                Ok(fd) => {
                    here = opened(&here, &name, fd)?;
                    continue;
                }
                Err(errno) => errno,
            };
            match errno {
                Errno::NOENT => match &mut make {
                    None => return Ok(None),
                    Some(make) => {
                        make(&here, &name)?;
                        let fd = at::open_dir_path(&here.fd, &name);
                        let fd = fd.map_err(|errno| here.call("open", &name, errno))?;
                        here = opened(&here, &name, fd)?;
                    }
                },
                Errno::NOTDIR | Errno::LOOP => {
                    if here.look(&name)?.is_none_or(|stat| stat.kind() != libc::S_IFLNK) {
                        return Err(refused(format!("{} is no directory", here.join(&name))));
                    }
                    links = links.saturating_add(1);
                    if links > LINKS {
                        return Err(refused("too many symlinks on the way".into()));
                    }
                    let text = at::readlink_at(&here.fd, &name);
                    let text = text.map_err(|errno| here.call("read the symlink", &name, errno))?;
                    if text.starts_with(b"/") {
                        here = self.root();
                    }
                    let names = text.split(|byte| *byte == b'/').rev();
                    steps.extend(names.map(<[u8]>::to_vec));
                }
                errno => return Err(here.call("open", &name, errno)),
            }
        }
        Ok(Some(here))
    }

    /// The directory above; the root's is the root.
    fn above(&self, dir: &Rc<Dir>) -> Result<Rc<Dir>> {
        let Some((path, _)) = dir.path.split() else {
            return Ok(self.root());
        };
        if path.is_root() {
            return Ok(self.root());
        }
        // The tree is nobody else's, so what is above cannot be swapped for something outside.
        let fd = at::open_at(&dir.fd, b"..", libc::O_PATH | libc::O_DIRECTORY);
        let fd = fd.map_err(|errno| dir.call("open", b"..", errno))?;
        new_dir(path, fd)
    }
}

fn opened(above: &Dir, name: &[u8], fd: OwnedFd) -> Result<Rc<Dir>> {
    new_dir(above.join(name), fd)
}

fn new_dir(path: TreePath, fd: OwnedFd) -> Result<Rc<Dir>> {
    match stat::stat_fd(&fd) {
        Ok(stat) => Ok(Rc::new(dir(fd, path, stat.ino))),
        Err(errno) => Err(BuildError::Call {
            what: "look at",
            path,
            errno,
        }),
    }
}

fn dir(fd: OwnedFd, path: TreePath, ino: u64) -> Dir {
    Dir {
        fd,
        path,
        ino,
        default_acl: Cell::new(None),
    }
}

/// A name of an archive made clean, as Go's `filepath.Clean` does it below `/`: `..` takes back the name before it,
/// and cannot go above the root.
///
/// Answers the clean path, and whether the name tried to go above the root.
pub(super) fn clean(name: &[u8]) -> (TreePath, bool) {
    let mut names: Vec<&[u8]> = Vec::new();
    let mut above = false;
    for name in name.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => above |= names.pop().is_none(),
            name => names.push(name),
        }
    }
    (TreePath::from_clean(names.join(&b'/')), above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_clean() {
        let shown = |name: &[u8]| {
            let (path, above) = clean(name);
            (String::from_utf8(path.as_bytes().to_vec()).unwrap(), above)
        };
        assert_eq!(shown(b"./a//b/"), ("a/b".into(), false));
        assert_eq!(shown(b"/a/../b/."), ("b".into(), false));
        assert_eq!(shown(b"../../escape"), ("escape".into(), true));
        assert_eq!(shown(b"a/../../b"), ("b".into(), true));
        assert_eq!(shown(b"./"), (String::new(), false));
    }
}
