//! Nodes: the objects of the view that the kernel knows, under the numbers by which it knows them.
//!
//! A node id is a counter and never used twice. The inode number that programs see is a different thing,
//! kept in the node's state. Two names of one upper file share a node (K152); two names of one lower file
//! have a node each, since a copy-up of one must not touch the other (K71, K151).
//!
//! Lock order, outermost first: [`Node::copying`], then [`Node::entries`] (ancestors first, then by id),
//! then the table (`table.rs`), then a node's state. The last two are never held across a system call.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard, RwLock};
use smallvec::SmallVec;

use super::table::Birth;
use crate::sys::stat::Stat;

/// The number by which the kernel names a node in requests.
pub type NodeId = u64;

/// The view's root.
pub const ROOT: NodeId = 1;

/// One name of a node.
#[derive(Debug)]
pub struct Link {
    /// The directory that holds the name.
    pub parent: Arc<Node>,
    /// The name.
    pub name: Box<[u8]>,
}

/// The lowers after the first that take part in a directory, topmost first. (A thin pointer: most nodes have none.)
#[derive(Debug, PartialEq, Eq)]
struct Further(Box<[u16]>);

/// The lowers that take part in an object, topmost first; of anything but a directory it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    first: u16,
    further: Option<Arc<Further>>,
}

impl Parts {
    /// The lower `first` and the `further` ones below it.
    pub fn new(first: u16, further: &[u16]) -> Self {
        let further = (!further.is_empty()).then(|| Arc::new(Further(further.into())));
        Self { first, further }
    }

    /// The topmost, which gives the attributes.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The lowest.
    pub fn last(&self) -> u16 {
        self.further().last().copied().unwrap_or(self.first)
    }

    fn further(&self) -> &[u16] {
        self.further.as_ref().map_or(&[], |further| &further.0)
    }

    /// All of them, topmost first.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        std::iter::once(self.first).chain(self.further().iter().copied())
    }

    /// More than one: a directory merged of several lowers.
    pub fn are_several(&self) -> bool {
        self.further.is_some()
    }
}

/// What the lowers hold behind a node.
#[derive(Debug, Clone)]
pub enum Lower {
    /// An object that can be reached.
    Object {
        /// The number that programs see for it, which tells its inode and file system (`lowers.rs`).
        number: u64,
        /// It has several links, so another name may show it too.
        shared: bool,
        /// The lowers that have it.
        parts: Parts,
    },
    /// A directory on which something else is mounted: its attributes are known, its content is not ours
    /// to enter (K28). The lower that has it, and the attributes.
    Covered(u16, Box<Stat>),
}

impl Lower {
    /// How many lowers take part: none of what cannot be entered counts as more than one.
    fn is_several(&self) -> bool {
        matches!(self, Self::Object { parts, .. } if parts.are_several())
    }
}

/// What changes about a node.
#[derive(Debug)]
pub struct State {
    /// The inode number that programs see.
    pub number: u64,
    /// The names by which it was met; empty once the last was removed.
    pub links: SmallVec<[Arc<Link>; 1]>,
    /// The inode number of the upper object, if there is one.
    pub upper: Option<u64>,
    /// The lower object, if it takes part in the view.
    pub lower: Option<Lower>,
    /// A directory that is known to carry the impure mark.
    pub impure: bool,
    /// Open files, for those that must follow a copy-up or outlive the last name.
    pub open: Vec<Weak<OpenFile>>,
    /// The attributes it had when its last name was removed.
    pub removed: Option<Box<Stat>>,
    /// A directory that is being removed, for programs that still have it open.
    pub kept: Option<Arc<OwnedFd>>,
}

impl State {
    /// Of a directory: it has parts in more than one layer (K40).
    pub(super) fn is_merged(&self) -> bool {
        match &self.lower {
            Some(lower) => self.upper.is_some() || lower.is_several(),
            None => false,
        }
    }
}

/// One object of the view.
#[derive(Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// The id that took the place of `id`; 0 for none. See [`Node::known_as`].
    renewed: AtomicU64,
    /// It was opened for writing by its first id after it got the second.
    pub written_by_both: AtomicBool,
    /// The type bits of its mode.
    pub kind: u32,
    /// Held while the object is copied up.
    pub copying: Mutex<()>,
    /// Held while names in this directory change.
    pub entries: Mutex<()>,
    /// The data of the lower's file was given to the kernel.
    pub filled: AtomicBool,
    /// The kernel wrote the file itself, past its page cache for this node.
    pub cache_bypassed: AtomicBool,
    /// Its capability was removed by the request before this one.
    pub capability_removed: AtomicBool,
    state: Mutex<State>,
}

