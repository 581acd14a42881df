//! K90 to K99: the rename matrix, every cell by every flag.

use std::fmt::Write as _;
use std::path::Path;

use crate::common::*;

const NOREPLACE: u32 = libc::RENAME_NOREPLACE;
const EXCHANGE: u32 = libc::RENAME_EXCHANGE;
const WHITEOUT: u32 = libc::RENAME_WHITEOUT;

/// What can lie under a name, in the view and in the layers. Each is planted twice, as source and as target.
pub const KINDS: [&str; 19] = [
    "free",
    "whiteout",
    "low-file",
    "copied-file",
    "new-file",
    "over-file",
    "low-link",
    "new-link",
    "low-fifo",
    "low-null",
    "pure-empty",
    "pure-full",
    "opaque-empty",
    "opaque-full",
    "low-empty",
    "low-full",
    "merged-cleared",
    "merged-full",
    "file-over-dir",
];

/// The nodes of `kind` under `name`: in the lower and in the upper.
pub fn planted(kind: &str, name: &str) -> (Vec<Node>, Vec<Node>) {
    let below = |part: &str| format!("{name}/{part}");
    let mark = |node: Node| node.xattr("trusted.overlay.opaque", "y");
    let low = |nodes: Vec<Node>| (nodes, vec![]);
    let up = |nodes: Vec<Node>| (vec![], nodes);
    match kind {
        "free" => (vec![], vec![]),
        "whiteout" => (vec![file(name, "hidden")], vec![whiteout(name)]),
        "low-file" => low(vec![file(name, format!("low {name}"))]),
        "copied-file" => (
            vec![file(name, "below")],
            vec![file(name, format!("copied {name}"))],
        ),
        "new-file" => up(vec![file(name, format!("new {name}"))]),
        // A file of the upper over a directory of the lower.
        "over-file" => (
            vec![dir(name), file(below("x"), "")],
            vec![file(name, format!("over {name}"))],
        ),
        "low-link" => low(vec![symlink(name, format!("to-{name}"))]),
        "new-link" => up(vec![symlink(name, format!("to-{name}"))]),
        "low-fifo" => low(vec![fifo(name).mode(0o604)]),
        "low-null" => low(vec![chr(name, 1, 3)]),
        "pure-empty" => up(vec![dir(name)]),
        "pure-full" => up(vec![dir(name), file(below("new"), name)]),
        "opaque-empty" => (vec![dir(name), file(below("hidden"), "")], vec![mark(dir(name))]),
        "opaque-full" => (
            vec![dir(name), file(below("hidden"), "")],
            vec![mark(dir(name)), file(below("new"), name)],
        ),
        "low-empty" => low(vec![dir(name)]),
        "low-full" => low(vec![dir(name), file(below("low"), name)]),
        "merged-cleared" => (
            vec![dir(name), file(below("low"), "")],
            vec![dir(name), whiteout(below("low"))],
        ),
        "merged-full" => (
            vec![dir(name), file(below("low"), "")],
            vec![dir(name), file(below("new"), name)],
        ),
        "file-over-dir" => (
            vec![file(name, "below")],
            vec![dir(name), file(below("new"), name)],
        ),
        other => panic!("{other} is no kind"),
    }
}

/// What the upper has under a name, in the words of the table in docs/kernel-rules.md.
fn in_upper(path: &Path) -> String {
    let Ok(st) = sys::lstat(path) else {
        return "-".into();
    };
    let mut word = match st.st_mode & libc::S_IFMT {
        libc::S_IFCHR if st.st_rdev == 0 => "WH".into(),
        libc::S_IFDIR => String::from("dir"),
        libc::S_IFREG => "file".into(),
        libc::S_IFLNK => "link".into(),
        other => format!("type {other:o}"),
    };
    if sys::getxattr(path, "trusted.overlay.opaque") == Ok(b"y".to_vec()) {
        word.push('!');
    }
    word
}

