//! Saving images: as docker's archive, or as an OCI layout.
//!
//! A layer's archive is put together from its tree and from what was recorded beside it (`tar-split`), byte for byte
//! as it came. What is small comes first, so that whoever reads the archive as a stream can do so without keeping it.

mod packed;
mod sink;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::BorrowedFd;

use serde_json::{Value, json};

pub use self::packed::Compression;
use self::packed::Packed;
use self::sink::{Directory, Sink, Tar};
use super::{BlobId, ChainId, Image, Result, Store, StoreError};
use crate::builder::Progress;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// What a saved image looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Docker's archive, with `manifest.json`.
    #[default]
    Docker,
    /// An OCI layout, with `index.json`.
    Oci,
}

/// What to write, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct SaveOptions {
    /// The form.
    pub format: Format,
    /// How layers are compressed.
    pub compression: Compression,
}

/// An image with its layers, ready to be written.
struct Ready {
    image: Image,
    /// The layers' keys.
    chain: Vec<ChainId>,
}

impl Store {
    /// Writes images as one tar archive. `shown` is the target's name, for messages.
    ///
    /// # Errors
    /// When an image or layer is damaged, or the target cannot be written; what was written is then of no use.
    pub fn save(
        &self,
        images: Vec<Image>,
        options: SaveOptions,
        to: &mut dyn Write,
        shown: &str,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.save_to(images, options, &mut Tar::new(to, shown), progress)
    }

    /// Writes images into an empty directory, as an OCI layout.
    ///
    /// # Errors
    /// As [`Store::save`].
    pub fn save_layout(
        &self,
        images: Vec<Image>,
        compression: Compression,
        dir: BorrowedFd<'_>,
        shown: &str,
        progress: &dyn Progress,
    ) -> Result<()> {
        let options = SaveOptions {
            format: Format::Oci,
            compression,
        };
        self.save_to(images, options, &mut Directory::new(dir, shown), progress)
    }

    fn save_to(
        &self,
        images: Vec<Image>,
        options: SaveOptions,
        sink: &mut dyn Sink,
        progress: &dyn Progress,
    ) -> Result<()> {
        // By chain id, and written once each even if several images have them.
        let mut layers: BTreeMap<ChainId, Packed> = BTreeMap::new();
        let mut order = Vec::new();
        let mut ready = Vec::new();
        for image in images {
            let chain = image.chain();
            for id in &chain {
                if !layers.contains_key(id) {
                    layers.insert(*id, Packed::new(self, self.layer(id)?, options.compression)?);
                    order.push(*id);
                }
            }
            ready.push(Ready { image, chain });
        }
        match options.format {
            Format::Docker => write_docker(sink, &ready, &layers)?,
            Format::Oci => write_oci(sink, &ready, &layers, options.compression)?,
        }
        let mut written = Vec::new();
        for id in order {
            let Some(packed) = layers.get_mut(&id) else {
                continue;
            };
            if written.contains(&packed.digest) {
                continue;
            }
            written.push(packed.digest);
            progress.begin(&format!("layer {}", packed.digest), Some(packed.size));
            let name = match options.format {
                Format::Docker => docker_layer(packed),
                Format::Oci => blob(&packed.digest),
            };
            sink.member(&name, packed.size, &mut |to| packed.write(to))?;
            progress.advance(packed.size);
        }
        sink.finish()
    }
}

fn whole(sink: &mut dyn Sink, name: &str, data: &[u8]) -> Result<()> {
    sink.member(name, data.len() as u64, &mut |to| {
        to.write_all(data).map_err(StoreError::io("write", name))
    })
}

fn to_json(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| StoreError::archive("JSON", error.to_string()))
}

fn blob(digest: &BlobId) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn docker_layer(packed: &Packed) -> String {
    format!("{}.tar", packed.digest.hex())
}

fn of<'a>(layers: &'a BTreeMap<ChainId, Packed>, ready: &'a Ready) -> impl Iterator<Item = &'a Packed> {
    ready.chain.iter().filter_map(|id| layers.get(id))
}

fn write_docker(sink: &mut dyn Sink, ready: &[Ready], layers: &BTreeMap<ChainId, Packed>) -> Result<()> {
    let items: Vec<Value> = ready
        .iter()
        .map(|ready| {
            json!({
                "Config": format!("{}.json", ready.image.id().hex()),
                "RepoTags": ready.image.names(),
                "Layers": of(layers, ready).map(docker_layer).collect::<Vec<_>>(),
            })
        })
        .collect();
    whole(sink, "manifest.json", &to_json(&items.into())?)?;
    for ready in ready {
        whole(
            sink,
            &format!("{}.json", ready.image.id().hex()),
            ready.image.raw_config(),
        )?;
    }
    Ok(())
}

fn write_oci(
    sink: &mut dyn Sink,
    ready: &[Ready],
    layers: &BTreeMap<ChainId, Packed>,
    how: Compression,
) -> Result<()> {
    let mut blobs: BTreeMap<BlobId, Vec<u8>> = BTreeMap::new();
    let mut index = Vec::new();
    for ready in ready {
        let config = ready.image.raw_config();
        blobs.insert(BlobId::hash(config), config.to_vec());
        let manifest = manifest(ready, layers, how)?;
        let digest = BlobId::hash(&manifest);
        let descriptor = |annotations: Value| {
            json!({
                "mediaType": MANIFEST_TYPE,
                "digest": digest,
                "size": manifest.len(),
                "annotations": annotations,
                "platform": {
                    "architecture": ready.image.config().architecture(),
                    "os": ready.image.config().os(),
                },
            })
        };
        match ready.image.names() {
            [] => index.push(descriptor(json!({}))),
            names => index.extend(names.iter().map(|name| {
                descriptor(json!({
                    "io.containerd.image.name": name.full(),
                    "org.opencontainers.image.ref.name": name,
                }))
            })),
        }
        blobs.insert(digest, manifest);
    }
    whole(
        sink,
        "oci-layout",
        &to_json(&json!({"imageLayoutVersion": "1.0.0"}))?,
    )?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": index,
    });
    whole(sink, "index.json", &to_json(&index)?)?;
    for (digest, data) in blobs {
        whole(sink, &blob(&digest), &data)?;
    }
    Ok(())
}

/// The manifest the image came with, if it describes these very layers; else a new one.
fn manifest(ready: &Ready, layers: &BTreeMap<ChainId, Packed>, how: Compression) -> Result<Vec<u8>> {
    let digests: Vec<BlobId> = of(layers, ready).map(|packed| packed.digest).collect();
    if let Some(raw) = ready.image.raw_manifest().filter(|raw| describes(raw, &digests)) {
        return Ok(raw.to_vec());
    }
    let config = ready.image.raw_config();
    let described: Vec<Value> = of(layers, ready)
        .map(|packed| {
            json!({
                "mediaType": format!("{LAYER_TYPE}{}", how.suffix()),
                "digest": packed.digest,
                "size": packed.size,
            })
        })
        .collect();
    to_json(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": BlobId::hash(config),
            "size": config.len(),
        },
        "layers": described,
    }))
}

/// Whether this is an OCI manifest with these layers.
fn describes(raw: &[u8], digests: &[BlobId]) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        media_type: Option<String>,
        layers: Vec<Layer>,
    }
    #[derive(serde::Deserialize)]
    struct Layer {
        digest: BlobId,
    }
    serde_json::from_slice::<Manifest>(raw).is_ok_and(|manifest| {
        manifest.media_type.is_none_or(|kind| kind == MANIFEST_TYPE)
            && manifest.layers.iter().map(|layer| &layer.digest).eq(digests)
    })
}
