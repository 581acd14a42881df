//! The extended headers of pax archives: `LENGTH KEY=VALUE\n`, again and again.

use super::number;
use crate::builder::Xattr;
use crate::sys::stat::Time;

/// What an extended header says about the next entry; what it does not say is `None`.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: SparseKeys,
    /// Keys that carry metadata which is not read.
    pub(super) unread: Vec<Vec<u8>>,
}

/// What an extended header says about holes: one of three forms.
#[derive(Debug, Default)]
pub(super) struct SparseKeys {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Forms 0.0 and 0.1: offsets and lengths in turn.
    pub(super) map: Option<Vec<u64>>,
}

impl Pax {
    /// Reads all records, which add to those read before. A later record takes the place of an earlier one, and an
    /// empty value takes it back.
    pub(super) fn read(&mut self, mut text: &[u8]) -> Result<(), String> {
        while !text.is_empty() {
            let (record, rest) =
                split_record(text).ok_or("a record of an extended header has a wrong length")?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or("a record of an extended header has no '='")?;
            let (key, value) = record.split_at_checked(equals).unwrap_or_default();
            let value = value.get(1..).unwrap_or_default();
            self.take(key, value)
                .ok_or_else(|| format!("the extended header {} has a wrong value", key.escape_ascii()))?;
            text = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let some = (!value.is_empty()).then_some(value);
        match key {
            b"path" => self.path = name(some)?,
            b"linkpath" => self.link = name(some)?,
            b"size" => self.size = parsed(some, number::decimal)?,
            b"uid" => self.uid = parsed(some, number::decimal)?,
            b"gid" => self.gid = parsed(some, number::decimal)?,
            b"mtime" => self.mtime = parsed(some, number::time)?,
            b"atime" => self.atime = parsed(some, number::time)?,
            b"GNU.sparse.major" => self.sparse.major = parsed(some, number::decimal)?,
            b"GNU.sparse.minor" => self.sparse.minor = parsed(some, number::decimal)?,
            b"GNU.sparse.name" => self.sparse.name = name(some)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.real_size = parsed(some, number::decimal)?;
            }
            // The number of pairs is told by the pairs themselves.
            b"GNU.sparse.numblocks" => self.sparse.map = Some(Vec::new()),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = self.sparse.map.get_or_insert_default();
                let wants_offset = map.len().is_multiple_of(2);
                if wants_offset != key.ends_with(b"offset") {
                    return None;
                }
                map.push(number::decimal(value)?);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',');
                self.sparse.map = match some {
                    None => Some(Vec::new()),
                    Some(_) => Some(numbers.map(number::decimal).collect::<Option<_>>()?),
                };
            }
            _ => self.take_other(key, value)?,
        }
        Some(())
    }

    fn take_other(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.set_xattr(name.to_vec(), value.to_vec(), true)?;
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            self.set_xattr(from_url(name)?, from_base64(value)?, false)?;
        } else if key.starts_with(b"SCHILY.acl.") || key.starts_with(b"RHT.security.") {
            self.unread.push(key.to_vec());
        }
        Some(())
    }

    /// Both spellings may stand in one header; the one that is not encoded counts.
    fn set_xattr(&mut self, name: Vec<u8>, value: Vec<u8>, counts: bool) -> Option<()> {
        if name.is_empty() || name.contains(&0) {
            return None;
        }
        match self.xattrs.iter_mut().find(|xattr| xattr.name == name) {
            Some(xattr) if counts => xattr.value = value,
            Some(_) => {}
            None => self.xattrs.push(Xattr { name, value }),
        }
        Some(())
    }
}

/// `LENGTH KEY=VALUE\n` without length and end, and what follows.
fn split_record(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number::decimal(text.get(..space)?)?).ok()?;
    let (record, rest) = text.split_at_checked(length)?;
    let record = record.get(space.checked_add(1)?..)?.strip_suffix(b"\n")?;
    Some((record, rest))
}

/// A name: absent, or without a NUL.
fn name(value: Option<&[u8]>) -> Option<Option<Vec<u8>>> {
    match value {
        Some(value) if value.contains(&0) => None,
        value => Some(value.map(<[u8]>::to_vec)),
    }
}

fn parsed<T>(value: Option<&[u8]>, parse: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => parse(value).map(Some),
    }
}

fn from_url(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let digits = [*bytes.next()?, *bytes.next()?];
            let mut decoded = [0];
            hex::decode_to_slice(digits, &mut decoded).ok()?;
            plain.extend(decoded);
        } else {
            plain.push(*byte);
        }
    }
    Some(plain)
}

/// Base 64, with or without the `=` at the end.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    let end = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
    let (digits, padding) = text.split_at_checked(end)?;
    if padding.len() > 2 || padding.iter().any(|byte| *byte != b'=') {
        return None;
    }
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            plain.push((bits >> count & 0xff) as u8);
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn the_last_record_counts_and_an_empty_one_takes_back() {
        let mut pax = Pax::default();
        let text = [
            record("path", b"a\nb=c"),
            record("size", b"5"),
            record("size", b"7"),
            record("uid", b"3"),
            record("uid", b""),
        ];
        pax.read(&text.concat()).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb=c"[..]));
        assert_eq!((pax.size, pax.uid), (Some(7), None));
    }

    #[test]
    fn attributes_in_both_spellings() {
        let mut pax = Pax::default();
        let text = [
            record("LIBARCHIVE.xattr.user.a%20b", b"aGVsbG8="),
            record("LIBARCHIVE.xattr.user.c", b"aGVsbG8"),
            record("SCHILY.xattr.user.c", b"\0raw\n"),
        ];
        pax.read(&text.concat()).unwrap();
        let found: Vec<_> = pax.xattrs.iter().map(|x| (&x.name[..], &x.value[..])).collect();
        assert_eq!(
            found,
            [(&b"user.a b"[..], &b"hello"[..]), (b"user.c", b"\0raw\n")]
        );
    }

    #[test]
    fn damaged_records_are_told() {
        for text in [
            &b"8 path=a\n"[..],
            b"99999999999999999999999 a=b\n",
            b"6 path\n",
            b"7 size=x\n",
            b"0 a=b\n",
            b"-1 a=b\n",
            b"9 path=\0b\n",
        ] {
            assert!(Pax::default().read(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
