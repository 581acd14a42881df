//! Several lowers, the topmost first: K36, and what it means for the other rules.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::mounting::{shown, told};
use crate::common::layers::{ours_is_plyfs, try_mount};
use crate::common::*;

const OPAQUE: &str = "trusted.overlay.opaque";

/// Three lowers in which every kind of object hides, or is hidden by, every other.
fn shadows() -> [Vec<Node>; 3] {
    let plant = |kind: &str, path: &str, text: &str| -> Vec<Node> {
        match kind {
            "f" => vec![file(path, text).mode(0o640)],
            "d" => vec![dir(path).mode(0o711), file(format!("{path}/{text}"), text)],
            "s" => vec![symlink(path, text)],
            "w" => vec![whiteout(path)],
            "p" => vec![fifo(path)],
            _ => vec![],
        }
    };
    let mut lowers: [Vec<Node>; 3] = Default::default();
    for name in shadow_names() {
        let kinds: Vec<_> = name.split('-').collect();
        for (index, (lower, kind)) in lowers.iter_mut().zip(kinds).enumerate() {
            lower.extend(plant(kind, &name, &format!("in{index}")));
        }
    }
    lowers
}

/// `a-b-c`: what the topmost, the middle and the lowest have under this name; `n` for nothing.
fn shadow_names() -> Vec<String> {
    let mut names = Vec::new();
    for top in ["f", "d", "s", "w", "p", "n"] {
        for middle in ["f", "d", "s", "w", "n"] {
            names.extend(["f", "d", "w", "n"].map(|lowest| format!("{top}-{middle}-{lowest}")));
        }
    }
    names
}

#[test]
fn k36_every_kind_hides_every_other() {
    let [top, middle, lowest] = shadows();
    let scenario = Scenario::new("k36 shadows")
        .lower(&top)
        .below(&middle)
        .below(&lowest);
    scenario.run(|env| {
        env.note("root", &sys::sorted_names(env.m("")));
        for name in sys::sorted_names(env.m("")).unwrap() {
            let path = env.m(&name);
            env.note(
                format!("{name:?}"),
                &sys::lstat(&path).map(|st| (st.st_mode, st.st_nlink)),
            );
            if sys::lstat(&path).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFDIR) {
                env.note(format!("in {name:?}"), &sys::sorted_names(&path));
            }
        }
    });
}

#[test]
fn k36_changes_where_every_kind_hides_every_other() {
    let [top, middle, lowest] = shadows();
    let scenario = Scenario::new("k36 changes")
        .lower(&top)
        .below(&middle)
        .below(&lowest);
    scenario.run(|env| {
        for (index, name) in shadow_names().into_iter().enumerate() {
            let path = env.m(&name);
            let done = match index % 7 {
                // A fifo would wait for a reader.
                5 if name.starts_with('p') => sys::unlink(&path),
                0 => sys::chmod(&path, 0o600),
                1 => sys::unlink(&path),
                2 => sys::rmdir(&path),
                3 => sys::rename(&path, env.m(format!("new-{name}"))),
                4 => sys::mkdir(&path, 0o750),
                5 => sys::put(&path, "new").or_else(|_| sys::put(path.join("new"), "new")),
                _ => {
                    let gone = sys::walk(&path)
                        .iter()
                        .rev()
                        .all(|path| sys::unlink(path).or_else(|_| sys::rmdir(path)).is_ok());
                    let gone = (gone, sys::rmdir(&path).or_else(|_| sys::unlink(&path)));
                    env.note(format!("remove all of {name}"), &gone);
                    sys::mkdir(&path, 0o700)
                }
            };
            env.note(format!("change {index} of {name}"), &done);
        }
    });
}

#[test]
fn k36_with_an_upper_on_top() {
    let lowers = [
        vec![
            dir("d"),
            file("d/1", "1"),
            dir("op").xattr(OPAQUE, "y"),
            file("op/1", "1"),
            dir("gone"),
            dir("u"),
        ],
        vec![
            dir("d"),
            whiteout("d/3"),
            file("d/2", "2"),
            dir("op"),
            file("op/2", "2"),
        ],
        vec![
            dir("d"),
            file("d/3", "3"),
            file("d/1", "3"),
            dir("gone"),
            file("gone/3", "3"),
            file("u", "3"),
        ],
    ];
    let upper = [
        dir("d"),
        file("d/u", "u"),
        whiteout("d/2"),
        dir("op"),
        file("op/u", "u"),
        whiteout("gone"),
        dir("u"),
        file("u/u", "u"),
    ];
    let scenario = Scenario::new("k36 upper")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2]);
    scenario.upper(&upper).run(|env| {
        let names = |path: &str| sys::sorted_names(env.m(path));
        env.eq("d", names("d"), Ok(vec!["1".into(), "u".into()]));
        env.eq(
            "the first lower that has it",
            sys::text(env.m("d/1")),
            Ok("1".into()),
        );
        env.eq("op", names("op"), Ok(vec!["1".into(), "u".into()]));
        env.fails("gone", sys::ENOENT, || sys::lstat(env.m("gone")).map(drop));
        env.eq("u", names("u"), Ok(vec!["u".into()]));
        env.eq("nlink of u is 1: it is merged", sys::nlink(env.m("u")), Ok(1));
        env.ok("gone again", || sys::mkdir(env.m("gone"), 0o700));
        env.eq("nothing shows in it", names("gone"), Ok(vec![]));
    });
}

