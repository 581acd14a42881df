//! K1 to K8: what a mount asks of its directories.

use std::ffi::OsString;
use std::path::Path;

use crate::common::layers::{is_mounted, ours_is_plyfs, try_mount};
use crate::common::*;

/// Tries the mount on both sides. The kernel answers `errno`; plyfs ends with status 1 or 2 and names `culprit`.
/// Nothing may be mounted afterwards.
pub fn refused(name: &str, errno: Errno, words: &[&str], arrange: impl Fn(&mut Layers) -> String) {
    if !need_root(name) {
        return;
    }
    for fs in Fs::sides() {
        let mut layers = Layers::new().with_lower(&[file("f", "lower")]);
        let culprit = arrange(&mut layers);
        match layers.try_mount(fs, words) {
            Ok(_) => panic!("{name}: {} mounted", fs.name()),
            Err(refused) => told(fs, &refused, errno, &culprit),
        }
        assert!(!is_mounted(&layers.merged));
    }
}

pub fn told(fs: Fs, refused: &layers::Refused, errno: Errno, culprit: &str) {
    if refused.errno.is_some() {
        assert_eq!(refused.errno, Some(errno), "{}", fs.name());
        return;
    }
    let status = refused.status.unwrap_or(0);
    if ours_is_plyfs() {
        assert!([1, 2].contains(&status), "exit status of {refused:?}");
        assert!(
            refused.message.contains(culprit),
            "{culprit:?} is not named in {:?}",
            refused.message
        );
        assert!(!refused.message.contains("panicked"), "{:?}", refused.message);
    } else {
        assert!(status != 0, "{refused:?}");
    }
}

pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

type Pick = fn(&Layers) -> &Path;
const LAYERS: [(&str, Pick); 3] = [
    ("lower", |l| &l.lower),
    ("upper", |l| &l.upper),
    ("work", |l| &l.work),
];

#[test]
fn k1_missing_directories() {
    for (name, pick) in LAYERS {
        refused(&format!("missing {name}"), sys::ENOENT, &[], |l| {
            std::fs::remove_dir_all(pick(l)).unwrap();
            shown(pick(l))
        });
    }
    refused("missing merged", sys::ENOENT, &[], |l| {
        sys::rmdir(&l.merged).unwrap();
        shown(&l.merged)
    });
}

#[test]
fn k1_files_in_place_of_directories() {
    for (name, pick) in LAYERS {
        refused(&format!("file as {name}"), sys::EINVAL, &[], |l| {
            std::fs::remove_dir_all(pick(l)).unwrap();
            sys::put(pick(l), "").unwrap();
            shown(pick(l))
        });
    }
    refused("file as merged", sys::ENOTDIR, &[], |l| {
        sys::rmdir(&l.merged).unwrap();
        sys::put(&l.merged, "").unwrap();
        shown(&l.merged)
    });
}

#[test]
fn k2_upper_without_work() {
    if !need_root("k2") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new();
        let data = format!(
            "lowerdir={},upperdir={}",
            shown(&layers.lower),
            shown(&layers.upper)
        );
        let refused = try_mount(fs, OsString::from(data).as_os_str(), &layers.merged)
            .err()
            .expect("refused");
        told(fs, &refused, sys::EINVAL, "workdir");
    }
}

#[test]
fn k2_a_lone_lower_is_read_only() {
    if !need_root("k2") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new().with_lower(&[file("f", "lower"), dir("d")]);
        let data = OsString::from(format!("lowerdir={}", shown(&layers.lower)));
        let before = tree::fingerprint(&layers.lower);
        match (fs, try_mount(fs, &data, &layers.merged)) {
            (Fs::Kernel, mounted) => assert_eq!(mounted.err().unwrap().errno, Some(sys::EINVAL)),
            (Fs::Plyfs, mounted) if layers::program_is_kernel() => assert!(mounted.is_err()),
            (Fs::Plyfs, mounted) => {
                known::difference("lone-lower");
                let _mounted = mounted.expect("a read-only view");
                let m = |name| layers.merged.join(name);
                assert_eq!(sys::text(m("f")), Ok("lower".into()));
                assert_eq!(sys::put(m("f"), "x"), Err(sys::EROFS));
                assert_eq!(sys::chmod(m("f"), 0o600), Err(sys::EROFS));
                assert_eq!(sys::unlink(m("f")), Err(sys::EROFS));
                assert_eq!(sys::mkdir(m("n"), 0o755), Err(sys::EROFS));
                assert_eq!(sys::rmdir(m("d")), Err(sys::EROFS));
                assert_eq!(sys::rename(m("f"), m("g")), Err(sys::EROFS));
                assert_eq!(sys::setxattr(m("f"), "user.a", "b"), Err(sys::EROFS));
            }
        }
        assert_eq!(
            before.differences(&tree::fingerprint(&layers.lower), "before", "after"),
            [""; 0]
        );
    }
}

