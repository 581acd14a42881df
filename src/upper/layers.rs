//! Lower, upper and work of a view that is not mounted.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::reach::Tree;
use super::{Result, UpperError};
use crate::builder::diff::{self, Change, Names, Upper};
use crate::builder::{TreePath, Xattr};
use crate::format::{Marks, Namespace};
use crate::mount::setup::{self, Idle};
use crate::sys::xattr::Target;

/// The layers, open and locked: as long as this lives, nobody can mount the upper.
#[derive(Debug)]
pub struct Layers {
    pub(super) idle: Idle,
    namespace: Option<Namespace>,
    /// Those whose marks mean something.
    pub(super) namespaces: Vec<Namespace>,
}

impl Layers {
    /// Opens and locks the layers. `namespace` is where the mount keeps its marks; with `None` the upper tells.
    ///
    /// # Errors
    /// As a mount; a layer that a live mount uses; an upper that was used with `index=on`.
    pub fn open(lower: &Path, upper: &Path, work: &Path, namespace: Option<Namespace>) -> Result<Self> {
        let idle = setup::check_idle(lower, upper, work)?;
        let namespaces = match namespace {
            Some(namespace) => vec![namespace],
            None => diff::tell_namespaces(idle.upper.as_fd())?,
        };
        Ok(Self {
            idle,
            namespace,
            namespaces,
        })
    }

    /// Tells each change that the upper makes to the lower, as [`diff::diff_upper`].
    ///
    /// # Errors
    /// As [`diff::diff_upper`].
    pub fn diff(&self, each: &mut dyn FnMut(Change) -> crate::builder::Result<()>) -> Result<()> {
        let links = self.idle.layer.as_ref().and_then(|layer| layer.names.as_ref());
        let names = links.map(|links| |ino| links.names_of(ino));
        let upper = Upper {
            upper: self.idle.upper.as_fd(),
            lower: self.idle.lower.as_fd(),
            init: None,
            namespace: self.namespace,
            names: names.as_ref().map(|names| names as &Names<'_>),
        };
        Ok(diff::diff_upper(upper, each)?)
    }

    /// All changes, as [`Layers::diff`] tells them.
    ///
    /// # Errors
    /// As [`Layers::diff`].
    pub fn changes(&self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        self.diff(&mut |change| {
            changes.push(change);
            Ok(())
        })?;
        Ok(changes)
    }

    /// The upper's root, for who wants to look at what changed.
    pub fn upper_fd(&self) -> BorrowedFd<'_> {
        self.idle.upper.as_fd()
    }

    /// The lower's root.
    pub fn lower_fd(&self) -> BorrowedFd<'_> {
        self.idle.lower.as_fd()
    }

    pub(super) fn lower(&self) -> Tree<'_> {
        Tree {
            root: self.idle.lower.as_fd(),
            name: "lower",
        }
    }

    pub(super) fn upper(&self) -> Tree<'_> {
        Tree {
            root: self.idle.upper.as_fd(),
            name: "upper",
        }
    }

    pub(super) fn work(&self) -> Tree<'_> {
        Tree {
            root: self.idle.work.as_fd(),
            name: "work directory",
        }
    }

    /// The private marks of an object of the upper.
    pub(super) fn marks(&self, target: Target<'_>, path: &TreePath) -> Result<Marks> {
        let mut all = Marks::default();
        for namespace in &self.namespaces {
            let marks = namespace.read(target).map_err(super::error::call(
                "read the attributes of",
                "upper",
                path,
            ))?;
            all.opaque |= marks.opaque;
            all.redirect |= marks.redirect;
            all.metacopy |= marks.metacopy;
            all.whiteout |= marks.whiteout;
            all.origin |= marks.origin;
            all.impure |= marks.impure;
        }
        Ok(all)
    }

    /// The attributes of an object of the upper that are part of the view: all but the private marks. Those that are
    /// escaped stay so, as the lower has them in the same form (K100).
    pub(super) fn shown(&self, mut xattrs: Vec<Xattr>) -> Vec<Xattr> {
        xattrs.retain(|one| !self.is_private(&one.name));
        xattrs
    }

    /// True for an attribute that means something to overlays only.
    pub(super) fn is_private(&self, name: &[u8]) -> bool {
        self.namespaces.iter().any(|namespace| namespace.is_private(name))
    }

    /// Refuses a lower that other trees share.
    pub(super) fn refuse_image_layer(&self) -> Result<()> {
        if self.idle.layer.is_none() {
            return Ok(());
        }
        let [lower, ..] = &self.idle.paths;
        Err(UpperError::Refused(format!(
            "{} is the tree of an image layer, which does not change: make a new layer of the upper ('plyfs container \
             commit', or 'plyfs layer apply --parent')",
            lower.display()
        )))
    }
}
