//! What a container engine may ask of a view beyond the words of the kernel's overlay.

use crate::fuse::IdMap;
use crate::overlay::{OwnershipMode, StatedIn};
use crate::sys::fusedev::Labels;

/// How the view presents its objects. The default is a view as the kernel's overlay shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presentation {
    /// Which owner of the layers shows as which: `uidmapping=`, `gidmapping=`, `squash_to_root`, `squash_to_uid=`,
    /// `squash_to_gid=`
    pub ids: IdMap,
    /// Owner and mode are kept in an attribute: `xattr_permissions=`
    pub stated: Option<StatedIn>,
    /// There are no POSIX ACLs: `noacl`
    pub no_acl: bool,
    /// Directories show one link: `static_nlink`
    pub static_nlink: bool,
    /// `context=`, `fscontext=`, `defcontext=`, `rootcontext=`
    pub labels: Labels,
}

impl Presentation {
    /// How the overlay is to keep owners and modes.
    pub fn ownership(&self) -> OwnershipMode {
        match self.stated {
            Some(place) => OwnershipMode::Stated(place),
            None if self.ids.is_squashed() => OwnershipMode::Indifferent,
            None => OwnershipMode::Real,
        }
    }

    /// True for a view without ACLs. Where modes are stated there are none either: an ACL is a part of the real mode.
    pub fn has_no_acls(&self) -> bool {
        self.no_acl || self.stated.is_some()
    }
}
