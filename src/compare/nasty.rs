//! The nasty lower, and a prepared upper.

use super::bytes::Bytes;
use super::layers::{Item, Layers, What};
use super::op::Fill;
use super::rng::Rng;

/// `CAP_NET_RAW` effective and permitted, as setcap(8) writes it.
pub const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A POSIX ACL as the kernel takes it: version 2, then (tag, permissions, id).
pub fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const ANY: u32 = u32::MAX;

/// u::rwx u:1001:rwx g::r-x m::rwx o::---
pub fn acl_with_user() -> Vec<u8> {
    acl(&[(1, 7, ANY), (2, 7, 1001), (4, 5, ANY), (16, 7, ANY), (32, 0, ANY)])
}

/// u::rw- g::r-- g:1003:rw- m::r-- o::r-- : the mask cuts the group's right to write.
pub fn acl_with_group() -> Vec<u8> {
    acl(&[(1, 6, ANY), (4, 4, ANY), (8, 6, 1003), (16, 4, ANY), (32, 4, ANY)])
}

/// As plain mode 0750 says it.
pub fn acl_minimal() -> Vec<u8> {
    acl(&[(1, 7, ANY), (4, 5, ANY), (32, 0, ANY)])
}

struct Maker(Vec<Item>);

impl Maker {
    fn add(&mut self, path: &[u8], what: What) {
        self.0.push(Item {
            path: Bytes::from(path),
            what,
        });
    }

    fn dir(&mut self, path: &str, mode: u32) {
        self.add(path.as_bytes(), What::Dir { mode });
    }

    fn file(&mut self, path: &str, mode: u32, len: u32) {
        let seed = path.bytes().fold(len as u8, u8::wrapping_add);
        self.add(
            path.as_bytes(),
            What::File {
                mode,
                data: Fill { seed, len },
            },
        );
    }

    fn link(&mut self, path: &str, target: &str) {
        self.add(
            path.as_bytes(),
            What::Symlink {
                target: Bytes::from(target),
            },
        );
    }

    fn hard(&mut self, path: &str, to: &str) {
        self.add(path.as_bytes(), What::HardLink { to: Bytes::from(to) });
    }

    fn node(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.add(path.as_bytes(), What::Node { mode, major, minor });
    }

    fn own(&mut self, path: &str, uid: u32, gid: u32) {
        self.add(path.as_bytes(), What::Owner { uid, gid });
    }

    fn mode(&mut self, path: &str, mode: u32) {
        self.add(path.as_bytes(), What::Mode { mode });
    }

    fn xattr(&mut self, path: &str, name: &str, value: &[u8]) {
        self.add(
            path.as_bytes(),
            What::Xattr {
                name: Bytes::from(name),
                value: Bytes::from(value),
            },
        );
    }

    fn times(&mut self, path: &str, access: (i64, u32), modify: (i64, u32)) {
        self.add(path.as_bytes(), What::Times { access, modify });
    }
}

/// Layers for a program; the seed chooses among the parts, so that some programs are small and quick.
pub fn layers(rng: &mut Rng) -> Layers {
    let mut lower = Maker(Vec::new());
    base(&mut lower);
    if rng.chance(60) {
        modes(&mut lower);
    }
    if rng.chance(60) {
        links(&mut lower);
    }
    if rng.chance(50) {
        attributes(&mut lower);
    }
    if rng.chance(50) {
        odd_names(&mut lower);
    }
    if rng.chance(40) {
        marks(&mut lower);
    }
    if rng.chance(40) {
        contents(&mut lower);
    }
    if rng.chance(20) {
        many(&mut lower);
    }
    let mut upper = Maker(Vec::new());
    if rng.chance(40) {
        prepared(&mut upper);
    }
    Layers {
        lower: lower.0,
        tops: Vec::new(),
        upper: upper.0,
    }
}

/// Always there: plain directories and files that others may use.
fn base(l: &mut Maker) {
    l.mode("", 0o777);
    for dir in ["d", "d/sub", "d/sub/deep", "e", "e/empty", "work"] {
        l.dir(dir, 0o777);
    }
    for (path, len) in [
        ("f", 100),
        ("g", 0),
        ("d/a", 5000),
        ("d/b", 12),
        ("d/sub/c", 70_000),
        ("d/sub/deep/z", 3),
    ] {
        l.file(path, 0o666, len);
    }
    for dir in ["mine", "mine/in"] {
        l.dir(dir, 0o755);
        l.own(dir, 1001, 1001);
    }
    l.file("mine/note", 0o644, 40);
    l.own("mine/note", 1001, 1001);
    l.file("mine/in/secret", 0o600, 41);
    l.own("mine/in/secret", 1001, 1001);
    l.file("rootonly", 0o600, 10);
    l.link("to-f", "f");
    l.link("d/up", "../e");
    l.file("gone-in-upper", 0o666, 8);
    l.dir("hidden", 0o777);
    l.file("hidden/old", 0o666, 9);
    l.dir("hidden/olddir", 0o777);
    l.times("f", (-1_000_000_000, 5), (-2_000_000_001, 999_999_999));
    l.times("g", (4_000_000_000, 1), (5_000_000_000, 2));
    l.times("d", (7, 0), (i64::from(i32::MIN), 1));
}

