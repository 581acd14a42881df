//! Images made here, packed in every shape that tools write.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A member of an image archive.
#[derive(Clone, Debug, PartialEq)]
pub enum Member {
    File(Vec<u8>),
    Link(String),
    Directory,
}

/// The members in the order in which a tool writes them.
pub type Members = Vec<(String, Member)>;

/// How layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub fn sha(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

pub fn digest(data: &[u8]) -> String {
    format!("sha256:{}", sha(data))
}

/// A layer's archive.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
}

impl Layer {
    pub fn new() -> Self {
        Self {
            tar: tar::Builder::new(Vec::new()),
        }
    }

    fn add(mut self, path: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(data.len() as u64);
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        self.tar.append_data(&mut header, path, data).unwrap();
        self
    }

    pub fn dir(self, path: &str) -> Self {
        self.add(path, tar::EntryType::Directory, 0o755, b"", "")
    }

    pub fn file(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        self.add(path, tar::EntryType::Regular, 0o644, data.as_ref(), "")
    }

    pub fn executable(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        self.add(path, tar::EntryType::Regular, 0o4755, data.as_ref(), "")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.add(path, tar::EntryType::Symlink, 0o777, b"", target)
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.add(path, tar::EntryType::Link, 0o644, b"", target)
    }

    pub fn finish(self) -> Vec<u8> {
        self.tar.into_inner().unwrap()
    }
}

/// Three layers: a base; one that changes, removes and links; one that adds.
pub fn usual_layers() -> Vec<Vec<u8>> {
    vec![
        Layer::new()
            .dir("bin")
            .executable("bin/ls", vec![b'l'; 5000])
            .dir("etc")
            .file("etc/motd", "hello\n")
            .file("etc/gone", "to be removed\n")
            .dir("usr")
            .dir("usr/lib")
            .file("usr/lib/one", "one")
            .hard_link("usr/lib/two", "usr/lib/one")
            .symlink("lib", "usr/lib")
            .finish(),
        Layer::new()
            .dir("etc")
            .file("etc/motd", "changed\n")
            .file("etc/.wh.gone", "")
            .hard_link("etc/ls", "bin/ls")
            .finish(),
        Layer::new().dir("app").file("app/main", "run\n").finish(),
    ]
}

/// An image: layers' archives, a config, names.
#[derive(Clone)]
pub struct Image {
    pub layers: Vec<Vec<u8>>,
    pub config: Vec<u8>,
    pub names: Vec<String>,
}

impl Image {
    pub fn new(name: &str, layers: Vec<Vec<u8>>) -> Self {
        let diffs: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let history: Vec<Value> = (0..layers.len())
            .map(|n| json!({"created": "2024-05-06T07:08:09Z", "created_by": format!("step {n}")}))
            .collect();
        let config = json!({
            "architecture": "amd64",
            "config": {"Cmd": ["/bin/ls"], "Env": ["A=b"], "Healthcheck": {"Test": ["CMD", "true"]}},
            "created": "2024-05-06T07:08:09Z",
            "history": history,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        Self {
            layers,
            // Not as serde_json would write it: byte for byte matters.
            config: serde_json::to_string_pretty(&config).unwrap().into_bytes(),
            names: vec![name.to_owned()],
        }
    }

    pub fn usual() -> Self {
        Self::new("usual:1", usual_layers())
    }

    pub fn id(&self) -> String {
        digest(&self.config)
    }

    pub fn diffs(&self) -> Vec<String> {
        self.layers.iter().map(|layer| digest(layer)).collect()
    }

    /// As docker 1.10 to 24 saves it, with what older ones read beside.
    pub fn docker_old(&self) -> Members {
        let mut members = self.legacy();
        let repositories = members.pop().unwrap();
        members.push((
            format!("{}.json", sha(&self.config)),
            Member::File(self.config.clone()),
        ));
        let layers: Vec<String> = (0..self.layers.len())
            .map(|n| format!("{}/layer.tar", self.v1_id(n)))
            .collect();
        let manifest = json!([{
            "Config": format!("{}.json", sha(&self.config)), "RepoTags": self.names, "Layers": layers,
        }]);
        members.push((
            "manifest.json".into(),
            Member::File(manifest.to_string().into_bytes()),
        ));
        members.push(repositories);
        members
    }

    /// As docker before 1.10 saves it: no manifest.json, no config.
    pub fn legacy(&self) -> Members {
        let mut members = Members::new();
        for (n, layer) in self.layers.iter().enumerate() {
            let id = self.v1_id(n);
            let mut json = json!({
                "id": id, "created": "2024-05-06T07:08:09Z", "architecture": "amd64", "os": "linux",
                "container_config": {"Cmd": ["/bin/sh", "-c", format!("step {n}")]}, "config": {"Cmd": ["/bin/ls"]},
            });
            if n > 0 {
                json["parent"] = self.v1_id(n - 1).into();
            }
            members.push((format!("{id}/"), Member::Directory));
            members.push((format!("{id}/VERSION"), Member::File(b"1.0".to_vec())));
            members.push((format!("{id}/json"), Member::File(json.to_string().into_bytes())));
            members.push((format!("{id}/layer.tar"), Member::File(layer.clone())));
        }
        let (repository, tag) = self.names[0].rsplit_once(':').unwrap();
        let top = self.v1_id(self.layers.len() - 1);
        let repositories = json!({repository: {tag: top}});
        members.push((
            "repositories".into(),
            Member::File(repositories.to_string().into_bytes()),
        ));
        members
    }

    fn v1_id(&self, n: usize) -> String {
        sha(format!("{n} {}", self.diffs()[..=n].join(" ")).as_bytes())
    }

    /// As skopeo and podman save it: layers by their diff ids, and links to them for the old.
    pub fn skopeo(&self) -> Members {
        let mut members = Members::new();
        for (n, layer) in self.layers.iter().enumerate() {
            let name = format!("{}.tar", sha(layer));
            members.push((name.clone(), Member::File(layer.clone())));
            let id = self.v1_id(n);
            members.push((format!("{id}/VERSION"), Member::File(b"1.0".to_vec())));
            members.push((format!("{id}/layer.tar"), Member::Link(format!("../{name}"))));
            members.push((format!("{id}/json"), Member::File(b"{}".to_vec())));
        }
        members.push((
            format!("{}.json", sha(&self.config)),
            Member::File(self.config.clone()),
        ));
        // By the links, which is the harder way.
        let layers: Vec<String> = (0..self.layers.len())
            .map(|n| format!("{}/layer.tar", self.v1_id(n)))
            .collect();
        let manifest = json!([{
            "Config": format!("{}.json", sha(&self.config)), "RepoTags": self.names, "Layers": layers,
        }]);
        members.push((
            "manifest.json".into(),
            Member::File(manifest.to_string().into_bytes()),
        ));
        members
    }

    fn packed(&self, packing: Packing) -> Vec<Vec<u8>> {
        let pack = |layer: &Vec<u8>| match packing {
            Packing::Plain => layer.clone(),
            Packing::Gzip => gzip(layer),
            Packing::Zstd => zstd::encode_all(&layer[..], 3).unwrap(),
        };
        self.layers.iter().map(pack).collect()
    }

    pub fn manifest(&self, packing: Packing) -> Vec<u8> {
        let suffix = match packing {
            Packing::Plain => "",
            Packing::Gzip => "+gzip",
            Packing::Zstd => "+zstd",
        };
        let layers: Vec<Value> = self
            .packed(packing)
            .iter()
            .map(|blob| {
                json!({
                    "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
                    "digest": digest(blob), "size": blob.len(),
                })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&self.config), "size": self.config.len(),
            },
            "layers": layers,
        });
        serde_json::to_string_pretty(&manifest).unwrap().into_bytes()
    }

