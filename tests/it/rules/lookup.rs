//! K20 to K28: which layer answers for a name.

use crate::common::*;

const MARK: &str = "trusted.overlay.opaque";

#[test]
fn k20_upper_hides_lower() {
    let lower = [
        file("both", "lower"),
        file("only", "lower"),
        file("gone", "lower"),
        dir("was-dir"),
        file("was-dir/x", "x"),
        dir("gone-dir"),
        file("gone-dir/x", "x"),
        symlink("link", "only"),
        file("now-link", "lower"),
    ];
    let upper = [
        file("both", "upper").mode(0o600).own(5, 6),
        whiteout("gone"),
        file("was-dir", "now a file"),
        whiteout("gone-dir"),
        file("link", "now a file"),
        symlink("now-link", "only"),
        file("new", "upper"),
    ];
    Scenario::new("k20").lower(&lower).upper(&upper).run(|env| {
        let _ = env.want("both", Ok("upper".to_string()), || sys::text(env.m("both")));
        let _ = env.want("only", Ok("lower".to_string()), || sys::text(env.m("only")));
        let _ = env.want("link", Ok("now a file".to_string()), || sys::text(env.m("link")));
        let _ = env.want("now-link", Ok("lower".to_string()), || {
            sys::text(env.m("now-link"))
        });
        for name in ["gone", "gone-dir", "gone-dir/x"] {
            env.fails(name, sys::ENOENT, || sys::lstat(env.m(name)).map(|_| ()));
        }
        env.fails("was-dir/x", sys::ENOTDIR, || {
            sys::lstat(env.m("was-dir/x")).map(|_| ())
        });
        let names = ["both", "link", "new", "now-link", "only", "was-dir"]
            .map(Into::into)
            .to_vec();
        let _ = env.want("listing", Ok(names), || sys::sorted_names(env.m("")));
    });
}

#[test]
fn k21_merged_directory_takes_all_from_upper() {
    let lower = [
        dir("d").mode(0o711).own(1, 2).xattr("user.l", "l").mtime(1000, 1),
        file("d/l", "l"),
    ];
    let upper = [
        dir("d")
            .mode(0o1770)
            .own(3, 4)
            .xattr("user.u", "u")
            .mtime(2000, 2),
        file("d/u", "u"),
    ];
    Scenario::new("k21").lower(&lower).upper(&upper).run(|env| {
        env.eq("mode", sys::mode(env.m("d")), Ok(0o1770));
        env.eq("owner", sys::owner(env.m("d")), Ok((3, 4)));
        env.eq("mtime", sys::mtime(env.m("d")), Ok((2000, 2)));
        env.eq("xattrs", sys::listxattr(env.m("d")), Ok(vec!["user.u".into()]));
        env.eq(
            "names",
            sys::sorted_names(env.m("d")),
            Ok(vec!["l".into(), "u".into()]),
        );
    });
}

#[test]
fn k21_opaque_directory_shows_only_upper() {
    let lower = [dir("d"), file("d/l", "l"), dir("d/s"), file("d/s/x", "x")];
    let upper = [
        dir("d").xattr(MARK, "y"),
        file("d/u", "u"),
        dir("d/s"),
        file("d/s/y", "y"),
    ];
    Scenario::new("k21 opaque")
        .lower(&lower)
        .upper(&upper)
        .run(|env| {
            env.eq(
                "names",
                sys::sorted_names(env.m("d")),
                Ok(vec!["s".into(), "u".into()]),
            );
            env.eq("below", sys::sorted_names(env.m("d/s")), Ok(vec!["y".into()]));
            env.fails("d/l", sys::ENOENT, || sys::cat(env.m("d/l")));
            env.fails("d/s/x", sys::ENOENT, || sys::cat(env.m("d/s/x")));
        });
}

