//! The fixtures themselves: that a comparison can fail, and that nothing stays behind.

use crate::common::layers::{mounts_below, servers_of};
use crate::common::*;

fn lower() -> Vec<Node> {
    vec![
        dir("d").mode(0o750).own(7, 8),
        file("d/f", "text").mode(0o640).xattr("user.a", "1"),
        symlink("s", "d/f"),
        file("g", "linked"),
        hard("d/h", "g"),
        sparse("sp", 3 << 20, &[(1 << 20, b"x")]),
        fifo("p"),
        chr("c", 1, 3),
    ]
}

#[test]
fn snapshots_of_equal_plantings_are_equal_and_every_field_is_seen() {
    if !need_root("snapshots_of_equal_plantings") {
        return;
    }
    let (a, b) = (
        Layers::new().with_lower(&lower()),
        Layers::new().with_lower(&lower()),
    );
    let before = snapshot(&a.lower);
    assert_eq!(
        before.differences(&snapshot(&b.lower), "a", "b"),
        Vec::<String>::new()
    );
    let f = b.lower.join("d/f");
    type Change = (&'static str, fn(&std::path::Path) -> R);
    let changes: [Change; 7] = [
        ("mode", |f| sys::chmod(f, 0o600)),
        ("uid", |f| sys::chown(f, 3, u32::MAX)),
        ("gid", |f| sys::chown(f, u32::MAX, 4)),
        ("mtime", |f| sys::utimens(f, (5, 6), (5, 6))),
        ("xattr user.a", |f| sys::setxattr(f, "user.a", "2")),
        ("data", |f| sys::put(f, "TEXT")),
        ("nlink", |f| sys::link(f, f.with_file_name("new"))),
    ];
    for (field, change) in changes {
        change(&f).unwrap();
        let lines = before.differences(&snapshot(&b.lower), "a", "b");
        assert!(
            lines.iter().any(|l| l.starts_with(&format!("d/f: {field}:"))),
            "{field} in {lines:?}"
        );
    }
}

#[test]
fn a_scenario_sees_answers_trees_and_lower() {
    if !need_root("a_scenario_sees") {
        return;
    }
    let told = |steps: fn(&Env)| {
        let ended = std::panic::catch_unwind(|| scenario("smoke", &lower(), steps));
        ended
            .err()
            .map(|p| scenario::panic_text(p.as_ref()))
            .unwrap_or_default()
    };
    assert_eq!(
        told(|env| env.ok("chmod", || sys::chmod(env.m("d/f"), 0o600))),
        ""
    );
    let text = told(|env| env.fails("chmod", sys::EPERM, || sys::chmod(env.m("d/f"), 0o600)));
    assert!(text.contains("Ok(\"()\"), expected Err(EPERM)"), "{text}");
    let text = told(|env| sys::put(env.l("d/f"), "changed").unwrap());
    assert!(text.contains("the lower was changed: d/f: ctime"), "{text}");
    let text = told(|env| {
        env.note("side", &env.fs);
        sys::put(env.m("side"), env.fs.name()).unwrap();
    });
    for part in [
        "side: kernel Kernel, plyfs Plyfs",
        "merged: side: data",
        "upper: side: data",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_mount_ends_with_its_value() {
    if !need_root("a_mount_ends") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new().with_lower(&lower());
        let base = layers.base().to_owned();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _mounted = layers.mount(fs, &[]);
            assert_eq!(mounts_below(&base).len(), 1);
            assert_eq!(sys::text(layers.merged.join("d/f")), Ok("text".into()));
            panic!("on purpose");
        }));
        assert!(ended.is_err());
        assert_eq!(mounts_below(&base), Vec::<std::path::PathBuf>::new());
        assert_eq!(servers_of(&base), Vec::<i32>::new());
        drop(layers);
        assert!(!base.exists());
    }
}

#[test]
fn another_user_is_only_that_thread() {
    if !need_root("another_user") {
        return;
    }
    let layers = Layers::new();
    sys::chmod(&layers.upper, 0o777).unwrap();
    let made = layers.upper.join("made");
    let inner = as_user(User::new(1001, 1002, &[1003]), || {
        with_umask(0o077, || sys::put(&made, "x"))
    });
    assert_eq!(inner, Ok(()));
    assert_eq!(sys::owner(&made), Ok((1001, 1002)));
    assert_eq!(sys::mode(&made), Ok(0o600));
    assert_eq!(as_user(who::BOB, || sys::cat(&made)), Err(sys::EACCES));
    assert_eq!(sys::cat(&made), Ok(b"x".to_vec()));
}
