//! Containers, from their birth to their end, as root and as an ordinary user.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::shop::Shop;
use crate::common::layers::{mounts_below, ours_is_plyfs, servers_of};
use crate::common::*;

const UID: u32 = 1001;

/// A store with an image `base:1`: a few of this machine's own programs.
struct Yard {
    shop: Shop,
}

/// A shell command that makes a root tree in `$1`.
const MAKE_ROOT: &str = r#"
set -e; d=$1; mkdir -p $d/bin $d/etc $d/tmp $d/root $d/srv; chmod 1777 $d/tmp
for p in sh ls cat id sleep mkdir rm touch chown chmod stat hostname env pwd kill ln mv tty; do
  f=$(command -v $p); case $f in /*) ;; *) f=/bin/$p ;; esac; cp -L $f $d/bin/$p
  ldd $f | grep -o '/[^ ]*' | while read -r l; do mkdir -p $d$(dirname $l); cp -nL $l $d$l; done
done
printf 'root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n' > $d/etc/passwd
printf 'root:x:0:\nweb:x:33:\nadm:x:4:web\n' > $d/etc/group
echo base > $d/etc/motd; echo old > $d/srv/old; ln $d/srv/old $d/srv/older
"#;

impl Yard {
    fn new() -> Self {
        let yard = Self { shop: Shop::new() };
        let archive = yard.shop.path("base.tar");
        yard.archive(&archive);
        yard.shop
            .ok(&["image", "import", "-t", "base:1", archive.to_str().unwrap()]);
        yard
    }

    /// The image's tree, with everything owned by root.
    fn archive(&self, to: &Path) {
        let root = self.shop.path("tree");
        let line = format!(
            "{MAKE_ROOT}\ntar --owner 0 --group 0 --numeric-owner -C $d -cf {} .",
            to.display()
        );
        let done = Command::new("sh")
            .args(["-c", &line, "sh"])
            .arg(&root)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        sys::chmod(to, 0o644).unwrap();
    }

    fn ok(&self, words: &[&str]) -> String {
        self.shop.ok(words).trim_end().to_owned()
    }

    /// The exit status, and what was printed on both streams.
    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        told(self.shop.run(words))
    }

    fn mount(&self, name: &str) -> PathBuf {
        self.ok(&["container", "mount", name]).into()
    }

    fn data(&self, name: &str, key: &str) -> PathBuf {
        let format = format!("{{{{ .GraphDriver.Data.{key} }}}}");
        self.ok(&["container", "inspect", "-f", &format, name]).into()
    }

    fn diff(&self, name: &str) -> String {
        self.ok(&["container", "diff", name])
    }

    /// Every first layer has its container and record, and nothing is in the making.
    fn has_no_halves(&self) {
        let list = self.ok(&["container", "ls", "-q", "--no-trunc"]);
        let mut ids: Vec<&str> = list.lines().collect();
        ids.sort_unstable();
        let first: Vec<String> = self
            .shop
            .names("overlay")
            .iter()
            .filter_map(|name| name.strip_suffix("-init").map(str::to_owned))
            .collect();
        assert_eq!(first, ids, "first layers and containers");
        assert_eq!(self.shop.names("containers"), ids, "records and containers");
        for id in ids {
            for name in ["lower-id", "upper", "work"] {
                for dir in [id.to_owned(), format!("{id}-init")] {
                    let path = self.shop.store().join("overlay").join(dir).join(name);
                    assert!(sys::exists(&path), "{}", path.display());
                }
            }
        }
        assert_eq!(self.shop.names("tmp"), [""; 0]);
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for target in mounts_below(&self.shop.path("")) {
            let _ = sys::umount(&target, libc::MNT_DETACH);
        }
        for pid in servers_of(&self.shop.path("")) {
            // SAFETY: a process whose command line names this test's own directory.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

fn told(output: Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn works(line: &str) -> bool {
    let quiet = Command::new("sh")
        .args(["-c", line])
        .stdout(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

fn can_mount(name: &str) -> bool {
    if !ours_is_plyfs() {
        skip(name, "about plyfs");
        return false;
    }
    need_root(name)
}

fn can_run(name: &str) -> bool {
    if !works("command -v crun || command -v runc") {
        skip(name, "needs crun or runc");
        return false;
    }
    can_mount(name)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < until, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The walk that users of the old driver know; `$P` is the program. Root and an ordinary user see the same.
const WALK: &str = r#"
set -eu; export LC_ALL=C
say() { echo "== $*"; }
"$P" image import -t base:1 "$T/base.tar" > /dev/null
say create; id=$("$P" container create --name one base:1 sh -c 'cat /srv/new')
"$P" container ls | sed 's/  */ /g' | cut -d' ' -f2- | sed 's/[0-9]* s ago/now/'
cd "$S/overlay"
say files; cat "$id/lower-id" > "$T/l"; test "$(cat "$id-init/lower-id")" = "$(cat "$T/l")" && test -d "$(cat "$T/l")/root" && echo both name the layer
stat -c '%a %s' "$id/lower-id"; stat -c %a "$id/upper" "$id/work"; ls "$id" "$id-init" | sed "s/$id/ID/"
(cd "$id-init/upper"; find . -printf '%P %y %m %s %l\n' | sort)
say mount; m=$("$P" container mount one 2>"$T/note"); test "$m" = "$S/overlay/$id/merged" && echo on merged
"$P" unshare sh -c "cd '$m'; ls -A; stat -c '%n %h %u:%g' bin/ls srv/old; echo new > srv/new; chown 5:6 srv/new; rm srv/older; chmod 700 tmp; echo more >> etc/motd; mkdir -p a/b"
say busy; "$P" container rm one 2>/dev/null || echo not removed; "$P" image rm base:1 2>/dev/null || echo image stays
"$P" container mount one 2>/dev/null || echo mounted once
say umount; "$P" container umount one; test -e "$m" || echo merged is gone
"$P" container umount one 2>/dev/null || echo not mounted
say diff; "$P" container diff one
say commit; "$P" container commit -m 'a note' --change 'ENV A=1' one base:2 | cut -c1-7
"$P" image history base:2 | sed -n '2s/.* a note/a note/p'
r1=$("$P" image inspect -f '{{ .GraphDriver.Data.RootDir }}' base:1); r2=$("$P" image inspect -f '{{.GraphDriver.Data.RootDir}}' base:2)
"$P" unshare sh -c "test \$(stat -c %i '$r1/bin/ls') = \$(stat -c %i '$r2/bin/ls') && echo one inode; ls '$r2/srv'; stat -c %u:%g '$r2/srv/new'; cat '$r1/etc/motd'; ls -A '$r2/etc' '$r2/dev' 2>&1 | sed \"s|$r2||\""
say again; "$P" container create --name two base:2 sh > /dev/null; m=$("$P" container mount two 2>/dev/null)
"$P" unshare sh -c "cd '$m'; cat srv/new etc/motd; stat -c '%h' bin/ls; ls srv"; "$P" container umount two; "$P" container diff two
say end; "$P" container rm one two; "$P" container ls -q; "$P" image rm base:2 base:1 > /dev/null; ls "$S/overlay" "$S/containers" "$S/tmp" | sed "s|$S||"
"#;

