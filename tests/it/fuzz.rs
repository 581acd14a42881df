//! The fuzz targets of `fuzz/` on their corpus and on mutations of it, the same ones each time: for a machine without
//! cargo-fuzz. `scripts/fuzz` lets libFuzzer look for new ones.
//!
//! `PLYFS_FUZZ_SECONDS` is how long each target is tried (default 8), `PLYFS_FUZZ_SEED` where the mutations begin.
//! `PLYFS_FUZZ_BLESS=1` writes the corpus anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[path = "../../fuzz/bodies.rs"]
mod bodies;

use crate::common::images::archive::*;
use crate::common::images::image::pack;
use crate::common::images::{Image, Packing, Shape};
use crate::common::need_root;
use plyfs::compare::Rng;

const BLOCK: usize = 512;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

/// The inputs of a target, in the order of their names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(corpus(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{target} has no corpus");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Everything in the corpus, then mutations until the time is over.
fn hunt(target: &str, body: fn(&[u8])) {
    if !need_root(target) {
        return;
    }
    let number = |name: &str, usual| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(usual)
    };
    let seeds = seeds(target);
    seeds.iter().for_each(|seed| body(seed));
    let until = Instant::now() + Duration::from_secs(number("PLYFS_FUZZ_SECONDS", 8));
    let first = number("PLYFS_FUZZ_SEED", 0);
    let mut seed = first;
    while Instant::now() < until {
        let input = mutated(&seeds, &mut Rng::new(seed));
        let tried = std::panic::catch_unwind(|| body(&input));
        if let Err(panic) = tried {
            let kept = std::env::temp_dir().join(format!("plyfs-{target}-{seed}"));
            fs::write(&kept, &input).unwrap();
            eprintln!(
                "{target}: PLYFS_FUZZ_SEED={seed} shows it; the input is {}",
                kept.display()
            );
            std::panic::resume_unwind(panic);
        }
        seed += 1;
    }
    println!("{target}: {} mutations", seed - first);
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    rng.one_of(from).expect("something to choose from")
}

/// Some of: bits flipped, bytes and fields set, blocks doubled, dropped, swapped and taken from elsewhere, an end cut
/// off.
fn mutated(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = pick(rng, seeds).clone();
    for _ in 0..=rng.below(6) {
        if input.len() < 2 * BLOCK {
            let at = rng.below(input.len());
            if let Some(byte) = input.get_mut(at) {
                *byte = rng.next() as u8;
            }
            continue;
        }
        let blocks = input.len() / BLOCK;
        let (one, other) = (rng.below(blocks) * BLOCK, rng.below(blocks) * BLOCK);
        match rng.below(9) {
            0 => {
                let at = rng.below(input.len());
                input[at] ^= 1 << rng.below(8);
            }
            1 => {
                let at = rng.below(input.len());
                input[at] = *pick(rng, &[0, b'0', b'7', b'/', b'.', b' ', 0x80, 0xff, b'\n']);
            }
            // A field of a header: size, type, name, target, mode, map of holes.
            2 => {
                let (start, length) = *pick(
                    rng,
                    &[
                        (124, 12),
                        (156, 1),
                        (0, 9),
                        (157, 9),
                        (100, 8),
                        (386, 48),
                        (483, 12),
                    ],
                );
                let value: &[u8] = pick::<&[u8]>(
                    rng,
                    &[
                        &b"00000000000\0"[..],
                        b"77777777777\0",
                        b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                        b"../../x\0",
                        b"s/x\0",
                        b"d/f\0",
                        b".wh.f\0",
                        b"d/.wh..wh..opq\0",
                        b"1",
                        b"2",
                        b"5",
                        b"S",
                        b"x",
                        b"L",
                        b"g",
                    ],
                );
                let length = length.min(value.len());
                input[one + start..one + start + length].copy_from_slice(&value[..length]);
            }
            3 => input.copy_within(one..one + BLOCK, other),
            4 => drop(input.drain(one..one + BLOCK)),
            5 => {
                let block = input[one..one + BLOCK].to_vec();
                input.splice(other..other, block);
            }
            6 => {
                let from = pick(rng, seeds);
                let at = rng.below(from.len() / BLOCK + 1) * BLOCK;
                let block = from[at.min(from.len())..(at + 3 * BLOCK).min(from.len())].to_vec();
                input.splice(other..other, block);
            }
            7 => input.truncate(rng.below(input.len())),
            _ => {
                let at = rng.below(input.len());
                let length = rng.below(16).min(input.len() - at);
                for byte in &mut input[at..at + length] {
                    *byte = rng.next() as u8;
                }
            }
        }
    }
    // An odd length asks for checksums that are right.
    if rng.chance(70) != (input.len() % 2 == 1) {
        input.push(0);
    }
    if rng.chance(5) {
        input = pack(&input, *pick(rng, &[Packing::Gzip, Packing::Zstd]));
    }
    input
}

