//! Files with holes: which pieces of the file an archive holds.

use super::number;

/// A stretch of data in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Makes a map of offsets and lengths in turn. It must rise, lie inside the file and hold as many bytes as the archive.
pub(super) fn map(numbers: &[u64], real_size: u64, stored: u64) -> Result<Vec<Extent>, &'static str> {
    let pairs = numbers.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err("its map of holes has an odd number of numbers");
    }
    let mut extents = Vec::with_capacity(pairs.len());
    let (mut end, mut total) = (0_u64, 0_u64);
    for pair in pairs {
        let &[offset, length] = pair else { continue };
        let after = offset.checked_add(length);
        match after {
            Some(after) if offset >= end && after <= real_size => end = after,
            _ => return Err("its map of holes does not fit the file"),
        }
        // Each extent lies in the file behind the one before, so the sum is no more than its size.
        total = total.saturating_add(length);
        if length > 0 {
            extents.push(Extent { offset, length });
        }
    }
    if total != stored {
        return Err("its map of holes does not fit the data in the archive");
    }
    Ok(extents)
}

/// Adds the pairs of an old GNU header to `numbers`; false when the map ends here.
pub(super) fn take_gnu<'a>(
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    numbers: &mut Vec<u64>,
) -> Option<bool> {
    for (offset, length) in pairs {
        if offset.first() == Some(&0) || length.first() == Some(&0) {
            return Some(false);
        }
        for field in [offset, length] {
            numbers.push(u64::try_from(number::number(field)?).ok()?);
        }
    }
    Some(true)
}

/// The map of form 1.0, which stands before the data: lines of decimal numbers, the first the number of pairs.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl Lines {
    /// Takes one block; true when the map is complete (what follows in the block is padding).
    pub(super) fn take(&mut self, block: &[u8]) -> Option<bool> {
        for byte in block {
            if *byte != b'\n' {
                if self.line.len() >= 20 {
                    return None;
                }
                self.line.push(*byte);
                continue;
            }
            let value = number::decimal(&self.line)?;
            self.line.clear();
            match self.count {
                None => self.count = Some(usize::try_from(value).ok()?.checked_mul(2)?),
                Some(_) => self.numbers.push(value),
            }
            if self.count == Some(self.numbers.len()) {
                return Some(true);
            }
        }
        Some(false)
    }

    pub(super) fn into_numbers(self) -> Vec<u64> {
        self.numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_fits_file_and_archive() {
        let extent = |offset, length| Extent { offset, length };
        assert_eq!(map(&[4, 2, 8, 0], 8, 2), Ok(vec![extent(4, 2)]));
        assert_eq!(map(&[0, 2, 2, 2], 4, 4), Ok(vec![extent(0, 2), extent(2, 2)]));
        for (numbers, size, stored) in [
            (&[0, 2, 1, 2][..], 4, 4),
            (&[0, 5], 4, 5),
            (&[u64::MAX, 2], u64::MAX, 2),
            (&[0, 2], 4, 3),
            (&[0], 4, 0),
        ] {
            assert!(map(numbers, size, stored).is_err(), "{numbers:?}");
        }
    }

    #[test]
    fn lines_over_several_blocks() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"2\n1\n"), Some(false));
        assert_eq!(lines.take(b"2\n3\n4\n\0\0"), Some(true));
        assert_eq!(lines.into_numbers(), [1, 2, 3, 4]);
        assert_eq!(Lines::default().take(b"0\n"), Some(true));
        assert_eq!(Lines::default().take(b"x\n"), None);
        assert_eq!(Lines::default().take(&[b'1'; 30]), None);
    }
}
