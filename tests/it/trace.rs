//! `plyfs trace`: the story is told, filtered and summed up, and no listener can hold a view up.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::layers::{Mounted, ours_is_plyfs};
use crate::common::who::ANN;
use crate::common::*;

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");

/// A `plyfs trace --json` that has said that it listens.
struct Trace {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Trace {
    /// `path` begins at the layers' own directory: by a full one it would be taken for the server of the view, whose
    /// end an unmount waits for.
    fn of(layers: &Layers, path: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(PLYFS)
            .args(["trace", "--json", path])
            .args(arguments)
            .current_dir(layers.base())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut trace = Trace {
            out: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        assert_eq!(trace.next().unwrap()["type"], "listening");
        trace
    }

    /// The next line; none at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Everything up to the request `op` of `path`, that one last.
    fn until(&mut self, op: &str, path: &str) -> Vec<Value> {
        let mut lines = Vec::new();
        loop {
            let line = self
                .next()
                .unwrap_or_else(|| panic!("no {op} of {path} in {lines:#?}"));
            let found = line["op"] == op && line["path"] == path;
            lines.push(line);
            if found {
                return lines;
            }
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: this test's own child, which has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Ctrl-C; what was still to come.
    fn stop(mut self) -> Vec<Value> {
        self.signal(libc::SIGINT);
        self.rest()
    }

    fn rest(&mut self) -> Vec<Value> {
        let lines = std::iter::from_fn(|| self.next()).collect();
        assert!(self.child.wait().unwrap().success());
        lines
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A view over a few files; `None` where it cannot be.
fn view(name: &str) -> Option<(Layers, Mounted)> {
    if !need_root(name) || !ours_is_plyfs() {
        return None;
    }
    let layers = Layers::new().with_lower(&[
        dir("etc"),
        file("etc/motd", "hello\n"),
        file("etc/mode", "12345678"),
        dir("low"),
        file("low/f", ""),
        file("old", "old"),
        file("big", vec![b'x'; 3 << 20]),
    ]);
    let mounted = layers.mount(Fs::Plyfs, &[]);
    Some((layers, mounted))
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect()
}

fn run(arguments: &[&str], path: &Path) -> Output {
    let mut command = Command::new(PLYFS);
    command
        .arg("trace")
        .args(arguments)
        .arg(path)
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_story_of_a_view() {
    let Some((layers, mounted)) = view("trace") else {
        return;
    };
    let m = |name: &str| layers.merged.join(name);
    let mut trace = Trace::of(&layers, "m", &["--summary"]);

    sys::append(m("etc/motd"), "more\n").unwrap();
    let lines = trace.until("open", "/etc/motd");
    let open = lines.last().unwrap();
    assert_eq!(open["detail"], "write, append");
    assert_eq!(open["errno"], Value::Null);
    assert_eq!(open["uid"], 0);
    // The lookups of both names led to it.
    assert!(open["requests"].as_u64().unwrap() >= 3, "{open}");
    let copies = open["copies"].as_array().unwrap();
    assert_eq!([&copies[0]["path"], &copies[1]["path"]], ["/etc", "/etc/motd"]);
    assert_eq!(copies[0]["kind"], "a directory");
    assert!(
        copies[0]["temp"].as_str().unwrap().starts_with("work/#"),
        "{open}"
    );
    assert_eq!(
        (&copies[0]["method"], &copies[0]["bytes"]),
        (&Value::Null, &Value::from(0))
    );
    assert_eq!(
        (&copies[1]["kind"], &copies[1]["bytes"]),
        (&Value::from("a regular file"), &Value::from(6))
    );
    assert!(copies[1]["method"].is_string(), "{open}");
    let took = |value: &Value| value["micros"].as_u64().unwrap();
    assert!(took(&copies[0]) + took(&copies[1]) <= took(open), "{open}");
    let lookup = lines
        .iter()
        .find(|line| line["op"] == "lookup" && line["path"] == "/etc/motd")
        .unwrap();
    assert!(
        strings(&lookup["decisions"])[0].contains("from the lower"),
        "{lookup}"
    );
    assert_eq!(lookup["requests"], 1);

    sys::unlink(m("old")).unwrap();
    let unlink = trace.until("unlink", "/old").pop().unwrap();
    assert_eq!(
        strings(&unlink["decisions"]),
        ["a whiteout in the upper hides the lower's"]
    );
    sys::mkdir(m("old"), 0o755).unwrap();
    let lines = trace.until("mkdir", "/old");
    assert!(
        lines.iter().any(|line| line["op"] == "lookup"
            && line["errno"] == libc::ENOENT
            && strings(&line["decisions"]) == ["a whiteout in the upper"]),
        "{lines:#?}"
    );
    assert!(strings(&lines.last().unwrap()["decisions"])[0].contains("complete in the work directory"));
    assert_eq!(sys::rename(m("low"), m("high")), Err(sys::EXDEV));
    let rename = trace.until("rename", "/low").pop().unwrap();
    assert_eq!(
        (&rename["to"], &rename["errno"]),
        (&Value::from("/high"), &Value::from(libc::EXDEV))
    );
    assert!(
        strings(&rename["decisions"])[0].contains("would not come along"),
        "{rename}"
    );
    assert_eq!(rename["copies"], Value::Array(vec![]));

    // Copied in a thread of its own, and told all the same.
    sys::chmod(m("big"), 0o600).unwrap();
    let chmod = trace.until("setattr", "/big").pop().unwrap();
    assert_eq!(
        (&chmod["detail"], &chmod["copies"][0]["bytes"]),
        (&Value::from("mode 0600"), &Value::from(3 << 20))
    );
    sys::chmod(m("etc/mode"), 0o600).unwrap();
    // Two threads answer, so the end of the one could be told after that of the other.
    trace.until("setattr", "/etc/mode");
    sys::unlink(m("etc/mode")).unwrap();
    trace.until("unlink", "/etc/mode");

    let summary = trace.stop().pop().unwrap();
    assert_eq!(summary["type"], "summary");
    assert_eq!(
        (&summary["lost"], &summary["copy_ups"]),
        (&Value::from(0), &Value::from(4))
    );
    assert_eq!(summary["copied_bytes"], 6 + 8 + (3 << 20));
    assert_eq!(summary["bytes_for_nothing"], 8 + (3 << 20));
    let file = |at: usize| {
        (
            summary["files"][at]["path"].as_str(),
            summary["files"][at]["for_nothing"].as_str(),
        )
    };
    assert_eq!(file(0), (Some("/big"), Some("never written")));
    assert_eq!(file(1), (Some("/etc/mode"), Some("removed")));
    assert_eq!(file(2), (Some("/etc/motd"), None));
    assert_eq!(summary["ops"]["rename"]["errors"], 1);
    mounted.umount();
}

#[test]
fn what_is_asked_for_is_what_is_told() {
    let Some((layers, mounted)) = view("trace's filters") else {
        return;
    };
    let m = |name: &str| layers.merged.join(name);
    // Each is told at its end, and the two threads' ends can change places: by their beginnings they are in order.
    let tells = |mut trace: Trace, expected: &[&str]| {
        let mut lines: Vec<_> = expected.iter().map(|_| trace.next().unwrap()).collect();
        lines.extend(trace.stop());
        lines.sort_by_key(|line| line["at"].as_u64().unwrap());
        let of = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
        let told: Vec<_> = lines
            .iter()
            .map(|line| of(line, "op") + " " + &of(line, "path"))
            .collect();
        assert_eq!(told, expected);
    };
    let ops = Trace::of(&layers, "m", &["--op", "unlink,mkdir"]);
    let below = Trace::of(&layers, "m/etc", &["--op", "open,create"]);
    let copies = Trace::of(&layers, "m", &["--copies"]);
    let program = Trace::of(&layers, "m", &["--process", "chmod", "--op", "setattr"]);
    let mut two = Trace::of(&layers, "m", &["-n", "2", "--op", "mkdir", "--summary"]);
    let mut quiet = Trace::of(&layers, "m", &["--quiet", "--copies", "-n", "3", "--summary"]);
    sys::append(m("etc/motd"), "x").unwrap();
    sys::put(m("etcetera"), "x").unwrap();
    for name in ["one", "two", "three"] {
        sys::mkdir(m(name), 0o755).unwrap();
    }
    let chmod = |name: &str| {
        let status = Command::new("chmod").arg("600").arg(m(name)).status();
        assert!(status.unwrap().success());
    };
    chmod("etc/mode");
    sys::chmod(m("etc/mode"), 0o640).unwrap();
    chmod("low/f");
    sys::unlink(m("old")).unwrap();
    sys::put(m("etc/last"), "").unwrap();
    tells(ops, &["mkdir /one", "mkdir /two", "mkdir /three", "unlink /old"]);
    tells(below, &["open /etc/motd", "create /etc/last"]);
    tells(copies, &["open /etc/motd", "setattr /etc/mode", "setattr /low/f"]);
    tells(program, &["setattr /etc/mode", "setattr /low/f"]);
    let lines = two.rest();
    assert_eq!(
        (lines.len(), &lines[2]["ops"]["mkdir"]["count"]),
        (3, &Value::from(2))
    );
    let lines = quiet.rest();
    assert_eq!((lines.len(), &lines[0]["copy_ups"]), (1, &Value::from(5)));

    let shown = {
        let mut child = Command::new(PLYFS)
            .args(["trace", "-n", "1", "--op", "rmdir"])
            .arg(&layers.merged)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        assert!(said.contains("listening to"), "{said}");
        sys::rmdir(m("one")).unwrap();
        text(&child.wait_with_output().unwrap().stdout)
    };
    assert!(
        shown.contains("] rmdir /one: removed from the upper") && shown.contains(" us"),
        "{shown}"
    );
    mounted.umount();
}

#[test]
fn a_slow_or_dead_listener_holds_nobody_up() {
    let Some((layers, mounted)) = view("trace and slow listeners") else {
        return;
    };
    let dead = Trace::of(&layers, "m", &[]);
    let mut slow = Trace::of(&layers, "m", &["--op", "unlink"]);
    dead.signal(libc::SIGKILL);
    slow.signal(libc::SIGSTOP);
    // More than the queue and the socket hold.
    for number in 0..12_000 {
        assert_eq!(
            sys::lstat(layers.merged.join(format!("none-{number}"))).map(drop),
            Err(sys::ENOENT)
        );
    }
    sys::unlink(layers.merged.join("old")).unwrap();
    drop(dead);
    slow.signal(libc::SIGCONT);
    let until = Instant::now() + Duration::from_secs(20);
    let lost = loop {
        let line = slow.next().unwrap();
        if line["type"] == "lost" {
            break line["count"].as_u64().unwrap();
        }
        assert!(Instant::now() < until);
    };
    assert!(lost > 1000, "{lost}");
    // It goes on where it can.
    sys::unlink(layers.merged.join("etc/motd")).unwrap();
    slow.until("unlink", "/etc/motd");
    drop(slow);
    let mut next = Trace::of(&layers, "m", &[]);
    sys::mkdir(layers.merged.join("new"), 0o755).unwrap();
    next.until("mkdir", "/new");
    drop(next);

    // Nor does a stopped one keep a view from ending; one that listens hears the end.
    let stopped = Trace::of(&layers, "m", &[]);
    stopped.signal(libc::SIGSTOP);
    let mut last = Trace::of(&layers, "m", &["--op", "rmdir", "--summary"]);
    sys::rmdir(layers.merged.join("new")).unwrap();
    mounted.umount();
    let lines = last.rest();
    assert_eq!((lines.len(), &lines[0]["path"]), (2, &Value::from("/new")));
    assert_eq!(lines[1]["type"], "summary");
}

/// Where the server of a view has its control socket.
fn socket_of(mounted: &Mounted) -> PathBuf {
    let pid = mounted.server().unwrap();
    let start = format!("{pid}-");
    let found = |entry: &std::fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with(&start) && name.ends_with(".sock")
    };
    let mut list = ["/run/plyfs", "/tmp/plyfs-0"]
        .into_iter()
        .filter_map(|directory| std::fs::read_dir(directory).ok())
        .flatten()
        .map(Result::unwrap);
    list.find(found).unwrap().path()
}

#[test]
fn another_user_hears_nothing() {
    let Some((layers, mounted)) = view("trace by another user") else {
        return;
    };
    let socket = socket_of(&mounted);
    assert_eq!(sys::mode(&socket).unwrap() & 0o7777, 0o600);
    let refused = as_user(ANN, || {
        UnixStream::connect(&socket)
            .map(drop)
            .map_err(|error| error.raw_os_error())
    });
    assert_eq!(refused, Err(Some(libc::EACCES)));
    let output = as_user(ANN, || run(&[], &layers.merged));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("no live server of this user"),
        "{output:?}"
    );

    // Where he can reach a socket all the same, its server asks who he is.
    let reachable = layers.base().join("socket");
    sys::put(&reachable, "").unwrap();
    sys::chmod(&socket, 0o666).unwrap();
    sys::mount(socket.to_str().unwrap(), &reachable, "none", libc::MS_BIND, "").unwrap();
    let answer = as_user(ANN, || {
        let stream = UnixStream::connect(&reachable).unwrap();
        std::io::Write::write_all(&mut &stream, b"trace\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    });
    sys::umount(&reachable, libc::MNT_DETACH).unwrap();
    assert!(
        answer.contains("refused") && answer.contains("only the user"),
        "{answer}"
    );
    mounted.umount();
}

#[test]
fn wrong_questions() {
    let Some((layers, mounted)) = view("trace's refusals") else {
        return;
    };
    for (arguments, path, status, reason) in [
        (
            &["--op", "frobnicate"][..],
            &layers.merged,
            2,
            "'frobnicate' is no request",
        ),
        (&["-n", "many"], &layers.merged, 2, "many"),
        (&[], &layers.lower, 1, "lies in no view of plyfs"),
    ] {
        let output = run(arguments, path);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(text(&output.stderr).contains(reason), "{output:?}");
    }
    mounted.umount();
}
