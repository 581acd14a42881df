//! `plyfs layer clone`: everything comes over, nothing is touched, nothing is left.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfs::builder::{Linker, Silent, clone_tree};
use plyfs::sys::at;
use serde_json::Value;

use super::room::{Room, faults, manifest, names, open, same_inode, set_immutable};
use crate::common::plant::plant;
use crate::common::who::ANN;
use crate::common::{
    Node, Tree, acl, as_user, chr, dir, fifo, file, hard, need_root, skip, snapshot, sock, sparse, symlink,
    sys, with_umask,
};

/// Before 1970, with a fraction.
const LONG_AGO: (i64, i64) = (-86_400, 123_456_789);

/// One of everything that a file system keeps.
fn everything() -> Vec<Node> {
    let access = acl::of(&[
        (acl::USER_OBJ, 0, 7),
        (acl::USER, 1001, 6),
        (acl::GROUP_OBJ, 0, 5),
        (acl::MASK, 0, 7),
        (acl::OTHER, 0, 0),
    ]);
    // CAP_NET_RAW, permitted and effective, in the form of Linux 2.6.25.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let bytes = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    vec![
        dir("d").mode(0o2755).own(1, 2).mtime(LONG_AGO.0, LONG_AGO.1),
        dir("d/sticky").mode(0o1777).own(3, 4),
        dir("d/acl")
            .xattr(acl::ACCESS, &access)
            .xattr(acl::DEFAULT, &access)
            .mode(0o770),
        dir("d/acl/below"),
        file("d/acl/file", "with a neighbour's ACL"),
        dir("closed").mode(0),
        dir("closed/within").mode(0o111),
        file("closed/within/file", "out of reach"),
        dir("empty"),
        file("plain", "text").mtime(LONG_AGO.0, LONG_AGO.1),
        file("none", ""),
        file("setuid", "#!").mode(0o6755).own(5, 6),
        file("capable", "x")
            .xattr("security.capability", capability)
            .mode(0o755),
        file("noted", "x")
            .xattr("user.note", b"\0bytes\xff")
            .xattr("user.empty", b"")
            .xattr("trusted.secret", "kept")
            .xattr(acl::ACCESS, &access),
        dir("noted-dir")
            .xattr("user.note", "n".repeat(3000))
            .xattr("trusted.overlay.opaque", "y"),
        sparse("holes", 10 << 20, &[(0, b"start"), (5 << 20, b"middle")]),
        file("group-a", "one file, three names"),
        hard("d/group-b", "group-a"),
        hard("group-c", "group-a"),
        symlink("link", "nowhere/\u{e4}").own(7, 8),
        hard("d/link", "link"),
        symlink("absolute", "/etc/passwd"),
        fifo("pipe").mode(0o620).own(9, 10),
        hard("d/pipe", "pipe"),
        chr("null", 1, 3).mode(0o666),
        hard("d/null", "null"),
        chr("nothing", 0, 0).mode(0),
        sock("socket").own(1, 1),
        file(bytes(b"not \xff\xfe text\n"), "name"),
        dir(bytes(b"dir \xff")),
        file(bytes(b"dir \xff/f"), "in it"),
        file("n".repeat(255), "long name"),
        dir("m".repeat(255)),
        file(" -rf *\t\\'\"", "name"),
    ]
}

/// The tree but for link counts of what is linked, which a clone must raise.
fn seen(root: &Path) -> Tree {
    let mut tree = snapshot(root);
    for (path, entry) in &mut tree.0 {
        if entry.get("type").is_some_and(|kind| kind != "directory") {
            entry.remove("nlink");
        }
        // The first of a group is told by the others.
        if entry
            .get("same")
            .is_some_and(|first| *first == path.display().to_string())
        {
            entry.remove("same");
        }
    }
    tree
}

fn assert_same(a: &Tree, b: &Tree, what: &str) {
    let differences = a.differences(b, "before", "after");
    assert!(differences.is_empty(), "{what}: {}", differences.join("\n"));
}

