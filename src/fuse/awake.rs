//! While requests flow, the processors they wait for are kept from falling asleep.
//!
//! A request is answered in a few microseconds, but the caller sleeps meanwhile, and then the server: where both
//! have a processor of their own, each of these goes idle in between, and coming back from deep idleness, or from a
//! halt in a virtual machine, takes several times as long as the answer. So a stream of requests asks the kernel to
//! let idle processors stay near, and takes that back a moment after the last one. Processors that have work are not
//! touched; what it costs is power.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::overlay::Overlay;
use crate::sys::latency::Request;

/// So many requests are looked at together.
const STRIDE: u64 = 16;
/// Slower than [`STRIDE`] in this time is no stream.
const STREAM: Duration = Duration::from_millis(10);
/// So long after the last request the processors may sleep again.
const LINGER: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct State {
    last: Instant,
    made: bool,
    ended: bool,
}

#[derive(Debug)]
struct Inner {
    request: Request,
    /// Counts the requests.
    overlay: Arc<Overlay>,
    made: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// Watches the stream of requests.
#[derive(Debug)]
pub struct Awake {
    inner: Arc<Inner>,
}

impl Awake {
    /// `None` where this process may not ask, or there is nobody to ask.
    pub fn start(overlay: &Arc<Overlay>) -> Option<Self> {
        let request = match Request::new() {
            Ok(request) => request,
            Err(errno) => {
                log::debug!("idle processors sleep as they like: {errno}");
                return None;
            }
        };
        let inner = Arc::new(Inner {
            request,
            overlay: Arc::clone(overlay),
            made: AtomicBool::new(false),
            state: Mutex::new(State {
                last: Instant::now(),
                made: false,
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let watched = Arc::clone(&inner);
        let watcher = std::thread::Builder::new()
            .name("awake".into())
            .spawn(move || watched.withdraw_when_quiet());
        match watcher {
            Ok(_) => Some(Self { inner }),
            Err(error) => {
                log::debug!("idle processors sleep as they like: {error}");
                None
            }
        }
    }

    /// One more request, after `count` others.
    pub fn request(&self, count: u64) {
        if count.is_multiple_of(STRIDE) && !self.inner.made.load(Ordering::Relaxed) {
            self.inner.look();
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.inner.state.lock().ended = true;
        self.inner.changed.notify_all();
    }
}

impl Inner {
    fn requests(&self) -> u64 {
        self.overlay.stats().requests.load(Ordering::Relaxed)
    }

    /// Asks, if the last requests were a stream.
    fn look(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let stream = now.saturating_duration_since(state.last) < STREAM;
        state.last = now;
        if !stream || state.made {
            return;
        }
        match self.request.make() {
            Ok(()) => {
                state.made = true;
                self.made.store(true, Ordering::Relaxed);
                self.changed.notify_all();
            }
            Err(errno) => log::debug!("idle processors sleep as they like: {errno}"),
        }
    }

    fn withdraw_when_quiet(&self) {
        let mut state = self.state.lock();
        loop {
            while !state.made && !state.ended {
                self.changed.wait(&mut state);
            }
            let before = self.requests();
            if !state.ended {
                self.changed.wait_for(&mut state, LINGER);
            }
            if !state.ended && self.requests() != before {
                continue;
            }
            if state.made
                && let Err(errno) = self.request.withdraw()
            {
                log::debug!("idle processors are kept awake: {errno}");
            }
            state.made = false;
            self.made.store(false, Ordering::Relaxed);
            if state.ended {
                return;
            }
        }
    }
}
