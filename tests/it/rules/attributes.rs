//! K40 to K49: link counts and inode numbers.

use crate::common::*;

#[test]
fn k40_link_counts_of_directories() {
    let lower = [
        dir("l"),
        dir("l/a"),
        dir("l/b"),
        dir("m"),
        dir("m/a"),
        dir("o"),
        dir("o/x"),
    ];
    let upper = [
        dir("m"),
        dir("m/b"),
        dir("p"),
        dir("p/a"),
        dir("p/b"),
        dir("o").xattr("trusted.overlay.opaque", "y"),
    ];
    Scenario::new("k40").lower(&lower).upper(&upper).run(|env| {
        for (name, count) in [("l", 4), ("m", 1), ("p", 4), ("o", 2), ("", 1)] {
            let _ = env.want(format!("nlink of {name:?}"), Ok(count), || {
                sys::nlink(env.m(name))
            });
        }
        env.ok("copy l up", || sys::chmod(env.m("l"), 0o700));
        let _ = env.want("nlink of l after copy-up", Ok(1), || sys::nlink(env.m("l")));
        env.ok("mkdir", || sys::mkdir(env.m("p/c"), 0o755));
        let _ = env.want("nlink of p after mkdir", Ok(5), || sys::nlink(env.m("p")));
        env.ok("rmdir", || sys::rmdir(env.m("p/a")));
        let _ = env.want("nlink of p after rmdir", Ok(4), || sys::nlink(env.m("p")));
    });
}

const KINDS: [&str; 6] = ["file", "dir", "link", "fifo", "null", "sock"];

fn one_of_each() -> Vec<Node> {
    vec![
        file("file", "text"),
        dir("dir"),
        file("dir/x", "x"),
        symlink("link", "file"),
        fifo("fifo"),
        chr("null", 1, 3),
        sock("sock"),
        dir("into"),
    ]
}

#[test]
fn k41_number_survives_copy_up_rename_link_and_remount() {
    scenario("k41", &one_of_each(), |env| {
        let number = |name: &str| sys::ino(env.m(name));
        let before: Vec<_> = KINDS.iter().map(|k| number(k).unwrap()).collect();
        for (kind, ino) in KINDS.iter().zip(&before) {
            env.ok(format!("copy {kind} up"), || sys::chown(env.m(kind), 5, 5));
            env.eq(format!("{kind} after copy-up"), number(kind), Ok(*ino));
        }
        for (kind, ino) in KINDS.iter().zip(&before).filter(|(k, _)| **k != "dir") {
            let (moved, linked) = (format!("into/{kind}"), format!("{kind}2"));
            env.ok(format!("rename {kind}"), || {
                sys::rename(env.m(kind), env.m(&moved))
            });
            env.eq(format!("{kind} after rename"), number(&moved), Ok(*ino));
            env.ok(format!("link {kind}"), || {
                sys::link(env.m(&moved), env.m(&linked))
            });
            env.eq(format!("{kind} by its second name"), number(&linked), Ok(*ino));
            let _ = env.want(format!("{kind} has two names"), Ok(2), || {
                sys::nlink(env.m(&linked))
            });
        }
        env.remount();
        for (kind, ino) in KINDS.iter().zip(&before).filter(|(k, _)| **k != "dir") {
            env.eq(
                format!("{kind} after a remount"),
                number(&format!("into/{kind}")),
                Ok(*ino),
            );
            env.eq(
                format!("{kind}2 after a remount"),
                number(&format!("{kind}2")),
                Ok(*ino),
            );
        }
        env.eq("dir after a remount", number("dir"), Ok(before[1]));
        env.eq(
            "all different",
            before.iter().collect::<std::collections::HashSet<_>>().len(),
            KINDS.len(),
        );
    });
}

#[test]
fn k41_number_of_what_an_open_descriptor_sees() {
    scenario("k41 open", &[file("f", "text"), dir("d")], |env| {
        for name in ["f", "d"] {
            let fd = sys::open(env.m(name), libc::O_RDONLY).unwrap();
            let before = sys::fstat(&fd).unwrap();
            env.ok("copy up", || sys::chmod(env.m(name), 0o711));
            let after = sys::fstat(&fd).unwrap();
            env.eq(
                "number",
                (after.st_dev, after.st_ino),
                (before.st_dev, before.st_ino),
            );
            env.eq("mode", after.st_mode & 0o777, 0o711);
        }
    });
}

