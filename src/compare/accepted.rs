//! Where a difference is known and accepted. Each use is counted: a filter that is used too often is too wide.

use std::collections::BTreeMap;

/// One accepted difference.
#[derive(Debug, serde::Serialize)]
pub struct Known {
    /// The rule of the specification, with a letter where one rule has several.
    pub id: &'static str,
    /// What differs, and why that is accepted.
    pub reason: &'static str,
}

pub const STALE_METADATA: &str = "K72";
pub const HIDDEN_WHITEOUT: &str = "K32";
pub const CUT_LINK_NUMBER: &str = "K42";
pub const DELETED_LINKS: &str = "K47";
pub const GROUP_LINKS: &str = "K47g";
pub const STRAY_WHITEOUTS: &str = "K86";
pub const NO_TMPFILE: &str = "K88";
pub const NO_FLAGS: &str = "K68";
pub const OLD_MAPPING: &str = "K111";
pub const LOCKING_BIT: &str = "K103";
pub const SETUID_WHILE_OPEN: &str = "K103p";
pub const SHARED_SETUID: &str = "K103r";
pub const FAILED_RENAME: &str = "K93";
pub const MOVING_DIRECTORY: &str = "K52";

/// All accepted differences.
pub const TABLE: &[Known] = &[
    Known {
        id: HIDDEN_WHITEOUT,
        reason: "the kernel lists a raw whiteout of an unmerged directory though lookup says ENOENT; plyfs hides it",
    },
    Known {
        id: CUT_LINK_NUMBER,
        reason: "the kernel gives a copied-up name of a lower hard-link group a new st_ino; plyfs keeps it",
    },
    Known {
        id: DELETED_LINKS,
        reason: "a deleted lower file held open says nlink 1 in the kernel; plyfs says 0",
    },
    Known {
        id: GROUP_LINKS,
        reason: "link counts of a lower hard-link group after one name was cut or deleted",
    },
    Known {
        id: NO_FLAGS,
        reason: "FS_IOC_GETFLAGS answers ENOTTY through FUSE",
    },
    Known {
        id: STALE_METADATA,
        reason: "metadata of a deleted lower file through its descriptor: EEXIST in the kernel, a flaw; plyfs does it or says ESTALE",
    },
    Known {
        id: STRAY_WHITEOUTS,
        reason: "rmdir of a directory that holds only stray whiteouts: ENOTEMPTY in the kernel; plyfs succeeds. The program ends there",
    },
    Known {
        id: NO_TMPFILE,
        reason: "O_TMPFILE does not reach a FUSE server of this library: EOPNOTSUPP. The program ends there",
    },
    Known {
        id: OLD_MAPPING,
        reason: "a mapping made before copy-up keeps the old data in the kernel",
    },
    Known {
        id: LOCKING_BIT,
        reason: "setgid without group-execute: the kernel drops it when a stranger to the group writes, FUSE keeps it",
    },
    Known {
        id: SETUID_WHILE_OPEN,
        reason: "a setuid file that root and another user would have open for writing: ETXTBSY. The program ends there",
    },
    Known {
        id: SHARED_SETUID,
        reason: "setuid bits given to a file that an ordinary user had opened fall with root's write too. The program ends at the next umount",
    },
    Known {
        id: FAILED_RENAME,
        reason: "a rename of a directory that fails in the kernel has marked it opaque by then; over no lower directory that says nothing",
    },
    Known {
        id: MOVING_DIRECTORY,
        reason: "a name made or deleted while a directory is being read may or may not be seen (POSIX)",
    },
];

/// How often each filter was used.
#[derive(Clone, Debug, Default)]
pub struct Counts(pub(super) BTreeMap<&'static str, u64>);

impl Counts {
    pub(super) fn add(&mut self, id: &'static str) {
        *self.0.entry(id).or_default() += 1;
    }

    pub(super) fn merge(&mut self, other: &Counts) {
        for (id, count) in &other.0 {
            *self.0.entry(id).or_default() += count;
        }
    }

    /// Each difference that was met, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(id, count)| (*id, *count))
    }

    /// One line for each filter that was used.
    pub fn describe(&self) -> String {
        let line = |(id, count): (&&str, &u64)| {
            let reason = TABLE
                .iter()
                .find(|known| known.id == *id)
                .map_or("", |known| known.reason);
            format!("  {count:>8}  {id:<5} {reason}\n")
        };
        self.0.iter().map(line).collect()
    }
}

#[cfg(test)]
#[test]
fn every_filter_is_explained_once() {
    for (index, known) in TABLE.iter().enumerate() {
        assert!(!known.reason.is_empty());
        assert!(
            TABLE[..index].iter().all(|other| other.id != known.id),
            "{} stands twice",
            known.id
        );
    }
}
