//! K50 to K53: listings.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::common::*;

fn plain(list: &[sys::Dirent]) -> Vec<OsString> {
    list.iter()
        .map(|d| d.name.clone())
        .filter(|n| n != "." && n != "..")
        .collect()
}

#[test]
fn k50_each_name_once_and_lower_first() {
    let lower: Vec<_> = (0..50).map(|i| file(format!("low{i}"), "")).collect();
    let mut upper: Vec<_> = (0..50).map(|i| file(format!("up{i}"), "")).collect();
    upper.extend((0..10).map(|i| file(format!("low{i}"), "upper")));
    upper.extend((40..50).map(|i| whiteout(format!("low{i}"))));
    let s = Scenario::new("k50").lower(&lower).upper(&upper);
    s.run(|env| {
        let list = sys::dirents(env.m("")).unwrap();
        let names = plain(&list);
        env.eq("how many", names.len(), 90);
        env.eq("each once", names.iter().collect::<BTreeSet<_>>().len(), 90);
        env.eq(
            "dots",
            list.iter().filter(|d| d.name == "." || d.name == "..").count(),
            2,
        );
        let in_lower = |n: &OsString| sys::exists(env.l(n));
        let first_upper = names.iter().position(|n| !in_lower(n)).unwrap();
        env.check(
            "names of the lower come first",
            names[first_upper..].iter().all(|n| !in_lower(n)),
        );
        let raw: Vec<_> = sys::names(env.l(""))
            .unwrap()
            .into_iter()
            .filter(|n| names.contains(n))
            .collect();
        env.eq("in the lower's order", names[..first_upper].to_vec(), raw);
    });
}

#[test]
fn k50_types_come_from_the_layer_that_answers() {
    let lower = [
        file("a", ""),
        dir("b"),
        symlink("c", "x"),
        fifo("d"),
        chr("e", 1, 3),
        sock("f"),
        file("g", ""),
    ];
    let upper = [dir("a"), file("b", ""), dir("c"), symlink("g", "y")];
    Scenario::new("k50 types").lower(&lower).upper(&upper).run(|env| {
        let mut list: Vec<_> = sys::dirents(env.m(""))
            .unwrap()
            .into_iter()
            .map(|d| (d.name, d.kind))
            .collect();
        list.sort();
        env.note("types", &list);
        env.eq(
            "a is a directory",
            list.iter().find(|(n, _)| n == "a").map(|(_, k)| *k),
            Some(libc::DT_DIR),
        );
        env.eq(
            "b is a file",
            list.iter().find(|(n, _)| n == "b").map(|(_, k)| *k),
            Some(libc::DT_REG),
        );
    });
}

