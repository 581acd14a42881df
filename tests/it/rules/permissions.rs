//! K130 to K134, with POSIX ACLs: who may, before and after copy-up.

use crate::common::*;

fn both<T: std::fmt::Debug>(env: &Env, label: &str, call: impl Fn() -> R<T>) {
    let _ = env.call(label.to_string(), call);
}

#[test]
fn k130_the_same_answer_before_and_after_copy_up() {
    let users = [
        who::ANN,
        who::BOB,
        User::new(1003, 1001, &[]),
        User::new(1004, 1004, &[1001, 50]),
    ];
    let mut lower = Vec::new();
    for mode in [0o600, 0o640, 0o604, 0o066, 0o777, 0o000, 0o444] {
        lower.push(file(format!("f{mode:o}"), "text").mode(mode).own(1001, 1001));
        lower.push(dir(format!("d{mode:o}")).mode(mode).own(1001, 1001));
        lower.push(file(format!("d{mode:o}/x"), "x").mode(0o666));
    }
    scenario("k130", &lower, |env| {
        let names: Vec<_> = sys::sorted_names(env.m("")).unwrap();
        for round in ["lower", "copied up"] {
            for user in users {
                for name in &names {
                    let (path, inside) = (env.m(name), env.m(name).join("x"));
                    let answers = as_user(user, || {
                        (
                            sys::open(&path, libc::O_RDONLY).map(drop),
                            [libc::R_OK, libc::W_OK, libc::X_OK].map(|how| sys::access(&path, how)),
                            sys::cat(&inside),
                            sys::names(&path),
                        )
                    });
                    env.note(format!("{round}: {name:?} by {}", user.uid), &answers);
                }
            }
            for name in &names {
                let mode = sys::mode(env.m(name)).unwrap();
                env.ok("copy up", || sys::chmod(env.m(name), mode));
            }
        }
    });
}

#[test]
fn k131_the_lower_needs_no_write_permission_of_anyone() {
    scenario(
        "k131",
        &[dir("d").mode(0o555), file("d/f", "x").mode(0o444)],
        |env| {
            env.ok("root writes", || sys::append(env.m("d/f"), "y"));
            env.ok("root creates", || sys::put(env.m("d/n"), ""));
            let (f, n) = (env.m("d/f"), env.m("d/n2"));
            env.fails("others do not", sys::EACCES, || {
                as_user(who::ANN, || sys::append(&f, "z"))
            });
            env.fails("others do not", sys::EACCES, || {
                as_user(who::ANN, || sys::put(&n, "z"))
            });
        },
    );
}

#[test]
fn k132_sticky_directories() {
    let lower = [
        dir("tmp").mode(0o1777),
        file("tmp/ann", "").own(1001, 1001).mode(0o666),
        file("tmp/bob", "").own(1002, 1002).mode(0o666),
        dir("tmp/anndir").own(1001, 1001).mode(0o777),
    ];
    scenario("k132 sticky", &lower, |env| {
        let (ann, bob, sub, new) = (
            env.m("tmp/ann"),
            env.m("tmp/bob"),
            env.m("tmp/anndir"),
            env.m("tmp/new"),
        );
        env.fails("unlink", sys::EPERM, || as_user(who::ANN, || sys::unlink(&bob)));
        env.fails("rename", sys::EPERM, || {
            as_user(who::ANN, || sys::rename(&bob, &new))
        });
        env.fails("rename over", sys::EPERM, || {
            as_user(who::ANN, || sys::rename(&ann, &bob))
        });
        env.fails("rmdir", sys::EPERM, || as_user(who::BOB, || sys::rmdir(&sub)));
        env.untouched("refused removals");
        env.ok("her own", || as_user(who::ANN, || sys::rename(&ann, &new)));
        env.ok("her own directory", || as_user(who::ANN, || sys::rmdir(&sub)));
        env.eq("owner is kept", sys::owner(&new), Ok((1001, 1001)));
    });
}

