//! K30 to K35: the forms of a removed name.

use crate::common::*;

const CHR: u32 = libc::S_IFCHR;

fn is_whiteout(path: impl AsRef<std::path::Path>) -> bool {
    sys::lstat(path).is_ok_and(|st| st.st_mode & libc::S_IFMT == CHR && st.st_rdev == 0)
}

#[test]
fn k30_any_mode_owner_and_link_count() {
    let lower = [file("a", ""), file("b", ""), file("c", ""), file("d", "")];
    let upper = [
        whiteout("a"),
        whiteout("b").mode(0o666).own(7, 8),
        chr("c", 0, 0),
        hard("d", "c"),
    ];
    Scenario::new("k30").lower(&lower).upper(&upper).run(|env| {
        for name in ["a", "b", "c", "d"] {
            env.fails(name, sys::ENOENT, || sys::lstat(env.m(name)).map(|_| ()));
        }
        env.eq("names", sys::names(env.m("")), Ok(vec![]));
        env.ok("create over one of two linked whiteouts", || {
            sys::put(env.m("c"), "new")
        });
        env.fails("the other holds", sys::ENOENT, || sys::cat(env.m("d")));
    });
}

#[test]
fn k30_what_only_looks_like_a_whiteout() {
    let lower = [file("a", "a"), file("b", "b")];
    let upper = [chr("dev", 1, 3), chr("minor", 0, 1), file("b", "").mode(0)];
    Scenario::new("k30 lookalikes")
        .lower(&lower)
        .upper(&upper)
        .run(|env| {
            env.eq("names", sys::sorted_names(env.m("")).map(|n| n.len()), Ok(4));
            env.eq("b", sys::text(env.m("b")), Ok(String::new()));
            let _ = env.call("dev", || sys::lstat(env.m("dev")).map(|st| st.st_rdev));
        });
}

#[test]
fn k30_the_whiteout_we_write() {
    scenario(
        "k30 written",
        &[file("f", "x").mode(0o4755).own(3, 4), dir("d"), dir("d/s")],
        |env| {
            env.ok("unlink", || sys::unlink(env.m("f")));
            env.ok("rmdir", || sys::rmdir(env.m("d/s")));
            for name in ["f", "d/s"] {
                env.check(format!("{name} is a whiteout"), is_whiteout(env.u(name)));
                env.eq("mode", sys::mode(env.u(name)), Ok(0));
                env.eq("owner", sys::owner(env.u(name)), Ok((0, 0)));
            }
        },
    );
}

#[test]
fn k31_files_with_a_whiteout_mark() {
    // `x` on the directory, and on the lower's root for the layer as a whole, announces such files. In the lowest
    // layer the kernel does not look at it, so there it lists what its lookup hides.
    let mark = |layers: &Layers| sys::setxattr(&layers.lower, "trusted.overlay.opaque", "x").unwrap();
    let lower = [
        dir("d").xattr("trusted.overlay.opaque", "x"),
        file("d/gone", "").xattr("trusted.overlay.whiteout", "y"),
        file("d/full", "not empty").xattr("trusted.overlay.whiteout", "y"),
        file("d/here", "here"),
        file("d/made", "").xattr("trusted.overlay.whiteout", ""),
    ];
    let s = Scenario::new("k31")
        .lower(&lower)
        .upper(&[dir("d")])
        .prepare(mark);
    s.path_differs("whiteouts-hidden", "d/gone").run(|env| {
        env.fails("gone", sys::ENOENT, || sys::lstat(env.m("d/gone")).map(|_| ()));
        let _ = env.call("full", || sys::text(env.m("d/full")));
        let _ = env.want("here", Ok("here".to_string()), || sys::text(env.m("d/here")));
        env.ok("create in its place", || sys::put(env.m("d/made"), "new"));
        let _ = env.want("it is there", Ok("new".to_string()), || {
            sys::text(env.m("d/made"))
        });
        let _ = env.differs("whiteouts-hidden", "listed", "Ok(true)", &["Ok(false)"], || {
            Ok(sys::names(env.m("d"))?.contains(&"gone".into()))
        });
    });
}

