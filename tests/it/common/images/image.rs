//! Layers and a config, packed as docker, podman, skopeo and umoci write images.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::archive::{self, Item, Layer};

/// How the layers are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// The shapes of images in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `docker save` before 25: a directory for each layer, with `json`, `VERSION` and `layer.tar`.
    Docker,
    /// skopeo's docker-archive: `<diff id>.tar`, and symlinks to it where docker has its files.
    Skopeo,
    /// `docker save` since 25: an OCI layout with a `manifest.json` beside.
    Docker25,
    /// An OCI layout in a directory.
    OciDirectory,
    /// An OCI layout in a tar archive.
    OciArchive,
}

impl Shape {
    pub const ALL: [Shape; 5] = [
        Shape::Docker,
        Shape::Skopeo,
        Shape::Docker25,
        Shape::OciDirectory,
        Shape::OciArchive,
    ];
}

/// An image.
#[derive(Clone, Debug)]
pub struct Image {
    /// `repository:tag`.
    pub name: String,
    pub layers: Vec<Layer>,
    /// The field `config` of the config.
    pub settings: Value,
}

/// Hex digits of the SHA-256 of some bytes.
pub fn sha256(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

fn digest(data: &[u8]) -> String {
    format!("sha256:{}", sha256(data))
}

/// Packs one layer.
pub fn pack(data: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => data.to_vec(),
        Packing::Gzip => {
            let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            to.write_all(data).unwrap();
            to.finish().unwrap()
        }
        Packing::Zstd => zstd::encode_all(data, 1).unwrap(),
    }
}

impl Image {
    pub fn new(name: &str, layers: &[&[Item]]) -> Self {
        Image {
            name: name.into(),
            layers: layers.iter().map(|items| Layer::new(items)).collect(),
            settings: json!({"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]}),
        }
    }

    /// `sha256:...` of each layer's archive, from the base up.
    pub fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(|layer| digest(&layer.0)).collect()
    }

    /// The config file, byte for byte.
    pub fn config(&self) -> Vec<u8> {
        let history: Vec<_> = (0..self.layers.len())
            .map(|n| json!({"created": "2021-03-04T05:06:07Z", "created_by": format!("layer {n}")}))
            .collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2021-03-04T05:06:07Z",
            "config": self.settings,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids()},
            "history": history,
        });
        serde_json::to_vec_pretty(&config).unwrap()
    }

    /// `sha256:...`: the digest of the config.
    pub fn id(&self) -> String {
        digest(&self.config())
    }

    /// Path and content of every file of that shape.
    fn files(&self, shape: Shape, packing: Packing) -> Vec<(String, Result<Vec<u8>, String>)> {
        let config = self.config();
        let mut files: Vec<(String, Result<Vec<u8>, String>)> = Vec::new();
        let mut layers = Vec::new();
        match shape {
            Shape::Docker | Shape::Skopeo => {
                let id = self.id();
                for (n, layer) in self.layers.iter().enumerate() {
                    let packed = pack(&layer.0, packing);
                    let v1 = sha256(format!("{id} layer {n}").as_bytes());
                    files.push((format!("{v1}/VERSION"), Ok(b"1.0".to_vec())));
                    files.push((
                        format!("{v1}/json"),
                        Ok(json!({"id": v1}).to_string().into_bytes()),
                    ));
                    let path = format!("{v1}/layer.tar");
                    if shape == Shape::Docker {
                        layers.push(path.clone());
                        files.push((path, Ok(packed)));
                    } else {
                        let own = format!("{}.tar", sha256(&layer.0));
                        // A layer that is there twice is written once.
                        if !layers.contains(&own) {
                            files.push((own.clone(), Ok(packed)));
                        }
                        files.push((path, Err(format!("../{own}"))));
                        layers.push(own);
                    }
                }
                let name = format!("{}.json", sha256(&config));
                files.push((name.clone(), Ok(config)));
                let manifest = json!([{"Config": name, "RepoTags": [self.name], "Layers": layers}]);
                files.push(("manifest.json".into(), Ok(manifest.to_string().into_bytes())));
            }
            Shape::Docker25 | Shape::OciDirectory | Shape::OciArchive => {
                let mut descriptors = Vec::new();
                let ending = match packing {
                    Packing::Plain => "",
                    Packing::Gzip => "+gzip",
                    Packing::Zstd => "+zstd",
                };
                let mut blob = |data: Vec<u8>, media: &str| {
                    let (path, size) = (format!("blobs/sha256/{}", sha256(&data)), data.len());
                    let descriptor = json!({
                        "mediaType": format!("application/vnd.oci.image.{media}"),
                        "digest": digest(&data),
                        "size": size,
                    });
                    if !files.iter().any(|(known, _)| *known == path) {
                        files.push((path.clone(), Ok(data)));
                    }
                    (path, descriptor)
                };
                for layer in &self.layers {
                    let (path, descriptor) = blob(pack(&layer.0, packing), &format!("layer.v1.tar{ending}"));
                    layers.push(path);
                    descriptors.push(descriptor);
                }
                let (config, config_descriptor) = blob(config, "config.v1+json");
                let manifest = json!({
                    "schemaVersion": 2,
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": config_descriptor,
                    "layers": descriptors,
                });
                let (_, mut descriptor) = blob(serde_json::to_vec(&manifest).unwrap(), "manifest.v1+json");
                let tag = self.name.rsplit(':').next().unwrap();
                descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
                let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
                files.push(("index.json".into(), Ok(index.to_string().into_bytes())));
                files.push((
                    "oci-layout".into(),
                    Ok(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
                ));
                if shape == Shape::Docker25 {
                    let manifest = json!([{"Config": config, "RepoTags": [self.name], "Layers": layers}]);
                    files.push(("manifest.json".into(), Ok(manifest.to_string().into_bytes())));
                }
            }
        }
        files
    }

    /// Writes the image to `to`, which becomes a file, or a directory for [`Shape::OciDirectory`].
    pub fn write(&self, to: &Path, shape: Shape, packing: Packing) {
        let files = self.files(shape, packing);
        if shape != Shape::OciDirectory {
            std::fs::write(to, archive::outer(&files)).unwrap();
            return;
        }
        for (path, data) in files {
            let path = to.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, data.unwrap()).unwrap();
        }
    }
}
