//! K80 to K88: create, link, remove.

use crate::common::*;

const OPAQUE: &str = "trusted.overlay.opaque";

fn is_whiteout(path: impl AsRef<std::path::Path>) -> bool {
    sys::lstat(path).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFCHR && st.st_rdev == 0)
}

/// Makes one of each kind; names end in the kind.
fn make_all(env: &Env, prefix: &str, user: User, umask: u32) {
    let path = |kind: &str| env.m(format!("{prefix}{kind}"));
    let (file, sub, link, fifo, sock) = (
        path("file"),
        path("dir"),
        path("link"),
        path("fifo"),
        path("sock"),
    );
    let answers = as_user(user, || {
        with_mask(umask, || {
            vec![
                ("file", sys::create(&file, 0o6777).map(|_| ())),
                ("dir", sys::mkdir(&sub, 0o1777)),
                ("link", sys::make_symlink("target", &link)),
                ("fifo", sys::mknod(&fifo, libc::S_IFIFO | 0o666, 0, 0)),
                ("sock", sys::mknod(&sock, libc::S_IFSOCK | 0o777, 0, 0)),
            ]
        })
    });
    for (kind, answer) in answers {
        env.ok(format!("make {prefix}{kind}"), || answer);
    }
}

fn with_mask<T>(umask: u32, step: impl FnOnce() -> T) -> T {
    // SAFETY: called in a thread of `as_user`, which has its own umask.
    unsafe { libc::umask(umask) };
    step()
}

#[test]
fn k80_owner_mode_and_umask_of_the_new() {
    let lower = [
        dir("open").mode(0o777),
        dir("deep").mode(0o777),
        dir("deep/er").mode(0o777),
    ];
    scenario("k80", &lower, |env| {
        for (i, umask) in [0o022, 0o077, 0, 0o777].into_iter().enumerate() {
            make_all(env, &format!("open/{i}-"), User::new(1001, 1002, &[1003]), umask);
            env.eq(
                "mode",
                sys::mode(env.m(format!("open/{i}-file"))).map(|m| m & 0o777),
                Ok(0o777 & !umask),
            );
            env.eq(
                "owner",
                sys::owner(env.m(format!("open/{i}-file"))),
                Ok((1001, 1002)),
            );
            env.eq(
                "owner of the symlink",
                sys::owner(env.m(format!("open/{i}-link"))),
                Ok((1001, 1002)),
            );
        }
        make_all(env, "deep/er/", who::BOB, 0o022);
    });
}

#[test]
fn k80_setgid_parent() {
    let lower = [
        dir("g").mode(0o2777).own(0, 50),
        dir("l").mode(0o2777).own(0, 50),
        file("g/gone", ""),
        dir("g/gonedir"),
    ];
    scenario("k80 setgid", &lower, |env| {
        make_all(env, "g/", who::ANN, 0o022);
        make_all(env, "l/", User::new(1001, 1001, &[50]), 0o022);
        for kind in ["file", "dir", "link", "fifo"] {
            env.eq(
                format!("group of {kind}"),
                sys::owner(env.m(format!("g/{kind}"))),
                Ok((1001, 50)),
            );
        }
        env.eq(
            "the bit passes to directories",
            sys::mode(env.m("g/dir")).map(|m| m & 0o2000),
            Ok(0o2000),
        );
        // A caller outside the group does not get an sgid file.
        env.note("sgid of the file", &sys::mode(env.m("g/file")));
        env.note("sgid of the member's file", &sys::mode(env.m("l/file")));
        // Over whiteouts the same.
        env.ok("unlink", || sys::unlink(env.m("g/gone")));
        env.ok("rmdir", || sys::rmdir(env.m("g/gonedir")));
        let (gone, gonedir) = (env.m("g/gone"), env.m("g/gonedir"));
        env.ok("file over a whiteout", || {
            as_user(who::ANN, || sys::create(&gone, 0o666).map(|_| ()))
        });
        env.ok("directory over a whiteout", || {
            as_user(who::ANN, || sys::mkdir(&gonedir, 0o777))
        });
        env.eq("group", sys::owner(&gone), Ok((1001, 50)));
        env.eq("group", sys::owner(&gonedir), Ok((1001, 50)));
        env.eq("bit", sys::mode(&gonedir).map(|m| m & 0o2000), Ok(0o2000));
    });
}

