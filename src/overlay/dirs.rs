//! Open directory descriptors, as few as needed: an LRU, filled by walking down name by name.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use super::node::{Link, Node, NodeId, ROOT};
use crate::sys::{Errno, Result, at};

/// One of the two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The read-only one.
    Lower,
    /// The writable one.
    Upper,
}

/// Directory descriptors of both layers.
#[derive(Debug)]
pub struct Dirs {
    lower: Arc<OwnedFd>,
    upper: Option<Arc<OwnedFd>>,
    cache: Mutex<LruCache<(NodeId, Layer), Arc<OwnedFd>>>,
    /// Held for writing while a directory changes its place, for reading while a path is walked.
    topology: RwLock<()>,
}

impl Dirs {
    /// Keeps the roots open, and at most `limit` directories besides.
    pub fn new(lower: OwnedFd, upper: Option<OwnedFd>, limit: usize) -> Self {
        let limit = NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN);
        Self {
            lower: Arc::new(lower),
            upper: upper.map(Arc::new),
            cache: Mutex::new(LruCache::new(limit)),
            topology: RwLock::new(()),
        }
    }

    fn root(&self, layer: Layer) -> Result<Arc<OwnedFd>> {
        match layer {
            Layer::Lower => Ok(Arc::clone(&self.lower)),
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

    /// The directory of a node in one layer, as an `O_PATH` descriptor.
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
    pub fn forget(&self, id: NodeId) {
        let mut cache = self.cache.lock();
        cache.pop(&(id, Layer::Lower));
        cache.pop(&(id, Layer::Upper));
    }
}
