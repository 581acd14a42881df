//! The lowers of a view: what is known of each, and of the file systems they lie on.
//!
//! Numbers that programs see are those of the lowers (K41), made distinct where file systems differ (K46):
//!
//! ```text
//!   bit 62      the object's file system is not the upper's (in a view without an upper: not the lowest lower's)
//!   bit 61      another name of the file has its number (`table.rs`)
//!   bits 52-60  which of the other file systems, counted from the lowest lower up: a lower put on top changes none
//!   bit 51      the rest is a hash of a number that has no room
//!   bits 0-50   the inode number
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::format::{Links, OriginReader};
use crate::sys::stat::Stat;

/// Lowers of one view at most, as in the kernel (K10).
pub const MOST_LOWERS: usize = 500;

const OTHER_SYSTEM: u64 = 1 << 62;
const SYSTEM_SHIFT: u32 = 52;
/// Greater numbers are hashed.
const ROOM: u64 = 1 << 51;

/// The number that programs see, for an inode on a file system with this tag.
pub(super) fn tagged(tag: u64, ino: u64) -> u64 {
    match tag {
        0 => ino,
        _ if ino < ROOM => tag | ino,
        // Such numbers come from views and network file systems, and are no counters: two of them may differ in the
        // high bits alone.
        _ => tag | ROOM | mixed(ino) >> 13,
    }
}

