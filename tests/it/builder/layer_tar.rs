//! The layer archive: what is in it, that other programs read it, and what is refused.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plyfs::builder::diff::Upper;
use plyfs::builder::layer_tar::{Written, write_layer_tree, write_layer_trees, write_layer_upper};
use plyfs::builder::{BuildError, TreePath};

use crate::common::plant::plant;
use crate::common::tree::snapshot;
use crate::common::{
    Layers, Node, chr, dir, fifo, file, hard, need_root, sock, sparse, symlink, sys, whiteout,
};

fn root(path: &Path) -> File {
    File::open(path).unwrap()
}

fn try_trees(old: &Path, new: &Path) -> Result<(Vec<u8>, Written), BuildError> {
    let mut archive = Vec::new();
    let written = write_layer_trees(root(old).as_fd(), root(new).as_fd(), &mut archive)?;
    assert_eq!(written.archive_bytes, archive.len() as u64);
    Ok((archive, written))
}

fn upper(layers: &Layers) -> Vec<u8> {
    let mut archive = Vec::new();
    let (upper, lower) = (root(&layers.upper), root(&layers.lower));
    let upper = Upper {
        upper: upper.as_fd(),
        lower: lower.as_fd(),
        init: None,
        namespace: None,
        names: None,
    };
    write_layer_upper(upper, &mut archive).unwrap();
    archive
}

fn planted(old: &[Node], new: &[Node]) -> Layers {
    Layers::new().with_lower(old).with_upper(new)
}

fn archive(old: &[Node], new: &[Node]) -> Vec<u8> {
    let layers = planted(old, new);
    try_trees(&layers.lower, &layers.upper).unwrap().0
}

fn refused(new: &[Node]) -> String {
    let layers = planted(&[], new);
    try_trees(&layers.lower, &layers.upper).unwrap_err().to_string()
}

/// Type letter, mode, size, name and link target of each entry, as the `tar` crate reads them.
fn listed(archive: &[u8]) -> Vec<String> {
    let mut read = tar::Archive::new(archive);
    let entries = read.entries().unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let kind = char::from(header.entry_type().as_byte());
            let name = entry.path_bytes().escape_ascii().to_string();
            let to = entry
                .link_name_bytes()
                .map(|to| format!(" -> {}", to.escape_ascii()));
            format!(
                "{kind} {:04o} {} {name}{}",
                header.mode().unwrap(),
                entry.size(),
                to.unwrap_or_default()
            )
        })
        .collect()
}

#[test]
fn changes_and_the_way_to_them_and_nothing_else() {
    let old = [
        dir("a"),
        dir("a/b"),
        file("a/b/changed", "1"),
        file("a/b/same", "1"),
        dir("a/gone"),
        file("a/gone/f", ""),
        dir("quiet"),
        file("quiet/f", "1"),
    ];
    let new = [
        dir("a").mode(0o711),
        dir("a/b"),
        file("a/b/changed", "22").mode(0o4755),
        file("a/b/same", "1"),
        dir("fresh"),
        fifo("fresh/pipe"),
        symlink("fresh/link", "../a"),
        hard("fresh/one", "a/b/changed"),
        dir("quiet"),
        file("quiet/f", "1"),
    ];
    assert_eq!(
        listed(&archive(&old, &new)),
        [
            "5 0711 0 a/",
            "5 0755 0 a/b/",
            "0 4755 2 a/b/changed",
            "0 0000 0 a/.wh.gone",
            "5 0755 0 fresh/",
            "2 0777 0 fresh/link -> ../a",
            "1 4755 0 fresh/one -> a/b/changed",
            "6 0644 0 fresh/pipe",
        ]
    );
    assert!(listed(&archive(&old, &old)).is_empty());
    assert_eq!(archive(&old, &old), [0; 1024]);
}

#[test]
fn the_root_is_an_entry_when_it_differs() {
    let layers = planted(&[], &[file("f", "")]);
    sys::chmod(&layers.upper, 0o700).unwrap();
    let (archive, _) = try_trees(&layers.lower, &layers.upper).unwrap();
    assert_eq!(listed(&archive), ["5 0700 0 ./", "0 0644 0 f"]);
}

#[test]
fn a_whole_tree_with_its_root() {
    let layers = planted(&[], &[dir("d"), file("d/f", "1"), hard("d/g", "d/f")]);
    let mut archive = Vec::new();
    write_layer_tree(root(&layers.upper).as_fd(), &mut archive).unwrap();
    assert_eq!(
        listed(&archive),
        [
            "5 0755 0 ./",
            "5 0755 0 d/",
            "0 0644 1 d/f",
            "1 0644 0 d/g -> d/f"
        ]
    );
}

