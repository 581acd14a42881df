//! A full disk, and the memory that a load takes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::pack::{Image, Layer, Packing, tarred, usual_layers};
use super::shop::{Shop, arg};
use crate::common::need_root;

/// A small file system of its own, unmounted when it is dropped.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    fn new(options: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("plyfs-small-").tempdir().unwrap();
        let small = Self { dir };
        small.mount(options);
        small
    }

    fn mount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(self.dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "mount -o {options}");
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left something open.
        let status = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    if !need_root("a_full_disk_leaves_nothing") {
        return;
    }
    let mut layers = usual_layers();
    layers.push(Layer::new().file("large", vec![7; 3 << 20]).finish());
    let image = Image::new("large:1", layers);
    let archive = tarred(&image.oci(Packing::Gzip));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &archive).unwrap();
    let small = Small::new("size=64k");
    let mut failed = 0;
    for size in ["256k", "512k", "1m", "2m", "3m", "8m"] {
        small.mount(&format!("remount,size={size}"));
        let shop = Shop::within(small.path());
        let output = shop.run(&["image", "load", arg(file.path())]);
        if output.status.success() {
            shop.is_sound(1, 4);
            continue;
        }
        failed += 1;
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(why.contains("No space left"), "{size}: {why}");
        if shop.store().join("tmp").exists() {
            shop.is_empty();
        }
        // With room, the same command succeeds.
        small.mount("remount,size=16m");
        shop.ok(&["image", "load", arg(file.path())]);
        shop.is_sound(1, 4);
    }
    assert!((2..6).contains(&failed), "{failed} sizes were too small");
}

#[test]
fn no_inodes_left() {
    if !need_root("no_inodes_left") {
        return;
    }
    let layer = (0..300).fold(Layer::new(), |layer, n| layer.file(&format!("f{n}"), "x"));
    let archive = tarred(&Image::new("many:1", vec![layer.finish()]).docker_old());
    let small = Small::new("nr_inodes=200");
    let shop = Shop::within(small.path());
    let output = shop.fed(&["image", "load", "-"], &archive);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && why.contains("No space left"), "{why}");
    shop.is_empty();
    small.mount("remount,nr_inodes=1000");
    let output = shop.fed(&["image", "load", "-"], &archive);
    assert!(output.status.success(), "{output:?}");
    shop.is_sound(1, 1);
}

/// Runs the command, and answers the most memory it had (`VmHWM`), in bytes: what was seen every few milliseconds.
fn memory_of(mut command: Command, feed: impl FnOnce(&mut dyn Write) + Send) -> u64 {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    std::thread::scope(|scope| {
        scope.spawn(move || feed(&mut stdin));
        loop {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            if let Some(kib) = line.and_then(|line| line.split_whitespace().next()) {
                most = most.max(kib.parse::<u64>().unwrap() * 1024);
            }
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    });
    most
}

#[test]
fn memory_of_a_load_does_not_grow_with_the_layer() {
    if !need_root("memory_of_a_load_does_not_grow_with_the_layer") {
        return;
    }
    let shop = Shop::new();
    let entries = 40_000;
    let most = memory_of(
        shop.command(&["image", "import", "--tag", "large", "-"]),
        move |to| {
            let mut tar = tar::Builder::new(to);
            let mut add = |name: &str, kind: tar::EntryType, data: &mut dyn std::io::Read, size: u64| {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(kind);
                header.set_mode(0o755);
                header.set_size(size);
                tar.append_data(&mut header, name, data).unwrap();
            };
            for n in 0..entries {
                if n % 400 == 0 {
                    add(
                        &format!("d{}", n / 400),
                        tar::EntryType::Directory,
                        &mut std::io::empty(),
                        0,
                    );
                }
                let name = format!("d{}/a-file-with-a-name-of-usual-length-{n}", n / 400);
                add(&name, tar::EntryType::Regular, &mut b"data".as_slice(), 4);
            }
            let mut large = std::io::Read::take(std::io::repeat(5), 200 << 20);
            add("large", tar::EntryType::Regular, &mut large, 200 << 20);
            tar.finish().unwrap();
        },
    );
    eprintln!(
        "a load of 200 MiB in {entries} files took {} MiB of memory",
        most >> 20
    );
    assert!(most < 100 << 20, "{} MiB", most >> 20);
    let saved: PathBuf = "/dev/null".into();
    let most = memory_of(
        shop.command(&["image", "save", "-o", arg(&saved), "large"]),
        |_| {},
    );
    eprintln!("saving it took {} MiB", most >> 20);
    assert!(most < 100 << 20, "{} MiB", most >> 20);
}
