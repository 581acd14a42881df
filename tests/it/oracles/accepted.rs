//! Where the trees may differ, and why. Everything else is a fault, and so is a line here that is not met.

use super::programs::Oracle;

/// A difference that is meant.
struct Accepted {
    /// The image.
    quirk: &'static str,
    /// With whom.
    with: &'static [Oracle],
    /// How the lines of the difference begin; each must be met.
    lines: &'static [&'static str],
    /// Why it is right.
    reason: &'static str,
}

use Oracle::{Docker, Podman, Umoci};

const ACCEPTED: &[Accepted] = &[
    Accepted {
        quirk: "entry-without-its-parent",
        with: &[Docker],
        lines: &[
            "nobody: mode: plyfs 0755, {} 0600",
            "nobody/has: mode: plyfs 0755, {} 0600",
            "opt/sub/in: mode: plyfs 0755, {} 0600",
        ],
        reason: "docker makes missing parents for root alone; podman, which took over the code, mended it",
    },
    Accepted {
        quirk: "opaque-where-nobody-is",
        with: &[Docker],
        lines: &["nobody: mode: plyfs 0755, {} 0600"],
        reason: "as above",
    },
    Accepted {
        quirk: "whiteout-where-nobody-is",
        with: &[Docker],
        lines: &[
            "nobody: mode: plyfs 0755, {} 0600",
            "nobody/deep: mode: plyfs 0755, {} 0600",
        ],
        reason: "as above",
    },
    Accepted {
        quirk: "opaque-where-nobody-is",
        with: &[Umoci],
        lines: &["nobody: only plyfs"],
        reason: "umoci makes no directory for a mark alone; docker and podman do",
    },
    Accepted {
        quirk: "whiteout-where-nobody-is",
        with: &[Umoci],
        lines: &["nobody: only plyfs", "nobody/deep: only plyfs"],
        reason: "as above",
    },
    Accepted {
        quirk: "entry-without-its-parent",
        with: &[Umoci],
        lines: &[
            ".: mtime: plyfs 1614834367.000000000, {} now",
            "opt/sub: mtime: plyfs 1614834367.000000000, {} now",
        ],
        reason: "umoci gives a directory its time back, but not one in which it made a missing parent",
    },
    Accepted {
        quirk: "aufs-files",
        with: &[Docker, Podman],
        lines: &[".wh..wh.plnk: only {}"],
        reason: "they leave the empty directory of the link targets behind",
    },
    Accepted {
        quirk: "aufs-files",
        with: &[Umoci],
        lines: &[
            ".wh..wh.plnk: only {}",
            ".wh..wh.plnk/1.2: only {}",
            "opt/linked: same: plyfs nothing",
            ".: mtime: plyfs 1614834367.000000000, {} now",
        ],
        reason: "umoci does not know aufs's files",
    },
    Accepted {
        quirk: "hard-link-with-another-mode",
        with: &[Umoci],
        lines: &[
            "opt/f: gid: plyfs 40, {} 4",
            "opt/f: mode: plyfs 0755, {} 0640",
            "opt/f: mtime: plyfs 1600000000.000000000",
            "opt/f: uid: plyfs 30, {} 3",
            "opt/f: xattr user.note: plyfs \"from the link\"",
            "opt/g: gid: plyfs 40, {} 4",
            "opt/g: mode: plyfs 0755, {} 0640",
            "opt/g: mtime: plyfs 1600000000.000000000",
            "opt/g: uid: plyfs 30, {} 3",
            "opt/g: xattr user.note: plyfs \"from the link\"",
        ],
        reason: "what the entry of a hard link says of the file counts for plyfs, docker and podman, not for umoci",
    },
    Accepted {
        quirk: "hard-link-with-another-mode-in-one-layer",
        with: &[Umoci],
        lines: &[
            "opt/new: gid: plyfs 40, {} 0",
            "opt/new: mode: plyfs 0700, {} 0644",
            "opt/new: mtime: plyfs 1600000000.000000000",
            "opt/new: uid: plyfs 30, {} 0",
            "opt/new2: gid: plyfs 40, {} 0",
            "opt/new2: mode: plyfs 0700, {} 0644",
            "opt/new2: mtime: plyfs 1600000000.000000000",
            "opt/new2: uid: plyfs 30, {} 0",
        ],
        reason: "as above",
    },
    Accepted {
        quirk: "hard-link-with-another-mode-into-a-group",
        with: &[Umoci],
        lines: &[
            "d/a: mode: plyfs 0600, {} 0644",
            "d/b: mode: plyfs 0600, {} 0644",
            "d/c: mode: plyfs 0600, {} 0644",
            "d/e: mode: plyfs 0600, {} 0644",
        ],
        reason: "as above",
    },
    Accepted {
        quirk: "added-then-whited-out",
        with: &[Umoci],
        lines: &["opt/f: only {}", "opt/x: only {}"],
        reason: "umoci's whiteouts spare what the same layer brought; docker and podman remove it",
    },
    Accepted {
        quirk: "device-0-0",
        with: &[Docker, Podman, Umoci],
        lines: &["opt/f: only {}", "opt/zero: only {}"],
        reason: "device 0/0 would be a whiteout in our lowers: it is left out",
    },
    Accepted {
        quirk: "marker-attributes",
        with: &[Docker, Podman],
        lines: &[
            "etc: xattr user.fuseoverlayfs.opaque: plyfs nothing",
            "opt: xattr user.overlay.opaque: plyfs nothing",
            "opt: xattr user.overlay.overlay.opaque: plyfs \"y\"",
            "opt/f: xattr trusted.overlay.overlay.metacopy: plyfs \"\"",
            "opt/other: xattr trusted.overlay.overlay.redirect: plyfs \"/etc/motd\"",
            "opt/other: xattr trusted.overlay.redirect: plyfs nothing",
            "opt/sub: xattr trusted.overlay.opaque: plyfs nothing",
            "opt/sub: xattr trusted.overlay.overlay.opaque: plyfs \"y\"",
            "opt/whiteout: xattr trusted.overlay.overlay.whiteout: plyfs \"y\"",
            "opt/whiteout: xattr trusted.overlay.whiteout: plyfs nothing",
            "opt/whiteout: xattr user.overlay.overlay.whiteout: plyfs \"y\"",
            "opt/whiteout: xattr user.overlay.whiteout: plyfs nothing",
        ],
        reason: "marks of an overlay are escaped in our lowers, where they would act: a view shows them as they were",
    },
    Accepted {
        quirk: "marker-attributes",
        with: &[Umoci],
        lines: &[
            "etc: xattr user.fuseoverlayfs.opaque: plyfs nothing",
            "opt: xattr user.overlay.opaque: plyfs nothing",
            "opt: xattr user.overlay.overlay.opaque: plyfs \"y\"",
            "opt/f: xattr trusted.overlay.overlay.metacopy: plyfs \"\"",
            "opt/other: xattr trusted.overlay.overlay.redirect: plyfs \"/etc/motd\"",
            "opt/sub: xattr trusted.overlay.overlay.opaque: plyfs \"y\"",
            "opt/whiteout: xattr trusted.overlay.overlay.whiteout: plyfs \"y\"",
            "opt/whiteout: xattr trusted.overlay.whiteout: plyfs nothing",
            "opt/whiteout: xattr user.overlay.overlay.whiteout: plyfs \"y\"",
            "opt/whiteout: xattr user.overlay.whiteout: plyfs nothing",
        ],
        reason: "as above; umoci drops some of them",
    },
    Accepted {
        quirk: "old-sparse",
        with: &[Docker, Podman, Umoci],
        lines: &["{} refuses it"],
        reason: "they do not know this form",
    },
    Accepted {
        quirk: "hard-links-between-special-files",
        with: &[Docker, Podman],
        lines: &[
            "c1: same: plyfs c1, {} nothing",
            "c2: same: plyfs c1, {} nothing",
            "p1: same: plyfs p1, {} nothing",
            "p2: same: plyfs p1, {} nothing",
        ],
        reason: "they make devices and fifos of the parent anew in each child",
    },
    Accepted {
        quirk: "whiteout-of-no-name",
        with: &[Docker, Podman],
        lines: &["{} loads it"],
        reason: "they remove the whole directory: an accident that nobody can mean",
    },
    Accepted {
        quirk: "whiteout-of-dot",
        with: &[Docker, Podman],
        lines: &["{} loads it"],
        reason: "as above",
    },
    Accepted {
        quirk: "the-same-name-twice",
        with: &[Umoci],
        lines: &["{} loads it"],
        reason: "for umoci the last entry counts; docker and podman refuse it too, since the archive could not be \
                 written again from the tree",
    },
    Accepted {
        quirk: "through-a-symlink-to-nowhere",
        with: &[Docker, Podman],
        lines: &["{} refuses it"],
        reason: "plyfs, as umoci, makes the directories that the symlink names, inside the root",
    },
    Accepted {
        quirk: "through-a-symlink-to-nowhere",
        with: &[Umoci],
        lines: &[".: mtime: plyfs 1614834367.000000000, {} now"],
        reason: "umoci gives a directory its time back, but not one in which it made a missing parent",
    },
    Accepted {
        quirk: "attributes",
        with: &[Docker, Podman, Umoci],
        lines: &["opt/f: xattr user.empty: plyfs \"\", {} nothing"],
        reason: "they take an attribute without a value for none",
    },
    Accepted {
        quirk: "attributes-of-the-lower",
        with: &[Podman],
        lines: &["d: xattr user.on: plyfs nothing, {} \"a directory\""],
        reason: "podman adds the attributes of a directory's entry to those it has; for plyfs and umoci they are all",
    },
    Accepted {
        quirk: "access-control-lists",
        with: &[Docker, Podman],
        lines: &[
            "opt/sub/born-under-a-default: xattr system.posix_acl_access: plyfs nothing",
            "opt/sub/dir: xattr system.posix_acl_access: plyfs nothing",
            "opt/sub/dir: xattr system.posix_acl_default: plyfs nothing",
        ],
        reason: "they leave what a new file inherits from its directory; the archive says that it has none",
    },
    Accepted {
        quirk: "times",
        with: &[Docker, Podman],
        lines: &["opt/old: mtime: plyfs -1000000.250000000, {} 0.000000000"],
        reason: "they know no time before 1970",
    },
];

