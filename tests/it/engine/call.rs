//! The contract of a program that mounts for container engines, line by line.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::{Call, eventually, finish, fusermount, kill};
use crate::common::layers::is_mounted;
use crate::common::*;

/// What statfs(2) says of FUSE, by which podman asks whether something is mounted.
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

#[test]
fn the_call_of_podman() {
    let Some(call) = Call::new("the_call_of_podman") else {
        return;
    };
    plant::plant(
        &call.layers.lower,
        &[file("f", "lower"), dir("d"), file("d/g", "g")],
    );
    // Standard error ends when the command does, although the server lives on.
    let said = call.mount(&call.words(",,volatile,"));
    assert_eq!(said, "");
    let merged = &call.layers.merged;
    assert_eq!(sys::text(merged.join("f")), Ok("lower".into()));
    assert_eq!(sys::statfs(merged).unwrap().f_type, FUSE_SUPER_MAGIC);
    let line = call.mountinfo();
    assert!(line.contains(" - fuse.plyfs fuse-overlayfs "), "{line}");
    for word in ["nodev", "default_permissions", "allow_other"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(!line.contains("nosuid") && !line.contains("noexec"), "{line}");

    // The server: no stream, no directory, no session, no parent of the caller's; its words are seen by ps.
    let process = format!("/proc/{}", call.server());
    for number in 0..3 {
        let stream = fs::read_link(format!("{process}/fd/{number}")).unwrap();
        assert_eq!(stream, Path::new("/dev/null"));
    }
    assert_eq!(fs::read_link(format!("{process}/cwd")).unwrap(), Path::new("/"));
    let stat = fs::read_to_string(format!("{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    assert_eq!(fields[3], call.server().to_string(), "its own session: {stat}");
    let shown = fs::read_to_string(format!("{process}/cmdline")).unwrap();
    assert!(shown.contains("fuse-overlayfs\0-o\0lowerdir="), "{shown}");
    // A directory for each layer of an image, and more: as many as may be.
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let numbers: Vec<&str> = files
        .split_whitespace()
        .filter(|word| word.parse::<u64>().is_ok())
        .collect();
    assert_eq!(numbers[0], numbers[1], "{files}");

    assert_eq!(sys::put(merged.join("d/g"), "new"), Ok(()));
    assert_eq!(sys::text(call.layers.upper.join("d/g")), Ok("new".into()));
    call.unmount();
    assert_eq!(sys::text(call.layers.lower.join("d/g")), Ok("g".into()));
    // What engines do next.
    fs::rename(merged, call.path("elsewhere")).unwrap();
    fs::remove_dir(call.path("elsewhere")).unwrap();
}

#[test]
fn by_any_name() {
    let Some(call) = Call::new("by_any_name") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    fs::create_dir(call.path("other")).unwrap();
    fs::hard_link(&call.program, call.path("other/fuse-overlayfs")).unwrap();
    fs::create_dir(call.path("linked")).unwrap();
    sys::make_symlink(&call.program, call.path("linked/fuse-overlayfs")).unwrap();
    copy_program(&call.program, call.path("plyfs"));
    let words = call.words(",frobnicate");
    let target = call.layers.merged.to_str().unwrap();
    let attached = format!("-o{words}");
    for (program, arguments, source) in [
        (
            call.path("other/fuse-overlayfs"),
            vec!["-o", &words, target],
            "fuse-overlayfs",
        ),
        (
            call.path("linked/fuse-overlayfs"),
            vec![target, "-o", &words],
            "fuse-overlayfs",
        ),
        (
            call.path("linked/fuse-overlayfs"),
            vec!["overlay", target, "-o", &words],
            "overlay",
        ),
        // As storage.conf may name it.
        (call.path("plyfs"), vec!["-o", &words, target], "plyfs"),
        (call.path("plyfs"), vec![&attached, target], "plyfs"),
    ] {
        let mut command = Command::new(&program);
        command.args(&arguments);
        let output = finish(command);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "unknown argument ignored: frobnicate\n"
        );
        let line = call.mountinfo();
        assert!(line.contains(&format!(" - fuse.plyfs {source} ")), "{line}");
        call.unmount();
    }
    // The form of mount(8) knows no words that nobody knows.
    let mut command = Command::new(call.path("plyfs"));
    command.args([target, "-o", &words]);
    assert_eq!(finish(command).status.code(), Some(2));
}

#[test]
fn versions_and_help() {
    let Some(call) = Call::new("versions_and_help") else {
        return;
    };
    for (argument, begin) in [
        ("--version", "fuse-overlayfs: version "),
        ("-V", "fuse-overlayfs: version "),
        ("-h", "usage: "),
    ] {
        let mut command = Command::new(&call.program);
        command.arg(argument);
        let output = finish(command);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.starts_with(begin), "{text}");
        assert!(text.contains("plyfs"), "{text}");
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn through_mount_8() {
    let Some(call) = Call::new("through_mount_8") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    // As containerd's snapshotter mounts; mount.fuse3 looks for the program by its type.
    let mut command = Command::new("/sbin/mount.fuse3");
    command
        .arg("overlay")
        .arg(&call.layers.merged)
        .args(["-o", &call.words(""), "-t", "fuse-overlayfs"])
        .env("PATH", format!("{}:/usr/bin:/bin", call.path("bin").display()));
    let output = finish(command);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sys::text(call.layers.merged.join("f")), Ok("lower".into()));
    assert!(call.mountinfo().contains(" - fuse.plyfs overlay "));
    call.unmount();
}

#[test]
fn whoever_unmounts_ends_the_server() {
    let Some(call) = Call::new("whoever_unmounts_ends_the_server") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    let merged = &call.layers.merged;
    let gone = || eventually("the server has left", || call.servers().is_empty());

    call.mount(&call.words(""));
    sys::umount(merged, 0).unwrap();
    gone();

    // Lazily: with its last user.
    call.mount(&call.words(""));
    let open = sys::open(merged.join("f"), libc::O_RDONLY).unwrap();
    sys::umount(merged, libc::MNT_DETACH).unwrap();
    assert!(!is_mounted(merged));
    assert_eq!(sys::read(&open, 5), Ok(b"lower".to_vec()));
    assert_eq!(call.servers().len(), 1);
    drop(open);
    gone();

    // A signal takes the view along.
    call.mount(&call.words(""));
    kill(call.server(), Signal::TERM);
    gone();
    assert!(!is_mounted(merged));
}

/// crun binds the target onto itself in the mount namespace of the container, which ends with its last process.
#[test]
fn a_container_has_the_view_in_its_own_namespace() {
    let Some(call) = Call::new("a_container_has_the_view") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    call.mount(&call.words(""));
    let merged = call.layers.merged.display().to_string();
    let mut container = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec"])
        .arg(format!(
            "mount --bind {merged} {merged}; cat {merged}/f > {merged}/seen; touch {merged}/up; exec cat"
        ))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("it has started", || sys::exists(call.layers.merged.join("up")));
    fusermount(&call.layers.merged);
    assert!(!is_mounted(&call.layers.merged));
    fs::rename(&call.layers.merged, call.path("renamed")).unwrap();
    assert_eq!(call.servers().len(), 1, "the container still has it");
    drop(container.stdin.take());
    assert!(container.wait().unwrap().success());
    eventually("the server has left", || call.servers().is_empty());
    assert_eq!(sys::text(call.layers.upper.join("seen")), Ok("lower".into()));
}

/// A command in a mount namespace of its own that does not unmount leaves the server alone there.
#[test]
fn a_server_alone_in_its_namespace_gives_way() {
    let Some(call) = Call::new("a_server_alone") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    let merged = call.layers.merged.display();
    let apart = |then: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "--propagation", "private", "sh", "-ec"])
            .current_dir(call.layers.base())
            .arg(format!(
                "{} -o {} {merged}; echo new > {merged}/f; {then}",
                call.program.display(),
                call.words(""),
            ));
        command
    };
    let output = finish(apart(":"));
    assert!(output.status.success(), "{output:?}");
    let first = call.server();
    assert!(!is_mounted(&call.layers.merged));
    call.mount(&call.words(""));
    assert_ne!(call.server(), first);
    assert_eq!(sys::text(call.layers.merged.join("f")), Ok("new\n".into()));
    call.unmount();
    // One that is not alone is in use.
    let mut living = apart("touch ready; exec cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it is mounted", || sys::exists(call.path("ready")));
    let (_, said) = call.refused_but_for(&call.words(""), 1);
    assert!(said.contains("in use"), "{said}");
    drop(living.stdin.take());
    living.wait().unwrap();
    call.mount(&call.words(""));
    call.unmount();
}

