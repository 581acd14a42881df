//! Where the ways to mount may differ, and why. Everything else is a fault, and so is a line here that is not met.

use super::programs::By;

/// A difference that is known.
struct Accepted {
    /// With which words the names of the engines begin.
    engines: &'static [&'static str],
    /// The cases; none: any.
    cases: &'static [&'static str],
    by: By,
    /// The lines of the difference; `*` stands for anything. Of a row for plyfs some line must be met with each of the
    /// engines; the others are not under test here.
    lines: &'static [&'static str],
    /// As the page calls it.
    short: &'static str,
}

const FUSE: By = By::FuseOverlayfs;
const ALL: &[&str] = &["podman", "buildah", "docker", "a Debian"];
const PODMAN: &[&str] = &["podman, ", "buildah", "a Debian"];

/// An engine that compares two mounted trees does not see that an unchanged file got one more name.
const COMMITTED_LINKS: &str = "the engine commits a new link to an unchanged file as a file, and deleted names for an emptied directory";

/// The same in the export of an image that was built so: which name comes as a file, and which as a link to it.
const EXPORTED_LINKS: &[&str] = &[
    "archive: opt/b: *",
    "archive: opt/d: *",
    "archive: opt/dir/c: to: *",
    "archive: opt/changed-link: *",
    "archive: opt/dir/new-link: *",
];

/// `--uidmap` with one range, whichever program mounts.
const MAPPED_TWICE: &str = "podman gives lowers whose ids are mapped (mapped/0/l/NAME) and uidmapping= too: the image's files show as \
                            nobody's";
/// `--uidmap` with two ranges, likewise.
const SHORTENED_PATH: &str =
    "podman names a layer by a path that it shortened (l/NAME/../diff1), and that is not there";

