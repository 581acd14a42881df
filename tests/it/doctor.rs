//! `plyfs doctor` where things are taken away: each loss changes what it says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::common::{need_root, skip, sys};
use crate::rootless::{UID, open_device};

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");

/// A place with the program in it that an ordinary user can run.
struct Ward {
    dir: tempfile::TempDir,
}

/// What was said, and the exit status.
struct Said {
    status: i32,
    report: Value,
}

impl Said {
    fn of(output: &Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            report: serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}")),
        }
    }

    fn check(&self, name: &str) -> &Value {
        let found = self.report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no check {name}: {}", self.report))
    }

    fn is(&self, name: &str, status: &str) -> &str {
        let check = self.check(name);
        assert_eq!(check["status"], status, "{check}");
        // Everything that is not as it should be is explained.
        assert!(
            status == "ok" || check["means"].as_str().is_some_and(|means| !means.is_empty()),
            "{check}"
        );
        check["found"].as_str().unwrap()
    }

    fn remedy(&self, name: &str) -> &str {
        let check = self.check(name);
        check["remedy"]
            .as_str()
            .unwrap_or_else(|| panic!("no remedy: {check}"))
    }

    fn ends(&self, way: &str, status: i32) -> &Self {
        assert_eq!(
            (self.report["way"].as_str(), self.status),
            (Some(way), status),
            "{}",
            self.report
        );
        self
    }
}

