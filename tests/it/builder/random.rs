//! Random changes of a directory: what the properties are tried on.
//!
//! A [`Change`] picks what exists by number, so that nearly every one of a list does something, and takes names,
//! contents and times from small sets, so that they meet: equal sizes and times, a name that comes back as
//! something else, links of links.

use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::common::{acl, sys};

/// Names sort differently as text and as bytes, and are hard to print; one has no room in an old tar header.
const NAMES: [&[u8]; 9] = [
    b"a",
    b"b",
    b"a-b",
    b"a.b",
    b"B",
    b"\xff\xfe",
    b"line\nbreak",
    "ä".as_bytes(),
    &[b'n'; 180],
];

const TIMES: [(i64, i64); 5] = [
    (1_500_000_000, 0),
    (1_500_000_000, 123_456_789),
    (-5, 250_000_000),
    (0, 0),
    (1 << 34, 1),
];

const CONTENTS: [(u8, usize); 7] = [
    (b'x', 0),
    (b'x', 4),
    (b'y', 4),
    (b'x', 5000),
    (b'y', 5000),
    (b'z', 512),
    (b'z', 300_000),
];

const XATTRS: [&str; 4] = ["user.a", "user.b", "trusted.c", "user.overlay.overlay.d"];

const IDS: [u32; 4] = [0, 7, 1001, 3_000_000_000];

/// One step.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new object in the `at`-th directory; what has the name is removed first, if `over`.
    New {
        at: usize,
        name: usize,
        over: bool,
        what: What,
    },
    Link {
        from: usize,
        at: usize,
        name: usize,
    },
    Rename {
        from: usize,
        at: usize,
        name: usize,
    },
    Remove {
        at: usize,
    },
    Write {
        at: usize,
        content: usize,
        place: usize,
    },
    Mode {
        at: usize,
        mode: u32,
    },
    Owner {
        at: usize,
        uid: usize,
        gid: usize,
    },
    Time {
        at: usize,
        time: usize,
    },
    Xattr {
        at: usize,
        name: usize,
        value: Option<Vec<u8>>,
    },
    Acl {
        at: usize,
        default: bool,
    },
    Capability {
        at: usize,
    },
    /// Opened for writing, and nothing else.
    Open {
        at: usize,
    },
}

#[derive(Clone, Debug)]
pub enum What {
    Directory,
    File(usize),
    Sparse(usize),
    Symlink(usize),
    Fifo,
    Device(u32),
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => Just(What::Directory),
        5 => any::<usize>().prop_map(What::File),
        1 => any::<usize>().prop_map(What::Sparse),
        2 => any::<usize>().prop_map(What::Symlink),
        1 => Just(What::Fifo),
        1 => (1u32..4).prop_map(What::Device),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<usize>;
    prop_oneof![
        12 => (at(), at(), any::<bool>(), what()).prop_map(|(at, name, over, what)| Change::New { at, name, over, what }),
        3 => (at(), at(), at()).prop_map(|(from, at, name)| Change::Link { from, at, name }),
        2 => (at(), at(), at()).prop_map(|(from, at, name)| Change::Rename { from, at, name }),
        3 => at().prop_map(|at| Change::Remove { at }),
        2 => (at(), at(), at()).prop_map(|(at, content, place)| Change::Write { at, content, place }),
        2 => (at(), any::<u32>()).prop_map(|(at, mode)| Change::Mode { at, mode }),
        1 => (at(), at(), at()).prop_map(|(at, uid, gid)| Change::Owner { at, uid, gid }),
        3 => (at(), at()).prop_map(|(at, time)| Change::Time { at, time }),
        2 => (at(), at(), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)))
            .prop_map(|(at, name, value)| Change::Xattr { at, name, value }),
        1 => (at(), any::<bool>()).prop_map(|(at, default)| Change::Acl { at, default }),
        1 => at().prop_map(|at| Change::Capability { at }),
        1 => at().prop_map(|at| Change::Open { at }),
    ]
}

/// A list of at most `most` steps.
pub fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    proptest::collection::vec(change(), 0..most)
}

/// Whether a file may be changed where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// The directory has its files alone.
    InPlace,
    /// Others share its files: what has several names is replaced, never changed.
    Shared,
}

/// Does what can be done; a step that makes no sense is passed over.
pub fn perform(root: &Path, changes: &[Change], care: Care) {
    for change in changes {
        // Refusals are part of the game: a directory into itself, a name that is taken.
        let _ = perform_one(root, change, care);
    }
}

fn pick<T>(list: &[T], number: usize) -> &T {
    &list[number % list.len()]
}

