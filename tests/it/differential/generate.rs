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
        let call = WEIGHTS[which].1(self);
        let mut look = [Look::No, Look::Yes, Look::Times][self.rng.weighted([40, 52, 8].into_iter())];
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
                self.slots[self.who][*slot as usize] = Some(if *dir { Held::Dir } else { Held::File });
            }
            Effect::Closed { slot } => self.slots[self.who][*slot as usize] = None,
            Effect::Went(path) => self.cwd[self.who] = path.clone(),
            other => self.model.apply(other),
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
        let access =
            [libc::O_RDONLY, libc::O_RDWR, libc::O_WRONLY][self.rng.weighted([45, 40, 15].into_iter())];
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
        let at = *self.rng.pick(OFFSETS);
        let len = *self.rng.pick(SIZES);
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
                to: *self.rng.pick(&[0, 5, 4096, -3]),
                whence: *self.rng.pick(&[libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END]),
            },
            14 | 15 => Call::SeekSparse {
                slot,
                at,
                hole: self.rng.chance(50),
            },
            16 | 17 => Call::Ftruncate {
                slot,
                len: *self.rng.pick(LENGTHS),
            },
            18 | 19 => {
                // COLLAPSE, INSERT and UNSHARE are refused by FUSE itself, where the overlay drops setuid first (K115).
                let mode = *self.rng.pick(&[0, 0, 1, 1, 3, 3, 2, 0x10, 0x11]);
                let len = *self.rng.pick(&[0, 1, 100, 4096, 70_000]);
                Call::Fallocate { slot, mode, at, len }
            }
            20 => Call::MmapRead { slot, at, len },
            21 | 22 => Call::MmapWrite {
                slot,
                at,
                data: self.fill(),
            },
            23 | 24 => {
                let (to, to_at) = (self.slot(Held::File), *self.rng.pick(OFFSETS));
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
                    flags: *self.rng.pick(&[0, 0, 1, 2]),
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
                how: *self.rng.pick(&[libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN]),
            },
            12 => Call::Lock {
                slot,
                kind: *self.rng.pick(&[libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK]),
                at: *self.rng.pick(&[0, 5, 100]),
                len: *self.rng.pick(&[0, 10, 1]),
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
                nth: *self.rng.pick(&[0, 0, 1, 2, 5, 100]),
            };
        }
        Call::NextNames {
            slot,
            count: *self.rng.pick(&[1, 2, 3, 10, 100, 2000]),
        }
    }

    fn read_file(&mut self) -> Call {
        let path = self.old(Some(Kind::File));
        Call::ReadFile {
            path: self.spell(&path),
        }
    }

    fn write_file(&mut self) -> Call {
        let make = self.rng.chance(55);
        let path = if make {
            self.free()
        } else {
            self.old(Some(Kind::File))
        };
        let mut flags = libc::O_WRONLY | libc::O_NONBLOCK | if make { libc::O_CREAT } else { 0 };
        flags |= *self
            .rng
            .pick(&[0, libc::O_TRUNC, libc::O_TRUNC, libc::O_APPEND, libc::O_EXCL]);
        if make {
            self.pending = Some(Effect::Made(path.clone(), Kind::File));
        }
        let mode = *self.rng.pick(&[0o666, 0o666, 0o644, 0o600, 0o777, 0o4711]);
        Call::WriteFile {
            path: self.spell(&path),
            flags,
            mode,
            data: self.fill(),
        }
    }

    fn truncate(&mut self) -> Call {
        let path = self.old(Some(Kind::File));
        Call::Truncate {
            path: self.spell(&path),
            len: *self.rng.pick(LENGTHS),
        }
    }

    fn mkdir(&mut self) -> Call {
        let path = self.free();
        self.pending = Some(Effect::Made(path.clone(), Kind::Dir));
        let mode = *self
            .rng
            .pick(&[0o777, 0o777, 0o755, 0o700, 0o2775, 0o1777, 0o000]);
        Call::Mkdir {
            path: self.spell(&path),
            mode,
        }
    }

    fn mknod(&mut self) -> Call {
        let path = self.free();
        let (kind, major, minor) = *self.rng.pick(&[
            (libc::S_IFIFO, 0, 0),
            (libc::S_IFSOCK, 0, 0),
            (libc::S_IFCHR, 0, 0),
            (libc::S_IFCHR, 1, 3),
            (libc::S_IFBLK, 240, 7),
            (libc::S_IFBLK, 0, 0),
            (libc::S_IFREG, 0, 0),
            (0, 0, 0),
        ]);
        self.pending = Some(Effect::Made(path.clone(), Kind::of(kind)));
        Call::Mknod {
            path: self.spell(&path),
            mode: kind | self.mode(),
            major,
            minor,
        }
    }

    fn symlink(&mut self) -> Call {
        let path = self.free();
        let target = match self.rng.below(6) {
            0 => Bytes::from("nowhere"),
            1 => Bytes::from(&[b'a'; 4000][..]),
            2 => Bytes([b"/", &self.old(None).0[..]].concat()),
            _ => Bytes::from(self.old(None).name()),
        };
        self.pending = Some(Effect::Made(path.clone(), Kind::Symlink));
        Call::Symlink {
            target,
            path: self.spell(&path),
        }
    }

    fn link(&mut self) -> Call {
        let any = self.rng.chance(30);
        let from = self.old(if any { None } else { Some(Kind::File) });
        let to = self.free();
        self.pending = Some(Effect::Linked(from.clone(), to.clone()));
        Call::Link {
            from: self.spell(&from),
            to: self.spell(&to),
            follow: self.rng.chance(20),
        }
    }

    fn unlink(&mut self) -> Call {
        let any = self.rng.chance(40);
        let path = self.old(if any { None } else { Some(Kind::File) });
        self.pending = Some(Effect::Gone(path.clone()));
        Call::Unlink {
            path: self.spell(&path),
        }
    }

    fn rmdir(&mut self) -> Call {
        let kind = self.rng.chance(95).then_some(Kind::Dir);
        let path = self.old(kind);
        self.pending = Some(Effect::Gone(path.clone()));
        Call::Rmdir {
            path: self.spell(&path),
        }
    }

    fn rename(&mut self) -> Call {
        let kind = [Some(Kind::File), Some(Kind::Dir), None][self.rng.weighted([45, 30, 25].into_iter())];
        let from = self.old(kind);
        let to = if self.rng.chance(45) {
            self.old(self.model.kind(&from))
        } else {
            self.free()
        };
        let flags = [
            0,
            libc::RENAME_NOREPLACE,
            libc::RENAME_EXCHANGE,
            libc::RENAME_WHITEOUT,
            0x80,
            3,
        ][self.rng.weighted([70, 8, 18, 2, 1, 1].into_iter())];
        self.pending = Some(if flags == libc::RENAME_EXCHANGE {
            Effect::Exchanged(from.clone(), to.clone())
        } else {
            Effect::Moved(from.clone(), to.clone())
        });
        Call::Rename {
            from: self.spell(&from),
            to: self.spell(&to),
            flags,
        }
    }

    fn chmod(&mut self) -> Call {
        let path = self.old(None);
        // Directories that nobody can enter end the fun.
        let mut mode = self.mode();
        if self.model.kind(&path) == Some(Kind::Dir) && self.rng.chance(80) {
            mode |= 0o755;
        }
        Call::Chmod {
            path: self.spell(&path),
            mode,
        }
    }

    fn chown(&mut self) -> Call {
        let path = self.old(None);
        let (uid, gid) = self.ids();
        Call::Chown {
            path: self.spell(&path),
            uid,
            gid,
            follow: self.rng.chance(40),
        }
    }

    fn utimens(&mut self) -> Call {
        let path = self.old(None);
        let (access, modify) = (self.when(), self.when());
        Call::Utimens {
            path: self.spell(&path),
            access,
            modify,
            follow: self.rng.chance(50),
        }
    }

    fn xattr(&mut self) -> Call {
        let path = self.old(None);
        let path = self.spell(&path);
        let follow = self.rng.chance(60);
        let name = self.xattr_name();
        match self.rng.below(10) {
            0..=4 => {
                let value = self.xattr_value(&name);
                Call::SetXattr {
                    path,
                    name,
                    value,
                    flags: *self.rng.pick(&[0, 0, 0, 1, 2]),
                    follow,
                }
            }
            5 | 6 => Call::GetXattr { path, name, follow },
            7 => Call::ListXattr { path, follow },
            _ => Call::RemoveXattr { path, name, follow },
        }
    }

    fn question(&mut self) -> Call {
        let path = self.old(None);
        let path = self.spell(&path);
        match self.rng.below(10) {
            0..=4 => Call::Stat {
                path,
                follow: self.rng.chance(40),
            },
            5 | 6 => Call::Access {
                path,
                mode: self.rng.below(8) as i32,
                effective: self.rng.chance(30),
            },
            7 => Call::Statfs { path },
            _ => {
                let path = self.old(Some(Kind::Symlink));
                Call::Readlink {
                    path: self.spell(&path),
                }
            }
        }
    }

    fn list(&mut self) -> Call {
        let path = if self.rng.chance(90) {
            self.dir()
        } else {
            self.old(None)
        };
        Call::List {
            path: self.spell(&path),
        }
    }

    fn chdir(&mut self) -> Call {
        let path = self.dir();
        let call = Call::Chdir {
            path: self.spell(&path),
        };
        self.pending = Some(Effect::Went(path));
        call
    }

    fn umask(&mut self) -> Call {
        Call::Umask {
            mask: *self.rng.pick(&[0o022, 0o077, 0, 0o002, 0o027]),
        }
    }
}
