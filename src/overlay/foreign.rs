//! Marks of other tools in the lowers: what container engines unpack, and what fuse-overlayfs and other views leave.
//!
//! With [`LayerConfig::foreign`](super::LayerConfig) these count, in every lower:
//!
//! ```text
//!   .wh.NAME                             NAME of the lowers below is hidden; NAME in the same directory shows
//!   .wh..wh..opq                         the directory hides those of the lowers below it
//!   trusted.overlay.opaque=y, user.overlay.opaque=y, user.fuseoverlayfs.opaque=y      the same
//! ```
//!
//! On the root of a lower the last two count as well: an image layer may empty the whole root. Names that begin with
//! `.wh.` never show and cannot be made, and the private attributes of all three prefixes are hidden. The upper is
//! written in the form of the kernel's overlay; nothing changes there.
//!
//! A directory of a lower is listed once for its marks, when the first name below it is asked for; that of the lowest
//! lower is not, as it has nothing to hide.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::Overlay;
use super::node::{Node, NodeId};
use crate::format::aufs::{MARK, META_MARK, OPAQUE};
use crate::format::marks;
use crate::sys::xattr::Target;
use crate::sys::{Errno, Result, at, dirent, memory, xattr};

/// Directories whose marks are remembered; most have none and take next to no room.
const KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// The names that the marks in one directory of a lower hide in the lowers below it.
pub(super) type Hides = HashSet<Box<[u8]>>;

/// By directory and lower; `None` for one without marks.
type Known = LruCache<(NodeId, u16), Option<Arc<Hides>>>;

/// What is known of the marks in directories of lowers.
#[derive(Debug)]
pub(super) struct Foreign(Mutex<Known>);

impl Default for Foreign {
    fn default() -> Self {
        Self(Mutex::new(memory::cache(KEPT)))
    }
}

impl Foreign {
    /// A directory is known no more.
    pub(super) fn forget(&self, node: &Node) {
        let parts = node.parts();
        let mut known = self.0.lock();
        for layer in parts.iter().flat_map(|parts| parts.iter()) {
            known.pop(&(node.id, layer));
        }
    }
}

/// The name that a mark hides; `None` for what is no mark, or hides nothing.
pub(super) fn hidden_by(name: &[u8]) -> Option<&[u8]> {
    // What hides a mark is of no interest: marks never show.
    name.strip_prefix(MARK)
        .filter(|hidden| !hidden.is_empty() && !name.starts_with(META_MARK))
}

/// True if the root of a lower hides the lowers below it.
///
/// # Errors
/// As the calls made.
pub(super) fn is_opaque_root(root: &OwnedFd) -> Result<bool> {
    let attributes = marks::read(marks::ALL_PREFIXES, xattr::of(root))?;
    Ok(attributes.opaque || has_opaque_mark(root, b".")?)
}

/// True if the directory `name` in `dir` has the mark in it.
fn has_opaque_mark(dir: impl AsFd, name: &[u8]) -> Result<bool> {
    // One call, which follows no symlink and leaves no mount.
    let path = [name, b"/", OPAQUE].concat();
    match at::look_beneath(dir, &path) {
        Ok(found) => Ok(found),
        // Not allowed to look, or something else there by now.
        Err(Errno::ACCESS | Errno::LOOP | Errno::XDEV | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

impl Overlay {
    /// True for a name that never shows.
    pub(super) fn is_mark(&self, name: &[u8]) -> bool {
        self.foreign.is_some() && name.starts_with(MARK)
    }

    /// Refuses to make a name that would be a mark.
    ///
    /// # Errors
    /// EINVAL, as fuse-overlayfs answers.
    pub(super) fn refuse_mark(&self, name: &[u8]) -> Result<()> {
        if self.is_mark(name) {
            Err(Errno::INVAL)
        } else {
            Ok(())
        }
    }

    /// True if a directory of a lower hides those of the lowers below it by a mark that lies in it.
    pub(super) fn is_marked_opaque(&self, dir: impl AsFd, name: &[u8]) -> Result<bool> {
        match self.foreign {
            Some(_) => has_opaque_mark(dir, name),
            None => Ok(false),
        }
    }

    /// True if a mark in the directory `dir`, which is `node`'s in a lower, hides `name` in the lowers below.
    pub(super) fn is_marked_hidden(
        &self,
        node: &Node,
        layer: u16,
        dir: &OwnedFd,
        name: &[u8],
    ) -> Result<bool> {
        let Some(foreign) = &self.foreign else {
            return Ok(false);
        };
        let key = (node.id, layer);
        if let Some(known) = foreign.0.lock().get(&key) {
            return Ok(known.as_ref().is_some_and(|hides| hides.contains(name)));
        }
        let mut hides = Hides::new();
        let listed = at::reopen_dir(dir).and_then(|dir| {
            dirent::read_raw(dir, |raw| {
                hides.extend(hidden_by(raw.name).map(Box::from));
                Ok::<_, Errno>(true)
            })
        });
        match listed {
            // Names in it may be looked up, but not listed: what nobody can list has no marks.
            Ok(()) | Err(Errno::ACCESS) => {}
            Err(errno) => return Err(errno),
        }
        let found = hides.contains(name);
        let hides = (!hides.is_empty()).then(|| Arc::new(hides));
        foreign.0.lock().put(key, hides);
        Ok(found)
    }

    /// The prefixes of private attributes.
    pub(super) fn private(&self) -> &'static [&'static [u8]] {
        match self.foreign {
            Some(_) => marks::ALL_PREFIXES,
            None => self.marks.prefixes(),
        }
    }

    /// Reads the private marks of an object.
    ///
    /// # Errors
    /// As listxattr(2) and getxattr(2).
    pub(super) fn read_marks(&self, target: Target<'_>) -> Result<marks::Marks> {
        marks::read(self.private(), target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_name_a_mark_hides() {
        for (name, hidden) in [
            (&b".wh.f"[..], Some(&b"f"[..])),
            (b".wh..hidden", Some(b".hidden")),
            (b".wh..opq", Some(b".opq")),
            (b".wh.", None),
            (b".wh..wh..opq", None),
            (b".wh..wh.plnk", None),
            (b".whf", None),
            (b"f", None),
        ] {
            assert_eq!(hidden_by(name), hidden, "{}", name.escape_ascii());
        }
    }
}
