//! Makes programs: one event after the other, each from the seed and from what the reference answered so far.

use super::bytes::Bytes;
use super::choose::{LENGTHS, OFFSETS, OPEN_EXTRAS, SIZES};
use super::model::{Effect, Kind, Model};
use super::op::{Call, Event, Look, PEOPLE, SLOTS, Slot};
use super::rng::Rng;
use super::tree::Tree;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    File,
    Dir,
}

pub struct Generator {
    pub(super) rng: Rng,
    pub(super) model: Model,
    pub(super) cwd: Vec<Bytes>,
    pub(super) slots: Vec<[Option<Held>; SLOTS as usize]>,
    /// What the last step will have changed if it succeeds.
    pub(super) pending: Option<Effect>,
    pub(super) who: usize,
    pub(super) left: usize,
}

type Weighted = (u32, fn(&mut Generator) -> Call);

/// How often each kind of call comes.
const WEIGHTS: &[Weighted] = &[
    (100, Generator::open),
    (30, Generator::close),
    (90, Generator::slot_io),
    (55, Generator::slot_attributes),
    (12, Generator::directory_stream),
    (40, Generator::read_file),
    (70, Generator::write_file),
    (15, Generator::truncate),
    (45, Generator::mkdir),
    (18, Generator::mknod),
    (18, Generator::symlink),
    (35, Generator::link),
    (75, Generator::unlink),
    (45, Generator::rmdir),
    (110, Generator::rename),
    (40, Generator::chmod),
    (40, Generator::chown),
    (30, Generator::utimens),
    (70, Generator::xattr),
    (35, Generator::question),
    (14, Generator::list),
    (10, Generator::chdir),
    (4, Generator::umask),
];

impl Generator {
    pub fn new(rng: Rng, steps: usize) -> Self {
        let slots = PEOPLE.iter().map(|_| [None; SLOTS as usize]).collect();
        let cwd = PEOPLE.iter().map(|_| Bytes::default()).collect();
        Self {
            rng,
            model: Model::default(),
            cwd,
            slots,
            pending: None,
            who: 0,
            left: steps,
        }
    }

    /// The next event; none at the end.
    pub fn next(&mut self) -> Option<Event> {
        self.left = self.left.checked_sub(1)?;
        if self.left == 1 {
            return Some(Event::Compare);
        }
        if self.left == 0 {
            return Some(Event::Swap);
        }
        match self.rng.below(2400) {
            0..=17 => return Some(Event::Compare),
            18..=29 => return Some(Event::DropCaches),
            30..=36 => return Some(Event::Remount),
            37..=41 => return Some(Event::Swap),
            _ => {}
        }
        if self.rng.chance(35) {
            self.who = self.rng.weighted([50, 12, 22, 8, 12].into_iter());
        }
        self.pending = None;
        let which = self.rng.weighted(WEIGHTS.iter().map(|(weight, _)| *weight));
        let (_, make) = WEIGHTS.get(which)?;
        let call = make(self);
        let mut look = match self.rng.weighted([40, 52, 8].into_iter()) {
            0 => Look::No,
            1 => Look::Yes,
            _ => Look::Times,
        };
        // The judge must know whether a descriptor is of a deleted lower object (K72), and who has what open (K103).
        let changes = matches!(
            call,
            Call::Open { .. }
                | Call::Fchmod { .. }
                | Call::Fchown { .. }
                | Call::Futimens { .. }
                | Call::Fsetxattr { .. }
        );
        if changes && look == Look::No {
            look = Look::Yes;
        }
        Some(Event::Step {
            worker: self.who as u8,
            look,
            call,
        })
    }

    /// The reference's answer to the last step.
    pub fn learn(&mut self, succeeded: bool) {
        let Some(effect) = self.pending.take() else { return };
        if !succeeded {
            return;
        }
        match &effect {
            Effect::Opened { slot, dir } => {
                self.hold(*slot, Some(if *dir { Held::Dir } else { Held::File }));
            }
            Effect::Closed { slot } => self.hold(*slot, None),
            Effect::Went(path) => {
                if let Some(cwd) = self.cwd.get_mut(self.who) {
                    cwd.clone_from(path);
                }
            }
            other => self.model.apply(other),
        }
    }

    /// What the current worker holds in a slot, as far as is known.
    pub(super) fn held(&self, slot: Slot) -> Option<Held> {
        self.slots.get(self.who)?.get(usize::from(slot)).copied()?
    }

    fn hold(&mut self, slot: Slot, held: Option<Held>) {
        let slots = self.slots.get_mut(self.who);
        if let Some(place) = slots.and_then(|slots| slots.get_mut(usize::from(slot))) {
            *place = held;
        }
    }

    pub fn relearn(&mut self, tree: &Tree) {
        self.model.relearn(tree);
    }

    /// All workers started anew.
    pub fn restarted(&mut self) {
        for (cwd, slots) in self.cwd.iter_mut().zip(&mut self.slots) {
            *cwd = Bytes::default();
            *slots = [None; SLOTS as usize];
        }
    }

