//! The origin mark: a lower object's file handle in the kernel's form (K42).
//!
//! Decoding a handle needs a privilege, comparing and reading it does not. The handle types of the common
//! file systems carry the inode number in plain sight; where it stands is found out at mount, by looking at
//! handles of objects whose numbers are known.

use std::os::fd::AsFd;

use crate::sys::handle::{self, Handle};
use crate::sys::{dirent, stat};

/// Header of the mark: version, magic, length, flags, handle type, file system UUID.
const HEADER: usize = 4 + 1 + 16;
const MAGIC: u8 = 0xfb;
/// Flags: the handle is in this machine's byte order.
const FLAGS: u8 = if cfg!(target_endian = "big") { 1 } else { 0 };

/// A decoded origin mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    handle: Handle,
    uuid: [u8; 16],
}

impl Origin {
    fn encode(&self) -> Option<Vec<u8>> {
        let len = u8::try_from(HEADER.checked_add(self.handle.bytes.len())?).ok()?;
        let kind = u8::try_from(self.handle.kind).ok()?;
        let mut out = vec![0, MAGIC, len, FLAGS, kind];
        out.extend_from_slice(&self.uuid);
        out.extend_from_slice(&self.handle.bytes);
        Some(out)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let [version, magic, len, flags, kind, rest @ ..] = bytes else {
            return None;
        };
        let (uuid, handle) = rest.split_first_chunk::<16>()?;
        let sound = *version == 0 && *magic == MAGIC && usize::from(*len) == bytes.len();
        // Bit 1: valid in any byte order. Bit 2: the handle of an upper object, which is no origin.
        if !sound || *flags & 1 != FLAGS && *flags & 2 == 0 || *flags & 4 != 0 {
            return None;
        }
        Some(Self {
            handle: Handle {
                kind: i32::from(*kind),
                bytes: handle.to_vec(),
            },
            uuid: *uuid,
        })
    }
}

/// Where in a handle the inode number stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    offset: usize,
    width: usize,
}

impl Layout {
    fn read(self, handle: &Handle) -> Option<u64> {
        let field = handle
            .bytes
            .get(self.offset..self.offset.checked_add(self.width)?)?;
        match self.width {
            4 => field.try_into().ok().map(u32::from_ne_bytes).map(u64::from),
            _ => field.try_into().ok().map(u64::from_ne_bytes),
        }
    }

    fn candidates() -> impl Iterator<Item = Self> {
        [8, 4]
            .into_iter()
            .flat_map(|width| (0..=16).step_by(4).map(move |offset| Self { offset, width }))
    }
}

/// Objects looked at to learn the form of handles.
const SAMPLES: usize = 16;

/// Writes and reads origins of the lowers on one file system.
#[derive(Debug)]
pub struct OriginReader {
    uuid: [u8; 16],
    kind: i32,
    len: usize,
    layout: Layout,
}

impl OriginReader {
    /// Learns from the roots of lowers on one file system, and a few of their names, how it makes handles.
    ///
    /// `None` where it has no handles, or their form is not understood: numbers of copied-up objects then
    /// change over a remount.
    pub fn learn(roots: &[impl AsFd]) -> Option<Self> {
        let first_root = roots.first()?;
        let first = handle::of_name(first_root, b"").ok()?;
        let open = crate::sys::at::reopen_dir(first_root).ok()?;
        let uuid = handle::fs_uuid(&open).unwrap_or([0; 16]);
        let mut samples = Vec::new();
        for root in roots.iter().map(AsFd::as_fd) {
            let Ok(own) = handle::of_name(root, b"") else {
                continue;
            };
            samples.push((own, stat::stat_fd(root).ok()?.ino));
            let names = crate::sys::at::reopen_dir(root).and_then(|open| {
                dirent::read_names(open, |entry| {
                    let stat = stat::stat_at_cached(root, &entry.name)?;
                    if !stat.mount_root
                        && let Ok(handle) = handle::of_name(root, &entry.name)
                    {
                        samples.push((handle, stat.ino));
                    }
                    Ok(samples.len() < SAMPLES)
                })
            });
            if let Err(errno) = names {
                log::debug!("origins: cannot look at a lower's root: {errno}");
            }
            if samples.len() >= SAMPLES {
                break;
            }
        }
        let same_form =
            |handle: &Handle| handle.kind == first.kind && handle.bytes.len() == first.bytes.len();
        let layout = Layout::candidates()
            // A handle holds a generation too, so the number never fills all of it.
            .filter(|layout| layout.width + 4 <= first.bytes.len())
            .find(|layout| {
                samples
                    .iter()
                    .all(|(h, ino)| same_form(h) && layout.read(h) == Some(*ino))
            })?;
        Some(Self {
            uuid,
            kind: first.kind,
            len: first.bytes.len(),
            layout,
        })
    }

    /// True if marks of the one would be taken for marks of the other.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (self.uuid, self.kind, self.len) == (other.uuid, other.kind, other.len)
    }

    /// The mark to store on a copy of `name` in the lower directory `dir`; `None` if it cannot be made.
    pub fn mark_for(&self, dir: impl AsFd, name: &[u8]) -> Option<Vec<u8>> {
        let handle = handle::of_name(dir, name).ok()?;
        Origin {
            handle,
            uuid: self.uuid,
        }
        .encode()
    }

    /// The inode number in a stored mark; `None` if it is not of this file system.
    pub fn number(&self, mark: &[u8]) -> Option<u64> {
        let origin = Origin::decode(mark)?;
        let ours = origin.uuid == self.uuid
            && origin.handle.kind == self.kind
            && origin.handle.bytes.len() == self.len;
        if ours {
            self.layout.read(&origin.handle)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back() {
        let origin = Origin {
            handle: Handle {
                kind: 1,
                bytes: vec![7, 0, 0, 0, 9, 0, 0, 0],
            },
            uuid: [3; 16],
        };
        let bytes = origin.encode().unwrap();
        assert_eq!(bytes.len(), 29);
        assert_eq!(Origin::decode(&bytes), Some(origin));
    }

    #[test]
    fn rubbish_is_no_origin() {
        let good = Origin {
            handle: Handle {
                kind: 1,
                bytes: vec![7; 8],
            },
            uuid: [3; 16],
        }
        .encode()
        .unwrap();
        assert_eq!(Origin::decode(b""), None);
        assert_eq!(Origin::decode(&good[..20]), None, "cut short");
        for at in 0..3 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(Origin::decode(&bad), None, "byte {at} changed");
        }
        let mut upper = good;
        upper[3] |= 4;
        assert_eq!(Origin::decode(&upper), None, "an upper handle");
    }

    #[test]
    fn this_file_system_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let root = std::fs::File::open(dir.path()).unwrap();
        let reader = OriginReader::learn(&[&root]).expect("handles on the test file system");
        let own = reader.mark_for(&root, b"").unwrap();
        assert_eq!(reader.number(&own), Some(stat::stat_fd(&root).unwrap().ino));
        let mark = reader.mark_for(&root, b"b").unwrap();
        assert_eq!(
            reader.number(&mark),
            Some(stat::stat_at(&root, b"b").unwrap().ino)
        );
    }
}
