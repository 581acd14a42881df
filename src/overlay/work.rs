//! The work directory: where objects are made before they appear in the upper.
//!
//! Only `W/work` is touched (K7). Whatever a killed server left there is removed at the next mount.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::SetupError;
use crate::format::Namespace;
use crate::sys::at::{self, RenameHow};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, Result, creds, dirent, io, stat};

/// `W/work`, opened.
#[derive(Debug)]
pub struct Work {
    dir: Arc<OwnedFd>,
    next: AtomicU64,
    /// The record of claimed numbers; see [`Work::record_claim`].
    claims: Mutex<ClaimFile>,
    /// The name of the shared whiteout in `W/work` (K33).
    whiteout: Mutex<Option<Vec<u8>>>,
}

/// The file beside `W/work` that remembers which lower numbers went to copied-up names: eight bytes for
/// each, in this machine's byte order.
#[derive(Debug)]
struct ClaimFile {
    work: OwnedFd,
    /// Opened with the first claim.
    file: Option<OwnedFd>,
    len: u64,
}

const CLAIMS: &[u8] = b"plyfs-claims";
/// A record that claims nothing; no file has this number.
const NO_CLAIM: u64 = 0;

/// A name in the work directory that vanishes when it is dropped, unless it was moved away.
#[derive(Debug)]
pub struct Temp<'a> {
    work: &'a Work,
    /// The name in the work directory.
    pub name: Vec<u8>,
    armed: bool,
}

impl Temp<'_> {
    /// The object was moved into the upper; nothing is left to remove.
    pub fn published(mut self) {
        self.armed = false;
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        match remove_tree(self.work.fd(), &self.name) {
            Ok(()) | Err(Errno::NOENT) => {}
            // It stays until the next mount cleans up.
            Err(errno) => {
                log::warn!(
                    "work/{}: cannot be removed now: {errno}",
                    String::from_utf8_lossy(&self.name)
                );
            }
        }
    }
}

fn step(what: &str) -> impl FnOnce(Errno) -> SetupError + '_ {
    move |errno| SetupError::Step {
        step: what.to_owned(),
        errno,
    }
}

impl Work {
    /// Takes over the work directory `work`: refuses it for `work/incompat` (K8), removes what an earlier
    /// server left in `work/work`, at any depth, and makes it anew (K7).
    ///
    /// # Errors
    /// [`SetupError::Incompat`], or the step that failed.
    pub fn take_over(work: impl AsFd, volatile: bool) -> std::result::Result<Self, SetupError> {
        creds::act_as_server().map_err(step("prepare the thread"))?;
        match at::mkdir_at(&work, b"work", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(step("make work/work")(errno)),
        }
        let mut dir = at::open_dir_path(&work, b"work").map_err(step("open work/work"))?;
        // A server without privilege cannot use a directory of mode 0000, which the kernel leaves (K7).
        if let Err(Errno::ACCESS) = at::reopen_dir(&dir) {
            at::chmod_fd(&dir, 0o700).map_err(step("chmod work/work"))?;
            dir = at::open_dir_path(&work, b"work").map_err(step("open work/work"))?;
        }
        if let Some(name) = first_name(&dir, b"incompat").map_err(step("look into work/incompat"))? {
            return Err(SetupError::Incompat(String::from_utf8_lossy(&name).into_owned()));
        }
        if first_name(&work, b"index")
            .map_err(step("look into the index"))?
            .is_some()
        {
            return Err(SetupError::Indexed);
        }
        empty(&dir).map_err(step("clean work/work"))?;
        if volatile {
            mark_volatile(&dir).map_err(step("mark work/incompat/volatile"))?;
        }
        let work = at::open_dir_path(&work, b".").map_err(step("open the work directory"))?;
        Ok(Self {
            dir: Arc::new(dir),
            next: AtomicU64::new(1),
            claims: Mutex::new(ClaimFile {
                work,
                file: None,
                len: 0,
            }),
            whiteout: Mutex::new(None),
        })
    }