    fn open(&mut self) -> Call {
        let access = match self.rng.weighted([45, 40, 15].into_iter()) {
            0 => libc::O_RDONLY,
            1 => libc::O_RDWR,
            _ => libc::O_WRONLY,
        };
        // Never wait for the other end of a fifo.
        let mut flags = access | libc::O_NONBLOCK;
        let want_dir = self.rng.chance(15);
        if want_dir {
            flags =
                libc::O_RDONLY | libc::O_NONBLOCK | if self.rng.chance(60) { libc::O_DIRECTORY } else { 0 };
        } else {
            for &(flag, percent) in OPEN_EXTRAS {
                if self.rng.chance(percent) {
                    flags |= flag;
                }
            }
        }
        let mut path = if flags & libc::O_CREAT != 0 && self.rng.chance(50) {
            self.free()
        } else {
            self.old(Some(if want_dir { Kind::Dir } else { Kind::File }))
        };
        if !want_dir && flags & libc::O_CREAT == 0 && self.rng.below(400) == 0 {
            flags = access | libc::O_TMPFILE | libc::O_NONBLOCK;
            path = self.dir();
        }
        let slot = self.rng.below(SLOTS as usize) as Slot;
        let mode = self.mode();
        let tmpfile = flags & libc::O_TMPFILE == libc::O_TMPFILE;
        let dir = self.model.kind(&path) == Some(Kind::Dir) && !tmpfile;
        if flags & libc::O_CREAT != 0 && self.model.kind(&path).is_none() {
            self.model.heat(&path);
        }
        self.pending = Some(Effect::Opened { slot, dir });
        Call::Open {
            slot,
            path: self.spell(&path),
            flags,
            mode,
        }
    }

    fn close(&mut self) -> Call {
        let held = if self.rng.chance(80) {
            Held::File
        } else {
            Held::Dir
        };
        let slot = self.slot(held);
        self.pending = Some(Effect::Closed { slot });
        Call::Close { slot }
    }

    fn slot_io(&mut self) -> Call {
        let slot = self.slot(Held::File);
        let at = self.rng.pick(OFFSETS);
        let len = self.rng.pick(SIZES);
        match self.rng.below(26) {
            0..=2 => Call::Read { slot, len },
            3..=5 => Call::Pread { slot, at, len },
            6..=8 => Call::Write {
                slot,
                data: self.fill(),
            },
            9..=12 => Call::Pwrite {
                slot,
                at,
                data: self.fill(),
            },
            13 => Call::Seek {
                slot,
                to: self.rng.pick(&[0, 5, 4096, -3]),
                whence: self.rng.pick(&[libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END]),
            },
            14 | 15 => Call::SeekSparse {
                slot,
                at,
                hole: self.rng.chance(50),
            },
            16 | 17 => Call::Ftruncate {
                slot,
                len: self.rng.pick(LENGTHS),
            },
            18 | 19 => {
                // COLLAPSE, INSERT and UNSHARE are refused by FUSE itself, where the overlay drops setuid first (K115).
                let mode = self.rng.pick(&[0, 0, 1, 1, 3, 3, 2, 0x10, 0x11]);
                let len = self.rng.pick(&[0, 1, 100, 4096, 70_000]);
                Call::Fallocate { slot, mode, at, len }
            }
            20 => Call::MmapRead { slot, at, len },
            21 | 22 => Call::MmapWrite {
                slot,
                at,
                data: self.fill(),
            },
            23 | 24 => {
                let (to, to_at) = (self.slot(Held::File), self.rng.pick(OFFSETS));
                Call::CopyRange {
                    from: slot,
                    from_at: at,
                    to,
                    to_at,
                    len,
                }
            }
            _ => Call::Fsync {
                slot,
                data_only: self.rng.chance(50),
            },
        }
    }

    fn slot_attributes(&mut self) -> Call {
        let held = if self.rng.chance(85) {
            Held::File
        } else {
            Held::Dir
        };
        let slot = self.slot(held);
        match self.rng.below(14) {
            0..=3 => Call::Fstat { slot },
            4 => Call::Fchmod {
                slot,
                mode: self.mode(),
            },
            5 => {
                let (uid, gid) = self.ids();
                Call::Fchown { slot, uid, gid }
            }
            6 => Call::Futimens {
                slot,
                access: self.when(),
                modify: self.when(),
            },
            7 => {
                let name = self.xattr_name();
                let value = self.xattr_value(&name);
                Call::Fsetxattr {
                    slot,
                    name,
                    value,
                    flags: self.rng.pick(&[0, 0, 1, 2]),
                }
            }
            8 => Call::Fgetxattr {
                slot,
                name: self.xattr_name(),
            },
            9 => {
                let to = self.free();
                self.pending = Some(Effect::Made(to.clone(), Kind::File));
                Call::LinkSlot {
                    slot,
                    path: self.spell(&to),
                }
            }
            10 | 11 => Call::Flock {
                slot,
                how: self.rng.pick(&[libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN]),
            },
            12 => Call::Lock {
                slot,
                kind: self.rng.pick(&[libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK]),
                at: self.rng.pick(&[0, 5, 100]),
                len: self.rng.pick(&[0, 10, 1]),
                of_file: self.rng.chance(50),
            },
            _ => Call::GetFlags { slot },
        }
    }

    fn directory_stream(&mut self) -> Call {
        let slot = self.slot(Held::Dir);
        if self.rng.chance(30) {
            return Call::SeekNames {
                slot,
                nth: self.rng.pick(&[0, 0, 1, 2, 5, 100]),
            };
        }
        Call::NextNames {
            slot,
            count: self.rng.pick(&[1, 2, 3, 10, 100, 2000]),
        }
    }
}
