//! The tree that changes are laid over: every change makes a new inode, or changes one made here.

use std::collections::HashMap;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use roaring::RoaringTreemap;

use super::hashes::Hasher;
use super::names::Names;
use super::options::{Limits, Notes, Owners};
use super::place::{DEFAULT_ACL, Dir, Places};
use super::scratch::{Spool, random_name};
use crate::builder::link::Linker;
use crate::builder::remove::remove_tree;
use crate::builder::walk::Walk;
use crate::builder::{BuildError, Kind, Meta, Result, TreePath};
use crate::sys::at::{self, RenameHow, SetTime};
use crate::sys::stat::{self, Stat, Time};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, io};

/// What an access list of an object is kept in.
const ACL: &[u8] = b"system.posix_acl_access";

/// A tree in the making, which nobody else uses.
pub(super) struct Tree<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) places: Places,
    pub(super) names: Names,
    pub(super) hasher: Hasher,
    pub(super) notes: Notes,
    pub(super) entries: u64,
    pub(super) file_bytes: u64,
    limits: Limits,
    owners: Owners,
    privileged: bool,
    /// Inodes made here. All others are shared with the parent, and never written.
    pub(super) made: RoaringTreemap,
    /// Directories whose times and mode are noted.
    noted: RoaringTreemap,
    times: Spool,
    /// Inodes whose data must outlive their names, and those that did.
    pub(super) precious: RoaringTreemap,
    pub(super) buried: RoaringTreemap,
    aside: Option<(Vec<u8>, Rc<Dir>)>,
    pub(super) groups: Option<super::groups::Groups>,
    pub(super) linker: Linker,
}

impl<'a> Tree<'a> {
    /// The tree below `root`.
    pub(super) fn new(root: BorrowedFd<'a>, limits: Limits, owners: Owners, hasher: Hasher) -> Result<Self> {
        Ok(Self {
            root,
            places: Places::new(root)?,
            names: Names::new(),
            hasher,
            notes: Notes::default(),
            entries: 0,
            file_bytes: 0,
            limits,
            owners,
            privileged: rustix::process::geteuid().is_root(),
            made: RoaringTreemap::new(),
            noted: RoaringTreemap::new(),
            times: Spool::new(root)?,
            precious: RoaringTreemap::new(),
            buried: RoaringTreemap::new(),
            aside: None,
            groups: None,
            linker: Linker::new(),
        })
    }

    /// One more entry.
    pub(super) fn count(&mut self) -> Result<()> {
        self.entries = self.entries.saturating_add(1);
        if self.entries > self.limits.entries {
            return Err(BuildError::Limit {
                what: "the number of entries of the layer",
                limit: self.limits.entries,
                option: "--max-entries",
            });
        }
        Ok(())
    }

    /// So many more bytes of files.
    pub(super) fn count_bytes(&mut self, bytes: u64) -> Result<()> {
        self.file_bytes = self.file_bytes.saturating_add(bytes);
        if self.file_bytes > self.limits.bytes {
            return Err(BuildError::Limit {
                what: "the size of the layer's files",
                limit: self.limits.bytes,
                option: "--max-bytes",
            });
        }
        Ok(())
    }

