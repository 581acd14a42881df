//! What the generator chooses from: names, modes, sizes, times, attributes.

use super::bytes::Bytes;
use super::generate::{Generator, Held};
use super::model::Kind;
use super::nasty;
use super::op::{Fill, SLOTS, Slot, When};

pub(super) const MODES: &[u32] = &[
    0o644, 0o600, 0o666, 0o777, 0o755, 0o000, 0o4755, 0o2755, 0o6777, 0o1777, 0o2777, 0o400, 0o200, 0o070,
    0o7777,
];
pub(super) const LENGTHS: &[i64] = &[
    0,
    1,
    10,
    100,
    4095,
    4096,
    5000,
    70_000,
    1 << 20,
    (1 << 20) + 1,
    -1,
];
pub(super) const OFFSETS: &[i64] = &[0, 0, 0, 1, 50, 4090, 4096, 65_536, 300_050, 1 << 20, 2 << 20];
pub(super) const SIZES: &[u32] = &[0, 1, 7, 20, 100, 4096, 5000, 66_000];
pub(super) const IDS: &[u32] = &[u32::MAX, u32::MAX, 0, 1001, 1001, 1002, 1003];
pub(super) const SECONDS: &[i64] = &[
    -1,
    0,
    1,
    -(1 << 31),
    -(1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 33,
    1_000_000_000,
    -1_000_000_000,
];
pub(super) const XATTRS: &[&str] = &[
    "user.colour",
    "user.colour",
    "user.n1",
    "user.empty",
    "trusted.t1",
    "trusted.note",
    "trusted.overlay.opaque",
    "trusted.overlay.whiteout",
    "trusted.overlay.redirect",
    "trusted.overlay.metacopy",
    "trusted.overlay.origin",
    "trusted.overlay.overlay.x",
    "trusted.overlay.impure",
    "trusted.overlay.",
    "user.overlay.opaque",
    "security.capability",
    "security.other",
    "system.posix_acl_access",
    "system.posix_acl_access",
    "system.posix_acl_default",
    "system.posix_acl_default",
    "nonsense",
    "user.",
];
pub(super) const OPEN_EXTRAS: &[(i32, usize)] = &[
    (libc::O_CREAT, 35),
    (libc::O_EXCL, 8),
    (libc::O_TRUNC, 12),
    (libc::O_APPEND, 12),
    (libc::O_DIRECTORY, 5),
    (libc::O_NOFOLLOW, 8),
    (libc::O_DIRECT, 2),
    (libc::O_SYNC, 2),
    (libc::O_NOATIME, 2),
    (libc::O_PATH, 2),
];

impl Generator {
    /// Spells a path for the current worker.
    pub(super) fn spell(&mut self, path: &Bytes) -> Bytes {
        self.model.heat(path);
        let here = self.cwd.get(self.who).cloned().unwrap_or_default();
        let cwd = &here;
        if path == cwd {
            return Bytes::from(if self.rng.chance(50) || path.0.is_empty() {
                "."
            } else {
                "../."
            });
        }
        if cwd.0.is_empty() && self.rng.chance(80) {
            return path.clone();
        }
        if let Some([b'/', rest @ ..]) = path.0.strip_prefix(cwd.0.as_slice())
            && !cwd.0.is_empty()
            && self.rng.chance(85)
        {
            return Bytes::from(rest);
        }
        let mut full = b"/".to_vec();
        full.extend_from_slice(&path.0);
        Bytes(full)
    }

    pub(super) fn dir(&mut self) -> Bytes {
        if self.rng.chance(20) {
            return Bytes::default();
        }
        self.model
            .existing(&mut self.rng, Some(Kind::Dir))
            .unwrap_or_default()
    }

    pub(super) fn new_name(&mut self) -> Bytes {
        let dir = self.dir();
        let name: Vec<u8> = match self.rng.below(30) {
            0 => b"\xfe\xff bad".to_vec(),
            1 => vec![b'L'; 255],
            2 => b"f".to_vec(),
            3 => b"sub".to_vec(),
            n => format!("n{}", n % 7).into_bytes(),
        };
        dir.join(&name)
    }

    pub(super) fn odd(&mut self) -> Bytes {
        let some = self.model.existing(&mut self.rng, None).unwrap_or_default();
        match self.rng.below(8) {
            0 => some.join(b"n1"),
            1 => Bytes([some.0.as_slice(), b"/"].concat()),
            2 => some.join(b".."),
            3 => some.join(b"../f"),
            4 => self.dir().join(&[b'T'; 256]),
            5 => Bytes::default(),
            6 => {
                let link = self
                    .model
                    .existing(&mut self.rng, Some(Kind::Symlink))
                    .unwrap_or_default();
                link.join(b"n2")
            }
            _ => some.join(b"."),
        }
    }

    /// A name that is probably there.
    pub(super) fn old(&mut self, kind: Option<Kind>) -> Bytes {
        match self.rng.below(100) {
            0..=84 => self.model.existing(&mut self.rng, kind),
            85..=93 => self.model.gone(&mut self.rng),
            94..=96 => Some(self.new_name()),
            _ => Some(self.odd()),
        }
        .unwrap_or_else(|| Bytes::from("f"))
    }

    /// A name that is probably free.
    pub(super) fn free(&mut self) -> Bytes {
        match self.rng.below(100) {
            0..=39 => self.model.gone(&mut self.rng),
            40..=79 => Some(self.new_name()),
            80..=96 => self.model.existing(&mut self.rng, None),
            _ => Some(self.odd()),
        }
        .unwrap_or_else(|| Bytes::from("n0"))
    }

    pub(super) fn slot(&mut self, held: Held) -> Slot {
        let fitting: Vec<Slot> = (0..SLOTS).filter(|&s| self.held(s) == Some(held)).collect();
        if fitting.is_empty() || self.rng.chance(2) {
            // Most likely not open at all; but a file call must never meet a directory.
            let empty: Vec<Slot> = (0..SLOTS).filter(|&s| self.held(s).is_none()).collect();
            return empty.first().or(fitting.first()).copied().unwrap_or(0);
        }
        self.rng.pick(&fitting)
    }

    /// Never -1 for both: such a chown does not reach a FUSE server, so that the kernel's copy-up has no match.
    pub(super) fn ids(&mut self) -> (u32, u32) {
        let (uid, gid) = (self.rng.pick(IDS), self.rng.pick(IDS));
        if (uid, gid) == (u32::MAX, u32::MAX) {
            (uid, 1001)
        } else {
            (uid, gid)
        }
    }

    pub(super) fn mode(&mut self) -> u32 {
        self.rng.pick(MODES)
    }

    pub(super) fn fill(&mut self) -> Fill {
        Fill {
            seed: self.rng.below(90) as u8,
            len: self.rng.pick(SIZES),
        }
    }

    pub(super) fn when(&mut self) -> When {
        match self.rng.below(10) {
            0 => When::Omit,
            1 | 2 => When::Now,
            _ => When::At(
                self.rng.pick(SECONDS),
                self.rng.pick(&[0, 1, 500_000_000, 999_999_999]),
            ),
        }
    }

    pub(super) fn xattr_name(&mut self) -> Bytes {
        Bytes::from(self.rng.pick(XATTRS))
    }

    pub(super) fn xattr_value(&mut self, name: &Bytes) -> Bytes {
        let odd = self.rng.chance(8);
        Bytes(match (name.0.as_slice(), self.rng.below(4)) {
            _ if odd => vec![b'v'; self.rng.pick(&[0usize, 300, 70_000])],
            (b"security.capability", _) => nasty::CAPABILITY.to_vec(),
            (name, 0) if name.starts_with(b"system.") => nasty::acl_minimal(),
            (name, 1) if name.starts_with(b"system.") => nasty::acl_with_group(),
            (name, _) if name.starts_with(b"system.") => nasty::acl_with_user(),
            (_, 0) => b"y".to_vec(),
            (_, n) => format!("value {n}").into_bytes(),
        })
    }
}