fn content(number: usize) -> Vec<u8> {
    let (byte, size) = *pick(&CONTENTS, number);
    vec![byte; size]
}

/// All objects, the root first.
fn objects(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.to_owned()];
    all.extend(sys::walk(root));
    all
}

fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

fn perform_one(root: &Path, change: &Change, care: Care) -> sys::R {
    let objects = objects(root);
    let directories: Vec<_> = objects.iter().filter(|path| is_dir(path)).cloned().collect();
    let place =
        |at: usize, name: usize| pick(&directories, at).join(OsStr::from_bytes(pick::<&[u8]>(&NAMES, name)));
    let object = |at: usize| pick(&objects, at).clone();
    // What others share is left alone.
    let mine = |at: usize| {
        let path = object(at);
        let meta = path.symlink_metadata()?;
        if care == Care::Shared && !meta.is_dir() && meta.nlink() > 1 {
            return Err(sys::EPERM);
        }
        Ok((path, meta))
    };
    match change {
        Change::New { at, name, over, what } => {
            let path = place(*at, *name);
            if *over {
                remove(&path)?;
            }
            make(&path, what)
        }
        Change::Link { from, at, name } => sys::link(object(*from), place(*at, *name)),
        Change::Rename { from, at, name } => sys::rename(object(*from), place(*at, *name)),
        Change::Remove { at } if *pick(&objects, *at) == root => Ok(()),
        Change::Remove { at } => remove(&object(*at)),
        Change::Write {
            at,
            content: number,
            place,
        } => {
            let (path, meta) = mine(*at)?;
            if meta.is_file() {
                let file = sys::open(&path, libc::O_WRONLY)?;
                let data = content(*number);
                sys::pwrite(&file, &data, if place % 2 == 0 { 0 } else { meta.size() as i64 })?;
            }
            Ok(())
        }
        Change::Mode { at, mode } => {
            let (path, meta) = mine(*at)?;
            if meta.is_symlink() {
                Ok(())
            } else {
                sys::chmod(path, mode & 0o7777)
            }
        }
        Change::Owner { at, uid, gid } => sys::chown(mine(*at)?.0, *pick(&IDS, *uid), *pick(&IDS, *gid)),
        Change::Time { at, time } => {
            let time = *pick(&TIMES, *time);
            sys::utimens(mine(*at)?.0, time, time)
        }
        Change::Xattr { at, name, value } => {
            let (path, name) = (mine(*at)?.0, pick(&XATTRS, *name));
            match value {
                Some(value) => sys::setxattr(path, name, value),
                None => sys::removexattr(path, name),
            }
        }
        Change::Acl { at, default } => {
            let list = [
                (acl::USER_OBJ, 0, 7),
                (acl::USER, 7, 5),
                (acl::GROUP_OBJ, 0, 5),
                (acl::MASK, 0, 5),
                (acl::OTHER, 0, 1),
            ];
            let name = if *default { acl::DEFAULT } else { acl::ACCESS };
            sys::setxattr(mine(*at)?.0, name, acl::of(&list))
        }
        Change::Capability { at } => {
            let (path, meta) = mine(*at)?;
            if !meta.is_file() {
                return Ok(());
            }
            sys::setxattr(
                path,
                "security.capability",
                [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            )
        }
        Change::Open { at } => {
            let (path, meta) = mine(*at)?;
            if meta.is_file() {
                sys::open(path, libc::O_RDWR).map(drop)
            } else {
                Ok(())
            }
        }
    }
}

fn remove(path: &Path) -> sys::R {
    let Ok(meta) = path.symlink_metadata() else {
        return Ok(());
    };
    if meta.is_dir() {
        Ok(std::fs::remove_dir_all(path)?)
    } else {
        sys::unlink(path)
    }
}

fn make(path: &Path, what: &What) -> sys::R {
    match what {
        What::Directory => sys::mkdir(path, 0o755),
        What::File(number) => {
            let file = sys::create(path, 0o644)?;
            sys::write_all_to(file.as_raw_fd(), &content(*number))
        }
        What::Sparse(number) => {
            let file = sys::create(path, 0o644)?;
            sys::ftruncate(&file, 1 << 20)?;
            sys::pwrite(&file, &content(*number), 500_000).map(drop)
        }
        What::Symlink(number) => {
            let targets: [&[u8]; 4] = [b"a", b"../..", b"/\xff", &[b't'; 300]];
            sys::make_symlink(OsStr::from_bytes(pick::<&[u8]>(&targets, *number)), path)
        }
        What::Fifo => sys::mknod(path, libc::S_IFIFO | 0o600, 0, 0),
        What::Device(minor) => sys::mknod(path, libc::S_IFCHR | 0o600, 1, *minor),
    }
}
