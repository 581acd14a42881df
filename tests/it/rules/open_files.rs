//! K110 to K114 and K116: open files, mappings and locks across copy-up, and files that lost their name.

use std::process::Command;

use crate::common::scenario::once_closed;
use crate::common::*;

const RO: i32 = libc::O_RDONLY;
const RW: i32 = libc::O_RDWR;

#[test]
fn k110_a_descriptor_from_before_copy_up_sees_the_new_data() {
    scenario(
        "k110",
        &[
            file("f", "old data"),
            file("g", "old data"),
            file("h", "old data"),
        ],
        |env| {
            let fds: Vec<_> = ["f", "g", "h"]
                .iter()
                .map(|n| sys::open(env.m(n), RO).unwrap())
                .collect();
            env.eq("read first", sys::pread(&fds[0], 99, 0), Ok(b"old data".to_vec()));
            env.ok("rewrite", || sys::put(env.m("f"), "new"));
            env.eq("f", sys::pread(&fds[0], 99, 0), Ok(b"new".to_vec()));
            env.ok("append", || sys::append(env.m("g"), " and more"));
            env.eq(
                "g, never read before",
                sys::read(&fds[1], 99),
                Ok(b"old data and more".to_vec()),
            );
            env.eq("size", sys::fstat(&fds[1]).map(|st| st.st_size), Ok(17));
            let fd = sys::open(env.m("h"), RW).unwrap();
            env.eq("write", sys::pwrite(&fd, b"NEW", 0), Ok(3));
            env.eq("h", sys::pread(&fds[2], 99, 0), Ok(b"NEW data".to_vec()));
            env.ok("truncate", || sys::ftruncate(&fd, 2));
            env.eq("h cut", sys::pread(&fds[2], 99, 0), Ok(b"NE".to_vec()));
            env.ok("grow", || sys::truncate(env.m("h"), 4));
            env.eq("h grown", sys::pread(&fds[2], 99, 0), Ok(b"NE\0\0".to_vec()));
            env.ok("chmod", || sys::chmod(env.m("h"), 0o600));
            env.eq(
                "mode",
                sys::fstat(&fds[2]).map(|st| st.st_mode & 0o777),
                Ok(0o600),
            );
        },
    );
}

