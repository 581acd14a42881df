//! What is built once is not built again.

use std::fs;

use super::super::bench::{Bench, names};

const TEXT: &str = "FROM base\nWORKDIR /w\nCOPY f /w/\nENV A=1\nCOPY d /w/d\n";

fn hits(out: &str) -> usize {
    out.matches("--> Using cache").count()
}

#[test]
fn by_content_and_nothing_else() {
    let bench = Bench::with_base();
    bench.write("context/f", "1");
    bench.write("context/d/x", "1");
    let build = |options: &[&str]| {
        let out = bench.build(TEXT, options).ok();
        (hits(&out), out.lines().last().unwrap().to_owned())
    };
    let (first, id) = build(&[]);
    assert_eq!(first, 0);
    // Everything from the cache is the very same image.
    assert_eq!(build(&[]), (3, id.clone()));
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::File::open(bench.path("context/f"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert_eq!(build(&[]), (3, id.clone()), "times alone do not matter");
    bench.write("context/d/x", "2");
    let (count, other) = build(&[]);
    assert_eq!(count, 2);
    assert_ne!(other, id);
    bench.write("context/d/x", "1");
    assert_eq!(build(&[]), (3, id.clone()), "back to what it was");
    bench.write("context/f", "2");
    assert_eq!(build(&[]).0, 1, "what stands on a changed step is new");
    bench.write("context/f", "1");
    assert_eq!(build(&["--no-cache"]).0, 0);
    bench.write("context/d/y", "");
    assert_eq!(build(&[]).0, 2);
    bench.check();
}

#[test]
fn the_same_files_give_the_same_image_anywhere() {
    let ids = [1, 2].map(|_| {
        let bench = Bench::new();
        bench.write("context/d/f", "1");
        bench.write("context/g", "2");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        for name in ["context/d/f", "context/d", "context/g"] {
            fs::File::open(bench.path(name))
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        bench.write(
            "context/Containerfile",
            "FROM scratch\nWORKDIR /w\nCOPY d /new/dir/\nCOPY g /\nENV A=1\n",
        );
        let mut command = bench.command();
        command
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .args(["image", "build", "-q", "context"]);
        let said = super::Said::of(&command.output().unwrap());
        said.ok()
    });
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn until_it_is_pruned_unless_an_image_holds_it() {
    let bench = Bench::with_base();
    bench.write("context/f", "1");
    let text = "FROM base AS a\nCOPY f /a\nCOPY f /b\nFROM base\nCOPY --from=a /a /c\n";
    bench.build(text, &[]).ok();
    let full = bench.layers();
    assert_eq!(full.len(), 4, "base, two of the stage, one of the image");
    assert_eq!(hits(&bench.build(text, &[]).ok()), 3);
    assert_eq!(bench.layers(), full);
    bench.plyfs(&["system", "prune"]).ok();
    assert_eq!(
        bench.layers().len(),
        2,
        "the stage that was only copied from goes"
    );
    assert_eq!(
        hits(&bench.build(text, &[]).ok()),
        1,
        "the image's own layer is still known"
    );
    bench.plyfs(&["image", "rm", "made"]).ok();
    bench.plyfs(&["system", "prune"]).ok();
    assert_eq!(bench.layers().len(), 1);
    assert_eq!(
        names(&bench.store().join("build-cache"))
            .into_iter()
            .collect::<Vec<_>>(),
        ["kept"]
    );
    assert_eq!(hits(&bench.build(text, &[]).ok()), 0);
    bench.check();
}

#[test]
fn of_a_build_that_failed_the_steps_before_are_kept() {
    let bench = Bench::with_base();
    bench.write("context/f", "1");
    let text = "FROM base\nCOPY f /a\nCOPY none /b\n";
    bench.build(text, &[]).fails(&["step 3/3"]);
    assert_eq!(bench.layers().len(), 2);
    assert_eq!(bench.plyfs(&["image", "ls", "-q"]).ok().lines().count(), 1);
    bench.write("context/none", "");
    assert_eq!(hits(&bench.build(text, &[]).ok()), 1);
    bench.check();
}