const WALKED: &str = "\
== create
IMAGE COMMAND CREATED STATUS NAME
base:1 sh -c cat /srv/new now created one
== files
both name the layer
600 64
755
700
ID:
lower-id
upper
work

ID-init:
lower-id
upper
work
 d 755 4096 
.dockerenv f 755 0 
dev d 755 4096 
dev/console f 755 0 
dev/pts d 755 4096 
dev/shm d 755 4096 
etc d 755 4096 
etc/hostname f 755 0 
etc/hosts f 755 0 
etc/mtab l 777 12 /proc/mounts
etc/resolv.conf f 755 0 
proc d 755 4096 
sys d 755 4096 
== mount
on merged
.dockerenv
bin
dev
etc
lib
lib64
proc
root
srv
sys
tmp
bin/ls 1 0:0
srv/old 2 0:0
== busy
not removed
image stays
mounted once
== umount
merged is gone
not mounted
== diff
A /a
A /a/b
C /etc
C /etc/motd
C /srv
A /srv/new
D /srv/older
C /tmp
== commit
sha256:
a note
one inode
new
old
5:6
base
group
motd
passwd
== again
new
base
more
1
new
old
";

/// Runs a script as root, or as an ordinary user on a stage of its own: names and subordinate ids for the user, and an
/// open fuse device, all in a private mount namespace.
fn on_stage(yard: &Yard, user: bool, script: &str, prepare: &str) -> (Option<i32>, String, String) {
    let home = yard.shop.path(if user { "home" } else { "roothome" });
    std::fs::create_dir_all(&home).unwrap();
    sys::chmod(yard.shop.path(""), 0o755).unwrap();
    // The build directory may be closed to other users.
    let program = yard.shop.path("plyfs");
    if !program.exists() {
        std::fs::copy(super::shop::PLYFS, &program).unwrap();
        sys::chmod(&program, 0o755).unwrap();
    }
    let store = home.join("store");
    let script = yard.shop.file("script", script);
    sys::chmod(&script, 0o644).unwrap();
    let base = yard.shop.path("");
    let base = base.display().to_string();
    let base = base.trim_end_matches('/');
    let as_user = if user {
        sys::chown(&home, UID, UID).unwrap();
        format!("setpriv --reuid {UID} --regid {UID} --clear-groups")
    } else {
        String::new()
    };
    let line = format!(
        "set -e; mkdir -p {base}/dev; mount -t tmpfs t {base}/dev; mknod {base}/dev/fuse c 10 229; \
         chmod 666 {base}/dev/fuse; mount --bind {base}/dev/fuse /dev/fuse; \
         cp /etc/passwd {base}/passwd; getent passwd {UID} >/dev/null || echo ann:x:{UID}:{UID}::/:/bin/sh >> {base}/passwd; \
         mount --bind {base}/passwd /etc/passwd; touch /etc/subuid /etc/subgid; \
         echo \"$(getent passwd {UID} | cut -d: -f1):100000:65536\" > {base}/subid; \
         mount --bind {base}/subid /etc/subuid; mount --bind {base}/subid /etc/subgid; {prepare} cd {home}; \
         exec {as_user} env HOME={home} XDG_RUNTIME_DIR= XDG_DATA_HOME= T={home} S={store} PLYFS_ROOT={store} P={program} \
         sh {script}",
        home = home.display(),
        store = store.display(),
        program = program.display(),
        script = script.display(),
    );
    std::fs::copy(yard.shop.path("base.tar"), home.join("base.tar")).unwrap();
    told(
        Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &line])
            .stdin(Stdio::null())
            .env_remove("RUST_LOG")
            .output()
            .unwrap(),
    )
}