#[test]
fn k36_opaque_in_the_middle() {
    for (word, mark) in [(None, OPAQUE), (Some("userxattr"), "user.overlay.opaque")] {
        let other = if word.is_none() {
            "user.overlay.opaque"
        } else {
            OPAQUE
        };
        let lowers = [
            vec![
                dir("a"),
                file("a/1", "1"),
                dir("b"),
                dir("c"),
                dir("n"),
                dir("o"),
                file("o/1", "1"),
            ],
            vec![
                dir("a").xattr(mark, "y"),
                file("a/2", "2"),
                dir("a/s"),
                dir("b").xattr(mark, "n"),
                dir("c").xattr(other, "y"),
                dir("n"),
                dir("n/n").xattr(mark, "y"),
                file("n/n/2", "2"),
                dir("own").xattr(mark, "y"),
                file("own/2", "2"),
            ],
            vec![
                dir("a"),
                file("a/3", "3"),
                dir("a/s"),
                file("a/s/3", "3"),
                dir("b"),
                file("b/3", "3"),
                dir("c"),
                file("c/3", "3"),
                dir("n"),
                dir("n/n"),
                file("n/n/3", "3"),
                dir("own"),
                file("own/3", "3"),
                dir("o").xattr(mark, "y"),
                file("o/3", "3"),
            ],
        ];
        let words: Vec<&str> = word.into_iter().collect();
        let scenario = Scenario::new("k36 opaque")
            .lower(&lowers[0])
            .below(&lowers[1])
            .below(&lowers[2]);
        scenario.words(&words).run(|env| {
            let names = |path: &str| sys::sorted_names(env.m(path));
            let list = |list: &[&str]| Ok(list.iter().map(OsString::from).collect());
            env.eq("a", names("a"), list(&["1", "2", "s"]));
            env.eq("below an opaque one only it is asked", names("a/s"), list(&[]));
            env.eq("only y counts", names("b"), list(&["3"]));
            env.eq("only the namespace in use counts", names("c"), list(&["3"]));
            env.eq("n/n", names("n/n"), list(&["2"]));
            env.eq("own", names("own"), list(&["2"]));
            env.eq("nothing to hide in the lowest", names("o"), list(&["1", "3"]));
            env.ok("copy-up of one in it", || sys::append(env.m("a/2"), "more"));
            env.eq("a after it", names("a"), list(&["1", "2", "s"]));
            env.ok("no whiteout needed", || sys::unlink(env.m("own/2")));
            env.ok("rmdir", || sys::rmdir(env.m("own")));
        });
    }
}

/// A mark on a lower's root means nothing, as on the upper's.
#[test]
fn k23_opaque_root_of_a_lower() {
    let lowers = [vec![file("1", "1")], vec![file("2", "2")], vec![file("3", "3")]];
    let scenario = Scenario::new("k23 lower root")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2]);
    let scenario = scenario.prepare(|layers| {
        for lower in layers.lowers() {
            sys::setxattr(lower, OPAQUE, "y").unwrap();
        }
    });
    scenario.run(|env| {
        let all = Ok(vec!["1".into(), "2".into(), "3".into()]);
        env.eq("all", sys::sorted_names(env.m("")), all);
    });
}

#[test]
fn k36_attributes_are_the_topmost_s() {
    let lowers = [
        vec![
            dir("d")
                .mode(0o1711)
                .own(1, 2)
                .xattr("user.a", "1")
                .mtime(1000, 1),
            dir("d/s").mode(0o700),
        ],
        vec![dir("d").mode(0o755).own(3, 4).xattr("user.b", "2").mtime(2000, 2)],
        vec![
            dir("d").mode(0o777).own(5, 6).xattr("user.c", "3").mtime(3000, 3),
            dir("d/s").mode(0o711),
        ],
    ];
    let scenario = Scenario::new("k36 attributes")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2]);
    scenario.run(|env| {
        let all = |when: &str| {
            env.eq(format!("mode {when}"), sys::mode(env.m("d")), Ok(0o1711));
            env.eq(format!("owner {when}"), sys::owner(env.m("d")), Ok((1, 2)));
            env.eq(
                format!("xattrs {when}"),
                sys::listxattr(env.m("d")),
                Ok(vec!["user.a".into()]),
            );
            env.eq(format!("nlink {when}"), sys::nlink(env.m("d")), Ok(1));
        };
        all("at first");
        let number = sys::ino(env.m("d"));
        env.eq("number", number, sys::ino(env.l("d")));
        env.ok("copy-up", || sys::put(env.m("d/s/new"), "new"));
        all("after copy-up");
        env.eq("number after copy-up", sys::ino(env.m("d")), number);
        env.eq("mode of d/s", sys::mode(env.m("d/s")), Ok(0o700));
        env.remount();
        all("after the remount");
        env.eq("number after the remount", sys::ino(env.m("d")), number);
    });
}

/// K50 with several lowers: the lowest's names first, in its order; then those of the others, from the top.
#[test]
fn k50_order_of_several_lowers() {
    let numbered = |from: usize, to: usize| -> Vec<Node> {
        let mut nodes = vec![dir("d"), dir("only")];
        nodes.extend((from..to).map(|i| file(format!("d/{i}"), i.to_string())));
        nodes
    };
    let mut lowers = [numbered(0, 30), numbered(20, 50), numbered(40, 70)];
    lowers[0].extend([file("only/1", ""), whiteout("d/65"), dir("d/41x")]);
    lowers[1].extend([whiteout("d/60"), whiteout("d/5"), file("d/65", "")]);
    let scenario = Scenario::new("k50 lowers")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2]);
    scenario.run(|env| {
        env.note("order", &sys::names(env.m("d")));
        let types = sys::dirents(env.m("d")).map(|list| {
            let named = list.into_iter().filter(|d| d.name != "." && d.name != "..");
            named.map(|d| d.kind).collect::<Vec<_>>()
        });
        env.note("types", &types);
        let list = sys::names(env.m("d")).unwrap();
        env.check(
            "each once",
            list.iter().collect::<HashSet<_>>().len() == list.len(),
        );
        env.check(
            "hidden by a lower's whiteout",
            !list.iter().any(|name| name == "60" || name == "65"),
        );
        env.note("of one", &sys::names(env.m("only")));
    });
}

