//! What one COPY, ADD or WORKDIR adds to a tree: gathered first, then hashed for the cache, then written as a layer
//! archive.
//!
//! Nothing is put into the tree itself here; the archive is laid over it as any other layer is. Every directory on
//! the way to something new is in the archive too, as it is in the tree, so that other tools do not reset it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use sha2::{Digest, Sha256};

use super::tree::{Last, Tree, call};
use crate::builder::layer_tar::LayerWriter;
use crate::builder::{BuildError, Kind, Meta, Result, TreePath};
use crate::sys::stat::{Stat, Time, stat_fd};
use crate::sys::xattr::Target;
use crate::sys::{Errno, at};

/// A file of a source tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAt {
    /// Which tree: its place among those given to [`Additions::source`].
    pub tree: usize,
    /// Where in it.
    pub path: TreePath,
    /// As it was when it was gathered.
    pub stat: Stat,
}

/// What something new is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A directory that the tree has already.
    There,
    /// A new directory.
    Directory,
    /// A symlink's text.
    Symlink(Vec<u8>),
    /// A pipe or device.
    Node,
    /// A file's data lies elsewhere.
    File(FileAt),
    /// A file's data.
    Inline(Vec<u8>),
}

/// One addition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Everything but the data.
    pub meta: Meta,
    /// The data.
    pub body: Body,
    /// Tree, device and inode number, for what may have several names.
    pub group: Option<(usize, u64, u64)>,
}

impl Item {
    fn is_dir(&self) -> bool {
        matches!(self.body, Body::There | Body::Directory)
    }
}

/// What is to be added to a tree.
#[derive(Debug)]
pub struct Additions<'a> {
    base: Option<Tree<'a>>,
    sources: Vec<Tree<'a>>,
    items: BTreeMap<TreePath, Item>,
    /// Owner of directories that nobody named.
    owner: (u32, u32),
}

impl<'a> Additions<'a> {
    /// Nothing yet, to be added to `base` (none for an image without layers).
    pub fn new(base: Option<Tree<'a>>, owner: (u32, u32)) -> Self {
        Self {
            base,
            sources: Vec::new(),
            items: BTreeMap::new(),
            owner,
        }
    }

    /// Names a tree that files come from.
    pub fn source(&mut self, tree: Tree<'a>) -> usize {
        self.sources.push(tree);
        self.sources.len().saturating_sub(1)
    }

