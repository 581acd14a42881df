//! The table of nodes: by id, by name, and by what two nodes may share.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;

use super::node::{Link, Lower, Node, NodeId, ROOT};
use crate::sys::stat::Stat;

/// What a new node starts with.
#[derive(Debug)]
pub struct Birth {
    /// The type bits of the mode.
    pub kind: u32,
    /// The wished inode number.
    pub number: u64,
    /// The upper object's inode number, if any.
    pub upper: Option<u64>,
    /// The upper object has several names.
    pub upper_shared: bool,
    /// The number comes from an origin mark, so that a lower object may claim it too.
    pub from_origin: bool,
    /// The lower object, if any.
    pub lower: Option<Lower>,
    /// The directory carries the impure mark.
    pub impure: bool,
}

/// Set in the number of a lower name whose own number went to a copied-up name of the same file.
const TWIN_TAG: u64 = 1 << 61;

#[derive(Debug)]
struct Named {
    link: Arc<Link>,
    node: Arc<Node>,
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    /// References the kernel holds.
    lookups: u64,
    /// Names of known nodes that lie in this directory.
    children: u32,
}

#[derive(Debug, Default)]
struct Table {
    nodes: HashMap<NodeId, Entry>,
    /// The first ids of nodes that have a second one.
    renewed: HashMap<NodeId, NodeId>,
    names: HashTable<Named>,
    hasher: DefaultHashBuilder,
    /// Upper files with several names, by inode number.
    shared: HashMap<u64, Arc<Node>>,
    /// How many known nodes show a lower file with several links, by its number ([`Lower::Object`]).
    lower_names: HashMap<u64, u32>,
    /// Lower files of which two names were met, by the same.
    groups: HashSet<u64>,
    /// Lower files whose number went to a copied-up name, in this mount or an earlier one, by the same.
    claimed: HashSet<u64>,
    last_id: NodeId,
    /// The most nodes known since memory was given back.
    peak: usize,
}

/// Tables this small are not worth shrinking.
const SMALL: usize = 10_000;

/// All nodes the kernel knows.
#[derive(Debug, Default)]
pub struct Nodes {
    table: Mutex<Table>,
    /// A node got a second id in the life of this view.
    any_renewed: AtomicBool,
}

impl Table {
    /// The first id of the node that the kernel means by `id`.
    fn first_id(&self, id: NodeId) -> NodeId {
        self.renewed.get(&id).copied().unwrap_or(id)
    }

    fn next_id(&mut self) -> NodeId {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }

    fn hash(&self, parent: NodeId, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    fn find(&self, parent: NodeId, name: &[u8]) -> Option<&Named> {
        let same = |n: &Named| n.link.parent.id == parent && *n.link.name == *name;
        self.names.find(self.hash(parent, name), same)
    }

    fn add_name(&mut self, node: &Arc<Node>, parent: &Arc<Node>, name: &[u8]) {
        let link = Arc::new(Link {
            parent: Arc::clone(parent),
            name: name.into(),
        });
        {
            let mut state = node.state();
            state.links.push(Arc::clone(&link));
            state.kept = None;
        }
        if let Some(entry) = self.nodes.get_mut(&parent.id) {
            entry.children = entry.children.saturating_add(1);
        }
        let hash = self.hash(parent.id, name);
        let hasher = self.hasher.clone();
        let named = Named {
            link,
            node: Arc::clone(node),
        };
        self.names.insert_unique(hash, named, |n| {
            hasher.hash_one((n.link.parent.id, &*n.link.name))
        });
    }

    fn remove_name(&mut self, parent: NodeId, name: &[u8]) -> Option<Arc<Node>> {
        let hash = self.hash(parent, name);
        let same = |n: &Named| n.link.parent.id == parent && *n.link.name == *name;
        let named = self.names.find_entry(hash, same).ok()?.remove().0;
        named
            .node
            .state()
            .links
            .retain(|link| !Arc::ptr_eq(link, &named.link));
        if let Some(entry) = self.nodes.get_mut(&parent) {
            entry.children = entry.children.saturating_sub(1);
        }
        Some(named.node)
    }

    /// Drops a node nobody needs, and then its ancestors as far as nobody needs them.
    fn collect(&mut self, id: NodeId, gone: &mut Vec<Arc<Node>>) {
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            let idle = self
                .nodes
                .get(&id)
                .is_some_and(|e| e.lookups == 0 && e.children == 0);
            if !idle || id == ROOT {
                continue;
            }
            let Some(entry) = self.nodes.remove(&id) else {
                continue;
            };
            let (links, upper, lower) = {
                let state = entry.node.state();
                (state.links.clone(), state.upper, state.lower.clone())
            };
            for link in &links {
                self.remove_name(link.parent.id, &link.name);
                pending.push(link.parent.id);
            }
            if let Some(ino) = upper {
                self.forget_shared(ino, id);
            }
            self.leave_group(lower.as_ref());
            if entry.node.is_renewed() {
                self.renewed.remove(&entry.node.known_as());
            }
            if entry.node.is_dir() {
                gone.push(entry.node);
            }
        }
    }

