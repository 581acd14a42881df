//! Archives made to do harm: refused or contained, named in the message, with nothing left behind.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use plyfs::builder::apply::{ApplyOptions, Limits, Owners, apply_tar};
use plyfs::builder::{BuildError, Silent};
use tar::{EntryType, Header};

use super::stage::{Root, Stage};
use crate::common::images::archive::*;
use crate::common::{User, as_user, need_root, sys};

const BLOCK: usize = 512;

/// A raw entry: whatever header and data a test wants.
fn raw(kind: u8, name: &[u8], data: &[u8]) -> Vec<u8> {
    raw_with(kind, name, data, |_| {})
}

fn raw_with(kind: u8, name: &[u8], data: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::new(kind));
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_500_000_000);
    header.set_size(data.len() as u64);
    change(&mut header);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        text.extend(format!("{length} {key}=").bytes());
        text.extend(*value);
        text.push(b'\n');
    }
    raw(b'x', b"pax", &text)
}

fn ended(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = entries.concat();
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn base(stage: &Stage) -> Root {
    stage.base(&[
        dir("etc"),
        file("etc/motd", "hello\n"),
        dir("opt"),
        file("opt/f", "the file\n"),
        hard("opt/g", "opt/f"),
    ])
}

#[test]
fn symlinks_in_the_way_do_not_lead_out() {
    let stage = Stage::new();
    let base = base(&stage);
    let outside = stage.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap();
    let up = "../".repeat(40) + target;
    for target in [target, &up] {
        let child = stage.child(
            &base,
            &[
                symlink("way", target),
                file("way/written", "x"),
                dir("way/made").mode(0o777),
                symlink("way/link", "x"),
                hard("way/hard", "opt/f").mode(0o600),
                mark("way/.wh.none"),
                mark("way/.wh..wh..opq"),
            ],
        );
        assert_eq!(sys::sorted_names(&outside).unwrap(), [""; 0]);
        assert!(sys::exists(
            child
                .path
                .join(outside.strip_prefix("/").unwrap())
                .join("written")
        ));
    }
}

#[test]
fn a_file_that_becomes_a_symlink_is_not_written_through() {
    let stage = Stage::new();
    let outside = stage.path().join("outside");
    fs::write(&outside, "as it was").unwrap();
    let target = outside.to_str().unwrap();
    let child = stage.child(
        &base(&stage),
        &[
            symlink("opt/new", target),
            file("x/../opt/other", "x"),
            file("/opt/../opt/./new2", "x"),
        ],
    );
    let again = stage.child(&child, &[file("opt/new", "a file of its own")]);
    assert_eq!(again.text("opt/new"), "a file of its own");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "as it was");
}

#[test]
fn loops_of_symlinks_are_refused() {
    let stage = Stage::new();
    let text = stage.refusal(None, &[symlink("a", "b"), symlink("b", "a"), file("a/x", "x")]);
    assert_eq!(text, "/a: too many symlinks on the way");
}

#[test]
fn a_file_on_the_way_is_refused() {
    let stage = Stage::new();
    let text = stage.refusal(&base(&stage), &[file("opt/f/x", "x")]);
    assert_eq!(text, "/opt/f: /opt/f is no directory");
    let text = stage.refusal(None, &[dir("./"), file("./.", "the root")]);
    assert!(text.contains("this name"), "{text}");
    let text = stage.refusal(None, &[file("./.", "the root")]);
    assert_eq!(text, "/: the root can only be a directory");
}

#[test]
fn truncated_anywhere() {
    let stage = Stage::new();
    let archive = Layer::new(&[
        dir("d"),
        file("d/f", vec![7; 1500]),
        file("n".repeat(150), "x"),
        sparse("s", 1 << 16, &[(4096, b"one")]),
    ])
    .0;
    for end in (0..archive.len() - 2 * BLOCK)
        .step_by(97)
        .chain((0..archive.len() - BLOCK).step_by(BLOCK))
    {
        let text = stage.refused(None, &archive[..end]);
        assert!(
            text.contains("cut off") || text.contains("end mark"),
            "{end}: {text}"
        );
        assert!(
            text.contains(&format!("byte {end}")) || end % BLOCK != 0 || text.contains("byte"),
            "{end}: {text}"
        );
    }
    // One block of zeros is an end; some programs write no more.
    stage.archive(None, &archive[..archive.len() - BLOCK]).unwrap();
}

