//! What an upper directory or a plain directory does to a tree.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use plyfs::builder::apply::{ApplyOptions, Changes, apply_directory, apply_upper};
use plyfs::builder::{BuildError, Silent};
use plyfs::format::Namespace;

use super::stage::{Root, Stage};
use crate::common::layers::kernel_overlay_works;
use crate::common::plant::plant;
use crate::common::{
    Fs, Layers, Node, acl, chr, dir, fifo, file, hard, need_root, snapshot, sock, sparse, symlink, sys,
    whiteout,
};

/// A parent planted by hand, for what no archive can say.
fn planted(stage: &Stage, nodes: &[Node]) -> Root {
    let path = stage.clone_of(None);
    plant(&path, nodes);
    stage.adopt(path)
}

fn lower() -> Vec<Node> {
    vec![
        dir("d").mode(0o2750).own(7, 8).xattr("user.on", "d"),
        file("d/f", "the text of f")
            .mode(0o640)
            .own(3, 4)
            .xattr("user.a", "1"),
        dir("d/e").mode(0o700),
        file("d/e/deep", "deep"),
        file("gone", "gone"),
        dir("gone-dir"),
        file("gone-dir/x", "x"),
        dir("remade"),
        file("remade/x", "x"),
        dir("becomes-file"),
        file("becomes-file/x", "x"),
        file("becomes-dir", "x"),
        file("one", "group"),
        hard("two", "one"),
        hard("d/three", "one"),
        file("stays", "stays"),
        symlink("s", "d/f"),
    ]
}