/// One scenario per source kind: that source, in its own directory, onto every kind of target.
fn row(source: &str, flags: u32, from_parent: &str, to_parent: &str) {
    let mut lower = vec![dir("merged"), dir("other")];
    let mut upper = vec![dir("merged"), dir("other"), dir("pure"), dir("pure2")];
    let allowed = |kind: &str, parent: &str| {
        // Only the names of a merged parent can have something below them.
        !parent.starts_with("pure")
            || ["free", "new-file", "new-link", "pure-empty", "pure-full"].contains(&kind)
    };
    if !allowed(source, from_parent) {
        return;
    }
    let cells: Vec<_> = KINDS.iter().filter(|kind| allowed(kind, to_parent)).collect();
    for target in &cells {
        for (kind, name) in [
            (source, format!("{from_parent}/s-{target}")),
            (**target, format!("{to_parent}/t-{target}")),
        ] {
            let (low, up) = planted(kind, &name);
            lower.extend(low);
            upper.extend(up);
        }
    }
    let title = format!("{source} flags {flags} from {from_parent} to {to_parent}");
    let mut scenario = Scenario::new(&title).lower(&lower).upper(&upper);
    let pure = ["pure-empty", "pure-full", "file-over-dir"].contains(&source);
    if pure {
        // Where the rename succeeds the mark is still compared: it is in the noted cell.
        scenario = scenario.field_differs("failed-rename-mark", "xattr trusted.overlay.opaque");
    }
    scenario.run(|env| {
        for target in &cells {
            let (s, t) = (
                format!("{from_parent}/s-{target}"),
                format!("{to_parent}/t-{target}"),
            );
            let answer = sys::rename2(env.m(&s), env.m(&t), flags);
            let mut cell = format!("{answer:?}");
            let mut old = in_upper(&env.u(&s));
            if pure && answer == Err(sys::ENOTEMPTY) {
                old = old.replace('!', "");
            }
            let _ = write!(cell, " [{old}, {}]", in_upper(&env.u(&t)));
            env.note(format!("{source} onto {target}"), &cell);
            for (name, when) in [(&s, "source"), (&t, "target")] {
                let seen = sys::lstat(env.m(name)).map(|st| st.st_mode);
                let list = seen.and_then(|mode| {
                    if mode & libc::S_IFMT == libc::S_IFDIR {
                        sys::sorted_names(env.m(name))
                    } else {
                        Ok(vec![])
                    }
                });
                env.note(format!("{source} onto {target}: the {when}"), &(seen, list));
            }
        }
    });
}

macro_rules! matrix {
    ($($test:ident: $flags:expr, $from:literal => $to:literal;)*) => {
        $(#[test]
        fn $test() {
            let row = |source| std::panic::catch_unwind(|| row(source, $flags, $from, $to));
            let failed = KINDS.iter().filter_map(|source| row(source).err());
            let texts: Vec<_> = failed.map(|panic| scenario::panic_text(panic.as_ref())).collect();
            assert!(texts.is_empty(), "{}", texts.join("\n"));
        })*
    };
}

matrix! {
    k90_matrix_in_one_directory: 0, "merged" => "merged";
    k90_matrix_between_merged_directories: 0, "merged" => "other";
    k90_matrix_from_merged_into_pure: 0, "merged" => "pure";
    k93_matrix_from_pure_into_merged: 0, "pure" => "merged";
    k93_matrix_between_pure_directories: 0, "pure" => "pure2";
    k95_matrix_exchange: EXCHANGE, "merged" => "merged";
    k95_matrix_exchange_between_directories: EXCHANGE, "merged" => "other";
    k95_matrix_exchange_with_pure: EXCHANGE, "pure" => "merged";
    k96_matrix_noreplace: NOREPLACE, "merged" => "other";
}