#[test]
fn k22_directory_over_a_file() {
    let lower = [file("d", "file"), symlink("s", "/"), fifo("p")];
    let upper = [dir("d"), dir("d/sub"), dir("s"), dir("p"), file("p/x", "x")];
    Scenario::new("k22").lower(&lower).upper(&upper).run(|env| {
        env.eq("names", sys::sorted_names(env.m("d")), Ok(vec!["sub".into()]));
        env.eq(
            "the symlink's target does not show",
            sys::sorted_names(env.m("s")),
            Ok(vec![]),
        );
        let _ = env.want("nlink is the real one", Ok(3), || sys::nlink(env.m("d")));
    });
}

#[test]
fn k23_opaque_is_exactly_y() {
    let mut lower = Vec::new();
    let mut upper = Vec::new();
    let values = ["y", "n", "yes", "Y", "", "1", "y\0"];
    for (i, value) in values.iter().enumerate() {
        lower.extend([dir(format!("d{i}")), file(format!("d{i}/l"), "l")]);
        upper.push(dir(format!("d{i}")).xattr(MARK, value));
    }
    Scenario::new("k23").lower(&lower).upper(&upper).run(|env| {
        for (i, value) in values.iter().enumerate() {
            env.eq(
                format!("{value:?} hides"),
                !sys::exists(env.m(format!("d{i}/l"))),
                *value == "y",
            );
        }
    });
}

#[test]
fn k23_opaque_on_the_root_is_ignored() {
    let set = |layers: &Layers| sys::setxattr(&layers.upper, MARK, "y").unwrap();
    Scenario::new("k23 root")
        .lower(&[file("f", "lower")])
        .prepare(set)
        .run(|env| {
            let _ = env.want("cat", Ok("lower".to_string()), || sys::text(env.m("f")));
            env.eq("names", sys::sorted_names(env.m("")), Ok(vec!["f".into()]));
            env.ok("unlink", || sys::unlink(env.m("f")));
            env.ok("whiteout in the upper", || sys::lstat(env.u("f")).map(|_| ()));
        });
}

#[test]
fn k24_below_pure_and_lower_only_directories() {
    // `p` is a file in the lower, so what lies below `p` in the upper is pure; `l` is whole in the lower, and an
    // opaque mark there has no effect.
    let lower = [
        file("p", ""),
        dir("l").xattr(MARK, "y"),
        file("l/f", "f"),
        dir("l/s").xattr(MARK, "y"),
        file("l/s/x", "x"),
        dir("m").xattr(MARK, "y"),
        file("m/low", "low"),
    ];
    let upper = [
        dir("p"),
        dir("p/q"),
        file("p/q/f", "f"),
        dir("m"),
        file("m/up", "up"),
    ];
    Scenario::new("k24").lower(&lower).upper(&upper).run(|env| {
        env.eq("p/q", sys::sorted_names(env.m("p/q")), Ok(vec!["f".into()]));
        env.eq(
            "l",
            sys::sorted_names(env.m("l")),
            Ok(vec!["f".into(), "s".into()]),
        );
        env.eq("l/s", sys::sorted_names(env.m("l/s")), Ok(vec!["x".into()]));
        env.eq(
            "m",
            sys::sorted_names(env.m("m")),
            Ok(vec!["low".into(), "up".into()]),
        );
        // The mark is not carried into the upper by copy-up, or it would hide what it did not hide before.
        env.ok("copy up into l/s", || sys::put(env.m("l/s/new"), "new"));
        env.eq(
            "l/s afterwards",
            sys::sorted_names(env.m("l/s")),
            Ok(vec!["new".into(), "x".into()]),
        );
        env.remount();
        env.eq(
            "l/s after a remount",
            sys::sorted_names(env.m("l/s")),
            Ok(vec!["new".into(), "x".into()]),
        );
    });
}

