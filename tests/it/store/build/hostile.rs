//! Contexts, archives and images that want out, and builds that end in the middle.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::super::bench::{Bench, names};

#[test]
fn a_context_never_gives_what_lies_outside() {
    let bench = Bench::new();
    let secret = bench.write("secret/file", "secret\n");
    bench.write("context/dir/f", "");
    for (target, name) in [
        (secret.to_str().unwrap(), "context/absolute"),
        ("../secret/file", "context/relative"),
        ("../../secret", "context/dir/up"),
        ("/", "context/root"),
    ] {
        symlink(target, bench.path(name)).unwrap();
    }
    for source in [
        "absolute",
        "relative",
        "dir/up/file",
        "../secret/file",
        "/../../etc/passwd",
        "root/secret/file",
    ] {
        let said = bench.build(&format!("FROM scratch\nCOPY {source} /x\n"), &[]);
        said.fails(&["the context has nothing of that name"]);
    }
    // The symlink itself is copied with its directory, and `/` is the context.
    bench
        .build("FROM scratch\nCOPY . /all\nCOPY root /again\n", &[])
        .ok();
    let root = bench.root("made");
    assert_eq!(fs::read_link(root.join("all/absolute")).unwrap(), secret);
    assert!(root.join("again/dir/f").exists());
    symlink("/etc/hostname", bench.path("context/.dockerignore")).unwrap();
    bench.build("FROM scratch\nCOPY dir /\n", &[]).ok();
    bench.check();
}

#[test]
fn a_destination_stays_inside_the_root() {
    let bench = Bench::new();
    bench.write("context/f", "new\n");
    let outside = bench.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(bench.path("context/links")).unwrap();
    symlink(&outside, bench.path("context/links/absolute")).unwrap();
    symlink("../../../../../..", bench.path("context/links/up")).unwrap();
    let text =
        "FROM scratch\nCOPY links /\nCOPY f /absolute/f\nCOPY f /up/g\nCOPY f ../../../h\nWORKDIR /up/w\n";
    bench.build(text, &[]).ok();
    let root = bench.root("made");
    assert!(names(&outside).is_empty());
    let inside = root.join(outside.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(inside.join("f")).unwrap(), "new\n");
    assert!(root.join("g").exists() && root.join("h").exists() && root.join("w").is_dir());
    bench.check();
}

#[test]
fn nothing_in_a_context_acts_as_a_mark() {
    let bench = Bench::with_base();
    bench.write("context/d/.wh.motd", "");
    bench
        .build("FROM base\nCOPY d /etc\n", &[])
        .fails(&["/etc/.wh.motd"]);
    fs::remove_file(bench.path("context/d/.wh.motd")).unwrap();
    bench.write("tree/.wh..wh..opq", "");
    let line = "tar -C tree -cf context/d/x.tar .";
    let done = std::process::Command::new("sh")
        .args(["-c", line])
        .current_dir(bench.path(""))
        .status();
    assert!(done.unwrap().success());
    bench
        .build("FROM base\nADD d/x.tar /etc\n", &[])
        .fails(&[".wh..wh..opq"]);
    assert!(bench.root("base").join("etc/motd").exists());
    bench.check();
}

#[test]
fn an_archive_that_wants_out_is_contained() {
    let bench = Bench::with_base();
    fs::create_dir(bench.path("context")).unwrap();
    let mut to = tar::Builder::new(fs::File::create(bench.path("context/x.tar")).unwrap());
    let mut add = |name: &str, kind: tar::EntryType, link: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_link_name_literal(link).unwrap();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        to.append(&header, data).unwrap();
    };
    let outside = bench.path("outside");
    fs::create_dir(&outside).unwrap();
    add("out", tar::EntryType::Symlink, outside.to_str().unwrap(), b"");
    add("out/f", tar::EntryType::Regular, "", b"x");
    add("../../../up", tar::EntryType::Regular, "", b"x");
    to.finish().unwrap();
    let said = bench.build("FROM base\nADD x.tar /d/\n", &[]);
    assert!(names(&outside).is_empty());
    assert!(
        said.status == 1 || bench.root("made").join("d/up").exists(),
        "{said:?}"
    );
    fs::write(
        bench.path("context/x.tar"),
        &fs::read(bench.path("context/x.tar")).unwrap()[..700],
    )
    .unwrap();
    bench.build("FROM base\nADD x.tar /d/\n", &[]).fails(&["x.tar"]);
    bench.check();
}

/// A killed build leaves a store that opens, and the same build succeeds when it is repeated.
#[test]
fn kill_minus_nine_at_any_point() {
    let bench = Bench::with_base();
    for number in 0..60 {
        bench.write(&format!("context/data/{number}"), vec![number as u8; 20_000]);
    }
    let text = |round: u32| {
        format!(
            "FROM base AS a\nWORKDIR /app\nCOPY data /app/data\nRUN rm /etc/motd && echo {round} > /app/round\n\
             FROM base\nCOPY --from=a /app /app\nRUN mv /usr/share/doc /usr/share/docs; sleep 0.05\n"
        )
    };
    let runs = super::commands::can_run();
    let text = |round| match runs {
        true => text(round),
        false => text(round)
            .lines()
            .filter(|line| !line.starts_with("RUN"))
            .collect::<Vec<_>>()
            .join("\n"),
    };
    let whole = Instant::now();
    bench.build(&text(0), &[]).ok();
    let whole = whole.elapsed().as_micros() as u64;
    let mut killed = 0;
    for round in 1..=12_u32 {
        bench.write("context/Containerfile", text(round));
        let mut child = bench
            .command()
            .args(["image", "build", "--no-cache", "-t", "made", "context"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Spread over the whole build, at another point each time.
        std::thread::sleep(Duration::from_micros(whole * u64::from(round * 7 % 12) / 11));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let before = bench.plyfs(&["system", "check"]);
        assert_eq!(before.status, 0, "round {round}: {before:?}");
        bench.build(&text(round), &[]).ok();
        assert_eq!(
            names(&bench.root("made").join("app/data")).len(),
            60,
            "round {round}"
        );
    }
    assert!(killed > 3, "only {killed} of 12 were killed in time");
    let base = bench.plyfs(&["system", "prune"]);
    base.ok();
    bench.check();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bench.store().to_str().unwrap()), "{mounts}");
}