#[test]
fn k90_the_table_of_the_kernel_rules() {
    // The cells of docs/kernel-rules.md in full: source, target, answer, [old name, new name] in the upper.
    let table: &[(&str, &str, R, &str)] = &[
        ("new-file", "free", Ok(()), "[-, file]"),
        ("new-file", "whiteout", Ok(()), "[-, file]"),
        ("new-file", "low-file", Ok(()), "[-, file]"),
        ("new-file", "copied-file", Ok(()), "[-, file]"),
        ("new-file", "low-empty", Err(sys::EISDIR), "[file, -]"),
        ("new-file", "low-full", Err(sys::EISDIR), "[file, -]"),
        ("low-file", "free", Ok(()), "[WH, file]"),
        ("low-file", "whiteout", Ok(()), "[WH, file]"),
        ("low-file", "new-file", Ok(()), "[WH, file]"),
        ("low-file", "low-empty", Err(sys::EISDIR), "[-, -]"),
        ("copied-file", "free", Ok(()), "[WH, file]"),
        ("copied-file", "low-file", Ok(()), "[WH, file]"),
        ("over-file", "free", Ok(()), "[WH, file]"),
        ("pure-full", "free", Ok(()), "[-, dir!]"),
        ("pure-full", "whiteout", Ok(()), "[-, dir!]"),
        ("pure-full", "low-file", Err(sys::ENOTDIR), "[dir, -]"),
        ("pure-full", "low-empty", Ok(()), "[-, dir!]"),
        ("pure-full", "merged-cleared", Ok(()), "[-, dir!]"),
        ("pure-full", "low-full", Err(sys::ENOTEMPTY), "[dir, -]"),
        ("low-full", "free", Err(sys::EXDEV), "[-, -]"),
        ("low-full", "whiteout", Err(sys::EXDEV), "[-, WH]"),
        ("low-full", "new-file", Err(sys::ENOTDIR), "[-, file]"),
        ("low-full", "pure-empty", Err(sys::EXDEV), "[-, dir]"),
        ("low-full", "pure-full", Err(sys::EXDEV), "[-, dir]"),
        ("merged-full", "free", Err(sys::EXDEV), "[dir, -]"),
        ("merged-full", "low-full", Err(sys::EXDEV), "[dir, -]"),
    ];
    let (mut lower, mut upper) = (Vec::new(), Vec::new());
    for (i, (source, target, ..)) in table.iter().enumerate() {
        for (kind, name) in [(source, format!("s{i}")), (target, format!("t{i}"))] {
            let (low, up) = planted(kind, &name);
            lower.extend(low);
            upper.extend(up);
        }
    }
    Scenario::new("the table").lower(&lower).upper(&upper).run(|env| {
        for (i, (source, target, answer, cell)) in table.iter().enumerate() {
            let (s, t) = (format!("s{i}"), format!("t{i}"));
            let _ = env.want(format!("{source} onto {target}"), *answer, || {
                sys::rename(env.m(&s), env.m(&t))
            });
            let found = format!("[{}, {}]", in_upper(&env.u(&s)), in_upper(&env.u(&t)));
            env.eq(
                format!("{source} onto {target} in the upper"),
                found.as_str(),
                *cell,
            );
        }
    });
}

#[test]
fn k92_a_cleared_merged_target() {
    let lower = [
        dir("t").mode(0o700).own(1, 2),
        file("t/a", ""),
        dir("t/d"),
        file("t/d/x", ""),
    ];
    scenario("k92", &lower, |env| {
        env.ok("mkdir", || sys::mkdir(env.m("s"), 0o755));
        env.ok("put", || sys::put(env.m("s/a"), "new"));
        env.fails("onto a full one", sys::ENOTEMPTY, || {
            sys::rename(env.m("s"), env.m("t"))
        });
        for name in ["t/a", "t/d/x"] {
            env.ok("unlink", || sys::unlink(env.m(name)));
        }
        env.ok("rmdir", || sys::rmdir(env.m("t/d")));
        env.ok("onto a cleared one", || sys::rename(env.m("s"), env.m("t")));
        let _ = env.want("a", Ok("new".to_string()), || sys::text(env.m("t/a")));
        env.fails("nothing of the lower", sys::ENOENT, || {
            sys::lstat(env.m("t/d")).map(|_| ())
        });
        env.remount();
        env.eq("after a remount", sys::names(env.m("t")), Ok(vec!["a".into()]));
    });
}

#[test]
fn k94_exdev_copies_nothing_up() {
    let lower = [
        dir("d"),
        file("d/x", ""),
        dir("e"),
        file("f", ""),
        dir("to"),
        dir("to/deep"),
    ];
    scenario("k94", &lower, |env| {
        env.fails("rename", sys::EXDEV, || sys::rename(env.m("d"), env.m("n")));
        env.fails("into another", sys::EXDEV, || {
            sys::rename(env.m("d"), env.m("to/deep/n"))
        });
        env.fails("onto an empty one", sys::EXDEV, || {
            sys::rename(env.m("d"), env.m("e"))
        });
        env.fails("exchange", sys::EXDEV, || {
            sys::rename2(env.m("d"), env.m("e"), EXCHANGE)
        });
        env.fails("exchange with a file", sys::EXDEV, || {
            sys::rename2(env.m("f"), env.m("e"), EXCHANGE)
        });
        env.untouched("EXDEV");
        env.ok("onto itself", || sys::rename(env.m("d"), env.m("d")));
        env.untouched("a rename onto itself");
    });
}