    /// The tree that things are added to.
    pub fn base(&self) -> Option<Tree<'a>> {
        self.base
    }

    /// Whether `path` is a directory, in the tree or among the additions.
    ///
    /// # Errors
    /// If the tree cannot be read.
    pub fn is_dir(&self, path: &TreePath) -> Result<bool> {
        if let Some(item) = self.items.get(path) {
            return Ok(item.is_dir());
        }
        if path.is_root() {
            return Ok(true);
        }
        Ok(self.in_base(path)?.is_some_and(|stat| stat.is_dir()))
    }

    /// Where a directory that is to be at `path` really lies: a symlink to a directory there is followed, so that a
    /// copied `lib/` finds its way through `/lib -> usr/lib`.
    ///
    /// # Errors
    /// If the tree cannot be read.
    pub fn directory_at(&self, path: TreePath) -> Result<TreePath> {
        let link = self
            .in_base(&path)?
            .is_some_and(|stat| stat.kind() == libc::S_IFLNK);
        if let Some(base) = self.base.filter(|_| link && !self.items.contains_key(&path)) {
            let place = base.resolve(path.as_bytes(), Last::Follow)?;
            if place.is_dir() {
                return Ok(place.path);
            }
        }
        Ok(path)
    }

    /// Adds a directory. One that is there keeps its metadata, unless `replace`.
    ///
    /// # Errors
    /// Refused where something else is; if the tree cannot be read.
    pub fn directory(&mut self, path: &TreePath, meta: Meta, replace: bool) -> Result<()> {
        match self.items.get_mut(path) {
            Some(item) if item.is_dir() => {
                if replace {
                    item.meta = meta;
                    item.body = Body::Directory;
                }
                return Ok(());
            }
            Some(_) => return Err(conflict(path, "a directory", "something else")),
            None => {}
        }
        self.parents(path)?;
        if path.is_root() && !replace {
            return Ok(());
        }
        let item = match self.in_base(path)? {
            Some(stat) if !stat.is_dir() => return Err(conflict(path, "a directory", "something else")),
            Some(stat) if !replace => self.there(path, &stat)?,
            _ => Item {
                meta,
                body: Body::Directory,
                group: None,
            },
        };
        self.items.insert(path.clone(), item);
        Ok(())
    }

    /// Adds anything but a directory; what is there and no directory is replaced.
    ///
    /// # Errors
    /// Refused where a directory is; if the tree cannot be read.
    pub fn put(&mut self, path: &TreePath, item: Item) -> Result<()> {
        if self.is_dir(path)? {
            return Err(conflict(path, "a file", "a directory"));
        }
        self.parents(path)?;
        self.items.insert(path.clone(), item);
        Ok(())
    }

    /// Dates what nobody dated, when everything is there: in an image without layers that is the root and the
    /// directories made in it, which get the time of the newest thing (`otherwise` if there is none).
    pub fn settle_times(&mut self, otherwise: Time) {
        if self.base.is_some() || self.items.is_empty() {
            return;
        }
        let root = Item {
            meta: self.plain_directory(),
            body: Body::Directory,
            group: None,
        };
        self.items.entry(TreePath::root()).or_insert(root);
        let newest = self.items.values().map(|item| item.meta.mtime).max();
        let time = newest.filter(|time| *time > Time::default()).unwrap_or(otherwise);
        for item in self
            .items
            .values_mut()
            .filter(|item| item.meta.mtime == Time::default())
        {
            item.meta.mtime = time;
        }
    }

    /// Whether nothing new was added.
    pub fn is_empty(&self) -> bool {
        self.items.values().all(|item| item.body == Body::There)
    }

    /// A directory as it is made when nobody says how.
    pub fn plain_directory(&self) -> Meta {
        Meta {
            kind: Kind::Directory,
            permissions: 0o755,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            atime: Time::default(),
            mtime: Time::default(),
            xattrs: Vec::new(),
        }
    }

    /// Adds the directories above `path` that are not there; notes those that are.
    fn parents(&mut self, path: &TreePath) -> Result<()> {
        let mut above = Vec::new();
        let mut at = path.split().map(|(dir, _)| dir);
        while let Some(dir) = at {
            if dir.is_root() {
                break;
            }
            match self.items.get(&dir) {
                Some(item) if item.is_dir() => break,
                Some(_) => return Err(conflict(&dir, "a directory", "something else")),
                None => {}
            }
            at = dir.split().map(|(dir, _)| dir);
            above.push(dir);
        }
        while let Some(dir) = above.pop() {
            let item = match self.in_base(&dir)? {
                Some(stat) if stat.is_dir() => self.there(&dir, &stat)?,
                Some(_) => return Err(conflict(&dir, "a directory", "something else")),
                None => Item {
                    // Dated as the directory it is made in: the same step gives the same archive on any day.
                    meta: Meta {
                        mtime: self.time_above(&dir)?,
                        ..self.plain_directory()
                    },
                    body: Body::Directory,
                    group: None,
                },
            };
            self.items.insert(dir, item);
        }
        Ok(())
    }

    /// The modification time of the directory that holds `path`.
    ///
    /// # Errors
    /// If the tree cannot be read.
    pub fn time_above(&self, path: &TreePath) -> Result<Time> {
        let dir = path.split().map(|(dir, _)| dir).unwrap_or_default();
        if let Some(item) = self.items.get(&dir) {
            return Ok(item.meta.mtime);
        }
        let stat = self.in_base(&dir)?;
        Ok(stat.map(|stat| stat.mtime).unwrap_or_default())
    }

    fn in_base(&self, path: &TreePath) -> Result<Option<Stat>> {
        let Some(base) = self.base else { return Ok(None) };
        // Below a new directory the tree has nothing.
        if let Some((dir, _)) = path.split()
            && self
                .items
                .get(&dir)
                .is_some_and(|item| item.body == Body::Directory)
            && base.at(&dir)?.is_none()
        {
            return Ok(None);
        }
        base.at(path)
    }

    fn there(&self, path: &TreePath, stat: &Stat) -> Result<Item> {
        let meta = match self.base {
            Some(base) => {
                let fd = base.open(path, libc::O_PATH | libc::O_DIRECTORY)?;
                Meta::read(Target::Fd(fd.as_fd()), stat).map_err(|errno| call("read", path, errno))?
            }
            None => self.plain_directory(),
        };
        Ok(Item {
            meta,
            body: Body::There,
            group: None,
        })
    }

    /// The digest of everything that is added, but for times: what makes a step the same step.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn digest(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        let mut groups: HashMap<(usize, u64, u64), u64> = HashMap::new();
        let mut count = 0_u64;
        for (path, item) in self.items.iter().filter(|(_, item)| item.body != Body::There) {
            count += 1;
            text(&mut hash, path.as_bytes());
            let first = item
                .group
                .map_or(count, |group| *groups.entry(group).or_insert(count));
            for number in [
                u64::from(item.meta.kind.bits()),
                u64::from(item.meta.permissions),
                u64::from(item.meta.uid),
                u64::from(item.meta.gid),
                item.meta.rdev,
                first,
                item.meta.xattrs.len() as u64,
            ] {
                hash.update(number.to_le_bytes());
            }
            for attribute in &item.meta.xattrs {
                text(&mut hash, &attribute.name);
                text(&mut hash, &attribute.value);
            }
            match &item.body {
                Body::Symlink(target) => text(&mut hash, target),
                Body::Inline(data) => text(&mut hash, &Sha256::digest(data)),
                Body::File(_) if first != count => {}
                Body::File(file) => text(&mut hash, &self.hash_file(file)?),
                Body::There | Body::Directory | Body::Node => {}
            }
        }
        Ok(hash.finalize().into())
    }

    fn hash_file(&self, file: &FileAt) -> Result<[u8; 32]> {
        let mut data = self.open(file)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match data.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hash.update(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(call("read", &file.path, reason(&error))),
            }
        }
        unchanged(file, &data)?;
        Ok(hash.finalize().into())
    }

    /// Writes everything as a layer archive.
    ///
    /// # Errors
    /// If a file cannot be read, or changed since it was gathered; what cannot be said in a layer; what writing
    /// answers.
    pub fn write(&self, to: impl Write) -> Result<()> {
        let mut writer = LayerWriter::new(to);
        let mut first: HashMap<(usize, u64, u64), &TreePath> = HashMap::new();
        for (path, item) in &self.items {
            if let Some(group) = item.group {
                if let Some(first) = first.get(&group) {
                    writer.hard_link(path, &item.meta, first)?;
                    continue;
                }
                first.insert(group, path);
            }
            match &item.body {
                Body::There | Body::Directory => writer.directory(path, &item.meta)?,
                Body::Symlink(target) => writer.symlink(path, &item.meta, target)?,
                Body::Node => writer.node(path, &item.meta)?,
                Body::Inline(data) => writer.file(path, &item.meta, data.len() as u64, data.as_slice())?,
                Body::File(file) => {
                    let data = self.open(file)?;
                    writer.file(path, &item.meta, file.stat.size, &data)?;
                    unchanged(file, &data)?;
                }
            }
        }
        writer.finish()?;
        Ok(())
    }

    fn open(&self, file: &FileAt) -> Result<File> {
        let tree = self.sources.get(file.tree);
        let tree = tree.ok_or_else(|| call("open", &file.path, Errno::BADF))?;
        let (dir, name) = tree.holder(&file.path)?;
        let data = at::open_data(dir, name).map_err(|errno| call("open", &file.path, errno))?;
        let data = File::from(data);
        unchanged(file, &data)?;
        Ok(data)
    }
}

/// A file that somebody writes while it is read would be in the layer as it never was.
fn unchanged(file: &FileAt, data: &File) -> Result<()> {
    let now = stat_fd(data).map_err(|errno| call("look at", &file.path, errno))?;
    let then = &file.stat;
    let same = |stat: &Stat| (stat.ino, stat.dev, stat.mode, stat.size, stat.mtime);
    if same(&now) == same(then) {
        return Ok(());
    }
    Err(BuildError::Refused {
        path: file.path.clone(),
        reason: "it was changed while the build read it; try again when nothing writes to it".to_owned(),
    })
}

fn text(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn reason(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn conflict(path: &TreePath, new: &str, old: &str) -> BuildError {
    BuildError::Refused {
        path: path.clone(),
        reason: format!(
            "{new} cannot be copied over {old}; remove that in a RUN before, or choose another place"
        ),
    }
}