type Lay = fn(&Root, &Path, &ApplyOptions<'_>) -> Result<Changes, BuildError>;

fn upper(root: &Root, from: &Path, options: &ApplyOptions<'_>) -> Result<Changes, BuildError> {
    apply_upper(
        root.fd().as_fd(),
        File::open(from).unwrap().as_fd(),
        options,
        &Silent,
    )
}

fn plain(root: &Root, from: &Path, options: &ApplyOptions<'_>) -> Result<Changes, BuildError> {
    apply_directory(
        root.fd().as_fd(),
        File::open(from).unwrap().as_fd(),
        options,
        &Silent,
    )
}

/// A clone of the parent with the directory laid over it; the parent must be what it was.
fn child(stage: &Stage, parent: &Root, from: &Path, lay: Lay) -> Result<(Root, Vec<String>), String> {
    let root = stage.adopt(stage.clone_of(Some(parent)));
    let done = lay(&root, from, &ApplyOptions::default());
    assert_eq!(parent.faults(), [""; 0], "the parent was changed");
    let changes = done.map_err(|error| error.to_string())?;
    let strange = root.names().into_iter().find(|name| name.contains(".plyfs-"));
    assert_eq!(strange, None, "something was left in the tree");
    let notes = changes
        .notes
        .list
        .iter()
        .map(|(path, why)| format!("{path}: {why}"))
        .collect();
    Ok((root, notes))
}

#[test]
fn an_upper_gives_the_tree_that_the_mount_showed() {
    if !need_root("an_upper_gives_the_tree_that_the_mount_showed") || !kernel_overlay_works() {
        return;
    }
    for (fs, words) in [
        (Fs::Kernel, &[][..]),
        (Fs::Kernel, &["userxattr"]),
        (Fs::Plyfs, &[]),
        (Fs::Plyfs, &["userxattr"]),
    ] {
        let stage = Stage::new();
        let parent = planted(&stage, &lower());
        let layers = Layers::new().with_lower(&lower());
        let mounted = layers.mount(fs, words);
        let m = &layers.merged;
        sys::unlink(m.join("gone")).unwrap();
        fs::remove_dir_all(m.join("gone-dir")).unwrap();
        fs::remove_dir_all(m.join("remade")).unwrap();
        sys::mkdir(m.join("remade"), 0o711).unwrap();
        sys::put(m.join("remade/new"), "new").unwrap();
        fs::remove_dir_all(m.join("becomes-file")).unwrap();
        sys::put(m.join("becomes-file"), "a file").unwrap();
        sys::unlink(m.join("becomes-dir")).unwrap();
        sys::mkdir(m.join("becomes-dir"), 0o755).unwrap();
        sys::append(m.join("d/f"), " and more").unwrap();
        sys::setxattr(m.join("d/e"), "user.new", "x").unwrap();
        sys::removexattr(m.join("d"), "user.on").unwrap();
        sys::chmod(m.join("d/e"), 0o2711).unwrap();
        sys::put(m.join("new1"), "linked").unwrap();
        sys::link(m.join("new1"), m.join("d/new2")).unwrap();
        sys::make_symlink("nowhere", m.join("link")).unwrap();
        sys::mknod(m.join("pipe"), libc::S_IFIFO | 0o600, 0, 0).unwrap();
        sys::mknod(m.join("null"), libc::S_IFCHR | 0o666, 1, 3).unwrap();
        sys::setxattr(m.join("stays"), "user.z", "1").unwrap();
        sys::setxattr(m.join("d"), acl::DEFAULT, default_acl()).unwrap();
        sys::mkdir(m.join("d/inherits"), 0o777).unwrap();
        let shown = snapshot(m).without(&["d_ino", "nlink", "same"]);
        drop(mounted);
        let (root, notes) = child(&stage, &parent, &layers.upper, upper).unwrap();
        let made = root.tree().without(&["d_ino", "nlink", "same"]);
        let what = format!("{} {words:?}", fs.name());
        assert_eq!(shown.differences(&made, "mount", "tree"), [""; 0], "{what}");
        assert_eq!(notes, [""; 0], "{what}");
        assert_eq!(
            sys::ino(root.at("new1")).unwrap(),
            sys::ino(root.at("d/new2")).unwrap(),
            "{what}"
        );
        assert_eq!(
            sys::ino(root.at("one")).unwrap(),
            sys::ino(parent.at("one")).unwrap(),
            "{what}"
        );
        assert_ne!(
            sys::ino(root.at("d/f")).unwrap(),
            sys::ino(layers.upper.join("d/f")).unwrap(),
            "{what}"
        );
    }
}

fn default_acl() -> Vec<u8> {
    use acl::{GROUP_OBJ, MASK, OTHER, USER, USER_OBJ};
    acl::of(&[
        (USER_OBJ, 0, 7),
        (USER, 12345, 4),
        (GROUP_OBJ, 0, 5),
        (MASK, 0, 5),
        (OTHER, 0, 5),
    ])
}

#[test]
fn marks_of_either_namespace_and_of_every_form() {
    if !need_root("marks_of_either_namespace_and_of_every_form") {
        return;
    }
    let stage = Stage::new();
    let parent = planted(&stage, &lower());
    let from = stage.path().join("upper");
    fs::create_dir(&from).unwrap();
    plant(
        &from,
        &[
            whiteout("gone"),
            whiteout("never-was"),
            dir("remade")
                .xattr("trusted.overlay.opaque", "y")
                .xattr("trusted.overlay.origin", "x"),
            dir("gone-dir")
                .xattr("user.overlay.opaque", "y")
                .xattr("user.overlay.impure", "y"),
            dir("d")
                .xattr("trusted.overlay.opaque", "x")
                .xattr("trusted.overlay.overlay.opaque", "y"),
            file("d/f", "").xattr("trusted.overlay.whiteout", "y"),
            file("stays", "data").xattr("user.overlay.whiteout", "y"),
        ],
    );
    let (root, notes) = child(&stage, &parent, &from, upper).unwrap();
    assert_eq!(notes, [""; 0]);
    for gone in ["gone", "never-was", "remade/x", "gone-dir/x", "d/f"] {
        assert!(!sys::exists(root.at(gone)), "{gone}");
    }
    assert!(sys::exists(root.at("d/e/deep")), "opaque=x is no opaque mark");
    assert_eq!(root.text("stays"), "data");
    let names = |name: &str| sys::listxattr(root.at(name)).unwrap();
    assert_eq!(names("remade"), [""; 0]);
    assert_eq!(names("gone-dir"), [""; 0]);
    assert_eq!(names("stays"), [""; 0]);
    // What a container set under the name of a mark stays data.
    assert_eq!(names("d"), ["trusted.overlay.overlay.opaque"]);
}

#[test]
fn only_the_namespace_that_is_asked_for() {
    if !need_root("only_the_namespace_that_is_asked_for") {
        return;
    }
    let stage = Stage::new();
    let parent = planted(&stage, &lower());
    let from = stage.path().join("upper");
    fs::create_dir(&from).unwrap();
    plant(&from, &[dir("remade").xattr("user.overlay.opaque", "y")]);
    let root = stage.adopt(stage.clone_of(Some(&parent)));
    let options = ApplyOptions {
        namespace: Some(Namespace::Trusted),
        ..ApplyOptions::default()
    };
    upper(&root, &from, &options).unwrap();
    assert!(sys::exists(root.at("remade/x")));
    assert_eq!(
        sys::listxattr(root.at("remade")).unwrap(),
        ["user.overlay.overlay.opaque"]
    );
}

#[test]
fn a_plain_directory_overrides_and_marks_nothing() {
    if !need_root("a_plain_directory_overrides_and_marks_nothing") {
        return;
    }
    let stage = Stage::new();
    let parent = planted(&stage, &lower());
    let from = stage.path().join("plain");
    fs::create_dir(&from).unwrap();
    plant(
        &from,
        &[
            whiteout("gone"),
            dir("remade")
                .xattr("trusted.overlay.opaque", "y")
                .xattr("user.fuseoverlayfs.opaque", "y"),
            file("d", "a file now").mode(0o4755).own(1, 2),
            sparse("holes", 3 << 20, &[(1 << 20, b"data")]),
            fifo("pipe"),
            chr("null", 1, 3),
            sock("socket"),
            file("three", "x"),
            hard("four", "three"),
        ],
    );
    let (root, notes) = child(&stage, &parent, &from, plain).unwrap();
    assert_eq!(
        notes,
        [
            "/gone: a character device 0/0 is a mark of overlays and not made",
            "/remade: the attribute user.fuseoverlayfs.opaque is a mark of overlays and not kept",
            "/socket: a socket is of no use without its program",
        ]
    );
    assert_eq!(root.text("gone"), "gone");
    assert_eq!(root.text("remade/x"), "x");
    assert_eq!(
        sys::listxattr(root.at("remade")).unwrap(),
        ["trusted.overlay.overlay.opaque"]
    );
    assert_eq!(root.text("d"), "a file now");
    assert_eq!(
        (
            sys::mode(root.at("d")).unwrap(),
            sys::owner(root.at("d")).unwrap()
        ),
        (0o4755, (1, 2))
    );
    assert!(sys::lstat(root.at("holes")).unwrap().st_blocks * 512 < 1 << 20);
    assert_eq!(
        sys::ino(root.at("three")).unwrap(),
        sys::ino(root.at("four")).unwrap()
    );
}

#[test]
fn what_cannot_be_a_layer_is_refused() {
    if !need_root("what_cannot_be_a_layer_is_refused") {
        return;
    }
    for (node, words) in [
        (file("d/.wh.x", ""), "/d/.wh.x: a name that starts with .wh."),
        (
            dir("d/moved").xattr("trusted.overlay.redirect", "/x"),
            "/d/moved: it is a mark of the kernel's redirect_dir",
        ),
        (
            file("d/meta", "").xattr("user.overlay.metacopy", ""),
            "/d/meta: it is a mark of the kernel's redirect_dir",
        ),
    ] {
        let stage = Stage::new();
        let parent = planted(&stage, &lower());
        let from = stage.path().join("upper");
        fs::create_dir(&from).unwrap();
        plant(&from, &[dir("d"), node]);
        let text = child(&stage, &parent, &from, upper).err().unwrap();
        assert!(text.starts_with(words), "{text}");
    }
}

#[test]
fn the_command_takes_directories_as_told() {
    if !need_root("the_command_takes_directories_as_told") {
        return;
    }
    let stage = Stage::new();
    let parent = planted(&stage, &lower());
    let from = stage.path().join("upper");
    fs::create_dir(&from).unwrap();
    plant(&from, &[whiteout("gone"), file("new", "x")]);
    let run = |options: &[&str], new: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_plyfs"))
            .args(["layer", "apply", "--parent"])
            .arg(&parent.path)
            .args(options)
            .arg(&from)
            .arg(stage.path().join(new))
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (status, out, err) = run(&[], "one");
    assert_eq!((status, &*out, &*err), (Some(0), "2 entries, 1 B of files\n", ""));
    assert!(!stage.path().join("one/gone").exists());
    let (status, _, err) = run(&["--as", "directory"], "two");
    assert_eq!(status, Some(0));
    assert!(err.contains("/gone: a character device 0/0"), "{err}");
    assert!(stage.path().join("two/gone").exists());
    let (status, _, err) = run(&["--as", "tar"], "three");
    assert_eq!(status, Some(2), "{err}");
    let (status, _, err) = run(&[], "upper/inside");
    assert_eq!(status, Some(1));
    assert!(err.contains("it lies in"), "{err}");
    let (status, out, _) = run(&["--json"], "four");
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status, Some(0));
    assert_eq!(
        (&value["entries"], &value["diff_id"]),
        (&2.into(), &serde_json::Value::Null)
    );
    assert_eq!(parent.faults(), [""; 0]);
}
