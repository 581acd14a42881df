//! A lower that is an image layer: its inodes are shared with other layers, and that does not show.

use std::path::{Path, PathBuf};
use std::process::Command;

use plyfs::format::{Links, TreeId};

use crate::common::layers::{ours_is_plyfs, run};
use crate::common::*;

/// Two layers in the manner of a store: `overlay/base`, and `overlay/child`, all of whose files are the base's.
struct Stored {
    layers: Layers,
    base: PathBuf,
}

const NAMES: [&str; 6] = ["one", "d/two", "a", "d/b", "link", "fifo"];

impl Stored {
    fn new() -> Self {
        let mut layers = Layers::new();
        let base = layers.base().join("overlay/base/root");
        let child = layers.base().join("overlay/child/root");
        for root in [&base, &child] {
            std::fs::create_dir_all(root.join("d")).unwrap();
        }
        plant::plant(
            &base,
            &[
                file("one", "one name\n"),
                file("d/two", "another\n").mode(0o600),
                file("a", "two names\n"),
                hard("d/b", "a"),
                symlink("link", "one"),
                fifo("fifo"),
            ],
        );
        for name in NAMES {
            sys::link(base.join(name), child.join(name)).unwrap();
        }
        for root in [&base, &child] {
            write_links(root);
        }
        layers.lower = child;
        Self { layers, base }
    }
}

fn write_links(root: &Path) {
    let names = sys::walk(root)
        .into_iter()
        .map(|path| sys::lstat(&path).unwrap())
        .filter(|st| st.st_mode & libc::S_IFMT != libc::S_IFDIR)
        .map(|st| (st.st_ino, 1));
    let links = Links::new(TreeId::of(std::fs::File::open(root).unwrap()).unwrap(), names);
    std::fs::write(root.with_file_name("links"), links.encode()).unwrap();
}

/// Link count and number of each name in the view.
fn shown(merged: &Path) -> Vec<(u64, u64)> {
    let look = |name| {
        let path = merged.join(name);
        (sys::nlink(&path).unwrap(), sys::ino(&path).unwrap())
    };
    NAMES.into_iter().map(look).collect()
}

fn counts(merged: &Path) -> Vec<u64> {
    shown(merged).into_iter().map(|(count, _)| count).collect()
}

fn can_run(name: &str) -> bool {
    if !ours_is_plyfs() {
        skip(name, "about plyfs");
        return false;
    }
    need_root(name)
}

#[test]
fn sharing_with_other_layers_does_not_show() {
    if !can_run("sharing_with_other_layers_does_not_show") {
        return;
    }
    let stored = Stored::new();
    let before = tree::fingerprint(&stored.base);
    assert_eq!(sys::nlink(stored.base.join("one")), Ok(2), "shared by two layers");
    assert_eq!(sys::nlink(stored.base.join("a")), Ok(4));
    let mounted = stored.layers.mount(Fs::Plyfs, &[]);
    let m = mounted.path();
    assert_eq!(counts(m), [1, 1, 2, 2, 1, 1]);
    let first = shown(m);
    assert_eq!(first[2].1, first[3].1, "two names of one file, one number");

    // Copied up: the numbers stay, and nothing is claimed in the work directory.
    sys::append(m.join("one"), "more\n").unwrap();
    sys::chmod(m.join("d/two"), 0o640).unwrap();
    std::os::unix::fs::lchown(m.join("link"), Some(7), None).unwrap();
    sys::chmod(m.join("fifo"), 0o600).unwrap();
    assert_eq!(shown(m), first);
    assert!(!sys::exists(stored.layers.work.join("plyfs-claims")));
    assert_eq!(sys::text(m.join("one")).unwrap(), "one name\nmore\n");

    // A second name, taken away again.
    sys::link(m.join("one"), m.join("d/more")).unwrap();
    assert_eq!(sys::nlink(m.join("one")), Ok(2));
    assert_eq!(sys::ino(m.join("d/more")), Ok(first[0].1));
    sys::unlink(m.join("one")).unwrap();
    assert_eq!(sys::nlink(m.join("d/more")), Ok(1));
    sys::rename(m.join("d/more"), m.join("one")).unwrap();
    assert_eq!(shown(m), first);

    // A rename of a file of the lower keeps its number, too.
    let mounted = mounted.remount();
    let m = mounted.path();
    assert_eq!(shown(m), first, "after a remount");
    sys::rename(m.join("d/two"), m.join("d/moved")).unwrap();
    assert_eq!(sys::ino(m.join("d/moved")), Ok(first[1].1));
    assert_eq!(sys::nlink(m.join("d/moved")), Ok(1));
    mounted.umount();
    let after = tree::fingerprint(&stored.base);
    assert_eq!(before.differences(&after, "planted", "afterwards"), [""; 0]);
    assert_eq!(sys::text(stored.base.join("one")).unwrap(), "one name\n");
}

