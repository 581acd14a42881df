//! Copy-up: an object of the lower becomes one of the upper, whole or not at all.
//!
//! It is filled in the work directory, in the order data, owner, mode, attributes, times (K66), and then
//! appears in the upper by one link or rename (K63). Ancestors come first (K62).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::config::FsyncMode;
use super::dirs::Layer;
use super::node::{Link, Lower, Node};
use super::work::Temp;
use super::{Overlay, attr, trace};
use crate::format::marks;
use crate::sys::at::{self, RenameHow, SetTime};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, Result, copy, creds, io};

/// A copy that has not been published.
enum Filled<'a> {
    /// A file without a name.
    Unnamed(OwnedFd),
    /// Under a name in the work directory.
    Named(Temp<'a>, OwnedFd),
}

impl Filled<'_> {
    fn fd(&self) -> &OwnedFd {
        match self {
            Self::Unnamed(fd) | Self::Named(_, fd) => fd,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Unnamed(_) => "an unnamed file in the work directory".to_owned(),
            Self::Named(temp, _) => format!("work/{}", String::from_utf8_lossy(&temp.name)),
        }
    }
}

impl Overlay {
    /// Makes sure that a node has an upper object, copying it and its ancestors up where needed.
    ///
    /// `limit` is the size in bytes the file is about to be cut to: data behind it is not copied.
    ///
    /// # Errors
    /// EROFS for a read-only view; ENOSPC, EDQUOT, EIO, EACCES, EPERM, EOVERFLOW (K69) from the calls made;
    /// ESTALE for an object that is gone. The upper is then as it was.
    pub fn copy_up(&self, node: &Arc<Node>, limit: Option<u64>) -> Result<()> {
        if self.copy_up_untold(node, limit)? {
            self.attributes_changed(node);
        }
        Ok(())
    }

    /// As [`Overlay::copy_up`], for who tells the kernel the new attributes of the node anyway. Answers whether there
    /// was anything to do.
    pub(super) fn copy_up_untold(&self, node: &Arc<Node>, limit: Option<u64>) -> Result<bool> {
        if node.upper().is_some() {
            return Ok(false);
        }
        self.work()?;
        let mut missing = missing_above(node);
        while let Some(dir) = missing.pop() {
            if self.copy_up_one(&dir, None)? {
                self.attributes_changed(&dir);
            }
        }
        self.copy_up_one(node, limit)
    }

