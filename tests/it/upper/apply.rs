//! The lower afterwards is what the view showed; an undo puts both layers back.

use super::*;

#[test]
fn the_lower_becomes_the_view_and_back() {
    let Some((layers, _room)) = in_memory("the_lower_becomes_the_view_and_back") else {
        return;
    };
    let layers = changed(layers, STEPS);
    let (lower, upper) = (exact(&layers.lower), exact(&layers.upper).into_upper());
    let shown = view(&layers);
    let told = done(&layers, &["diff"]);
    assert_eq!(done(&layers, &["apply", "--dry-run"]), told);
    for line in [
        "C /f\n",
        "D /gone\n",
        "A /again/new\n",
        "D /again/old\n",
        "C /turned\n",
        "A /h1\n",
    ] {
        assert!(told.contains(line), "{line:?} in {told}");
    }
    let answer = done(&layers, &["apply"]);
    assert!(answer.starts_with("applied: "), "{answer}");
    assert_same(
        &unescaped(shown.clone()),
        &unescaped(seen(&layers.lower)),
        "the lower after the apply",
    );
    assert_eq!(sys::names(&layers.upper).unwrap(), [""; 0]);
    assert_eq!(done(&layers, &["diff"]), "");
    assert_same(&shown, &view(&layers), "the view after the apply");
    assert!(done(&layers, &["apply"]).starts_with("nothing to apply"));

    assert!(done(&layers, &["apply", "--undo"]).contains("taken back"));
    assert_same(&lower, &exact(&layers.lower), "the lower after the undo");
    assert_same(
        &upper,
        &exact(&layers.upper).into_upper(),
        "the upper after the undo",
    );
    assert!(!sys::exists(layers.work.join("plyfs-apply")));
    assert!(fails(&layers, &["apply", "--undo"]).contains("none can be undone"));

    // Once more, for good.
    done(&layers, &["apply"]);
    assert!(done(&layers, &["apply", "--forget"]).contains("is removed"));
    assert!(!sys::exists(layers.work.join("plyfs-apply")));
    // The lower's other names of a file that was copied up have lost one (K47).
    assert_same(
        &unescaped(shown.clone()).without(&["nlink"]),
        &unescaped(seen(&layers.lower)).without(&["nlink"]),
        "the lower at last",
    );
    assert!(fails(&layers, &["apply", "--undo"]).contains("none can be undone"));
}

#[test]
fn a_view_of_the_kernel_too() {
    if !need_root("a_view_of_the_kernel_too") || !layers::kernel_overlay_works() {
        return;
    }
    let layers = Layers::new().with_lower(&lower());
    let mounted = layers.mount(Fs::Kernel, &[]);
    shell(&layers, STEPS);
    mounted.umount();
    let shown = view(&layers);
    done(&layers, &["apply"]);
    assert_same(
        &unescaped(shown.clone()),
        &unescaped(seen(&layers.lower)),
        "the lower after the apply",
    );
}

#[test]
fn some_paths_and_the_rest_later() {
    let Some((layers, _room)) = in_memory("some_paths_and_the_rest_later") else {
        return;
    };
    let layers = changed(layers, STEPS);
    let (lower, upper) = (exact(&layers.lower), exact(&layers.upper).into_upper());
    let shown = view(&layers);
    let some = ["f", "gonedir", "again/old", "d/new/sub", "h1", "h2", "turned"];
    let answer = done(&layers, &[&["apply"], &some[..]].concat());
    assert_eq!(
        answer,
        "applied: 5 added, 2 changed, 2 deleted; --undo takes it back, --forget frees the room\n"
    );
    assert!(!sys::exists(layers.lower.join("gonedir")) && !sys::exists(layers.lower.join("again/old")));
    assert_eq!(sys::mode(layers.lower.join("f")).unwrap(), 0o4711);
    assert_eq!(sys::text(layers.lower.join("d/new/sub/n")).unwrap(), "n\n");
    assert_eq!(
        sys::ino(layers.lower.join("h1")),
        sys::ino(layers.lower.join("h2"))
    );
    assert!(!sys::exists(layers.lower.join("d/new/h3")) && sys::exists(layers.lower.join("gone")));
    assert_same(
        &shown.clone().without(&["same", "nlink"]),
        &view(&layers).without(&["same", "nlink"]),
        "the view after a part",
    );
    let told = done(&layers, &["diff"]);
    assert!(
        told.contains("D /gone\n") && told.contains("A /d/new/h3\n"),
        "{told}"
    );
    assert!(!told.contains(" /f\n") && !told.contains("gonedir"), "{told}");

    done(&layers, &["apply", "--undo"]);
    assert_same(&lower, &exact(&layers.lower), "the lower after the undo");
    assert_same(
        &upper,
        &exact(&layers.upper).into_upper(),
        "the upper after the undo",
    );

    done(&layers, &[&["apply"], &some[..]].concat());
    done(&layers, &["apply"]);
    assert_same(
        &unescaped(shown).without(&["same", "nlink"]),
        &unescaped(seen(&layers.lower)).without(&["same", "nlink"]),
        "the lower after both parts",
    );
}