fn can_be_a_user(name: &str) -> bool {
    if !can_mount(name) {
        return false;
    }
    let namespaces = format!("setpriv --reuid {UID} --regid {UID} --clear-groups unshare -Ur true");
    if !works("command -v newuidmap && command -v setpriv") || !works(&namespaces) {
        skip(name, "needs newuidmap, setpriv and user namespaces");
        return false;
    }
    true
}

fn walk(name: &str, user: bool) {
    if !(if user {
        can_be_a_user(name)
    } else {
        can_mount(name)
    }) {
        return;
    }
    let yard = Yard::new();
    let (status, printed, errors) = on_stage(&yard, user, WALK, "");
    assert_eq!(status, Some(0), "{printed}\n{errors}");
    let (walked, end) = printed.split_once("== end\n").expect(&printed);
    // Directories have other sizes on other file systems.
    let plain = |text: &str| text.replace(" 4096 ", " - ");
    assert_eq!(plain(walked), plain(WALKED), "{errors}");
    let listed = end
        .lines()
        .filter(|line| !matches!(*line, "one" | "two" | "" | "/overlay:" | "/containers:" | "/tmp:"));
    assert_eq!(listed.collect::<Vec<_>>(), [""; 0], "left over");
}

#[test]
fn the_walk_as_root() {
    walk("the_walk_as_root", false);
}

