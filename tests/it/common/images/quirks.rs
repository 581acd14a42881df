//! One image for each thing on which programs that unpack images differ, and for each on which they must agree.
//!
//! The first group is the table of quirks that were found in docker, podman, umoci and the overlay drivers; what
//! plyfs makes of each is said here, how it differs from the others in `oracles/accepted.rs`.

use super::archive::*;
use super::image::Image;

/// What plyfs does with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    /// It is loaded.
    Loads,
    /// It is refused, with a message that holds these words.
    Refuses(&'static str),
}

/// An image with something special about it.
pub struct Quirk {
    pub name: &'static str,
    pub image: Image,
    pub ours: Ours,
}

/// What most layers lie on.
fn base() -> Vec<Item> {
    vec![
        dir("etc").mode(0o750).own(7, 8).at(1_500_000_000, 0),
        file("etc/motd", "hello\n"),
        dir("opt"),
        file("opt/f", "the file\n").mode(0o640).own(3, 4),
        file("opt/other", "other\n"),
        dir("opt/sub"),
        file("opt/sub/deep", "deep\n"),
        dir("run"),
        dir("var"),
        symlink("var/run", "/run"),
        dir("tmp").mode(0o1777),
    ]
}

/// Every image, by a name that says what is special.
pub fn quirks() -> Vec<Quirk> {
    let mut all = differing();
    all.extend(refused());
    all.extend(agreed());
    all
}

/// The base gets a root entry, and a file that makes it a layer of this image only: docker changes the files of
/// shared layers (a hard link with another mode), and would show that in images that have nothing to do with it.
fn quirk(name: &'static str, ours: Ours, layers: &[&[Item]]) -> Quirk {
    let base = [&[dir("./"), file("quirk", name)][..], layers[0]].concat();
    let layers = [&[&base[..]], &layers[1..]].concat();
    Quirk {
        name,
        image: Image::new(&format!("quirk/{name}:1"), &layers),
        ours,
    }
}

fn on_base(name: &'static str, layer: &[Item]) -> Quirk {
    quirk(name, Ours::Loads, &[&base(), layer])
}