#[test]
fn k95_exchange_needs_both() {
    scenario("k95", &[file("f", "f"), file("gone", "")], |env| {
        env.fails("free", sys::ENOENT, || {
            sys::rename2(env.m("f"), env.m("n"), EXCHANGE)
        });
        env.fails("free source", sys::ENOENT, || {
            sys::rename2(env.m("n"), env.m("f"), EXCHANGE)
        });
        env.untouched("exchanges that fail");
        env.ok("unlink", || sys::unlink(env.m("gone")));
        env.fails("whiteout", sys::ENOENT, || {
            sys::rename2(env.m("f"), env.m("gone"), EXCHANGE)
        });
        env.fails("whiteout as source", sys::ENOENT, || {
            sys::rename2(env.m("gone"), env.m("f"), EXCHANGE)
        });
    });
}

#[test]
fn k95_exchanged_files_keep_data_number_and_name() {
    let lower = [file("a", "a"), dir("d"), file("d/b", "b"), symlink("s", "x")];
    scenario("k95 files", &lower, |env| {
        env.ok("mkdir", || sys::mkdir(env.m("p"), 0o755));
        env.ok("put", || sys::put(env.m("p/in"), "p"));
        let ino = |name: &str| sys::ino(env.m(name)).unwrap();
        for (x, y) in [("a", "d/b"), ("a", "s"), ("p", "d/b"), ("p", "a")] {
            let (i, j) = (ino(x), ino(y));
            env.ok(format!("exchange {x} {y}"), || {
                sys::rename2(env.m(x), env.m(y), EXCHANGE)
            });
            env.eq("numbers", (ino(x), ino(y)), (j, i));
        }
        env.remount();
        env.note("a", &sys::lstat(env.m("a")).map(|st| st.st_mode));
        for name in ["a", "d/b", "s", "p"] {
            env.ok(format!("unlink {name}"), || {
                sys::unlink(env.m(name)).or_else(|_| {
                    sys::unlink(env.m(name).join("in"))?;
                    sys::rmdir(env.m(name))
                })
            });
            env.fails("gone", sys::ENOENT, || sys::lstat(env.m(name)).map(|_| ()));
        }
    });
}

#[test]
fn k96_flags() {
    scenario("k96", &[file("f", "f"), file("g", "g"), dir("d")], |env| {
        env.fails("noreplace", sys::EEXIST, || {
            sys::rename2(env.m("f"), env.m("g"), NOREPLACE)
        });
        env.fails("noreplace a directory", sys::EEXIST, || {
            sys::rename2(env.m("f"), env.m("d"), NOREPLACE)
        });
        env.fails("whiteout", sys::EINVAL, || {
            sys::rename2(env.m("f"), env.m("n"), WHITEOUT)
        });
        env.fails("noreplace and exchange", sys::EINVAL, || {
            sys::rename2(env.m("f"), env.m("g"), NOREPLACE | EXCHANGE)
        });
        env.fails("unknown bit", sys::EINVAL, || {
            sys::rename2(env.m("f"), env.m("n"), 8)
        });
        env.untouched("refused flags");
        env.ok("noreplace onto nothing", || {
            sys::rename2(env.m("f"), env.m("n"), NOREPLACE)
        });
        env.ok("noreplace onto the whiteout", || {
            sys::rename2(env.m("n"), env.m("f"), NOREPLACE)
        });
        let _ = env.want("f", Ok("f".to_string()), || sys::text(env.m("f")));
    });
}

#[test]
fn k98_two_names_of_one_inode() {
    let lower = [file("l1", "low"), hard("l2", "l1"), file("single", "s")];
    let upper = [file("u1", "up"), hard("u2", "u1")];
    Scenario::new("k98").lower(&lower).upper(&upper).run(|env| {
        env.ok("two upper names", || sys::rename(env.m("u1"), env.m("u2")));
        env.check(
            "nothing happens",
            sys::exists(env.m("u1")) && sys::exists(env.m("u2")),
        );
        env.ok("a copied-up file and its link", || {
            sys::link(env.m("single"), env.m("link"))
        });
        env.ok("rename", || sys::rename(env.m("single"), env.m("link")));
        env.check(
            "nothing happens",
            sys::exists(env.m("single")) && sys::exists(env.m("link")),
        );
        let _ = env.call("two lower names", || sys::rename(env.m("l1"), env.m("l2")));
        env.note("l1 in the upper", &in_upper(&env.u("l1")));
        env.note("l1 in the view", &sys::exists(env.m("l1")));
        let _ = env.want("l2", Ok("low".to_string()), || sys::text(env.m("l2")));
    });
}

