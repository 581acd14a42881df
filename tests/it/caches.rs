//! What the kernel may answer from its own memory, and that it is never out of date.

use std::collections::BTreeSet;
use std::process::Command;

use crate::common::*;

/// Requests that the view's server has answered.
fn requests(layers: &Layers) -> u64 {
    let shown = Command::new(env!("CARGO_BIN_EXE_plyfs"))
        .args(["list", "--json"])
        .output()
        .unwrap();
    let all: Vec<serde_json::Value> = serde_json::from_slice(&shown.stdout).unwrap();
    let ours = all
        .iter()
        .find(|entry| entry["merged"] == layers.merged.to_str().unwrap());
    ours.unwrap()["requests"].as_u64().unwrap()
}

fn ours(name: &str) -> bool {
    if !layers::ours_is_plyfs() {
        skip(name, "counts plyfs's requests");
        return false;
    }
    need_root(name)
}

#[test]
fn a_second_listing_asks_nothing() {
    if !ours("a_second_listing_asks_nothing") {
        return;
    }
    let lower: Vec<_> = std::iter::once(dir("d"))
        .chain((0..300).map(|i| file(format!("d/{i}"), "x")))
        .collect();
    let layers = Layers::new()
        .with_lower(&lower)
        .with_upper(&[dir("d"), file("d/up", "")]);
    let mounted = layers.mount(Fs::Plyfs, &[]);
    let list = || -> Vec<(std::ffi::OsString, u64)> {
        let names = sys::names(layers.merged.join("d")).unwrap();
        names
            .into_iter()
            .map(|name| {
                let ino = sys::ino(layers.merged.join("d").join(&name)).unwrap();
                (name, ino)
            })
            .collect()
    };
    let first = list();
    let before = requests(&layers);
    assert_eq!(list(), first);
    let asked = requests(&layers) - before;
    assert!(asked <= 2, "{asked} requests for 301 names that are known");
    // And it is read again once something changed.
    sys::put(layers.merged.join("d/new"), "").unwrap();
    sys::unlink(layers.merged.join("d/7")).unwrap();
    let names: BTreeSet<_> = list().into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(std::ffi::OsStr::new("new")) && !names.contains(std::ffi::OsStr::new("7")));
    assert_eq!(names.len(), 301);
    drop(mounted);
}

#[test]
fn with_timeout_0_nothing_is_remembered() {
    if !ours("with_timeout_0_nothing_is_remembered") {
        return;
    }
    let layers = Layers::new().with_lower(&[dir("d"), file("d/f", "x")]);
    let mounted = layers.mount(Fs::Plyfs, &["timeout=0"]);
    let merged = layers.merged.join("d");
    assert_eq!(sys::names(&merged), Ok(vec!["f".into()]));
    // Changed behind the view's back, which is what this option is for.
    sys::put(layers.lower.join("d/g"), "").unwrap();
    let names: BTreeSet<_> = sys::names(&merged).unwrap().into_iter().collect();
    assert_eq!(names, BTreeSet::from(["f".into(), "g".into()]));
    drop(mounted);
}

