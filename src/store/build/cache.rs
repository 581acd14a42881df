//! What steps made, by what they were made from: `<root>/build-cache/`.
//!
//! ```text
//!   build-cache/<key>           one step: the layer it made, its diff id, and when
//!   build-cache/kept/<layer>    a layer that no image holds, kept until the next prune: of a stage that others copy
//!                               from, or of a build that failed later
//! ```
//!
//! An entry is believed only while its layer is there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::store::layout::{names_in, read_if_there};
use crate::store::tmp::replace_file;
use crate::store::{ChainId, DiffId, Layer, Result, Store, StoreError};
use crate::sys::{Errno, at};

const DIRECTORY: &str = "build-cache";
const KEPT: &str = "kept";
const LARGEST: u64 = 64 * 1024;

/// What a step is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of a step with these parts.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// The bytes, to be part of another key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// The uppermost layer behind the step.
    pub layer: Option<ChainId>,
    /// The diff id of the layer that the step itself made.
    pub made: Option<DiffId>,
    /// When.
    pub created: String,
}

/// The cache of a store.
#[derive(Debug)]
pub struct Cache<'a> {
    store: &'a Store,
    dir: OwnedFd,
    kept: OwnedFd,
    path: PathBuf,
    /// Entries are looked for.
    pub reads: bool,
}

impl<'a> Cache<'a> {
    /// Opens the cache, and makes its directories.
    ///
    /// # Errors
    /// When they cannot be made or opened.
    pub fn open(store: &'a Store, reads: bool) -> Result<Self> {
        let path = store.path().join(DIRECTORY);
        let dir = directory(store.dir(), DIRECTORY).map_err(StoreError::errno("make", &path))?;
        let kept = directory(&dir, KEPT).map_err(StoreError::errno("make", path.join(KEPT)))?;
        Ok(Self {
            store,
            dir,
            kept,
            path,
            reads,
        })
    }

    /// What the step made when it was done before, and the layer it ended on.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn find(&self, key: &Key) -> Result<Option<(Entry, Option<Layer>)>> {
        if !self.reads {
            return Ok(None);
        }
        let Some(text) = read_if_there(self.dir.as_fd(), &self.path, &hex::encode(key.0), LARGEST)? else {
            return Ok(None);
        };
        let Ok(entry) = serde_json::from_slice::<Entry>(&text) else {
            log::warn!(
                "{}: not an entry of a build cache",
                self.path.join(hex::encode(key.0)).display()
            );
            return Ok(None);
        };
        let Some(id) = &entry.layer else {
            return Ok(Some((entry, None)));
        };
        let layer = self.store.find_layer(id)?;
        Ok(layer.map(|layer| (entry, Some(layer))))
    }

    /// Notes what a step made. A layer is kept from now on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, key: &Key, entry: &Entry, layer: Option<&Layer>) -> Result<()> {
        if let Some(layer) = layer.filter(|_| entry.made.is_some()) {
            let _shared = self.store.hold()?;
            let name = layer.id().hex();
            match at::create_at(&self.kept, name.as_bytes(), libc::O_RDWR, 0o600) {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(StoreError::errno("make", self.path.join(KEPT).join(name))(errno)),
            }
        }
        let text =
            serde_json::to_vec(entry).map_err(|error| StoreError::io("write", &self.path)(error.into()))?;
        let name = hex::encode(key.0);
        replace_file(self.store, self.dir.as_fd(), &self.path, &name, &text)
    }

    /// An image holds these layers now: they need not be kept otherwise.
    ///
    /// # Errors
    /// When the notes cannot be deleted.
    pub fn release(&self, layers: &[ChainId]) -> Result<()> {
        for layer in layers {
            let name = layer.hex();
            match at::unlink_at(&self.kept, name.as_bytes()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    return Err(StoreError::errno("delete", self.path.join(KEPT).join(name))(
                        errno,
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Deletes the entries whose layer is gone, and those of no layer at all; answers how many.
///
/// # Errors
/// When the cache cannot be read or an entry not be deleted.
pub fn prune(store: &Store) -> Result<u64> {
    let path = store.path().join(DIRECTORY);
    let dir = match at::open_dir_path(store.dir(), DIRECTORY.as_bytes()).and_then(at::reopen_dir) {
        Err(Errno::NOENT) => return Ok(0),
        dir => dir.map_err(StoreError::errno("open", &path))?,
    };
    let mut deleted = 0;
    for name in names_in(dir.as_fd(), &path)? {
        if name == KEPT {
            continue;
        }
        let text = read_if_there(dir.as_fd(), &path, &name, LARGEST)?.unwrap_or_default();
        let layer = serde_json::from_slice::<Entry>(&text)
            .ok()
            .and_then(|entry| entry.layer);
        let alive = match layer {
            Some(id) => store.find_layer(&id)?.is_some(),
            None => false,
        };
        if alive {
            continue;
        }
        match at::unlink_at(&dir, name.as_bytes()) {
            Ok(()) => deleted += 1,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(StoreError::errno("delete", path.join(name))(errno)),
        }
    }
    Ok(deleted)
}

fn directory(dir: impl AsFd, name: &str) -> crate::sys::Result<OwnedFd> {
    match at::mkdir_at(&dir, name.as_bytes(), 0o700) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    at::open_dir_path(&dir, name.as_bytes()).and_then(at::reopen_dir)
}