#[test]
fn the_walk_as_an_ordinary_user() {
    walk("the_walk_as_an_ordinary_user", true);
}

const RUNS: &str = r#"
set -u; export LC_ALL=C
say() { echo "== $*"; }
run() { "$P" container run --rm "$@" 2>"$T/err"; echo "[$?]"; }
"$P" image import -t base:1 "$T/base.tar" > /dev/null
say status; run base:1 true; run base:1 sh -c 'exit 7'; run base:1 nix; run base:1 /etc/motd; run none:1 true; run base:1; run base:1 sh -c 'kill -9 $$; sleep 9'
say ids; run base:1 id; run -u web base:1 id; run -u 7:web base:1 id -g; run -u none base:1 id
say settings; run -e A=1 -e B -w /srv --hostname box base:1 sh -c 'pwd; hostname; echo $A$HOME; cat /etc/hostname'
run --entrypoint /bin/ls base:1 /srv
say stdin; echo text | run -i base:1 cat; echo text | run base:1 cat; run -t base:1 true
say volume; mkdir -p "$T/v"; echo vol > "$T/v/f"
run -v "$T/v:/v" base:1 sh -c 'cat /v/f; echo more >> /v/f'; run -v "$T/v:/v:ro" base:1 sh -c 'cat /v/f; echo x >> /v/f 2>/dev/null || echo refused'
say network; run --network none base:1 sh -c 'ls /sys/class/net'
say root; run --read-only base:1 sh -c 'touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo tmpfs'
run base:1 sh -c 'touch /x; chown 33:33 /x; stat -c %u:%g /x; test -c /dev/null && echo > /dev/null && echo device; echo $$'
say start; "$P" container create --name again base:1 sh -c 'echo x >> /count; cat /count' > /dev/null
"$P" container start again; "$P" container start again; "$P" container diff again; "$P" container inspect -f '{{.State.Status}} {{.State.ExitCode}}' again; "$P" container rm again
say left; "$P" container ls -q; ls "$S/tmp"
"#;

const RAN: &str = "\
== status
[0]
[7]
[127]
[126]
[125]
[125]
[137]
== ids
uid=0(root) gid=0(root) groups=0(root)
[0]
uid=33(web) gid=33(web) groups=33(web),4(adm)
[0]
33
[0]
[125]
== settings
/srv
box
1/root
box
[0]
old
older
[0]
== stdin
text
[0]
[0]
[125]
== volume
vol
[0]
vol
more
refused
[0]
== network
lo
[0]
== root
refused
tmpfs
[0]
33:33
device
1
[0]
== start
x
x
x
A /count
exited 0
again
== left
";

fn runs(name: &str, user: bool) {
    if !can_run(name) || user && !can_be_a_user(name) {
        return;
    }
    let yard = Yard::new();
    let (status, printed, errors) = on_stage(&yard, user, RUNS, "");
    assert_eq!(status, Some(0), "{printed}\n{errors}");
    assert_eq!(printed, RAN, "{errors}");
}

#[test]
fn commands_run_as_root() {
    runs("commands_run_as_root", false);
}

#[test]
fn commands_run_as_an_ordinary_user() {
    runs("commands_run_as_an_ordinary_user", true);
}

#[test]
fn what_is_missing_is_named() {
    let name = "what_is_missing_is_named";
    if !can_be_a_user(name) {
        return;
    }
    let yard = Yard::new();
    let said = |script: &str, prepare: &str| {
        let (status, _, errors) = on_stage(&yard, true, script, prepare);
        assert_ne!(status, Some(0), "{script}");
        errors
    };
    let ls = "\"$P\" container ls";
    let hide = |program: &str| format!("mount --bind /dev/null $(command -v {program});");
    let ids = said(
        ls,
        "umount /etc/subuid; : > /tmp/empty-$$; mount --bind /dev/null /etc/subuid;",
    );
    assert!(
        ids.contains("/etc/subuid") && ids.contains("usermod --add-subuids"),
        "{ids}"
    );
    let helper = said(ls, &hide("newuidmap"));
    assert!(helper.contains("apt install uidmap"), "{helper}");
    let run = "\"$P\" image import -t base:1 \"$T/base.tar\" >/dev/null && \"$P\" container run base:1 true";
    let device = said(run, "chmod 600 /dev/fuse;");
    assert!(device.contains("/dev/fuse"), "{device}");
    let runtime = said(
        run,
        "for p in crun runc; do r=$(command -v $p) && mount --bind /dev/null $r; done;",
    );
    assert!(runtime.contains("apt install crun"), "{runtime}");
}

