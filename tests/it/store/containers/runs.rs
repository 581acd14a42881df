//! Commands in containers.

use std::time::Duration;

use super::*;

const RUNS: &str = r#"
set -u; export LC_ALL=C
say() { echo "== $*"; }
run() { "$P" container run --rm "$@" 2>"$T/err"; echo "[$?]"; }
"$P" image import -t base:1 "$T/base.tar" > /dev/null
say status; run base:1 true; run base:1 sh -c 'exit 7'; run base:1 nix; run base:1 /etc/motd; run none:1 true; run base:1; run base:1 sh -c 'sh -c "kill -9 \$\$"'
say ids; run base:1 id; run -u web base:1 id; run -u 7:web base:1 id -g; run -u none base:1 id
say settings; run -e A=1 -e B -w /srv --hostname box base:1 sh -c 'pwd; hostname; echo $A$HOME; cat /etc/hostname'
run --entrypoint /bin/ls base:1 /srv
say stdin; echo text | run -i base:1 cat; echo text | run base:1 cat; run -t base:1 true
"$P" container run --rm -u web base:1 sh -c 'echo mine > /dev/stdout' > "$T/out"; cat "$T/out"; test -O "$T/out" && echo still mine
script -qec "'$P' container run --rm -it base:1 tty" /dev/null < /dev/null | tr -d '\r' | grep -o '/dev/pts/[0-9]*'
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
mine
still mine
/dev/pts/0
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
    // The runtime itself complains if it was still making the container.
    let status = running.wait().unwrap().code();
    assert!(matches!(status, Some(137 | 125)), "{status:?}");
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
    yard.ok(&["container", "rm", "trap", "kill"]);
    yard.has_no_halves();
}