/// K50 with several lowers and an upper: what only the upper has stands behind the lowest's names; what is copied up
/// from another lower stands there too with the kernel, and keeps its place with plyfs.
#[test]
fn k50_order_of_several_lowers_after_copy_up() {
    let lowers = ["a", "b", "c"]
        .map(|word| -> Vec<Node> { (0..9).map(|i| file(format!("{word}{i}"), word)).collect() });
    let scenario = Scenario::new("k50 copied up")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2])
        .upper(&[file("u", "")]);
    scenario.run(|env| {
        // Which layer each name is of: a file system's own order is its own affair, and so is ours of the upper's.
        let names = || sys::names(env.m("")).unwrap();
        let letters = || -> String {
            let mut letters: Vec<_> = names()
                .iter()
                .map(|name| name.as_encoded_bytes()[0] as char)
                .collect();
            letters.dedup();
            letters.into_iter().collect()
        };
        let before = names();
        env.eq("at first", letters(), "cuab".into());
        for name in ["a4", "c2"] {
            env.ok(format!("append to {name}"), || sys::append(env.m(name), "x"));
        }
        let moved = |before: &[OsString]| {
            let rest = |names: &[OsString]| -> Vec<_> {
                names.iter().filter(|name| *name != "a4").cloned().collect()
            };
            let now = names();
            env.check("all others keep their order", rest(&now) == rest(before));
            let at = |name: &str| now.iter().position(|other| other == name).unwrap();
            let first_of_a = now
                .iter()
                .position(|name| name.as_encoded_bytes()[0] == b'a' && name != "a4");
            let ahead = at("a4") < first_of_a.unwrap();
            Ok(if now == before {
                "no"
            } else if ahead {
                "ahead"
            } else {
                "elsewhere"
            })
        };
        // Before the copy-up it may have been the first of its lower already.
        let (kernel, ours) = ("Ok(\"ahead\")", &["Ok(\"no\")"]);
        let _ = env.differs("place-after-copy-up", "a4", kernel, ours, || moved(&before));
        env.remount();
        let _ = env.differs(
            "place-after-copy-up",
            "a4 after the remount",
            kernel,
            ours,
            || moved(&before),
        );
    });
}

/// K51, K53: positions stay true while names come and go.
#[test]
fn k53_positions_over_several_lowers() {
    const ROUNDS: usize = 12;
    let numbered = |from: usize, to: usize| -> Vec<Node> {
        std::iter::once(dir("d"))
            .chain((from..to).map(|i| file(format!("d/name-of-some-length-{i}"), "")))
            .collect()
    };
    let scenario = Scenario::new("k53 lowers")
        .lower(&numbered(0, 300))
        .below(&numbered(200, 500))
        .below(&numbered(400, 700));
    scenario.run(|env| {
        let fd = sys::open(env.m("d"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        let mut seen: Vec<OsString> = Vec::new();
        let mut round = 0;
        loop {
            let some = sys::getdents(&fd, 2048).unwrap();
            if some.is_empty() {
                break;
            }
            seen.extend(some.into_iter().map(|d| d.name));
            // How many names a call gives is the side's own affair.
            if round < ROUNDS {
                let _ = sys::unlink(env.m(format!("d/name-of-some-length-{}", round * 7)));
                sys::put(env.m(format!("d/new-{round}")), "").unwrap();
                round += 1;
            }
        }
        env.eq("all changes were made", round, ROUNDS);
        let removed: HashSet<_> = (0..round)
            .map(|i| format!("name-of-some-length-{}", i * 7))
            .collect();
        for i in (0..700)
            .map(|i| format!("name-of-some-length-{i}"))
            .filter(|name| !removed.contains(name))
        {
            let times = seen.iter().filter(|name| **name == *i).count();
            if times != 1 {
                env.fail(format!("{i} was listed {times} times"));
            }
        }
    });
}

#[test]
fn k60_copy_up_from_each_lower() {
    let lowers = [
        vec![dir("d"), dir("d/e").mode(0o750), file("d/one", "one")],
        vec![
            dir("d"),
            file("d/two", "two").mode(0o600),
            dir("only"),
            symlink("only/s", "x"),
        ],
        vec![
            dir("d"),
            dir("d/e").own(7, 8),
            file("d/e/three", "three")
                .mode(0o4755)
                .xattr("user.x", "y")
                .own(9, 9),
            sparse("d/e/sparse", 1 << 20, &[(4096, b"data")]),
            dir("only"),
            fifo("only/p"),
            dir("deep"),
            dir("deep/er"),
            file("deep/er/f", "f"),
        ],
    ];
    let scenario = Scenario::new("k60 lowers")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2]);
    scenario.run(|env| {
        let numbers: Vec<_> = sys::walk(&env.m(""))
            .into_iter()
            .map(|path| (sys::ino(&path), path))
            .collect();
        for path in ["d/one", "d/two", "d/e/three", "d/e/sparse", "deep/er/f"] {
            env.ok(format!("append to {path}"), || sys::append(env.m(path), "!"));
            env.note(
                format!("text of {path}"),
                &sys::cat(env.m(path)).map(|data| data.len()),
            );
        }
        env.ok("chmod", || sys::chmod(env.m("only/p"), 0o600));
        env.ok("chown of a symlink", || sys::chown(env.m("only/s"), 3, 3));
        env.ok("link", || sys::link(env.m("deep/er/f"), env.m("d/linked")));
        env.ok("times of a directory", || {
            sys::utimens(env.m("d/e"), (5, 5), (6, 6))
        });
        for (number, path) in numbers {
            env.eq(
                format!("number of {}", path.file_name().unwrap().display()),
                sys::ino(&path),
                number,
            );
        }
        env.eq(
            "one file",
            sys::ino(env.m("deep/er/f")),
            sys::ino(env.m("d/linked")),
        );
    });
}

