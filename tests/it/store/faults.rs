//! The command dies before each of its calls that change something, or that call fails (feature `fault-injection`).

use super::pack::{Image, Packing, tarred};
use super::shop::Shop;
use crate::common::need_root;

/// Tries the command with `verb` at every `step`-th call, until it comes through or `most` were tried; how many
/// trials there were.
fn each_call(
    verb: &str,
    errno: &str,
    (step, most): (usize, usize),
    arguments: &[&str],
    prepare: impl Fn(&Shop),
    before: (usize, usize),
    after: (usize, usize),
) -> usize {
    for trial in 0..most {
        let at = 1 + trial * step;
        let shop = Shop::new();
        prepare(&shop);
        let plan = shop.file("plan", format!("{verb} {at} {errno}"));
        let output = shop
            .command(arguments)
            .env("PLYFS_FAULT_FILE", &plan)
            .output()
            .unwrap();
        let through = output.status.success();
        if !through && verb == "errno" {
            let why = String::from_utf8_lossy(&output.stderr);
            assert!(why.starts_with("plyfs: "), "{arguments:?}, call {at}: {output:?}");
        }
        shop.ok(&["image", "ls"]);
        let found = (shop.names("images").len(), shop.names("overlay").len());
        assert!(
            found == before || found == after,
            "{arguments:?}, {verb} {at}: {found:?}, {output:?}"
        );
        shop.is_sound(found.0, found.1);
        if found == before || before.0 <= after.0 {
            shop.ok(arguments);
        }
        shop.is_sound(after.0, after.1);
        // A call whose failure does no harm lets it come through as well, so errors are tried to the end.
        if through && verb == "kill" {
            return trial;
        }
    }
    assert_ne!(verb, "kill", "{arguments:?} never came through");
    most
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
    if !need_root("faults: load") {
        return;
    }
    let arguments = ["image", "load", "image.tar"];
    let killed = each_call("kill", "", (9, 500), &arguments, usual, (0, 0), (1, 3));
    let failed = each_call("errno", "28", (9, killed), &arguments, usual, (0, 0), (1, 3));
    eprintln!("load: {killed} kills, {failed} errors");
    assert!(killed > 10 && failed == killed);
}

#[test]
fn remove() {
    if !need_root("faults: remove") {
        return;
    }
    let arguments = ["image", "rm", "usual:1"];
    let killed = each_call("kill", "", (3, 500), &arguments, loaded, (1, 3), (0, 0));
    let failed = each_call("errno", "5", (3, killed), &arguments, loaded, (1, 3), (0, 0));
    eprintln!("rm: {killed} kills, {failed} errors");
    assert!(killed > 10 && failed == killed);
}

#[test]
fn prune() {
    if !need_root("faults: prune") {
        return;
    }
    let prepare = |shop: &Shop| {
        loaded(shop);
        let other = Image::new("usual:1", vec![super::pack::usual_layers().remove(0)]);
        let file = shop.file("other.tar", tarred(&other.docker_old()));
        // It takes the name.
        shop.ok(&["image", "load", super::shop::arg(&file)]);
    };
    let killed = each_call(
        "kill",
        "",
        (3, 500),
        &["system", "prune"],
        prepare,
        (2, 3),
        (1, 1),
    );
    eprintln!("prune: {killed} kills");
    assert!(killed > 10);
}