/// K53 with several readers: what is there throughout is given once to each, whoever fills or empties the kernel's
/// memory in between.
#[test]
fn k53_readers_that_wait_for_each_other() {
    let lower: Vec<_> = std::iter::once(dir("d"))
        .chain((0..200).map(|i| file(format!("d/low{i:03}"), "")))
        .collect();
    let upper: Vec<_> = std::iter::once(dir("d"))
        .chain((0..400).map(|i| file(format!("d/up{i:03}"), "")))
        .collect();
    Scenario::new("k53 readers")
        .lower(&lower)
        .upper(&upper)
        .run(|env| {
            let open = || sys::open(env.m("d"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
            let mut readers: Vec<_> = (0..4).map(|_| (open(), Vec::new())).collect();
            let mut made = 0;
            for round in 0.. {
                let mut given = 0;
                for (at, (fd, seen)) in readers.iter_mut().enumerate() {
                    // Each at its own pace.
                    if round % (at + 1) != 0 {
                        given += 1;
                        continue;
                    }
                    let part = sys::getdents(fd, 400 + 300 * at).unwrap();
                    given += part.len();
                    seen.extend(part.into_iter().map(|entry| entry.name));
                }
                if given == 0 {
                    break;
                }
                env.ok("make", || sys::put(env.m(format!("d/made{made}")), ""));
                env.ok("remove", || sys::unlink(env.m(format!("d/up{:03}", made % 200))));
                env.ok("make again", || {
                    sys::put(env.m(format!("d/up{:03}", made % 200)), "")
                });
                made += 1;
                // A fresh reader renews what the kernel keeps.
                env.check("all", sys::names(env.m("d")).unwrap().len() == 600 + made);
            }
            for (_, seen) in readers {
                let steady: Vec<_> = (0..200)
                    .map(|i| format!("low{i:03}"))
                    .chain((200..400).map(|i| format!("up{i:03}")))
                    .collect();
                for name in steady {
                    let times = seen.iter().filter(|seen| **seen == *name).count();
                    env.eq(name, times, 1);
                }
            }
        });
}

#[test]
fn k50_dot_dot_of_a_directory_that_moved() {
    let upper = [dir("a"), dir("b"), dir("a/d"), file("a/d/f", "")];
    Scenario::new("k50 dot dot").upper(&upper).run(|env| {
        let above = |path: &str| {
            let list = sys::dirents(env.m(path)).unwrap();
            list.into_iter()
                .find(|entry| entry.name == "..")
                .map(|entry| entry.ino)
        };
        env.eq("before", above("a/d"), sys::ino(env.m("a")).ok());
        env.ok("move", || sys::rename(env.m("a/d"), env.m("b/d")));
        env.eq("after", above("b/d"), sys::ino(env.m("b")).ok());
    });
}

#[test]
fn a_small_file_is_read_with_one_request() {
    if !ours("a_small_file_is_read_with_one_request") {
        return;
    }
    let lower: Vec<_> = (0..100)
        .map(|i| file(i.to_string(), vec![i as u8; 1 + 600 * i]))
        .collect();
    let layers = Layers::new().with_lower(&lower);
    let mounted = layers.mount(Fs::Plyfs, &[]);
    for name in sys::names(&layers.merged).unwrap() {
        sys::lstat(layers.merged.join(name)).unwrap();
    }
    let before = requests(&layers);
    for i in 0..100 {
        let data = sys::cat(layers.merged.join(i.to_string())).unwrap();
        assert!(
            data.len() == 1 + 600 * i && data.iter().all(|byte| *byte == i as u8),
            "{i}"
        );
    }
    let asked = requests(&layers) - before;
    // One to open and one to close each.
    assert!(asked <= 210, "{asked} requests for 100 files");
    drop(mounted);
}

/// The data that comes with the first open must not arrive after a change.
#[test]
fn first_opens_race_with_changes() {
    const FILES: usize = 300;
    let lower: Vec<_> = (0..FILES)
        .map(|i| file(i.to_string(), vec![b'a'; 5000 + i]))
        .collect();
    Scenario::new("first opens")
        .lower(&lower)
        .uppers_may_differ()
        .run(|env| {
            std::thread::scope(|scope| {
                for reader in 0..3 {
                    scope.spawn(move || {
                        for i in 0..FILES {
                            let data = sys::cat(env.m(((i + reader) % FILES).to_string())).unwrap();
                            // Old or new, never longer than both, and nothing that was never there.
                            assert!(data.len() <= 5000 + FILES + 1, "{i}: {}", data.len());
                            assert!(data.iter().all(|byte| b"abz\0".contains(byte)), "{i}");
                        }
                    });
                }
                scope.spawn(move || {
                    for i in 0..FILES {
                        let path = env.m(i.to_string());
                        match i % 3 {
                            0 => sys::truncate(&path, 10).unwrap(),
                            1 => sys::append(&path, "b").unwrap(),
                            _ => sys::put(&path, "z").unwrap(),
                        }
                    }
                });
            });
            for i in 0..FILES {
                let mut want = vec![b'a'; 5000 + i];
                match i % 3 {
                    0 => want.truncate(10),
                    1 => want.push(b'b'),
                    _ => want = b"z".to_vec(),
                }
                let path = env.m(i.to_string());
                let size = sys::lstat(&path).map(|st| st.st_size);
                let right = sys::cat(&path) == Ok(want.clone()) && size == Ok(want.len() as i64);
                env.check(format!("file {i}"), right);
            }
        });
}

/// What the kernel gathers is in the upper when the file is closed, and everybody sees it before.
#[test]
fn gathered_writes() {
    const SIZE: usize = 4 << 20;
    if !ours("gathered_writes") {
        return;
    }
    let layers = Layers::new().with_lower(&[file("low", vec![b'l'; 10_000]), file("suid", "x").mode(0o4755)]);
    let mounted = layers.mount(Fs::Plyfs, &["writeback"]);
    let merged = |name: &str| layers.merged.join(name);
    let upper = |name: &str| std::fs::read(layers.upper.join(name)).unwrap();

    let fd = sys::create(merged("new"), 0o640).unwrap();
    let before = requests(&layers);
    for _ in 0..SIZE / 512 {
        assert_eq!(sys::write(&fd, &[b'n'; 512]), Ok(512));
    }
    let asked = requests(&layers) - before;
    assert!(asked < 100, "{asked} requests for {} writes", SIZE / 512);
    assert_eq!(sys::lstat(merged("new")).map(|st| st.st_size), Ok(SIZE as i64));
    let reader = sys::open(merged("new"), libc::O_RDONLY).unwrap();
    assert_eq!(sys::pread(&reader, 4, SIZE as i64 - 4), Ok(b"nnnn".to_vec()));
    drop((fd, reader));
    assert_eq!(upper("new"), vec![b'n'; SIZE]);

    // Less than a page of a file of the lower, opened for writing only: the rest of the page is read first.
    let old = sys::open(merged("low"), libc::O_RDONLY).unwrap();
    let fd = sys::open(merged("low"), libc::O_WRONLY).unwrap();
    assert_eq!(sys::pwrite(&fd, b"W", 5_000), Ok(1));
    assert_eq!(sys::pread(&old, 3, 4_999), Ok(b"lWl".to_vec()));
    assert_eq!(sys::fsync(&fd), Ok(()));
    assert_eq!(upper("low")[4_999..5_002], *b"lWl");
    drop((fd, old));
    assert_eq!(sys::append(merged("low"), "end"), Ok(()));
    assert_eq!(
        (upper("low").len(), upper("low").ends_with(b"lend")),
        (10_003, true)
    );

    // Holes, also in what has not been handed over.
    let fd = sys::create(merged("holes"), 0o644).unwrap();
    assert_eq!(sys::pwrite(&fd, b"end", 1 << 20), Ok(3));
    assert_eq!(sys::lseek(&fd, 0, libc::SEEK_DATA), Ok(1 << 20));
    assert_eq!(sys::lseek(&fd, 0, libc::SEEK_HOLE), Ok(0));
    drop(fd);

    // Setuid bits fall when somebody else writes (K103).
    sys::chmod(merged("suid"), 0o4777).unwrap();
    as_user(who::ANN, || sys::append(merged("suid"), "y")).unwrap();
    assert_eq!(sys::mode(merged("suid")).map(|mode| mode & 0o7777), Ok(0o777));
    mounted.umount();
    assert_eq!(upper("suid"), b"xy");
    assert_eq!(upper("holes").len(), (1 << 20) + 3);
}
