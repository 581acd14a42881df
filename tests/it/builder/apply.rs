//! What a layer archive does to a tree: one test for each rule, and for each row of the table of quirks.
//!
//! Every layer here is applied through [`Stage`], which also checks that the parent's manifest still verifies and that
//! the archive is made again byte for byte.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::stage::{Root, Stage};
use crate::common::images::archive::*;
use crate::common::{acl, need_root, sys};

/// What most layers lie on.
fn base(stage: &Stage) -> Root {
    stage.base(&[
        dir("./").mode(0o755).at(1_400_000_000, 1),
        dir("etc").mode(0o750).own(7, 8).at(1_500_000_000, 5),
        file("etc/motd", "hello\n"),
        dir("opt").at(1_500_000_001, 0),
        file("opt/f", "the file\n").mode(0o640).own(3, 4),
        file("opt/other", "other\n"),
        dir("opt/sub"),
        file("opt/sub/deep", "deep\n"),
        dir("run"),
        dir("var"),
        symlink("var/run", "/run"),
        file("group/a", "group\n"),
        hard("group/b", "group/a"),
        hard("opt/c", "group/a"),
    ])
}

fn inode(root: &Root, name: &str) -> u64 {
    fs::symlink_metadata(root.at(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .ino()
}

#[test]
fn objects_of_all_kinds_with_their_metadata() {
    if !need_root("objects_of_all_kinds_with_their_metadata") {
        return;
    }
    let stage = Stage::new();
    let root = stage.base(&[
        dir("d")
            .mode(0o2750)
            .own(7, 8)
            .at(1_500_000_000, 123_456_789)
            .xattr("user.on", "d"),
        file("d/f", "text")
            .mode(0o4755)
            .own(3_000_000_000, 4)
            .at(-2, 250_000_000)
            .xattr("trusted.t", "x"),
        symlink("d/s", "../anything").own(5, 6).at(1_500_000_000, 7),
        fifo("d/p").mode(0o600),
        chr("d/c", 1, 3),
        blk("d/b", 300, 70_000).mode(0o660),
        hard("d/h", "d/f")
            .mode(0o4755)
            .own(3_000_000_000, 4)
            .at(-2, 250_000_000),
    ]);
    let tree = root.tree();
    let field = |path, name| tree.field(path, name).unwrap_or("nothing").to_owned();
    assert_eq!(field("d", "mode"), "2750");
    assert_eq!(field("d", "mtime"), "1500000000.123456789");
    assert_eq!(field("d", "xattr user.on"), "\"d\"");
    assert_eq!(field("d/f", "mode"), "4755");
    assert_eq!(field("d/f", "uid"), "3000000000");
    assert_eq!(field("d/f", "mtime"), "-2.250000000");
    assert_eq!(field("d/f", "xattr trusted.t"), "\"x\"");
    assert_eq!(field("d/h", "same"), "d/f");
    assert_eq!(
        (field("d/s", "target"), field("d/s", "uid")),
        ("\"../anything\"".into(), "5".into())
    );
    assert_eq!(field("d/s", "mtime"), "1500000000.000000007");
    assert_eq!(field("d/p", "type"), "fifo");
    assert_eq!(field("d/c", "rdev"), "1/3");
    assert_eq!(field("d/b", "rdev"), "300/70000");
    assert_eq!(root.applied.as_ref().unwrap().changes.file_bytes, 4);
    assert_eq!(root.applied.as_ref().unwrap().changes.entries, 7);
}

#[test]
fn what_is_not_named_stays_shared() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(&base, &[file("opt/f", "another\n")]);
    assert_eq!(child.text("opt/f"), "another\n");
    assert_eq!(base.text("opt/f"), "the file\n");
    assert_ne!(inode(&base, "opt/f"), inode(&child, "opt/f"));
    for shared in ["etc/motd", "opt/other", "group/a", "opt/sub/deep"] {
        assert_eq!(inode(&base, shared), inode(&child, shared), "{shared}");
    }
}

#[test]
fn metadata_alone_makes_a_file_of_its_own() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(&base, &[file("opt/f", "the file\n").mode(0o600).own(99, 98)]);
    assert_ne!(inode(&base, "opt/f"), inode(&child, "opt/f"));
    assert_eq!(sys::mode(child.at("opt/f")).unwrap(), 0o600);
    assert_eq!(sys::mode(base.at("opt/f")).unwrap(), 0o640);
}

