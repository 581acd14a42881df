//! K62 to K72: how a copy comes to be, and what it keeps.

use std::path::Path;

use crate::common::*;

#[test]
fn k62_ancestors_are_copied_with_all_they_have() {
    let lower = [
        dir("a")
            .mode(0o1777)
            .own(1, 2)
            .mtime(-1, 5)
            .xattr("user.a", "1")
            .xattr("trusted.a", "2"),
        dir("a/b")
            .mode(0o2750)
            .own(3, 4)
            .mtime(1 << 33, 999_999_999)
            .xattr("user.b", "1"),
        dir("a/b/c").mode(0).own(5, 6),
        file("a/b/c/f", "f"),
    ];
    scenario("k62", &lower, |env| {
        env.ok("copy up", || sys::chmod(env.m("a/b/c/f"), 0o600));
        for name in ["a", "a/b", "a/b/c"] {
            let (up, low) = (sys::lstat(env.u(name)).unwrap(), sys::lstat(env.l(name)).unwrap());
            env.eq(format!("mode of {name}"), up.st_mode, low.st_mode);
            env.eq(
                format!("owner of {name}"),
                (up.st_uid, up.st_gid),
                (low.st_uid, low.st_gid),
            );
            let mtimes = (sys::mtime(env.u(name)), sys::mtime(env.l(name)));
            env.eq(format!("mtime of {name}"), mtimes.0, mtimes.1);
        }
        env.eq("xattr", sys::getxattr(env.u("a"), "trusted.a"), Ok(b"2".to_vec()));
        env.eq("xattr", sys::getxattr(env.u("a/b"), "user.b"), Ok(b"1".to_vec()));
    });
}

/// A lower with a file of 4 MiB, and an upper on a file system of 1 MiB.
fn little_room() -> Layers {
    let lower = [dir("d"), file("d/big", vec![b'x'; 4 << 20]), file("d/small", "s")];
    let mut layers = Layers::new().with_lower(&lower);
    let small = layers.base().join("small");
    sys::mkdir(&small, 0o755).unwrap();
    sys::mount("t", &small, "tmpfs", 0, "size=1m").unwrap();
    layers.upper = small.join("u");
    layers.work = small.join("w");
    sys::mkdir(&layers.upper, 0o755).unwrap();
    sys::mkdir(&layers.work, 0o755).unwrap();
    layers
}

#[test]
fn k64_cutting_what_does_not_fit() {
    if !need_root("k64 cutting") {
        return;
    }
    known::difference("cut-to-fit");
    for fs in Fs::sides() {
        let layers = little_room();
        let _mounted = layers.mount(fs, &[]);
        let big = layers.merged.join("d/big");
        let whole = if fs == Fs::Kernel {
            Err(sys::ENOSPC)
        } else {
            Ok(())
        };
        assert_eq!(sys::truncate(&big, 4096), whole, "{}", fs.name());
        let size = if fs == Fs::Kernel { 4 << 20 } else { 4096 };
        assert_eq!(sys::lstat(&big).map(|st| st.st_size), Ok(size), "{}", fs.name());
    }
}

#[test]
fn k63_no_room_leaves_nothing() {
    if !need_root("k63") {
        return;
    }
    for fs in Fs::sides() {
        let layers = little_room();
        let _mounted = layers.mount(fs, &[]);
        let big = layers.merged.join("d/big");
        assert_eq!(sys::append(&big, "y"), Err(sys::ENOSPC), "{}", fs.name());
        assert_eq!(sys::chmod(&big, 0o600), Err(sys::ENOSPC), "{}", fs.name());
        let left: Vec<_> = sys::walk(&layers.upper)
            .into_iter()
            .filter(|p| !p.ends_with("d"))
            .collect();
        assert!(left.is_empty(), "{}: {left:?}", fs.name());
        let left = layers.leftovers();
        assert!(left.is_empty(), "{}: {left:?}", fs.name());
        assert_eq!(sys::cat(&big).map(|d| d.len()), Ok(4 << 20));
        assert_eq!(sys::append(layers.merged.join("d/small"), "t"), Ok(()));
        assert_eq!(sys::put(&big, "short now"), Ok(()), "O_TRUNC copies no data");
    }
}