#[test]
fn a_known_digest_stands_for_the_end_mark() {
    let stage = Stage::new();
    let archive = raw(b'0', b"f", b"x");
    let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&archive).into();
    let apply = |expected| {
        let root = stage.clone_of(None);
        let options = ApplyOptions {
            expected: Some(expected),
            ..ApplyOptions::default()
        };
        apply_tar(File::open(root).unwrap().as_fd(), &archive[..], options, &Silent)
    };
    apply(digest).unwrap();
    let error = apply([7; 32]).unwrap_err();
    assert!(matches!(error, BuildError::Digest { .. }), "{error}");
    assert!(error.to_string().contains(&hex::encode(digest)), "{error}");
}

#[test]
fn every_flipped_bit_of_a_header_is_noticed() {
    let stage = Stage::new();
    let archive = Layer::new(&[file("some-file", "text")]).0;
    // But for the field of the checksum itself, where a blank and a NUL are the same.
    let bits = (0..BLOCK * 8).filter(|bit| !(148..156).contains(&(bit / 8)));
    for bit in bits.step_by(5) {
        let mut flipped = archive.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let text = stage.refused(None, &flipped);
        assert!(text.contains("checksum"), "bit {bit}: {text}");
    }
}

#[test]
fn damaged_headers_are_named() {
    let stage = Stage::new();
    let field = |change: fn(&mut Header)| ended(&[raw_with(b'0', b"the-file", b"", change)]);
    let text = |archive: Vec<u8>| stage.refused(None, &archive);
    for (archive, words) in [
        (
            field(|header| header.as_old_mut().size = *b"12x456789012"),
            "the size in a header is no number",
        ),
        (
            field(|header| header.as_old_mut().size = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            "/the-file: its size is negative",
        ),
        (
            field(|header| header.as_old_mut().size = *b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
            "--max-bytes",
        ),
        (
            field(|header| header.as_old_mut().size = *b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
            "the size in a header is no number",
        ),
        (
            field(|header| header.as_old_mut().uid = *b"\x80\0\0\x01\0\0\0\0"),
            "/the-file: the owner 4294967296 is out of range",
        ),
        (
            field(|header| header.as_old_mut().uid = *b"\x80\0\0\0\xff\xff\xff\xff"),
            "/the-file: the owner 4294967295 is out of range",
        ),
        (
            field(|header| header.as_old_mut().gid = *b"\xff\xff\xff\xff\xff\xff\xff\xff"),
            "/the-file: the group -1 is out of range",
        ),
        (
            field(|header| header.as_old_mut().mode = *b"9999999\0"),
            "the mode in a header is no number",
        ),
        (
            field(|header| header.as_old_mut().mtime = *b"yesterday\0\0\0"),
            "the time in a header is no number",
        ),
        (
            field(|header| header.set_entry_type(EntryType::new(b'V'))),
            "/the-file: an entry of the type 'V' is unknown",
        ),
        (
            field(|header| header.set_entry_type(EntryType::new(0xff))),
            "/the-file: an entry of the type '\\xff' is unknown",
        ),
        (
            field(|header| header.set_entry_type(EntryType::new(b'S'))),
            "has no GNU header",
        ),
    ] {
        let text = text(archive);
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
}

#[test]
fn damaged_extended_headers_are_named() {
    let stage = Stage::new();
    let plain = || raw(b'0', b"f", b"x");
    for (entries, words) in [
        (vec![raw(b'x', b"pax", b"5 a=b\n")], "wrong length"),
        (vec![raw(b'x', b"pax", b"30 path=a\n")], "wrong length"),
        (vec![raw(b'x', b"pax", b"10 path_a\n"), plain()], "has no '='"),
        (vec![pax(&[("size", b"x")]), plain()], "size has a wrong value"),
        (vec![pax(&[("path", b"a\0b")]), plain()], "path has a wrong value"),
        (
            vec![pax(&[("mtime", b"now")]), plain()],
            "mtime has a wrong value",
        ),
        (
            vec![pax(&[("uid", b"99999999999")]), plain()],
            "the owner 99999999999 is out of range",
        ),
        (
            vec![pax(&[("size", b"99999999999999999999")]), plain()],
            "size has a wrong value",
        ),
        (
            vec![pax(&[("size", b"9223372036854775808")]), plain()],
            "its size is out of range",
        ),
        (vec![pax(&[("path", b"x")])], "followed by no entry"),
        (
            vec![pax(&[("LIBARCHIVE.xattr.user.a", b"*")]), plain()],
            "wrong value",
        ),
        (vec![pax(&[("SCHILY.xattr.", b"1")]), plain()], "wrong value"),
        (vec![pax(&[("GNU.sparse.map", b"0,1,x")]), plain()], "wrong value"),
        (
            vec![
                pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"0")]),
                plain(),
            ],
            "/f: its map of holes",
        ),
        (
            vec![pax(&[("GNU.sparse.map", b"0,1")]), plain()],
            "/f: it has holes, but no size",
        ),
        (
            vec![
                pax(&[("GNU.sparse.map", b"0"), ("GNU.sparse.size", b"9")]),
                plain(),
            ],
            "/f: its map of holes has an odd",
        ),
        (
            vec![
                pax(&[("GNU.sparse.map", b"5,1,0,0"), ("GNU.sparse.size", b"9")]),
                plain(),
            ],
            "/f: its map of holes",
        ),
        (
            vec![
                pax(&[("GNU.sparse.map", b"0,2"), ("GNU.sparse.size", b"9")]),
                plain(),
            ],
            "/f: its map of holes",
        ),
        (
            vec![
                pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.realsize", b"9"),
                ]),
                plain(),
            ],
            "a map of holes is greater than its entry",
        ),
        (
            vec![raw_with(b'L', b"long", &[b'n'; 600], |header| {
                header.set_size(2 << 20)
            })],
            "greater than 1 MiB",
        ),
        (
            vec![raw_with(b'x', b"pax", b"", |header| {
                header.set_size(u64::MAX >> 1)
            })],
            "greater than 1 MiB",
        ),
        (
            vec![raw(b'L', b"long", &vec![b'n'; 70_000]), plain()],
            "more than 65536 bytes",
        ),
        (
            vec![vec![0; BLOCK], plain()],
            "a block of zeros stands between two entries",
        ),
    ] {
        let text = stage.refused(None, &ended(&entries));
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
    let endless: Vec<_> = (0..6)
        .map(|_| {
            raw(
                b'x',
                b"pax",
                &[b"1000000 comment=".to_vec(), vec![b'x'; 999_983], b"\n".to_vec()].concat(),
            )
        })
        .collect();
    let text = stage.refused(None, &ended(&[endless.concat(), plain()]));
    assert!(text.contains("4 MiB of extended headers"), "{text}");
}

