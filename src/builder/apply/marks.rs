//! Nothing in a layer's data may act as a mark of an overlay once the layer is a lower.

use std::borrow::Cow;

use crate::builder::Xattr;
use crate::format::{Namespace, marks, statement};

/// Marks of fuse-overlayfs, which knows no way to escape them.
const FOREIGN: &[&[u8]] = &[marks::FUSE_OVERLAYFS, statement::CONTAINERS];

/// The name under which an attribute of that name in a layer's data is kept; `None` if it cannot be.
///
/// `trusted.overlay.x` becomes `trusted.overlay.overlay.x`, which the mount shows as `trusted.overlay.x` again.
pub(super) fn kept_name(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    if FOREIGN.iter().any(|mark| name.starts_with(mark)) {
        return None;
    }
    for namespace in [Namespace::Trusted, Namespace::User] {
        if name.starts_with(namespace.prefix()) {
            return Some(namespace.to_real(name));
        }
    }
    Some(Cow::Borrowed(name))
}

/// Renames attributes of a layer's data to the names under which they are kept; answers those left out.
pub(super) fn keep(xattrs: Vec<Xattr>) -> (Vec<Xattr>, Vec<Vec<u8>>) {
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    for xattr in xattrs {
        match kept_name(&xattr.name).map(Cow::into_owned) {
            Some(name) => kept.push(Xattr {
                name,
                value: xattr.value,
            }),
            None => dropped.push(xattr.name),
        }
    }
    (kept, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_a_mark() {
        assert_eq!(
            kept_name(b"trusted.overlay.opaque").unwrap(),
            &b"trusted.overlay.overlay.opaque"[..]
        );
        assert_eq!(
            kept_name(b"user.overlay.overlay.x").unwrap(),
            &b"user.overlay.overlay.overlay.x"[..]
        );
        assert_eq!(kept_name(b"user.fuseoverlayfs.opaque"), None);
        assert_eq!(kept_name(b"user.overlay").unwrap(), &b"user.overlay"[..]);
    }
}
