//! Where the members of a saved image go: a tar stream or a directory.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tar::{EntryType, Header};

use crate::store::{Result, StoreError};
use crate::sys::{Errno, at};

/// Takes members one after the other.
pub(super) trait Sink {
    /// Takes one of exactly `size` bytes, which `write` writes.
    fn member(
        &mut self,
        name: &str,
        size: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    ) -> Result<()>;

    /// All members are there.
    fn finish(&mut self) -> Result<()>;
}

/// Counts what is written, and refuses more than was announced.
struct Exactly<'a> {
    to: &'a mut dyn Write,
    left: u64,
}

impl Write for Exactly<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() as u64 > self.left {
            return Err(io::Error::other("a layer's archive is longer than was recorded"));
        }
        let n = self.to.write(data)?;
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn exactly(
    to: &mut dyn Write,
    name: &str,
    size: u64,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let mut to = Exactly { to, left: size };
    write(&mut to)?;
    if to.left > 0 {
        return Err(StoreError::archive(
            name,
            "a layer's archive is shorter than was recorded",
        ));
    }
    Ok(())
}

/// A tar archive. Members have no time and belong to nobody: the same images make the same archive.
pub(super) struct Tar<'a> {
    to: &'a mut dyn Write,
    shown: String,
}

impl<'a> Tar<'a> {
    pub(super) fn new(to: &'a mut dyn Write, shown: &str) -> Self {
        Self {
            to,
            shown: shown.to_owned(),
        }
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.to
            .write_all(data)
            .map_err(StoreError::io("write", &self.shown))
    }
}

impl Sink for Tar<'_> {
    fn member(
        &mut self,
        name: &str,
        size: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header
            .set_path(name)
            .map_err(StoreError::io("write", &self.shown))?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.write(header.as_bytes())?;
        exactly(self.to, name, size, write)?;
        let padding = usize::try_from(size.wrapping_neg() % 512).unwrap_or(0);
        self.write([0; 512].get(..padding).unwrap_or_default())
    }

    fn finish(&mut self) -> Result<()> {
        self.write(&[0; 1024])?;
        self.to.flush().map_err(StoreError::io("write", &self.shown))
    }
}

/// A directory.
pub(super) struct Directory<'a> {
    dir: BorrowedFd<'a>,
    shown: String,
}

impl<'a> Directory<'a> {
    pub(super) fn new(dir: BorrowedFd<'a>, shown: &str) -> Self {
        Self {
            dir,
            shown: shown.to_owned(),
        }
    }
}

impl Sink for Directory<'_> {
    fn member(
        &mut self,
        name: &str,
        size: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let shown = format!("{}/{name}", self.shown);
        let mut dir: OwnedFd = at::reopen_dir(self.dir).map_err(StoreError::errno("open", &self.shown))?;
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_some() {
                match at::mkdir_at(&dir, part.as_bytes(), 0o755) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(StoreError::errno("make", &shown)(errno)),
                }
                dir = at::open_dir_path(&dir, part.as_bytes()).map_err(StoreError::errno("open", &shown))?;
                continue;
            }
            let file = at::create_at(dir.as_fd(), part.as_bytes(), libc::O_WRONLY, 0o644)
                .map_err(StoreError::errno("make", &shown))?;
            return exactly(&mut std::fs::File::from(file), name, size, write);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