#[test]
fn linking_a_file_of_the_layer_counts_from_one() {
    if !can_run("linking_a_file_of_the_layer_counts_from_one") {
        return;
    }
    let stored = Stored::new();
    let mounted = stored.layers.mount(Fs::Plyfs, &[]);
    let m = mounted.path();
    let number = sys::ino(m.join("one")).unwrap();
    sys::link(m.join("one"), m.join("again")).unwrap();
    for name in ["one", "again"] {
        assert_eq!(
            (sys::nlink(m.join(name)), sys::ino(m.join(name))),
            (Ok(2), Ok(number))
        );
    }
    // Open, without a name, and copied up then.
    let open = sys::open(m.join("d/two"), libc::O_RDONLY).unwrap();
    sys::unlink(m.join("d/two")).unwrap();
    assert_eq!(sys::fstat(&open).unwrap().st_nlink, 0);
    sys::fchmod(&open, 0o644).unwrap();
    assert_eq!(sys::fstat(&open).unwrap().st_nlink, 0);
    drop(open);
    mounted.umount();
}

#[test]
fn names_of_one_file_stay_together_until_one_is_written() {
    if !can_run("names_of_one_file_stay_together_until_one_is_written") {
        return;
    }
    let stored = Stored::new();
    let mounted = stored.layers.mount(Fs::Plyfs, &[]);
    let m = mounted.path();
    let number = sys::ino(m.join("a")).unwrap();
    assert_eq!(sys::ino(m.join("d/b")), Ok(number));
    sys::append(m.join("a"), "more\n").unwrap();
    // As with any lower: the copy is another file from now on (K42).
    assert_eq!(sys::nlink(m.join("a")), Ok(1));
    assert_ne!(sys::ino(m.join("a")), Ok(number));
    assert_eq!(sys::ino(m.join("d/b")), Ok(number));
    assert_eq!(sys::text(m.join("d/b")).unwrap(), "two names\n");
    mounted.umount();
}

#[test]
fn gzip_takes_a_file_that_layers_share() {
    if !can_run("gzip_takes_a_file_that_layers_share") {
        return;
    }
    let stored = Stored::new();
    let mounted = stored.layers.mount(Fs::Plyfs, &[]);
    let (status, message) = run(Command::new("gzip").arg(mounted.path().join("one")));
    assert_eq!(status, 0, "{message}");
    assert!(sys::exists(mounted.path().join("one.gz")));
    let (status, message) = run(Command::new("gzip").arg(mounted.path().join("a")));
    assert_eq!(status, 2, "really has two names: {message}");
    mounted.umount();
}

#[test]
fn a_record_of_another_place_is_ignored() {
    if !can_run("a_record_of_another_place_is_ignored") {
        return;
    }
    let mut stored = Stored::new();
    let layer = stored.layers.lower.parent().unwrap().to_owned();
    let copy = layer.with_file_name("copied");
    let (status, message) = run(Command::new("cp").arg("-a").arg(&layer).arg(&copy));
    assert_eq!(status, 0, "{message}");
    stored.layers.lower = copy.join("root");
    let mounted = stored.layers.mount(Fs::Plyfs, &[]);
    assert_eq!(counts(mounted.path()), [1, 1, 2, 2, 1, 1], "what the copy has");
    sys::link(copy.join("root/one"), copy.join("root/more")).unwrap();
    mounted.umount();
    let mounted = stored.layers.mount(Fs::Plyfs, &[]);
    assert_eq!(sys::nlink(mounted.path().join("one")), Ok(2));
    mounted.umount();

    // A damaged record, and files of that name which are none of ours.
    let links = copy.join("links");
    let good = std::fs::read(&links).unwrap();
    for content in [&good[..good.len() - 1], b"PLYLINK", b"", b"a list of links\n"] {
        std::fs::write(&links, content).unwrap();
        let mounted = stored.layers.mount(Fs::Plyfs, &[]);
        assert_eq!(sys::nlink(mounted.path().join("one")), Ok(2));
        mounted.umount();
    }
    std::fs::remove_file(&links).unwrap();
    sys::mknod(&links, libc::S_IFIFO | 0o644, 0, 0).unwrap();
    stored.layers.mount(Fs::Plyfs, &[]).umount();
}

#[test]
fn a_layer_in_use_is_locked_until_its_server_ends() {
    let name = "a_layer_in_use_is_locked_until_its_server_ends";
    if !can_run(name) {
        return;
    }
    let stored = Stored::new();
    let layer = stored.layers.lower.parent().unwrap().to_owned();
    let exclusive = || {
        let dir = sys::open(&layer, libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        sys::flock(&dir, libc::LOCK_EX | libc::LOCK_NB).map(|()| dir)
    };
    let mounted = stored.layers.mount(Fs::Plyfs, &[]);
    assert_eq!(exclusive().err(), Some(sys::EAGAIN));
    // A second view of the same layer.
    let second = Layers::new();
    let mut options = std::ffi::OsString::from("lowerdir=");
    options.push(&stored.layers.lower);
    let other = layers::try_mount(Fs::Plyfs, &options, &second.merged).unwrap();
    mounted.umount();
    assert_eq!(exclusive().err(), Some(sys::EAGAIN));
    let server = other.server().unwrap();
    // SAFETY: the server of this test's own mount.
    unsafe { libc::kill(server, libc::SIGKILL) };
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let held = loop {
        match exclusive() {
            Ok(held) => break held,
            Err(_) if std::time::Instant::now() < until => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(errno) => panic!("a killed server holds the layer: {errno:?}"),
        }
    };
    drop(other);
    // Who removes it keeps the lock meanwhile.
    let refused = stored.layers.try_mount(Fs::Plyfs, &[]).err().unwrap();
    assert!(refused.message.contains("being removed"), "{refused:?}");
    drop(held);
    stored.layers.mount(Fs::Plyfs, &[]).umount();
}