#[test]
fn directories_join_and_keep_their_times() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            file("etc/new", "new\n"),
            dir("opt").mode(0o711).own(1, 2).at(1_600_000_000, 3),
            mark("opt/sub/.wh.deep"),
        ],
    );
    let tree = child.tree();
    // etc got a name and was not described: owner, mode and times of the parent.
    assert_eq!(tree.field("etc", "mode"), Some("0750"));
    assert_eq!(tree.field("etc", "mtime"), Some("1500000000.000000005"));
    assert_eq!(tree.field("opt", "mode"), Some("0711"));
    assert_eq!(tree.field("opt", "mtime"), Some("1600000000.000000003"));
    assert_eq!(
        tree.field("opt/sub", "mtime"),
        base.tree().field("opt/sub", "mtime")
    );
    assert_eq!(tree.field(".", "mtime"), Some("1400000000.000000001"));
    assert_eq!(child.text("etc/motd"), "hello\n");
    assert_eq!(child.text("opt/other"), "other\n");
}

#[test]
fn a_described_directory_has_only_the_attributes_of_its_entry() {
    if !need_root("a_described_directory_has_only_the_attributes_of_its_entry") {
        return;
    }
    let stage = Stage::new();
    let base = stage.base(&[
        dir("d")
            .xattr("user.old", "1")
            .xattr("trusted.old", "1")
            .xattr(acl::DEFAULT, default_acl()),
        dir("kept").xattr("user.old", "1"),
    ]);
    let child = stage.child(
        &base,
        &[
            dir("d").xattr("user.new", "2"),
            file("d/f", ""),
            file("kept/f", ""),
        ],
    );
    assert_eq!(sys::listxattr(child.at("d")).unwrap(), ["user.new"]);
    assert_eq!(sys::listxattr(child.at("d/f")).unwrap(), [""; 0]);
    assert_eq!(sys::listxattr(child.at("kept")).unwrap(), ["user.old"]);
}

fn default_acl() -> Vec<u8> {
    use acl::{GROUP_OBJ, MASK, OTHER, USER, USER_OBJ};
    acl::of(&[
        (USER_OBJ, 0, 7),
        (USER, 12345, 4),
        (GROUP_OBJ, 0, 5),
        (MASK, 0, 5),
        (OTHER, 0, 5),
    ])
}

#[test]
fn no_access_list_is_inherited() {
    let stage = Stage::new();
    let root = stage.base(&[
        dir("d").xattr(acl::DEFAULT, default_acl()),
        file("d/f", "x").mode(0o600),
        dir("d/e").mode(0o700),
        fifo("d/p").mode(0o640),
        file("d/without/entry", "x"),
        file("d/own", "x").mode(0o664).xattr(acl::ACCESS, default_acl()),
    ]);
    for name in ["d/f", "d/e", "d/p", "d/without", "d/without/entry"] {
        assert_eq!(sys::listxattr(root.at(name)).unwrap(), [""; 0], "{name}");
    }
    assert_eq!(sys::listxattr(root.at("d/own")).unwrap(), [acl::ACCESS]);
    assert_eq!(sys::mode(root.at("d/f")).unwrap(), 0o600);
    assert_eq!(sys::mode(root.at("d/without")).unwrap(), 0o755);
}

#[test]
fn types_may_change() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            dir("opt/f"),
            file("opt/f/in", "x"),
            file("opt/sub", "a file now"),
            symlink("opt/other", "f"),
            dir("var/run"),
            file("var/run/in", "x"),
            symlink("etc", "opt"),
        ],
    );
    assert_eq!(child.text("opt/f/in"), "x");
    assert_eq!(child.text("opt/sub"), "a file now");
    assert_eq!(child.text("etc/f/in"), "x");
    assert_eq!(sys::sorted_names(child.at("var/run")).unwrap(), ["in"]);
    assert_eq!(sys::sorted_names(child.at("run")).unwrap(), [""; 0]);
}

// The table of quirks.