#[test]
fn k51_a_listing_is_a_snapshot() {
    let lower: Vec<_> = (0..200).map(|i| file(format!("d/low{i:03}"), "")).collect();
    let lower: Vec<_> = [dir("d")].into_iter().chain(lower).collect();
    let upper: Vec<_> = [dir("d")]
        .into_iter()
        .chain((0..200).map(|i| file(format!("d/up{i:03}"), "")))
        .collect();
    Scenario::new("k51").lower(&lower).upper(&upper).run(|env| {
        let all: BTreeSet<_> = sys::names(env.m("d")).unwrap().into_iter().collect();
        let fd = sys::open(env.m("d"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        let mut seen = plain(&sys::getdents(&fd, 512).unwrap());
        env.check("a part only", !seen.is_empty() && seen.len() < 100);
        // Names of the upper come last (K50), so none of these has been given yet.
        let half: Vec<OsString> = (50..200).map(|i| format!("up{i:03}").into()).collect();
        for name in &half {
            env.check("not yet seen", !seen.contains(name));
            env.ok("unlink", || sys::unlink(env.m("d").join(name)));
        }
        env.ok("create", || sys::put(env.m("d/new"), ""));
        seen.extend(plain(&sys::rest_of(&fd).unwrap()));
        env.eq(
            "no name twice",
            seen.iter().collect::<BTreeSet<_>>().len(),
            seen.len(),
        );
        let seen: BTreeSet<_> = seen.into_iter().collect();
        env.check(
            "what stayed is all there",
            all.iter().filter(|n| !half.contains(n)).all(|n| seen.contains(n)),
        );
        env.check(
            "removed names are still given",
            half.iter().all(|n| seen.contains(n)),
        );
        env.check("a name made later is not", !seen.contains(OsStr::new("new")));
        env.eq("rewind", sys::lseek(&fd, 0, libc::SEEK_SET), Ok(0));
        let again: BTreeSet<_> = plain(&sys::rest_of(&fd).unwrap()).into_iter().collect();
        env.check(
            "after a rewind the new name is there",
            again.contains(OsStr::new("new")),
        );
        env.check(
            "and the removed ones are not",
            half.iter().all(|n| !again.contains(n)),
        );
        env.eq("count after a rewind", again.len(), 400 - 150 + 1);
    });
}

#[test]
fn k51_seekdir_is_exact() {
    let lower: Vec<_> = (0..300).map(|i| file(format!("low{i:03}"), "")).collect();
    let upper: Vec<_> = (0..100).map(|i| file(format!("up{i:03}"), "")).collect();
    Scenario::new("k51 seek").lower(&lower).upper(&upper).run(|env| {
        let fd = sys::open(env.m(""), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        let list = sys::rest_of(&fd).unwrap();
        env.eq("entries", list.len(), 402);
        for i in [0usize, 1, 2, 7, 100, 299, 300, 301, 302, 400] {
            env.eq(
                format!("seek behind {i}"),
                sys::lseek(&fd, list[i].off, libc::SEEK_SET),
                Ok(list[i].off),
            );
            let rest = sys::rest_of(&fd).unwrap();
            env.check(
                format!("the rest behind {i}"),
                plain(&rest) == plain(&list[i + 1..]),
            );
        }
        env.eq(
            "at the end",
            sys::lseek(&fd, list[401].off, libc::SEEK_SET),
            Ok(list[401].off),
        );
        env.eq("nothing follows", sys::rest_of(&fd).map(|l| l.len()), Ok(0));
    });
}

#[test]
fn k51_small_buffers_and_backward_seeks_in_an_unmerged_directory() {
    let lower: Vec<_> = [dir("d")]
        .into_iter()
        .chain((0..300).map(|i| file(format!("d/{i:03}"), "")))
        .collect();
    scenario("k51 unmerged", &lower, |env| {
        let fd = sys::open(env.m("d"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        let mut list = Vec::new();
        loop {
            let part = sys::getdents(&fd, 64).unwrap();
            if part.is_empty() {
                break;
            }
            list.extend(part);
        }
        env.eq("entries", list.len(), 302);
        for i in [250usize, 100, 3] {
            let _ = sys::lseek(&fd, list[i].off, libc::SEEK_SET);
            env.check(
                format!("behind {i}"),
                plain(&sys::rest_of(&fd).unwrap()) == plain(&list[i + 1..]),
            );
        }
    });
}

#[test]
fn k52_a_directory_opened_before_copy_up() {
    scenario("k52", &[dir("d"), file("d/l", "")], |env| {
        let fd = sys::open(env.m("d"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        env.eq("before", sys::rest_of(&fd).map(|l| l.len()), Ok(3));
        env.ok("create", || sys::put(env.m("d/u"), ""));
        env.eq("rewind", sys::lseek(&fd, 0, libc::SEEK_SET), Ok(0));
        let mut names = plain(&sys::rest_of(&fd).unwrap());
        names.sort();
        env.eq("after a rewind", names, vec!["l".into(), "u".into()]);
    });
}

#[test]
fn k52_openat_below_a_directory_opened_before_copy_up() {
    scenario("k52 openat", &[dir("d"), file("d/l", "lower")], |env| {
        use std::os::fd::AsRawFd;
        let fd = sys::open(env.m("d"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        let at = |name: &str| format!("/proc/self/fd/{}/{name}", fd.as_raw_fd());
        env.ok("write", || sys::put(at("l"), "new"));
        env.ok("create", || sys::put(at("n"), "n"));
        let _ = env.want("by path", Ok("new".to_string()), || sys::text(env.m("d/l")));
        let _ = env.want("by descriptor", Ok("n".to_string()), || sys::text(at("n")));
        env.ok("fsync of the directory", || sys::fsync(&fd));
    });
}

#[test]
fn k53_a_hundred_thousand_entries() {
    if !need_root("k53") {
        return;
    }
    // On a tmpfs, since the point is ours and not the disk's.
    for fs in Fs::sides() {
        let mut layers = Layers::new();
        let ram = layers.base().join("ram");
        sys::mkdir(&ram, 0o755).unwrap();
        sys::mount("t", &ram, "tmpfs", 0, "size=1g,nr_inodes=300000").unwrap();
        for (place, name) in [
            (&mut layers.lower, "l"),
            (&mut layers.upper, "u"),
            (&mut layers.work, "w"),
        ] {
            *place = ram.join(name);
            sys::mkdir(&*place, 0o755).unwrap();
        }
        sys::mkdir(layers.lower.join("d"), 0o755).unwrap();
        sys::mkdir(layers.upper.join("d"), 0o755).unwrap();
        let one = layers.lower.join("one");
        sys::put(&one, "").unwrap();
        for i in 0..100_000 {
            let side = if i % 2 == 0 { &layers.lower } else { &layers.upper };
            sys::mknod(side.join(format!("d/entry-{i:06}")), libc::S_IFREG | 0o644, 0, 0).unwrap();
        }
        let _mounted = layers.mount(fs, &[]);
        let names: BTreeSet<_> = sys::names(layers.merged.join("d")).unwrap().into_iter().collect();
        assert_eq!(names.len(), 100_000, "{}", fs.name());
        // Removing while listing, as rm -r does.
        let fd = sys::open(layers.merged.join("d"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        let mut removed = 0;
        loop {
            let part = sys::getdents(&fd, 32768).unwrap();
            if part.is_empty() || removed > 5_000 {
                break;
            }
            for name in plain(&part) {
                assert_eq!(
                    sys::unlink(layers.merged.join("d").join(&name)),
                    Ok(()),
                    "{name:?}"
                );
                removed += 1;
            }
        }
        drop(fd);
        assert_eq!(
            sys::names(layers.merged.join("d")).unwrap().len(),
            100_000 - removed,
            "{}",
            fs.name()
        );
    }
}

#[test]
fn k53_names_that_are_not_utf8_and_odd_names() {
    let odd: Vec<OsString> = [
        b"\xff\xfe".to_vec(),
        b"a\nb".to_vec(),
        b"\xc3".to_vec(),
        b" ".to_vec(),
        b"...".to_vec(),
        b"..x".to_vec(),
        b"\\".to_vec(),
        b"#0".to_vec(),
        b"#1a2b".to_vec(),
        vec![0x80; 255],
        b"-rf".to_vec(),
        b"*".to_vec(),
        b"work".to_vec(),
        b"index".to_vec(),
        b"\x01".to_vec(),
        b":".to_vec(),
        b"a,b".to_vec(),
    ]
    .map(OsString::from_vec)
    .to_vec();
    let lower: Vec<_> = odd.iter().map(|n| file(n, n.as_bytes())).collect();
    scenario("k53 names", &lower, |env| {
        let mut all = odd.clone();
        all.sort();
        env.eq("names", sys::sorted_names(env.m("")), Ok(all));
        env.ok("mkdir", || sys::mkdir(env.m("d"), 0o755));
        for name in &odd {
            env.eq(
                format!("read {name:?}"),
                sys::cat(env.m(name)),
                Ok(name.as_bytes().to_vec()),
            );
            env.ok(format!("write {name:?}"), || sys::append(env.m(name), "!"));
            env.ok(format!("move {name:?}"), || {
                sys::rename(env.m(name), env.m("d").join(name))
            });
            env.ok(format!("make {name:?} again"), || sys::put(env.m(name), "again"));
        }
        for name in odd.iter().step_by(2) {
            env.ok(format!("unlink {name:?}"), || sys::unlink(env.m(name)));
        }
    });
}

/// K53 where a kept listing fills whole pages: the kernel keeps an entry in 24 bytes and its name, aligned to 8.
#[test]
fn k53_a_place_that_went_away_in_a_listing_of_whole_pages() {
    // SAFETY: the call takes a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
    let in_page = page / 32;
    // The listing may also be kept in parts, of before and of after a change.
    for (pages, in_upper, in_parts) in [
        (1, false, false),
        (1, true, false),
        (3, false, false),
        (3, true, false),
        (1, false, true),
        (3, true, true),
    ] {
        // One is removed, the dots are kept too.
        let count = pages * in_page - 2 + 1;
        let nodes: Vec<_> = std::iter::once(dir("d"))
            .chain((0..count).map(|i| file(format!("d/{i:06}"), "")))
            .collect();
        let scenario = Scenario::new("k53 whole pages");
        let scenario = if in_upper {
            scenario.upper(&nodes)
        } else {
            scenario.lower(&nodes)
        };
        scenario.run(|env| {
            let open = || sys::open(env.m("d"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
            let whole = |left: usize| {
                let given = sys::names(env.m("d")).map(|names| names.len());
                env.eq(format!("another reader is given {left}"), given, Ok(left));
            };
            whole(count);
            let fd = open();
            let mut seen = plain(&sys::getdents(&fd, 1024).unwrap());
            let remove = |name: &OsString| env.ok("unlink", || sys::unlink(env.m("d").join(name)));
            remove(seen.last().unwrap());
            if in_parts {
                let other = open();
                let given = plain(&sys::getdents(&other, 400).unwrap());
                remove(given.last().unwrap());
                whole(count - 2);
            } else {
                whole(count - 1);
            }
            seen.extend(plain(&sys::rest_of(&fd).unwrap()));
            env.eq("names given", seen.len(), count);
            env.eq("each once", seen.iter().collect::<BTreeSet<_>>().len(), count);
            // Which name was removed is the side's own affair.
            for name in sys::names(env.m("d")).unwrap() {
                sys::unlink(env.m("d").join(name)).unwrap();
            }
            env.ok("rmdir", || sys::rmdir(env.m("d")));
        });
    }
}

/// A reader that goes back and forth, and what it was given since the beginning.
struct Reader {
    fd: sys::Fd,
    seen: Vec<(OsString, i64)>,
}

/// K50, K51, K53: each reader gets what is there throughout exactly once, with several lowers, copy-ups, removals and
/// replacements, other readers, and positions gone back to.
#[test]
fn k53_readers_and_changes_at_random() {
    const STEPS: usize = 900;
    let numbered =
        |word: &'static str, count: usize| (0..count).map(move |i| file(format!("d/{word}{i:04}"), "x"));
    let lower = |word: &'static str, more: &'static str| -> Vec<Node> {
        let shared = numbered("both", 10);
        std::iter::once(dir("d"))
            .chain(numbered(word, 30))
            .chain(numbered(more, 8))
            .chain(shared)
            .collect()
    };
    // Names of 8 bytes, so that a listing fills whole pages now and then.
    let steady: Vec<String> = [
        ("lowa", 30),
        ("lowb", 30),
        ("lowc", 30),
        ("uppr", 14),
        ("both", 10),
    ]
    .into_iter()
    .flat_map(|(word, count)| (0..count).map(move |i| format!("{word}{i:04}")))
    .collect();
    for (seed, dir_in_upper, ours) in [
        (1, true, &[][..]),
        (2, false, &[][..]),
        (3, true, &["timeout=0"][..]),
    ] {
        let mut upper: Vec<_> = (0..70).map(|i| dir(format!("other{i}"))).collect();
        upper.extend((0..70).map(|i| file(format!("other{i}/f"), "")));
        if dir_in_upper {
            upper.push(dir("d"));
            upper.extend(numbered("uppr", 14));
        }
        let steady: Vec<_> = steady
            .iter()
            .filter(|name| dir_in_upper || !name.starts_with("uppr"))
            .collect();
        let scenario = Scenario::new("k53 at random")
            .lower(&lower("lowa", "gona"))
            .below(&lower("lowb", "gonb"))
            .below(&lower("lowc", "gonc"))
            .upper(&upper)
            .ours(ours);
        scenario.run(|env| {
            let mut state: u64 = seed;
            let mut random = |below: usize| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (state >> 33) as usize % below
            };
            let at = |name: &str| env.m("d").join(name);
            let open = || Reader {
                fd: sys::open(env.m("d"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap(),
                seen: Vec::new(),
            };
            let right = |what: &str, names: &[OsString]| {
                for name in &steady {
                    let times = names.iter().filter(|seen| *seen == name.as_str()).count();
                    if times != 1 {
                        env.fail(format!("{what}: {name} was given {times} times"));
                    }
                }
                if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
                    env.fail(format!("{what}: a name was given twice"));
                }
            };
            let mut readers: Vec<Reader> = (0..4).map(|_| open()).collect();
            for step in 0..STEPS {
                let (what, which, number) = (random(16), random(4), random(1 << 20));
                let any = steady[number % steady.len()].as_str();
                let gone = format!("gon{}{:04}", ["a", "b", "c"][number % 3], number % 8);
                match what {
                    0 => env.ok("copy-up", || sys::append(at(any), "y")),
                    1 => {
                        sys::put(at("replaces"), "z").unwrap();
                        env.ok("replace", || sys::rename(at("replaces"), at(any)));
                    }
                    2 => drop(sys::unlink(at(&gone))),
                    3 => env.ok("make again", || sys::put(at(&gone), "again")),
                    4 | 5 => env.ok("make", || sys::put(at(&format!("made{:04}", number % 20)), "")),
                    6 | 7 => drop(sys::unlink(at(&format!("made{:04}", number % 20)))),
                    8 if number % 8 == 0 => {
                        // More directories than the server keeps listings of.
                        for i in 0..70 {
                            env.check(
                                "other",
                                sys::names(env.m(format!("other{i}"))).map(|n| n.len()) == Ok(1),
                            );
                        }
                    }
                    8 | 9 => right(
                        &format!("step {step}, a fresh reader"),
                        &sys::names(env.m("d")).unwrap(),
                    ),
                    10 => {
                        // telldir and seekdir, rewinddir.
                        let reader = &mut readers[which];
                        let back = reader.seen.len().min(1 + number % 40);
                        reader.seen.truncate(reader.seen.len() - back);
                        let to = reader.seen.last().map_or(0, |(_, off)| *off);
                        env.check("seek", sys::lseek(&reader.fd, to, libc::SEEK_SET) == Ok(to));
                    }
                    _ => {
                        let reader = &mut readers[which];
                        let some = sys::getdents(&reader.fd, 100 + number % 1500).unwrap();
                        if some.is_empty() {
                            let names: Vec<_> = reader.seen.drain(..).map(|(name, _)| name).collect();
                            right(&format!("step {step}, reader {which}"), &names);
                            *reader = open();
                        }
                        reader
                            .seen
                            .extend(some.into_iter().map(|entry| (entry.name, entry.off)));
                    }
                }
            }
        });
    }
}
