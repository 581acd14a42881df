//! K100 to K104: hiding and escaping of names, and what a write or a chown takes away.

use crate::common::*;

const CAPS: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn k100_private_names_are_hidden() {
    let lower = [
        file("f", "x")
            .xattr("trusted.overlay.origin", "junk")
            .xattr("trusted.overlay.foo", "1")
            .xattr("user.a", "2"),
        dir("d")
            .xattr("trusted.overlay.impure", "y")
            .xattr("trusted.other", "3"),
    ];
    scenario("k100", &lower, |env| {
        env.eq("f", sys::listxattr(env.m("f")), Ok(vec!["user.a".into()]));
        env.eq("d", sys::listxattr(env.m("d")), Ok(vec!["trusted.other".into()]));
        for name in ["trusted.overlay.origin", "trusted.overlay.foo"] {
            env.fails(name, sys::ENODATA, || sys::getxattr(env.m("f"), name));
            env.note(format!("remove {name}"), &sys::removexattr(env.m("f"), name));
        }
        env.ok("copy up", || sys::chmod(env.m("f"), 0o600));
        env.ok("copy up", || sys::chmod(env.m("d"), 0o700));
        env.fails("private names do not travel", sys::ENODATA, || {
            sys::getxattr(env.u("f"), "trusted.overlay.foo")
        });
        env.eq("f", sys::listxattr(env.m("f")), Ok(vec!["user.a".into()]));
    });
}

#[test]
fn k100_escaping_to_any_depth() {
    let names = [
        "trusted.overlay.opaque",
        "trusted.overlay.overlay.opaque",
        "trusted.overlay.overlay.overlay.x",
        "trusted.overlay.foo",
        "trusted.overlayfoo",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.whiteout",
    ];
    scenario(
        "k100 escapes",
        &[file("f", "x"), dir("d"), file("d/low", "")],
        |env| {
            for target in ["f", "d", "n"] {
                let _ = sys::put(env.m("n"), "");
                for name in names {
                    let value = format!("value of {name}");
                    env.ok(format!("set {name}"), || {
                        sys::setxattr(env.m(target), name, &value)
                    });
                    env.eq(
                        format!("get {name}"),
                        sys::getxattr(env.m(target), name),
                        Ok(value.into_bytes()),
                    );
                }
                let mut sorted: Vec<_> = names.iter().map(ToString::to_string).collect();
                sorted.sort();
                env.eq("list", sys::listxattr(env.m(target)), Ok(sorted));
                let raw = sys::getxattr(env.u(target), "trusted.overlay.overlay.opaque");
                env.eq(
                    "stored with one more",
                    raw,
                    Ok(b"value of trusted.overlay.opaque".to_vec()),
                );
            }
            env.ok("an opaque mark through the view", || {
                sys::setxattr(env.m("d"), "trusted.overlay.opaque", "y")
            });
            env.eq("hides nothing", sys::names(env.m("d")), Ok(vec!["low".into()]));
            env.remount();
            env.eq(
                "nor after a remount",
                sys::names(env.m("d")),
                Ok(vec!["low".into()]),
            );
            for name in names {
                env.ok(format!("remove {name}"), || sys::removexattr(env.m("f"), name));
                env.fails("gone", sys::ENODATA, || sys::getxattr(env.m("f"), name));
            }
            env.eq("none left", sys::listxattr(env.m("f")), Ok(vec![]));
        },
    );
}