#[test]
fn quirk_a_symlink_on_the_way_is_followed_inside_the_root() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            file("var/run/pid", "1\n"),
            dir("var/run/made"),
            file("var/run/new/deep", "x"),
        ],
    );
    assert_eq!(child.text("run/pid"), "1\n");
    assert_eq!(child.text("run/new/deep"), "x");
    assert_eq!(sys::readlink(child.at("var/run")).unwrap(), "/run");
}

#[test]
fn quirk_a_parent_without_entry_keeps_its_metadata_and_a_missing_one_is_made() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(&base, &[file("etc/new", ""), file("nobody/has/these", "x")]);
    assert_eq!(sys::mode(child.at("etc")).unwrap(), 0o750);
    assert_eq!(sys::owner(child.at("etc")).unwrap(), (7, 8));
    assert_eq!(sys::mode(child.at("nobody")).unwrap(), 0o755);
    assert_eq!(sys::mode(child.at("nobody/has")).unwrap(), 0o755);
}

#[test]
fn quirk_a_hard_link_to_a_file_of_the_parent_shares_its_inode() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(&base, &[hard("opt/g", "opt/f").mode(0o640).own(3, 4)]);
    assert_eq!(inode(&child, "opt/g"), inode(&base, "opt/f"));
}

#[test]
fn quirk_a_hard_link_with_other_metadata_unshares_the_whole_group() {
    let stage = Stage::new();
    let base = base(&stage);
    let link = hard("new", "group/b")
        .mode(0o755)
        .own(30, 40)
        .at(1_600_000_000, 7)
        .xattr("user.note", "x");
    let child = stage.child(&base, &[link]);
    let tree = child.tree();
    for name in ["group/a", "group/b", "opt/c", "new"] {
        assert_eq!(tree.field(name, "same"), Some("group/a"), "{name}");
        assert_eq!(tree.field(name, "mode"), Some("0755"), "{name}");
        assert_eq!(tree.field(name, "nlink"), Some("4"), "{name}");
        assert_eq!(tree.field(name, "uid"), Some("30"), "{name}");
        assert_eq!(tree.field(name, "mtime"), Some("1600000000.000000007"), "{name}");
        assert_eq!(tree.field(name, "xattr user.note"), Some("\"x\""), "{name}");
    }
    assert_ne!(inode(&child, "group/a"), inode(&base, "group/a"));
    assert_eq!(child.text("opt/c"), "group\n");
    assert_eq!(sys::mode(base.at("group/a")).unwrap(), 0o644);
    assert_eq!(tree.field("group", "mtime"), base.tree().field("group", "mtime"));
}

#[test]
fn each_kind_of_metadata_of_a_hard_link_unshares() {
    let plain = || hard("new", "group/b");
    for (what, link) in [
        ("mode", plain().mode(0o600)),
        ("owner", plain().own(1, 0)),
        ("group", plain().own(0, 1)),
        ("time", plain().at(5, 0)),
        ("attribute", plain().xattr("user.a", "b")),
    ] {
        let stage = Stage::new();
        let base = base(&stage);
        let child = stage.child(&base, &[link]);
        assert_ne!(inode(&child, "new"), inode(&base, "group/a"), "{what}");
        assert_eq!(inode(&child, "new"), inode(&child, "opt/c"), "{what}");
    }
}

#[test]
fn a_second_unsharing_finds_the_names_again() {
    let stage = Stage::new();
    let base = stage.base(&[
        file("a", "one"),
        hard("b", "a"),
        file("c", "two"),
        hard("d", "c"),
        hard("e", "c"),
    ]);
    let child = stage.child(
        &base,
        &[
            // Removed, replaced and added names between two changes of groups.
            hard("f", "a").mode(0o600),
            file("d", "its own"),
            hard("g", "e"),
            mark(".wh.c"),
            hard("h", "g").mode(0o611),
            hard("i", "a").mode(0o622),
        ],
    );
    let tree = child.tree();
    for name in ["a", "b", "f", "i"] {
        assert_eq!(tree.field(name, "same"), Some("a"), "{name}");
        assert_eq!(tree.field(name, "mode"), Some("0622"), "{name}");
    }
    for name in ["e", "g", "h"] {
        assert_eq!(tree.field(name, "same"), Some("e"), "{name}");
        assert_eq!(tree.field(name, "mode"), Some("0611"), "{name}");
    }
    assert_eq!(tree.field("d", "nlink"), Some("1"));
    assert!(!sys::exists(child.at("c")));
}