#[test]
fn in_the_foreground_it_ends_with_the_view() {
    let Some(call) = Call::new("in_the_foreground") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    // As apptainer starts it.
    let mut server = Command::new(&call.program)
        .args(["-f", "-o", &call.words("")])
        .arg(&call.layers.merged)
        .spawn()
        .unwrap();
    eventually("it is mounted", || is_mounted(&call.layers.merged));
    assert_eq!(sys::text(call.layers.merged.join("f")), Ok("lower".into()));
    assert!(server.try_wait().unwrap().is_none());
    fusermount(&call.layers.merged);
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn what_goes_wrong_is_told_and_nothing_is_mounted() {
    let Some(call) = Call::new("what_goes_wrong_is_told") else {
        return;
    };
    let missing = call.path("missing");
    let missing = missing.to_str().unwrap();
    for (words, said) in [
        (format!("lowerdir={missing}"), missing),
        (call.words(&format!(",upperdir={missing}")), missing),
        (call.words(&format!(",workdir={missing}")), missing),
        (
            format!("lowerdir={missing},{}", call.words(",uidmapping=0:1")),
            "uidmapping=0:1",
        ),
        (call.words(",xattr_permissions=5"), "xattr_permissions=5"),
        (call.words(",squash_to_uid=root"), "squash_to_uid=root"),
        (call.words(",timeout=never"), "timeout=never"),
        (call.words(",redirect_dir=on"), "redirect_dir=on"),
        (format!("upperdir={missing},workdir={missing}"), "lowerdir="),
        (
            format!(
                "lowerdir={},upperdir={}",
                call.layers.lower.display(),
                call.layers.upper.display()
            ),
            "workdir=",
        ),
    ] {
        let (status, message) = call.refused(&words);
        assert!(message.contains(said), "{words}: {message}");
        assert!(status == 1 || status == 2, "{status}");
    }
    // An upper in use.
    call.mount(&call.words(""));
    let second = call.path("second");
    fs::create_dir(&second).unwrap();
    let mut command = Command::new(&call.program);
    command.args(["-o", &call.words("")]).arg(&second);
    let output = finish(command);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("in use") && said.contains(call.layers.upper.to_str().unwrap()),
        "{said}"
    );
    call.unmount();
}