#[test]
fn k133_copies_made_by_others_keep_their_owner() {
    let lower = [
        dir("d").mode(0o777).own(7, 8),
        file("d/f", "x").mode(0o666).own(9, 10),
        symlink("d/s", "f").own(11, 12),
    ];
    scenario("k133", &lower, |env| {
        let (f, g, s, t) = (env.m("d/f"), env.m("d/g"), env.m("d/s"), env.m("d/t"));
        env.ok("write", || as_user(who::ANN, || sys::append(&f, "y")));
        env.ok("rename", || as_user(who::ANN, || sys::rename(&f, &g)));
        env.ok("rename a symlink", || as_user(who::ANN, || sys::rename(&s, &t)));
        env.eq("file", sys::owner(&g), Ok((9, 10)));
        env.eq("symlink", sys::owner(&t), Ok((11, 12)));
        env.eq("directory", sys::owner(env.m("d")), Ok((7, 8)));
    });
}

#[test]
fn k133_set_attributes_by_their_owner() {
    let lower = [
        file("f", "x").own(1001, 1001).mode(0o600),
        dir("d").own(1001, 1001).mode(0o700),
        symlink("s", "f").own(1001, 1001),
    ];
    scenario("k133 owner", &lower, |env| {
        for name in ["f", "d"] {
            let path = env.m(name);
            let answers = as_user(User::new(1001, 1001, &[50]), || {
                [
                    sys::chmod(&path, 0o755),
                    sys::chown(&path, u32::MAX, 50),
                    sys::chown(&path, 1002, u32::MAX),
                    sys::chown(&path, u32::MAX, 60),
                    sys::utimens(&path, (1, 2), (3, 4)),
                    sys::setxattr(&path, "user.a", "b"),
                ]
            });
            env.note(name, &answers);
            env.eq("owner", sys::owner(&path), Ok((1001, 50)));
        }
        let s = env.m("s");
        env.ok("times of a symlink", || {
            as_user(who::ANN, || sys::utimens(&s, (1, 2), (3, 4)))
        });
    });
}

#[test]
fn k133_utimes_rules() {
    let lower = [
        file("writable", "").mode(0o666),
        file("mine", "").own(1001, 1001),
        file("closed", ""),
    ];
    const NOW: (i64, i64) = (0, libc::UTIME_NOW);
    const OMIT: (i64, i64) = (0, libc::UTIME_OMIT);
    scenario("k133 utimes", &lower, |env| {
        for name in ["writable", "mine", "closed"] {
            let path = env.m(name);
            for (label, a, m) in [
                ("now", NOW, NOW),
                ("omit", OMIT, OMIT),
                ("set", (5, 6), (7, 8)),
                ("mixed", NOW, (9, 9)),
                ("one", OMIT, (4, 4)),
            ] {
                env.note(
                    format!("{label} on {name}"),
                    &as_user(who::ANN, || sys::utimens(&path, a, m)),
                );
            }
        }
        env.ok("omit atime", || sys::utimens(env.m("closed"), OMIT, (33, 44)));
        env.eq("mtime", sys::mtime(env.m("closed")), Ok((33, 44)));
        env.ok("omit mtime", || sys::utimens(env.m("closed"), (55, 66), OMIT));
        env.eq("mtime is kept", sys::mtime(env.m("closed")), Ok((33, 44)));
        env.eq(
            "atime",
            sys::lstat(env.m("closed")).map(|st| (st.st_atime, st.st_atime_nsec)),
            Ok((55, 66)),
        );
    });
}

#[test]
fn k134_device_nodes_and_suid_programs() {
    // The tests mount as root with default options, where both sides allow devices.
    scenario("k134", &[chr("zero", 1, 5).mode(0o666)], |env| {
        let _ = env.call("read a lower device", || {
            sys::open(env.m("zero"), libc::O_RDONLY).and_then(|fd| sys::read(&fd, 4))
        });
        env.ok("copy up", || sys::chmod(env.m("zero"), 0o644));
        let _ = env.call("read an upper device", || {
            sys::open(env.m("zero"), libc::O_RDONLY).and_then(|fd| sys::read(&fd, 4))
        });
    });
}

