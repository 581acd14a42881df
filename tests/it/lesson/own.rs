//! Somebody's own layers as a page.

use std::fs;
use std::process::{Command, Stdio};

use plyfs::explain::{Layers as Explained, Named};
use plyfs::lesson::model::{self, Change, Sort, entry, tree};

use super::page::{readable_text, stands_alone};
use super::{PLYFS, can_run, ok};
use crate::common::*;

#[test]
fn a_page_of_ones_own_layers() {
    let name = "a_page_of_ones_own_layers";
    if !can_run(name) {
        return;
    }
    let layers = Layers::new().with_lower(&[
        dir("etc"),
        file("etc/motd", "hello"),
        file("etc/<b>&\"'", "odd"),
        dir("etc/deep"),
        file("etc/deep/unseen", ""),
        dir("old"),
        file("old/o", ""),
        dir("srv"),
        file("srv/data", ""),
        file("gone", ""),
        symlink("link", "etc/motd"),
    ]);
    let mounted = layers.mount(Fs::Plyfs, &[]);
    sys::put(layers.merged.join("etc/motd"), "hello\nKEEP-THIS-SECRET\n").unwrap();
    sys::put(layers.merged.join("new"), "").unwrap();
    sys::unlink(layers.merged.join("gone")).unwrap();
    fs::remove_dir_all(layers.merged.join("old")).unwrap();
    fs::create_dir(layers.merged.join("old")).unwrap();
    let base = layers.base();
    let plyfs = |arguments: &[&str]| {
        let mut command = Command::new(PLYFS);
        command.args(["explain", "--html", "page.html"]).args(arguments);
        command.current_dir(base).stdin(Stdio::null()).output().unwrap()
    };
    let page = |arguments: &[&str]| {
        assert_eq!(ok(&plyfs(arguments)), "");
        let page = fs::read_to_string(base.join("page.html")).unwrap();
        stands_alone(&page);
        assert!(!page.contains("KEEP-THIS-SECRET"), "the content of a file");
        page
    };
    let live = page(&["m/etc/motd", "m/srv", "m/gone"]);
    let text = readable_text(&live);
    for part in [
        "/etc/motd Shows what the upper has.",
        "/gone Shows nothing, by a whiteout (ENOENT).",
        "old/ opaque",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }

    // The trees are those of the view, as far as they are opened.
    let explained = Explained::open(&Named {
        lower: layers.lower.clone(),
        upper: Some(layers.upper.clone()),
        ..Named::default()
    })
    .unwrap();
    let told = ["etc/motd", "srv", "gone"].map(|path| explained.explain(path.as_ref()).unwrap());
    let trees = plyfs::lesson::seen::trees(&explained, &told).unwrap();
    let shown = |tree: &model::Tree| -> Vec<(Vec<u8>, Sort, u64)> {
        let entries = tree.entries.iter();
        entries
            .map(|entry| (entry.path.0.clone(), entry.sort, entry.size))
            .collect()
    };
    let real = plyfs::lesson::shot::View::new("M", "")
        .look(&layers.merged)
        .unwrap();
    let mut real = shown(&real.tree);
    real.retain(|(path, ..)| path != b"etc/deep/unseen");
    // Of a directory in the layers the size is another than in the view.
    let sized = |mut list: Vec<(Vec<u8>, Sort, u64)>| {
        for (_, sort, size) in &mut list {
            *size = if *sort == Sort::Directory { 0 } else { *size };
        }
        list
    };
    assert_eq!(sized(shown(tree(&trees, "M").unwrap())), sized(real));
    let answers = |path: &str| entry(&trees, "M", path).unwrap().answers;
    assert_eq!(answers("etc"), Some(model::Answers::Both));
    assert_eq!(answers("old"), Some(model::Answers::Upper));
    assert_eq!(answers("link"), Some(model::Answers::Lower));
    assert!(entry(&trees, "L", "gone").unwrap().hidden && entry(&trees, "L", "old").unwrap().hidden);
    assert_eq!(entry(&trees, "U", "new").unwrap().change, Some(Change::Added));
    assert!(matches!(
        entry(&trees, "U", "etc/motd").unwrap().change,
        Some(Change::Copied(_))
    ));

    // The same without a mount, and a lone lower; what lies in no view leaves an old page alone.
    mounted.umount();
    page(&["--lower", "l", "--upper", "u", "etc/motd"]);
    let lone = page(&["--lower", "l", "etc"]);
    assert!(readable_text(&lone).contains("the view is read-only"));
    assert_eq!(plyfs(&["m/etc/motd"]).status.code(), Some(1));
    assert_eq!(fs::read_to_string(base.join("page.html")).unwrap(), lone);
}
