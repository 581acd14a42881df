//! What the kernel reads and writes by itself in each mode of `passthrough=`, what is kept for that, and what `all` gives
//! up, in the words of `docs/io-modes.md`.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::layers::{mounts_below, ours_is_plyfs};
use crate::common::*;

const RO: i32 = libc::O_RDONLY;
const RW: i32 = libc::O_RDWR;

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

pub(super) fn can_run(name: &str, mode: &str) -> bool {
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

/// Files that the server has open.
fn held(mounted: &layers::Mounted) -> Vec<PathBuf> {
    let dir = format!("/proc/{}/fd", mounted.server().expect("the server"));
    let fds = std::fs::read_dir(dir).expect("its descriptors").flatten();
    fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect()
}

/// A registered file is kept for the next open, but not beyond its name: its room is free when the call returns.
#[test]
fn what_is_kept_goes_with_its_name() {
    if !ours_is_plyfs() || !can_run("what is kept", "passthrough=all") {
        return;
    }
    let upper = ["gone", "over", "linked", "stays"].map(|name| file(name, "upper"));
    let layers = Layers::new()
        .with_lower(&[file("low", "lower"), file("copied", "lower")])
        .with_upper(&upper);
    let m = |name: &str| layers.merged.join(name);
    let mounted = layers.mount(Fs::Plyfs, &["passthrough=all"]);
    sys::link(m("linked"), m("link")).unwrap();
    let names = ["gone", "over", "linked", "stays", "low", "copied"];
    let read_all = || names.map(|name| sys::text(m(name)).unwrap());
    read_all();
    let until = Instant::now() + Duration::from_secs(10);
    let is_held = |name: &str| held(&mounted).iter().any(|path| path.ends_with(name));
    while !names.iter().all(|name| is_held(name)) {
        assert!(Instant::now() < until, "not kept: {:?}", held(&mounted));
        sleep(Duration::from_millis(5));
    }
    // Read again by what is kept.
    assert_eq!(
        read_all(),
        ["upper", "upper", "upper", "upper", "lower", "lower"].map(String::from)
    );
    sys::unlink(m("gone")).unwrap();
    sys::rename(m("stays"), m("over")).unwrap();
    sys::unlink(m("linked")).unwrap();
    sys::unlink(m("link")).unwrap();
    let deleted = |path: &&PathBuf| path.to_string_lossy().ends_with(" (deleted)");
    let left: Vec<_> = held(&mounted).iter().filter(deleted).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
    // A copy-up is seen by the next open, though the lower's file is kept and has never been open since.
    sys::append(m("copied"), " and more").unwrap();
    assert_eq!(sys::text(m("copied")), Ok("lower and more".into()));
    // So are permissions and setuid bits.
    sys::chmod(m("over"), 0o4711).unwrap();
    assert_eq!(sys::text(m("over")), Ok("upper".into()));
    assert_eq!(as_user(who::ANN, || sys::text(m("over"))), Err(sys::EACCES));
    mounted.umount();
}
