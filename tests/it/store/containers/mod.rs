//! Containers, from their birth to their end, as root and as an ordinary user.
//!
//! - [`walk`]: what users of the old driver know, step by step.
//! - [`runs`]: commands in containers: status, user, streams, signals.
//! - [`life`]: names, mounts in use, and processes killed at any moment.
//! - [`changes`]: diff, commit, export.

mod changes;
mod life;
mod runs;
mod walk;

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
for p in sh true ls cat id sleep mkdir rm touch chown chmod stat hostname env pwd kill ln mv tty; do
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

/// Runs a script as root, or as an ordinary user on a stage of its own: names and subordinate ids for the user, and an
/// open fuse device, all in a private mount namespace.
fn on_stage(yard: &Yard, user: bool, script: &str, prepare: &str) -> (Option<i32>, String, String) {
    let home = yard.shop.path(if user { "home" } else { "roothome" });
    std::fs::create_dir_all(&home).unwrap();
    sys::chmod(yard.shop.path(""), 0o755).unwrap();
    // The build directory may be closed to other users.
    let program = yard.shop.path("plyfs");
    if !program.exists() {
        copy_program(super::shop::PLYFS, &program);
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