impl Ward {
    fn new(name: &str) -> Option<Self> {
        if !need_root(name) {
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("plyfs-test-doctor-")
            .tempdir()
            .unwrap();
        fs::copy(PLYFS, dir.path().join("plyfs")).unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        for name in ["", "plyfs", "home", "tmp"] {
            let path = dir.path().join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            sys::chown(&path, UID, UID).unwrap();
        }
        Some(Self { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a script in a private mount namespace, with a fuse device of this mode and the user `ann`; `$B` is this place,
    /// `$USER` makes a command the user's, and `$DOCTOR` is `plyfs doctor --json`.
    fn run(&self, mode: &str, script: &str) -> Output {
        let base = self.path().display();
        let stage = format!("set -e; {} {script}", open_device(self.path(), mode));
        Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &stage])
            .env("B", self.path())
            .env(
                "USER",
                format!("setpriv --reuid {UID} --regid {UID} --clear-groups"),
            )
            .env("DOCTOR", format!("{base}/plyfs doctor --json"))
            .env("HOME", self.path().join("home"))
            .env("TMPDIR", self.path().join("tmp"))
            .env("XDG_RUNTIME_DIR", self.path().join("tmp"))
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_DATA_HOME")
            .current_dir(self.path().join("home"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ask(&self, mode: &str, script: &str) -> Said {
        Said::of(&self.run(mode, script))
    }

    /// Nothing is left of what was tried.
    fn is_clean(&self) {
        for name in ["home", "tmp"] {
            let left: Vec<_> = fs::read_dir(self.path().join(name))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| !path.ends_with("plyfs"))
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains("plyfs-doctor-"), "{table}");
    }
}

/// fusermount3 is no file any more.
const NO_HELPER: &str =
    "for f in /usr/bin/fusermount3 /bin/fusermount3; do test ! -f $f || mount --bind /dev/null $f; done;";

#[test]
fn root_and_an_ordinary_user() {
    let Some(ward) = Ward::new("doctor, root and user") else {
        return;
    };
    let root = ward.ask("600", "$DOCTOR");
    root.ends("itself", 0);
    for name in [
        "/dev/fuse",
        "mount",
        "as an upper",
        "whiteouts",
        "system calls",
        "open files",
    ] {
        root.is(name, "ok");
    }
    assert_eq!(root.report["uid"], 0);
    ward.is_clean();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(root.report["kernel"], kernel.trim());

    // The device is open to everybody.
    let user = ward.ask("666", "$USER $DOCTOR");
    user.ends("fusermount3", 0);
    assert!(user.is("fusermount3", "ok").contains("setuid root"));
    user.is("passthrough", "limited");
    user.is("mount in a user namespace", "ok");
    user.is("user namespaces", "ok");
    assert!(user.is("as an upper", "ok").contains("user.overlay"));
    assert_eq!(user.report["uid"], UID);
    ward.is_clean();

    // It is root's alone.
    let user = ward.ask("600", "$USER $DOCTOR");
    user.ends("no", 1);
    user.is("/dev/fuse", "missing");
    assert!(user.remedy("/dev/fuse").contains("chmod 666"));
    assert!(user.is("mount", "missing").contains("/dev/fuse"));
    user.is("mount in a user namespace", "missing");
    ward.is_clean();

    // For people: the same verdict first.
    let told = ward.run("600", &format!("$USER {}/plyfs doctor", ward.path().display()));
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(1));
    assert!(
        text.starts_with("Views cannot be mounted by this user.\n"),
        "{text}"
    );
    assert!(text.contains("-> chmod 666 /dev/fuse"), "{text}");
}

#[test]
fn without_the_device_or_the_helper() {
    let Some(ward) = Ward::new("doctor, things taken away") else {
        return;
    };
    // No device at all, or another one under its name.
    let gone = "umount /dev/fuse; mount -t tmpfs t $B/home; cp -a /dev/null $B/home/; for n in tty zero urandom; do cp -a /dev/$n \
                $B/home/; done; mount --bind $B/home /dev;";
    let said = ward.ask("666", &format!("{gone} $DOCTOR --dir /"));
    said.ends("no", 1);
    said.is("/dev/fuse", "missing");
    assert!(said.remedy("/dev/fuse").contains("mknod"));
    let said = ward.ask("666", "mount --bind /dev/null /dev/fuse; $DOCTOR");
    said.ends("no", 1);
    assert!(said.is("/dev/fuse", "missing").contains("10:229"));

    // No helper: only a user namespace is left; root needs none.
    let said = ward.ask("666", &format!("{NO_HELPER} $USER $DOCTOR"));
    said.ends("namespace", 0);
    assert!(said.remedy("fusermount3").contains("apt install fuse3"));
    said.is("mount", "limited");
    let said = ward.ask("666", &format!("{NO_HELPER} $DOCTOR"));
    said.ends("itself", 0).is("fusermount3", "ok");
    // A helper that is not setuid, and one without effect.
    let said = ward.ask(
        "666",
        "cp /usr/bin/fusermount3 $B/plain; chmod 755 $B/plain; mount --bind $B/plain /usr/bin/fusermount3; $USER $DOCTOR",
    );
    said.ends("namespace", 0);
    assert!(said.is("fusermount3", "missing").contains("not setuid"));
    let said = ward.ask("666", "$USER --no-new-privs $DOCTOR");
    said.ends("namespace", 0);
    assert!(said.is("fusermount3", "missing").contains("no_new_privs"));
    said.is("a namespace with these ids", "missing");
    // Who may look: a file of this namespace.
    let said = ward.ask(
        "666",
        "echo user_allow_other >$B/conf; mount --bind $B/conf /etc/fuse.conf; $USER $DOCTOR",
    );
    said.is("allow_other", "ok");
    let said = ward.ask(
        "666",
        "echo '# user_allow_other' >$B/conf; mount --bind $B/conf /etc/fuse.conf; $USER $DOCTOR",
    );
    assert!(said.is("allow_other", "limited").contains("user_allow_other"));
    ward.is_clean();
}

#[test]
fn without_namespaces_or_ids() {
    let Some(ward) = Ward::new("doctor, namespaces") else {
        return;
    };
    // A limit that counts inside of a namespace of the test's own.
    let said = ward.ask(
        "666",
        "exec env TMPDIR=/tmp unshare -Urm sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; exec $DOCTOR'",
    );
    assert!(
        said.is("user namespaces", "missing")
            .contains("max_user_namespaces is 0")
    );
    assert!(
        said.remedy("user namespaces")
            .starts_with("sysctl user.max_user_namespaces=")
    );
    said.is("mount in a user namespace", "missing");
    said.ends("itself", 0).is("passthrough", "limited");

    // In another root directory the kernel makes none; and then, without the helper, there is no way at all.
    let chroot = format!(
        "mkdir $B/root; mount --rbind / $B/root; exec chroot --userspec={UID}:{UID} $B/root sh -c 'cd /; exec $DOCTOR --dir $B/home'"
    );
    let said = ward.ask("666", &chroot);
    said.ends("fusermount3", 0).is("user namespaces", "missing");
    fs::remove_dir(ward.path().join("root")).unwrap();
    let said = ward.ask("666", &format!("{NO_HELPER} {chroot}"));
    said.ends("no", 1).is("mount", "missing");
    fs::remove_dir(ward.path().join("root")).unwrap();

    // Subordinate ids: a range, a short one, none, and no program to use them.
    if !Path::new("/usr/bin/newuidmap").exists() {
        return skip("doctor, subordinate ids", "needs uidmap");
    }
    let ids = |line: &str| {
        format!(
            "printf '{line}' >$B/ids; mount --bind $B/ids /etc/subuid; mount --bind $B/ids /etc/subgid; $USER $DOCTOR"
        )
    };
    let said = ward.ask("666", &ids(&format!("{UID}:100000:65536\\n")));
    said.is("subordinate ids", "ok");
    said.is("a namespace with these ids", "ok");
    let said = ward.ask("666", &ids(&format!("{UID}:100000:1000\\n")));
    assert!(
        said.is("subordinate ids", "limited")
            .contains("1000 user and 1000 group ids")
    );
    let said = ward.ask("666", &ids(""));
    said.is("subordinate ids", "missing");
    said.is("a namespace with these ids", "missing");
    assert!(said.remedy("subordinate ids").contains("--add-subuids"));
    let said = ward.ask(
        "666",
        &format!(
            "mount --bind /dev/null /usr/bin/newgidmap; {}",
            ids(&format!("{UID}:100000:65536\\n"))
        ),
    );
    assert!(said.remedy("newuidmap, newgidmap").contains("apt install uidmap"));
    said.is("a namespace with these ids", "missing");
    ward.is_clean();
}

/// A fresh ext4 with these features, on `$B/fs`.
fn ext4(features: &str) -> String {
    format!(
        "mkdir -p $B/fs; truncate -s 32M $B/image; mkfs.ext4 -q -F -O '{features}' $B/image; mount -o loop $B/image $B/fs; \
         rmdir $B/fs/lost+found;"
    )
}

#[test]
fn file_systems_that_lack_something() {
    let Some(ward) = Ward::new("doctor, file systems") else {
        return;
    };
    let good = ward.ask("600", &format!("{} $DOCTOR --dir $B/fs", ext4("ext_attr")));
    assert_eq!(good.is("file system", "ok"), "ext4");
    for name in [
        "as an upper",
        "extended attributes",
        "types of entries",
        "whiteouts",
        "hard links",
        "room",
        "names",
    ] {
        good.is(name, "ok");
    }
    assert!(good.is("hard links", "ok").contains("65000"));
    assert_eq!(
        good.check("room")["directory"],
        *ward.path().join("fs").to_str().unwrap()
    );

    let said = ward.ask("600", &format!("{} $DOCTOR --dir $B/fs", ext4("^filetype")));
    said.is("types of entries", "missing");
    assert!(said.is("as an upper", "missing").contains("d_type"));
    // Full.
    let said = ward.ask(
        "600",
        &format!(
            "{} fallocate -l 25M $B/fs/big || :; $DOCTOR --dir $B/fs",
            ext4("ext_attr")
        ),
    );
    said.is("room", "limited");
    // Only to look at; the directory does not exist yet.
    let said = ward.ask(
        "600",
        &format!(
            "{} mount -o remount,ro $B/fs; $DOCTOR --dir $B/fs/not/yet",
            ext4("ext_attr")
        ),
    );
    said.is("as an upper", "limited");
    // No place for an upper: a merged view, and memory without attributes.
    let said = ward.ask(
        "600",
        "mkdir $B/a $B/b $B/c; mount -t tmpfs t $B/a; mkdir $B/a/u $B/a/w; \
         mount -t overlay o -o lowerdir=$B/b,upperdir=$B/a/u,workdir=$B/a/w $B/c; $DOCTOR --dir $B/c",
    );
    assert!(said.is("as an upper", "missing").contains("itself a merged view"));
    let said = ward.ask("600", "mkdir $B/r; mount -t ramfs r $B/r; $DOCTOR --dir $B/r");
    assert_eq!(said.is("file system", "ok"), "ramfs");
    said.ends("itself", 0).is("extended attributes", "missing");
    assert!(said.is("as an upper", "missing").contains("extended attributes"));
    // Of another user, who may not write there.
    let said = ward.ask(
        "666",
        "mkdir $B/closed; chmod 755 $B/closed; $USER $DOCTOR --dir $B/closed",
    );
    said.ends("fusermount3", 0).is("as an upper", "limited");
    let said = ward.ask("666", "chmod 700 $B/closed; $USER $DOCTOR --dir $B/closed");
    said.is("file system", "missing");
}

#[test]
fn small_things() {
    let Some(ward) = Ward::new("doctor, small things") else {
        return;
    };
    // No place for the attempts.
    let said = ward.ask("600", "TMPDIR=/nonexistent $DOCTOR");
    said.ends("no", 1);
    assert!(said.remedy("mount").contains("TMPDIR="));
    // Few descriptors; no say in the sleep of processors.
    let said = ward.ask("666", "ulimit -n 1024; $USER $DOCTOR");
    assert!(said.is("open files", "limited").contains("1024"));
    said.is("/dev/cpu_dma_latency", "limited");
    // An engine whose mount program is gone, one that mounts by plyfs, and a configuration that is none.
    if !Path::new("/usr/bin/podman").exists() {
        return skip("doctor, engines", "needs podman");
    }
    let conf = |program: &str| {
        format!(
            "printf '[storage]\\ndriver = \"overlay\"\\n[storage.options.overlay]\\nmount_program = \"{program}\"\\n' \
             >$B/conf; export CONTAINERS_STORAGE_CONF=$B/conf; $DOCTOR"
        )
    };
    let said = ward.ask("600", &conf("/nonexistent/fuse-overlayfs"));
    said.is("podman", "missing");
    assert_eq!(said.remedy("podman"), "plyfs engine setup podman");
    let said = ward.ask(
        "600",
        &conf("$B/plyfs").replace("\"$B/plyfs\"", &format!("\"{}/plyfs\"", ward.path().display())),
    );
    assert!(said.is("podman", "ok").contains("mounts by plyfs"));
    let said = ward.ask(
        "600",
        "echo '[' >$B/conf; export CONTAINERS_STORAGE_CONF=$B/conf; $DOCTOR",
    );
    said.is("podman", "limited");
}
