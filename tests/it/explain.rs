//! `plyfs explain`: what it says is what then happens, on plyfs and on the kernel's overlay.

mod foretold;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use plyfs::explain::{After, Answer, Change, Explanation, Layers as Explained, Named, Operation};

use crate::common::layers::{Mounted, ours_is_plyfs};
use crate::common::who::ANN;
use crate::common::*;
use crate::rules::rename::{KINDS, planted};

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");

/// Layers with an object of every kind under a directory of every kind, and their paths.
fn every_kind() -> (Layers, Vec<PathBuf>) {
    let mut lower = vec![
        dir("merged"),
        dir("low"),
        dir("low/er"),
        dir("was"),
        file("was/gone", ""),
    ];
    let mut upper = vec![
        dir("merged"),
        dir("pure"),
        dir("was").xattr("trusted.overlay.opaque", "y"),
    ];
    let mut paths = Vec::new();
    for parent in ["merged", "low/er", "pure", "was"] {
        for kind in KINDS {
            let path = format!("{parent}/{kind}");
            let (below, above) = planted(kind, &path);
            let fits = match parent {
                "low/er" => above.is_empty(),
                "merged" => true,
                _ => below.is_empty(),
            };
            if fits {
                lower.extend(below);
                upper.extend(above);
                paths.push(PathBuf::from(path));
            }
        }
    }
    // A file with two names, one with data and a hole, whiteouts that hide nothing.
    lower.extend([
        file("merged/two", "two"),
        hard("merged/names", "merged/two"),
        sparse("low/er/holes", 1 << 20, &[(8192, b"data")]),
    ]);
    upper.extend([whiteout("merged/stray"), whiteout("pure/stray")]);
    paths.extend(["merged/two", "low/er/holes", "merged/stray", "pure/stray"].map(PathBuf::from));
    let layers = Layers::new().with_lower(&lower).with_upper(&upper);
    (layers, paths)
}

fn open(layers: &Layers) -> Explained {
    Explained::open(&Named {
        lower: layers.lower.clone(),
        upper: Some(layers.upper.clone()),
        work: Some(layers.work.clone()),
        ..Named::default()
    })
    .unwrap()
}

fn find(told: &Explanation, change: Change) -> Option<&Operation> {
    told.operations
        .iter()
        .find(|operation| operation.change == change)
}

#[test]
fn every_answer_has_its_reason_and_its_files() {
    if !need_root("explain's answers") {
        return;
    }
    let (layers, _) = every_kind();
    let explained = open(&layers);
    for (path, answer, reason) in [
        ("merged", Answer::Merged, "both layers"),
        ("merged/low-file", Answer::Lower, "the upper has nothing"),
        ("low/er/low-file", Answer::Lower, "the upper is not asked"),
        ("merged/new-file", Answer::Upper, "the lower has nothing"),
        ("merged/copied-file", Answer::Upper, "hides what the lower has"),
        (
            "merged/over-file",
            Answer::Upper,
            "hides a directory of the lower",
        ),
        ("merged/file-over-dir", Answer::Upper, "over something else"),
        ("merged/opaque-full", Answer::Upper, "opaque"),
        (
            "merged/opaque-full/hidden",
            Answer::Absent,
            "/merged/opaque-full is opaque",
        ),
        ("pure/new-file", Answer::Upper, "/pure is the upper's alone"),
        ("was/gone", Answer::Absent, "/was is opaque"),
        ("merged/whiteout", Answer::Whiteout, "hides what the lower has"),
        ("merged/stray", Answer::Whiteout, "nothing that it could hide"),
        ("merged/free", Answer::Absent, "neither layer"),
        ("low/er/free", Answer::Absent, "the lower's alone"),
    ] {
        let told = explained.explain(Path::new(path)).unwrap();
        let step = told.steps.last().unwrap();
        assert_eq!((told.answer, step.answer), (answer, answer), "{path}");
        assert!(step.why.contains(reason), "{path}: {}", step.why);
        assert!(!step.rules.is_empty(), "{path}");
        for (layer, file) in [(&layers.upper, &step.upper), (&layers.lower, &step.lower)] {
            let st = sys::lstat(layer.join(path));
            let hidden_by_a_parent = path.contains("opaque-full/") || path.starts_with("was/");
            match (file, st) {
                (Some(file), Ok(st)) => {
                    assert_eq!(file.path.path(), layer.join(path));
                    assert_eq!((file.inode, file.size), (st.st_ino, st.st_size as u64), "{path}");
                    assert_eq!(file.mode, format!("{:04o}", st.st_mode & 0o7777), "{path}");
                }
                (None, Err(_)) => {}
                (None, Ok(_)) if hidden_by_a_parent => {}
                (file, st) => panic!("{path}: {file:?}, {st:?}"),
            }
        }
    }
    let two = explained.explain(Path::new("merged/two")).unwrap();
    let open = find(&two, Change::OpenForWriting).unwrap();
    assert!(
        open.plan.iter().any(|line| line.contains("2 names")),
        "{:?}",
        open.plan
    );
    let holes = explained.explain(Path::new("low/er/holes")).unwrap();
    let copies = &find(&holes, Change::OpenForWriting).unwrap().copies;
    let paths: Vec<_> = copies.iter().map(|copy| copy.path.path()).collect();
    assert_eq!(paths, ["/low", "/low/er", "/low/er/holes"].map(PathBuf::from));
    assert_eq!(copies[2].bytes, 4096);
}