const ANN_R: [(u16, u32, u16); 5] = [
    (acl::USER_OBJ, 0, 6),
    (acl::USER, 1001, 4),
    (acl::GROUP_OBJ, 0, 0),
    (acl::MASK, 0, 6),
    (acl::OTHER, 0, 0),
];

#[test]
fn k155_acls_decide() {
    let lower = [
        file("low", "text")
            .mode(0o600)
            .xattr(acl::ACCESS, acl::of(&ANN_R)),
        file("plain", "text").mode(0o600),
    ];
    scenario("acl", &lower, |env| {
        let check = |name: &str| {
            let path = env.m(name);
            for user in [who::ANN, who::BOB] {
                let answers = as_user(user, || {
                    (
                        sys::text(&path),
                        sys::open(&path, libc::O_WRONLY).map(drop),
                        sys::access(&path, libc::R_OK),
                    )
                });
                env.note(format!("{name} by {}", user.uid), &answers);
            }
        };
        check("low");
        let low = env.m("low");
        env.eq(
            "ann may read",
            as_user(who::ANN, || sys::text(&low)),
            Ok("text".into()),
        );
        env.eq(
            "bob may not",
            as_user(who::BOB, || sys::text(&low)),
            Err(sys::EACCES),
        );
        env.ok("copy up", || sys::utimens(env.m("low"), (1, 1), (1, 1)));
        check("low");
        env.ok("set on a lower file", || {
            sys::setxattr(env.m("plain"), acl::ACCESS, acl::of(&ANN_R))
        });
        check("plain");
        env.eq("mode shows the mask", sys::mode(env.m("plain")), Ok(0o660));
        env.ok("chmod changes the mask", || sys::chmod(env.m("plain"), 0o600));
        check("plain");
        let got = sys::getxattr(env.m("plain"), acl::ACCESS);
        env.note("acl after chmod", &got);
        env.ok("remove", || sys::removexattr(env.m("plain"), acl::ACCESS));
        check("plain");
        env.note("mode without the acl", &sys::mode(env.m("plain")));
        env.ok("an acl that is only a mode", || {
            sys::setxattr(
                env.m("plain"),
                acl::ACCESS,
                acl::of(&[(acl::USER_OBJ, 0, 6), (acl::GROUP_OBJ, 0, 4), (acl::OTHER, 0, 4)]),
            )
        });
        env.note(
            "becomes the mode",
            &(sys::mode(env.m("plain")), sys::listxattr(env.m("plain"))),
        );
        let _ = env.call("nonsense", || {
            sys::setxattr(env.m("plain"), acl::ACCESS, "nonsense")
        });
        let (plain, bytes) = (env.m("plain"), acl::of(&ANN_R));
        env.fails("by another user", sys::EPERM, || {
            as_user(who::ANN, || sys::setxattr(&plain, acl::ACCESS, &bytes))
        });
    });
}