fn blocks(path: impl AsRef<Path>) -> i64 {
    sys::lstat(path).unwrap().st_blocks
}

#[test]
fn k64_sparse_files_stay_sparse() {
    let size = 16 << 20;
    let lower = [
        sparse(
            "holes",
            size,
            &[(0, b"head"), (10 << 20, b"middle"), (size - 4, b"tail")],
        ),
        sparse("all", size, &[]),
        sparse("end", size, &[(0, b"x")]),
        sparse("odd", 12_345_678, &[(5_000_001, b"odd")]),
    ];
    scenario("k64", &lower, |env| {
        for name in ["holes", "all", "end", "odd"] {
            let before = sys::cat(env.m(name)).unwrap();
            env.ok("copy up", || sys::chmod(env.m(name), 0o600));
            env.check(
                format!("{name}: equal data"),
                sys::cat(env.m(name)).unwrap() == before,
            );
            let used = blocks(env.u(name)) * 512;
            if used > 5 << 20 {
                env.fail(format!("{name}: {used} bytes on disk"));
            }
        }
        let fd = sys::open(env.m("holes"), libc::O_RDONLY).unwrap();
        env.eq("the first hole", sys::lseek(&fd, 0, libc::SEEK_DATA), Ok(0));
        let hole = sys::lseek(&fd, 0, libc::SEEK_HOLE).unwrap();
        env.check("SEEK_HOLE", (4..=1 << 20).contains(&hole));
        let data = sys::lseek(&fd, 5 << 20, libc::SEEK_DATA).unwrap();
        env.check("SEEK_DATA", data > 9 << 20 && data <= 10 << 20);
        env.fails("SEEK_DATA at the end", sys::ENXIO, || {
            sys::lseek(&fd, size as i64, libc::SEEK_DATA)
        });
    });
}

#[test]
fn k64_large_file_and_sizes_around_the_step() {
    let sizes = [
        0usize,
        1,
        4095,
        4096,
        4097,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        5_000_011,
    ];
    let lower: Vec<_> = sizes
        .iter()
        .map(|n| {
            file(
                format!("f{n}"),
                (0..*n).map(|i| (i * 7 + i / 251) as u8).collect::<Vec<_>>(),
            )
        })
        .collect();
    scenario("k64 sizes", &lower, |env| {
        for n in sizes {
            let name = format!("f{n}");
            env.ok("append", || sys::append(env.m(&name), "+"));
            let mut want = sys::cat(env.l(&name)).unwrap();
            want.push(b'+');
            env.check(format!("{n} bytes"), sys::cat(env.m(&name)).unwrap() == want);
        }
    });
}

