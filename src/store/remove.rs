//! Taking images away: by docker's rules.

use std::path::Path;

use super::delete::Freed;
use super::doubt::{Doubt, Subject};
use super::gc::{ContainerUse, Needs};
use super::lock::{Exclusive, try_exclusive};
use super::tmp::TmpDir;
use super::{ChainId, Image, ImageId, Name, Result, Store, StoreError};
use crate::mount::registry;
use crate::sys::{Errno, at};

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removal {
    /// Names that are no names any more.
    pub untagged: Vec<Name>,
    /// Images that are gone.
    pub images: Vec<ImageId>,
    /// Layers that are gone, by their chain ids.
    pub layers: Vec<ChainId>,
    /// Entries of `tmp/` that killed processes had left.
    pub rubbish: u64,
    /// What that gave back.
    pub freed: Freed,
}

/// Deletes what was taken out, when the locks have been given back.
fn delete(graves: Vec<TmpDir>) -> Result<Freed> {
    let mut freed = Freed::default();
    for grave in graves {
        freed = freed.and(grave.remove()?);
    }
    Ok(freed)
}

impl Store {
    /// Removes the image that `reference` means, as docker does: one of several names is only taken away; with the
    /// last name goes the image, and every layer that nothing else needs.
    ///
    /// An image that a container or a mount uses is refused; with `force` it loses its name.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], [`StoreError::InUse`]; [`StoreError::Refused`] for an id with several names, without
    /// `force`.
    pub fn remove_image(&self, reference: &str, force: bool) -> Result<Removal> {
        let exclusive = self.exclusive()?;
        let image = self.image(reference)?;
        let named = reference
            .parse::<Name>()
            .ok()
            .filter(|name| image.names().contains(name));
        let going: Vec<Name> = match &named {
            Some(name) => vec![name.clone()],
            None => image.names().to_vec(),
        };
        if named.is_some() && image.names().len() > 1 {
            return self.untag(&image, going);
        }
        if named.is_none() && going.len() > 1 && !force {
            let names: Vec<String> = going.iter().map(Name::to_string).collect();
            return Err(StoreError::Refused(format!(
                "the image {} has several names: {}; give the one to take away, or --force to remove it with all of them",
                image.id(),
                names.join(", ")
            )));
        }
        let mut needs = self.needs(&exclusive)?;
        let layers = needs.only_for(&image);
        let user = match needs.containers_of(image.id()).next() {
            Some(container) => Some(describe(container)),
            None => self.user_of(&layers)?,
        };
        if let Some(user) = user {
            if force {
                return self.untag(&image, going);
            }
            return Err(StoreError::InUse {
                what: format!("the image {reference}"),
                user,
                remedy: "end that first, or take away only its name with --force".to_owned(),
            });
        }
        let (mut removal, graves) = self.take_away(&[image], &layers, &mut needs, &exclusive)?;
        drop(exclusive);
        removal.freed = delete(graves)?;
        Ok(removal)
    }

    /// Removes images that have neither a name nor a container, layers that no image and no container needs, and what
    /// killed processes left. Layers that only the build cache keeps go as well.
    ///
    /// # Errors
    /// When it cannot be told what is needed, or something cannot be removed.
    pub fn prune(&self) -> Result<Removal> {
        let exclusive = self.exclusive()?;
        self.forget_kept()?;
        let mut needs = self.needs(&exclusive)?;
        let mut images = self.images()?;
        images.retain(|image| needs.image_is_unneeded(image.id()));
        let all = self.layer_ids()?;
        let (mut removal, graves) = self.take_away(&images, &all, &mut needs, &exclusive)?;
        drop(exclusive);
        removal.freed = delete(graves)?;
        super::build::cache::prune(self)?;
        super::container::sweep(self)?;
        let swept = self.sweep()?;
        removal.rubbish = swept.deleted;
        removal.freed = removal.freed.and(swept.freed);
        Ok(removal)
    }

    fn untag(&self, image: &Image, going: Vec<Name>) -> Result<Removal> {
        self.change_names(|names| names.retain(|name, id| id != image.id() || !going.contains(name)))?;
        Ok(Removal {
            untagged: going,
            ..Removal::default()
        })
    }

    /// Takes images out, and those of the layers that nobody needs then. Killed at any point, the rest is done by
    /// the next who opens the store.
    fn take_away(
        &self,
        images: &[Image],
        layers: &[ChainId],
        needs: &mut Needs,
        lock: &Exclusive,
    ) -> Result<(Removal, Vec<TmpDir>)> {
        let subjects = images.iter().map(|image| Subject::Image(*image.id()));
        let unneeded = layers.iter().map(|id| Subject::Layer(*id));
        let doubts = Doubt::note_all(self, subjects.chain(unneeded))?;
        let mut removal = Removal::default();
        let mut graves = Vec::new();
        for image in images {
            let untagged = self.untag(image, image.names().to_vec())?;
            removal.untagged.extend(untagged.untagged);
            if let Some(grave) = self.bury_image(image.id(), needs, lock)? {
                graves.push(grave);
                removal.images.push(*image.id());
            }
        }
        let buried = self.bury_layers(layers, needs, lock)?;
        removal.layers = buried.layers;
        graves.extend(buried.graves);
        for doubt in doubts {
            // Somebody has locked it just now: it is looked at again when he has gone.
            if !matches!(doubt.subject(), Subject::Layer(id) if buried.in_use.contains(&id)) {
                doubt.clear(self)?;
            }
        }
        Ok((removal, graves))
    }

    /// Who has one of these layers locked, in words.
    fn user_of(&self, layers: &[ChainId]) -> Result<Option<String>> {
        for id in layers {
            let path = self.overlay_path().join(id.hex());
            let dir = match at::open_dir_path(self.overlay(), id.hex().as_bytes()).and_then(at::reopen_dir) {
                Err(Errno::NOENT) => continue,
                dir => dir.map_err(StoreError::errno("open", &path))?,
            };
            if !try_exclusive(&dir).map_err(StoreError::errno("lock", &path))? {
                return Ok(Some(mount_of(&path)));
            }
        }
        Ok(None)
    }
}

fn describe(container: &ContainerUse) -> String {
    match &container.name {
        Some(name) => format!("the container {name} ({})", container.id),
        None => format!("the container {}", container.id),
    }
}

/// The mount that shows this layer, as far as this user's list of mounts tells.
fn mount_of(layer: &Path) -> String {
    let mounts = registry::live().unwrap_or_else(|error| {
        log::debug!("{error}");
        Vec::new()
    });
    mounts
        .iter()
        .find(|live| live.entry.lowers().any(|lower| lower.starts_with(layer)))
        .map_or_else(
            || "another process (a mount, a load or a build)".to_owned(),
            |live| format!("the mount on {}", live.entry.merged.path().display()),
        )
}