/// The finisher of splitmix64: every bit of the input changes half of the output's.
fn mixed(ino: u64) -> u64 {
    let x = (ino ^ ino >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A file system with lowers on it.
#[derive(Debug)]
struct System {
    tag: u64,
    /// Writes and reads origins; `None` where handles are not understood.
    origins: Option<OriginReader>,
    /// Its origins are not those of another one, too.
    distinct: bool,
}

/// What is known of the lowers, topmost first.
#[derive(Debug)]
pub(super) struct Lowers {
    /// The index of the file system of each.
    layers: Box<[usize]>,
    systems: Box<[System]>,
    /// Names in the tree of a single lower, where its link counts tell of other trees too.
    names: Option<Links>,
}

impl Lowers {
    /// Looks at the lowers' file systems. `own` is the device of the upper; `names` belong to a single lower: with
    /// several a file's other names may lie in another one, so they all count.
    pub fn learn(roots: &[OwnedFd], stats: &[Stat], names: Option<Links>, own: Option<u64>) -> Self {
        let mut devices: Vec<u64> = own.into_iter().collect();
        for stat in stats.iter().rev() {
            if !devices.contains(&stat.dev) {
                devices.push(stat.dev);
            }
        }
        let mut systems: Vec<System> = Vec::with_capacity(devices.len());
        for (index, dev) in devices.iter().enumerate() {
            let here = roots.iter().zip(stats).filter(|(_, stat)| stat.dev == *dev);
            // The lowest has the most names to learn from.
            let mut here: Vec<BorrowedFd<'_>> = here.map(|(root, _)| root.as_fd()).collect();
            here.reverse();
            let origins = OriginReader::learn(&here);
            if origins.is_none() && !here.is_empty() {
                log::info!("a lower has no file handles of a known form: numbers change over a remount");
            }
            let tag = (index as u64)
                .checked_sub(1)
                .map_or(0, |further| OTHER_SYSTEM | further << SYSTEM_SHIFT);
            systems.push(System {
                tag,
                origins,
                distinct: true,
            });
        }
        let alike: Vec<bool> = systems
            .iter()
            .map(|system| {
                let same = |other: &&System| match (&system.origins, &other.origins) {
                    (Some(a), Some(b)) => a.is_like(b),
                    _ => false,
                };
                systems.iter().filter(same).count() > 1
            })
            .collect();
        for (system, alike) in systems.iter_mut().zip(alike) {
            system.distinct = !alike;
        }
        let layers = stats
            .iter()
            .map(|stat| devices.iter().position(|dev| *dev == stat.dev).unwrap_or(0));
        Self {
            layers: layers.collect(),
            systems: systems.into(),
            names: names.filter(|_| stats.len() == 1),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.layers.len()
    }

    fn system(&self, layer: u16) -> Option<&System> {
        self.systems.get(*self.layers.get(usize::from(layer))?)
    }

    /// What marks numbers of this lower, for [`tagged`].
    pub fn tag(&self, layer: u16) -> u64 {
        self.system(layer).map_or(0, |system| system.tag)
    }

    /// The number that programs see for an object of a lower (K46).
    pub fn number(&self, layer: u16, ino: u64) -> u64 {
        tagged(self.tag(layer), ino)
    }

    /// A number from the record of claims as it is now: records of one lower on another file system than the upper's
    /// once held bare inode numbers.
    pub fn claimed(&self, recorded: u64) -> u64 {
        let systems = self.layers.iter().filter_map(|index| self.systems.get(*index));
        let mut tags = systems.map(|system| system.tag);
        let first = tags.next().unwrap_or(0);
        if first != 0 && recorded & OTHER_SYSTEM == 0 && tags.all(|tag| tag == first) {
            tagged(first, recorded)
        } else {
            recorded
        }
    }

    /// The attributes of a lower object as they are within its tree: a layer shares inodes with other layers, and
    /// the names there do not count (K151 then has nothing to do for a file with one name).
    pub fn within(&self, stat: Stat) -> Stat {
        match &self.names {
            Some(names) if !stat.is_dir() => Stat {
                nlink: names.names_of(stat.ino),
                ..stat
            },
            _ => stat,
        }
    }

    /// True if origins can be written for objects of this lower.
    pub fn has_origins(&self, layer: u16) -> bool {
        self.system(layer).is_some_and(|system| system.origins.is_some())
    }

    /// The origin mark for a copy of `name` in a directory of this lower; `None` if there can be none.
    pub fn mark_for(&self, layer: u16, dir: impl AsFd, name: &[u8]) -> Option<Vec<u8>> {
        self.system(layer)?.origins.as_ref()?.mark_for(dir, name)
    }

    /// The inode that an origin mark names, and the tag of its file system; `None` if it is of none of the lowers.
    pub fn origin(&self, mark: &[u8]) -> Option<(u64, u64)> {
        self.systems
            .iter()
            .filter(|system| system.distinct)
            .find_map(|system| {
                let ino = system.origins.as_ref()?.number(mark)?;
                Some((system.tag, ino))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k46_numbers_of_different_file_systems_never_meet() {
        let tags = [0, OTHER_SYSTEM, OTHER_SYSTEM | 1 << 52, OTHER_SYSTEM | 499 << 52];
        let inodes = [1, 2, 1 << 40, ROOM - 1, ROOM, 1 << 62, 1 << 62 | 1, u64::MAX];
        let mut seen = std::collections::HashSet::new();
        for tag in tags {
            for ino in inodes {
                let number = tagged(tag, ino);
                if tag != 0 {
                    assert_eq!(number & 1 << 61, 0, "bit 61 is taken");
                    assert_eq!(number & OTHER_SYSTEM, OTHER_SYSTEM);
                    assert_eq!(number & !(ROOM | (ROOM - 1)), tag, "the tag is whole");
                } else {
                    assert_eq!(number, ino);
                }
                // An upper's own number that looks like a tagged one is another matter.
                if tag != 0 || ino < ROOM {
                    assert!(seen.insert(number), "{tag:x} {ino:x}");
                }
            }
        }
    }

    #[test]
    fn a_lower_put_on_top_changes_no_number() {
        let dir = tempfile::tempdir().unwrap();
        let open = || OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let real = crate::sys::stat::stat_fd(open()).unwrap();
        let on = |dev| Stat { dev, ..real };
        let few = Lowers::learn(&[open(), open()], &[on(7), on(8)], None, Some(5));
        let more = [on(9), on(8), on(7), on(8)];
        let more = Lowers::learn(&[open(), open(), open(), open()], &more, None, Some(5));
        assert_eq!(few.number(1, 3), more.number(3, 3));
        assert_eq!(few.number(0, 3), more.number(2, 3));
        let mut all: Vec<_> = (0..4).map(|layer| more.number(layer, 3)).collect();
        all.dedup();
        assert_eq!(all.len(), 4, "two lowers on one device are not neighbours here");
        assert_eq!(more.number(1, 3), more.number(3, 3));
    }

    #[test]
    fn old_records_of_claims_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        let open = || OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let real = crate::sys::stat::stat_fd(open()).unwrap();
        let other = Lowers::learn(&[open()], &[real], None, Some(real.dev + 1));
        assert_eq!(other.claimed(9), other.number(0, 9));
        assert_eq!(other.claimed(other.number(0, 9)), other.number(0, 9));
        let same = Lowers::learn(&[open()], &[real], None, Some(real.dev));
        assert_eq!(same.claimed(9), 9);
    }

    #[test]
    fn two_file_systems_that_cannot_be_told_apart_have_no_origins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "f").unwrap();
        let open = || OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let real = crate::sys::stat::stat_fd(open()).unwrap();
        let one = Lowers::learn(&[open()], &[real], None, Some(real.dev));
        let mark = one
            .mark_for(0, open(), b"f")
            .expect("handles on the test file system");
        assert!(one.has_origins(0) && one.origin(&mark).is_some());
        let twice = [
            real,
            Stat {
                dev: real.dev + 1,
                ..real
            },
        ];
        let two = Lowers::learn(&[open(), open()], &twice, None, Some(real.dev));
        assert_eq!(two.origin(&mark), None);
        assert!(
            two.mark_for(0, open(), b"f").is_some(),
            "the kernel may know better"
        );
    }
}
