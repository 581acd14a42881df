//! One line of a manifest.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::builder::{Kind, Meta, TreePath, Xattr};
use crate::sys::stat::{Stat, Time};

/// Bytes that are text in most cases: a string, or a list of bytes where they are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text(pub Vec<u8>);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of bytes")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.as_bytes().to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = list.next_element()? {
                    bytes.push(byte);
                }
                Ok(Text(bytes))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// One object. The path is not in it: see [`super::Object`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Names in its path; 0 for the root.
    pub depth: u32,
    /// Its name; empty for the root.
    pub name: Text,
    /// What it is.
    #[serde(with = "kind")]
    pub kind: Kind,
    /// Permission bits.
    #[serde(with = "octal")]
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, as makedev(3) packs it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rdev: u64,
    /// Bytes of a regular file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Last change of the data.
    #[serde(with = "time")]
    pub mtime: Time,
    /// Text of a symlink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Text>,
    /// Inode number, which holds only where the tree was made.
    pub ino: u64,
    /// Extended attributes by name, values in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Attribute>,
    /// Digest of the data of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "digest")]
    pub sha256: Option<[u8; 32]>,
    /// Names of this inode in the tree, if more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<u32>,
    /// The first of those names on the walk, unless this is it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<Text>,
}

/// One extended attribute in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its full name.
    pub name: Text,
    /// Its value.
    #[serde(with = "hex::serde")]
    pub value: Vec<u8>,
}

impl Line {
    /// The line of an object, without what only the tree around it tells (digest, names).
    pub(in crate::builder) fn new(
        depth: usize,
        name: &[u8],
        stat: &Stat,
        meta: Meta,
        target: Option<Vec<u8>>,
    ) -> Self {
        let is_device = matches!(meta.kind, Kind::CharDevice | Kind::BlockDevice);
        Self {
            depth: u32::try_from(depth).unwrap_or(u32::MAX),
            name: Text(name.to_vec()),
            kind: meta.kind,
            mode: if meta.kind == Kind::Symlink {
                0o777
            } else {
                meta.permissions
            },
            uid: meta.uid,
            gid: meta.gid,
            rdev: if is_device { meta.rdev } else { 0 },
            size: if meta.kind == Kind::File { stat.size } else { 0 },
            mtime: meta.mtime,
            target: target.map(Text),
            ino: stat.ino,
            xattrs: meta.xattrs.into_iter().map(Attribute::from).collect(),
            sha256: None,
            names: None,
            same: None,
        }
    }

    /// Notes how many names the object has in its tree, and which is the first if this is not.
    pub(in crate::builder) fn set_group(&mut self, names: u32, first: Option<&TreePath>) {
        self.names = (names > 1).then_some(names);
        self.same = first.map(|path| Text(path.as_bytes().to_vec()));
    }
}

impl From<Xattr> for Attribute {
    fn from(xattr: Xattr) -> Self {
        Self {
            name: Text(xattr.name),
            value: xattr.value,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it so
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `-5.900000000`: seconds, and nanoseconds to add.
pub(in crate::builder) fn time_text(time: Time) -> String {
    format!("{}.{:09}", time.secs, time.nanos)
}

fn parse_time(text: &str) -> Option<Time> {
    let (secs, nanos) = text.split_once('.')?;
    let time = Time {
        secs: secs.parse().ok()?,
        nanos: nanos.parse().ok()?,
    };
    (nanos.len() == 9 && time.nanos < 1_000_000_000).then_some(time)
}

/// What an object is, in a word.
pub(in crate::builder) fn kind_word(kind: Kind) -> &'static str {
    KINDS
        .iter()
        .find(|(found, _)| *found == kind)
        .map_or("file", |(_, word)| word)
}

const KINDS: [(Kind, &str); 7] = [
    (Kind::Directory, "directory"),
    (Kind::File, "file"),
    (Kind::Symlink, "symlink"),
    (Kind::Fifo, "fifo"),
    (Kind::Socket, "socket"),
    (Kind::CharDevice, "char-device"),
    (Kind::BlockDevice, "block-device"),
];

/// A visitor-free way to read a short string without keeping it.
fn from_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    what: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not {what}")))
}

mod kind {
    use super::{Deserializer, KINDS, Kind, Serializer, from_text, kind_word};

    pub(super) fn serialize<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind_word(*kind))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        from_text(deserializer, "a kind of object", |text| {
            KINDS
                .iter()
                .find(|(_, word)| *word == text)
                .map(|(kind, _)| *kind)
        })
    }
}

mod octal {
    use super::{Deserializer, Serializer, from_text};

    pub(super) fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{mode:04o}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        from_text(deserializer, "a mode", |text| u32::from_str_radix(text, 8).ok())
    }
}

pub(super) mod time {
    use super::{Deserializer, Serializer, Time, from_text, parse_time, time_text};

    pub(in super::super) fn serialize<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time_text(*time))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Time, D::Error> {
        from_text(deserializer, "a time", parse_time)
    }
}

mod digest {
    use super::{Deserializer, Serializer, from_text};

    pub(super) fn serialize<S: Serializer>(
        digest: &Option<[u8; 32]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => hex::serde::serialize(digest, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 32]>, D::Error> {
        from_text(deserializer, "a SHA-256 digest", |text| {
            let mut digest = [0; 32];
            hex::decode_to_slice(text, &mut digest).ok()?;
            Some(Some(digest))
        })
    }
}
