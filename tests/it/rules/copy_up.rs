//! K60 and K61: what copies up and what does not.

use crate::common::*;

/// Each step runs on a fresh pair of layers and must leave `copied` in the upper, and only that.
fn copies_up(name: &str, step: fn(&Env), copied: &[&str]) {
    let lower = [
        dir("d").mode(0o751).own(11, 12).xattr("user.dir", "d"),
        dir("d/e").mode(0o2775).own(13, 14),
        file("d/e/f", "some text")
            .mode(0o640)
            .own(15, 16)
            .xattr("user.note", "kept"),
        symlink("d/e/s", "f"),
        fifo("d/e/p"),
        chr("d/e/c", 1, 3),
        file("d/e/other", "not touched"),
        dir("d/e/sub"),
        file("d/e/sub/x", "x"),
    ];
    scenario(name, &lower, |env| {
        step(env);
        let mut want: Vec<_> = copied.iter().map(|p| env.u(p)).collect();
        want.sort();
        let found = sys::walk(&env.layers.upper);
        if found != want {
            env.fail(format!("{name}: the upper holds {found:?}"));
        }
    });
}

macro_rules! triggers {
    ($($test:ident: $step:expr => [$($path:literal),*];)*) => {
        $(#[test] fn $test() { copies_up(stringify!($test), $step, &[$($path),*]); })*
    };
}

const F: &str = "d/e/f";

triggers! {
    k60_open_for_writing: |env| {
        env.ok("open", || sys::open(env.m(F), libc::O_WRONLY).map(drop));
    } => ["d", "d/e", "d/e/f"];
    k60_open_read_write: |env| {
        env.ok("open", || sys::open(env.m(F), libc::O_RDWR).map(drop));
    } => ["d", "d/e", "d/e/f"];
    k60_open_append: |env| {
        env.ok("open", || sys::open(env.m(F), libc::O_WRONLY | libc::O_APPEND).map(drop));
    } => ["d", "d/e", "d/e/f"];
    k60_open_read_only_with_trunc: |env| {
        env.ok("open", || sys::open(env.m(F), libc::O_RDONLY | libc::O_TRUNC).map(drop));
        env.eq("size", sys::lstat(env.m(F)).map(|st| st.st_size), Ok(0));
    } => ["d", "d/e", "d/e/f"];
    k60_open_creat_of_an_existing_file: |env| {
        env.ok("open", || sys::open(env.m(F), libc::O_WRONLY | libc::O_CREAT).map(drop));
        env.eq("data", sys::text(env.m(F)), Ok("some text".into()));
    } => ["d", "d/e", "d/e/f"];
    k60_truncate_shorter: |env| {
        env.ok("truncate", || sys::truncate(env.m(F), 4));
        env.eq("data", sys::text(env.m(F)), Ok("some".into()));
    } => ["d", "d/e", "d/e/f"];
    k60_truncate_longer: |env| env.ok("truncate", || sys::truncate(env.m(F), 5000)) => ["d", "d/e", "d/e/f"];
    k60_truncate_to_the_same_size: |env| env.ok("truncate", || sys::truncate(env.m(F), 9)) => ["d", "d/e", "d/e/f"];
    k60_chmod_to_the_same_mode: |env| env.ok("chmod", || sys::chmod(env.m(F), 0o640)) => ["d", "d/e", "d/e/f"];
    k60_chmod_of_a_directory: |env| env.ok("chmod", || sys::chmod(env.m("d/e/sub"), 0o700)) => ["d", "d/e", "d/e/sub"];
    k60_chmod_of_a_fifo: |env| env.ok("chmod", || sys::chmod(env.m("d/e/p"), 0o600)) => ["d", "d/e", "d/e/p"];
    k60_chmod_of_a_device: |env| env.ok("chmod", || sys::chmod(env.m("d/e/c"), 0o600)) => ["d", "d/e", "d/e/c"];
    k60_chmod_through_a_symlink: |env| env.ok("chmod", || sys::chmod(env.m("d/e/s"), 0o600)) => ["d", "d/e", "d/e/f"];
    k60_fchmod: |env| {
        let fd = sys::open(env.m(F), libc::O_RDONLY).unwrap();
        env.ok("fchmod", || sys::fchmod(&fd, 0o600));
        env.eq("seen by the descriptor", sys::fstat(&fd).map(|st| st.st_mode & 0o777), Ok(0o600));
    } => ["d", "d/e", "d/e/f"];
    k60_chown: |env| env.ok("chown", || sys::chown(env.m(F), 20, 21)) => ["d", "d/e", "d/e/f"];
    k60_chown_of_a_symlink: |env| env.ok("chown", || sys::chown(env.m("d/e/s"), 20, 21)) => ["d", "d/e", "d/e/s"];
    k60_utimes: |env| env.ok("utimens", || sys::utimens(env.m(F), (1, 2), (3, 4))) => ["d", "d/e", "d/e/f"];
    k60_utimes_of_a_symlink: |env| {
        env.ok("utimens", || sys::utimens(env.m("d/e/s"), (1, 2), (3, 4)));
        env.eq("mtime", sys::mtime(env.m("d/e/s")), Ok((3, 4)));
    } => ["d", "d/e", "d/e/s"];
    k60_setxattr: |env| env.ok("setxattr", || sys::setxattr(env.m(F), "user.new", "x")) => ["d", "d/e", "d/e/f"];
    k60_removexattr: |env| env.ok("removexattr", || sys::removexattr(env.m(F), "user.note")) => ["d", "d/e", "d/e/f"];
    k60_link_source: |env| env.ok("link", || sys::link(env.m(F), env.m("new"))) => ["d", "d/e", "d/e/f", "new"];
    k60_link_of_a_symlink: |env| {
        env.ok("link", || sys::link(env.m("d/e/s"), env.m("new")));
        env.eq("target", sys::readlink(env.m("new")), Ok("f".into()));
    } => ["d", "d/e", "d/e/s", "new"];
    k60_rename_source: |env| {
        env.ok("rename", || sys::rename(env.m(F), env.m("new")));
    } => ["d", "d/e", "d/e/f", "new"];
    k60_create_copies_only_the_parents: |env| {
        env.ok("create", || sys::put(env.m("d/e/sub/new"), ""));
    } => ["d", "d/e", "d/e/sub", "d/e/sub/new"];
    k60_unlink_copies_only_the_parents: |env| env.ok("unlink", || sys::unlink(env.m(F))) => ["d", "d/e", "d/e/f"];
    k60_mmap_shared_written: |env| {
        let fd = sys::open(env.m(F), libc::O_RDWR).unwrap();
        let mut map = sys::mmap_shared(&fd, 9, true).unwrap();
        map.set(0, b"SOME");
        drop((map, fd));
        env.eq("data", sys::text(env.m(F)), Ok("SOME text".into()));
    } => ["d", "d/e", "d/e/f"];
}

#[test]
fn k60_chattr_copies_up() {
    scenario("k60 chattr", &[file("f", "x")], |env| {
        let fd = sys::open(env.m("f"), libc::O_RDONLY).unwrap();
        let _ = env.call("lsattr", || sys::getflags(&fd).map(|f| f & 0x70));
        let noatime = 0x80;
        let _ = env.differs(
            "chattr",
            "chattr +A",
            "Ok(())",
            &["Err(ENOTTY)", "Ok(())"],
            || {
                let flags = sys::getflags(&fd)?;
                sys::setflags(&fd, flags | noatime)?;
                // Equal trees afterwards.
                sys::setflags(&fd, flags)
            },
        );
        // With or without chattr the file is there.
        env.ok("chmod", || sys::chmod(env.m("f"), 0o600));
        env.eq("data", sys::text(env.m("f")), Ok("x".into()));
    });
}

#[test]
fn k61_calls_that_copy_nothing_up() {
    let lower = [
        file("f", "text").mode(0o666).xattr("user.a", "1"),
        dir("d"),
        file("d/x", "x"),
        symlink("s", "f"),
        fifo("p"),
        chr("null", 1, 3).mode(0o666),
        sock("sock"),
        dir("empty"),
    ];
    scenario("k61", &lower, |env| {
        let m = |name: &str| env.m(name);
        let after = |label: &str| env.untouched(label);
        let fd = sys::open(m("f"), libc::O_RDONLY).unwrap();
        env.eq("read", sys::read(&fd, 9), Ok(b"text".to_vec()));
        after("reading");
        env.ok("access", || sys::access(m("f"), libc::W_OK));
        env.ok("access of a directory", || sys::access(m("d"), libc::W_OK));
        after("access(W_OK)");
        env.ok("device", || sys::open(m("null"), libc::O_RDWR).map(|_| ()));
        env.ok("fifo", || {
            sys::open(m("p"), libc::O_RDWR | libc::O_NONBLOCK).map(|_| ())
        });
        env.fails("socket", sys::ENXIO, || {
            sys::open(m("sock"), libc::O_RDWR).map(|_| ())
        });
        after("opening special files for writing");
        for name in ["f", "d", "s", "p", "null"] {
            env.fails("O_EXCL", sys::EEXIST, || sys::create(m(name), 0o644));
            env.fails("mkdir", sys::EEXIST, || sys::mkdir(m(name), 0o755));
            env.fails("mknod", sys::EEXIST, || {
                sys::mknod(m(name), libc::S_IFIFO | 0o644, 0, 0)
            });
            env.fails("symlink", sys::EEXIST, || sys::make_symlink("x", m(name)));
            env.fails("link onto it", sys::EEXIST, || sys::link(m("f"), m(name)));
        }
        after("making what exists");
        env.fails("removexattr", sys::ENODATA, || {
            sys::removexattr(m("f"), "user.none")
        });
        env.fails("setxattr too big", sys::E2BIG, || {
            sys::setxattr(m("f"), "user.b", vec![b'x'; 65537])
        });
        after("xattr calls that fail");
        env.ok("O_PATH", || sys::open(m("f"), libc::O_PATH).map(|_| ()));
        env.ok("fsync", || sys::fsync(&fd));
        env.ok("fdatasync", || sys::fdatasync(&fd));
        env.ok("syncfs", || sys::syncfs(&fd));
        after("O_PATH and fsync");
        env.fails("unlink", sys::ENOENT, || sys::unlink(m("none")));
        env.fails("unlink of a directory", sys::EISDIR, || sys::unlink(m("d")));
        env.fails("rmdir of a file", sys::ENOTDIR, || sys::rmdir(m("f")));
        env.fails("rmdir", sys::ENOTEMPTY, || sys::rmdir(m("d")));
        env.fails("rename of nothing", sys::ENOENT, || {
            sys::rename(m("none"), m("new"))
        });
        after("removals that fail");
        env.fails("open a directory for writing", sys::EISDIR, || {
            sys::open(m("d"), libc::O_RDWR)
        });
        env.fails("truncate a directory", sys::EISDIR, || sys::truncate(m("d"), 0));
        env.fails("write by a read-only descriptor", sys::EBADF, || {
            sys::pwrite(&fd, b"x", 0)
        });
        env.fails("ftruncate", sys::EINVAL, || sys::ftruncate(&fd, 0));
        after("misuse");
        let _ = env.call("flock", || sys::flock(&fd, libc::LOCK_EX));
        let _ = env.call("stat", || sys::lstat(m("f")).map(|st| st.st_size));
        let _ = env.call("listxattr", || sys::listxattr(m("f")));
        let _ = env.call("statfs", || sys::statfs(m("f")).map(|_| ()));
        let _ = env.call("lseek", || sys::lseek(&fd, 0, libc::SEEK_DATA));
        let map = sys::mmap_shared(&fd, 4, false).unwrap();
        env.eq("mapped", map.bytes(), b"text".to_vec());
        after("locks, stat and mmap");
    });
}

#[test]
fn k61_refused_calls_of_others() {
    let lower = [
        file("f", "x").mode(0o644),
        dir("d").mode(0o755),
        file("d/x", ""),
        dir("closed").mode(0o700),
    ];
    scenario("k61 refused", &lower, |env| {
        let (f, d, x, n, c) = (
            env.m("f"),
            env.m("d"),
            env.m("d/x"),
            env.m("d/n"),
            env.m("closed/n"),
        );
        let (p, h) = (f.clone(), env.m("h"));
        type Step<'a> = (&'a str, Errno, Box<dyn FnOnce() -> R + Send + 'a>);
        let steps: Vec<Step<'_>> = vec![
            ("chmod", sys::EPERM, Box::new(|| sys::chmod(&f, 0o600))),
            ("chown", sys::EPERM, Box::new(|| sys::chown(&f, 1001, 1001))),
            (
                "open",
                sys::EACCES,
                Box::new(|| sys::open(&f, libc::O_WRONLY).map(|_| ())),
            ),
            ("truncate", sys::EACCES, Box::new(|| sys::truncate(&f, 0))),
            (
                "utimens",
                sys::EPERM,
                Box::new(|| sys::utimens(&f, (1, 1), (1, 1))),
            ),
            (
                "setxattr",
                sys::EACCES,
                Box::new(|| sys::setxattr(&f, "user.a", "b")),
            ),
            (
                "trusted",
                sys::EPERM,
                Box::new(|| sys::setxattr(&f, "trusted.a", "b")),
            ),
            ("unlink", sys::EACCES, Box::new(|| sys::unlink(&x))),
            (
                "create",
                sys::EACCES,
                Box::new(|| sys::create(&n, 0o644).map(|_| ())),
            ),
            ("mkdir", sys::EACCES, Box::new(|| sys::mkdir(&n, 0o755))),
            ("symlink", sys::EACCES, Box::new(|| sys::make_symlink("x", &n))),
            ("rename", sys::EACCES, Box::new(|| sys::rename(&x, &n))),
            ("rmdir", sys::EACCES, Box::new(|| sys::rmdir(&d))),
            (
                "stat in a closed directory",
                sys::EACCES,
                Box::new(|| sys::lstat(&c).map(|_| ())),
            ),
            ("link", sys::EPERM, Box::new(|| sys::link(&p, &h))),
        ];
        for (label, errno, step) in steps {
            let answer = as_user(who::ANN, step);
            if label == "link" {
                // EPERM or EACCES by the machine's fs.protected_hardlinks; equal on both sides.
                env.note(label, &answer);
                env.check("link fails", answer.is_err());
            } else {
                env.fails(label, errno, || answer);
            }
        }
        env.untouched("refused calls (K132)");
    });
}
