//! Where plyfs differs from the kernel's overlay on purpose: the one table.
//!
//! A scenario may let a result differ only by naming an entry here; `docs/differences.md` is printed from it.

/// One purposeful difference.
#[derive(Debug, serde::Serialize)]
pub struct Difference {
    /// What a scenario names.
    pub id: &'static str,
    /// The rule in `docs/kernel-rules.md`.
    pub rule: &'static str,
    /// What the kernel does.
    pub kernel: &'static str,
    /// What plyfs does.
    pub plyfs: &'static str,
    /// Why.
    pub why: &'static str,
}

/// The table.
pub const KNOWN_DIFFERENCES: &[Difference] = &[
    Difference {
        id: "lone-lower",
        rule: "K2",
        kernel: "One lower and no upper: the mount fails (EINVAL).",
        plyfs: "A read-only view of the lower.",
        why: "It is useful, and nothing else could be meant.",
    },
    Difference {
        id: "busy-layers",
        rule: "K6",
        kernel: "An upper or work in use by another mount: mounts, warns in the kernel's log, undefined results.",
        plyfs: "The second mount is refused.",
        why: "Two writers of one upper destroy it.",
    },
    Difference {
        id: "deep-leftovers",
        rule: "K7",
        kernel: "Leftovers in `work/work` deeper than two levels: mounted read-only.",
        plyfs: "Cleaned at any depth; a mount that cannot clean is refused.",
        why: "A view that turned read-only without a word is a trap.",
    },
    Difference {
        id: "statfs-type",
        rule: "K16",
        kernel: "statfs names the type 0x794c7630 (overlay).",
        plyfs: "0x65735546 (FUSE).",
        why: "The number belongs to FUSE and cannot be chosen.",
    },
    Difference {
        id: "whiteouts-hidden",
        rule: "K31, K32",
        kernel: "A whiteout in a directory that is not merged is listed by readdir, though stat answers ENOENT; so \
                 is a whiteout of the regular-file form in an upper.",
        plyfs: "Hidden from readdir as from lookup.",
        why: "A name that is listed but cannot be had makes rm -r and tar fail.",
    },
    Difference {
        id: "place-after-copy-up",
        rule: "K50",
        kernel: "Of several lowers, what is copied up from one above the lowest is listed from then on with the names that only \
                 the upper has, which come in the upper's order.",
        plyfs: "It keeps its place. What only the upper has comes in an order of its own.",
        why: "A listing goes on where it stopped, also in a later snapshot: no reader misses a name or gets it twice.",
    },
    Difference {
        id: "one-device",
        rule: "K44",
        kernel: "Layers on different file systems: st_dev differs between files of one view.",
        plyfs: "One st_dev; the layer is in the number.",
        why: "FUSE gives the view one device, and find -xdev and tar expect one.",
    },
    Difference {
        id: "rootless-numbers",
        rule: "K43",
        kernel: "In a user namespace a link made of a lower file shows two numbers for one file.",
        plyfs: "Both names show one number.",
        why: "git, rsync and cp -a compare them.",
    },
    Difference {
        id: "unmapped-owners",
        rule: "K69, K135",
        kernel: "In a user namespace, a file whose owner has no id there can be removed by the owner of its directory; \
                 changing it fails (EPERM, or EOVERFLOW at copy-up).",
        plyfs: "It is a file of user 65534. If that id has no mapping either, nobody may change or remove it (EPERM); if \
                it has, it is as any file of that user.",
        why: "A server is told 65534 and cannot know whose the file really is.",
    },
    Difference {
        id: "deleted-lower-nlink",
        rule: "K47",
        kernel: "A deleted lower file held open read-only still says nlink 1.",
        plyfs: "0.",
        why: "It has no name any more.",
    },
    Difference {
        id: "group-number",
        rule: "K42",
        kernel: "A member of a lower hard-link group changes its st_ino at copy-up.",
        plyfs: "If no other name of the group has been looked up yet, the name keeps its number, and the others show \
                another one.",
        why: "In a lower made by hard links every file is in a group, and hardly any has a second name in the tree.",
    },
    Difference {
        id: "chmod-deleted-lower",
        rule: "K72",
        kernel: "fchmod of a deleted lower file through its descriptor: EEXIST.",
        plyfs: "The change is made on the unnamed file.",
        why: "EEXIST makes no sense; the name is never revived.",
    },
    Difference {
        id: "rmdir-stray-whiteouts",
        rule: "K86",
        kernel: "rmdir of a pure directory that holds nothing but stray whiteouts, where the lower lacks the name: ENOTEMPTY.",
        plyfs: "The whiteouts are cleared and the directory goes.",
        why: "The directory is empty in the view.",
    },
    Difference {
        id: "mapping-before-copy-up",
        rule: "K111",
        kernel: "A shared mapping made before copy-up keeps showing the old data.",
        plyfs: "It shows the new data or the old.",
        why: "Better, and a side effect of FUSE's page cache.",
    },
    Difference {
        id: "old-readers",
        rule: "K110, K112",
        kernel: "A descriptor opened before a copy-up reads the new data afterwards, and its locks hold against those who \
                 open the file later.",
        plyfs: "So it is, except with `passthrough=all` where the server may use it: such a descriptor goes on reading the \
                old data, its locks hold only against others from before, and it cannot be opened again through `/proc` \
                (ESTALE).",
        why: "The kernel reads one file for all opens of an object. That is the price of reading the lower at native \
              speed on a writable view; see [io-modes.md](io-modes.md).",
    },
    Difference {
        id: "chattr",
        rule: "K68",
        kernel: "chattr works on the view; append-only and immutable are kept in X.protattr.",
        plyfs: "FS_IOC_SETFLAGS answers ENOTTY.",
        why: "FUSE passes ioctls on only in a restricted form.",
    },
    Difference {
        id: "tmpfile",
        rule: "K88, K154",
        kernel: "O_TMPFILE works.",
        plyfs: "EOPNOTSUPP.",
        why: "The FUSE library does not pass the request on yet; programs fall back to named temporary files.",
    },
    Difference {
        id: "failed-rename-mark",
        rule: "K93",
        kernel: "A pure directory renamed onto a directory with entries (ENOTEMPTY) has got its opaque mark already.",
        plyfs: "A rename that fails changes nothing.",
        why: "The mark is a trace of the kernel's order of steps; on a pure directory it has no effect.",
    },
    Difference {
        id: "fallocate-modes",
        rule: "K115",
        kernel: "fallocate with COLLAPSE_RANGE or INSERT_RANGE acts on the real file.",
        plyfs: "EOPNOTSUPP.",
        why: "FUSE in the kernel refuses these modes before they reach a server.",
    },
    Difference {
        id: "setuid-while-open",
        rule: "K103",
        kernel: "Setuid bits may be given to a file at any time; the next write by an ordinary user drops them.",
        plyfs: "ETXTBSY when another user would have a setuid file open for writing that root has open (as root, with passthrough). \
                Given to a file that another user opened first, they fall with root's next write too.",
        why: "The kernel writes for all of them with one set of privileges; the bits must not survive the other's write.",
    },
    Difference {
        id: "cut-to-fit",
        rule: "K64",
        kernel: "truncate(2) copies all of a lower file up before it is cut: ENOSPC on a full upper.",
        plyfs: "Only what stays is copied, so it succeeds when that fits.",
        why: "Data that is thrown away at once need not be copied.",
    },
    Difference {
        id: "index-directory",
        rule: "section 12",
        kernel: "Entries in `work/index` are ignored with index=off.",
        plyfs: "The mount is refused.",
        why: "Links that only the index holds together would be cut unseen.",
    },
];

/// The text of `docs/differences.md`.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# How plyfs differs from the kernel's overlay\n\n\
         On purpose, and nowhere else: the tests run every scenario on both and allow only these.\n\
         The rules are those of [kernel-rules.md](kernel-rules.md).\n\n\
         <!-- Printed from src/compare/known.rs: PLYFS_TEST_BLESS=1 cargo test --test it differences -->\n\n\
         | rule | the kernel | plyfs | why |\n|---|---|---|---|\n",
    );
    for d in KNOWN_DIFFERENCES {
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        page += &format!(
            "| {} | {} | {} | {} |\n",
            d.rule,
            squeeze(d.kernel),
            squeeze(d.plyfs),
            squeeze(d.why)
        );
    }
    page
}
