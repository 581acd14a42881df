//! Image archives that lie, lead astray, or are damaged: refused by name, with nothing left.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::pack::{
    Image, Layer, Member, Members, Packing, blob, digest, laid_out, layout, sha, tarred, usual_layers,
};
use super::shop::{Shop, arg};
use crate::common::need_root;

/// Refused, from a file and from a stream, with each of these words in the message; and nothing is left.
fn refused(shop: &Shop, what: &str, archive: &[u8], words: &[&str]) {
    let file = shop.file("hostile.tar", archive);
    let output = shop.run(&["image", "load", arg(&file)]);
    let stream = shop.fed(&["image", "load", "-"], archive);
    for output in [output, stream] {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
        for word in words {
            assert!(why.contains(word), "{what}: '{word}' is not in: {why}");
        }
        assert!(output.stdout.is_empty(), "{what}: {output:?}");
        shop.is_empty();
    }
}

fn replace(members: &Members, name: &str, data: &[u8]) -> Members {
    let mut members = members.clone();
    let there = members.iter_mut().find(|(known, _)| known == name).unwrap();
    there.1 = Member::File(data.to_vec());
    members
}

fn without(members: &Members, name: &str) -> Members {
    let mut members = members.clone();
    members.retain(|(known, _)| known != name);
    members
}

fn content<'a>(members: &'a Members, name: &str) -> &'a [u8] {
    match &members.iter().find(|(known, _)| known == name).unwrap().1 {
        Member::File(data) => data,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn blobs_missing_or_with_another_digest() {
    if !need_root("blobs_missing_or_with_another_digest") {
        return;
    }
    let shop = Shop::new();
    let image = Image::usual();
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let members = image.oci(packing);
        let blobs: Vec<String> = members
            .iter()
            .map(|(name, _)| name.clone())
            .filter(|name| name.starts_with("blobs/"))
            .collect();
        assert_eq!(blobs.len(), 5);
        for name in &blobs {
            let what = format!("{packing:?} {name}");
            refused(
                &shop,
                &what,
                &tarred(&without(&members, name)),
                &[name, "missing"],
            );
            // The last byte, which no reader of a layer needs.
            let mut changed = content(&members, name).to_vec();
            *changed.last_mut().unwrap() ^= 1;
            refused(&shop, &what, &tarred(&replace(&members, name, &changed)), &[name]);
            let mut longer = content(&members, name).to_vec();
            longer.push(b' ');
            refused(&shop, &what, &tarred(&replace(&members, name, &longer)), &[name]);
        }
    }
    // A compressed layer whose blob is right, but not its diff id.
    let mut other = image.clone();
    other.layers[2] = Layer::new().file("app/other", "other\n").finish();
    let mut members = other.blobs(Packing::Gzip);
    members.retain(|(name, _)| !name.ends_with(&sha(&other.config)));
    members.push(blob(&image.config));
    let members = layout(members, &[other.descriptor(Packing::Gzip)]);
    refused(
        &shop,
        "diff id",
        &tarred(&members),
        &[&image.diffs()[2], &digest(&other.layers[2])],
    );

    for members in [image.docker_old(), image.skopeo()] {
        let config = format!("{}.json", sha(&image.config));
        let changed = [image.config.as_slice(), b" "].concat();
        refused(
            &shop,
            "config",
            &tarred(&replace(&members, &config, &changed)),
            &[&config, "digest"],
        );
        refused(
            &shop,
            "config",
            &tarred(&without(&members, &config)),
            &[&config, "missing"],
        );
        let layer = members
            .iter()
            .rfind(|(name, member)| name.ends_with(".tar") && matches!(member, Member::File(_)))
            .map(|(name, _)| name.clone())
            .unwrap();
        refused(
            &shop,
            "layer",
            &tarred(&without(&members, &layer)),
            &["layer", "missing"],
        );
        let wrong = Layer::new().file("x", "x").finish();
        refused(
            &shop,
            "layer",
            &tarred(&replace(&members, &layer, &wrong)),
            &[&image.diffs()[2]],
        );
    }
}

#[test]
fn cut_short_at_any_place() {
    if !need_root("cut_short_at_any_place") {
        return;
    }
    let shop = Shop::new();
    let image = Image::usual();
    for members in [image.oci(Packing::Gzip), image.docker_old(), image.skopeo()] {
        let archive = tarred(&members);
        // The last two blocks are the end mark: everything is there without them.
        let end = archive.len() - 1024;
        for length in (0..end - 512).step_by(end / 23) {
            refused(&shop, &format!("{length} of {end}"), &archive[..length], &[]);
        }
    }
    let packed = super::pack::gzip(&tarred(&image.docker_old()));
    for length in (0..packed.len() - 9).step_by(packed.len() / 11) {
        refused(&shop, "compressed", &packed[..length], &[]);
    }
    refused(
        &shop,
        "no archive",
        &b"nothing like it ".repeat(200),
        &["no tar archive"],
    );
    refused(&shop, "xz", b"\xfd7zXZ\0 and so on", &["xz"]);
    refused(&shop, "a layer", &usual_layers()[0], &["image import"]);
}

