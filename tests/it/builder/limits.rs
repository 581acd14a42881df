//! Hard links run out: copies take over, groups stay together, and the copies serve later clones.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use plyfs::builder::{LinkReport, Linker, Silent, clone_tree};

use super::room::{Room, faults, manifest, names, open, same_inode};
use crate::common::plant::plant;
use crate::common::{chr, dir, fifo, file, hard, need_root, symlink, sys};

/// ext4's.
const LIMIT: u64 = 65_000;

fn clone(source: &Path, to: &Path, linker: &Linker) -> LinkReport {
    fs::create_dir(to).unwrap();
    clone_tree(open(source).as_fd(), open(to).as_fd(), linker, &Silent).unwrap();
    linker.report()
}

/// Clones until there are `count`; every one must be equal to the source.
fn clones(room: &Room, count: usize, linker: impl Fn() -> Linker) -> Vec<(PathBuf, LinkReport)> {
    let source = room.path("source");
    let recorded = manifest(&source);
    (0..count)
        .map(|number| {
            let to = room.path(&format!("clone-{number}"));
            let report = clone(&source, &to, &linker());
            assert_eq!(faults(&to, &recorded), Vec::<String>::new(), "clone {number}");
            assert_eq!(
                faults(&source, &recorded),
                Vec::<String>::new(),
                "after clone {number}"
            );
            (to, report)
        })
        .collect()
}

#[test]
fn a_full_inode_is_copied() {
    let room = Room::new();
    plant(
        room.base(),
        &[dir("source"), file("source/f", "text"), symlink("source/s", "t")],
    );
    let made = clones(&room, 4, || Linker::new().link_limit(3));
    let counts: Vec<_> = made
        .iter()
        .map(|(_, report)| (report.linked, report.copied))
        .collect();
    // Source and two clones share; from then on each has its own.
    assert_eq!(counts, [(2, 0), (2, 0), (0, 2), (0, 2)]);
    assert!(!same_inode(&made[2].0.join("f"), &made[3].0.join("f")));
}

#[test]
fn copies_of_full_inodes_serve_later_clones() {
    let room = Room::new();
    plant(
        room.base(),
        &[
            dir("source"),
            file("source/f", "text"),
            symlink("source/s", "t"),
            fifo("source/p"),
        ],
    );
    let overflow = room.dir("overflow");
    let made = clones(&room, 7, || Linker::with_overflow(open(&overflow)).link_limit(3));
    let counts: Vec<_> = made
        .iter()
        .map(|(_, report)| (report.linked, report.copied))
        .collect();
    // Two clones link the source's inodes. A copy has a name in the overflow directory and two clones.
    assert_eq!(counts, [(3, 0), (3, 0), (3, 3), (3, 0), (3, 3), (3, 0), (3, 3)]);
    for name in ["f", "s", "p"] {
        assert!(same_inode(&made[2].0.join(name), &made[3].0.join(name)), "{name}");
        assert!(same_inode(&made[4].0.join(name), &made[5].0.join(name)), "{name}");
        assert!(
            !same_inode(&made[3].0.join(name), &made[4].0.join(name)),
            "{name}"
        );
    }
    let ino = sys::ino(room.path("source/f")).unwrap();
    let kept = names(&overflow);
    let of_f: Vec<_> = kept
        .iter()
        .filter(|name| name.starts_with(&format!("{ino}-")))
        .map(|name| name.rsplit_once('.').unwrap().1)
        .collect();
    assert_eq!((kept.len(), of_f), (9, vec!["1", "2", "3"]), "{kept:?}");
}

#[test]
fn an_overflow_of_another_tree_is_not_taken() {
    let room = Room::new();
    plant(
        room.base(),
        &[dir("source"), file("source/f", "text"), file("other", "evil")],
    );
    let overflow = room.dir("overflow");
    // As in a store that was copied elsewhere: the same inode number, but the file was born another time.
    let ino = sys::ino(room.path("source/f")).unwrap();
    fs::copy(
        room.path("other"),
        overflow.join(format!("{ino}-12345.000000000.1")),
    )
    .unwrap();
    let made = clones(&room, 3, || Linker::with_overflow(open(&overflow)).link_limit(2));
    assert_eq!(fs::read_to_string(made[2].0.join("f")).unwrap(), "text");
    assert_eq!(names(&overflow).len(), 3);
}

