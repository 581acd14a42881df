//! Owner and mode in an attribute, for stores in which the real ones cannot be had: what container engines unpack with
//! `force_mask`, what fuse-overlayfs writes with `xattr_permissions=`.
//!
//! The value is `uid:gid:mode`, the mode in octal; newer engines add `:type`, which is ignored as fuse-overlayfs does.
//! A layer has such attributes if its root has one.

/// The names under which a statement is found. Where an object has several, the first counts, as in fuse-overlayfs.
pub const NAMES: [&[u8]; 3] = [SECURITY, FUSE_OVERLAYFS, CONTAINERS];
/// Written by `xattr_permissions=1`; it takes CAP_SYS_ADMIN.
pub const SECURITY: &[u8] = b"security.fuseoverlayfs.override_stat";
/// Written by `xattr_permissions=2` of older fuse-overlayfs.
pub const FUSE_OVERLAYFS: &[u8] = b"user.fuseoverlayfs.override_stat";
/// Written by container engines, and by `xattr_permissions=2` of newer fuse-overlayfs.
pub const CONTAINERS: &[u8] = b"user.containers.override_stat";

/// The owner and the permission bits (07777) that an object is meant to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
}

impl Statement {
    /// Reads a value; `None` if it is not of the form.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = str::from_utf8(value).ok()?;
        let mut parts = text.trim_end_matches(['\0', '\n']).split(':');
        let mut id = || parts.next()?.parse::<u32>().ok().filter(|id| *id != u32::MAX);
        let (uid, gid) = (id()?, id()?);
        // Some writers put the type bits in.
        let mode = u32::from_str_radix(parts.next()?, 8).ok()? & 0o7777;
        Some(Self { uid, gid, mode })
    }

    /// The value to write.
    pub fn text(&self) -> String {
        format!("{}:{}:{:04o}", self.uid, self.gid, self.mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_in_use() {
        let parse = |text: &str| Statement::parse(text.as_bytes());
        let expected = Some(Statement {
            uid: 12,
            gid: 34,
            mode: 0o4751,
        });
        for text in [
            "12:34:4751",
            "12:34:04751",
            "12:34:104751",
            "12:34:04751:file",
            "12:34:04751:char-1-3:more",
            "12:34:4751\0",
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        for bad in [
            "",
            "12",
            "12:34",
            "12:34:",
            "12:34:888",
            "-1:34:755",
            "4294967295:0:755",
            "12:34:755x",
            " 12:34:755",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(Statement::parse(&[0xff, b':']), None);
    }

    #[test]
    fn what_is_written_is_read() {
        for mode in [0, 0o644, 0o7777] {
            let stated = Statement {
                uid: 4_294_967_294,
                gid: 0,
                mode,
            };
            assert_eq!(Statement::parse(stated.text().as_bytes()), Some(stated));
        }
    }
}