#[test]
fn a_change_of_a_group_keeps_capabilities_that_the_entry_does_not_name() {
    if !need_root("a_change_of_a_group_keeps_capabilities_that_the_entry_does_not_name") {
        return;
    }
    let stage = Stage::new();
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let base = stage.base(&[file("a", "x")
        .mode(0o755)
        .xattr("security.capability", capability)]);
    let child = stage.child(&base, &[hard("b", "a").mode(0o755).own(5, 5)]);
    assert_eq!(
        sys::getxattr(child.at("a"), "security.capability").unwrap(),
        capability
    );
    assert_eq!(sys::owner(child.at("a")).unwrap(), (5, 5));
    assert_eq!(sys::owner(base.at("a")).unwrap(), (0, 0));
}

#[test]
fn quirk_hard_link_metadata_applies_in_one_layer_too() {
    let stage = Stage::new();
    let root = stage.base(&[
        file("new", "new\n"),
        hard("new2", "new").mode(0o700).at(1_600_000_000, 0),
    ]);
    assert_eq!(root.tree().field("new", "mode"), Some("0700"));
    assert_eq!(root.tree().field("new", "mtime"), Some("1600000000.000000000"));
}

#[test]
fn quirk_added_then_removed_is_gone() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            file("opt/x", "data that is in the archive only"),
            mark("opt/.wh.x"),
            file("opt/f", "new, and gone"),
            mark("opt/.wh.f"),
            dir("tmp"),
            file("tmp/y", vec![b'y'; 300_000]),
            hard("tmp/z", "tmp/y"),
            mark(".wh.tmp"),
        ],
    );
    assert!(
        !sys::exists(child.at("opt/x")) && !sys::exists(child.at("opt/f")) && !sys::exists(child.at("tmp"))
    );
}

#[test]
fn data_of_a_removed_name_is_found_at_the_other_one() {
    let stage = Stage::new();
    let root = stage.base(&[
        file("a", "one file"),
        hard("b", "a"),
        mark(".wh.a"),
        file("c", "other"),
        sparse("s", 1 << 20, &[(4096, b"one"), (500_000, b"two")]),
        mark(".wh.s"),
    ]);
    assert_eq!(root.names(), ["b", "c"]);
    assert_eq!(root.tree().field("b", "nlink"), Some("1"));
    assert_eq!(root.text("b"), "one file");
}

#[test]
fn quirk_removed_then_added_is_new() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            mark("opt/.wh.f"),
            file("opt/f", "new\n"),
            mark("opt/.wh.sub"),
            dir("opt/sub").mode(0o700),
        ],
    );
    assert_eq!(child.text("opt/f"), "new\n");
    assert_eq!(sys::sorted_names(child.at("opt/sub")).unwrap(), [""; 0]);
}

#[test]
fn quirk_an_opaque_root_empties_the_root() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(&base, &[mark(".wh..wh..opq"), file("new/f", "f")]);
    assert_eq!(child.names(), ["new", "new/f"]);
}

#[test]
fn an_opaque_mark_spares_what_the_layer_brought_before_it() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            file("opt/new", "new\n"),
            file("opt/f", "again\n"),
            file("opt/sub/without/entry", "x"),
            dir("opt/sub"),
            mark("opt/.wh..wh..opq"),
            file("opt/after", "x"),
        ],
    );
    let names: Vec<_> = child
        .names()
        .into_iter()
        .filter(|name| name.starts_with("opt/"))
        .collect();
    assert_eq!(
        names,
        [
            "opt/after",
            "opt/f",
            "opt/new",
            "opt/sub",
            "opt/sub/without",
            "opt/sub/without/entry"
        ]
    );
}

