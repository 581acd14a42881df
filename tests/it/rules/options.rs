//! K9 to K16: the words of a mount, and what it shows as a whole.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::mounting::{refused, shown, told};
use crate::common::layers::{ours_is_plyfs, try_mount};
use crate::common::*;

#[test]
fn k9_unknown_words_and_bad_values() {
    for word in [
        "nonsense",
        "nonsense=1",
        "xino=maybe",
        "fsync=perhaps",
        "index=2",
        "metacopy=y",
        "redirect_dir=1",
    ] {
        let culprit = word.split('=').next().unwrap();
        refused(word, sys::EINVAL, &[word], |_| culprit.into());
    }
}

#[test]
fn k9_empty_words_are_skipped() {
    if !need_root("k9") {
        return;
    }
    for fs in Fs::sides() {
        for words in [vec![""], vec!["", ""], vec!["", "volatile", ""]] {
            let layers = Layers::new().with_lower(&[file("f", "lower")]);
            let _mounted = layers.mount(fs, &words);
            assert_eq!(sys::text(layers.merged.join("f")), Ok("lower".into()));
            assert_eq!(
                sys::exists(layers.work.join("work/incompat")),
                words.contains(&"volatile")
            );
        }
    }
}

#[test]
fn k10_escapes_in_paths() {
    if !need_root("k10") {
        return;
    }
    for fs in Fs::sides() {
        for name in [
            "a:b", "c,d", "e\\f", "g h", "=i", ":", "j\\:k", "\\\\", "l\nm", "\u{e4}",
        ] {
            let mut layers = Layers::new();
            for (place, part) in [
                (&mut layers.lower, "l"),
                (&mut layers.upper, "u"),
                (&mut layers.work, "w"),
            ] {
                sys::rmdir(&*place).unwrap();
                place.set_file_name(format!("{part}{name}"));
                sys::mkdir(&*place, 0o755).unwrap();
            }
            sys::put(layers.lower.join("f"), "lower").unwrap();
            let escape = |path: &Path, colon: bool| {
                let mut text = shown(path).replace('\\', "\\\\").replace(',', "\\,");
                if colon {
                    text = text.replace(':', "\\:");
                }
                text
            };
            // Only in lowerdir does the colon separate.
            let data = format!(
                "lowerdir={},upperdir={},workdir={}",
                escape(&layers.lower, true),
                escape(&layers.upper, false),
                escape(&layers.work, false)
            );
            let mounted = try_mount(fs, OsString::from(data).as_os_str(), &layers.merged);
            let _mounted = mounted.unwrap_or_else(|e| panic!("{} {name:?}: {e:?}", fs.name()));
            assert_eq!(sys::text(layers.merged.join("f")), Ok("lower".into()), "{name:?}");
            assert_eq!(sys::put(layers.merged.join("f"), "new"), Ok(()));
            assert_eq!(sys::text(layers.upper.join("f")), Ok("new".into()), "{name:?}");
        }
    }
}

#[test]
fn k10_colons_at_the_ends() {
    if !need_root("k10") {
        return;
    }
    for fs in Fs::sides() {
        for (before, after) in [(":", ""), ("", ":")] {
            let layers = Layers::new();
            let data = format!(
                "lowerdir={before}{}{after},upperdir={},workdir={}",
                shown(&layers.lower),
                shown(&layers.upper),
                shown(&layers.work)
            );
            let refused = try_mount(fs, OsString::from(data).as_os_str(), &layers.merged)
                .err()
                .expect("refused");
            told(fs, &refused, sys::EINVAL, "lowerdir");
        }
    }
}

#[test]
fn k10_paths_are_resolved_by_the_kernel() {
    if !need_root("k10") {
        return;
    }
    for fs in Fs::sides() {
        // `s/../l2` is `far/l2`, since `s` leads to `far/away`; by the letters it would be `l2`.
        let mut layers = Layers::new();
        plant::plant(
            layers.base(),
            &[
                dir("far"),
                dir("far/away"),
                dir("far/l2"),
                file("far/l2/f", "right"),
                dir("l2"),
                file("l2/f", "wrong"),
            ],
        );
        sys::make_symlink(layers.base().join("far/away"), layers.base().join("s")).unwrap();
        layers.lower = layers.base().join("s/../l2");
        let _mounted = layers.mount(fs, &[]);
        assert_eq!(
            sys::text(layers.merged.join("f")),
            Ok("right".into()),
            "{}",
            fs.name()
        );
    }
}

