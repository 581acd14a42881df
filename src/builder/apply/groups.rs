//! The names that belong to one inode, for when an inode shared with the parent must be replaced under all of them.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::rc::Rc;

use roaring::RoaringTreemap;

use super::place::Dir;
use super::scratch::random_name;
use super::tree::Tree;
use crate::builder::link::Spot;
use crate::builder::walk::{Step, Walk};
use crate::builder::{BuildError, Kind, Meta, Result, TreePath};
use crate::sys::at::{self, RenameHow};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::Target;
use crate::sys::{Errno, copy};

/// Inodes with several names in the tree.
#[derive(Debug, Default)]
pub(super) struct Groups {
    names: HashMap<u64, Vec<TreePath>>,
}

impl Groups {
    /// A name that an inode has got since.
    pub(super) fn add(&mut self, ino: u64, path: TreePath) {
        self.names.entry(ino).or_default().push(path);
    }
}

impl Tree<'_> {
    /// Gives what `name` in `from` is a further name.
    ///
    /// An inode of the parent that can carry no more names, or may not be linked, is replaced by one of our own
    /// first, so that all its names in this tree stay one file; only where that does not help a copy takes over.
    pub(super) fn link(&mut self, from: &Rc<Dir>, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<()> {
        let look = |dir: &Dir, name: &[u8]| {
            dir.look(name)?
                .ok_or_else(|| dir.call("link", name, Errno::NOENT))
        };
        let mut stat = look(from, name)?;
        match at::link_at(&from.fd, name, &to.fd, to_name) {
            Ok(()) => {}
            Err(Errno::MLINK | Errno::PERM | Errno::XDEV | Errno::OPNOTSUPP) => {
                if !self.made.contains(stat.ino) {
                    self.unshare(from, name, &stat)?;
                }
                let spot = Spot {
                    root: self.root,
                    dir: to.fd.as_fd(),
                    dir_path: &to.path,
                    name: to_name,
                };
                self.linker.link(from.fd.as_fd(), name, &spot)?;
                stat = look(to, to_name)?;
                if self.made.insert(stat.ino) {
                    self.hasher.forget(stat.ino);
                }
            }
            Err(errno) => return Err(to.call("link", to_name, errno)),
        }
        if let Some(groups) = &mut self.groups {
            groups.add(stat.ino, from.join(name));
            groups.add(stat.ino, to.join(to_name));
        }
        Ok(())
    }

    /// Replaces an inode of the parent by a copy that is this tree's own, under all names it has in the tree.
    ///
    /// `name` in `dir` is one of them, and `stat` what it is.
    pub(super) fn unshare(&mut self, dir: &Rc<Dir>, name: &[u8], stat: &Stat) -> Result<()> {
        let others = self.other_names(dir, name, stat.ino)?;
        self.touch(dir)?;
        let copy = random_name();
        let new_ino = self.copy_object(dir, name, &copy, stat)?;
        self.made.insert(new_ino);
        self.hasher.forget(new_ino);
        at::rename_at(&dir.fd, &copy, &dir.fd, name, RenameHow::Replace)
            .map_err(|errno| dir.call("replace", name, errno))?;
        for (other_dir, other) in others {
            self.touch(&other_dir)?;
            let link = random_name();
            at::link_at(&dir.fd, name, &other_dir.fd, &link)
                .map_err(|errno| other_dir.call("link", &other, errno))?;
            at::rename_at(&other_dir.fd, &link, &other_dir.fd, &other, RenameHow::Replace)
                .map_err(|errno| other_dir.call("replace", &other, errno))?;
        }
        Ok(())
    }

    /// The other names of an inode in the tree.
    fn other_names(&mut self, dir: &Rc<Dir>, name: &[u8], ino: u64) -> Result<Vec<(Rc<Dir>, Vec<u8>)>> {
        let groups = match self.groups.take() {
            Some(groups) => groups,
            None => self.scan()?,
        };
        let paths = groups.names.get(&ino).cloned().unwrap_or_default();
        self.groups = Some(groups);
        // A name may have been added twice; renaming it the second time would do nothing, and leave the other name.
        let mut seen = HashSet::from([(dir.ino, name.to_vec())]);
        let mut others = Vec::new();
        for path in paths {
            let Some((above, other)) = path.split() else {
                continue;
            };
            // The names were found a while ago; some may be gone since.
            let Some(other_dir) = self.places.find_plain(&above)? else {
                continue;
            };
            if seen.insert((other_dir.ino, other.to_vec()))
                && other_dir.look(other)?.is_some_and(|stat| stat.ino == ino)
            {
                others.push((other_dir, other.to_vec()));
            }
        }
        Ok(others)
    }

    /// Finds all inodes of several names, by walking the tree twice: once to count, once to collect.
    fn scan(&mut self) -> Result<Groups> {
        let (mut once, mut often) = (RoaringTreemap::new(), RoaringTreemap::new());
        self.each_name(&mut |_, ino| {
            if !once.insert(ino) {
                often.insert(ino);
            }
        })?;
        let mut groups = Groups::default();
        if !often.is_empty() {
            self.each_name(&mut |step, ino| {
                if often.contains(ino) {
                    groups.add(ino, step.path());
                }
            })?;
        }
        Ok(groups)
    }

    /// Calls `each` for all names in the tree that are no directories, with their inode number.
    fn each_name(&mut self, each: &mut dyn FnMut(&Step<'_>, u64)) -> Result<()> {
        let root = self.places.root();
        let mut walk = Walk::new(root.fd.as_fd())?;
        while let Some(step) = walk.advance()? {
            if step.kind != Kind::Directory {
                // Not what the listing says: on some file systems that is another number.
                let stat = stat::stat_at(step.dir, step.name).map_err(|errno| BuildError::Call {
                    what: "look at",
                    path: step.path(),
                    errno,
                })?;
                if stat.nlink > 1 {
                    each(&step, stat.ino);
                }
            } else if step.depth > 1 || !self.is_aside(&root, step.name) {
                walk.enter()?;
            }
        }
        Ok(())
    }

    /// Copies an object that is no directory to the new name `to` in its directory; answers the new inode number.
    fn copy_object(&mut self, dir: &Dir, name: &[u8], to: &[u8], stat: &Stat) -> Result<u64> {
        let call = |what, errno| dir.call(what, name, errno);
        let meta = Meta::read(Target::At(dir.fd.as_fd(), name), stat)
            .map_err(|errno| call("read the attributes of", errno))?;
        let failed = |errno| call("copy", errno);
        let new = match meta.kind {
            Kind::File => {
                let from = at::open_at(&dir.fd, name, libc::O_RDONLY).map_err(failed)?;
                let new = at::create_at(&dir.fd, to, libc::O_RDWR, 0o600).map_err(failed)?;
                copy::copy_data(&from, &new, stat.size).map_err(failed)?;
                new
            }
            Kind::Symlink => {
                let text = at::readlink_at(&dir.fd, name).map_err(failed)?;
                at::symlink_at(&text, &dir.fd, to).map_err(failed)?;
                at::open_path(&dir.fd, to).map_err(failed)?
            }
            Kind::Directory | Kind::Socket => {
                return Err(BuildError::Refused {
                    path: dir.join(name),
                    reason: "it cannot have several names".into(),
                });
            }
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
                at::mknod_at(&dir.fd, to, meta.kind.bits() | 0o600, meta.rdev).map_err(failed)?;
                at::open_path(&dir.fd, to).map_err(failed)?
            }
        };
        let made = stat::stat_fd(&new).map_err(failed)?;
        self.give(
            &dir.join(name),
            new.as_fd(),
            &made,
            &meta,
            dir.has_default_acl()?,
            true,
        )?;
        Ok(made.ino)
    }
}
