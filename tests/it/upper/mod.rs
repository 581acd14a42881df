//! `plyfs upper`: what it tells of an upper, and what it does to it. The measure of an apply is the view: the lower
//! afterwards is what the view showed before, to the byte and the nanosecond.

mod apply;
mod check;
#[cfg(feature = "fault-injection")]
mod crash;
mod refused;

use std::process::{Command, Output};

use crate::common::*;

/// Runs `plyfs upper VERB` on these layers.
pub fn upper(layers: &Layers, words: &[&str]) -> Output {
    command(layers, words).output().unwrap()
}

pub fn command(layers: &Layers, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
    command.arg("upper").args(words);
    for (option, path) in [
        ("--lower", &layers.lower),
        ("--upper", &layers.upper),
        ("--work", &layers.work),
    ] {
        command.arg(option).arg(path);
    }
    command
}

/// What it printed; it must succeed.
pub fn done(layers: &Layers, words: &[&str]) -> String {
    let output = upper(layers, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it said on standard error; it must fail with status 1.
pub fn fails(layers: &Layers, words: &[&str]) -> String {
    let output = upper(layers, words);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A lower with something of every kind.
pub fn lower() -> Vec<Node> {
    vec![
        file("f", "text\n").mode(0o640).own(5, 6).xattr("user.a", "b"),
        file("same", "untouched\n"),
        file("gone", "going\n"),
        file("back", "copied up for nothing\n"),
        dir("d").mode(0o750).xattr("user.d", "d"),
        file("d/low", "low\n"),
        file("d/other", "other\n"),
        dir("d/deep"),
        file("d/deep/x", "x\n"),
        dir("gonedir"),
        dir("gonedir/sub"),
        file("gonedir/sub/x", "x\n"),
        dir("again"),
        file("again/old", "old\n"),
        file("turns", "a file that becomes a directory\n"),
        dir("turned"),
        file("turned/x", "x\n"),
        file("one", "linked\n"),
        hard("two", "one"),
        hard("d/three", "one"),
        symlink("link", "f"),
        chr("null", 1, 3),
        fifo("pipe"),
    ]
}

/// Does everything to a mounted view, by a shell in it.
pub const STEPS: &str = r#"
echo more >> f; chmod 4711 f
rm gone; rm -r gonedir
rm -r again; mkdir again; echo new > again/new
rm turns; mkdir turns; echo in > turns/in
rm -r turned; echo file > turned
echo x >> one; ln one d/four
chmod 700 d; setfattr -n user.e -v e d; setfattr -x user.d d; rm d/low; mkdir -p d/new/sub; echo n > d/new/sub/n
chmod 555 d/new/sub
ln -s /etc/passwd outside; ln -s ../../.. d/up; rm link; ln -s elsewhere link
mknod dev b 7 300; mkfifo fifo; rm pipe
echo a > h1; ln h1 h2; ln h1 d/new/h3
setfattr -n user.f -v f h1; setfattr -n trusted.overlay.kept -v data h1
touch -d '1999-12-31 23:59:59.123456789 UTC' h1
mkdir -m 2775 setgid; chown 7:8 setgid; truncate -s 1M sparse
chmod 644 same; chmod 600 same; chmod 644 same; touch -d '2001-01-01 UTC' same
"#;

/// Layers in memory, where bringing something to disk costs nothing; and what has the memory mounted.
///
/// `None`, with a line that says so, where a file in memory takes no `user.` attributes (before Linux 6.6).
pub fn in_memory(name: &str) -> Option<(Layers, Layers)> {
    if !need_root(name) {
        return None;
    }
    let room = Layers::new();
    let disk = room.base().join("disk");
    sys::mkdir(&disk, 0o755).unwrap();
    sys::mount("tmpfs", &disk, "tmpfs", 0, "mode=755").unwrap();
    sys::put(disk.join("probe"), "").unwrap();
    if sys::setxattr(disk.join("probe"), "user.probe", "x").is_err() {
        skip(name, "needs user. attributes on tmpfs (Linux 6.6)");
        return None;
    }
    sys::unlink(disk.join("probe")).unwrap();
    Some((Layers::within(&disk), room))
}

/// Without the one attribute that view and lower name differently (K100).
pub fn unescaped(tree: Tree) -> Tree {
    tree.without(&["xattr trusted.overlay.kept", "xattr trusted.overlay.overlay.kept"])
}

/// Layers with a lower, and an upper that the steps made.
pub fn changed(layers: Layers, steps: &str) -> Layers {
    let layers = layers.with_lower(&lower());
    change(&layers, steps);
    layers
}

/// Mounts, does the steps, unmounts.
pub fn change(layers: &Layers, steps: &str) {
    let mounted = layers.mount(Fs::Plyfs, &[]);
    shell(layers, steps);
    mounted.umount();
}

fn shell(layers: &Layers, steps: &str) {
    let output = Command::new("sh")
        .args(["-euc", steps])
        .current_dir(&layers.merged)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What the view shows.
pub fn view(layers: &Layers) -> Tree {
    let mounted = layers.mount(Fs::Plyfs, &[]);
    let tree = seen(mounted.path());
    mounted.umount();
    tree
}

/// A tree without what a view and a plain directory tell differently: the link counts of directories.
pub fn seen(path: &std::path::Path) -> Tree {
    let mut tree = exact(path);
    for entry in tree.0.values_mut() {
        if entry.get("type").is_some_and(|kind| kind == "directory") {
            entry.remove("nlink");
        }
    }
    tree
}

/// A tree with its times to the nanosecond.
pub fn exact(path: &std::path::Path) -> Tree {
    let mut tree = snapshot(path);
    for (name, entry) in &mut tree.0 {
        if let Ok(time) = sys::mtime(path.join(name)) {
            entry.insert("mtime".into(), format!("{}.{:09}", time.0, time.1));
        }
    }
    tree
}

pub fn assert_same(a: &Tree, b: &Tree, what: &str) {
    let differences = a.differences(b, "expected", "found");
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}
