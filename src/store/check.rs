//! Whether the store is sound: every reference, every digest, every tree.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use serde::Serialize;

use super::doubt::{Doubt, Subject};
use super::layout::{names_in, read_if_there};
use super::lock::{Exclusive, try_exclusive};
use super::{ChainId, ImageId, Layer, Name, Result, Store, StoreError};
use crate::builder::links::Groups;
use crate::builder::{BuildError, Progress, verify};
use crate::format::links::Links;
use crate::sys::{Errno, at, stat};

/// Differences of one tree that are told one by one.
const MOST_FAULTS: u64 = 20;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// What it is about: a path of the store, an image, a name.
    pub subject: String,
    /// What is wrong.
    pub why: String,
    /// What was done about it; none for nothing.
    pub repair: Option<String>,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// What is wrong.
    pub wrong: Vec<Wrong>,
    /// Images, layers, and objects in their trees that were looked at.
    pub images: usize,
    /// See there.
    pub layers: usize,
    /// See there.
    pub objects: u64,
}

impl Checked {
    fn add(&mut self, subject: impl Into<String>, why: impl Into<String>) {
        self.wrong.push(Wrong {
            subject: subject.into(),
            why: why.into(),
            repair: None,
        });
    }

    fn repaired(&mut self, subject: impl Into<String>, why: impl Into<String>, repair: Option<&str>) {
        self.wrong.push(Wrong {
            subject: subject.into(),
            why: why.into(),
            repair: repair.map(str::to_owned),
        });
    }

    /// True when nothing is wrong any more.
    pub fn sound(&self) -> bool {
        self.wrong.iter().all(|wrong| wrong.repair.is_some())
    }
}

/// What the references say, read while nobody changes them.
#[derive(Default)]
struct References {
    /// Images that cannot be used, and why.
    bad_images: BTreeMap<ImageId, String>,
    /// The chain of each image that can be read.
    chains: BTreeMap<ImageId, Vec<ChainId>>,
    layers: BTreeSet<ChainId>,
}

impl Store {
    /// Looks at everything: names, images, layers with every object in them, containers. With `repair`, takes away
    /// names of nothing, images that cannot be used, and layers that nobody needs; and makes again what can be.
    ///
    /// # Errors
    /// When something cannot be read for another reason than that it is damaged.
    pub fn check(&self, repair: bool, progress: &dyn Progress) -> Result<Checked> {
        let mut checked = Checked::default();
        let references = {
            let exclusive = self.exclusive()?;
            self.check_references(&mut checked, repair, &exclusive)?
        };
        checked.images = references.chains.len();
        let mut bad_layers: BTreeMap<ChainId, String> = BTreeMap::new();
        for id in &references.layers {
            // It may have been removed in between.
            let Some(layer) = self.find_layer(id)? else {
                continue;
            };
            checked.layers = checked.layers.saturating_add(1);
            if let Err(error) = self.check_layer(&layer, repair, &mut checked, progress) {
                if matches!(error, StoreError::Build(BuildError::Interrupted)) {
                    return Err(error);
                }
                bad_layers.insert(*id, error.to_string());
            }
        }
        let mut bad_images = references.bad_images;
        for (layer, why) in &bad_layers {
            let subject = format!("layer {layer}");
            checked.add(&subject, why);
            for (image, chain) in &references.chains {
                if chain.contains(layer) {
                    bad_images
                        .entry(*image)
                        .or_insert_with(|| format!("its {subject} is damaged"));
                }
            }
        }
        let exclusive = self.exclusive()?;
        self.check_images(bad_images, repair, &mut checked, &exclusive)?;
        self.check_orphans(repair, &mut checked, &exclusive)?;
        drop(exclusive);
        if repair {
            super::container::sweep(self)?;
        }
        self.sweep()?;
        Ok(checked)
    }