#[test]
fn a_group_stays_one_file() {
    if !need_root("a_group_stays_one_file") {
        return;
    }
    let room = Room::new();
    let mut nodes = vec![dir("source"), dir("source/z")];
    // More names than one thread links before the other comes.
    nodes.extend([
        file("source/f", "text").xattr("user.x", "y"),
        hard("source/f2", "source/f"),
        hard("source/f3", "source/f"),
        hard("source/z/f4", "source/f"),
        symlink("source/s", "t"),
        hard("source/z/s2", "source/s"),
        chr("source/c", 1, 3),
        hard("source/z/c2", "source/c"),
        file("source/z/single", "alone"),
    ]);
    plant(room.base(), &nodes);
    let overflow = room.dir("overflow");
    // 4 names, 6: one clone fits with two names, and then the inode is full in the middle of the group.
    for keep in [false, true] {
        for limit in 5..12 {
            let made = clones(&room, 5, || {
                let linker = if keep {
                    Linker::with_overflow(open(&overflow))
                } else {
                    Linker::new()
                };
                linker.link_limit(limit)
            });
            for (path, report) in made {
                for (a, b) in [
                    ("f", "f2"),
                    ("f", "f3"),
                    ("f", "z/f4"),
                    ("s", "z/s2"),
                    ("c", "z/c2"),
                ] {
                    assert!(
                        same_inode(&path.join(a), &path.join(b)),
                        "limit {limit}: {a} and {b}"
                    );
                }
                assert_eq!(
                    report.linked + report.copied,
                    9 + if keep { report.copied } else { 0 }
                );
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
}

/// The real limit: 65,000 links of one inode on ext4, and the next clones.
#[test]
fn sixty_five_thousand_links_on_ext4() {
    if !need_root("sixty_five_thousand_links_on_ext4") {
        return;
    }
    let mut room = Room::new();
    let ext4 = room.ext4("ext4");
    plant(
        &ext4,
        &[
            dir("source"),
            file("source/a", "popular")
                .mode(0o4755)
                .own(3, 4)
                .xattr("user.x", "y"),
            hard("source/b", "source/a"),
            file("source/c", "not so"),
            dir("others"),
        ],
    );
    let source = ext4.join("source");
    for number in 0..LIMIT - 5 {
        fs::hard_link(source.join("a"), ext4.join("others").join(number.to_string())).unwrap();
    }
    assert_eq!(sys::nlink(source.join("a")), Ok(LIMIT - 3));
    let recorded = manifest(&source);
    let overflow = ext4.join("overflow");
    fs::create_dir(&overflow).unwrap();
    let make = |name: &str| {
        let report = clone(&source, &ext4.join(name), &Linker::with_overflow(open(&overflow)));
        assert_eq!(
            faults(&ext4.join(name), &recorded),
            Vec::<String>::new(),
            "{name}"
        );
        report
    };
    let first = make("first");
    assert_eq!((first.linked, first.copied), (3, 0));
    assert!(same_inode(&source.join("a"), &ext4.join("first/b")));
    assert_eq!(sys::nlink(source.join("a")), Ok(LIMIT - 1));
    // One more name fits, the group's second does not: both go to the copy.
    let second = make("second");
    assert_eq!((second.copied, second.bytes_copied), (1, 7));
    assert!(same_inode(&ext4.join("second/a"), &ext4.join("second/b")));
    assert!(!same_inode(&source.join("a"), &ext4.join("second/a")));
    assert_eq!(
        sys::nlink(source.join("a")),
        Ok(LIMIT - 1),
        "the first name let go of it"
    );
    fs::hard_link(source.join("a"), ext4.join("others/last")).unwrap();
    let third = make("third");
    assert_eq!((third.linked, third.copied), (3, 0));
    assert!(same_inode(&ext4.join("second/a"), &ext4.join("third/b")));
    assert_eq!(
        sys::nlink(ext4.join("third/a")),
        Ok(5),
        "two clones and the overflow"
    );
    assert_eq!(names(&overflow).len(), 1);
    assert_eq!(faults(&source, &recorded), Vec::<String>::new());
    // The command on plain directories: a copy, told.
    let said = room.ok(&["layer", "clone", "ext4/source", "ext4/fourth"]);
    assert!(
        said.contains("copies: 0 with shared blocks, 1 whole (7 B)"),
        "{said}"
    );
    assert_eq!(faults(&ext4.join("fourth"), &recorded), Vec::<String>::new());
}
