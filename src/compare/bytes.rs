//! Byte strings that print, and are stored, as escaped text: names need not be UTF-8.

use std::borrow::Cow;
use std::ffi::CString;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A path, a name or an attribute's value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn c(&self) -> CString {
        crate::sys::plain::c(&self.0)
    }

    /// The path up to its last component; empty when there is only one.
    pub fn parent(&self) -> &[u8] {
        let trimmed = trim_slashes(&self.0);
        match trimmed.iter().rposition(|&b| b == b'/') {
            Some(0) => b"/",
            Some(at) => trimmed.get(..at).unwrap_or_default(),
            None => b"",
        }
    }

    /// The last component.
    pub fn name(&self) -> &[u8] {
        let trimmed = trim_slashes(&self.0);
        match trimmed.iter().rposition(|&b| b == b'/') {
            Some(at) => trimmed.get(at + 1..).unwrap_or_default(),
            None => trimmed,
        }
    }

    pub fn join(&self, name: &[u8]) -> Bytes {
        let mut joined = self.0.clone();
        if !joined.is_empty() && !joined.ends_with(b"/") {
            joined.push(b'/');
        }
        joined.extend_from_slice(name);
        Bytes(joined)
    }
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let end = path
        .iter()
        .rposition(|&b| b != b'/')
        .map_or(path.len().min(1), |at| at + 1);
    path.get(..end).unwrap_or_default()
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Bytes(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Bytes(bytes.to_vec())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &b in &self.0 {
            match b {
                b'\\' | b'\'' | b'"' => write!(f, "\\{}", b as char)?,
                0x20..=0x7e => write!(f, "{}", b as char)?,
                _ => write!(f, "\\x{b:02x}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{self}'")
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        unescape(&text)
            .map(Bytes)
            .ok_or_else(|| D::Error::custom(format!("bad escape in {text:?}")))
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        match rest {
            [b'x', high, low, tail @ ..] => {
                let hex = [*high, *low];
                out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
                rest = tail;
            }
            [other, tail @ ..] => {
                out.push(*other);
                rest = tail;
            }
            [] => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
#[test]
fn every_byte_survives_the_escape() {
    let all = Bytes((0..=255).collect());
    let text = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap(), all);
    assert_eq!(Bytes::from("a/b/").parent(), b"a");
    assert_eq!(Bytes::from("/b").parent(), b"/");
    assert_eq!(Bytes::from("b").name(), b"b");
    assert_eq!(Bytes::from("/").name(), b"");
}
