//! How a layer comes into the store: whole, or not at all.
//!
//! ```text
//!   tmp/<random>/root        a clone of the parent's tree, then the archive laid over it
//!   tmp/<random>/...         what is recorded beside it; then one syncfs(2)
//!        │ rename, which fails if the name is taken
//!        ▼
//!   overlay/<chain id>       and the directory overlay/ is synced
//! ```

use std::io::Read;

use super::doubt::{Doubt, Subject};
use super::layer::Layer;
use super::tmp::{Published, TmpDir, Turn};
use super::tree::{self, Incoming};
use super::{ChainId, DiffId, Result, Store};
use crate::builder::Progress;

impl Store {
    /// Puts the layer that `archive` makes of `parent` (of nothing for none) into the store; finds it if it is there
    /// already, without reading the archive then if `expected` is given.
    ///
    /// The archive is read to its end. Where another process builds the same layer, this one waits for it.
    ///
    /// # Errors
    /// When the archive is refused or does not have the `expected` digest, the parent is not there, or the disk is
    /// full: the store is then as it was.
    pub fn add_layer(
        &self,
        parent: Option<&ChainId>,
        archive: impl Read + Send,
        expected: Option<DiffId>,
        progress: &dyn Progress,
    ) -> Result<Layer> {
        let incoming = Incoming {
            title: "layer".to_owned(),
            size: None,
            archive,
        };
        self.add_incoming(parent, incoming, expected, progress)
    }

    /// As [`Store::add_layer`], with a title and a length for the progress.
    pub(super) fn add_incoming(
        &self,
        parent: Option<&ChainId>,
        incoming: Incoming<impl Read + Send>,
        expected: Option<DiffId>,
        progress: &dyn Progress,
    ) -> Result<Layer> {
        let _turn = match &expected {
            None => None,
            Some(diff) => {
                let id = ChainId::of(parent, diff);
                if let Some(there) = self.find_layer(&id)? {
                    return Ok(there);
                }
                let turn = Turn::take(self, format!("birth-{}", id.hex()))?;
                if let Some(there) = self.find_layer(&id)? {
                    return Ok(there);
                }
                Some(turn)
            }
        };
        let parent = parent.map(|id| self.layer(id)).transpose()?;
        let fresh = TmpDir::new(self, 0o710)?;
        let built = tree::build(
            parent.as_ref(),
            &fresh,
            incoming,
            expected,
            self.limits(),
            progress,
        )?;
        let id = ChainId::of(parent.as_ref().map(Layer::id), &built.diff_id);
        if let Some(parent) = &parent {
            fresh.write("parent", parent.id().to_string().as_bytes())?;
        }
        let doubt = Doubt::note(self, Subject::Layer(id))?;
        fresh.sync()?;
        // The parent is locked until the name is there by which everybody sees that it has a child.
        let _shared = self.hold()?;
        match fresh.publish(self.overlay(), &self.overlay_path(), &id.hex())? {
            Published::Born(dir) => Ok(Layer::born(self, id, dir, doubt, built.notes)),
            Published::Exists => {
                doubt.clear(self)?;
                self.layer(&id)
            }
        }
    }
}