const ACCEPTED: &[Accepted] = &[
    // What the engine itself cannot do.
    Accepted {
        engines: &["podman with force_mask"],
        cases: &[],
        by: By::Kernel,
        lines: &["fails: *user.containers.override_stat: No such attribute*"],
        short: "podman has force_mask for mount programs only: a store with real owners",
    },
    Accepted {
        engines: &["podman, root"],
        cases: &["--uidmap, two ranges"],
        by: By::Kernel,
        lines: &["fails: *mounting storage for container*"],
        short: "podman's own idmapped mount of the layers is refused (EINVAL)",
    },
    Accepted {
        engines: &["podman with mountopt"],
        cases: &["`ro` in mountopt"],
        by: By::Kernel,
        lines: &["fails: *changing permissions on file for metacopy check*read-only file system*"],
        short: "podman's own try of the kernel's overlay writes to what it mounts with `ro`",
    },
    // fuse-overlayfs.
    Accepted {
        // Before the other rows, as not all of these lines are met in every run: podman changes owners in several threads.
        engines: PODMAN,
        cases: &["--uidmap, one range", "--uidmap, two ranges", "--userns=keep-id"],
        by: FUSE,
        lines: &["container: *", "within, line *"],
        short: "link counts; the root's owner; names of a linked file stay one; setuid and setgid bits and times are lost; \
                what was in a directory that is removed and made again is back",
    },
    Accepted {
        engines: ALL,
        cases: &[],
        by: FUSE,
        lines: &["*: links: *", "*links=*", "within: kernel .:*drwxr-x---    1 *"],
        short: "link counts of directories and of copied-up linked files",
    },
    Accepted {
        engines: ALL,
        cases: &[],
        by: FUSE,
        lines: &[
            "*: opt/a: modified: *",
            "*: opt/b: modified: *",
            "*: opt/d: modified: *",
            "outside: a: modified: *",
            "outside: b: modified: *",
            "outside: d: modified: *",
            "outside: opt/*: modified: *",
        ],
        short: "which names of a linked file stay one file when it is changed",
    },
    Accepted {
        engines: ALL,
        cases: &[],
        by: FUSE,
        lines: &["*opt/again/old*", "*opt/tree/deep*", "*: names: *"],
        short: "what was in a directory that is removed and made again is back in the committed image",
    },
    Accepted {
        engines: ALL,
        cases: &[],
        by: FUSE,
        lines: &[
            "*: opt/owned: mode: kernel -rws--x--x, fuse-overlayfs -rwx--x--x",
            "*: opt/dir: mode: kernel drwxrwsr-x, fuse-overlayfs drwxrwxr-x",
            "*: opt/dir/sub: owner: kernel 0:33, fuse-overlayfs 0:0",
            "archive: opt/owned: mode: kernel 104711, fuse-overlayfs 100711",
            "archive: opt/dir: mode: kernel 42775, fuse-overlayfs 40775",
        ],
        short: "setuid and setgid bits are lost",
    },
    Accepted {
        engines: ALL,
        cases: &[],
        by: FUSE,
        lines: &[
            "*: modified: kernel *, fuse-overlayfs now",
            "*: modified: kernel now, fuse-overlayfs *",
        ],
        short: "times of copied-up symlinks and directories",
    },
    Accepted {
        engines: &["docker"],
        cases: &["build with RUN steps"],
        by: FUSE,
        lines: &["container: opt/colour: user.colour: *"],
        short: "an attribute that changed alone (docker commits no user attributes)",
    },
    Accepted {
        engines: &["docker"],
        cases: &["export, import"],
        by: FUSE,
        lines: EXPORTED_LINKS,
        short: COMMITTED_LINKS,
    },
    Accepted {
        engines: &["docker"],
        cases: &["export, import"],
        by: By::Plyfs,
        lines: EXPORTED_LINKS,
        short: COMMITTED_LINKS,
    },
    Accepted {
        engines: &["podman with mountopt"],
        cases: &["`ro` in mountopt"],
        by: By::Plyfs,
        lines: &["container: *: links: fuse-overlayfs *"],
        short: "link counts, which are those of the image as the kernel shows it",
    },
    Accepted {
        engines: &["docker"],
        cases: &["build with RUN steps"],
        by: By::Plyfs,
        lines: &["container: opt/colour: user.colour: kernel nothing, plyfs 677265656e"],
        short: "an attribute that changed alone (docker commits no user attributes)",
    },
    Accepted {
        engines: &["podman, root"],
        cases: &["--uidmap, one range"],
        by: FUSE,
        lines: &["fails: *crun: open*No such file or directory*"],
        short: MAPPED_TWICE,
    },
    Accepted {
        engines: &["a Debian"],
        cases: &["install, reinstall and purge packages"],
        by: FUSE,
        lines: &["container: srv/theirs/f: owner: kernel 1234:0, fuse-overlayfs 1234:1234"],
        short: "the group that a setgid directory gives",
    },
    Accepted {
        engines: &["a Debian"],
        cases: &["commit of what was installed"],
        by: FUSE,
        lines: &["run: *"],
        short: "what was in a directory that was moved away is back in the committed image",
    },
    Accepted {
        engines: &["podman, root"],
        cases: &["--uidmap, one range"],
        by: By::Plyfs,
        lines: &["fails: *crun: open*No such file or directory*"],
        short: MAPPED_TWICE,
    },
    Accepted {
        engines: &["podman, root"],
        cases: &["--uidmap, two ranges"],
        by: FUSE,
        lines: &["fails: *creating overlay mount*mapped/0/l/diff1*"],
        short: SHORTENED_PATH,
    },
    Accepted {
        engines: &["podman, root"],
        cases: &["--uidmap, two ranges"],
        by: By::Plyfs,
        lines: &["fails: *creating overlay mount*mapped/0/l/diff1*"],
        short: SHORTENED_PATH,
    },
    // Owners and modes that are stated.
    Accepted {
        engines: &["podman with force_mask"],
        cases: &[],
        by: FUSE,
        lines: &[
            "*: user.containers.override_stat: *",
            "*: mode: kernel *, fuse-overlayfs *",
            "*: owner: kernel *, fuse-overlayfs *",
            "within: *",
            "run: *",
        ],
        short: "podman does not state everything; new and copied-up files get 0755, copied-up directories another owner; \
                the attribute shows, and goes into committed layers",
    },
    Accepted {
        engines: &["podman with force_mask"],
        cases: &[],
        by: By::Plyfs,
        lines: &[
            "*: .: mode: kernel dr-xr-xr-x, plyfs drwx------",
            "*: opt/dangling: owner: kernel 33:33, plyfs 0:0",
            "*: opt/dir: mode: kernel drwxrwsr-x, plyfs drwxrwxr-x",
            "*: opt/setuid: mode: kernel -rwsr-sr-x, plyfs -rwxr-xr-x",
            "*: tmp: mode: kernel drwxrwxrwt, plyfs drwxrwxrwx",
            "within: opt/dangling lrwxrwxrwx *",
            "run: opt/dangling lrwxrwxrwx *",
        ],
        short: "podman states no owners of symlinks, no setuid, setgid and sticky bits, and 0700 for the root",
    },
    Accepted {
        engines: &["podman with force_mask"],
        cases: &[],
        by: By::Plyfs,
        lines: &[
            "layer: *: mode: fuse-overlayfs 100755, plyfs *",
            "layer: *: user.containers.override_stat: fuse-overlayfs *, plyfs nothing",
            "layer: opt/dir: owner: fuse-overlayfs 0:0, plyfs 33:33",
        ],
        short: "as the kernel where fuse-overlayfs is not: modes and owners of what is new or copied up",
    },
    // Ids that podman maps for a rootless container. The reference has no id-mapped mounts there: podman changes the
    // owners in a copy of each layer.
    Accepted {
        engines: &["podman, rootless"],
        cases: &["--uidmap, one range", "--userns=keep-id"],
        by: By::Plyfs,
        lines: &[
            "container: *: links: kernel 1, plyfs *",
            // podman links the names of a linked file anew in the copy.
            "container: opt: modified: kernel now, plyfs 1614834367000000000",
            "container: opt/dir: modified: kernel now, plyfs 1614834367000000000",
            // A race in the kernel's overlay: not in every run.
            "container: bin: modified: kernel now, plyfs 1614834367000000000",
            "container: etc: modified: kernel now, plyfs 1614834367000000000",
            "container: lib/x86_64-linux-gnu: modified: kernel now, plyfs 1614834367000000000",
            "container: many: modified: kernel now, plyfs 1614834367000000000",
            "container: usr/bin: modified: kernel now, plyfs 1614834367000000000",
        ],
        short: "in the reference podman changes the owners in a copy of each layer: directories are merged ones, which \
                show one link, and can lose their times when several files in them are copied up at once",
    },
    Accepted {
        engines: &["podman, rootless"],
        cases: &["--userns=keep-id"],
        by: By::Plyfs,
        lines: &["container: .: owner: kernel 1:1, plyfs 0:0"],
        short: "with a mount program podman's `diff` gives the root of the view to itself",
    },
    Accepted {
        engines: &["podman, rootless"],
        cases: &["--uidmap, two ranges"],
        by: By::Plyfs,
        lines: &[
            "container: .: owner: kernel 1:1, plyfs 0:0",
            // The same race.
            "container: bin: modified: kernel now, plyfs 1614834367000000000",
            "container: etc: modified: kernel now, plyfs 1614834367000000000",
            "container: lib/x86_64-linux-gnu: modified: kernel now, plyfs 1614834367000000000",
            "container: many: modified: kernel now, plyfs 1614834367000000000",
            "container: usr/bin: modified: kernel now, plyfs 1614834367000000000",
        ],
        short: "with a mount program podman's `diff` gives the root of the view to itself; in the reference directories \
                can lose their times when several files in them are copied up at once",
    },
    Accepted {
        engines: &["podman, rootless"],
        cases: &["--uidmap, one range"],
        by: By::Plyfs,
        lines: &[
            "container: opt/changed: security.capability: kernel 01000003*01000000, plyfs 01000002*",
            "layer: opt/changed: security.capability: fuse-overlayfs *x03*x01*, plyfs *x02*",
        ],
        short: "a capability that the container's root sets is plain in the layers, and so counts in a committed image",
    },
    Accepted {
        engines: &["podman, rootless"],
        cases: &["--uidmap, one range", "--uidmap, two ranges"],
        by: By::Plyfs,
        lines: &[
            "layer: opt/tree: modified: fuse-overlayfs now, plyfs 1614834367000000000",
            "layer: opt/tree/deep: modified: fuse-overlayfs now, plyfs 1614834367000000000",
            "layer: opt/moved-to: modified: fuse-overlayfs now, plyfs 1614834367000000000",
            "layer: opt/moved-to/sub: modified: fuse-overlayfs now, plyfs 1614834367000000000",
            "unmapped: /opt/b: fuse-overlayfs *, plyfs 1:1",
            "unmapped: /opt/b: fuse-overlayfs *, plyfs 0:0",
        ],
        short: "as the kernel where fuse-overlayfs is not: times of copied-up directories, links",
    },
    // plyfs: with a mount program the engine tells changes by comparing two mounted trees.
    Accepted {
        engines: &[
            "buildah",
            "podman, ",
            "podman with mountopt",
            "podman with force_mask",
            "docker",
        ],
        cases: &[
            "commit",
            "commit of a running container",
            "build with RUN steps, without layers",
            "build with RUN steps",
            "build --squash-all",
        ],
        by: By::Plyfs,
        lines: &[
            "image: *: links: kernel *",
            "container: *: links: kernel *",
            "run: opt/a * links=* kernel *",
            "run: opt/d * links=* kernel *",
            "run: opt/* links=* kernel *",
        ],
        short: COMMITTED_LINKS,
    },
    Accepted {
        engines: &[
            "buildah",
            "podman, ",
            "podman with mountopt",
            "podman with force_mask",
            "docker",
        ],
        cases: &[],
        by: By::Plyfs,
        lines: &[
            "*layer*: names: fuse-overlayfs *",
            "*layer*: opt/again/.wh.old: mode: fuse-overlayfs nothing, plyfs 0",
            "*layer*: opt/tree/.wh.deep: mode: fuse-overlayfs nothing, plyfs 0",
            "diff: D /opt/again/old: fuse-overlayfs nothing, plyfs there",
            "*layer*: opt/dir: mode: fuse-overlayfs 40775, plyfs 42775",
            "*layer*: opt/owned: mode: fuse-overlayfs 100711, plyfs 104711",
            "*layer*: opt/dir/sub: owner: fuse-overlayfs 0:0, plyfs 0:33",
            "*layer*: opt/link: modified: fuse-overlayfs now, plyfs 1614834367000000000",
            // Names of a linked file part when one is changed, as with the kernel.
            "*layer*: opt/a: *",
            "*layer*: opt/b: *",
            "*layer*: opt/d: *",
            "*layer*: opt/dir/c: *",
            "squashed: opt/b: *",
            "diff: C /opt/a: *",
            "diff: C /opt/b: *",
            "diff: C /opt/dir/c: *",
        ],
        short: "as the kernel where fuse-overlayfs is not: deletions in a directory made again, setuid and setgid bits, links",
    },
];