#[test]
fn global_headers_and_unknown_keys_have_no_effect() {
    let stage = Stage::new();
    let mut global = pax(&[("path", b"elsewhere"), ("comment", b"git")]);
    global[156] = b'g';
    let mut header = Header::from_byte_slice(&global[..BLOCK]).clone();
    header.set_cksum();
    global[..BLOCK].copy_from_slice(header.as_bytes());
    let entries = [
        global,
        pax(&[("VENDOR.key", b"x"), ("SCHILY.acl.access", b"user::rwx")]),
        raw(b'0', b"f", b"x"),
    ];
    let root = stage.archive(None, &ended(&entries)).unwrap();
    assert_eq!(root.names(), ["f"]);
    assert_eq!(root.notes(), ["/f: its SCHILY.acl.access is not read"]);
}

#[test]
fn the_older_forms_of_holes() {
    let stage = Stage::new();
    let data = b"onetwo".to_vec();
    let numbers: &[(&str, &[u8])] = &[
        ("GNU.sparse.offset", b"10"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"20"),
        ("GNU.sparse.numbytes", b"3"),
    ];
    let form_0_0 = [
        &[("GNU.sparse.size", &b"30"[..]), ("GNU.sparse.numblocks", b"2")],
        numbers,
    ]
    .concat();
    let form_0_1: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"30"),
        ("GNU.sparse.map", b"10,3,20,3"),
        ("GNU.sparse.name", b"b"),
    ];
    let entries = [
        pax(&form_0_0),
        raw(b'0', b"a", &data),
        pax(form_0_1),
        raw(b'0', b"GNUSparseFile.1/b", &data),
    ];
    let root = stage.archive(None, &ended(&entries)).unwrap();
    let expected = [&[0; 10][..], b"one", &[0; 7], b"two", &[0; 7]].concat();
    for name in ["a", "b"] {
        assert_eq!(fs::read(root.at(name)).unwrap(), expected, "{name}");
    }
}