#[test]
fn k42_hard_links_in_and_across_lowers() {
    let lowers = [
        vec![dir("d"), file("d/a", "top")],
        vec![
            dir("d"),
            file("d/a", "2"),
            hard("d/b", "d/a"),
            hard("c", "d/a"),
            file("x", "x"),
        ],
        vec![dir("d"), file("d/b", "3"), hard("d/z", "d/b"), file("y", "y")],
    ];
    let scenario = Scenario::new("k42 lowers")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2]);
    scenario
        .prepare(|layers| {
            // One inode in two lowers.
            sys::link(layers.below[0].join("x"), layers.below[1].join("x-too")).unwrap();
        })
        .field_differs("group-number", "same")
        // Who was met first keeps its number: not the same over the remount, where the walk meets them otherwise.
        .numbers_may_change()
        .run(|env| {
            for path in ["d/a", "d/b", "c", "d/z", "x", "x-too"] {
                env.note(path, &(sys::text(env.m(path)), sys::nlink(env.m(path))));
            }
            env.eq("one number", sys::ino(env.m("d/b")), sys::ino(env.m("c")));
            env.ok("write by one name", || sys::append(env.m("d/b"), "+"));
            env.eq(
                "the other has the old data",
                sys::text(env.m("c")),
                Ok("2".into()),
            );
            env.check(
                "and they are two files",
                sys::ino(env.m("d/b")) != sys::ino(env.m("c")),
            );
            env.ok("write to one of two lowers' names", || {
                sys::append(env.m("x"), "+")
            });
            env.eq(
                "the other lower's name",
                sys::text(env.m("x-too")),
                Ok("x".into()),
            );
            env.check("two files", sys::ino(env.m("x")) != sys::ino(env.m("x-too")));
        });
}

#[test]
fn k85_rmdir_where_lowers_hide_each_other() {
    let lowers = [
        vec![
            dir("a"),
            whiteout("a/x"),
            dir("b"),
            dir("c"),
            whiteout("c/x"),
            dir("e"),
        ],
        vec![
            dir("a"),
            file("a/x", "x"),
            dir("b"),
            whiteout("b/y"),
            dir("e").xattr(OPAQUE, "y"),
        ],
        vec![
            dir("a"),
            file("a/x", "x"),
            dir("b"),
            file("b/y", "y"),
            dir("c"),
            file("c/x", "x"),
            file("c/z", "z"),
            dir("e"),
            file("e/f", "f"),
        ],
    ];
    let scenario = Scenario::new("k85 lowers")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2]);
    scenario.run(|env| {
        env.ok("hidden by the topmost", || sys::rmdir(env.m("a")));
        env.ok("hidden by the middle", || sys::rmdir(env.m("b")));
        env.fails("not all of it", sys::ENOTEMPTY, || sys::rmdir(env.m("c")));
        env.ok("opaque", || sys::rmdir(env.m("e")));
        env.ok("the rest", || sys::unlink(env.m("c/z")));
        env.ok("then it is empty", || sys::rmdir(env.m("c")));
        for name in ["a", "b", "c", "e"] {
            env.ok(format!("mkdir {name}"), || sys::mkdir(env.m(name), 0o755));
            env.eq(format!("{name} is empty"), sys::names(env.m(name)), Ok(vec![]));
        }
    });
}

/// K84, K90: a whiteout is needed only if a lower would show.
#[test]
fn k84_whiteouts_only_where_a_lower_shows() {
    let lowers = [
        vec![
            whiteout("hidden"),
            dir("d"),
            whiteout("d/hidden"),
            whiteout("dir"),
        ],
        vec![
            file("hidden", "2"),
            dir("d"),
            file("d/hidden", "2"),
            file("d/two", "2"),
            dir("dir"),
            file("dir/f", "2"),
        ],
        vec![
            file("hidden", "3"),
            dir("d"),
            file("d/three", "3"),
            file("d/two", "3"),
        ],
    ];
    let scenario = Scenario::new("k84 lowers")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2]);
    scenario.run(|env| {
        let bare = |path: &str| env.check(format!("no whiteout at {path}"), sys::lstat(env.u(path)).is_err());
        let white = |path: &str| {
            let found = sys::lstat(env.u(path)).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFCHR);
            env.check(format!("a whiteout at {path}"), found);
        };
        for name in ["hidden", "d/hidden"] {
            env.fails(format!("{name} at first"), sys::ENOENT, || sys::text(env.m(name)));
            env.ok(format!("make {name}"), || sys::put(env.m(name), "new"));
            env.ok(format!("remove {name}"), || sys::unlink(env.m(name)));
            bare(name);
        }
        for name in ["d/two", "d/three"] {
            env.ok(format!("remove {name}"), || sys::unlink(env.m(name)));
            white(name);
        }
        env.ok("mkdir over what a lower hides", || {
            sys::mkdir(env.m("dir"), 0o755)
        });
        env.eq(
            "nothing of the lowers shows in it",
            sys::names(env.m("dir")),
            Ok(vec![]),
        );
        env.ok("rmdir", || sys::rmdir(env.m("dir")));
        bare("dir");
        env.ok("make a file", || sys::put(env.m("f"), "f"));
        env.ok("rename onto a hidden name", || {
            sys::rename(env.m("f"), env.m("hidden"))
        });
        env.ok("and away", || sys::rename(env.m("hidden"), env.m("g")));
        bare("hidden");
        env.ok("a pure directory", || sys::mkdir(env.m("pure"), 0o755));
        env.ok("in it", || sys::put(env.m("pure/in"), "in"));
        env.ok("onto a hidden directory's name", || {
            sys::rename(env.m("pure"), env.m("dir"))
        });
        env.eq(
            "only its own",
            sys::sorted_names(env.m("dir")),
            Ok(vec!["in".into()]),
        );
    });
}