#[test]
fn k3_upper_and_work_nested_or_equal() {
    refused("work in upper", sys::EINVAL, &[], |l| {
        l.work = l.upper.join("w");
        sys::mkdir(&l.work, 0o755).unwrap();
        shown(&l.work)
    });
    refused("upper in work", sys::EINVAL, &[], |l| {
        l.upper = l.work.join("u");
        sys::mkdir(&l.upper, 0o755).unwrap();
        shown(&l.upper)
    });
    refused("work is upper", sys::EINVAL, &[], |l| {
        l.work = l.upper.clone();
        shown(&l.upper)
    });
}

#[test]
fn k3_upper_and_work_on_different_mounts() {
    refused("work on a tmpfs", sys::EINVAL, &[], |l| {
        sys::mount("t", &l.work, "tmpfs", 0, "").unwrap();
        shown(&l.work)
    });
    refused(
        "work on a bind mount of the same file system",
        sys::EINVAL,
        &[],
        |l| {
            let path = shown(&l.work);
            sys::mount(&path, &l.work, "", libc::MS_BIND, "").unwrap();
            path
        },
    );
}

#[test]
fn k4_lower_within_upper_or_work() {
    refused("lower is upper", sys::ELOOP, &[], |l| {
        l.lower = l.upper.clone();
        shown(&l.upper)
    });
    refused("lower below upper", sys::ELOOP, &[], |l| {
        l.lower = l.upper.join("l");
        sys::mkdir(&l.lower, 0o755).unwrap();
        shown(&l.lower)
    });
    refused("lower below work", sys::ELOOP, &[], |l| {
        l.lower = l.work.join("l");
        sys::mkdir(&l.lower, 0o755).unwrap();
        shown(&l.lower)
    });
}

#[test]
fn k4_upper_work_and_merged_below_lower() {
    if !need_root("k4") {
        return;
    }
    for fs in Fs::sides() {
        let mut layers = Layers::new();
        let base = layers.base().to_owned();
        sys::put(base.join("f"), "lower").unwrap();
        sys::mkdir(base.join("d"), 0o755).unwrap();
        layers.lower = base.clone();
        let _mounted = layers.mount(fs, &[]);
        let m = |name: &str| layers.merged.join(name);
        assert_eq!(sys::text(m("f")), Ok("lower".into()));
        assert_eq!(sys::put(m("f"), "new"), Ok(()));
        assert_eq!(sys::put(m("d/n"), "new"), Ok(()));
        assert_eq!(sys::text(base.join("f")), Ok("lower".into()));
        assert_eq!(sys::text(layers.upper.join("f")), Ok("new".into()));
        assert_eq!(sys::text(layers.upper.join("d/n")), Ok("new".into()));
        // The view does not hold the directories it is made of, and walking it ends.
        for name in ["u", "w", "u/f"] {
            assert_eq!(
                sys::lstat(m(name)).err(),
                Some(sys::ELOOP),
                "{} {name}",
                fs.name()
            );
        }
        let found = sys::walk(&layers.merged);
        assert!(found.contains(&m("d/n")), "{found:?}");
        assert!(
            found
                .iter()
                .all(|p| p.components().count() < base.components().count() + 8),
            "{found:?}"
        );
        // K28: the lower's entry for the mount point of the view itself leads nowhere.
        let own = sys::names(m("m"));
        assert!(
            matches!(own, Err(_) | Ok(_)) && own.clone().unwrap_or_default().is_empty(),
            "{own:?}"
        );
    }
}

