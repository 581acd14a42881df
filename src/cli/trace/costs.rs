//! How many requests an operation cost: it, and those of the same thread that led to it.

use std::collections::HashMap;

use crate::overlay::trace::Event;

/// Requests by which a thread finds its way, or closes what it had; they lead to another one.
const ON_THE_WAY: [&str; 8] = [
    "lookup",
    "getattr",
    "readlink",
    "getxattr",
    "listxattr",
    "access",
    "statfs",
    "flush",
];
/// Threads come and go; nobody misses the count of one that has been silent for so many others.
const MOST_THREADS: usize = 4096;

/// The requests of each thread since its last operation.
#[derive(Debug, Default)]
pub(super) struct Costs {
    waiting: HashMap<u32, u64>,
}

impl Costs {
    /// The cost of a request: 1 if it is on the way to another one, else all since the one before.
    pub(super) fn of(&mut self, event: &Event) -> u64 {
        let way = ON_THE_WAY.contains(&event.op.as_str());
        if way {
            if self.waiting.len() >= MOST_THREADS {
                self.waiting.clear();
            }
            let count = self.waiting.entry(event.pid).or_default();
            *count = count.saturating_add(1);
            return 1;
        }
        self.waiting.remove(&event.pid).unwrap_or(0).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_count_for_what_they_lead_to() {
        let mut costs = Costs::default();
        let mut cost = |op: &str, pid| {
            costs.of(&Event {
                op: op.to_owned(),
                pid,
                ..Event::default()
            })
        };
        assert_eq!(
            [cost("lookup", 1), cost("lookup", 1), cost("lookup", 2)],
            [1, 1, 1]
        );
        assert_eq!([cost("open", 1), cost("read", 1), cost("unlink", 2)], [3, 1, 2]);
    }
}
