//! What a program is made of: layers to start from, and the steps done on them.

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::layers::Layers;

/// One open descriptor of a worker; there are [`SLOTS`] of them.
pub type Slot = u8;
pub const SLOTS: Slot = 6;

/// File content that is cheap to write down: `len` bytes of a pattern that `seed` chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    pub seed: u8,
    pub len: u32,
}

impl Fill {
    pub fn bytes(self) -> Vec<u8> {
        (0..self.len)
            .map(|i| 33 + ((u32::from(self.seed) * 7 + i + i / 89) % 90) as u8)
            .collect()
    }
}

/// A time to set: seconds and nanoseconds, or one of the two special values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    At(i64, u32),
    Now,
    Omit,
}

/// One system call, or a short fixed sequence of them that needs no decision in between.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Call {
    Open {
        slot: Slot,
        path: Bytes,
        flags: i32,
        mode: u32,
    },
    Close {
        slot: Slot,
    },
    Read {
        slot: Slot,
        len: u32,
    },
    Pread {
        slot: Slot,
        at: i64,
        len: u32,
    },
    Write {
        slot: Slot,
        data: Fill,
    },
    Pwrite {
        slot: Slot,
        at: i64,
        data: Fill,
    },
    Seek {
        slot: Slot,
        to: i64,
        whence: i32,
    },
    /// SEEK_DATA or SEEK_HOLE, checked against the content; where holes are may differ (K64).
    SeekSparse {
        slot: Slot,
        at: i64,
        hole: bool,
    },
    Ftruncate {
        slot: Slot,
        len: i64,
    },
    Fallocate {
        slot: Slot,
        mode: i32,
        at: i64,
        len: i64,
    },
    Fsync {
        slot: Slot,
        data_only: bool,
    },
    Fstat {
        slot: Slot,
    },
    Fchmod {
        slot: Slot,
        mode: u32,
    },
    Fchown {
        slot: Slot,
        uid: u32,
        gid: u32,
    },
    Futimens {
        slot: Slot,
        access: When,
        modify: When,
    },
    Fsetxattr {
        slot: Slot,
        name: Bytes,
        value: Bytes,
        flags: i32,
    },
    Fgetxattr {
        slot: Slot,
        name: Bytes,
    },
    MmapWrite {
        slot: Slot,
        at: i64,
        data: Fill,
    },
    MmapRead {
        slot: Slot,
        at: i64,
        len: u32,
    },
    CopyRange {
        from: Slot,
        from_at: i64,
        to: Slot,
        to_at: i64,
        len: u32,
    },
    LinkSlot {
        slot: Slot,
        path: Bytes,
    },
    Flock {
        slot: Slot,
        how: i32,
    },
    Lock {
        slot: Slot,
        kind: i32,
        at: i64,
        len: i64,
        of_file: bool,
    },
    GetFlags {
        slot: Slot,
    },
    /// Reads up to `count` names on from where the stream stands; at the end tells all names seen.
    NextNames {
        slot: Slot,
        count: u32,
    },
    /// Goes back to just after the `nth` name of the stream; 0 is a rewind.
    SeekNames {
        slot: Slot,
        nth: u32,
    },

    Truncate {
        path: Bytes,
        len: i64,
    },
    ReadFile {
        path: Bytes,
    },
    /// open, write, close.
    WriteFile {
        path: Bytes,
        flags: i32,
        mode: u32,
        data: Fill,
    },
    Mkdir {
        path: Bytes,
        mode: u32,
    },
    Mknod {
        path: Bytes,
        mode: u32,
        major: u32,
        minor: u32,
    },
    Symlink {
        target: Bytes,
        path: Bytes,
    },
    Readlink {
        path: Bytes,
    },
    Link {
        from: Bytes,
        to: Bytes,
        follow: bool,
    },
    Unlink {
        path: Bytes,
    },
    Rmdir {
        path: Bytes,
    },
    Rename {
        from: Bytes,
        to: Bytes,
        flags: u32,
    },
    Chmod {
        path: Bytes,
        mode: u32,
    },
    Chown {
        path: Bytes,
        uid: u32,
        gid: u32,
        follow: bool,
    },
    Utimens {
        path: Bytes,
        access: When,
        modify: When,
        follow: bool,
    },
    SetXattr {
        path: Bytes,
        name: Bytes,
        value: Bytes,
        flags: i32,
        follow: bool,
    },
    GetXattr {
        path: Bytes,
        name: Bytes,
        follow: bool,
    },
    ListXattr {
        path: Bytes,
        follow: bool,
    },
    RemoveXattr {
        path: Bytes,
        name: Bytes,
        follow: bool,
    },
    Stat {
        path: Bytes,
        follow: bool,
    },
    Access {
        path: Bytes,
        mode: i32,
        effective: bool,
    },
    Statfs {
        path: Bytes,
    },
    List {
        path: Bytes,
    },
    Chdir {
        path: Bytes,
    },
    Umask {
        mask: u32,
    },
}