/// Whether a text is as a pattern says, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<_> = rest.split('*').collect();
    let (last, between) = parts.split_last().unwrap();
    for part in between {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[test]
fn patterns_match() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "ab", true),
        ("*b", "ab", true),
        ("a*c*e", "abcde", true),
        ("a*c*e", "abde", false),
        ("a*a", "a", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

/// Whether an engine's name begins so, with whole words: "podman, root" is not the beginning of "podman, rootless".
fn is_of(engine: &str, beginning: &str) -> bool {
    let rest = engine.strip_prefix(beginning);
    rest.is_some_and(|rest| {
        !beginning.ends_with(char::is_alphabetic) || !rest.starts_with(char::is_alphabetic)
    })
}

/// The rows for one engine, and which of their lines were met.
pub struct Used {
    rows: Vec<(&'static Accepted, Vec<bool>)>,
}

impl Used {
    pub fn new(engine: &str, by: &[By]) -> Self {
        let mut rows: Vec<&'static Accepted> = ACCEPTED.iter().collect();
        rows.retain(|row| by.contains(&row.by) && row.engines.iter().any(|name| is_of(engine, name)));
        Used {
            rows: rows
                .into_iter()
                .map(|row| (row, vec![false; row.lines.len()]))
                .collect(),
        }
    }

    /// What the page calls this line of difference, when it is accepted.
    pub fn allows(&mut self, case: &str, by: By, line: &str) -> Option<&'static str> {
        let mut short = None;
        for (row, met) in &mut self.rows {
            if row.by != by || !(row.cases.is_empty() || row.cases.contains(&case)) {
                continue;
            }
            for (pattern, met) in row.lines.iter().zip(met) {
                // What is told of a failure may hold any words: no pattern for what was seen is meant for it.
                let failures = pattern.starts_with("fails: ") == line.starts_with("fails: ");
                if failures && matches(pattern, line) {
                    *met = true;
                    short = short.or(Some(row.short));
                }
            }
        }
        short
    }

    /// What was accepted in vain: rows for plyfs of which no line was met.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        let ours = self.rows.iter().filter(|(row, _)| row.by == By::Plyfs);
        let vain = ours.filter(|(_, met)| !met.contains(&true));
        vain.map(|(row, _)| format!("{}: {:?}", row.short, row.lines))
    }
}