#[test]
fn an_old_map_over_many_headers() {
    let stage = Stage::new();
    let count: u64 = 100;
    let pair = |n: u64| {
        [format!("{:011o}\0", n * 8192), format!("{:011o}\0", 512)]
            .concat()
            .into_bytes()
    };
    let mut header = raw_with(b'0', b"holes", b"", |header| {
        *header = {
            let mut gnu = Header::new_gnu();
            gnu.as_old_mut().name[..5].copy_from_slice(b"holes");
            gnu.set_entry_type(EntryType::new(b'S'));
            gnu.set_mode(0o644);
            gnu.set_uid(0);
            gnu.set_gid(0);
            gnu.set_mtime(1);
            gnu.set_size(count * 512);
            let fields = gnu.as_gnu_mut().unwrap();
            for (n, slot) in fields.sparse.iter_mut().enumerate() {
                slot.set_offset(n as u64 * 8192);
                slot.set_length(512);
            }
            fields.set_is_extended(true);
            fields.set_real_size(count * 8192);
            gnu
        }
    });
    for block in 0..5_u64 {
        let mut more: Vec<u8> = (0..21)
            .map(|n| 4 + block * 21 + n)
            .take_while(|n| *n < count)
            .flat_map(pair)
            .collect();
        more.resize(BLOCK, 0);
        more[504] = u8::from(4 + (block + 1) * 21 < count);
        header.extend(more);
    }
    let archive = ended(&[header, vec![b'x'; count as usize * 512]]);
    let root = stage.archive(None, &archive).unwrap();
    let content = fs::read(root.at("holes")).unwrap();
    assert_eq!(content.len() as u64, count * 8192);
    assert!(
        content
            .chunks(8192)
            .all(|chunk| chunk[..512] == [b'x'; 512] && chunk[512..] == [0; 8192 - 512])
    );
}

#[test]
fn links_and_directories_have_no_data_whatever_they_say() {
    let stage = Stage::new();
    let entries = [
        raw_with(b'5', b"d", b"", |header| header.set_size(4096)),
        raw_with(b'2', b"s", b"", |header| {
            header.set_size(4096);
            header.as_old_mut().linkname[..1].copy_from_slice(b"d");
        }),
        raw(b'0', b"d/f", b"x"),
        // The old sign of a directory.
        raw(b'0', b"e/", b""),
        raw(0, b"old", b"x"),
        raw(b'7', b"contiguous", b"x"),
    ];
    let root = stage.archive(None, &ended(&entries)).unwrap();
    assert_eq!(root.names(), ["contiguous", "d", "d/f", "e", "old", "s"]);
    assert!(fs::metadata(root.at("e")).unwrap().is_dir());
}

