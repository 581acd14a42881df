//! What the store costs on disk, and who shares what.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd};

use roaring::RoaringTreemap;
use serde::Serialize;

use super::layout::names_in;
use super::{ChainId, ImageId, Layer, Name, Result, Store, StoreError};
use crate::builder::Kind;
use crate::builder::walk::Walk;
use crate::sys::stat::Stat;
use crate::sys::{Errno, at, stat};

/// Disk space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Space {
    /// Bytes of disk blocks.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Space {
    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }

    fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            inodes: self.inodes.saturating_sub(other.inodes),
        }
    }

    fn of(stat: &Stat) -> Self {
        Self {
            bytes: stat.blocks.saturating_mul(512),
            inodes: 1,
        }
    }
}

/// What one image costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageUsage {
    /// Its id.
    pub id: ImageId,
    /// Its names.
    pub names: Vec<Name>,
    /// Everything in its layers, as if it were alone.
    pub total: Space,
    /// Of that, what other images or containers need too.
    pub shared: Space,
    /// What removing it would free.
    pub unique: Space,
    /// Containers made from it.
    pub containers: usize,
}

/// The inode with the most names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Links {
    /// Its names, in all layers together.
    pub highest: u64,
    /// How many an inode of this file system may have; none where that is not known.
    pub limit: Option<u64>,
}

/// What the store costs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// By their ids.
    pub images: Vec<ImageUsage>,
    /// How many layers there are.
    pub layers: usize,
    /// All layers together, each inode counted once.
    pub layer_space: Space,
    /// Layers that neither an image nor a container needs.
    pub unneeded: Space,
    /// How many containers there are, and what their own files take.
    pub containers: usize,
    /// See there.
    pub container_space: Space,
    /// The inode with the most names.
    pub links: Links,
    /// Files that were copied, or share only their blocks, because a link could not be made.
    pub copies: u64,
}

/// The layers of a group (those that only one image needs, say) and what goes with all of them.
#[derive(Default)]
struct Group {
    /// Of each inode: names in this group, names anywhere, space.
    seen: HashMap<u64, (u64, u64, Space)>,
    /// Directories and what lies beside the trees: always their own.
    own: Space,
}

impl Group {
    fn freed(&self) -> Space {
        let mut freed = self.own;
        for (here, everywhere, space) in self.seen.values() {
            if here >= everywhere {
                freed.add(*space);
            }
        }
        freed
    }
}

struct Walker {
    seen: RoaringTreemap,
    highest: u64,
}

