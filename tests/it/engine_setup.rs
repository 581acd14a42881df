//! `plyfs engine setup`: what it writes, that nothing else changes, and that it can be taken back; and that the engines
//! themselves see what was written.
//!
//! All of it happens in private mount namespaces, in which /etc/containers, /etc/docker and the like are directories of the
//! test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::common::{copy_program, need_root, skip, sys};
use crate::rootless::UID;

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");

/// A home of the ordinary user, in which this program can be run by him.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new(name: &str) -> Option<Self> {
        if !need_root(name) {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("plyfs-setup-").tempdir().unwrap();
        copy_program(PLYFS, dir.path().join("plyfs"));
        for path in [dir.path().to_path_buf(), dir.path().join("plyfs")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            sys::chown(&path, UID, UID).unwrap();
        }
        Some(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self) -> PathBuf {
        self.path("plyfs")
    }

    /// The user's own storage.conf.
    fn config(&self) -> PathBuf {
        self.path(".config/containers/storage.conf")
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let parent = path.parent().unwrap();
        fs::create_dir_all(parent).unwrap();
        fs::write(&path, text).unwrap();
        for path in path.ancestors().take_while(|path| *path != self.dir.path()) {
            sys::chown(path, UID, UID).unwrap();
        }
        path
    }

    /// Runs `plyfs engine setup` as the user.
    fn setup(&self, words: &[&str]) -> Output {
        Command::new("setpriv")
            .args([
                "--reuid",
                &UID.to_string(),
                "--regid",
                &UID.to_string(),
                "--clear-groups",
            ])
            .arg(self.program())
            .args(["engine", "setup"])
            .args(words)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("HOME", self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.setup(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, words: &[&str], status: i32, reason: &str) {
        let output = self.setup(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {said}");
        assert!(said.contains(reason), "{words:?}: {said}");
    }

    /// Everything below the home but the program, with its content.
    fn files(&self) -> Vec<(PathBuf, String)> {
        let mut list: Vec<_> = sys::walk(self.dir.path())
            .into_iter()
            .filter(|path| *path != self.program() && path.is_file())
            .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
            .collect();
        list.sort();
        list
    }
}

const EXISTING: &str = "# Mine.\n[storage]\ndriver = \"vfs\" # slow, but sure\n\n[storage.options.overlay]\n\
    # a remark\nmountopt = \"nodev\"\n\n[storage.options.vfs]\nignore_chown_errors = \"false\"\n";

#[test]
fn a_users_storage_conf_comes_and_goes() {
    let Some(home) = Home::new("engine setup podman") else {
        return;
    };
    let program = home.program().display().to_string();
    // Only shown.
    let shown = home.ok(&["podman", "--print"]);
    assert!(
        shown.contains(&format!("mount_program = \"{program}\"")),
        "{shown}"
    );
    assert!(home.files().is_empty(), "{:?}", home.files());
    // From nothing, twice, and back to nothing.
    home.ok(&["podman"]);
    assert_eq!(fs::read_to_string(home.config()).unwrap(), shown);
    assert!(
        shown.contains("driver = \"overlay\"\n") && !shown.contains("graphroot"),
        "{shown}"
    );
    let files = home.files();
    let again: Value = serde_json::from_str(&home.ok(&["buildah", "--user", "--json"])).unwrap();
    assert_eq!(
        (again["state"].as_str(), again["engine"].as_str()),
        (Some("already"), Some("podman"))
    );
    assert_eq!(again["program"], *program);
    assert_eq!(home.files(), files);
    home.ok(&["podman", "--undo"]);
    assert!(home.files().is_empty() && !home.path(".config").exists());
    let nothing: Value = serde_json::from_str(&home.ok(&["podman", "--undo", "--json"])).unwrap();
    assert_eq!(nothing["state"], "nothing");
}

#[test]
fn what_a_person_wrote_stays() {
    let Some(home) = Home::new("engine setup podman, an existing file") else {
        return;
    };
    let config = home.write(".config/containers/storage.conf", EXISTING);
    fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
    let expected = EXISTING.replace("\"vfs\"", "\"overlay\"").replace(
        "\"nodev\"\n",
        &format!("\"nodev\"\nmount_program = \"{}\"\n", home.program().display()),
    );
    home.ok(&["podman"]);
    assert_eq!(fs::read_to_string(&config).unwrap(), expected);
    assert_eq!(
        fs::metadata(&config).unwrap().permissions().mode() & 0o7777,
        0o640
    );
    home.ok(&["podman", "--undo"]);
    assert_eq!(fs::read_to_string(&config).unwrap(), EXISTING);
    assert_eq!(
        fs::metadata(&config).unwrap().permissions().mode() & 0o7777,
        0o640
    );
    assert_eq!(home.files().len(), 1);

    // Another line is changed meanwhile: it stays, ours go.
    home.ok(&["podman"]);
    fs::write(&config, expected.replace("a remark", "a new remark")).unwrap();
    home.ok(&["podman"]);
    home.ok(&["podman", "--undo"]);
    assert_eq!(
        fs::read_to_string(&config).unwrap(),
        EXISTING.replace("a remark", "a new remark")
    );

    // A line of ours is changed: nothing is touched, and it is said.
    fs::write(&config, EXISTING).unwrap();
    home.ok(&["podman"]);
    let theirs = expected.replace("driver = \"overlay\"", "driver = \"btrfs\"");
    fs::write(&config, &theirs).unwrap();
    home.fails(
        &["podman", "--undo"],
        1,
        "'storage.driver' was set to \"overlay\" and is \"btrfs\" now",
    );
    assert_eq!(fs::read_to_string(&config).unwrap(), theirs);
    // A new set-up starts from there.
    home.ok(&["podman"]);
    home.ok(&["podman", "--undo"]);
    assert_eq!(fs::read_to_string(&config).unwrap(), theirs);

    // The program has moved: an undo still leads back to the beginning.
    fs::write(&config, EXISTING).unwrap();
    home.ok(&["podman"]);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, EXISTING).unwrap();
    home.ok(&["podman", "--undo"]);
    home.write("old", "");
    home.ok(&["podman"]);
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
    fs::rename(home.program(), home.path("plyfs-new")).unwrap();
    copy_program(home.path("plyfs-new"), home.path("plyfs"));
    home.ok(&["podman", "--undo"]);
    assert_eq!(fs::read_to_string(&config).unwrap(), EXISTING);
}

#[test]
fn files_that_are_not_as_expected() {
    let Some(home) = Home::new("engine setup, odd files") else {
        return;
    };
    let config = home.write(".config/containers/storage.conf", "[storage\n");
    home.fails(&["podman"], 1, "is no valid TOML");
    fs::write(&config, "storage = 7\n").unwrap();
    home.fails(&["podman"], 1, "'storage' is no table");
    // A link to a file elsewhere stays one.
    let real = home.write("dotfiles/storage.conf", EXISTING);
    fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink(&real, &config).unwrap();
    home.ok(&["podman"]);
    assert!(fs::symlink_metadata(&config).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("plyfs"));
    home.ok(&["podman", "--undo"]);
    assert_eq!(fs::read_to_string(&real).unwrap(), EXISTING);
    fs::remove_file(&real).unwrap();
    home.fails(&["podman"], 1, "which is not there");
    fs::remove_file(&config).unwrap();
    // Named by hand, though it is not by us.
    home.write(
        ".config/containers/storage.conf",
        "[storage.options.overlay]\nmount_program = \"/opt/plyfs\"\n",
    );
    home.fails(&["podman", "--undo"], 1, "edit it by hand");
    // Wrong usage.
    home.fails(&["docker"], 2, "dockerd is root's");
    home.fails(&["podman", "--bin", "/x"], 2, "--bin is for docker");
    home.fails(&["lxc"], 2, "invalid value");
}

#[test]
fn a_users_docker() {
    let Some(home) = Home::new("engine setup docker --user") else {
        return;
    };
    let existing = "{\n  \"debug\": true\n}\n";
    let config = home.write(".config/docker/daemon.json", existing);
    let link = home.path("bin/fuse-overlayfs");
    // A real program of that name is not overwritten, and nothing else is written either.
    home.write("bin/fuse-overlayfs", "#!/bin/sh\n");
    home.fails(&["docker", "--user"], 1, "is no link to plyfs");
    assert_eq!(fs::read_to_string(&config).unwrap(), existing);
    fs::remove_file(&link).unwrap();
    // A link to a plyfs that was removed gives way.
    std::os::unix::fs::symlink("/nonexistent/plyfs", &link).unwrap();
    home.ok(&["docker", "--user"]);
    assert_eq!(
        fs::read_to_string(&config).unwrap(),
        "{\n  \"debug\": true,\n  \"storage-driver\": \"fuse-overlayfs\"\n}\n"
    );
    assert_eq!(fs::read_link(&link).unwrap(), home.program());
    let again: Value = serde_json::from_str(&home.ok(&["docker", "--user", "--json"])).unwrap();
    assert_eq!(again["state"], "already");
    assert_eq!(again["link"], *link.to_str().unwrap());
    // The link alone is mended.
    fs::remove_file(&link).unwrap();
    home.ok(&["docker", "--user"]);
    assert_eq!(fs::read_link(&link).unwrap(), home.program());
    home.ok(&["docker", "--user", "--undo"]);
    assert_eq!(fs::read_to_string(&config).unwrap(), existing);
    assert!(fs::symlink_metadata(&link).is_err());
    assert_eq!(home.files().len(), 1);
    // What containerd keeps is not for a storage driver.
    home.write(
        ".config/docker/daemon.json",
        "{\"features\": {\"containerd-snapshotter\": true}}",
    );
    let output = home.setup(&["docker", "--user"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("containerd-snapshotter"),
        "{output:?}"
    );
    fs::write(&config, "{,}").unwrap();
    home.fails(&["docker", "--user"], 1, "is no valid JSON");
}

/// Runs a script as root in a private mount namespace with empty /etc/containers, /etc/docker, /usr/local/bin and places for
/// images; `$P` is the program.
fn as_root(script: &str) -> Output {
    let dir = tempfile::Builder::new().prefix("plyfs-setup-").tempdir().unwrap();
    let prepare = "for d in etc/containers etc/docker usr/local/bin var/lib/containers run/containers var/lib/docker; do \
         mkdir -p $D/$d /$d 2>/dev/null; done; cp -a /etc/containers/. $D/etc/containers; \
         rm -f $D/etc/containers/storage.conf*; \
         for d in etc/containers etc/docker usr/local/bin var/lib/containers run/containers var/lib/docker; do \
         mount --bind $D/$d /$d; done; umount /sys/fs/cgroup/unified 2>/dev/null || :\n";
    Command::new("unshare")
        .args([
            "-m",
            "--propagation",
            "private",
            "sh",
            "-ec",
            &format!("{prepare}{script}"),
        ])
        .env("P", PLYFS)
        .env("D", dir.path())
        .env_remove("CONTAINERS_STORAGE_CONF")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The program of `podman info`.
fn executable(info: &str) -> Option<String> {
    let info: Value = serde_json::from_str(info).unwrap_or_else(|error| panic!("{error}: {info}"));
    let store = &info["store"];
    assert_eq!(store["graphDriverName"], "overlay", "{store}");
    store["graphOptions"]["overlay.mount_program"]["Executable"]
        .as_str()
        .map(str::to_owned)
}

#[test]
fn podman_itself_sees_it() {
    const NAME: &str = "podman sees what engine setup wrote";
    if !need_root(NAME) {
        return;
    }
    if !installed("podman") {
        return skip(NAME, "needs podman");
    }
    let program = fs::canonicalize(PLYFS).unwrap().display().to_string();
    // Of a file that is new: all that podman asks for has to stand in it.
    let output = as_root("$P engine setup podman >&2; podman info --format json");
    assert_eq!(executable(&printed(&output)).as_deref(), Some(&*program));
    // CONTAINERS_STORAGE_CONF leads elsewhere.
    let output = as_root(
        "export CONTAINERS_STORAGE_CONF=$D/my.conf\n\
         printf '[storage]\\ndriver = \"overlay\"\\nrunroot = \"/run/containers/mine\"\\ngraphroot = \
         \"/var/lib/containers/mine\"\\n' >$D/my.conf\n\
         cp $D/my.conf $D/before; $P engine setup podman >&2; test ! -e /etc/containers/storage.conf\n\
         podman info --format json; $P engine setup podman --undo >&2; cmp $D/my.conf $D/before",
    );
    let text = printed(&output);
    assert_eq!(executable(&text).as_deref(), Some(&*program));
    assert!(text.contains("/var/lib/containers/mine"), "{text}");
    // After an undo it is gone.
    let output = as_root(
        "$P engine setup podman >&2; $P engine setup podman --undo >&2; ls /etc/containers >&2\n\
         test ! -e /etc/containers/storage.conf; test ! -e /etc/containers/storage.conf.plyfs\n\
         podman info --format json",
    );
    assert_eq!(executable(&printed(&output)), None);
}

#[test]
fn images_of_another_driver_are_told_of() {
    const NAME: &str = "engine setup tells of images of another driver";
    if !need_root(NAME) {
        return;
    }
    if !installed("podman") {
        return skip(NAME, "needs podman");
    }
    let output = as_root(
        "mkdir $D/t; echo hi >$D/t/f; tar -C $D/t -cf $D/t.tar .\n\
         printf '[storage]\\ndriver = \"vfs\"\\nrunroot = \"/run/containers/storage\"\\ngraphroot = \
         \"/var/lib/containers/storage\"\\n' >/etc/containers/storage.conf\n\
         podman import $D/t.tar one >&2\n\
         $P engine setup podman --json",
    );
    let answer: Value = serde_json::from_str(&printed(&output)).unwrap();
    let remarks = answer["remarks"].to_string();
    assert!(
        remarks.contains("images of the driver vfs") && remarks.contains("podman system reset"),
        "{remarks}"
    );
}

#[test]
fn a_users_podman_sees_it() {
    const NAME: &str = "rootless podman sees what engine setup wrote";
    let Some(home) = Home::new(NAME) else { return };
    if !installed("podman") || !installed("newuidmap") && !Path::new("/usr/bin/newuidmap").exists() {
        return skip(NAME, "needs podman and newuidmap");
    }
    home.ok(&["podman"]);
    let base = home.dir.path().display();
    let user = format!("ann:x:{UID}:{UID}::{base}:/bin/sh");
    // A name and a range of ids for the user, in this namespace only.
    let script = format!(
        "cp /etc/passwd {base}/passwd; sed -i '/^[^:]*:[^:]*:{UID}:/d; /^ann:/d' {base}/passwd; echo '{user}' >>{base}/passwd\n\
         echo ann:100000:65536 >{base}/subid; chmod 644 {base}/passwd {base}/subid\n\
         mount --bind {base}/passwd /etc/passwd; mount --bind {base}/subid /etc/subuid; mount --bind {base}/subid /etc/subgid\n\
         umount /sys/fs/cgroup/unified 2>/dev/null || :; mkdir -p {base}/run; chown {UID}:{UID} {base}/run; chmod 700 {base}/run\n\
         cd {base}; setpriv --reuid {UID} --regid {UID} --clear-groups env -i PATH=/usr/bin:/bin:/usr/sbin HOME={base} \
         XDG_RUNTIME_DIR={base}/run podman --cgroup-manager=cgroupfs info --format json\n\
         p=$(cat {base}/run/libpod/tmp/pause.pid 2>/dev/null || :); test -z \"$p\" || kill $p"
    );
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec", &script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(
        executable(&printed(&output)),
        Some(home.program().display().to_string())
    );
}

#[test]
fn dockerd_itself_takes_it() {
    const NAME: &str = "dockerd takes what engine setup wrote";
    if !need_root(NAME) {
        return;
    }
    let tools = Path::new(PLYFS)
        .ancestors()
        .nth(2)
        .unwrap()
        .join("tools/docker/usr");
    if !tools.join("sbin/dockerd").exists() {
        return skip(NAME, "needs docker: scripts/install-deps --docker");
    }
    // The services look there; the machine's own fuse-overlayfs is in /usr/bin.
    let output = as_root(&format!(
        "PATH=/usr/local/bin:{0}/bin:{0}/sbin:$PATH\n\
         printf '{{\\n  \"debug\": false\\n}}' >/etc/docker/daemon.json; cp /etc/docker/daemon.json $D/before\n\
         $P engine setup docker >&2; readlink /usr/local/bin/fuse-overlayfs\n\
         dockerd --data-root=/var/lib/docker --exec-root=$D/x --pidfile=$D/pid -H unix://$D/s --bridge=none --iptables=false \
         --ip6tables=false --ip-forward=false --ip-masq=false --userland-proxy=false >$D/log 2>&1 &\n\
         i=0; until docker -H unix://$D/s info --format '{{{{.Driver}}}}' 2>/dev/null; do i=$((i+1)); \
         test $i -lt 150 || {{ cat $D/log >&2; exit 1; }}; sleep 0.1; done\n\
         kill $(cat $D/pid); wait\n\
         $P engine setup docker --undo >&2; cmp /etc/docker/daemon.json $D/before\n\
         test ! -e /usr/local/bin/fuse-overlayfs -a ! -L /usr/local/bin/fuse-overlayfs -a ! -e /etc/docker/daemon.json.plyfs",
        tools.display()
    ));
    let text = printed(&output);
    let program = fs::canonicalize(PLYFS).unwrap();
    // docker prints an empty line as long as nobody answers.
    assert_eq!(
        text.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
        [program.to_str().unwrap(), "fuse-overlayfs"]
    );
}
