//! The rules of a directory whose content is laid over the tree: the upper of a mount, or a plain one.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::marks;
use super::place::Dir;
use super::tree::Tree;
use crate::builder::walk::{Step, Walk};
use crate::builder::{BuildError, Kind, Meta, Progress, Result, TreePath, Xattr};
use crate::format::{Marks, Namespace, aufs};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::Target;
use crate::sys::{Errno, at, copy};

/// What a directory's content means.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Marks of these namespaces remove what they name.
    Upper(Vec<Namespace>),
    /// Everything is what it looks like.
    Plain,
}

impl Source {
    fn namespaces(&self) -> &[Namespace] {
        match self {
            Self::Upper(namespaces) => namespaces,
            Self::Plain => &[],
        }
    }

    fn marks(&self, target: Target<'_>) -> crate::sys::Result<Marks> {
        let mut all = Marks::default();
        for namespace in self.namespaces() {
            let found = namespace.read(target)?;
            all.opaque |= found.opaque;
            all.redirect |= found.redirect;
            all.metacopy |= found.metacopy;
            all.whiteout |= found.whiteout;
        }
        Ok(all)
    }

    /// The attributes that are data: without private marks, and with those escaped that would be marks.
    fn keep(&self, xattrs: Vec<Xattr>) -> (Vec<Xattr>, Vec<Vec<u8>>) {
        let mut data = Vec::new();
        for mut xattr in xattrs {
            let mut private = false;
            for namespace in self.namespaces() {
                match namespace.to_view(&xattr.name).map(|name| name.into_owned()) {
                    Some(name) => xattr.name = name,
                    None => private = true,
                }
            }
            if !private {
                data.push(xattr);
            }
        }
        marks::keep(data)
    }
}

/// A directory being laid over a tree.
pub(super) struct Content<'t, 'a> {
    tree: &'t mut Tree<'a>,
    source: Source,
    skip_devices: bool,
    /// Files of several names, and where the first one is.
    groups: HashMap<(u64, u64), TreePath>,
}

/// Lays all that is in `from` over the tree.
pub(super) fn lay(
    tree: &mut Tree<'_>,
    from: BorrowedFd<'_>,
    source: Source,
    skip_devices: bool,
    progress: &dyn Progress,
) -> Result<()> {
    let mut content = Content {
        tree,
        source,
        skip_devices,
        groups: HashMap::new(),
    };
    content.root(from)?;
    let mut walk = Walk::new(from)?;
    while let Some(step) = walk.advance()? {
        progress.advance(1);
        if progress.stopped() {
            return Err(BuildError::Interrupted);
        }
        if content.object(&step)? {
            walk.enter()?;
        }
    }
    Ok(())
}

impl Content<'_, '_> {
    fn root(&mut self, from: BorrowedFd<'_>) -> Result<()> {
        let path = TreePath::root();
        let call = |errno| call("look at", &path, errno);
        let stat = stat::stat_fd(from).map_err(call)?;
        let marks = self.source.marks(Target::Fd(from)).map_err(call)?;
        let meta = self.meta(Target::Fd(from), &stat, &path)?;
        let root = self.tree.places.root();
        if marks.opaque {
            self.empty(&root)?;
        }
        self.tree.change_directory(&root, &meta)
    }