/// Where programs differ, and plyfs loads the image.
fn differing() -> Vec<Quirk> {
    vec![
        on_base(
            "parent-is-a-symlink-of-the-lower",
            &[file("var/run/pid", "1\n"), dir("var/run/made")],
        ),
        on_base(
            "entry-without-its-parent",
            &[
                file("etc/new", "new\n"),
                file("nobody/has/these", "x"),
                dir("opt/sub/in/between"),
            ],
        ),
        on_base(
            "hard-link-to-the-lower",
            &[hard("opt/g", "opt/f").mode(0o640).own(3, 4)],
        ),
        on_base(
            "hard-link-with-another-mode",
            &[hard("opt/g", "opt/f")
                .mode(0o755)
                .own(30, 40)
                .at(1_600_000_000, 0)
                .xattr("user.note", "from the link")],
        ),
        on_base(
            "hard-link-with-another-mode-in-one-layer",
            &[
                file("opt/new", "new\n"),
                hard("opt/new2", "opt/new")
                    .mode(0o700)
                    .own(30, 40)
                    .at(1_600_000_000, 0),
            ],
        ),
        quirk(
            "hard-link-with-another-mode-into-a-group",
            Ours::Loads,
            &[
                &[
                    dir("d"),
                    file("d/a", "group\n"),
                    hard("d/b", "d/a"),
                    hard("d/c", "d/a"),
                ],
                &[hard("d/e", "d/b").mode(0o600)],
            ],
        ),
        on_base(
            "added-then-whited-out",
            &[
                file("opt/x", "new\n"),
                mark("opt/.wh.x"),
                file("opt/f", "new\n"),
                mark("opt/.wh.f"),
            ],
        ),
        on_base(
            "whited-out-then-added",
            &[
                mark("opt/.wh.f"),
                file("opt/f", "new\n"),
                mark("opt/.wh.sub"),
                dir("opt/sub").mode(0o700),
            ],
        ),
        on_base(
            "opaque-root",
            &[mark(".wh..wh..opq"), dir("new"), file("new/f", "f")],
        ),
        on_base(
            "opaque-after-the-entries",
            &[
                dir("opt"),
                file("opt/new", "new\n"),
                file("opt/f", "again\n"),
                mark("opt/.wh..wh..opq"),
            ],
        ),
        on_base(
            "aufs-files",
            &[
                dir(".wh..wh.plnk").mode(0o700),
                file(".wh..wh.plnk/1.2", "linked\n"),
                mark(".wh..wh.aufs"),
                dir(".wh..wh.orph").mode(0o700),
                hard("opt/linked", ".wh..wh.plnk/1.2"),
                file("opt/plain", "x"),
            ],
        ),
        on_base("opaque-where-nobody-is", &[mark("nobody/.wh..wh..opq")]),
        on_base("whiteout-where-nobody-is", &[mark("nobody/deep/.wh.x")]),
        on_base(
            "clamped-names",
            &[
                file("../../escape", "here\n"),
                file("/absolute", "here\n"),
                file("opt/../up", "here\n"),
                file("./opt/./dotted", "here\n"),
                file("opt//slashes", "here\n"),
            ],
        ),
        on_base(
            "through-a-symlink",
            &[
                symlink("up", "../../../opt"),
                file("up/x", "inside\n"),
                symlink("opt/here", "sub"),
                file("opt/here/x", "inside\n"),
            ],
        ),
        on_base(
            "through-a-symlink-to-nowhere",
            &[symlink("away", "/nowhere/at/all"), file("away/x", "inside\n")],
        ),
        on_base(
            "device-0-0",
            &[
                chr("opt/zero", 0, 0).mode(0o600),
                chr("opt/f", 0, 0).mode(0),
                dir("etc").mode(0o755),
            ],
        ),
        on_base(
            "marker-attributes",
            &[
                dir("opt/sub").xattr("trusted.overlay.opaque", "y"),
                dir("opt").xattr("user.overlay.opaque", "y"),
                dir("etc").xattr("user.fuseoverlayfs.opaque", "y"),
                file("opt/f", "x").xattr("trusted.overlay.metacopy", ""),
                file("opt/other", "y").xattr("trusted.overlay.redirect", "/etc/motd"),
                file("opt/whiteout", "")
                    .xattr("trusted.overlay.whiteout", "y")
                    .xattr("user.overlay.whiteout", "y"),
            ],
        ),
        on_base(
            "old-sparse",
            &[old_sparse(
                "opt/old",
                3 << 20,
                &[(4096, &[b'x'; 512]), (2 << 20, b"end")],
            )],
        ),
        on_base(
            "hard-links-between-symlinks",
            &[symlink("opt/l1", "f"), hard("opt/l2", "opt/l1")],
        ),
        quirk(
            "hard-links-between-symlinks-below",
            Ours::Loads,
            &[&[symlink("l1", "f"), hard("l2", "l1")], &[file("x", "x")]],
        ),
        quirk(
            "hard-links-between-special-files",
            Ours::Loads,
            &[
                &[
                    fifo("p1"),
                    hard("p2", "p1").mode(0o640),
                    chr("c1", 1, 3),
                    hard("c2", "c1").mode(0o666),
                ],
                &[file("x", "x")],
            ],
        ),
    ]
}

/// What plyfs refuses, whatever others do.
fn refused() -> Vec<Quirk> {
    let refused = |name, words, layer: &[Item]| quirk(name, Ours::Refuses(words), &[&base(), layer]);
    vec![
        refused("whiteout-of-no-name", "opt/.wh.", &[mark("opt/.wh.")]),
        refused("whiteout-of-dot", "opt/.wh..", &[mark("opt/.wh..")]),
        refused("whiteout-of-dot-dot", "opt/.wh...", &[mark("opt/.wh...")]),
        refused(
            "the-same-name-twice",
            "opt/x",
            &[file("opt/x", "one"), file("opt/x", "two")],
        ),
        refused(
            "hard-link-before-its-target",
            "opt/early",
            &[hard("opt/early", "opt/late"), file("opt/late", "late")],
        ),
        refused(
            "hard-link-out-of-the-root",
            "opt/out",
            &[hard("opt/out", "../../../../etc/passwd")],
        ),
        refused(
            "hard-link-through-a-symlink",
            "opt/out",
            &[symlink("etc/away", "/"), hard("opt/out", "etc/away/no/such")],
        ),
        refused(
            "hard-link-to-a-directory",
            "opt/again",
            &[hard("opt/again", "opt/sub")],
        ),
    ]
}

