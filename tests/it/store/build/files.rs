//! COPY and ADD: what goes where.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::super::bench::{Bench, ino, names};

/// Every path below `dir`, with a `/` behind directories.
fn below(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) {
        for name in names(dir) {
            let path = dir.join(&name);
            if path.symlink_metadata().unwrap().is_dir() {
                found.push(format!("{prefix}{name}/"));
                walk(&path, &format!("{prefix}{name}/"), found);
            } else {
                found.push(format!("{prefix}{name}"));
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, "", &mut found);
    found
}

fn context(bench: &Bench) {
    for file in [
        "a.txt",
        "b.txt",
        "dir/x",
        "dir/sub/y",
        "dir/sub/deep/z",
        "with space",
    ] {
        bench.write(&format!("context/{file}"), file);
    }
    symlink("sub", bench.path("context/dir/link")).unwrap();
    symlink("dir", bench.path("context/alias")).unwrap();
    fs::set_permissions(bench.path("context/dir/x"), fs::Permissions::from_mode(0o4711)).unwrap();
}

/// What each line, after `FROM scratch`, leaves.
#[test]
fn directories_names_and_slashes() {
    let bench = Bench::new();
    context(&bench);
    let table: [(&str, &[&str]); 16] = [
        ("COPY a.txt /", &["a.txt"]),
        ("COPY a.txt /b", &["b"]),
        ("COPY a.txt /b/", &["b/", "b/a.txt"]),
        ("COPY a.txt /b/.", &["b/", "b/a.txt"]),
        ("COPY a.txt b/c", &["b/", "b/c"]),
        ("WORKDIR /w\nCOPY a.txt .", &["w/", "w/a.txt"]),
        (
            "WORKDIR /w\nWORKDIR v\nCOPY a.txt ../u/",
            &["w/", "w/u/", "w/u/a.txt", "w/v/"],
        ),
        (
            "COPY dir /d",
            &[
                "d/",
                "d/link",
                "d/sub/",
                "d/sub/deep/",
                "d/sub/deep/z",
                "d/sub/y",
                "d/x",
            ],
        ),
        (
            "COPY dir/sub a.txt /d/",
            &["d/", "d/a.txt", "d/deep/", "d/deep/z", "d/y"],
        ),
        ("COPY alias/sub/y /y", &["y"]),
        (
            "COPY alias /d/",
            &[
                "d/",
                "d/link",
                "d/sub/",
                "d/sub/deep/",
                "d/sub/deep/z",
                "d/sub/y",
                "d/x",
            ],
        ),
        ("COPY *.txt /t/", &["t/", "t/a.txt", "t/b.txt"]),
        ("COPY [\"with space\", \"/s p/\"]", &["s p/", "s p/with space"]),
        ("COPY d?r/s*/d* /t/", &["t/", "t/z"]),
        ("COPY --exclude=sub --exclude=li* dir /d", &["d/", "d/x"]),
        ("COPY --link a.txt /l", &["l"]),
    ];
    for (line, expected) in table {
        bench.build(&format!("FROM scratch\n{line}\n"), &[]).ok();
        assert_eq!(below(&bench.root("made")), expected, "{line}");
    }
    let refused = [
        ("COPY *.txt /t", "need a directory as destination"),
        ("COPY a.txt b.txt /t", "need a directory as destination"),
        ("COPY none* /t/", "the context has nothing of that name"),
        (
            "COPY a.txt /x\nCOPY dir /x",
            "/x: a directory cannot be copied over something else",
        ),
        ("COPY dir /x\nCOPY a.txt /x/a/../sub\nCOPY a.txt /x/sub/", ""),
        ("COPY --chmod=u+x a.txt /", "not an octal number"),
        (
            "COPY --chown=nobody a.txt /",
            "the image's /etc/passwd has no user \"nobody\"",
        ),
        ("COPY --from=nothing a.txt /", "no such image"),
    ];
    for (line, words) in refused {
        let said = bench.build(&format!("FROM scratch\n{line}\n"), &[]);
        if words.is_empty() {
            said.ok();
        } else {
            said.fails(&[words]);
        }
    }
    bench.check();
}

#[test]
fn owners_modes_times_and_links() {
    let bench = Bench::with_base();
    context(&bench);
    fs::hard_link(bench.path("context/a.txt"), bench.path("context/dir/again")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    fs::File::open(bench.path("context/a.txt"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    std::os::unix::fs::chown(bench.path("context/a.txt"), Some(1234), Some(1234)).ok();
    let text = "FROM base\nCOPY . /c/\nCOPY --chown=www a.txt dir/x /own/\nCOPY --chown=33:staff --chmod=0640 dir /dir\n\
                FROM base\nCOPY --from=0 /own /kept\nCOPY --from=0 /c /c\nCOPY --from=0 --chown=7 /own/x /seven";
    bench.build(text, &[]).ok();
    let root = bench.root("made");
    let of = |path: &str| {
        let meta = fs::symlink_metadata(root.join(path)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(of("c/a.txt"), (0, 0, 0o644));
    assert_eq!(of("c/dir/x"), (0, 0, 0o4711));
    assert_eq!(of("kept/a.txt"), (33, 44, 0o644));
    assert_eq!(
        of("kept"),
        (0, 0, 0o755),
        "the content is copied, not the directory"
    );
    assert_eq!(of("seven"), (7, 7, 0o4711));
    let meta = fs::metadata(root.join("c/a.txt")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!(ino(root.join("c/a.txt")), ino(root.join("c/dir/again")));
    bench.build(text, &["--target", "0"]).ok();
    let root = bench.root("made");
    let meta = fs::symlink_metadata(root.join("dir/sub/y")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (33, 50, 0o640));
    bench.check();
}

#[test]
fn archives_are_unpacked_by_add_alone() {
    let bench = Bench::with_base();
    for file in ["tree/share/new", "tree/app/x"] {
        bench.write(file, file);
    }
    symlink("x", bench.path("tree/app/l")).unwrap();
    fs::hard_link(bench.path("tree/app/x"), bench.path("tree/app/again")).unwrap();
    fs::set_permissions(bench.path("tree/app"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(bench.path("context")).unwrap();
    let tar = |options: &str, to: &str| {
        let line = format!("tar -C tree --owner=5 --group=6 {options} -cf - . > context/{to}");
        let done = std::process::Command::new("sh")
            .args(["-c", &line])
            .current_dir(bench.path(""))
            .status();
        assert!(done.unwrap().success());
    };
    tar("", "plain.tar");
    tar("-z", "packed.any-name");
    let plain = fs::read(bench.path("context/plain.tar")).unwrap();
    fs::write(
        bench.path("context/packed.zst"),
        zstd::encode_all(&plain[..], 0).unwrap(),
    )
    .unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    std::io::Write::write_all(&mut xz, &plain).unwrap();
    fs::write(bench.path("context/packed.txz"), xz.finish().unwrap()).unwrap();
    fs::write(
        bench.path("context/text.zst"),
        zstd::encode_all(&b"no archive"[..], 0).unwrap(),
    )
    .unwrap();
    bench.write("context/dir/inside.tar", &plain);
    for name in ["plain.tar", "packed.any-name", "packed.zst", "packed.txz"] {
        bench
            .build(&format!("FROM base\nADD {name} /\nADD {name} /new/\n"), &[])
            .ok();
        let (base, root) = (bench.root("base"), bench.root("made"));
        // The image's own symlink to a directory stays one, and the archive's files go through it.
        assert!(root.join("share").is_symlink(), "{name}");
        assert_eq!(
            fs::read_to_string(root.join("usr/share/new")).unwrap(),
            "tree/share/new"
        );
        assert_eq!(below(&root.join("new/app")), ["again", "l", "x"]);
        let meta = fs::metadata(root.join("new/app/x")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (5, 6, 2));
        assert_eq!(fs::metadata(root.join("app")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(
            fs::metadata(&root).unwrap().mode(),
            fs::metadata(&base).unwrap().mode()
        );
    }
    bench
        .build(
            "FROM base\nADD dir /d\nADD text.zst /d/\nCOPY plain.tar /d/\n",
            &[],
        )
        .ok();
    assert_eq!(
        below(&bench.root("made").join("d")),
        ["inside.tar", "plain.tar", "text.zst"]
    );
    bench.check();
}

#[test]
fn what_an_ignore_file_names_is_not_in_the_context() {
    let bench = Bench::new();
    context(&bench);
    let all = |rules: &[(&str, &str)]| {
        for name in [".dockerignore", ".containerignore", "Containerfile.dockerignore"] {
            fs::remove_file(bench.path("context").join(name)).ok();
        }
        for (name, text) in rules {
            bench.write(&format!("context/{name}"), text);
        }
        bench.build("FROM scratch\nCOPY . /\n", &[]).ok();
        below(&bench.root("made"))
    };
    let rules = "# comment\n*\n!dir\ndir/sub/deep\n";
    let expected = ["dir/", "dir/link", "dir/sub/", "dir/sub/y", "dir/x"];
    assert_eq!(all(&[(".dockerignore", rules)]), expected);
    assert_eq!(
        all(&[(".containerignore", rules), (".dockerignore", "dir")]),
        expected
    );
    assert_eq!(
        all(&[("Containerfile.dockerignore", rules), (".containerignore", "dir")]),
        expected
    );
    assert_eq!(
        all(&[(".dockerignore", "**\n!dir/sub/deep")]),
        ["dir/", "dir/sub/", "dir/sub/deep/", "dir/sub/deep/z"]
    );
    bench.write("context/.dockerignore", "a.txt\n");
    bench
        .build("FROM scratch\nCOPY a.txt /\n", &[])
        .fails(&["/a.txt", "an ignore file leaves it out"]);
    bench.write("context/.dockerignore", "[\n");
    bench
        .build("FROM scratch\nCOPY a.txt /\n", &[])
        .fails(&[".dockerignore:1:"]);
}

#[test]
fn files_written_in_the_containerfile() {
    let bench = Bench::new();
    let text = "FROM scratch\nARG WHO=world\nCOPY --chmod=600 <<one.txt <<'two' /d/\nhello $WHO \"quoted\"\none.txt\n$WHO\ntwo\n\
                COPY <<-EOF /three\n\t\ttabs\n\tEOF\n";
    bench.build(text, &[]).ok();
    let root = bench.root("made");
    assert_eq!(
        fs::read_to_string(root.join("d/one.txt")).unwrap(),
        "hello world \"quoted\"\n"
    );
    assert_eq!(fs::read_to_string(root.join("d/two")).unwrap(), "$WHO\n");
    assert_eq!(fs::read_to_string(root.join("three")).unwrap(), "tabs\n");
    assert_eq!(fs::metadata(root.join("d/two")).unwrap().mode() & 0o777, 0o600);
}
