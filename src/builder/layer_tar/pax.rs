//! The pax header: what the old header has no room for.

use crate::sys::stat::Time;

/// Bytes of a name or link target in the old header.
pub(super) const NAME_ROOM: usize = 100;

/// A time as pax has it: a decimal number, negative before 1970.
pub(super) fn decimal(time: Time) -> String {
    let nanos = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let sign = if nanos < 0 { "-" } else { "" };
    let (secs, rest) = (nanos.abs() / 1_000_000_000, nanos.abs() % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{secs}");
    }
    let text = format!("{sign}{secs}.{rest:09}");
    text.trim_end_matches('0').to_owned()
}

/// The records of a pax header.
#[derive(Debug, Default)]
pub(super) struct Records {
    body: Vec<u8>,
    /// A name among them is not UTF-8.
    binary: bool,
}

impl Records {
    /// One record.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits: one more digit may need one more.
        let rest = key.len().saturating_add(value.len()).saturating_add(3);
        let mut length = rest;
        loop {
            let with_digits = rest.saturating_add(length.to_string().len());
            if with_digits == length {
                break;
            }
            length = with_digits;
        }
        self.body.extend_from_slice(length.to_string().as_bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.body.extend_from_slice(part);
        }
    }

    /// A name, if the old header has no room for it.
    pub(super) fn name(&mut self, key: &[u8], name: &[u8]) {
        if name.len() > NAME_ROOM {
            self.binary |= std::str::from_utf8(name).is_err();
            self.add(key, name);
        }
    }

    /// The body, if there is any; names that are not UTF-8 are announced in front.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        if self.body.is_empty() {
            return None;
        }
        if !self.binary {
            return Some(self.body);
        }
        let mut announced = Self::default();
        announced.add(b"hdrcharset", b"BINARY");
        announced.body.extend_from_slice(&self.body);
        Some(announced.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        let body = |key: &[u8], value: &[u8]| {
            let mut records = Records::default();
            records.add(key, value);
            String::from_utf8(records.body).unwrap()
        };
        assert_eq!(body(b"path", b"x"), "9 path=x\n");
        assert_eq!(body(b"uid", b"1"), "8 uid=1\n");
        for size in 0..1200 {
            let record = body(b"k", &vec![b'v'; size]);
            let (length, _) = record.split_once(' ').unwrap();
            assert_eq!(length.parse(), Ok(record.len()));
        }
    }

    #[test]
    fn times_of_all_ages() {
        let text = |secs, nanos| decimal(Time { secs, nanos });
        assert_eq!(text(5, 0), "5");
        assert_eq!(text(5, 20), "5.00000002");
        assert_eq!(text(-2, 500_000_000), "-1.5");
        assert_eq!(text(-1, 999_999_999), "-0.000000001");
        assert_eq!(text(i64::MAX, 0), i64::MAX.to_string());
    }
}
