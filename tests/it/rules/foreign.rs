//! Marks of other tools in the lowers (`-o foreign`): each in the topmost, the middle and the lowest of three.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::common::layers::{ours_is_plyfs, try_mount};
use crate::common::*;

const LOWERS: usize = 3;

/// A mark, and what it does.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Hides the name `f` of the lowers below; the lower itself has none.
    HidesName,
    /// The same, but the lower itself has the name, which shows.
    HidesBelow,
    /// Makes the directory `d` opaque.
    Opaque,
    /// Makes the root opaque.
    OpaqueRoot,
    /// Nothing, but does not show.
    Nothing,
}

type Row = (&'static str, Does, fn() -> Vec<Node>);

/// Every mark; `low` is in the lowers below the mark only.
const MARKS: &[Row] = &[
    ("file", Does::HidesName, || {
        vec![file(".wh.f", "").mode(0), file(".wh.low", "")]
    }),
    ("directory", Does::HidesName, || {
        vec![dir(".wh.f"), dir(".wh.low")]
    }),
    ("symlink", Does::HidesName, || {
        vec![symlink(".wh.f", "x"), symlink(".wh.low", "x")]
    }),
    ("device", Does::HidesName, || vec![whiteout("f"), whiteout("low")]),
    ("file beside", Does::HidesBelow, || {
        vec![file(".wh.f", ""), file(".wh.d", ""), file(".wh.low", "")]
    }),
    ("opaque file", Does::Opaque, || vec![file("d/.wh..wh..opq", "")]),
    ("opaque trusted", Does::Opaque, || {
        vec![dir("d/@").xattr("trusted.overlay.opaque", "y")]
    }),
    ("opaque user", Does::Opaque, || {
        vec![dir("d/@").xattr("user.overlay.opaque", "y")]
    }),
    ("opaque fuse-overlayfs", Does::Opaque, || {
        vec![dir("d/@").xattr("user.fuseoverlayfs.opaque", "y")]
    }),
    ("as fuse-overlayfs leaves it", Does::Opaque, || {
        vec![chr("d/.wh..opq", 0, 0), file("d/.wh..wh..opq", "").mode(0o700)]
    }),
    ("opaque root", Does::OpaqueRoot, || vec![file(".wh..wh..opq", "")]),
    ("no mark", Does::Nothing, || {
        vec![dir("d/@").xattr("user.overlay.opaque", "n"), file(".wh.", "")]
    }),
    ("for nothing", Does::Nothing, || {
        vec![
            file(".wh.nobody", ""),
            file("d/.wh.nobody", ""),
            file(".wh..wh.plnk", ""),
        ]
    }),
];

/// Lowers with the mark in number `at`.
fn planted(mark: &Row, at: usize) -> Layers {
    let (_, does, nodes) = mark;
    let lower = |number: usize| -> Vec<Node> {
        let mut list = vec![
            dir("d"),
            dir("d/deep"),
            file(format!("d/x{number}"), ""),
            file(format!("d/deep/{number}"), ""),
        ];
        if !(number == at && matches!(does, Does::HidesName)) {
            list.push(file("f", number.to_string()));
        }
        if number > at {
            list.push(file("low", number.to_string()));
        }
        if number == at {
            list.extend(nodes().into_iter().filter(|node| !node.path().ends_with("@")));
        }
        list
    };
    let mut layers = Layers::new().with_lower(&lower(0));
    for number in 1..LOWERS {
        layers = layers.with_below(&lower(number));
    }
    // Attributes of what is planted already.
    let root = layers.lowers().nth(at).unwrap().clone();
    for node in nodes().iter().filter(|node| node.path().ends_with("@")) {
        for (name, value) in node.xattrs() {
            sys::setxattr(root.join("d"), name, value).unwrap();
        }
    }
    layers
}

/// What shows: names with the content of files.
fn expected(does: Does, at: usize) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    let last = match does {
        Does::HidesBelow | Does::Opaque | Does::OpaqueRoot => at,
        Does::HidesName | Does::Nothing => LOWERS - 1,
    };
    tree.insert("d".into(), String::new());
    tree.insert("d/deep".into(), String::new());
    for number in 0..=last {
        tree.insert(format!("d/x{number}"), String::new());
        tree.insert(format!("d/deep/{number}"), String::new());
    }
    if !(matches!(does, Does::HidesName) && at == 0) {
        tree.insert("f".into(), "0".into());
    }
    let low = matches!(does, Does::Nothing | Does::Opaque) && at < LOWERS - 1;
    if low {
        tree.insert("low".into(), (at + 1).to_string());
    }
    tree
}

fn seen(merged: &Path) -> BTreeMap<String, String> {
    sys::walk(merged)
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(merged).unwrap().to_str().unwrap().to_owned();
            (name, sys::text(&path).unwrap_or_default())
        })
        .collect()
}

