//! An image: a config, and the chain of layers it names.

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;

use super::doubt::{Doubt, Subject};
use super::layout::{names_in, read_file, read_if_there};
use super::tmp::{Published, TmpDir};
use super::{ChainId, DiffId, ImageId, Name, Result, Store, StoreError};
use crate::sys::{Errno, at};

/// A config or manifest larger than this is refused, as by registries.
pub const LARGEST_JSON: u64 = 4 << 20;

/// An image of the store, as it was when it was looked up.
#[derive(Debug, Clone)]
pub struct Image {
    id: ImageId,
    path: PathBuf,
    raw_config: Vec<u8>,
    raw_manifest: Option<Vec<u8>>,
    config: ImageConfiguration,
    diff_ids: Vec<DiffId>,
    names: Vec<Name>,
}

impl Image {
    /// The digest of its config.
    pub fn id(&self) -> &ImageId {
        &self.id
    }

    /// Its config.
    pub fn config(&self) -> &ImageConfiguration {
        &self.config
    }

    /// Its config, byte for byte as it came.
    pub fn raw_config(&self) -> &[u8] {
        &self.raw_config
    }

    /// The manifest it came with, byte for byte; none for an image that had none.
    pub fn raw_manifest(&self) -> Option<&[u8]> {
        self.raw_manifest.as_deref()
    }

    /// Its names, sorted.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// The diff ids of its layers, the base first.
    pub fn diff_ids(&self) -> &[DiffId] {
        &self.diff_ids
    }

    /// The chain ids of its layers, the base first.
    pub fn chain(&self) -> Vec<ChainId> {
        ChainId::chain(&self.diff_ids)
    }

    /// The chain id of its uppermost layer; none for an image without layers.
    pub fn top(&self) -> Option<ChainId> {
        self.chain().pop()
    }

    /// Its directory in the store.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// A config, parsed and checked: what the store relies on.
pub(super) fn parse_config(config: &[u8]) -> std::result::Result<(ImageConfiguration, Vec<DiffId>), String> {
    let parsed: ImageConfiguration =
        serde_json::from_slice(config).map_err(|error| format!("the image config is not valid: {error}"))?;
    if parsed.rootfs().typ() != "layers" {
        return Err(format!(
            "the image config has a root file system of type '{}', not 'layers'",
            parsed.rootfs().typ()
        ));
    }
    let diff_ids = parsed
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| text.parse().map_err(|error: StoreError| error.to_string()))
        .collect::<std::result::Result<_, _>>()?;
    Ok((parsed, diff_ids))
}

impl Store {
    /// Puts an image into the store and gives it names, which other images lose. Its layers must be there; hold the
    /// uppermost one (a [`super::Layer`]) until this returns.
    ///
    /// An image that is there already keeps its manifest.
    ///
    /// # Errors
    /// When the config is not valid, a layer is missing, or the image cannot be written.
    pub fn add_image(&self, config: &[u8], manifest: Option<&[u8]>, names: &[Name]) -> Result<ImageId> {
        let id = ImageId::hash(config);
        let (_, diff_ids) = parse_config(config).map_err(|why| StoreError::archive(id.to_string(), why))?;
        let fresh = TmpDir::new(self, 0o700)?;
        fresh.write("config", config)?;
        if let Some(manifest) = manifest {
            fresh.write("manifest", manifest)?;
        }
        // Without names it may stay: somebody asked for an image without a name.
        let doubt = if names.is_empty() || self.image_ids()?.contains(&id) {
            None
        } else {
            Some(Doubt::note(self, Subject::Image(id))?)
        };
        fresh.sync_files()?;
        let _shared = self.hold()?;
        if let Some(top) = ChainId::chain(&diff_ids).last() {
            self.layer(top)?;
        }
        let path = self.path().join("images");
        match fresh.publish(self.images_dir(), &path, &id.hex())? {
            Published::Born(_) | Published::Exists => {}
        }
        if !names.is_empty() {
            self.change_names(|known| known.extend(names.iter().map(|name| (name.clone(), id))))?;
        }
        if let Some(doubt) = doubt {
            doubt.clear(self)?;
        }
        Ok(id)
    }

