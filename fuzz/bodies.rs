//! What is tried with each input: by libFuzzer in `fuzz_targets/`, and with fixed mutations of the corpus by the
//! ordinary test `tests/it/fuzz.rs`. A panic is a finding.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use plyfs::builder::apply::entries::Entries;
use plyfs::builder::apply::{ApplyOptions, Limits, Owners, apply_tar, decompressed};
use plyfs::builder::{Linker, Silent, clone_tree, remove, tar_split};
use plyfs::format::{Marks, Namespace};
use plyfs::store::{LoadOptions, Source, Store};
use plyfs::sys::xattr::Target;

/// Small, so that an input cannot keep the fuzzer waiting.
const LIMITS: Limits = Limits {
    entries: 500,
    bytes: 4 << 20,
};

/// A layer archive over a parent: it is refused, or the tree holds no mark of an overlay, the archive can be made
/// again, and in both cases parent and neighbours are what they were.
pub fn layer_archive(data: &[u8]) {
    let data = &repaired(data)[..];
    read_entries(data);
    let ground = Ground::new();
    let before = Ground::state(&ground.dir.path().join("parent"));
    let root_path = ground.dir.path().join("root");
    fs::create_dir(&root_path).unwrap();
    let root = File::open(&root_path).unwrap();
    let parent = File::open(ground.dir.path().join("parent")).unwrap();
    clone_tree(parent.as_fd(), root.as_fd(), &Linker::new(), &Silent).unwrap();
    let mut split = Vec::new();
    let options = ApplyOptions {
        limits: LIMITS,
        record: Some(&mut split),
        hash_files: true,
        skip_devices: true,
        owners: Owners::Mine,
        ..ApplyOptions::default()
    };
    let applied = apply_tar(root.as_fd(), data, options, &Silent);
    assert_eq!(
        before,
        Ground::state(&ground.dir.path().join("parent")),
        "the parent was changed"
    );
    assert_eq!(
        ground.names(),
        ["parent", "root", "sentinel"],
        "something lies outside of the root"
    );
    assert_eq!(
        fs::read(ground.dir.path().join("sentinel")).unwrap(),
        b"untouched"
    );
    if let Ok(applied) = applied {
        let mut plain = Vec::new();
        decompressed(data).unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!(applied.archive_bytes, plain.len() as u64);
        let mut again = Vec::new();
        tar_split::assemble(&split[..], root.as_fd(), &mut again).unwrap();
        assert!(again == plain, "the archive made again is another one");
        no_marks(&root_path);
    }
    remove::remove_tree(File::open(ground.dir.path()).unwrap().as_fd(), b"root").unwrap();
}

/// The record that an archive is made from again: an error, or the archive.
pub fn tar_split(data: &[u8]) {
    let ground = Ground::new();
    let parent = File::open(ground.dir.path().join("parent")).unwrap();
    let made = tar_split::assemble(data, parent.as_fd(), Bounded(8 << 20));
    // What is not zstd gets no further: it is tried as what would be in it, too.
    if made.is_err() {
        let packed = compressed(data);
        drop(tar_split::assemble(&packed[..], parent.as_fd(), Bounded(8 << 20)));
    }
}

/// An image archive: loaded, or refused with nothing left in the store.
pub fn image_archive(data: &[u8]) {
    let data = repaired(data);
    let ground = Ground::new();
    let mut store = Store::open(&ground.dir.path().join("store")).unwrap();
    store.set_limits(LIMITS);
    let source = Source::Stream(Box::new(Cursor::new(data)));
    let loaded = store.load(source, &LoadOptions::default(), &Silent);
    drop(store);
    let count =
        |name: &str| fs::read_dir(ground.dir.path().join("store").join(name)).map_or(0, Iterator::count);
    assert_eq!(count("tmp"), 0, "something is left in tmp");
    if loaded.is_err() {
        assert_eq!(
            (count("overlay"), count("images")),
            (0, 0),
            "something is left of a refused image"
        );
    }
    assert_eq!(ground.names(), ["parent", "sentinel", "store"]);
}