#[test]
fn k5_upper_on_an_overlay() {
    refused("upper on the kernel's overlay", sys::EINVAL, &[], |l| {
        for name in ["u/u", "u/w", "x"] {
            sys::mkdir(l.base().join(name), 0o755).unwrap();
        }
        let inner = Layers::within(l.base());
        let data = inner.options(&[]);
        sys::mount("overlay", &inner.merged, "overlay", 0, data).unwrap();
        l.upper = inner.merged.join("u");
        l.work = inner.merged.join("w");
        sys::mkdir(&l.upper, 0o755).unwrap();
        sys::mkdir(&l.work, 0o755).unwrap();
        std::mem::forget(inner);
        shown(&l.upper)
    });
}

#[test]
fn k5_lower_may_be_an_overlay_of_either_kind() {
    if !need_root("k5") {
        return;
    }
    for fs in Fs::sides() {
        for below in Fs::sides() {
            let inner = Layers::new().with_lower(&[dir("d"), file("d/f", "bottom"), file("gone", "")]);
            let _below = inner.mount(below, &[]);
            sys::unlink(inner.merged.join("gone")).unwrap();
            let mut outer = Layers::new();
            outer.lower = inner.merged.clone();
            let mounted = outer.mount(fs, &[]);
            let m = |name: &str| outer.merged.join(name);
            assert_eq!(sys::text(m("d/f")), Ok("bottom".into()));
            assert_eq!(sys::lstat(m("gone")).err(), Some(sys::ENOENT));
            assert_eq!(sys::append(m("d/f"), " top"), Ok(()));
            assert_eq!(sys::text(m("d/f")), Ok("bottom top".into()));
            assert_eq!(sys::text(inner.merged.join("d/f")), Ok("bottom".into()));
            mounted.umount();
        }
    }
}

#[test]
fn k6_layers_in_use() {
    if !need_root("k6") {
        return;
    }
    if !ours_is_plyfs() {
        return skip("k6", "only plyfs refuses");
    }
    known::difference("busy-layers");
    let layers = Layers::new().with_lower(&[file("f", "lower")]);
    let _first = layers.mount(Fs::Plyfs, &[]);
    let second = layers.base().join("m2");
    sys::mkdir(&second, 0o755).unwrap();
    let refused = try_mount(Fs::Plyfs, &layers.options(&[]), &second)
        .err()
        .expect("refused");
    assert_eq!(refused.status, Some(1), "{refused:?}");
    let named = [&layers.upper, &layers.work]
        .iter()
        .any(|p| refused.message.contains(&shown(p)));
    assert!(named, "{:?}", refused.message);
    // Another upper with the same work, another work with the same upper.
    for part in ["upper", "work"] {
        let mut other = Layers::new();
        other.lower.clone_from(&layers.lower);
        if part == "upper" {
            // On the same mount, so only the upper is to blame.
            other.upper.clone_from(&layers.upper);
        } else {
            other.work.clone_from(&layers.work);
        }
        let refused = other
            .try_mount(Fs::Plyfs, &[])
            .err()
            .unwrap_or_else(|| panic!("shared {part} mounted"));
        assert_eq!(refused.status, Some(1), "{refused:?}");
    }
    assert_eq!(sys::text(layers.merged.join("f")), Ok("lower".into()));
}

#[test]
fn k6_a_dead_server_frees_its_layers() {
    if !need_root("k6") {
        return;
    }
    if !ours_is_plyfs() {
        return skip("k6 dead server", "only plyfs locks its layers");
    }
    let layers = Layers::new().with_lower(&[file("f", "lower")]);
    let mounted = layers.mount(Fs::Plyfs, &[]);
    let pid = mounted.server().expect("a server");
    // SAFETY: the server of this very mount.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    while !layers::servers_of(&layers.merged).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let answer = sys::text(layers.merged.join("f"));
    assert!(
        matches!(answer, Err(sys::ENOTCONN | sys::ECONNABORTED)),
        "{answer:?}"
    );
    drop(mounted);
    let _again = layers.mount(Fs::Plyfs, &[]);
    assert_eq!(sys::text(layers.merged.join("f")), Ok("lower".into()));
}