#[test]
fn k80_default_acl_in_place_of_the_umask() {
    let default = acl::of(&[
        (acl::USER_OBJ, 0, 7),
        (acl::USER, 1005, 7),
        (acl::GROUP_OBJ, 0, 5),
        (acl::MASK, 0, 7),
        (acl::OTHER, 0, 1),
    ]);
    let lower = [
        dir("d").mode(0o777).xattr(acl::DEFAULT, &default),
        file("d/gone", ""),
        dir("d/gonedir"),
        file("d/gonelink", ""),
        file("d/gonefifo", ""),
    ];
    scenario("k80 default acl", &lower, |env| {
        make_all(env, "d/", who::ANN, 0o077);
        env.check(
            "the ACL is inherited",
            sys::getxattr(env.m("d/file"), acl::ACCESS).is_ok(),
        );
        env.eq(
            "by directories as default too",
            sys::getxattr(env.m("d/dir"), acl::DEFAULT),
            Ok(default.clone()),
        );
        env.eq(
            "the umask has no say",
            sys::mode(env.m("d/fifo")).map(|m| m & 0o070),
            Ok(0o060),
        );
        for name in ["d/gone", "d/gonelink", "d/gonefifo"] {
            env.ok("unlink", || sys::unlink(env.m(name)));
        }
        env.ok("rmdir", || sys::rmdir(env.m("d/gonedir")));
        let path = |name: &str| env.m(format!("d/gone{name}"));
        let (file, sub, link, fifo) = (path(""), path("dir"), path("link"), path("fifo"));
        let answers = as_user(who::ANN, || {
            with_mask(0o077, || {
                [
                    sys::create(&file, 0o666).map(|_| ()),
                    sys::mkdir(&sub, 0o777),
                    sys::make_symlink("x", &link),
                    sys::mknod(&fifo, libc::S_IFIFO | 0o622, 0, 0),
                ]
            })
        });
        for answer in answers {
            env.ok("over a whiteout", || answer);
        }
        env.check("inherited there too", sys::getxattr(&file, acl::ACCESS).is_ok());
        env.eq(
            "and as default",
            sys::getxattr(&sub, acl::DEFAULT),
            Ok(default.clone()),
        );
    });
}

#[test]
fn k80_open_creat_without_excl() {
    scenario(
        "k80 creat",
        &[
            file("low", "low").mode(0o600),
            symlink("s", "low"),
            symlink("dangling", "made"),
        ],
        |env| {
            let flags = libc::O_RDWR | libc::O_CREAT;
            env.ok("existing", || {
                sys::open_mode(env.m("low"), flags, 0o777).map(|_| ())
            });
            env.eq("mode is not touched", sys::mode(env.m("low")), Ok(0o600));
            env.eq("data neither", sys::text(env.m("low")), Ok("low".into()));
            env.ok("through a symlink", || {
                sys::open_mode(env.m("s"), flags, 0o777).map(|_| ())
            });
            env.ok("through a dangling one", || {
                sys::open_mode(env.m("dangling"), flags, 0o600).map(|_| ())
            });
            env.eq("which makes its target", sys::mode(env.m("made")), Ok(0o600));
            env.fails("O_NOFOLLOW", sys::ELOOP, || {
                sys::open_mode(env.m("s"), flags | libc::O_NOFOLLOW, 0o600)
            });
            // A mode without permissions does not keep its maker from writing.
            let fd = sys::create(env.m("closed"), 0).unwrap();
            env.eq("write", sys::write(&fd, b"x"), Ok(1));
        },
    );
}

#[test]
fn k81_every_kind_over_every_kind_of_whiteout() {
    let kinds = ["file", "dir", "link", "fifo", "sock"];
    let mut lower = Vec::new();
    for k in kinds {
        lower.extend([
            file(format!("was-file-{k}"), "old"),
            dir(format!("was-dir-{k}")),
            file(format!("was-dir-{k}/x"), "old"),
        ]);
    }
    scenario("k81", &lower, |env| {
        for k in kinds {
            env.ok("unlink", || sys::unlink(env.m(format!("was-file-{k}"))));
            env.ok("unlink", || sys::unlink(env.m(format!("was-dir-{k}/x"))));
            env.ok("rmdir", || sys::rmdir(env.m(format!("was-dir-{k}"))));
        }
        make_all(env, "was-file-", User::new(0, 0, &[]), 0o022);
        make_all(env, "was-dir-", User::new(0, 0, &[]), 0o022);
        for was in ["file", "dir"] {
            env.eq(
                "opaque",
                sys::getxattr(env.u(format!("was-{was}-dir")), OPAQUE),
                Ok(b"y".to_vec()),
            );
            env.eq("empty", sys::names(env.m(format!("was-{was}-dir"))), Ok(vec![]));
        }
        env.remount();
        env.eq("still empty", sys::names(env.m("was-dir-dir")), Ok(vec![]));
    });
}

