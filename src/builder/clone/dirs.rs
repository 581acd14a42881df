//! The directories a clone works on: pairs of descriptors that are opened when needed, and few at a time.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::builder::TreePath;
use crate::sys::{Result, at};

/// Pairs that are held open in addition to those in use.
const HELD_OPEN: usize = 128;

/// One directory in both trees, open for reading.
#[derive(Debug)]
pub(super) struct Pair {
    /// In the source.
    pub(super) from: OwnedFd,
    /// In the clone.
    pub(super) to: OwnedFd,
}

/// The pairs that may be closed, oldest first; one list for a clone.
type Held = Mutex<VecDeque<Weak<Dir>>>;

/// A directory known by its parent and its name.
#[derive(Debug)]
pub(super) struct Dir {
    above: Option<Arc<Dir>>,
    name: Box<[u8]>,
    open: Mutex<Option<Arc<Pair>>>,
    held: Arc<Held>,
}

impl Dir {
    /// The roots of both trees, which stay open.
    pub(super) fn root(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<Arc<Self>> {
        let pair = Pair {
            from: at::open_dir_list(from, b".")?,
            to: at::open_dir_list(to, b".")?,
        };
        Ok(Arc::new(Self {
            above: None,
            name: Box::default(),
            open: Mutex::new(Some(Arc::new(pair))),
            held: Arc::default(),
        }))
    }

    /// The directory `name` in `above`; it is not opened yet.
    pub(super) fn below(above: &Arc<Self>, name: Box<[u8]>) -> Arc<Self> {
        Arc::new(Self {
            above: Some(Arc::clone(above)),
            name,
            open: Mutex::new(None),
            held: Arc::clone(&above.held),
        })
    }

    /// Its path from the root.
    pub(super) fn path(&self) -> TreePath {
        let mut names = Vec::new();
        let mut dir = self;
        while let Some(above) = &dir.above {
            names.push(&*dir.name);
            dir = above;
        }
        names.reverse();
        TreePath::from_clean(names.join(&b'/'))
    }

    /// Its descriptors: those held, or opened from the nearest directory above that is open.
    pub(super) fn open(self: &Arc<Self>) -> Result<Arc<Pair>> {
        let mut closed = Vec::new();
        let mut dir = self;
        let mut pair = loop {
            if let Some(pair) = dir.open.lock().clone() {
                break pair;
            }
            closed.push(dir);
            match &dir.above {
                Some(above) => dir = above,
                // The root is never closed.
                None => return Err(crate::sys::Errno::BADF),
            }
        };
        for dir in closed.into_iter().rev() {
            pair = Arc::new(Pair {
                from: at::open_dir_list(&pair.from, &dir.name)?,
                to: at::open_dir_list(&pair.to, &dir.name)?,
            });
            *dir.open.lock() = Some(Arc::clone(&pair));
            dir.hold();
        }
        Ok(pair)
    }

    fn hold(self: &Arc<Self>) {
        let oldest = {
            let mut held = self.held.lock();
            held.push_back(Arc::downgrade(self));
            if held.len() > HELD_OPEN {
                held.pop_front()
            } else {
                None
            }
        };
        if let Some(oldest) = oldest.and_then(|dir| dir.upgrade()) {
            *oldest.open.lock() = None;
        }
    }
}

impl Drop for Dir {
    /// Lets go of a long chain one by one: each in the drop of the one below would fill the stack.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut dir) = above.and_then(Arc::into_inner) {
            above = dir.above.take();
        }
    }
}
