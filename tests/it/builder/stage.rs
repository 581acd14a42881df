//! A place for trees, in which every layer that is applied is also checked: the parent is what it was, the archive
//! can be made again, digests taken in passing are right.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use plyfs::builder::apply::{Applied, ApplyOptions, apply_tar};
use plyfs::builder::manifest::{Recording, record};
use plyfs::builder::{BuildError, Linker, Silent, clone_tree, tar_split, verify};

use crate::common::images::archive::{Item, Layer};
use crate::common::tree::{Tree, snapshot};

/// A temporary directory, gone when it is dropped.
pub struct Stage {
    dir: tempfile::TempDir,
}

/// A tree, and its manifest of birth.
pub struct Root {
    pub path: PathBuf,
    pub manifest: Vec<u8>,
    pub applied: Option<Applied>,
}

impl Root {
    pub fn fd(&self) -> File {
        File::open(&self.path).unwrap()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn tree(&self) -> Tree {
        snapshot(&self.path)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn names(&self) -> Vec<String> {
        let tree = self.tree();
        let names = tree.paths().into_iter().map(|path| path.display().to_string());
        names.collect()
    }

    /// The notes, one a line.
    pub fn notes(&self) -> Vec<String> {
        let notes = &self.applied.as_ref().unwrap().changes.notes.list;
        notes.iter().map(|(path, why)| format!("{path}: {why}")).collect()
    }

    /// The differences from the manifest.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        verify(self.fd().as_fd(), &self.manifest[..], 2, &Silent, &mut |fault| {
            faults.push(format!("{fault:?}"));
            Ok(())
        })
        .unwrap();
        faults
    }
}

fn manifest(root: &Path, known: Option<&plyfs::builder::apply::Hashes>) -> Vec<u8> {
    let mut text = Vec::new();
    let recording = Recording {
        known,
        ..Recording::default()
    };
    record(File::open(root).unwrap().as_fd(), recording, &mut text, &Silent).unwrap();
    text
}

impl Stage {
    pub fn new() -> Self {
        let within = std::env::var_os("PLYFS_TEST_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        let dir = tempfile::Builder::new()
            .prefix("plyfs-apply-")
            .tempdir_in(within)
            .unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn fresh(&self) -> PathBuf {
        let dir = tempfile::Builder::new()
            .prefix("root-")
            .tempdir_in(self.dir.path())
            .unwrap();
        // The stage removes it with everything else.
        dir.keep()
    }

    /// A clone of the parent, or an empty tree.
    pub fn clone_of(&self, parent: Option<&Root>) -> PathBuf {
        let path = self.fresh();
        if let Some(parent) = parent {
            let to = File::open(&path).unwrap();
            clone_tree(parent.fd().as_fd(), to.as_fd(), &Linker::new(), &Silent).unwrap();
        }
        path
    }

    /// A tree made of a layer.
    pub fn base(&self, items: &[Item]) -> Root {
        self.child(None, items)
    }

    /// A tree made of a parent and a layer.
    pub fn child<'p>(&self, parent: impl Into<Option<&'p Root>>, items: &[Item]) -> Root {
        self.archive(parent, &Layer::new(items).0)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Why a layer is refused.
    pub fn refusal<'p>(&self, parent: impl Into<Option<&'p Root>>, items: &[Item]) -> String {
        self.refused(parent, &Layer::new(items).0)
    }

    /// Why an archive is refused.
    pub fn refused<'p>(&self, parent: impl Into<Option<&'p Root>>, archive: &[u8]) -> String {
        match self.archive(parent, archive) {
            Ok(_) => panic!("it is not refused"),
            Err(error) => error.to_string(),
        }
    }

    /// A tree made of a parent and an uncompressed archive, checked in all ways that hold for every layer.
    pub fn archive<'p>(
        &self,
        parent: impl Into<Option<&'p Root>>,
        archive: &[u8],
    ) -> Result<Root, BuildError> {
        let parent = parent.into();
        let path = self.clone_of(parent);
        let root = File::open(&path).unwrap();
        let mut split = Vec::new();
        let options = ApplyOptions {
            record: Some(&mut split),
            hash_files: true,
            ..ApplyOptions::default()
        };
        let applied = apply_tar(root.as_fd(), archive, options, &Silent);
        if let Some(parent) = parent {
            assert_eq!(parent.faults(), [""; 0], "the parent was changed");
        }
        let applied = applied?;
        let digest = <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(archive));
        assert_eq!(applied.diff_id, digest);
        assert_eq!(applied.archive_bytes, archive.len() as u64);
        let mut again = Same { expected: archive };
        tar_split::assemble(&split[..], root.as_fd(), &mut again).unwrap();
        assert_eq!(again.expected.len(), 0, "the archive made again is shorter");
        let root = Root {
            manifest: manifest(&path, Some(&applied.changes.hashes)),
            path,
            applied: Some(applied),
        };
        assert_eq!(root.faults(), [""; 0], "the digests taken in passing are wrong");
        let strange = root.names().into_iter().find(|name| name.starts_with(".plyfs-"));
        assert_eq!(strange, None, "something was left in the tree");
        Ok(root)
    }

    /// A tree that a test makes by other means.
    pub fn adopt(&self, path: PathBuf) -> Root {
        Root {
            manifest: manifest(&path, None),
            path,
            applied: None,
        }
    }
}

/// Compares what is written.
struct Same<'a> {
    expected: &'a [u8],
}

impl Write for Same<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let rest = self.expected.strip_prefix(data);
        self.expected = rest.expect("the archive made again is another one");
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
