//! RUN.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::bench::{Bench, ino};
use crate::common::{need_root, skip};

/// Whether commands can be run here.
pub fn can_run() -> bool {
    let found = |name: &str| {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).exists()))
    };
    Path::new("/dev/fuse").exists() && (found("crun") || found("runc"))
}

fn bench(name: &str) -> Option<Bench> {
    if !need_root(name) {
        return None;
    }
    if !can_run() {
        skip(name, "needs /dev/fuse, and crun or runc");
        return None;
    }
    Some(Bench::with_base())
}

#[test]
fn a_command_deletes_replaces_and_renames() {
    let Some(bench) = bench("a_command_deletes_replaces_and_renames") else {
        return;
    };
    let text = r#"FROM base
RUN rm /etc/motd && echo new > /opt/a && mv /usr/share/doc/old /usr/share/doc/new && chmod 700 /var/empty
RUN rm -r /usr/share/doc && mkdir /usr/share/doc && touch /usr/share/doc/only
"#;
    let base = bench.root("base");
    let before = ino(base.join("opt/a"));
    bench.build(text, &[]).ok();
    let made = bench.root("made");
    assert!(!made.join("etc/motd").exists() && base.join("etc/motd").exists());
    assert_eq!(fs::read_to_string(made.join("opt/a")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(base.join("opt/a")).unwrap(), "a\n");
    assert_eq!(ino(base.join("opt/a")), before);
    assert_eq!(
        super::names(&made.join("usr/share/doc"))
            .into_iter()
            .collect::<Vec<_>>(),
        ["only"]
    );
    assert_eq!(
        fs::metadata(made.join("var/empty")).unwrap().mode() & 0o777,
        0o700
    );
    assert_eq!(ino(base.join("bin/ls")), ino(made.join("bin/ls")));
    for init in [
        ".dockerenv",
        "etc/mtab",
        "etc/resolv.conf",
        "etc/hosts",
        "proc",
        "sys",
        "dev",
    ] {
        assert!(
            !made.join(init).exists(),
            "{init} is the container's, not the layer's"
        );
    }
    bench.check();
}

#[test]
fn what_a_command_finds() {
    let Some(bench) = bench("what_a_command_finds") else {
        return;
    };
    let text = r#"FROM base
ARG GIVEN=default
ARG HIDDEN=arg
ENV SEEN=env HIDDEN=env
WORKDIR /work
RUN echo "$GIVEN $HIDDEN $SEEN $(id -u) $PWD $HTTP_PROXY" > said
USER www
RUN ["/bin/sh", "-c", "id -u > /tmp/who; id -g >> /tmp/who; id -G >> /tmp/who"]
USER root
SHELL ["/bin/sh", "-eu", "-c"]
RUN echo $- > /tmp/flags
RUN <<EOF
echo one > /tmp/doc
echo two >> /tmp/doc
EOF
RUN cat <<A - <<B > /tmp/both
not seen
A
$SEEN
B
RUN <<SCRIPT
#!/bin/cat
text of the script
SCRIPT
RUN true
"#;
    let out = bench
        .build(
            text,
            &["--build-arg", "GIVEN=given", "--build-arg", "HTTP_PROXY=proxy"],
        )
        .ok();
    assert!(
        out.contains("text of the script"),
        "the output of commands is passed on: {out}"
    );
    let root = bench.root("made");
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert_eq!(read("work/said"), "given env env 0 /work proxy\n");
    assert_eq!(read("tmp/who"), "33\n44\n44 50\n");
    assert_eq!(fs::metadata(root.join("tmp/who")).unwrap().uid(), 33);
    assert!(read("tmp/flags").contains('e') && read("tmp/flags").contains('u'));
    assert_eq!(read("tmp/doc"), "one\ntwo\n");
    assert_eq!(read("tmp/both"), "env\n");
    let config = bench.config("made");
    let history: Vec<&str> = config["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["created_by"].as_str())
        .collect();
    assert!(
        history
            .iter()
            .any(|line| line.starts_with("|1 GIVEN=given /bin/sh -c echo ")),
        "{history:?}"
    );
    assert!(!history.iter().any(|line| line.contains("proxy")), "{history:?}");
    let last = config["history"].as_array().unwrap().last().unwrap();
    assert_eq!(
        last["empty_layer"], true,
        "a command that changes nothing makes no layer"
    );
    assert_eq!(
        bench
            .build(text, &["--build-arg", "GIVEN=given"])
            .ok()
            .matches("Using cache")
            .count(),
        8
    );
    assert_eq!(
        bench
            .build(text, &["--build-arg", "GIVEN=x"])
            .ok()
            .matches("Using cache")
            .count(),
        1
    );
    bench.check();
}

#[test]
fn a_command_that_fails_leaves_nothing() {
    let Some(bench) = bench("a_command_that_fails_leaves_nothing") else {
        return;
    };
    let before = bench.layers();
    let said = bench.build("FROM base\nRUN echo loud; touch /half; exit 7\n", &[]);
    assert!(said.out.contains("loud"));
    said.fails(&[
        "Containerfile:2: step 2/2, RUN echo loud",
        "the command ended with status 7",
    ]);
    bench
        .build("FROM base\nRUN [\"/none\"]\n", &[])
        .fails(&["the command did not start"]);
    bench
        .build("FROM base\nUSER nobody-of-that-name\nRUN true\n", &[])
        .fails(&["nobody-of-that-name"]);
    bench
        .build("FROM base\nRUN --network=x true\n", &[])
        .fails(&["--network=x"]);
    assert_eq!(bench.layers(), before);
    assert_eq!(bench.plyfs(&["image", "ls", "-q"]).ok().lines().count(), 1);
    bench.check();
}

#[test]
fn quiet_is_quiet() {
    let Some(bench) = bench("quiet_is_quiet") else {
        return;
    };
    let out = bench
        .build(
            "FROM base\nRUN echo loud; echo x > /x\n",
            &["-q", "--network", "none"],
        )
        .ok();
    assert!(out.starts_with("sha256:") && out.lines().count() == 1, "{out}");
}
