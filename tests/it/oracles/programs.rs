//! Starting the programs, and having them load an image into a tree.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::end_within;
use crate::common::images::Image;

/// Who loads an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oracle {
    Plyfs,
    Umoci,
    Podman,
    Docker,
}

/// A program that can load images.
pub trait Program {
    /// Loads the image in the file, or directory, and gives its tree; or what the program says against it.
    fn load(&self, file: &Path, image: &Image) -> Result<PathBuf, String>;
}

impl Oracle {
    pub fn name(self) -> &'static str {
        match self {
            Oracle::Plyfs => "plyfs",
            Oracle::Umoci => "umoci",
            Oracle::Podman => "podman",
            Oracle::Docker => "docker",
        }
    }

    /// plyfs, or who stands in for it.
    pub fn ours() -> Self {
        match std::env::var("PLYFS_ORACLES_OURS").as_deref() {
            Ok("umoci") => Oracle::Umoci,
            Ok("podman") => Oracle::Podman,
            Ok("docker") => Oracle::Docker,
            _ => Oracle::Plyfs,
        }
    }

    /// Makes it ready, with a place of its own; or says why it cannot run.
    pub fn start(self, scratch: &Scratch) -> Result<Box<dyn Program>, String> {
        let place = scratch.path.join(format!("place-{}", self.name()));
        let _ = std::fs::create_dir(&place);
        Ok(match self {
            Oracle::Plyfs => Box::new(Plyfs(place)),
            Oracle::Umoci => {
                output(Command::new("umoci").arg("--version"))?;
                Box::new(Umoci(place))
            }
            Oracle::Podman => {
                let podman = Podman(place, scratch.short.join("podman"));
                podman.run(["--version"])?;
                Box::new(podman)
            }
            Oracle::Docker => Box::new(Docker::start(&place, &scratch.short)?),
        })
    }
}

/// Directories that go when the value does.
pub struct Scratch {
    pub path: PathBuf,
    /// A short path, for sockets and for podman's run root.
    pub short: PathBuf,
}

impl Scratch {
    pub fn new(name: &str) -> Self {
        let within = std::env::var_os("PLYFS_TEST_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        let path = within.join(format!("plyfs-oracle-{name}-{}", std::process::id()));
        let short = PathBuf::from(format!("/tmp/plyfs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::create_dir_all(&short).unwrap();
        Scratch { path, short }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Not std's own removal, which cannot enter directories of any depth.
        let _ = Command::new("rm")
            .arg("-rf")
            .arg(&self.path)
            .arg(&self.short)
            .status();
    }
}

/// What the program prints; else the end of what it says of its failure.
pub fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{name} cannot be started: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let said = if said.is_empty() {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    } else {
        said
    };
    Err(format!("{name}: {}: {said}", output.status))
}

/// A store of ours.
pub struct Plyfs(pub PathBuf);

impl Plyfs {
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        output(command.arg("--root").arg(&self.0).args(args))
    }
}

impl Program for Plyfs {
    fn load(&self, file: &Path, image: &Image) -> Result<PathBuf, String> {
        let said = self.run([OsStr::new("image"), OsStr::new("load"), file.as_os_str()])?;
        let id = image.id();
        assert!(said.contains(&id[7..19]), "the id {id} in {said:?}");
        let root = self.run([
            "image",
            "inspect",
            "-f",
            "{{ .GraphDriver.Data.RootDir }}",
            id.as_str(),
        ])?;
        Ok(root.trim_end_matches('\n').into())
    }
}

/// The name that the image has in the index of an OCI layout, by which it is asked for.
fn name_in_layout(layout: &Path) -> String {
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let name = &index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
    name.as_str().unwrap().to_owned()
}

struct Umoci(PathBuf);

impl Program for Umoci {
    fn load(&self, file: &Path, _: &Image) -> Result<PathBuf, String> {
        let tag = name_in_layout(file);
        let bundle = self.0.join(file.file_name().unwrap());
        let mut from = file.as_os_str().to_owned();
        from.push(format!(":{tag}"));
        output(
            Command::new("umoci")
                .args(["unpack", "--image"])
                .arg(from)
                .arg(&bundle),
        )?;
        Ok(bundle.join("rootfs"))
    }
}

/// podman with the driver vfs, in a store of its own: its root and its run root.
pub struct Podman(PathBuf, PathBuf);

impl Podman {
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String, String> {
        let mut command = Command::new("podman");
        command.arg("--root").arg(&self.0).arg("--runroot").arg(&self.1);
        command.args([
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
        ]);
        output(command.args(args))
    }
}

impl Program for Podman {
    fn load(&self, file: &Path, image: &Image) -> Result<PathBuf, String> {
        self.run([
            OsStr::new("load"),
            OsStr::new("-q"),
            OsStr::new("-i"),
            file.as_os_str(),
        ])?;
        let id = image.id();
        let root = self.run(["image", "mount", &id[7..]])?;
        Ok(root.trim_end_matches('\n').into())
    }
}

/// A docker daemon with the driver `overlay`, out of packages that are unpacked and not installed.
pub struct Docker {
    daemon: Child,
    client: PathBuf,
    /// Where its sockets are: their paths must be short.
    sockets: PathBuf,
}

impl Docker {
    /// `$PLYFS_DOCKER`, or where `scripts/install-deps` unpacks it.
    fn unpacked() -> PathBuf {
        std::env::var_os("PLYFS_DOCKER").map_or_else(
            || {
                let binary = Path::new(env!("CARGO_BIN_EXE_plyfs"));
                let target = binary.ancestors().nth(2).unwrap();
                target.join("tools/docker")
            },
            PathBuf::from,
        )
    }

