//! kill -9 at any moment: the store opens, is sound, holds nothing that nobody needs; and the same command succeeds.

use std::time::Instant;

use super::pack::{Image, Packing, tarred, usual_layers};
use super::shop::{Shop, arg};
use crate::common::need_root;

/// Kills the command at moments spread over the time it takes, each time from where `prepare` leaves the store;
/// `before` and `after` are the two states allowed: images and layers.
fn killed(
    name: &str,
    arguments: &[&str],
    prepare: impl Fn(&Shop),
    before: (usize, usize),
    after: (usize, usize),
) {
    const TRIALS: u32 = 15;
    // The first run is slower than the others: with its time most moments would lie behind the end.
    let whole = (0..3)
        .map(|_| {
            let shop = Shop::new();
            prepare(&shop);
            let start = Instant::now();
            shop.ok(arguments);
            let whole = start.elapsed();
            shop.is_sound(after.0, after.1);
            whole
        })
        .min()
        .unwrap();
    let (mut early, mut late) = (0, 0);
    for trial in 0..TRIALS {
        let shop = Shop::new();
        prepare(&shop);
        let mut child = shop.spawn(arguments);
        std::thread::sleep(whole * trial / TRIALS);
        child.kill().unwrap();
        child.wait().unwrap();
        // Opening it tidies up.
        shop.ok(&["image", "ls"]);
        let found = (shop.names("images").len(), shop.names("overlay").len());
        assert!(
            found == before || found == after,
            "{name}, trial {trial}: {found:?}"
        );
        if found == before {
            early += 1;
        } else {
            late += 1;
        }
        shop.is_sound(found.0, found.1);
        // A removal that was done cannot be repeated, and an import makes another image each time.
        if found == before || name == "load" {
            shop.ok(arguments);
        }
        shop.is_sound(after.0, after.1);
    }
    eprintln!("{name}: {early} trials as before, {late} as after, in {whole:?}");
}

fn usual(shop: &Shop) {
    shop.file("image.tar", tarred(&Image::usual().oci(Packing::Gzip)));
}

fn loaded(shop: &Shop) {
    usual(shop);
    shop.ok(&["image", "load", "image.tar"]);
}

#[test]
fn load() {
    if !need_root("crash: load") {
        return;
    }
    killed("load", &["image", "load", "image.tar"], usual, (0, 0), (1, 3));
}

#[test]
fn import() {
    if !need_root("crash: import") {
        return;
    }
    let prepare = |shop: &Shop| {
        shop.file("root.tar", &usual_layers()[0]);
    };
    killed(
        "import",
        &["image", "import", "--tag", "a", "root.tar"],
        prepare,
        (0, 0),
        (1, 1),
    );
}

#[test]
fn remove() {
    if !need_root("crash: remove") {
        return;
    }
    killed("rm", &["image", "rm", "usual:1"], loaded, (1, 3), (0, 0));
}

#[test]
fn prune() {
    if !need_root("crash: prune") {
        return;
    }
    let prepare = |shop: &Shop| {
        loaded(shop);
        let other = Image::new("usual:1", vec![usual_layers().remove(0)]);
        let file = shop.file("other.tar", tarred(&other.docker_old()));
        // It takes the name.
        shop.ok(&["image", "load", arg(&file)]);
    };
    killed("prune", &["system", "prune"], prepare, (2, 3), (1, 1));
}

/// Rubbish of every kind in tmp/ is gone when the store is next opened, with directories nobody may write.
#[test]
fn rubbish() {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    if !need_root("crash: rubbish") {
        return;
    }
    let shop = Shop::new();
    loaded(&shop);
    let tmp = shop.store().join("tmp");
    let deep = (0..300).fold(tmp.join("0123456789abcdef"), |path, _| path.join("deep"));
    fs::create_dir_all(&deep).unwrap();
    for (at, name) in ["file", "birth-x", "doubt-layer-x", "doubt-image-00-x"]
        .iter()
        .enumerate()
    {
        fs::write(tmp.join(name), vec![0; at * 1000]).unwrap();
    }
    std::os::unix::fs::symlink("/etc", tmp.join("link")).unwrap();
    let closed = tmp.join("0123456789abcdef/deep/deep");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    shop.ok(&["image", "ls"]);
    shop.is_sound(1, 3);
    assert!(fs::metadata("/etc/passwd").is_ok());
}