#[test]
fn k111_mappings_and_copy_up() {
    scenario("k111", &[file("f", "old data")], |env| {
        let fd = sys::open(env.m("f"), RO).unwrap();
        let map = sys::mmap_shared(&fd, 8, false).unwrap();
        env.eq("before", map.bytes(), b"old data".to_vec());
        let writer = sys::open(env.m("f"), RW).unwrap();
        env.eq("write", sys::pwrite(&writer, b"NEW", 0), Ok(3));
        let (old, new) = (r#"Ok("old data")"#, r#"Ok("NEW data")"#);
        let _ = env.differs("mapping-before-copy-up", "the mapping", old, &[old, new], || {
            Ok(String::from_utf8_lossy(&map.bytes()).into_owned())
        });
        let fresh = sys::mmap_shared(&writer, 8, false).unwrap();
        env.eq("a new mapping", fresh.bytes(), b"NEW data".to_vec());
        env.eq("the descriptor", sys::pread(&fd, 9, 0), Ok(b"NEW data".to_vec()));
    });
}

#[test]
fn k111_shared_mappings_that_write() {
    let big = vec![b'.'; 100_000];
    scenario("k111 write", &[file("low", &big), file("other", &big)], |env| {
        env.ok("new", || sys::put(env.m("new"), &big));
        for name in ["low", "new"] {
            let fd = sys::open(env.m(name), RW).unwrap();
            let reader = sys::open(env.m(name), RO).unwrap();
            let mut map = sys::mmap_shared(&fd, big.len(), true).unwrap();
            map.set(5000, b"mapped");
            env.ok("msync", || map.sync());
            env.eq("read", sys::pread(&reader, 6, 5000), Ok(b"mapped".to_vec()));
            env.eq("write", sys::pwrite(&fd, b"written", 5002), Ok(7));
            env.eq(
                "seen in the mapping",
                map.bytes()[5000..5009].to_vec(),
                b"mawritten".to_vec(),
            );
            map.set(99_990, b"end");
            drop(fd);
            map.set(0, b"start");
            drop(map);
            env.check("start", sys::cat(env.m(name)).unwrap().starts_with(b"start"));
        }
        env.remount();
        for name in ["low", "new"] {
            let data = sys::cat(env.m(name)).unwrap();
            env.check("start", data.starts_with(b"start"));
            env.eq("middle", data[5000..5009].to_vec(), b"mawritten".to_vec());
            env.eq("end", data[99_990..99_993].to_vec(), b"end".to_vec());
        }
    });
}

#[test]
fn k112_locks_hold_across_copy_up() {
    scenario("k112", &[file("f", "x"), file("g", "x"), dir("d")], |env| {
        for name in ["f", "g"] {
            let one = sys::open(env.m(name), RO).unwrap();
            let two = sys::open(env.m(name), RO).unwrap();
            env.ok("flock", || sys::flock(&one, libc::LOCK_EX));
            env.fails("second", sys::EAGAIN, || sys::flock(&two, libc::LOCK_EX));
            env.ok("copy up", || sys::append(env.m(name), "y"));
            let three = sys::open(env.m(name), RW).unwrap();
            env.fails("opened before", sys::EAGAIN, || sys::flock(&two, libc::LOCK_SH));
            env.fails("opened after", sys::EAGAIN, || sys::flock(&three, libc::LOCK_EX));
            env.ok("unlock", || sys::flock(&one, libc::LOCK_UN));
            env.ok("third", || sys::flock(&three, libc::LOCK_EX));
            env.fails("first", sys::EAGAIN, || sys::flock(&one, libc::LOCK_SH));
            drop(three);
            env.ok_once_closed("freed by close", || sys::flock(&one, libc::LOCK_EX));
        }
        let (one, two) = (
            sys::open(env.m("d"), RO).unwrap(),
            sys::open(env.m("d"), RO).unwrap(),
        );
        env.ok("a directory", || sys::flock(&one, libc::LOCK_EX));
        env.ok("copied up", || sys::put(env.m("d/n"), ""));
        env.fails("second", sys::EAGAIN, || sys::flock(&two, libc::LOCK_EX));
    });
}

#[test]
fn k112_record_locks() {
    scenario(
        "k112 records",
        &[file("f", "x"), hard("f2", "f"), file("g", "x")],
        |env| {
            for name in ["f", "g"] {
                let one = sys::open(env.m(name), RW).unwrap();
                let two = sys::open(env.m(name), RW).unwrap();
                env.ok("ofd lock", || sys::ofd_setlk(&one, libc::F_WRLCK));
                env.fails("ofd lock of another", sys::EAGAIN, || {
                    sys::ofd_setlk(&two, libc::F_WRLCK)
                });
                env.fails("posix lock", sys::EAGAIN, || sys::setlk(&two, libc::F_RDLCK));
                env.ok("unlock", || sys::ofd_setlk(&one, libc::F_UNLCK));
                env.ok("posix lock", || sys::setlk(&one, libc::F_WRLCK));
                env.fails("which an ofd lock respects", sys::EAGAIN, || {
                    sys::ofd_setlk(&two, libc::F_WRLCK)
                });
                env.ok("unlock", || sys::setlk(&one, libc::F_UNLCK));
            }
            // Before and after copy-up.
            let reader = sys::open(env.m("f2"), RO).unwrap();
            env.ok("shared", || sys::ofd_setlk(&reader, libc::F_RDLCK));
            let writer = sys::open(env.m("f2"), RW).unwrap();
            env.fails("exclusive", sys::EAGAIN, || {
                sys::ofd_setlk(&writer, libc::F_WRLCK)
            });
            env.ok("write all the same", || sys::pwrite(&writer, b"y", 0).map(|_| ()));
            drop(reader);
            env.ok_once_closed("exclusive", || sys::ofd_setlk(&writer, libc::F_WRLCK));
        },
    );
}

/// The kernel asks the file system to open before it looks whether the file is being run, so an open that truncates
/// must be refused by who would truncate.
#[test]
fn k113_a_running_program_is_not_truncated_by_an_open() {
    if !need_root("k113") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new();
        for name in ["low", "up"] {
            std::fs::copy("/bin/sleep", layers.lower.join(name)).unwrap();
            sys::chmod(layers.lower.join(name), 0o755).unwrap();
        }
        let whole = sys::lstat("/bin/sleep").unwrap().st_size;
        let mounted = layers.mount(fs, &[]);
        let merged = |name: &str| layers.merged.join(name);
        sys::chmod(merged("up"), 0o755).unwrap();
        for name in ["low", "up"] {
            let mut child = once_closed(|| Command::new(merged(name)).arg("60").spawn().map_err(Errno::from))
                .expect("sleep");
            while std::fs::read_link(format!("/proc/{}/exe", child.id())).ok() != Some(merged(name)) {
                std::thread::yield_now();
            }
            let cut = [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR]
                .map(|access| sys::open(merged(name), access | libc::O_TRUNC).map(drop));
            let lives = child.try_wait().unwrap().is_none();
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(cut, [Err(sys::ETXTBSY); 3], "{fs:?} {name}");
            assert!(lives, "{fs:?} {name}");
            // The kernel's overlay copies the lower's file up, cut to nothing, and says ETXTBSY then.
            if (fs, name) != (Fs::Kernel, "low") {
                assert_eq!(sys::lstat(merged(name)).unwrap().st_size, whole, "{fs:?} {name}");
            }
            // What runs no more may be cut.
            let cut = once_closed(|| sys::open(merged(name), libc::O_RDONLY | libc::O_TRUNC).map(drop));
            assert_eq!(cut, Ok(()), "{fs:?} {name}");
            assert_eq!(sys::lstat(merged(name)).unwrap().st_size, 0, "{fs:?} {name}");
        }
        drop(mounted);
    }
}