#[test]
fn k11_words_that_are_defaults_are_understood() {
    if !need_root("k11") {
        return;
    }
    let words = [
        "index=off",
        "metacopy=off",
        "redirect_dir=off",
        "redirect_dir=nofollow",
        "xino=off",
        "xino=auto",
        "nfs_export=off",
        "fsync=auto",
        "fsync=strict",
        "volatile",
        "userxattr",
        "default_permissions",
        "uuid=auto",
        "uuid=off",
        "uuid=null",
    ];
    for fs in Fs::sides() {
        for word in words {
            let layers = Layers::new().with_lower(&[file("f", "lower")]);
            let _mounted = layers.mount(fs, &[word]);
            assert_eq!(sys::put(layers.merged.join("f"), "new"), Ok(()), "{word}");
        }
    }
}

#[test]
fn k12_words_that_exclude_each_other() {
    for words in [
        ["metacopy=on", "redirect_dir=off"],
        ["metacopy=on", "redirect_dir=nofollow"],
        ["userxattr", "redirect_dir=on"],
        ["userxattr", "redirect_dir=follow"],
        ["userxattr", "metacopy=on"],
        ["nfs_export=on", "index=off"],
    ] {
        refused(&words.join(","), sys::EINVAL, &words, |_| String::new());
    }
}

#[test]
fn k13_read_only() {
    let lower = [file("f", "lower"), dir("d"), symlink("s", "f")];
    Scenario::new("k13")
        .lower(&lower)
        .upper(&[file("g", "upper")])
        .words(&["ro"])
        .run(|env| {
            for name in ["f", "g"] {
                env.fails("unlink", sys::EROFS, || sys::unlink(env.m(name)));
                env.fails("chmod", sys::EROFS, || sys::chmod(env.m(name), 0o600));
                env.fails("open for writing", sys::EROFS, || {
                    sys::open(env.m(name), libc::O_WRONLY)
                });
                env.fails("truncate", sys::EROFS, || sys::truncate(env.m(name), 0));
                env.fails("rename", sys::EROFS, || sys::rename(env.m(name), env.m("h")));
                env.fails("link", sys::EROFS, || sys::link(env.m(name), env.m("h")));
                env.fails("setxattr", sys::EROFS, || {
                    sys::setxattr(env.m(name), "user.a", "b")
                });
                env.fails("utimens", sys::EROFS, || {
                    sys::utimens(env.m(name), (1, 2), (3, 4))
                });
            }
            env.fails("create", sys::EROFS, || sys::create(env.m("n"), 0o644));
            env.fails("mkdir", sys::EROFS, || sys::mkdir(env.m("n"), 0o755));
            env.fails("rmdir", sys::EROFS, || sys::rmdir(env.m("d")));
            env.fails("symlink", sys::EROFS, || sys::make_symlink("x", env.m("n")));
            env.fails("mknod", sys::EROFS, || {
                sys::mknod(env.m("n"), libc::S_IFIFO | 0o644, 0, 0)
            });
            let _ = env.want("cat", Ok("lower".to_string()), || sys::text(env.m("f")));
            let _ = env.want("cat", Ok("upper".to_string()), || sys::text(env.m("g")));
        });
}

#[test]
fn k13_remounted_read_only_and_back() {
    scenario("k13 remount", &[file("f", "lower")], |env| {
        let flip = |flags| sys::mount("none", &env.m(""), "none", libc::MS_REMOUNT | flags, "");
        env.ok("remount ro", || flip(libc::MS_RDONLY));
        env.fails("chmod", sys::EROFS, || sys::chmod(env.m("f"), 0o600));
        env.untouched("a refused chmod");
        env.ok("remount rw", || flip(0));
        env.ok("chmod", || sys::chmod(env.m("f"), 0o600));
    });
}

#[test]
fn k14_an_upper_without_xattrs_is_refused() {
    if !need_root("k14") {
        return;
    }
    if !ours_is_plyfs() {
        return skip("k14", "only plyfs refuses");
    }
    let mut layers = Layers::new();
    let ram = layers.base().join("ram");
    sys::mkdir(&ram, 0o755).unwrap();
    sys::mount("r", &ram, "ramfs", 0, "").unwrap();
    layers.upper = ram.join("u");
    layers.work = ram.join("w");
    sys::mkdir(&layers.upper, 0o755).unwrap();
    sys::mkdir(&layers.work, 0o755).unwrap();
    let refused = layers.try_mount(Fs::Plyfs, &[]).err().expect("refused");
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.message.contains(&shown(&ram)), "{refused:?}");
    assert!(
        refused.message.contains("xattr") || refused.message.contains("attribute"),
        "{refused:?}"
    );
}