impl Node {
    /// A node just met.
    pub(super) fn new(id: NodeId, birth: &Birth, number: u64) -> Self {
        Self {
            id,
            renewed: AtomicU64::new(0),
            written_by_both: AtomicBool::new(false),
            kind: birth.kind,
            copying: Mutex::new(()),
            entries: Mutex::new(()),
            filled: AtomicBool::new(false),
            cache_bypassed: AtomicBool::new(false),
            capability_removed: AtomicBool::new(false),
            state: Mutex::new(State {
                number,
                links: SmallVec::new(),
                upper: birth.upper,
                lower: birth.lower.clone(),
                impure: birth.impure,
                open: Vec::new(),
                removed: None,
                kept: None,
            }),
        }
    }

    /// The id under which the kernel is to open it.
    ///
    /// It differs from `id` after a copy-up while the kernel read the file of the lower by itself
    /// ([`OpenFile::pin`]): the kernel reads one file for all opens of an id. Both ids mean this node as long as
    /// the kernel holds either.
    pub fn known_as(&self) -> NodeId {
        match self.renewed.load(Ordering::Acquire) {
            0 => self.id,
            renewed => renewed,
        }
    }

    /// The kernel may know the node under two ids, and has attributes for each.
    pub fn is_renewed(&self) -> bool {
        self.renewed.load(Ordering::Acquire) != 0
    }

    /// Gives the node a second id.
    pub(super) fn renew(&self, id: NodeId) {
        self.renewed.store(id, Ordering::Release);
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == libc::S_IFDIR
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == libc::S_IFREG
    }

    /// True once its last name was removed.
    pub fn is_removed(&self) -> bool {
        self.state.lock().removed.is_some()
    }

    /// The changing part.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The upper object's inode number, if there is an upper object.
    pub fn upper(&self) -> Option<u64> {
        self.state.lock().upper
    }

    /// A directory whose lower part can be entered.
    pub fn has_lower_dir(&self) -> bool {
        matches!(self.state.lock().lower, Some(Lower::Object { .. }))
    }

    /// The lowers whose parts of a directory can be entered.
    pub fn parts(&self) -> Option<Parts> {
        match &self.state.lock().lower {
            Some(Lower::Object { parts, .. }) => Some(parts.clone()),
            _ => None,
        }
    }

    /// One of its names; `None` for the root and for an object whose last name was removed.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.state.lock().links.first().cloned()
    }

    /// The path of a name in this directory, for log lines only.
    pub fn path_of(&self, name: &[u8]) -> String {
        let name = String::from_utf8_lossy(name);
        if self.id == ROOT {
            format!("/{name}")
        } else {
            format!("{}/{name}", self.path())
        }
    }

    /// The path below the view's root, for log lines only.
    pub fn path(&self) -> String {
        let mut names = Vec::new();
        let mut link = self.link();
        if link.is_none() && self.id != ROOT {
            return format!("(removed node {})", self.id);
        }
        while let Some(l) = link {
            names.push(String::from_utf8_lossy(&l.name).into_owned());
            link = l.parent.link();
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }
}

/// A regular file that a program has open.
#[derive(Debug)]
pub struct OpenFile {
    /// The node.
    pub node: Arc<Node>,
    /// The id of the node by which it was opened.
    pub id: NodeId,
    /// The real file; exchanged when the node is copied up (K110).
    file: RwLock<Arc<OwnedFd>>,
    on_lower: AtomicBool,
    pinned: AtomicBool,
    /// Opened for writing.
    pub writes: bool,
    /// Opened to be run as a program.
    pub runs: bool,
    /// The file's mode when it was opened.
    pub mode: u32,
    /// Its size then, bytes.
    pub size: u64,
}

