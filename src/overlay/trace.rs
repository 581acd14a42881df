//! The story of a view, for those who listen: one event for each request, with what was decided and what was copied up.
//!
//! A request that begins while somebody listens is kept in its thread until it ends; the overlay adds to it what it
//! decides. While nobody listens, each place where something could be added costs one relaxed load. An event goes to
//! every listener's own bounded queue: one that is full loses it and counts it, and nobody ever waits for a listener.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::sys::Errno;

/// How many events may wait for a listener.
const QUEUE: usize = 4096;

/// Listeners of all views of this process.
static LISTENERS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static CURRENT: RefCell<Option<Box<Current>>> = const { RefCell::new(None) };
}

/// One request and what came of it. Paths are below the root of the view; what is not UTF-8 in them is replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it began, microseconds since 1970.
    pub at: u64,
    /// `lookup`, `open`, `unlink` and so on, as the protocol calls it.
    pub op: String,
    /// What it was about, by the name at the time it began.
    pub path: String,
    /// The other path of a rename or link.
    pub to: Option<String>,
    /// What was asked for beyond the name: flags, the new mode, ...
    pub detail: String,
    /// The thread that asked, in the server's process namespace; 0 for the kernel itself.
    pub pid: u32,
    /// Its name, empty if it cannot be told.
    pub process: String,
    /// Its file system user id.
    pub uid: u32,
    /// The error number it was answered; none if it was done.
    pub errno: Option<i32>,
    /// How long it took, microseconds.
    pub micros: u64,
    /// What was decided, in words.
    pub decisions: Vec<String>,
    /// What was copied up for it, in this order.
    pub copies: Vec<CopyUp>,
}

/// One object copied up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyUp {
    /// Its path.
    pub path: String,
    /// What it is: `a directory`, `a regular file`, ...
    pub kind: String,
    /// Where it was filled: `work/#3`, or `an unnamed file in the work directory`.
    pub temp: String,
    /// How the data came over; none for what has no data.
    pub method: Option<String>,
    /// Bytes of data moved.
    pub bytes: u64,
    /// How long it took, microseconds.
    pub micros: u64,
    /// Why it failed; none if it was published.
    pub errno: Option<i32>,
}

/// A request under way in this thread.
#[derive(Debug)]
struct Current {
    hub: Arc<Hub>,
    event: Event,
    began: Instant,
    copying: Option<(CopyUp, Instant)>,
}

/// What a listener gets.
#[derive(Debug)]
struct Sink {
    sender: Sender<Arc<Event>>,
    lost: AtomicU64,
}

/// The listeners of one view.
#[derive(Debug, Default)]
pub struct Hub {
    sinks: RwLock<Vec<Arc<Sink>>>,
    ended: AtomicBool,
}

/// A listener; it is one no more when this is dropped.
#[derive(Debug)]
pub struct Listener {
    hub: Arc<Hub>,
    sink: Arc<Sink>,
    /// The events, oldest first.
    pub events: Receiver<Arc<Event>>,
}

impl Listener {
    /// Whether the view has ended, so that nothing comes after what waits already.
    pub fn ended(&self) -> bool {
        self.hub.ended.load(Ordering::Acquire)
    }

    /// How many events were lost for want of room since the last call.
    pub fn take_lost(&self) -> u64 {
        self.sink.lost.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hub
            .sinks
            .write()
            .retain(|sink| !Arc::ptr_eq(sink, &self.sink));
        LISTENERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether anybody listens.
#[inline]
pub fn on() -> bool {
    LISTENERS.load(Ordering::Relaxed) != 0
}

impl Hub {
    /// A new listener, who hears of the requests that begin from now on.
    pub fn listen(self: &Arc<Self>) -> Listener {
        self.listen_with_room(QUEUE)
    }

    /// The view has ended; listeners hear what waits and then leave.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn listen_with_room(self: &Arc<Self>, room: usize) -> Listener {
        let (sender, events) = bounded(room);
        let sink = Arc::new(Sink {
            sender,
            lost: AtomicU64::new(0),
        });
        self.sinks.write().push(Arc::clone(&sink));
        LISTENERS.fetch_add(1, Ordering::Relaxed);
        Listener {
            hub: Arc::clone(self),
            sink,
            events,
        }
    }

    /// A request begins in this thread; `event` is called if somebody listens, and says what it is.
    #[inline]
    pub fn begin(self: &Arc<Self>, event: impl FnOnce() -> Event) -> Begun {
        let told = on() && !self.sinks.read().is_empty();
        if told {
            self.remember(event());
        }
        Begun { told }
    }

    #[cold]
    fn remember(self: &Arc<Self>, mut event: Event) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        event.at = since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        let current = Box::new(Current {
            hub: Arc::clone(self),
            event,
            began: Instant::now(),
            copying: None,
        });
        CURRENT.with_borrow_mut(|slot| *slot = Some(current));
    }