#[test]
fn layer_archive() {
    hunt("layer_archive", bodies::layer_archive);
}

#[test]
fn tar_split() {
    hunt("tar_split", bodies::tar_split);
}

#[test]
fn image_archive() {
    hunt("image_archive", bodies::image_archive);
}

/// The corpus is what the code below makes.
#[test]
fn the_corpus_is_up_to_date() {
    let bless = std::env::var_os("PLYFS_FUZZ_BLESS").is_some();
    let put = |target: &str, name: &str, data: &[u8]| {
        let path = corpus(target).join(name);
        if bless {
            fs::create_dir_all(corpus(target)).unwrap();
            fs::write(path, data).unwrap();
        } else {
            let same = fs::read(&path).unwrap() == data;
            assert!(
                same,
                "{path:?} is not what this test makes: run it with PLYFS_FUZZ_BLESS=1"
            );
        }
    };
    let layers: &[(&str, &[Item])] = &[
        (
            "plain",
            &[
                dir("d").mode(0o700),
                file("d/new", "text"),
                symlink("l", "d/new"),
                fifo("p"),
                chr("c", 1, 3),
            ],
        ),
        (
            "links",
            &[
                hard("h", "d/f").mode(0o600),
                hard("i", "h"),
                file("s/through", "x"),
                hard("j", "top"),
            ],
        ),
        (
            "marks",
            &[
                mark("d/.wh.f"),
                mark("d/e/.wh..wh..opq"),
                file("d/e/x", "x"),
                mark(".wh.s"),
                mark(".wh..wh..opq"),
            ],
        ),
        (
            "gone",
            &[
                file("x", vec![b'x'; 600]),
                hard("y", "x"),
                mark(".wh.x"),
                file("z/a", "a"),
                mark(".wh.z"),
            ],
        ),
        (
            "aufs",
            &[
                dir(".wh..wh.plnk"),
                file(".wh..wh.plnk/1", "linked"),
                hard("k", ".wh..wh.plnk/1"),
            ],
        ),
        (
            "holes",
            &[
                sparse("new", 1 << 18, &[(4096, b"one"), (200_000, b"two")]),
                old_sparse("old", 1 << 17, &[(512, b"x")]),
            ],
        ),
        (
            "long",
            &[
                file("n".repeat(200), "x"),
                file("m".repeat(200), "x").gnu(),
                symlink("t", "u".repeat(150)).gnu(),
            ],
        ),
        (
            "extended",
            &[
                file("a", "x").at(-5, 7).own(3_000_000, 4).xattr("user.a", "b"),
                dir("b").xattr("trusted.overlay.opaque", "y"),
            ],
        ),
        (
            "outside",
            &[
                file("../../up", "x"),
                symlink("away", "/"),
                file("away/x", "x"),
                symlink("up", ".."),
                file("up/up", "x"),
            ],
        ),
    ];
    for (name, items) in layers {
        put("layer_archive", name, &Layer::new(items).0);
    }
    put(
        "layer_archive",
        "gzip",
        &pack(&Layer::new(layers[0].1).0, Packing::Gzip),
    );
    put(
        "layer_archive",
        "zstd",
        &pack(&Layer::new(layers[0].1).0, Packing::Zstd),
    );
    put("tar_split", "raw", b"R\x05helloE\x05");
    put(
        "tar_split",
        "file",
        b"F\x07\x03d/f\x01\x00\x0dF\x00\x03top\x02\x00\x01\x01\x02E\x10",
    );
    let image = Image::new("fuzz:1", &[layers[0].1, layers[2].1]);
    let temp = tempfile::tempdir().unwrap();
    for (name, shape) in [
        ("docker", Shape::Docker),
        ("skopeo", Shape::Skopeo),
        ("docker25", Shape::Docker25),
        ("oci", Shape::OciArchive),
    ] {
        let path = temp.path().join(name);
        image.write(&path, shape, Packing::Plain);
        put("image_archive", name, &fs::read(&path).unwrap());
    }
    let path = temp.path().join("gzip");
    image.write(&path, Shape::OciArchive, Packing::Gzip);
    put("image_archive", "oci-gzip", &fs::read(&path).unwrap());
}