    fn forget_shared(&mut self, ino: u64, id: NodeId) {
        if self.shared.get(&ino).is_some_and(|node| node.id == id) {
            self.shared.remove(&ino);
        }
    }

    fn leave_group(&mut self, lower: Option<&Lower>) {
        let Some(Lower::Object {
            number, shared: true, ..
        }) = lower
        else {
            return;
        };
        let Some(names) = self.lower_names.get_mut(number) else {
            return;
        };
        *names = names.saturating_sub(1);
        if *names == 0 {
            self.lower_names.remove(number);
        }
    }

    /// The number a new node may show, so that two different files never show the same one.
    fn claim(&mut self, birth: &Birth) -> u64 {
        match (&birth.lower, birth.upper) {
            (
                Some(Lower::Object {
                    number, shared: true, ..
                }),
                None,
            ) => {
                let names = self.lower_names.entry(*number).or_default();
                *names = names.saturating_add(1);
                if *names > 1 {
                    self.groups.insert(*number);
                }
                if self.claimed.contains(number) {
                    birth.number | TWIN_TAG
                } else {
                    birth.number
                }
            }
            // An upper whose record of claims was lost: the lower's names go first.
            (_, Some(upper)) if birth.from_origin => {
                let origin = birth.number;
                let taken = self.lower_names.contains_key(&origin) && !self.claimed.contains(&origin);
                if taken { upper } else { birth.number }
            }
            _ => birth.number,
        }
    }
}

impl Nodes {
    /// Puts the root in.
    pub fn insert_root(&self, birth: Birth) -> Arc<Node> {
        let node = Arc::new(Node::new(ROOT, &birth, birth.number));
        let mut table = self.table.lock();
        table.last_id = ROOT;
        table.nodes.insert(
            ROOT,
            Entry {
                node: Arc::clone(&node),
                lookups: 1,
                children: 0,
            },
        );
        node
    }

