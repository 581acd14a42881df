//! What docker does, with the drivers `overlay2` (the kernel) and `fuse-overlayfs` (which runs the program of that name
//! that is first in PATH: for plyfs, a link with that name).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::compare::Case;
use super::images::{BASED, CHANGES, DEEP, DEEP_NAME, Images, LAYERED, containerfile};
use super::nest::{Nest, Who, finish};
use super::podman::LOOK;
use super::programs::{By, layers_of, place, tools};
use super::seen::Seen;
use crate::common::end_within;

type Done = Result<(), String>;

/// The name under which dockerd finds the program that mounts.
const SERVER: &str = "fuse-overlayfs";

/// A daemon of its own, out of packages that are unpacked and not installed.
pub struct Docker {
    nest: Nest,
    by: By,
    daemon: Child,
    host: String,
    data: PathBuf,
    client: PathBuf,
    /// The name under which its control groups are.
    group: String,
}

impl Docker {
    pub fn new(by: By) -> Result<Self, String> {
        let mut nest = Nest::new(Who::Root, &place(&format!("d{}", &by.name()[..1])))?;
        let unpacked = std::env::var_os("PLYFS_DOCKER").map_or_else(|| tools().join("docker"), PathBuf::from);
        let client = unpacked.join("usr/bin/docker");
        if !client.exists() {
            return Err(format!(
                "{} is missing: run scripts/install-deps --docker",
                client.display()
            ));
        }
        nest.before_in_path(&unpacked.join("usr/sbin"));
        nest.before_in_path(&unpacked.join("usr/bin"));
        if by == By::Plyfs {
            let program = by.program(&nest)?.unwrap();
            let dir = nest.path.join("program");
            std::fs::create_dir(&dir).unwrap();
            std::os::unix::fs::symlink(program, dir.join("fuse-overlayfs")).unwrap();
            nest.before_in_path(&dir);
        }
        nest.set("DOCKER_BUILDKIT", "0");
        std::fs::write(
            nest.path.join("tree"),
            include_bytes!("../../../scripts/lib/tree"),
        )
        .unwrap();
        let at = |name: &str| nest.path.join(name).display().to_string();
        // Sockets have short paths; the namespace has a /run of its own.
        let host = "unix:///run/docker.sock".to_owned();
        let driver = if by == By::Kernel {
            "overlay2"
        } else {
            "fuse-overlayfs"
        };
        let group = nest.path.file_name().unwrap().to_string_lossy().into_owned();
        let words = [
            "dockerd",
            &format!("--cgroup-parent=/{group}"),
            &format!("--data-root={}", at("work/data")),
            "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid",
            &format!("--host={host}"),
            &format!("--storage-driver={driver}"),
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            "--userland-proxy=false",
        ];
        let log = std::fs::File::create(nest.path.join("docker.log")).unwrap();
        let mut command = nest.command(words);
        command.stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().map_err(|e| format!("dockerd: {e}"))?;
        let data = nest.path.join("work/data");
        let mut docker = Docker {
            nest,
            by,
            daemon,
            host,
            data,
            client,
            group,
        };
        let begun = Instant::now();
        while let Err(said) = docker.docker(&["version"]) {
            let ended = docker.daemon.try_wait().unwrap();
            if ended.is_some() || begun.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(docker.nest.path.join("docker.log")).unwrap_or_default();
                let end: Vec<_> = log.lines().rev().take(3).collect();
                return Err(format!("{said}; dockerd: {end:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(docker)
    }

    /// What `docker WORDS` prints.
    fn docker(&self, words: &[&str]) -> Result<String, String> {
        let client = self.client.display().to_string();
        self.nest
            .ok([&[&client[..], "--host", &self.host], words].concat())
    }

    /// The tree of a running container.
    fn tree(&self, container: &str) -> Result<String, String> {
        let dir = self.docker(&["inspect", "-f", "{{.GraphDriver.Data.MergedDir}}", container])?;
        let program = self.nest.path.join("tree").display().to_string();
        let skip = "(etc/(hosts|resolv.conf|hostname|mtab)|.dockerenv|dev|proc|sys)";
        let words = [
            "/usr/bin/python3",
            &program,
            "--times",
            ".*",
            "--directory-links",
            "--skip",
            skip,
        ];
        self.nest.ok([&words[..], &[dir.trim_end()]].concat())
    }

    fn layers(&self, image: &str) -> Result<Vec<Vec<u8>>, String> {
        let file = self.nest.path.join("tmp/saved.tar");
        self.docker(&["save", "-o", &file.display().to_string(), image])?;
        let layers = layers_of(&file);
        std::fs::remove_file(&file).unwrap();
        layers
    }

    fn load(&self, file: &Path) -> Result<String, String> {
        self.docker(&["load", "-q", "-i", &file.display().to_string()])
    }

    fn start(&self, name: &str, image: &str) -> Done {
        self.docker(&[
            "run",
            "-d",
            "--network=none",
            "--name",
            name,
            image,
            "sleep",
            "1000",
        ])?;
        Ok(())
    }

    fn servers(&self) -> Vec<(u32, String)> {
        self.nest.processes_of(SERVER)
    }

    /// The daemon, asked politely, takes its own containerd with it.
    fn stop(&self) {
        let pid = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.daemon.id()))
            .unwrap_or_default();
        if let Ok(pid) = pid.trim().parse() {
            // SAFETY: the daemon that this value started.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.stop();
        end_within(&mut self.daemon, Duration::from_secs(15));
        // Control groups are the machine's. A container that is still paused could not even be killed.
        let groups = "for group in /sys/fs/cgroup/$1 /sys/fs/cgroup/*/$1; do \
                          for state in $group/*/freezer.state; do [ ! -e $state ] || echo THAWED >$state; done; \
                          [ ! -e $group ] || find $group -depth -type d -exec rmdir {} \\; 2>/dev/null; \
                      done";
        let mut command = Command::new("sh");
        command.args(["-c", groups, "sh", &self.group]);
        finish(command);
    }
}

pub fn cases() -> Vec<Case<Docker>> {
    let case = |name, run| Case { name, run };
    vec![
        case("load of an image of five layers", load),
        case("run --rm, and exit statuses", run),
        case("exec, diff", exec_and_diff),
        case("cp to and from a container", copy),
        case("commit of a running container", commit),
        case("commit of a running container, with pause", commit_paused),
        case("stop and start", stop_and_start),
        case("kill -9 of the server, and a new start", server_killed),
        case("build with RUN steps", build),
        case("export, import", export),
        case("an image of 125 layers", deep),
        case("rm, rmi: nothing is left over", nothing_left),
    ]
}

fn load(docker: &Docker, seen: &mut Seen) -> Done {
    seen.value("name", docker.load(&Images::get()?.docker)?);
    docker.load(&Images::get()?.based)?;
    docker.start("loaded", LAYERED)?;
    seen.lines("within", &docker.docker(&["exec", "loaded", "sh", "-c", LOOK])?);
    seen.tree("container", &docker.tree("loaded")?);
    docker.docker(&["rm", "-f", "loaded"])?;
    for (number, layer) in docker.layers(LAYERED)?.iter().enumerate() {
        seen.archive(&format!("layer {number}"), layer);
    }
    Ok(())
}

fn run(docker: &Docker, seen: &mut Seen) -> Done {
    seen.value(
        "output",
        docker.docker(&["run", "--rm", "--network=none", BASED, "cat", "/etc/motd"])?,
    );
    let client = docker.client.display().to_string();
    for line in [
        "exit 7",
        "cat /none",
        "echo x >/opt/f && rm -r /opt/tree && ! ls /opt/tree",
    ] {
        let words = [
            &client,
            "--host",
            &docker.host,
            "run",
            "--rm",
            "--network=none",
            BASED,
            "sh",
            "-c",
            line,
        ];
        let said = docker.nest.run(words);
        seen.value(
            &format!("`{line}`"),
            format!("{} {} {}", said.status, said.out, said.err),
        );
    }
    let words = [
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        LAYERED,
        "sh",
        "-c",
        "rm /opt/new 2>&1; cat /opt/new",
    ];
    seen.value("read-only", docker.docker(&words)?);
    seen.value("containers", docker.docker(&["ps", "-aq"])?);
    Ok(())
}

fn exec_and_diff(docker: &Docker, seen: &mut Seen) -> Done {
    docker.start("changed", BASED)?;
    seen.diff("untouched", &docker.docker(&["diff", "changed"])?);
    docker.docker(&["exec", "changed", "sh", "-ec", CHANGES])?;
    seen.lines("within", &docker.docker(&["exec", "changed", "sh", "-c", LOOK])?);
    seen.diff("diff", &docker.docker(&["diff", "changed"])?);
    seen.tree("container", &docker.tree("changed")?);
    Ok(())
}

fn copy(docker: &Docker, seen: &mut Seen) -> Done {
    let work = docker.nest.path.join("work").display().to_string();
    docker.nest.ok([
        "sh",
        "-ec",
        &format!("mkdir -p {work}/in/sub && echo in >{work}/in/sub/f && chmod 640 {work}/in/sub/f"),
    ])?;
    docker.docker(&["cp", &format!("{work}/in"), "changed:/opt/copied"])?;
    docker.docker(&["cp", "changed:/opt", &format!("{work}/out")])?;
    let look = "find /opt/copied -exec stat -c '%n %A %u:%g' {} + | sort; cat /opt/copied/sub/f";
    seen.value("within", docker.docker(&["exec", "changed", "sh", "-c", look])?);
    let program = docker.nest.path.join("tree").display().to_string();
    seen.tree(
        "outside",
        &docker
            .nest
            .ok(["/usr/bin/python3", &program, &format!("{work}/out")])?,
    );
    Ok(())
}

fn commit(docker: &Docker, seen: &mut Seen) -> Done {
    docker.docker(&["commit", "--pause=false", "changed", "committed:1"])?;
    seen.archive("layer", docker.layers("committed:1")?.last().unwrap());
    let words = ["run", "--rm", "--network=none", "committed:1", "sh", "-c", LOOK];
    seen.lines("run", &docker.docker(&words)?);
    Ok(())
}

/// What docker does when nothing else is asked for: the container, in the midst of writing, stands still meanwhile.
fn commit_paused(docker: &Docker, seen: &mut Seen) -> Done {
    docker.start("writing", BASED)?;
    let script = "while :; do echo written >>/opt/log; mkdir -p /opt/d/e; echo x >/opt/d/e/f; rm -r /opt/d /opt/f; echo x >/opt/f; done";
    docker.docker(&["exec", "-d", "writing", "sh", "-c", script])?;
    let lines = || docker.docker(&["exec", "writing", "sh", "-c", "wc -l </opt/log"]);
    if !docker
        .nest
        .until(|| lines().is_ok_and(|lines| lines.trim() != "0"))
    {
        return Err(format!("nothing is written: {:?}", lines()));
    }
    docker.docker(&["commit", "writing", "paused:1"])?;
    let state = ["inspect", "-f", "{{.State.Status}}", "writing"];
    seen.value("afterwards", docker.docker(&state)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let until = format!("--until={}.{:09}", now.as_secs(), now.subsec_nanos());
    let words = ["events", "--since=10m", &until, "--format={{.Action}}"];
    let which = [
        "--filter=container=writing",
        "--filter=event=pause",
        "--filter=event=unpause",
    ];
    seen.value("events", docker.docker(&[&words[..], &which].concat())?);
    if seen.all["events"] != "pause\nunpause" {
        return Err(format!("it was not paused: {:?}", seen.all["events"]));
    }
    let before = lines()?;
    if !docker.nest.until(|| lines().is_ok_and(|lines| lines != before)) {
        return Err("it does not go on".into());
    }
    docker.docker(&["rm", "-f", "writing"])?;
    // A whole state: no line is cut, and nothing else is changed.
    let look = "grep -vc '^written$' /opt/log; ls /opt | grep -v '^[df]$'; ls /many | wc -l";
    let words = ["run", "--rm", "--network=none", "paused:1", "sh", "-c", look];
    seen.value("run", docker.docker(&words)?);
    Ok(())
}

fn stop_and_start(docker: &Docker, seen: &mut Seen) -> Done {
    docker.docker(&["kill", "changed"])?;
    docker.docker(&["start", "changed"])?;
    seen.lines("within", &docker.docker(&["exec", "changed", "sh", "-c", LOOK])?);
    seen.diff("diff", &docker.docker(&["diff", "changed"])?);
    docker.docker(&["rm", "-f", "changed"])?;
    Ok(())
}

fn server_killed(docker: &Docker, seen: &mut Seen) -> Done {
    docker.start("killed", LAYERED)?;
    docker.docker(&[
        "exec",
        "killed",
        "sh",
        "-ec",
        "echo kept >/opt/kept; rm /opt/new; mkdir /opt/kept.d",
    ])?;
    if docker.by != By::Kernel {
        docker.nest.kill_server(SERVER)?;
    }
    docker.docker(&["kill", "killed"])?;
    docker.docker(&["start", "killed"])?;
    let script = format!("cat /opt/kept && {LOOK}");
    seen.lines(
        "within",
        &docker.docker(&["exec", "killed", "sh", "-c", &script])?,
    );
    seen.diff("diff", &docker.docker(&["diff", "killed"])?);
    docker.docker(&["rm", "-f", "killed"])?;
    Ok(())
}

fn build(docker: &Docker, seen: &mut Seen) -> Done {
    let context = docker.nest.path.join("work/context");
    std::fs::create_dir_all(context.join("added")).unwrap();
    std::fs::write(context.join("Dockerfile"), containerfile(BASED)).unwrap();
    std::fs::write(context.join("added/f"), "added\n").unwrap();
    docker.docker(&[
        "build",
        "-q",
        "--network=none",
        "-t",
        "built:1",
        &context.display().to_string(),
    ])?;
    for (number, layer) in docker.layers("built:1")?.iter().enumerate().skip(1) {
        seen.archive(&format!("layer {number}"), layer);
    }
    docker.start("built", "built:1")?;
    seen.tree("container", &docker.tree("built")?);
    docker.docker(&["rm", "-f", "built"])?;
    seen.value(
        "run",
        docker.docker(&["run", "--rm", "--network=none", "built:1"])?,
    );
    Ok(())
}

fn export(docker: &Docker, seen: &mut Seen) -> Done {
    docker.docker(&["create", "--name", "exported", "built:1", "true"])?;
    let file = docker.nest.path.join("tmp/exported.tar");
    docker.docker(&["export", "-o", &file.display().to_string(), "exported"])?;
    seen.exported("archive", &std::fs::read(&file).unwrap());
    docker.docker(&["import", &file.display().to_string(), "imported:1"])?;
    docker.docker(&["rm", "exported"])?;
    std::fs::remove_file(&file).unwrap();
    Ok(())
}

fn deep(docker: &Docker, seen: &mut Seen) -> Done {
    docker.load(&Images::get()?.deep)?;
    docker.start("deep", DEEP_NAME)?;
    let script = format!(
        "cat /stack/top; rm /stack/f2 /stack/f{}; echo x >/stack/f4; {LOOK}",
        DEEP - 1
    );
    seen.lines("within", &docker.docker(&["exec", "deep", "sh", "-ec", &script])?);
    seen.diff("diff", &docker.docker(&["diff", "deep"])?);
    seen.tree("container", &docker.tree("deep")?);
    docker.docker(&["rm", "-f", "deep"])?;
    Ok(())
}

/// No mount, no server, no layer; and when the daemon is gone no mount and no process at all.
fn nothing_left(docker: &Docker, seen: &mut Seen) -> Done {
    docker.start("last", BASED)?;
    let containers = docker.docker(&["ps", "-aq"])?;
    docker.docker(&[&["rm", "-f"], &containers.lines().collect::<Vec<_>>()[..]].concat())?;
    docker.docker(&["image", "prune", "-af"])?;
    seen.value("images", docker.docker(&["images", "-aq"])?);
    if !docker.nest.until(|| docker.servers().is_empty()) {
        return Err(format!("left over after rm: {:?}", docker.servers()));
    }
    let dir = docker.data.join(if docker.by == By::Kernel {
        "overlay2"
    } else {
        "fuse-overlayfs"
    });
    let script = "cd \"$1\" && ls -A . l";
    let left = docker
        .nest
        .ok(["sh", "-c", script, "sh", &dir.display().to_string()])?;
    seen.value("files", left);
    docker.stop();
    if !docker.nest.until(|| docker.nest.processes().is_empty()) {
        return Err(format!(
            "left over after the daemon: {:?}",
            docker.nest.processes()
        ));
    }
    if !docker.nest.until(|| docker.nest.new_mounts().is_empty()) {
        return Err(format!(
            "left over after the daemon: {:?}",
            docker.nest.new_mounts()
        ));
    }
    Ok(())
}
