//! What is odd is told, dropped or tidied; the view never changes by that, but where a path was dropped.

use super::*;

fn odd() -> Layers {
    Layers::new().with_lower(&lower()).with_upper(&[
        whiteout("stray"),
        whiteout("gone"),
        dir("opaque").xattr("trusted.overlay.opaque", "y"),
        file("opaque/new", "x"),
        whiteout("opaque/gone"),
        file("back", "copied up for nothing\n"),
        dir("d").mode(0o750).xattr("user.d", "d"),
        dir("d/deep"),
        file("d/deep/x", "x\n"),
        whiteout("d/deep/stray"),
        dir("again").xattr("trusted.overlay.opaque", "y"),
        file("again/old", "old\n"),
    ])
}

#[test]
fn everything_odd_is_told_and_tidied() {
    if !need_root("everything_odd_is_told_and_tidied") {
        return;
    }
    let layers = odd();
    sys::mkdir(layers.work.join("work"), 0o755).unwrap();
    sys::put(layers.work.join("work/#1"), "left").unwrap();
    // No leftover: the inode that whiteouts share.
    sys::mknod(layers.work.join("work/#2"), libc::S_IFCHR, 0, 0).unwrap();
    let text = done(&layers, &["check"]);
    let lines: Vec<_> = text.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "upper /back",
            "upper /d",
            "upper /d/deep",
            "upper /d/deep/stray",
            "upper /d/deep/x",
            "upper /opaque",
            "upper /opaque/gone",
            "upper /stray",
            "work /work/#1",
        ],
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&done(&layers, &["check", "--json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 9);
    assert_eq!(json[7]["trouble"], "stray-whiteout");
    assert_eq!(
        (&json[8]["place"], &json[8]["fault"]),
        (&"work".into(), &false.into())
    );

    let before = exact(&layers.upper);
    assert!(done(&layers, &["vacuum", "--dry-run"]).contains("8 useless, would free"));
    assert_same(&before, &exact(&layers.upper), "a dry run");
    let shown = view(&layers);
    assert!(done(&layers, &["vacuum"]).contains("8 useless, freed"));
    assert_same(&shown, &view(&layers), "the view after the vacuum");
    assert_eq!(
        sys::sorted_names(&layers.upper).unwrap(),
        ["again", "gone", "opaque"]
    );
    assert_eq!(done(&layers, &["check"]), "nothing odd\n");
    assert!(done(&layers, &["vacuum"]).starts_with("0 useless"));
}

#[test]
fn a_vacuum_keeps_what_changes_something() {
    if !need_root("a_vacuum_keeps_what_changes_something") {
        return;
    }
    let layers = changed(Layers::new(), STEPS);
    let shown = view(&layers);
    done(&layers, &["vacuum"]);
    assert_same(&shown, &view(&layers), "the view after the vacuum");
    let told = done(&layers, &["diff"]);
    done(&layers, &["vacuum"]);
    assert_eq!(done(&layers, &["diff"]), told);
}

#[test]
fn dropped_paths_show_the_lower() {
    if !need_root("dropped_paths_show_the_lower") {
        return;
    }
    let layers = changed(Layers::new(), STEPS);
    let plain = seen(&layers.lower);
    let answer = done(&layers, &["drop", "/f", "gone", "d", "h1"]);
    assert_eq!(
        answer,
        "dropped /f: the lower's object shows\ndropped /gone: the lower's object shows\n\
         dropped /d: the lower's object shows\ndropped /h1: nothing is there now\n"
    );
    let now = view(&layers);
    for path in ["f", "gone", "d", "d/low", "d/deep/x"] {
        let of = |tree: &Tree| tree.0.get(std::path::Path::new(path)).cloned();
        assert_eq!(of(&plain), of(&now), "{path}");
    }
    assert!(!now.0.contains_key(std::path::Path::new("h1")));
    assert!(now.0.contains_key(std::path::Path::new("h2")));

    // In a directory that replaces the lower's the lower's names cannot show.
    let text = fails(&layers, &["drop", "again/old"]);
    assert!(text.contains("drop /again"), "{text}");
    done(&layers, &["drop", "again/new"]);
    let text = fails(&layers, &["drop", "turned/x"]);
    assert!(text.contains("/turned above it was replaced"), "{text}");
    let text = fails(&layers, &["drop", "d/low"]);
    assert!(text.contains("nothing changed there"), "{text}");
    assert!(fails(&layers, &["drop", "null"]).contains("nothing changed there"));

    let answer = done(&layers, &["drop", "/"]);
    assert_eq!(answer, "dropped /: the view is the lower\n");
    assert_same(&plain, &view(&layers), "the view of an upper that holds nothing");
    assert_eq!(done(&layers, &["diff"]), "");
    assert!(layers.leftovers().is_empty());
}

#[test]
fn json_for_programs() {
    if !need_root("json_for_programs") {
        return;
    }
    let layers = changed(Layers::new(), "echo x >> f; rm gone; echo n > new");
    let json = |words: &[&str]| -> serde_json::Value {
        serde_json::from_str(&done(&layers, &[words, &["--json"]].concat())).unwrap()
    };
    let diff = json(&["diff"]);
    assert_eq!(diff[0]["path"], "/f");
    assert_eq!(diff[0]["change"], "C");
    assert_eq!(json(&["apply", "--dry-run"]), diff);
    let vacuum = json(&["vacuum"]);
    assert_eq!(vacuum["copies"].as_array().unwrap().len(), 0);
    let dropped = json(&["drop", "f"]);
    assert_eq!(dropped[0]["lower_shows"], true);
    let applied = json(&["apply"]);
    assert_eq!((&applied["added"], &applied["deleted"]), (&1.into(), &1.into()));
    assert_eq!(json(&["apply", "--undo"])["done"], "undone");
}