#[test]
fn k15_uuid_of_the_kernel_is_kept_and_hidden() {
    if !need_root("k15") {
        return;
    }
    if !layers::kernel_overlay_works() {
        return skip("k15", "needs the kernel's overlay");
    }
    let layers = Layers::new().with_lower(&[file("f", "lower")]);
    layers.mount(Fs::Kernel, &[]).umount();
    let uuid = sys::getxattr(&layers.upper, "trusted.overlay.uuid").expect("the kernel's mark");
    assert_eq!(uuid.len(), 16);
    let mounted = layers.mount(Fs::Plyfs, &[]);
    assert_eq!(sys::listxattr(&layers.merged), Ok(vec![]));
    assert_eq!(
        sys::getxattr(&layers.merged, "trusted.overlay.uuid"),
        Err(sys::ENODATA)
    );
    assert_eq!(sys::put(layers.merged.join("f"), "new"), Ok(()));
    mounted.umount();
    assert_eq!(sys::getxattr(&layers.upper, "trusted.overlay.uuid"), Ok(uuid));
}

#[test]
fn k16_statfs_shows_the_upper() {
    if !need_root("k16") {
        return;
    }
    for fs in Fs::sides() {
        let mut layers = Layers::new().with_lower(&[file("f", "lower"), dir("d")]);
        let small = layers.base().join("small");
        sys::mkdir(&small, 0o755).unwrap();
        sys::mount("t", &small, "tmpfs", 0, "size=3m,nr_inodes=100").unwrap();
        layers.upper = small.join("u");
        layers.work = small.join("w");
        sys::mkdir(&layers.upper, 0o755).unwrap();
        sys::mkdir(&layers.work, 0o755).unwrap();
        let _mounted = layers.mount(fs, &[]);
        let upper = sys::statfs(&layers.upper).unwrap();
        for name in ["", "f", "d"] {
            let view = sys::statfs(layers.merged.join(name)).unwrap();
            let numbers = |st: &libc::statfs| {
                (
                    st.f_blocks,
                    st.f_bfree,
                    st.f_bsize,
                    st.f_files,
                    st.f_ffree,
                    st.f_namelen,
                )
            };
            assert_eq!(numbers(&view), numbers(&upper), "{} {name}", fs.name());
            match fs {
                Fs::Kernel => assert_eq!(view.f_type, 0x794c_7630),
                Fs::Plyfs => {
                    known::difference("statfs-type");
                    assert!(layers::program_is_kernel() || view.f_type == 0x6573_5546);
                }
            }
        }
    }
}

#[test]
fn merged_equal_to_a_layer() {
    if !need_root("merged_equal") {
        return;
    }
    if !ours_is_plyfs() {
        return skip("merged_equal_to_a_layer", "only plyfs refuses");
    }
    for part in ["upper", "work"] {
        let mut layers = Layers::new();
        layers.merged = if part == "upper" {
            layers.upper.clone()
        } else {
            layers.work.clone()
        };
        let refused = layers
            .try_mount(Fs::Plyfs, &[])
            .err()
            .unwrap_or_else(|| panic!("{part} as merged"));
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(refused.message.contains(&shown(&layers.merged)), "{refused:?}");
    }
}

#[test]
fn mounting_over_the_lower_itself() {
    if !need_root("over_the_lower") {
        return;
    }
    for fs in Fs::sides() {
        let mut layers = Layers::new().with_lower(&[file("f", "lower"), dir("d"), file("d/g", "x")]);
        layers.merged.clone_from(&layers.lower);
        let mounted = layers.mount(fs, &[]);
        assert_eq!(sys::put(layers.merged.join("f"), "new"), Ok(()));
        assert_eq!(sys::unlink(layers.merged.join("d/g")), Ok(()));
        assert_eq!(sys::text(layers.merged.join("f")), Ok("new".into()));
        mounted.umount();
        assert_eq!(
            sys::text(layers.lower.join("f")),
            Ok("lower".into()),
            "{}",
            fs.name()
        );
        assert!(sys::exists(layers.lower.join("d/g")));
    }
}

#[test]
fn stdout_and_stderr_are_closed_in_the_server() {
    if !need_root("stderr") {
        return;
    }
    if !ours_is_plyfs() {
        return skip("stdout_and_stderr_are_closed", "about plyfs's server");
    }
    let layers = Layers::new();
    let mounted = layers.mount(Fs::Plyfs, &[]);
    let pid = mounted.server().expect("a server");
    for fd in [1, 2] {
        let target =
            std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).map(|p| p.as_os_str().as_bytes().to_vec());
        assert!(
            matches!(target.as_deref(), Err(_) | Ok(b"/dev/null")),
            "fd {fd} is {target:?}"
        );
    }
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(
        cwd,
        Path::new("/"),
        "the server's working directory would pin a mount"
    );
}