#[test]
fn k65_everything_is_kept() {
    let acl = acl::of(&[
        (acl::USER_OBJ, 0, 6),
        (acl::USER, 1001, 4),
        (acl::GROUP_OBJ, 0, 4),
        (acl::MASK, 0, 4),
        (acl::OTHER, 0, 0),
    ]);
    let caps = [1u8, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let lower = [
        file("suid", "x").mode(0o4755).own(7, 8).mtime(-1_000_000_000, 1),
        file("sgid", "x")
            .mode(0o2755)
            .own(7, 8)
            .mtime(4_000_000_000, 999_999_999),
        file("both", "x").mode(0o6711).own(7, 8).mtime(-1, 999_999_999),
        file("sticky", "x").mode(0o1644).own(9, 9),
        file("acl", "x")
            .mode(0o640)
            .own(7, 8)
            .xattr("system.posix_acl_access", &acl),
        file("cap", "x").mode(0o755).xattr("security.capability", caps),
        file("xattrs", "x")
            .xattr("user.a", "")
            .xattr("user.b", vec![b'v'; 2000])
            .xattr("trusted.t", "t"),
        file("escaped", "x").xattr("trusted.overlay.overlay.opaque", "y"),
        file("secure", "x").xattr("security.plyfs-test", "s"),
        symlink("link", "nowhere").own(7, 8).mtime(12, 34),
        symlink("long", "l".repeat(4000)).xattr("trusted.t", "t"),
        fifo("fifo").mode(0o604).own(7, 8).mtime(56, 78),
        chr("null", 1, 3).mode(0o622).own(7, 8).mtime(90, 12),
        chr("big", 4095, 65535).mode(0o622).xattr("trusted.t", "t"),
        sock("sock").mode(0o711).own(7, 8),
        dir("dir")
            .mode(0o3770)
            .own(7, 8)
            .mtime(-2_000_000_000, 5)
            .xattr("user.d", "d"),
    ];
    let names = [
        "suid", "sgid", "both", "sticky", "acl", "cap", "xattrs", "escaped", "secure", "link", "long",
        "fifo", "null", "big", "sock", "dir",
    ];
    scenario("k65", &lower, |env| {
        let before = snapshot(&env.layers.merged);
        for name in names {
            // A link copies up without changing anything but the count (and ctime); a directory needs chmod.
            if name == "dir" {
                env.ok("copy up", || sys::chmod(env.m(name), 0o3770));
            } else {
                env.ok(format!("copy {name} up"), || sys::link(env.m(name), env.m("tmp")));
                env.ok("unlink", || sys::unlink(env.m("tmp")));
            }
            env.check(format!("{name} is in the upper"), sys::exists(env.u(name)));
        }
        let after = snapshot(&env.layers.merged).without(&["nlink"]);
        let lines = before.without(&["nlink"]).differences(&after, "lower", "copy");
        let lines: Vec<_> = lines.into_iter().filter(|l| !l.starts_with(".: ")).collect();
        env.eq("differences", lines, vec![]);
    });
}

#[test]
fn k65_atime_is_kept() {
    let touch = |layers: &Layers| {
        sys::utimens(layers.lower.join("f"), (4_102_444_800, 7), (1000, 8)).unwrap();
        sys::utimens(layers.lower.join("d"), (4_102_444_801, 9), (2000, 10)).unwrap();
    };
    Scenario::new("k65 atime")
        .lower(&[file("f", "x"), dir("d"), file("d/x", "")])
        .prepare(touch)
        .run(|env| {
            env.ok("copy f up", || sys::chmod(env.m("f"), 0o600));
            env.ok("copy d up by its child", || sys::chmod(env.m("d/x"), 0o600));
            for (name, atime, mtime) in [
                ("f", (4_102_444_800, 7), (1000, 8)),
                ("d", (4_102_444_801, 9), (2000, 10)),
            ] {
                let st = sys::lstat(env.m(name)).unwrap();
                env.eq(format!("{name}: atime"), (st.st_atime, st.st_atime_nsec), atime);
                env.eq(format!("{name}: mtime"), (st.st_mtime, st.st_mtime_nsec), mtime);
            }
        });
}

#[test]
fn k65_times_set_through_the_view() {
    scenario(
        "k65 times",
        &[file("f", "x"), dir("d"), symlink("s", "f")],
        |env| {
            for name in ["f", "d", "s", "n"] {
                let _ = sys::create(env.m("n"), 0o644);
                for time in [
                    (0, 0),
                    (-1, 0),
                    (-1, 999_999_999),
                    (-2_147_483_647, 1),
                    (2_147_483_648, 2),
                    (15_032_385_534, 3),
                ] {
                    env.ok("utimens", || sys::utimens(env.m(name), time, time));
                    env.eq(format!("{name} {time:?}"), sys::mtime(env.m(name)), Ok(time));
                    let st = sys::lstat(env.m(name)).unwrap();
                    env.eq(
                        format!("{name} atime {time:?}"),
                        (st.st_atime, st.st_atime_nsec),
                        time,
                    );
                }
            }
        },
    );
}

#[test]
fn k65_ctime_moves_on_and_does_not_go_back() {
    scenario("k65 ctime", &[file("f", "x")], |env| {
        let ctime = || {
            sys::lstat(env.m("f"))
                .map(|st| (st.st_ctime, st.st_ctime_nsec))
                .unwrap()
        };
        let first = ctime();
        std::thread::sleep(std::time::Duration::from_millis(20));
        env.ok("chmod", || sys::chmod(env.m("f"), 0o600));
        let second = ctime();
        env.check("later", second > first);
        std::thread::sleep(std::time::Duration::from_millis(20));
        env.ok("link", || sys::link(env.m("f"), env.m("g")));
        env.check("a link changes it", ctime() > second);
    });
}

#[test]
fn k68_flags_on_a_lower_file_do_not_lose_it() {
    if !need_root("k68") {
        return;
    }
    const APPEND: u32 = 0x20;
    for fs in Fs::sides() {
        let layers = Layers::new().with_lower(&[file("a", "text")]);
        let fd = sys::open(layers.lower.join("a"), libc::O_RDONLY).unwrap();
        let Ok(plain) = sys::getflags(&fd) else {
            return skip("k68", "no chattr on this file system");
        };
        sys::setflags(&fd, plain | APPEND).unwrap();
        let mounted = layers.mount(fs, &[]);
        let copied = sys::append(layers.merged.join("a"), "+");
        let seen = sys::text(layers.merged.join("a"));
        mounted.umount();
        sys::setflags(&fd, plain).unwrap();
        assert_eq!(copied, Ok(()), "{}", fs.name());
        assert_eq!(seen, Ok("text+".into()), "{}", fs.name());
        assert_eq!(sys::text(layers.lower.join("a")), Ok("text".into()));
    }
}

#[test]
fn k70_many_callers_one_copy_up() {
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 253) as u8).collect();
    scenario("k70", &[dir("d"), dir("d/e"), file("d/e/f", &data)], |env| {
        let path = env.m("d/e/f");
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8u8)
                .map(|i| {
                    let path = &path;
                    scope.spawn(move || {
                        let fd = sys::open(path, libc::O_RDWR)?;
                        sys::pwrite(&fd, &[i; 100], i64::from(i) * 1000)
                    })
                })
                .collect();
            for writer in writers {
                env.eq("write", writer.join().unwrap(), Ok(100));
            }
        });
        let mut want = data.clone();
        for i in 0..8 {
            want[i * 1000..i * 1000 + 100].fill(i as u8);
        }
        env.check("all writes are there", sys::cat(&path).unwrap() == want);
    });
}