    pub fn start(place: &Path, sockets: &Path) -> Result<Self, String> {
        let unpacked = Self::unpacked();
        let client = unpacked.join("usr/bin/docker");
        if !client.exists() {
            return Err(format!(
                "{} is missing: run scripts/install-deps --docker",
                client.display()
            ));
        }
        let log = std::fs::File::create(place.join("log")).unwrap();
        let mut command = Command::new("unshare");
        // It does not start where both versions of control groups are mounted.
        command
            .args(["--mount", "--propagation=private", "sh", "-c"])
            .arg("umount /sys/fs/cgroup/unified 2>/dev/null; exec dockerd \"$@\"")
            .arg("dockerd");
        for (option, path) in [
            ("--data-root", place.join("data")),
            ("--exec-root", sockets.join("exec")),
            ("--pidfile", place.join("pid")),
        ] {
            command.arg(option).arg(path);
        }
        command.arg(Self::host(sockets)).args([
            "--storage-driver=overlay",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            "--userland-proxy=false",
        ]);
        let path = format!(
            "{0}/usr/bin:{0}/usr/sbin:{1}",
            unpacked.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        command
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0);
        let mut docker = Docker {
            daemon: command.spawn().map_err(|e| format!("unshare: {e}"))?,
            client,
            sockets: sockets.to_owned(),
        };
        let begun = Instant::now();
        while let Err(said) = docker.run(["version"]) {
            let ended = docker.daemon.try_wait().unwrap();
            if ended.is_some() || begun.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(place.join("log")).unwrap_or_default();
                let end: Vec<_> = log.lines().rev().take(5).collect();
                return Err(format!("{said}; dockerd: {end:?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(docker)
    }

    fn host(sockets: &Path) -> String {
        format!("--host=unix://{}/docker", sockets.display())
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String, String> {
        let mut command = Command::new(&self.client);
        command.arg(Self::host(&self.sockets));
        output(command.args(args))
    }
}

impl Program for Docker {
    fn load(&self, file: &Path, image: &Image) -> Result<PathBuf, String> {
        self.run([
            OsStr::new("load"),
            OsStr::new("-q"),
            OsStr::new("-i"),
            file.as_os_str(),
        ])?;
        let root = self.run([
            "image",
            "inspect",
            "-f",
            "{{.GraphDriver.Data.RootDir}}",
            image.id().as_str(),
        ])?;
        Ok(root.trim_end_matches('\n').into())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Politely first, so that it takes its own containerd with it.
        let pid = i32::try_from(self.daemon.id()).unwrap();
        // SAFETY: a process that is ours and was not waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        end_within(&mut self.daemon, Duration::from_secs(20));
    }
}
