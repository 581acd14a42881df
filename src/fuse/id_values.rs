//! The ids inside attribute values: the root user for whom a file capability counts, and the users and groups named in
//! a POSIX ACL. Pure: bytes in, bytes out.

use std::borrow::Cow;

use super::ids::IdMap;
use crate::sys::{Errno, Result};

const CAPABILITY: &[u8] = b"security.capability";
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// True for the attributes that hold POSIX ACLs.
pub(super) fn is_acl(name: &[u8]) -> bool {
    ACLS.contains(&name)
}

/// A value of the layers as the view has it.
pub(super) fn to_view<'a>(ids: &IdMap, name: &[u8], value: &'a [u8]) -> Cow<'a, [u8]> {
    if name == CAPABILITY {
        capability(value, |root| Some(ids.user_in_view(root))).map_or(Cow::Borrowed(value), Cow::Owned)
    } else if is_acl(name) {
        let user = |id| Some(ids.user_in_view(id));
        let group = |id| Some(ids.group_in_view(id));
        acl(value, user, group).map_or(Cow::Borrowed(value), Cow::Owned)
    } else {
        Cow::Borrowed(value)
    }
}

/// A value that a caller gives, as the layers are to hold it.
///
/// # Errors
/// EINVAL if an id in it has no place in the layers.
pub(super) fn to_layers<'a>(ids: &IdMap, name: &[u8], value: &'a [u8]) -> Result<Cow<'a, [u8]>> {
    let changed = if name == CAPABILITY {
        capability(value, |root| ids.user_in_layers(root))
    } else if is_acl(name) {
        acl(value, |id| ids.user_in_layers(id), |id| ids.group_in_layers(id))
    } else {
        Changed::No
    };
    match changed {
        Changed::No => Ok(Cow::Borrowed(value)),
        Changed::To(value) => Ok(Cow::Owned(value)),
        Changed::Impossible => Err(Errno::INVAL),
    }
}

/// What became of a value.
#[derive(Debug, PartialEq, Eq)]
enum Changed {
    /// It is not of the known form, or means the same on both sides.
    No,
    /// Another value.
    To(Vec<u8>),
    /// An id in it has no counterpart.
    Impossible,
}

impl Changed {
    fn map_or<T>(self, same: T, other: impl FnOnce(Vec<u8>) -> T) -> T {
        match self {
            Self::To(value) => other(value),
            Self::No | Self::Impossible => same,
        }
    }
}

/// `struct vfs_ns_cap_data`: a word with version and flags, two pairs of masks, and from version 3 on the user that is
/// root where the capability counts.
const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const SIZE_2: usize = 20;

/// Gives a capability another root. Version 2 has none: it counts for the root of the server's namespace, and so for that
/// of every namespace in it. It stays as it is, since an engine reads it there and puts it into a layer.
fn capability(value: &[u8], root: impl FnOnce(u32) -> Option<u32>) -> Changed {
    let Some((body, rest)) = value.split_at_checked(SIZE_2) else {
        return Changed::No;
    };
    let Some((magic, masks)) = body.split_first_chunk::<4>() else {
        return Changed::No;
    };
    let magic = u32::from_le_bytes(*magic);
    let old = match (magic & REVISION_MASK, rest) {
        (REVISION_3, [a, b, c, d]) => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => return Changed::No,
    };
    let Some(new) = root(old) else {
        return Changed::Impossible;
    };
    if new == old {
        return Changed::No;
    }
    let revision = if new == 0 { REVISION_2 } else { REVISION_3 };
    let mut changed = Vec::with_capacity(SIZE_2 + 4);
    changed.extend_from_slice(&(revision | magic & !REVISION_MASK).to_le_bytes());
    changed.extend_from_slice(masks);
    if new != 0 {
        changed.extend_from_slice(&new.to_le_bytes());
    }
    Changed::To(changed)
}

/// `struct posix_acl_xattr_header` and `posix_acl_xattr_entry`.
const ACL_VERSION: u32 = 2;
const ENTRY: usize = 8;
const TAG_USER: u16 = 0x02;
const TAG_GROUP: u16 = 0x08;