#[test]
fn what_every_container_is_given_is_no_change_unless_it_was_changed() {
    if !can_mount("what_every_container_is_given_is_no_change") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "one", "base:1"]);
    assert_eq!(yard.diff("one"), "");
    let m = yard.mount("one");
    sys::cat(m.join("etc/hosts")).unwrap();
    sys::put(m.join("etc/hosts"), "127.0.0.1 me\n").unwrap();
    sys::unlink(m.join("etc/mtab")).unwrap();
    sys::chmod(m.join("dev/shm"), 0o700).unwrap();
    yard.ok(&["container", "umount", "one"]);
    assert_eq!(
        yard.diff("one"),
        "C /dev\nC /dev/shm\nC /etc\nC /etc/hosts\nD /etc/mtab"
    );
    let lines: serde_json::Value = yard.shop.json(&["container", "diff", "--json", "one"]);
    assert_eq!(lines[3]["change"], "C");
    assert_eq!(lines[3]["path"], "/etc/hosts");
    // An edit of the same size within the same second, with the old time put back.
    yard.ok(&["container", "create", "--name", "two", "base:1"]);
    let m = yard.mount("two");
    let old = sys::mtime(m.join("etc/motd")).unwrap();
    sys::put(m.join("etc/motd"), "bass\n").unwrap();
    sys::utimens(m.join("etc/motd"), old, old).unwrap();
    yard.ok(&["container", "umount", "two"]);
    assert_eq!(yard.diff("two"), "C /etc\nC /etc/motd");
}

#[test]
fn names_and_ids() {
    if !can_mount("names_and_ids") {
        return;
    }
    let yard = Yard::new();
    let id = yard.ok(&["container", "create", "--name", "one", "base:1"]);
    let (status, _, said) = yard.run(&["container", "create", "--name", "one", "base:1"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("taken by container"), "{said}");
    let (status, _, said) = yard.run(&["container", "create", "--name", "o/e", "base:1"]);
    assert_eq!(status, Some(2), "{said}");
    yard.ok(&["container", "create", "base:1"]);
    let named = yard.ok(&["container", "inspect", "-f", "{{ .Name }}", &id[..12]]);
    assert_eq!(named, "/one");
    let (status, _, said) = yard.run(&["container", "inspect", "nobody"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("no such container: nobody"), "{said}");
    let list = yard.shop.json(&["container", "ls", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[1]["name"], "one");
    assert_eq!(list[1]["status"], "created");
    for key in ["LowerDir", "UpperDir", "WorkDir"] {
        assert!(yard.data("one", key).is_dir(), "{key}");
    }
    assert!(!yard.data("one", "MergedDir").exists());
    let json = yard.ok(&["container", "inspect", "-f", "{{json .GraphDriver.Data }}", "one"]);
    assert!(json.starts_with('{') && json.contains("\"UpperDir\":"), "{json}");
    yard.has_no_halves();
}

#[test]
fn a_mount_in_use_keeps_everything_and_a_killed_one_frees_it() {
    if !can_mount("a_mount_in_use_keeps_everything") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "one", "base:1"]);
    let m = yard.mount("one");
    sys::put(m.join("srv/kept"), "kept\n").unwrap();
    for words in [&["container", "rm", "one"][..], &["image", "rm", "base:1"]] {
        let (status, _, said) = yard.run(words);
        assert_eq!(status, Some(1), "{said}");
    }
    let server = servers_of(&yard.shop.path(""))
        .into_iter()
        .find(|pid| Path::new(&format!("/proc/{pid}")).exists())
        .expect("a server");
    // SAFETY: the server of this test's own mount.
    unsafe { libc::kill(server, libc::SIGKILL) };
    wait_until("the lock of a killed server", || {
        let list = yard.shop.json(&["container", "ls", "--json"]);
        list[0]["mounted"] == false
    });
    // A dead mount lies on merged; the next mount clears it, and finds what was written.
    let again = yard.mount("one");
    assert_eq!(again, m);
    assert_eq!(sys::text(m.join("srv/kept")).unwrap(), "kept\n");
    let server = servers_of(&yard.shop.path("")).pop().unwrap();
    // SAFETY: as above.
    unsafe { libc::kill(server, libc::SIGKILL) };
    wait_until("the removal after a killed server", || {
        yard.run(&["container", "rm", "one"]).0 == Some(0)
    });
    assert_eq!(mounts_below(&yard.shop.path("")), [PathBuf::new(); 0]);
    yard.ok(&["image", "rm", "base:1"]);
    yard.has_no_halves();
}

#[test]
fn force_ends_whatever_goes_on() {
    if !can_run("force_ends_whatever_goes_on") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "mounted", "base:1"]);
    yard.mount("mounted");
    yard.ok(&["container", "rm", "--force", "mounted"]);
    let mut running = yard
        .shop
        .spawn(&["container", "run", "--name", "running", "base:1", "sleep", "1000"]);
    wait_until("a running container", || {
        let list = yard.shop.json(&["container", "ls", "--json"]);
        list[0]["status"] == "running"
    });
    let (status, _, said) = yard.run(&["container", "rm", "running"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("is running"), "{said}");
    let (status, _, said) = yard.run(&["container", "mount", "running"]);
    assert_eq!(status, Some(1), "{said}");
    yard.ok(&["container", "rm", "--force", "running"]);
    assert_eq!(running.wait().unwrap().code(), Some(137));
    yard.has_no_halves();
}

