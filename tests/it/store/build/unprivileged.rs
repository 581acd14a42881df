//! As an ordinary user, in a user namespace that plyfs makes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::super::bench::{Bench, Said, small_root};
use crate::common::{need_root, skip};

const UID: u32 = 1001;
const RANGE: u32 = 100_000;

/// Runs shell lines as an ordinary user with subordinate ids, and a fuse device that is open to all: both only in a
/// mount namespace of their own. `$P` is the program, `$D` a directory of the user's.
fn as_ordinary_user(bench: &Bench, lines: &str) -> Said {
    let base = bench.path("");
    let base = base.to_str().unwrap().trim_end_matches('/');
    let program = bench.path("plyfs");
    fs::copy(env!("CARGO_BIN_EXE_plyfs"), &program).unwrap();
    let done = Command::new("chown")
        .args(["-R", "-h", &format!("{UID}:{UID}"), base])
        .status()
        .unwrap();
    assert!(done.success());
    bench.write(
        "stage",
        format!(
            "set -e\n\
             mkdir -p {base}/dev; mount -t tmpfs t {base}/dev; mknod {base}/dev/fuse c 10 229; chmod 666 {base}/dev/fuse\n\
             mount --bind {base}/dev/fuse /dev/fuse\n\
             cp /etc/passwd {base}/passwd; getent passwd {UID} > /dev/null || echo ann:x:{UID}:{UID}::/:/bin/sh >> {base}/passwd\n\
             mount --bind {base}/passwd /etc/passwd\n\
             name=$(getent passwd {UID} | cut -d: -f1)\n\
             for f in subuid subgid; do echo $name:{RANGE}:65536 > {base}/$f; touch /etc/$f; mount --bind {base}/$f /etc/$f; done\n\
             cd {base}\n\
             exec setpriv --reuid {UID} --regid {UID} --clear-groups env P={base}/plyfs D={base} HOME={base} \
             XDG_RUNTIME_DIR={base} PLYFS_ROOT={base}/store sh -euc '{lines}'\n"
        ),
    );
    let output = Command::new("unshare")
        .args([
            "-m",
            "--propagation",
            "private",
            "sh",
            bench.path("stage").to_str().unwrap(),
        ])
        .output();
    Said::of(&output.unwrap())
}

#[test]
fn an_ordinary_user_builds_with_owners_and_commands() {
    let name = "an_ordinary_user_builds_with_owners_and_commands";
    if !need_root(name) {
        return;
    }
    let probe = format!(
        "command -v newuidmap && setpriv --reuid {UID} --regid {UID} --clear-groups unshare -Urm true"
    );
    let can = Command::new("sh")
        .args(["-c", &probe])
        .output()
        .unwrap()
        .status
        .success();
    if !super::commands::can_run() || !can {
        skip(
            name,
            "needs /dev/fuse, crun or runc, newuidmap, and user namespaces for ordinary users",
        );
        return;
    }
    let bench = Bench::new();
    small_root(&bench.path("base-root"));
    bench.write("context/f", "f\n");
    bench.write(
        "context/Containerfile",
        "FROM base\nWORKDIR /app\nADD . /app\nCOPY --chown=www f /owned\n\
         RUN rm /etc/motd; echo x > /app/made; chown www /app/made; id -u > /app/who\nUSER www\nRUN id -u > /tmp/who\n",
    );
    let lines = "$P image import --tag base base-root\n$P image build -t made context\n$P image build -t made context\n\
                 $P system check\n$P image inspect -f \"{{ .GraphDriver.Data.RootDir }}\" base made";
    let out = as_ordinary_user(&bench, lines).ok();
    assert_eq!(out.matches("--> Using cache").count(), 5, "{out}");
    let roots: Vec<&str> = out.lines().rev().take(2).collect();
    let [made, base] = roots[..] else { panic!("{out}") };
    let of = |root: &str, path: &str| fs::symlink_metadata(format!("{root}/{path}")).unwrap();
    assert_eq!(of(made, "bin/ls").ino(), of(base, "bin/ls").ino());
    assert_eq!(of(made, "app/f").uid(), UID, "root inside is the user outside");
    assert_eq!(of(made, "owned").uid(), RANGE + 32);
    assert_eq!(of(made, "app/made").uid(), RANGE + 32);
    assert_eq!(fs::read_to_string(format!("{made}/app/who")).unwrap(), "0\n");
    assert_eq!(fs::read_to_string(format!("{made}/tmp/who")).unwrap(), "33\n");
    assert!(!fs::exists(format!("{made}/etc/motd")).unwrap());
}