#[test]
fn quirk_files_of_aufs_are_skipped_but_can_be_linked_to() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            dir(".wh..wh.plnk").mode(0o700),
            file(".wh..wh.plnk/1.2", "linked\n").mode(0o640).own(5, 6),
            mark(".wh..wh.aufs"),
            dir(".wh..wh.orph").mode(0o700),
            file(".wh..wh.orph/x", "orphan"),
            hard("opt/linked", ".wh..wh.plnk/1.2"),
            hard("opt/again", ".wh..wh.plnk/1.2"),
            mark("opt/.wh..wh.whatever"),
        ],
    );
    for name in ["opt/linked", "opt/again"] {
        assert_eq!(child.text(name), "linked\n");
        assert_eq!(sys::mode(child.at(name)).unwrap(), 0o640);
        assert_eq!(sys::owner(child.at(name)).unwrap(), (5, 6));
    }
    assert!(
        child.names().iter().all(|name| !name.contains(".wh.")),
        "{:?}",
        child.names()
    );
}

#[test]
fn quirk_marks_where_nobody_is_make_the_directory() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            mark("nobody/.wh..wh..opq"),
            mark("no/where/.wh.x"),
            mark("opt/.wh.none"),
        ],
    );
    assert!(sys::exists(child.at("nobody")) && sys::exists(child.at("no/where")));
    assert_eq!(sys::mode(child.at("no")).unwrap(), 0o755);
}

#[test]
fn quirk_marks_of_no_name_are_refused() {
    let stage = Stage::new();
    let base = base(&stage);
    for name in ["opt/.wh.", "opt/.wh..", "opt/.wh...", ".wh.", ".wh..", ".wh..."] {
        let text = stage.refusal(&base, &[mark(name)]);
        assert!(text.starts_with(&format!("/{name}: ")), "{text}");
    }
}

#[test]
fn quirk_a_name_comes_once() {
    let stage = Stage::new();
    let base = base(&stage);
    let twice: [&[Item]; 5] = [
        &[file("opt/f", "1"), file("opt/f", "2")],
        &[dir("new"), dir("new/")],
        &[mark("opt/.wh.f"), mark("opt/.wh.f")],
        &[file("opt/f", "1"), mark("opt/.wh.f"), file("./opt//f", "2")],
        &[file("new", "1"), hard("new", "opt/f")],
    ];
    for items in twice {
        let text = stage.refusal(&base, items);
        assert!(
            text.contains("two entries of the archive have this name"),
            "{text}"
        );
        assert!(text.starts_with("/opt/") || text.starts_with("/new"), "{text}");
    }
    // Two names of one place are two names.
    let child = stage.child(&base, &[file("run/x", "1"), file("var/run/x", "2")]);
    assert_eq!(child.text("run/x"), "2");
}

#[test]
fn quirk_hard_links_that_lead_nowhere_are_refused() {
    let stage = Stage::new();
    let base = base(&stage);
    for (items, words) in [
        (
            &[hard("opt/early", "opt/late"), file("opt/late", "")][..],
            "not there",
        ),
        (&[hard("opt/out", "../../../etc/passwd")], "outside of the root"),
        (&[hard("opt/dir", "opt/sub")], "is a directory"),
        (&[hard("opt/f", "opt/f")], "links to itself"),
        (&[hard("opt/f", "./opt//f")], "links to itself"),
        (&[hard("opt", "opt/f")], "not there"),
        (&[hard("opt/empty", "")], "not there"),
    ] {
        let text = stage.refusal(&base, items);
        assert!(text.contains(words) && text.starts_with("/opt"), "{text}");
    }
}

#[test]
fn quirk_names_are_clamped_to_the_root() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            file("../../escape", "here\n"),
            file("/absolute", "here\n"),
            file("opt/../up", "here\n"),
            file("./opt/./dotted", "here\n"),
            file("opt//slashes", "here\n"),
            symlink("out", "../../../../.."),
            file("out/through", "here\n"),
            symlink("away", "/nowhere/at/all"),
            file("away/x", "here\n"),
            hard("linked", "away/x"),
        ],
    );
    for name in [
        "escape",
        "absolute",
        "up",
        "opt/dotted",
        "opt/slashes",
        "through",
        "nowhere/at/all/x",
        "linked",
    ] {
        assert_eq!(child.text(name), "here\n", "{name}");
    }
    assert!(!sys::exists(stage.path().join("escape")) && !sys::exists(stage.path().join("through")));
}