#[test]
fn links_that_lead_out() {
    if !need_root("links_that_lead_out") {
        return;
    }
    let shop = Shop::new();
    let image = Image::usual();
    let outside = shop.file("outside", &image.layers[0]);
    let layer = |target: &str| {
        let mut members = image.skopeo();
        for (name, member) in &mut members {
            if name.ends_with("/layer.tar")
                && matches!(member, Member::Link(to) if to.contains(&sha(&image.layers[0])))
            {
                *member = Member::Link(target.to_owned());
            }
        }
        tarred(&members)
    };
    for target in [
        arg(&outside),
        "../../outside",
        "../../../../../../etc/passwd",
        "/etc/passwd",
    ] {
        refused(&shop, target, &layer(target), &["layer.tar"]);
    }
    let own = image
        .skopeo()
        .iter()
        .find(|(name, _)| name.ends_with("/layer.tar"))
        .unwrap()
        .0
        .clone();
    refused(&shop, "to itself", &layer(&format!("../{own}")), &["link"]);
    for config in ["../outside", "/etc/passwd", "a/../../outside"] {
        let manifest = json!([{"Config": config, "RepoTags": ["a:1"], "Layers": []}]).to_string();
        let members = vec![("manifest.json".to_owned(), Member::File(manifest.into_bytes()))];
        refused(&shop, config, &tarred(&members), &[config]);
    }

    // In a directory.
    let members = image.oci(Packing::Plain);
    let victims = [
        blob(&image.layers[0]).0,
        blob(&image.config).0,
        "index.json".to_owned(),
    ];
    for victim in &victims {
        let dir = shop.path("layout");
        laid_out(&members, &dir);
        fs::rename(dir.join(victim), shop.path("moved")).unwrap();
        symlink(shop.path("moved"), dir.join(victim)).unwrap();
        let why = shop.fails(&["image", "load", "layout"]);
        assert!(why.contains(victim) && why.contains("symbolic link"), "{why}");
        shop.is_empty();
        fs::remove_dir_all(&dir).unwrap();
    }
    let dir = shop.path("layout");
    laid_out(&members, &dir);
    fs::rename(dir.join("blobs/sha256"), shop.path("away")).unwrap();
    symlink(shop.path("away"), dir.join("blobs/sha256")).unwrap();
    let why = shop.fails(&["image", "load", "layout"]);
    assert!(why.contains("symbolic link"), "{why}");
    shop.is_empty();
}

/// A layout with one image whose descriptor, manifest or config is changed.
fn changed(image: &Image, change: impl Fn(&mut Value, &mut Value)) -> Vec<u8> {
    let mut config: Value = serde_json::from_slice(&image.config).unwrap();
    let mut manifest: Value = serde_json::from_slice(&image.manifest(Packing::Plain)).unwrap();
    change(&mut manifest, &mut config);
    let config = config.to_string().into_bytes();
    if manifest["config"]["digest"] == digest(&image.config) {
        manifest["config"]["digest"] = digest(&config).into();
        manifest["config"]["size"] = config.len().into();
    }
    let manifest = manifest.to_string().into_bytes();
    let mut blobs: Members = image.layers.iter().map(|layer| blob(layer)).collect();
    blobs.extend([blob(&config), blob(&manifest)]);
    let descriptor = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest(&manifest), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "changed"},
    });
    tarred(&layout(blobs, &[descriptor]))
}

#[test]
fn what_is_no_image() {
    if !need_root("what_is_no_image") {
        return;
    }
    let shop = Shop::new();
    let image = Image::usual();
    let say = |what: &str, words: &[&str], change: &dyn Fn(&mut Value, &mut Value)| {
        refused(&shop, what, &changed(&image, change), words);
    };
    say(
        "fewer layers in the manifest",
        &["3 layers", "the manifest 2"],
        &|manifest, _| {
            manifest["layers"].as_array_mut().unwrap().pop();
        },
    );
    say("encrypted", &["encrypted"], &|manifest, _| {
        manifest["layers"][1]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+encrypted".into();
    });
    say(
        "unknown layer type",
        &["application/x-made-up"],
        &|manifest, _| {
            manifest["layers"][1]["mediaType"] = "application/x-made-up".into();
        },
    );
    say("no image", &["application/x-sbom", "--ref"], &|manifest, _| {
        manifest["config"]["mediaType"] = "application/x-sbom".into();
    });
    say("another algorithm", &["sha512"], &|manifest, _| {
        manifest["layers"][0]["digest"] = format!("sha512:{}", "0".repeat(128)).into();
    });
    say("a path as digest", &["sha256:../../"], &|manifest, _| {
        manifest["layers"][0]["digest"] = format!("sha256:../../{}", "x".repeat(58)).into();
    });
    say("a wrong size", &["size"], &|manifest, _| {
        manifest["layers"][0]["size"] = 17.into();
    });
    say("an old schema", &["schema version is 1"], &|manifest, _| {
        manifest["schemaVersion"] = 1.into();
    });
    say("no rootfs", &["rootfs"], &|_, config| {
        config.as_object_mut().unwrap().remove("rootfs");
    });
    say("a file system of another type", &["'other'"], &|_, config| {
        config["rootfs"]["type"] = "other".into();
    });
    say("a diff id that is none", &["sha256:zz"], &|_, config| {
        config["rootfs"]["diff_ids"][0] = "sha256:zz".into();
    });
    say(
        "a foreign layer that is not there",
        &["missing"],
        &|manifest, config| {
            let foreign = b"elsewhere";
            manifest["layers"][2] = json!({
                "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": digest(foreign),
                "size": 9, "urls": ["https://example.org/layer"],
            });
            config["rootfs"]["diff_ids"][2] = digest(foreign).into();
        },
    );
}