    /// The lower inode numbers that went to copied-up names in earlier mounts.
    ///
    /// # Errors
    /// As open(2) and read(2).
    pub fn read_claims(&self) -> Result<Vec<u64>> {
        let mut claims = self.claims.lock();
        let file = match at::open_at(&claims.work, CLAIMS, libc::O_RDONLY | libc::O_NONBLOCK) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        };
        let size = stat::stat_fd(&file)?.size;
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| Errno::FBIG)?];
        let read = io::read_at(&file, &mut bytes, 0)?;
        bytes.truncate(read);
        // A record cut short by a crash is overwritten by the next one.
        let (records, _) = bytes.as_chunks::<8>();
        claims.len = (records.len() as u64).saturating_mul(8);
        let numbers = records.iter().map(|record| u64::from_ne_bytes(*record));
        Ok(numbers.filter(|number| *number != NO_CLAIM).collect())
    }

    /// Remembers that the number `ino` of a lower file with several links stays with one copied-up name.
    /// Answers where the record stands, for [`Work::withdraw_claim`].
    ///
    /// # Errors
    /// As open(2) and write(2).
    pub fn record_claim(&self, ino: u64) -> Result<u64> {
        let mut claims = self.claims.lock();
        if claims.file.is_none() {
            let opened = match at::open_at(&claims.work, CLAIMS, libc::O_WRONLY | libc::O_NONBLOCK) {
                Err(Errno::NOENT) => at::create_at(&claims.work, CLAIMS, libc::O_WRONLY, 0o600),
                done => done,
            };
            claims.file = Some(opened?);
        }
        let at = claims.len;
        if let Some(file) = &claims.file {
            io::write_all_at(file, &ino.to_ne_bytes(), at)?;
        }
        claims.len = at.saturating_add(8);
        Ok(at)
    }

    /// Takes a claim back: the copy-up failed.
    ///
    /// # Errors
    /// As write(2).
    pub fn withdraw_claim(&self, at: u64) -> Result<()> {
        match &self.claims.lock().file {
            Some(file) => io::write_all_at(file, &NO_CLAIM.to_ne_bytes(), at),
            None => Ok(()),
        }
    }

    /// The directory `W/work`.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.dir
    }

    /// A name that nothing has yet, for `make` to create; another one is tried if it does exist.
    ///
    /// # Errors
    /// What `make` returns, except EEXIST.
    pub fn temp<T>(&self, mut make: impl FnMut(&OwnedFd, &[u8]) -> Result<T>) -> Result<(Temp<'_>, T)> {
        loop {
            let name = format!("#{:x}", self.next.fetch_add(1, Ordering::Relaxed)).into_bytes();
            match make(&self.dir, &name) {
                Ok(made) => {
                    return Ok((
                        Temp {
                            work: self,
                            name,
                            armed: true,
                        },
                        made,
                    ));
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Takes responsibility for a name that is in the work directory already.
    pub fn adopt(&self, name: Vec<u8>) -> Temp<'_> {
        Temp {
            work: self,
            name,
            armed: true,
        }
    }

    /// Puts a whiteout under `name` in `dir`, where nothing may be yet: a hard link of the shared one, or a
    /// new one where the file system refuses more links (K33).
    ///
    /// # Errors
    /// EEXIST; ENOSPC and so on.
    pub fn link_whiteout(&self, dir: impl AsFd, name: &[u8]) -> Result<()> {
        creds::act_as_server()?;
        let mut shared = self.whiteout.lock();
        for _ in 0..2 {
            let source = match &*shared {
                Some(source) => source.clone(),
                None => {
                    let (temp, ()) = self.temp(|work, name| make_whiteout(work, name))?;
                    let source = temp.name.clone();
                    temp.published();
                    *shared = Some(source.clone());
                    source
                }
            };
            match at::link_at(&self.dir, &source, dir.as_fd(), name) {
                Err(Errno::MLINK) => {
                    // The names in the upper keep the old one alive.
                    at::unlink_at(&self.dir, &source)?;
                    *shared = None;
                }
                Err(Errno::PERM | Errno::OPNOTSUPP) => return make_whiteout(&dir, name),
                done => return done,
            }
        }
        make_whiteout(&dir, name)
    }

    /// A whiteout under a name of its own in the work directory.
    ///
    /// # Errors
    /// As [`Work::link_whiteout`].
    pub fn temp_whiteout(&self) -> Result<Temp<'_>> {
        let (temp, ()) = self.temp(|work, name| self.link_whiteout(work, name))?;
        Ok(temp)
    }

    /// Tries what an upper must be able to do (K14), and finds the namespace for private marks.
    ///
    /// # Errors
    /// [`SetupError::Unsuitable`] with the missing ability.
    pub fn probe(&self, wanted: super::XattrNamespace) -> std::result::Result<Namespace, SetupError> {
        let unsuitable = |what: &str, errno: Errno| SetupError::Unsuitable(format!("{what} ({errno})"));
        let file = |work: &OwnedFd, name: &[u8]| at::create_at(work, name, libc::O_RDWR, 0o600);
        let (temp, _file) = self
            .temp(file)
            .map_err(|e| unsuitable("no file can be made in it", e))?;
        let namespace = self.probe_xattr(&temp.name, wanted)?;
        let mut typed = false;
        let list = at::reopen_dir(&self.dir).and_then(|dir| {
            dirent::read_names(&dir, |entry| {
                typed |= *entry.name == *temp.name && entry.kind == libc::S_IFREG;
                Ok(!typed)
            })
        });
        list.map_err(|e| unsuitable("its work directory cannot be listed", e))?;
        if !typed {
            return Err(SetupError::Unsuitable(
                "it does not tell the type of directory entries (d_type)".into(),
            ));
        }
        let (whiteout, ()) = self
            .temp(|work, name| make_whiteout(work, name))
            .map_err(|e| unsuitable("no whiteouts: character devices 0/0", e))?;
        let (from, to) = (&temp.name, &whiteout.name);
        at::rename_at(&self.dir, from, &self.dir, to, RenameHow::Exchange)
            .map_err(|e| unsuitable("no RENAME_EXCHANGE", e))?;
        let old = [to.as_slice(), b"w"].concat();
        let moved = self.adopt(old);
        at::rename_at(&self.dir, to, &self.dir, &moved.name, RenameHow::Whiteout)
            .map_err(|e| unsuitable("no RENAME_WHITEOUT", e))?;
        Ok(namespace)
    }

    fn probe_xattr(
        &self,
        name: &[u8],
        wanted: super::XattrNamespace,
    ) -> std::result::Result<Namespace, SetupError> {
        let mut reason = Errno::OPNOTSUPP;
        for namespace in wanted.candidates() {
            match namespace.set_opaque(Target::At(self.dir.as_fd(), name)) {
                Ok(()) => return Ok(*namespace),
                Err(errno) => reason = errno,
            }
        }
        Err(SetupError::Unsuitable(format!(
            "no extended attributes for private marks ({reason})"
        )))
    }
}

fn make_whiteout(dir: impl AsFd, name: &[u8]) -> Result<()> {
    at::mknod_at(dir, name, libc::S_IFCHR, 0)
}

/// The first name in the subdirectory `name`; `None` if it is empty or not there.
fn first_name(dir: impl AsFd, name: &[u8]) -> Result<Option<Box<[u8]>>> {
    let sub = match at::open_dir_path(&dir, name) {
        Ok(sub) => sub,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let mut first = None;
    dirent::read_names(readable(&sub)?, |entry| {
        first = Some(entry.name);
        Ok(false)
    })?;
    Ok(first)
}

fn readable(dir: impl AsFd) -> Result<OwnedFd> {
    match at::reopen_dir(&dir) {
        Err(Errno::ACCESS) => {
            at::chmod_fd(&dir, 0o700)?;
            at::reopen_dir(&dir)
        }
        done => done,
    }
}

/// What a volatile mount leaves behind, so that nobody trusts the upper after a crash (K8).
fn mark_volatile(work: impl AsFd) -> Result<()> {
    at::mkdir_at(&work, b"incompat", 0o700)?;
    let incompat = at::open_dir_path(&work, b"incompat")?;
    at::mkdir_at(&incompat, b"volatile", 0o700)?;
    let volatile = at::open_dir_path(&incompat, b"volatile")?;
    at::create_at(&volatile, b"dirty", libc::O_WRONLY, 0o600).map(drop)
}

fn empty(dir: impl AsFd) -> Result<()> {
    let mut names = Vec::new();
    dirent::read_names(readable(&dir)?, |entry| {
        names.push(entry.name);
        Ok(true)
    })?;
    names.iter().try_for_each(|name| remove_tree(&dir, name))
}

/// Removes `name` in `dir` with all that is below it, without following anything.
///
/// # Errors
/// As unlinkat(2) and openat2(2); what was removed until then is gone.
pub fn remove_tree(dir: impl AsFd, name: &[u8]) -> Result<()> {
    match at::unlink_at(&dir, name) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return done,
    }
    if at::rmdir_at(&dir, name).is_ok() {
        return Ok(());
    }
    // One open directory and its pending names for each level, so that depth costs no stack.
    struct Level {
        dir: OwnedFd,
        name: Box<[u8]>,
        names: Vec<Box<[u8]>>,
    }
    let enter = |dir: std::os::fd::BorrowedFd<'_>, name: &[u8]| -> Result<Level> {
        let sub = at::open_dir_path(dir, name)?;
        let mut names = Vec::new();
        dirent::read_names(readable(&sub)?, |entry| {
            names.push(entry.name);
            Ok(true)
        })?;
        Ok(Level {
            dir: sub,
            name: name.into(),
            names,
        })
    };
    let mut levels = vec![enter(dir.as_fd(), name)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.names.pop() {
            match at::unlink_at(&level.dir, &name) {
                Ok(()) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let next = enter(level.dir.as_fd(), &name)?;
                    levels.push(next);
                }
                Err(errno) => return Err(errno),
            }
        } else if let Some(done) = levels.pop() {
            let parent = levels.last().map_or(dir.as_fd(), |level| level.dir.as_fd());
            at::rmdir_at(parent, &done.name)?;
        }
    }
    Ok(())
}