fn assert_equal(a: &Path, b: &Path) {
    assert_same(&seen(a), &seen(b), "source and clone");
    // The snapshot of the harness takes recent times for equal; the manifest does not.
    let faults = faults(b, &manifest(a));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn blocks(path: &Path) -> i64 {
    sys::lstat(path).unwrap().st_blocks
}

#[test]
fn everything_comes_over_by_links() {
    if !need_root("everything_comes_over_by_links") {
        return;
    }
    let room = Room::new();
    let source = room.dir("source");
    plant(&source, &everything());
    let before = seen(&source);
    let answer = room.ok(&["layer", "clone", "source", "clone"]);
    let clone = room.path("clone");
    assert_equal(&source, &clone);
    assert_same(&before, &seen(&source), "the source");
    let mut directories = 0;
    for path in sys::walk(&source) {
        let below = path.strip_prefix(&source).unwrap();
        let is_dir = sys::lstat(&path).unwrap().st_mode & libc::S_IFMT == libc::S_IFDIR;
        assert_eq!(
            same_inode(&path, &clone.join(below)),
            !is_dir,
            "{}",
            below.display()
        );
        directories += i32::from(is_dir);
    }
    assert!(
        answer.starts_with(&format!("inodes: {} new, ", directories + 1)),
        "{answer}"
    );
    // A clone of a clone, and the umask has no say.
    let again = room.path("again");
    with_umask(0o077, || room.ok(&["layer", "clone", "clone", "again"]));
    assert_equal(&source, &again);
}

#[test]
fn everything_comes_over_to_another_file_system() {
    if !need_root("everything_comes_over_to_another_file_system") {
        return;
    }
    let mut room = Room::new();
    let source = room.dir("source");
    let mut nodes = everything();
    // Sockets are left out there; a tmpfs has no large attributes of its own namespace 'user' before Linux 6.6.
    nodes.retain(|node| !format!("{node:?}").contains("Socket"));
    plant(&source, &nodes);
    room.tmpfs("other");
    let json = room.ok(&["layer", "clone", "--json", "source", "other/clone"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let clone = room.path("other/clone");
    assert_equal(&source, &clone);
    assert!(blocks(&clone.join("holes")) <= 64, "holes stay holes");
    let count = |key: &str| json[key].as_u64().unwrap();
    // Each of the four groups is one inode: two names of three are links, or one of two.
    assert_eq!(count("linked"), 2 + 1 + 1 + 1);
    assert_eq!(count("copied") + count("linked"), count("names"));
    assert_eq!(count("inodes_new"), count("copied") + count("directories"));
    assert!(count("bytes_copied") < 1 << 20, "holes are not copied");

    drop(std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap());
    let output = room.plyfs(&["layer", "clone", "source", "other/again"]);
    assert!(output.status.success());
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.contains("/socket: a socket that cannot be linked"), "{note}");
    assert!(!room.path("other/again/socket").exists());
}

#[test]
fn a_file_that_must_not_be_linked_is_copied() {
    if !need_root("a_file_that_must_not_be_linked_is_copied") {
        return;
    }
    let mut room = Room::new();
    let source = room.ext4("source");
    plant(
        &source,
        &[
            dir("tree"),
            file("tree/a", "fixed")
                .mode(0o4711)
                .own(7, 8)
                .xattr("user.x", "y"),
            hard("tree/b", "tree/a"),
            file("tree/c", "free"),
        ],
    );
    if !set_immutable(&source.join("tree/a"), true) {
        return skip(
            "a_file_that_must_not_be_linked_is_copied",
            "no immutable flag here",
        );
    }
    let made = room.plyfs(&["layer", "clone", "--json", "source/tree", "source/clone"]);
    set_immutable(&source.join("tree/a"), false);
    let json: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(
        (json["copied"].as_u64(), json["linked"].as_u64()),
        (Some(1), Some(2))
    );
    assert_equal(&source.join("tree"), &source.join("clone"));
    assert!(same_inode(&source.join("clone/a"), &source.join("clone/b")));
    assert!(!same_inode(&source.join("tree/a"), &source.join("clone/a")));
    assert!(same_inode(&source.join("tree/c"), &source.join("clone/c")));
}

#[test]
fn paths_longer_than_the_kernel_takes() {
    let mut room = Room::new();
    // An ordinary user may have no other file system at hand.
    let other =
        need_root("paths_longer_than_the_kernel_takes, across file systems").then(|| room.tmpfs("other"));
    let source = room.dir("source");
    let mut dir = open(&source);
    let name = "x".repeat(200);
    // Deeper than the descriptors that are held, with a second branch on every step.
    for depth in 0..400 {
        at::mkdir_at(&dir, name.as_bytes(), 0o755).unwrap();
        at::mkdir_at(&dir, b"side", 0o700).unwrap();
        drop(at::create_at(&dir, format!("f{depth}").as_bytes(), libc::O_RDWR, 0o600).unwrap());
        at::symlink_at(b"f", at::open_dir_path(&dir, b"side").unwrap(), b"s").unwrap();
        dir = at::open_dir_list(&dir, name.as_bytes()).unwrap();
    }
    let recorded = manifest(&source);
    room.ok(&["layer", "clone", "source", "clone"]);
    assert_eq!(faults(&room.path("clone"), &recorded), Vec::<String>::new());
    if let Some(other) = other {
        room.ok(&["layer", "clone", "source", "other/clone"]);
        assert_eq!(faults(&other.join("clone"), &recorded), Vec::<String>::new());
    }
    for name in ["source", "clone"] {
        plyfs::builder::remove::remove_tree(open(room.base()).as_fd(), name.as_bytes()).unwrap();
    }
    assert!(!room.names().contains(&"source".to_owned()));
}

#[test]
fn a_directory_of_many_names() {
    let room = Room::new();
    let source = room.dir("source");
    fs::write(source.join("0"), "x").unwrap();
    for number in 1..30_000 {
        fs::hard_link(source.join("0"), source.join(number.to_string())).unwrap();
    }
    let json: Value =
        serde_json::from_str(&room.ok(&["layer", "clone", "--json", "source", "clone"])).unwrap();
    assert_eq!(json["linked"], 30_000);
    assert_eq!(fs::read_dir(room.path("clone")).unwrap().count(), 30_000);
    assert_eq!(sys::nlink(room.path("clone/29999")), Ok(60_000));
}

#[test]
fn the_clone_appears_whole_or_not_at_all() {
    let room = Room::new();
    plant(
        room.base(),
        &[
            dir("source"),
            dir("source/d"),
            file("source/d/f", "text"),
            dir("taken"),
            file("taken/f", "mine"),
            dir("empty"),
            symlink("to-empty", "empty"),
            symlink("dangling", "nowhere"),
            file("file", "mine"),
        ],
    );
    let rest = || {
        let mut tree = snapshot(room.base());
        // Something was made in it for a moment.
        tree.0.get_mut(Path::new(".")).unwrap().remove("mtime");
        tree
    };
    let at_first = rest();
    let refuse = |child: &str, reason: &str| {
        let said = room.fails(&["layer", "clone", "source", child]);
        assert!(said.contains(reason) && said.contains(child), "{child}: {said}");
        assert_same(&at_first, &rest(), child);
    };
    refuse("taken", "not empty");
    refuse("file", "Not a directory");
    refuse("dangling", "a symlink that leads nowhere");
    refuse("source/d", "not empty");
    refuse("source/d/new", "lies in source");
    refuse("source", "not empty");
    refuse("no/such/dir", "cannot reach its directory");
    refuse(".", "not empty");
    assert!(
        room.fails(&["layer", "clone", "nothing", "clone"])
            .contains("nothing: No such file")
    );
    assert!(
        room.fails(&["layer", "clone", "file", "clone"])
            .contains("file: not a directory")
    );
    // A tree around the source: the place is not empty.
    assert!(
        room.fails(&["layer", "clone", "source/d", "source"])
            .contains("not empty")
    );
    // An empty directory is replaced, also one that is named by a symlink, with a slash behind, or as '.'.
    for child in ["empty/", "to-empty"] {
        room.ok(&["layer", "clone", "source", child]);
        assert_equal(&room.path("source"), &room.path("empty"));
        fs::remove_dir_all(room.path("empty")).unwrap();
        fs::create_dir(room.path("empty")).unwrap();
    }
    let output = room
        .command(&["layer", "clone", "../source", "."])
        .current_dir(room.path("empty"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_equal(&room.path("source"), &room.path("empty"));
}

#[test]
fn nothing_is_left_of_a_clone_that_fails() {
    if !need_root("nothing_is_left_of_a_clone_that_fails") {
        return;
    }
    let mut room = Room::new();
    plant(
        room.base(),
        &[dir("source"), dir("source/a"), file("source/a/f", "x")],
    );
    room.tmpfs("source/a/mounted");
    let before: BTreeSet<_> = room.names().into_iter().collect();
    let said = room.fails(&["layer", "clone", "source", "clone", "--manifest", "m"]);
    assert!(
        said.contains("/a/mounted") && said.contains("unmount it first"),
        "{said}"
    );
    assert_eq!(room.names().into_iter().collect::<BTreeSet<_>>(), before);
    // A file with something mounted on it is not taken for the file below.
    fs::remove_file(room.path("source/a/f")).unwrap();
    let mut room = Room::new();
    plant(
        room.base(),
        &[dir("source"), file("source/f", "below"), file("above", "above")],
    );
    rustix::mount::mount_bind(room.path("above"), room.path("source/f")).unwrap();
    let said = room.fails(&["layer", "clone", "source", "clone"]);
    rustix::mount::unmount(room.path("source/f"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(said.contains("/f: something is mounted on it"), "{said}");
    assert_eq!(room.names(), ["above", "source"]);
    room.tmpfs("unused");
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let room = Room::new();
    let source = room.dir("source");
    for dir in 0..400 {
        let path = source.join(dir.to_string());
        fs::create_dir(&path).unwrap();
        for file in 0..50 {
            fs::write(path.join(file.to_string()), "").unwrap();
        }
    }
    let mut interrupted = 0;
    for wait in [3, 6, 10, 15, 20] {
        let mut child = room.command(&["layer", "clone", "source", "clone"]);
        let mut child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = child.wait().unwrap();
        if ended.success() {
            assert_equal(&source, &room.path("clone"));
            fs::remove_dir_all(room.path("clone")).unwrap();
        } else {
            interrupted += 1;
        }
        assert_eq!(room.names(), ["source"], "after {wait} ms: {ended}");
    }
    assert!(interrupted > 0, "the machine is too fast for this test");
}

#[test]
fn inherited_acls_and_groups_stay_out() {
    if !need_root("inherited_acls_and_groups_stay_out") {
        return;
    }
    let room = Room::new();
    plant(
        room.base(),
        &[dir("source"), dir("source/d"), file("source/d/f", "x")],
    );
    let default = acl::of(&[
        (acl::USER_OBJ, 0, 7),
        (acl::USER, 1001, 7),
        (acl::GROUP_OBJ, 0, 7),
        (acl::MASK, 0, 7),
        (acl::OTHER, 0, 0),
    ]);
    let around = room.dir("around");
    sys::setxattr(&around, acl::DEFAULT, default).unwrap();
    sys::chown(&around, 0, 42).unwrap();
    sys::chmod(&around, 0o2777).unwrap();
    room.ok(&["layer", "clone", "source", "around/clone"]);
    assert_equal(&room.path("source"), &around.join("clone"));
}

#[test]
fn an_ordinary_user_clones_his_own() {
    if !need_root("an_ordinary_user_clones_his_own") {
        return;
    }
    let room = Room::new();
    plant(
        room.base(),
        &[
            dir("home").own(ANN.uid, ANN.gid),
            dir("home/source").own(ANN.uid, ANN.gid),
            dir("home/source/d").mode(0o500).own(ANN.uid, ANN.gid),
            file("home/source/d/f", "x").mode(0o400).own(ANN.uid, ANN.gid),
            hard("home/source/g", "home/source/d/f"),
            file("home/source/noted", "x")
                .own(ANN.uid, ANN.gid)
                .xattr("user.x", "y"),
            symlink("home/source/s", "t").own(ANN.uid, ANN.gid),
            fifo("home/source/p").own(ANN.uid, ANN.gid),
        ],
    );
    let (source, clone) = (room.path("home/source"), room.path("home/clone"));
    let report = as_user(ANN, || {
        fs::create_dir(&clone).unwrap();
        let linker = Linker::new();
        clone_tree(open(&source).as_fd(), open(&clone).as_fd(), &linker, &Silent).unwrap();
        linker.report()
    });
    assert_eq!((report.linked, report.new_inodes()), (5, 0));
    assert_equal(&source, &clone);
    assert!(same_inode(&source.join("d/f"), &clone.join("g")));
}

#[test]
fn what_protected_hardlinks_forbids_is_copied() {
    const NAME: &str = "what_protected_hardlinks_forbids_is_copied";
    if !need_root(NAME) {
        return;
    }
    if sys::text("/proc/sys/fs/protected_hardlinks").as_deref() != Ok("1\n") {
        return skip(NAME, "protected_hardlinks is off");
    }
    let room = Room::new();
    plant(
        room.base(),
        &[
            dir("home").own(ANN.uid, ANN.gid),
            dir("source"),
            dir("source/d").mode(0o1777),
            file("source/roots", "readable").mode(0o4755),
            hard("source/d/roots", "source/roots"),
            file("source/anns", "hers").own(ANN.uid, ANN.gid),
            symlink("source/link", "t"),
        ],
    );
    let (source, clone) = (room.path("source"), room.path("home/clone"));
    let try_clone = |linker: &Linker| {
        as_user(ANN, || {
            fs::create_dir(&clone).unwrap();
            clone_tree(open(&source).as_fd(), open(&clone).as_fd(), linker, &Silent).map(|_| ())
        })
    };
    // Without a word she gets nothing that only looks like the source.
    let refused = try_clone(&Linker::new()).unwrap_err().to_string();
    assert!(refused.contains("cannot give owner"), "{refused}");
    fs::remove_dir_all(&clone).unwrap();

    let linker = Linker::new().without_owners();
    try_clone(&linker).unwrap();
    let report = linker.report();
    // 'roots' once, its second name a link to the copy; the symlink; 'anns' is linked.
    assert_eq!((report.copied, report.linked), (2, 2), "{report:?}");
    assert_eq!(report.disowned, 4, "two directories, a file, a symlink");
    assert!(same_inode(&clone.join("roots"), &clone.join("d/roots")));
    assert!(same_inode(&source.join("anns"), &clone.join("anns")));
    assert_eq!(sys::owner(clone.join("roots")), Ok((ANN.uid, ANN.gid)));
    assert_eq!(
        sys::mode(clone.join("roots")),
        Ok(0o755),
        "no setuid bit of another's"
    );
    assert_eq!(sys::mode(clone.join("d")), Ok(0o1777));
    assert_eq!(sys::mtime(clone.join("d")), sys::mtime(source.join("d")));
    assert_eq!(names(&clone), ["anns", "d", "link", "roots"]);
}

/// What a child changes is its own: parent and sibling stay bit for bit as they were.
#[test]
fn changes_in_a_child_stay_there() {
    if !need_root("changes_in_a_child_stay_there") {
        return;
    }
    let room = Room::new();
    let parent = room.dir("parent");
    let names = [
        "data",
        "mode",
        "owner",
        "times",
        "xattr",
        "xattr-less",
        "link",
        "dir/in",
        "gone",
        "type",
    ];
    let mut nodes = vec![
        dir("dir"),
        file("group-a", "group"),
        hard("group-b", "group-a"),
        hard("dir/group-c", "group-a"),
    ];
    nodes.extend(names.map(|name| file(name, name).xattr("user.was", "so")));
    plant(&parent, &nodes);
    room.ok(&["layer", "clone", "parent", "sibling"]);
    let recorded = manifest(&parent);
    // As a mount would leave it: every changed file copied up whole.
    let upper = room.dir("upper");
    let same = |name: &str| file(name, name).xattr("user.was", "so");
    plant(
        &upper,
        &[
            file("data", "atad").xattr("user.was", "so"),
            same("mode").mode(0o600),
            same("owner").own(5, 6),
            same("times").mtime(LONG_AGO.0, LONG_AGO.1),
            file("xattr", "xattr").xattr("user.was", "not"),
            file("xattr-less", "xattr-less"),
            same("link"),
            hard("link-2", "link"),
            dir("dir").mode(0o700).own(7, 8).xattr("user.new", "yes"),
            file("dir/group-c", "group").mode(0o4755),
            chr("gone", 0, 0),
            dir("type"),
        ],
    );
    room.ok(&["layer", "apply", "--parent", "parent", "upper", "child"]);
    let shown: Vec<_> = faults(&room.path("child"), &recorded)
        .iter()
        .map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    for change in [
        "/data content",
        "/dir mode",
        "/dir owner",
        "/dir xattr user.new",
        "/dir/group-c hard links",
        "/dir/group-c mode",
        "/gone object",
        "/link hard links",
        "/link-2 object",
        "/mode mode",
        "/owner owner",
        "/times mtime",
        "/type kind",
        "/xattr xattr user.was",
        "/xattr-less xattr user.was",
    ] {
        assert!(shown.contains(&change.to_owned()), "{change} in {shown:?}");
    }
    for tree in ["parent", "sibling"] {
        assert_eq!(
            faults(&room.path(tree), &recorded),
            Vec::<String>::new(),
            "{tree}"
        );
    }
    assert!(same_inode(&parent.join("dir/in"), &room.path("child/dir/in")));
    assert!(same_inode(&parent.join("group-b"), &room.path("child/group-a")));
}

#[cfg(feature = "fault-injection")]
mod faults_injected {
    //! The full disk and the killed process, at every call that changes something.

    use super::*;

    fn stage() -> Room {
        let room = Room::new();
        plant(
            room.base(),
            &[
                dir("source"),
                dir("source/d").xattr("user.a", "b"),
                file("source/d/f", "x").mode(0o600),
                hard("source/g", "source/d/f"),
                symlink("source/s", "t"),
                dir("source/closed").mode(0),
            ],
        );
        room
    }

    /// Clones with the fault until it comes no more; `check` after each.
    fn at_every_call(room: &Room, other: &Path, what: impl Fn(u32) -> String, check: impl Fn(u32, bool)) {
        let fault = other.join("fault");
        let clone = other.join("clone");
        for number in 1..500 {
            fs::write(&fault, what(number)).unwrap();
            let child = clone.to_str().unwrap();
            let manifest = other.join("manifest");
            let mut command = room.command(&["layer", "clone", "source", child, "--manifest"]);
            let output = command
                .arg(&manifest)
                .env("PLYFS_FAULT_FILE", &fault)
                .output()
                .unwrap();
            fs::remove_file(&fault).unwrap();
            check(number, output.status.success());
            if clone.exists() {
                assert_equal(&room.path("source"), &clone);
                fs::remove_dir_all(&clone).unwrap();
            } else {
                assert!(!output.status.success());
            }
            if manifest.exists() {
                fs::remove_file(&manifest).unwrap();
            }
            for name in names(other) {
                fs::remove_dir_all(other.join(name)).unwrap();
            }
            if output.status.success() {
                assert!(number > 5, "the faults were not injected");
                return;
            }
        }
        panic!("the faults do not end");
    }

    #[test]
    fn a_full_disk_at_any_call_leaves_nothing() {
        let mut room = stage();
        let here = room.dir("here");
        let mut places = vec![here];
        if need_root("a_full_disk_at_any_call_leaves_nothing, copying") {
            places.push(room.tmpfs("other"));
        }
        for other in places {
            let enospc = |number| format!("errno {number} {}", libc::ENOSPC);
            at_every_call(&room, &other, enospc, |number, done| {
                if !done {
                    assert_eq!(names(&other), Vec::<String>::new(), "call {number}");
                }
            });
        }
    }

    #[test]
    fn a_kill_at_any_call_leaves_no_half_clone() {
        let room = stage();
        let here = room.dir("here");
        let before = seen(&room.path("source"));
        // What is left is told by its name; the clone itself is whole or not there: see `at_every_call`.
        at_every_call(
            &room,
            &here,
            |number| format!("kill {number}"),
            |number, done| {
                if !done {
                    let left = names(&here);
                    let known =
                        |name: &String| name.starts_with(".plyfs-") || name == "manifest" || name == "clone";
                    assert!(left.iter().all(known), "call {number}: {left:?}");
                }
            },
        );
        assert_same(&before, &seen(&room.path("source")), "the source");
    }
}