#[test]
fn too_much() {
    if !need_root("too_much") {
        return;
    }
    let shop = Shop::new();
    let huge = format!("[{}1]", " ".repeat(5 << 20));
    for name in ["index.json", "manifest.json"] {
        let members = vec![(name.to_owned(), Member::File(huge.clone().into_bytes()))];
        refused(&shop, name, &tarred(&members), &[name, "limit"]);
    }
    let descriptor = Image::usual().descriptor(Packing::Plain);
    let many: Vec<Value> = std::iter::repeat_n(descriptor, 1001).collect();
    refused(
        &shop,
        "many manifests",
        &tarred(&layout(vec![], &many)),
        &["1000"],
    );

    // Indexes in indexes, without end.
    let mut blobs = Members::new();
    let mut inner = b"{}".to_vec();
    for _ in 0..8 {
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(&inner), "size": inner.len(),
        }]});
        blobs.push(blob(&inner));
        inner = index.to_string().into_bytes();
    }
    blobs.push(blob(&inner));
    let outer = json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(&inner), "size": inner.len(),
    });
    refused(
        &shop,
        "deep indexes",
        &tarred(&layout(blobs, &[outer])),
        &["deeper"],
    );

    // A layer of few bytes that would be many: the limit says which option raises it.
    let bomb = Layer::new().file("zeros", vec![0; 8 << 20]).finish();
    let archive = tarred(&Image::new("bomb:1", vec![bomb]).oci(Packing::Gzip));
    assert!(archive.len() < 128 << 10);
    let file = shop.file("bomb.tar", &archive);
    let why = shop.fails(&["image", "load", "--max-bytes", "1000000", arg(&file)]);
    assert!(why.contains("1000000") && why.contains("--max-bytes"), "{why}");
    shop.is_empty();
    let why = shop.fails(&["image", "load", "--max-entries", "0", arg(&file)]);
    assert!(why.contains("--max-entries"), "{why}");
    shop.is_empty();
    shop.ok(&["image", "load", arg(&file)]);
}

#[test]
fn a_bad_layer_takes_the_whole_load_with_it() {
    if !need_root("a_bad_layer_takes_the_whole_load_with_it") {
        return;
    }
    let shop = Shop::new();
    let good = Image::usual();
    let bad = Image::new(
        "bad:1",
        vec![
            usual_layers().remove(0),
            Layer::new().file("opt/.wh..", "").finish(),
        ],
    );
    let mut blobs = good.blobs(Packing::Plain);
    blobs.extend(bad.blobs(Packing::Plain));
    let index = [good.descriptor(Packing::Plain), bad.descriptor(Packing::Plain)];
    refused(
        &shop,
        "the second image",
        &tarred(&layout(blobs, &index)),
        &[".wh.."],
    );

    // What was there before stays.
    let file = shop.file("good.tar", tarred(&good.docker_old()));
    shop.ok(&["image", "load", arg(&file)]);
    let file = shop.file("bad.tar", tarred(&bad.docker_old()));
    shop.fails(&["image", "load", arg(&file)]);
    shop.is_sound(1, 3);
}

#[test]
fn names_that_are_none() {
    if !need_root("names_that_are_none") {
        return;
    }
    let shop = Shop::new();
    for name in ["../../x:1", "A B:1", "x:\u{1b}[31m", "a@sha256:00"] {
        let mut image = Image::usual();
        image.names = vec![name.to_owned()];
        let file = shop.file("named.tar", tarred(&image.oci(Packing::Plain)));
        let output = shop.run(&["image", "load", arg(&file)]);
        assert_eq!(output.status.code(), Some(1), "{name}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("--tag"),
            "{output:?}"
        );
        assert!(!output.stderr.contains(&0x1b), "{output:?}");
        shop.is_empty();
        // With a name of one's own it can be had.
        shop.ok(&["image", "load", "--tag", "good", arg(&file)]);
        shop.ok(&["image", "rm", "good"]);
    }
}
