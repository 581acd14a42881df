//! The I/O modes of the option `passthrough=`: K110 to K113 in every order of opens, in each mode.
//!
//! `upper` and `off` are held to the kernel's overlay. What `all` gives up is held to what `docs/io-modes.md` says of
//! it, and all else of it to the kernel's overlay too.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::layers::{mounts_below, ours_is_plyfs, program_is_kernel};
use crate::common::scenario::once_closed;
use crate::common::who::ANN;
use crate::common::*;

const RO: i32 = libc::O_RDONLY;
const RW: i32 = libc::O_RDWR;
const MODES: [&str; 3] = ["passthrough=upper", "passthrough=off", "passthrough=all"];

/// Whether the kernel reads files of the lower by itself here. Without privilege or on an older kernel every mode is
/// like `off`, and nothing is given up.
fn lower_is_passed() -> bool {
    let layers = Layers::new().with_lower(&[file("f", vec![b'.'; 1 << 20])]);
    let _mounted = layers.mount(Fs::Plyfs, &["passthrough=all"]);
    let fd = sys::open(layers.merged.join("f"), RO).unwrap();
    let before = requests(&layers);
    for at in (0..1 << 20).step_by(4096) {
        assert_eq!(sys::pread(&fd, 4096, at), Ok(vec![b'.'; 4096]));
    }
    let few = requests(&layers) - before < 4;
    drop(fd);
    few
}

/// Requests answered so far in a mount of plyfs.
fn requests(layers: &Layers) -> u64 {
    let out = Command::new(env!("CARGO_BIN_EXE_plyfs"))
        .args(["list", "--json"])
        .output()
        .unwrap();
    let list: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let mine = |entry: &&serde_json::Value| entry["merged"] == layers.merged.to_str().unwrap();
    let entry = list.as_array().unwrap().iter().find(mine).expect("listed");
    entry["requests"].as_u64().unwrap()
}

/// True on the side whose old descriptors stay at the lower in this mode.
fn gives_up(env: &Env, mode: &str) -> bool {
    known::difference("old-readers");
    env.fs == Fs::Plyfs && mode == "passthrough=all" && !program_is_kernel()
}

fn can_run(name: &str, mode: &str) -> bool {
    if mode != "passthrough=all" || !ours_is_plyfs() {
        return need_root(name);
    }
    if need_root(name) && !lower_is_passed() {
        skip(name, "the kernel here does not read files of the lower by itself");
        return false;
    }
    need_root(name)
}

#[test]
fn each_mode_passes_what_it_says() {
    const SIZE: usize = 16 << 20;
    if !ours_is_plyfs() || !can_run("each mode", "passthrough=all") {
        return;
    }
    for (mode, upper, lower) in [
        ("passthrough=off", false, false),
        ("passthrough=upper", true, false),
        ("passthrough=all", true, true),
    ] {
        let layers = Layers::new()
            .with_lower(&[file("low", vec![b'l'; SIZE])])
            .with_upper(&[file("up", vec![b'u'; SIZE])]);
        let mounted = layers.mount(Fs::Plyfs, &[mode]);
        for (name, passed) in [("up", upper), ("low", lower)] {
            let fd = sys::open(layers.merged.join(name), RO).unwrap();
            let before = requests(&layers);
            for at in (0..SIZE).step_by(4096) {
                assert_eq!(sys::pread(&fd, 4096, at as i64).map(|data| data.len()), Ok(4096));
            }
            let more = requests(&layers) - before;
            // A mebibyte in one request at the most; asking for the count may itself cost a few.
            assert_eq!(more < 8, passed, "{mode}, {name}: {more} requests for 16 MiB");
        }
        mounted.umount();
    }
}

