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

impl Namespace {
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
        match view.strip_prefix(self.prefix()) {
            Some(rest) => Cow::Owned([self.prefix(), ESCAPE, rest].concat()),
            None => Cow::Borrowed(view),
        }
    }

    /// The name that users see for the real name `real`; `None` for a private mark.
    pub fn to_view(self, real: &[u8]) -> Option<Cow<'_, [u8]>> {
        match real.strip_prefix(self.prefix()) {
            None => Some(Cow::Borrowed(real)),
            Some(rest) => rest
                .strip_prefix(ESCAPE)
                .map(|rest| Cow::Owned([self.prefix(), rest].concat())),
        }
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
        let mut marks = Marks::default();
        for name in xattr::names(&xattr::list(target)?) {
            let Some(mark) = name.strip_prefix(self.prefix()) else {
                continue;
            };
            match mark {
                OPAQUE => marks.opaque = self.value(target, OPAQUE)?.as_deref() == Some(b"y"),
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

    fn value(self, target: Target<'_>, mark: &[u8]) -> Result<Option<Vec<u8>>> {
        match xattr::get(target, &self.full(mark)) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The bytes of the origin mark.
    ///
    /// # Errors
    /// As getxattr(2), but an absent one is `None`.
    pub fn read_origin(self, target: Target<'_>) -> Result<Option<Vec<u8>>> {
        self.value(target, ORIGIN)
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
