//! Container engines with each way to mount their layers: the kernel's overlay, fuse-overlayfs, and plyfs in its place.
//!
//! podman and buildah, as root and rootless, and docker run out of Debian's packages; images are made by the tests
//! themselves, and no registry is asked. Every case is run with each way to mount, in a store of its own, and what is
//! seen (trees, changes, committed layers, output, what is left over) is compared: with the kernel's overlay where the
//! engine can use it, else with fuse-overlayfs. What may differ stands in [`accepted`], and nowhere else.
//!
//! `docs/engines.md` has a row for each case, and a test fails when its rows are not those that it saw;
//! `PLYFS_TEST_BLESS=1` writes them. An engine that is not there is skipped with a line that says so; with
//! `PLYFS_ENGINES=required` (as `scripts/test` runs it) that is a failure. `PLYFS_ENGINES_BY=kernel,fuse-overlayfs,plyfs`
//! takes only these ways (the page is then left alone), `PLYFS_ENGINES_CASES=WORD,...` only the cases with such a word in
//! their names, `PLYFS_ENGINES_ACCEPTED=1` prints each difference that is accepted, and `PLYFS_ENGINES_OURS=PROGRAM` lets
//! another program stand in for plyfs, to prove the comparison.

mod accepted;
mod buildah;
mod compare;
mod debian;
mod docker;
mod images;
mod left;
mod nest;
mod page;
mod podman;
mod programs;
mod seen;

use compare::compare;
use nest::Who;
use programs::{By, Podman, Storage};

#[test]
fn podman_as_root() {
    compare(
        "podman, root",
        |by| Podman::new(by, Who::Root, Storage::default()),
        &podman::cases(Who::Root),
    );
}

#[test]
fn podman_rootless() {
    compare(
        "podman, rootless",
        |by| Podman::new(by, Who::User, Storage::default()),
        &podman::cases(Who::User),
    );
}

#[test]
fn buildah_as_root() {
    compare(
        "buildah, root",
        |by| Podman::new(by, Who::Root, Storage::default()),
        &buildah::cases(),
    );
}

#[test]
fn buildah_rootless() {
    compare(
        "buildah, rootless",
        |by| Podman::new(by, Who::User, Storage::default()),
        &buildah::cases(),
    );
}

#[test]
fn docker() {
    compare("docker", docker::Docker::new, &docker::cases());
}

#[test]
fn debian_as_root() {
    let start = |by| Podman::new(by, Who::Root, Storage::default());
    compare("a Debian container, root", start, &debian::cases());
}

#[test]
fn debian_rootless() {
    let start = |by| Podman::new(by, Who::User, Storage::default());
    compare("a Debian container, rootless", start, &debian::cases());
}

/// Ownership and mode in an attribute, as a store needs it whose file system knows no owners.
///
/// podman has it for mount programs only. Beside it the kernel's overlay has a store with real owners: what is stated is
/// to look the same.
#[test]
fn podman_with_force_mask() {
    let storage = |by| match by {
        By::Kernel => Storage::default(),
        By::FuseOverlayfs | By::Plyfs => Storage {
            overlay: "force_mask = \"0700\"\n",
            mountopt: None,
        },
    };
    compare(
        "podman with force_mask, root",
        |by| Podman::new(by, Who::Root, storage(by)),
        &podman::force_mask(),
    );
    compare(
        "podman with force_mask, rootless",
        |by| Podman::new(by, Who::User, storage(by)),
        &podman::force_mask(),
    );
}

/// Words of `storage.conf` that podman hands on to who mounts.
#[test]
fn podman_with_mountopt() {
    let storage = Storage {
        mountopt: Some("nodev,fsync=0,volatile"),
        ..Storage::default()
    };
    for who in [Who::Root, Who::User] {
        compare(
            &format!("podman with mountopt, {}", who.name()),
            |by| Podman::new(by, who, storage),
            &podman::mountopt(),
        );
    }
}