    fn copy_up_one(&self, node: &Arc<Node>, limit: Option<u64>) -> Result<bool> {
        let _copying = node.copying.lock();
        if node.upper().is_some() {
            return Ok(false);
        }
        let done = match node.link() {
            Some(link) => self.copy_up_named(node, &link, limit),
            None => self.copy_up_removed(node, limit),
        };
        trace::copied(&done);
        match done {
            Ok(()) => {
                self.stats.copy_ups.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            Err(errno) => {
                log::warn!("copy-up {}: {errno}", node.path());
                // An owner that cannot be expressed here (K69).
                Err(if errno == Errno::INVAL {
                    Errno::OVERFLOW
                } else {
                    errno
                })
            }
        }
    }

    fn copy_up_named(&self, node: &Arc<Node>, link: &Arc<Link>, limit: Option<u64>) -> Result<()> {
        let (lower, number) = {
            let state = node.state();
            (state.lower.clone(), state.number)
        };
        let layer = match &lower {
            Some(Lower::Object { parts, .. }) => parts.first(),
            Some(Lower::Covered(layer, _)) => *layer,
            None => return Err(Errno::STALE),
        };
        let from = self.dirs.get(&link.parent, Layer::Lower(layer))?;
        let (stat, key, covered) = match lower {
            Some(Lower::Object { number: key, .. }) => {
                let stat = stat::stat_at_cached(&from, &link.name)?;
                if self.lowers.number(layer, stat.ino) != key {
                    return Err(Errno::STALE);
                }
                let stat = self.told(Layer::Lower(layer), Target::At(from.as_fd(), &link.name), stat)?;
                (self.lowers.within(stat), key, false)
            }
            Some(Lower::Covered(_, stat)) => (*stat, number, true),
            None => return Err(Errno::STALE),
        };
        log::debug!(
            "copy-up {}: {} of {}, inode {}",
            node.path(),
            kind_words(stat.kind()),
            self.lower_words(layer),
            stat.ino
        );
        trace::copying(|| (node.path(), kind_words(stat.kind())));
        creds::act_as_server()?;
        let source = (!covered).then_some(Target::At(from.as_fd(), &link.name));
        let filled = match stat.kind() {
            libc::S_IFREG => {
                let data = open_lower(&from, &link.name)?;
                self.fill_file(&data, &stat, limit)?
            }
            _ => self.fill_other(&from, link, &stat)?,
        };
        let keeps = stat.is_dir() || stat.nlink <= 1 || self.nodes.keeps_number(key);
        let shares = keeps && !stat.is_dir() && stat.nlink > 1;
        // Other names of the file, when they are met, must not show its number too.
        let claim = if shares {
            Some(self.work()?.record_claim(key)?)
        } else {
            None
        };
        let origin = match (keeps, covered) {
            (true, false) => self.lowers.mark_for(layer, &from, &link.name),
            _ => None,
        };
        let done = self
            .complete(filled, source, &stat, origin.as_deref())
            .and_then(|filled| {
                let ino = stat::stat_fd(filled.fd())?.ino;
                let number = if keeps { number } else { ino };
                self.publish(node, link, filled, (ino, number), origin.is_some())
            });
        if let (Err(_), Some(claim)) = (&done, claim)
            && let Err(errno) = self.work()?.withdraw_claim(claim)
        {
            log::warn!("copy-up {}: a claim on its number stays: {errno}", node.path());
        }
        done
    }

    /// Which lower, for log lines.
    fn lower_words(&self, layer: u16) -> String {
        if self.lowers.count() == 1 {
            "the lower".to_owned()
        } else {
            format!("lower {}", u32::from(layer) + 1)
        }
    }

    /// Everything but the data, and then the disk.
    fn complete<'a>(
        &self,
        filled: Filled<'a>,
        source: Option<Target<'_>>,
        stat: &Stat,
        origin: Option<&[u8]>,
    ) -> Result<Filled<'a>> {
        self.fill_metadata(filled.fd(), source, stat, |to| {
            let Some(mark) = origin else { return Ok(()) };
            match self.marks.set_origin(to, mark) {
                // `user.` attributes exist on files and directories only (K67).
                Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
                done => done,
            }
        })?;
        self.make_durable(&filled, stat)?;
        Ok(filled)
    }

    /// A file whose last name is gone but which is still open: its copy never gets a name (K72).
    fn copy_up_removed(&self, node: &Arc<Node>, limit: Option<u64>) -> Result<()> {
        let open = attr::first_open(&mut node.state()).ok_or(Errno::STALE)?;
        let data = at::reopen(&*open.file(), libc::O_RDONLY)?;
        let stat = self.told_open(node, true, &data, stat::stat_fd(&data)?)?;
        trace::copying(|| (node.path(), kind_words(stat.kind())));
        creds::act_as_server()?;
        let filled = self.fill_file(&data, &stat, limit)?;
        self.fill_metadata(filled.fd(), Some(xattr::of(&data)), &stat, |_| Ok(()))?;
        let ino = stat::stat_fd(filled.fd())?.ino;
        let Filled::Unnamed(fd) = filled else {
            return Err(Errno::OPNOTSUPP);
        };
        let number = node.state().number;
        self.settle(node, ino, number, Some(fd));
        Ok(())
    }

    /// An unnamed file, or a named one where the file system lacks those, with the data in it.
    fn fill_file(&self, data: &OwnedFd, stat: &Stat, limit: Option<u64>) -> Result<Filled<'_>> {
        let work = self.work()?;
        let filled = match at::open_unnamed(work.fd()) {
            Ok(fd) => Filled::Unnamed(fd),
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
                let (temp, fd) = work.temp(|dir, name| at::create_at(dir, name, libc::O_RDWR, 0o600))?;
                Filled::Named(temp, fd)
            }
            Err(errno) => return Err(errno),
        };
        let size = limit.map_or(stat.size, |limit| limit.min(stat.size));
        let (method, bytes) = copy::copy_data(data, filled.fd(), size)?;
        self.stats.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
        trace::filled(|| filled.words(), Some((method.words(), bytes)));
        log::debug!(
            "  filled {}: {bytes} bytes of data by {}, holes for the rest of {size}",
            filled.words(),
            method.words()
        );
        Ok(filled)
    }

    /// A directory, symlink or special file in the work directory.
    fn fill_other(&self, from: &OwnedFd, link: &Link, stat: &Stat) -> Result<Filled<'_>> {
        let work = self.work()?;
        let text = if stat.kind() == libc::S_IFLNK {
            at::readlink_at(from, &link.name)?
        } else {
            Vec::new()
        };
        let (temp, ()) = work.temp(|dir, name| match stat.kind() {
            libc::S_IFDIR => at::mkdir_at(dir, name, 0o700),
            libc::S_IFLNK => at::symlink_at(&text, dir, name),
            kind => at::mknod_at(dir, name, kind | 0o600, stat.rdev),
        })?;
        let fd = at::open_path(work.fd(), &temp.name)?;
        let filled = Filled::Named(temp, fd);
        trace::filled(|| filled.words(), None);
        log::debug!("  made {}", filled.words());
        Ok(filled)
    }

    /// Gives a copy everything but its data; `private` sets the private marks.
    ///
    /// An unprivileged server may set attributes only while it may write the file, so the mode comes after
    /// them; but a change of owner or mode drops `security.capability`, so that comes last (K66).
    pub(super) fn fill_metadata(
        &self,
        fd: &OwnedFd,
        source: Option<Target<'_>>,
        stat: &Stat,
        private: impl FnOnce(Target<'_>) -> Result<()>,
    ) -> Result<()> {
        let to = Target::Fd(fd.as_fd());
        let now = stat::stat_fd(fd)?;
        self.copy_owner(fd, &now, stat)?;
        let names = source.map(xattr::list).transpose()?.unwrap_or_default();
        let (late, early): (Vec<_>, Vec<_>) = xattr::names(&names)
            .filter(|name| marks::to_view(self.private(), name).is_some() && !self.stated.leaves_behind(name))
            .partition(|name| name.starts_with(b"security."));
        if let Some(from) = source {
            copy_xattrs(from, to, &early)?;
        }
        private(to)?;
        self.copy_mode(fd, stat)?;
        if let Some(from) = source {
            copy_xattrs(from, to, &late)?;
        }
        log::debug!(
            "  owner {}:{}, mode {:04o}, {} extended attributes, times",
            stat.uid,
            stat.gid,
            stat.mode & at::PERMISSION_BITS,
            early.len().saturating_add(late.len())
        );
        // A file that is cut on the way is new from the moment it appears.
        let cut = stat.is_file() && now.size < stat.size;
        let mtime = if cut {
            SetTime::Now
        } else {
            SetTime::At(stat.mtime)
        };
        at::set_times_fd(fd, SetTime::At(stat.atime), mtime)
    }

    fn make_durable(&self, filled: &Filled<'_>, stat: &Stat) -> Result<()> {
        match (self.fsync, stat.kind()) {
            (FsyncMode::Volatile, _) => Ok(()),
            (_, libc::S_IFREG) => io::sync(filled.fd(), false),
            (FsyncMode::Strict, libc::S_IFDIR) => io::sync(at::reopen_dir(filled.fd())?, false),
            _ => Ok(()),
        }
    }

    fn publish(
        &self,
        node: &Arc<Node>,
        link: &Arc<Link>,
        filled: Filled<'_>,
        (ino, number): (u64, u64),
        has_origin: bool,
    ) -> Result<()> {
        let parent = &link.parent;
        let to = self.dirs.get(parent, Layer::Upper)?;
        let _entries = parent.entries.lock();
        if !node.state().links.iter().any(|l| Arc::ptr_eq(l, link)) {
            // Removed while it was copied: who has it open goes on with the copy.
            return match filled {
                Filled::Unnamed(fd) => {
                    self.settle(node, ino, number, Some(fd));
                    Ok(())
                }
                Filled::Named(..) => Err(Errno::STALE),
            };
        }
        let before = stat::stat_fd(&to)?;
        let shown = node.state().number;
        if has_origin {
            self.mark_impure(parent, &to)?;
        }
        let file = match filled {
            Filled::Unnamed(fd) => {
                at::link_fd(&fd, &to, &link.name)?;
                Some(fd)
            }
            Filled::Named(temp, fd) => {
                at::rename_at(
                    self.work()?.fd(),
                    &temp.name,
                    &to,
                    &link.name,
                    RenameHow::NoReplace,
                )?;
                temp.published();
                node.is_file().then_some(fd)
            }
        };
        log::debug!("  published as {} in the upper, inode {ino}", node.path());
        self.settle(node, ino, number, file);
        // The parent looks as if nothing had happened (K65).
        at::set_times_fd(&to, SetTime::At(before.atime), SetTime::At(before.mtime))?;
        if self.fsync == FsyncMode::Strict {
            io::sync(at::reopen_dir(&to)?, false)?;
        }
        if node.state().number == shown {
            self.attributes_changed(parent);
        } else {
            self.pages_outdated(parent);
        }
        Ok(())
    }

    /// Records the copy, and turns everyone who has the file open to it (K110).
    fn settle(&self, node: &Node, ino: u64, number: u64, file: Option<OwnedFd>) {
        let file = file.map(Arc::new);
        self.nodes.copied_up(node, ino, number, file.as_ref());
    }

    /// Notes that a directory is about to hold an object with an origin, for the kernel's sake (K48).
    ///
    /// The mark comes first: without an origin it is superfluous, an origin without it shows wrong numbers.
    ///
    /// # Errors
    /// As setxattr(2), but a mark that is not allowed here is done without.
    pub(super) fn mark_impure(&self, dir: &Node, fd: &OwnedFd) -> Result<()> {
        if dir.state().impure {
            return Ok(());
        }
        match self.marks.set_impure(Target::Fd(fd.as_fd())) {
            Ok(()) => dir.state().impure = true,
            Err(errno @ (Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP)) => {
                log::debug!("  cannot mark {} as impure: {errno}", dir.path());
            }
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// As [`Overlay::mark_impure`], if `node` has an origin: its number is not its upper object's then.
    pub(super) fn note_origin(&self, node: &Node, parent: &Node, dir: &OwnedFd) -> Result<()> {
        let foreign = {
            let state = node.state();
            state.upper != Some(state.number)
        };
        if foreign {
            self.mark_impure(parent, dir)
        } else {
            Ok(())
        }
    }
}

/// The directories above a node that the upper does not have yet, the nearest first: they are copied up before it (K62).
pub(super) fn missing_above(node: &Node) -> Vec<Arc<Node>> {
    let mut missing = Vec::new();
    let mut link = node.link();
    while let Some(l) = link {
        if l.parent.upper().is_some() {
            break;
        }
        missing.push(Arc::clone(&l.parent));
        link = l.parent.link();
    }
    missing
}

/// Opens a file of the lower without leaving a trace there (K114), where that is allowed.
pub(super) fn open_lower(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    match at::open_at(&dir, name, flags | libc::O_NOATIME) {
        Err(Errno::PERM) => at::open_at(&dir, name, flags),
        done => done,
    }
}

/// Copies the attributes named, as they are: escaped names stay escaped (K65).
fn copy_xattrs(from: Target<'_>, to: Target<'_>, names: &[&[u8]]) -> Result<()> {
    for name in names {
        let value = match xattr::get(from, name) {
            Ok(value) => value,
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno),
        };
        match xattr::set(to, name, &value, 0) {
            Ok(()) => {}
            // What the upper cannot store is left behind, unless access depends on it (K67).
            Err(Errno::OPNOTSUPP) if !decides_access(name) => {
                log::info!(
                    "  {} cannot be stored in the upper",
                    String::from_utf8_lossy(name)
                );
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn kind_words(kind: u32) -> &'static str {
    match kind {
        libc::S_IFREG => "a regular file",
        libc::S_IFDIR => "a directory",
        libc::S_IFLNK => "a symlink",
        _ => "a special file",
    }
}

fn decides_access(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"system.posix_acl_")
}