#[test]
fn a_signal_reaches_the_command_and_a_kill_ends_it() {
    if !can_run("a_signal_reaches_the_command") {
        return;
    }
    let yard = Yard::new();
    let running = |name: &'static str| {
        move |yard: &Yard| {
            let state = yard.run(&["container", "inspect", "-f", "{{ .State.Status }}", name]);
            state.1 == "running\n"
        }
    };
    let script = "trap 'exit 5' TERM; while :; do sleep 0.05; done";
    let mut child = yard
        .shop
        .spawn(&["container", "run", "--name", "trap", "base:1", "sh", "-c", script]);
    wait_until("a running container", || running("trap")(&yard));
    std::thread::sleep(Duration::from_millis(200));
    // SAFETY: a child of this test.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert_eq!(child.wait().unwrap().code(), Some(5));
    // Killed itself, it takes the command along, and leaves nothing that is in the way.
    let mut child = yard
        .shop
        .spawn(&["container", "run", "--name", "kill", "base:1", "sleep", "1234.5"]);
    wait_until("a running container", || running("kill")(&yard));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of the command", || {
        let state = yard.ok(&[
            "container",
            "inspect",
            "-f",
            "{{ .State.Status }} {{ .State.ExitCode }}",
            "kill",
        ]);
        state == "exited 137"
    });
    assert!(!works("pgrep -fx 'sleep 1234.5'"), "the command is still there");
    assert_eq!(yard.ok(&["container", "start", "trap"]).len(), 0, "unreachable");
}

