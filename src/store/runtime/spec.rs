//! The runtime's configuration: what the command sees, and what it may do.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::runtime::{
    Capabilities, Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    get_default_maskedpaths, get_default_readonly_paths,
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::user::Resolved;
use super::{Process, Run};
use crate::mount::who;
use crate::store::{Result, StoreError};
use crate::sys::caller::Caller;
use crate::sys::stat;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What docker lets a container do, and the numbers of linux/capability.h.
const CAPABILITIES: [(Capability, u32); 14] = [
    (Capability::Chown, 0),
    (Capability::DacOverride, 1),
    (Capability::Fowner, 3),
    (Capability::Fsetid, 4),
    (Capability::Kill, 5),
    (Capability::Setgid, 6),
    (Capability::Setuid, 7),
    (Capability::Setpcap, 8),
    (Capability::NetBindService, 10),
    (Capability::NetRaw, 13),
    (Capability::SysChroot, 18),
    (Capability::Mknod, 27),
    (Capability::AuditWrite, 29),
    (Capability::Setfcap, 31),
];

/// Files that are made for each run, and shown in the place of the image's.
const OWN_FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// The network that a command sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// The machine's.
    #[default]
    Host,
    /// Nothing but a loopback device.
    None,
}

impl Network {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

/// A directory or file of the machine that is shown inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where it is outside.
    pub source: PathBuf,
    /// Where it is seen inside: an absolute path.
    pub target: String,
    /// It cannot be changed from inside.
    pub read_only: bool,
}

impl FromStr for Volume {
    type Err = StoreError;

    /// `SOURCE:TARGET[:ro]`
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why| StoreError::Grammar {
            text: text.to_owned(),
            what: "a volume, SOURCE:TARGET[:ro]",
            why,
        };
        let (paths, read_only) = match text.rsplit_once(':') {
            Some((paths, "ro")) => (paths, true),
            Some((paths, "rw")) => (paths, false),
            _ => (text, false),
        };
        let (source, target) = paths.split_once(':').ok_or_else(|| {
            wrong("a path on this machine and one inside, with ':' between them, are needed")
        })?;
        if !source.starts_with('/') {
            return Err(wrong(
                "the path on this machine must be absolute; there are no volumes with names",
            ));
        }
        if !target.starts_with('/') {
            return Err(wrong("the path inside must be absolute"));
        }
        Ok(Self {
            source: source.into(),
            target: target.to_owned(),
            read_only,
        })
    }
}

impl std::fmt::Display for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.source.display(), self.target)?;
        if self.read_only {
            f.write_str(":ro")?;
        }
        Ok(())
    }
}

/// The contents of [`OWN_FILES`].
pub(super) fn own_files(run: &Run<'_>) -> Vec<(&'static str, Vec<u8>)> {
    // What the machine does not have is empty inside, too.
    let copied = |path: &str| match run.network {
        Network::Host => std::fs::read(path).unwrap_or_default(),
        Network::None => Vec::new(),
    };
    let mut hosts = copied("/etc/hosts");
    if hosts.is_empty() {
        hosts = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_vec();
    }
    if hosts.last() != Some(&b'\n') {
        hosts.push(b'\n');
    }
    hosts.extend_from_slice(format!("127.0.1.1\t{}\n", run.hostname).as_bytes());
    let contents = [
        format!("{}\n", run.hostname).into_bytes(),
        hosts,
        copied("/etc/resolv.conf"),
    ];
    OWN_FILES.into_iter().zip(contents).collect()
}

/// Whether `path` is a regular file in the tree at `root`, with no symlink on the way.
fn is_plain_file(root: &Path, path: &str) -> bool {
    let root = match rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(root) => root,
        Err(_) => return false,
    };
    rustix::fs::openat2(
        root,
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    )
    .and_then(stat::stat_fd)
    .is_ok_and(|stat| stat.is_file())
}

/// The whole configuration.
pub(super) fn config(run: &Run<'_>, merged: &Path, bundle: &Path, user: &Resolved) -> Result<Spec> {
    let failed = |error: oci_spec::OciSpecError| {
        StoreError::Refused(format!("cannot describe the container to the runtime: {error}"))
    };
    let mut mounts = system_mounts(run.network)?;
    for name in OWN_FILES {
        let target = format!("/etc/{name}");
        if is_plain_file(merged, &target) {
            mounts.push(bind(&bundle.join(name), &target, "bind", false)?);
        }
    }
    for volume in &run.volumes {
        if let Err(error) = volume.source.metadata() {
            return Err(StoreError::io("use the volume", &volume.source)(error));
        }
        mounts.push(bind(&volume.source, &volume.target, "rbind", volume.read_only)?);
    }
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    if run.network == Network::None {
        kinds.push(LinuxNamespaceType::Network);
    }
    let namespaces = kinds
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(failed)?;
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(get_default_maskedpaths())
        .readonly_paths(get_default_readonly_paths())
        .build()
        .map_err(failed)?;
    let root = RootBuilder::default()
        .path(merged)
        .readonly(run.read_only)
        .build()
        .map_err(failed)?;
    let mut spec = SpecBuilder::default()
        .root(root)
        .mounts(mounts)
        .process(process(run, user).map_err(failed)?)
        .hostname(run.hostname.clone())
        .linux(linux)
        .build()
        .map_err(failed)?;
    spec.set_version("1.0.2".to_owned());
    Ok(spec)
}

