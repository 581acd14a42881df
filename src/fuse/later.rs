//! Telling the kernel about outdated attributes a moment later, and once for many changes.
//!
//! A copy-up changes the directory it lands in, though nothing of it that a program looks for: its time of change and,
//! on some file systems, its size. Each time the kernel is told, it asks again before the next path is walked through
//! that directory. So for a stream of copy-ups it is told a hundred times a second at most.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::overlay::NodeId;

/// How long the old attributes may be seen.
const DELAY: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
struct State {
    nodes: HashSet<NodeId>,
    ended: bool,
}

/// The nodes that the kernel is going to be told of.
#[derive(Debug)]
pub struct Later {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Later {
    /// Starts the thread that calls `tell` for each node, a moment after [`Later::add`].
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(tell: impl Fn(NodeId) + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("later".into()).spawn(move || {
            let (state, changed) = &*theirs;
            let mut state = state.lock();
            while !state.ended {
                if state.nodes.is_empty() {
                    changed.wait(&mut state);
                    continue;
                }
                parking_lot::MutexGuard::unlocked(&mut state, || std::thread::sleep(DELAY));
                let nodes = std::mem::take(&mut state.nodes);
                parking_lot::MutexGuard::unlocked(&mut state, || nodes.into_iter().for_each(&tell));
            }
        })?;
        Ok(Self { shared })
    }

    /// Notes a node.
    pub fn add(&self, node: NodeId) {
        let (state, changed) = &*self.shared;
        let mut state = state.lock();
        if state.nodes.is_empty() {
            changed.notify_one();
        }
        state.nodes.insert(node);
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        let (state, changed) = &*self.shared;
        state.lock().ended = true;
        changed.notify_one();
    }
}