#[test]
fn k41_numbers_of_new_objects_survive_a_remount() {
    scenario("k41 new", &[file("gone", "x"), dir("d")], |env| {
        env.ok("create", || sys::put(env.m("new"), "1"));
        env.ok("create below", || sys::put(env.m("d/new"), "2"));
        env.ok("mkdir", || sys::mkdir(env.m("nd"), 0o755));
        env.ok("unlink", || sys::unlink(env.m("gone")));
        env.ok("create over a whiteout", || sys::put(env.m("gone"), "3"));
        let before = scenario::numbers(&env.layers.merged);
        env.remount();
        env.check(
            "the same numbers",
            before == scenario::numbers(&env.layers.merged),
        );
        let distinct: std::collections::HashSet<_> = before.values().collect();
        env.eq("distinct", distinct.len(), before.len());
    });
}

#[test]
fn k42_a_lower_hard_link_group() {
    let lower = [file("a", "text"), dir("d"), hard("d/b", "a"), hard("c", "a")];
    scenario("k42", &lower, |env| {
        let names = ["a", "d/b", "c"];
        let first = sys::ino(env.m("a")).unwrap();
        for name in names {
            env.eq(format!("{name}: number"), sys::ino(env.m(name)), Ok(first));
            let _ = env.want(format!("{name}: nlink"), Ok(3), || sys::nlink(env.m(name)));
            let dirent = sys::dirents(env.m(name).parent().unwrap()).unwrap();
            let listed = dirent
                .iter()
                .find(|d| env.m(name).ends_with(&d.name))
                .map(|d| d.ino);
            env.eq(format!("{name}: d_ino"), listed, Some(first));
        }
        // Writing by one name is for that name alone (K71).
        env.ok("write d/b", || sys::append(env.m("d/b"), "+b"));
        let _ = env.want("d/b", Ok("text+b".to_string()), || sys::text(env.m("d/b")));
        let _ = env.want("a", Ok("text".to_string()), || sys::text(env.m("a")));
        let _ = env.want("c", Ok("text".to_string()), || sys::text(env.m("c")));
        let _ = env.want("nlink of d/b", Ok(1), || sys::nlink(env.m("d/b")));
        env.ok("write a", || sys::put(env.m("a"), "A"));
        let _ = env.want("c still", Ok("text".to_string()), || sys::text(env.m("c")));
        env.remount();
        for (name, want) in [("a", "A"), ("d/b", "text+b"), ("c", "text")] {
            let _ = env.want(format!("{name} after a remount"), Ok(want.to_string()), || {
                sys::text(env.m(name))
            });
        }
    });
}

#[test]
fn k42_a_group_member_changes_its_number_at_copy_up() {
    scenario("k42 number", &[file("a", "text"), hard("b", "a")], |env| {
        let before = sys::ino(env.m("a")).unwrap();
        env.eq("both names seen", sys::ino(env.m("b")), Ok(before));
        env.ok("copy up", || sys::chmod(env.m("a"), 0o600));
        // They are two files now; with one number tar and rsync would make them one again.
        env.check("a has another number", sys::ino(env.m("a")) != Ok(before));
        env.eq("b keeps it", sys::ino(env.m("b")), Ok(before));
    });
}

#[test]
fn k42_a_group_member_whose_others_were_not_seen() {
    scenario(
        "k42 unseen",
        &[file("a", "text"), hard("b", "a"), hard("c", "a")],
        |env| {
            let before = sys::ino(env.m("a")).unwrap();
            env.ok("copy up", || sys::chmod(env.m("a"), 0o600));
            let _ = env.differs(
                "group-number",
                "the number is kept",
                "Ok(false)",
                &["Ok(true)"],
                || Ok(sys::ino(env.m("a")) == Ok(before)),
            );
            env.check(
                "two numbers for two files",
                sys::ino(env.m("a")) != sys::ino(env.m("b")),
            );
            env.eq("one for the others", sys::ino(env.m("b")), sys::ino(env.m("c")));
            // The scenario sees to it that none changes over the remount.
        },
    );
}

#[test]
fn k152_names_met_one_after_the_other_are_one_file() {
    if !need_root("k152") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new().with_lower(&[file("a", "text")]);
        let m = |name: &str| layers.merged.join(name);
        let mounted = layers.mount(fs, &[]);
        sys::link(m("a"), m("b")).unwrap();
        mounted.umount();
        // Nobody has met the name a when b, which is open, goes.
        let _mounted = layers.mount(fs, &[]);
        let fd = sys::open(m("b"), libc::O_RDWR).unwrap();
        sys::unlink(m("b")).unwrap();
        assert_eq!(sys::chmod(m("a"), 0o604), Ok(()));
        assert_eq!(
            sys::fstat(&fd).map(|st| st.st_mode & 0o777),
            Ok(0o604),
            "{}",
            fs.name()
        );
        assert_eq!(sys::pwrite(&fd, b"TEXT+", 0), Ok(5));
        assert_eq!(sys::lstat(m("a")).map(|st| st.st_size), Ok(5), "{}", fs.name());
        assert_eq!(sys::fstat(&fd).map(|st| st.st_nlink), Ok(1), "{}", fs.name());
        sys::unlink(m("a")).unwrap();
        assert_eq!(sys::fstat(&fd).map(|st| st.st_nlink), Ok(0), "{}", fs.name());
    }
}