#[test]
fn k25_names_too_long() {
    let longest = "n".repeat(255);
    scenario("k25", &[file(&longest, "longest"), dir("d")], |env| {
        let _ = env.want("255", Ok("longest".to_string()), || sys::text(env.m(&longest)));
        let over = "n".repeat(256);
        env.fails("256", sys::ENAMETOOLONG, || sys::cat(env.m(&over)));
        env.fails("create 256", sys::ENAMETOOLONG, || {
            sys::create(env.m(&over), 0o644)
        });
        env.fails("mkdir 256", sys::ENAMETOOLONG, || sys::mkdir(env.m(&over), 0o755));
        env.fails("rename to 256", sys::ENAMETOOLONG, || {
            sys::rename(env.m(&longest), env.m(&over))
        });
        env.ok("copy up the longest name", || sys::append(env.m(&longest), "!"));
        env.ok("rename the longest name", || {
            sys::rename(env.m(&longest), env.m("d").join("e".repeat(255)))
        });
        env.fails("the old name", sys::ENOENT, || sys::cat(env.m(&longest)));
        env.ok("over its whiteout", || sys::put(env.m(&longest), "again"));
    });
}

#[test]
fn k26_redirect_is_not_followed_silently() {
    let lower = [dir("old"), file("old/f", "f"), file("new", "")];
    let upper = [
        dir("d").xattr("trusted.overlay.redirect", "old"),
        file("d/u", "u"),
        dir("plain"),
    ];
    Scenario::new("k26")
        .lower(&lower)
        .upper(&upper)
        .words(&["redirect_dir=nofollow"])
        .run(|env| {
            for label in ["d", "d/u", "d/f"] {
                env.fails(label, sys::EPERM, || sys::lstat(env.m(label)).map(|_| ()));
            }
            env.fails("mkdir", sys::EPERM, || sys::mkdir(env.m("d/n"), 0o755));
            let _ = env.call("the others", || sys::sorted_names(env.m("plain")));
            let _ = env.call("listing of the parent", || sys::sorted_names(env.m("")));
        });
}

#[test]
fn k27_metacopy_is_never_served() {
    if !need_root("k27") {
        return;
    }
    if !layers::kernel_overlay_works() {
        return skip("k27", "needs the kernel's overlay to write the mark");
    }
    for fs in Fs::sides() {
        let layers = Layers::new().with_lower(&[file("f", "data"), file("g", "data")]);
        let mounted = layers.mount(Fs::Kernel, &["metacopy=on"]);
        sys::chmod(layers.merged.join("f"), 0o600).unwrap();
        mounted.umount();
        assert!(sys::getxattr(layers.upper.join("f"), "trusted.overlay.metacopy").is_ok());
        let _mounted = layers.mount(fs, &[]);
        let m = layers.merged.join("f");
        assert_eq!(sys::cat(&m), Err(sys::EPERM), "{}", fs.name());
        assert_eq!(sys::lstat(&m).err(), Some(sys::EPERM));
        assert_eq!(sys::chmod(&m, 0o640), Err(sys::EPERM));
        assert_eq!(sys::put(&m, "x"), Err(sys::EPERM));
        // The kernel's own listing sometimes fails as a whole.
        let names = sys::names(&layers.merged);
        let left_out = names == Ok(vec!["g".into()]) || fs == Fs::Kernel && names == Err(sys::EPERM);
        assert!(left_out, "{}: {names:?}", fs.name());
    }
}

#[test]
fn k28_mounts_inside_the_lower_are_not_entered() {
    if !need_root("k28") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new().with_lower(&[
            dir("d"),
            dir("d/mnt"),
            file("d/mnt/under", "lower"),
            file("d/f", ""),
        ]);
        let inside = layers.lower.join("d/mnt");
        sys::mount("t", &inside, "tmpfs", 0, "").unwrap();
        sys::put(inside.join("over"), "another file system").unwrap();
        let mounted = layers.mount(fs, &[]);
        let over = sys::exists(layers.merged.join("d/mnt/over"));
        assert!(
            !over,
            "{}: the view leads into a mount below the lower",
            fs.name()
        );
        // The rest of the directory still works.
        assert_eq!(sys::put(layers.merged.join("d/f"), "new"), Ok(()));
        mounted.umount();
    }
}
