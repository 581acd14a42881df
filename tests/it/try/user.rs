//! By an ordinary user: a private fuse device in a private mount namespace, nothing of the machine changes.

use super::*;

const UID: u32 = 1001;

/// Runs a script as the user. `$P` is plyfs.
fn as_ordinary(room: &Room, script: &str) -> Output {
    let base = room.base().display();
    // By another process: a child that a parallel test forks meanwhile must not hold it open for writing (ETXTBSY).
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_plyfs"))
        .arg(room.base().join("plyfs"))
        .status();
    assert!(copied.unwrap().success());
    sys::chmod(room.base().join("plyfs"), 0o755).unwrap();
    std::fs::create_dir_all(room.base().join("home")).unwrap();
    for path in [room.dir(), room.base().join("home")] {
        for path in sys::walk(&path).into_iter().chain([path]) {
            sys::chown(&path, UID, UID).unwrap();
        }
    }
    sys::put(room.base().join("script"), script).unwrap();
    let alone = alone(room.base());
    let stage = format!(
        "set -e; {alone} mkdir -p {base}/dev; mount -t tmpfs t {base}/dev; mknod {base}/dev/fuse c 10 229; \
         chmod 666 {base}/dev/fuse; mount --bind {base}/dev/fuse /dev/fuse; cd {base}/l; \
         exec env -u XDG_RUNTIME_DIR -u XDG_STATE_HOME HOME={base}/home P={base}/plyfs BASE={base} \
         setpriv --reuid {UID} --regid {UID} --clear-groups sh -eu {base}/script"
    );
    Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &stage])
        .output()
        .unwrap()
}

fn can_run(name: &str) -> bool {
    let line = format!("setpriv --reuid {UID} --regid {UID} --clear-groups unshare -Urmpn --fork true");
    let works = Command::new("sh")
        .args(["-c", &line])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        skip(name, "needs setpriv, and user namespaces for ordinary users");
    }
    works
}

#[test]
fn a_directory_of_ones_own() {
    let name = "a_directory_of_ones_own";
    let Some(room) = Room::new(name) else { return };
    if !can_run(name) {
        return;
    }
    let output = as_ordinary(
        &room,
        r#"
        $P try --later -- sh -c 'id -u; grep CapEff /proc/self/status; echo more >> a; rm b; mkdir new; echo n > new/n'
        cat a; $P try keep 1; cat a new/n; test ! -e b; $P try undo 1; cat a b; $P try keep 1; $P try drop 1; ls
        "#,
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "1001\nCapEff:\t0000000000000000\none\none\nmore\nn\ntrial 1: what was kept is taken back; its changes wait again\n\
         one\ntwo\na\nd\nnew\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(sys::owner(room.dir().join("new/n")), Ok((UID, UID)));
}

/// On the whole root the user may change what it may change outside; the rest is refused as ever.
#[test]
fn the_whole_root() {
    let name = "the_whole_root";
    let Some(room) = Room::new(name) else { return };
    if !can_run(name) {
        return;
    }
    let output = as_ordinary(
        &room,
        r#"
        $P try --root --later -- sh -c 'pwd; echo h > $HOME/h; echo more >> a; echo t > /tmp/plyfs-try-user; test -s /tmp/plyfs-try-user
            echo x > /etc/plyfs-try-user || echo refused' 2>$BASE/home/told
        test ! -e $HOME/h; test ! -e /tmp/plyfs-try-user
        grep -c . $BASE/home/told >/dev/null; grep '^[ACD] ' $BASE/home/told
        $P try keep 1 $HOME/h $PWD/a; cat $HOME/h a; $P try undo 1; cat a; $P try drop 1
        "#,
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{output:?}");
    let base = room.base().display();
    for line in [
        "refused\n".to_owned(),
        format!("A {base}/home/h  2 B\n"),
        format!("C {base}/l/a  9 B\n"),
        "A /tmp/plyfs-try-user  2 B\n".to_owned(),
        "h\none\nmore\n".to_owned(),
    ] {
        assert!(text.contains(&line), "{line:?} in {text}");
    }
    // The directories of others on the way are no changes.
    assert!(!text.contains("C /var\n") && !text.contains("C /tmp\n"), "{text}");
    assert!(!sys::exists("/tmp/plyfs-try-user") && !sys::exists("/etc/plyfs-try-user"));
}