#[test]
fn every_mark_in_every_place() {
    if !need_root("foreign marks") || !ours_is_plyfs() {
        return;
    }
    for mark in MARKS {
        for at in 0..LOWERS {
            let (name, does, _) = mark;
            let layers = planted(mark, at);
            let want = expected(*does, at);
            let mounted = layers.mount(Fs::Plyfs, &["foreign"]);
            assert_eq!(seen(&layers.merged), want, "{name} in {at}");
            // What a listing has not met first.
            drop(mounted);
            let mounted = layers.mount(Fs::Plyfs, &["foreign"]);
            let m = |name: &str| layers.merged.join(name);
            for name in [
                "f",
                "low",
                "d",
                "d/x0",
                "d/x1",
                "d/x2",
                "d/deep/2",
                ".wh.f",
                ".wh..wh..opq",
                "d/.wh..opq",
            ] {
                assert_eq!(
                    sys::lstat(m(name)).is_ok(),
                    want.contains_key(name),
                    "{name} of {mark:?} in {at}"
                );
            }
            // Nothing of it shows by changes, and no whiteout is written where there is nothing to hide.
            for name in ["f", "low"] {
                let shown = want.contains_key(name);
                assert_eq!(sys::unlink(m(name)).is_ok(), shown);
                let white = sys::lstat(layers.upper.join(name)).is_ok();
                assert_eq!(white, shown, "a whiteout for {name} of {mark:?} in {at}");
                assert_eq!(sys::put(m(name), "new"), Ok(()));
            }
            for path in sys::walk(&m("d")).into_iter().rev() {
                sys::unlink(&path).or_else(|_| sys::rmdir(&path)).unwrap();
            }
            assert_eq!(sys::rmdir(m("d")), Ok(()), "{mark:?} in {at}");
            assert_eq!(sys::mkdir(m("d"), 0o755), Ok(()));
            let after =
                BTreeMap::from([("d", ""), ("f", "new"), ("low", "new")].map(|(a, b)| (a.into(), b.into())));
            assert_eq!(seen(&layers.merged), after, "{mark:?} in {at}");
            let _again = mounted.remount();
            assert_eq!(seen(&layers.merged), after, "{mark:?} in {at}, mounted again");
        }
    }
}

#[test]
fn fuse_overlayfs_shows_the_same() {
    let other = Path::new("/usr/bin/fuse-overlayfs");
    if !need_root("foreign marks of fuse-overlayfs") || !other.exists() {
        return;
    }
    for mark in MARKS {
        let (name, does, _) = mark;
        // It lets `.wh.NAME` hide NAME in the same directory too, which image layers do not mean; and takes a mark
        // without a name for one of the directory itself.
        if matches!(does, Does::HidesBelow) || *name == "no mark" {
            continue;
        }
        for at in 0..LOWERS {
            let layers = planted(mark, at);
            let mut command = Command::new(other);
            command.arg("-o").arg(layers.options(&[])).arg(&layers.merged);
            let (status, message) = layers::run(&mut command);
            assert_eq!(status, 0, "{message}");
            let found = seen(&layers.merged);
            sys::umount(&layers.merged, 0).unwrap();
            assert_eq!(found, expected(*does, at), "{name} in {at}");
        }
    }
}

#[test]
fn read_only_views_know_the_marks_too() {
    if !need_root("foreign marks, read-only") || !ours_is_plyfs() {
        return;
    }
    for mark in MARKS {
        for at in 0..LOWERS {
            let layers = planted(mark, at);
            let mut options = layers.lowerdir();
            options.push(",foreign");
            let _mounted = try_mount(Fs::Plyfs, &options, &layers.merged).unwrap();
            assert_eq!(seen(&layers.merged), expected(mark.1, at), "{} in {at}", mark.0);
        }
    }
}

#[test]
fn marks_cannot_be_made() {
    if !need_root("foreign marks made") || !ours_is_plyfs() {
        return;
    }
    let layers = Layers::new()
        .with_lower(&[file("f", "f"), file(".wh.g", "")])
        .with_below(&[file("g", "g")]);
    let _mounted = layers.mount(Fs::Plyfs, &["foreign"]);
    let m = |name: &str| layers.merged.join(name);
    for name in [".wh.x", ".wh.", ".wh..wh..opq", ".wh.g"] {
        let tries = [
            sys::put(m(name), ""),
            sys::mkdir(m(name), 0o755),
            sys::make_symlink("x", m(name)),
            sys::mknod(m(name), libc::S_IFIFO | 0o600, 0, 0),
            sys::link(m("f"), m(name)),
            sys::rename(m("f"), m(name)),
        ];
        for (number, done) in tries.into_iter().enumerate() {
            assert_eq!(done, Err(sys::EINVAL), "{name}, {number}");
        }
        assert_eq!(sys::unlink(m(name)), Err(sys::ENOENT));
    }
    let upper = sys::walk(&layers.upper);
    assert!(
        upper.iter().all(|path| !path.to_string_lossy().contains(".wh.")),
        "{upper:?}"
    );
    // Without the word they are names like any other.
    let plain = Layers::new().with_lower(&[file(".wh.f", ""), file("f", "f")]);
    let _mounted = plain.mount(Fs::Plyfs, &[]);
    assert_eq!(sys::text(plain.merged.join("f")), Ok("f".into()));
    assert_eq!(sys::put(plain.merged.join(".wh.new"), ""), Ok(()));
}