    /// The directory that `path` lies in, made with those above it where it is missing; and the name in it.
    pub(super) fn parent<'p>(&mut self, path: &'p TreePath) -> Result<(Rc<Dir>, &'p [u8])> {
        let Some((above, name)) = path.split() else {
            return Err(BuildError::Refused {
                path: path.clone(),
                reason: "the root can only be a directory".into(),
            });
        };
        Ok((self.directory(&above)?, name))
    }

    /// The directory at `path`, made with those above it where it is missing.
    pub(super) fn directory(&mut self, path: &TreePath) -> Result<Rc<Dir>> {
        if let Some(dir) = self.places.find(path, None)? {
            return Ok(dir);
        }
        let mut made = Vec::new();
        let limit = self.limits.entries.saturating_sub(self.entries);
        let mut make = |dir: &Dir, name: &[u8]| {
            // The first is the directory in which the others are made.
            if made.len() as u64 > limit {
                return Err(BuildError::Limit {
                    what: "the number of entries of the layer",
                    limit: self.limits.entries,
                    option: "--max-entries",
                });
            }
            // The times of the directory it is made in: those of a directory made just now are known.
            if made.is_empty() {
                let stat = stat::stat_fd(&dir.fd).map_err(|errno| dir.call("look at", b"", errno))?;
                made.push((dir.path.clone(), stat));
                widen(dir, &stat, self.privileged)?;
            }
            at::mkdir_at(&dir.fd, name, 0o755)
                .map_err(|errno| dir.call("make the directory", name, errno))?;
            let stat = plain_directory(dir, name)?;
            made.push((dir.join(name), stat));
            Ok(())
        };
        let found = self.places.find(path, Some(&mut make))?;
        for (at, (path, stat)) in made.into_iter().enumerate() {
            if at == 0 {
                self.note_times_once(&path, &stat)?;
            } else {
                self.count()?;
                self.made.insert(stat.ino);
                self.note_times(&path, stat.ino, stat.mode & 0o7777, stat.atime, stat.mtime)?;
            }
        }
        found.ok_or_else(|| BuildError::Refused {
            path: path.clone(),
            reason: "it cannot be made".into(),
        })
    }

    /// To be called before a name in `dir` changes: its times and mode will be put back.
    pub(super) fn touch(&mut self, dir: &Dir) -> Result<()> {
        if self.noted.contains(dir.ino) {
            return Ok(());
        }
        let stat = stat::stat_fd(&dir.fd).map_err(|errno| dir.call("look at", b"", errno))?;
        widen(dir, &stat, self.privileged)?;
        self.note_times_once(&dir.path, &stat)
    }

    fn note_times_once(&mut self, path: &TreePath, stat: &Stat) -> Result<()> {
        if self.noted.contains(stat.ino) {
            return Ok(());
        }
        self.note_times(path, stat.ino, stat.mode & 0o7777, stat.atime, stat.mtime)
    }

    /// The times and mode that a directory will have in the end.
    fn note_times(&mut self, path: &TreePath, ino: u64, mode: u32, atime: Time, mtime: Time) -> Result<()> {
        self.noted.insert(ino);
        let writer = self.times.writer();
        let mut write = |bytes: &[u8]| {
            writer.write_all(bytes).map_err(|source| BuildError::Stream {
                what: "use a temporary file",
                source,
            })
        };
        write(&(path.as_bytes().len() as u64).to_le_bytes())?;
        write(path.as_bytes())?;
        write(&ino.to_le_bytes())?;
        write(&mode.to_le_bytes())?;
        for time in [atime, mtime] {
            write(&time.secs.to_le_bytes())?;
            write(&time.nanos.to_le_bytes())?;
        }
        Ok(())
    }

    /// Gives all directories their times and modes, and clears what was set aside.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let Some((name, dir)) = self.aside.take() {
            let root = self.places.root();
            drop(dir);
            remove_tree(root.fd.as_fd(), &name)?;
        }
        self.places.forget();
        let times = std::mem::replace(&mut self.times, Spool::new(self.root)?);
        let mut reader = times.into_reader()?;
        let unreadable = |source| BuildError::Stream {
            what: "use a temporary file",
            source,
        };
        let mut closed = HashMap::new();
        while !reader.fill_buf().map_err(unreadable)?.is_empty() {
            let mut path = vec![0; usize::try_from(u64::from_le_bytes(take(&mut reader)?)).unwrap_or(0)];
            reader.read_exact(&mut path).map_err(unreadable)?;
            let ino = u64::from_le_bytes(take(&mut reader)?);
            let mode = u32::from_le_bytes(take(&mut reader)?);
            let mut time = || -> Result<Time> {
                let secs = i64::from_le_bytes(take(&mut reader)?);
                let nanos = u32::from_le_bytes(take(&mut reader)?);
                Ok(Time { secs, nanos })
            };
            let (atime, mtime) = (time()?, time()?);
            // A directory that is gone, or another one in its place, has no use for them.
            let Some(dir) = self.places.find_plain(&TreePath::from_clean(path))? else {
                continue;
            };
            if dir.ino != ino {
                continue;
            }
            if self.privileged || mode & 0o700 == 0o700 {
                closed.remove(&ino);
            } else {
                closed.insert(ino, (dir.path.clone(), mode));
            }
            at::set_times_fd(&dir.fd, SetTime::At(atime), SetTime::At(mtime))
                .map_err(|errno| dir.call("set the times of", b"", errno))?;
        }
        self.close(closed)
    }

    /// Gives an ordinary user's directories the modes that would have been in the way, the deepest first.
    fn close(&mut self, modes: HashMap<u64, (TreePath, u32)>) -> Result<()> {
        let mut modes: Vec<_> = modes
            .into_values()
            .filter(|(_, mode)| mode & 0o700 != 0o700)
            .collect();
        modes.sort_by_cached_key(|(path, _)| std::cmp::Reverse(path.names().count()));
        for (path, mode) in modes {
            if let Some(dir) = self.places.find_plain(&path)? {
                at::chmod_fd(&dir.fd, mode).map_err(|errno| dir.call("change the mode of", b"", errno))?;
            }
        }
        Ok(())
    }

    /// Removes what has this name, if anything; a directory with all that is in it.
    pub(super) fn clear(&mut self, dir: &Dir, name: &[u8]) -> Result<bool> {
        let Some(stat) = dir.look(name)? else {
            return Ok(false);
        };
        self.touch(dir)?;
        if stat.is_dir() {
            self.remove_directory(dir, name)?;
            self.places.forget();
        } else {
            self.remove_name(dir.fd.as_fd(), name, stat.ino, &dir.path)?;
            if stat.kind() == libc::S_IFLNK {
                self.places.forget();
            }
        }
        Ok(true)
    }

    /// Removes a name that is no directory; precious data is set aside.
    fn remove_name(&mut self, dir: BorrowedFd<'_>, name: &[u8], ino: u64, path: &TreePath) -> Result<()> {
        let failed = |errno| BuildError::Call {
            what: "remove",
            path: path.join(name),
            errno,
        };
        if self.precious.contains(ino) && self.buried.insert(ino) {
            let aside = self.aside()?;
            return at::rename_at(dir, name, &aside.fd, &aside_name(ino), RenameHow::NoReplace)
                .map_err(failed);
        }
        at::unlink_at(dir, name).map_err(failed)
    }

    /// A directory of the tree that only this run knows, gone in the end.
    pub(super) fn aside(&mut self) -> Result<Rc<Dir>> {
        if let Some((_, dir)) = &self.aside {
            return Ok(Rc::clone(dir));
        }
        let root = self.places.root();
        self.touch(&root)?;
        let name = random_name();
        at::mkdir_at(&root.fd, &name, 0o700)
            .map_err(|errno| root.call("make the directory", &name, errno))?;
        let path = TreePath::from_clean(name.clone());
        let dir = self
            .places
            .find(&path, None)?
            .ok_or_else(|| root.call("open", &name, Errno::NOENT))?;
        self.aside = Some((name, Rc::clone(&dir)));
        Ok(dir)
    }

    /// True for the name in the root of the directory of [`Tree::aside`].
    pub(super) fn is_aside(&self, dir: &Dir, name: &[u8]) -> bool {
        dir.path.is_root() && self.aside.as_ref().is_some_and(|(aside, _)| aside == name)
    }

    /// Removes a directory and all that is in it, to any depth; precious data is set aside.
    fn remove_directory(&mut self, dir: &Dir, name: &[u8]) -> Result<()> {
        if !self.precious.is_empty() {
            let call = |errno| dir.call("open", name, errno);
            let fd = at::open_dir_path(&dir.fd, name).map_err(call)?;
            let path = dir.join(name);
            let mut walk = Walk::new(fd.as_fd())?;
            while let Some(step) = walk.advance()? {
                if step.kind == Kind::File {
                    let stat = stat::stat_at(step.dir, step.name).map_err(call)?;
                    if self.precious.contains(stat.ino) {
                        self.remove_name(step.dir, step.name, stat.ino, &path)?;
                    }
                } else if step.kind == Kind::Directory {
                    walk.enter()?;
                }
            }
        }
        remove_tree(dir.fd.as_fd(), name)
    }

    /// Makes a directory.
    pub(super) fn make_directory(&mut self, dir: &Dir, name: &[u8], meta: &Meta) -> Result<()> {
        self.touch(dir)?;
        at::mkdir_at(&dir.fd, name, meta.permissions & 0o777 | self.own_bits())
            .map_err(|errno| dir.call("make the directory", name, errno))?;
        let fd = at::open_dir_path(&dir.fd, name).map_err(|errno| dir.call("open", name, errno))?;
        self.finish_directory(&dir.join(name), fd.as_fd(), meta, dir.has_default_acl()?)
    }

    /// Gives an existing directory another metadata; attributes that are not in it go.
    pub(super) fn change_directory(&mut self, dir: &Dir, meta: &Meta) -> Result<()> {
        let target = Target::Fd(dir.fd.as_fd());
        let call = |what, errno| dir.call(what, b"", errno);
        for name in xattr::names(&xattr::list(target).map_err(|errno| call("read the attributes of", errno))?)
        {
            // Labels are the system's business.
            let ours = !name.starts_with(b"security.") || name == b"security.capability";
            if ours && !meta.xattrs.iter().any(|kept| kept.name == name) {
                xattr::remove(target, name).map_err(|errno| call("remove an attribute of", errno))?;
            }
        }
        self.finish_directory(&dir.path, dir.fd.as_fd(), meta, false)?;
        if meta.xattrs.iter().any(|xattr| xattr.name == DEFAULT_ACL) || dir.has_default_acl()? {
            self.places.forget();
        }
        Ok(())
    }

    fn finish_directory(
        &mut self,
        path: &TreePath,
        fd: BorrowedFd<'_>,
        meta: &Meta,
        inherits: bool,
    ) -> Result<()> {
        let stat = stat::stat_fd(fd).map_err(|errno| BuildError::Call {
            what: "look at",
            path: path.clone(),
            errno,
        })?;
        self.made.insert(stat.ino);
        self.note_times(path, stat.ino, meta.permissions, meta.atime, meta.mtime)?;
        let meta = Meta {
            permissions: meta.permissions | self.own_bits(),
            ..meta.clone()
        };
        self.give(path, fd, &stat, &meta, inherits, false)
    }

    /// What the owner must be allowed while the tree is made.
    fn own_bits(&self) -> u32 {
        if self.privileged { 0 } else { 0o700 }
    }

    /// Makes a file, which `fill` writes; answers its inode number.
    pub(super) fn make_file(
        &mut self,
        dir: &Dir,
        name: &[u8],
        meta: &Meta,
        fill: &mut dyn FnMut(&mut Self, BorrowedFd<'_>) -> Result<()>,
    ) -> Result<u64> {
        self.touch(dir)?;
        let file = at::create_at(&dir.fd, name, libc::O_RDWR, meta.permissions & 0o777 | 0o200)
            .map_err(|errno| dir.call("make", name, errno))?;
        fill(self, file.as_fd())?;
        let stat = stat::stat_fd(&file).map_err(|errno| dir.call("look at", name, errno))?;
        self.made.insert(stat.ino);
        self.give(
            &dir.join(name),
            file.as_fd(),
            &stat,
            meta,
            dir.has_default_acl()?,
            true,
        )?;
        Ok(stat.ino)
    }

    /// Makes a symlink.
    pub(super) fn make_symlink(&mut self, dir: &Dir, name: &[u8], text: &[u8], meta: &Meta) -> Result<()> {
        self.touch(dir)?;
        at::symlink_at(text, &dir.fd, name).map_err(|errno| dir.call("make the symlink", name, errno))?;
        self.finish_special(dir, name, meta)
    }

    /// Makes a fifo or a device.
    ///
    /// # Errors
    /// EPERM for a device that may not be made.
    pub(super) fn make_special(&mut self, dir: &Dir, name: &[u8], meta: &Meta) -> Result<()> {
        self.touch(dir)?;
        at::mknod_at(&dir.fd, name, meta.kind.bits() | meta.permissions, meta.rdev)
            .map_err(|errno| dir.call("make the node", name, errno))?;
        self.finish_special(dir, name, meta)
    }

    fn finish_special(&mut self, dir: &Dir, name: &[u8], meta: &Meta) -> Result<()> {
        let fd = at::open_path(&dir.fd, name).map_err(|errno| dir.call("open", name, errno))?;
        let stat = stat::stat_fd(&fd).map_err(|errno| dir.call("look at", name, errno))?;
        self.made.insert(stat.ino);
        let inherits = meta.kind != Kind::Symlink && dir.has_default_acl()?;
        self.give(&dir.join(name), fd.as_fd(), &stat, meta, inherits, true)
    }

    /// Gives metadata to an object made here, whose present attributes are `stat`. Attributes that may not be set are
    /// noted. With `inherits` the object may have got an access list from its directory, which goes.
    pub(super) fn give(
        &mut self,
        path: &TreePath,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        meta: &Meta,
        inherits: bool,
        times: bool,
    ) -> Result<()> {
        let call = |what, errno| BuildError::Call {
            what,
            path: path.clone(),
            errno,
        };
        let target = Target::Fd(fd);
        // A change of owner drops setuid bits and capabilities, so it comes first.
        let chowned = !self.same_owner(stat, meta);
        if chowned {
            at::chown_fd(fd, Some(meta.uid), Some(meta.gid))
                .map_err(|errno| call("change the owner of", errno))?;
        }
        if inherits {
            for name in [ACL, DEFAULT_ACL] {
                match xattr::remove(target, name) {
                    Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                    Err(errno) => return Err(call("remove an attribute of", errno)),
                }
            }
        }
        for attribute in &meta.xattrs {
            match xattr::set(target, &attribute.name, &attribute.value, 0) {
                Ok(()) => {}
                Err(errno @ (Errno::PERM | Errno::OPNOTSUPP)) => {
                    let name = attribute.name.escape_ascii();
                    self.notes
                        .add(path, format!("the attribute {name} cannot be set: {errno}"));
                }
                Err(errno) => return Err(call("set an attribute of", errno)),
            }
        }
        let wrong = stat.mode & 0o7777 != meta.permissions || inherits || chowned;
        if meta.kind != Kind::Symlink && (wrong || !meta.xattrs.is_empty()) {
            at::chmod_fd(fd, meta.permissions).map_err(|errno| call("change the mode of", errno))?;
        }
        if times {
            at::set_times_fd(fd, SetTime::At(meta.atime), SetTime::At(meta.mtime))
                .map_err(|errno| call("set the times of", errno))?;
        }
        Ok(())
    }

    /// Whether an object has the owner that it should have.
    pub(super) fn same_owner(&self, stat: &Stat, meta: &Meta) -> bool {
        self.owners == Owners::Mine || (stat.uid, stat.gid) == (meta.uid, meta.gid)
    }

    /// Writes a stretch of a new file; zeros stay holes, in blocks of [`HOLE`]. Answers where the last data ends, or
    /// `offset` if all is zero.
    pub(super) fn write(
        &self,
        path: &TreePath,
        file: BorrowedFd<'_>,
        data: &[u8],
        offset: u64,
    ) -> Result<u64> {
        let (mut at, mut written) = (offset, offset);
        let mut rest = data;
        while !rest.is_empty() {
            // Blocks lie at multiples of their size in the file; the stretch may begin and end within one.
            let to_next = HOLE.saturating_sub((at % HOLE as u64) as usize);
            let mut end = to_next.min(rest.len());
            let hole = is_zero(rest.get(..end).unwrap_or_default());
            while let Some(next) = rest.get(end..)
                && !next.is_empty()
            {
                let next = next.get(..HOLE).unwrap_or(next);
                if is_zero(next) != hole {
                    break;
                }
                end = end.saturating_add(next.len());
            }
            let (now, later) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            if !hole {
                io::write_all_at(file, now, at).map_err(|errno| BuildError::Call {
                    what: "write",
                    path: path.clone(),
                    errno,
                })?;
                written = at.saturating_add(now.len() as u64);
            }
            at = at.saturating_add(now.len() as u64);
            rest = later;
        }
        Ok(written)
    }
}

