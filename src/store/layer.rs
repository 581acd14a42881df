//! A layer of the store.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::doubt::Doubt;
use super::layout::{names_in, read_file, read_if_there};
use super::lock::{still_named, wait};
use super::tree::Birth;
use super::{ChainId, DiffId, Result, Store, StoreError};
use crate::builder::{TreePath, tar_split};
use crate::sys::{Errno, at};

/// The files that hold one digest or number.
const SHORT: u64 = 1024;

/// A finished layer. While this lives, nobody can remove it.
#[derive(Debug)]
pub struct Layer {
    id: ChainId,
    path: PathBuf,
    dir: OwnedFd,
    /// Of a layer that was born just now: whether somebody needs it is settled when this is given up.
    _doubt: Option<Doubt>,
    notes: Vec<(TreePath, String)>,
}

/// The directory of a layer, which need not have its name yet.
#[derive(Clone, Copy)]
pub(super) struct LayerDir<'a> {
    dir: BorrowedFd<'a>,
    path: &'a Path,
}

impl<'a> LayerDir<'a> {
    pub(super) fn new(dir: BorrowedFd<'a>, path: &'a Path) -> Self {
        Self { dir, path }
    }

    /// An open descriptor of a directory in it.
    pub(super) fn sub_dir(self, name: &str) -> Result<OwnedFd> {
        at::open_dir_path(self.dir, name.as_bytes())
            .and_then(at::reopen_dir)
            .map_err(StoreError::errno("open", self.path.join(name)))
    }

    /// A file in it, open for reading.
    pub(super) fn file(self, name: &str) -> Result<std::fs::File> {
        at::open_at(self.dir, name.as_bytes(), libc::O_RDONLY)
            .map(Into::into)
            .map_err(StoreError::errno("open", self.path.join(name)))
    }
}

impl Layer {
    /// A layer just born, from a descriptor of its directory that has the shared lock.
    pub(super) fn born(
        store: &Store,
        id: ChainId,
        dir: OwnedFd,
        doubt: Doubt,
        notes: Vec<(TreePath, String)>,
    ) -> Self {
        Self {
            id,
            path: store.overlay_path().join(id.hex()),
            dir,
            _doubt: Some(doubt),
            notes,
        }
    }

    /// Its chain id.
    pub fn id(&self) -> &ChainId {
        &self.id
    }

    /// Its directory, `overlay/<id>`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of a layer that was born just now: what its archive holds that is not in the tree, and why.
    pub fn notes(&self) -> &[(TreePath, String)] {
        &self.notes
    }

    /// The first of [`Layer::notes`] as lines for people.
    pub(super) fn note_lines(&self) -> Vec<String> {
        const MOST: usize = 20;
        let line = |(path, why): &(TreePath, String)| format!("layer {}: {path}: {why}", self.id);
        let mut lines: Vec<String> = self.notes.iter().take(MOST).map(line).collect();
        let more = self.notes.len().saturating_sub(MOST);
        if more > 0 {
            lines.push(format!("layer {}: and {more} more objects", self.id));
        }
        lines
    }

    /// A descriptor of its directory, with the shared lock.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Its tree, `overlay/<id>/root`.
    pub fn root_path(&self) -> PathBuf {
        self.path.join("root")
    }

    /// An open descriptor of its tree.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn root_fd(&self) -> Result<OwnedFd> {
        LayerDir::new(self.dir(), &self.path).sub_dir("root")
    }

    /// A file in it, open for reading.
    pub(super) fn file(&self, name: &str) -> Result<std::fs::File> {
        LayerDir::new(self.dir(), &self.path).file(name)
    }

    /// The layer below; none for a base.
    ///
    /// # Errors
    /// When the file `parent` cannot be read, or holds no chain id.
    pub fn parent(&self) -> Result<Option<ChainId>> {
        parent_of(&self.dir, &self.path)
    }

    /// The digest of its uncompressed archive.
    ///
    /// # Errors
    /// When the file `diff` cannot be read, or holds no digest.
    pub fn diff_id(&self) -> Result<DiffId> {
        let text = read_file(self.dir(), &self.path, "diff", SHORT)?;
        parse(&text).ok_or_else(|| damaged(&self.path.join("diff"), "it holds no digest"))
    }

    /// Bytes of the regular files in its archive.
    ///
    /// # Errors
    /// When the file `size` cannot be read, or holds no number.
    pub fn size(&self) -> Result<u64> {
        let text = read_file(self.dir(), &self.path, "size", SHORT)?;
        parse(&text).ok_or_else(|| damaged(&self.path.join("size"), "it holds no number"))
    }
}

