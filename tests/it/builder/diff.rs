//! What `plyfs layer diff OLD NEW` tells: one test for each rule of docs/layers.md.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::told::{How, cloned, link, planted, told, trees, try_trees, try_upper, upper};
use crate::common::plant::{PLANTED, plant};
use crate::common::{Layers, acl, chr, dir, fifo, file, hard, need_root, sock, symlink, sys};

#[test]
fn equal_trees_have_no_changes() {
    let nodes = [
        dir("d"),
        file("d/f", "text").xattr("user.a", "1"),
        symlink("d/s", "f"),
        fifo("p"),
        hard("d/g", "d/f"),
        sock("socket"),
    ];
    assert!(told(&nodes, &nodes).is_empty());
    assert!(cloned(&nodes, |_| ()).is_empty());
    assert!(told(&[], &[]).is_empty());
}

#[test]
fn added_changed_and_deleted_names_with_their_parents() {
    let old = [
        dir("a"),
        dir("a/b"),
        file("a/b/changed", "1"),
        dir("gone"),
        dir("gone/deep"),
        file("gone/deep/f", ""),
        file("quiet", ""),
    ];
    let new = [
        dir("a"),
        dir("a/b"),
        file("a/b/changed", "22"),
        dir("fresh"),
        dir("fresh/deep"),
        file("fresh/deep/f", ""),
        file("quiet", ""),
    ];
    assert_eq!(
        told(&old, &new),
        [
            "C /a",
            "C /a/b",
            "C /a/b/changed (size)",
            "A /fresh",
            "A /fresh/deep",
            "A /fresh/deep/f",
            "D /gone",
        ]
    );
}

#[test]
fn a_moved_directory_is_new_in_one_place_and_gone_in_the_other() {
    let lines = cloned(&[dir("old"), file("old/f", "x")], |tree| {
        sys::rename(tree.join("old"), tree.join("new")).unwrap();
    });
    assert_eq!(lines, ["A /new", "A /new/f", "D /old"]);
}

#[test]
fn the_order_is_that_of_the_tree() {
    // As text, `a-b` would come between `a` and `a/z`.
    let new = [dir("a"), file("a/z", ""), file("a-b", ""), file("a.b", "")];
    assert_eq!(told(&[], &new), ["A /a", "A /a/z", "A /a-b", "A /a.b"]);
}

#[test]
fn the_root_is_told_only_for_itself() {
    let layers = planted(&[], &[file("f", "")]);
    assert_eq!(trees(&layers.lower, &layers.upper), ["A /f"]);
    sys::chmod(&layers.upper, 0o700).unwrap();
    assert_eq!(trees(&layers.lower, &layers.upper), ["C / (mode)", "A /f"]);
}

#[test]
fn the_time_of_a_directory_is_no_change() {
    let old = [dir("d"), dir("e"), file("e/f", "")];
    let new = [dir("d").mtime(1, 1), dir("e").mtime(2, 2), file("e/f", "")];
    assert!(told(&old, &new).is_empty());
    let made_again = cloned(&old, |tree| {
        sys::rmdir(tree.join("d")).unwrap();
        sys::mkdir(tree.join("d"), 0o755).unwrap();
    });
    assert!(made_again.is_empty());
}

