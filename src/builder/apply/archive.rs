//! The rules of a layer archive: what each entry does to the tree.

use std::os::fd::AsFd;
use std::rc::Rc;

use super::entries::{Entries, Entry, EntryKind};
use super::marks;
use super::options::Limits;
use super::place::{Dir, clean};
use super::record::Recorder;
use super::sparse::Extent;
use super::stream::{Chunks, unreadable};
use super::tree::Tree;
use crate::builder::{BuildError, Kind, Meta, Progress, Result, TreePath};
use crate::format::aufs::{MARK, META_MARK, OPAQUE};
use crate::sys::Errno;
use crate::sys::at;
use crate::sys::stat::{self, Stat, Time};
use crate::sys::xattr::{self, Target};
use crate::sys::{copy, io};

/// The directory in the root whose files aufs linked to.
const PSEUDO_LINKS: &[u8] = b".wh..wh.plnk";
/// The longest name: sixteen times what a system call takes.
const NAME_MAX: usize = 64 << 10;
/// Bytes of a file that are written at once.
const PIECE: usize = 256 << 10;

/// What is remembered about names beside that they came: a prefix no name can have, and the name.
const BELOW: u8 = 0;
const SKIPPED: u8 = 1;

/// What is to be done besides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// What is refused as too much.
    pub(super) limits: Limits,
    /// Devices that may not be made are skipped.
    pub(super) skip_devices: bool,
    /// The archive's digest is known, so that nothing else need tell whether it is whole.
    pub(super) digest_known: bool,
    /// What is not file data is taken down.
    pub(super) record: bool,
    /// The archive is no layer: it can hold no marks.
    pub(super) refuse_marks: bool,
}

/// An archive being laid over a tree.
pub(super) struct Layer<'a> {
    pub(super) tree: Tree<'a>,
    entries: Entries<Chunks>,
    recorder: Option<Recorder>,
    rules: Rules,
    /// The directory of which it was remembered last that something of this layer lies below.
    noted: Option<TreePath>,
    progress: &'a dyn Progress,
}

impl<'a> Layer<'a> {
    pub(super) fn new(
        tree: Tree<'a>,
        chunks: Chunks,
        rules: Rules,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let mut entries = Entries::new(chunks).limited(rules.limits.bytes, "--max-bytes");
        let mut recorder = None;
        if rules.record {
            entries = entries.keeping_raw();
            recorder = Some(Recorder::new(tree.root)?);
        }
        Ok(Self {
            tree,
            entries,
            recorder,
            rules,
            noted: None,
            progress,
        })
    }

    /// Lays all entries over the tree, and reads the archive to its last byte; answers its length.
    pub(super) fn run(mut self) -> Result<(Tree<'a>, Option<Recorder>, u64)> {
        while let Some(entry) = self.entries.next()? {
            if self.progress.stopped() {
                return Err(BuildError::Interrupted);
            }
            let raw = self.entries.take_raw();
            if let Some(recorder) = &mut self.recorder {
                recorder.raw(&raw)?;
            }
            self.tree.count()?;
            self.entry(entry)?;
            self.pass_over()?;
        }
        let raw = self.entries.take_raw();
        if let Some(recorder) = &mut self.recorder {
            recorder.raw(&raw)?;
        }
        if self.entries.end().is_some_and(|end| !end.marked) && !self.rules.digest_known {
            return Err(BuildError::Damaged {
                position: self.entries.position(),
                reason: "it ends without an end mark: it was cut off, or never finished".into(),
            });
        }
        let length = self.rest()?;
        Ok((self.tree, self.recorder, length))
    }

