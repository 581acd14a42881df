//! The control socket's `trace`: a line of JSON for each request of the view, until the listener leaves or the view ends.

use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};

use crate::overlay::Overlay;
use crate::overlay::trace::{Event, Listener};

/// More would be a mistake: each is told everything.
const MOST: usize = 16;
/// How often a silent listener is looked after.
const LOOK: Duration = Duration::from_millis(50);
/// How long a view that ends waits for its listeners to have heard the end.
const LAST_WORDS: Duration = Duration::from_millis(300);

static LISTENERS: AtomicUsize = AtomicUsize::new(0);

/// A line of the story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Line {
    /// From here on every request is told.
    Listening {
        /// The server.
        pid: u32,
    },
    /// A request.
    Request(Event),
    /// So many were not told, because the listener was too slow.
    Lost {
        /// How many.
        count: u64,
    },
    /// There is no story, and why.
    Refused {
        /// Why.
        reason: String,
    },
}

/// One of the few places for listeners, until it is dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let place = Self;
        (LISTENERS.fetch_add(1, Ordering::Relaxed) < MOST).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts telling in a thread of its own.
///
/// # Errors
/// When the listener cannot be answered, or no thread be started.
pub(super) fn tell(stream: UnixStream, overlay: &Arc<Overlay>) -> std::io::Result<()> {
    // The directory of the socket is its user's alone already; this is for one that was handed on.
    let own = rustix::process::geteuid();
    if !socket_peercred(&stream).is_ok_and(|peer| peer.uid == own || peer.uid.is_root()) {
        return refuse(&stream, "only the user of the view may listen to it");
    }
    let Some(place) = Place::take() else {
        return refuse(&stream, "too many listen to this view already");
    };
    stream.set_write_timeout(None)?;
    let overlay = Arc::clone(overlay);
    std::thread::Builder::new()
        .name("trace".to_owned())
        .spawn(move || {
            let _place = place;
            let listener = overlay.trace().listen();
            drop(overlay);
            if let Err(error) = run(&stream, &listener) {
                log::debug!("a listener left: {error}");
            }
        })?;
    Ok(())
}

/// The view has ended: waits a moment for those who still listen, however slow one of them is.
pub(super) fn end(overlay: &Overlay) {
    overlay.trace().end();
    let since = Instant::now();
    while LISTENERS.load(Ordering::Relaxed) > 0 && since.elapsed() < LAST_WORDS {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn refuse(stream: &UnixStream, reason: &str) -> std::io::Result<()> {
    let reason = reason.to_owned();
    say(stream, &Line::Refused { reason })
}

fn say(mut to: impl Write, line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    to.write_all(&text)
}

/// Only this thread waits for a listener that does not read.
fn run(stream: &UnixStream, listener: &Listener) -> std::io::Result<()> {
    let mut to = BufWriter::new(stream);
    let pid = std::process::id();
    say(&mut to, &Line::Listening { pid })?;
    loop {
        to.flush()?;
        match listener.events.recv_timeout(LOOK) {
            Ok(event) => say(&mut to, &Line::Request((*event).clone()))?,
            Err(RecvTimeoutError::Timeout) if listener.ended() || has_left(stream) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        // What waits already goes out with it.
        while let Ok(event) = listener.events.try_recv() {
            say(&mut to, &Line::Request((*event).clone()))?;
        }
        match listener.take_lost() {
            0 => {}
            count => say(&mut to, &Line::Lost { count })?,
        }
    }
}

fn has_left(stream: &UnixStream) -> bool {
    let mut asked = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::RDHUP)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    let answered = poll(&mut asked, Some(&now));
    answered.is_ok_and(|count| count > 0) && asked.iter().any(|fd| fd.revents().intersects(gone))
}

/// Attaches to the server behind `socket`; each line of what comes is a [`Line`] in JSON.
///
/// # Errors
/// When the server cannot be reached: EACCES for another user's.
pub fn attach(socket: &Path) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    (&stream).write_all(b"trace\n")?;
    Ok(stream)
}
