//! What would not fit in memory for a layer of millions of entries: unnamed files, and sorted records in them.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use crate::builder::{BuildError, Result, TreePath};
use crate::sys::{Errno, at};

/// A name that nobody can have guessed.
pub(super) fn random_name() -> Vec<u8> {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(0);
    format!(".plyfs-{:016x}", hasher.finish()).into_bytes()
}

/// A file without a name on the file system of `dir`.
///
/// # Errors
/// As openat(2).
pub(super) fn unnamed_file(dir: BorrowedFd<'_>) -> Result<File> {
    let failed = |errno| BuildError::Call {
        what: "make a temporary file in",
        path: TreePath::root(),
        errno,
    };
    match at::open_unnamed(dir) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        done => return Ok(File::from(done.map_err(failed)?)),
    }
    let name = random_name();
    let file = at::create_at(dir, &name, libc::O_RDWR, 0o600).map_err(failed)?;
    at::unlink_at(dir, &name).map_err(failed)?;
    Ok(File::from(file))
}

fn failed(source: io::Error) -> BuildError {
    BuildError::Stream {
        what: "use a temporary file",
        source,
    }
}

/// Records of `N` bytes, ordered by their bytes; only the newest are in memory.
#[derive(Debug)]
pub(super) struct Records<const N: usize> {
    fresh: Vec<[u8; N]>,
    most: usize,
    runs: Vec<Run<N>>,
    file: Option<File>,
    end: u64,
}

/// A sorted stretch of the file.
#[derive(Debug)]
struct Run<const N: usize> {
    offset: u64,
    count: u64,
    /// Every [`STRIDE`]th record.
    marks: Vec<[u8; N]>,
}

/// Records between two marks: one read finds a record between them.
const STRIDE: usize = 128;

impl<const N: usize> Records<N> {
    /// No records; at most `most` of them stay in memory.
    pub(super) fn new(most: usize) -> Self {
        Self {
            fresh: Vec::new(),
            most: most.max(1),
            runs: Vec::new(),
            file: None,
            end: 0,
        }
    }

    /// Adds a record; `dir` says on which file system those go that memory has no room for.
    pub(super) fn add(&mut self, record: [u8; N], dir: BorrowedFd<'_>) -> Result<()> {
        self.fresh.push(record);
        if self.fresh.len() < self.most {
            return Ok(());
        }
        let fresh = std::mem::take(&mut self.fresh);
        self.add_run(fresh, dir)
    }

    /// Writes records away.
    pub(super) fn add_run(&mut self, mut records: Vec<[u8; N]>, dir: BorrowedFd<'_>) -> Result<()> {
        records.sort_unstable();
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(unnamed_file(dir)?),
        };
        let offset = self.end;
        file.write_all_at(records.as_flattened(), offset)
            .map_err(failed)?;
        self.end = offset.saturating_add(records.as_flattened().len() as u64);
        self.runs.push(Run {
            offset,
            count: records.len() as u64,
            marks: records.iter().step_by(STRIDE).copied().collect(),
        });
        Ok(())
    }

    /// Ends the adding.
    pub(super) fn sort(&mut self) {
        self.fresh.sort_unstable();
        self.fresh.shrink_to_fit();
    }

    /// The greatest record that begins with `key`, of those written away and, after [`Records::sort`], of all.
    ///
    /// One read for each run that may have it.
    pub(super) fn last_with(&self, key: &[u8]) -> Result<Option<[u8; N]>> {
        let mut best = last_in(&self.fresh, key);
        for run in &self.runs {
            best = best.max(self.last_in_run(run, key)?);
        }
        Ok(best)
    }

    fn last_in_run(&self, run: &Run<N>, key: &[u8]) -> Result<Option<[u8; N]>> {
        // The stretch between two marks in which the last record with the key must be.
        let after = run.marks.partition_point(|mark| !begins_above(mark, key));
        let Some(block) = after.checked_sub(1) else {
            return Ok(None);
        };
        let first = (block as u64).saturating_mul(STRIDE as u64);
        let count = run.count.saturating_sub(first).min(STRIDE as u64);
        let mut records = vec![[0; N]; usize::try_from(count).unwrap_or(0)];
        if let Some(file) = &self.file {
            let offset = run.offset.saturating_add(first.saturating_mul(N as u64));
            file.read_exact_at(records.as_flattened_mut(), offset)
                .map_err(failed)?;
        }
        Ok(last_in(&records, key))
    }
}

fn begins_above<const N: usize>(record: &[u8; N], key: &[u8]) -> bool {
    record.get(..key.len()).is_some_and(|start| start > key)
}

fn last_in<const N: usize>(sorted: &[[u8; N]], key: &[u8]) -> Option<[u8; N]> {
    let after = sorted.partition_point(|record| !begins_above(record, key));
    let record = sorted.get(after.checked_sub(1)?)?;
    record.starts_with(key).then_some(*record)
}

/// Text written once and read back once.
#[derive(Debug)]
pub(super) struct Spool {
    writer: io::BufWriter<File>,
}

impl Spool {
    /// An empty one, on the file system of `dir`.
    pub(super) fn new(dir: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self {
            writer: io::BufWriter::with_capacity(64 << 10, unnamed_file(dir.as_fd())?),
        })
    }

    /// Where to write.
    pub(super) fn writer(&mut self) -> &mut impl io::Write {
        &mut self.writer
    }

    /// From the start.
    pub(super) fn into_reader(self) -> Result<io::BufReader<File>> {
        let mut file = self
            .writer
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        io::Seek::rewind(&mut file).map_err(failed)?;
        Ok(io::BufReader::with_capacity(64 << 10, file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_wherever_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let dir = File::open(dir.path()).unwrap();
        let mut records = Records::<4>::new(1000);
        let of = |n: u16, last: u16| {
            let mut record = [0; 4];
            record[..2].copy_from_slice(&n.to_be_bytes());
            record[2..].copy_from_slice(&last.to_be_bytes());
            record
        };
        for n in 0..5500_u16 {
            records.add(of(n.wrapping_mul(7919), n), dir.as_fd()).unwrap();
        }
        records.add(of(3, 1), dir.as_fd()).unwrap();
        records.add(of(3, 9999), dir.as_fd()).unwrap();
        records.sort();
        assert_eq!(records.runs.len(), 5);
        for n in 0..5500_u16 {
            let key = n.wrapping_mul(7919);
            let found = records.last_with(&key.to_be_bytes()).unwrap();
            let last = if key == 3 { 9999 } else { n };
            assert_eq!(found, Some(of(key, last)));
        }
        assert_eq!(records.last_with(&1_u16.to_be_bytes()).unwrap(), None);
    }
}