impl Layer {
    /// What its birth cost.
    ///
    /// # Errors
    /// When the file `birth` cannot be read or understood.
    pub fn birth(&self) -> Result<Birth> {
        let text = read_file(self.dir(), &self.path, "birth", SHORT)?;
        serde_json::from_slice(&text).map_err(|error| damaged(&self.path.join("birth"), &error.to_string()))
    }

    /// Bytes of its uncompressed archive.
    ///
    /// # Errors
    /// As [`Layer::birth`].
    pub fn archive_bytes(&self) -> Result<u64> {
        self.birth().map(|birth| birth.archive_bytes)
    }

    /// Writes its archive, byte for byte as it was read, uncompressed.
    ///
    /// # Errors
    /// When the tree was changed, or `to` does not take it.
    pub fn archive(&self, to: impl std::io::Write) -> Result<u64> {
        let root = self.root_fd()?;
        tar_split::assemble(self.file("tar-split")?, root.as_fd(), to)
            .map_err(StoreError::of(format!("layer {}", self.id)))
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.trim_ascii_end().parse().ok()
}

fn damaged(path: &Path, why: &str) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

pub(super) fn parent_of(dir: impl AsFd, path: &Path) -> Result<Option<ChainId>> {
    match read_if_there(dir.as_fd(), path, "parent", SHORT)? {
        None => Ok(None),
        Some(text) => parse(&text)
            .map(Some)
            .ok_or_else(|| damaged(&path.join("parent"), "it holds no chain id")),
    }
}

impl Store {
    /// The layer with this chain id.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`] when there is none; else when it cannot be opened or locked.
    pub fn layer(&self, id: &ChainId) -> Result<Layer> {
        self.find_layer(id)?
            .ok_or_else(|| StoreError::NoLayer { id: id.to_string() })
    }

    /// As [`Store::layer`]; none when there is none.
    ///
    /// # Errors
    /// When it cannot be opened or locked.
    pub fn find_layer(&self, id: &ChainId) -> Result<Option<Layer>> {
        let name = id.hex();
        let path = self.overlay_path().join(&name);
        let opened = at::open_dir_path(self.overlay(), name.as_bytes()).and_then(at::reopen_dir);
        let dir = match opened {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(StoreError::errno("open", &path)(errno)),
        };
        wait(&dir, FlockOperation::LockShared).map_err(StoreError::errno("lock", &path))?;
        // It may have been removed in between.
        if !still_named(self.overlay(), name.as_bytes(), &dir).map_err(StoreError::errno("look at", &path))? {
            return Ok(None);
        }
        Ok(Some(Layer {
            id: *id,
            path,
            dir,
            _doubt: None,
            notes: Vec::new(),
        }))
    }

    /// Bytes of the regular files in an image's layers together.
    ///
    /// # Errors
    /// When a layer is missing or its size cannot be read.
    pub fn image_size(&self, image: &super::Image) -> Result<u64> {
        image
            .chain()
            .iter()
            .try_fold(0_u64, |sum, id| Ok(sum.saturating_add(self.layer(id)?.size()?)))
    }

    /// The chain ids of all layers, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn layer_ids(&self) -> Result<Vec<ChainId>> {
        // Containers are there as well: they have `lower-id` instead of `root`.
        let path = self.overlay_path();
        let mut ids = Vec::new();
        for name in names_in(self.overlay(), &path)? {
            let Some(id) = ChainId::from_hex(&name) else {
                continue;
            };
            let inner = format!("{name}/root");
            if path
                .join(inner)
                .symlink_metadata()
                .is_ok_and(|found| found.is_dir())
            {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}