impl Store {
    /// What the store costs. Every name in every layer is looked at.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        let (needs, images, ids) = {
            let exclusive = self.exclusive()?;
            (self.needs(&exclusive)?, self.images()?, self.layer_ids()?)
        };
        // Which image alone needs a layer; no layer is needed by one image alone twice.
        let mut only: BTreeMap<ChainId, Option<ImageId>> = BTreeMap::new();
        for image in &images {
            for id in needs.only_for(image) {
                only.insert(id, Some(*image.id()));
            }
        }
        let mut walker = Walker {
            seen: RoaringTreemap::new(),
            highest: 0,
        };
        let mut usage = Usage::default();
        let mut fresh: BTreeMap<ChainId, Space> = BTreeMap::new();
        let mut groups: BTreeMap<Option<ImageId>, Group> = BTreeMap::new();
        let mut unneeded = Group::default();
        let mut nobody = Group::default();
        for id in self.parents_first(&ids)? {
            // It may have been removed in between.
            let Some(layer) = self.find_layer(&id)? else {
                continue;
            };
            let group = match only.get(&id) {
                Some(image) => groups.entry(*image).or_default(),
                None if needs.layer_is_unneeded(&id) => &mut unneeded,
                None => &mut nobody,
            };
            let space = walker.layer(&layer, group)?;
            fresh.insert(id, space);
            usage.layers = usage.layers.saturating_add(1);
            usage.layer_space.add(space);
            let birth = layer.birth()?;
            usage.copies = usage
                .copies
                .saturating_add(birth.copied)
                .saturating_add(birth.reflinked);
        }
        usage.unneeded = unneeded.freed();
        for image in images {
            let mut total = Space::default();
            for id in image.chain() {
                total.add(fresh.get(&id).copied().unwrap_or_default());
            }
            let containers = needs.containers_of(image.id()).count();
            let unique = groups
                .get(&Some(*image.id()))
                .map(Group::freed)
                .unwrap_or_default();
            usage.images.push(ImageUsage {
                id: *image.id(),
                names: image.names().to_vec(),
                total,
                shared: total.minus(unique),
                unique,
                containers,
            });
        }
        (usage.containers, usage.container_space) = self.containers_usage(&mut walker)?;
        usage.links = Links {
            highest: walker.highest,
            limit: stat::link_limit(self.overlay())
                .map_err(StoreError::errno("look at", self.overlay_path()))?,
        };
        Ok(usage)
    }

    /// Layers in such an order that each comes behind the one it lies on.
    fn parents_first(&self, ids: &[ChainId]) -> Result<Vec<ChainId>> {
        let mut order: Vec<ChainId> = Vec::new();
        let mut done = std::collections::BTreeSet::new();
        for id in ids {
            let mut chain = Vec::new();
            let mut next = Some(*id);
            while let Some(id) = next
                && done.insert(id)
            {
                chain.push(id);
                next = match self.find_layer(&id)? {
                    Some(layer) => layer.parent()?,
                    None => None,
                };
            }
            order.extend(chain.into_iter().rev());
        }
        Ok(order)
    }

    fn containers_usage(&self, walker: &mut Walker) -> Result<(usize, Space)> {
        let mut count: usize = 0;
        let mut space = Space::default();
        let path = self.overlay_path();
        for name in names_in(self.overlay(), &path)? {
            let dir = match at::open_dir_path(self.overlay(), name.as_bytes()) {
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                dir => dir.map_err(StoreError::errno("open", path.join(&name)))?,
            };
            if stat::stat_at(&dir, b"lower-id").is_err() {
                continue;
            }
            if !name.ends_with("-init") {
                count = count.saturating_add(1);
            }
            let mut own = Group::default();
            for tree in ["upper", "work"] {
                match at::open_dir_path(&dir, tree.as_bytes()).and_then(at::reopen_dir) {
                    Ok(tree) => space.add(walker.tree(tree.as_fd(), &mut own)?),
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(StoreError::errno("open", path.join(&name).join(tree))(errno)),
                }
            }
        }
        Ok((count, space))
    }
}

impl Walker {
    /// What is new in a layer.
    fn layer(&mut self, layer: &Layer, group: &mut Group) -> Result<Space> {
        let mut space = Space::default();
        let beside = stat::stat_fd(layer.dir()).map_err(StoreError::errno("look at", layer.path()))?;
        space.add(Space::of(&beside));
        group.own.add(Space::of(&beside));
        // `root` and `overflow`, and the files beside them.
        space.add(self.tree(layer.dir(), group)?);
        Ok(space)
    }

    /// What is new below `root`.
    fn tree(&mut self, root: BorrowedFd<'_>, group: &mut Group) -> Result<Space> {
        let mut fresh = Space::default();
        let root = at::reopen_dir(root).map_err(StoreError::errno("open", "a layer"))?;
        let mut walk = Walk::new(root.as_fd())?;
        while let Some(step) = walk.advance()? {
            let known = self.seen.contains(step.ino);
            let directory = step.kind == Kind::Directory;
            if let Some((here, _, _)) = group.seen.get_mut(&step.ino) {
                *here = here.saturating_add(1);
                continue;
            }
            let stat = stat::stat_at(step.dir, step.name)
                .map_err(|errno| StoreError::errno("look at", step.path().to_string())(errno))?;
            let space = Space::of(&stat);
            if !known {
                self.seen.insert(step.ino);
                fresh.add(space);
            }
            if directory {
                group.own.add(space);
                walk.enter()?;
                continue;
            }
            self.highest = self.highest.max(u64::from(stat.nlink));
            group.seen.insert(step.ino, (1, u64::from(stat.nlink), space));
        }
        Ok(fresh)
    }
}
