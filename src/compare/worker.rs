//! The processes that do the steps: each lives in a merged tree (chroot) as one user.
//!
//! A worker is the program `plyfs` with one word ([`ENTRY`]); it reads requests from its standard input, a socket.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::bytes::Bytes;
use super::calls::Hands;
use super::op::{Call, Look, Person, Slot};
use super::outcome::{Outcome, Seen};
use super::tree::{self, Tree};
use crate::sys::plain::{self as sys, Answer};

/// The command that makes the program a worker.
pub const ENTRY: &str = "compare-worker";

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Begin {
        root: Bytes,
        person: Person,
    },
    Do {
        call: Call,
        look: Look,
    },
    /// Puts the descriptor away without looking at the answer.
    Drop {
        slot: Slot,
    },
    Walk,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Ready(Answer<()>),
    Did(Outcome),
    Dropped,
    Tree(Tree),
}

/// Why a worker did not answer.
#[derive(Debug)]
pub enum Lost {
    /// It died; the text says how.
    Died(String),
    /// It did not answer in time; the text says where it hangs.
    Hangs(String),
}

/// A running worker, from the side of the engine. Killed when dropped.
pub struct Worker {
    child: Child,
    wire: UnixStream,
}

impl Worker {
    pub fn start(program: &Path) -> std::io::Result<Worker> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .arg(ENTRY)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Worker { child, wire: ours })
    }

    pub fn send(&mut self, request: &Request) -> Result<(), Lost> {
        write_message(&mut self.wire, request).map_err(|_| self.loss())
    }

    pub fn receive(&mut self, patience: Duration) -> Result<Reply, Lost> {
        self.wire
            .set_read_timeout(Some(patience))
            .map_err(|e| Lost::Died(e.to_string()))?;
        read_message(&mut self.wire).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                Lost::Hangs(self.where_it_hangs())
            }
            _ => self.loss(),
        })
    }

    fn loss(&mut self) -> Lost {
        match self.child.wait() {
            Ok(status) => Lost::Died(format!("the worker ended: {status}")),
            Err(error) => Lost::Died(format!("the worker is lost: {error}")),
        }
    }

    fn where_it_hangs(&self) -> String {
        let of = |what: &str| {
            let path = format!("/proc/{}/{what}", self.child.id());
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let stack: Vec<String> = of("stack").lines().take(6).map(str::to_owned).collect();
        format!(
            "no answer; the caller waits in {} {}",
            of("wchan"),
            stack.join(" < ")
        )
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn write_message<T: Serialize>(wire: &mut UnixStream, message: &T) -> std::io::Result<()> {
    let mut packet = vec![0u8; 4];
    serde_json::to_writer(&mut packet, message)?;
    let len = (packet.len() - 4) as u32;
    for (place, byte) in packet.iter_mut().zip(len.to_le_bytes()) {
        *place = byte;
    }
    wire.write_all(&packet)
}

fn read_message<T: DeserializeOwned>(wire: &mut UnixStream) -> std::io::Result<T> {
    let mut len = [0u8; 4];
    wire.read_exact(&mut len)?;
    let mut body = vec![0u8; u32::from_le_bytes(len) as usize];
    wire.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

/// The life of a worker process, until the engine closes the socket.
///
/// # Errors
/// When standard input is no socket.
pub fn live() -> std::io::Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    if !std::fs::File::from(input.try_clone()?)
        .metadata()?
        .file_type()
        .is_socket()
    {
        return Err(std::io::Error::other(
            "standard input is no socket: only 'plyfs compare' starts this",
        ));
    }
    let mut wire = UnixStream::from(input);
    let mut hands: Option<Hands> = None;
    let mut root: Option<OwnedFd> = None;
    while let Ok(request) = read_message::<Request>(&mut wire) {
        let reply = match request {
            Request::Begin { root: place, person } => Reply::Ready(begin(&place, person).map(|fd| {
                let dev = sys::fstat(fd.as_raw_fd()).map_or(0, |st| st.dev);
                hands = Some(Hands::new(dev));
                root = Some(fd);
            })),
            Request::Do { call, look } => Reply::Did(match &mut hands {
                Some(hands) => act(hands, &call, look),
                None => Outcome {
                    result: Err(libc::ESRCH),
                    seen: Vec::new(),
                },
            }),
            Request::Drop { slot } => {
                if let Some(hands) = &mut hands {
                    hands.put_away(slot);
                }
                Reply::Dropped
            }
            Request::Walk => Reply::Tree(root.as_ref().map(|fd| tree::walk(fd, true)).unwrap_or_default()),
        };
        if write_message(&mut wire, &reply).is_err() {
            break;
        }
    }
    Ok(())
}

/// Moves into the merged tree and becomes the person.
fn begin(place: &Bytes, person: Person) -> Answer<OwnedFd> {
    sys::enter_root(&place.c())?;
    let fd = sys::open_at(libc::AT_FDCWD, c"/", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    sys::become_person(person.uid, person.gid, person.extra_group, person.umask)?;
    Ok(fd)
}

fn act(hands: &mut Hands, call: &Call, look: Look) -> Outcome {
    if look == Look::No {
        return Outcome {
            result: hands.perform(call),
            seen: Vec::new(),
        };
    }
    let mut paths: Vec<Bytes> = Vec::new();
    for path in call.paths() {
        let parent = Bytes::from(if path.parent().is_empty() {
            b"."
        } else {
            path.parent()
        });
        for each in [path.clone(), parent] {
            if !paths.contains(&each) {
                paths.push(each);
            }
        }
    }
    let slots = call.slots();
    let glance = |hands: &Hands| {
        let mut all: Vec<(String, Answer<sys::Stat>)> = Vec::new();
        all.extend(paths.iter().map(|path| (path.to_string(), hands.lstat(path))));
        all.extend(
            slots
                .iter()
                .map(|&slot| (format!("fd {slot}"), hands.fstat(slot))),
        );
        all
    };
    let before = glance(hands);
    if look == Look::Times {
        let times = before
            .iter()
            .filter_map(|(_, stat)| stat.as_ref().ok())
            .flat_map(|st| [st.mtime, st.ctime]);
        sys::wait_for_tick(times.filter(|time| time.0 < 3_000_000_000).max());
    }
    let result = hands.perform(call);
    let after = glance(hands);
    let seen = before
        .into_iter()
        .zip(after)
        .map(|((what, before), (_, after))| Seen { what, before, after })
        .collect();
    Outcome { result, seen }
}
