//! What `plyfs layer diff` tells: one test for each rule of docs/layers.md.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plyfs::builder::BuildError;
use plyfs::builder::diff::{Change, Upper, diff_trees, diff_upper};
use plyfs::format::{Links, Namespace, TreeId};

use crate::common::plant::{PLANTED, plant};
use crate::common::{
    Fs, Layers, Node, acl, chr, dir, fifo, file, hard, need_root, sock, symlink, sys, whiteout,
};

/// A line for each change: the letter, the path, and in brackets in what it differs.
fn line(change: &Change) -> String {
    let words: Vec<_> = change.differences.iter().map(|what| what.word()).collect();
    let what = if words.is_empty() {
        String::new()
    } else {
        format!(" ({})", words.join(" "))
    };
    format!("{} {}{what}", change.letter.as_char(), change.path)
}

fn root(path: &Path) -> File {
    File::open(path).unwrap()
}

fn try_trees(old: &Path, new: &Path) -> Result<Vec<String>, BuildError> {
    let mut lines = Vec::new();
    diff_trees(root(old).as_fd(), root(new).as_fd(), &mut |change| {
        lines.push(line(&change));
        Ok(())
    })?;
    Ok(lines)
}

fn trees(old: &Path, new: &Path) -> Vec<String> {
    try_trees(old, new).unwrap()
}

/// How the upper is looked at.
#[derive(Clone, Copy, Default)]
struct How<'a> {
    init: Option<&'a Path>,
    namespace: Option<Namespace>,
    /// Every inode of the lower has so many names in its tree.
    names: Option<u32>,
}

fn try_upper(upper: &Path, lower: &Path, how: How<'_>) -> Result<Vec<String>, BuildError> {
    let mut lines = Vec::new();
    let init = how.init.map(root);
    let names = how.names.map(|names| move |_| names);
    let (upper, lower) = (root(upper), root(lower));
    diff_upper(
        Upper {
            upper: upper.as_fd(),
            lower: lower.as_fd(),
            init: init.as_ref().map(AsFd::as_fd),
            namespace: how.namespace,
            names: names
                .as_ref()
                .map(|names| names as &plyfs::builder::diff::Names<'_>),
        },
        &mut |change| {
            lines.push(line(&change));
            Ok(())
        },
    )?;
    Ok(lines)
}

fn upper(upper: &Path, lower: &Path) -> Vec<String> {
    try_upper(upper, lower, How::default()).unwrap()
}

/// Two trees planted apart; `l` is the old one and `u` the new one.
fn planted(old: &[Node], new: &[Node]) -> Layers {
    Layers::new().with_lower(old).with_upper(new)
}

fn told(old: &[Node], new: &[Node]) -> Vec<String> {
    let layers = planted(old, new);
    trees(&layers.lower, &layers.upper)
}

fn link(tree: &Path, from: &str, to: &str) {
    fs::hard_link(tree.join(from), tree.join(to)).unwrap();
}

/// The new tree as a clone of the old one: every file the same inode.
fn cloned(old: &[Node], change: impl FnOnce(&Path)) -> Vec<String> {
    let layers = Layers::new().with_lower(old);
    let status = std::process::Command::new("cp")
        .args(["-al", "--"])
        .arg(layers.lower.join("."))
        .arg(&layers.upper)
        .status();
    assert!(status.unwrap().success());
    change(&layers.upper);
    trees(&layers.lower, &layers.upper)
}

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
fn whiteouts_in_an_upper() {
    let lower = [
        file("gone", ""),
        dir("d"),
        dir("d/e"),
        file("d/e/f", ""),
        file("d/g", ""),
    ];
    let layers = planted(
        &lower,
        &[
            whiteout("gone"),
            whiteout("stray"),
            dir("d"),
            whiteout("d/e"),
            dir("n"),
            whiteout("n/stray"),
        ],
    );
    assert_eq!(
        upper(&layers.upper, &layers.lower),
        ["C /d", "D /d/e", "D /gone", "A /n"]
    );
}

#[test]
fn an_opaque_directory_is_compared_name_by_name() {
    for mark in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        if mark.starts_with("trusted") && !need_root("an_opaque_directory_is_compared_name_by_name") {
            continue;
        }
        let layers = planted(
            &[
                dir("d"),
                file("d/changed", "1"),
                file("d/gone", ""),
                file("d/same", "s"),
                dir("d/sub"),
                file("d/sub/gone", ""),
            ],
            &[
                dir("d").xattr(mark, "y"),
                file("d/changed", "22"),
                file("d/new", ""),
                file("d/same", "s"),
                dir("d/sub"),
            ],
        );
        assert_eq!(
            upper(&layers.upper, &layers.lower),
            [
                "C /d",
                "C /d/changed (size)",
                "D /d/gone",
                "A /d/new",
                "C /d/sub",
                "D /d/sub/gone",
            ],
            "{mark}"
        );
        // A directory that was deleted and made again, with what was in it, is unchanged.
        let same = [dir("d"), file("d/f", "x")];
        let again = planted(&same, &[dir("d").xattr(mark, "y"), file("d/f", "x")]);
        assert!(upper(&again.upper, &again.lower).is_empty());
    }
}

