//! What is needed, and how what is not goes: out of its place in one step, then deleted.
//!
//! Roots are the names of images and the containers. An image needs its layers, a layer the one below it. Nothing is
//! counted on disk: the answer is read from what is there, while nobody publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};

use super::layer::parent_of;
use super::layout::{names_in, read_if_there};
use super::lock::{Exclusive, try_exclusive};
use super::tmp::{TmpDir, take_out};
use super::{ChainId, ImageId, Name, Result, Store, StoreError};
use crate::sys::{Errno, at};

const KEPT: &str = "build-cache/kept";

/// A container, as far as it needs images and layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUse {
    /// Its id.
    pub id: String,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// The image it was made from.
    pub image: Option<ImageId>,
}

/// Who needs what.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// For each layer: the layers upon it.
    children: BTreeMap<ChainId, BTreeSet<ChainId>>,
    /// For each layer that is the uppermost of an image: those images.
    tops: BTreeMap<ChainId, BTreeSet<ImageId>>,
    /// For each layer that a container names, or that the build cache keeps: those.
    lowers: BTreeMap<ChainId, BTreeSet<String>>,
    chains: BTreeMap<ImageId, Vec<ChainId>>,
    names: BTreeMap<ImageId, BTreeSet<Name>>,
    pub(super) containers: Vec<ContainerUse>,
}

impl Needs {
    pub(super) fn layer_is_unneeded(&self, id: &ChainId) -> bool {
        let none = |users: Option<usize>| users.is_none_or(|count| count == 0);
        none(self.children.get(id).map(BTreeSet::len))
            && none(self.tops.get(id).map(BTreeSet::len))
            && none(self.lowers.get(id).map(BTreeSet::len))
    }

    /// The layers that only this image needs, the uppermost first.
    pub(super) fn only_for(&self, image: &super::Image) -> Vec<ChainId> {
        let mut only: Vec<ChainId> = Vec::new();
        for id in image.chain().into_iter().rev() {
            let other = |ids: Option<&BTreeSet<ChainId>>| {
                ids.is_some_and(|ids| ids.iter().any(|child| Some(child) != only.last()))
            };
            let shared = other(self.children.get(&id))
                || self
                    .tops
                    .get(&id)
                    .is_some_and(|images| images.iter().any(|other| other != image.id()))
                || self.lowers.get(&id).is_some_and(|users| !users.is_empty());
            if shared {
                break;
            }
            only.push(id);
        }
        only
    }

    /// The layers of an image, the base first.
    pub(super) fn chain_of(&self, id: &ImageId) -> Vec<ChainId> {
        self.chains.get(id).cloned().unwrap_or_default()
    }

    /// Neither a name nor a container.
    pub(super) fn image_is_unneeded(&self, id: &ImageId) -> bool {
        self.names.get(id).is_none_or(BTreeSet::is_empty) && self.containers_of(id).next().is_none()
    }

    pub(super) fn containers_of<'a>(&'a self, id: &'a ImageId) -> impl Iterator<Item = &'a ContainerUse> {
        self.containers
            .iter()
            .filter(move |container| container.image.as_ref() == Some(id))
    }
}

/// Layers that have been taken out.
#[derive(Debug, Default)]
pub(super) struct Buried {
    pub(super) graves: Vec<TmpDir>,
    pub(super) layers: Vec<ChainId>,
    /// Needed by nobody, but somebody has them locked.
    pub(super) in_use: BTreeSet<ChainId>,
}