#[test]
fn k100_escaped_names_of_a_lower() {
    let lower = [
        dir("d")
            .xattr("trusted.overlay.overlay.opaque", "y")
            .xattr("trusted.overlay.overlay.overlay.opaque", "2"),
        file("d/f", "").xattr("trusted.overlay.overlay.origin", "o"),
    ];
    scenario("k100 lower", &lower, |env| {
        let want = vec![
            "trusted.overlay.opaque".into(),
            "trusted.overlay.overlay.opaque".into(),
        ];
        env.eq(
            "one level is stripped",
            sys::listxattr(env.m("d")),
            Ok(want.clone()),
        );
        env.eq(
            "value",
            sys::getxattr(env.m("d"), "trusted.overlay.opaque"),
            Ok(b"y".to_vec()),
        );
        env.ok("copy up", || sys::chmod(env.m("d/f"), 0o600));
        env.eq("the same after copy-up", sys::listxattr(env.m("d")), Ok(want));
        env.eq(
            "raw in the upper",
            sys::getxattr(env.u("d/f"), "trusted.overlay.overlay.origin"),
            Ok(b"o".to_vec()),
        );
        env.eq("names", sys::names(env.m("d")), Ok(vec!["f".into()]));
    });
}

#[test]
fn k101_the_other_namespace_is_plain_data() {
    let lower = [
        dir("d").xattr("user.overlay.opaque", "y"),
        file("d/low", ""),
        file("w", "").xattr("user.overlay.whiteout", "y"),
        file("m", "data").xattr("user.overlay.metacopy", ""),
    ];
    let upper = [
        dir("d").xattr("user.overlay.opaque", "y"),
        dir("r").xattr("user.overlay.redirect", "d"),
    ];
    Scenario::new("k101").lower(&lower).upper(&upper).run(|env| {
        env.eq("not opaque", sys::names(env.m("d")), Ok(vec!["low".into()]));
        env.eq(
            "listed",
            sys::listxattr(env.m("d")),
            Ok(vec!["user.overlay.opaque".into()]),
        );
        env.eq("not a whiteout", sys::text(env.m("w")), Ok(String::new()));
        env.eq("not a metacopy", sys::text(env.m("m")), Ok("data".into()));
        env.ok("not a redirect", || sys::put(env.m("r/new"), ""));
        env.ok("set", || sys::setxattr(env.m("w"), "user.overlay.foo", "1"));
        env.eq(
            "stored as it is",
            sys::getxattr(env.u("w"), "user.overlay.foo"),
            Ok(b"1".to_vec()),
        );
    });
}

#[test]
fn k101_userxattr_mode() {
    let lower = [
        dir("d")
            .xattr("user.overlay.opaque", "y")
            .xattr("trusted.overlay.opaque", "y"),
        file("d/low", ""),
        file("f", "x")
            .xattr("user.overlay.foo", "1")
            .xattr("trusted.overlay.foo", "2")
            .xattr("user.overlay.overlay.e", "3"),
        symlink("s", "f"),
        fifo("p"),
        dir("gone"),
        file("gone/x", ""),
        dir("merged"),
        file("merged/low", ""),
    ];
    let upper = [
        dir("d").xattr("trusted.overlay.opaque", "y"),
        file("d/up", ""),
        dir("merged").xattr("user.overlay.opaque", "y"),
    ];
    // A symlink or fifo cannot carry `user.` names, so it does not remember its origin (K67).
    let s = Scenario::new("k101 userxattr").numbers_may_change();
    s.lower(&lower).upper(&upper).words(&["userxattr"]).run(|env| {
        env.eq(
            "trusted is plain data",
            sys::sorted_names(env.m("d")),
            Ok(vec!["low".into(), "up".into()]),
        );
        env.eq("user is private", sys::names(env.m("merged")), Ok(vec![]));
        let want = ["trusted.overlay.foo", "user.overlay.e"].map(Into::into).to_vec();
        env.eq("list", sys::listxattr(env.m("f")), Ok(want));
        env.fails("get", sys::ENODATA, || {
            sys::getxattr(env.m("f"), "user.overlay.foo")
        });
        env.ok("set", || sys::setxattr(env.m("f"), "user.overlay.foo", "new"));
        env.eq(
            "escaped",
            sys::getxattr(env.u("f"), "user.overlay.overlay.foo"),
            Ok(b"new".to_vec()),
        );
        env.ok("unlink", || sys::unlink(env.m("gone/x")));
        env.ok("rmdir", || sys::rmdir(env.m("gone")));
        env.ok("mkdir", || sys::mkdir(env.m("gone"), 0o755));
        env.eq(
            "opaque",
            sys::getxattr(env.u("gone"), "user.overlay.opaque"),
            Ok(b"y".to_vec()),
        );
        env.fails("not the other", sys::ENODATA, || {
            sys::getxattr(env.u("gone"), "trusted.overlay.opaque")
        });
        env.ok("copy a symlink up", || sys::chown(env.m("s"), 5, 5));
        env.ok("copy a fifo up", || sys::chmod(env.m("p"), 0o600));
    });
}

