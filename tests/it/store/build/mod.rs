//! `plyfs image build`.

mod cached;
mod commands;
mod files;
mod hostile;
mod settings;
mod unprivileged;

use std::fs;

use super::bench::{Bench, Said, ino, names};

impl Bench {
    /// Builds a Containerfile in the context `context/`, as the image `made`.
    pub fn build(&self, containerfile: &str, options: &[&str]) -> Said {
        self.write("context/Containerfile", containerfile);
        let mut arguments = vec!["image", "build", "-t", "made"];
        arguments.extend(options);
        arguments.push("context");
        self.plyfs(&arguments)
    }
}

/// The walk that the old driver's users know.
#[test]
fn files_that_did_not_change_are_shared_with_the_base() {
    let bench = Bench::with_base();
    bench.write("context/program", "program\n");
    bench.write("context/data/file", "data\n");
    let out = bench.build("FROM base\nWORKDIR /app\nADD . /app\n", &[]).ok();
    assert!(
        out.contains("STEP 1/3: FROM base\nSTEP 2/3: WORKDIR /app\n"),
        "{out}"
    );
    assert!(out.contains("Tagged made:latest\nsha256:"), "{out}");
    let (base, made) = (bench.root("base"), bench.root("made"));
    assert_ne!(base, made);
    for shared in ["bin/ls", "etc/passwd", "opt/a"] {
        assert_eq!(ino(base.join(shared)), ino(made.join(shared)), "{shared}");
    }
    assert_eq!(fs::read_to_string(made.join("app/data/file")).unwrap(), "data\n");
    assert_eq!(names(&made.join("app")).len(), 3);
    assert!(!base.join("app").exists());
    let config = bench.config("made");
    assert_eq!(config["config"]["WorkingDir"], "/app");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    assert_eq!(
        config["history"][1]["created_by"],
        "/bin/sh -c #(nop) WORKDIR /app"
    );
    let copied = config["history"][2]["created_by"].as_str().unwrap();
    assert!(
        copied.starts_with("/bin/sh -c #(nop) ADD dir:") && copied.ends_with(" in /app "),
        "{copied}"
    );
    bench.check();
}

#[test]
fn what_is_printed_and_written() {
    let bench = Bench::with_base();
    bench.write("context/f", "");
    bench.write("elsewhere/file", "FROM base\nCOPY f /f\n");
    let id = bench
        .plyfs(&[
            "image",
            "build",
            "-q",
            "-f",
            "elsewhere/file",
            "--iidfile",
            "id",
            "-t",
            "one",
            "-t",
            "two:2",
            "context",
        ])
        .ok();
    assert_eq!(id.lines().count(), 1, "{id}");
    assert_eq!(fs::read_to_string(bench.path("id")).unwrap(), id.trim_end());
    for name in ["one", "two:2"] {
        assert_eq!(
            bench.plyfs(&["image", "inspect", "-f", "{{ .Id }}", name]).ok(),
            id
        );
    }
    let no_file = bench.plyfs(&["image", "build", "elsewhere"]);
    no_file.fails(&["the context has no Containerfile nor Dockerfile", "-f"]);
    bench.write("context/Dockerfile", "FROM base\nCOPY f /g\n");
    bench.plyfs(&["image", "build", "-t", "three", "context"]).ok();
    assert!(bench.root("three").join("g").exists());
    assert_eq!(
        bench.plyfs(&["image", "build", "-t", "UPPER", "context"]).status,
        2
    );
    assert_eq!(
        bench
            .plyfs(&["image", "build", "--build-arg", "=x", "context"])
            .status,
        2
    );
    assert_eq!(
        bench
            .plyfs(&["image", "build", "--network", "x", "context"])
            .status,
        2
    );
}