#[test]
fn an_upper_as_a_layer() {
    let layers = planted(
        &[
            dir("again"),
            file("again/old", ""),
            file("again/kept", "1"),
            file("gone", ""),
            file("linked", "1"),
            file("untouched", "1"),
        ],
        &[
            dir("again").xattr("user.overlay.opaque", "y"),
            file("again/kept", "1"),
            file("again/new", ""),
            whiteout("gone"),
            file("linked", "1"),
            hard("linked-too", "linked"),
            file("untouched", "1"),
        ],
    );
    assert_eq!(
        listed(&upper(&layers)),
        [
            "5 0755 0 again/",
            "0 0644 0 again/new",
            "0 0000 0 again/.wh.old",
            "0 0000 0 .wh.gone",
            "0 0644 1 linked",
            "1 0644 0 linked-too -> linked",
        ]
    );
    assert!(
        !upper(&layers).windows(7).any(|bytes| bytes == b"overlay"),
        "marks are no data"
    );
}

#[test]
fn the_same_changes_give_the_same_bytes() {
    let nodes = [
        dir("d"),
        file("d/f", "x").xattr("user.b", "2").xattr("user.a", "1"),
        hard("z", "d/f"),
    ];
    let first = archive(&[], &nodes);
    assert_eq!(
        first,
        archive(&[], &nodes),
        "another inode, another time of access"
    );
    let mut other = nodes.clone();
    other[1] = file("d/f", "x").xattr("user.a", "1").xattr("user.b", "2");
    assert_eq!(first, archive(&[], &other), "another order of attributes");
}

