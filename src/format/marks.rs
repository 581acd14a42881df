//! The private extended attributes, and how names are escaped so that users may have attributes of that
//! very name (K100).

use std::borrow::Cow;

use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, Result};

/// Where the private marks of a mount live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `trusted.overlay.`: only a privileged server may use it.
    Trusted,
    /// `user.overlay.` (the `userxattr` option).
    User,
}

/// The prefixes of the private attributes of all overlays: the kernel's two, which plyfs uses too, and that of
/// fuse-overlayfs.
pub const ALL_PREFIXES: &[&[u8]] = &[b"trusted.overlay.", b"user.overlay.", FUSE_OVERLAYFS];
/// What the private attributes of fuse-overlayfs begin with.
pub const FUSE_OVERLAYFS: &[u8] = b"user.fuseoverlayfs.";

const OPAQUE: &[u8] = b"opaque";
const ORIGIN: &[u8] = b"origin";
const IMPURE: &[u8] = b"impure";
const REDIRECT: &[u8] = b"redirect";
const METACOPY: &[u8] = b"metacopy";
const WHITEOUT: &[u8] = b"whiteout";
const ESCAPE: &[u8] = b"overlay.";

/// The private marks found on one object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// A directory that hides the lower's (exactly the value `y`, K23).
    pub opaque: bool,
    /// A directory that takes its lower from elsewhere; not supported (K26).
    pub redirect: bool,
    /// A file without its data; not supported (K27).
    pub metacopy: bool,
    /// A regular file that stands for a whiteout when it is empty (K31).
    pub whiteout: bool,
    /// There is an origin to read.
    pub origin: bool,
    /// Entries of this directory may have origins (K48).
    pub impure: bool,
}

/// Reads the marks of an object under any of these prefixes: one call for an object that has no attributes.
///
/// # Errors
/// As listxattr(2) and getxattr(2).
pub fn read(prefixes: &[&[u8]], target: Target<'_>) -> Result<Marks> {
    let mut marks = Marks::default();
    for name in xattr::names(&xattr::list(target)?) {
        let Some(mark) = prefixes.iter().find_map(|prefix| name.strip_prefix(*prefix)) else {
            continue;
        };
        match mark {
            OPAQUE => marks.opaque |= value(target, name)?.as_deref() == Some(b"y"),
            REDIRECT => marks.redirect = true,
            METACOPY => marks.metacopy = true,
            WHITEOUT => marks.whiteout = true,
            ORIGIN => marks.origin = true,
            IMPURE => marks.impure = true,
            _ => {}
        }
    }
    Ok(marks)
}

fn value(target: Target<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    match xattr::get(target, name) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The real name behind the name `view` that a user gives: `X.foo` becomes `X.overlay.foo` for each prefix `X.`.
#[must_use]
pub fn to_real<'a>(prefixes: &[&[u8]], view: &'a [u8]) -> Cow<'a, [u8]> {
    let private = prefixes
        .iter()
        .find_map(|prefix| Some((*prefix, view.strip_prefix(*prefix)?)));
    match private {
        Some((prefix, rest)) => Cow::Owned([prefix, ESCAPE, rest].concat()),
        None => Cow::Borrowed(view),
    }
}

/// The name that users see for the real name `real`; `None` for a private mark.
#[must_use]
pub fn to_view<'a>(prefixes: &[&[u8]], real: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let private = prefixes
        .iter()
        .find_map(|prefix| Some((*prefix, real.strip_prefix(*prefix)?)));
    match private {
        Some((prefix, rest)) => rest
            .strip_prefix(ESCAPE)
            .map(|rest| Cow::Owned([prefix, rest].concat())),
        None => Some(Cow::Borrowed(real)),
    }
}

