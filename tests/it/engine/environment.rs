//! Where engines run: without a place for the list of mounts, as root of a user namespace, as an ordinary user.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Call, finish};
use crate::common::*;
use crate::rootless::{UID, open_device};

/// Runs a shell script in a private mount namespace, with `$P` for the program, `$B` for the directory of the layers and
/// `$O` for the words.
fn script(call: &Call, text: &str) -> String {
    let mut command = Command::new("unshare");
    command
        .args(["-m", "--propagation", "private", "sh", "-euc", text])
        .env("P", &call.program)
        .env("B", call.layers.base())
        .env("O", call.words(""))
        .current_dir(call.layers.base());
    let output = finish(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn without_a_place_for_the_list() {
    let Some(call) = Call::new("without_a_place_for_the_list") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    let text = "mkdir ro; mount -t tmpfs -o ro t ro; \
        for there in /run /tmp; do case $B in $there/*) ;; *) mount --bind ro $there;; esac; done; \
        HOME=/nowhere XDG_RUNTIME_DIR=/nowhere XDG_STATE_HOME=/nowhere $P -o $O m; \
        cat m/f; echo new > m/f; umount m";
    assert_eq!(script(&call, text), "lower");
    assert_eq!(sys::text(call.layers.upper.join("f")), Ok("new\n".into()));
}

#[test]
fn a_list_that_cannot_be_written() {
    let Some(call) = Call::new("a_list_that_cannot_be_written") else {
        return;
    };
    plant::plant(&call.layers.lower, &[file("f", "lower")]);
    // A runtime directory that is there, private, and read-only.
    let text = "mkdir run; mount -t tmpfs t run; mkdir -m 700 run/plyfs; mount -o remount,ro run; \
        mount --bind run /run; $P -o $O m; cat m/f; umount m";
    assert_eq!(script(&call, text), "lower");
}

#[test]
fn plyfs_lists_and_unmounts_the_views_of_engines() {
    let Some(call) = Call::new("plyfs_lists") else {
        return;
    };
    call.mount(&call.words(""));
    let plyfs = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command.args(arguments);
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let list = plyfs(&["list"]);
    let merged = call.layers.merged.to_str().unwrap();
    assert!(list.contains(&format!("merged   {merged}\n")), "{list}");
    assert!(list.contains(&format!("process {}", call.server())), "{list}");
    plyfs(&["umount", merged]);
    assert!(call.servers().is_empty());
}

/// A rootless engine has root's id in a user namespace with a mapped range, and mounts there by itself.
#[test]
fn as_root_of_a_user_namespace() {
    let Some(call) = Call::new("as_root_of_a_user_namespace") else {
        return;
    };
    let base = call.layers.base();
    plant::plant(
        &call.layers.lower,
        &[
            file("f", "lower").own(UID, UID),
            file("theirs", "theirs").own(100_004, 100_004).mode(0o600),
        ],
    );
    for dir in ["l", "u", "w", "m", ""] {
        sys::chown(base.join(dir), UID, UID).unwrap();
    }
    sys::put(
        base.join("inner"),
        "echo $$ > $B/pid.new; mv $B/pid.new $B/pid; while ! test -e $B/go; do sleep 0.01; done\n\
         exec setpriv --reuid 0 --regid 0 --clear-groups unshare -m sh -euc '\
         cd $B; $P -o $O,volatile m; grep \" $B/m \" /proc/self/mountinfo | cut -d\" \" -f6-; cat m/f; stat -c %u:%g m/theirs; \
         setpriv --reuid 5 --regid 5 --clear-groups cat m/theirs; echo; \
         chown 7:8 m/f; echo x > m/new; rm m/theirs; \
         for p in $P; do plyfs=$p; done; fusermount3 -u $B/m || umount m; stat -c \"%u:%g %F\" u/f u/new u/theirs'\n",
    )
    .unwrap();
    let text = format!(
        "{} chown {UID}:{UID} $B/dev; setpriv --reuid {UID} --regid {UID} --clear-groups env HOME=/nowhere \
         XDG_RUNTIME_DIR=/nowhere unshare -U sh $B/inner & while ! test -e $B/pid; do sleep 0.01; done; p=$(cat $B/pid); \
         printf '0 {UID} 1\\n1 100000 65536\\n' > /proc/$p/uid_map; printf '0 {UID} 1\\n1 100000 65536\\n' > /proc/$p/gid_map; \
         touch $B/go; wait $!",
        open_device(base, "666")
    );
    let shown = script(&call, &text);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines[0].contains("nodev") && lines[0].contains("fuse.plyfs fuse-overlayfs"),
        "{shown}"
    );
    assert!(
        lines[0].contains("user_id=0") && lines[0].contains("allow_other"),
        "{shown}"
    );
    assert_eq!(
        lines[1..],
        [
            "lower5:5",
            "theirs",
            "7:8 regular file",
            "0:0 regular file",
            "0:0 character special file"
        ],
        "{shown}"
    );
    assert_eq!(sys::owner(call.layers.upper.join("f")), Ok((100_006, 100_007)));
    eventually_gone(&call);
}

/// Without a namespace the setuid helper mounts.
#[test]
fn as_an_ordinary_user() {
    let Some(call) = Call::new("as_an_ordinary_user") else {
        return;
    };
    let base = call.layers.base();
    plant::plant(&call.layers.lower, &[file("f", "lower").own(UID, UID)]);
    for dir in ["l", "u", "w", "m", ""] {
        sys::chown(base.join(dir), UID, UID).unwrap();
    }
    let text = format!(
        "{} setpriv --reuid {UID} --regid {UID} --clear-groups env HOME=/nowhere XDG_RUNTIME_DIR=/nowhere sh -euc '\
         $P -o $O m; cat m/f; echo new > m/f; grep \" $B/m \" /proc/self/mountinfo | cut -d\" \" -f6-; fusermount3 -u m'",
        open_device(base, "666")
    );
    let shown = script(&call, &text);
    assert!(shown.starts_with("lowerrw,nosuid,nodev"), "{shown}");
    assert!(
        shown.contains("fuse.plyfs fuse-overlayfs") && !shown.contains("allow_other"),
        "{shown}"
    );
    assert_eq!(sys::text(call.layers.upper.join("f")), Ok("new\n".into()));
    eventually_gone(&call);
}

fn eventually_gone(call: &Call) {
    super::eventually("the server has left", || call.servers().is_empty());
}

/// Nothing is written beside the layers, unless asked for.
#[test]
fn a_log_only_for_who_asks() {
    let Some(call) = Call::new("a_log_only_for_who_asks") else {
        return;
    };
    let logs = |of: i32| Path::new(&format!("/run/plyfs/{of}.log")).exists();
    let mount = |filter: &str, words: &str| {
        let mut command = call.command(&call.words(words));
        command.env("RUST_LOG", filter);
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
        let server = call.server();
        let found = logs(server);
        call.unmount();
        if found {
            fs::remove_file(format!("/run/plyfs/{server}.log")).unwrap();
        }
        found
    };
    assert!(!mount("", ""));
    // That of another program which the engine runs.
    assert!(!mount("netavark=debug", ""));
    assert!(mount("plyfs=debug", ""));
    assert!(mount("", ",debug"));
}