#[test]
fn k31_marked_file_in_the_upper() {
    let upper = [
        file("f", "").xattr("trusted.overlay.whiteout", "y"),
        file("g", "g"),
    ];
    let s = Scenario::new("k31 upper")
        .lower(&[file("f", "lower")])
        .upper(&upper);
    s.path_differs("whiteouts-hidden", "f").run(|env| {
        env.fails("f", sys::ENOENT, || sys::lstat(env.m("f")).map(|_| ()));
        let _ = env.differs(
            "whiteouts-hidden",
            "listing",
            r#"Ok(["f", "g"])"#,
            &[r#"Ok(["g"])"#],
            || sys::sorted_names(env.m("")),
        );
    });
}

#[test]
fn k32_whiteouts_in_a_lower_and_in_pure_directories() {
    let lower = [
        dir("l"),
        whiteout("l/w"),
        file("l/f", "f"),
        whiteout("top"),
        file("p", ""),
    ];
    let upper = [dir("p"), whiteout("p/w"), file("p/f", "f")];
    let s = Scenario::new("k32").lower(&lower).upper(&upper);
    let s = s
        .path_differs("whiteouts-hidden", "l/w")
        .path_differs("whiteouts-hidden", "p/w");
    s.run(|env| {
        for name in ["l/w", "p/w", "top"] {
            env.fails(name, sys::ENOENT, || sys::lstat(env.m(name)).map(|_| ()));
        }
        for name in ["l", "p"] {
            let _ = env.differs(
                "whiteouts-hidden",
                format!("listing of {name}"),
                r#"Ok(["f", "w"])"#,
                &[r#"Ok(["f"])"#],
                || sys::sorted_names(env.m(name)),
            );
        }
        env.eq(
            "the merged root hides its own",
            sys::sorted_names(env.m("")),
            Ok(vec!["l".into(), "p".into()]),
        );
        env.ok("create where a lower whiteout is", || {
            sys::put(env.m("top"), "new")
        });
        env.ok("remove it again", || sys::unlink(env.m("top")));
        env.fails("gone", sys::ENOENT, || sys::cat(env.m("top")));
    });
}

#[test]
fn k33_whiteouts_share_one_inode() {
    let lower: Vec<_> = (0..10).map(|i| file(format!("f{i}"), "")).collect();
    scenario("k33", &lower, |env| {
        for i in 0..10 {
            env.ok("unlink", || sys::unlink(env.m(format!("f{i}"))));
        }
        let first = sys::ino(env.u("f0")).unwrap();
        for i in 1..10 {
            env.eq(
                format!("f{i} has the inode of f0"),
                sys::ino(env.u(format!("f{i}"))),
                Ok(first),
            );
        }
        let _ = env.want("ten names and the one in work", Ok(11), || {
            sys::nlink(env.u("f0"))
        });
        env.ok("create over one", || sys::put(env.m("f3"), "new"));
        let _ = env.want("one name less", Ok(10), || sys::nlink(env.u("f0")));
        env.remount();
        env.ok("unlink after a remount", || sys::unlink(env.m("f3")));
        env.check("a whiteout", is_whiteout(env.u("f3")));
    });
}

#[test]
fn k33_more_whiteouts_than_one_inode_has_links() {
    if !need_root("k33") {
        return;
    }
    // ext4, where the tests have their layers in CI, allows 65,000.
    const NAMES: usize = 65_100;
    for fs in Fs::sides() {
        let layers = Layers::new();
        sys::mkdir(layers.lower.join("d"), 0o755).unwrap();
        for i in 0..NAMES {
            // Two inodes do for all the names, one for each half.
            let name = |i: usize| layers.lower.join(format!("d/{i:05}"));
            if i % (NAMES / 2) == 0 {
                sys::put(name(i), "").unwrap();
            } else {
                sys::link(name(i - i % (NAMES / 2)), name(i)).unwrap();
            }
        }
        let mounted = layers.mount(fs, &[]);
        for i in 0..NAMES {
            assert_eq!(
                sys::unlink(layers.merged.join(format!("d/{i:05}"))),
                Ok(()),
                "{} {i}",
                fs.name()
            );
        }
        assert_eq!(sys::names(layers.merged.join("d")), Ok(vec![]), "{}", fs.name());
        let mut inodes = std::collections::BTreeMap::new();
        for i in 0..NAMES {
            let name = layers.upper.join(format!("d/{i:05}"));
            assert!(is_whiteout(&name), "{} {i}", fs.name());
            *inodes.entry(sys::ino(&name).unwrap()).or_insert(0) += 1;
        }
        drop(mounted);
        assert!(inodes.len() <= 2, "{}: {inodes:?}", fs.name());
        if Fs::sides().contains(&fs.other()) {
            let _again = layers.mount(fs.other(), &[]);
            assert_eq!(
                sys::names(layers.merged.join("d")),
                Ok(vec![]),
                "{}, by the other",
                fs.name()
            );
        }
    }
}

#[test]
fn k34_nobody_makes_a_whiteout_through_the_view() {
    scenario("k34", &[file("f", "lower")], |env| {
        env.fails("mknod 0/0", sys::EPERM, || {
            sys::mknod(env.m("w"), CHR | 0o644, 0, 0)
        });
        env.fails("over a name", sys::EEXIST, || {
            sys::mknod(env.m("f"), CHR | 0o644, 0, 0)
        });
        env.fails("nothing there", sys::ENOENT, || {
            sys::lstat(env.m("w")).map(|_| ())
        });
        env.untouched("a refused mknod");
        env.ok("another device", || sys::mknod(env.m("null"), CHR | 0o644, 1, 3));
        env.ok("a block device 0/0", || {
            sys::mknod(env.m("blk"), libc::S_IFBLK | 0o644, 0, 0)
        });
        let _ = env.call("names", || sys::sorted_names(env.m("")));
    });
}

#[test]
fn k35_wh_names_mean_nothing() {
    let lower = [
        file("f", "f"),
        file(".wh.f", ""),
        dir("d"),
        file("d/.wh..wh..opq", ""),
        file("d/x", "x"),
    ];
    Scenario::new("k35")
        .lower(&lower)
        .upper(&[dir("d"), file(".wh.g", "")])
        .run(|env| {
            let _ = env.want("f", Ok("f".to_string()), || sys::text(env.m("f")));
            let names = [".wh.f", ".wh.g", "d", "f"].map(Into::into).to_vec();
            env.eq("names", sys::sorted_names(env.m("")), Ok(names));
            env.eq(
                "d",
                sys::sorted_names(env.m("d")),
                Ok(vec![".wh..wh..opq".into(), "x".into()]),
            );
            env.ok("make one", || sys::put(env.m(".wh.new"), "new"));
            env.ok("remove one", || sys::unlink(env.m(".wh.f")));
        });
}
