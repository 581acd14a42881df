//! The rules and the state of one merged view.
//!
//! A request is answered in seven steps, straight down: decode (the protocol's work), lock the node, look at
//! all layers (`look.rs`), plan (`merge.rs`, pure), copy up what the plan needs (`copy_up.rs`), act with
//! one or two system calls that publish the result, record it in the table of nodes (`table.rs`).

mod attr;
mod config;
mod copy_up;
mod create;
mod dirs;
mod file;
mod foreign;
mod foresee;
mod listing;
mod look;
mod lowers;
pub mod merge;
pub mod node;
mod remove;
mod rename;
mod stated;
mod survey;
mod table;
pub mod trace;
mod work;
mod xattrs;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

pub use attr::{Changes, Ownership};
pub use config::{FsyncMode, LayerConfig, OwnershipMode, SetupError, StatedIn, UpperDirs, XattrNamespace};
pub use create::{Caller, Made, NewObject};
pub use dirs::Layer;
pub use foresee::{Call, Deed, Foresight};
pub use listing::Listed;
pub use lowers::MOST_LOWERS;
pub use node::{Node, NodeId, OpenFile, ROOT};
pub use rename::RenameFlag;
pub use survey::{Real, Survey};

use crate::format::Namespace;
use crate::sys::{Errno, Result, creds, io, stat};
use dirs::Dirs;
use lowers::Lowers;
use node::{Lower, Parts};
use stated::Stated;
use table::{Birth, Nodes};
use work::Work;

/// Counters that `plyfs list` shows.
#[derive(Debug, Default)]
pub struct Stats {
    /// Requests answered.
    pub requests: AtomicU64,
    /// Objects copied up.
    pub copy_ups: AtomicU64,
    /// Bytes of file data copied up.
    pub copied_bytes: AtomicU64,
}

/// What of the kernel's memory of a node is out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outdated {
    /// The attributes.
    Attributes,
    /// The attributes, and the cached pages: a file's data, or the listing of a directory.
    Pages,
}

/// Tells the kernel.
type Invalidate = Box<dyn Fn(NodeId, Outdated) + Send + Sync>;

/// One merged view.
pub struct Overlay {
    dirs: Dirs,
    listings: listing::Listings,
    work: Option<Work>,
    nodes: Nodes,
    marks: Namespace,
    lowers: Lowers,
    /// What is known of marks of other tools, if they count.
    foreign: Option<foreign::Foreign>,
    /// Device and inode of directories that the view is made of: the lowers' entries for them lead nowhere.
    traps: Vec<(u64, u64)>,
    /// The longest name that a layer allows, bytes.
    name_max: usize,
    fsync: FsyncMode,
    stated: Stated,
    stats: Stats,
    trace: Arc<trace::Hub>,
    invalidate: OnceLock<Invalidate>,
    name_lost: OnceLock<Box<dyn Fn(NodeId) + Send + Sync>>,
    /// Which group of those who ask a group of the layers is, where they differ.
    group: OnceLock<Box<dyn Fn(u32) -> u32 + Send + Sync>>,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("marks", &self.marks)
            .field("nodes", &self.nodes.len())
            .finish()
    }
}

/// Tries in the empty directory `work` what an upper on its file system must be able to do (K14), and tells where its
/// private marks would live. What is made there is left to the caller.
///
/// # Errors
/// [`SetupError::Unsuitable`] with the missing ability, or the step that failed.
pub fn try_upper(work: impl AsFd) -> std::result::Result<Namespace, SetupError> {
    Work::take_over(work, false)?.probe(XattrNamespace::Auto)
}

