//! What plyfs saves, others load: the same image, the same tree.

use std::ffi::OsStr;

use super::compare::tree_of;
use super::programs::{Oracle, Plyfs, Program as _, Scratch, output};
use super::ready;
use crate::common::images::{Packing, Shape, quirks};
use crate::common::need_root;

/// Those on whose trees all agree, with most kinds of entries and metadata among them.
const IMAGES: [&str; 8] = [
    "attributes",
    "hard-links-over-layers",
    "long-names",
    "many-deletions",
    "odd-names",
    "sparse",
    "special-files",
    "the-same-layer-twice",
];

/// Loads images with plyfs, saves them in each form, and has the other program load what was saved. That it finds the
/// image under its id says that config and diff ids are the same, for it hashes them again.
fn saved_images_load_in(oracle: Oracle, forms: &[(&str, &str)]) {
    if !need_root(oracle.name()) {
        return;
    }
    let scratch = Scratch::new(&format!("saved-{}", oracle.name()));
    let Some(theirs) = ready(oracle, &scratch) else {
        return;
    };
    let place = scratch.path.join("store");
    let ours = Plyfs(place);
    let mut accepted = super::accepted::Used::new(oracle);
    for quirk in quirks() {
        if !IMAGES.contains(&quirk.name) {
            continue;
        }
        let given = scratch.path.join("given");
        quirk.image.write(&given, Shape::Docker, Packing::Gzip);
        let mine = tree_of(&ours.load(&given, &quirk.image).unwrap());
        for (form, packing) in forms {
            let saved = scratch.path.join(format!("{}-{form}-{packing}", quirk.name));
            let arguments = ["image", "save", "--format", form, "--compress", packing, "-o"];
            let arguments = arguments
                .map(OsStr::new)
                .into_iter()
                .chain([saved.as_os_str(), OsStr::new(&quirk.image.name)]);
            ours.run(arguments).unwrap();
            let root = theirs.load(&saved, &quirk.image);
            let root = root.unwrap_or_else(|said| panic!("{}, {form}, {packing}: {said}", quirk.name));
            let mut lines = mine.differences(&tree_of(&root), "plyfs", oracle.name());
            lines.retain(|line| !accepted.allows(quirk.name, line));
            assert!(lines.is_empty(), "{}, {form}, {packing}: {lines:#?}", quirk.name);
        }
    }
}

#[test]
fn docker_loads_what_is_saved() {
    saved_images_load_in(Oracle::Docker, &[("docker", "none"), ("docker", "gzip")]);
}

#[test]
fn podman_loads_what_is_saved() {
    saved_images_load_in(
        Oracle::Podman,
        &[
            ("docker", "none"),
            ("docker", "zstd"),
            ("oci", "gzip"),
            ("oci", "zstd"),
        ],
    );
}

#[test]
fn umoci_unpacks_what_is_saved() {
    saved_images_load_in(Oracle::Umoci, &[("oci-dir", "none"), ("oci-dir", "gzip")]);
}

#[test]
fn skopeo_copies_what_is_saved() {
    let scratch = Scratch::new("skopeo");
    if let Err(why) = output(std::process::Command::new("skopeo").arg("--version")) {
        return super::missing("skopeo", &why);
    }
    let ours = Plyfs(scratch.path.join("store"));
    let image = &quirks()
        .into_iter()
        .find(|quirk| quirk.name == "twenty-layers")
        .unwrap()
        .image;
    let given = scratch.path.join("given");
    image.write(&given, Shape::OciDirectory, Packing::Zstd);
    ours.load(&given, image).unwrap();
    for (form, transport) in [
        ("docker", "docker-archive"),
        ("oci", "oci-archive"),
        ("oci-dir", "oci"),
    ] {
        for packing in ["none", "gzip", "zstd"] {
            let saved = scratch.path.join(format!("{form}-{packing}"));
            let id = image.id();
            let arguments = ["image", "save", "--format", form, "--compress", packing, "-o"];
            let arguments = arguments
                .map(OsStr::new)
                .into_iter()
                .chain([saved.as_os_str(), OsStr::new(&id)]);
            ours.run(arguments).unwrap();
            let from = format!("{transport}:{}", saved.display());
            let copy = scratch.path.join(format!("{form}-{packing}-copy"));
            let copied = output(
                std::process::Command::new("skopeo")
                    .args(["copy", "-q", &from])
                    .arg(format!("dir:{}", copy.display())),
            );
            copied.unwrap_or_else(|said| panic!("{form}, {packing}: {said}"));
            let config = copy.join(&id["sha256:".len()..]);
            assert_eq!(
                std::fs::read(&config).unwrap(),
                image.config(),
                "{form}, {packing}"
            );
        }
    }
}