    /// The image that `reference` means: `name[:tag]`, `name@sha256:...` (the digest of its manifest),
    /// `sha256:...`, or the beginning of an id.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], [`StoreError::Ambiguous`], or when it cannot be read.
    pub fn image(&self, reference: &str) -> Result<Image> {
        let names = self.names()?;
        let id = self.resolve(reference, &names)?;
        let own = names.into_iter().filter(|(_, named)| *named == id);
        self.open_image(&id, own.map(|(name, _)| name).collect())
    }

    /// All images, by their ids.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn images(&self) -> Result<Vec<Image>> {
        let names = self.names()?;
        self.image_ids()?
            .iter()
            .map(|id| {
                let own = names.iter().filter(|(_, named)| *named == id);
                self.open_image(id, own.map(|(name, _)| name.clone()).collect())
            })
            .collect()
    }

    /// The ids of all images, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn image_ids(&self) -> Result<Vec<ImageId>> {
        let names = names_in(self.images_dir(), &self.path().join("images"))?;
        Ok(names.iter().filter_map(|name| ImageId::from_hex(name)).collect())
    }

    fn resolve(&self, reference: &str, names: &super::names::Names) -> Result<ImageId> {
        let none = || StoreError::NoImage {
            reference: reference.to_owned(),
        };
        if let Some((repository, digest)) = reference.split_once('@') {
            return self.by_manifest(repository, digest, names)?.ok_or_else(none);
        }
        let ids = self.image_ids()?;
        let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
        if let Some(id) = ImageId::from_hex(digits) {
            return ids.contains(&id).then_some(id).ok_or_else(none);
        }
        // A name may look like digits, and comes first, as in docker.
        if let Some(id) = reference.parse::<Name>().ok().and_then(|name| names.get(&name)) {
            return Ok(*id);
        }
        if digits.is_empty()
            || !digits
                .bytes()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(none());
        }
        let mut found = ids.into_iter().filter(|id| id.hex().starts_with(digits));
        match (found.next(), found.next()) {
            (None, _) => Err(none()),
            (Some(id), None) => Ok(id),
            (Some(first), Some(second)) => Err(StoreError::Ambiguous {
                reference: reference.to_owned(),
                ids: [first, second]
                    .into_iter()
                    .chain(found)
                    .map(|id| id.to_string())
                    .collect(),
            }),
        }
    }

    fn by_manifest(
        &self,
        repository: &str,
        digest: &str,
        names: &super::names::Names,
    ) -> Result<Option<ImageId>> {
        let digest: super::BlobId = digest.parse()?;
        let Ok(repository) = super::name::repository(repository) else {
            return Ok(None);
        };
        for (name, id) in names {
            if name.repository() != repository {
                continue;
            }
            let image = self.open_image(id, Vec::new())?;
            if image
                .raw_manifest
                .is_some_and(|manifest| super::BlobId::hash(&manifest) == digest)
            {
                return Ok(Some(*id));
            }
        }
        Ok(None)
    }

    pub(super) fn open_image(&self, id: &ImageId, names: Vec<Name>) -> Result<Image> {
        let path = self.path().join("images").join(id.hex());
        let dir = match at::open_dir_path(self.images_dir(), id.hex().as_bytes()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => {
                return Err(StoreError::NoImage {
                    reference: id.to_string(),
                });
            }
            Err(errno) => return Err(StoreError::errno("open", &path)(errno)),
        };
        use std::os::fd::AsFd;
        let raw_config = read_file(dir.as_fd(), &path, "config", LARGEST_JSON)?;
        let raw_manifest = read_if_there(dir.as_fd(), &path, "manifest", LARGEST_JSON)?;
        let damaged = |why| StoreError::Damaged {
            path: path.join("config"),
            why,
        };
        let found = ImageId::hash(&raw_config);
        if found != *id {
            return Err(damaged(format!("its digest is {found}")));
        }
        let (config, diff_ids) = parse_config(&raw_config).map_err(damaged)?;
        Ok(Image {
            id: *id,
            path: path.clone(),
            raw_config,
            raw_manifest,
            config,
            diff_ids,
            names,
        })
    }
}