#[test]
fn an_undo_loses_nothing_that_came_later() {
    if !need_root("an_undo_loses_nothing_that_came_later") {
        return;
    }
    let layers = changed(Layers::new(), "echo x > new; mkdir dir; rm gone");
    done(&layers, &["apply"]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    for path in ["gone", "dir/later"] {
        sys::put(layers.lower.join(path), "somebody's").unwrap();
        let text = fails(&layers, &["apply", "--undo"]);
        assert!(
            text.contains(&format!("/{}", path.split('/').next().unwrap())),
            "{text}"
        );
        assert!(text.contains("nothing was undone"), "{text}");
        sys::unlink(layers.lower.join(path)).unwrap();
    }
    // What is below `dir` is gone again, but its time tells that something was there.
    assert!(fails(&layers, &["apply", "--undo"]).contains("/dir"));
    let layers = changed(Layers::new(), "echo x > new");
    done(&layers, &["apply"]);
    change(&layers, "echo y > second");
    assert!(fails(&layers, &["apply", "--undo"]).contains("/second of the upper was made since"));
    done(&layers, &["drop", "second"]);
    done(&layers, &["apply", "--undo"]);
    assert!(!sys::exists(layers.lower.join("new")));
}

#[test]
fn a_lower_that_changed_underneath() {
    if !need_root("a_lower_that_changed_underneath") {
        return;
    }
    let stamp = || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let format = format!("@{}.{:09}", now.as_secs(), now.subsec_nanos());
        let output = Command::new("date")
            .args(["-u", "-d", &format, "+%Y-%m-%dT%H:%M:%S.%NZ"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let steps = "echo x >> f; echo y >> d/low; rm -r gonedir; echo n > new; echo z >> same";
    for (path, what) in [
        ("f", "/f: it was changed in the lower underneath"),
        (
            "gonedir/sub/x",
            "/gonedir/sub/x: it was changed in the lower underneath",
        ),
        ("new", "/new: it was changed in the lower underneath"),
        ("-same", "/same: it was removed from the lower underneath"),
    ] {
        let layers = Layers::new().with_lower(&lower());
        let since = stamp();
        change(&layers, steps);
        match path.strip_prefix('-') {
            Some(path) => sys::unlink(layers.lower.join(path)).unwrap(),
            None => sys::put(layers.lower.join(path), "somebody's").unwrap(),
        }
        let before = exact(&layers.lower);
        let text = fails(&layers, &["apply", "--since", &since]);
        assert!(
            text.contains(what) && text.contains("nothing was applied"),
            "{text}"
        );
        assert_same(&before, &exact(&layers.lower), "a refused apply");
        assert!(!sys::exists(layers.work.join("plyfs-apply")));
    }
    // A change elsewhere does not count.
    let layers = Layers::new().with_lower(&lower());
    let since = stamp();
    change(&layers, steps);
    sys::put(layers.lower.join("d/other"), "somebody's").unwrap();
    sys::put(layers.lower.join("elsewhere"), "somebody's").unwrap();
    done(&layers, &["apply", "--since", &since]);
    assert_eq!(sys::text(layers.lower.join("d/low")).unwrap(), "low\ny\n");
    assert_eq!(sys::text(layers.lower.join("elsewhere")).unwrap(), "somebody's");
}

/// The lower on a file system of its own: the slots lie in it, or beside it.
#[test]
fn layers_on_two_file_systems() {
    for inside in [true, false] {
        let Some((mut layers, _memory)) = in_memory("layers_on_two_file_systems") else {
            return;
        };
        let room = Layers::new();
        let disk = room.base().join("disk");
        sys::mkdir(&disk, 0o755).unwrap();
        sys::mount("tmpfs", &disk, "tmpfs", 0, "mode=755").unwrap();
        layers.lower = if inside { disk.clone() } else { disk.join("l") };
        if !inside {
            sys::mkdir(&layers.lower, 0o755).unwrap();
        }
        let layers = layers.with_lower(&lower());
        change(&layers, STEPS);
        let (lower, upper) = (exact(&layers.lower), exact(&layers.upper).into_upper());
        let shown = view(&layers);
        done(&layers, &["apply"]);
        let slots: Vec<_> = sys::names(&disk)
            .unwrap()
            .into_iter()
            .filter(|name| name.to_string_lossy().starts_with(".plyfs-apply-"))
            .collect();
        assert_eq!(slots.len(), 1, "{slots:?}");
        assert_same(
            &unescaped(shown.clone()).without(&["same"]),
            &unescaped(seen(&layers.lower))
                .without_path(&slots[0])
                .without(&["same"]),
            "the lower after the apply",
        );
        done(&layers, &["apply", "--undo"]);
        assert_same(&lower, &exact(&layers.lower), "the lower after the undo");
        assert_same(
            &upper,
            &exact(&layers.upper).into_upper(),
            "the upper after the undo",
        );
        done(&layers, &["apply"]);
        done(&layers, &["apply", "--forget"]);
        // The lower's other names of a file that was copied up have lost one (K47).
        assert_same(
            &unescaped(shown.clone()).without(&["nlink"]),
            &unescaped(seen(&layers.lower)).without(&["nlink"]),
            "the lower without the slots",
        );
    }
}

#[test]
fn a_full_disk_changes_nothing() {
    if !need_root("a_full_disk_changes_nothing") {
        return;
    }
    let room = Layers::new();
    let disk = room.base().join("disk");
    sys::mkdir(&disk, 0o755).unwrap();
    sys::mount("tmpfs", &disk, "tmpfs", 0, "mode=755,size=1m").unwrap();
    let mut layers = Layers::new();
    layers.lower = disk.join("l");
    sys::mkdir(&layers.lower, 0o755).unwrap();
    let layers = changed(
        layers,
        "echo x >> f; head -c 2000000 /dev/urandom > zz-large; rm gone",
    );
    let (lower, upper) = (exact(&layers.lower), exact(&layers.upper).into_upper());
    let text = fails(&layers, &["apply"]);
    assert!(
        text.contains("cannot copy /zz-large") && text.contains("No space left"),
        "{text}"
    );
    assert_same(&lower, &exact(&layers.lower), "the lower after ENOSPC");
    assert_same(
        &upper,
        &exact(&layers.upper).into_upper(),
        "the upper after ENOSPC",
    );
    assert_eq!(sys::names(&disk).unwrap(), ["l"]);
    assert!(!sys::exists(layers.work.join("plyfs-apply")));
    // What fits can be applied.
    done(&layers, &["apply", "f", "gone"]);
    assert_eq!(sys::text(layers.lower.join("f")).unwrap(), "text\nx\n");
}

/// A symlink that was swapped in for a directory of the lower leads nowhere.
#[test]
fn symlinks_lead_nowhere() {
    if !need_root("symlinks_lead_nowhere") {
        return;
    }
    let layers = changed(Layers::new(), "echo x > d/deep/new; echo y >> d/deep/x");
    let outside = layers.base().join("outside");
    std::fs::rename(layers.lower.join("d/deep"), &outside).unwrap();
    sys::make_symlink(&outside, layers.lower.join("d/deep")).unwrap();
    let before = exact(&outside);
    done(&layers, &["apply"]);
    assert_same(&before, &exact(&outside), "what the symlink led to");
    assert_eq!(sys::text(layers.lower.join("d/deep/new")).unwrap(), "x\n");
}

#[test]
fn an_ordinary_user() {
    if !need_root("an_ordinary_user") {
        return;
    }
    let layers = Layers::new().with_lower(&[
        file("f", "text\n").own(1001, 1001),
        file("gone", "x").own(1001, 1001),
        dir("d").own(1001, 1001),
        file("d/low", "low").own(1001, 1001),
    ]);
    for path in [&layers.lower, &layers.upper, &layers.work] {
        sys::chown(path, 1001, 1001).unwrap();
    }
    plant::plant(
        &layers.upper,
        &[
            file("f", "new").own(1001, 1001).xattr("user.overlay.origin", "x"),
            whiteout("gone").own(1001, 1001),
            dir("d").own(1001, 1001).xattr("user.overlay.opaque", "y"),
            file("d/new", "n").own(1001, 1001),
        ],
    );
    sys::chown(&layers.upper, 1001, 1001).unwrap();
    let program = layers.base().join("plyfs");
    // By another process: a child that a parallel test forks meanwhile must not hold it open for writing (ETXTBSY).
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_plyfs"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    sys::chmod(&program, 0o755).unwrap();
    let run = |words: &[&str]| {
        use std::os::unix::process::CommandExt;
        let mut as_root = command(&layers, words);
        let mut command = Command::new(&program);
        command.args(as_root.get_args()).uid(1001).gid(1001);
        as_root = command;
        as_root
            .env("HOME", layers.base())
            .env_remove("XDG_RUNTIME_DIR")
            .output()
            .unwrap()
    };
    let output = run(&["apply"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sys::text(layers.lower.join("f")).unwrap(), "new");
    assert_eq!(sys::listxattr(layers.lower.join("f")).unwrap(), [""; 0]);
    assert_eq!(sys::names(layers.lower.join("d")).unwrap(), ["new"]);
    assert_eq!(sys::listxattr(layers.lower.join("d")).unwrap(), [""; 0]);
    assert!(!sys::exists(layers.lower.join("gone")));
    let output = run(&["apply", "--undo"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sys::text(layers.lower.join("f")).unwrap(), "text\n");
    assert_eq!(sys::names(layers.lower.join("d")).unwrap(), ["low"]);
    assert_eq!(sys::sorted_names(&layers.upper).unwrap(), ["d", "f", "gone"]);
}