/// Readers and writers of one file opened in every order. Whoever reads sees what was written last; with `all`, whoever
/// opened before the copy-up sees the file as it was then. The lower stays as it was (the scenario checks that), and
/// all descriptors and the name show the same attributes.
fn every_order_of_opens(mode: &str) {
    let orders = [
        "rw",
        "rrw",
        "rwr",
        "wr",
        "wwr",
        "rwrw",
        "rwwr",
        "wrwr",
        "rcw",
        "rcr",
        "rtr",
        "rtw",
        "rlw",
        "rmw",
        "rmr",
        "rxrw",
        "rRrw",
        "rRwr",
        "rlrwU",
        "rwU",
        "rcUr",
        "rTrw",
        "rrrrwrrrr",
        "rccrtw",
        "rlRrwc",
        "rSrw",
        "rCrw",
        "mwr",
        "mcr",
        "rAr",
        "rAw",
    ];
    if !can_run("every order of opens", mode) {
        return;
    }
    let big: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let lower: Vec<_> = orders.iter().map(|name| file(name, &big)).collect();
    let orders_of = |env: &Env| {
        for order in orders {
            let mut path = env.m(order);
            let number = sys::ino(&path).unwrap();
            let mut want = big.clone();
            // Each with whether it was opened before the copy-up.
            let (mut fds, mut maps, mut copied, mut named) = (Vec::new(), Vec::new(), false, true);
            for (i, step) in order.bytes().enumerate() {
                let at = i * 5000;
                let changes = !matches!(step, b'r' | b'm' | b'x');
                match step {
                    b'r' if named => fds.push((sys::open(&path, RO).unwrap(), copied)),
                    b'r' => {}
                    b'w' => {
                        let fd = sys::open(&path, RW).unwrap();
                        env.eq("write", sys::pwrite(&fd, &[step; 9000], at as i64), Ok(9000));
                        want[at..at + 9000].fill(step);
                        fds.push((fd, true));
                    }
                    b'A' => {
                        sys::append(&path, "appended").unwrap();
                        want.extend(b"appended");
                    }
                    b'c' => sys::chmod(&path, 0o640).unwrap(),
                    b'C' => sys::chown(&path, 7, 8).unwrap(),
                    b'S' => sys::setxattr(&path, "user.x", "y").unwrap(),
                    b't' => {
                        sys::truncate(&path, 200_000).unwrap();
                        want.truncate(200_000);
                    }
                    // An open that cuts, and fills again.
                    b'T' => {
                        sys::put(&path, "short").unwrap();
                        want = b"short".to_vec();
                        want.resize(300_000, 0);
                        sys::truncate(&path, 300_000).unwrap();
                    }
                    b'l' => sys::link(&path, env.m(format!("{order}-2"))).unwrap(),
                    b'R' => {
                        let to = env.m(format!("{order}-moved"));
                        sys::rename(&path, &to).unwrap();
                        path = to;
                    }
                    b'U' => {
                        sys::unlink(&path).unwrap();
                        named = false;
                    }
                    // A look at the name through a descriptor that opens nothing.
                    b'x' => drop(sys::open(&path, libc::O_PATH).unwrap()),
                    _ => {
                        let fd = sys::open(&path, RO).unwrap();
                        let map = sys::mmap_shared(&fd, 8192, false).unwrap();
                        env.eq("mapped", map.bytes(), want[..8192].to_vec());
                        maps.push((map, copied));
                    }
                }
                copied |= changes;
                for (who, (fd, after)) in fds.iter().enumerate() {
                    let got = sys::pread(fd, 400_000, 0).unwrap();
                    let old = copied && !after && gives_up(env, mode);
                    let data = if old { &big } else { &want };
                    env.check(format!("{order} after step {i}, descriptor {who}"), got == *data);
                    let st = sys::fstat(fd).unwrap();
                    env.eq("its number", st.st_ino, number);
                    env.eq("its size", st.st_size, want.len() as i64);
                    if named {
                        let name = sys::stat(&path).unwrap();
                        let shown = |st: &sys::Stat| {
                            (
                                st.st_mode,
                                st.st_uid,
                                st.st_nlink,
                                st.st_mtime_nsec,
                                st.st_ctime_nsec,
                                st.st_blocks,
                            )
                        };
                        env.check(
                            format!("{order} after step {i}: as by name"),
                            shown(&st) == shown(&name),
                        );
                    }
                }
                // A mapping from before the copy-up shows the old data, or the new through this server's pages (K111).
                for (map, after) in &maps {
                    let (data, shown) = (if *after { &want } else { &big }, map.bytes());
                    let served = !after && mode != "passthrough=all" && shown == want[..8192];
                    env.check("the mapping", shown == data[..8192] || served);
                }
                if named {
                    env.check(
                        format!("{order} after step {i}, by name"),
                        sys::cat(&path).unwrap() == want,
                    );
                }
            }
        }
    };
    Scenario::new(&format!("every order, {mode}"))
        .lower(&lower)
        .ours(&[mode])
        .run(orders_of);
}