#[test]
fn k82_mkdir_in_a_merged_directory_is_not_opaque() {
    scenario("k82", &[dir("d")], |env| {
        env.ok("mkdir", || sys::mkdir(env.m("d/n"), 0o755));
        env.fails("no mark", sys::ENODATA, || sys::getxattr(env.u("d/n"), OPAQUE));
        env.ok("mkdir", || sys::mkdir(env.m("d/n/sub"), 0o755));
        env.fails("no mark", sys::ENODATA, || {
            sys::getxattr(env.u("d/n/sub"), OPAQUE)
        });
    });
}

#[test]
fn k83_link() {
    let lower = [
        file("f", "text"),
        dir("d"),
        file("gone", ""),
        symlink("s", "f"),
        file("up", ""),
    ];
    Scenario::new("k83")
        .lower(&lower)
        .upper(&[file("up", "up")])
        .run(|env| {
            env.ok("unlink", || sys::unlink(env.m("gone")));
            for (from, to) in [("f", "d/f2"), ("f", "gone"), ("up", "up2"), ("s", "d/s2")] {
                env.ok(format!("link {from} {to}"), || sys::link(env.m(from), env.m(to)));
                env.eq("one number", sys::ino(env.m(from)), sys::ino(env.m(to)));
            }
            let _ = env.want("nlink", Ok(3), || sys::nlink(env.m("f")));
            env.ok("write by one name", || sys::put(env.m("gone"), "new"));
            let _ = env.want("read by another", Ok("new".to_string()), || {
                sys::text(env.m("d/f2"))
            });
            env.fails("onto a name", sys::EEXIST, || sys::link(env.m("f"), env.m("up")));
            env.fails("of a directory", sys::EPERM, || {
                sys::link(env.m("d"), env.m("d2"))
            });
            env.fails("of nothing", sys::ENOENT, || sys::link(env.m("none"), env.m("x")));
            env.ok("unlink the first", || sys::unlink(env.m("f")));
            let _ = env.want("nlink", Ok(2), || sys::nlink(env.m("gone")));
            env.remount();
            env.eq("one number", sys::ino(env.m("gone")), sys::ino(env.m("d/f2")));
            let _ = env.want("data", Ok("new".to_string()), || sys::text(env.m("gone")));
        });
}

#[test]
fn k84_unlink_leaves_a_whiteout_only_where_the_lower_has_the_name() {
    let lower = [
        file("low", ""),
        file("copied", ""),
        symlink("link", "x"),
        fifo("fifo"),
        dir("d"),
        file("d/low", ""),
    ];
    let upper = [file("new", ""), dir("p"), file("p/x", "")];
    Scenario::new("k84").lower(&lower).upper(&upper).run(|env| {
        env.ok("copy up", || sys::chmod(env.m("copied"), 0o600));
        for name in ["low", "copied", "link", "fifo", "new", "d/low", "p/x"] {
            env.ok(format!("unlink {name}"), || sys::unlink(env.m(name)));
            env.fails("gone", sys::ENOENT, || sys::lstat(env.m(name)).map(|_| ()));
            env.fails("twice", sys::ENOENT, || sys::unlink(env.m(name)));
        }
        for name in ["low", "copied", "link", "fifo", "d/low"] {
            env.check(format!("whiteout for {name}"), is_whiteout(env.u(name)));
        }
        for name in ["new", "p/x"] {
            env.check(format!("none for {name}"), !sys::exists(env.u(name)));
        }
    });
}

#[test]
fn k84_unlink_of_renamed_over_name() {
    scenario(
        "k84 renamed over",
        &[file("f", "lower"), dir("d"), file("d/f", "lower")],
        |env| {
            for (new, name) in [("g", "f"), ("d/g", "d/f"), ("h", "d/f")] {
                env.ok("put", || sys::put(env.m(new), "new"));
                env.ok("rename", || sys::rename(env.m(new), env.m(name)));
                env.ok("unlink", || sys::unlink(env.m(name)));
                env.fails("gone", sys::ENOENT, || sys::cat(env.m(name)));
                env.check("a whiteout", is_whiteout(env.u(name)));
                env.check("none at the new name", !sys::exists(env.u(new)));
            }
            env.remount();
            env.fails("gone after a remount", sys::ENOENT, || sys::cat(env.m("f")));
            env.fails("gone after a remount", sys::ENOENT, || sys::cat(env.m("d/f")));
        },
    );
}