impl Overlay {
    /// Probes and cleans the layers and builds the view.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn open(config: LayerConfig) -> std::result::Result<Self, SetupError> {
        creds::init_process();
        Self::set_up(config, None)
    }

    /// The view of layers for looking at only: nothing is probed, cleaned or written, every change is EROFS. What it
    /// finds and foresees is what the mount of the layers does, since it is the same code.
    ///
    /// `marks` is the namespace of the private marks. The work directory need not be one: it only must not show.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn for_looking(config: LayerConfig, marks: Namespace) -> std::result::Result<Self, SetupError> {
        Self::set_up(config, Some(marks))
    }

    fn set_up(config: LayerConfig, looking: Option<Namespace>) -> std::result::Result<Self, SetupError> {
        let step = |what: &'static str| {
            move |errno| SetupError::Step {
                step: what.to_owned(),
                errno,
            }
        };
        let mut stats = Vec::with_capacity(config.lowers.len());
        let mut name_max = 0;
        for lower in &config.lowers {
            stats.push(stat::stat_fd(lower).map_err(step("look at the lower"))?);
            name_max = name_max.max(longest_name(lower).map_err(step("look at the lower"))?);
        }
        if !(1..=MOST_LOWERS).contains(&stats.len()) {
            return Err(SetupError::Lowers(stats.len()));
        }
        let mut further = Vec::new();
        for (index, lowers) in (1..).zip(config.lowers.windows(2)) {
            if config.foreign
                && let Some(above) = lowers.first()
                && foreign::is_opaque_root(above).map_err(step("look at the lower"))?
            {
                break;
            }
            further.push(index);
        }
        let parts = Parts::new(0, &further);
        let mut marks = looking.unwrap_or(match config.xattr {
            XattrNamespace::User => Namespace::User,
            _ => Namespace::Trusted,
        });
        let stated = Stated::learn(config.ownership, &config.lowers, config.foreign)
            .map_err(step("look at the lower"))?;
        let (mut upper, mut work, mut own) = (None, None, None);
        let mut traps = Vec::new();
        if let Some(given) = config.upper {
            let stat = stat::stat_fd(&given.upper).map_err(step("look at the upper"))?;
            own = Some(stat.dev);
            let base = stat::stat_fd(&given.work).map_err(step("look at the work directory"))?;
            traps.extend([(stat.dev, stat.ino), (base.dev, base.ino)]);
            name_max = name_max.max(longest_name(&given.upper).map_err(step("look at the upper"))?);
            if looking.is_none() {
                let taken = Work::take_over(&given.work, config.fsync == FsyncMode::Volatile)?;
                marks = taken.probe(config.xattr)?;
                stated
                    .begin(&given.upper)
                    .map_err(step("state the owner and mode of the upper in an attribute"))?;
                work = Some(taken);
            }
            upper = Some((given.upper, stat.ino));
        }
        log::debug!(
            "private marks live under {}",
            String::from_utf8_lossy(marks.prefix())
        );
        let lowers = Lowers::learn(&config.lowers, &stats, config.names, own);
        let nodes = Nodes::default();
        if let Some(work) = &work {
            let claims = work
                .read_claims()
                .map_err(step("read the record of claimed numbers"))?;
            nodes.load_claims(claims.into_iter().map(|recorded| lowers.claimed(recorded)));
        }
        let number = lowers.number(0, stats.first().map_or(0, |stat| stat.ino));
        let upper_ino = upper.as_ref().map(|(_, ino)| *ino);
        nodes.insert_root(Birth {
            kind: libc::S_IFDIR,
            number: upper_ino.unwrap_or(number),
            upper: upper_ino,
            upper_shared: false,
            from_origin: false,
            lower: Some(Lower::Object {
                number,
                shared: false,
                parts,
            }),
            impure: false,
        });
        let limit = config::descriptor_limit(config.lowers.len());
        Ok(Self {
            dirs: Dirs::new(config.lowers, upper.map(|(fd, _)| fd), limit),
            listings: listing::Listings::default(),
            work,
            nodes,
            marks,
            lowers,
            foreign: config.foreign.then(foreign::Foreign::default),
            traps,
            name_max,
            fsync: config.fsync,
            stated,
            stats: Stats::default(),
            trace: Arc::default(),
            invalidate: OnceLock::new(),
            name_lost: OnceLock::new(),
            group: OnceLock::new(),
        })
    }

    /// Installs the way to tell the kernel about what changed behind its back.
    pub fn on_invalidate(&self, call: impl Fn(NodeId, Outdated) + Send + Sync + 'static) {
        if self.invalidate.set(Box::new(call)).is_err() {
            log::debug!("the view is served already");
        }
    }

    fn attributes_changed(&self, node: &Node) {
        if let Some(call) = self.invalidate.get() {
            call(node.id, Outdated::Attributes);
            if node.is_renewed() {
                call(node.known_as(), Outdated::Attributes);
            }
        }
    }

    /// Has the kernel forget the pages of a node: the listing of a directory in which numbers changed, as no change
    /// through the kernel would tell it; or a file's data, of which it hands over first what it gathered.
    pub fn pages_outdated(&self, node: &Node) {
        if let Some(call) = self.invalidate.get() {
            call(node.id, Outdated::Pages);
        }
    }

    /// A request for `id` changed the node: what the kernel knows of it by its other id is out of date.
    fn changed_as(&self, id: NodeId, node: &Node) {
        if node.known_as() != id {
            self.attributes_changed(node);
        }
    }

    /// Installs what is to be done when a node lost a name, before the caller hears of it.
    pub fn on_name_lost(&self, call: impl Fn(NodeId) + Send + Sync + 'static) {
        if self.name_lost.set(Box::new(call)).is_err() {
            log::debug!("the view is served already");
        }
    }

    /// A name of the node went away or moved; under which id the kernel knows the name is not known.
    fn names_changed(&self, node: &Node) {
        if let Some(call) = self.name_lost.get() {
            call(node.id);
        }
        if node.is_renewed() {
            self.attributes_changed(node);
        }
    }

    /// Installs which group of those who ask a group of the layers is.
    pub fn on_group(&self, call: impl Fn(u32) -> u32 + Send + Sync + 'static) {
        if self.group.set(Box::new(call)).is_err() {
            log::debug!("the view is served already");
        }
    }

    /// The group of those who ask that the layers' `gid` is.
    fn group_of_callers(&self, gid: u32) -> u32 {
        self.group.get().map_or(gid, |call| call(gid))
    }

    /// The id under which the kernel is to open the node that it means by `id`.
    pub fn known_as(&self, id: NodeId) -> NodeId {
        self.nodes.known_as(id)
    }

    /// True if the kernel may not trust for long what it learns by `id`: it knows the node by two ids, and nobody
    /// tells it of changes made by the other.
    pub fn is_passing(&self, id: NodeId) -> bool {
        self.nodes.is_passing(id)
    }

    /// The live counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Where the private marks live.
    pub fn marks(&self) -> Namespace {
        self.marks
    }

    /// Those who listen to what it does.
    pub fn trace(&self) -> &Arc<trace::Hub> {
        &self.trace
    }

    /// Counts one request; answers how many there were before.
    pub fn count_request(&self) -> u64 {
        self.stats.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Brings everything in the upper to disk; does nothing for a read-only or volatile view.
    ///
    /// # Errors
    /// What syncfs(2) says.
    pub fn sync(&self) -> Result<()> {
        let (FsyncMode::Auto | FsyncMode::Strict, Some(work)) = (self.fsync, &self.work) else {
            return Ok(());
        };
        // syncfs(2) refuses O_PATH descriptors.
        let dir = crate::sys::at::reopen_dir(work.fd())?;
        io::sync_fs(dir.as_fd())
    }

    /// The node with this id.
    ///
    /// # Errors
    /// ESTALE for an id that the kernel has been told to forget.
    pub fn node(&self, id: NodeId) -> Result<Arc<Node>> {
        self.nodes.get(id).ok_or(Errno::STALE)
    }

    /// The kernel drops `count` references to a node (FUSE FORGET).
    pub fn forget(&self, id: NodeId, count: u64) {
        for dir in self.nodes.forget(id, count) {
            self.dirs.forget(&dir);
            if let Some(foreign) = &self.foreign {
                foreign.forget(&dir);
            }
            self.listings.forget(dir.id);
        }
        if self.nodes.shrink() {
            crate::sys::memory::trim();
        }
    }

    fn work(&self) -> Result<&Work> {
        self.work.as_ref().ok_or(Errno::ROFS)
    }
}

fn longest_name(fd: impl AsFd) -> Result<usize> {
    Ok(usize::try_from(io::stat_fs(fd)?.f_namemax).unwrap_or(255))
}