#[test]
fn k102_trusted_names_are_for_root() {
    let lower = [
        file("f", "x")
            .mode(0o666)
            .xattr("trusted.secret", "t")
            .xattr("user.open", "u"),
        dir("d").xattr("trusted.t", "1"),
    ];
    scenario("k102", &lower, |env| {
        let (f, d) = (env.m("f"), env.m("d"));
        let seen = |path: &std::path::Path| as_user(who::ANN, || sys::listxattr(path));
        env.eq("list by another user", seen(&f), Ok(vec!["user.open".into()]));
        env.eq("list of a directory", seen(&d), Ok(vec![]));
        env.note("get", &as_user(who::ANN, || sys::getxattr(&f, "trusted.secret")));
        env.check(
            "get is refused",
            as_user(who::ANN, || sys::getxattr(&f, "trusted.secret")).is_err(),
        );
        env.fails("set", sys::EPERM, || {
            as_user(who::ANN, || sys::setxattr(&f, "trusted.secret", "x"))
        });
        env.fails("remove", sys::EPERM, || {
            as_user(who::ANN, || sys::removexattr(&f, "trusted.secret"))
        });
        env.eq(
            "root sees it",
            sys::listxattr(&f),
            Ok(vec!["trusted.secret".into(), "user.open".into()]),
        );
    });
}

#[test]
fn k102_flags_sizes_and_kinds() {
    let lower = [
        file("f", "x").xattr("user.a", "1"),
        symlink("s", "f"),
        fifo("p"),
        dir("d").mode(0o1777),
    ];
    scenario("k102 flags", &lower, |env| {
        let set = |path, name, flags| sys::setxattr_flags(env.m(path), name, "2", flags);
        env.fails("create", sys::EEXIST, || set("f", "user.a", libc::XATTR_CREATE));
        env.fails("replace", sys::ENODATA, || {
            set("f", "user.b", libc::XATTR_REPLACE)
        });
        env.ok("replace", || set("f", "user.a", libc::XATTR_REPLACE));
        env.ok("create", || set("f", "user.b", libc::XATTR_CREATE));
        env.fails("on a symlink", sys::EPERM, || set("s", "user.a", 0));
        env.fails("on a fifo", sys::EPERM, || set("p", "user.a", 0));
        env.ok("trusted on a symlink", || set("s", "trusted.a", 0));
        env.ok("on a directory", || set("d", "user.a", 0));
        let _ = env.call("no namespace", || set("f", "plain", 0));
        let _ = env.call("unknown namespace", || set("f", "what.ever", 0));
        let _ = env.call("empty tail", || set("f", "user.", 0));
        let long = format!("user.{}", "n".repeat(250));
        env.ok("longest name", || sys::setxattr(env.m("f"), &long, ""));
        let _ = env.call("longer name", || {
            sys::setxattr(env.m("f"), &format!("{long}n"), "")
        });
        env.eq("empty value", sys::getxattr(env.m("f"), &long), Ok(vec![]));
    });
}