#[test]
fn quirk_devices_0_0_are_not_made() {
    if !need_root("quirk_devices_0_0_are_not_made") {
        return;
    }
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            chr("opt/zero", 0, 0),
            chr("opt/f", 0, 0),
            hard("opt/too", "opt/zero"),
        ],
    );
    for name in ["opt/zero", "opt/f", "opt/too"] {
        assert!(!sys::exists(child.at(name)), "{name}");
    }
    let notes = child.notes();
    assert!(
        notes
            .iter()
            .any(|note| note.starts_with("/opt/zero: a character device 0/0")),
        "{notes:?}"
    );
    assert_eq!(notes.len(), 3);
}

#[test]
fn quirk_attributes_of_overlays_are_no_marks() {
    if !need_root("quirk_attributes_of_overlays_are_no_marks") {
        return;
    }
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            dir("opt/sub").xattr("trusted.overlay.opaque", "y"),
            dir("opt").xattr("user.overlay.opaque", "y"),
            dir("etc").xattr("user.fuseoverlayfs.opaque", "y"),
            file("opt/f", "x")
                .xattr("trusted.overlay.metacopy", "")
                .xattr("user.plain", "1"),
            file("opt/w", "").xattr("trusted.overlay.overlay.whiteout", "y"),
        ],
    );
    let names = |name: &str| sys::listxattr(child.at(name)).unwrap();
    assert_eq!(names("opt/sub"), ["trusted.overlay.overlay.opaque"]);
    assert_eq!(names("opt"), ["user.overlay.overlay.opaque"]);
    assert_eq!(names("etc"), [""; 0]);
    assert_eq!(names("opt/w"), ["trusted.overlay.overlay.overlay.whiteout"]);
    assert!(names("opt/f").contains(&"trusted.overlay.overlay.metacopy".into()));
    assert!(child.notes()[0].starts_with("/etc: the attribute user.fuseoverlayfs.opaque"));
}

#[test]
fn quirk_hard_links_between_symlinks_and_special_files_stay() {
    let stage = Stage::new();
    let base = stage.base(&[
        symlink("l1", "f"),
        hard("l2", "l1"),
        fifo("p1"),
        hard("p2", "p1").mode(0o640),
    ]);
    let child = stage.child(
        &base,
        &[
            file("x", "x"),
            hard("l3", "l2").own(5, 5),
            hard("p3", "p1").mode(0o666),
        ],
    );
    let tree = child.tree();
    for (name, first) in [("l2", "l1"), ("l3", "l1"), ("p2", "p1"), ("p3", "p1")] {
        assert_eq!(tree.field(name, "same"), Some(first), "{name}");
    }
    assert_eq!(tree.field("l1", "uid"), Some("5"));
    assert_eq!(tree.field("l1", "target"), Some("\"f\""));
    assert_eq!(tree.field("p2", "mode"), Some("0666"));
}