#[test]
fn k84_unlink_of_a_moved_copy_leaves_no_whiteout_at_its_new_name() {
    scenario("k84 moved", &[file("f", "lower"), dir("d")], |env| {
        env.ok("rename", || sys::rename(env.m("f"), env.m("d/g")));
        env.ok("unlink", || sys::unlink(env.m("d/g")));
        env.check("nothing at the new name", !sys::exists(env.u("d/g")));
        env.check("a whiteout at the old", is_whiteout(env.u("f")));
        env.ok("a new file", || sys::put(env.m("f"), "new"));
        env.ok("linked", || sys::link(env.m("f"), env.m("h")));
        env.ok("unlink", || sys::unlink(env.m("f")));
        env.check("a whiteout again", is_whiteout(env.u("f")));
        env.eq("the link lives", sys::text(env.m("h")), Ok("new".into()));
    });
}

#[test]
fn k84_create_and_remove_many_times() {
    scenario(
        "k84 again",
        &[file("f", "lower"), dir("d"), file("d/x", "x")],
        |env| {
            for i in 0..5 {
                env.ok("unlink", || sys::unlink(env.m("f")));
                env.ok("mkdir", || sys::mkdir(env.m("f"), 0o755));
                env.ok("fill", || sys::put(env.m("f/x"), "x"));
                env.fails("rmdir", sys::ENOTEMPTY, || sys::rmdir(env.m("f")));
                env.ok("empty", || sys::unlink(env.m("f/x")));
                env.ok("rmdir", || sys::rmdir(env.m("f")));
                env.ok("symlink", || sys::make_symlink("x", env.m("f")));
                env.ok("unlink", || sys::unlink(env.m("f")));
                env.ok("put", || sys::put(env.m("f"), format!("{i}")));
            }
            let _ = env.want("data", Ok("4".to_string()), || sys::text(env.m("f")));
        },
    );
}

#[test]
fn k85_rmdir_of_merged_directories() {
    let lower = [
        dir("low"),
        dir("full"),
        file("full/x", ""),
        dir("merged").mode(0o701).own(3, 4),
        file("merged/a", ""),
        dir("merged/b"),
        dir("top"),
        dir("top/mid"),
        dir("top/mid/leaf"),
        file("top/mid/leaf/x", ""),
    ];
    let upper = [
        dir("merged").mode(0o751).own(5, 6).xattr("user.a", "1"),
        file("merged/u", ""),
        dir("pure"),
    ];
    Scenario::new("k85").lower(&lower).upper(&upper).run(|env| {
        env.ok("lower only", || sys::rmdir(env.m("low")));
        env.check("a whiteout", is_whiteout(env.u("low")));
        env.fails("not empty", sys::ENOTEMPTY, || sys::rmdir(env.m("full")));
        env.fails("not empty", sys::ENOTEMPTY, || sys::rmdir(env.m("merged")));
        env.ok("unlink", || sys::unlink(env.m("merged/u")));
        env.fails("lower names left", sys::ENOTEMPTY, || sys::rmdir(env.m("merged")));
        env.ok("unlink", || sys::unlink(env.m("merged/a")));
        env.ok("rmdir", || sys::rmdir(env.m("merged/b")));
        env.ok("only whiteouts left", || sys::rmdir(env.m("merged")));
        env.check("a whiteout", is_whiteout(env.u("merged")));
        env.ok("pure", || sys::rmdir(env.m("pure")));
        env.check("no whiteout", !sys::exists(env.u("pure")));
        env.ok("unlink", || sys::unlink(env.m("top/mid/leaf/x")));
        for name in ["top/mid/leaf", "top/mid", "top"] {
            env.ok(format!("rmdir {name}"), || sys::rmdir(env.m(name)));
        }
        env.check("one whiteout for the whole", is_whiteout(env.u("top")));
        env.fails("missing", sys::ENOENT, || sys::rmdir(env.m("top")));
        env.fails("the root", sys::EBUSY, || sys::rmdir(env.m("")));
    });
}