#[test]
fn faults_name_file_line_and_step() {
    let bench = Bench::with_base();
    let line = |text: &str| bench.build(text, &[]);
    line("FROM base\n\nCOPY none /x\n")
        .fails(&["Containerfile:3: step 2/2, COPY none /x: /none: the context has nothing of that name"]);
    line("FROM nothing-of-that-name\n")
        .fails(&["Containerfile:1: step 1/1, FROM nothing-of-that-name: no such image"]);
    line("FROM base\nNONSENSE\n").fails(&["Containerfile:2: unknown instruction 'NONSENSE'"]);
    line("FROM base\nRUN --mount=type=cache,target=/c true\n")
        .fails(&["Containerfile:2: RUN --mount is not supported"]);
    line("FROM base\nADD https://example.org/x /x\n").fails(&[":2: step 2/2", "nothing is downloaded"]);
    line("FROM base\nCOPY --parents a /x\n").fails(&[":2: COPY --parents is not supported"]);
    line("FROM --platform=plan9/mips base\n").fails(&[":1: --platform=plan9/mips"]);
    line("FROM base AS a\nFROM base AS a\n").fails(&[":2: duplicate stage name 'a'"]);
    line("FROM base\nRUN cat <<EOF\n").fails(&[":2: the here-document <<EOF is not ended"]);
    line("FROM scratch\nRUN true\n").fails(&["no files yet"]);
    line("").fails(&["Containerfile: expected at least one FROM"]);
    bench
        .build("FROM base\n", &["--target", "x"])
        .fails(&["there is no stage \"x\""]);
    bench.check();
}

#[test]
fn a_context_and_a_containerfile_come_through_standard_input() {
    let bench = Bench::with_base();
    bench.write("c/Containerfile", "FROM base\nCOPY in /in\n");
    bench.write("c/in", "inside\n");
    let tar = |flag: &str| {
        let line = format!("tar -C c -c{flag} . | \"$0\" image build -t made -");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &line, env!("CARGO_BIN_EXE_plyfs")]);
        command
            .env("PLYFS_ROOT", bench.store())
            .current_dir(bench.path(""));
        Said::of(&command.output().unwrap())
    };
    for flag in ["f -", "zf -"] {
        tar(flag).ok();
        assert_eq!(
            fs::read_to_string(bench.root("made").join("in")).unwrap(),
            "inside\n"
        );
    }
    let mut child = bench
        .command()
        .args(["image", "build", "-t", "typed", "-f", "-", "c"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"FROM base\nCOPY in /typed\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(bench.root("typed").join("typed").exists());
    bench.check();
}

#[test]
fn stages_that_nobody_needs_are_not_built() {
    let bench = Bench::with_base();
    bench.write("context/f", "f\n");
    let text = "ARG WHERE=base\nFROM $WHERE AS Files\nCOPY f /made/f\nUSER www\nFROM base AS broken\nCOPY none /\n\
                FROM scratch\nCOPY --from=files /made /copied\nCOPY --from=0 /made/f /by-number\nCOPY --from=base /etc/motd /motd\n";
    let out = bench.build(text, &[]).ok();
    assert!(out.contains("[1/2] STEP 1/3: FROM $WHERE AS Files"), "{out}");
    assert!(!out.contains("broken"), "{out}");
    let root = bench.root("made");
    assert_eq!(
        names(&root).into_iter().collect::<Vec<_>>(),
        ["by-number", "copied", "motd"]
    );
    assert_eq!(bench.config("made")["config"].get("User"), None);
    bench
        .build(text, &["--target", "broken"])
        .fails(&["step 2/2, COPY none /"]);
    bench.build(text, &["--target", "FILES"]).ok();
    assert_eq!(bench.config("made")["config"]["User"], "www");
    bench
        .build("FROM base AS a\nENV X=1\nFROM a\nENV Y=$X\n", &[])
        .ok();
    let env = bench.config("made")["config"]["Env"].to_string();
    assert!(env.contains("X=1") && env.contains("Y=1"), "{env}");
    bench.check();
}
