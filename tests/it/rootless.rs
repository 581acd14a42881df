//! Without privilege, three ways: through the setuid fusermount3; in a user namespace of one's own (`unshare -Urm`);
//! and in a user namespace with a mapped range of ids, as rootless containers have it.
//!
//! The same steps run on plyfs and on the kernel's overlay (with `userxattr`), what they print and what they leave
//! is compared. Root is needed only to set the stage: an ordinary user, named in a copy of /etc/passwd (fusermount3
//! asks for the name), and an open fuse device, both only in a private mount namespace: nothing of the machine changes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::layers::{ours_is_plyfs, run};
use crate::common::*;

pub(crate) const UID: u32 = 1001;
/// Where the mapped range begins, outside: id 1 inside is 100000.
const RANGE: u32 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// No namespace; fusermount3 mounts.
    Fusermount,
    /// `unshare -Urm`: the user is root inside, nobody else exists.
    OwnNamespace,
    /// 0 is the user, 1 and up are a range of subordinate ids.
    MappedRange,
}

impl Way {
    /// The id outside of `id` inside.
    fn outside(self, id: u32) -> u32 {
        match (self, id) {
            (Way::Fusermount, id) => id,
            (_, 0) => UID,
            (_, id) => RANGE + id - 1,
        }
    }

    /// How the user calls itself.
    fn me(self) -> u32 {
        if self == Way::Fusermount { UID } else { 0 }
    }
}