#[test]
fn k94_directories_of_any_lower_keep_their_place() {
    let lowers = [
        vec![dir("both"), file("both/1", "1"), dir("in"), whiteout("in/gone")],
        vec![dir("two"), file("two/2", "2"), dir("in")],
        vec![
            dir("both"),
            file("both/3", "3"),
            dir("three"),
            file("f3", "3"),
            dir("in"),
            file("in/gone", "3"),
        ],
    ];
    let scenario = Scenario::new("k94 lowers")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2]);
    scenario.run(|env| {
        for name in ["both", "two", "three"] {
            env.fails(name, sys::EXDEV, || sys::rename(env.m(name), env.m("moved")));
        }
        env.untouched("refused renames");
        env.ok("a file of the third", || sys::rename(env.m("f3"), env.m("in/f3")));
        env.ok("onto a name that a lower hides", || {
            sys::rename(env.m("in/f3"), env.m("in/gone"))
        });
        env.eq("its text", sys::text(env.m("in/gone")), Ok("3".into()));
        env.ok("a new directory", || sys::mkdir(env.m("new"), 0o755));
        env.ok("exchange with a file", || {
            sys::rename2(env.m("new"), env.m("both/1"), libc::RENAME_EXCHANGE)
        });
        env.fails("exchange with a lower's directory", sys::EXDEV, || {
            sys::rename2(env.m("new"), env.m("both"), libc::RENAME_EXCHANGE)
        });
    });
}

/// K26: what a lower takes from elsewhere would be missing.
#[test]
fn k26_redirect_in_a_lower() {
    let lowers = [
        vec![
            dir("top").xattr("trusted.overlay.redirect", "elsewhere"),
            file("top/1", "1"),
            dir("d"),
        ],
        vec![
            dir("d").xattr("trusted.overlay.redirect", "elsewhere"),
            dir("mid"),
        ],
        vec![
            dir("d"),
            dir("mid").xattr("trusted.overlay.redirect", "elsewhere"),
            file("mid/3", "3"),
        ],
    ];
    let scenario = Scenario::new("k26 lowers")
        .lower(&lowers[0])
        .below(&lowers[1])
        .below(&lowers[2]);
    // The snapshot of what cannot be looked up is an error on both sides.
    scenario.words(&["redirect_dir=nofollow"]).run(|env| {
        env.fails("in the topmost", sys::EPERM, || {
            sys::lstat(env.m("top")).map(drop)
        });
        env.fails("in the middle", sys::EPERM, || sys::lstat(env.m("d")).map(drop));
        env.eq(
            "in the lowest it has no effect",
            sys::sorted_names(env.m("mid")),
            Ok(vec!["3".into()]),
        );
    });
}

#[test]
fn k2_two_lowers_alone_are_read_only() {
    if !need_root("k2 two lowers") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new()
            .with_lower(&[dir("d"), file("d/1", "1"), whiteout("f")])
            .with_below(&[dir("d"), file("d/2", "2"), file("f", "2"), file("g", "2")]);
        let mounted = try_mount(fs, &layers.lowerdir(), &layers.merged);
        let _mounted = mounted.unwrap_or_else(|e| panic!("{}: {e:?}", fs.name()));
        let m = |name: &str| layers.merged.join(name);
        assert_eq!(sys::sorted_names(m("")), Ok(vec!["d".into(), "g".into()]));
        assert_eq!(sys::sorted_names(m("d")), Ok(vec!["1".into(), "2".into()]));
        for done in [
            sys::put(m("new"), ""),
            sys::append(m("g"), "x"),
            sys::unlink(m("d/1")),
            sys::mkdir(m("f"), 0o755),
            sys::chmod(m("d"), 0o700),
            sys::setxattr(m("g"), "user.x", "y"),
            sys::rename(m("g"), m("h")),
        ] {
            assert_eq!(done, Err(sys::EROFS), "{}", fs.name());
        }
    }
}