    fn check_references(&self, checked: &mut Checked, repair: bool, _lock: &Exclusive) -> Result<References> {
        let mut references = References {
            layers: self.layer_ids()?.into_iter().collect(),
            ..References::default()
        };
        for id in self.image_ids()? {
            match self.open_image(&id, Vec::new()) {
                Ok(image) => {
                    let chain = image.chain();
                    if let Some(missing) = chain.iter().find(|id| !references.layers.contains(id)) {
                        references
                            .bad_images
                            .insert(id, format!("its layer {missing} is missing"));
                    }
                    references.chains.insert(id, chain);
                }
                Err(error) => {
                    references.bad_images.insert(id, error.to_string());
                }
            }
        }
        let dangling: Vec<Name> = self
            .names()?
            .into_iter()
            .filter(|(_, id)| !references.chains.contains_key(id) && !references.bad_images.contains_key(id))
            .map(|(name, _)| name)
            .collect();
        for name in &dangling {
            checked.repaired(
                format!("name {name}"),
                "there is no such image",
                repair.then_some("removed"),
            );
        }
        if repair && !dangling.is_empty() {
            self.change_names(|names| names.retain(|name, _| !dangling.contains(name)))?;
        }
        for name in names_in(self.images_dir(), &self.path().join("images"))? {
            if ImageId::from_hex(&name).is_none() {
                checked.add(
                    format!("images/{name}"),
                    "no image is named like this; remove it by hand",
                );
            }
        }
        self.check_containers(checked, &references)?;
        Ok(references)
    }

    /// Containers are not repaired: what is in their upper exists only there.
    fn check_containers(&self, checked: &mut Checked, references: &References) -> Result<()> {
        let overlay = self.overlay_path();
        for name in names_in(self.overlay(), &overlay)? {
            let subject = format!("overlay/{name}");
            if ChainId::from_hex(&name).is_some_and(|id| references.layers.contains(&id)) {
                continue;
            }
            let dir = match at::open_dir_path(self.overlay(), name.as_bytes()) {
                Ok(dir) => dir,
                Err(errno) => {
                    checked.add(
                        subject,
                        format!("it cannot be opened: {errno}; remove it by hand"),
                    );
                    continue;
                }
            };
            match read_if_there(dir.as_fd(), &overlay.join(&name), "lower-id", 1024)? {
                None => checked.add(
                    subject,
                    "it is neither a layer (it has no 'root') nor a container (it has no 'lower-id'); remove it by hand",
                ),
                Some(text) => {
                    let lower = std::str::from_utf8(&text)
                        .ok()
                        .and_then(|text| ChainId::from_hex(text.trim_ascii_end()));
                    if !lower.is_some_and(|id| references.layers.contains(&id)) {
                        checked.add(
                            subject,
                            format!("its lower-id '{}' names no layer", String::from_utf8_lossy(&text)),
                        );
                    }
                }
            }
        }
        match self.container_uses() {
            Ok(uses) => {
                for container in uses {
                    let known = |id: &ImageId| {
                        references.chains.contains_key(id) || references.bad_images.contains_key(id)
                    };
                    if let Some(image) = container.image.filter(|id| !known(id)) {
                        checked.add(
                            format!("containers/{}", container.id),
                            format!("its image {image} is missing"),
                        );
                    }
                    if stat::stat_at(self.overlay(), container.id.as_bytes()).is_err() {
                        checked.add(
                            format!("containers/{}", container.id),
                            format!("overlay/{} is missing", container.id),
                        );
                    }
                }
            }
            Err(error) => checked.add("containers", error.to_string()),
        }
        Ok(())
    }

    /// Fails if the layer cannot be used as it is.
    fn check_layer(
        &self,
        layer: &Layer,
        repair: bool,
        checked: &mut Checked,
        progress: &dyn Progress,
    ) -> Result<()> {
        let damaged = |why: String| StoreError::Damaged {
            path: layer.path().to_owned(),
            why,
        };
        let (parent, diff) = (layer.parent()?, layer.diff_id()?);
        let id = ChainId::of(parent.as_ref(), &diff);
        if id != *layer.id() {
            return Err(damaged(format!("by its files 'parent' and 'diff' it is {id}")));
        }
        if let Some(parent) = parent
            && self.find_layer(&parent)?.is_none()
        {
            return Err(damaged(format!("its parent {parent} is missing")));
        }
        layer.size()?;
        layer.birth()?;
        let root = layer.root_fd()?;
        let mut told = Vec::new();
        let found = verify(root.as_fd(), layer.file("manifest")?, 0, progress, &mut |fault| {
            if (told.len() as u64) < MOST_FAULTS {
                told.push(format!(
                    "{}: {}: {} expected, {} found",
                    fault.path, fault.what, fault.expected, fault.found
                ));
            }
            Ok(())
        })?;
        checked.objects = checked.objects.saturating_add(found.objects);
        if found.faults > 0 {
            let more = found.faults.saturating_sub(told.len() as u64);
            if more > 0 {
                told.push(format!("and {more} more differences"));
            }
            return Err(damaged(format!(
                "its tree is not what it was at birth: {}",
                told.join("; ")
            )));
        }
        self.check_links(layer, repair, checked)
    }