/// Where all must agree.
fn agreed() -> Vec<Quirk> {
    let deep = (0..150).map(|n| format!("d{n}")).collect::<Vec<_>>();
    let deep: Vec<_> = (1..=deep.len()).map(|n| dir(deep[..n].join("/"))).collect();
    let many: Vec<_> = (0..300)
        .map(|n| file(format!("many/f{n:03}"), n.to_string()))
        .collect();
    let gone: Vec<_> = (0..300)
        .filter(|n| n % 3 != 0)
        .map(|n| mark(format!("many/.wh.f{n:03}")))
        .collect();
    let long = "n".repeat(255);
    let path = ["p".repeat(120), "q".repeat(120), "r".repeat(120)].join("/");
    vec![
        quirk("one-layer", Ours::Loads, &[&base()]),
        quirk(
            "empty-layers",
            Ours::Loads,
            &[&base(), &[], &[], &[file("f", "f")]],
        ),
        quirk("the-same-layer-twice", Ours::Loads, &[&base(), &base()]),
        on_base("root-of-another-mode", &[dir("./").mode(0o711).own(1, 2)]),
        quirk(
            "hard-links-over-layers",
            Ours::Loads,
            &[
                &[
                    dir("d"),
                    file("d/a", "group\n"),
                    hard("d/b", "d/a"),
                    hard("d/c", "d/a"),
                    hard("d/e", "d/a"),
                ],
                &[file("d/b", "another\n"), mark("d/.wh.c")],
                &[hard("d/z", "d/e"), file("new", "n"), hard("d/new", "new")],
            ],
        ),
        on_base(
            "metadata-only",
            &[
                file("opt/f", "the file\n").mode(0o600).own(99, 98),
                dir("etc").mode(0o700).own(5, 6).at(1_400_000_000, 0),
                dir("opt/sub").at(1_300_000_000, 0),
            ],
        ),
        on_base(
            "attributes",
            &[
                file("opt/f", "f")
                    .xattr("user.colour", "green")
                    .xattr("user.empty", "")
                    .xattr("user.binary", b"a\0b\xff"),
                dir("opt/sub").xattr("user.on", "a directory"),
                file("opt/ping", "ping")
                    .mode(0o755)
                    .xattr("security.capability", CAP_NET_RAW),
                file("opt/trusted", "t").xattr("trusted.note", "x"),
            ],
        ),
        quirk(
            "attributes-of-the-lower",
            Ours::Loads,
            &[
                &[
                    dir("d").xattr("user.on", "a directory"),
                    file("d/ping", "ping").xattr("security.capability", CAP_NET_RAW),
                    file("d/f", "f").xattr("user.colour", "green"),
                    file("d/g", "g").xattr("user.colour", "red"),
                ],
                &[
                    file("d/g", "g").xattr("user.other", "x"),
                    dir("d").xattr("user.second", "y"),
                ],
            ],
        ),
        on_base(
            "access-control-lists",
            &[
                file("opt/f", "f")
                    .mode(0o664)
                    .xattr("system.posix_acl_access", acl(0o6, 0o6)),
                dir("opt/sub")
                    .mode(0o774)
                    .xattr("system.posix_acl_access", acl(0o7, 0o7))
                    .xattr("system.posix_acl_default", acl(0o7, 0o5)),
                file("opt/sub/born-under-a-default", "x").mode(0o600),
                dir("opt/sub/dir").mode(0o700),
            ],
        ),
        on_base(
            "times",
            &[
                file("opt/ns", "x").at(1_614_834_367, 123_456_789),
                file("opt/old", "x").at(-1_000_000, 250_000_000),
                file("opt/zero", "x").at(0, 0),
                dir("opt/sub").at(1_614_834_367, 987_654_321),
                symlink("opt/link", "f").at(1_600_000_000, 5),
                fifo("opt/pipe").at(1_600_000_000, 6),
            ],
        ),
        on_base(
            "sparse",
            &[
                sparse(
                    "opt/holes",
                    5 << 20,
                    &[(0, b"start"), (1 << 20, b"middle"), ((5 << 20) - 3, b"end")],
                ),
                sparse("opt/only-a-hole", 3 << 20, &[]),
            ],
        ),
        on_base(
            "long-names",
            &[
                file(&long, "the longest name"),
                dir("p".repeat(120)),
                dir(["p".repeat(120), "q".repeat(120)].join("/")),
                dir(&path),
                file(format!("{path}/pax"), "a long path"),
                file(format!("{path}/gnu"), "a long path").gnu(),
                symlink("opt/far", "t".repeat(1000)),
                symlink("opt/far-gnu", "t".repeat(1000)).gnu(),
                hard("opt/hard", format!("{path}/pax")),
                mark(format!("{path}/.wh.none")),
            ],
        ),
        on_base(
            "odd-names",
            &[
                file(b"opt/\xff\xfe not UTF-8", "x"),
                file("opt/new\nline", "x"),
                file("opt/ leading and trailing ", "x"),
                file("opt/ünï\u{1F980}", "x"),
                file("opt/back\\slash\"quote'", "x"),
                file("opt/.whiteout", "no whiteout"),
                file("opt/wh.x", "no whiteout"),
                file("opt/-rf", "x"),
                symlink("opt/odd", b"\xff target"),
                mark(b"opt/.wh.\xff gone"),
            ],
        ),
        on_base(
            "special-files",
            &[
                dir("dev"),
                chr("dev/null", 1, 3),
                blk("dev/loop77", 7, 77),
                chr("dev/large", 300, 70_000).mode(0o600),
                fifo("opt/pipe").own(5, 6),
            ],
        ),
        on_base(
            "permissions",
            &[
                file("opt/setuid", "s").mode(0o6755).own(12, 34),
                dir("opt/setgid").mode(0o2775).own(0, 50),
                file("opt/setgid/in", "x").own(1, 2),
                dir("opt/sticky").mode(0o1777),
                file("opt/nothing", "n").mode(0),
                dir("opt/readonly").mode(0o555),
                file("opt/readonly/in", "x").mode(0o444),
                file("opt/large-ids", "x").own(3_000_000_000, 4_000_000_000),
            ],
        ),
        on_base(
            "opaque-directory",
            &[
                dir("opt").mode(0o700),
                mark("opt/.wh..wh..opq"),
                file("opt/new", "new\n"),
                dir("opt/sub"),
                file("opt/sub/new", "new\n"),
            ],
        ),
        quirk(
            "many-deletions",
            Ours::Loads,
            &[&[&[dir("many")][..], &many].concat(), &gone],
        ),
        on_base(
            "types-that-change",
            &[
                dir("opt/f"),
                file("opt/f/in", "x"),
                file("opt/sub", "a file now"),
                symlink("opt/other", "f"),
                dir("var/run"),
                file("var/run/in", "x"),
                symlink("etc", "opt"),
            ],
        ),
        quirk(
            "gone-and-back",
            Ours::Loads,
            &[
                &base(),
                &[mark("opt/.wh.sub"), mark("opt/.wh.f"), mark(".wh.tmp")],
                &[dir("opt/sub"), file("opt/sub/back", "b"), file("opt/f", "b")],
            ],
        ),
        on_base("whiteout-of-what-is-not-there", &[mark("opt/.wh.none")]),
        on_base("whiteout-of-a-symlink", &[mark("var/.wh.run")]),
        quirk("a-deep-tree", Ours::Loads, &[&deep, &[file("f", "f")]]),
        on_base(
            "data-of-every-size",
            &[0, 1, 511, 512, 513, 4095, 4096, 4097, 131_073, 1_500_000]
                .map(|size: usize| file(format!("opt/size{size}"), vec![b'a' + (size % 23) as u8; size])),
        ),
        quirk("twenty-layers", Ours::Loads, &twenty_layers()),
    ]
}

/// Capability `cap_net_raw+ep`, as the kernel keeps it.
const CAP_NET_RAW: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access control list with a named user and a mask.
fn acl(user: u16, mask: u16) -> Vec<u8> {
    use crate::common::acl::{GROUP_OBJ, MASK, OTHER, USER, USER_OBJ, of};
    of(&[
        (USER_OBJ, 0, user),
        (USER, 12345, 4),
        (GROUP_OBJ, 0, 4),
        (MASK, 0, mask),
        (OTHER, 0, 4),
    ])
}

/// A base and nineteen layers, each of which adds, changes and removes something.
fn twenty_layers() -> [&'static [Item]; 20] {
    std::array::from_fn(|n| {
        let mut items = vec![
            dir("stack"),
            file(format!("stack/f{n}"), format!("born in {n}\n")),
        ];
        if n == 0 {
            items.extend(base());
        } else {
            items.push(file("opt/f", format!("changed in {n}\n")));
            items.push(hard(format!("stack/link{n}"), "stack/f0"));
        }
        if n > 2 && n % 2 == 1 {
            items.push(mark(format!("stack/.wh.f{}", n - 2)));
        }
        &*items.leak()
    })
}