#[test]
fn words_without_effect_are_told_and_passed_over() {
    let Some(call) = Call::new("words_without_effect") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    let words = ",private,fsync=0,nodev,noatime,threaded=1,fast_ino=1,max_idle_threads=3,plugins=,xattr_permissions=0,\
        context=\"system_u:object_r:container_file_t:s0:c1,c2\",metacopy=on,wibble,wobble=2";
    let said = call.mount(&call.words(words));
    assert_eq!(
        said,
        "argument without effect: metacopy=on: a copy-up always copies the data\nunknown argument ignored: wibble\n\
         unknown argument ignored: wobble=2\n"
    );
    assert_eq!(sys::text(call.layers.merged.join("f")), Ok("lower".into()));
    call.unmount();
}

#[test]
fn relative_paths_and_names_with_separators() {
    let Some(call) = Call::new("relative_paths") else {
        return;
    };
    let odd = call.path("a:b,c\\d");
    fs::create_dir(&odd).unwrap();
    plant::plant(&odd, &[file("f", "odd")]);
    let mut command = Command::new(&call.program);
    command
        .args(["-o", r"lowerdir=a\:b\,c\\d,upperdir=u,workdir=w", "m"])
        .current_dir(call.layers.base());
    let output = finish(command);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sys::text(call.layers.merged.join("f")), Ok("odd".into()));
    assert_eq!(sys::put(call.layers.merged.join("f"), "new"), Ok(()));
    assert_eq!(sys::text(call.layers.upper.join("f")), Ok("new".into()));
    sys::umount(&call.layers.merged, 0).unwrap();
}

