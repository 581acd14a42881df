//! How layers come into the store: whole, or not at all.
//!
//! ```text
//!   tmp/<random>/root        a clone of the tree below, then the archive laid over it
//!   tmp/<random>/...         what is recorded beside it
//!        │                   the same for the next layer, upon this one; then one syncfs(2) for all of them
//!        │ rename, which fails if the name is taken; the lowest first
//!        ▼
//!   overlay/<chain id>       and the directory overlay/ is synced
//! ```

use std::io::Read;

use super::doubt::{Doubt, Subject};
use super::layer::{Layer, LayerDir};
use super::tmp::{Published, TmpDir, Turn};
use super::tree::{self, Incoming};
use super::{ChainId, DiffId, Result, Store};
use crate::builder::{Progress, TreePath};

/// So many layers wait for being published together; each keeps a few descriptors open.
const MOST_STAGED: usize = 64;

/// A layer that is ready but has no name yet.
struct Staged {
    id: ChainId,
    fresh: TmpDir,
    notes: Vec<(TreePath, String)>,
    /// Nobody else makes this layer meanwhile. Turns are taken from the base up, so nobody waits for who waits.
    _turn: Option<Turn>,
}

/// Layers that are made one upon the other.
pub(super) struct Stack<'a> {
    store: &'a Store,
    /// The uppermost one that is in the store, held.
    top: Option<Layer>,
    staged: Vec<Staged>,
    /// The diff ids of those that were added.
    pub(super) diff_ids: Vec<DiffId>,
    /// What those that were made here hold that is not in their trees, a line each.
    pub(super) notes: Vec<String>,
}

impl<'a> Stack<'a> {
    /// An empty one, upon `parent`.
    pub(super) fn upon(store: &'a Store, parent: Option<&ChainId>) -> Result<Self> {
        Ok(Self {
            store,
            top: parent.map(|id| store.layer(id)).transpose()?,
            staged: Vec::new(),
            diff_ids: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// The chain id of the uppermost layer.
    fn id(&self) -> Option<ChainId> {
        match self.staged.last() {
            Some(staged) => Some(staged.id),
            None => self.top.as_ref().map(|layer| *layer.id()),
        }
    }

    /// Takes the layer with this diff id from the store, if it is there upon the uppermost one.
    pub(super) fn take(&mut self, diff: &DiffId) -> Result<bool> {
        if !self.staged.is_empty() {
            return Ok(false);
        }
        let found = self.store.find_layer(&ChainId::of(self.id().as_ref(), diff))?;
        if let Some(layer) = found {
            self.top = Some(layer);
            self.diff_ids.push(*diff);
            return Ok(true);
        }
        Ok(false)
    }

    /// Makes a layer of an archive; takes it from the store if it is there by then.
    pub(super) fn add(
        &mut self,
        incoming: Incoming<impl Read + Send>,
        expected: Option<DiffId>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let turn = match &expected {
            None => None,
            Some(diff) => {
                if self.take(diff)? {
                    return Ok(());
                }
                let id = ChainId::of(self.id().as_ref(), diff);
                let turn = Turn::take(self.store, format!("birth-{}", id.hex()))?;
                if self.take(diff)? {
                    return Ok(());
                }
                Some(turn)
            }
        };
        let fresh = TmpDir::new(self.store, 0o710)?;
        let below = match (self.staged.last(), &self.top) {
            (Some(staged), _) => Some(LayerDir::new(staged.fresh.dir()?, staged.fresh.path())),
            (None, Some(top)) => Some(LayerDir::new(top.dir(), top.path())),
            (None, None) => None,
        };
        let built = tree::build(below, &fresh, incoming, expected, self.store.limits(), progress)?;
        let parent = self.id();
        if let Some(parent) = &parent {
            fresh.write("parent", parent.to_string().as_bytes())?;
        }
        self.diff_ids.push(built.diff_id);
        self.staged.push(Staged {
            id: ChainId::of(parent.as_ref(), &built.diff_id),
            fresh,
            notes: built.notes,
            _turn: turn,
        });
        if self.staged.len() >= MOST_STAGED {
            self.publish()?;
        }
        Ok(())
    }

    /// Gives the layers their names.
    fn publish(&mut self) -> Result<()> {
        let store = self.store;
        let mut doubts = Vec::new();
        for staged in &self.staged {
            doubts.push(Doubt::note(store, Subject::Layer(staged.id))?);
        }
        if let Some(staged) = self.staged.first() {
            staged.fresh.sync()?;
        }
        // Each parent is locked until the name is there by which everybody sees that it has a child.
        let _shared = store.hold()?;
        for (staged, doubt) in self.staged.drain(..).zip(doubts) {
            let published = staged
                .fresh
                .publish(store.overlay(), &store.overlay_path(), &staged.id.hex())?;
            let layer = match published {
                Published::Born(dir) => Layer::born(store, staged.id, dir, doubt, staged.notes),
                Published::Exists => {
                    doubt.clear(store)?;
                    store.layer(&staged.id)?
                }
            };
            self.notes.extend(layer.note_lines());
            self.top = Some(layer);
        }
        Ok(())
    }

    /// Puts everything into the store; answers the uppermost layer, held.
    pub(super) fn finish(mut self) -> Result<Finished> {
        self.publish()?;
        Ok(Finished {
            top: self.top,
            diff_ids: self.diff_ids,
            notes: self.notes,
        })
    }
}

/// What came of a stack.
pub(super) struct Finished {
    /// The uppermost layer, held; none if there is none at all.
    pub(super) top: Option<Layer>,
    pub(super) diff_ids: Vec<DiffId>,
    pub(super) notes: Vec<String>,
}

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
        let mut stack = Stack::upon(self, parent)?;
        let incoming = Incoming {
            title: "layer".to_owned(),
            size: None,
            archive,
        };
        stack.add(incoming, expected, progress)?;
        let made = stack.finish()?.top;
        made.ok_or_else(|| super::StoreError::Refused("a layer was made but is not there".to_owned()))
    }
}
