//! Data whose digest is promised, checked while it is read.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::outer::damaged;
use crate::store::BlobId;

/// What is promised about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) digest: BlobId,
    /// Bytes; none where only the digest is known.
    pub(super) size: Option<u64>,
}

/// Fails at the end of the data, or behind it, if they are not what was promised.
#[derive(Debug)]
pub(super) struct Checked<R> {
    inner: R,
    promise: Promise,
    name: String,
    hasher: Sha256,
    seen: u64,
    sound: bool,
}

impl<R> Checked<R> {
    pub(super) fn new(inner: R, promise: Promise, name: &str) -> Self {
        Self {
            inner,
            promise,
            name: name.to_owned(),
            hasher: Sha256::new(),
            seen: 0,
            sound: false,
        }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        self.seen = self.seen.saturating_add(n as u64);
        let size = self.promise.size;
        if size.is_some_and(|size| self.seen > size || (n == 0 && self.seen < size)) {
            return Err(damaged(&format!(
                "{} has not the promised size of {} bytes: it is damaged or was replaced",
                self.name,
                size.unwrap_or_default()
            )));
        }
        if n == 0 && !self.sound {
            let found = BlobId::new(self.hasher.clone().finalize().into());
            if found != self.promise.digest {
                return Err(damaged(&format!(
                    "{} has the digest {found}, not {}: it is damaged or was replaced",
                    self.name, self.promise.digest
                )));
            }
            self.sound = true;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8], size: Option<u64>, of: &[u8]) -> io::Result<usize> {
        let promise = Promise {
            digest: BlobId::hash(of),
            size,
        };
        Checked::new(data, promise, "blob").read_to_end(&mut Vec::new())
    }

    #[test]
    fn only_what_was_promised() {
        assert_eq!(read(b"data", Some(4), b"data").unwrap(), 4);
        assert_eq!(read(b"data", None, b"data").unwrap(), 4);
        assert_eq!(read(b"", Some(0), b"").unwrap(), 0);
        for (data, size) in [
            (b"dat".as_slice(), Some(4)),
            (b"data2", Some(4)),
            (b"datb", Some(4)),
            (b"dat", None),
            (b"", None),
        ] {
            let error = read(data, size, b"data").unwrap_err();
            assert!(error.to_string().starts_with("blob has "), "{error}");
        }
    }
}