#[test]
fn marks_of_the_other_namespace_are_a_users_own() {
    if !need_root("marks_of_the_other_namespace_are_a_users_own") {
        return;
    }
    // An overlay inside the view, made by a user there: the mount itself keeps its marks in trusted.overlay.
    let layers = planted(
        &[dir("d"), file("d/f", "")],
        &[dir("d").xattr("user.overlay.opaque", "y"), whiteout("gone")],
    );
    sys::setxattr(&layers.upper, "trusted.overlay.impure", "y").unwrap();
    assert_eq!(upper(&layers.upper, &layers.lower), ["C /d (xattrs)"]);
    let how = How {
        namespace: Some(Namespace::User),
        ..How::default()
    };
    assert_eq!(
        try_upper(&layers.upper, &layers.lower, how).unwrap(),
        ["C / (xattrs)", "C /d", "D /d/f"]
    );
}

#[test]
fn private_marks_are_no_attributes_and_escaped_ones_are() {
    if !need_root("private_marks_are_no_attributes_and_escaped_ones_are") {
        return;
    }
    let layers = planted(
        &[dir("d"), file("d/f", "1")],
        &[
            dir("d").xattr("trusted.overlay.impure", "y"),
            file("d/f", "1").xattr("trusted.overlay.origin", "rubbish"),
        ],
    );
    assert!(upper(&layers.upper, &layers.lower).is_empty());
    sys::setxattr(layers.upper.join("d/f"), "trusted.overlay.overlay.mine", "1").unwrap();
    assert_eq!(upper(&layers.upper, &layers.lower), ["C /d", "C /d/f (xattrs)"]);
}

#[test]
fn a_regular_file_can_be_a_whiteout() {
    let layers = planted(
        &[file("gone", "1"), file("kept", "1")],
        &[
            file("gone", "").xattr("user.overlay.whiteout", ""),
            file("kept", "1").xattr("user.overlay.whiteout", ""),
        ],
    );
    assert_eq!(upper(&layers.upper, &layers.lower), ["D /gone"]);
}

#[test]
fn marks_of_features_that_keep_data_elsewhere_are_refused() {
    let refused = |node: Node| {
        let layers = planted(&[], &[node]);
        try_upper(&layers.upper, &layers.lower, How::default())
            .unwrap_err()
            .to_string()
    };
    let metacopy = refused(file("f", "").xattr("user.overlay.metacopy", ""));
    assert!(
        metacopy.starts_with("/f: carries a mark of metacopy"),
        "{metacopy}"
    );
    let redirect = refused(dir("d").xattr("user.overlay.redirect", "/other"));
    assert!(
        redirect.starts_with("/d: carries a mark of redirect_dir"),
        "{redirect}"
    );
    // In a lower that is looked at.
    let layers = planted(
        &[dir("d"), file("d/f", "").xattr("user.overlay.metacopy", "")],
        &[dir("d").xattr("user.overlay.opaque", "y"), file("d/f", "")],
    );
    assert!(try_upper(&layers.upper, &layers.lower, How::default()).is_err());
}

