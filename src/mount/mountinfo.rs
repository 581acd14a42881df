//! `/proc/self/mountinfo`: what is mounted where, read as bytes.
//!
//! It answers without touching the mounts themselves, so a dead or hanging view can be asked about.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount of this process's view of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The kernel's number of this mount, as statx(2) shows it.
    pub id: u64,
    /// The number of the mount it lies on.
    pub parent: u64,
    /// The file system, as `major:minor`: equal for all mounts (also bind mounts) of one.
    pub device: String,
    /// Which directory of its file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// `ext4`, `fuse.plyfs`, ...
    pub kind: String,
    /// The first column of mount(8).
    pub source: OsString,
    /// The options of the mount itself, which begin with `ro` or `rw`.
    pub options: OsString,
    /// The options of its file system.
    pub fs_options: OsString,
}

/// The type of our mounts.
pub const KIND: &str = "fuse.plyfs";

/// All mounts, in the kernel's order.
///
/// # Errors
/// When /proc cannot be read.
pub fn read() -> std::io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The mount that a walk to `point` ends in: the last one made there.
#[must_use]
pub fn topmost<'a>(entries: &'a [MountEntry], point: &Path) -> Option<&'a MountEntry> {
    let here = || entries.iter().filter(|entry| entry.point == point);
    // Usually the last line; but the kernel's order follows the tree, so ask which of them has none on top.
    here()
        .find(|entry| !here().any(|other| other.parent == entry.id))
        .or_else(|| here().next_back())
}

fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda rw`: see proc_pid_mountinfo(5).
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let root = PathBuf::from(unescape(fields.next()?));
    let point = PathBuf::from(unescape(fields.next()?));
    let options = unescape(fields.next()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(unescape(rest.next()?).as_encoded_bytes()).into_owned();
    let source = rest.next().map(unescape).unwrap_or_default();
    let fs_options = rest.next().map(unescape).unwrap_or_default();
    Some(MountEntry {
        id,
        parent,
        device,
        root,
        point,
        kind,
        source,
        options,
        fs_options,
    })
}

fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// Undoes `\040` and its like.
fn unescape(text: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(decoded) => {
                plain.push(decoded);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let text = b"22 1 0:20 / / rw shared:1 - ext4 /dev/root rw\n\
            30 22 0:33 /sub\\040dir /mnt/a\\134b rw,nosuid shared:5 master:1 - fuse.plyfs /srv/my\\040base rw,user_id=0\n";
        let entries = parse(text);
        let [root, view] = entries.as_slice() else {
            panic!("{entries:?}")
        };
        assert_eq!((root.id, root.kind.as_str()), (22, "ext4"));
        assert_eq!(view.root, Path::new("/sub dir"));
        assert_eq!(view.point, Path::new("/mnt/a\\b"));
        assert_eq!(view.kind, KIND);
        assert_eq!(view.source, "/srv/my base");
        assert_eq!(
            (view.options.to_str(), view.fs_options.to_str()),
            (Some("rw,nosuid"), Some("rw,user_id=0"))
        );
    }

    #[test]
    fn the_upper_one_of_two() {
        let text = b"31 30 0:34 / /m rw - fuse.plyfs b rw\n30 22 0:33 / /m rw - fuse.plyfs a rw\n";
        let entries = parse(text);
        assert_eq!(topmost(&entries, Path::new("/m")).unwrap().id, 31);
        assert!(topmost(&entries, Path::new("/n")).is_none());
    }
}