#[test]
fn an_export_is_the_merged_tree() {
    if !can_mount("an_export_is_the_merged_tree") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "one", "base:1"]);
    let m = yard.mount("one");
    sys::put(m.join("srv/new"), "new\n").unwrap();
    sys::unlink(m.join("bin/tty")).unwrap();
    let out = yard.shop.path("out.tar");
    yard.ok(&["container", "export", "-o", out.to_str().unwrap(), "one"]);
    let unpacked = yard.shop.path("unpacked");
    sys::mkdir(&unpacked, 0o755).unwrap();
    let done = Command::new("tar")
        .arg("-xpf")
        .arg(&out)
        .arg("-C")
        .arg(&unpacked)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    let fields = ["ino", "ctime", "nlink", "atime"];
    let (theirs, mine) = (
        snapshot(&m).without(&fields),
        snapshot(&unpacked).without(&fields),
    );
    assert_eq!(theirs.differences(&mine, "merged", "exported"), [""; 0]);
    yard.ok(&["container", "umount", "one"]);
    // Not mounted: the same, and nothing is mounted afterwards.
    let again = yard.shop.run(&["container", "export", "one"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(again.stdout, std::fs::read(&out).unwrap());
    assert_eq!(mounts_below(&yard.shop.path("")), [PathBuf::new(); 0]);
    assert!(!yard.data("one", "MergedDir").exists());
}

#[test]
fn a_commit_fails_whole_or_is_whole() {
    if !can_mount("a_commit_fails_whole_or_is_whole") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "one", "base:1"]);
    let m = yard.mount("one");
    sys::put(m.join("etc/motd"), "changed\n").unwrap();
    std::os::unix::net::UnixListener::bind(m.join("srv/socket")).unwrap();
    yard.ok(&["container", "umount", "one"]);
    let layers = yard.shop.names("overlay").len();
    let (status, _, said) = yard.run(&["container", "commit", "--change", "RUN ls", "one", "bad:1"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("--change"), "{said}");
    assert_eq!(yard.shop.names("overlay").len(), layers);
    let (status, id, said) = yard.run(&[
        "container",
        "commit",
        "-a",
        "me",
        "-m",
        "why",
        "--change",
        "CMD [\"ls\", \"/srv\"]",
        "one",
        "new:1",
    ]);
    assert_eq!(status, Some(0), "{said}");
    assert!(id.starts_with("sha256:"), "{id}");
    assert!(said.contains("/srv/socket"), "what was left out is told: {said}");
    let image = yard.shop.json(&["image", "inspect", "new:1"]);
    assert_eq!(image[0]["Config"]["Cmd"], serde_json::json!(["ls", "/srv"]));
    assert_eq!(image[0]["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let root = yard.shop.root_of("new:1");
    assert_eq!(sys::text(root.join("etc/motd")).unwrap(), "changed\n");
    assert_eq!(
        sys::ino(root.join("bin/ls")),
        sys::ino(yard.shop.root_of("base:1").join("bin/ls"))
    );
    // Nothing to add: an empty layer, as in docker.
    yard.ok(&["container", "create", "--name", "two", "new:1"]);
    yard.ok(&["container", "commit", "two", "new:2"]);
    let image = yard.shop.json(&["image", "inspect", "new:2"]);
    assert_eq!(image[0]["RootFS"]["Layers"].as_array().unwrap().len(), 3);
    yard.ok(&["container", "rm", "one", "two"]);
}

/// Whatever is killed, at whatever moment: the store opens, nothing is half there, and the same command succeeds.
#[test]
fn killed_at_any_moment() {
    if !can_mount("killed_at_any_moment") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "kept", "base:1"]);
    let m = yard.mount("kept");
    for number in 0..200 {
        sys::put(m.join(format!("srv/{number}")), format!("{number}\n")).unwrap();
    }
    yard.ok(&["container", "umount", "kept"]);
    let mut step = Duration::ZERO;
    for round in 0..30 {
        step += Duration::from_micros(700);
        let name = format!("c{round}-x");
        let tag = format!("image:{round}");
        let commands: [&[&str]; 3] = [
            &["container", "create", "--name", &name, "base:1"],
            &["container", "commit", "kept", &tag],
            &["container", "rm", &name],
        ];
        for words in commands {
            let mut child = yard.shop.spawn(words);
            std::thread::sleep(step);
            child.kill().unwrap();
            child.wait().unwrap();
            yard.has_no_halves();
            let (status, _, said) = yard.run(words);
            let done = said.contains("is taken by") || said.contains("no such container");
            assert!(status == Some(0) || done, "{words:?} after {step:?}: {said}");
            yard.has_no_halves();
        }
        if round % 10 == 9 {
            yard.ok(&["system", "check"]);
        }
    }
    yard.ok(&["container", "rm", "kept"]);
}