#[test]
fn a_copy_up_that_changed_nothing_is_no_change() {
    let nodes = [dir("d").mode(0o711), file("d/f", "text").mode(0o640).own(0, 0)];
    let layers = planted(&nodes, &nodes);
    assert!(upper(&layers.upper, &layers.lower).is_empty());
    let touched = planted(
        &nodes,
        &[dir("d").mode(0o711), file("d/f", "text").mode(0o640).mtime(5, 0)],
    );
    assert_eq!(upper(&touched.upper, &touched.lower), ["C /d", "C /d/f (mtime)"]);
}

#[test]
fn a_name_copied_out_of_a_group_of_the_lower() {
    let layers = planted(&[file("a", "1"), hard("b", "a")], &[file("a", "1")]);
    assert_eq!(upper(&layers.upper, &layers.lower), ["C /a (links)"]);
    // In a layer that shares files with others the link count tells nothing, and its record does.
    let with = |names| How {
        names: Some(names),
        ..How::default()
    };
    assert!(
        try_upper(&layers.upper, &layers.lower, with(1))
            .unwrap()
            .is_empty()
    );
    let lines = try_upper(&layers.upper, &layers.lower, with(2)).unwrap();
    assert_eq!(lines, ["C /a (links)"]);
    // Without the record the lower is searched: names in other trees do not count.
    let shared = planted(&[file("a", "1"), dir("d"), file("d/b", "1")], &[file("a", "1")]);
    link(shared.base(), "l/a", "w/a");
    assert!(upper(&shared.upper, &shared.lower).is_empty());
    link(&shared.lower, "a", "d/c");
    assert_eq!(upper(&shared.upper, &shared.lower), ["C /a (links)"]);
    // Both names, a group again.
    let group = [file("a", "1"), hard("b", "a")];
    let layers = planted(&group, &group);
    assert!(upper(&layers.upper, &layers.lower).is_empty());
}

#[test]
fn a_stored_layer_has_a_record_of_its_links() {
    let layers = planted(
        &[
            dir("root"),
            file("root/a", "1"),
            file("root/b", "1"),
            hard("root/c", "root/b"),
        ],
        &[file("a", "1"), file("b", "1")],
    );
    // As if another layer had it too.
    link(layers.base(), "l/root/a", "w/a");
    let tree = layers.lower.join("root");
    let number = sys::stat(tree.join("b")).unwrap().st_ino;
    let links = Links::new(TreeId::of(root(&tree)).unwrap(), [(number, 2)]);
    sys::put(layers.lower.join("links"), links.encode()).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_plyfs"))
        .args(["layer", "diff", "--upper"])
        .arg(&layers.upper)
        .arg("--lower")
        .arg(&tree)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "C /b\n");
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
fn a_link_made_of_a_file_of_the_lower() {
    let layers = planted(&[file("a", "1")], &[file("a", "1"), hard("b", "a")]);
    assert_eq!(upper(&layers.upper, &layers.lower), ["C /a (links)", "A /b"]);
}