/// The size of blocks that become holes if they are zero.
const HOLE: usize = 64 << 10;

fn is_zero(data: &[u8]) -> bool {
    data.iter().all(|byte| *byte == 0)
}

/// The name of a buried file.
pub(super) fn aside_name(ino: u64) -> Vec<u8> {
    format!("{ino:016x}").into_bytes()
}

fn take<const N: usize>(reader: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    reader
        .read_exact(&mut bytes)
        .map_err(|source| BuildError::Stream {
            what: "use a temporary file",
            source,
        })?;
    Ok(bytes)
}

/// Lets an ordinary user make names in a directory of its own, whatever the mode; [`Tree::finish`] puts it back.
fn widen(dir: &Dir, stat: &Stat, privileged: bool) -> Result<()> {
    if privileged || stat.mode & 0o700 == 0o700 {
        return Ok(());
    }
    at::chmod_fd(&dir.fd, stat.mode & 0o7777 | 0o700)
        .map_err(|errno| dir.call("change the mode of", b"", errno))
}

/// Gives a directory that no entry describes the mode 0755, whatever umask and access lists say.
fn plain_directory(dir: &Dir, name: &[u8]) -> Result<Stat> {
    let fd = at::open_dir_path(&dir.fd, name).map_err(|errno| dir.call("open", name, errno))?;
    if dir.has_default_acl()? {
        for acl in [ACL, DEFAULT_ACL] {
            match xattr::remove(Target::Fd(fd.as_fd()), acl) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(dir.call("remove an attribute of", name, errno)),
            }
        }
    }
    at::chmod_fd(&fd, 0o755).map_err(|errno| dir.call("change the mode of", name, errno))?;
    let mut stat = stat::stat_fd(&fd).map_err(|errno| dir.call("look at", name, errno))?;
    stat.mode = stat.mode & libc::S_IFMT | 0o755;
    Ok(stat)
}
