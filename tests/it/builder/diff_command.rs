//! `plyfs layer diff` as a person uses it.

use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use plyfs::builder::layer_tar::write_layer_trees;
use plyfs::format::{Links, TreeId};

use super::told::{link, planted, root};
use crate::common::plant::plant;
use crate::common::{dir, file, hard, sparse, sys};

#[test]
fn the_command() {
    let layers = planted(
        &[dir("d"), file("d/f", "1"), file("gone", "")],
        &[dir("d"), file("d/f", "22"), file("\u{1}new", "")],
    );
    plant(&layers.merged, &[file("out.tar", "before")]);
    let run = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_plyfs"))
            .args(["layer", "diff"])
            .args(words)
            .current_dir(layers.base())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let text = |words: &[&str]| {
        let output = run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(text(&["l", "u"]), "A /\\u{1}new\nC /d\nC /d/f\nD /gone\n");
    assert_eq!(text(&["l", "l"]), "");
    let json: serde_json::Value = serde_json::from_str(&text(&["--json", "l", "u"])).unwrap();
    assert_eq!(json[0]["path"], "/\u{1}new");
    assert_eq!(json[2]["change"], "C");
    assert_eq!(json[2]["kind"], "file");
    assert_eq!(json[2]["differences"], serde_json::json!(["size"]));
    assert_eq!(text(&["--json", "l", "l"]), "[]\n");
    // The upper's form; nothing is deleted, since an upper says that with whiteouts.
    assert_eq!(
        text(&["--upper", "u", "--lower", "l"]),
        "A /\\u{1}new\nC /d\nC /d/f\n"
    );

    assert_eq!(text(&["l", "u", "--tar", "m/out.tar"]), "");
    let archive = fs::read(layers.merged.join("out.tar")).unwrap();
    let mut expected = Vec::new();
    write_layer_trees(
        root(&layers.lower).as_fd(),
        root(&layers.upper).as_fd(),
        &mut expected,
    )
    .unwrap();
    assert_eq!(archive, expected);
    assert_eq!(run(&["l", "u", "--tar", "-"]).stdout, archive);
    assert_eq!(fs::read_dir(&layers.merged).unwrap().count(), 1);

    // An archive that fails leaves the file as it was.
    plant(&layers.upper, &[file(".wh.bad", "")]);
    let failed = run(&["l", "u", "--tar", "m/out.tar"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).starts_with("plyfs: /.wh.bad: "));
    assert_eq!(fs::read(layers.merged.join("out.tar")).unwrap(), archive);
    assert_eq!(fs::read_dir(&layers.merged).unwrap().count(), 1);

    for wrong in [
        &["l"][..],
        &[],
        &["--upper", "u"],
        &["--lower", "l"],
        &["l", "u", "--upper", "u", "--lower", "l"],
        &["l", "u", "--json", "--tar", "x"],
        &["l", "u", "--userxattr"],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(run(&["l", "not-there"]).status.code(), Some(1));
    assert_eq!(run(&["l", "l/gone"]).status.code(), Some(1));
}

#[test]
fn ctrl_c_leaves_the_file_as_it_was() {
    let layers = planted(&[], &[sparse("great", 4 << 30, &[])]);
    plant(&layers.merged, &[file("out.tar", "before")]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_plyfs"))
        .args(["layer", "diff", "l", "u", "--tar", "m/out.tar"])
        .current_dir(layers.base())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let part = layers.merged.join(format!("out.tar.part-{}", child.id()));
    while part.metadata().map_or(0, |meta| meta.len()) == 0 {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(sys::text(layers.merged.join("out.tar")).as_deref(), Ok("before"));
    assert_eq!(fs::read_dir(&layers.merged).unwrap().count(), 1);
}

#[test]
fn a_stored_layer_has_a_record_of_its_links() {
    let layers = planted(
        &[
            dir("root"),
            file("root/a", "1"),
            file("root/b", "1"),
            hard("root/c", "root/b"),
        ],
        &[file("a", "1"), file("b", "1")],
    );
    // As if another layer had it too.
    link(layers.base(), "l/root/a", "w/a");
    let tree = layers.lower.join("root");
    let number = sys::stat(tree.join("b")).unwrap().st_ino;
    let links = Links::new(TreeId::of(root(&tree)).unwrap(), [(number, 2)]);
    sys::put(layers.lower.join("links"), links.encode()).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_plyfs"))
        .args(["layer", "diff", "--upper"])
        .arg(&layers.upper)
        .arg("--lower")
        .arg(&tree)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "C /b\n");
}
