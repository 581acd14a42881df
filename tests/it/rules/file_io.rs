//! K115: what acts on the real file: append, truncate, direct I/O, fallocate, holes, copy_file_range.

use crate::common::*;

const RO: i32 = libc::O_RDONLY;
const RW: i32 = libc::O_RDWR;

/// A whole program on one file: each call's answer and the contents after it are compared.
fn file_calls(name: &str, data: &[u8], steps: impl Fn(&Env, &str)) {
    Scenario::new(name)
        .lower(&[file("low", data)])
        .upper(&[file("up", data)])
        .run(|env| {
            env.ok("new", || sys::put(env.m("new"), data));
            for file in ["low", "up", "new"] {
                steps(env, file);
                env.note(
                    format!("{file} in the end"),
                    &sys::cat(env.m(file)).map(|d| tree::shown(&d)),
                );
            }
        });
}

#[test]
fn k115_append() {
    file_calls("append", b"0123456789", |env, name| {
        let (a, b) = (
            sys::open(env.m(name), RW | libc::O_APPEND),
            sys::open(env.m(name), RW | libc::O_APPEND),
        );
        let (a, b) = (a.unwrap(), b.unwrap());
        env.eq("a", sys::write(&a, b"AAA"), Ok(3));
        env.eq("b", sys::write(&b, b"BBB"), Ok(3));
        env.eq("a", sys::write(&a, b"ccc"), Ok(3));
        env.eq("position", sys::lseek(&a, 0, libc::SEEK_CUR), Ok(19));
        env.ok("truncate", || sys::ftruncate(&a, 4));
        env.eq("b", sys::write(&b, b"!"), Ok(1));
        env.eq("pwrite appends too", sys::pwrite(&b, b"?", 0), Ok(1));
        env.eq("data", sys::text(env.m(name)), Ok("0123!?".into()));
    });
}

#[test]
fn k115_trunc_and_modes_of_open() {
    file_calls("trunc", b"0123456789", |env, name| {
        let fd = sys::open(env.m(name), RW).unwrap();
        env.ok("O_TRUNC", || {
            sys::open(env.m(name), libc::O_WRONLY | libc::O_TRUNC).map(drop)
        });
        env.eq("seen by the other", sys::fstat(&fd).map(|st| st.st_size), Ok(0));
        env.eq("write behind the end", sys::pwrite(&fd, b"x", 10_000), Ok(1));
        env.eq("zeros before it", sys::pread(&fd, 4, 9_000), Ok(vec![0; 4]));
        let wo = sys::open(env.m(name), libc::O_WRONLY).unwrap();
        env.fails("read of a write-only file", sys::EBADF, || sys::read(&wo, 1));
        env.fails("O_DIRECTORY", sys::ENOTDIR, || {
            sys::open(env.m(name), RO | libc::O_DIRECTORY)
        });
        env.ok("O_SYNC", || {
            sys::open(env.m(name), RW | libc::O_SYNC)
                .and_then(|fd| sys::pwrite(&fd, b"s", 1))
                .map(drop)
        });
        env.ok("O_NOFOLLOW", || {
            sys::open(env.m(name), RO | libc::O_NOFOLLOW).map(drop)
        });
        env.ok("O_NOATIME", || {
            sys::open(env.m(name), RO | libc::O_NOATIME).map(drop)
        });
        let _ = env.call("negative size", || sys::truncate(env.m(name), -1));
        let _ = env.call("huge size", || sys::truncate(env.m(name), i64::MAX));
    });
}

#[test]
fn k115_direct() {
    let data: Vec<u8> = (0..65_536u32).map(|i| (i / 13) as u8).collect();
    file_calls("direct", &data, |env, name| {
        #[repr(align(4096))]
        struct Block([u8; 8192]);
        use std::os::fd::AsRawFd;
        let fd = env.call("open", || {
            sys::open(env.m(name), RW | libc::O_DIRECT)
                .map(|fd| (fd.as_raw_fd() >= 0).then_some(fd))
                .map(drop)
        });
        if fd.is_err() {
            return;
        }
        let fd = sys::open(env.m(name), RW | libc::O_DIRECT).unwrap();
        let buffered = sys::open(env.m(name), RO).unwrap();
        env.check("cached", sys::pread(&buffered, 65_536, 0).unwrap() == data);
        let block = Box::new(Block([b'D'; 8192]));
        env.eq("write", sys::pwrite(&fd, &block.0, 8192), Ok(8192));
        env.eq(
            "seen by the buffered one",
            sys::pread(&buffered, 2, 8192),
            Ok(b"DD".to_vec()),
        );
        env.ok("buffered write", || {
            sys::open(env.m(name), RW)
                .and_then(|fd| sys::pwrite(&fd, b"bb", 8192))
                .map(drop)
        });
        let mut back = Box::new(Block([0; 8192]));
        // SAFETY: the block has the length given.
        let n = unsafe { libc::pread(fd.as_raw_fd(), back.0.as_mut_ptr().cast(), 8192, 8192) };
        env.eq("direct read", n, 8192);
        env.eq("sees it", back.0[..4].to_vec(), b"bbDD".to_vec());
    });
}