    /// The file `links` can be made again.
    fn check_links(&self, layer: &Layer, repair: bool, checked: &mut Checked) -> Result<()> {
        let root = layer.root_fd()?;
        let right = Groups::of(root.as_fd())?.links(root.as_fd())?;
        let there = read_if_there(layer.dir(), layer.path(), "links", u64::MAX)?;
        if there.as_deref().and_then(Links::decode).as_ref() == Some(&right) {
            return Ok(());
        }
        if repair {
            super::tmp::replace_file(self, layer.dir(), layer.path(), "links", &right.encode())?;
        }
        checked.repaired(
            layer.path().join("links").display().to_string(),
            "it does not tell which names in the tree belong together",
            repair.then_some("made again"),
        );
        Ok(())
    }

    fn check_images(
        &self,
        bad: BTreeMap<ImageId, String>,
        repair: bool,
        checked: &mut Checked,
        _lock: &Exclusive,
    ) -> Result<()> {
        let users = match self.container_uses() {
            Ok(users) => users,
            // Told already; without knowing who uses what, nothing is removed.
            Err(_) if repair => {
                for (id, why) in bad {
                    checked.add(format!("image {id}"), why);
                }
                return Ok(());
            }
            Err(_) => Vec::new(),
        };
        for (id, why) in bad {
            let subject = format!("image {id}");
            if let Some(user) = users.iter().find(|user| user.image == Some(id)) {
                checked.add(
                    subject,
                    format!("{why}; the container {} uses it, so it is not removed", user.id),
                );
                continue;
            }
            if repair {
                let doubts = Doubt::note_all(self, [Subject::Image(id)])?;
                self.change_names(|names| names.retain(|_, named| *named != id))?;
                let images = self.path().join("images");
                let grave = super::tmp::take_out(self, self.images_dir(), &images, &id.hex())?;
                for doubt in doubts {
                    doubt.clear(self)?;
                }
                drop(grave);
            }
            checked.repaired(subject, why, repair.then_some("removed; load it again"));
        }
        Ok(())
    }

    fn check_orphans(&self, repair: bool, checked: &mut Checked, lock: &Exclusive) -> Result<()> {
        let mut needs = match self.needs(lock) {
            Ok(needs) => needs,
            // A damaged image that was left: which layers it needs cannot be told.
            Err(StoreError::Damaged { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let all = self.layer_ids()?;
        let mut orphans = Vec::new();
        for id in &all {
            if needs.layer_is_unneeded(id) && !self.is_locked(id)? {
                orphans.push(*id);
            }
        }
        let mut gone = BTreeSet::new();
        if repair && !orphans.is_empty() {
            let doubts = Doubt::note_all(self, all.iter().map(|id| Subject::Layer(*id)))?;
            let buried = self.bury_layers(&orphans, &mut needs, lock)?;
            gone.extend(buried.layers.iter().copied());
            drop(buried.graves);
            for doubt in doubts {
                doubt.clear(self)?;
            }
        }
        // Removing one shows that the next was needed by nobody else.
        for id in orphans
            .iter()
            .chain(gone.iter().filter(|id| !orphans.contains(id)))
        {
            checked.repaired(
                format!("layer {id}"),
                "no image and no container needs it",
                gone.contains(id).then_some("removed"),
            );
        }
        Ok(())
    }

    fn is_locked(&self, id: &ChainId) -> Result<bool> {
        let path = self.overlay_path().join(id.hex());
        let dir = match at::open_dir_path(self.overlay(), id.hex().as_bytes()).and_then(at::reopen_dir) {
            Err(Errno::NOENT) => return Ok(false),
            dir => dir.map_err(StoreError::errno("open", &path))?,
        };
        Ok(!try_exclusive(&dir).map_err(StoreError::errno("lock", &path))?)
    }
}