#[test]
fn k4_a_lower_twice_or_in_another() {
    type Arrange = fn(&mut Layers);
    let cases: [(&str, Arrange); 4] = [
        ("twice", |l| l.below.push(l.lower.clone())),
        ("inside the first", |l| l.below[0] = l.lower.join("d")),
        ("the first inside", |l| l.lower = l.below[0].join("d")),
        ("below the upper", |l| l.below[0] = l.upper.join("u")),
    ];
    if !need_root("k4 lowers") {
        return;
    }
    for fs in Fs::sides() {
        for (name, arrange) in cases {
            let mut layers = Layers::new().with_lower(&[dir("d")]).with_below(&[dir("d")]);
            sys::mkdir(layers.upper.join("u"), 0o755).unwrap();
            arrange(&mut layers);
            let culprit = shown(layers.below.last().unwrap());
            match layers.try_mount(fs, &[]) {
                Ok(_) => panic!("{name}: {} mounted", fs.name()),
                Err(refused) => told(fs, &refused, sys::ELOOP, &culprit),
            }
        }
        // The upper in a lower, whichever, is allowed, and does not show.
        for index in [0, 1] {
            let mut layers = Layers::new()
                .with_lower(&[file("1", "1")])
                .with_below(&[file("2", "2")]);
            let home = layers.lowers().nth(index).unwrap().clone();
            (layers.upper, layers.work) = (home.join("u"), home.join("w"));
            sys::mkdir(&layers.upper, 0o755).unwrap();
            sys::mkdir(&layers.work, 0o755).unwrap();
            let _mounted = layers.mount(fs, &[]);
            assert_eq!(sys::put(layers.merged.join("2"), "new"), Ok(()));
            let upper = sys::lstat(layers.merged.join("u")).map(drop);
            assert_eq!(upper, Err(sys::ELOOP), "{} {index}", fs.name());
        }
    }
}

#[test]
fn k10_five_hundred_lowers_and_no_more() {
    if !need_root("k10 500") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new();
        let mut lowers = Vec::new();
        for i in 0..501 {
            // Short, for the kernel's page of options.
            let path = layers.base().join(format!("n{i}"));
            sys::mkdir(&path, 0o755).unwrap();
            sys::mkdir(path.join("d"), 0o755).unwrap();
            sys::put(path.join(format!("d/{i}")), i.to_string()).unwrap();
            sys::put(path.join("same"), i.to_string()).unwrap();
            lowers.push(format!("n{i}"));
        }
        let here = std::env::current_dir().unwrap();
        let options = |count: usize| OsString::from(format!("lowerdir={}", lowers[..count].join(":")));
        // Relative, so the working directory has to be there; no other thread may look at it meanwhile.
        let within = |count: usize| {
            let script = match fs {
                Fs::Kernel => "exec mount -t overlay none -o \"$1\" m",
                Fs::Plyfs => "ulimit -n 1024; exec \"$2\" m -o \"$1\"",
            };
            let mut command = std::process::Command::new("sh");
            command
                .args(["-c", script, "sh"])
                .arg(options(count))
                .arg(env!("CARGO_BIN_EXE_plyfs"));
            layers::run(command.current_dir(layers.base()))
        };
        if fs == Fs::Plyfs && !ours_is_plyfs() {
            continue;
        }
        let (status, _) = within(501);
        assert!(status != 0, "{}", fs.name());
        let (status, message) = within(500);
        assert_eq!(status, 0, "{}: {message}", fs.name());
        let m = |name: &str| layers.merged.join(name);
        assert_eq!(sys::names(m("d")).map(|list| list.len()), Ok(500));
        assert_eq!(sys::text(m("same")), Ok("0".into()));
        for i in [0, 1, 250, 499] {
            assert_eq!(sys::text(m(&format!("d/{i}"))), Ok(i.to_string()));
        }
        assert_eq!(std::env::current_dir().unwrap(), here);
        sys::umount(&layers.merged, 0).unwrap();
    }
}

/// K114 for several lowers, which share a clone of their mount if it is the same: no time of access moves, and the server
/// has none of them open through the mount that others write to.
#[test]
fn k114_reading_several_lowers_changes_no_time() {
    if !need_root("k114 of several lowers") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new()
            .with_lower(&[file("f", "x"), dir("d")])
            .with_below(&[dir("d"), file("d/x", "x")])
            .with_below(&[dir("d"), file("d/y", "y"), file("g", "g")]);
        let elsewhere = layers.base().join("elsewhere");
        sys::mkdir(&elsewhere, 0o755).unwrap();
        sys::mount("none", &elsewhere, "tmpfs", 0, "mode=755").unwrap();
        plant::plant(&elsewhere, &[file("h", "h"), dir("d"), file("d/z", "z")]);
        let lowers: Vec<_> = layers.lowers().cloned().chain([elsewhere.clone()]).collect();
        let objects = |names: &[&str]| -> Vec<_> {
            let paths = lowers
                .iter()
                .flat_map(|lower| names.iter().map(|name| lower.join(name)));
            paths.filter(|path| sys::lstat(path).is_ok()).collect()
        };
        let names = ["f", "g", "h", "d", "d/x", "d/y", "d/z"];
        let old = ((1000, 5), (2000, 6));
        for path in objects(&names) {
            sys::utimens(path, old.0, old.1).unwrap();
        }
        let joined: Vec<_> = lowers.iter().map(|lower| lower.to_str().unwrap()).collect();
        let options = format!("lowerdir={}", joined.join(":"));
        let mounted = try_mount(fs, options.as_ref(), &layers.merged).unwrap();
        for (name, text) in [
            ("f", "x"),
            ("g", "g"),
            ("h", "h"),
            ("d/x", "x"),
            ("d/y", "y"),
            ("d/z", "z"),
        ] {
            assert_eq!(sys::text(layers.merged.join(name)), Ok(text.into()));
        }
        assert_eq!(sys::names(layers.merged.join("d")).map(|list| list.len()), Ok(3));
        if let Some(server) = mounted.server().filter(|_| fs == Fs::Plyfs && ours_is_plyfs()) {
            let own = sys::open(&lowers[0], libc::O_PATH).unwrap();
            let own = number_in(format!("/proc/self/fdinfo/{}", own.as_raw_fd()), "mnt_id:");
            let mounts_of = |lower| -> Vec<u64> {
                let numbers = descriptors_of(server, lower).into_iter();
                numbers
                    .map(|number| number_in(format!("/proc/{server}/fdinfo/{number}"), "mnt_id:"))
                    .collect()
            };
            let seen: Vec<_> = lowers.iter().map(|lower| mounts_of(lower)).collect();
            let [first, second, third, other] = seen.as_slice() else {
                panic!("{seen:?}");
            };
            assert!(!first.is_empty() && !first.contains(&own), "{first:?} {own}");
            assert!(first == second && second == third, "{seen:?}");
            assert!(!other.is_empty() && first != other, "{seen:?}");
            // And room for descriptors, so that nobody waits for the kernel to make it.
            assert!(number_in(format!("/proc/{server}/status"), "FDSize:") >= 8192);
        }
        mounted.umount();
        for path in objects(&names) {
            let st = sys::lstat(&path).unwrap();
            assert_eq!(
                (st.st_atime, st.st_atime_nsec),
                old.0,
                "{}: {}",
                fs.name(),
                path.display()
            );
        }
        sys::umount(&elsewhere, 0).unwrap();
    }
}