#[test]
fn k114_reading_changes_no_time_of_the_lower() {
    // No scenario, since its own look at the lower reads the files.
    if !need_root("k114") {
        return;
    }
    for fs in Fs::sides() {
        let layers =
            Layers::new().with_lower(&[file("f", "x"), dir("d"), file("d/x", ""), symlink("s", "f")]);
        // An access time before the modification time is what a read would renew (relatime).
        let old = ((1000, 5), (2000, 6));
        for name in ["f", "s", "d"] {
            sys::utimens(layers.lower.join(name), old.0, old.1).unwrap();
        }
        let atime = |path| sys::lstat(path).map(|st| (st.st_atime, st.st_atime_nsec));
        let mounted = layers.mount(fs, &[]);
        assert_eq!(sys::text(layers.merged.join("s")), Ok("x".into()));
        assert_eq!(sys::readlink(layers.merged.join("s")), Ok("f".into()));
        assert_eq!(sys::names(layers.merged.join("d")), Ok(vec!["x".into()]));
        assert_eq!(
            atime(layers.merged.join("f")),
            Ok(old.0),
            "{}: as shown",
            fs.name()
        );
        mounted.umount();
        for name in ["f", "s", "d"] {
            assert_eq!(atime(layers.lower.join(name)), Ok(old.0), "{}: {name}", fs.name());
        }
    }
}

/// Everything one can do to a file through descriptors, once its name is gone.
fn nameless(name: &str, remove: impl Fn(&Env)) {
    let lower = [file("f", "lower data"), file("other", "other"), dir("d")];
    scenario(name, &lower, |env| {
        let ro = sys::open(env.m("f"), RO).unwrap();
        let rw = sys::open(env.m("f"), RW).unwrap();
        remove(env);
        env.eq("read", sys::pread(&ro, 99, 0), Ok(b"lower data".to_vec()));
        env.eq("write", sys::pwrite(&rw, b"UPPER", 0), Ok(5));
        env.eq("read it back", sys::pread(&ro, 99, 0), Ok(b"UPPER data".to_vec()));
        env.eq("no name", sys::fstat(&ro).map(|st| st.st_nlink), Ok(0));
        env.ok("ftruncate", || sys::ftruncate(&rw, 3));
        env.eq("size", sys::fstat(&ro).map(|st| st.st_size), Ok(3));
        env.ok("fchmod", || sys::fchmod(&rw, 0o600));
        env.ok("fchown", || sys::fchown(&rw, 5, 6));
        let st = sys::fstat(&ro).unwrap();
        env.eq(
            "attributes",
            (st.st_mode & 0o777, st.st_uid, st.st_gid),
            (0o600, 5, 6),
        );
        env.ok("fsync", || sys::fsync(&rw));
        env.ok("fdatasync", || sys::fdatasync(&ro));
        env.ok("fallocate", || sys::fallocate(&rw, 0, 0, 9000));
        let mut map = sys::mmap_shared(&rw, 9000, true).unwrap();
        map.set(8000, b"map");
        env.ok("msync", || map.sync());
        env.eq("mapped", sys::pread(&ro, 3, 8000), Ok(b"map".to_vec()));
        let at = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&rw));
        env.eq(
            "opened again through /proc",
            sys::open(&at, RW).and_then(|fd| sys::pread(&fd, 3, 0)),
            Ok(b"UPP".to_vec()),
        );
        let _ = env.call("a new name", || sys::link_fd(&rw, env.m("revived")));
        env.check(
            "the name is not revived",
            !sys::exists(env.m("revived")) || sys::nlink(env.m("revived")) == Ok(1),
        );
    });
}

