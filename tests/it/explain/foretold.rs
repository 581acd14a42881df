//! One change of every path at a time: told, done, and compared.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use plyfs::explain::{After, Change};

use super::{every_kind, find, open};
use crate::common::tree::fingerprint;
use crate::common::*;

/// What the upper has under a path.
fn in_upper(layers: &Layers, path: &Path) -> After {
    let path = layers.upper.join(path);
    let Ok(st) = sys::lstat(&path) else {
        return After::Nothing;
    };
    let opaque = sys::getxattr(&path, "trusted.overlay.opaque") == Ok(b"y".to_vec());
    match st.st_mode & libc::S_IFMT {
        libc::S_IFCHR if st.st_rdev == 0 => After::Whiteout,
        libc::S_IFDIR if opaque => After::OpaqueDirectory,
        _ => After::Object,
    }
}

fn moved(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}.moved", path.file_name().unwrap().display()))
}

/// Does it, and answers the errno by name.
fn really(change: Change, path: &Path) -> Option<String> {
    let done = match change {
        Change::OpenForWriting => sys::open(path, libc::O_RDWR | libc::O_NONBLOCK).map(drop),
        Change::Unlink => sys::unlink(path),
        Change::Rename => sys::rename(path, moved(path)),
        Change::Rmdir => sys::rmdir(path),
        Change::Chmod => sys::chmod(path, 0o750),
        Change::Create => {
            sys::open_mode(path, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o640).map(drop)
        }
    };
    done.err().map(|errno| format!("{errno:?}"))
}

const CHANGES: [Change; 6] = [
    Change::OpenForWriting,
    Change::Unlink,
    Change::Rename,
    Change::Rmdir,
    Change::Chmod,
    Change::Create,
];

/// Foretells one change of every path, does it on a mount of `fs`, and compares.
fn foretold(fs: Fs, change: Change, failures: &mut Vec<String>) {
    let (layers, paths) = every_kind();
    let before = fingerprint(&layers.upper);
    let lower = fingerprint(&layers.lower);
    let explained = open(&layers);
    let told: Vec<_> = paths
        .iter()
        .map(|path| explained.explain(path).unwrap())
        .collect();
    drop(explained);
    let held: Vec<_> = paths.iter().map(|path| in_upper(&layers, path)).collect();
    let untouched = before.differences(&fingerprint(&layers.upper), "before", "after");
    assert_eq!(untouched, Vec::<String>::new(), "explain wrote to the upper");

    let mounted = layers.mount(fs, &[]);
    let mut expected = BTreeSet::new();
    let mut done = 0;
    for (path, told) in paths.iter().zip(&told) {
        let at = layers.merged.join(path);
        let mut fail =
            |what: String| failures.push(format!("{} {change:?} {}: {what}", fs.name(), path.display()));
        let seen = sys::lstat(&at);
        if seen.as_ref().err().map(|errno| format!("{errno:?}")) != told.errno {
            fail(format!("lstat {seen:?}, told {:?}", told.errno));
        }
        let Some(operation) = find(told, change) else {
            if seen.is_ok() != (change == Change::Create) {
                fail("not told".into());
            }
            continue;
        };
        let is_link = seen.is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFLNK);
        if is_link && matches!(change, Change::OpenForWriting | Change::Chmod) {
            if !operation.plan[0].contains("follows the symlink") {
                fail(format!("{:?}", operation.plan));
            }
            continue;
        }
        let errno = really(change, &at);
        if errno != operation.errno {
            fail(format!("{errno:?}, told {:?}", operation.errno));
        }
        done += 1;
        expected.extend(operation.copies.iter().map(|copy| copy.path.path()));
        if operation.errno.is_some() && !operation.copies.is_empty() {
            fail("copies of a call that fails".into());
        }
    }
    assert!(done > 3, "only {done} paths for {change:?}");
    mounted.umount();

    for ((path, told), held) in paths.iter().zip(&told).zip(&held) {
        let Some(operation) = find(told, change) else {
            continue;
        };
        let mut fail =
            |what: String| failures.push(format!("{} {change:?} {}: {what}", fs.name(), path.display()));
        let want = match operation.upper_after {
            After::Unchanged => *held,
            after => after,
        };
        let found = in_upper(&layers, path);
        if found != want {
            fail(format!("the upper holds {found:?}, told {want:?}"));
        }
        if let Some(after) = operation.target_after {
            let found = in_upper(&layers, &moved(path));
            if found != after {
                fail(format!(
                    "the upper holds {found:?} under the new name, told {after:?}"
                ));
            }
            expected.insert(Path::new("/").join(moved(path)));
        }
        if operation.upper_after != After::Unchanged {
            expected.insert(Path::new("/").join(path));
        }
    }
    // Nothing else came up.
    let now = fingerprint(&layers.upper);
    for path in now.0.keys().filter(|path| !before.0.contains_key(*path)) {
        if !expected.iter().any(|known| *known == Path::new("/").join(path)) {
            let above = expected
                .iter()
                .any(|known| Path::new("/").join(path).starts_with(known));
            if !above || change != Change::Rename {
                failures.push(format!(
                    "{} {change:?}: {} came up untold",
                    fs.name(),
                    path.display()
                ));
            }
        }
    }
    // And everything that was told did.
    for (path, told) in paths.iter().zip(&told) {
        let Some(operation) = find(told, change) else {
            continue;
        };
        for copy in operation.copies.iter().map(|copy| copy.path.path()) {
            let own = copy.strip_prefix("/").unwrap();
            let stays = own != path || matches!(change, Change::OpenForWriting | Change::Chmod);
            if stays && !now.0.contains_key(own) {
                failures.push(format!("{} {change:?}: no copy of {}", fs.name(), own.display()));
            }
        }
    }
    let changed = lower.differences(&fingerprint(&layers.lower), "before", "after");
    failures.extend(changed);
}

#[test]
fn what_is_told_is_what_happens() {
    if !need_root("explain and both overlays") {
        return;
    }
    let mut failures = Vec::new();
    for fs in Fs::sides() {
        for change in CHANGES {
            foretold(fs, change, &mut failures);
        }
    }
    assert!(failures.is_empty(), "\n  {}\n", failures.join("\n  "));
}