/// What is mounted beside the lowers, or in them, after the view, is no business of the server's: it does not see it
/// there, and so does not keep it busy, though the mount of the lowers is shared.
#[test]
fn later_mounts_do_not_come_to_the_server() {
    if !need_root("later mounts beside lowers") || !ours_is_plyfs() {
        return;
    }
    let layers = Layers::new();
    let shared = layers.base().join("shared");
    sys::mkdir(&shared, 0o755).unwrap();
    sys::mount("none", &shared, "tmpfs", 0, "mode=755").unwrap();
    sys::mount("none", &shared, "", libc::MS_SHARED, "").unwrap();
    plant::plant(
        &shared,
        &[dir("a"), dir("a/in"), dir("b"), file("b/f", "f"), dir("beside")],
    );
    for lowers in [&["a", "b"][..], &["a"]] {
        let paths: Vec<_> = lowers.iter().map(|name| shared.join(name)).collect();
        let joined: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        let options = format!("ro,lowerdir={}", joined.join(":"));
        let mounted = try_mount(Fs::Plyfs, options.as_ref(), &layers.merged).unwrap();
        let server = mounted.server().unwrap();
        for later in ["beside", "a/in"] {
            sys::mount("none", &shared.join(later), "tmpfs", 0, "").unwrap();
            sys::put(shared.join(later).join("later"), "x").unwrap();
        }
        let numbers = descriptors_of(server, &paths[0]);
        assert!(!numbers.is_empty());
        for number in numbers {
            for later in ["../beside/later", "in/later"] {
                let at = format!("/proc/{server}/fd/{number}/{later}");
                assert_eq!(sys::lstat(at).err(), Some(sys::ENOENT), "{later}");
            }
        }
        assert_eq!(sys::names(layers.merged.join("in")), Ok(vec![]));
        for later in ["beside", "a/in"] {
            sys::umount(&shared.join(later), 0).unwrap();
        }
        mounted.umount();
    }
}

/// The numbers of a server's descriptors of an object.
fn descriptors_of(server: i32, object: &Path) -> Vec<String> {
    let wanted = sys::lstat(object).unwrap();
    let numbers = sys::names(format!("/proc/{server}/fd")).unwrap().into_iter();
    numbers
        .map(|number| number.into_string().unwrap())
        .filter(|number| {
            sys::stat(format!("/proc/{server}/fd/{number}"))
                .is_ok_and(|st| (st.st_dev, st.st_ino) == (wanted.st_dev, wanted.st_ino))
        })
        .collect()
}

/// The number after `key` in one of the kernel's files.
fn number_in(file: String, key: &str) -> u64 {
    let text = sys::text(file).unwrap();
    let number = text.lines().find_map(|line| line.strip_prefix(key));
    number.unwrap().trim().parse().unwrap()
}