/// What every way can do. Numbers of inodes are not printed, names, owners and contents are.
const STEPS: &str = r#"
cd "$M"
say() { echo "== $*"; }
answer() { if "$@" 2>/dev/null; then say "$* ok"; else say "$* fails"; fi; }
say read; cat f; cat d/low
say write; echo more >> f; cat f
say owner; stat -c '%u:%g %a' f d d/low; echo new > made; stat -c '%u:%g %a' made; mkdir dir; stat -c '%u:%g %a' dir
say whiteouts; rm gone; rm -r gonedir; answer ls gone; answer ls gonedir; ls -A
say over them; echo again > gone; mkdir gonedir; ls -A gonedir; cat gone
say rename; mv d/low moved; answer ls d/low; mv dir d/dir; echo x > d/dir/in; mv made d/dir/made; ls -A d d/dir
answer mv group/a group/c; cat group/b
say link; ln f f2; stat -c %h f f2; echo by-f2 >> f2; tail -n 1 f
test "$(stat -c %i f)" = "$(stat -c %i f2)" && say one number || say two numbers
say symlink; ln -s f s; readlink s; chmod 600 s; stat -c %a f
say attributes; chmod 4751 f2; touch -d '1969-12-31 23:59:59.123456789 UTC' f2; stat -c '%a %y' f2
setfattr -n user.note -v kept f2; getfattr --only-values -n user.note f; echo
answer setfattr -n trusted.note -v no f2
answer mknod null c 1 3; answer mknod wh c 0 0; mkfifo fifo; stat -c %F fifo
answer chown 12345 f2; cat foreign; stat -c %a foreign
say rmdir; rm merged/*; rmdir merged; mkdir merged; ls -A merged; echo y > merged/y
say hidden; getfattr -d -m - merged d gonedir 2>/dev/null | grep -c overlay || true
"#;

/// A file of the real root, where it has an id: in a namespace its owner has none, which is a known difference.
const STEPS_FOREIGN: &str = r#"
say foreign; answer chmod 777 foreign; answer sh -c 'echo x >> foreign'; answer rm foreign; answer cat foreign
answer sh -c 'echo mine > foreign'; stat -c '%u:%g' foreign
"#;

/// More, where there are ids to give away.
const STEPS_WITH_IDS: &str = r#"
say ids; stat -c '%u:%g' theirs; cat theirs; echo more >> theirs; stat -c '%u:%g' theirs
chown 5:6 f2; stat -c '%u:%g' f2 f
mkdir -m 2775 shared; chown 0:7 shared; touch shared/new; stat -c '%u:%g' shared/new
mkdir -m 1777 tmp
setpriv --reuid 9 --regid 10 --clear-groups sh -c 'echo nine > tmp/nine; mkdir tmp/ninedir; rm f2 2>/dev/null || echo refused'
stat -c '%u:%g' tmp/nine tmp/ninedir
setpriv --reuid 9 --regid 10 --clear-groups sh -c 'cat locked 2>/dev/null || echo refused'
chown 3:4 locked; setpriv --reuid 3 --regid 4 --clear-groups cat locked
"#;

struct Stage {
    way: Way,
    layers: Layers,
    program: PathBuf,
}

fn lower(way: Way) -> Vec<Node> {
    let me = UID;
    let theirs = way.outside(5);
    let mut list = vec![
        file("f", "text\n").own(me, me),
        dir("d").own(me, me),
        file("d/low", "low\n").own(me, me).xattr("user.l", "l"),
        file("gone", "").own(me, me),
        dir("gonedir").own(me, me),
        file("gonedir/x", "").own(me, me),
        dir("merged").own(me, me),
        file("merged/a", "").own(me, me),
        file("merged/b", "").own(me, me),
        dir("group").own(me, me),
        file("group/a", "one\n").own(me, me),
        hard("group/b", "group/a"),
        // Of the real root: in the namespaces an id without a mapping.
        file("foreign", "foreign\n").mode(0o644),
        file("locked", "locked\n").own(me, me).mode(0o600),
    ];
    if way == Way::MappedRange {
        list.push(file("theirs", "theirs\n").own(theirs, theirs).mode(0o640));
    }
    list
}

impl Stage {
    fn new(way: Way) -> Self {
        let layers = Layers::new().with_lower(&lower(way));
        for path in [
            &layers.lower,
            &layers.upper,
            &layers.work,
            &layers.merged,
            &layers.base().to_path_buf(),
        ] {
            sys::chown(path, UID, UID).unwrap();
        }
        // The build directory may be closed to other users.
        let program = layers.base().join("plyfs");
        std::fs::copy(env!("CARGO_BIN_EXE_plyfs"), &program).unwrap();
        sys::chmod(&program, 0o755).unwrap();
        Stage { way, layers, program }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.layers.base().join(name);
        sys::put(&path, text).unwrap();
        sys::chown(&path, UID, UID).unwrap();
        path
    }

    /// Mount, steps, unmount, all as the user, in its namespace. Answers what was printed.
    fn perform(&self, fs: Fs, steps: &str) -> String {
        let base = self.layers.base().display();
        let options = self.layers.options(&["userxattr"]).into_string().unwrap();
        let (mount, umount) = match (fs, self.way) {
            (Fs::Plyfs, Way::Fusermount) => {
                // Its own probe finds out that `trusted.` cannot be had.
                let options = self.layers.options(&[]).into_string().unwrap();
                (
                    format!("{} \"$M\" -o {options}", self.program.display()),
                    format!("{} umount \"$M\"", self.program.display()),
                )
            }
            (Fs::Plyfs, _) => (
                format!("{} \"$M\" -o {options}", self.program.display()),
                "umount \"$M\"".into(),
            ),
            (Fs::Kernel, Way::Fusermount) => ("true".into(), "true".into()),
            (Fs::Kernel, _) => (
                format!("mount -t overlay o -o {options} \"$M\""),
                "umount \"$M\"".into(),
            ),
        };
        // The shell has to leave the view before the unmount.
        let script = format!(
            "set -eu\nexport LC_ALL=C M={base}/m HOME={base} XDG_RUNTIME_DIR={base} XDG_STATE_HOME={base}\numask 022\n\
             cd /\n{mount}\ngrep -q \" $M \" /proc/self/mountinfo\n( {steps}\n) > {base}/out\n{umount}\n"
        );
        let script = self.write("script", &script).display().to_string();
        let ids = format!("setpriv --reuid {UID} --regid {UID} --clear-groups");
        let entered = match self.way {
            Way::Fusermount => format!("{ids} sh {script}"),
            Way::OwnNamespace => format!("{ids} unshare -Urm sh {script}"),
            Way::MappedRange => {
                let inner = self.write(
                    "inner",
                    &format!(
                        "echo $$ > {base}/pid.new; mv {base}/pid.new {base}/pid\n\
                         while ! test -e {base}/go; do sleep 0.01; done\n\
                         exec setpriv --reuid 0 --regid 0 --clear-groups unshare -m sh {script}\n"
                    ),
                );
                format!(
                    "rm -f {base}/pid {base}/go; {ids} unshare -U sh {} & \
                     while ! test -e {base}/pid; do sleep 0.01; done; p=$(cat {base}/pid); \
                     printf '0 {UID} 1\\n1 {RANGE} 65536\\n' > /proc/$p/uid_map; \
                     printf '0 {UID} 1\\n1 {RANGE} 65536\\n' > /proc/$p/gid_map; touch {base}/go; wait $!",
                    inner.display()
                )
            }
        };
        let stage = format!("set -e; {} {entered}", open_device(self.layers.base(), "666"));
        let kernel = (fs == Fs::Kernel && self.way == Way::Fusermount)
            .then(|| self.layers.mount(Fs::Kernel, &["userxattr"]));
        let (status, message) =
            run(Command::new("unshare").args(["-m", "--propagation", "private", "sh", "-c", &stage]));
        drop(kernel);
        let printed = sys::text(self.layers.base().join("out")).unwrap_or_default();
        assert_eq!(
            status,
            0,
            "{:?} on {}: {message}\nprinted: {printed}",
            self.way,
            fs.name()
        );
        printed
    }

    /// What the kernel, as root, shows of these layers.
    fn seen_by_kernel(&self) -> Tree {
        let mounted = self.layers.mount(Fs::Kernel, &["userxattr"]);
        let tree = snapshot(mounted.path());
        mounted.umount();
        tree
    }
}

/// Shell commands for a private mount namespace: without its copies of the mounts of parallel tests, which they would
/// keep alive; with a fuse device of these permissions, and a name for the user.
pub(crate) fn open_device(base: &Path, mode: &str) -> String {
    let base = base.display();
    format!(
        "awk '$5 ~ /plyfs-test-/ && index($5, \"{base}/\") != 1 {{ print $5 }}' /proc/self/mountinfo | \
         while read -r copy; do umount -l \"$copy\" 2>/dev/null || :; done; \
         mkdir -p {base}/dev; mount -t tmpfs t {base}/dev; mknod {base}/dev/fuse c 10 229; chmod {mode} {base}/dev/fuse; \
         mount --bind {base}/dev/fuse /dev/fuse; cp /etc/passwd {base}/passwd; \
         getent passwd {UID} >/dev/null || echo ann:x:{UID}:{UID}::/:/bin/sh >> {base}/passwd; \
         mount --bind {base}/passwd /etc/passwd;"
    )
}

fn can_run(name: &str, way: Way) -> bool {
    if !need_root(name) {
        return false;
    }
    let works = |line: &str| run(Command::new("sh").args(["-c", line])).0 == 0;
    let missing = if !ours_is_plyfs() {
        "about plyfs"
    } else if !layers::kernel_overlay_works() {
        "needs the kernel's overlay to compare with"
    } else if !works("command -v setpriv setfattr unshare mkfifo >/dev/null") {
        "needs setpriv, unshare and setfattr"
    } else if way == Way::Fusermount && !works("command -v fusermount3 >/dev/null") {
        "needs fusermount3"
    } else if way != Way::Fusermount
        && !works(&format!(
            "setpriv --reuid {UID} --regid {UID} --clear-groups unshare -Urm true"
        ))
    {
        "this machine allows no user namespaces"
    } else {
        return true;
    };
    skip(name, missing);
    false
}

/// Both sides by one way; the answers, the uppers, and what the kernel makes of them.
fn compare(name: &str, way: Way) {
    if !can_run(name, way) {
        return;
    }
    let mut steps = String::from(STEPS);
    if way == Way::MappedRange {
        steps.push_str(STEPS_WITH_IDS);
    }
    if way == Way::Fusermount {
        steps.push_str(STEPS_FOREIGN);
    } else {
        known::difference("unmapped-owners");
    }
    let (kernel, ours) = (Stage::new(way), Stage::new(way));
    let before = tree::fingerprint(&ours.layers.lower);
    // In a user namespace the kernel shows two numbers for the names of one copied-up file; we never do.
    known::difference("rootless-numbers");
    let settle = |text: String| text.replace("== two numbers", "== one number");
    let (theirs, mine) = (
        kernel.perform(Fs::Kernel, &steps),
        ours.perform(Fs::Plyfs, &steps),
    );
    assert!(!mine.contains("two numbers"), "two numbers for one file");
    let (theirs, mine) = (settle(theirs), settle(mine));
    let mut failures = String::new();
    for (a, b) in theirs.lines().zip(mine.lines()) {
        if a != b {
            let _ = writeln!(failures, "kernel {a:?}, plyfs {b:?}");
        }
    }
    if theirs.lines().count() != mine.lines().count() {
        let _ = writeln!(failures, "kernel printed:\n{theirs}\nplyfs printed:\n{mine}");
    }
    let (a, b) = (
        snapshot(&kernel.layers.upper).into_upper(),
        snapshot(&ours.layers.upper).into_upper(),
    );
    for line in a.differences(&b, "kernel", "plyfs") {
        let _ = writeln!(failures, "upper: {line}");
    }
    // Ownership on disk, in the ids of the outside.
    let owner = sys::owner(ours.layers.upper.join("d/dir/made"));
    assert_eq!(owner, Ok((UID, UID)), "what the user made");
    if way == Way::MappedRange {
        assert_eq!(
            sys::owner(ours.layers.upper.join("f2")),
            Ok((way.outside(5), way.outside(6)))
        );
        assert_eq!(
            sys::owner(ours.layers.upper.join("tmp/nine")),
            Ok((way.outside(9), way.outside(10)))
        );
        assert_eq!(
            sys::owner(ours.layers.upper.join("theirs")),
            Ok((way.outside(5), way.outside(5)))
        );
    }
    assert_eq!(
        sys::getxattr(ours.layers.upper.join("merged"), "user.overlay.opaque"),
        Ok(b"y".to_vec())
    );
    assert!(
        mine.contains(&format!("{}:{} 644", way.me(), way.me())),
        "ownership as shown: {mine}"
    );
    // A remount, and the other side's upper (whose work directory is root's, where root mounted it).
    sys::chown(kernel.layers.work.join("work"), UID, UID).unwrap();
    let list = r#"cd "$M"; find . -printf '%P %y %m %U %G %s %n %l\n' | sort; cat f gone moved d/dir/made"#;
    let (again, taken) = (ours.perform(Fs::Plyfs, list), kernel.perform(Fs::Plyfs, list));
    if again != taken {
        let _ = writeln!(
            failures,
            "plyfs on its own upper:\n{again}\non the kernel's:\n{taken}"
        );
    }
    // The kernel takes over both.
    let (a, b) = (kernel.seen_by_kernel(), ours.seen_by_kernel());
    for line in a.differences(&b, "kernel's", "plyfs's") {
        let _ = writeln!(failures, "uppers seen by the kernel: {line}");
    }
    for line in before.differences(&tree::fingerprint(&ours.layers.lower), "planted", "afterwards") {
        let _ = writeln!(failures, "K142: {line}");
    }
    for left in ours.layers.leftovers() {
        let _ = writeln!(failures, "K123: {}", left.display());
    }
    assert!(failures.is_empty(), "{name}:\n{failures}");
}

#[test]
fn through_fusermount3() {
    compare("through_fusermount3", Way::Fusermount);
}

#[test]
fn in_a_user_namespace_of_ones_own() {
    compare("in_a_user_namespace_of_ones_own", Way::OwnNamespace);
}

#[test]
fn in_a_user_namespace_with_a_mapped_range() {
    compare("in_a_user_namespace_with_a_mapped_range", Way::MappedRange);
}

#[test]
fn only_the_owner_is_let_in_without_allow_other() {
    let name = "only_the_owner_is_let_in";
    if !can_run(name, Way::Fusermount) {
        return;
    }
    let stage = Stage::new(Way::Fusermount);
    let (base, mine) = (stage.layers.base().display(), stage.program.display());
    // Root looks in from outside the mount: refused, as with any unprivileged FUSE.
    let out = stage.perform(
        Fs::Plyfs,
        &format!("cat {base}/m/f; stat -f -c %T {base}/m; findmnt -n -o FSTYPE,OPTIONS {base}/m"),
    );
    assert!(out.starts_with("text\nfuse"), "{out}");
    assert!(
        out.contains("fuse.plyfs") && out.contains("nosuid") && out.contains("nodev"),
        "{out}"
    );
    assert!(
        out.contains(&format!("user_id={UID}")) && !out.contains("allow_other"),
        "{mine}: {out}"
    );
}

#[test]
fn a_closed_fuse_device_is_named() {
    let name = "a_closed_fuse_device_is_named";
    if !can_run(name, Way::Fusermount) {
        return;
    }
    let stage = Stage::new(Way::Fusermount);
    let said = |prepare: &str| {
        let base = stage.layers.base().display();
        let options = stage.layers.options(&[]).into_string().unwrap();
        let line = format!(
            "{prepare} exec setpriv --reuid {UID} --regid {UID} --clear-groups env HOME={base} XDG_RUNTIME_DIR={base} \
             {} {base}/m -o {options}",
            stage.program.display()
        );
        let (status, message) =
            run(Command::new("unshare").args(["-m", "--propagation", "private", "sh", "-c", &line]));
        assert_eq!(status, 1, "{message}");
        assert!(layers::mounts_below(Path::new(&base.to_string())).is_empty());
        message
    };
    let base = stage.layers.base();
    let closed = said(&open_device(base, "600"));
    assert!(closed.contains("/dev/fuse"), "{closed}");
    let helper = said(&format!(
        "{} : > {2}/empty; mount --bind {2}/empty {1};",
        open_device(base, "666"),
        "$(command -v fusermount3)",
        base.display()
    ));
    assert!(helper.contains("fusermount3"), "{helper}");
}