#[test]
fn k115_fallocate() {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    let data = vec![b'd'; 40_960];
    file_calls("fallocate", &data, |env, name| {
        let fd = sys::open(env.m(name), RW).unwrap();
        let state = || sys::fstat(&fd).map(|st| st.st_size);
        let modes = [
            ("plain", 0, 0, 100_000),
            ("keep size", KEEP, 200_000, 4096),
            ("punch", PUNCH, 4096, 8192),
            ("zero", libc::FALLOC_FL_ZERO_RANGE, 16_384, 100),
            ("zero beyond", libc::FALLOC_FL_ZERO_RANGE, 120_000, 4096),
            ("zero keep", libc::FALLOC_FL_ZERO_RANGE | KEEP, 300_000, 4096),
            ("punch without keep", libc::FALLOC_FL_PUNCH_HOLE, 0, 1),
            ("nothing", 0, 0, 0),
            ("negative", 0, -1, 10),
            ("unshare", libc::FALLOC_FL_UNSHARE_RANGE, 0, 4096),
            ("unknown", 0x1000, 0, 1),
        ];
        for (label, mode, at, len) in modes {
            let _ = env.call(format!("{name} {label}"), || sys::fallocate(&fd, mode, at, len));
            env.note(format!("{name} size after {label}"), &state());
            env.note(
                format!("{name} data after {label}"),
                &sys::cat(env.m(name)).map(|d| tree::shown(&d)),
            );
        }
        let ro = sys::open(env.m(name), RO).unwrap();
        env.fails("read-only", sys::EBADF, || sys::fallocate(&ro, 0, 0, 1));
        // One after the other they leave the file as long as it was.
        for (label, mode) in [
            ("collapse", libc::FALLOC_FL_COLLAPSE_RANGE),
            ("insert", libc::FALLOC_FL_INSERT_RANGE),
        ] {
            let _ = env.differs("fallocate-modes", label, "Ok(())", &["Err(EOPNOTSUPP)"], || {
                sys::fallocate(&fd, mode, 0, 4096)
            });
        }
        env.ok("start again", || sys::put(env.m(name), "the same on both sides"));
    });
}

#[test]
fn k115_seek_hole_and_data() {
    let parts: &[(u64, &[u8])] = &[(0, b"head"), (1 << 20, b"middle")];
    let size = 4 << 20;
    scenario("seek", &[sparse("f", 4 << 20, parts), file("empty", "")], |env| {
        for round in ["lower", "upper"] {
            let fd = sys::open(env.m("f"), RO).unwrap();
            let data = |at| sys::lseek(&fd, at, libc::SEEK_DATA);
            let hole = |at| sys::lseek(&fd, at, libc::SEEK_HOLE);
            if round == "lower" {
                // Of a copy only what follows is promised: how fine its holes are is up to who copied (K64).
                for at in [0, 4, 4096, 500_000, 1 << 20, (1 << 20) + 4096, size - 1] {
                    let _ = env.call(format!("data from {at}"), || data(at));
                    let _ = env.call(format!("hole from {at}"), || hole(at));
                }
            }
            env.eq(format!("{round}: head"), data(0), Ok(0));
            env.eq(format!("{round}: middle"), data(1 << 20), Ok(1 << 20));
            env.check(
                format!("{round}: a hole ends the data"),
                hole(1 << 20).is_ok_and(|at| at > 1 << 20 && at < size),
            );
            env.check(
                format!("{round}: no hole inside data"),
                hole(0).is_ok_and(|at| at >= 4),
            );
            env.fails(format!("{round}: no data after the last"), sys::ENXIO, || {
                data(3 << 20)
            });
            env.eq(
                format!("{round}: the end is a hole"),
                hole(size - 1).is_ok_and(|at| at <= size),
                true,
            );
            for at in [size, size + 1, -1] {
                env.fails(format!("{round}: data from {at}"), sys::ENXIO, || data(at));
                env.fails(format!("{round}: hole from {at}"), sys::ENXIO, || hole(at));
            }
            let empty = sys::open(env.m("empty"), RO).unwrap();
            env.fails("empty", sys::ENXIO, || sys::lseek(&empty, 0, libc::SEEK_DATA));
            env.ok("copy up", || sys::chmod(env.m("f"), 0o600));
        }
    });
}

#[test]
fn k115_copy_file_range() {
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 241) as u8).collect();
    scenario(
        "copy_file_range",
        &[file("low", &data), file("small", "small")],
        |env| {
            env.ok("new", || sys::put(env.m("new"), ""));
            let (from, to) = (
                sys::open(env.m("low"), RO).unwrap(),
                sys::open(env.m("new"), RW).unwrap(),
            );
            let mut done = 0;
            while done < data.len() {
                let n = sys::copy_file_range(&from, done as i64, &to, done as i64, data.len() - done)
                    .unwrap_or(0);
                if n == 0 {
                    break;
                }
                done += n;
            }
            env.eq("all copied", done, data.len());
            env.check("equal", sys::cat(env.m("new")).unwrap() == data);
            env.check("the source stays in the lower", !sys::exists(env.u("low")));
            let small = sys::open(env.m("small"), RW).unwrap();
            env.eq(
                "onto a lower file",
                sys::copy_file_range(&from, 10, &small, 2, 2),
                Ok(2),
            );
            env.eq(
                "small",
                sys::cat(env.m("small")),
                Ok(vec![b's', b'm', 10, 11, b'l']),
            );
            env.eq(
                "behind the end",
                sys::copy_file_range(&small, 99, &to, 0, 5),
                Ok(0),
            );
            env.fails("onto itself, overlapping", sys::EINVAL, || {
                sys::copy_file_range(&to, 0, &to, 5, 10)
            });
            env.fails("to a read-only descriptor", sys::EBADF, || {
                sys::copy_file_range(&small, 0, &from, 0, 5)
            });
        },
    );
}