#[test]
fn a_containers_first_layer_does_not_show() {
    let lower = [dir("etc"), file("etc/hosts", "image"), dir("dev")];
    let init = [
        file(".dockerenv", "").mode(0o755),
        dir("dev"),
        dir("dev/pts"),
        dir("etc"),
        file("etc/hosts", "").mode(0o755),
        file("etc/hostname", "").mode(0o755),
        file("etc/resolv.conf", "").mode(0o755),
        symlink("etc/mtab", "/proc/mounts"),
    ];
    let layers = planted(&lower, &init);
    let first = layers.base().join("init");
    sys::mkdir(&first, 0o755).unwrap();
    plant(&first, &init);
    let how = How {
        init: Some(&first),
        ..How::default()
    };
    let lines = || try_upper(&layers.upper, &layers.lower, how).unwrap();
    assert!(lines().is_empty(), "{:?}", lines());
    // A change of one of them shows, and what is removed too.
    sys::put(layers.upper.join("etc/hostname"), "box").unwrap();
    sys::unlink(layers.upper.join("etc/mtab")).unwrap();
    sys::unlink(layers.upper.join("etc/hosts")).unwrap();
    plant(&layers.upper, &[whiteout("etc/hosts"), file("new", "")]);
    assert_eq!(
        lines(),
        [
            "C /etc",
            "C /etc/hostname (size mtime)",
            "D /etc/hosts",
            "D /etc/mtab",
            "A /new",
        ]
    );
    // Without being told, all of it is the upper's.
    assert!(upper(&layers.upper, &layers.lower).contains(&"A /.dockerenv".to_owned()));
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

/// The same changes told by what the view shows and by the upper.
#[test]
fn the_upper_of_a_real_mount_and_its_view_agree() {
    if !need_root("the_upper_of_a_real_mount_and_its_view_agree") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new().with_lower(&[
            dir("dir"),
            file("dir/a", "1"),
            dir("dir/sub"),
            file("dir/sub/x", "1"),
            dir("moved"),
            file("moved/f", "1"),
            file("opened", "1"),
            file("linked", "1"),
            file("mode", "1"),
            dir("again"),
            file("again/old", "1"),
        ]);
        let mounted = layers.mount(fs, &[]);
        let m = mounted.path();
        sys::append(m.join("dir/a"), "2").unwrap();
        fs::remove_dir_all(m.join("dir/sub")).unwrap();
        sys::put(m.join("dir/fresh"), "").unwrap();
        drop(sys::open(m.join("opened"), libc::O_RDWR).unwrap());
        sys::link(m.join("linked"), m.join("linked-too")).unwrap();
        sys::chmod(m.join("mode"), 0o600).unwrap();
        fs::remove_dir_all(m.join("again")).unwrap();
        sys::mkdir(m.join("again"), 0o755).unwrap();
        sys::put(m.join("again/new"), "").unwrap();
        let seen = trees(&layers.lower, m);
        mounted.umount();
        let expected = [
            "C /again",
            "A /again/new",
            "D /again/old",
            "C /dir",
            "C /dir/a (size mtime)",
            "A /dir/fresh",
            "D /dir/sub",
            "C /linked (links)",
            "A /linked-too",
            "C /mode (mode)",
        ];
        assert_eq!(upper(&layers.upper, &layers.lower), expected, "{fs:?}");
        assert_eq!(seen, expected, "{fs:?}");
    }
}

#[test]
fn the_cost_is_that_of_the_change() {
    let layers = Layers::new();
    for directory in 0..100 {
        let at = layers.lower.join(format!("dir{directory}"));
        sys::mkdir(&at, 0o755).unwrap();
        sys::put(at.join("0"), "x").unwrap();
        for number in 1..1000 {
            sys::link(at.join("0"), at.join(number.to_string())).unwrap();
        }
    }
    for number in 0..10 {
        let at = layers.upper.join(format!("dir{number}"));
        sys::mkdir(&at, 0o755).unwrap();
        sys::put(at.join("5"), "changed").unwrap();
    }
    // The best of a few, since other tests run beside this one.
    let times = (0..5).map(|_| {
        let begun = Instant::now();
        assert_eq!(upper(&layers.upper, &layers.lower).len(), 20);
        begun.elapsed()
    });
    let took = times.min().unwrap();
    // Listing a hundred thousand names takes longer than this.
    println!("10 changes over 100,000 names: {took:?}");
    assert!(took < Duration::from_millis(20), "{took:?}");
}