#[test]
fn k85_rmdir_of_an_open_directory() {
    scenario("k85 open", &[dir("d"), file("d/x", "")], |env| {
        let fd = sys::open(env.m("d"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        env.ok("unlink", || sys::unlink(env.m("d/x")));
        env.ok("rmdir", || sys::rmdir(env.m("d")));
        let _ = env.call("stat of the open one", || sys::fstat(&fd).map(|st| st.st_mode));
        env.fails("listing of it", sys::ENOENT, || sys::rest_of(&fd));
        env.ok("made again", || sys::mkdir(env.m("d"), 0o700));
        env.ok("filled", || sys::put(env.m("d/new"), "new"));
        env.eq("listing", sys::names(env.m("d")), Ok(vec!["new".into()]));
    });
}

#[test]
fn k86_rmdir_with_stray_whiteouts() {
    // Where the lower has the name (whatever it is there), the kernel clears the stray whiteouts too.
    let lower = [file("o", ""), file("p", ""), dir("r"), file("r/low", "")];
    let upper = [
        dir("o").xattr(OPAQUE, "y"),
        whiteout("o/w"),
        dir("p"),
        whiteout("p/w1"),
        whiteout("p/w2"),
        dir("r").xattr(OPAQUE, "y"),
        whiteout("r/w"),
        dir("q"),
        whiteout("q/w"),
    ];
    let s = Scenario::new("k86")
        .lower(&lower)
        .upper(&upper)
        .path_differs("rmdir-stray-whiteouts", "q");
    // The parent's link count in the upper tells whether q is still there.
    s.field_differs("rmdir-stray-whiteouts", "nlink").run(|env| {
        for name in ["o", "p", "r"] {
            env.ok(format!("rmdir {name}"), || sys::rmdir(env.m(name)));
            env.check("a whiteout", is_whiteout(env.u(name)));
        }
        let _ = env.differs(
            "rmdir-stray-whiteouts",
            "rmdir q",
            "Err(ENOTEMPTY)",
            &["Ok(())"],
            || sys::rmdir(env.m("q")),
        );
    });
}

#[test]
fn k87_a_directory_made_again() {
    let lower = [dir("d"), file("d/old", ""), dir("d/sub"), file("d/sub/old", "")];
    scenario("k87", &lower, |env| {
        for name in ["d/old", "d/sub/old"] {
            env.ok("unlink", || sys::unlink(env.m(name)));
        }
        env.ok("rmdir", || sys::rmdir(env.m("d/sub")));
        env.ok("rmdir", || sys::rmdir(env.m("d")));
        env.ok("mkdir", || sys::mkdir(env.m("d"), 0o755));
        env.eq("opaque", sys::getxattr(env.u("d"), OPAQUE), Ok(b"y".to_vec()));
        env.eq("empty", sys::names(env.m("d")), Ok(vec![]));
        env.ok("mkdir below", || sys::mkdir(env.m("d/sub"), 0o755));
        env.fails("needs no mark", sys::ENODATA, || {
            sys::getxattr(env.u("d/sub"), OPAQUE)
        });
        env.eq("empty", sys::names(env.m("d/sub")), Ok(vec![]));
        env.ok("put", || sys::put(env.m("d/old"), "new"));
        env.ok("unlink", || sys::unlink(env.m("d/old")));
        env.check("no whiteout in a pure directory", !sys::exists(env.u("d/old")));
    });
}

#[test]
fn k88_tmpfile() {
    scenario("k88", &[dir("d"), file("d/gone", "x")], |env| {
        env.ok("unlink", || sys::unlink(env.m("d/gone")));
        let open = || sys::open_mode(env.m("d"), libc::O_TMPFILE | libc::O_RDWR, 0o640);
        let name_it = |name: &str| {
            let fd = open()?;
            let wrote = sys::write(&fd, b"text")?;
            sys::link_fd(&fd, env.m(name))?;
            let seen = (sys::text(env.m(name))?, sys::mode(env.m(name))?);
            // So that both sides end alike, whether or not the library knows the call.
            sys::unlink(env.m(name))?;
            Ok((wrote, seen))
        };
        for name in ["d/named", "d/gone"] {
            let right = r#"Ok((4, ("text", 416)))"#;
            let _ = env.differs("tmpfile", name, right, &[right, "Err(EOPNOTSUPP)"], || {
                name_it(name)
            });
        }
    });
}