#[test]
fn metadata_of_every_kind() {
    if !need_root("metadata_of_every_kind") {
        return;
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let old = [
        chr("device", 1, 3),
        dir("dir-mode"),
        dir("dir-xattr"),
        file("acl", ""),
        file("capability", ""),
        file("mode", ""),
        file("mtime", ""),
        file("owner", ""),
        file("size", "1"),
        file("xattr", "").xattr("user.a", "1"),
        file("xattr-less", "").xattr("user.a", "1"),
        file("zero-xattr", ""),
        symlink("symlink", "to"),
        symlink("symlink-owner", "to"),
    ];
    let new = [
        chr("device", 1, 5),
        dir("dir-mode").mode(0o700),
        dir("dir-xattr").xattr("trusted.x", "1"),
        file("acl", "").xattr(
            acl::ACCESS,
            acl::of(&[
                (acl::USER_OBJ, 0, 6),
                (acl::USER, 7, 6),
                (acl::GROUP_OBJ, 0, 4),
                (acl::MASK, 0, 6),
                (acl::OTHER, 0, 4),
            ]),
        ),
        file("capability", "").xattr("security.capability", capability),
        file("mode", "").mode(0o4755),
        file("mtime", "").mtime(PLANTED.0, PLANTED.1 + 1),
        file("owner", "").own(0, 7),
        file("size", "22"),
        file("xattr", "").xattr("user.a", "2"),
        file("xattr-less", ""),
        file("zero-xattr", "").xattr("user.a", ""),
        symlink("symlink", "no"),
        symlink("symlink-owner", "to").own(7, 0),
    ];
    assert_eq!(
        told(&old, &new),
        [
            "C /acl (mode xattrs)",
            "C /capability (xattrs)",
            "C /device (device)",
            "C /dir-mode (mode)",
            "C /dir-xattr (xattrs)",
            "C /mode (mode)",
            "C /mtime (mtime)",
            "C /owner (owner)",
            "C /size (size)",
            "C /symlink (target)",
            "C /symlink-owner (owner)",
            "C /xattr (xattrs)",
            "C /xattr-less (xattrs)",
            "C /zero-xattr (xattrs)",
        ]
    );
}

#[test]
fn an_object_of_another_kind() {
    let old = [
        dir("to-file"),
        file("to-file/below", ""),
        file("to-dir", ""),
        dir("to-symlink"),
        file("to-fifo", ""),
    ];
    let new = [
        file("to-file", ""),
        dir("to-dir"),
        file("to-dir/below", ""),
        symlink("to-symlink", "to-dir"),
        fifo("to-fifo"),
    ];
    assert_eq!(
        told(&old, &new),
        [
            "C /to-dir (kind)",
            "A /to-dir/below",
            "C /to-fifo (kind)",
            "C /to-file (kind)",
            "C /to-symlink (kind)",
        ]
    );
}

#[test]
fn an_edit_of_equal_size_within_the_second() {
    // A file from an archive has a time of whole seconds, and the edit falls into that second.
    let old = [file("f", "aaaa").mtime(1_700_000_000, 0)];
    let new = [file("f", "bbbb").mtime(1_700_000_000, 123)];
    assert_eq!(told(&old, &new), ["C /f (mtime)"]);
}

#[test]
fn an_edit_whose_time_was_put_back() {
    for nanos in [0, 123_456_789] {
        let old = [file("f", "aaaa").mtime(1_700_000_000, nanos)];
        let new = [file("f", "aaab").mtime(1_700_000_000, nanos)];
        assert_eq!(told(&old, &new), ["C /f (content)"]);
        let layers = planted(&old, &new);
        assert_eq!(upper(&layers.upper, &layers.lower), ["C /f (content)"]);
    }
    let far = |byte: &[u8]| crate::common::sparse("f", 40 << 20, &[(1, b"x"), (39 << 20, byte)]);
    assert_eq!(told(&[far(b"y")], &[far(b"z")]), ["C /f (content)"]);
    assert!(told(&[far(b"y")], &[far(b"y")]).is_empty());
    let hole = crate::common::sparse("f", 1 << 20, &[]);
    assert!(told(&[file("f", vec![0; 1 << 20])], &[hole]).is_empty());
}

#[test]
fn an_unlinked_file_made_again_with_the_same_content_is_unchanged() {
    let lines = cloned(&[file("f", "same").mode(0o600)], |tree| {
        sys::unlink(tree.join("f")).unwrap();
        plant(tree, &[file("f", "same").mode(0o600)]);
    });
    assert!(lines.is_empty(), "{lines:?}");
}

#[test]
fn a_new_link_of_an_old_file_takes_its_group_along() {
    let lines = cloned(&[file("a", "1"), file("z", "")], |tree| link(tree, "a", "b"));
    assert_eq!(lines, ["C /a (links)", "A /b"]);
    let lines = cloned(&[file("a", "1"), hard("b", "a")], |tree| link(tree, "b", "c"));
    assert_eq!(lines, ["C /a (links)", "C /b (links)", "A /c"]);
}

#[test]
fn links_that_fall_apart_or_come_together() {
    let copy = |tree: &Path, name: &str| {
        sys::unlink(tree.join(name)).unwrap();
        plant(tree, &[file(name, "1")]);
    };
    let three = [file("a", "1"), hard("b", "a"), hard("c", "a")];
    assert_eq!(cloned(&three, |tree| copy(tree, "a")), ["C /a (links)"]);
    assert_eq!(cloned(&three, |tree| copy(tree, "c")), ["C /c (links)"]);
    let gone = cloned(&three, |tree| sys::unlink(tree.join("b")).unwrap());
    assert_eq!(gone, ["D /b"], "the others are links as before");
    let apart = [file("a", "1"), file("b", "1"), hard("c", "a")];
    assert_eq!(told(&three, &apart), ["C /b (links)"]);
    assert_eq!(
        told(&apart, &three),
        ["C /a (links)", "C /b (links)", "C /c (links)"]
    );
}

#[test]
fn a_group_that_was_copied_as_a_group_is_unchanged() {
    let nodes = [file("a", "1"), hard("b", "a"), symlink("s", "x"), hard("t", "s")];
    assert!(told(&nodes, &nodes).is_empty());
    // The names outside of the trees do not count.
    let layers = planted(&[file("a", "1")], &[file("a", "1")]);
    link(layers.base(), "l/a", "w/1");
    link(layers.base(), "u/a", "w/2");
    assert!(trees(&layers.lower, &layers.upper).is_empty());
}

#[test]
fn names_that_are_hard_to_print() {
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let new = [
        file(PathBuf::from(name), ""),
        file("line\nbreak", ""),
        file("ä", ""),
    ];
    assert_eq!(told(&[], &new), ["A /line\\nbreak", "A /ä", "A /\\xff\\xfe"]);
}

#[test]
fn trees_deeper_than_descriptors_are_kept() {
    let layers = Layers::new();
    for tree in [&layers.lower, &layers.upper] {
        let mut at = tree.clone();
        for depth in 0..150 {
            at.push("d");
            sys::mkdir(&at, 0o755).unwrap();
            // Comes after `d`, so it is looked at on the way back.
            let text = if depth % 50 == 0 && tree == &layers.upper {
                "22"
            } else {
                "1"
            };
            sys::put(at.join("z"), text).unwrap();
            sys::utimens(at.join("z"), PLANTED, PLANTED).unwrap();
        }
    }
    let depths = |lines: Vec<String>| -> Vec<usize> {
        let names = lines.iter().filter(|line| line.ends_with("z (size)"));
        names.map(|line| line.matches("/d").count()).collect()
    };
    assert_eq!(depths(trees(&layers.lower, &layers.upper)), [101, 51, 1]);
    // The lower ends half-way, and opens again by the same way.
    let half = format!("{}/d", "d/".repeat(60));
    fs::remove_dir_all(layers.lower.join(&half)).unwrap();
    let lines = upper(&layers.upper, &layers.lower);
    assert_eq!(depths(lines.clone()), [51, 1]);
    assert_eq!(lines.iter().filter(|line| line.starts_with('A')).count(), 2 * 90);
}

#[test]
fn who_does_not_own_the_files_can_compare_them() {
    if !need_root("who_does_not_own_the_files_can_compare_them") {
        return;
    }
    let layers = planted(&[dir("d"), file("d/f", "1")], &[dir("d"), file("d/f", "2")]);
    let lines = crate::common::as_user(crate::common::who::ANN, || trees(&layers.lower, &layers.upper));
    assert_eq!(lines, ["C /d", "C /d/f (content)"]);
}

#[test]
fn comparing_leaves_access_times_alone() {
    let nodes = [dir("d"), file("d/f", "same")];
    let layers = planted(&nodes, &nodes);
    let times = || {
        ["l", "l/d", "l/d/f"].map(|name| {
            let stat = sys::stat(layers.base().join(name)).unwrap();
            (stat.st_atime, stat.st_atime_nsec)
        })
    };
    let before = times();
    assert!(trees(&layers.lower, &layers.upper).is_empty());
    assert_eq!(times(), before);
}

#[test]
fn a_mount_inside_a_tree_is_refused() {
    if !need_root("a_mount_inside_a_tree_is_refused") {
        return;
    }
    let nodes = [dir("d"), dir("d/m")];
    let layers = planted(&nodes, &nodes);
    sys::mount("none", &layers.upper.join("d/m"), "tmpfs", 0, "").unwrap();
    let words = try_trees(&layers.lower, &layers.upper).unwrap_err().to_string();
    assert!(words.starts_with("/d/m: something is mounted here"), "{words}");
    let file_on_file = planted(&[file("f", "1")], &[file("f", "1"), file("g", "2")]);
    let (from, onto) = (file_on_file.upper.join("g"), file_on_file.upper.join("f"));
    sys::mount(from.to_str().unwrap(), &onto, "", libc::MS_BIND, "").unwrap();
    let words = try_upper(&file_on_file.upper, &file_on_file.lower, How::default());
    sys::umount(&onto, 0).unwrap();
    assert!(
        words
            .unwrap_err()
            .to_string()
            .starts_with("/f: something is mounted here")
    );
}
