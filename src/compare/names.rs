//! Reading a directory in parts, as readdir(3), telldir and seekdir do.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use super::bytes::Bytes;
use super::outcome::{Named, Value};
use crate::sys::plain::{self as sys, Answer, Dirent};

/// One directory stream: what was read ahead, and what was handed out since the last rewind.
#[derive(Default)]
pub struct Stream {
    ahead: VecDeque<Dirent>,
    given: Vec<Dirent>,
    trouble: Vec<String>,
}

impl Stream {
    pub fn next(&mut self, fd: RawFd, count: u32) -> Answer<Value> {
        for read in 0..count {
            if self.ahead.is_empty() {
                self.ahead = sys::getdents(fd, 4096)?.into();
            }
            let Some(entry) = self.ahead.pop_front() else {
                return Ok(if read == 0 || count > 1000 {
                    self.names(fd)
                } else {
                    Value::Part(read as usize)
                });
            };
            if self.given.len() > 200_000 {
                return Err(libc::ELOOP);
            }
            self.given.push(entry);
        }
        Ok(Value::Part(count as usize))
    }

    /// seekdir to where telldir stood after `nth` names; what was seen beyond is forgotten.
    pub fn seek(&mut self, fd: RawFd, nth: u32) -> Answer<Value> {
        let nth = (nth as usize).min(self.given.len());
        let cookie = nth
            .checked_sub(1)
            .and_then(|last| self.given.get(last))
            .map_or(0, |last| last.next);
        let at = sys::seek(fd, cookie, libc::SEEK_SET)?;
        if at != cookie {
            self.trouble.push(format!("seek to {cookie} went to {at}"));
        }
        self.ahead.clear();
        self.given.truncate(nth);
        Ok(Value::Number(nth as i64))
    }

    fn names(&mut self, fd: RawFd) -> Value {
        let mut trouble = std::mem::take(&mut self.trouble);
        let mut names: Vec<Named> = Vec::with_capacity(self.given.len());
        for entry in &self.given {
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            let stat = sys::stat_at(fd, &sys::c(&entry.name), libc::AT_SYMLINK_NOFOLLOW);
            let agrees = match &stat {
                Ok(st) => st.ino == entry.ino && (u32::from(entry.kind) << 12) == st.kind(),
                Err(_) => true,
            };
            // Who may read a directory but not search it sees the names only.
            let exists = stat != Err(libc::ENOENT);
            names.push(Named {
                name: Bytes(entry.name.clone()),
                exists,
                agrees,
            });
        }
        names.sort_by(|a, b| a.name.cmp(&b.name));
        for (one, next) in names.iter().zip(names.iter().skip(1)) {
            if one.name == next.name {
                trouble.push(format!("{:?} came twice", one.name));
            }
        }
        names.dedup_by(|a, b| a.name == b.name);
        Value::Names { names, trouble }
    }
}
