//! Copying the data of a regular file: by reflink, by copy inside the kernel, or by hand; holes stay holes.

use std::os::fd::AsFd;

use rustix::fs::SeekFrom;

use super::{Errno, Result, fault};

/// How the bytes came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The file systems share the blocks.
    Reflink,
    /// copy_file_range(2): no byte passes through this process.
    InKernel,
    /// read(2) and write(2).
    ByHand,
}

impl Method {
    /// The method in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Reflink => "reflink (blocks shared)",
            Self::InKernel => "copy_file_range",
            Self::ByHand => "read and write",
        }
    }
}

/// Bytes in one step of a copy.
const STEP: usize = 1 << 20;

/// Copies the first `size` bytes of `from` to the empty file `to`, and gives `to` exactly that size.
///
/// Answers the method and the bytes of data really moved (holes do not count).
///
/// # Errors
/// ENOSPC, EDQUOT, EIO and so on from either file; `to` is then of no use.
pub fn copy_data(from: impl AsFd, to: impl AsFd, size: u64) -> Result<(Method, u64)> {
    let (from, to) = (from.as_fd(), to.as_fd());
    fault::point()?;
    if size > 0 && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        fault::point()?;
        rustix::fs::ftruncate(to, size)?;
        return Ok((Method::Reflink, size));
    }
    let mut method = Method::InKernel;
    let (mut position, mut moved) = (0, 0);
    let mut buffer = Vec::new();
    while position < size {
        let (start, end) = next_data(from, position, size)?;
        position = start;
        while position < end {
            fault::point()?;
            let want = usize::try_from(end.saturating_sub(position))
                .unwrap_or(STEP)
                .min(STEP);
            let n = if method == Method::InKernel {
                let (mut at_in, mut at_out) = (position, position);
                match rustix::fs::copy_file_range(from, Some(&mut at_in), to, Some(&mut at_out), want) {
                    Ok(n) => n,
                    Err(Errno::INTR) => continue,
                    // Not for this pair of file systems: go on by hand from here.
                    Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF) => {
                        method = Method::ByHand;
                        continue;
                    }
                    Err(errno) => return Err(errno),
                }
            } else {
                buffer.resize(want, 0);
                copy_step(from, to, position, &mut buffer)?
            };
            if n == 0 {
                // The file shrank under us; what is left reads as zeros, as it would have.
                position = end;
                break;
            }
            position = position.saturating_add(n as u64);
            moved += n as u64;
        }
    }
    fault::point()?;
    rustix::fs::ftruncate(to, size)?;
    Ok((method, moved))
}

/// The next stretch of data at or after `position`, or `(size, size)` where only a hole is left.
fn next_data(from: impl AsFd, position: u64, size: u64) -> Result<(u64, u64)> {
    match rustix::fs::seek(&from, SeekFrom::Data(position)) {
        Ok(start) if start >= size => Ok((size, size)),
        Ok(start) => match rustix::fs::seek(&from, SeekFrom::Hole(start)) {
            Ok(end) => Ok((start, end.min(size).max(start))),
            Err(_) => Ok((start, size)),
        },
        Err(Errno::NXIO) => Ok((size, size)),
        // No such seek on this file system: all of it is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((position, size)),
        Err(errno) => Err(errno),
    }
}

fn copy_step(from: impl AsFd, to: impl AsFd, position: u64, buffer: &mut [u8]) -> Result<usize> {
    let n = super::io::read_at(from, buffer, position)?;
    let data = buffer.get(..n).ok_or(Errno::IO)?;
    super::io::write_all_at(to, data, position)?;
    Ok(n)
}