impl Call {
    /// The name of the variant, for statistics and signatures.
    pub fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    }

    /// The paths the call is about, as the caller spells them.
    pub fn paths(&self) -> Vec<&Bytes> {
        use Call::*;
        match self {
            Open { path, .. }
            | LinkSlot { path, .. }
            | Truncate { path, .. }
            | ReadFile { path }
            | WriteFile { path, .. }
            | Mkdir { path, .. }
            | Mknod { path, .. }
            | Symlink { path, .. }
            | Readlink { path }
            | Unlink { path }
            | Rmdir { path }
            | Chmod { path, .. }
            | Chown { path, .. }
            | Utimens { path, .. }
            | SetXattr { path, .. }
            | GetXattr { path, .. }
            | ListXattr { path, .. }
            | RemoveXattr { path, .. }
            | Stat { path, .. }
            | Access { path, .. }
            | Statfs { path }
            | List { path }
            | Chdir { path } => vec![path],
            Link { from, to, .. } | Rename { from, to, .. } => vec![from, to],
            _ => Vec::new(),
        }
    }

    /// The descriptors the call is about.
    pub fn slots(&self) -> Vec<Slot> {
        use Call::*;
        match self {
            Open { slot, .. }
            | Close { slot }
            | Read { slot, .. }
            | Pread { slot, .. }
            | Write { slot, .. }
            | Pwrite { slot, .. }
            | Seek { slot, .. }
            | SeekSparse { slot, .. }
            | Ftruncate { slot, .. }
            | Fallocate { slot, .. }
            | Fsync { slot, .. }
            | Fstat { slot }
            | Fchmod { slot, .. }
            | Fchown { slot, .. }
            | Futimens { slot, .. }
            | Fsetxattr { slot, .. }
            | Fgetxattr { slot, .. }
            | MmapWrite { slot, .. }
            | MmapRead { slot, .. }
            | LinkSlot { slot, .. }
            | Flock { slot, .. }
            | Lock { slot, .. }
            | GetFlags { slot }
            | NextNames { slot, .. }
            | SeekNames { slot, .. } => vec![*slot],
            CopyRange { from, to, .. } => vec![*from, *to],
            _ => Vec::new(),
        }
    }
}

/// How closely a step is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Look {
    No,
    /// lstat and fstat, before and after.
    Yes,
    /// As `Yes`, but not before the clock of file times has ticked: whether a time moves is then compared too.
    Times,
}

/// One entry of a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// `worker` does `call`, and what it touches is looked at before and after.
    Step { worker: u8, look: Look, call: Call },
    /// The kernel drops what it has cached of both mounts.
    DropCaches,
    /// Both merged trees, both uppers and both lowers are compared.
    Compare,
    /// Both are unmounted, checked, and mounted again on the same layers.
    Remount,
    /// As `Remount`, but each system gets the layers of the other.
    Swap,
}

/// A whole program: everything that is needed to run it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// What it was made from.
    pub seed: u64,
    pub(super) layers: Layers,
    pub(super) events: Vec<Event>,
}

impl Program {
    /// How many events it has.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events.len()
    }
}

/// The processes that do the steps. Two of root with their own directories and umasks, three of others.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Person {
    pub uid: u32,
    pub gid: u32,
    pub extra_group: u32,
    pub umask: u32,
}

pub const PEOPLE: [Person; 5] = [
    Person {
        uid: 0,
        gid: 0,
        extra_group: 0,
        umask: 0o022,
    },
    Person {
        uid: 0,
        gid: 0,
        extra_group: 0,
        umask: 0o077,
    },
    Person {
        uid: 1001,
        gid: 1001,
        extra_group: 1003,
        umask: 0o022,
    },
    Person {
        uid: 1001,
        gid: 1001,
        extra_group: 1001,
        umask: 0o002,
    },
    Person {
        uid: 1002,
        gid: 1001,
        extra_group: 1002,
        umask: 0o000,
    },
];