    /// Lays one object over the tree; answers whether the walk has to go into it.
    fn object(&mut self, step: &Step<'_>) -> Result<bool> {
        let path = step.path();
        let target = Target::At(step.dir, step.name);
        let stat = stat::stat_at(step.dir, step.name).map_err(|errno| call("look at", &path, errno))?;
        let kind = Kind::of_mode(stat.mode).map_err(|errno| call("look at", &path, errno))?;
        let marks = match kind {
            Kind::Directory | Kind::File => self.source.marks(target),
            _ => Ok(Marks::default()),
        };
        let marks = marks.map_err(|errno| call("read the marks of", &path, errno))?;
        self.tree.count()?;
        if step.name.starts_with(aufs::MARK) {
            return Err(refused(
                &path,
                "a name that starts with .wh. would mean a removed one in a layer",
            ));
        }
        if marks.redirect || marks.metacopy {
            return Err(refused(
                &path,
                "it is a mark of the kernel's redirect_dir or metacopy, which are not read",
            ));
        }
        let (dir, name) = self.place(&path)?;
        let removes = stat.is_whiteout() || marks.whiteout && stat.size == 0;
        if removes && matches!(self.source, Source::Plain) {
            self.tree
                .notes
                .add(&path, "a character device 0/0 is a mark of overlays and not made");
            return Ok(false);
        }
        if removes {
            self.tree.clear(&dir, name)?;
            return Ok(false);
        }
        if kind == Kind::Socket {
            self.tree
                .notes
                .add(&path, "a socket is of no use without its program");
            return Ok(false);
        }
        let meta = self.meta(target, &stat, &path)?;
        if kind == Kind::Directory {
            self.directory(&dir, name, &path, &meta, marks.opaque)?;
            return Ok(true);
        }
        self.tree.clear(&dir, name)?;
        if stat.nlink > 1 {
            let id = (stat.dev, stat.ino);
            if let Some(first) = self.groups.get(&id).cloned() {
                let (first_dir, first_name) = self.place(&first)?;
                self.tree.touch(&dir)?;
                self.tree.link(&first_dir, first_name, &dir, name)?;
                return Ok(false);
            }
            self.groups.insert(id, path.clone());
        }
        match kind {
            Kind::File => self.file(step, &dir, name, &stat, &meta)?,
            Kind::Symlink => {
                let text = at::readlink_at(step.dir, step.name);
                let text = text.map_err(|errno| call("read the symlink", &path, errno))?;
                self.tree.make_symlink(&dir, name, &text, &meta)?;
            }
            _ => match self.tree.make_special(&dir, name, &meta) {
                Err(BuildError::Call {
                    errno: Errno::PERM, ..
                }) if self.skip_devices => {
                    self.tree.notes.add(&path, "devices may not be made here");
                }
                done => done?,
            },
        }
        Ok(false)
    }

    /// The directory of the tree for a name whose directory was laid over it before.
    fn place<'p>(&mut self, path: &'p TreePath) -> Result<(Rc<Dir>, &'p [u8])> {
        let missing = || call("reach", path, Errno::NOENT);
        let (above, name) = path.split().ok_or_else(missing)?;
        let dir = self.tree.places.find_plain(&above)?.ok_or_else(missing)?;
        Ok((dir, name))
    }

    fn directory(
        &mut self,
        dir: &Rc<Dir>,
        name: &[u8],
        path: &TreePath,
        meta: &Meta,
        opaque: bool,
    ) -> Result<()> {
        if !dir.look(name)?.is_some_and(|stat| stat.is_dir()) {
            self.tree.clear(dir, name)?;
            return self.tree.make_directory(dir, name, meta);
        }
        let there = self.tree.places.find_plain(path)?;
        let there = there.ok_or_else(|| call("open", path, Errno::NOENT))?;
        if opaque {
            self.empty(&there)?;
        }
        self.tree.change_directory(&there, meta)
    }

    /// Removes everything in a directory of the tree.
    fn empty(&mut self, dir: &Rc<Dir>) -> Result<()> {
        let mut walk = Walk::new(dir.fd.as_fd())?;
        while let Some(step) = walk.advance()? {
            self.tree.clear(dir, step.name)?;
        }
        Ok(())
    }

    fn file(&mut self, step: &Step<'_>, dir: &Rc<Dir>, name: &[u8], stat: &Stat, meta: &Meta) -> Result<()> {
        let path = step.path();
        let failed = |errno| call("copy", &path, errno);
        self.tree.count_bytes(stat.size)?;
        let from = at::open_data(step.dir, step.name).map_err(failed)?;
        self.tree.make_file(dir, name, meta, &mut |_, to| {
            copy::copy_data(&from, to, stat.size).map(|_| ()).map_err(failed)
        })?;
        let after = stat::stat_fd(&from).map_err(failed)?;
        let same =
            |a: &Stat, b: &Stat| (a.ino, a.size, a.mtime, a.ctime) == (b.ino, b.size, b.mtime, b.ctime);
        if !same(stat, &after) {
            return Err(refused(
                &path,
                "it was changed while it was copied; try again when nobody writes to it",
            ));
        }
        Ok(())
    }

    fn meta(&mut self, target: Target<'_>, stat: &Stat, path: &TreePath) -> Result<Meta> {
        let mut meta =
            Meta::read(target, stat).map_err(|errno| call("read the attributes of", path, errno))?;
        let (kept, dropped) = self.source.keep(std::mem::take(&mut meta.xattrs));
        meta.xattrs = kept;
        for name in dropped {
            let name = name.escape_ascii();
            self.tree.notes.add(
                path,
                format!("the attribute {name} is a mark of overlays and not kept"),
            );
        }
        Ok(meta)
    }
}

fn call(what: &'static str, path: &TreePath, errno: Errno) -> BuildError {
    BuildError::Call {
        what,
        path: path.clone(),
        errno,
    }
}

fn refused(path: &TreePath, reason: &str) -> BuildError {
    BuildError::Refused {
        path: path.clone(),
        reason: reason.into(),
    }
}