fn process(
    run: &Run<'_>,
    user: &Resolved,
) -> std::result::Result<oci_spec::runtime::Process, oci_spec::OciSpecError> {
    let own = Caller::read(std::process::id());
    let allowed: Capabilities = CAPABILITIES
        .into_iter()
        .filter(|(_, number)| own.has(*number))
        .map(|(capability, _)| capability)
        .collect();
    let held = if user.uid == 0 {
        allowed.clone()
    } else {
        Capabilities::new()
    };
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(allowed)
        .effective(held.clone())
        .permitted(held)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()?;
    let ids = UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(user.groups.clone())
        .build()?;
    let cwd = if run.process.cwd.is_empty() {
        "/"
    } else {
        &run.process.cwd
    };
    let mut process = ProcessBuilder::default()
        .terminal(run.process.tty)
        .user(ids)
        .args(run.process.argv.clone())
        .env(environment(&run.process, &run.hostname, user))
        .cwd(cwd)
        .capabilities(capabilities)
        .no_new_privileges(false)
        .build()?;
    // The machine's own limits hold; raising them would need a privilege.
    process.set_rlimits(None);
    Ok(process)
}

/// The given variables, the last of each name, and those that every program expects.
fn environment(process: &Process, hostname: &str, user: &Resolved) -> Vec<String> {
    fn name(variable: &str) -> &str {
        variable.split('=').next().unwrap_or_default()
    }
    let home = user.home.as_deref().unwrap_or("/");
    let mut defaults = vec![
        PATH.to_owned(),
        format!("HOSTNAME={hostname}"),
        format!("HOME={home}"),
    ];
    if process.tty {
        defaults.push("TERM=xterm".to_owned());
    }
    let mut all: Vec<String> = Vec::new();
    for variable in defaults.iter().chain(&process.env) {
        match all.iter_mut().find(|known| name(known) == name(variable)) {
            Some(known) => known.clone_from(variable),
            None => all.push(variable.clone()),
        }
    }
    all
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount> {
    MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(|error| StoreError::Refused(format!("cannot describe the mount on {target}: {error}")))
}

fn bind(source: &Path, target: &str, how: &str, read_only: bool) -> Result<Mount> {
    let source = source.to_str().ok_or_else(|| {
        StoreError::Refused(format!(
            "{}: a path that is not UTF-8 cannot be told to the runtime",
            source.display()
        ))
    })?;
    mount(
        target,
        "bind",
        source,
        &[how, "rprivate", if read_only { "ro" } else { "rw" }],
    )
}

fn system_mounts(network: Network) -> Result<Vec<Mount>> {
    let quiet = ["nosuid", "noexec", "nodev"];
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if is_mapped(5) {
        pts.push("gid=5");
    }
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &quiet)?,
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        mount("/dev/pts", "devpts", "devpts", &pts)?,
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        )?,
        mount("/dev/mqueue", "mqueue", "mqueue", &quiet)?,
    ];
    // A new sysfs may be mounted only by who owns the network.
    let own_network = who::is_true_root() || network == Network::None;
    mounts.push(if own_network {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?
    } else {
        mount(
            "/sys",
            "bind",
            "/sys",
            &["rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"],
        )?
    });
    Ok(mounts)
}

/// Whether the group `gid` exists in this user namespace.
fn is_mapped(gid: u64) -> bool {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(inside)), _, Some(Ok(count))) => gid.checked_sub(inside).is_some_and(|at| at < count),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let volume: Volume = "/srv/a:/b:ro".parse().unwrap();
        assert_eq!(volume.to_string(), "/srv/a:/b:ro");
        assert!(volume.read_only && volume.target == "/b");
        assert!(!"/a:/b:rw".parse::<Volume>().unwrap().read_only);
        for wrong in ["", "/a", "data:/b", "/a:b", "/a:ro"] {
            assert!(wrong.parse::<Volume>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_of_a_name_counts() {
        let process = Process {
            env: ["A=1", "PATH=/x", "A=2", "HOME=/h"].map(str::to_owned).to_vec(),
            ..Process::default()
        };
        let all = environment(&process, "box", &Resolved::default());
        assert_eq!(all, ["PATH=/x", "HOSTNAME=box", "HOME=/h", "A=2"]);
    }
}