#[test]
fn k42_open_group_members_write_apart() {
    let lower = [file("a", "text"), hard("b", "a"), hard("c", "a")];
    scenario("k42 open members", &lower, |env| {
        let reader_a = sys::open(env.m("a"), libc::O_RDONLY).unwrap();
        let reader_b = sys::open(env.m("b"), libc::O_RDONLY).unwrap();
        let writer_a = sys::open(env.m("a"), libc::O_RDWR).unwrap();
        let writer_b = sys::open(env.m("b"), libc::O_RDWR).unwrap();
        env.eq("write a", sys::pwrite(&writer_a, b"AAAA", 0), Ok(4));
        env.eq("write b", sys::pwrite(&writer_b, b"BB", 0), Ok(2));
        env.eq("read a", sys::pread(&reader_a, 9, 0), Ok(b"AAAA".to_vec()));
        env.eq("read b", sys::pread(&reader_b, 9, 0), Ok(b"BBxt".to_vec()));
        env.eq("read c", sys::text(env.m("c")), Ok("text".into()));
        env.ok("truncate a", || sys::ftruncate(&writer_a, 1));
        env.eq("size of b", sys::fstat(&reader_b).map(|st| st.st_size), Ok(4));
        env.eq("size of c", sys::lstat(env.m("c")).map(|st| st.st_size), Ok(4));
        env.ok("chmod b", || sys::chmod(env.m("b"), 0o600));
        env.eq("mode of a", sys::mode(env.m("a")), Ok(0o644));
        env.eq("mode of c", sys::mode(env.m("c")), Ok(0o644));
    });
}

#[test]
fn k43_linking_a_copied_up_group_member() {
    let lower = [file("a", "text"), hard("b", "a")];
    scenario("k43", &lower, |env| {
        env.ok("link", || sys::link(env.m("a"), env.m("n")));
        env.eq("one number", sys::ino(env.m("a")), sys::ino(env.m("n")));
        let _ = env.want("nlink", Ok(2), || sys::nlink(env.m("n")));
        env.ok("write by the new name", || sys::append(env.m("n"), "!"));
        let _ = env.want("a", Ok("text!".to_string()), || sys::text(env.m("a")));
        let _ = env.want("b", Ok("text".to_string()), || sys::text(env.m("b")));
        env.remount();
        let _ = env.want("a after a remount", Ok("text!".to_string()), || {
            sys::text(env.m("a"))
        });
        let _ = env.want("n after a remount", Ok("text!".to_string()), || {
            sys::text(env.m("n"))
        });
        env.eq("still one number", sys::ino(env.m("a")), sys::ino(env.m("n")));
    });
}

#[test]
fn k44_layers_on_different_file_systems() {
    if !need_root("k44") {
        return;
    }
    for fs in Fs::sides()
        .into_iter()
        .filter(|fs| *fs == Fs::Plyfs && !layers::program_is_kernel())
    {
        known::difference("one-device");
        let mut layers = Layers::new().with_lower(&one_of_each());
        let other = layers.base().join("other");
        sys::mkdir(&other, 0o755).unwrap();
        sys::mount("t", &other, "tmpfs", 0, "").unwrap();
        layers.upper = other.join("u");
        layers.work = other.join("w");
        sys::mkdir(&layers.upper, 0o755).unwrap();
        sys::mkdir(&layers.work, 0o755).unwrap();
        let mounted = layers.mount(fs, &[]);
        let m = |name: &str| layers.merged.join(name);
        for i in 0..200 {
            sys::put(m(&format!("new{i}")), "").unwrap();
        }
        let before = scenario::numbers(&layers.merged);
        let distinct: std::collections::HashSet<_> = before.values().collect();
        assert_eq!(distinct.len(), before.len(), "two files with one number");
        for path in sys::walk(&layers.merged) {
            assert_eq!(
                sys::lstat(&path).unwrap().st_dev,
                sys::lstat(m("")).unwrap().st_dev,
                "{path:?}"
            );
        }
        for kind in KINDS {
            sys::chown(m(kind), 5, 5).unwrap();
        }
        assert_eq!(before, scenario::numbers(&layers.merged), "after copy-up");
        let _mounted = mounted.remount();
        assert_eq!(before, scenario::numbers(&layers.merged), "after the remount");
    }
}

