//! The ways to mount that are compared, and how an engine is told to use one.

use std::path::{Path, PathBuf};

use super::nest::{Nest, Who};
use crate::common::copy_program;

/// Who mounts the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The engine's own driver, with the kernel's overlay.
    Kernel,
    /// Debian's fuse-overlayfs.
    FuseOverlayfs,
    Plyfs,
}

impl By {
    pub const ALL: [By; 3] = [By::Kernel, By::FuseOverlayfs, By::Plyfs];

    pub fn name(self) -> &'static str {
        match self {
            By::Kernel => "kernel",
            By::FuseOverlayfs => "fuse-overlayfs",
            By::Plyfs => "plyfs",
        }
    }

    /// Those that `PLYFS_ENGINES_BY` names (with commas between), else all.
    pub fn wanted() -> Vec<By> {
        let words = std::env::var("PLYFS_ENGINES_BY").unwrap_or_default();
        let named = |by: &By| words.is_empty() || words.split(',').any(|word| word == by.name());
        By::ALL.into_iter().filter(named).collect()
    }

    /// The program, copied to where everybody can run it; none for the kernel.
    pub fn program(self, nest: &Nest) -> Result<Option<PathBuf>, String> {
        let from = match self {
            By::Kernel => return Ok(None),
            By::FuseOverlayfs => PathBuf::from("/usr/bin/fuse-overlayfs"),
            By::Plyfs => std::env::var_os("PLYFS_ENGINES_OURS")
                .map_or_else(|| env!("CARGO_BIN_EXE_plyfs").into(), PathBuf::from),
        };
        let to = nest.path.join("bin").join(self.name());
        copy_program(&from, &to);
        Ok(Some(to))
    }
}

/// Where the build puts what `scripts/install-deps` unpacks.
pub fn tools() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_plyfs"));
    binary.ancestors().nth(2).unwrap().join("tools")
}

/// A fresh directory name for an engine's store: short, on the file system that the tests have for layers.
pub fn place(name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let within = std::env::var_os("PLYFS_TEST_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    within.join(format!("pe-{name}{}-{number}", std::process::id()))
}

/// podman and buildah on one store.
pub struct Podman {
    pub nest: Nest,
    pub by: By,
    pub who: Who,
    /// Where its layers are.
    pub graph: PathBuf,
}

/// What `storage.conf` can say beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Lines of `[storage.options.overlay]`.
    pub overlay: &'static str,
    /// The words of `mountopt`; without it a mount program gets empty words.
    pub mountopt: Option<&'static str>,
}

impl Default for Storage {
    fn default() -> Self {
        Storage {
            overlay: "",
            mountopt: Some("nodev"),
        }
    }
}

/// A word that only mount programs know; `volatile` says the same to the kernel's overlay.
const NOT_FOR_THE_KERNEL: &str = ",fsync=0";

impl Podman {
    pub fn new(by: By, who: Who, storage: Storage) -> Result<Self, String> {
        let mut nest = Nest::new(who, &place(&format!("{}{}", &by.name()[..1], &who.name()[..1])))?;
        let program = by.program(&nest)?;
        let at = |name: &str| nest.path.join(name);
        let (graph, run) = (at("work/graph"), Path::new("/run/engine"));
        let mut text = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {graph:?}\nrunroot = {run:?}\nrootless_storage_path = {graph:?}\n\
             [storage.options.overlay]\n{}\n",
            storage.overlay
        );
        match storage.mountopt {
            Some(words) if by == By::Kernel => {
                text += &format!("mountopt = {:?}\n", words.replace(NOT_FOR_THE_KERNEL, ""))
            }
            Some(words) => text += &format!("mountopt = {words:?}\n"),
            None => {}
        }
        if let Some(program) = &program {
            text += &format!("mount_program = {program:?}\n");
        }
        std::fs::write(at("storage.conf"), text).unwrap();
        std::fs::write(at("containers.conf"), CONTAINERS_CONF).unwrap();
        std::fs::write(at("tree"), include_bytes!("../../../scripts/lib/tree")).unwrap();
        let storage_conf = at("storage.conf").display().to_string();
        let containers_conf = at("containers.conf").display().to_string();
        nest.set("CONTAINERS_STORAGE_CONF", &storage_conf);
        nest.set("CONTAINERS_CONF", &containers_conf);
        nest.set("BUILDAH_ISOLATION", "oci");
        Ok(Podman { nest, by, who, graph })
    }

    /// What `podman WORDS` prints.
    pub fn podman(&self, words: &[&str]) -> Result<String, String> {
        self.nest
            .ok(std::iter::once("podman").chain(words.iter().copied()))
    }

    /// Within the user and mount namespaces in which the engine keeps its mounts.
    pub fn inside(&self, words: &[&str]) -> Result<String, String> {
        let enter: &[&str] = if self.who == Who::User {
            &["podman", "unshare"]
        } else {
            &[]
        };
        self.nest.ok(enter.iter().chain(words).copied())
    }

    /// The lines of `scripts/lib/tree` for a directory, with all times and all link counts.
    pub fn tree(&self, dir: &str, more: &[&str]) -> Result<String, String> {
        let program = self.nest.path.join("tree").display().to_string();
        let words = ["/usr/bin/python3", &program, "--times", ".*", "--directory-links"];
        self.inside(&[&words[..], more, &[dir]].concat())
    }

    /// The tree of an image, mounted meanwhile.
    pub fn image_tree(&self, image: &str, more: &[&str]) -> Result<String, String> {
        let dir = self.inside(&["podman", "image", "mount", image])?;
        let tree = self.tree(dir.trim_end(), more)?;
        self.inside(&["podman", "image", "umount", image])?;
        Ok(tree)
    }

    /// The tree of a container, mounted meanwhile.
    pub fn container_tree(&self, container: &str, more: &[&str]) -> Result<String, String> {
        let dir = self.inside(&["podman", "mount", container])?;
        let tree = self.tree(dir.trim_end(), more)?;
        self.inside(&["podman", "umount", container])?;
        Ok(tree)
    }

    /// The archives of an image's layers, from the base up, through `podman save`.
    pub fn layers(&self, image: &str) -> Result<Vec<Vec<u8>>, String> {
        let file = self.nest.path.join("tmp/saved.tar");
        let name = file.display().to_string();
        self.podman(&["save", "-q", "--format", "docker-archive", "-o", &name, image])?;
        let layers = layers_of(&file);
        std::fs::remove_file(&file).unwrap();
        layers
    }

    /// The servers that mount for the engine: number and command line.
    pub fn servers(&self) -> Vec<(u32, String)> {
        self.nest.processes_of(self.by.name())
    }
}

/// The archives of the layers in a docker archive.
pub fn layers_of(file: &Path) -> Result<Vec<Vec<u8>>, String> {
    let mut files = std::collections::BTreeMap::new();
    let opened = std::fs::File::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
    for entry in tar::Archive::new(opened).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        files.insert(path, bytes);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let names = manifest[0]["Layers"].as_array().unwrap();
    Ok(names
        .iter()
        .map(|name| files.remove(name.as_str().unwrap()).unwrap())
        .collect())
}

/// What podman needs here: no control groups, no network, and limits that this machine lets it set.
const CONTAINERS_CONF: &str = r#"
[containers]
default_ulimits = ["nofile=1024:20000", "nproc=10000:10000"]
cgroups = "disabled"
netns = "none"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"#;