#[test]
fn k103_a_write_drops_capabilities() {
    let lower = [
        file("low", "x").mode(0o755).xattr("security.capability", CAPS),
        file("up", "x").mode(0o755),
    ];
    scenario("k103 caps", &lower, |env| {
        env.ok("set", || sys::setxattr(env.m("up"), "security.capability", CAPS));
        for name in ["low", "up"] {
            let cap = || sys::getxattr(env.m(name), "security.capability");
            env.check("there", cap().is_ok());
            env.ok("open and close drop nothing", || {
                sys::open(env.m(name), libc::O_WRONLY).map(drop)
            });
            env.check("still there", cap().is_ok());
            env.ok("write", || sys::append(env.m(name), "y"));
            env.eq("gone", cap(), Err(sys::ENODATA));
            env.ok("set again", || {
                sys::setxattr(env.m(name), "security.capability", CAPS)
            });
            env.ok("truncate", || sys::truncate(env.m(name), 0));
            let _ = env.call("after truncate", cap);
            env.ok("set again", || {
                sys::setxattr(env.m(name), "security.capability", CAPS)
            });
            env.ok("chown", || sys::chown(env.m(name), 5, 5));
            env.eq("gone after chown", cap(), Err(sys::ENODATA));
        }
    });
}

const MODES: [u32; 8] = [0o4777, 0o2777, 0o6777, 0o2767, 0o6767, 0o4666, 0o2666, 0o1777];

/// For suid and sgid modes and both layers: an action by a user, and the mode afterwards.
fn mode_after(name: &str, user: User, owner: (u32, u32), action: impl Fn(&std::path::Path) -> R + Sync) {
    let lower: Vec<_> = MODES
        .iter()
        .map(|m| file(format!("low-{m:o}"), "text").mode(*m).own(owner.0, owner.1))
        .collect();
    let upper: Vec<_> = MODES
        .iter()
        .map(|m| file(format!("up-{m:o}"), "text").mode(*m).own(owner.0, owner.1))
        .collect();
    Scenario::new(name).lower(&lower).upper(&upper).run(|env| {
        for mode in MODES {
            for layer in ["low", "up"] {
                let path = env.m(format!("{layer}-{mode:o}"));
                let answer = as_user(user, || action(&path));
                let after = sys::mode(&path).map(|m| format!("{m:o}"));
                env.note(format!("{name} of {layer} {mode:o}"), &(answer, after));
            }
        }
    });
}

fn write_by_fd(path: &std::path::Path) -> R {
    let fd = sys::open(path, libc::O_WRONLY)?;
    sys::pwrite(&fd, b"T", 0).map(|_| ())
}

#[test]
fn k103_write_by_another_user() {
    mode_after("write", who::ANN, (0, 0), write_by_fd);
}

#[test]
fn k103_write_by_the_owner() {
    mode_after("write by the owner", who::ANN, (1001, 1001), write_by_fd);
}

#[test]
fn k103_write_by_root() {
    mode_after("write by root", User::new(0, 0, &[]), (1001, 1001), write_by_fd);
}