/// Marks that a view does not show, or that mean nothing; asked of explain and of a mount.
#[test]
fn unusual_marks_and_names() {
    if !need_root("explain and unusual marks") || !ours_is_plyfs() {
        return;
    }
    let layers = Layers::new()
        .with_lower(&[
            dir("d"),
            file("d/below", ""),
            file("meta", "").xattr("trusted.overlay.metacopy", ""),
            whiteout("white"),
            file("f", ""),
            symlink("d/up", "../f"),
            symlink("away", "/etc/passwd"),
            symlink("round", "round/x"),
        ])
        .with_upper(&[
            dir("d").xattr("trusted.overlay.opaque", "n"),
            dir("moved").xattr("trusted.overlay.redirect", "/d"),
            file("x-white", "").xattr("trusted.overlay.whiteout", ""),
        ]);
    let mounted = layers.mount(Fs::Plyfs, &[]);
    let explained = open(&layers);
    let long = "n".repeat(300);
    for (path, answer, errno, word) in [
        ("d/below", Answer::Lower, None, "nothing under this name"),
        ("meta", Answer::Refused, Some("EPERM"), "metacopy"),
        ("moved", Answer::Refused, Some("EPERM"), "redirect"),
        ("white", Answer::Absent, Some("ENOENT"), "neither"),
        (
            "x-white",
            Answer::Whiteout,
            Some("ENOENT"),
            "nothing that it could hide",
        ),
        ("f/x", Answer::Absent, Some("ENOTDIR"), "/f is no directory"),
        ("nowhere/x", Answer::Absent, Some("ENOENT"), "neither"),
        ("d/../d/up", Answer::Lower, None, "nothing under this name"),
        (long.as_str(), Answer::Refused, Some("ENAMETOOLONG"), "longer"),
    ] {
        let told = explained.explain(Path::new(path)).unwrap();
        assert_eq!((told.answer, told.errno.as_deref()), (answer, errno), "{path}");
        assert!(told.steps.last().unwrap().why.contains(word), "{path}: {told:?}");
        let seen = sys::lstat(layers.merged.join(path)).map(drop);
        assert_eq!(seen.err().map(|errno| format!("{errno:?}")), told.errno, "{path}");
    }
    let opaque = explained.explain(Path::new("d")).unwrap();
    let mark = &opaque.steps[1].upper.as_ref().unwrap().marks[0];
    assert!(mark.meaning.contains("only the value y"), "{mark:?}");
    for path in ["..", "d/../../x"] {
        let refused = explained.explain(Path::new(path)).unwrap_err().to_string();
        assert!(refused.contains("out of the view"), "{refused}");
    }
    let refused = explained.explain(Path::new("round/y")).unwrap_err().to_string();
    assert!(refused.contains("ELOOP"), "{refused}");
    mounted.umount();
}

