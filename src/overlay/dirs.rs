//! Open directory descriptors, as few as needed: an LRU, filled by walking down name by name.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use super::node::{Link, Node, NodeId, ROOT};
use crate::sys::{Errno, Result, at, memory};

/// One of the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// A read-only one, the topmost is 0.
    Lower(u16),
    /// The writable one.
    Upper,
}

/// Directory descriptors of all layers.
#[derive(Debug)]
pub struct Dirs {
    lowers: Box<[Arc<OwnedFd>]>,
    upper: Option<Arc<OwnedFd>>,
    cache: Mutex<LruCache<(NodeId, Layer), Arc<OwnedFd>>>,
    /// Held for writing while a directory changes its place, for reading while a path is walked.
    topology: RwLock<()>,
}

impl Dirs {
    /// Keeps the roots open, and at most `limit` directories besides.
    pub fn new(lowers: Vec<OwnedFd>, upper: Option<OwnedFd>, limit: usize) -> Self {
        let limit = NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN);
        Self {
            lowers: lowers.into_iter().map(Arc::new).collect(),
            upper: upper.map(Arc::new),
            cache: Mutex::new(memory::cache(limit)),
            topology: RwLock::new(()),
        }
    }

    /// The roots of the lowers, topmost first.
    pub fn lower_roots(&self) -> &[Arc<OwnedFd>] {
        &self.lowers
    }

    fn root(&self, layer: Layer) -> Result<Arc<OwnedFd>> {
        match layer {
            Layer::Lower(index) => self.lowers.get(usize::from(index)).cloned().ok_or(Errno::NOENT),
            Layer::Upper => self.upper.clone().ok_or(Errno::ROFS),
        }
    }

    fn cached(&self, id: NodeId, layer: Layer) -> Result<Option<Arc<OwnedFd>>> {
        if id == ROOT {
            self.root(layer).map(Some)
        } else {
            Ok(self.cache.lock().get(&(id, layer)).cloned())
        }
    }

    /// The directory of a node in one layer, as an `O_PATH` descriptor. The layer takes part in the node.
    ///
    /// # Errors
    /// ENOENT when it was removed, EROFS for the upper of a read-only view; else as openat2(2).
    pub fn get(&self, node: &Arc<Node>, layer: Layer) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.cached(node.id, layer)? {
            return Ok(fd);
        }
        let _standing = self.topology.read();
        let mut steps: Vec<(NodeId, Arc<Link>)> = Vec::new();
        let mut at = Arc::clone(node);
        let mut fd = loop {
            if let Some(fd) = self.cached(at.id, layer)? {
                break fd;
            }
            let link = at.link().ok_or(Errno::NOENT)?;
            let parent = Arc::clone(&link.parent);
            steps.push((at.id, link));
            at = parent;
        };
        while let Some((id, link)) = steps.pop() {
            fd = Arc::new(at::open_dir_path(&fd, &link.name)?);
            self.cache.lock().put((id, layer), Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Keeps every path as it is until the guard is dropped, for a directory about to change its place.
    pub fn hold_still(&self) -> RwLockWriteGuard<'_, ()> {
        self.topology.write()
    }

    /// A directory is known no more, or was removed.
    pub fn forget(&self, node: &Node) {
        let parts = node.parts();
        let mut cache = self.cache.lock();
        cache.pop(&(node.id, Layer::Upper));
        for layer in parts.iter().flat_map(|parts| parts.iter()) {
            cache.pop(&(node.id, Layer::Lower(layer)));
        }
    }
}
