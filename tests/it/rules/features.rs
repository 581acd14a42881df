//! Section 12 of the rules: what features we do not have leave on disk, K120 and the like.

use crate::common::*;

#[test]
fn marks_that_only_remember_are_kept_and_hidden() {
    let marks = [
        ("origin", "\0\u{1}junk"),
        ("impure", "y"),
        ("nlink", "U+0"),
        ("uuid", "0123456789abcdef"),
        ("upper", "junk"),
        ("protattr", ""),
    ];
    let mut f = file("f", "upper");
    let mut d = dir("d");
    for (mark, value) in marks {
        f = f.xattr(&format!("trusted.overlay.{mark}"), value);
        if mark != "origin" {
            // The kernel believes an origin, and d_ino would differ from st_ino.
            d = d.xattr(&format!("trusted.overlay.{mark}"), value);
        }
    }
    let s = Scenario::new("marks")
        .lower(&[file("f", "lower"), dir("d"), file("d/low", "")])
        .upper(&[f, d]);
    s.numbers_may_change().run(|env| {
        for name in ["f", "d"] {
            env.eq("list", sys::listxattr(env.m(name)), Ok(vec![]));
            env.ok("chmod", || sys::chmod(env.m(name), 0o700));
            for mark in ["nlink", "upper", "uuid"] {
                env.check(
                    format!("{mark} is kept"),
                    sys::getxattr(env.u(name), &format!("trusted.overlay.{mark}")).is_ok(),
                );
            }
        }
        let _ = env.want("data", Ok("upper".to_string()), || sys::text(env.m("f")));
        env.eq("names", sys::names(env.m("d")), Ok(vec!["low".into()]));
        let _ = env.want("nlink", Ok(1), || sys::nlink(env.m("f")));
        env.ok("unlink", || sys::unlink(env.m("f")));
        env.ok("rename over the whiteout", || sys::put(env.m("f"), "again"));
    });
}

#[test]
fn redirects_written_by_the_kernel_are_refused() {
    if !need_root("redirects") {
        return;
    }
    if !layers::kernel_overlay_works() {
        return skip("redirects", "needs the kernel's overlay to write the mark");
    }
    for fs in Fs::sides() {
        let layers = Layers::new().with_lower(&[dir("old"), file("old/f", "f"), dir("d"), file("d/x", "x")]);
        let mounted = layers.mount(Fs::Kernel, &["redirect_dir=on"]);
        sys::rename(layers.merged.join("old"), layers.merged.join("new")).unwrap();
        sys::rename(layers.merged.join("new"), layers.merged.join("d/deep")).unwrap();
        mounted.umount();
        let mounted = layers.mount(fs, &["redirect_dir=nofollow"]);
        let m = |name: &str| layers.merged.join(name);
        assert_eq!(sys::lstat(m("d/deep")).err(), Some(sys::EPERM), "{}", fs.name());
        assert_eq!(sys::cat(m("d/deep/f")), Err(sys::EPERM));
        assert_eq!(sys::put(m("d/deep/n"), ""), Err(sys::EPERM));
        assert_eq!(sys::lstat(m("old")).err(), Some(sys::ENOENT));
        assert_eq!(sys::text(m("d/x")), Ok("x".into()));
        // The parent can still be worked in.
        assert_eq!(sys::put(m("d/n"), ""), Ok(()));
        mounted.umount();
        assert!(sys::getxattr(layers.upper.join("d/deep"), "trusted.overlay.redirect").is_ok());
    }
}

#[test]
fn an_upper_written_with_every_feature_on() {
    if !need_root("features") {
        return;
    }
    if !layers::kernel_overlay_works() {
        return skip("features", "needs the kernel's overlay");
    }
    // Hard links kept by the index, numbers by xino: as plain files they must read right.
    let layers = Layers::new().with_lower(&[file("a", "text"), hard("b", "a"), dir("d"), file("d/f", "f")]);
    let mounted = layers.mount(Fs::Kernel, &["index=on", "xino=on"]);
    sys::append(layers.merged.join("a"), "+").unwrap();
    sys::link(layers.merged.join("d/f"), layers.merged.join("g")).unwrap();
    sys::mkdir(layers.merged.join("d/n"), 0o755).unwrap();
    let kernel = snapshot(&layers.merged);
    mounted.umount();
    known::difference("index-directory");
    match layers.try_mount(Fs::Plyfs, &[]) {
        Err(refused) => {
            assert_eq!(refused.status, Some(1), "{refused:?}");
            assert!(refused.message.contains("index"), "{refused:?}");
        }
        Ok(mounted) => {
            assert_eq!(sys::text(layers.merged.join("a")), Ok("text+".into()));
            assert_eq!(sys::text(layers.merged.join("g")), Ok("f".into()));
            assert_eq!(sys::names(layers.merged.join("d/n")), Ok(vec![]));
            let paths = |tree: &Tree| tree.paths().iter().map(|p| p.to_path_buf()).collect::<Vec<_>>();
            assert_eq!(paths(&snapshot(&layers.merged)), paths(&kernel));
            mounted.umount();
            assert!(
                sys::exists(layers.work.join("index")),
                "the index is the kernel's"
            );
        }
    }
}

#[test]
fn k120_the_fsync_of_copy_up() {
    if !need_root("k120") {
        return;
    }
    if !layers::ours_is_plyfs() || std::process::Command::new("strace").arg("-V").output().is_err() {
        return skip("k120", "needs plyfs and strace");
    }
    for (word, files, all) in [
        ("fsync=auto", true, false),
        ("fsync=strict", true, true),
        ("volatile", false, false),
    ] {
        let layers = Layers::new().with_lower(&[
            dir("d"),
            file("d/f", "data"),
            file("d/empty", ""),
            symlink("d/s", "x"),
        ]);
        let mounted = layers.mount(Fs::Plyfs, &[word]);
        let pid = mounted.server().expect("a server");
        let log = layers.base().join("strace");
        let syncs = "trace=fsync,fdatasync,syncfs,sync_file_range";
        let mut strace = std::process::Command::new("strace")
            .args(["-f", "-e", syncs, "-p", &pid.to_string(), "-o"])
            .arg(&log)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("strace");
        // It says "attached" on stderr when it sees the calls.
        let mut said = [0; 64];
        std::io::Read::read(strace.stderr.as_mut().unwrap(), &mut said).unwrap();
        sys::chmod(layers.merged.join("d/f"), 0o600).unwrap();
        let after_file = synced(&log);
        sys::mkdir(layers.merged.join("d/n"), 0o755).unwrap();
        sys::chown(layers.merged.join("d/s"), 1, 1).unwrap();
        let after_all = synced(&log);
        // SAFETY: the strace started above.
        unsafe { libc::kill(strace.id() as i32, libc::SIGTERM) };
        strace.wait().unwrap();
        assert_eq!(
            after_file > 0,
            files,
            "{word}: {after_file} syncs at the copy-up of a file"
        );
        if !all {
            assert_eq!(
                after_all, after_file,
                "{word}: syncs for a directory or a symlink"
            );
        } else {
            assert!(after_all > after_file, "{word}: no sync for a symlink");
        }
        mounted.umount();
    }
}

fn synced(log: &std::path::Path) -> usize {
    // strace writes its line after the call, which may be after the answer reached us.
    std::thread::sleep(std::time::Duration::from_millis(200));
    std::fs::read_to_string(log)
        .unwrap_or_default()
        .lines()
        .filter(|l| l.contains("sync") && l.contains("= 0"))
        .count()
}