impl Namespace {
    /// The prefix of every private name, as a list of one.
    pub fn prefixes(self) -> &'static [&'static [u8]] {
        match self {
            Self::Trusted => &[b"trusted.overlay."],
            Self::User => &[b"user.overlay."],
        }
    }

    /// The prefix of every private name.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        }
    }

    fn full(self, mark: &[u8]) -> Vec<u8> {
        [self.prefix(), mark].concat()
    }

    /// The real name behind the name `view` that a user gives: `X.foo` becomes `X.overlay.foo`.
    pub fn to_real(self, view: &[u8]) -> Cow<'_, [u8]> {
        to_real(self.prefixes(), view)
    }

    /// The name that users see for the real name `real`; `None` for a private mark.
    pub fn to_view(self, real: &[u8]) -> Option<Cow<'_, [u8]>> {
        to_view(self.prefixes(), real)
    }

    /// True for a private mark, which is neither shown nor copied up.
    pub fn is_private(self, real: &[u8]) -> bool {
        self.to_view(real).is_none()
    }

    /// Reads the private marks of an object: one call for an object that has no attributes.
    ///
    /// # Errors
    /// As listxattr(2) and getxattr(2).
    pub fn read(self, target: Target<'_>) -> Result<Marks> {
        read(self.prefixes(), target)
    }

    /// The bytes of the origin mark.
    ///
    /// # Errors
    /// As getxattr(2), but an absent one is `None`.
    pub fn read_origin(self, target: Target<'_>) -> Result<Option<Vec<u8>>> {
        value(target, &self.full(ORIGIN))
    }

    /// Makes a directory opaque.
    ///
    /// # Errors
    /// As setxattr(2).
    pub fn set_opaque(self, target: Target<'_>) -> Result<()> {
        xattr::set(target, &self.full(OPAQUE), b"y", 0)
    }

    /// Notes that entries of this directory may have origins.
    ///
    /// # Errors
    /// As setxattr(2).
    pub fn set_impure(self, target: Target<'_>) -> Result<()> {
        xattr::set(target, &self.full(IMPURE), b"y", 0)
    }

    /// Remembers where a copy came from.
    ///
    /// # Errors
    /// As setxattr(2); EPERM on symlinks and special files in the `user.` namespace (K67).
    pub fn set_origin(self, target: Target<'_>, origin: &[u8]) -> Result<()> {
        xattr::set(target, &self.full(ORIGIN), origin, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_to_any_depth() {
        let ns = Namespace::Trusted;
        let real = ns.to_real(b"trusted.overlay.opaque");
        assert_eq!(&*real, b"trusted.overlay.overlay.opaque");
        assert_eq!(ns.to_view(&real).as_deref(), Some(&b"trusted.overlay.opaque"[..]));
        let deeper = ns.to_real(&real).into_owned();
        assert_eq!(deeper, b"trusted.overlay.overlay.overlay.opaque");
        assert_eq!(ns.to_view(&deeper).as_deref(), Some(&*real));
    }

    #[test]
    fn with_marks_of_other_tools_all_namespaces_are_private() {
        for prefix in ALL_PREFIXES {
            let name = [prefix, &b"opaque"[..]].concat();
            assert_eq!(to_view(ALL_PREFIXES, &name), None);
            let real = to_real(ALL_PREFIXES, &name);
            assert_eq!(&*real, [prefix, &b"overlay.opaque"[..]].concat());
            assert_eq!(to_view(ALL_PREFIXES, &real).as_deref(), Some(&*name));
        }
        assert_eq!(
            &*to_real(ALL_PREFIXES, b"user.containers.x"),
            b"user.containers.x"
        );
    }

    #[test]
    fn only_the_active_namespace_is_private() {
        assert!(Namespace::Trusted.is_private(b"trusted.overlay.opaque"));
        assert!(!Namespace::Trusted.is_private(b"user.overlay.opaque"));
        assert!(Namespace::User.is_private(b"user.overlay.origin"));
        assert!(!Namespace::User.is_private(b"user.overlayopaque"));
        assert_eq!(
            &*Namespace::User.to_real(b"trusted.overlay.x"),
            b"trusted.overlay.x"
        );
    }
}
