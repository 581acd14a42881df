//! Several processes on one store, and images in use.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::pack::{Image, Layer, Packing, tarred, usual_layers};
use super::shop::{PLYFS, Shop, arg};
use crate::common::layers::{is_mounted, servers_of};
use crate::common::need_root;

#[test]
fn many_load_one_image_at_once() {
    if !need_root("many_load_one_image_at_once") {
        return;
    }
    let image = Image::usual();
    for packing in [Packing::Plain, Packing::Gzip] {
        let shop = Shop::new();
        let file = shop.file("image.tar", tarred(&image.oci(packing)));
        let children: Vec<_> = (0..6)
            .map(|_| shop.spawn(&["image", "load", arg(&file)]))
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            assert_eq!(
                String::from_utf8(output.stdout).unwrap(),
                format!("usual:1 {}\n", image.id())
            );
        }
        shop.is_sound(1, 3);
    }
}

#[test]
fn different_images_on_one_base_at_once() {
    if !need_root("different_images_on_one_base_at_once") {
        return;
    }
    let shop = Shop::new();
    let children: Vec<_> = (0..5)
        .map(|n| {
            let top = Layer::new().file(&format!("own/{n}"), format!("{n}")).finish();
            let image = Image::new(&format!("image:{n}"), vec![usual_layers().remove(0), top]);
            let file = shop.file(&format!("{n}.tar"), tarred(&image.skopeo()));
            shop.spawn(&["image", "load", arg(&file)])
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    shop.is_sound(5, 6);
}

#[test]
fn loads_and_removals_at_once() {
    if !need_root("loads_and_removals_at_once") {
        return;
    }
    let shop = Shop::new();
    let image = Image::usual();
    let file = shop.file("image.tar", tarred(&image.docker_old()));
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (shop, file) = (&shop, &file);
            scope.spawn(move || {
                let name = format!("name:{n}");
                for _ in 0..6 {
                    shop.ok(&["image", "load", "--tag", &name, arg(file)]);
                    // Another one that loads it at this moment has it in use.
                    let output = shop.run(&["image", "rm", &name]);
                    let why = String::from_utf8_lossy(&output.stderr);
                    assert!(
                        output.status.success() || why.contains("in use by another process"),
                        "{why}"
                    );
                }
            });
        }
        let shop = &shop;
        scope.spawn(move || {
            for _ in 0..10 {
                shop.ok(&["system", "prune"]);
            }
        });
    });
    shop.ok(&["system", "check"]);
    for image in shop.json(&["image", "ls", "--json"]).as_array().unwrap() {
        shop.ok(&["image", "rm", "--force", image["id"].as_str().unwrap()]);
    }
    shop.is_empty();
}

#[test]
fn a_layer_in_use_is_not_removed() {
    if !need_root("a_layer_in_use_is_not_removed") {
        return;
    }
    let shop = Shop::new();
    let image = Image::usual();
    let file = shop.file("image.tar", tarred(&image.docker_old()));
    shop.ok(&["image", "load", arg(&file)]);
    let root = shop.root_of("usual:1");
    let layer = root.parent().unwrap();
    let lock = File::open(layer).unwrap();
    flock(&lock, FlockOperation::LockShared).unwrap();
    let why = shop.fails(&["image", "rm", "usual:1"]);
    assert!(
        why.contains("usual:1") && why.contains("in use") && why.contains("--force"),
        "{why}"
    );
    shop.is_sound(1, 3);
    // Pruned it is not either: the name is gone, the image stays until its layer is free.
    assert_eq!(
        shop.ok(&["image", "rm", "--force", "usual:1"]),
        "Untagged: usual:1\n"
    );
    shop.ok(&["system", "prune"]);
    assert_eq!(fs::read_to_string(root.join("app/main")).unwrap(), "run\n");
    drop(lock);
    shop.ok(&["system", "prune"]);
    shop.is_empty();
}

/// What is mounted on it goes when this is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            Command::new(PLYFS)
                .args(["umount", "--lazy"])
                .arg(&self.0)
                .status()
                .unwrap();
        }
    }
}

#[test]
fn a_mount_keeps_its_image_and_a_killed_one_frees_it() {
    if !need_root("a_mount_keeps_its_image_and_a_killed_one_frees_it") {
        return;
    }
    let shop = Shop::new();
    let image = Image::usual();
    let file = shop.file("image.tar", tarred(&image.docker_old()));
    shop.ok(&["image", "load", arg(&file)]);
    let view = shop.path("view");
    fs::create_dir(&view).unwrap();
    let root = shop.root_of("usual:1");
    let mounted = Mounted(view.clone());
    let output = Command::new(PLYFS)
        .args(["mount", "--read-only"])
        .args([&root, &view])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let why = shop.fails(&["image", "rm", "usual:1"]);
    assert!(why.contains(arg(&view)), "the mount is named: {why}");
    assert_eq!(fs::read_to_string(view.join("app/main")).unwrap(), "run\n");
    let servers = servers_of(&view);
    assert!(!servers.is_empty());
    for pid in servers {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    let start = Instant::now();
    while !shop.run(&["image", "rm", "usual:1"]).status.success() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "a killed mount keeps its image"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    shop.is_empty();
    drop(mounted);
}