    /// The node with this id.
    pub fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        let table = self.table.lock();
        table
            .nodes
            .get(&table.first_id(id))
            .map(|entry| Arc::clone(&entry.node))
    }

    /// The id under which the kernel is to open the node that it means by `id` ([`Node::known_as`]).
    pub fn known_as(&self, id: NodeId) -> NodeId {
        if !self.any_renewed.load(Ordering::Relaxed) {
            return id;
        }
        self.get(id).map_or(id, |node| node.known_as())
    }

    /// The node with this name, if the kernel knows it.
    pub fn find(&self, parent: NodeId, name: &[u8]) -> Option<Arc<Node>> {
        self.table
            .lock()
            .find(parent, name)
            .map(|named| Arc::clone(&named.node))
    }

    /// The node with this name, counted as looked up once more.
    pub fn find_counted(&self, parent: NodeId, name: &[u8]) -> Option<Arc<Node>> {
        let mut table = self.table.lock();
        let node = Arc::clone(&table.find(parent, name)?.node);
        let entry = table.nodes.get_mut(&node.id)?;
        entry.lookups = entry.lookups.saturating_add(1);
        Some(node)
    }

    /// True if the kernel may not trust for long what it learns of a node by `id`: it knows the node by two ids,
    /// and nobody tells it of changes made by the other.
    pub fn is_passing(&self, id: NodeId) -> bool {
        self.any_renewed.load(Ordering::Relaxed)
            && self
                .get(id)
                .is_some_and(|node| node.known_as() != id || node.written_by_both.load(Ordering::Relaxed))
    }

    /// The node for a name just met, counted as looked up once.
    ///
    /// Answers the node that has the name already, or that has the same upper file under another name;
    /// else a new one.
    pub fn insert(&self, parent: &Arc<Node>, name: &[u8], birth: Birth) -> Arc<Node> {
        let mut table = self.table.lock();
        let known = table.find(parent.id, name).map(|named| Arc::clone(&named.node));
        let known = known.or_else(|| {
            // It may have one name left, and be known under one that is gone.
            let ino = birth.upper.filter(|_| birth.kind != libc::S_IFDIR)?;
            let node = Arc::clone(table.shared.get(&ino)?);
            table.add_name(&node, parent, name);
            Some(node)
        });
        if let Some(node) = known {
            if let Some(entry) = table.nodes.get_mut(&node.id) {
                entry.lookups = entry.lookups.saturating_add(1);
            }
            return node;
        }
        let id = table.next_id();
        let number = table.claim(&birth);
        let node = Arc::new(Node::new(id, &birth, number));
        table.nodes.insert(
            id,
            Entry {
                node: Arc::clone(&node),
                lookups: 1,
                children: 0,
            },
        );
        table.peak = table.peak.max(table.nodes.len());
        if let Some(ino) = birth.upper.filter(|_| birth.upper_shared) {
            table.shared.insert(ino, Arc::clone(&node));
        }
        table.add_name(&node, parent, name);
        node
    }

    /// A further name of a known upper file (link(2)), counted as looked up once more.
    pub fn add_name(&self, node: &Arc<Node>, parent: &Arc<Node>, name: &[u8]) {
        let mut table = self.table.lock();
        if let Some(ino) = node.upper() {
            table.shared.insert(ino, Arc::clone(node));
        }
        table.add_name(node, parent, name);
        if let Some(entry) = table.nodes.get_mut(&node.id) {
            entry.lookups = entry.lookups.saturating_add(1);
        }
    }

    /// A name is gone; `stat` are the attributes the object had before.
    pub fn remove_name(&self, parent: NodeId, name: &[u8], stat: Stat) {
        let mut table = self.table.lock();
        let Some(node) = table.remove_name(parent, name) else {
            return;
        };
        let upper = {
            let mut state = node.state();
            let last = state.links.is_empty() && (node.is_dir() || state.upper.is_none() || stat.nlink <= 1);
            if last {
                state.removed = Some(Box::new(Stat { nlink: 0, ..stat }));
            }
            state.upper.filter(|_| last)
        };
        if let Some(ino) = upper {
            // The file system may use the inode number again for another file.
            table.forget_shared(ino, node.id);
        }
    }

    /// A name does not belong to its node any more, for a reason outside the view.
    pub fn disown(&self, parent: NodeId, name: &[u8]) {
        self.table.lock().remove_name(parent, name);
    }

    /// A name moved; a node that had the new name must have lost it before.
    pub fn move_name(&self, parent: NodeId, name: &[u8], to: &Arc<Node>, to_name: &[u8]) {
        let mut table = self.table.lock();
        if let Some(node) = table.remove_name(parent, name) {
            table.add_name(&node, to, to_name);
        }
    }

    /// Two names changed places.
    pub fn exchange_names(&self, a: (&Arc<Node>, &[u8]), b: (&Arc<Node>, &[u8])) {
        let mut table = self.table.lock();
        let first = table.remove_name(a.0.id, a.1);
        let second = table.remove_name(b.0.id, b.1);
        if let Some(node) = first {
            table.add_name(&node, b.0, b.1);
        }
        if let Some(node) = second {
            table.add_name(&node, a.0, a.1);
        }
    }

    /// Numbers that went to copied-up names in earlier mounts.
    pub fn load_claims(&self, claims: impl IntoIterator<Item = u64>) {
        self.table.lock().claimed.extend(claims);
    }

    /// Whether a lower file with several links keeps its number when one name of it is copied up: not when
    /// another name was met, since the two are different files from now on (K42).
    pub fn keeps_number(&self, number: u64) -> bool {
        let table = self.table.lock();
        !table.groups.contains(&number) && !table.claimed.contains(&number)
    }

    /// Records that a node now has an upper object, with the number programs see from now on, and turns everyone
    /// who has the file open to the copy `file` (K110).
    ///
    /// What the kernel reads by itself stays at the lower's file, and so does everything opened under the node's
    /// id as long as that is open. So the node gets a second id for all further opens.
    pub fn copied_up(&self, node: &Node, upper: u64, number: u64, file: Option<&Arc<OwnedFd>>) {
        let mut table = self.table.lock();
        let lower = {
            let mut state = node.state();
            state.upper = Some(upper);
            if node.is_dir() {
                return;
            }
            let mut number = number;
            if let Some(Lower::Object {
                number: own,
                shared: true,
                ..
            }) = state.lower
                && state.number == number
                && !state.links.is_empty()
            {
                // Another name may have been met while this one was copied.
                if table.groups.contains(&own) {
                    number = upper;
                } else {
                    table.claimed.insert(own);
                }
            }
            state.number = number;
            let mut pinned = false;
            state.open.retain(|open| open.strong_count() > 0);
            for open in state.open.iter().filter_map(Weak::upgrade) {
                match file {
                    _ if open.is_pinned() => pinned = true,
                    Some(file) => open.follow(file),
                    None => {}
                }
            }
            if pinned && state.links.is_empty() {
                // Nobody will look for its name; but nothing else holds the copy.
                state.kept = file.cloned();
            } else if pinned {
                let id = table.next_id();
                table.renewed.insert(id, node.id);
                node.renew(id);
                self.any_renewed.store(true, Ordering::Relaxed);
            }
            state.lower.take()
        };
        table.leave_group(lower.as_ref());
    }

    /// The kernel drops `count` references. Answers the directories that are known no more.
    pub fn forget(&self, id: NodeId, count: u64) -> Vec<Arc<Node>> {
        let mut gone = Vec::new();
        let mut table = self.table.lock();
        // The references under both ids are counted as one.
        let id = table.first_id(id);
        if let Some(entry) = table.nodes.get_mut(&id) {
            entry.lookups = entry.lookups.saturating_sub(count);
            table.collect(id, &mut gone);
        }
        gone
    }

    /// Gives memory back after most nodes were forgotten. Answers whether there was any to give.
    pub fn shrink(&self) -> bool {
        let mut table = self.table.lock();
        if table.peak < SMALL || table.nodes.len() > table.peak / 4 {
            return false;
        }
        table.peak = table.nodes.len();
        table.nodes.shrink_to_fit();
        let hasher = table.hasher.clone();
        table
            .names
            .shrink_to_fit(|n| hasher.hash_one((n.link.parent.id, &*n.link.name)));
        table.lower_names.shrink_to_fit();
        table.shared.shrink_to_fit();
        true
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.table.lock().nodes.len()
    }
}
