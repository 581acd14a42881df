//! An upper that fuse-overlayfs wrote, or a work directory that another program left.

use std::fs;
use std::process::Command;

use super::{Call, finish};
use crate::common::*;

pub(super) fn lower() -> Vec<Node> {
    vec![
        file("f", "lower"),
        file("gone", ""),
        file("wh", ""),
        dir("gonedir"),
        file("gonedir/x", ""),
        dir("opaque"),
        file("opaque/hidden", ""),
        dir("marked"),
        file("marked/hidden", ""),
        dir("merged"),
        file("merged/low", ""),
        file("merged/wh", ""),
    ]
}

/// The marks of fuse-overlayfs, as 1.10 leaves them for root and without privilege.
pub(super) fn theirs(call: &Call) {
    plant::plant(
        &call.layers.upper,
        &[
            file("f", "upper").xattr("user.fuseoverlayfs.origin", "f"),
            chr("gone", 0, 0),
            file(".wh.wh", "").mode(0o700),
            file(".wh.gonedir", "").mode(0o700),
            dir("opaque")
                .xattr("user.fuseoverlayfs.opaque", "y")
                .xattr("user.note", "kept"),
            file("opaque/.wh..wh..opq", "").mode(0o700),
            chr("opaque/.wh..opq", 0, 0).mode(0o700),
            file("opaque/new", ""),
            dir("marked"),
            file("marked/.wh..wh..opq", "").mode(0o700),
            dir("merged"),
            file("merged/.wh.wh", "").mode(0o700),
            // The whiteout was not yet removed when the program was killed.
            file("merged/low", "upper"),
            file("merged/.wh.low", "").mode(0o700),
            dir("new"),
            file("new/.wh..wh..opq", "").mode(0o700),
            file("new/stated", "").xattr("user.fuseoverlayfs.override_stat", "1:2:100644"),
            symlink("link", "f"),
        ],
    );
    plant::plant(
        &call.layers.work,
        &[dir("work"), dir("work/28"), file("work/28/.wh..wh..opq", "")],
    );
}

pub(super) fn is_clean(call: &Call) {
    for path in sys::walk(&call.layers.upper) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!name.starts_with(".wh."), "{}", path.display());
        for attribute in sys::listxattr(&path).unwrap() {
            assert!(
                !attribute.starts_with("user.fuseoverlayfs."),
                "{}: {attribute}",
                path.display()
            );
        }
    }
}

#[test]
fn the_marks_of_fuse_overlayfs_in_an_upper() {
    let Some(call) = Call::new("the_marks_of_fuse_overlayfs") else {
        return;
    };
    plant::plant(&call.layers.lower, &lower());
    theirs(&call);
    let times: Vec<_> = sys::walk(&call.layers.upper)
        .into_iter()
        .filter(|path| path.is_dir())
        .map(|path| (sys::mtime(&path).unwrap(), path))
        .collect();
    for round in 0..3 {
        call.mount(&call.words(""));
        let merged = &call.layers.merged;
        assert_eq!(
            sys::sorted_names(merged).unwrap(),
            ["f", "link", "marked", "merged", "new", "opaque"]
        );
        assert_eq!(sys::sorted_names(merged.join("opaque")).unwrap(), ["new"]);
        assert_eq!(sys::sorted_names(merged.join("marked")).unwrap(), [""; 0]);
        assert_eq!(sys::sorted_names(merged.join("merged")).unwrap(), ["low"]);
        assert_eq!(sys::text(merged.join("merged/low")), Ok("upper".into()));
        assert_eq!(sys::text(merged.join("f")), Ok("upper".into()));
        assert_eq!(
            sys::listxattr(merged.join("opaque")),
            Ok(vec!["user.note".into()])
        );
        assert_eq!(sys::listxattr(merged.join("f")), Ok(vec![]));
        // Over what was hidden, and away again.
        for name in ["wh", "gone", "merged/wh"] {
            assert_eq!(sys::put(merged.join(name), "again"), Ok(()), "{round}");
            assert_eq!(sys::unlink(merged.join(name)), Ok(()));
        }
        assert_eq!(sys::rmdir(merged.join("marked")), Ok(()));
        assert_eq!(sys::mkdir(merged.join("marked"), 0o755), Ok(()));
        call.unmount();
        is_clean(&call);
        assert!(!sys::exists(call.layers.work.join("work/28")));
        if round == 0 {
            assert_eq!(
                sys::getxattr(
                    call.layers.upper.join("new/stated"),
                    "user.containers.override_stat"
                ),
                Ok(b"1:2:100644".to_vec())
            );
        }
        if round == 1 {
            // Another program used the upper again: it empties the work directory.
            fs::remove_dir_all(call.layers.work.join("work")).unwrap();
            plant::plant(&call.layers.upper, &[file("opaque/.wh.none", "")]);
        }
    }
    for (time, path) in times {
        // Steps were done in these.
        let touched = ["u", "merged", "marked", "opaque"]
            .iter()
            .any(|name| path.ends_with(name));
        assert!(
            touched || sys::mtime(&path).unwrap() == time,
            "{}",
            path.display()
        );
    }
}