#[test]
fn a_read_only_view_refuses_every_change() {
    if !need_root("explain and a read-only view") {
        return;
    }
    let layers = Layers::new().with_lower(&[file("f", "f"), dir("d")]);
    let explained = Explained::open(&Named {
        lower: layers.lower.clone(),
        ..Named::default()
    })
    .unwrap();
    for path in ["f", "d", "new", "."] {
        let told = explained.explain(Path::new(path)).unwrap();
        assert!(!told.operations.is_empty());
        for operation in told.operations {
            let directory = path != "f" && operation.change == Change::OpenForWriting;
            let errno = if directory { "EISDIR" } else { "EROFS" };
            assert_eq!(
                operation.errno.as_deref(),
                Some(errno),
                "{path}: {:?}",
                operation.change
            );
            assert_eq!(operation.upper_after, After::Unchanged);
        }
    }
}

fn plyfs(within: &Path, arguments: &[&str]) -> Output {
    Command::new(PLYFS)
        .arg("explain")
        .args(arguments)
        .current_dir(within)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn json(output: &Output) -> Vec<Explanation> {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Lower, upper and a live view with a few changes made in it.
fn used_view(name: &str) -> Option<(Layers, Mounted)> {
    if !need_root(name) || !ours_is_plyfs() {
        return None;
    }
    let layers = Layers::new().with_lower(&[
        dir("etc"),
        file("etc/motd", "hello\n"),
        file("etc/mode", "").mode(0o600),
        file("old", "old"),
        symlink("conf", "etc"),
    ]);
    let mounted = layers.mount(Fs::Plyfs, &[]);
    sys::append(layers.merged.join("etc/motd"), "more\n").unwrap();
    sys::chmod(layers.merged.join("etc/mode"), 0o640).unwrap();
    sys::unlink(layers.merged.join("old")).unwrap();
    Some((layers, mounted))
}

#[test]
fn a_live_view_is_found_by_any_path_into_it() {
    let Some((layers, mounted)) = used_view("explain in a live view") else {
        return;
    };
    std::os::unix::fs::symlink("m/etc", layers.base().join("short")).unwrap();
    let full = layers.merged.join("etc/motd");
    let base = layers.base();
    let first = json(&plyfs(base, &["--json", full.to_str().unwrap()]));
    for (within, path) in [
        (base.to_owned(), "m/etc/motd"),
        (base.to_owned(), "u/../m/./etc/motd"),
        (base.to_owned(), "m/../m/etc/motd"),
        (base.to_owned(), "short/motd"),
        (layers.merged.clone(), "etc/motd"),
        (layers.merged.join("etc"), "motd"),
    ] {
        let output = plyfs(&within, &["--json", path]);
        assert!(output.status.success(), "{path}: {output:?}");
        assert_eq!(json(&output), first, "{path}");
    }
    let by_link = json(&plyfs(base, &["--json", "m/conf/motd"]));
    assert_eq!(by_link[0].path.path(), Path::new("/etc/motd"));
    assert_eq!(by_link[0].operations, first[0].operations);

    // The same without the mount, but for where it is mounted.
    let (lower, upper) = (layers.lower.to_str().unwrap(), layers.upper.to_str().unwrap());
    let mut offline = json(&plyfs(
        base,
        &["--lower", lower, "--upper", upper, "--json", "/etc/motd"],
    ));
    assert_eq!(offline[0].merged, None);
    offline[0].merged.clone_from(&first[0].merged);
    assert_eq!(offline, first);

    let told = &json(&plyfs(base, &["--json", "m/etc/motd", "m/etc/mode"]));
    let copied = |at: usize| told[at].steps[2].copied.clone().unwrap();
    let inode = sys::ino(layers.lower.join("etc/motd")).unwrap();
    assert_eq!(copied(0).from, inode);
    assert_eq!(copied(0).differs.unwrap(), ["size", "mtime"]);
    assert!(copied(0).by.contains("open for writing"), "{}", copied(0).by);
    assert_eq!(copied(1).differs.unwrap(), ["mode"]);
    assert_eq!(copied(1).by, "a chmod");

    let shown = text(&plyfs(base, &["m/old"]).stdout);
    for part in [
        "/old: nothing, by a whiteout (ENOENT)",
        "(hidden)",
        "docs/kernel-rules.md#6-create-link-remove",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.lines().any(|line| line.ends_with(' ')), "{shown}");
    mounted.umount();
}

#[test]
fn what_cannot_be_explained_is_said_and_the_rest_explained() {
    let Some((layers, mounted)) = used_view("explain's refusals") else {
        return;
    };
    let base = layers.base();
    let output = plyfs(base, &["--json", "l/old", "m/etc/motd", "m/../l"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr).matches("lies in no view of plyfs").count(),
        2,
        "{output:?}"
    );
    assert_eq!(json(&output).len(), 1);
    for (arguments, status, reason) in [
        (&[][..], 2, "PATH"),
        (&["--upper", "u", "x"], 2, "--lower"),
        (&["--lower", "nope", "x"], 1, "No such file"),
        (&["--lower", "l", "--upper", "l/old", "x"], 1, "Not a directory"),
        (&["--lower", "l", "--upper", "u", "../x"], 1, "out of the view"),
    ] {
        let output = plyfs(base, arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains(reason), "{arguments:?}: {output:?}");
    }

    // Another mount on top of the view.
    let etc = layers.merged.join("etc");
    sys::mount("none", &etc, "tmpfs", 0, "").unwrap();
    let output = plyfs(base, &["m/etc/motd"]);
    sys::umount(&etc, 0).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("in the tmpfs mounted on"),
        "{output:?}"
    );

    // Another directory in the upper's place.
    let aside = base.join("aside");
    sys::rename(&layers.upper, &aside).unwrap();
    sys::mkdir(&layers.upper, 0o755).unwrap();
    let output = plyfs(base, &["m/etc/motd"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("was moved or replaced"),
        "{output:?}"
    );
    sys::rmdir(&layers.upper).unwrap();
    sys::rename(&aside, &layers.upper).unwrap();

    // A server that is gone.
    let pid = mounted.server().unwrap();
    // SAFETY: this test's own server.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while sys::lstat(layers.merged.join("etc")).is_ok() && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let output = plyfs(base, &["m/etc/motd"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("no live server") && said.contains("plyfs umount"),
        "{said}"
    );
    // Its layers can still be explained.
    let output = plyfs(base, &["--lower", "l", "--upper", "u", "etc/motd"]);
    assert!(output.status.success(), "{output:?}");
    sys::umount(&layers.merged, libc::MNT_DETACH).unwrap();
    drop(mounted);
}

#[test]
fn an_ordinary_user_explains_what_he_may_read() {
    if !need_root("explain as another user") {
        return;
    }
    let layers = Layers::new()
        .with_lower(&[dir("d"), dir("secret").mode(0o700), file("secret/x", "")])
        .with_upper(&[dir("d").xattr("user.overlay.opaque", "y")]);
    let explain = |path: &str| {
        as_user(ANN, || {
            let named = Named {
                lower: layers.lower.clone(),
                upper: Some(layers.upper.clone()),
                marks: Some(plyfs::format::Namespace::User),
                ..Named::default()
            };
            Explained::open(&named).unwrap().explain(Path::new(path))
        })
    };
    let told = explain("d").unwrap();
    assert_eq!(told.answer, Answer::Upper);
    assert!(told.steps[1].why.contains("opaque"), "{told:?}");
    let refused = explain("secret/x").unwrap_err().to_string();
    assert!(refused.contains("/secret/x: cannot be looked at"), "{refused}");
}