impl Store {
    /// The containers, as far as they need images.
    ///
    /// # Errors
    /// When the settings of one cannot be read or understood.
    pub fn container_uses(&self) -> Result<Vec<ContainerUse>> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Settings {
            name: Option<String>,
            image: Option<ImageId>,
        }
        let path = self.path().join("containers");
        let mut uses = Vec::new();
        for id in names_in(self.containers_dir(), &path)? {
            let Some(text) = read_if_there(self.containers_dir(), &path, &id, super::LARGEST_JSON)? else {
                continue;
            };
            let settings: Settings = serde_json::from_slice(&text).map_err(|error| StoreError::Damaged {
                path: path.join(&id),
                why: error.to_string(),
            })?;
            uses.push(ContainerUse {
                id,
                name: settings.name,
                image: settings.image,
            });
        }
        Ok(uses)
    }

    /// Reads who needs what. The lock keeps the answer true.
    pub(super) fn needs(&self, _lock: &Exclusive) -> Result<Needs> {
        let mut needs = Needs {
            containers: self.container_uses()?,
            ..Needs::default()
        };
        for (name, id) in self.names()? {
            needs.names.entry(id).or_default().insert(name);
        }
        for image in self.images()? {
            let chain = image.chain();
            if let Some(top) = chain.last() {
                needs.tops.entry(*top).or_default().insert(*image.id());
            }
            needs.chains.insert(*image.id(), chain);
        }
        let path = self.overlay_path();
        for name in names_in(self.overlay(), &path)? {
            let dir = match at::open_dir_path(self.overlay(), name.as_bytes()) {
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                dir => dir.map_err(StoreError::errno("open", path.join(&name)))?,
            };
            let inner = path.join(&name);
            if let Some(text) = read_if_there(dir.as_fd(), &inner, "lower-id", 1024)? {
                let lower = std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| ChainId::from_hex(text.trim_ascii_end()));
                let lower = lower.ok_or_else(|| StoreError::Damaged {
                    path: inner.join("lower-id"),
                    why: "it holds no layer's id".to_owned(),
                })?;
                needs.lowers.entry(lower).or_default().insert(name);
            } else if let Some(id) = ChainId::from_hex(&name)
                && let Some(parent) = parent_of(&dir, &inner)?
            {
                needs.children.entry(parent).or_default().insert(id);
            }
        }
        for id in self.kept_by_builds()? {
            needs
                .lowers
                .entry(id)
                .or_default()
                .insert("build cache".to_owned());
        }
        Ok(needs)
    }

    /// The layers that the build cache keeps although no image has them: names in `build-cache/kept/`.
    pub(super) fn kept_by_builds(&self) -> Result<Vec<ChainId>> {
        let path = self.path().join(KEPT);
        match self.kept_dir()? {
            None => Ok(Vec::new()),
            Some(dir) => Ok(names_in(dir.as_fd(), &path)?
                .iter()
                .filter_map(|name| ChainId::from_hex(name))
                .collect()),
        }
    }

    fn kept_dir(&self) -> Result<Option<OwnedFd>> {
        let opened = at::open_dir_path(self.dir(), b"build-cache")
            .and_then(|cache| at::open_dir_path(cache, b"kept"))
            .and_then(at::reopen_dir);
        match opened {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(StoreError::errno("open", self.path().join(KEPT))(errno)),
        }
    }

    /// The build cache keeps nothing any more but what images have.
    pub(super) fn forget_kept(&self) -> Result<()> {
        let path = self.path().join(KEPT);
        let Some(dir) = self.kept_dir()? else {
            return Ok(());
        };
        for name in names_in(dir.as_fd(), &path)? {
            at::unlink_at(&dir, name.as_bytes()).map_err(StoreError::errno("delete", path.join(&name)))?;
        }
        Ok(())
    }

    /// Takes those of `candidates` out that nobody needs, and the layers below them that nobody needs then.
    pub(super) fn bury_layers(
        &self,
        candidates: &[ChainId],
        needs: &mut Needs,
        _lock: &Exclusive,
    ) -> Result<Buried> {
        let mut buried = Buried::default();
        let overlay = self.overlay_path();
        let mut left: Vec<ChainId> = candidates.to_vec();
        // A candidate may be needed only by another one that comes later: again when one has gone.
        let mut again = true;
        while again {
            again = false;
            for id in std::mem::take(&mut left) {
                if !needs.layer_is_unneeded(&id) {
                    left.push(id);
                    continue;
                }
                let name = id.hex();
                let path = overlay.join(&name);
                let dir = match at::open_dir_path(self.overlay(), name.as_bytes()).and_then(at::reopen_dir) {
                    Err(Errno::NOENT) => continue,
                    dir => dir.map_err(StoreError::errno("open", &path))?,
                };
                if !try_exclusive(&dir).map_err(StoreError::errno("lock", &path))? {
                    buried.in_use.insert(id);
                    continue;
                }
                let parent = parent_of(&dir, &path)?;
                if let Some(grave) = take_out(self, self.overlay(), &overlay, &name)? {
                    buried.graves.push(grave);
                    buried.layers.push(id);
                }
                if let Some(parent) = parent {
                    if let Some(children) = needs.children.get_mut(&parent) {
                        children.remove(&id);
                    }
                    left.push(parent);
                }
                again = true;
            }
        }
        Ok(buried)
    }

    /// Takes an image out; its layers may be unneeded then.
    pub(super) fn bury_image(
        &self,
        id: &ImageId,
        needs: &mut Needs,
        _lock: &Exclusive,
    ) -> Result<Option<TmpDir>> {
        for images in needs.tops.values_mut() {
            images.remove(id);
        }
        take_out(self, self.images_dir(), &self.path().join("images"), &id.hex())
    }
}