/// A kill between the two marks, at each of them: the next mount ends what was begun.
#[test]
fn half_way_states() {
    let Some(call) = Call::new("half_way_states") else {
        return;
    };
    plant::plant(&call.layers.lower, &lower());
    theirs(&call);
    plant::plant(&call.layers.upper, &[chr("wh", 0, 0)]);
    sys::setxattr(call.layers.upper.join("marked"), "trusted.overlay.opaque", "y").unwrap();
    sys::setxattr(
        call.layers.upper.join("new/stated"),
        "user.containers.override_stat",
        "1:2:100644",
    )
    .unwrap();
    call.mount(&call.words(""));
    assert_eq!(
        sys::sorted_names(&call.layers.merged).unwrap(),
        ["f", "link", "marked", "merged", "new", "opaque"]
    );
    call.unmount();
    is_clean(&call);
}

#[test]
fn marks_that_only_the_kernel_follows_are_refused() {
    let Some(call) = Call::new("marks_that_only_the_kernel_follows") else {
        return;
    };
    plant::plant(&call.layers.lower, &lower());
    plant::plant(
        &call.layers.upper,
        &[dir("d"), file("d/f", "").xattr("trusted.overlay.metacopy", "")],
    );
    let (status, said) = call.refused(&call.words(""));
    assert_eq!(status, 1);
    assert!(
        said.contains("/u/d/f") && said.contains("trusted.overlay.metacopy"),
        "{said}"
    );
}

/// What a volatile mount leaves keeps others from using the upper; engines decide that by themselves.
#[test]
fn a_volatile_mount_is_followed_by_any() {
    let Some(call) = Call::new("a_volatile_mount_is_followed_by_any") else {
        return;
    };
    plant::plant(&call.layers.lower, &lower());
    for words in [",volatile", ",fsync=0", "", ",volatile"] {
        call.mount(&call.words(words));
        call.unmount();
    }
    assert!(sys::exists(call.layers.work.join("work/incompat/volatile")));
    // Other marks still count.
    plant::plant(&call.layers.work, &[dir("work/incompat/other")]);
    let (_, said) = call.refused(&call.words(""));
    assert!(said.contains("work/incompat/other"), "{said}");
}

/// The kernel's overlay leaves a work directory of mode 0000.
#[test]
fn a_work_directory_of_the_kernels_overlay() {
    let Some(call) = Call::new("a_work_directory_of_the_kernels_overlay") else {
        return;
    };
    if !layers::kernel_overlay_works() {
        return skip(
            "a_work_directory_of_the_kernels_overlay",
            "needs the kernel's overlay",
        );
    }
    plant::plant(&call.layers.lower, &lower());
    let mounted = call.layers.mount(Fs::Kernel, &["volatile"]);
    sys::unlink(call.layers.merged.join("gone")).unwrap();
    mounted.umount();
    call.mount(&call.words(""));
    assert!(!sys::exists(call.layers.merged.join("gone")));
    call.unmount();
    fs::remove_dir_all(call.layers.work.join("work/incompat")).unwrap_or_default();
    let mounted = call.layers.mount(Fs::Kernel, &[]);
    assert!(!sys::exists(call.layers.merged.join("gone")));
    mounted.umount();
}

/// To and fro between the two programs: both show the same tree of the same layers.
#[test]
fn to_and_fro_with_fuse_overlayfs() {
    let name = "to_and_fro_with_fuse_overlayfs";
    let Some(call) = Call::new(name) else { return };
    let theirs = std::path::Path::new("/usr/bin/fuse-overlayfs");
    if !theirs.exists() {
        return skip(name, "needs fuse-overlayfs");
    }
    plant::plant(&call.layers.lower, &lower());
    let merged = &call.layers.merged;
    let mount = |ours: bool| {
        let mut command = call.command(&call.words(""));
        if !ours {
            command = Command::new(theirs);
            command.args(["-o", &call.words("")]).arg(merged);
        }
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
    };
    let steps = |round: u32| {
        let at = |name: &str| merged.join(name);
        for (file, text) in [("f", "changed"), ("merged/low", "changed")] {
            assert_eq!(sys::append(at(file), text), Ok(()));
        }
        for gone in ["gone", "wh", "gonedir/x"] {
            assert!(
                matches!(sys::unlink(at(gone)), Ok(()) | Err(sys::ENOENT)),
                "{gone}"
            );
            if round % 2 == 1 && gone != "gonedir/x" {
                assert_eq!(sys::put(at(gone), "back"), Ok(()));
            }
        }
        sys::rmdir(at("gonedir")).ok();
        sys::unlink(at("opaque/hidden")).ok();
        sys::unlink(at("opaque/again")).ok();
        assert_eq!(sys::rmdir(at("opaque")), Ok(()));
        assert_eq!(sys::mkdir(at("opaque"), 0o750), Ok(()));
        assert_eq!(sys::put(at("opaque/again"), "x"), Ok(()));
        assert_eq!(sys::mkdir(at(&format!("made{round}")), 0o711), Ok(()));
        assert_eq!(sys::put(at(&format!("made{round}/file")), "y"), Ok(()));
        assert_eq!(
            sys::rename(at(&format!("made{round}")), at(&format!("moved{round}"))),
            Ok(())
        );
    };
    for round in 0..4 {
        let ours = round % 2 == 1;
        mount(ours);
        steps(round);
        let before = snapshot(merged);
        call.unmount();
        mount(!ours);
        let after = snapshot(merged);
        call.unmount();
        // What the links of a directory count is another matter.
        let differences: Vec<String> = before
            .differences(&after, "before", "after")
            .into_iter()
            .filter(|line| !line.contains(": nlink: "))
            .collect();
        assert!(
            differences.is_empty(),
            "round {round}, first by ours: {ours}:\n{}",
            differences.join("\n")
        );
        if !ours {
            is_clean(&call);
        }
    }
}
