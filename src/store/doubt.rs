//! Notes in `tmp/` that something may be needed by nobody.
//!
//! A layer is born before the image that names it, and an image before its name. Whoever makes one notes before
//! that it is in doubt, and keeps the note locked. A note that nobody has locked any more is settled by the next who
//! opens the store (or closes it): what is needed by then stays, and what is not goes. So a load that fails or is
//! killed leaves no layers, and a removal that is killed half-way is finished.

use std::os::fd::OwnedFd;

use super::delete::Freed;
use super::lock::{still_named, try_exclusive};
use super::tmp::fresh_name;
use super::{ChainId, ImageId, Result, Store, StoreError};
use crate::sys::{Errno, at, io};

/// What is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Layer(ChainId),
    /// Goes unless it has a name or a container.
    Image(ImageId),
}

impl Subject {
    fn file_name(self, random: &str) -> String {
        match self {
            Self::Layer(id) => format!("doubt-layer-{}-{random}", id.hex()),
            Self::Image(id) => format!("doubt-image-{}-{random}", id.hex()),
        }
    }

    fn parse(name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?.strip_prefix("doubt-")?;
        let (kind, rest) = text.split_once('-')?;
        let (digits, _) = rest.split_once('-')?;
        match kind {
            "layer" => ChainId::from_hex(digits).map(Self::Layer),
            "image" => ImageId::from_hex(digits).map(Self::Image),
            _ => None,
        }
    }
}

/// Whether an entry of `tmp/` with this name is a note.
pub(super) fn is_note(name: &[u8]) -> bool {
    Subject::parse(name).is_some()
}

/// A note, locked while this lives.
#[derive(Debug)]
pub(super) struct Doubt {
    subject: Subject,
    name: Vec<u8>,
    _file: OwnedFd,
}

impl Doubt {
    /// Notes that `subject` may be needed by nobody.
    pub(super) fn note(store: &Store, subject: Subject) -> Result<Self> {
        let tmp_path = store.path().join("tmp");
        let failed = || StoreError::errno("make a note in", &tmp_path);
        loop {
            let name = subject.file_name(&fresh_name().map_err(failed())?).into_bytes();
            let file = match at::create_at(store.tmp(), &name, libc::O_RDWR, 0o600) {
                Err(Errno::EXIST) => continue,
                file => file.map_err(failed())?,
            };
            // Who sweeps may have found it before it was locked, and waits for the store's lock with it: not to be
            // waited for by who has that. The note is theirs then.
            if try_exclusive(&file).map_err(failed())?
                && still_named(store.tmp(), &name, &file).map_err(failed())?
            {
                return Ok(Self {
                    subject,
                    name,
                    _file: file,
                });
            }
        }
    }

    /// Several notes, on disk when this returns.
    pub(super) fn note_all(store: &Store, subjects: impl IntoIterator<Item = Subject>) -> Result<Vec<Self>> {
        let notes = subjects
            .into_iter()
            .map(|subject| Self::note(store, subject))
            .collect::<Result<_>>()?;
        io::sync(store.tmp(), false).map_err(StoreError::errno("write to disk", store.path().join("tmp")))?;
        Ok(notes)
    }

    /// The note of that name in `tmp/`, if it is one and nobody has it locked.
    pub(super) fn reopen(store: &Store, name: &[u8]) -> Result<Option<Self>> {
        let Some(subject) = Subject::parse(name) else {
            return Ok(None);
        };
        let failed = || StoreError::errno("read a note in", store.path().join("tmp"));
        let file = match at::open_at(store.tmp(), name, libc::O_RDWR) {
            Err(Errno::NOENT) => return Ok(None),
            file => file.map_err(failed())?,
        };
        if !try_exclusive(&file).map_err(failed())?
            || !still_named(store.tmp(), name, &file).map_err(failed())?
        {
            return Ok(None);
        }
        Ok(Some(Self {
            subject,
            name: name.to_owned(),
            _file: file,
        }))
    }

    /// What is in doubt.
    pub(super) fn subject(&self) -> Subject {
        self.subject
    }

    /// The doubt is over.
    pub(super) fn clear(self, store: &Store) -> Result<()> {
        match at::unlink_at(store.tmp(), &self.name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StoreError::errno("delete a note in", store.path().join("tmp"))(
                errno,
            )),
        }
    }
}

/// Removes what is noted and not needed. A note about something in use stays for later.
///
/// Without `wait`, nothing is done if somebody publishes just now.
pub(super) fn settle(store: &Store, mut doubts: Vec<Doubt>, wait: bool) -> Result<Freed> {
    let exclusive = match wait {
        true => store.exclusive()?,
        false => match store.try_exclusive()? {
            Some(exclusive) => exclusive,
            None => return Ok(Freed::default()),
        },
    };
    // Images first: they need layers.
    doubts.sort_unstable_by_key(|doubt| std::cmp::Reverse(doubt.subject));
    let mut needs = store.needs(&exclusive)?;
    let mut graves = Vec::new();
    let mut layers = Vec::new();
    for doubt in doubts {
        match doubt.subject {
            Subject::Image(id) => {
                if needs.image_is_unneeded(&id) {
                    // Its layers are in doubt from now on; this note has to stand until those do.
                    let chain = needs.chain_of(&id);
                    let notes = Doubt::note_all(store, chain.iter().map(|id| Subject::Layer(*id)))?;
                    layers.extend(chain.into_iter().zip(notes));
                    graves.extend(store.bury_image(&id, &mut needs, &exclusive)?);
                }
                doubt.clear(store)?;
            }
            Subject::Layer(id) => layers.push((id, doubt)),
        }
    }
    let ids: Vec<ChainId> = layers.iter().map(|(id, _)| *id).collect();
    let buried = store.bury_layers(&ids, &mut needs, &exclusive)?;
    for (id, doubt) in layers {
        if !buried.in_use.contains(&id) {
            doubt.clear(store)?;
        }
    }
    drop(exclusive);
    graves.extend(buried.graves);
    let mut freed = Freed::default();
    for grave in graves {
        freed = freed.and(grave.remove()?);
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Flock knows descriptions of files, not processes: two threads are as good as two commands.
    #[test]
    fn who_makes_notes_and_who_sweeps_do_not_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = ChainId::from_hex(&"ab".repeat(32)).unwrap();
        let (done, wait_for) = mpsc::channel();
        let path = dir.path().to_owned();
        // Not joined if they are stuck: the test says so then.
        std::thread::spawn(move || {
            static ENDED: AtomicBool = AtomicBool::new(false);
            let sweeper = std::thread::spawn({
                let store = Store::open(&path).unwrap();
                move || {
                    while !ENDED.load(Ordering::Relaxed) {
                        store.sweep().unwrap();
                    }
                }
            });
            for _ in 0..300 {
                let exclusive = store.exclusive().unwrap();
                let subjects = [Subject::Layer(layer); 4];
                let notes = Doubt::note_all(&store, subjects).unwrap();
                assert_eq!(notes.len(), subjects.len());
                drop(exclusive);
                for note in notes {
                    note.clear(&store).unwrap();
                }
            }
            ENDED.store(true, Ordering::Relaxed);
            sweeper.join().unwrap();
            assert_eq!(store.sweep().unwrap().live, 0);
            done.send(()).unwrap();
        });
        assert_eq!(wait_for.recv_timeout(Duration::from_secs(60)), Ok(()));
    }
}