#[test]
fn k103_setuid_bits_given_to_an_open_file() {
    let upper = ["root", "ann", "ann-root", "root-ann"].map(|name| file(name, "text").mode(0o666));
    Scenario::new("k103 open").upper(&upper).run(|env| {
        let open = |name: &str| sys::open(env.m(name), libc::O_WRONLY).unwrap();
        let open_as_ann = |name: &str| as_user(who::ANN, || open(name));
        let write = |fd: &Fd| sys::pwrite(fd, b"T", 0);
        let mode = |name: &str| sys::mode(env.m(name)).map(|m| format!("{m:o}"));

        let by_root = open("root");
        env.ok("open by root", || sys::chmod(env.m("root"), 0o4777));
        env.eq("root's write", write(&by_root), Ok(1));
        env.eq("keeps them", mode("root"), Ok("4777".into()));

        let by_ann = open_as_ann("ann");
        env.ok("open by another user", || sys::chmod(env.m("ann"), 0o6777));
        env.eq("her write", as_user(who::ANN, || write(&by_ann)), Ok(1));
        env.eq("drops them", mode("ann"), Ok("777".into()));

        let (by_ann, by_root) = (open_as_ann("ann-root"), open("ann-root"));
        env.ok("open by both, root last", || {
            sys::chmod(env.m("ann-root"), 0o4777)
        });
        env.eq("root's write", write(&by_root), Ok(1));
        let (kept, dropped) = (r#"Ok("4777")"#, r#"Ok("777")"#);
        let _ = env.differs(
            "setuid-while-open",
            "what it leaves",
            kept,
            &[kept, dropped],
            || mode("ann-root"),
        );
        env.eq("her write", as_user(who::ANN, || write(&by_ann)), Ok(1));
        env.eq("drops them in any case", mode("ann-root"), Ok("777".into()));

        let (by_root, by_ann) = (open("root-ann"), open_as_ann("root-ann"));
        let _ = env.differs(
            "setuid-while-open",
            "root first",
            "Ok(())",
            &["Ok(())", "Err(ETXTBSY)"],
            || sys::chmod(env.m("root-ann"), 0o4777),
        );
        env.eq("her write", as_user(who::ANN, || write(&by_ann)), Ok(1));
        env.check(
            "leaves none",
            sys::mode(env.m("root-ann")).is_ok_and(|m| m & 0o6000 == 0),
        );
        drop((by_root, by_ann));
        // A server hears of the last close a little later.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        env.ok("closed", || {
            loop {
                let answer = sys::chmod(env.m("root-ann"), 0o4777);
                if answer != Err(sys::ETXTBSY) || std::time::Instant::now() > until {
                    return answer;
                }
            }
        });
    });
}

#[test]
fn k103_open_without_writing() {
    mode_after("open", who::ANN, (0, 0), |path| {
        sys::open(path, libc::O_RDWR).map(drop)
    });
}

#[test]
fn k103_open_with_trunc() {
    mode_after("O_TRUNC", who::ANN, (0, 0), |path| {
        sys::open(path, libc::O_WRONLY | libc::O_TRUNC).map(drop)
    });
}

#[test]
fn k103_truncate_and_ftruncate() {
    mode_after("truncate", who::ANN, (0, 0), |path| sys::truncate(path, 1));
    mode_after("ftruncate", who::ANN, (0, 0), |path| {
        sys::ftruncate(&sys::open(path, libc::O_RDWR)?, 1)
    });
}

#[test]
fn k103_fallocate_and_mapped_write() {
    mode_after("fallocate", who::ANN, (0, 0), |path| {
        sys::fallocate(&sys::open(path, libc::O_RDWR)?, 0, 0, 10_000)
    });
    mode_after("copy_file_range", who::ANN, (0, 0), |path| {
        let fd = sys::open(path, libc::O_RDWR)?;
        sys::copy_file_range(&fd, 0, &fd, 10, 3).map(|_| ())
    });
}

#[test]
fn k104_chown_and_chgrp() {
    const MEMBER: User = User::new(1001, 1001, &[50]);
    mode_after("chgrp by the owner", MEMBER, (1001, 1001), |path| {
        sys::chown(path, u32::MAX, 50)
    });
    mode_after("chown to itself", MEMBER, (1001, 1001), |path| {
        sys::chown(path, 1001, u32::MAX)
    });
    mode_after("chown of nothing", MEMBER, (1001, 1001), |path| {
        sys::chown(path, u32::MAX, u32::MAX)
    });
    mode_after("chown by root", User::new(0, 0, &[]), (1001, 1001), |path| {
        sys::chown(path, 1002, 1002)
    });
    mode_after("chgrp to a foreign group", MEMBER, (1001, 1001), |path| {
        sys::chown(path, u32::MAX, 60)
    });
}

#[test]
fn k104_chmod_by_an_owner_outside_the_group() {
    mode_after("chmod g+s", who::ANN, (1001, 60), |path| sys::chmod(path, 0o2755));
    mode_after("chmod u+s", who::ANN, (1001, 60), |path| sys::chmod(path, 0o4755));
}