/// Differences of every image: docker and podman leave a directory the time at which they worked in it, when the layer
/// does not name it. plyfs, as umoci, gives it back the time it had: the same layers make the same tree.
pub fn everywhere(oracle: Oracle, line: &str) -> bool {
    let now = format!(", {} now", oracle.name());
    matches!(oracle, Oracle::Docker | Oracle::Podman) && line.contains(": mtime: ") && line.ends_with(&now)
}

/// The rows for one program, and which of their lines were met.
pub struct Used {
    oracle: Oracle,
    rows: Vec<(&'static Accepted, Vec<bool>)>,
}

impl Used {
    pub fn new(oracle: Oracle) -> Self {
        let rows = ACCEPTED.iter().filter(|row| row.with.contains(&oracle));
        Used {
            oracle,
            rows: rows.map(|row| (row, vec![false; row.lines.len()])).collect(),
        }
    }

    /// Whether this line of difference is accepted; `{}` in a line of the table stands for the program's name.
    pub fn allows(&mut self, quirk: &str, line: &str) -> bool {
        let mut allowed = everywhere(self.oracle, line);
        for (row, met) in self.rows.iter_mut().filter(|(row, _)| row.quirk == quirk) {
            for (beginning, met) in row.lines.iter().zip(met) {
                if line.starts_with(&beginning.replace("{}", self.oracle.name())) {
                    (*met, allowed) = (true, true);
                }
            }
        }
        allowed
    }

    /// What was accepted in vain.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        self.rows.iter().flat_map(|(row, met)| {
            let lines = row.lines.iter().zip(met).filter(|(_, met)| !**met);
            lines.map(move |(line, _)| format!("{}: {line} ({})", row.quirk, row.reason))
        })
    }
}
