//! Layers with hostile content, and layers that change under the mount: nothing leads outside a layer.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::*;

#[test]
fn symlinks_in_layers_are_never_followed_by_the_server() {
    // Every symlink points at a directory outside that must stay as it is.
    if !need_root("symlinks") {
        return;
    }
    for fs in Fs::sides() {
        let layers = Layers::new();
        let outside = layers.base().join("outside");
        plant::plant(
            layers.base(),
            &[
                dir("outside"),
                file("outside/secret", "secret"),
                dir("outside/sub"),
            ],
        );
        plant::plant(
            &layers.lower,
            &[
                dir("d"),
                file("d/f", "lower"),
                symlink("low-link", &outside),
                dir("up-link"),
                file("up-link/x", "lower"),
            ],
        );
        plant::plant(
            &layers.upper,
            &[
                symlink("up-link", &outside),
                symlink("abs", "/"),
                symlink("up", "../../outside"),
            ],
        );
        let before = tree::fingerprint(&outside);
        let mounted = layers.mount(fs, &[]);
        let m = |name: &str| layers.merged.join(name);
        for name in ["low-link", "up-link", "abs", "up"] {
            assert_eq!(sys::chown(m(name), 1, 1), Ok(()), "{} {name}", fs.name());
            assert_eq!(sys::setxattr(m(name), "trusted.x", "y"), Ok(()));
            assert_eq!(sys::utimens(m(name), (1, 1), (1, 1)), Ok(()));
            assert_eq!(sys::rename(m(name), m("moved")), Ok(()));
            assert_eq!(sys::rename(m("moved"), m(name)), Ok(()));
            assert_eq!(sys::rmdir(m(name)), Err(sys::ENOTDIR));
            assert_eq!(sys::link(m(name), m("linked")), Ok(()));
            assert_eq!(sys::unlink(m("linked")), Ok(()));
            assert_eq!(sys::unlink(m(name)), Ok(()));
        }
        assert_eq!(sys::mkdir(m("up-link"), 0o755), Ok(()));
        assert_eq!(sys::names(m("up-link")), Ok(vec![]));
        mounted.umount();
        let after = tree::fingerprint(&outside);
        assert_eq!(
            before.differences(&after, "before", "after"),
            [""; 0],
            "{}",
            fs.name()
        );
    }
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_directory_swapped_for_a_symlink_while_mounted() {
    if !need_root("swapped") {
        return;
    }
    if !layers::ours_is_plyfs() {
        return skip(
            "swapped",
            "the kernel leaves changed layers undefined; this is about plyfs",
        );
    }
    let layers = Layers::new().with_lower(&[
        dir("d"),
        dir("d/e"),
        file("d/e/f", "lower"),
        file("d/e/g", "lower"),
    ]);
    let outside = layers.base().join("outside");
    plant::plant(
        layers.base(),
        &[
            dir("outside"),
            dir("outside/e"),
            file("outside/e/f", "secret"),
            file("outside/e/g", "secret"),
            file("outside/f", "secret"),
            file("outside/g", "secret"),
        ],
    );
    let mounted = layers.mount(Fs::Plyfs, &[]);
    let before = tree::fingerprint(&outside);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Swaps lower and upper directories for symlinks and back, as fast as it can.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (root, name) in [
                    (&layers.lower, "d"),
                    (&layers.lower, "d/e"),
                    (&layers.upper, "d"),
                    (&layers.upper, "d/e"),
                ] {
                    let (here, aside) = (root.join(name), root.join("aside"));
                    if sys::rename(&here, &aside).is_ok() {
                        let _ = sys::make_symlink(&outside, &here);
                        std::thread::yield_now();
                        let _ = sys::unlink(&here);
                        let _ = sys::rename(&aside, &here);
                    }
                }
            }
        });
        // Also when an assertion fails, or the scope would wait for ever.
        let _ends = Ends(&done);
        who::in_thread(|| {
            // Inside the view an absolute symlink leads nowhere; only the server could follow it to the outside.
            who::chroot(&layers.merged);
            assert_eq!(sys::cat(outside.join("f")), Err(sys::ENOENT));
            for i in 0..3000 {
                for name in ["/d/e/f", "/d/e/g", "/d/f"] {
                    if let Ok(text) = sys::text(name) {
                        assert_ne!(text, "secret", "{name}");
                    }
                    let _ = sys::chmod(name, 0o600 + i % 8);
                    let _ = sys::append(name, "!");
                }
                let _ = sys::put("/d/e/new", "new");
                let _ = sys::mkdir("/d/e/dir", 0o755);
                let _ = sys::rename("/d/e/new", "/d/new");
                let _ = sys::unlink("/d/e/g");
                let _ = sys::rmdir("/d/e/dir");
                let _ = sys::names("/d/e");
            }
        });
    });
    let after = tree::fingerprint(&outside);
    assert_eq!(before.differences(&after, "before", "after"), [""; 0]);
    mounted.umount();
}