#[test]
fn k110_every_order_of_opens() {
    every_order_of_opens("passthrough=upper");
}

#[test]
fn k110_every_order_of_opens_with_nothing_passed() {
    every_order_of_opens("passthrough=off");
}

#[test]
fn k110_every_order_of_opens_with_all_passed() {
    every_order_of_opens("passthrough=all");
}

/// Changes made by way of a descriptor from before the copy-up are seen by name, and the other way round.
#[test]
fn attributes_by_an_old_descriptor() {
    for mode in MODES {
        if !can_run("attributes by an old descriptor", mode) {
            continue;
        }
        let lower = [
            file("f", "old data"),
            file("g", "old data"),
            hard("h", "g"),
            file("over", "x"),
        ];
        let steps = |env: &Env| {
            let (f, g) = (
                sys::open(env.m("f"), RO).unwrap(),
                sys::open(env.m("g"), RO).unwrap(),
            );
            let same = |what: &str, fd: &Fd, name: &str| {
                let (one, two) = (sys::fstat(fd).unwrap(), sys::stat(env.m(name)).unwrap());
                let shown = |st: &sys::Stat| {
                    (
                        st.st_ino,
                        st.st_mode,
                        st.st_uid,
                        st.st_gid,
                        st.st_size,
                        st.st_nlink,
                        st.st_ctime_nsec,
                    )
                };
                env.eq(what, shown(&one), shown(&two));
            };
            let writer = sys::open(env.m("f"), RW).unwrap();
            env.eq("write", sys::pwrite(&writer, b"0123456789", 0), Ok(10));
            same("written", &f, "f");
            env.ok("fchmod", || sys::fchmod(&f, 0o600));
            same("fchmod", &f, "f");
            env.ok("chmod", || sys::chmod(env.m("f"), 0o644));
            same("chmod", &f, "f");
            env.ok("fchown", || sys::fchown(&f, 5, 6));
            same("fchown", &f, "f");
            env.ok("ftruncate", || sys::ftruncate(&writer, 3));
            same("ftruncate", &f, "f");
            env.ok("fsync", || sys::fsync(&f));
            env.ok("setxattr", || sys::setxattr(env.m("f"), "user.a", "b"));
            env.eq("getxattr", sys::getxattr(env.m("f"), "user.a"), Ok(b"b".to_vec()));
            same("setxattr", &f, "f");
            env.ok("link", || sys::link(env.m("f"), env.m("f2")));
            same("link", &f, "f2");
            env.ok("rename", || sys::rename(env.m("f"), env.m("f3")));
            same("rename", &f, "f3");
            env.ok("unlink", || sys::unlink(env.m("f2")));
            same("unlink", &f, "f3");
            env.ok("rename over", || sys::rename(env.m("over"), env.m("f3")));
            let st = sys::fstat(&f).unwrap();
            env.eq("no name", (st.st_nlink, st.st_size), (0, 3));
            env.ok("fchmod, no name", || sys::fchmod(&f, 0o400));
            env.eq(
                "fstat",
                sys::fstat(&writer).map(|st| st.st_mode & 0o777),
                Ok(0o400),
            );
            drop(writer);
            env.ok("fchmod, no name, no writer", || sys::fchmod(&f, 0o440));
            env.eq(
                "fstat",
                sys::fstat(&f).map(|st| (st.st_mode & 0o777, st.st_size)),
                Ok((0o440, 3)),
            );
            // A member of a hard-link group of the lower: the other name is another file from now on (K71).
            env.ok("copied up", || sys::append(env.m("g"), " more"));
            env.eq("its size", sys::fstat(&g).map(|st| st.st_size), Ok(13));
            env.eq("the other name", sys::text(env.m("h")), Ok("old data".into()));
        };
        // A group's numbers and link counts differ on purpose (K42); they are not what this is about.
        Scenario::new(&format!("old descriptor, {mode}"))
            .lower(&lower)
            .ours(&[mode])
            .field_differs("group-number", "ino")
            .numbers_may_change()
            .uppers_may_differ()
            .run(steps);
    }
}