/// The entries alone, with all their data.
fn read_entries(data: &[u8]) {
    let mut entries = Entries::new(data)
        .limited(LIMITS.bytes, "--max-bytes")
        .keeping_raw();
    let mut total = 0;
    while let Ok(Some(entry)) = entries.next() {
        total += entries.take_raw().len();
        assert!(entry.permissions <= 0o7777 && entry.size <= i64::MAX as u64);
        if let Some(extents) = &entry.extents {
            let mut end = 0;
            for extent in extents {
                assert!(extent.offset >= end && extent.length > 0);
                end = extent.offset + extent.length;
            }
            assert!(end <= entry.size);
        }
        match std::io::copy(&mut entries, &mut std::io::sink()) {
            Ok(bytes) => total += bytes as usize,
            Err(_) => break,
        }
    }
    assert!(total <= data.len());
    assert!(entries.position() <= data.len() as u64);
}

/// An input of odd length has the checksums of its headers put right, or hardly any would come past them.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    if data.len() % 2 == 1 {
        for block in data.chunks_exact_mut(512) {
            if &block[257..262] == b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        data.pop();
    }
    data
}

/// A zstd frame of raw blocks: valid, and without a compressor.
fn compressed(data: &[u8]) -> Vec<u8> {
    // Magic, a descriptor of nothing, a window of 128 KiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    let magic = b"plyfs tar-split 1\n";
    let data = [&magic[..], data].concat();
    let chunks: Vec<_> = data.chunks(100_000).collect();
    for (at, chunk) in chunks.iter().enumerate() {
        let last = u32::from(at + 1 == chunks.len());
        let header = last | (chunk.len() as u32) << 3;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(*chunk);
    }
    frame
}

/// Takes so many bytes.
struct Bounded(usize);

impl std::io::Write for Bounded {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let left = self.0.checked_sub(data.len());
        self.0 = left.ok_or_else(|| std::io::Error::other("enough"))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A directory with a parent in it, and a file beside that must stay what it is.
struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        // In memory where that can be: the disk is not what is tried here.
        let usual = || {
            PathBuf::from(if Path::new("/dev/shm").is_dir() {
                "/dev/shm"
            } else {
                "/var/tmp"
            })
        };
        let within = std::env::var_os("PLYFS_TEST_DIR").map_or_else(usual, PathBuf::from);
        let dir = tempfile::Builder::new()
            .prefix("plyfs-fuzz-")
            .tempdir_in(within)
            .unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("sentinel"), "untouched").unwrap();
        fs::create_dir_all(at("parent/d/e")).unwrap();
        fs::write(at("parent/d/f"), "the text of f").unwrap();
        fs::hard_link(at("parent/d/f"), at("parent/d/e/g")).unwrap();
        fs::write(at("parent/top"), "top").unwrap();
        std::os::unix::fs::symlink("d", at("parent/s")).unwrap();
        Self { dir }
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Everything that must not change. Link counts do, and change times with them.
    fn state(path: &Path) -> Vec<String> {
        let meta = fs::symlink_metadata(path).unwrap();
        let mut state = vec![format!(
            "{} {} {:o} {} {} {}.{}",
            path.display(),
            meta.ino(),
            meta.mode(),
            meta.uid(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec()
        )];
        if meta.is_file() {
            state.push(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
        }
        if meta.is_dir() {
            let mut paths: Vec<_> = fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            paths.sort();
            state.extend(paths.iter().flat_map(|path| Self::state(path)));
        }
        state
    }
}

/// Nothing in a layer may act as a mark of an overlay, and nothing of ours may be left in it.
fn no_marks(root: &Path) {
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        // A path that is too long for this walk is none for the check, but was one for the builder.
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = meta.file_type();
        assert!(
            !kind.is_char_device() || meta.rdev() != 0,
            "{path:?} is a whiteout"
        );
        if let Some(name) = path.file_name().filter(|_| path != root) {
            let name = name.to_string_lossy();
            assert!(
                !name.starts_with(".wh.") && !name.starts_with(".plyfs-"),
                "{path:?}"
            );
        }
        if !kind.is_dir() {
            continue;
        }
        let Ok(dir) = File::open(&path) else { continue };
        for namespace in [Namespace::Trusted, Namespace::User] {
            assert_eq!(
                namespace.read(Target::Fd(dir.as_fd())),
                Ok(Marks::default()),
                "{path:?}"
            );
        }
        for entry in fs::read_dir(&path).unwrap() {
            todo.push(entry.unwrap().path());
        }
    }
}
