//! Laying changes over a tree: a layer archive, the upper directory of a mount, or a plain directory.
//!
//! The tree is a fresh clone of the parent, or empty, and nobody else's. Every change makes a new inode: what the
//! clone shares with the parent is replaced or removed under its name, never written. A directory that only gets or
//! loses names keeps its times.
//!
//! ```text
//!   archive ─ stream ─ entries ─ archive ─ tree ── new inodes
//!             unpack,  headers,  what an   ├ place  where, never outside
//!             hash     limits    entry     ├ groups unsharing an inode under all its names
//!                                does      └ marks  nothing acts as a mark of an overlay
//! ```

mod archive;
pub mod entries;
mod groups;
mod hashes;
mod marks;
mod names;
mod number;
mod options;
mod pax;
mod place;
mod record;
mod scratch;
mod sparse;
mod stream;
mod tree;
mod upper;

use std::io::Read;
use std::os::fd::BorrowedFd;

pub use hashes::Hashes;
pub use options::{Applied, ApplyOptions, Changes, Limits, Notes, Owners};
pub use sparse::Extent;
pub use stream::decompressed;

use super::diff::side::tell_namespaces;
use super::{BuildError, Progress, Result};

/// Lays a layer archive over the tree below `root`: plain, gzip or zstd, told by its first bytes.
///
/// `progress` counts the bytes read of the archive, as it comes.
///
/// The tree is of no use after an error: whoever calls this makes it in a temporary place.
///
/// # Errors
/// For archives that are damaged, over a limit, have another digest than the expected one, or ask for what is
/// refused; and for calls that fail. The text names the entry.
pub fn apply_tar(
    root: BorrowedFd<'_>,
    archive: impl Read + Send,
    mut options: ApplyOptions<'_>,
    progress: &dyn Progress,
) -> Result<Applied> {
    let record = options.record.take();
    let rules = archive::Rules {
        limits: options.limits,
        skip_devices: options.skip_devices,
        digest_known: options.expected.is_some(),
        record: record.is_some(),
        refuse_marks: options.refuse_marks,
    };
    let (hash_files, owners) = (options.hash_files, options.owners);
    let (laid, hashes) = std::thread::scope(|scope| {
        let (hasher, thread) = if hash_files {
            let (hasher, thread) = hashes::Hasher::start(scope, root);
            (hasher, Some(thread))
        } else {
            (hashes::Hasher::none(), None)
        };
        let laid = stream::unpacked(archive, progress, |chunks| {
            let tree = tree::Tree::new(root, rules.limits, owners, hasher)?;
            archive::Layer::new(tree, chunks, rules, progress)?.run()
        });
        let laid = laid.map(|((mut tree, recorder, length), digest)| {
            tree.hasher = hashes::Hasher::none();
            (tree, recorder, length, digest)
        });
        let hashes = match thread.map(std::thread::ScopedJoinHandle::join) {
            Some(Ok(hashes)) => hashes,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(Hashes::default()),
        };
        (laid, hashes)
    });
    let (mut tree, recorder, length, digest) = laid?;
    if let Some(expected) = options.expected
        && expected != digest
    {
        return Err(BuildError::Digest {
            what: "the uncompressed layer archive".into(),
            expected: format!("sha256:{}", hex::encode(expected)),
            found: format!("sha256:{}", hex::encode(digest)),
        });
    }
    if let (Some(recorder), Some(to)) = (recorder, record) {
        recorder.finish(&mut tree, length, digest, to)?;
    }
    tree.finish()?;
    Ok(Applied {
        diff_id: digest,
        archive_bytes: length,
        changes: Changes {
            entries: tree.entries,
            file_bytes: tree.file_bytes,
            hashes: hashes?,
            notes: tree.notes,
        },
    })
}

/// Lays the upper directory of a mount over the tree below `root`: whiteouts remove, opaque directories take the
/// place of what was there, everything else is copied with all metadata (blocks shared where the file system can).
/// The private marks of an overlay are not copied. `progress` counts objects.
///
/// # Errors
/// For files that are written meanwhile, marks that are not read (redirects, files without data), names that would be
/// marks in an archive, limits; and for calls that fail.
pub fn apply_upper(
    root: BorrowedFd<'_>,
    upper: BorrowedFd<'_>,
    options: &ApplyOptions<'_>,
    progress: &dyn Progress,
) -> Result<Changes> {
    let namespaces = match options.namespace {
        Some(namespace) => vec![namespace],
        None => tell_namespaces(upper)?,
    };
    lay(root, upper, upper::Source::Upper(namespaces), options, progress)
}

/// Lays a plain directory over the tree below `root`: everything in it takes the place of what has its name, but
/// directories join.
///
/// # Errors
/// As [`apply_upper`].
pub fn apply_directory(
    root: BorrowedFd<'_>,
    from: BorrowedFd<'_>,
    options: &ApplyOptions<'_>,
    progress: &dyn Progress,
) -> Result<Changes> {
    lay(root, from, upper::Source::Plain, options, progress)
}

fn lay(
    root: BorrowedFd<'_>,
    from: BorrowedFd<'_>,
    source: upper::Source,
    options: &ApplyOptions<'_>,
    progress: &dyn Progress,
) -> Result<Changes> {
    let mut tree = tree::Tree::new(root, options.limits, options.owners, hashes::Hasher::none())?;
    upper::lay(&mut tree, from, source, options.skip_devices, progress)?;
    tree.finish()?;
    Ok(Changes {
        entries: tree.entries,
        file_bytes: tree.file_bytes,
        hashes: Hashes::default(),
        notes: tree.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::{Silent, tar_split};
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    fn archive() -> Vec<u8> {
        let mut to = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: u8, data: &[u8], link: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_size(data.len() as u64);
            header.set_mode(0o750);
            header.set_mtime(1_000_000_000);
            header.set_link_name_literal(link).unwrap();
            header.set_uid(0);
            header.set_gid(0);
            to.append_data(&mut header, name, data).unwrap();
        };
        add("dir", b'5', b"", "");
        add("dir/file", b'0', &[7; 100_000], "");
        add("dir/again", b'1', b"", "dir/file");
        add("gone", b'0', b"data of a file that goes", "");
        add(".wh.gone", b'0', b"", "");
        add("dir/link", b'2', b"", "file");
        to.into_inner().unwrap()
    }

    #[test]
    fn an_archive_becomes_a_tree_and_the_archive_again() {
        let temp = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = File::open(temp.path()).unwrap();
        let archive = archive();
        let mut split = Vec::new();
        let options = ApplyOptions {
            record: Some(&mut split),
            hash_files: true,
            ..ApplyOptions::default()
        };
        let applied = apply_tar(root.as_fd(), &archive[..], options, &Silent).unwrap();
        assert_eq!(applied.archive_bytes, archive.len() as u64);
        assert_eq!(applied.changes.entries, 6);
        let file = fs::metadata(temp.path().join("dir/file")).unwrap();
        assert_eq!(
            (file.len(), file.nlink(), file.mtime()),
            (100_000, 2, 1_000_000_000)
        );
        assert_eq!(
            fs::metadata(temp.path().join("dir")).unwrap().mtime(),
            1_000_000_000
        );
        assert!(applied.changes.hashes.get(file.ino()).unwrap().is_some());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        let mut again = Vec::new();
        tar_split::assemble(&split[..], root.as_fd(), &mut again).unwrap();
        assert!(again == archive);
        File::create(temp.path().join("dir/file"))
            .unwrap()
            .write_all(&[8; 100_000])
            .unwrap();
        tar_split::assemble(&split[..], root.as_fd(), std::io::sink()).unwrap_err();
    }
}