/// The kernel takes no more than 255 bytes for the first column of mount(8).
#[test]
fn a_long_name_of_the_source() {
    let Some(call) = Call::new("a_long_name_of_the_source") else {
        return;
    };
    let long = call.path(&"x".repeat(200)).join("y".repeat(200));
    fs::create_dir_all(&long).unwrap();
    plant::plant(&long, &[file("f", "far")]);
    let target = call.layers.merged.to_str().unwrap();
    let words = format!("lowerdir={}", long.display());
    for arguments in [
        vec![target, "-o", &words],
        vec![long.to_str().unwrap(), target, "-o", &words],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command.args(arguments);
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(sys::text(call.layers.merged.join("f")), Ok("far".into()));
        let line = call.mountinfo();
        assert!(
            line.contains(&format!(" ...{}/{} ", "x".repeat(51), "y".repeat(200))),
            "{line}"
        );
        call.unmount();
    }
}

/// `l/NAME/../diff1`, as podman writes it, where `l/NAME` is a link to a layer's directory.
#[test]
fn two_dots_after_a_link_are_the_kernels() {
    let Some(call) = Call::new("two_dots_after_a_link") else {
        return;
    };
    plant::plant(
        call.layers.base(),
        &[
            dir("layers"),
            dir("layers/ID"),
            dir("layers/ID/diff"),
            dir("layers/ID/diff1"),
            file("layers/ID/diff1/f", "right"),
            dir("layers/l"),
            symlink("layers/l/NAME", "../ID/diff"),
            // By the letters alone.
            dir("layers/l/diff1"),
            file("layers/l/diff1/f", "wrong"),
        ],
    );
    let words = format!("lowerdir={}/layers/l/NAME/../diff1", call.layers.base().display());
    call.mount(&words);
    assert_eq!(sys::text(call.layers.merged.join("f")), Ok("right".into()));
    call.unmount();
}

#[test]
fn without_an_upper_nothing_is_written() {
    let Some(call) = Call::new("without_an_upper") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower"), dir("d")]);
    // A work directory without an upper is of no use, and no error.
    for words in ["", ",workdir=/nowhere", ",ro"] {
        call.mount(&format!("lowerdir={}{words}", call.layers.lower.display()));
        let failed = fs::write(call.layers.merged.join("new"), "").unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(sys::unlink(call.layers.merged.join("f")), Err(sys::EROFS));
        assert_eq!(sys::rmdir(call.layers.merged.join("d")), Err(sys::EROFS));
        call.unmount();
    }
    call.mount(&call.words(",ro"));
    assert_eq!(sys::mkdir(call.layers.merged.join("x"), 0o755), Err(sys::EROFS));
    call.unmount();
}

