//! The OCI layout: `index.json` leads over manifests, and indexes in indexes, to configs and layers, each a blob named
//! by its digest.

use std::collections::HashMap;

use oci_spec::image::{Arch, Os};
use serde::Deserialize;

use super::check::Promise;
use super::docker::{MOST_IMAGES, MOST_LAYERS};
use super::members::Members;
use super::plan::{Config, LayerSource, Plan, parse, small};
use crate::store::image::parse_config;
use crate::store::{BlobId, Name, Result, StoreError};

pub(super) const FILE: &str = "index.json";
/// An index that leads to an index that leads on.
const DEEPEST: usize = 4;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, where docker and containerd write the tag only into the one above.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// An index entry that is a statement about another one, no image.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// A platform: operating system, architecture, variant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// The one of this machine.
    pub fn host() -> Self {
        Self {
            os: Os::default().to_string(),
            architecture: Arch::default().to_string(),
            variant: None,
        }
    }

    /// Whether an image for `offered` may be taken where this is wanted.
    fn takes(&self, offered: &Self) -> bool {
        let variant = self.variant.is_none() || self.variant == offered.variant;
        self.os == offered.os && self.architecture == offered.architecture && variant
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut parts = text.split('/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None) if !os.is_empty() && !architecture.is_empty() => {
                Ok(Self {
                    os,
                    architecture,
                    variant,
                })
            }
            _ => {
                Err("a platform is OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as in linux/arm64".to_owned())
            }
        }
    }
}

// Read by hand: the types of oci-spec refuse what some writers leave out, and take what cannot be loaded.

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: BlobId,
    size: u64,
    #[serde(default)]
    annotations: HashMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Descriptor {
    fn member(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }

    fn promise(&self) -> Promise {
        Promise {
            digest: self.digest,
            size: Some(self.size),
        }
    }

    fn is_index(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json"
        )
    }

    fn read(&self, members: &mut Members) -> Result<Vec<u8>> {
        small(members, &self.member(), Some(&self.promise()))
    }
}

/// How the images of a layout are chosen.
struct Reading<'a> {
    members: &'a mut Members,
    wanted: &'a Platform,
    /// What `--ref` says.
    reference: Option<&'a str>,
    plans: Vec<Plan>,
    manifests: usize,
}

pub(super) fn plans(members: &mut Members, reference: Option<&str>, wanted: &Platform) -> Result<Vec<Plan>> {
    let data = small(members, FILE, None)?;
    let index: Index = parse(members, FILE, &data)?;
    check_version(FILE, index.schema_version)?;
    let mut reading = Reading {
        members,
        wanted,
        reference,
        plans: Vec::new(),
        manifests: 0,
    };
    reading.index(FILE, index, &[], 0)?;
    Ok(reading.plans)
}

fn check_version(member: &str, version: u32) -> Result<()> {
    if version == 2 {
        return Ok(());
    }
    Err(StoreError::archive(
        member,
        format!("its schema version is {version}; only 2 is supported"),
    ))
}

/// The names that a descriptor gives what it describes: as text.
fn refs_of(descriptor: &Descriptor) -> Vec<String> {
    [CONTAINERD_NAME, REF_NAME]
        .iter()
        .filter_map(|key| descriptor.annotations.get(*key).cloned())
        .collect()
}

/// Whether `wanted` means one of `refs`: as it stands there, or as the name it is.
pub(super) fn is_meant(wanted: &str, refs: &[String]) -> bool {
    let name = wanted.parse::<Name>().ok();
    refs.iter()
        .any(|text| text == wanted || (name.is_some() && text.parse::<Name>().ok() == name))
}