/// Everything that the old header has no room for, read by GNU tar into a tree that is compared with the first.
#[test]
fn gnu_tar_makes_the_same_tree() {
    if !need_root("gnu_tar_makes_the_same_tree") {
        return;
    }
    let long = "n".repeat(200);
    let deep = "directory/".repeat(12);
    let mut nodes = vec![
        dir("d").mode(0o2750).own(5, 6).mtime(1_500_000_000, 123_456_789),
        file("d/owner", "x").own(3_000_000_000, 2_500_000).mode(0o6711),
        file("d/old", "x").mtime(-2, 500_000_000),
        file("d/older", "x").mtime(-7, 0),
        file("d/future", "x").mtime(1 << 33, 5),
        file("d/attributes", "x")
            .xattr("user.text", "line\nbreak=")
            .xattr("user.zero", b"\0\xff\0")
            .xattr("trusted.mine", "1"),
        symlink("d/symlink", format!("/{}", "t".repeat(300))),
        symlink("d/dangling", "../../..").own(1, 2).mtime(5, 6),
        hard("d/symlink-too", "d/symlink"),
        fifo("d/pipe").mode(0o600),
        chr("d/null", 1, 3).mode(0o666),
        chr("d/minor", 500, 1_000_000),
        sparse("d/sparse", 3 << 20, &[(1 << 20, b"middle")]),
        file("d/empty", ""),
        file("d/block", vec![7; 512]),
        file("d/blocks", vec![8; 1025]),
        file(PathBuf::from(std::ffi::OsStr::from_bytes(b"d/\xff\xfe")), "bytes"),
        file("d/line\nbreak", ""),
        file(format!("d/{long}"), "long"),
        hard(format!("d/{long}-too"), format!("d/{long}")),
    ];
    for (at, _) in deep.match_indices('/') {
        nodes.push(dir(&deep[..at]));
    }
    nodes.push(file(format!("{deep}end"), "deep"));
    let layers = planted(&[], &nodes);
    let (archive, written) = try_trees(&layers.lower, &layers.upper).unwrap();
    assert_eq!(written.entries, nodes.len() as u64);
    let mut tar = Command::new("tar")
        .args([
            "-x",
            "-p",
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "-C",
        ])
        .arg(&layers.merged)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(tar.wait().unwrap().success());
    sys::utimens(&layers.merged, (0, 0), (0, 0)).unwrap();
    sys::utimens(&layers.upper, (0, 0), (0, 0)).unwrap();
    let (here, there) = (snapshot(&layers.upper), snapshot(&layers.merged));
    let differences = here.differences(&there, "in the tree", "from the archive");
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn attributes_that_were_escaped_for_a_lower_have_their_own_names() {
    if !need_root("attributes_that_were_escaped_for_a_lower_have_their_own_names") {
        return;
    }
    let names = |node: Node| -> Vec<String> {
        let archive = archive(&[], &[node]);
        let mut read = tar::Archive::new(archive.as_slice());
        let mut entry = read.entries().unwrap().next().unwrap().unwrap();
        let records = entry.pax_extensions().unwrap().unwrap();
        records
            .map(|record| record.unwrap().key().unwrap().to_owned())
            .filter(|key| key != "mtime")
            .collect()
    };
    let escaped = file("f", "").xattr("user.overlay.overlay.opaque", "y");
    assert_eq!(names(escaped), ["SCHILY.xattr.user.overlay.opaque"]);
    // Where nobody escaped it, it is data as well.
    let plain = file("f", "").xattr("trusted.overlay.opaque", "y");
    assert_eq!(names(plain), ["SCHILY.xattr.trusted.overlay.opaque"]);
    let both = file("f", "")
        .xattr("user.overlay.overlay.x", "1")
        .xattr("user.overlay.x", "1");
    assert!(refused(&[both]).contains("in both its forms"));
}

#[test]
fn sockets_are_left_out_with_a_note() {
    let layers = planted(
        &[file("was-file", ""), dir("d")],
        &[sock("was-file"), dir("d"), sock("d/new")],
    );
    let (archive, written) = try_trees(&layers.lower, &layers.upper).unwrap();
    // What had the name before is not there any more.
    assert_eq!(listed(&archive), ["5 0755 0 d/", "0 0000 0 .wh.was-file"]);
    let paths: Vec<_> = written.skipped.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(paths, ["/d/new", "/was-file"]);
}

#[test]
fn what_would_act_as_a_whiteout_is_refused() {
    for name in [".wh.f", ".wh.", ".wh..wh..opq"] {
        let words = refused(&[file(name, "")]);
        assert!(
            words.starts_with(&format!("/{name}: a name that begins with .wh.")),
            "{words}"
        );
    }
    assert!(refused(&[dir("d"), dir("d/.wh.x")]).starts_with("/d/.wh.x: "));
    // Gone names too: their whiteout would mean something else.
    let layers = planted(&[file(".wh.f", "")], &[]);
    assert!(try_trees(&layers.lower, &layers.upper).is_err());
    let device = refused(&[chr("zero", 0, 0)]);
    assert!(device.starts_with("/zero: a character device 0/0"), "{device}");
    let words = refused(&[file("f", "").xattr("user.a=b", "")]);
    assert!(words.contains("'user.a=b'"), "{words}");
}

/// Calls a closure before the first write of at least `size` bytes.
struct Interfering<F: FnMut()> {
    size: usize,
    act: F,
    done: bool,
}

impl<F: FnMut()> Write for Interfering<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() >= self.size && !self.done {
            self.done = true;
            (self.act)();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_named() {
    type Interference = fn(&Path);
    let ways: [(&str, Interference); 3] = [
        ("longer", |path| sys::append(path, "more").unwrap()),
        ("shorter", |path| {
            let file = sys::open(path, libc::O_WRONLY).unwrap();
            sys::ftruncate(&file, 5).unwrap();
        }),
        ("same size, time put back", |path| {
            let file = sys::open(path, libc::O_WRONLY).unwrap();
            sys::pwrite(&file, b"x", 1 << 20).unwrap();
            let planted = crate::common::plant::PLANTED;
            sys::utimens(path, planted, planted).unwrap();
        }),
    ];
    for (how, act) in ways {
        let layers = planted(&[], &[dir("d"), file("d/f", vec![1; 2 << 20])]);
        let path = layers.upper.join("d/f");
        let to = Interfering {
            size: 4096,
            act: || act(&path),
            done: false,
        };
        let (new, old) = (root(&layers.upper), root(&layers.lower));
        let from = Upper {
            upper: new.as_fd(),
            lower: old.as_fd(),
            init: None,
            namespace: None,
            names: None,
        };
        let words = write_layer_upper(from, to).unwrap_err().to_string();
        assert!(
            words.starts_with("/d/f: ") && words.contains("while it was read"),
            "{how}: {words}"
        );
    }
}

/// Fails when so many bytes have come.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_archive_that_cannot_be_written_is_an_error_at_any_place() {
    let layers = planted(
        &[],
        &[file("f", vec![1; 3000]).xattr("user.a", "1"), symlink("s", "f")],
    );
    let (new, old) = (root(&layers.upper), root(&layers.lower));
    let size = try_trees(&layers.lower, &layers.upper).unwrap().0.len();
    for room in 0..size / 100 {
        let words = write_layer_trees(old.as_fd(), new.as_fd(), Full(room * 100)).unwrap_err();
        assert!(
            words.to_string().starts_with("cannot write the layer archive: "),
            "{words}"
        );
    }
}

#[test]
fn an_unreadable_file_is_an_error() {
    if !need_root("an_unreadable_file_is_an_error") {
        return;
    }
    let layers = planted(&[], &[dir("d"), file("d/secret", "x").mode(0)]);
    let words = crate::common::as_user(crate::common::who::ANN, || {
        try_trees(&layers.lower, &layers.upper).unwrap_err().to_string()
    });
    assert!(words.starts_with("cannot open /d/secret: "), "{words}");
}

#[test]
fn own_entries_end_early_or_not_at_all() {
    use plyfs::builder::layer_tar::LayerWriter;
    use plyfs::builder::{Kind, Meta};
    let meta = Meta {
        kind: Kind::File,
        permissions: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        atime: Default::default(),
        mtime: Default::default(),
        xattrs: Vec::new(),
    };
    let path = TreePath::from_clean("f");
    let mut archive = Vec::new();
    let mut writer = LayerWriter::new(&mut archive);
    writer.file(&path, &meta, 5, io::repeat(b'x').take(9)).unwrap();
    writer.finish().unwrap();
    assert_eq!(listed(&archive), ["0 0644 5 f"]);
    let mut writer = LayerWriter::new(io::sink());
    let words = writer
        .file(&path, &meta, 5, &b"four"[..])
        .unwrap_err()
        .to_string();
    assert!(words.starts_with("/f: became shorter"), "{words}");
    assert!(writer.node(&path, &meta).is_err());
    assert!(writer.whiteout(&TreePath::root()).is_err());
}

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
    assert_eq!(archive, try_trees(&layers.lower, &layers.upper).unwrap().0);
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