#[test]
fn a_size_in_an_extended_header_goes_before_the_header() {
    let stage = Stage::new();
    let entries = [
        pax(&[("size", b"3")]),
        raw_with(b'0', b"f", b"abc", |header| header.set_size(0)),
        raw(b'0', b"g", b"x"),
    ];
    let root = stage.archive(None, &ended(&entries)).unwrap();
    assert_eq!((root.text("f"), root.text("g")), ("abc".into(), "x".into()));
}

#[test]
fn what_follows_the_end_mark_has_no_effect() {
    let stage = Stage::new();
    let mut archive = ended(&[raw(b'0', b"f", b"x")]);
    archive.extend(vec![0; 8192]);
    let root = stage.archive(None, &archive).unwrap();
    assert_eq!(root.notes(), [""; 0]);
    archive.extend(raw(b'0', b"hidden", b"x"));
    archive.extend(b"a few bytes");
    let root = stage.archive(None, &archive).unwrap();
    assert_eq!(root.names(), ["f"]);
    assert!(
        root.notes()[0].contains("behind its end mark"),
        "{:?}",
        root.notes()
    );
}

fn limited(stage: &Stage, limits: Limits, archive: &[u8]) -> Result<Root, String> {
    let root = stage.clone_of(None);
    let options = ApplyOptions {
        limits,
        ..ApplyOptions::default()
    };
    match apply_tar(File::open(&root).unwrap().as_fd(), archive, options, &Silent) {
        Ok(_) => Ok(stage.adopt(root)),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn limits_name_their_option() {
    let stage = Stage::new();
    let entries = |most| Limits {
        entries: most,
        ..Limits::default()
    };
    let files: Vec<_> = (0..20).map(|n| file(format!("f{n}"), "x")).collect();
    let archive = Layer::new(&files).0;
    limited(&stage, entries(20), &archive).unwrap();
    let text = limited(&stage, entries(19), &archive).err().unwrap();
    assert!(
        text.contains("more than the limit of 19") && text.contains("--max-entries"),
        "{text}"
    );
    // Directories on the way count: one entry must not make half a million.
    let deep = Layer::new(&[file("d/".repeat(5000) + "f", "x")]).0;
    limited(&stage, entries(5001), &deep).unwrap();
    let text = limited(&stage, entries(5000), &deep).err().unwrap();
    assert!(text.contains("--max-entries"), "{text}");

    let bytes = |most| Limits {
        bytes: most,
        ..Limits::default()
    };
    for (archive, most) in [
        (Layer::new(&[file("f", vec![1; 100_000])]).0, 100_000),
        // A hole is as large as it says, though it takes no room here: nobody wants to read it.
        (Layer::new(&[sparse("f", 1 << 50, &[])]).0, 1 << 49),
        ([ended(&[]), vec![1; 100_000]].concat(), 100_000),
        (
            Layer::new(&[mark(".wh.x"), chr("c", 0, 0), file(".wh.y", vec![1; 100_000])]).0,
            100_000,
        ),
    ] {
        let text = limited(&stage, bytes(most), &archive).err().unwrap();
        assert!(text.contains("--max-bytes"), "{text}");
    }
}

/// Runs `plyfs layer apply` on an archive, with the parent first if there is one.
fn run(stage: &Stage, options: &[&str], archive: &[u8]) -> (Output, PathBuf) {
    let path = stage.path().join("archive");
    fs::write(&path, archive).unwrap();
    let newroot = stage.path().join("newroot");
    let output = Command::new(env!("CARGO_BIN_EXE_plyfs"))
        .args(["layer", "apply"])
        .args(options)
        .arg(&path)
        .arg(&newroot)
        .output()
        .unwrap();
    (output, newroot)
}

fn names_in(dir: &Path) -> Vec<String> {
    let names = sys::sorted_names(dir).unwrap();
    names
        .into_iter()
        .map(|name| name.into_string().unwrap())
        .collect()
}

#[test]
fn a_bomb_is_stopped_and_nothing_is_left() {
    let stage = Stage::new();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped
        .write_all(&raw_with(b'0', b"zeros", b"", |header| header.set_size(1 << 40)))
        .unwrap();
    for _ in 0..64 {
        zipped.write_all(&[0; 1 << 20]).unwrap();
    }
    let (output, newroot) = run(&stage, &["--max-bytes", "16M"], &zipped.finish().unwrap());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--max-bytes"), "{text}");
    assert!(!newroot.exists());
    assert_eq!(names_in(stage.path()), ["archive"]);
}

#[test]
fn a_refused_archive_leaves_nothing_behind() {
    let stage = Stage::new();
    let base = base(&stage);
    let parent = base.path.to_str().unwrap();
    let before = names_in(stage.path());
    let good = [file("new", "x"), hard("opt/h", "opt/f").mode(0o600), dir("many")];
    let bad = [&good[..], &[hard("bad", "nowhere")]].concat();
    let manifest = stage.path().join("manifest");
    let options = ["--parent", parent, "--manifest", manifest.to_str().unwrap()];
    let (output, newroot) = run(&stage, &options, &Layer::new(&bad).0);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("archive: /bad: it links to /nowhere"), "{text}");
    assert!(!newroot.exists());
    fs::remove_file(stage.path().join("archive")).unwrap();
    assert_eq!(names_in(stage.path()), before);
    assert_eq!(base.faults(), [""; 0]);
    // The same place and the same manifest can be used now.
    let (output, newroot) = run(&stage, &options, &Layer::new(&good).0);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(sys::mode(newroot.join("opt/h")).unwrap(), 0o600);
    assert_eq!(base.faults(), [""; 0]);
}

#[test]
fn an_ordinary_user_skips_devices_and_owns_everything_if_asked() {
    if !need_root("an_ordinary_user_skips_devices_and_owns_everything_if_asked") {
        return;
    }
    let stage = Stage::new();
    let user = User::new(1001, 1001, &[]);
    let root = stage.clone_of(None);
    sys::chown(stage.path(), 1001, 1001).unwrap();
    sys::chown(&root, 1001, 1001).unwrap();
    let archive = Layer::new(&[
        dir("d").mode(0o555).own(0, 0).at(1_500_000_000, 0),
        file("d/f", "x")
            .mode(0o444)
            .own(5, 5)
            .xattr("user.a", "b")
            .xattr("trusted.a", "b"),
        chr("d/null", 1, 3),
        hard("d/too", "d/null"),
        dir("closed").mode(0),
        file("closed/f", "x").mode(0),
        mark("closed/.wh.f"),
        dir("closed/deep").mode(0o100),
        file("closed/deep/f", "x"),
        file("gone/deep/f", "x"),
        dir("gone/deep").mode(0),
        mark(".wh.gone"),
    ])
    .0;
    let apply = |skip_devices, owners| {
        as_user(user, || {
            let options = ApplyOptions {
                skip_devices,
                owners,
                ..ApplyOptions::default()
            };
            apply_tar(File::open(&root).unwrap().as_fd(), &archive[..], options, &Silent)
        })
    };
    let error = apply(true, Owners::Kept).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot change the owner of /d: Operation not permitted (os error 1)"
    );
    sys::rmdir(root.join("d")).unwrap();
    let error = apply(false, Owners::Mine).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot make the node /d/null: Operation not permitted (os error 1)"
    );
    fs::remove_dir_all(root.join("d")).unwrap();
    let applied = apply(true, Owners::Mine).unwrap();
    let notes: Vec<_> = applied
        .changes
        .notes
        .list
        .iter()
        .map(|(path, why)| format!("{path}: {why}"))
        .collect();
    assert_eq!(
        notes,
        [
            "/d/f: the attribute trusted.a cannot be set: Operation not permitted (os error 1)",
            "/d/null: devices may not be made here",
            "/d/too: it links to something that was not made",
        ]
    );
    assert_eq!(sys::mode(root.join("d")).unwrap(), 0o555);
    assert_eq!(sys::mtime(root.join("d")).unwrap(), (1_500_000_000, 0));
    assert_eq!(sys::owner(root.join("d/f")).unwrap(), (1001, 1001));
    assert_eq!(sys::mode(root.join("closed")).unwrap(), 0);
    assert_eq!(names_in(&root.join("closed")), ["deep"]);
    assert_eq!(names_in(&root), ["closed", "d"]);
}

