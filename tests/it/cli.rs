//! The commands as a person or mount(8) uses them. Needs root (and, for the ordinary user, `unshare`, `setpriv` and
//! `fusermount3`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::sys;

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");

/// A directory with `l`, `u`, `w` and `m` in it; what is mounted below it goes with it.
struct House {
    dir: tempfile::TempDir,
}

impl House {
    /// `None` for an ordinary user, who cannot make the mount namespaces and devices of these tests.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP the commands: not root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("plyfs-cli-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["l", "u", "w", "m"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("l/hello"), "hi\n").unwrap();
        Some(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plyfs(&self, arguments: &[&str]) -> Output {
        Command::new(PLYFS)
            .args(arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.plyfs(arguments);
        assert!(output.status.success(), "plyfs {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a script in a private mount namespace, with `$P` for the program.
    fn script(&self, text: &str) -> Output {
        Command::new("unshare")
            .args(["-m", "sh", "-ec", text])
            .env("P", PLYFS)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What `plyfs list --json` says of the mounts in this house.
    fn list(&self) -> Vec<Value> {
        let all: Vec<Value> = serde_json::from_str(&self.ok(&["list", "--json"])).unwrap();
        all.into_iter()
            .filter(|entry| Path::new(entry["merged"].as_str().unwrap()).starts_with(self.dir.path()))
            .collect()
    }

    fn pid(&self) -> i32 {
        self.list()[0]["pid"].as_i64().unwrap().try_into().unwrap()
    }

    fn mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.contains(self.dir.path().to_str().unwrap())
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for name in ["m", "m2", "l"] {
            while rustix::mount::unmount(self.path(name), rustix::mount::UnmountFlags::DETACH).is_ok() {}
        }
    }
}

fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "not so after 10 s: {what}"
        );
        sleep(Duration::from_millis(20));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_read_only_view_reads_at_native_speed_and_changes_nothing() {
    const MIB: usize = 1 << 20;
    let Some(house) = House::new() else { return };
    let data: Vec<u8> = (0..4 * MIB).map(|i| (i / 4096) as u8).collect();
    fs::write(house.path("l/big"), &data).unwrap();
    // A read would renew an access time before the modification time.
    sys::utimens(house.path("l/big"), (1000, 5), (2000, 6)).unwrap();
    house.ok(&["mount", "l", "m", "--read-only"]);
    let file = sys::open(house.path("m/big"), libc::O_RDONLY).unwrap();
    let again = sys::open(house.path("m/big"), libc::O_RDONLY).unwrap();
    let served = |house: &House| house.list()[0]["requests"].as_u64().unwrap();
    let before = served(&house);
    for at in (0..4 * MIB).step_by(4096) {
        assert_eq!(sys::pread(&again, 4096, at as i64).unwrap(), data[at..at + 4096]);
    }
    let requests = served(&house) - before;
    assert!(
        requests < 8,
        "{requests} requests for 4 MiB: the kernel does not read by itself"
    );
    let map = sys::mmap_shared(&file, 4 * MIB, false).unwrap();
    assert_eq!(map.bytes(), data);
    assert_eq!(
        sys::open(house.path("m/big"), libc::O_WRONLY).map(drop),
        Err(sys::EROFS)
    );
    drop((map, file, again));
    house.ok(&["umount", "m"]);
    let atime = sys::lstat(house.path("l/big")).map(|st| (st.st_atime, st.st_atime_nsec));
    assert_eq!(atime, Ok((1000, 5)));
}

#[test]
fn mount_list_umount() {
    let Some(house) = House::new() else { return };
    let shown = house.ok(&["mount", "l", "m", "--upper", "u", "--work", "w"]);
    assert!(shown.contains(house.path("u").to_str().unwrap()), "{shown}");
    fs::write(house.path("m/new"), "new").unwrap();
    fs::write(house.path("m/hello"), "changed").unwrap();

    let [entry] = house.list().try_into().unwrap();
    for (key, name) in [("lower", "l"), ("upper", "u"), ("work", "w"), ("merged", "m")] {
        assert_eq!(entry[key], house.path(name).to_str().unwrap());
    }
    assert!(entry["requests"].as_u64().unwrap() > 0);
    assert!(entry["since"].as_str().unwrap().starts_with("20"));
    assert!(house.ok(&["list"]).contains("requests"));

    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table
        .lines()
        .find(|line| line.contains(house.path("m").to_str().unwrap()))
        .unwrap();
    assert!(
        line.contains(&format!("- fuse.plyfs {} ", house.path("l").display())),
        "{line}"
    );

    house.ok(&["umount", "m"]);
    assert!(!house.mounted());
    assert!(house.list().is_empty());
    assert_eq!(fs::read(house.path("u/new")).unwrap(), b"new");
    assert_eq!(fs::read(house.path("l/hello")).unwrap(), b"hi\n");
}

#[test]
fn the_form_of_mount_8() {
    let Some(house) = House::new() else { return };
    let words = "lowerdir=l,upperdir=u,workdir=w";
    for arguments in [
        &["overlay", "m", "-o", words][..],
        &["-o", words, "m"],
        &[
            "-o",
            "lowerdir=l,,",
            "m",
            "-o",
            "upperdir=u,workdir=w,rw,dev,suid,nofail,x-foo=1",
        ],
        &["overlay", "-o", words, "m", "-o", "index=off,xino=auto"],
    ] {
        assert_eq!(house.ok(arguments), "");
        assert_eq!(fs::read(house.path("m/hello")).unwrap(), b"hi\n");
        house.ok(&["umount", "m"]);
    }
    // K13: a remount honours the attributes and nothing else.
    house.ok(&["m", "-o", words]);
    house.ok(&["overlay", "m", "-o", "remount,ro"]);
    let write = || fs::write(house.path("m/x"), "").map_err(|error| error.kind());
    assert_eq!(write(), Err(std::io::ErrorKind::ReadOnlyFilesystem));
    house.ok(&["overlay", "m", "-o", "rw,remount,lowerdir=elsewhere"]);
    assert_eq!(write(), Ok(()));
    house.ok(&["umount", "m"]);
    // K2, ours: a lone lower is a read-only view.
    house.ok(&["m", "-o", "lowerdir=l"]);
    assert_eq!(
        fs::write(house.path("m/x"), "").unwrap_err().kind(),
        std::io::ErrorKind::ReadOnlyFilesystem
    );
    house.ok(&["umount", "m"]);
}

#[test]
fn through_mount_fuse3() {
    let Some(house) = House::new() else { return };
    fs::create_dir(house.path("a,b:c")).unwrap();
    fs::write(house.path("a,b:c/odd"), "").unwrap();
    let bin = Path::new(PLYFS).parent().unwrap().to_str().unwrap();
    let words = format!(
        r"rw,noatime,lowerdir={0}/a\,b\:c,upperdir={0}/u,workdir={0}/w,x-systemd.automount,_netdev",
        house.dir.path().display()
    );
    let status = Command::new("/sbin/mount.fuse3")
        .args([
            "some source",
            house.path("m").to_str().unwrap(),
            "-t",
            "fuse.plyfs",
            "-o",
            &words,
        ])
        .env("PATH", format!("{bin}:/usr/bin:/bin"))
        .status()
        .unwrap();
    assert!(status.success());
    assert!(house.path("m/odd").exists());
    let found = Command::new("findmnt")
        .args(["-n", "-o", "SOURCE,FSTYPE,OPTIONS"])
        .arg(house.path("m"))
        .output()
        .unwrap();
    let found = text(&found.stdout);
    assert!(
        found.contains("some source") && found.contains("fuse.plyfs") && found.contains("noatime"),
        "{found}"
    );
    house.ok(&["umount", "m"]);
}

#[test]
fn wrong_usage_is_status_2() {
    let Some(house) = House::new() else { return };
    for (arguments, reason) in [
        (&["mount"][..], "LOWER"),
        (&["mount", "l", "m", "--upper", "u"], "--work"),
        (&["mount", "l", "m", "-o", "frobnicate"], "'frobnicate'"),
        (&["mount", "l", "m", "-o", "index=on"], "'index=on'"),
        (&["mount", "l", "m", "-o", "metacopy=maybe"], "'metacopy=maybe'"),
        (&["mount", "l", "m", "-o", "lowerdir=l"], "lowerdir="),
        (&["m", "-o", "upperdir=u,workdir=w"], "lowerdir="),
        (&["m", "-o", "lowerdir=l,upperdir=u"], "workdir="),
        (&["m", "-o", "lowerdir=l::u"], "may not lead, trail or be doubled"),
        (&["m", "-o", "lowerdir+=l"], "lowerdir+=l"),
        (&["a", "b", "c", "-o", "lowerdir=l"], "Usage"),
        (&["umount"], "MERGED"),
        (&["frobnicate"], "-o"),
    ] {
        let output = house.plyfs(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(
            text(&output.stderr).contains(reason),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
    assert!(!house.mounted());
}

#[test]
fn bad_set_ups_are_refused_with_path_reason_and_remedy() {
    let Some(house) = House::new() else { return };
    for dir in ["u/in", "w/in", "l/up", "l/wk", "l/at"] {
        fs::create_dir(house.path(dir)).unwrap();
    }
    fs::write(house.path("file"), "").unwrap();
    std::os::unix::fs::symlink("u/in", house.path("link")).unwrap();
    for (lower, upper, work, merged, path, reason) in [
        ("nope", "u", "w", "m", "nope", "No such file"),
        ("l", "nope", "w", "m", "nope", "mkdir"),
        ("l", "u", "nope", "m", "nope", "mkdir"),
        ("l", "u", "w", "nope", "nope", "mkdir"),
        ("file", "u", "w", "m", "file", "Not a directory"),
        ("l", "file", "w", "m", "file", "Not a directory"),
        ("l", "u", "file", "m", "file", "Not a directory"),
        ("l", "u", "w", "file", "file", "Not a directory"),
        ("l", "u", "u", "m", "u", "the same directory"),
        ("l", "u", "u/in", "m", "u/in", "separate"),
        ("l", "w/in", "w", "m", "w/in", "separate"),
        ("u", "u", "w", "m", "u", "ELOOP"),
        ("u/in", "u", "w", "m", "u/in", "ELOOP"),
        ("link", "u", "w", "m", "u/in", "ELOOP"),
        ("w/in", "u", "w", "m", "w/in", "ELOOP"),
        ("l", "u", "w", "u", "u", "hide"),
        ("l", "u", "w", "w", "w", "hide"),
        ("l", "u", "/dev/shm", "m", "/dev/shm", "different mounts"),
    ] {
        let output = house.plyfs(&["mount", lower, merged, "--upper", upper, "--work", work]);
        let said = text(&output.stderr);
        let case = format!("{lower} {upper} {work} {merged}: {said}");
        assert_eq!(output.status.code(), Some(1), "{case}");
        assert!(said.contains(reason), "{case}");
        assert!(said.contains(path), "{case}");
        assert_eq!(said.lines().count(), 1, "{case}");
    }
    assert!(!house.mounted());
    // What is allowed: all of them below the lower.
    house.ok(&["mount", "l", "l/at", "--upper", "l/up", "--work", "l/wk"]);
    house.ok(&["umount", "l/at"]);
}

#[test]
fn bind_mounts_hide_no_relation() {
    let Some(house) = House::new() else { return };
    fs::create_dir(house.path("u/in")).unwrap();
    let output = house.script(
        "mount --bind u/in l; ! $P mount l m --upper u --work w; mount --bind w m;
         ! $P mount l m --upper u --work w; umount l; mount --bind u u; ! $P mount l m --upper u --work w",
    );
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("below the upper directory"), "{said}");
    assert!(said.contains("different mounts"), "{said}");
}

#[test]
fn upper_and_work_have_one_user() {
    let Some(house) = House::new() else { return };
    fs::create_dir(house.path("m2")).unwrap();
    fs::create_dir(house.path("u2")).unwrap();
    house.ok(&["mount", "l", "m", "--upper", "u", "--work", "w"]);
    for upper in ["u", "u2"] {
        let output = house.plyfs(&["mount", "l", "m2", "--upper", upper, "--work", "w"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("EBUSY"), "{output:?}");
        assert!(
            text(&output.stderr).contains(&house.pid().to_string()),
            "{output:?}"
        );
    }
    house.ok(&["umount", "m"]);
    house.ok(&["mount", "l", "m2", "--upper", "u", "--work", "w"]);
    house.ok(&["umount", "m2"]);
}

#[test]
fn an_overlay_or_a_view_is_no_upper() {
    let Some(house) = House::new() else { return };
    let output = house.script(
        "mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m; mkdir m/u2 m/w2; mkdir m3
         ! $P mount l m3 --upper m/u2 --work m/w2; umount m; $P mount l m --upper u --work w
         ! $P mount l m3 --upper m/u2 --work m/w2; $P umount m",
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        text(&output.stderr).matches("merged view").count(),
        2,
        "{output:?}"
    );
}

#[test]
fn a_private_upper_is_found_again() {
    let Some(house) = House::new() else { return };
    let first = house.ok(&["mount", "l"]);
    let merged = PathBuf::from(
        first
            .lines()
            .find_map(|line| line.strip_prefix("merged "))
            .unwrap()
            .trim(),
    );
    assert!(first.contains("(private, new)"), "{first}");
    fs::write(merged.join("kept"), "kept").unwrap();
    house.ok(&["umount", merged.to_str().unwrap()]);
    assert!(!merged.exists());

    let again = house.ok(&["mount", "l/../l", "m"]);
    assert!(again.contains("(private, from an earlier mount)"), "{again}");
    assert_eq!(fs::read(house.path("m/kept")).unwrap(), b"kept");
    let upper = house.list()[0]["upper"].as_str().unwrap().to_owned();
    house.ok(&["umount", "m"]);
    fs::remove_dir_all(Path::new(&upper).parent().unwrap()).unwrap();
    assert_eq!(house.ok(&["mount", "l", "--read-only", "-q"]).lines().count(), 1);
    let mounts: Vec<Value> = serde_json::from_str(&house.ok(&["list", "--json"])).unwrap();
    let ours = mounts
        .iter()
        .find(|entry| entry["lower"] == house.path("l").to_str().unwrap())
        .unwrap();
    house.ok(&["umount", ours["merged"].as_str().unwrap()]);
}

#[test]
fn the_background_server_holds_no_pipe_and_no_directory() {
    let Some(house) = House::new() else { return };
    // output() waits until every copy of the pipes is closed, so a server that held one would hang this test.
    house.ok(&[
        "mount",
        "l",
        "m",
        "--upper",
        "u",
        "--work",
        "w",
        "-o",
        "auto_unmount",
    ]);
    let process = PathBuf::from(format!("/proc/{}", house.pid()));
    assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/"));
    for number in 0..3 {
        assert_eq!(
            fs::read_link(process.join(format!("fd/{number}"))).unwrap(),
            Path::new("/dev/null")
        );
    }
    house.ok(&["umount", "m"]);
}

#[test]
fn signals_unmount() {
    use rustix::process::Signal;
    let Some(house) = House::new() else { return };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        house.ok(&["mount", "l", "m", "--upper", "u", "--work", "w"]);
        kill(house.pid(), signal);
        eventually("unmounted", || !house.mounted());
        eventually("gone from the list", || house.list().is_empty());
    }
}

#[test]
fn a_view_in_use_leaves_with_its_last_user() {
    let Some(house) = House::new() else { return };
    house.ok(&["mount", "l", "m", "--upper", "u", "--work", "w"]);
    let open = fs::File::open(house.path("m/hello")).unwrap();
    let output = house.plyfs(&["umount", "m"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("--lazy") && said.contains(&format!("process {}", std::process::id())),
        "{said}"
    );

    kill(house.pid(), rustix::process::Signal::TERM);
    eventually("out of the tree", || !house.mounted());
    assert_eq!(std::io::read_to_string(&open).unwrap(), "hi\n");
    drop(open);
    eventually("the server is gone", || house.list().is_empty());

    house.ok(&["mount", "l", "m", "--upper", "u", "--work", "w"]);
    let open = fs::File::open(house.path("m/hello")).unwrap();
    house.ok(&["umount", "--lazy", "m"]);
    assert!(!house.mounted() && !house.list().is_empty());
    drop(open);
    eventually("the server is gone", || house.list().is_empty());
}

#[test]
fn what_a_killed_server_leaves_is_cleared() {
    let Some(house) = House::new() else { return };
    house.ok(&["mount", "l", "m", "--upper", "u", "--work", "w"]);
    kill(house.pid(), rustix::process::Signal::KILL);
    eventually("no longer listed", || house.list().is_empty());
    let output = house.plyfs(&["mount", "l", "m", "--upper", "u", "--work", "w"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("plyfs umount"), "{output:?}");
    house.ok(&["umount", "m"]);
    assert!(!house.mounted());
    house.ok(&["mount", "l", "m", "--upper", "u", "--work", "w"]);
    house.ok(&["umount", "m"]);
}

#[test]
fn auto_unmount_works_for_a_killed_server() {
    let Some(house) = House::new() else { return };
    house.ok(&[
        "mount",
        "l",
        "m",
        "--upper",
        "u",
        "--work",
        "w",
        "-o",
        "auto_unmount",
    ]);
    kill(house.pid(), rustix::process::Signal::KILL);
    eventually("unmounted", || !house.mounted());
}

#[test]
fn umount_of_something_else_is_refused() {
    let Some(house) = House::new() else { return };
    for (path, reason) in [
        ("m", "nothing is mounted"),
        ("/proc", "type proc"),
        ("nope", "no such directory"),
    ] {
        let output = house.plyfs(&["umount", path]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(reason), "{output:?}");
    }
}

#[test]
fn the_foreground_answers_until_a_signal() {
    let Some(house) = House::new() else { return };
    let mut child = Command::new(PLYFS)
        .args([
            "mount", "-f", "l", "m", "--upper", "u", "--work", "w", "-o", "debug",
        ])
        .current_dir(house.dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("mounted", || house.path("m/hello").exists());
    kill(child.id().try_into().unwrap(), rustix::process::Signal::INT);
    assert!(child.wait().unwrap().success());
    assert!(!house.mounted());
}

#[test]
fn debug_in_the_background_writes_a_log() {
    let Some(house) = House::new() else { return };
    let shown = house.ok(&["mount", "l", "m", "--upper", "u", "--work", "w", "-o", "debug"]);
    let log = PathBuf::from(
        shown
            .lines()
            .find_map(|line| line.strip_prefix("log "))
            .unwrap()
            .trim(),
    );
    fs::write(house.path("m/hello"), "changed").unwrap();
    house.ok(&["umount", "m"]);
    assert!(log.exists());
    fs::remove_file(log).unwrap();
}

#[test]
fn completions_and_man_pages() {
    let Some(house) = House::new() else { return };
    for shell in ["bash", "zsh", "fish"] {
        assert!(house.ok(&["completions", shell]).contains("umount"));
    }
    assert!(house.ok(&["man"]).contains(".TH plyfs 1"));
    house.ok(&["man", "--dir", "man"]);
    assert!(
        fs::read_to_string(house.path("man/plyfs-mount.1"))
            .unwrap()
            .contains("upperdir=DIR")
    );
    for command in ["mount", "umount", "list", "completions", "man"] {
        assert!(house.ok(&[command, "--help"]).contains("Examples:"), "{command}");
    }
}

/// What an ordinary user types, with a /dev/fuse that is his to use in a private mount namespace.
const AS_USER: &str = r#"
set -e; cd "$1"; export HOME="$1/home"; unset XDG_STATE_HOME; mkdir -p home run; export XDG_RUNTIME_DIR="$1/run"
$P mount l m
chmod 777 m; echo changed > m/hello; test "$(cat l/hello)" = hi
$P list | grep -q "$1/m"
if chown 1000:1000 m/hello 2>/dev/null; then
    test "$(stat -c %u:%g m/hello)" = 1000:1000
    setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'echo more >> m/hello; echo mine > m/mine'
    test "$(stat -c %u:%g m/mine)" = 1000:1000
    echo changed > m/hello
fi
sleep 5 < m/hello & user=$!; sleep 0.2
if $P umount m 2> said; then exit 10; fi
grep -q -- --lazy said
kill $user; wait $user || :
$P umount m
if grep "$1.*fuse.plyfs" /proc/self/mountinfo; then exit 11; fi
test "$($P list)" = ""
merged=$($P mount l -q); test "$(cat "$merged/hello")" = changed; $P umount "$merged"; test ! -e "$merged"
$P mount l m -q -o auto_unmount; kill -9 "$($P list --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')"
for i in 1 2 3 4 5 6 7 8 9 10; do grep -q "$1.*fuse.plyfs" /proc/self/mountinfo || break; sleep 0.2; done
if grep "$1.*fuse.plyfs" /proc/self/mountinfo; then exit 12; fi
$P mount l m -q; kill -9 "$($P list --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')"; sleep 0.2
$P umount m
if grep "$1.*fuse.plyfs" /proc/self/mountinfo; then exit 13; fi
"#;

fn as_user(enter: &str) {
    let Some(house) = House::new() else { return };
    for name in ["", "l", "u", "w", "m", "l/hello"] {
        std::os::unix::fs::chown(house.path(name), Some(65_534), Some(65_534)).unwrap();
    }
    fs::copy(PLYFS, house.path("plyfs")).unwrap();
    fs::write(house.path("as-user"), AS_USER).unwrap();
    let dir = house.dir.path().display();
    let output = house.script(&format!(
        "mkdir dev; mount -t tmpfs none dev; mknod dev/fuse c 10 229; chmod 666 dev/fuse; mount --bind dev/fuse /dev/fuse
         echo nobody:100000:65536 > dev/ids; mount --bind dev/ids /etc/subuid; mount --bind dev/ids /etc/subgid
         export P={dir}/plyfs
         exec setpriv --reuid 65534 --regid 65534 --clear-groups {enter} sh {dir}/as-user {dir}"
    ));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_ordinary_user_goes_through_fusermount3() {
    as_user("");
}

#[test]
fn a_user_namespace_mounts_by_itself() {
    as_user("unshare -Urm");
}

#[test]
fn a_range_of_mapped_ids_is_kept_apart() {
    if !Path::new("/usr/bin/newuidmap").exists() {
        eprintln!("SKIP a range of mapped ids: no newuidmap (package uidmap)");
        return;
    }
    let ranges = "--map-users=100000,1,65536 --map-groups=100000,1,65536";
    as_user(&format!("unshare -Um --map-root-user {ranges}"));
}

#[test]
fn a_closed_device_and_a_missing_helper_are_explained() {
    let Some(house) = House::new() else { return };
    fs::copy(PLYFS, house.path("plyfs")).unwrap();
    let dir = house.dir.path().display();
    let output = house.script(&format!(
        "mkdir dev; mount -t tmpfs none dev; mknod dev/fuse c 10 229; chmod 600 dev/fuse; mount --bind dev/fuse /dev/fuse
         ! setpriv --reuid 65534 --regid 65534 --clear-groups {dir}/plyfs mount l m --read-only
         chmod 666 dev/fuse; mount --bind /dev/null /usr/bin/fusermount3
         ! setpriv --reuid 65534 --regid 65534 --clear-groups {dir}/plyfs mount l m --read-only
         mount --bind /dev/null /dev/fuse; ! {dir}/plyfs mount l m --read-only"
    ));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("apt install fuse3"), "{said}");
    assert!(
        said.contains("/dev/fuse: Permission denied") && said.contains("chmod 666"),
        "{said}"
    );
}