/// Copies the attributes that decide how children are born: group, setgid bit, default ACL (K80).
///
/// # Errors
/// As the calls made.
pub fn inherit_birth_rules(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let parent = stat::stat_fd(&from)?;
    at::chown_fd(&to, None, Some(parent.gid))?;
    at::chmod_fd(&to, 0o700 | parent.mode & libc::S_ISGID)?;
    match xattr::get(xattr::of(&from), DEFAULT_ACL) {
        Ok(acl) => xattr::set(xattr::of(&to), DEFAULT_ACL, &acl, 0),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The attribute that holds a directory's default ACL.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k7_rubbish_of_any_depth_is_cleaned() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("work/#7/a/b/c/d/e");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("f"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", deep.join("link")).unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let work = Work::take_over(&fd, false).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("work")).unwrap().count(), 0);
        assert!(std::path::Path::new("/etc/passwd").exists());
        drop(work);
    }

    #[test]
    fn k8_incompat_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        drop(Work::take_over(&fd, true).unwrap());
        match Work::take_over(&fd, false) {
            Err(SetupError::Incompat(name)) => assert_eq!(name, "volatile"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_upper_with_an_index_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("index")).unwrap();
        drop(Work::take_over(&fd, false).unwrap());
        std::fs::write(dir.path().join("index/00fb1d0001"), "").unwrap();
        assert!(matches!(Work::take_over(&fd, false), Err(SetupError::Indexed)));
    }

    #[test]
    fn claimed_numbers_are_remembered_and_a_torn_record_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let work = Work::take_over(&fd, false).unwrap();
        assert!(work.read_claims().unwrap().is_empty());
        work.record_claim(7).unwrap();
        let failed = work.record_claim(8).unwrap();
        work.record_claim(1 << 40).unwrap();
        work.withdraw_claim(failed).unwrap();
        drop(work);
        let file = dir.path().join("plyfs-claims");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.extend([1, 2, 3]);
        std::fs::write(&file, bytes).unwrap();
        let work = Work::take_over(&fd, false).unwrap();
        assert_eq!(work.read_claims().unwrap(), [7, 1 << 40]);
        work.record_claim(9).unwrap();
        drop(work);
        let work = Work::take_over(&fd, false).unwrap();
        assert_eq!(work.read_claims().unwrap(), [7, 1 << 40, 9]);
    }

    #[test]
    fn k33_whiteouts_share_one_inode() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("u")).unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let upper = std::fs::File::open(dir.path().join("u")).unwrap();
        let work = Work::take_over(&fd, false).unwrap();
        work.link_whiteout(&upper, b"a").unwrap();
        work.link_whiteout(&upper, b"b").unwrap();
        let meta = |name| std::fs::symlink_metadata(dir.path().join("u").join(name)).unwrap();
        assert_eq!(meta("a").ino(), meta("b").ino());
        assert_eq!(meta("a").nlink(), 3);
    }
}