    /// The blobs of an OCI layout.
    pub fn blobs(&self, packing: Packing) -> Members {
        self.packed(packing)
            .into_iter()
            .chain([self.config.clone(), self.manifest(packing)])
            .map(|data| blob(&data))
            .collect()
    }

    pub fn descriptor(&self, packing: Packing) -> Value {
        let manifest = self.manifest(packing);
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&manifest), "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": self.names[0]},
        })
    }

    /// An OCI layout, blobs first, as most tools write it.
    pub fn oci(&self, packing: Packing) -> Members {
        layout(self.blobs(packing), &[self.descriptor(packing)])
    }

    /// As docker 25 and later save it: an OCI layout, and manifest.json beside.
    pub fn docker25(&self) -> Members {
        let mut members = self.oci(Packing::Plain);
        let (_, tag) = self.names[0].rsplit_once(':').unwrap();
        let mut descriptor = self.descriptor(Packing::Plain);
        descriptor["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/library/{}", self.names[0]),
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        members.retain(|(name, _)| name != "index.json" && name != "oci-layout");
        members.push(("index.json".into(), Member::File(index.to_string().into_bytes())));
        let layers: Vec<String> = self
            .layers
            .iter()
            .map(|l| format!("blobs/sha256/{}", sha(l)))
            .collect();
        let manifest = json!([{
            "Config": format!("blobs/sha256/{}", sha(&self.config)), "RepoTags": self.names, "Layers": layers,
        }]);
        members.push((
            "manifest.json".into(),
            Member::File(manifest.to_string().into_bytes()),
        ));
        members.push((
            "oci-layout".into(),
            Member::File(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ));
        members
    }
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(data).unwrap();
    to.finish().unwrap()
}

pub fn blob(data: &[u8]) -> (String, Member) {
    (format!("blobs/sha256/{}", sha(data)), Member::File(data.to_vec()))
}

/// A layout of these blobs, with an index of these descriptors.
pub fn layout(mut blobs: Members, index: &[Value]) -> Members {
    let index = json!({"schemaVersion": 2, "manifests": index});
    let mut there = std::collections::HashSet::new();
    blobs.retain(|(name, _)| there.insert(name.clone()));
    blobs.push((
        "oci-layout".into(),
        Member::File(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
    ));
    blobs.push(("index.json".into(), Member::File(index.to_string().into_bytes())));
    blobs
}

/// As a tar archive.
pub fn tarred(members: &Members) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, member) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        let data = match member {
            Member::File(data) => data.as_slice(),
            Member::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name_literal(target).unwrap();
                b""
            }
            Member::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                b""
            }
        };
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data).unwrap();
    }
    tar.into_inner().unwrap()
}

/// As a directory.
pub fn laid_out(members: &Members, dir: &Path) {
    for (name, member) in members {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match member {
            Member::File(data) => fs::write(path, data).unwrap(),
            Member::Link(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            Member::Directory => fs::create_dir_all(path).unwrap(),
        }
    }
}
