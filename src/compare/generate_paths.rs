//! The calls of a program that are about paths.

use super::bytes::Bytes;
use super::choose::LENGTHS;
use super::generate::Generator;
use super::model::{Effect, Kind};
use super::op::Call;

impl Generator {
    pub(super) fn read_file(&mut self) -> Call {
        let path = self.old(Some(Kind::File));
        Call::ReadFile {
            path: self.spell(&path),
        }
    }

    pub(super) fn write_file(&mut self) -> Call {
        let make = self.rng.chance(55);
        let path = if make {
            self.free()
        } else {
            self.old(Some(Kind::File))
        };
        let mut flags = libc::O_WRONLY | libc::O_NONBLOCK | if make { libc::O_CREAT } else { 0 };
        flags |= self
            .rng
            .pick(&[0, libc::O_TRUNC, libc::O_TRUNC, libc::O_APPEND, libc::O_EXCL]);
        if make {
            self.pending = Some(Effect::Made(path.clone(), Kind::File));
        }
        let mode = self.rng.pick(&[0o666, 0o666, 0o644, 0o600, 0o777, 0o4711]);
        Call::WriteFile {
            path: self.spell(&path),
            flags,
            mode,
            data: self.fill(),
        }
    }

    pub(super) fn truncate(&mut self) -> Call {
        let path = self.old(Some(Kind::File));
        Call::Truncate {
            path: self.spell(&path),
            len: self.rng.pick(LENGTHS),
        }
    }

    pub(super) fn mkdir(&mut self) -> Call {
        let path = self.free();
        self.pending = Some(Effect::Made(path.clone(), Kind::Dir));
        let mode = self
            .rng
            .pick(&[0o777, 0o777, 0o755, 0o700, 0o2775, 0o1777, 0o000]);
        Call::Mkdir {
            path: self.spell(&path),
            mode,
        }
    }

    pub(super) fn mknod(&mut self) -> Call {
        let path = self.free();
        let (kind, major, minor) = self.rng.pick(&[
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

    pub(super) fn symlink(&mut self) -> Call {
        let path = self.free();
        let target = match self.rng.below(6) {
            0 => Bytes::from("nowhere"),
            1 => Bytes(vec![b'a'; 4000]),
            2 => Bytes([b"/", self.old(None).0.as_slice()].concat()),
            _ => Bytes::from(self.old(None).name()),
        };
        self.pending = Some(Effect::Made(path.clone(), Kind::Symlink));
        Call::Symlink {
            target,
            path: self.spell(&path),
        }
    }

    pub(super) fn link(&mut self) -> Call {
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

    pub(super) fn unlink(&mut self) -> Call {
        let any = self.rng.chance(40);
        let path = self.old(if any { None } else { Some(Kind::File) });
        self.pending = Some(Effect::Gone(path.clone()));
        Call::Unlink {
            path: self.spell(&path),
        }
    }

    pub(super) fn rmdir(&mut self) -> Call {
        let kind = self.rng.chance(95).then_some(Kind::Dir);
        let path = self.old(kind);
        self.pending = Some(Effect::Gone(path.clone()));
        Call::Rmdir {
            path: self.spell(&path),
        }
    }

    pub(super) fn rename(&mut self) -> Call {
        let kind = match self.rng.weighted([45, 30, 25].into_iter()) {
            0 => Some(Kind::File),
            1 => Some(Kind::Dir),
            _ => None,
        };
        let from = self.old(kind);
        let to = if self.rng.chance(45) {
            self.old(self.model.kind(&from))
        } else {
            self.free()
        };
        let flags = match self.rng.weighted([70, 8, 18, 2, 1, 1].into_iter()) {
            0 => 0,
            1 => libc::RENAME_NOREPLACE,
            2 => libc::RENAME_EXCHANGE,
            3 => libc::RENAME_WHITEOUT,
            4 => 0x80,
            _ => 3,
        };
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

    pub(super) fn chmod(&mut self) -> Call {
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

    pub(super) fn chown(&mut self) -> Call {
        let path = self.old(None);
        let (uid, gid) = self.ids();
        Call::Chown {
            path: self.spell(&path),
            uid,
            gid,
            follow: self.rng.chance(40),
        }
    }

    pub(super) fn utimens(&mut self) -> Call {
        let path = self.old(None);
        let (access, modify) = (self.when(), self.when());
        Call::Utimens {
            path: self.spell(&path),
            access,
            modify,
            follow: self.rng.chance(50),
        }
    }

    pub(super) fn xattr(&mut self) -> Call {
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
                    flags: self.rng.pick(&[0, 0, 0, 1, 2]),
                    follow,
                }
            }
            5 | 6 => Call::GetXattr { path, name, follow },
            7 => Call::ListXattr { path, follow },
            _ => Call::RemoveXattr { path, name, follow },
        }
    }

    pub(super) fn question(&mut self) -> Call {
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

    pub(super) fn list(&mut self) -> Call {
        let path = if self.rng.chance(90) {
            self.dir()
        } else {
            self.old(None)
        };
        Call::List {
            path: self.spell(&path),
        }
    }

    pub(super) fn chdir(&mut self) -> Call {
        let path = self.dir();
        let call = Call::Chdir {
            path: self.spell(&path),
        };
        self.pending = Some(Effect::Went(path));
        call
    }

    pub(super) fn umask(&mut self) -> Call {
        Call::Umask {
            mask: self.rng.pick(&[0o022, 0o077, 0, 0o002, 0o027]),
        }
    }
}