#[test]
fn k98_lower_group_members_are_moved_apart() {
    let lower = [file("a", "text"), hard("b", "a"), hard("c", "a"), dir("d")];
    scenario("k98 apart", &lower, |env| {
        env.ok("move a", || sys::rename(env.m("a"), env.m("d/a")));
        env.ok("write it", || sys::append(env.m("d/a"), "!"));
        let _ = env.want("b", Ok("text".to_string()), || sys::text(env.m("b")));
        env.ok("move b over c", || sys::rename(env.m("b"), env.m("d/b")));
        env.ok("write c", || sys::put(env.m("c"), "C"));
        let _ = env.want("d/b", Ok("text".to_string()), || sys::text(env.m("d/b")));
        env.remount();
        for (name, want) in [("d/a", "text!"), ("d/b", "text"), ("c", "C")] {
            let _ = env.want(name, Ok(want.to_string()), || sys::text(env.m(name)));
        }
    });
}

#[test]
fn k99_into_its_own_subtree() {
    scenario("k99", &[dir("d"), dir("d/e"), dir("d/e/f")], |env| {
        env.fails("lower", sys::EINVAL, || sys::rename(env.m("d"), env.m("d/e/f/g")));
        env.fails("onto its ancestor", sys::ENOTEMPTY, || {
            sys::rename(env.m("d/e/f"), env.m("d"))
        });
        env.untouched("impossible renames");
        env.ok("mkdir", || sys::mkdir(env.m("p"), 0o755));
        env.ok("mkdir", || sys::mkdir(env.m("p/q"), 0o755));
        env.fails("pure", sys::EINVAL, || sys::rename(env.m("p"), env.m("p/q/r")));
        env.fails("exchange with its parent", sys::EINVAL, || {
            sys::rename2(env.m("p"), env.m("p/q"), EXCHANGE)
        });
    });
}

#[test]
fn k93_children_of_a_moved_directory_do_not_meet_the_lower() {
    // After the move `p` stands where the lower has a full directory of the same name.
    let lower = [dir("d"), file("d/x", "low"), dir("d/sub"), file("d/sub/y", "low")];
    scenario("k93 children", &lower, |env| {
        env.ok("mkdir", || sys::mkdir(env.m("p"), 0o755));
        env.ok("mkdir", || sys::mkdir(env.m("p/sub"), 0o755));
        env.ok("put", || sys::put(env.m("p/sub/mine"), "mine"));
        for name in ["d/x", "d/sub/y"] {
            env.ok("unlink", || sys::unlink(env.m(name)));
        }
        env.ok("rmdir", || sys::rmdir(env.m("d/sub")));
        env.ok("rename", || sys::rename(env.m("p"), env.m("d")));
        env.eq("names", sys::names(env.m("d")), Ok(vec!["sub".into()]));
        env.eq("below", sys::names(env.m("d/sub")), Ok(vec!["mine".into()]));
        env.ok("new name", || sys::put(env.m("d/x"), "new"));
        env.ok("unlink", || sys::unlink(env.m("d/x")));
        env.check("no whiteout needed", !sys::exists(env.u("d/x")));
        env.ok("move on", || sys::rename(env.m("d"), env.m("e")));
        env.ok("a directory at the old name", || sys::mkdir(env.m("d"), 0o755));
        env.eq("is empty", sys::names(env.m("d")), Ok(vec![]));
        env.remount();
        env.eq("is empty after a remount", sys::names(env.m("d")), Ok(vec![]));
        let _ = env.want("mine", Ok("mine".to_string()), || sys::text(env.m("e/sub/mine")));
    });
}

#[test]
fn k90_open_directories_follow_a_rename() {
    use std::os::fd::AsRawFd;
    scenario("k90 open", &[dir("d"), file("f", "low")], |env| {
        env.ok("mkdir", || sys::mkdir(env.m("p"), 0o755));
        env.ok("mkdir", || sys::mkdir(env.m("p/q"), 0o755));
        let fd = sys::open(env.m("p/q"), libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        env.ok("rename", || sys::rename(env.m("p"), env.m("d/moved")));
        let at = |name: &str| format!("/proc/self/fd/{}/{name}", fd.as_raw_fd());
        env.ok("create by the descriptor", || sys::put(at("new"), "new"));
        let _ = env.want("by the new path", Ok("new".to_string()), || {
            sys::text(env.m("d/moved/q/new"))
        });
        env.ok("move a lower file in", || sys::rename(env.m("f"), at("f")));
        env.eq(
            "names",
            sys::sorted_names(env.m("d/moved/q")),
            Ok(vec!["f".into(), "new".into()]),
        );
    });
}
