//! Loading, showing, naming, saving and removing images.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;

use super::pack::{
    Image, Layer, Members, Packing, blob, digest, gzip, laid_out, layout, tarred, usual_layers,
};
use super::shop::{Shop, arg};
use crate::common::{Tree, need_root, snapshot};

/// A snapshot of a tree; inode numbers are not part of it.
fn tree(path: &Path) -> Tree {
    snapshot(path)
}

fn check_usual(shop: &Shop, image: &str) {
    let root = shop.root_of(image);
    let text = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    assert_eq!(text("etc/motd"), "changed\n");
    assert_eq!(text("app/main"), "run\n");
    assert_eq!(text("usr/lib/two"), "one");
    assert!(!root.join("etc/gone").exists());
    let meta = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    assert_eq!(meta("usr/lib/one").ino(), meta("usr/lib/two").ino());
    assert_eq!(meta("bin/ls").ino(), meta("etc/ls").ino());
    // The hard link entry gives the whole group another mode, in this layer.
    assert_eq!(meta("bin/ls").mode() & 0o7777, 0o644);
    assert_eq!(meta("etc/motd").mtime(), 1_600_000_000);
}

#[test]
fn every_shape_is_the_same_image() {
    if !need_root("every_shape_is_the_same_image") {
        return;
    }
    let image = Image::usual();
    let shapes: Vec<(&str, Members)> = vec![
        ("docker 1.10 to 24", image.docker_old()),
        ("skopeo", image.skopeo()),
        ("docker 25", image.docker25()),
        ("oci", image.oci(Packing::Plain)),
        ("oci gzip", image.oci(Packing::Gzip)),
        ("oci zstd", image.oci(Packing::Zstd)),
    ];
    let mut first: Option<Tree> = None;
    for (shape, members) in shapes {
        let shop = Shop::new();
        let data = tarred(&members);
        let said = format!("usual:1 {}\n", image.id());
        let file = shop.file("image.tar", &data);
        assert_eq!(shop.ok(&["image", "load", arg(&file)]), said, "{shape}");
        check_usual(&shop, "usual:1");
        shop.is_sound(1, 3);
        let found = tree(&shop.root_of("usual:1"));
        match &first {
            None => first = Some(found),
            Some(first) => assert_eq!(*first, found, "{shape}"),
        }
        // Again, over what is there; and as a stream, with the whole compressed, into an empty store.
        assert_eq!(shop.ok(&["image", "load", arg(&file)]), said, "{shape}");
        shop.is_sound(1, 3);
        for input in [data.clone(), gzip(&data), zstd::encode_all(&data[..], 1).unwrap()] {
            let shop = Shop::new();
            let output = shop.fed(&["image", "load", "-"], &input);
            assert!(output.status.success(), "{shape}: {output:?}");
            assert_eq!(String::from_utf8(output.stdout).unwrap(), said, "{shape}");
            shop.is_sound(1, 3);
            check_usual(&shop, "usual:1");
        }
        let dir = shop.path("layout");
        if !members.iter().any(|(name, _)| name.ends_with("layer.tar")) {
            let shop = Shop::new();
            fs::create_dir(shop.path("layout")).unwrap();
            laid_out(&members, &shop.path("layout"));
            assert_eq!(shop.ok(&["image", "load", "layout"]), said, "{shape}");
            shop.is_sound(1, 3);
        }
        drop(dir);
    }
}

#[test]
fn before_docker_1_10() {
    if !need_root("before_docker_1_10") {
        return;
    }
    let image = Image::usual();
    let shop = Shop::new();
    let file = shop.file("old.tar", tarred(&image.legacy()));
    let said = shop.ok(&["image", "load", arg(&file)]);
    assert!(said.starts_with("usual:1 sha256:"), "{said}");
    check_usual(&shop, "usual:1");
    shop.is_sound(1, 3);
    // The same once more has the same id.
    assert_eq!(shop.ok(&["image", "load", arg(&file)]), said);
    let history = shop.json(&["image", "history", "--json", "usual:1"]);
    assert_eq!(history[0]["created_by"], "/bin/sh -c step 2");
    assert_eq!(history[2]["layer"], digest(&image.layers[0]));
}

