//! Who runs this process: root of the machine, root of a user namespace, or an ordinary user.

use std::path::PathBuf;

/// Whether this is root as the machine knows it, not root of a user namespace.
#[must_use]
pub fn is_true_root() -> bool {
    rustix::process::geteuid().is_root() && in_first_namespace()
}

/// Where this user keeps what plyfs makes: under /var/lib for root, else in the directory that the environment's
/// `variable` names (an absolute path), or in `below_home`. None for a user without a home.
#[must_use]
pub fn own_directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    if is_true_root() {
        return Some(PathBuf::from("/var/lib/plyfs"));
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(below_home)))
        .map(|directory| directory.join("plyfs"))
}

/// The number of this user outside of its user namespace, where mounts of one person meet.
#[must_use]
pub fn outer_uid() -> u32 {
    let own = rustix::process::geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines()
        .filter_map(parse)
        .find_map(|range| range.outer_of(own))
        .unwrap_or(own)
}

fn in_first_namespace() -> bool {
    // Only the first user namespace maps every number to itself.
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        map.lines().filter_map(parse).any(|range| {
            range
                == Range {
                    inner: 0,
                    outer: 0,
                    count: u32::MAX,
                }
        })
    })
}

/// A line of /proc/PID/uid_map.
#[derive(PartialEq, Eq)]
struct Range {
    inner: u32,
    outer: u32,
    count: u32,
}

impl Range {
    fn outer_of(&self, uid: u32) -> Option<u32> {
        let offset = uid
            .checked_sub(self.inner)
            .filter(|offset| *offset < self.count)?;
        self.outer.checked_add(offset)
    }
}

fn parse(line: &str) -> Option<Range> {
    let mut numbers = line.split_ascii_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Range {
        inner: next()?,
        outer: next()?,
        count: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_range() {
        let range = parse("         1     100000      65536").unwrap();
        assert_eq!(range.outer_of(1), Some(100_000));
        assert_eq!(range.outer_of(65_536), Some(165_535));
        assert_eq!(range.outer_of(0), None);
        assert_eq!(range.outer_of(65_537), None);
    }
}