impl Reading<'_> {
    /// `refs`: what the descriptor of this index is named.
    fn index(&mut self, member: &str, index: Index, refs: &[String], depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(StoreError::archive(
                member,
                format!("indexes lie in indexes deeper than {DEEPEST} levels"),
            ));
        }
        self.manifests = self.manifests.saturating_add(index.manifests.len());
        if self.manifests > MOST_IMAGES {
            return Err(StoreError::archive(
                member,
                format!("it leads to more than {MOST_IMAGES} manifests"),
            ));
        }
        let images: Vec<Descriptor> = index
            .manifests
            .into_iter()
            .filter(|descriptor| !descriptor.annotations.contains_key(ATTESTATION))
            .collect();
        let suits = |descriptor: &Descriptor| {
            let platform = descriptor.platform.as_ref();
            platform.is_none_or(|offered| self.wanted.takes(offered))
        };
        // A nested index is one image in several forms; the outermost one is a list of images.
        if depth > 0 {
            let Some(descriptor) = images.iter().find(|descriptor| suits(descriptor)) else {
                let offered: Vec<String> = images
                    .iter()
                    .filter_map(|descriptor| descriptor.platform.as_ref().map(Platform::to_string))
                    .collect();
                return Err(StoreError::archive(
                    member,
                    format!(
                        "there is nothing for the platform {} in it, only for: {}; choose one with --platform",
                        self.wanted,
                        offered.join(", ")
                    ),
                ));
            };
            return self.descriptor(descriptor, refs, depth);
        }
        let any_suits = |name: &[String]| {
            images
                .iter()
                .any(|descriptor| refs_of(descriptor) == name && suits(descriptor))
        };
        let mut chosen = Vec::new();
        for descriptor in &images {
            let refs = refs_of(descriptor);
            let digest = descriptor.digest.to_string();
            if self
                .reference
                .is_some_and(|wanted| wanted != digest && !is_meant(wanted, &refs))
            {
                continue;
            }
            // Of one image in several forms that stand side by side, ours.
            if suits(descriptor) || !any_suits(&refs) {
                chosen.push((descriptor, refs));
            }
        }
        if let (Some(wanted), true) = (self.reference, chosen.is_empty()) {
            let there: Vec<String> = images.iter().flat_map(refs_of).collect();
            return Err(StoreError::archive(
                member,
                format!("there is no image '{wanted}' in it, only: {}", there.join(", ")),
            ));
        }
        for (descriptor, refs) in chosen {
            self.descriptor(descriptor, &refs, depth)?;
        }
        Ok(())
    }

    fn descriptor(&mut self, descriptor: &Descriptor, refs: &[String], depth: usize) -> Result<()> {
        let member = descriptor.member();
        if descriptor.is_index() {
            let data = descriptor.read(self.members)?;
            let index: Index = parse(self.members, &member, &data)?;
            check_version(&member, index.schema_version)?;
            return self.index(&member, index, refs, depth.saturating_add(1));
        }
        match descriptor.media_type.as_str() {
            ""
            | "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => {}
            other => {
                return Err(StoreError::archive(
                    member,
                    format!("it is of the type '{other}', which is no image; choose others with --ref"),
                ));
            }
        }
        let data = descriptor.read(self.members)?;
        let manifest: Manifest = parse(self.members, &member, &data)?;
        check_version(&member, manifest.schema_version)?;
        let plan = self.plan(&member, data, &manifest, refs)?;
        self.plans.push(plan);
        Ok(())
    }

    fn plan(&mut self, member: &str, raw: Vec<u8>, manifest: &Manifest, refs: &[String]) -> Result<Plan> {
        match manifest.config.media_type.as_str() {
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" => {
            }
            other => {
                return Err(StoreError::archive(
                    member,
                    format!("its config is of the type '{other}': it is no image; choose others with --ref"),
                ));
            }
        }
        let config = manifest.config.read(self.members)?;
        let (_, diff_ids) =
            parse_config(&config).map_err(|why| StoreError::archive(manifest.config.member(), why))?;
        if manifest.layers.len() != diff_ids.len() || diff_ids.len() > MOST_LAYERS {
            return Err(StoreError::archive(
                member,
                format!(
                    "the config has {} layers, the manifest {}; both must be the same, and at most {MOST_LAYERS}",
                    diff_ids.len(),
                    manifest.layers.len()
                ),
            ));
        }
        for layer in &manifest.layers {
            check_layer_type(layer)?;
        }
        Ok(Plan {
            config: Config::Whole(config),
            manifest: Some(raw),
            layers: manifest
                .layers
                .iter()
                .zip(diff_ids)
                .map(|(layer, diff)| LayerSource {
                    member: layer.member(),
                    promise: Some(layer.promise()),
                    diff_id: Some(diff),
                })
                .collect(),
            // The whole name that containerd writes, else what stands as reference.
            names: refs.first().cloned().into_iter().collect(),
            refs: refs.to_vec(),
        })
    }
}

fn check_layer_type(layer: &Descriptor) -> Result<()> {
    let kind = layer.media_type.as_str();
    let plain = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ]
    .iter()
    .find_map(|known| kind.strip_prefix(known));
    match plain {
        Some("" | "+gzip" | ".gzip" | "+zstd" | ".zstd") => Ok(()),
        Some(rest) if rest.contains("encrypted") => Err(StoreError::archive(
            layer.member(),
            "the layer is encrypted, which is not supported",
        )),
        _ => Err(StoreError::archive(
            layer.member(),
            format!("the layer is of the type '{kind}', which is not supported"),
        )),
    }
}