#[test]
fn a_name_in_a_directory_that_looks_like_a_mark_is_refused() {
    let stage = Stage::new();
    for name in ["a/.wh.dir/f", ".wh.dir/f"] {
        let text = stage.refusal(None, &[file(name, "x")]);
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn holes_stay_holes() {
    let stage = Stage::new();
    let root = stage.base(&[
        sparse(
            "new",
            5 << 20,
            &[(0, b"start"), (1 << 20, b"middle"), ((5 << 20) - 3, b"end")],
        ),
        sparse("hole", 3 << 20, &[]),
        old_sparse("old", 3 << 20, &[(4096, &[b'x'; 512]), (2 << 20, b"end")]),
        file("zeros", vec![0; 1 << 20]),
        file(
            "some",
            [vec![0; 200_000], b"x".to_vec(), vec![0; 200_000]].concat(),
        ),
    ]);
    for (name, size, data) in [
        (
            "new",
            5 << 20,
            &[(0, "start"), (1 << 20, "middle"), ((5 << 20) - 3, "end")][..],
        ),
        ("hole", 3 << 20, &[]),
        ("old", 3 << 20, &[(4096, "xxx"), (2 << 20, "end")]),
        ("zeros", 1 << 20, &[]),
        ("some", 400_001, &[(200_000, "x")]),
    ] {
        let content = fs::read(root.at(name)).unwrap();
        assert_eq!(content.len(), size, "{name}");
        for (at, text) in data {
            assert_eq!(&content[*at..at + text.len()], text.as_bytes(), "{name}");
        }
        let blocks = fs::metadata(root.at(name)).unwrap().blocks();
        assert!(blocks * 512 <= 264 << 10, "{name}: {blocks} blocks");
    }
}

#[test]
fn odd_and_long_names() {
    let stage = Stage::new();
    let long = "n".repeat(255);
    let deep = ["p".repeat(120), "q".repeat(120), "r".repeat(120)].join("/");
    let root = stage.base(&[
        file(&long, "longest"),
        file(format!("{deep}/pax"), "pax"),
        file(format!("{deep}/gnu"), "gnu").gnu(),
        symlink("far", "t".repeat(1000)),
        symlink("far-gnu", "t".repeat(1000)).gnu(),
        hard("hard", format!("{deep}/pax")),
        hard("hard-gnu", format!("{deep}/gnu")).gnu(),
        file(b"\xff\xfe not UTF-8", "x"),
        file("new\nline", "x"),
        file(" blanks ", "x"),
        file("-rf", "x"),
        symlink("odd", b"\xff target"),
        mark(b".wh.\xff gone"),
    ]);
    assert_eq!(root.text(&long), "longest");
    assert_eq!(
        (root.text("hard"), root.text("hard-gnu")),
        ("pax".into(), "gnu".into())
    );
    assert_eq!(sys::readlink(root.at("far-gnu")).unwrap().len(), 1000);
    assert_eq!(sys::readlink(root.at("odd")).unwrap().as_bytes(), b"\xff target");
    assert!(sys::exists(
        root.path.join(std::ffi::OsStr::from_bytes(b"\xff\xfe not UTF-8"))
    ));
    assert_eq!(root.text("new\nline"), "x");
}

#[test]
fn paths_longer_than_a_system_call_takes() {
    let stage = Stage::new();
    let name = "d".repeat(200);
    let path = |depth| vec![name.clone(); depth].join("/");
    let first = stage.base(&[file(format!("{}/f", path(30)), "deep"), dir(path(40)), dir("top")]);
    let second = stage.child(
        &first,
        &[
            file(format!("{}/g", path(40)), "deeper"),
            hard("top/f", format!("{}/f", path(30))),
            hard(format!("{}/h", path(40)), "top/f").mode(0o600),
            symlink(format!("{}/up", path(25)), "../../.."),
            file(format!("{}/up/through", path(25)), "x"),
        ],
    );
    assert_eq!(second.text("top/f"), "deep");
    assert_eq!(sys::mode(second.at("top/f")).unwrap(), 0o600);
    assert_eq!(sys::nlink(second.at("top/f")).unwrap(), 3);
    let third = stage.child(&second, &[mark(format!(".wh.{name}"))]);
    assert_eq!(third.names(), ["top", "top/f"]);
}

#[test]
fn an_empty_layer_changes_nothing() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(&base, &[]);
    let here = |root: &Root| root.tree().without(&["nlink"]);
    assert_eq!(here(&base).differences(&here(&child), "base", "child"), [""; 0]);
}

#[test]
fn the_same_layer_twice_gives_equal_trees() {
    let stage = Stage::new();
    let base = base(&stage);
    let items = [
        file("etc/new", "new"),
        file("opt/f", "new"),
        mark("opt/sub/.wh.deep"),
        hard("opt/h", "group/a").mode(0o600),
        mark("var/.wh..wh..opq"),
    ];
    let (one, two) = (stage.child(&base, &items), stage.child(&base, &items));
    let here = |root: &Root| root.tree().without(&["nlink"]);
    assert_eq!(here(&one).differences(&here(&two), "one", "two"), [""; 0]);
}

#[test]
fn entries_before_a_whole_directory_is_replaced_are_gone() {
    let stage = Stage::new();
    let base = base(&stage);
    let child = stage.child(
        &base,
        &[
            file("opt/sub/new", vec![b'n'; 100_000]),
            symlink("link", "opt/sub"),
            file("link/other", "through the link"),
            file("opt", "a file now"),
        ],
    );
    assert_eq!(child.text("opt"), "a file now");
    assert!(!sys::exists(child.at("link/other")));
}
