//! What `plyfs layer diff --upper --lower` tells: one test for each rule of docs/layers.md.

use std::fs;
use std::time::{Duration, Instant};

use plyfs::format::Namespace;

use super::told::{How, link, planted, trees, try_upper, upper};
use crate::common::plant::plant;
use crate::common::{Fs, Layers, Node, dir, file, hard, need_root, symlink, sys, whiteout};

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