fn start(program: impl AsRef<Path>) -> Child {
    let program = program.as_ref();
    let child = once_closed(|| Command::new(program).arg("60").spawn().map_err(Errno::from)).expect("sleep");
    // Until exec is through the file may still be written.
    while std::fs::read_link(format!("/proc/{}/exe", child.id()))
        .ok()
        .as_deref()
        != Some(program)
    {
        std::thread::yield_now();
    }
    child
}

#[test]
fn k113_a_running_program_is_not_written() {
    let copy = |layers: &Layers| {
        for name in ["low", "other", "changed"] {
            std::fs::copy("/bin/sleep", layers.lower.join(name)).unwrap();
            sys::chmod(layers.lower.join(name), 0o755).unwrap();
            sys::utimens(layers.lower.join(name), plant::PLANTED, plant::PLANTED).unwrap();
        }
    };
    for mode in MODES {
        if !can_run("k113", mode) {
            continue;
        }
        Scenario::new(&format!("k113 {mode}"))
            .prepare(copy)
            .ours(&[mode])
            .run(|env| {
                env.ok("copy up", || sys::chmod(env.m("other"), 0o755));
                for name in ["low", "other", "changed"] {
                    let mut child = start(env.m(name));
                    if name == "changed" {
                        // Copied up while it runs.
                        env.ok("chmod", || sys::chmod(env.m(name), 0o700));
                    }
                    let opened = sys::open(env.m(name), libc::O_WRONLY).map(drop);
                    let cut = sys::truncate(env.m(name), 0);
                    child.kill().unwrap();
                    child.wait().unwrap();
                    env.fails(format!("open {name}"), sys::ETXTBSY, || opened);
                    env.fails(format!("truncate {name}"), sys::ETXTBSY, || cut);
                    let writer = once_closed(|| sys::open(env.m(name), libc::O_WRONLY)).unwrap();
                    let run = Command::new(env.m(name))
                        .arg("0")
                        .spawn()
                        .map(|mut child| drop(child.wait()));
                    env.fails("run what is open for writing", sys::ETXTBSY, || {
                        run.map_err(Errno::from)
                    });
                    drop(writer);
                    let mut child = start(env.m(name));
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
            });
    }
}

/// Permissions and setuid bits of a file whose old data somebody still reads.
#[test]
fn permissions_count_for_whoever_comes_later() {
    for mode in MODES {
        if !can_run("permissions", mode) {
            continue;
        }
        let lower = [
            file("f", "old data").mode(0o666),
            file("s", "old data").mode(0o666),
        ];
        Scenario::new(&format!("permissions, {mode}"))
            .lower(&lower)
            .ours(&[mode])
            .run(|env| {
                let (f, s) = (
                    sys::open(env.m("f"), RO).unwrap(),
                    sys::open(env.m("s"), RO).unwrap(),
                );
                env.ok("ann may read", || {
                    as_user(ANN, || sys::open(env.m("f"), RO).map(drop))
                });
                env.ok("chmod", || sys::chmod(env.m("f"), 0o600));
                for flags in [RO, RW, libc::O_WRONLY | libc::O_TRUNC] {
                    env.fails("ann may not", sys::EACCES, || {
                        as_user(ANN, || sys::open(env.m("f"), flags).map(drop))
                    });
                }
                env.ok("fchmod", || sys::fchmod(&f, 0o644));
                env.ok("ann may read", || {
                    as_user(ANN, || sys::open(env.m("f"), RO).map(drop))
                });
                env.fails("ann may not write", sys::EACCES, || {
                    as_user(ANN, || sys::open(env.m("f"), RW).map(drop))
                });
                // K103: setuid bits fall when ann writes, and stay when root does.
                env.ok("setuid", || sys::chmod(env.m("s"), 0o6777));
                env.ok("root writes", || sys::append(env.m("s"), "root"));
                env.eq("they stay", sys::mode(env.m("s")), Ok(0o6777));
                env.ok("ann writes", || as_user(ANN, || sys::append(env.m("s"), "ann")));
                env.eq("they fall", sys::mode(env.m("s")), Ok(0o777));
                env.eq(
                    "for all to see",
                    sys::fstat(&s).map(|st| st.st_mode & 0o7777),
                    Ok(0o777),
                );
            });
    }
}

/// What `passthrough=all` gives up, in the words of `docs/io-modes.md`, and where that ends.
#[test]
fn what_all_gives_up() {
    let mode = "passthrough=all";
    if !ours_is_plyfs() || !can_run("what all gives up", mode) {
        return;
    }
    let layers = Layers::new().with_lower(&[
        file("f", "old data"),
        file("gone", "old data"),
        file("locked", "old data"),
        file("bound", "old data"),
        file("place", ""),
    ]);
    let m = |name: &str| layers.merged.join(name);
    let by_fd = |fd: &Fd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mounted = layers.mount(Fs::Plyfs, &[mode]);
    // 1. The data, by whatever call.
    let old = sys::open(m("f"), RO).unwrap();
    let path = sys::open(m("f"), libc::O_PATH).unwrap();
    sys::put(m("f"), "new").unwrap();
    assert_eq!(sys::pread(&old, 99, 0), Ok(b"old data".to_vec()));
    assert_eq!(sys::lseek(&old, 0, libc::SEEK_HOLE), Ok(8));
    let copy = sys::create(m("copy"), 0o644).unwrap();
    assert_eq!(sys::copy_file_range(&old, 0, &copy, 0, 99), Ok(8));
    assert_eq!(sys::text(m("copy")), Ok("old data".into()));
    assert_eq!(
        sys::fstat(&old).map(|st| st.st_size),
        Ok(3),
        "attributes are true"
    );
    // 2. Opening it again by the descriptor instead of the name, as long as the old data are read.
    for fd in [&old, &path] {
        for flags in [RO, RW] {
            assert_eq!(sys::open(by_fd(fd), flags).map(drop), Err(sys::ESTALE));
        }
    }
    assert_eq!(sys::text(m("f")), Ok("new".into()), "by name");
    drop(old);
    let until_closed = |flags| once_stale_no_more(|| sys::open(by_fd(&path), flags));
    let again = until_closed(RO).unwrap();
    assert_eq!(sys::pread(&again, 99, 0), Ok(b"new".to_vec()));
    let writer = until_closed(RW).unwrap();
    assert_eq!(sys::pwrite(&writer, b"NEWER", 0), Ok(5));
    assert_eq!(sys::text(m("f")), Ok("NEWER".into()));
    assert_eq!(sys::stat(m("f")).map(|st| st.st_size), Ok(5));
    sys::append(m("f"), "!").unwrap();
    assert_eq!(sys::pread(&again, 99, 0), Ok(b"NEWER!".to_vec()));
    assert_eq!(sys::fstat(&writer).map(|st| st.st_size), Ok(6));
    // The same for a mount on the file itself.
    let old = sys::open(m("bound"), RO).unwrap();
    sys::mount(
        m("bound").to_str().unwrap(),
        &m("place"),
        "none",
        libc::MS_BIND,
        "",
    )
    .unwrap();
    sys::append(m("bound"), "!").unwrap();
    assert_eq!(sys::open(m("place"), RO).map(drop), Err(sys::ESTALE));
    drop((old, again, writer, path));
    let bound = once_stale_no_more(|| sys::open(m("place"), RW)).unwrap();
    assert_eq!(sys::pread(&bound, 99, 0), Ok(b"old data!".to_vec()));
    drop(bound);
    assert!(mounts_below(&m("place")).len() == 1);
    sys::umount(&m("place"), 0).unwrap();
    // 3. Writing a file without a name through a descriptor for reading.
    let gone = sys::open(m("gone"), RO).unwrap();
    sys::unlink(m("gone")).unwrap();
    assert_eq!(sys::open(by_fd(&gone), RW).map(drop), Err(sys::ESTALE));
    assert_eq!(sys::fchmod(&gone, 0o600), Ok(()));
    assert_eq!(
        sys::fstat(&gone).map(|st| (st.st_mode & 0o777, st.st_nlink)),
        Ok((0o600, 0))
    );
    assert_eq!(sys::pread(&gone, 99, 0), Ok(b"old data".to_vec()));
    // 4. Locks do not hold between those who opened before and after.
    let (one, two) = (
        sys::open(m("locked"), RO).unwrap(),
        sys::open(m("locked"), RO).unwrap(),
    );
    sys::flock(&one, libc::LOCK_EX).unwrap();
    let three = sys::open(m("locked"), RW).unwrap();
    assert_eq!(sys::flock(&two, libc::LOCK_EX), Err(sys::EAGAIN));
    assert_eq!(sys::flock(&three, libc::LOCK_EX), Ok(()));
    drop((gone, one, two, three, copy));
    mounted.umount();
    for name in ["f", "gone", "locked", "bound"] {
        assert_eq!(
            sys::text(layers.lower.join(name)),
            Ok("old data".into()),
            "the lower"
        );
    }
}

fn once_stale_no_more<T>(call: impl Fn() -> R<T>) -> R<T> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match call() {
            Err(errno) if errno == sys::ESTALE && Instant::now() < until => {
                sleep(Duration::from_millis(5));
            }
            answer => return answer,
        }
    }
}