fn modes(l: &mut Maker) {
    l.dir("modes", 0o777);
    for (name, mode) in [
        ("suid", 0o4755),
        ("sgid", 0o2755),
        ("both", 0o6777),
        ("lock", 0o2644),
        ("sticky", 0o1666),
    ] {
        let path = format!("modes/{name}");
        l.file(&path, mode, 30);
        if name != "suid" {
            // chown drops the bits: the owner first, then the mode once more.
            l.own(&path, 1001, 1001);
            l.mode(&path, mode);
        }
    }
    l.file("modes/none", 0, 3);
    l.file("modes/readonly", 0o444, 3);
    l.dir("modes/setgid", 0o777);
    l.own("modes/setgid", 1002, 1003);
    l.mode("modes/setgid", 0o2777);
    l.dir("modes/tmp", 0o1777);
    l.file("modes/tmp/hers", 0o644, 3);
    l.own("modes/tmp/hers", 1002, 1001);
    l.dir("modes/closed", 0o700);
    l.file("modes/closed/in", 0o666, 3);
    l.dir("modes/noexec", 0o666);
    l.file("modes/noexec/in", 0o666, 3);
    l.dir("modes/drop", 0o333);
    l.node("modes/fifo", libc::S_IFIFO | 0o666, 0, 0);
    l.node("modes/sock", libc::S_IFSOCK | 0o640, 0, 0);
    l.node("modes/null", libc::S_IFCHR | 0o666, 1, 3);
    l.node("modes/block", libc::S_IFBLK | 0o600, 240, 7);
}

fn links(l: &mut Maker) {
    l.dir("links", 0o777);
    l.dir("links/other", 0o777);
    l.file("links/h1", 0o666, 4000);
    l.hard("links/h2", "links/h1");
    l.hard("links/other/h3", "links/h1");
    l.file("links/p1", 0o644, 77);
    l.own("links/p1", 1001, 1001);
    l.hard("links/other/p2", "links/p1");
    l.node("links/n1", libc::S_IFIFO | 0o600, 0, 0);
    l.hard("links/n2", "links/n1");
    l.link("links/s1", "h1");
    l.hard("links/s2", "links/s1");
    l.link("links/dangling", "nowhere/at/all");
    l.link("links/absolute", "/d/a");
    l.link("links/up-and-out", "../../../../f");
    l.link("links/loop-a", "loop-b");
    l.link("links/loop-b", "loop-a");
    l.link("links/self", "self");
    l.link("links/dir", "other");
    l.own("links/dangling", 1001, 1002);
    l.times("links/dangling", (11, 1), (22, 2));
}

fn attributes(l: &mut Maker) {
    l.dir("attr", 0o777);
    l.file("attr/f", 0o666, 20);
    l.xattr("attr/f", "user.colour", b"blue");
    l.xattr("attr/f", "user.empty", b"");
    l.xattr("attr/f", "trusted.note", b"\x00\x01\xff");
    l.file("attr/cap", 0o755, 20);
    l.xattr("attr/cap", "security.capability", CAPABILITY);
    l.dir("attr/acldir", 0o770);
    l.xattr("attr/acldir", "system.posix_acl_default", &acl_with_user());
    l.xattr("attr/acldir", "user.on-dir", b"1");
    l.file("attr/acldir/old", 0o666, 4);
    l.xattr("attr/acldir/old", "system.posix_acl_access", &acl_with_user());
    l.file("attr/aclfile", 0o640, 20);
    l.xattr("attr/aclfile", "system.posix_acl_access", &acl_with_group());
    l.dir("attr/both", 0o2775);
    l.own("attr/both", 0, 1003);
    l.mode("attr/both", 0o2775);
    l.xattr("attr/both", "system.posix_acl_access", &acl_with_user());
    l.xattr("attr/both", "system.posix_acl_default", &acl_with_group());
    l.link("attr/link", "f");
    l.xattr("attr/link", "trusted.on-link", b"x");
}