/// Puts other ids into an ACL's entries for named users and groups.
fn acl(value: &[u8], user: impl Fn(u32) -> Option<u32>, group: impl Fn(u32) -> Option<u32>) -> Changed {
    let Some((version, entries)) = value.split_first_chunk::<4>() else {
        return Changed::No;
    };
    if u32::from_le_bytes(*version) != ACL_VERSION {
        return Changed::No;
    }
    let (entries, rest) = entries.as_chunks::<ENTRY>();
    if !rest.is_empty() {
        return Changed::No;
    }
    let mut changed = version.to_vec();
    changed.reserve(value.len());
    for [tag_low, tag_high, perm_low, perm_high, id @ ..] in entries {
        let old = u32::from_le_bytes(*id);
        let new = match u16::from_le_bytes([*tag_low, *tag_high]) {
            TAG_USER => user(old),
            TAG_GROUP => group(old),
            _ => Some(old),
        };
        let Some(new) = new else {
            return Changed::Impossible;
        };
        changed.extend_from_slice(&[*tag_low, *tag_high, *perm_low, *perm_high]);
        changed.extend_from_slice(&new.to_le_bytes());
    }
    if changed == value {
        Changed::No
    } else {
        Changed::To(changed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ids::OVERFLOW;
    use super::*;

    /// As `--userns=keep-id` of uid 1000 has it, groups shifted by 100.
    fn ids() -> IdMap {
        let mut ids = IdMap::default();
        ids.map_users(":0:1:1000:1000:0:1").unwrap();
        ids.map_groups(":0:100:50").unwrap();
        ids
    }

    fn cap(revision: u32, root: Option<u32>) -> Vec<u8> {
        let mut value = (revision | 1).to_le_bytes().to_vec();
        value.extend(1..=16);
        value.extend(root.iter().flat_map(|root| root.to_le_bytes()));
        value
    }

    fn view(name: &[u8], value: &[u8]) -> Vec<u8> {
        to_view(&ids(), name, value).into_owned()
    }

    fn layers(name: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        to_layers(&ids(), name, value).map(Cow::into_owned)
    }

    #[test]
    fn a_capability_counts_for_the_root_that_shows() {
        let name = CAPABILITY;
        // One without a root is the same on both sides.
        assert_eq!(view(name, &cap(REVISION_2, None)), cap(REVISION_2, None));
        assert_eq!(layers(name, &cap(REVISION_2, None)), Ok(cap(REVISION_2, None)));
        // The layers' root is 1 in the view: what the container's root sets needs no root in the layers.
        assert_eq!(layers(name, &cap(REVISION_3, Some(1))), Ok(cap(REVISION_2, None)));
        assert_eq!(view(name, &cap(REVISION_3, Some(5))), cap(REVISION_3, Some(6)));
        assert_eq!(
            layers(name, &cap(REVISION_3, Some(6))),
            Ok(cap(REVISION_3, Some(5)))
        );
        // The layers' 1000 is the view's 0.
        assert_eq!(view(name, &cap(REVISION_3, Some(1000))), cap(REVISION_2, None));
        // Nobody's in the view; and nobody's in the layers.
        assert_eq!(
            view(name, &cap(REVISION_3, Some(5000))),
            cap(REVISION_3, Some(OVERFLOW))
        );
        assert_eq!(layers(name, &cap(REVISION_3, Some(5000))), Err(Errno::INVAL));
    }

    #[test]
    fn other_capabilities_stay() {
        for odd in [
            cap(0x0100_0000, None)[..12].to_vec(),
            cap(REVISION_2, Some(3)),
            cap(REVISION_3, None),
            cap(0x0400_0000, Some(3)),
            Vec::new(),
        ] {
            assert_eq!(view(CAPABILITY, &odd), odd);
            assert_eq!(layers(CAPABILITY, &odd), Ok(odd));
        }
    }

    fn acl_of(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = ACL_VERSION.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(perm.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    #[test]
    fn the_named_of_an_acl() {
        let none = u32::MAX;
        let make = |user, group| {
            acl_of(&[
                (1, 7, none),
                (TAG_USER, 6, user),
                (4, 5, none),
                (TAG_GROUP, 4, group),
                (0x10, 7, none),
                (0x20, 0, none),
            ])
        };
        for name in ACLS {
            assert_eq!(view(name, &make(7, 8)), make(8, 108));
            assert_eq!(layers(name, &make(8, 108)), Ok(make(7, 8)));
            assert_eq!(view(name, &make(2000, 60)), make(OVERFLOW, OVERFLOW));
            assert_eq!(layers(name, &make(2000, 108)), Err(Errno::INVAL));
            assert_eq!(layers(name, &make(8, 8)), Err(Errno::INVAL));
            // Nobody named, nothing to do.
            let plain = acl_of(&[(1, 7, none), (4, 5, none), (0x20, 0, none)]);
            assert_eq!(view(name, &plain), plain);
            // The size alone tells what is no ACL.
            let mut odd = make(7, 8);
            odd.pop();
            assert_eq!(view(name, &odd), odd);
        }
        assert_eq!(view(b"user.x", &make(7, 8)), make(7, 8));
    }

    proptest! {
        #[test]
        fn any_bytes(name in 0..3_usize, value in prop::collection::vec(any::<u8>(), 0..64)) {
            let name = [CAPABILITY, ACLS[0], ACLS[1]][name];
            prop_assert!(view(name, &value).len().abs_diff(value.len()) <= 4);
            if let Ok(stored) = layers(name, &value) {
                prop_assert!(stored.len().abs_diff(value.len()) <= 4);
            }
        }

        #[test]
        fn acls_come_back(entries in prop::collection::vec((0..0x21_u16, 0..8_u16, 0..1000_u32), 0..9)) {
            let entries: Vec<_> = entries.iter().map(|(tag, perm, id)| (*tag, *perm, id % 50)).collect();
            let value = acl_of(&entries);
            let shown = view(ACLS[0], &value);
            prop_assert_eq!(layers(ACLS[0], &shown).unwrap(), value);
        }
    }
}
