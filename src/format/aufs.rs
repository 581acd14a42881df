//! The marks by which aufs, and after it every archive of an image layer, says what is not there any more: names beside
//! those of the objects. The kernel's overlay knows none of them.

/// What the name of a mark begins with: `.wh.NAME` removes `NAME`.
pub const MARK: &[u8] = b".wh.";
/// What the names of marks begin with that are no names of something removed.
pub const META_MARK: &[u8] = b".wh..wh.";
/// The mark that empties its directory.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
