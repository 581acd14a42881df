//! A layer as a literal, and as a tar archive. Nothing is checked: an archive may be as odd as a test wants it.

use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// The time of an entry that says nothing else: 2021-03-04 05:06:07 UTC.
pub const MTIME: (i64, u32) = (1_614_834_367, 0);

/// What an entry is.
#[derive(Clone, Debug)]
pub enum What {
    Directory,
    File(Vec<u8>),
    /// A file with holes: its size, and where there is data. In the form of pax 1.0.
    Sparse(u64, Vec<(u64, Vec<u8>)>),
    /// The same in the old form of GNU tar, with at most four runs of data.
    OldSparse(u64, Vec<(u64, Vec<u8>)>),
    Symlink(Vec<u8>),
    Hard(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Item {
    pub path: Vec<u8>,
    pub what: What,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: (i64, u32),
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// Long names in GNU tar's own way, not in pax's.
    pub gnu: bool,
}

fn item(path: impl AsRef<[u8]>, what: What, mode: u32) -> Item {
    Item {
        path: path.as_ref().to_vec(),
        what,
        mode,
        uid: 0,
        gid: 0,
        mtime: MTIME,
        xattrs: Vec::new(),
        gnu: false,
    }
}

pub fn dir(path: impl AsRef<[u8]>) -> Item {
    item(path, What::Directory, 0o755)
}
pub fn file(path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Item {
    item(path, What::File(data.as_ref().to_vec()), 0o644)
}
pub fn sparse(path: impl AsRef<[u8]>, size: u64, runs: &[(u64, &[u8])]) -> Item {
    let runs = runs.iter().map(|(at, data)| (*at, data.to_vec())).collect();
    item(path, What::Sparse(size, runs), 0o644)
}
pub fn old_sparse(path: impl AsRef<[u8]>, size: u64, runs: &[(u64, &[u8])]) -> Item {
    let runs = runs.iter().map(|(at, data)| (*at, data.to_vec())).collect();
    item(path, What::OldSparse(size, runs), 0o644)
}
pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    item(path, What::Symlink(target.as_ref().to_vec()), 0o777)
}
pub fn hard(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    item(path, What::Hard(target.as_ref().to_vec()), 0o644)
}
pub fn chr(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Item {
    item(path, What::Char(major, minor), 0o666)
}
pub fn blk(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Item {
    item(path, What::Block(major, minor), 0o660)
}
pub fn fifo(path: impl AsRef<[u8]>) -> Item {
    item(path, What::Fifo, 0o640)
}
/// An empty file, as whiteouts are.
pub fn mark(path: impl AsRef<[u8]>) -> Item {
    file(path, "").mode(0)
}

impl Item {
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
    pub fn own(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }
    pub fn at(mut self, seconds: i64, nanoseconds: u32) -> Self {
        self.mtime = (seconds, nanoseconds);
        self
    }
    pub fn xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.xattrs.push((name.into(), value.as_ref().to_vec()));
        self
    }
    pub fn gnu(mut self) -> Self {
        self.gnu = true;
        self
    }

    fn write(&self, to: &mut Vec<u8>) {
        let (kind, target) = match &self.what {
            What::Directory => (EntryType::Directory, &[][..]),
            What::File(_) | What::Sparse(..) => (EntryType::Regular, &[][..]),
            What::OldSparse(..) => (EntryType::GNUSparse, &[][..]),
            What::Symlink(target) => (EntryType::Symlink, &target[..]),
            What::Hard(target) => (EntryType::Link, &target[..]),
            What::Char(..) => (EntryType::Char, &[][..]),
            What::Block(..) => (EntryType::Block, &[][..]),
            What::Fifo => (EntryType::Fifo, &[][..]),
        };
        let mut path = self.path.clone();
        if kind == EntryType::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut records = Vec::new();
        if self.mtime.1 != 0 || self.mtime.0 < 0 || self.mtime.0 >= 1 << 33 {
            record(&mut records, "mtime", pax_time(self.mtime).as_bytes());
        }
        for (word, id) in [("uid", self.uid), ("gid", self.gid)] {
            if id > 0o7_777_777 {
                record(&mut records, word, id.to_string().as_bytes());
            }
        }
        for (name, value) in &self.xattrs {
            record(&mut records, &format!("SCHILY.xattr.{name}"), value);
        }
        for (word, long, kind) in [("path", &path[..], b'L'), ("linkpath", target, b'K')] {
            if long.len() <= 100 {
                continue;
            }
            if self.gnu {
                let mut data = long.to_vec();
                data.push(0);
                entry(to, &mut gnu_header(b"././@LongLink", kind), &data);
            } else {
                record(&mut records, word, long);
            }
        }

        let (mut data, mut header) = (Vec::new(), Header::new_ustar());
        match &self.what {
            What::File(content) => data.clone_from(content),
            What::Sparse(size, runs) => {
                record(&mut records, "GNU.sparse.major", b"1");
                record(&mut records, "GNU.sparse.minor", b"0");
                record(&mut records, "GNU.sparse.name", &path);
                record(&mut records, "GNU.sparse.realsize", size.to_string().as_bytes());
                data = format!("{}\n", runs.len()).into_bytes();
                for (at, run) in runs {
                    data.extend(format!("{at}\n{}\n", run.len()).bytes());
                }
                pad(&mut data);
                data.extend(runs.iter().flat_map(|(_, run)| run));
                path = b"GNUSparseFile.0/sparse".to_vec();
            }
            What::OldSparse(size, runs) => {
                header = Header::new_gnu();
                let gnu = header.as_gnu_mut().unwrap();
                for (slot, (at, run)) in gnu.sparse.iter_mut().zip(runs) {
                    slot.set_offset(*at);
                    slot.set_length(run.len() as u64);
                }
                gnu.set_real_size(*size);
                data.extend(runs.iter().flat_map(|(_, run)| run));
            }
            What::Char(major, minor) | What::Block(major, minor) => {
                header.set_device_major(*major).unwrap();
                header.set_device_minor(*minor).unwrap();
            }
            _ => {}
        }
        if !records.is_empty() {
            let mut pax = Header::new_ustar();
            pax.set_entry_type(EntryType::XHeader);
            pax.set_mode(0o644);
            put(&mut pax.as_old_mut().name, b"PaxHeaders/entry");
            entry(to, &mut pax, &records);
        }
        header.set_entry_type(kind);
        header.set_mode(self.mode);
        header.set_uid(self.uid.min(0o7_777_777));
        header.set_gid(self.gid.min(0o7_777_777));
        header.set_mtime(self.mtime.0.clamp(0, (1 << 33) - 1).try_into().unwrap());
        put(&mut header.as_old_mut().name, &path);
        put(&mut header.as_old_mut().linkname, target);
        entry(to, &mut header, &data);
    }
}

fn gnu_header(name: &[u8], kind: u8) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::new(kind));
    put(&mut header.as_old_mut().name, name);
    header
}

/// As much of a name as its field holds.
fn put(field: &mut [u8; 100], name: &[u8]) {
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
}

fn entry(to: &mut Vec<u8>, header: &mut Header, data: &[u8]) {
    header.set_size(data.len() as u64);
    header.set_cksum();
    to.extend(header.as_bytes());
    to.extend(data);
    pad(to);
}

fn pad(to: &mut Vec<u8>) {
    to.resize(to.len().next_multiple_of(BLOCK), 0);
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(to: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    to.extend(format!("{length} {key}=").bytes());
    to.extend(value);
    to.push(b'\n');
}

/// A time before 1970 counts backwards from zero, as pax wants it.
fn pax_time((seconds, nanoseconds): (i64, u32)) -> String {
    if seconds < 0 && nanoseconds != 0 {
        format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
    } else if nanoseconds != 0 {
        format!("{seconds}.{nanoseconds:09}")
    } else {
        seconds.to_string()
    }
}

/// One layer, as the bytes of its uncompressed archive.
#[derive(Clone, Debug)]
pub struct Layer(pub Vec<u8>);

impl Layer {
    pub fn new(items: &[Item]) -> Self {
        let mut bytes = Vec::new();
        for item in items {
            item.write(&mut bytes);
        }
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        Layer(bytes)
    }
}

/// An archive of plain files with these names, for the image's own outer archive: `Ok` data, or `Err` the target
/// of a symlink.
pub fn outer(entries: &[(String, Result<Vec<u8>, String>)]) -> Vec<u8> {
    let items: Vec<_> = entries
        .iter()
        .map(|(path, what)| match what {
            Ok(data) => file(path, data),
            Err(target) => symlink(path, target),
        })
        .collect();
    Layer::new(&items).0
}

#[test]
fn other_tar_programs_read_what_is_written() {
    let long = "d/".repeat(80) + "name";
    let items = [
        dir("d").mode(0o750).own(7, 8),
        file("d/f", "text").at(-2, 0),
        hard("d/h", "d/f"),
        symlink("s", "x".repeat(300)),
        file(&long, "long"),
        file(&long, "long").gnu(),
        sparse("sparse", 1 << 20, &[(4096, b"one"), (1 << 19, b"two")]),
        old_sparse("old", 1 << 20, &[(4096, b"one")]),
        chr("c", 1, 3),
        file("owned", "").own(3_000_000_000, 5),
    ];
    let mut child = std::process::Command::new("tar")
        .args([
            "--list",
            "--verbose",
            "--numeric-owner",
            "--utc",
            "--full-time",
            "--file=-",
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Write as _;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&Layer::new(&items).0)
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let lines: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert!(output.status.success());
    let expected = [
        "drwxr-x--- 7/8 0 2021-03-04 05:06:07 d/".to_owned(),
        "-rw-r--r-- 0/0 4 1969-12-31 23:59:58 d/f".into(),
        "hrw-r--r-- 0/0 0 2021-03-04 05:06:07 d/h link to d/f".into(),
        format!("lrwxrwxrwx 0/0 0 2021-03-04 05:06:07 s -> {}", "x".repeat(300)),
        format!("-rw-r--r-- 0/0 4 2021-03-04 05:06:07 {long}"),
        format!("-rw-r--r-- 0/0 4 2021-03-04 05:06:07 {long}"),
        "-rw-r--r-- 0/0 1048576 2021-03-04 05:06:07 sparse".into(),
        "-rw-r--r-- 0/0 1048576 2021-03-04 05:06:07 old".into(),
        "crw-rw-rw- 0/0 1,3 2021-03-04 05:06:07 c".into(),
        "-rw-r--r-- 3000000000/5 0 2021-03-04 05:06:07 owned".into(),
    ];
    assert_eq!(lines, expected);
}