#[test]
fn k155_acls_and_the_setgid_bit() {
    // Who is not in the group loses the bit by a change of the access ACL, and the object is copied up for it:
    // also when there was no ACL to remove.
    const FOREIGN: u32 = 1003;
    let insider = User::new(1001, 1001, &[FOREIGN]);
    let root = User::new(0, 0, &[]);
    let callers = [("ann", who::ANN), ("insider", insider)];
    let mut lower = Vec::new();
    for (caller, _) in callers.iter().chain([&("root", root)]) {
        for mode in [0o2777, 0o2767, 0o777] {
            for with in ["none", "acl"] {
                for node in [
                    file(format!("{caller}-{mode:o}-{with}-file"), "x"),
                    dir(format!("{caller}-{mode:o}-{with}-dir")),
                ] {
                    let node = node.own(1001, FOREIGN).mode(mode);
                    let has = with == "acl";
                    lower.push(if has {
                        node.xattr(acl::ACCESS, acl::of(&ANN_R))
                    } else {
                        node
                    });
                }
            }
        }
    }
    scenario("setgid acl", &lower, |env| {
        let names: Vec<String> = std::fs::read_dir(env.l(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        for name in &names {
            let path = env.m(name);
            let change = |label: &str, call: &(dyn Fn() -> R + Sync)| {
                let done = match callers.iter().find(|(caller, _)| name.starts_with(caller)) {
                    Some((_, user)) => as_user(*user, call),
                    None => call(),
                };
                env.note(format!("{label} {name}"), &(done, sys::mode(&path)));
            };
            // On the lower object, on the copy, and with an ACL of our own.
            change("remove", &|| sys::removexattr(&path, acl::ACCESS));
            change("remove again", &|| sys::removexattr(&path, acl::ACCESS));
            change("remove the default", &|| sys::removexattr(&path, acl::DEFAULT));
            change("set", &|| sys::setxattr(&path, acl::ACCESS, acl::of(&ANN_R)));
            env.ok("the bit again", || sys::chmod(&path, 0o2775));
            change("remove ours", &|| sys::removexattr(&path, acl::ACCESS));
            env.ok("the bit again", || sys::chmod(&path, 0o2775));
            change("remove none", &|| sys::removexattr(&path, acl::ACCESS));
        }
    });
}

#[test]
fn k155_default_acls_of_lower_directories() {
    let default = acl::of(&ANN_R);
    let lower = [
        dir("d").mode(0o777).xattr(acl::DEFAULT, &default),
        dir("d/e"),
        file("f", ""),
    ];
    // A file that had no ACL before it came into the directory.
    let bare = |layers: &Layers| {
        sys::put(layers.lower.join("bare"), "bare").unwrap();
        sys::rename(layers.lower.join("bare"), layers.lower.join("d/bare")).unwrap();
    };
    Scenario::new("acl default")
        .lower(&lower)
        .prepare(bare)
        .run(|env| {
            env.ok("create", || sys::put(env.m("d/n"), "n"));
            env.ok("mkdir", || sys::mkdir(env.m("d/s"), 0o777));
            env.ok("below", || sys::put(env.m("d/s/n"), "n"));
            env.note(
                "n",
                &(sys::mode(env.m("d/n")), sys::getxattr(env.m("d/n"), acl::ACCESS)),
            );
            env.eq(
                "copy-up keeps it",
                sys::getxattr(env.u("d"), acl::DEFAULT),
                Ok(default.clone()),
            );
            env.eq(
                "mkdir passes it on",
                sys::getxattr(env.m("d/s"), acl::DEFAULT),
                Ok(default.clone()),
            );
            // A file copied up *into* such a directory does not get the default: it had its own permissions.
            let before = (sys::mode(env.m("d/e")), sys::listxattr(env.m("d/e")));
            env.ok("copy up below", || sys::utimens(env.m("d/e"), (1, 1), (1, 1)));
            env.eq(
                "mode and acl",
                (sys::mode(env.m("d/e")), sys::listxattr(env.m("d/e"))),
                before,
            );
            let before = (sys::mode(env.m("d/bare")), sys::listxattr(env.m("d/bare")));
            env.ok("copy up below", || sys::utimens(env.m("d/bare"), (1, 1), (1, 1)));
            env.eq(
                "mode and no acl",
                (sys::mode(env.m("d/bare")), sys::listxattr(env.m("d/bare"))),
                before,
            );
            env.ok("moved in", || sys::rename(env.m("f"), env.m("d/f")));
            env.eq("no acl either", sys::listxattr(env.m("d/f")), Ok(vec![]));
            env.ok("remove", || sys::removexattr(env.m("d"), acl::DEFAULT));
            env.ok("create without", || sys::put(env.m("d/n2"), ""));
            env.eq("umask again", sys::mode(env.m("d/n2")), Ok(0o644));
            both(env, "default acl on a file", || {
                sys::setxattr(env.m("d/n"), acl::DEFAULT, acl::of(&ANN_R))
            });
            both(env, "list", || sys::listxattr(env.m("d/n")));
        });
}
