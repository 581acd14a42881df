//! What a call on a name would do, found out without doing it.
//!
//! The checks and plans are those of the calls themselves (`remove.rs`, `rename.rs`, `copy_up.rs`, `merge.rs`); here
//! they are only asked. What a caller may do is not asked: the kernel checks that on the view.

use std::sync::Arc;

use super::Overlay;
use super::copy_up::missing_above;
use super::dirs::Layer;
use super::merge::{self, CreatePlan, InUpper, RemovePlan, RenameCase, RenamePlan};
use super::node::Node;
use crate::sys::{Errno, Result};

/// A call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// open(2) for writing, of what is there.
    Open,
    /// chmod(2).
    Chmod,
    /// unlink(2).
    Unlink,
    /// rmdir(2).
    Rmdir,
    /// rename(2) to a free name in the same directory.
    Rename,
    /// open(2) with `O_CREAT`, mkdir(2) and their like, of a name that does not show.
    Create,
}

/// What is done once everything needed has been copied up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// The upper object itself is changed.
    InPlace,
    /// Nothing of the layers is touched: opening a special file (K61).
    Nothing,
    /// The name is taken away.
    Remove(RemovePlan),
    /// The name is moved.
    Rename {
        /// By which call.
        plan: RenamePlan,
        /// A directory gets the opaque mark before (K93).
        opaque: bool,
    },
    /// A new object is made.
    Create(CreatePlan),
}

/// What a call would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foresight {
    /// How many of the directories above, the nearest ones, are copied up first (K62).
    pub ancestors: usize,
    /// The object itself is copied up.
    pub object: bool,
    /// And then.
    pub deed: Deed,
}

impl Overlay {
    /// What `call` on `name` would do in a view that may be written.
    ///
    /// # Errors
    /// The errno the call would get, as far as the layers decide it; or what the calls made to find out say.
    pub fn foresee(&self, parent: &Arc<Node>, name: &[u8], call: Call) -> Result<Foresight> {
        match call {
            Call::Unlink => self.foresee_remove(parent, name, false),
            Call::Rmdir => self.foresee_remove(parent, name, true),
            Call::Create => self.foresee_create(parent, name),
            Call::Open | Call::Chmod | Call::Rename => {
                let (node, _) = self.lookup_in(parent, name)?;
                self.foresee_change(parent, name, &node, call)
            }
        }
    }

    /// What chmod(2) of the root would do.
    ///
    /// # Errors
    /// When the root is not known, which cannot be.
    pub fn foresee_root(&self) -> Result<Foresight> {
        let root = self.node(super::ROOT)?;
        Ok(above(&root, root.upper().is_none(), Deed::InPlace))
    }

    fn foresee_change(
        &self,
        parent: &Arc<Node>,
        name: &[u8],
        node: &Arc<Node>,
        call: Call,
    ) -> Result<Foresight> {
        let mut deed = Deed::InPlace;
        match call {
            Call::Open if node.is_dir() => return Err(Errno::ISDIR),
            // The kernel opens it without asking anybody.
            Call::Open if !node.is_file() => {
                return Ok(Foresight {
                    ancestors: 0,
                    object: false,
                    deed: Deed::Nothing,
                });
            }
            Call::Rename => {
                if merge::keeps_its_place(node.is_dir(), node.state().lower.is_some()) {
                    return Err(Errno::XDEV);
                }
                let plan = merge::plan_rename(RenameCase {
                    exchange: false,
                    directory: node.is_dir(),
                    source_in_lower: self.in_lower(parent, name)?,
                    target_is_whiteout: false,
                });
                let opaque = node.is_dir() && parent.has_lower_dir();
                deed = Deed::Rename { plan, opaque };
            }
            _ => {}
        }
        Ok(above(node, node.upper().is_none(), deed))
    }

    fn foresee_remove(&self, parent: &Arc<Node>, name: &[u8], directory: bool) -> Result<Foresight> {
        self.removable(parent, name, directory)?;
        let (node, _) = self.lookup_in(parent, name)?;
        if directory {
            self.check_empty(&node)?;
        }
        let in_lower = self.in_lower(parent, name)?;
        let in_upper = node.upper().is_some();
        let deed = Deed::Remove(merge::plan_remove(in_upper, in_lower));
        Ok(above(&node, false, deed))
    }

    fn foresee_create(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Foresight> {
        if self.look(parent, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let whiteout = parent.upper().is_some()
            && self.look_upper(&*self.dirs.get(parent, Layer::Upper)?, name)? == InUpper::Whiteout;
        let plan = if whiteout {
            CreatePlan::InWork
        } else {
            CreatePlan::InUpper
        };
        let inside = usize::from(parent.upper().is_none());
        let ancestors = missing_above(parent).len().saturating_add(inside);
        Ok(Foresight {
            ancestors,
            object: false,
            deed: Deed::Create(plan),
        })
    }
}

/// With the copies that `node` needs: those above it, and perhaps itself.
fn above(node: &Node, object: bool, deed: Deed) -> Foresight {
    Foresight {
        ancestors: missing_above(node).len(),
        object,
        deed,
    }
}
