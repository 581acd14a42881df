//! A whole tree as it is seen from outside.

use std::os::fd::{AsRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::outcome::hash;
use crate::sys::plain::{self as sys, Answer, Of, Stat};

/// Everything about one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// From the root; the root itself is empty.
    pub path: Bytes,
    pub stat: Answer<Stat>,
    /// The hash of a file's content, or of a symlink's target.
    pub content: Answer<u64>,
    pub target: Bytes,
    pub xattrs: Answer<Vec<(Bytes, Answer<Bytes>)>>,
    /// Set when the directory could not be listed, or a name came twice.
    pub trouble: Option<String>,
}

pub type Tree = Vec<Entry>;

/// Walks all below `root` (symlinks are not followed). With `data` contents are read as well.
pub fn walk(root: &OwnedFd, data: bool) -> Tree {
    let mut tree = Vec::new();
    let here = entry(root, c".", Bytes::default(), data);
    tree.push(here);
    descend(root, &Bytes::default(), data, &mut tree);
    // Of st_dev only this counts: whether it is that of the root (K41).
    let dev = tree
        .first()
        .and_then(|root| root.stat.as_ref().ok())
        .map_or(0, |st| st.dev);
    for entry in &mut tree {
        if let Ok(st) = &mut entry.stat {
            st.dev = u64::from(st.dev != dev);
        }
    }
    tree
}

fn descend(dir: &OwnedFd, path: &Bytes, data: bool, tree: &mut Tree) {
    let mut entries = match sys::list(dir) {
        Ok(entries) => entries,
        Err(errno) => {
            trouble(tree, format!("cannot be listed: {}", sys::errno_name(errno)));
            return;
        }
    };
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut pairs = entries.iter().zip(entries.iter().skip(1));
    if let Some((one, _)) = pairs.find(|(one, next)| one.name == next.name) {
        trouble(tree, format!("lists {:?} twice", Bytes(one.name.clone())));
    }
    entries.dedup_by(|a, b| a.name == b.name);
    for dirent in entries {
        let name = sys::c(&dirent.name);
        let below = path.join(&dirent.name);
        let mut found = entry(dir, &name, below.clone(), data);
        if let Ok(stat) = &found.stat {
            if dirent.ino != stat.ino {
                found.trouble = Some("d_ino is not st_ino".to_owned());
            } else if u32::from(dirent.kind) << 12 != stat.kind() {
                found.trouble = Some(format!("d_type {} is wrong", dirent.kind));
            }
        }
        let is_dir = found.stat.as_ref().is_ok_and(Stat::is_dir);
        tree.push(found);
        if is_dir {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            match sys::open_at(dir.as_raw_fd(), &name, flags, 0) {
                Ok(fd) => descend(&fd, &below, data, tree),
                Err(errno) => trouble(tree, format!("cannot be opened: {}", sys::errno_name(errno))),
            }
        }
    }
}

/// Says what is wrong with the directory that was entered last.
fn trouble(tree: &mut Tree, what: String) {
    if let Some(entry) = tree.last_mut() {
        entry.trouble = Some(what);
    }
}

fn entry(dir: &OwnedFd, name: &std::ffi::CStr, path: Bytes, data: bool) -> Entry {
    let stat = sys::stat_at(dir.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW);
    let mut found = Entry {
        path,
        stat,
        content: Ok(0),
        target: Bytes::default(),
        xattrs: Ok(Vec::new()),
        trouble: None,
    };
    let Ok(stat) = &found.stat else { return found };
    match stat.kind() {
        libc::S_IFREG => {
            let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOATIME;
            match sys::open_at(dir.as_raw_fd(), name, flags, 0) {
                Ok(fd) => {
                    if data {
                        found.content = content(&fd, stat.size);
                    }
                    found.xattrs = xattrs(Of::Fd(fd.as_raw_fd()));
                }
                Err(errno) => found.content = Err(errno),
            }
        }
        libc::S_IFDIR => {
            let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_DIRECTORY;
            match sys::open_at(dir.as_raw_fd(), name, flags, 0) {
                Ok(fd) => found.xattrs = xattrs(Of::Fd(fd.as_raw_fd())),
                Err(errno) => found.content = Err(errno),
            }
        }
        _ => {
            if stat.kind() == libc::S_IFLNK {
                match sys::read_link_at(dir.as_raw_fd(), name) {
                    Ok(target) => {
                        found.content = Ok(hash(&target));
                        found.target = Bytes(target);
                    }
                    Err(errno) => found.content = Err(errno),
                }
            }
            found.xattrs = special_xattrs(dir, name);
        }
    }
    found
}

/// Symlinks and special files have no descriptor to ask; there is no lgetxattr at a descriptor either.
fn special_xattrs(dir: &OwnedFd, name: &std::ffi::CStr) -> Answer<Vec<(Bytes, Answer<Bytes>)>> {
    // The walker is the only user of its working directory.
    sys::fchdir(dir.as_raw_fd())?;
    xattrs(Of::Link(name))
}

fn content(fd: &OwnedFd, size: i64) -> Answer<u64> {
    const BLOCK: usize = 1 << 17;
    // One byte more than it should be: the size may be wrong.
    let block_len = BLOCK.min(size as usize + 1);
    let (mut h, mut at) = (0u64, 0i64);
    loop {
        // The hash must not depend on how a file system cuts its answers.
        let mut block = sys::pread(fd.as_raw_fd(), at, block_len)?;
        while !block.is_empty() && block.len() < block_len && block.len() as i64 != size {
            let more = sys::pread(fd.as_raw_fd(), at + block.len() as i64, block_len - block.len())?;
            if more.is_empty() {
                break;
            }
            block.extend(more);
        }
        at += block.len() as i64;
        h = h.rotate_left(5) ^ hash(&block);
        if block.len() < block_len {
            return Ok(h ^ at as u64);
        }
    }
}

fn xattrs(of: Of) -> Answer<Vec<(Bytes, Answer<Bytes>)>> {
    let names = sys::list_xattr(of)?;
    Ok(names
        .into_iter()
        .map(|name| (Bytes(name.clone()), sys::get_xattr(of, &sys::c(&name)).map(Bytes)))
        .collect())
}