#[test]
fn private_attributes_of_all_tools_are_hidden() {
    if !need_root("foreign attributes") || !ours_is_plyfs() {
        return;
    }
    let prefixes = ["trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."];
    let mut lower = file("f", "f").xattr("user.own", "1");
    for prefix in prefixes {
        lower = lower.xattr(&format!("{prefix}foo"), "1");
    }
    let layers = Layers::new().with_lower(&[lower]).with_below(&[file("g", "g")]);
    let _mounted = layers.mount(Fs::Plyfs, &["foreign"]);
    let f = layers.merged.join("f");
    let check = |when: &str| {
        assert_eq!(sys::listxattr(&f), Ok(vec!["user.own".into()]), "{when}");
        for prefix in prefixes {
            assert_eq!(
                sys::getxattr(&f, &format!("{prefix}foo")),
                Err(sys::ENODATA),
                "{when}"
            );
        }
    };
    check("at first");
    sys::append(&f, "+").unwrap();
    check("after copy-up");
    assert_eq!(
        sys::getxattr(layers.upper.join("f"), "user.fuseoverlayfs.foo"),
        Err(sys::ENODATA),
        "not copied up"
    );
    // As a container in a container sets them: escaped below, and what was set is seen.
    for prefix in prefixes {
        let name = format!("{prefix}opaque");
        assert_eq!(sys::setxattr(&f, &name, "y"), Ok(()), "{name}");
        assert_eq!(sys::getxattr(&f, &name), Ok(b"y".to_vec()), "{name}");
        assert_eq!(
            sys::getxattr(layers.upper.join("f"), &format!("{prefix}overlay.opaque")),
            Ok(b"y".to_vec())
        );
    }
}

/// What one view wrote as its upper is a lower of the next.
#[test]
fn an_upper_of_plyfs_is_a_lower() {
    if !need_root("an upper as a lower") || !ours_is_plyfs() {
        return;
    }
    for word in ["xattr", "userxattr"] {
        let words: Vec<&str> = ["foreign", word]
            .into_iter()
            .filter(|word| *word != "xattr")
            .collect();
        let first = Layers::new().with_lower(&[
            dir("d"),
            file("d/old", "old"),
            dir("e"),
            file("e/old", "old"),
            file("f", "f"),
        ]);
        let mounted = first.mount(Fs::Plyfs, &words);
        let m = |name: &str| first.merged.join(name);
        sys::unlink(m("f")).unwrap();
        sys::unlink(m("d/old")).unwrap();
        sys::rmdir(m("d")).unwrap();
        sys::mkdir(m("d"), 0o755).unwrap();
        sys::put(m("d/new"), "new").unwrap();
        sys::append(m("e/old"), "+").unwrap();
        let want = seen(&first.merged);
        mounted.umount();
        let mut second = Layers::new();
        second.lower = first.upper.clone();
        second.below = vec![first.lower.clone()];
        // Whatever the namespace of the marks: the reader need not know.
        let _mounted = second.mount(Fs::Plyfs, &["foreign"]);
        assert_eq!(seen(&second.merged), want, "{word}");
        sys::append(second.merged.join("e/old"), "+").unwrap();
        assert_eq!(sys::text(second.merged.join("e/old")), Ok("old++".into()));
        assert_eq!(sys::text(first.upper.join("e/old")), Ok("old+".into()));
    }
}

/// A lower twice, or inside another one: the kernel refuses, fuse-overlayfs and this do not.
#[test]
fn overlapping_lowers() {
    if !need_root("overlapping lowers") || !ours_is_plyfs() {
        return;
    }
    let mut layers = Layers::new().with_lower(&[dir("d"), file("d/f", "f"), file("g", "g")]);
    layers.below = vec![layers.lower.join("d"), layers.lower.clone()];
    let _mounted = layers.mount(Fs::Plyfs, &["foreign"]);
    let want =
        BTreeMap::from([("d", ""), ("d/f", "f"), ("f", "f"), ("g", "g")].map(|(a, b)| (a.into(), b.into())));
    assert_eq!(seen(&layers.merged), want);
    sys::append(layers.merged.join("f"), "+").unwrap();
    assert_eq!(sys::text(layers.merged.join("d/f")), Ok("f".into()));
}