    /// Reads what follows the end mark: padding as a rule.
    fn rest(&mut self) -> Result<u64> {
        let mut length = self.entries.position();
        let mut garbage = 0_u64;
        loop {
            let piece = self.entries.source_mut().piece(PIECE).map_err(unreadable)?;
            let bytes = piece.bytes();
            if bytes.is_empty() {
                break;
            }
            if let Some(recorder) = &mut self.recorder {
                recorder.raw(bytes)?;
            }
            garbage = garbage.saturating_add(bytes.iter().filter(|byte| **byte != 0).count() as u64);
            length = length.saturating_add(bytes.len() as u64);
            if length > self.rules.limits.bytes {
                return Err(BuildError::Limit {
                    what: "the size of the unpacked archive",
                    limit: self.rules.limits.bytes,
                    option: "--max-bytes",
                });
            }
            let seen = bytes.len();
            std::io::BufRead::consume(self.entries.source_mut(), seen);
        }
        if garbage > 0 {
            let note = "the archive goes on behind its end mark; that part has no effect";
            self.tree.notes.add(&TreePath::root(), note);
        }
        Ok(length)
    }

    /// Passes over data of the present entry that is not in the tree; the record keeps it.
    fn pass_over(&mut self) -> Result<()> {
        if self.recorder.is_none() {
            return self.entries.skip_data();
        }
        while self.entries.left() > 0 {
            let bytes = self.entries.peek(PIECE)?;
            let seen = bytes.len();
            if let Some(recorder) = &mut self.recorder {
                recorder.raw(bytes)?;
            }
            self.entries.consume(seen)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        if entry.name.len() > NAME_MAX {
            let start = entry.name.get(..100).unwrap_or_default();
            return Err(refused(
                &TreePath::from_clean(start),
                "its name has more than 65536 bytes",
            ));
        }
        // As docker does: what would lie above the root lies in the root.
        let (path, _) = clean(&entry.name);
        if !self.tree.names.add(path.as_bytes(), self.tree.root)? {
            return Err(refused(&path, "two entries of the archive have this name"));
        }
        if self.rules.refuse_marks && path.names().any(|name| name.starts_with(MARK)) {
            return Err(refused(
                &path,
                "names that begin with .wh. mean something else in a layer",
            ));
        }
        let last = path.names().next_back().unwrap_or_default();
        let in_marks = path
            .names()
            .next()
            .is_some_and(|first| first.starts_with(META_MARK));
        if last == OPAQUE {
            return self.empty(&path);
        }
        if in_marks {
            return self.aufs_file(&path, &entry);
        }
        if let Some(above) = path.split().map(|(above, _)| above)
            && above.names().any(|name| name.starts_with(MARK))
        {
            return Err(refused(
                &path,
                "it lies in a directory whose name would mean a removed one",
            ));
        }
        if last.starts_with(META_MARK) {
            return Ok(());
        }
        if let Some(removed) = last.strip_prefix(MARK) {
            return self.remove(&path, removed);
        }
        self.place(&path, entry)
    }

    /// `.wh.NAME`: NAME goes, whether it is the parent's or this layer's.
    fn remove(&mut self, path: &TreePath, name: &[u8]) -> Result<()> {
        if matches!(name, b"" | b"." | b"..") {
            return Err(refused(path, "it is a mark that removes no name"));
        }
        let (dir, _) = self.tree.parent(path)?;
        self.tree.clear(&dir, name)?;
        Ok(())
    }

    /// The mark that empties a directory of everything that is not this layer's.
    fn empty(&mut self, path: &TreePath) -> Result<()> {
        let (above, _) = path.split().unwrap_or_default();
        self.tree.directory(&above)?;
        let mut todo = vec![above];
        while let Some(path) = todo.pop() {
            let Some(dir) = self.tree.places.find(&path, None)? else {
                continue;
            };
            let ours_below = self.tree.names.contains(&with(BELOW, &path))?;
            let call = |errno| dir.call("list", b"", errno);
            let list = at::reopen_dir(&dir.fd).map_err(call)?;
            let mut failed = None;
            crate::sys::dirent::read_names(&list, |entry| {
                let done = self.empty_name(&dir, &path, &entry.name, ours_below, &mut todo);
                failed = done.err();
                Ok(failed.is_none())
            })
            .map_err(call)?;
            if let Some(failed) = failed {
                return Err(failed);
            }
        }
        Ok(())
    }

    fn empty_name(
        &mut self,
        dir: &Rc<Dir>,
        path: &TreePath,
        name: &[u8],
        ours_below: bool,
        todo: &mut Vec<TreePath>,
    ) -> Result<()> {
        if self.tree.is_aside(dir, name) {
            return Ok(());
        }
        let child = path.join(name);
        if ours_below {
            let is_dir = dir.look(name)?.is_some_and(|stat| stat.is_dir());
            let ours = self.tree.names.contains(child.as_bytes())?;
            if is_dir && (ours || self.tree.names.contains(&with(BELOW, &child))?) {
                todo.push(child);
                return Ok(());
            }
            if ours {
                return Ok(());
            }
        }
        self.tree.clear(dir, name)?;
        Ok(())
    }

    /// An entry in the root's `.wh..wh.` names: skipped, but for files that later entries link to.
    fn aufs_file(&mut self, path: &TreePath, entry: &Entry) -> Result<()> {
        let mut names = path.names();
        let is_link_target =
            names.next() == Some(PSEUDO_LINKS) && names.next().is_some() && names.next().is_none();
        if !is_link_target || entry.kind != EntryKind::Object(Kind::File) {
            return Ok(());
        }
        let aside = self.tree.aside()?;
        let meta = self.meta(path, entry, Kind::File);
        self.write_file(&aside, &pseudo_name(path), path, &meta, entry, false)
    }

    /// Everything that is no mark.
    fn place(&mut self, path: &TreePath, entry: Entry) -> Result<()> {
        for key in &entry.unread {
            let key = key.escape_ascii();
            self.tree.notes.add(path, format!("its {key} is not read"));
        }
        let kind = match entry.kind {
            EntryKind::HardLink => return self.link(path, &entry),
            EntryKind::Object(kind) => kind,
        };
        let meta = self.meta(path, &entry, kind);
        if kind == Kind::Directory {
            return self.directory(path, &meta);
        }
        let (dir, name) = self.tree.parent(path)?;
        self.note_below(path)?;
        self.tree.clear(&dir, name)?;
        match kind {
            Kind::File => self.write_file(&dir, name, path, &meta, &entry, true),
            Kind::Symlink => self.tree.make_symlink(&dir, name, &entry.link, &meta),
            Kind::CharDevice if entry.device == (0, 0) => {
                // It would hide what it stands for once the layer is a lower.
                self.skip(path, "a character device 0/0 is a mark of overlays and not made")
            }
            _ => match self.tree.make_special(&dir, name, &meta) {
                Err(BuildError::Call {
                    errno: Errno::PERM, ..
                }) if self.rules.skip_devices && kind != Kind::Fifo => {
                    self.skip(path, "devices may not be made here")
                }
                done => done,
            },
        }
    }

    fn skip(&mut self, path: &TreePath, why: &str) -> Result<()> {
        self.tree.notes.add(path, why);
        self.tree
            .names
            .add(&with(SKIPPED, path), self.tree.root)
            .map(|_| ())
    }

    fn directory(&mut self, path: &TreePath, meta: &Meta) -> Result<()> {
        if path.is_root() {
            let root = self.tree.places.root();
            return self.tree.change_directory(&root, meta);
        }
        let (dir, name) = self.tree.parent(path)?;
        self.note_below(path)?;
        match dir.look(name)? {
            Some(stat) if stat.is_dir() => {
                let found = self.tree.places.find(path, None)?;
                let found = found.ok_or_else(|| dir.call("open", name, Errno::NOENT))?;
                self.tree.change_directory(&found, meta)
            }
            Some(_) => {
                self.tree.clear(&dir, name)?;
                self.tree.make_directory(&dir, name, meta)
            }
            None => self.tree.make_directory(&dir, name, meta),
        }
    }

    /// Remembers that the directories above have something of this layer below them.
    fn note_below(&mut self, path: &TreePath) -> Result<()> {
        let above = path.split().map(|(above, _)| above);
        if above == self.noted {
            return Ok(());
        }
        self.noted = above;
        let mut path = path.clone();
        while let Some((above, _)) = path.split() {
            if !self.tree.names.add(&with(BELOW, &above), self.tree.root)? {
                break;
            }
            path = above;
        }
        Ok(())
    }

    fn meta(&mut self, path: &TreePath, entry: &Entry, kind: Kind) -> Meta {
        let (xattrs, dropped) = marks::keep(entry.xattrs.clone());
        for name in dropped {
            let name = name.escape_ascii();
            self.tree.notes.add(
                path,
                format!("the attribute {name} is a mark of overlays and not kept"),
            );
        }
        let (major, minor) = entry.device;
        Meta {
            kind,
            permissions: entry.permissions,
            uid: entry.uid,
            gid: entry.gid,
            rdev: libc::makedev(major, minor),
            atime: entry.atime.unwrap_or(entry.mtime).max(entry.mtime),
            mtime: entry.mtime,
            xattrs,
        }
    }

    /// Writes the data of the present entry to a new file.
    fn write_file(
        &mut self,
        dir: &Dir,
        name: &[u8],
        path: &TreePath,
        meta: &Meta,
        entry: &Entry,
        in_tree: bool,
    ) -> Result<()> {
        self.tree.count_bytes(entry.size)?;
        let whole = [Extent {
            offset: 0,
            length: entry.size,
        }];
        let extents = entry.extents.as_deref().unwrap_or(&whole);
        let (entries, recorder, progress) = (&mut self.entries, &mut self.recorder, self.progress);
        let ino = self.tree.make_file(dir, name, meta, &mut |tree, file| {
            let (mut end, mut written) = (0, 0);
            for extent in extents {
                tree.hasher.zeros(extent.offset.saturating_sub(end));
                let mut at = extent.offset;
                end = extent.offset.saturating_add(extent.length);
                while at < end {
                    if progress.stopped() {
                        return Err(BuildError::Interrupted);
                    }
                    let most = usize::try_from(end.saturating_sub(at))
                        .unwrap_or(usize::MAX)
                        .min(PIECE);
                    entries.peek(most)?;
                    let piece = entries.source_mut().piece(most).map_err(unreadable)?;
                    let bytes = piece.bytes();
                    written = tree.write(path, file, bytes, at)?.max(written);
                    tree.hasher.data(&piece);
                    if let Some(recorder) = recorder
                        && !in_tree
                    {
                        recorder.raw(bytes)?;
                    }
                    entries.consume(bytes.len())?;
                    at = at.saturating_add(bytes.len() as u64);
                }
            }
            tree.hasher.zeros(entry.size.saturating_sub(end));
            if written < entry.size {
                io::truncate(file, entry.size).map_err(|errno| dir.call("set the size of", name, errno))?;
            }
            Ok(())
        })?;
        self.tree.hasher.file(ino);
        if let Some(recorder) = &mut self.recorder
            && in_tree
            && extents.iter().any(|extent| extent.length > 0)
        {
            self.tree.precious.insert(ino);
            recorder.file(ino, dir.join(name), extents.to_vec())?;
        }
        Ok(())
    }

    /// A further name for something that is there.
    fn link(&mut self, path: &TreePath, entry: &Entry) -> Result<()> {
        let (target, above) = clean(&entry.link);
        if above {
            return Err(refused(path, "it links to something outside of the root"));
        }
        if target == *path {
            return Err(refused(path, "it links to itself"));
        }
        let (dir, name) = self.tree.parent(path)?;
        self.note_below(path)?;
        self.tree.clear(&dir, name)?;
        if target.names().next() == Some(PSEUDO_LINKS) {
            return self.copy_pseudo_link(&dir, name, path, &target);
        }
        let missing = || refused(path, &format!("it links to {target}, which is not there"));
        let (target_dir, target_name) = target.split().ok_or_else(missing)?;
        let found = self.tree.places.find(&target_dir, None)?;
        let stat = match &found {
            Some(dir) => dir.look(target_name)?,
            None => None,
        };
        let (Some(target_dir), Some(stat)) = (found, stat) else {
            if self.tree.names.contains(&with(SKIPPED, &target))? {
                return self.skip(path, "it links to something that was not made");
            }
            return Err(missing());
        };
        if stat.is_dir() {
            return Err(refused(
                path,
                &format!("it links to {target}, which is a directory"),
            ));
        }
        let meta = self.meta(path, entry, Kind::of_mode(stat.mode).unwrap_or(Kind::File));
        self.give_to_target(&target_dir, target_name, &stat, &meta)?;
        self.tree.touch(&dir)?;
        self.tree.link(&target_dir, target_name, &dir, name)
    }

    /// The entry of a hard link has metadata too. What differs is given to the inode, after that was made ours.
    fn give_to_target(&mut self, dir: &Rc<Dir>, name: &[u8], stat: &Stat, meta: &Meta) -> Result<()> {
        let target = Target::At(dir.fd.as_fd(), name);
        if !self.differs(dir, name, target, stat, meta)? {
            return Ok(());
        }
        if !self.tree.made.contains(stat.ino) {
            self.tree.unshare(dir, name, stat)?;
        }
        let call = |errno| dir.call("change", name, errno);
        let fd = at::open_path(&dir.fd, name).map_err(call)?;
        let now = stat::stat_fd(&fd).map_err(call)?;
        // A change of owner drops capabilities; those that the entry does not name stay.
        let mut meta = meta.clone();
        let kept = Meta::read(target, &now).map_err(call)?;
        for xattr in kept.xattrs {
            if !meta.xattrs.iter().any(|new| new.name == xattr.name) {
                meta.xattrs.push(xattr);
            }
        }
        let symlink = meta.kind == Kind::Symlink;
        self.tree
            .give(&dir.join(name), fd.as_fd(), &now, &meta, false, !symlink)
    }

    fn differs(&self, dir: &Dir, name: &[u8], target: Target<'_>, stat: &Stat, meta: &Meta) -> Result<bool> {
        let symlink = meta.kind == Kind::Symlink;
        let same_time = |a: Time, b: Time| a.secs == b.secs && (a.nanos == b.nanos || a.nanos == 0);
        if !self.tree.same_owner(stat, meta)
            || !symlink && (stat.mode & 0o7777 != meta.permissions || !same_time(meta.mtime, stat.mtime))
        {
            return Ok(true);
        }
        for wanted in &meta.xattrs {
            match xattr::get(target, &wanted.name) {
                Ok(value) if value == wanted.value => {}
                Ok(_) | Err(Errno::NODATA) => return Ok(true),
                Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(dir.call("read an attribute of", name, errno)),
            }
        }
        Ok(false)
    }

    /// aufs kept files of several names in a directory of its own; each link to one becomes a copy, as in docker.
    fn copy_pseudo_link(&mut self, dir: &Dir, name: &[u8], path: &TreePath, target: &TreePath) -> Result<()> {
        let aside = self.tree.aside()?;
        let from_name = pseudo_name(target);
        let Some(stat) = aside.look(&from_name)? else {
            return Err(refused(
                path,
                &format!("it links to {target}, which is not there"),
            ));
        };
        let call = |errno| dir.call("copy", name, errno);
        let from = at::open_at(&aside.fd, &from_name, libc::O_RDONLY).map_err(call)?;
        let meta = Meta::read(Target::Fd(from.as_fd()), &stat).map_err(call)?;
        self.tree.count_bytes(stat.size)?;
        let ino = self.tree.make_file(dir, name, &meta, &mut |_, file| {
            copy::copy_data(&from, file, stat.size).map(|_| ()).map_err(call)
        })?;
        self.tree.hasher.forget(ino);
        Ok(())
    }
}

/// Where a file of the pseudo links is kept meanwhile.
fn pseudo_name(path: &TreePath) -> Vec<u8> {
    let name = path.names().nth(1).unwrap_or_default();
    let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(name).into();
    format!("link-{}", hex::encode(digest)).into_bytes()
}

fn with(mark: u8, path: &TreePath) -> Vec<u8> {
    [&[mark], path.as_bytes()].concat()
}

fn refused(path: &TreePath, reason: &str) -> BuildError {
    BuildError::Refused {
        path: path.clone(),
        reason: reason.into(),
    }
}
