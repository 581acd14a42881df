//! What buildah does: from, run, copy, mount, commit, and a build.

use super::compare::Case;
use super::images::{CHANGES, Images};
use super::left;
use super::podman::{LOOK, SKIP, built, context};
use super::programs::Podman;
use super::seen::Seen;

type Done = Result<(), String>;

pub fn cases() -> Vec<Case<Podman>> {
    let case = |name, run| Case { name, run };
    vec![
        case("from scratch, add, commit", scratch),
        case("from, run, copy, mount", run),
        case("commit", commit),
        case("build with RUN steps, without layers", build),
        case("rm, rmi: nothing is left over", nothing_left),
    ]
}

fn buildah(engine: &Podman, words: &[&str]) -> Result<String, String> {
    engine
        .nest
        .ok(std::iter::once("buildah").chain(words.iter().copied()))
}

/// The tree of a working container.
fn tree(engine: &Podman, container: &str) -> Result<String, String> {
    let dir = engine.inside(&["buildah", "mount", container])?;
    let tree = engine.tree(dir.trim_end(), &["--skip", SKIP])?;
    engine.inside(&["buildah", "umount", container])?;
    Ok(tree)
}

fn scratch(engine: &Podman, seen: &mut Seen) -> Done {
    let base = Images::get()?.base.display().to_string();
    buildah(engine, &["from", "--name", "new", "scratch"])?;
    buildah(engine, &["add", "-q", "new", &base, "/"])?;
    seen.tree("container", &tree(engine, "new")?);
    buildah(engine, &["commit", "-q", "--rm", "new", "base:1"])?;
    let layers = engine.layers("base:1")?;
    seen.value("layers", layers.len());
    seen.archive("layer", &layers[0]);
    Ok(())
}

fn run(engine: &Podman, seen: &mut Seen) -> Done {
    let context = context(engine, "base:1")?;
    buildah(engine, &["from", "--name", "changed", "base:1"])?;
    let run = |script: &str| {
        buildah(
            engine,
            &["run", "--network=none", "changed", "--", "sh", "-ec", script],
        )
    };
    run(CHANGES)?;
    seen.lines("within", &run(LOOK)?);
    buildah(
        engine,
        &["copy", "-q", "changed", &format!("{context}/added"), "/opt/added"],
    )?;
    buildah(
        engine,
        &[
            "copy",
            "-q",
            "--chown",
            "33:34",
            "changed",
            &format!("{context}/added/f"),
            "/opt/f",
        ],
    )?;
    seen.tree("container", &tree(engine, "changed")?);
    // Written from outside, while it is mounted.
    let script = "cd \"$(buildah mount changed)\" && echo x >opt/outside && rm many/f20 && mkdir opt/outside.d && buildah umount changed";
    engine.inside(&["sh", "-ec", script])?;
    seen.value(
        "outside",
        run("cat /opt/outside; ls -d /opt/outside.d; ls /many | wc -l")?,
    );
    Ok(())
}

fn commit(engine: &Podman, seen: &mut Seen) -> Done {
    buildah(engine, &["commit", "-q", "changed", "committed:1"])?;
    seen.archive("layer", engine.layers("committed:1")?.last().unwrap());
    buildah(engine, &["commit", "-q", "--squash", "changed", "squashed:1"])?;
    let layers = engine.layers("squashed:1")?;
    seen.value("layers", layers.len());
    seen.archive("squashed", &layers[0]);
    seen.tree("image", &engine.image_tree("committed:1", &["--skip", SKIP])?);
    Ok(())
}

fn build(engine: &Podman, seen: &mut Seen) -> Done {
    let context = context(engine, "base:1")?;
    buildah(
        engine,
        &[
            "build",
            "-q",
            "--network=none",
            "--layers=false",
            "-t",
            "built:1",
            &context,
        ],
    )?;
    built(engine, seen, "built:1")
}

fn nothing_left(engine: &Podman, seen: &mut Seen) -> Done {
    buildah(engine, &["rm", "-a"])?;
    left::nothing_left(engine, seen)
}