#[test]
fn k116_unlinked() {
    nameless("unlinked", |env| env.ok("unlink", || sys::unlink(env.m("f"))));
}

#[test]
fn k116_renamed_over() {
    nameless("renamed over", |env| {
        env.ok("rename", || sys::rename(env.m("other"), env.m("f")));
        let _ = env.want("the new one", Ok("other".to_string()), || sys::text(env.m("f")));
    });
}

#[test]
fn k116_unlinked_and_made_again() {
    nameless("made again", |env| {
        env.ok("unlink", || sys::unlink(env.m("f")));
        env.ok("put", || sys::put(env.m("f"), "another"));
        let _ = env.want("the new one", Ok("another".to_string()), || sys::text(env.m("f")));
    });
}

#[test]
fn k116_moved_and_then_unlinked() {
    nameless("moved and unlinked", |env| {
        env.ok("rename", || sys::rename(env.m("f"), env.m("d/g")));
        env.ok("unlink", || sys::unlink(env.m("d/g")));
        env.ok("rmdir", || sys::rmdir(env.m("d")));
    });
}

#[test]
fn k116_a_lower_file_open_for_reading_only() {
    scenario(
        "k116 lower",
        &[
            file("f", "lower data"),
            file("g", "lower data"),
            file("over", "new"),
        ],
        |env| {
            let (f, g) = (
                sys::open(env.m("f"), RO).unwrap(),
                sys::open(env.m("g"), RO).unwrap(),
            );
            env.ok("unlink", || sys::unlink(env.m("f")));
            env.ok("rename over", || sys::rename(env.m("over"), env.m("g")));
            for fd in [&f, &g] {
                env.eq("read", sys::pread(fd, 99, 0), Ok(b"lower data".to_vec()));
                env.ok("fsync", || sys::fsync(fd));
                env.eq("size", sys::fstat(fd).map(|st| st.st_size), Ok(10));
                let map = sys::mmap_shared(fd, 10, false).unwrap();
                env.eq("mapped", map.bytes(), b"lower data".to_vec());
            }
            let _ = env.want("the new g", Ok("new".to_string()), || sys::text(env.m("g")));
        },
    );
}

#[test]
fn k116_open_many_and_remove_all() {
    let lower: Vec<_> = (0..300)
        .map(|i| file(format!("f{i}"), format!("data {i}")))
        .collect();
    scenario("k116 many", &lower, |env| {
        let fds: Vec<_> = (0..300)
            .map(|i| sys::open(env.m(format!("f{i}")), if i % 2 == 0 { RW } else { RO }).unwrap())
            .collect();
        for i in 0..300 {
            env.ok("unlink", || sys::unlink(env.m(format!("f{i}"))));
        }
        for (i, fd) in fds.iter().enumerate() {
            env.eq(
                "read",
                sys::pread(fd, 99, 0),
                Ok(format!("data {i}").into_bytes()),
            );
            if i % 2 == 0 {
                env.eq("write", sys::pwrite(fd, b"D", 0), Ok(1));
            }
        }
        env.eq("names", sys::names(env.m("")), Ok(vec![]));
    });
}

#[test]
fn k121_sync_calls() {
    scenario("k121", &[file("low", "x"), dir("d")], |env| {
        env.ok("new", || sys::put(env.m("new"), "x"));
        env.ok("copy up", || sys::put(env.m("d/n"), "x"));
        for name in ["low", "new", "d", "d/n", ""] {
            let fd = sys::open(env.m(name), RO).unwrap();
            env.ok(format!("fsync {name}"), || sys::fsync(&fd));
            env.ok(format!("fdatasync {name}"), || sys::fdatasync(&fd));
            env.ok(format!("syncfs {name}"), || sys::syncfs(&fd));
        }
        env.check("no copy-up by fsync", !sys::exists(env.u("low")));
    });
}

#[test]
fn flags_of_files_and_directories() {
    // lsattr: 0x70 is dirsync-independent: append, immutable, nodump. What chattr does is a known difference.
    scenario("lsattr", &[file("f", "x"), dir("d")], |env| {
        for name in ["f", "d"] {
            let flags = || {
                sys::open(env.m(name), RO)
                    .and_then(|fd| sys::getflags(&fd))
                    .map(|f| f & 0x70)
            };
            let _ = env.want(format!("flags of {name}"), Ok(0), flags);
            env.ok("copy up", || sys::chmod(env.m(name), 0o700));
            let _ = env.want(format!("flags of {name} copied up"), Ok(0), flags);
        }
    });
}