/// The parent side of `podman diff`, and of an image mount: two lowers and more, no upper.
#[test]
fn several_lowers_without_an_upper() {
    let Some(call) = Call::new("several_lowers_without_an_upper") else {
        return;
    };
    plant::plant(
        &call.layers.lower,
        &[file("a", "low"), file("b", "low"), dir("d"), file("d/x", "")],
    );
    plant::plant(
        &call.layers.upper,
        &[file("a", "top"), chr("b", 0, 0), dir("d"), file("d/y", "")],
    );
    fs::create_dir(call.path("empty")).unwrap();
    let [top, low, empty] =
        [&call.layers.upper, &call.layers.lower, &call.path("empty")].map(|path| path.display().to_string());
    for words in [
        format!("lowerdir={top}:{low}"),
        format!("lowerdir={top}:{empty}:{low}:{empty}"),
    ] {
        assert_eq!(call.mount(&words), "");
        assert_eq!(sys::sorted_names(&call.layers.merged).unwrap(), ["a", "d"]);
        assert_eq!(sys::text(call.layers.merged.join("a")), Ok("top".into()));
        assert_eq!(
            sys::sorted_names(call.layers.merged.join("d")).unwrap(),
            ["x", "y"]
        );
        assert_eq!(sys::put(call.layers.merged.join("new"), ""), Err(sys::EROFS));
        assert_eq!(sys::unlink(call.layers.merged.join("a")), Err(sys::EROFS));
        call.unmount();
    }
}

/// dockerd writes its `-init` layer through a mount, and mounts it as a lower of the container.
#[test]
fn an_upper_becomes_a_lower() {
    let Some(call) = Call::new("an_upper_becomes_a_lower") else {
        return;
    };
    let layers = &call.layers;
    plant::plant(
        &layers.lower,
        &[
            file("f", "low"),
            file("gone", ""),
            dir("d"),
            file("d/hidden", ""),
            file("kept", ""),
            file(".wh.kept", ""),
            file("aufs", ""),
        ],
    );
    call.mount(&call.words(""));
    let at = |name: &str| layers.merged.join(name);
    assert_eq!(sys::append(at("f"), " and more"), Ok(()));
    assert_eq!(sys::unlink(at("gone")), Ok(()));
    assert_eq!(sys::unlink(at("d/hidden")), Ok(()));
    assert_eq!(sys::rmdir(at("d")), Ok(()));
    assert_eq!(sys::mkdir(at("d"), 0o700), Ok(()));
    assert_eq!(sys::put(at("d/new"), ""), Ok(()));
    // They would hide something in a layer made of it.
    assert_eq!(sys::put(at("d/.wh.new"), ""), Err(sys::EINVAL));
    assert_eq!(sys::mkdir(at(".wh.f"), 0o700), Err(sys::EINVAL));
    assert_eq!(sys::rename(at("d/new"), at("d/.wh.x")), Err(sys::EINVAL));
    assert_eq!(sys::stat(at(".wh.kept")).err(), Some(sys::ENOENT));
    let before = snapshot(&layers.merged);
    call.unmount();
    let [upper, lower] = [&layers.upper, &layers.lower].map(|path| path.display().to_string());
    call.mount(&format!("lowerdir={upper}:{lower}"));
    let after = snapshot(&layers.merged);
    call.unmount();
    assert_eq!(
        before.differences(&after, "as upper", "as lower"),
        Vec::<String>::new()
    );
}

/// The longest chain that podman makes, by names as long as its own.
#[test]
fn five_hundred_lowers() {
    let Some(call) = Call::new("five_hundred_lowers") else {
        return;
    };
    let store = call.path("store-with-a-name-that-makes-the-string-long-enough-to-exceed-sixty-four-KiB");
    fs::create_dir(&store).unwrap();
    let mut lowers = Vec::new();
    for number in 0..500_u32 {
        let diff = store.join(format!("{number:026}")).join("diff");
        fs::create_dir_all(diff.join("shared")).unwrap();
        sys::put(diff.join(format!("shared/{number}")), number.to_string()).unwrap();
        sys::put(diff.join("top"), number.to_string()).unwrap();
        lowers.push(diff.display().to_string());
    }
    let words = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        lowers.join(":"),
        call.layers.upper.display(),
        call.layers.work.display()
    );
    assert!(words.len() > 65_536, "{}", words.len());
    // The usual limit of open files when an engine starts a program.
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -S -n 1024; exec \"$@\"", "sh"])
        .arg(&call.program)
        .args(["-o", &words])
        .arg(&call.layers.merged);
    let begin = std::time::Instant::now();
    let output = finish(command);
    let took = begin.elapsed();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(took.as_secs() < 10, "{took:?}");
    assert_eq!(sys::text(call.layers.merged.join("top")), Ok("0".into()));
    assert_eq!(sys::names(call.layers.merged.join("shared")).unwrap().len(), 500);
    assert_eq!(sys::text(call.layers.merged.join("shared/499")), Ok("499".into()));
    assert_eq!(sys::append(call.layers.merged.join("shared/499"), "!"), Ok(()));
    assert_eq!(sys::text(call.layers.upper.join("shared/499")), Ok("499!".into()));
    call.unmount();
}