impl OpenFile {
    /// Wraps a real file.
    pub fn new(
        node: Arc<Node>,
        file: impl Into<Arc<OwnedFd>>,
        on_lower: bool,
        writes: bool,
        stat: &Stat,
    ) -> Self {
        let on_lower = AtomicBool::new(on_lower);
        Self {
            id: node.known_as(),
            node,
            file: RwLock::new(file.into()),
            on_lower,
            pinned: AtomicBool::new(false),
            writes,
            runs: false,
            mode: stat.mode,
            size: stat.size,
        }
    }

    /// The real file as it is now.
    pub fn file(&self) -> Arc<OwnedFd> {
        self.file.read().clone()
    }

    /// True while it reads from the lower.
    pub fn on_lower(&self) -> bool {
        self.on_lower.load(Ordering::Acquire)
    }

    /// Keeps it at the file of the lower, which the kernel is going to read by itself; it does not follow a
    /// copy-up then. `false` if it is at a file of the upper.
    pub fn pin(&self) -> bool {
        // A copy-up decides under the same lock which open files follow it.
        let _state = self.node.state();
        let on_lower = self.on_lower();
        self.pinned.store(on_lower, Ordering::Release);
        on_lower
    }

    /// The kernel does not read it any more.
    pub fn unpin(&self) {
        self.pinned.store(false, Ordering::Release);
    }

    /// True while the kernel reads the lower's file by itself.
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Acquire)
    }

    /// Turns to the copy in the upper.
    pub(super) fn follow(&self, file: &Arc<OwnedFd>) {
        *self.file.write() = Arc::clone(file);
        self.on_lower.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Nodes;
    use super::*;
    use crate::sys::stat;

    fn birth(kind: u32, ino: u64) -> Birth {
        Birth {
            kind,
            number: ino,
            upper: None,
            upper_shared: false,
            from_origin: false,
            lower: Some(Lower::Object {
                number: ino,
                shared: false,
                parts: Parts::new(0, &[]),
            }),
            impure: false,
        }
    }

    fn open(node: &Arc<Node>) -> Arc<OpenFile> {
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let stat = stat::stat_fd(&file).unwrap();
        let open = Arc::new(OpenFile::new(Arc::clone(node), file, true, false, &stat));
        node.state().open.push(Arc::downgrade(&open));
        open
    }

    #[test]
    fn a_pinned_reader_makes_a_second_id_and_either_means_the_node() {
        let nodes = Nodes::default();
        let root = nodes.insert_root(birth(libc::S_IFDIR, 1));
        let node = nodes.insert(&root, b"f", birth(libc::S_IFREG, 7));
        let (pinned, other) = (open(&node), open(&node));
        assert!(pinned.pin() && pinned.is_pinned() && !other.is_pinned());
        let copy: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        nodes.copied_up(&node, 9, 7, Some(&Arc::new(copy)));
        assert!(pinned.on_lower() && !other.on_lower());
        assert!(!other.pin(), "it is too late for the lower");
        let second = node.known_as();
        assert!(node.is_renewed() && second != node.id);
        assert_eq!((pinned.id, open(&node).id), (node.id, second));
        assert!(Arc::ptr_eq(&nodes.get(second).unwrap(), &node));
        assert_eq!(
            (nodes.known_as(node.id), nodes.known_as(second)),
            (second, second)
        );
        assert!(nodes.is_passing(node.id) && !nodes.is_passing(second));
        // Looked up once more by its name: two references, whichever id they are given back under.
        assert!(Arc::ptr_eq(&nodes.find_counted(ROOT, b"f").unwrap(), &node));
        nodes.forget(second, 1);
        assert!(nodes.get(second).is_some() && nodes.get(node.id).is_some());
        nodes.forget(node.id, 1);
        assert!(nodes.get(second).is_none() && nodes.get(node.id).is_none());
        assert!(nodes.find(ROOT, b"f").is_none());
    }

    #[test]
    fn without_a_pinned_reader_there_is_one_id() {
        let nodes = Nodes::default();
        let root = nodes.insert_root(birth(libc::S_IFDIR, 1));
        let node = nodes.insert(&root, b"f", birth(libc::S_IFREG, 7));
        let reader = open(&node);
        assert!(reader.pin());
        reader.unpin();
        let copy: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        nodes.copied_up(&node, 9, 7, Some(&Arc::new(copy)));
        assert!(!reader.on_lower() && !node.is_renewed());
        assert_eq!(node.known_as(), node.id);
    }
}