#[test]
fn k70_copy_up_races_with_rename() {
    let data = vec![b'x'; 2_000_000];
    scenario("k70 rename", &[dir("a"), dir("b"), file("a/f", &data)], |env| {
        let (from, to) = (env.m("a/f"), env.m("b/g"));
        std::thread::scope(|scope| {
            let opener =
                scope.spawn(|| sys::open(&from, libc::O_RDWR).and_then(|fd| sys::pwrite(&fd, b"new", 0)));
            let mover = scope.spawn(|| sys::rename(&from, &to));
            let opened = opener.join().unwrap();
            env.check("opened, or too late", matches!(opened, Ok(3) | Err(sys::ENOENT)));
            env.ok("rename", || mover.join().unwrap());
        });
        env.fails("the old name", sys::ENOENT, || {
            sys::lstat(env.m("a/f")).map(|_| ())
        });
        let got = sys::cat(env.m("b/g")).unwrap();
        env.eq("size", got.len(), data.len());
        env.check("old data or new", got[..3] == *b"new" || got[..3] == *b"xxx");
        // Equal trees on both sides whatever the race did.
        env.ok("settle", || sys::put(env.m("b/g"), "settled"));
    });
}

#[test]
fn k72_chmod_of_a_deleted_lower_file() {
    scenario("k72", &[file("f", "text")], |env| {
        let fd = sys::open(env.m("f"), libc::O_RDONLY).unwrap();
        env.ok("unlink", || sys::unlink(env.m("f")));
        let _ = env.differs(
            "chmod-deleted-lower",
            "fchmod",
            "Err(EEXIST)",
            &["Ok(())", "Err(ESTALE)"],
            || sys::fchmod(&fd, 0o600),
        );
        env.eq("read", sys::pread(&fd, 9, 0), Ok(b"text".to_vec()));
        env.fails("the name is not revived", sys::ENOENT, || {
            sys::lstat(env.m("f")).map(|_| ())
        });
        env.remount_after(fd);
        env.fails("nor by a remount", sys::ENOENT, || {
            sys::lstat(env.m("f")).map(|_| ())
        });
    });
}