fn odd_names(l: &mut Maker) {
    l.dir("odd", 0o777);
    let file = |seed| What::File {
        mode: 0o666,
        data: Fill { seed, len: 9 },
    };
    for (index, name) in [
        b"\xff\xfe".as_slice(),
        b"new\nline",
        b"spa ce",
        b"-rf",
        b"'\"\\$`*?",
        b"\x01\x7f",
        b"..lookalike",
        b"...",
        b".wh.f",
        b".wh..wh..opq",
        "\u{e9}\u{4e2d}".as_bytes(),
    ]
    .into_iter()
    .enumerate()
    {
        let path = Bytes::from("odd").join(name);
        l.add(&path.0, file(index as u8));
    }
    let long = Bytes::from("odd").join(&[b'n'; 255]);
    l.add(&long.0, What::Dir { mode: 0o777 });
    l.add(&long.join(&[0xe2; 255]).0, file(42));
    let mut deep = String::from("odd");
    for level in 0..24 {
        deep.push_str(&format!("/level{level}"));
        l.dir(&deep, 0o777);
    }
    l.file(&format!("{deep}/bottom"), 0o666, 11);
}

/// Things that mean something to an overlay, in places where they should not.
fn marks(l: &mut Maker) {
    l.dir("marks", 0o777);
    l.node("marks/wh", libc::S_IFCHR, 0, 0);
    l.node("marks/wh-666", libc::S_IFCHR | 0o666, 0, 0);
    l.file("marks/real", 0o666, 4);
    l.dir("marks/only-wh", 0o777);
    l.node("marks/only-wh/w", libc::S_IFCHR, 0, 0);
    l.dir("marks/opaque", 0o777);
    l.xattr("marks/opaque", "trusted.overlay.opaque", b"y");
    l.file("marks/opaque/in", 0o666, 4);
    l.dir("marks/userspace", 0o777);
    l.xattr("marks/userspace", "user.overlay.opaque", b"y");
    l.xattr("marks/userspace", "user.overlay.whiteout", b"y");
    l.file("marks/userspace/in", 0o666, 4);
    l.file("marks/nested", 0o666, 4);
    l.xattr("marks/nested", "trusted.overlay.overlay.opaque", b"y");
    l.xattr("marks/nested", "trusted.overlay.overlay.overlay.x", b"z");
    l.xattr("marks/nested", "trusted.overlay.impure", b"y");
    l.file("marks/origin", 0o666, 4);
    l.xattr("marks/origin", "trusted.overlay.origin", b"rubbish");
}

fn contents(l: &mut Maker) {
    l.dir("data", 0o777);
    let piece = |seed, len| Fill { seed, len };
    let sparse = |pieces: Vec<(i64, Fill)>, size| What::Sparse {
        mode: 0o666,
        pieces,
        size,
    };
    l.add(
        b"data/sparse",
        sparse(vec![(0, piece(1, 10)), (1 << 20, piece(2, 5000))], 3 << 20),
    );
    l.add(
        b"data/hole-first",
        sparse(vec![(300_000, piece(3, 100))], 300_100),
    );
    l.add(b"data/all-hole", sparse(Vec::new(), 2 << 20));
    l.file("data/big", 0o666, 1_500_000);
    l.file("data/page", 0o666, 4096);
    l.file("data/page+1", 0o666, 4097);
}

fn many(l: &mut Maker) {
    l.dir("many", 0o777);
    for index in 0..300 {
        let path = format!("many/entry-{index:03}-{}", "x".repeat(index % 40));
        if index % 50 == 0 {
            l.dir(&path, 0o755);
        } else {
            l.file(&path, 0o644, index as u32 % 3);
        }
    }
}

/// An upper as an earlier mount may have left it.
fn prepared(u: &mut Maker) {
    u.mode("", 0o777);
    u.node("gone-in-upper", libc::S_IFCHR, 0, 0);
    u.dir("hidden", 0o777);
    u.xattr("hidden", "trusted.overlay.opaque", b"y");
    u.file("hidden/new", 0o666, 6);
    u.dir("hidden/newdir", 0o777);
    u.dir("d", 0o777);
    u.node("d/b", libc::S_IFCHR, 0, 0);
    u.file("d/a", 0o666, 17);
    u.file("d/only-upper", 0o644, 18);
    u.own("d/only-upper", 1001, 1001);
    u.dir("d/sub", 0o755);
    u.xattr("d/sub", "trusted.overlay.opaque", b"n");
    // A directory over a file, and a file over a directory.
    u.dir("g", 0o777);
    u.file("g/inside", 0o666, 2);
    u.file("work", 0o666, 2);
    u.file("pure", 0o666, 5);
    u.hard("pure2", "pure");
    u.link("purelink", "d/only-upper");
    u.xattr("pure", "user.colour", b"red");
}
