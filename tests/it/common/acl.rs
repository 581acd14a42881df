//! POSIX ACLs in the form of their xattr, `system.posix_acl_access` and `system.posix_acl_default`.

pub const USER_OBJ: u16 = 0x01;
pub const USER: u16 = 0x02;
pub const GROUP_OBJ: u16 = 0x04;
pub const GROUP: u16 = 0x08;
pub const MASK: u16 = 0x10;
pub const OTHER: u16 = 0x20;

pub const ACCESS: &str = "system.posix_acl_access";
pub const DEFAULT: &str = "system.posix_acl_default";

/// Entries of (tag, id, rwx bits); the id counts only for `USER` and `GROUP`.
pub fn of(entries: &[(u16, u32, u16)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, id, perm) in entries {
        let id = if matches!(*tag, USER | GROUP) {
            *id
        } else {
            u32::MAX
        };
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