/// K44, K46: several file systems, several marks in the numbers, and all of them stay.
#[test]
fn k44_lowers_on_several_file_systems() {
    if !need_root("k44 lowers") || layers::program_is_kernel() {
        return;
    }
    for fs in Fs::sides().into_iter().filter(|fs| *fs == Fs::Plyfs) {
        known::difference("one-device");
        let mut layers = Layers::new();
        let nodes = |which: usize| -> Vec<Node> {
            let mut nodes = vec![
                dir("d"),
                dir(format!("only{which}")),
                file(format!("only{which}/f"), "f"),
            ];
            nodes.extend((0..50).map(|i| file(format!("d/{which}-{i}"), "x")));
            nodes.extend([
                file(format!("h{which}"), "h"),
                hard(format!("i{which}"), format!("h{which}")),
            ]);
            nodes
        };
        // The topmost on the upper's own file system, three others on one each: their numbers are small and alike.
        layers = layers.with_lower(&nodes(0));
        for which in 1..4 {
            let other = layers.base().join(format!("fs{which}"));
            sys::mkdir(&other, 0o755).unwrap();
            sys::mount("t", &other, "tmpfs", 0, "").unwrap();
            let root = other.join("l");
            sys::mkdir(&root, 0o755).unwrap();
            plant::plant(&root, &nodes(which));
            layers.below.push(root);
        }
        let mounted = layers.mount(fs, &[]);
        let m = |name: &str| layers.merged.join(name);
        let before = scenario::numbers(&layers.merged);
        let mut seen = std::collections::HashMap::new();
        for (path, number) in &before {
            if let Some(other) = seen.insert(number, path)
                && sys::nlink(path) == Ok(1)
            {
                panic!("{} and {} have one number", path.display(), other.display());
            }
        }
        let device = sys::lstat(m("")).unwrap().st_dev;
        assert!(
            before
                .keys()
                .all(|path| sys::lstat(path).unwrap().st_dev == device)
        );
        for path in before
            .keys()
            .filter(|path| !path.file_name().unwrap().as_encoded_bytes().starts_with(b"i"))
        {
            sys::chown(path, 5, 5).unwrap();
        }
        let changed = |after: std::collections::BTreeMap<std::path::PathBuf, u64>| -> Vec<_> {
            before
                .iter()
                .filter(|(path, number)| after.get(*path) != Some(number))
                .map(|(p, _)| p.clone())
                .collect()
        };
        // Of the groups one name was copied up after the other had been met (K42).
        let expected =
            |path: &std::path::PathBuf| path.file_name().unwrap().as_encoded_bytes().starts_with(b"h");
        let after = changed(scenario::numbers(&layers.merged));
        assert!(after.iter().all(expected), "after copy-up: {after:?}");
        let _mounted = mounted.remount();
        let after = changed(scenario::numbers(&layers.merged));
        assert!(after.iter().all(expected), "after the remount: {after:?}");
    }
}

/// K5: a lower may be any directory, a view too.
#[test]
fn k5_lowers_that_are_views() {
    if !need_root("k5 lowers") {
        return;
    }
    for fs in Fs::sides() {
        for inner in Fs::sides() {
            let bottom = Layers::new().with_lower(&[dir("d"), file("d/l", "l"), file("gone", "x")]);
            let _inner = bottom.mount(inner, &[]);
            sys::put(bottom.merged.join("d/u"), "u").unwrap();
            sys::unlink(bottom.merged.join("gone")).unwrap();
            let mut layers = Layers::new().with_lower(&[dir("d"), file("d/t", "t"), whiteout("d/l")]);
            layers.below.push(bottom.merged.clone());
            layers.below.push(bottom.base().join("m2"));
            sys::mkdir(&layers.below[1], 0o755).unwrap();
            sys::put(layers.below[1].join("last"), "last").unwrap();
            let outer = layers.mount(fs, &[]);
            let m = |name: &str| layers.merged.join(name);
            let what = format!("{} on {}", fs.name(), inner.name());
            let names = sys::sorted_names(m("d"));
            assert_eq!(names, Ok(vec!["t".into(), "u".into()]), "{what}");
            assert_eq!(
                sys::sorted_names(m("")),
                Ok(vec!["d".into(), "last".into()]),
                "{what}"
            );
            assert_eq!(sys::append(m("d/u"), "+"), Ok(()), "{what}");
            assert_eq!(sys::text(m("d/u")), Ok("u+".into()), "{what}");
            assert_eq!(sys::text(bottom.merged.join("d/u")), Ok("u".into()), "{what}");
            outer.umount();
        }
    }
}

/// The commands: `--below`, the list, and the explanation of which lower it is.
#[test]
fn below_in_the_commands() {
    if !need_root("below") || !ours_is_plyfs() {
        return;
    }
    let layers = Layers::new()
        .with_lower(&[dir("d"), file("d/f", "1"), whiteout("gone")])
        .with_below(&[dir("d"), file("d/f", "2"), file("gone", "2")])
        .with_below(&[dir("d"), file("d/g", "3")]);
    let plyfs = || std::process::Command::new(env!("CARGO_BIN_EXE_plyfs"));
    let mut mount = plyfs();
    mount.arg("mount").arg(&layers.lower).arg(&layers.merged);
    for below in &layers.below {
        mount.arg("--below").arg(below);
    }
    mount
        .arg("--upper")
        .arg(&layers.upper)
        .arg("--work")
        .arg(&layers.work);
    let done = mount.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    for below in &layers.below {
        assert!(
            text.lines()
                .any(|line| line.starts_with("below") && line.ends_with(&shown(below))),
            "{text}"
        );
    }
    assert_eq!(sys::text(layers.merged.join("d/f")), Ok("1".into()));
    assert_eq!(sys::text(layers.merged.join("d/g")), Ok("3".into()));

    let list = plyfs().args(["list", "--json"]).output().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let merged = shown(&layers.merged);
    let entry = list
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["merged"] == merged.as_str())
        .unwrap();
    assert_eq!(entry["lower"], shown(&layers.lower));
    assert_eq!(
        entry["below"],
        serde_json::json!(layers.below.iter().map(|l| shown(l)).collect::<Vec<_>>())
    );

    let explain = |path: &str| {
        let done = plyfs()
            .arg("explain")
            .arg(layers.merged.join(path))
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let told = explain("d/f");
    assert!(told.contains("lower 1 is the topmost that has it (K"), "{told}");
    assert!(
        told.contains(&format!("lower 2  {}/d/f (hidden)", shown(&layers.below[0]))),
        "{told}"
    );
    assert!(told.contains("merged of lowers 1, 2, 3"), "{told}");
    let told = explain("gone");
    assert!(
        told.contains("a whiteout in lower 1 hides what the lowers below it have"),
        "{told}"
    );
    sys::umount(&layers.merged, 0).unwrap();
}