#[test]
fn unchanged_files_are_one_inode() {
    if !need_root("unchanged_files_are_one_inode") {
        return;
    }
    let shop = Shop::new();
    let base = Image::new("base:1", vec![usual_layers().remove(0)]);
    let child = Image::new(
        "child:1",
        vec![
            usual_layers().remove(0),
            Layer::new().file("etc/motd", "other\n").finish(),
        ],
    );
    for image in [&base, &child] {
        let file = shop.file("image.tar", tarred(&image.docker_old()));
        shop.ok(&["image", "load", arg(&file)]);
    }
    shop.is_sound(2, 2);
    let (below, above) = (shop.root_of("base:1"), shop.root_of("child:1"));
    let ino = |root: &Path, name: &str| fs::symlink_metadata(root.join(name)).unwrap().ino();
    assert_eq!(ino(&below, "bin/ls"), ino(&above, "bin/ls"));
    assert_ne!(ino(&below, "etc/motd"), ino(&above, "etc/motd"));
    assert_eq!(fs::read_to_string(below.join("etc/motd")).unwrap(), "hello\n");

    // What is shared is shown, and what would be freed is freed.
    let df = shop.json(&["system", "df", "--json"]);
    let of = |name: &str| {
        df["images"]
            .as_array()
            .unwrap()
            .iter()
            .find(|image| image["names"][0] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(of("base:1")["unique"], json!({"bytes": 0, "inodes": 0}));
    let freed = of("child:1")["unique"]["inodes"].as_u64().unwrap();
    assert_eq!(
        df["links"]["highest"], 4,
        "two names of usr/lib/one in each of two layers"
    );
    let said = shop.ok(&["image", "rm", "child:1"]);
    // The image itself is a directory and its config.
    assert!(
        said.ends_with(&format!(" {} inodes\n", freed + 2)),
        "{said}: {freed}"
    );
    shop.is_sound(1, 1);
    shop.ok(&["image", "rm", "base:1"]);
    shop.is_empty();
}

#[test]
fn saved_and_loaded_again() {
    if !need_root("saved_and_loaded_again") {
        return;
    }
    let image = Image::usual();
    let shop = Shop::new();
    let file = shop.file("image.tar", tarred(&image.oci(Packing::Plain)));
    shop.ok(&["image", "load", arg(&file)]);
    shop.ok(&["image", "tag", "usual:1", "localhost/other:tag"]);
    let before = tree(&shop.root_of("usual:1"));
    for (format, compress) in [
        ("docker", "none"),
        ("docker", "gzip"),
        ("docker", "zstd"),
        ("oci", "none"),
        ("oci", "gzip"),
        ("oci", "zstd"),
        ("oci-dir", "none"),
        ("oci-dir", "gzip"),
    ] {
        let saved = format!("saved-{format}-{compress}");
        shop.ok(&[
            "image",
            "save",
            "--format",
            format,
            "--compress",
            compress,
            "-o",
            &saved,
            "usual:1",
        ]);
        let again = Shop::new();
        let said = again.ok(&["image", "load", arg(&shop.path(&saved))]);
        let expected = format!("localhost/other:tag {0}\nusual:1 {0}\n", image.id());
        assert_eq!(said, expected, "{saved}");
        assert_eq!(tree(&again.root_of("usual:1")), before, "{saved}");
        again.is_sound(1, 3);
        assert_eq!(
            again.json(&["image", "inspect", "-f", "{{json .RootFS.Layers}}", "usual:1"]),
            json!(image.diffs()),
        );
        if compress == "none" {
            // The layers are byte for byte those that were loaded, and so is what describes them.
            let dir = again.path("unpacked");
            if format == "oci-dir" {
                fs::rename(shop.path(&saved), &dir).unwrap();
            } else {
                fs::create_dir(&dir).unwrap();
                tar::Archive::new(fs::File::open(shop.path(&saved)).unwrap())
                    .unpack(&dir)
                    .unwrap();
            }
            for layer in &image.layers {
                let name = match format {
                    "docker" => format!("{}.tar", super::pack::sha(layer)),
                    _ => blob(layer).0,
                };
                assert!(fs::read(dir.join(name)).unwrap() == *layer, "{saved}");
            }
            if format != "docker" {
                let manifest = image.manifest(Packing::Plain);
                assert!(
                    fs::read(dir.join(blob(&manifest).0)).unwrap() == manifest,
                    "{saved}"
                );
            }
        }
        // As a stream, nothing needs to be kept.
        if format != "oci-dir" && compress == "none" {
            let again = Shop::new();
            let output = again.fed(&["image", "load", "-"], &fs::read(shop.path(&saved)).unwrap());
            assert!(output.status.success(), "{output:?}");
            again.is_sound(1, 3);
        }
    }
    // The same images make the same archive.
    for name in ["one", "two"] {
        shop.ok(&["image", "save", "-o", name, "usual:1"]);
    }
    assert!(fs::read(shop.path("one")).unwrap() == fs::read(shop.path("two")).unwrap());
}

#[test]
fn several_images_and_platforms() {
    if !need_root("several_images_and_platforms") {
        return;
    }
    let one = Image::new("one:1", usual_layers());
    let two = Image::new(
        "two:1",
        vec![usual_layers().remove(0), Layer::new().file("two", "2").finish()],
    );
    let mut blobs = one.blobs(Packing::Gzip);
    blobs.extend(two.blobs(Packing::Gzip));
    let index = [one.descriptor(Packing::Gzip), two.descriptor(Packing::Gzip)];
    let archive = tarred(&layout(blobs.clone(), &index));

    let shop = Shop::new();
    let file = shop.file("both.tar", &archive);
    shop.ok(&["image", "load", arg(&file)]);
    shop.is_sound(2, 4);
    let shop = Shop::new();
    let file = shop.file("both.tar", &archive);
    let said = shop.ok(&["image", "load", "--ref", "two:1", "--tag", "mine", arg(&file)]);
    assert_eq!(said, format!("mine:latest {}\n", two.id()));
    shop.is_sound(1, 2);
    let why = shop.fails(&["image", "load", "--ref", "three", arg(&file)]);
    assert!(why.contains("one:1, two:1"), "{why}");
    let why = shop.fails(&["image", "load", "--tag", "x", arg(&file)]);
    assert!(why.contains("--ref"), "{why}");

    // An index in the index: one image for two platforms, and a statement about it.
    let mut inner = [one.descriptor(Packing::Gzip), two.descriptor(Packing::Gzip)];
    inner[0]["platform"] = json!({"os": "linux", "architecture": "amd64"});
    inner[1]["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let statement = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(b"x"), "size": 1,
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        "platform": {"os": "unknown", "architecture": "unknown"},
    });
    let nested = json!({"schemaVersion": 2, "manifests": [inner[1], statement, inner[0]]}).to_string();
    blobs.push(blob(nested.as_bytes()));
    let index = [json!({
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest(nested.as_bytes()), "size": nested.len(),
        "annotations": {"org.opencontainers.image.ref.name": "many"},
    })];
    let archive = tarred(&layout(blobs, &index));
    for (platform, image) in [("linux/amd64", &one), ("linux/s390x", &two)] {
        let shop = Shop::new();
        let file = shop.file("many.tar", &archive);
        let said = shop.ok(&["image", "load", "--platform", platform, arg(&file)]);
        assert_eq!(said, format!("many:latest {}\n", image.id()));
        let why = shop.fails(&["image", "load", "--platform", "linux/arm64", arg(&file)]);
        assert!(why.contains("linux/s390x, linux/amd64"), "{why}");
    }
}

#[test]
fn names_come_and_go_as_in_docker() {
    if !need_root("names_come_and_go_as_in_docker") {
        return;
    }
    let shop = Shop::new();
    let image = Image::usual();
    let file = shop.file("image.tar", tarred(&image.docker_old()));
    shop.ok(&["image", "load", arg(&file)]);
    shop.ok(&["image", "tag", "usual:1", "docker.io/library/second"]);
    let list = shop.json(&["image", "ls", "--json"]);
    assert_eq!(list[0]["names"], json!(["second:latest", "usual:1"]));
    let short = &image.id()["sha256:".len()..][..12];
    for reference in ["second", "second:latest", &image.id(), short, &image.id()[..20]] {
        assert_eq!(
            shop.ok(&["image", "inspect", "-f", "{{.Id}}", reference])
                .trim_end(),
            image.id()
        );
    }
    for wrong in ["usual", "third", "sha256:00", "usual:1/x"] {
        let why = shop.fails(&["image", "inspect", wrong]);
        assert!(why.contains("no such image"), "{why}");
    }
    let why = shop.fails(&["image", "rm", short]);
    assert!(why.contains("several names"), "{why}");
    assert_eq!(shop.ok(&["image", "rm", "second"]), "Untagged: second:latest\n");
    shop.is_sound(1, 3);
    let said = shop.ok(&["image", "rm", short]);
    assert!(said.starts_with("Untagged: usual:1\nDeleted: "), "{said}");
    assert_eq!(said.lines().count(), 6, "{said}");
    shop.is_empty();

    // A name moves to the image that was loaded last; the other one is left without, and pruned.
    shop.ok(&["image", "load", arg(&file)]);
    let other = Image::new("usual:1", vec![Layer::new().file("x", "x").finish()]);
    let other_file = shop.file("other.tar", tarred(&other.skopeo()));
    shop.ok(&["image", "load", arg(&other_file)]);
    shop.is_sound(2, 4);
    assert!(shop.ok(&["image", "ls"]).contains("<none>"));
    let said = shop.ok(&["system", "prune"]);
    assert!(said.contains(&image.id()) && said.contains("Freed: "), "{said}");
    shop.is_sound(1, 1);
    assert_eq!(shop.ok(&["system", "prune"]), "Nothing to remove.\n");
    for (wrong, what) in [
        ("UPPER", "image name"),
        ("a:b:c", "image name"),
        ("a@sha256:00", "digest"),
    ] {
        let output = shop.run(&["image", "tag", "usual:1", wrong]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains(what),
            "{output:?}"
        );
    }
}

#[test]
fn inspected_as_docker_does() {
    if !need_root("inspected_as_docker_does") {
        return;
    }
    let shop = Shop::new();
    let image = Image::usual();
    let file = shop.file("image.tar", tarred(&image.oci(Packing::Gzip)));
    shop.ok(&["image", "load", arg(&file)]);
    let shown = shop.json(&["image", "inspect", "usual:1"]);
    let object = &shown[0];
    assert_eq!(object["Id"], image.id());
    assert_eq!(object["RepoTags"], json!(["usual:1"]));
    let by_digest = format!("usual@{}", digest(&image.manifest(Packing::Gzip)));
    assert_eq!(object["RepoDigests"], json!([by_digest]));
    assert_eq!(object["Config"]["Healthcheck"], json!({"Test": ["CMD", "true"]}));
    assert_eq!(object["Architecture"], "amd64");
    assert_eq!(
        object["RootFS"],
        json!({"Type": "layers", "Layers": image.diffs()})
    );
    assert_eq!(object["GraphDriver"]["Name"], "overlay");
    assert_eq!(object["Size"], 5000 + 6 + 14 + 3 + 8 + 4);
    assert_eq!(shop.json(&["image", "inspect", &by_digest])[0]["Id"], image.id());
    let root = object["GraphDriver"]["Data"]["RootDir"].as_str().unwrap();
    assert!(root.starts_with(arg(&fs::canonicalize(shop.store()).unwrap())) && root.ends_with("/root"));
    assert_eq!(
        shop.ok(&["image", "inspect", "-f", "{{json .GraphDriver.Data }}", "usual:1"]),
        format!("{{\"RootDir\":\"{root}\"}}\n")
    );
    let output = shop.run(&["image", "inspect", "-f", "{{range .X}}", "usual:1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("range .X"));
    let history = shop.json(&["image", "history", "--json", "usual:1"]);
    assert_eq!(history[0]["created_by"], "step 2");
    assert_eq!(history[0]["size"], 4);
}

#[test]
fn a_root_file_system_becomes_an_image() {
    if !need_root("a_root_file_system_becomes_an_image") {
        return;
    }
    let shop = Shop::new();
    let layer = usual_layers().remove(0);
    let file = shop.file("root.tar", &layer);
    let id = shop.ok(&["image", "import", "--tag", "base", arg(&file)]);
    assert!(id.starts_with("sha256:"), "{id}");
    let root = shop.root_of("base");
    assert_eq!(fs::read_to_string(root.join("etc/motd")).unwrap(), "hello\n");
    let output = shop.fed(&["image", "import", "-"], &gzip(&layer));
    assert!(output.status.success(), "{output:?}");
    // The same tree, so the same layer; an image without a name beside the other.
    shop.is_sound(2, 1);

    // A directory, with all that tar can hold.
    let from = tree(&root);
    shop.ok(&["image", "import", "--tag", "copy", arg(&root)]);
    assert_eq!(tree(&shop.root_of("copy")), from);
    shop.is_sound(3, 2);
    let why = shop.fails(&["image", "import", arg(&shop.path("none"))]);
    assert!(why.contains("No such file"), "{why}");
    let bad = shop.file("bad.tar", b"no archive at all".repeat(100));
    let why = shop.fails(&["image", "import", arg(&bad)]);
    assert!(why.contains("bad.tar"), "{why}");
    shop.is_sound(3, 2);
}