/// A server that was killed leaves a mount that answers to nobody; the engine just calls again.
#[test]
fn after_a_kill_the_same_call_works_again() {
    let Some(call) = Call::new("after_a_kill") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    call.mount(&call.words(",volatile"));
    for round in 0..3 {
        assert_eq!(
            sys::put(call.layers.merged.join(format!("{round}")), "kept"),
            Ok(())
        );
        kill(call.server(), Signal::KILL);
        eventually("the view is dead", || sys::names(&call.layers.merged).is_err());
        call.mount(&call.words(",volatile"));
        assert_eq!(
            sys::text(call.layers.merged.join(format!("{round}"))),
            Ok("kept".into())
        );
        assert_eq!(call.servers().len(), 1);
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = table
            .lines()
            .filter(|line| line.contains(call.layers.merged.to_str().unwrap()));
        assert_eq!(ours.count(), 1, "the dead one is gone");
    }
    // podman's own way after that: unmount, and mount.
    kill(call.server(), Signal::KILL);
    eventually("the view is dead", || sys::names(&call.layers.merged).is_err());
    fusermount(&call.layers.merged);
    call.mount(&call.words(""));
    call.unmount();
    // A lower or another path that is dead is no target: it is told.
    call.mount(&call.words(""));
    kill(call.server(), Signal::KILL);
    eventually("the view is dead", || sys::names(&call.layers.merged).is_err());
    let mut command = Command::new(&call.program);
    fs::create_dir(call.path("second")).unwrap();
    command
        .args(["-o", &format!("lowerdir={}", call.layers.merged.display())])
        .arg(call.path("second"));
    let output = finish(command);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("dead mount"),
        "{output:?}"
    );
}

#[test]
fn a_long_option_string() {
    let Some(call) = Call::new("a_long_option_string") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    let mut words = call.words("");
    // The same words again and again, until there are 64 KiB and more.
    while words.len() <= 65_536 {
        words.push_str(&format!(",,upperdir={}", call.layers.upper.display()));
    }
    assert_eq!(call.mount(&words), "");
    assert_eq!(sys::text(call.layers.merged.join("f")), Ok("lower".into()));
    call.unmount();
}

#[test]
fn set_user_id_works_and_devices_do_not() {
    let Some(call) = Call::new("set_user_id_works") else {
        return;
    };
    plant::plant(&call.layers.lower, &[chr("null", 1, 3).mode(0o666)]);
    fs::copy("/usr/bin/id", call.layers.lower.join("id")).unwrap();
    sys::chmod(call.layers.lower.join("id"), 0o4755).unwrap();
    call.mount(&call.words(""));
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "1001", "--regid", "1001", "--clear-groups"])
        .arg(call.layers.merged.join("id"));
    let output = finish(command);
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("euid=0"),
        "{output:?}"
    );
    assert_eq!(sys::cat(call.layers.merged.join("null")), Err(sys::EACCES));
    call.unmount();
    call.mount(&call.words(",dev"));
    assert_eq!(sys::cat(call.layers.merged.join("null")), Ok(Vec::new()));
    call.unmount();
    assert_eq!(
        fs::metadata(call.layers.lower.join("id")).unwrap().mode() & 0o7777,
        0o4755
    );
}