#[test]
fn k7_leftovers_in_work_are_cleaned_and_neighbours_are_not() {
    if !need_root("k7") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new().with_lower(&[file("f", "lower")]);
        plant::plant(
            &layers.work,
            &[
                dir("work"),
                file("work/#1", "x"),
                dir("work/#2"),
                file("work/#2/a", "x"),
                dir("mine"),
                file("mine/x", ""),
            ],
        );
        let mounted = layers.mount(fs, &[]);
        assert_eq!(
            layers.leftovers(),
            [""; 0].map(std::path::PathBuf::from),
            "{}",
            fs.name()
        );
        assert_eq!(sys::put(layers.merged.join("f"), "new"), Ok(()));
        mounted.umount();
        assert!(sys::exists(layers.work.join("mine/x")), "{}", fs.name());
    }
}

#[test]
fn k7_deep_leftovers() {
    if !need_root("k7") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new();
        let mut deep = vec![dir("work"), dir("work/#7")];
        for i in 1..60 {
            deep.push(dir(format!("work/#7{}", "/d".repeat(i))));
        }
        plant::plant(&layers.work, &deep);
        let _mounted = layers.mount(fs, &[]);
        let touched = sys::put(layers.merged.join("x"), "");
        match fs {
            Fs::Kernel => assert_eq!(touched, Err(sys::EROFS)),
            Fs::Plyfs if layers::program_is_kernel() => {}
            Fs::Plyfs => {
                known::difference("deep-leftovers");
                assert_eq!(touched, Ok(()));
                assert_eq!(layers.leftovers(), [""; 0].map(std::path::PathBuf::from));
            }
        }
    }
}

#[test]
fn k7_leftovers_that_are_links_lead_nowhere() {
    if !need_root("k7") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new();
        let precious = layers.base().join("precious");
        plant::plant(layers.base(), &[dir("precious"), file("precious/x", "kept")]);
        plant::plant(
            &layers.work,
            &[dir("work"), symlink("work/#1", &precious), dir("work/#2")],
        );
        sys::make_symlink(&precious, layers.work.join("work/#2/s")).unwrap();
        let _mounted = layers.mount(fs, &[]);
        assert_eq!(sys::text(precious.join("x")), Ok("kept".into()));
        assert_eq!(
            layers.leftovers(),
            [""; 0].map(std::path::PathBuf::from),
            "{}",
            fs.name()
        );
    }
}

#[test]
fn k8_incompat() {
    refused("something in incompat", sys::EINVAL, &[], |l| {
        plant::plant(
            &l.work,
            &[dir("work"), dir("work/incompat"), dir("work/incompat/future")],
        );
        "incompat".into()
    });
}

#[test]
fn k8_volatile_leaves_its_mark() {
    if !need_root("k8") {
        return;
    }
    for fs in Fs::sides() {
        for word in ["volatile", "fsync=volatile"] {
            let layers = Layers::new().with_lower(&[file("f", "lower")]);
            let mounted = layers.mount(fs, &[word]);
            let mark = layers.work.join("work/incompat/volatile");
            assert!(sys::exists(&mark), "{} {word}", fs.name());
            assert_eq!(sys::put(layers.merged.join("f"), "new"), Ok(()));
            // K122: a healthy volatile mount says yes to every sync.
            let fd = sys::open(layers.merged.join("f"), libc::O_RDWR).unwrap();
            assert_eq!(
                (sys::fsync(&fd), sys::fdatasync(&fd), sys::syncfs(&fd)),
                (Ok(()), Ok(()), Ok(()))
            );
            drop(fd);
            mounted.umount();
            assert!(
                sys::exists(&mark),
                "{}: the mark stays after the unmount",
                fs.name()
            );
            for words in [vec![], vec!["volatile"]] {
                let refused = layers
                    .try_mount(fs, &words)
                    .err()
                    .expect("refused after volatile");
                told(fs, &refused, sys::EINVAL, "volatile");
            }
            std::fs::remove_dir_all(&mark).unwrap();
            let _mounted = layers.mount(fs, &[]);
            assert_eq!(sys::text(layers.merged.join("f")), Ok("new".into()));
        }
    }
}