#[test]
fn names_and_devices_of_a_hostile_lower() {
    let lower = [
        file("#0", "0"),
        dir("work"),
        file("work/x", "x"),
        file("...", "dots"),
        file(".. ", "space"),
        file("..\u{200b}", "zero width"),
        chr("mem", 1, 1),
        chr("zero", 1, 5),
        fifo("fifo"),
        sock("sock"),
        symlink("loop", "loop"),
        symlink("root", "/"),
        symlink("long", "x/".repeat(2000)),
        symlink("empty-ish", "."),
        dir("locked").mode(0),
        file("locked/in", "in").mode(0),
    ];
    scenario("hostile lower", &lower, |env| {
        for name in sys::sorted_names(env.m("")).unwrap() {
            env.note(
                format!("{name:?}"),
                &sys::lstat(env.m(&name)).map(|st| (st.st_mode, st.st_rdev)),
            );
            env.ok(format!("copy up {name:?}"), || sys::chown(env.m(&name), 3, 3));
        }
        env.fails("a loop", sys::ELOOP, || sys::cat(env.m("loop")));
        env.eq(
            "in a locked directory",
            sys::text(env.m("locked/in")),
            Ok("in".into()),
        );
        env.ok("write there", || sys::append(env.m("locked/in"), "!"));
    });
}

#[test]
fn whiteouts_and_marks_inside_what_is_copied() {
    // A lower that is itself the upper of another overlay: its marks are private, its whiteouts hide.
    let lower = [
        dir("d")
            .xattr("trusted.overlay.opaque", "y")
            .xattr("trusted.overlay.origin", "x"),
        file("d/f", "f"),
        whiteout("d/gone"),
        dir("r").xattr("trusted.overlay.redirect", "/d"),
        file("m", "")
            .xattr("trusted.overlay.metacopy", "")
            .xattr("trusted.overlay.redirect", "/d/f"),
    ];
    let s = Scenario::new("nested")
        .lower(&lower)
        .path_differs("whiteouts-hidden", "d/gone");
    s.words(&["redirect_dir=nofollow"]).run(|env| {
        let _ = env.call("redirect in a lower", || sys::names(env.m("r")));
        let _ = env.call("metacopy in a lower", || sys::text(env.m("m")));
        let _ = env.call("its attributes", || sys::lstat(env.m("m")).map(|st| st.st_size));
        env.ok("copy up", || sys::append(env.m("d/f"), "!"));
        env.fails("the mark is not copied", sys::ENODATA, || {
            sys::getxattr(env.u("d"), "trusted.overlay.opaque")
        });
        env.eq("f", sys::text(env.m("d/f")), Ok("f!".into()));
        env.fails("gone", sys::ENOENT, || sys::lstat(env.m("d/gone")).map(|_| ()));
        env.ok("made", || sys::put(env.m("d/gone"), "new"));
        env.ok("and removed", || sys::unlink(env.m("d/gone")));
        env.fails("gone", sys::ENOENT, || sys::lstat(env.m("d/gone")).map(|_| ()));
    });
}

#[test]
fn the_lower_as_large_as_the_root() {
    if !need_root("slash") {
        return;
    }
    // `/` as lower, with upper, work and merged somewhere below it (K4, K28).
    for fs in Fs::sides() {
        let mut layers = Layers::new();
        layers.lower = "/".into();
        let mounted = layers.mount(fs, &[]);
        let m = |name: &str| layers.merged.join(name);
        let text = sys::text("/etc/passwd");
        assert_eq!(sys::text(m("etc/passwd")), text);
        assert_eq!(sys::append(m("etc/passwd"), "# changed\n"), Ok(()));
        assert_eq!(
            sys::text("/etc/passwd"),
            text,
            "{}: the lower was written",
            fs.name()
        );
        assert_eq!(sys::put(m("etc/new-file"), ""), Ok(()));
        assert!(!sys::exists("/etc/new-file"));
        // Other mounts are not entered: /proc is a bare mount point there.
        assert!(!sys::exists(m("proc/self")), "{}", fs.name());
        // Nor does the view contain itself.
        let own = m(layers.merged.strip_prefix("/").unwrap().to_str().unwrap());
        assert!(sys::names(&own).unwrap_or_default().is_empty(), "{}", fs.name());
        mounted.umount();
    }
}

#[test]
fn a_deep_tree() {
    let mut lower = Vec::new();
    let mut path = String::from("d");
    for _ in 0..120 {
        lower.push(dir(&path));
        path.push_str("/d");
    }
    lower.push(dir(&path));
    lower.push(file(format!("{path}/f"), "deep"));
    scenario("deep", &lower, |env| {
        env.ok("copy up at the bottom", || {
            sys::append(env.m(&path).join("f"), "er")
        });
        env.eq("data", sys::text(env.m(&path).join("f")), Ok("deeper".into()));
        env.ok("unlink", || sys::unlink(env.m(&path).join("f")));
        let mut at = env.m(&path);
        for _ in 0..50 {
            env.ok("rmdir", || sys::rmdir(&at));
            at.pop();
        }
    });
}