/// Every call that changes something fails once, and kills the process once: what is there afterwards is nothing, or
/// all of it.
#[cfg(feature = "fault-injection")]
mod crash {
    use super::*;

    fn apply(stage: &Stage, base: &Root, fault: Option<&str>) -> (Output, PathBuf) {
        let plan = stage.path().join("fault");
        match fault {
            Some(text) => fs::write(&plan, text).unwrap(),
            None => drop(fs::remove_file(&plan)),
        }
        let newroot = stage.path().join("newroot");
        let output = Command::new(env!("CARGO_BIN_EXE_plyfs"))
            .args(["layer", "apply", "--parent"])
            .arg(&base.path)
            .arg(stage.path().join("archive"))
            .arg(&newroot)
            .env("PLYFS_FAULT_FILE", &plan)
            .output()
            .unwrap();
        (output, newroot)
    }

    #[test]
    fn at_any_call_of_an_apply() {
        let stage = Stage::new();
        let base = base(&stage);
        let items = [
            dir("etc").mode(0o700),
            file("etc/motd", "new"),
            hard("opt/h", "opt/f").mode(0o600),
            symlink("s", "x"),
            file("gone/x", "x"),
            mark(".wh.gone"),
            mark("opt/.wh.g"),
        ];
        fs::write(stage.path().join("archive"), Layer::new(&items).0).unwrap();
        let (output, newroot) = apply(&stage, &base, None);
        assert!(output.status.success(), "{output:?}");
        let whole = crate::common::snapshot(&newroot).without(&["nlink", "same"]);
        fs::remove_dir_all(&newroot).unwrap();
        let expected_after = names_in(stage.path());
        let mut failed = 0;
        for call in 1.. {
            assert!(call < 1000, "it never comes through");
            let (output, newroot) = apply(&stage, &base, Some(&format!("errno {call} 5")));
            assert_eq!(base.faults(), [""; 0], "call {call}");
            if output.status.success() {
                let tree = crate::common::snapshot(&newroot).without(&["nlink", "same"]);
                assert_eq!(whole.differences(&tree, "whole", "here"), [""; 0], "call {call}");
                fs::remove_dir_all(&newroot).unwrap();
                // A call whose failure is answered in another way, or none at all any more.
                let (killed, newroot) = apply(&stage, &base, Some(&format!("kill {call}")));
                if killed.status.success() {
                    fs::remove_dir_all(&newroot).unwrap();
                    break;
                }
                clean(&stage);
                continue;
            }
            failed += 1;
            assert!(!newroot.exists(), "call {call}");
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(text.contains("os error 5"), "call {call}: {text}");
            fs::remove_file(stage.path().join("fault")).unwrap();
            assert_eq!(names_in(stage.path()), expected_after, "call {call}: {text}");
            let (killed, newroot) = apply(&stage, &base, Some(&format!("kill {call}")));
            assert!(!killed.status.success() && !newroot.exists(), "call {call}");
            assert_eq!(base.faults(), [""; 0], "call {call}");
            clean(&stage);
        }
        assert!(failed > 20, "only {failed} calls could fail");
        let (output, _) = apply(&stage, &base, None);
        assert!(output.status.success(), "{output:?}");
    }

    /// What a killed process leaves has a name that tells it.
    fn clean(stage: &Stage) {
        for name in names_in(stage.path()) {
            if name.starts_with(".plyfs-") {
                fs::remove_dir_all(stage.path().join(name)).unwrap();
            }
        }
    }
}