/// Readers and writers of the same files at once. No open ever fails, and whoever opens a file reads it whole: as it was
/// in the lower or as it was written.
#[test]
fn k110_readers_and_writers_at_once() {
    const FILES: usize = 60;
    if !need_root("k110 at once") {
        return;
    }
    let (old, new) = (vec![b'o'; 20_000], vec![b'n'; 20_000]);
    for mode in MODES {
        let lower: Vec<_> = (0..FILES).map(|i| file(format!("f{i}"), &old)).collect();
        let layers = Layers::new().with_lower(&lower);
        let mounted = layers.mount(Fs::Plyfs, &if ours_is_plyfs() { vec![mode] } else { vec![] });
        let path = |i: usize| layers.merged.join(format!("f{i}"));
        let written = [const { AtomicUsize::new(0) }; FILES];
        std::thread::scope(|scope| {
            for reader in 0..3 {
                let (path, written, old, new) = (&path, &written, &old, &new);
                scope.spawn(move || {
                    for (i, written) in written.iter().enumerate() {
                        loop {
                            let done = written.load(Ordering::SeqCst);
                            let fd =
                                sys::open(path(i), RO).unwrap_or_else(|e| panic!("{mode}: open {i}: {e:?}"));
                            let data = sys::pread(&fd, 30_000, 0).unwrap();
                            assert!(
                                data == *new || done == 0 && (data == *old || data.len() == 20_000),
                                "{mode} {i}"
                            );
                            let st = sys::fstat(&fd).unwrap();
                            assert_eq!(st.st_size, 20_000, "{mode} {i} {reader}");
                            if done > 0 {
                                break;
                            }
                        }
                    }
                });
            }
            scope.spawn(|| {
                for (i, written) in written.iter().enumerate() {
                    match i % 4 {
                        0 => sys::chmod(path(i), 0o600).unwrap(),
                        1 => sys::setxattr(path(i), "user.a", "b").unwrap(),
                        2 => sys::link(path(i), layers.merged.join(format!("link{i}"))).unwrap(),
                        _ => {}
                    }
                    let fd = sys::open(path(i), RW).unwrap_or_else(|e| panic!("{mode}: write {i}: {e:?}"));
                    assert_eq!(sys::pwrite(&fd, &new, 0), Ok(new.len()));
                    written.store(1, Ordering::SeqCst);
                }
            });
        });
        mounted.umount();
        for i in 0..FILES {
            assert_eq!(
                sys::cat(layers.lower.join(format!("f{i}"))),
                Ok(old.clone()),
                "the lower"
            );
            assert_eq!(
                sys::cat(layers.upper.join(format!("f{i}"))),
                Ok(new.clone()),
                "the upper"
            );
        }
    }
}
