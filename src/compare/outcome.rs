//! What a step answered.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use crate::sys::plain::{Answer, Stat, errno_name};

/// A name in a directory, with what lstat says of it at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub name: Bytes,
    pub exists: bool,
    /// d_ino agrees with st_ino, and d_type with st_mode (K45).
    pub agrees: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Done,
    Number(i64),
    Data {
        len: usize,
        hash: u64,
        head: Bytes,
    },
    Stat(Stat),
    Text(String),
    Words(Vec<Bytes>),
    /// A part of a directory: how many names were read on, none at the end.
    Part(usize),
    /// All names of a directory, sorted, and what was wrong with the stream.
    Names {
        names: Vec<Named>,
        trouble: Vec<String>,
    },
}

impl Value {
    pub fn data(bytes: &[u8]) -> Value {
        let head = Bytes(bytes.iter().take(24).copied().collect());
        Value::Data {
            len: bytes.len(),
            hash: hash(bytes),
            head,
        }
    }
}

/// What lstat (fstat for a descriptor) said before and after the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub what: String,
    pub before: Answer<Stat>,
    pub after: Answer<Stat>,
}

impl Seen {
    pub fn mode_changes(&self) -> bool {
        matches!((&self.before, &self.after), (Ok(before), Ok(after)) if before.mode != after.mode)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub result: Answer<Value>,
    pub seen: Vec<Seen>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Err(errno) => write!(f, "{}", errno_name(*errno)),
            Ok(Value::Done) => write!(f, "ok"),
            Ok(Value::Number(number)) => write!(f, "{number}"),
            Ok(Value::Text(text)) => write!(f, "{text}"),
            Ok(Value::Part(count)) => write!(f, "{count} names"),
            Ok(Value::Data { len, hash, head }) => write!(f, "{len} bytes {head:?}.. #{hash:016x}"),
            Ok(Value::Names { names, .. }) if names.len() > 12 => write!(f, "{} names", names.len()),
            Ok(Value::Names { names, .. }) => {
                write!(f, "{:?}", names.iter().map(|n| &n.name).collect::<Vec<_>>())
            }
            Ok(other) => write!(f, "{other:?}"),
        }
    }
}

/// A quick hash of content: eight bytes at a time.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut h = bytes.len() as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        h = (h ^ u64::from_le_bytes(*chunk))
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }
    for &b in rest {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h ^ (h >> 29)
}