#[test]
fn k45_listing_and_stat_agree() {
    let mut lower = one_of_each();
    lower.extend([
        dir("deep"),
        dir("deep/a"),
        file("deep/a/f", "f"),
        file("deep/g", "g"),
        hard("deep/h", "deep/g"),
    ]);
    scenario("k45", &lower, |env| {
        let agree = |when: &str| {
            for dir in ["", "into", "deep", "deep/a", "pure"] {
                let Ok(mut list) = sys::dirents(env.m(dir)) else {
                    continue;
                };
                list.sort_by(|a, b| a.name.cmp(&b.name));
                for d in list.iter().filter(|d| d.name != ".." || !dir.is_empty()) {
                    let path = env.m(dir).join(&d.name);
                    env.eq(
                        format!("{when}: d_ino of {dir}/{:?}", d.name),
                        Ok(d.ino),
                        sys::ino(&path),
                    );
                }
            }
        };
        agree("fresh");
        env.ok("mkdir", || sys::mkdir(env.m("pure"), 0o755));
        env.ok("copy up and move", || {
            sys::rename(env.m("file"), env.m("into/file2"))
        });
        env.ok("into a pure directory", || {
            sys::rename(env.m("fifo"), env.m("pure/fifo"))
        });
        env.ok("copy up a group member", || sys::chmod(env.m("deep/g"), 0o600));
        env.ok("move it", || sys::rename(env.m("deep/g"), env.m("pure/g")));
        env.ok("copy a directory up", || sys::chmod(env.m("deep/a"), 0o700));
        agree("changed");
        env.remount();
        agree("remounted");
    });
}

#[test]
fn k47_link_counts_after_unlink() {
    scenario("k47", &[file("a", "x"), hard("b", "a"), hard("c", "a")], |env| {
        env.ok("unlink", || sys::unlink(env.m("a")));
        let _ = env.want("nlink of b", Ok(3), || sys::nlink(env.m("b")));
        env.ok("put a new a there", || sys::put(env.m("a"), "new"));
        let _ = env.want("nlink of the new a", Ok(1), || sys::nlink(env.m("a")));
        let _ = env.want("nlink of c", Ok(3), || sys::nlink(env.m("c")));
    });
}

#[test]
fn k47_link_count_of_deleted_open_files() {
    scenario("k47 open", &[file("low", "x"), file("up", "x")], |env| {
        let low = sys::open(env.m("low"), libc::O_RDONLY).unwrap();
        let up = sys::open(env.m("up"), libc::O_RDWR).unwrap();
        env.ok("unlink low", || sys::unlink(env.m("low")));
        env.ok("unlink up", || sys::unlink(env.m("up")));
        let nlink = |fd: &Fd| sys::fstat(fd).map(|st| st.st_nlink);
        let _ = env.differs("deleted-lower-nlink", "low", "Ok(1)", &["Ok(0)"], || nlink(&low));
        let _ = env.want("up", Ok(0), || nlink(&up));
    });
}

#[test]
fn k48_a_moved_copy_is_found_again_by_the_kernel() {
    // `impure` is what lets the kernel show the right d_ino after it takes over our upper; the scenario's own
    // cross-mount compares d_ino with st_ino for every name.
    let lower = [file("f", "x"), dir("d"), file("d/g", "x"), file("d/h", "x")];
    scenario("k48", &lower, |env| {
        env.ok("mkdir", || sys::mkdir(env.m("p"), 0o755));
        env.ok("move f", || sys::rename(env.m("f"), env.m("p/f")));
        env.ok("move g", || sys::rename(env.m("d/g"), env.m("p/g")));
        env.ok("copy h up", || sys::chmod(env.m("d/h"), 0o600));
        if env.fs == Fs::Plyfs {
            for dir in ["p", "d"] {
                let mark = sys::getxattr(env.u(dir), "trusted.overlay.impure");
                if mark != Ok(b"y".to_vec()) {
                    env.fail(format!("impure on {dir}: {mark:?}"));
                }
            }
        }
    });
}

#[test]
fn k49_times_of_the_parent() {
    let lower = [
        dir("d"),
        file("d/f", "x"),
        file("d/g", "x"),
        dir("e"),
        file("e/f", "x"),
    ];
    scenario("k49", &lower, |env| {
        let planted = Ok(plant::PLANTED);
        env.ok("copy-up of a child", || sys::chmod(env.m("d/f"), 0o600));
        env.eq("leaves the parent's mtime", sys::mtime(env.m("d")), planted);
        env.ok("write", || sys::append(env.m("d/f"), "y"));
        env.eq("so does a write", sys::mtime(env.m("d")), planted);
        env.ok("unlink", || sys::unlink(env.m("d/g")));
        env.check("unlink changes it", sys::mtime(env.m("d")) != planted);
        env.ok("create", || sys::put(env.m("e/n"), ""));
        env.check("create changes it", sys::mtime(env.m("e")) != planted);
        env.eq("of that parent only", sys::mtime(env.m("")), planted);
    });
}