    fn publish(&self, event: Event) {
        let event = Arc::new(event);
        for sink in &*self.sinks.read() {
            match sink.sender.try_send(Arc::clone(&event)) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    sink.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The end of a request, when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Begun {
    told: bool,
}

impl Drop for Begun {
    #[inline]
    fn drop(&mut self) {
        // A request that began while somebody listened is told to the end, unless another thread does.
        if self.told
            && let Some(current) = take()
        {
            finish(*current);
        }
    }
}

#[inline]
fn take() -> Option<Box<Current>> {
    CURRENT.with_borrow_mut(Option::take)
}

#[cold]
fn finish(mut current: Current) {
    current.event.micros = micros(current.began);
    current.hub.publish(current.event);
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A request on its way to another thread.
#[derive(Debug)]
pub struct Carried(Option<Box<Current>>);

/// Takes the request out of this thread, for the one that goes on with it.
pub fn carry() -> Carried {
    Carried(take())
}

impl Carried {
    /// Goes on with it in this thread, to its end.
    pub fn go_on(self) -> Begun {
        let told = self.0.is_some();
        CURRENT.with_borrow_mut(|slot| *slot = self.0);
        Begun { told }
    }
}

#[inline]
fn with(change: impl FnOnce(&mut Current)) {
    if on() {
        CURRENT.with_borrow_mut(|slot| {
            if let Some(current) = slot {
                change(current);
            }
        });
    }
}

/// Adds a decision to the request of this thread.
#[inline]
pub(super) fn decided(words: &'static str) {
    with(|current| current.event.decisions.push(words.to_owned()));
}

/// Adds what a name shows, if the request of this thread asks just that: others look at many names.
#[inline]
pub(super) fn shows(words: impl FnOnce() -> Cow<'static, str>) {
    with(|current| {
        if current.event.op == "lookup" {
            current.event.decisions.push(words().into_owned());
        }
    });
}

/// The request of this thread is answered with an error.
#[inline]
pub fn failed(errno: Errno) {
    with(|current| current.event.errno = Some(errno.raw_os_error()));
}

/// A copy-up begins; `object` tells path and kind.
#[inline]
pub(super) fn copying(object: impl FnOnce() -> (String, &'static str)) {
    with(|current| {
        let (path, kind) = object();
        let copy = CopyUp {
            path,
            kind: kind.to_owned(),
            ..CopyUp::default()
        };
        current.copying = Some((copy, Instant::now()));
    });
}

/// The copy was filled: where, and, of a file, how its data came over.
#[inline]
pub(super) fn filled(temp: impl FnOnce() -> String, data: Option<(&'static str, u64)>) {
    with(|current| {
        if let Some((copy, _)) = &mut current.copying {
            copy.temp = temp();
            copy.method = data.map(|(method, _)| method.to_owned());
            copy.bytes = data.map_or(0, |(_, bytes)| bytes);
        }
    });
}

/// The copy is published, or failed.
#[inline]
pub(super) fn copied<T>(done: &crate::sys::Result<T>) {
    with(|current| {
        if let Some((mut copy, began)) = current.copying.take() {
            copy.micros = micros(began);
            copy.errno = done.as_ref().err().map(|errno| errno.raw_os_error());
            current.event.copies.push(copy);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(op: &str) -> Event {
        Event {
            op: op.to_owned(),
            ..Event::default()
        }
    }

    #[test]
    fn a_request_is_told_with_its_decisions_even_over_threads() {
        let hub = Arc::new(Hub::default());
        let listener = hub.listen();
        {
            let _request = hub.begin(|| event("open"));
            decided("one");
            copying(|| ("/f".to_owned(), "a regular file"));
            let carried = carry();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let _request = carried.go_on();
                    filled(|| "work/#1".to_owned(), Some(("by hand", 7)));
                    copied(&Ok(()));
                    failed(Errno::IO);
                });
            });
            // Not of this thread's request any more.
            decided("two");
        }
        let told = listener.events.try_recv().unwrap();
        assert_eq!(told.decisions, ["one"]);
        assert_eq!(told.errno, Some(libc::EIO));
        assert_eq!(
            (told.copies[0].temp.as_str(), told.copies[0].bytes),
            ("work/#1", 7)
        );
        assert!(listener.events.try_recv().is_err(), "told once");
    }

    #[test]
    fn a_full_queue_loses_and_counts() {
        let hub = Arc::new(Hub::default());
        let (slow, quick) = (hub.listen_with_room(2), hub.listen());
        for _ in 0..5 {
            drop(hub.begin(|| event("lookup")));
        }
        assert_eq!((slow.events.len(), slow.take_lost(), slow.take_lost()), (2, 3, 0));
        assert_eq!((quick.events.len(), quick.take_lost()), (5, 0));
        drop((slow, quick));
        // Another test of this process may listen to its own view.
        drop(hub.begin(|| panic!("nobody listens to this one")));
    }
}
