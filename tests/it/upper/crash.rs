//! Every call that changes something fails once and kills the command once: the apply is then whole, or taken back.

use super::*;

const FEW: &str = r#"
echo more >> f; rm gone; rm -r gonedir; mkdir -p d/new; echo n > d/new/n; ln d/new/n h
rm -r again; mkdir again; echo new > again/new; chmod 700 d; setfattr -n user.e -v e d; rm turns; mkdir turns
"#;

/// Runs it with a fault, which stays out of sight of whoever runs later.
fn faulty(layers: &Layers, words: &[&str], fault: &str) -> Output {
    let plan = layers.base().join("fault");
    std::fs::write(&plan, fault).unwrap();
    let output = command(layers, words)
        .env("PLYFS_FAULT_FILE", &plan)
        .output()
        .unwrap();
    std::fs::remove_file(&plan).unwrap();
    output
}

struct Stage {
    _room: Layers,
    layers: Layers,
    lower: Tree,
    upper: Tree,
    shown: Tree,
}

impl Stage {
    fn new(name: &str, steps: &str) -> Option<Self> {
        let (layers, room) = in_memory(name)?;
        let layers = changed(layers, steps);
        let shown = view(&layers);
        Some(Self {
            _room: room,
            lower: exact(&layers.lower),
            upper: exact(&layers.upper).into_upper(),
            shown,
            layers,
        })
    }

    fn is_old(&self, what: &str) {
        assert_same(
            &self.lower,
            &exact(&self.layers.lower),
            &format!("{what}: the lower"),
        );
        assert_same(
            &self.upper,
            &exact(&self.layers.upper).into_upper(),
            &format!("{what}: the upper"),
        );
        assert!(!sys::exists(self.layers.work.join("plyfs-apply")), "{what}");
        assert!(self.layers.leftovers().is_empty(), "{what}");
        assert!(!sys::exists(self.layers.work.join("work/incompat")), "{what}");
    }

    fn is_new(&self, what: &str) {
        assert_same(
            &self.shown,
            &seen(&self.layers.lower),
            &format!("{what}: the lower"),
        );
        assert_eq!(sys::names(&self.layers.upper).unwrap(), [""; 0], "{what}");
        assert!(!sys::exists(self.layers.work.join("work/incompat")), "{what}");
    }

    fn undo(&self, what: &str) {
        done(&self.layers, &["apply", "--undo"]);
        self.is_old(what);
    }

    /// Half done: nobody mounts it, and no other verb touches it.
    fn is_half(&self, what: &str) {
        for words in [
            &["apply"][..],
            &["vacuum"],
            &["drop", "f"],
            &["apply", "--forget"],
        ] {
            let text = fails(&self.layers, words);
            assert!(text.contains("interrupted"), "{what}: {words:?}: {text}");
        }
        assert!(
            self.layers.try_mount(Fs::Plyfs, &[]).is_err(),
            "{what}: it was mounted"
        );
        let output = upper(&self.layers, &["check"]);
        assert_eq!(output.status.code(), Some(1), "{what}");
    }
}

fn is_half(layers: &Layers) -> bool {
    let state = sys::text(layers.work.join("plyfs-apply/state")).unwrap_or_default();
    state.contains("publishing") || state.contains("undoing")
}

#[test]
fn at_any_call_of_an_apply() {
    let Some(stage) = Stage::new("at_any_call_of_an_apply", FEW) else {
        return;
    };
    let (mut failed, mut half) = (0, 0);
    for call in 1.. {
        assert!(call < 1000, "it never comes through");
        let what = format!("errno at call {call}");
        let output = faulty(&stage.layers, &["apply"], &format!("errno {call} 5"));
        let through = output.status.success();
        if through {
            stage.is_new(&what);
            stage.undo(&what);
        } else {
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(text.contains("os error 5"), "{what}: {text}");
            failed += 1;
            if sys::exists(stage.layers.work.join("plyfs-apply")) {
                // The last word could not be said, or taking back failed: never a half without a way on.
                done(&stage.layers, &["apply", "--finish"]);
                if sys::exists(stage.layers.work.join("plyfs-apply")) {
                    stage.is_new(&what);
                    stage.undo(&what);
                }
            }
            stage.is_old(&what);
        }
        let mut came_through = false;
        for finish in [true, false] {
            let what = format!(
                "kill at call {call}, {}",
                if finish { "finished" } else { "rolled back" }
            );
            let output = faulty(&stage.layers, &["apply"], &format!("kill {call}"));
            if output.status.success() {
                came_through = true;
                stage.undo(&what);
                continue;
            }
            if is_half(&stage.layers) {
                half += 1;
                if call % 5 == 0 {
                    stage.is_half(&what);
                }
                if finish {
                    done(&stage.layers, &["apply", "--finish"]);
                    stage.is_new(&what);
                    stage.undo(&what);
                } else {
                    done(&stage.layers, &["apply", "--rollback"]);
                    stage.is_old(&what);
                }
            } else if sys::names(&stage.layers.upper).unwrap().is_empty() {
                stage.undo(&what);
            } else {
                // It had not touched anything; the next one begins anew.
                assert_same(&stage.lower, &exact(&stage.layers.lower), &what);
                done(&stage.layers, &["apply"]);
                stage.is_new(&what);
                stage.undo(&what);
            }
        }
        if through && came_through {
            break;
        }
    }
    assert!(
        failed > 50 && half > 30,
        "{failed} calls could fail, {half} kills left a half"
    );
}

#[test]
fn at_any_call_of_an_undo() {
    let steps = "echo more >> f; rm -r gonedir; mkdir d/new; chmod 700 d; echo n > new";
    let Some(stage) = Stage::new("at_any_call_of_an_undo", steps) else {
        return;
    };
    let mut half = 0;
    for call in 1.. {
        assert!(call < 500, "it never comes through");
        let what = format!("kill at call {call} of an undo");
        done(&stage.layers, &["apply"]);
        let output = faulty(&stage.layers, &["apply", "--undo"], &format!("kill {call}"));
        if output.status.success() {
            stage.is_old(&what);
            break;
        }
        if is_half(&stage.layers) {
            half += 1;
            // Killed once more, at the same call.
            faulty(&stage.layers, &["apply", "--finish"], &format!("kill {call}"));
            if sys::exists(stage.layers.work.join("plyfs-apply")) {
                done(&stage.layers, &["apply", "--finish"]);
            }
        } else if sys::exists(stage.layers.work.join("plyfs-apply")) {
            let left = upper(&stage.layers, &["apply", "--finish"]);
            assert!(left.status.success(), "{what}: {left:?}");
            if sys::exists(stage.layers.work.join("plyfs-apply")) {
                stage.undo(&what);
            }
        }
        stage.is_old(&what);
    }
    assert!(half > 10, "{half} kills left a half");
}

/// The view is the same wherever a vacuum or a drop is killed, and the next one comes through.
#[test]
fn at_any_call_of_a_vacuum_and_a_drop() {
    if !need_root("at_any_call_of_a_vacuum_and_a_drop") {
        return;
    }
    let odd = || {
        Layers::new().with_lower(&lower()).with_upper(&[
            whiteout("stray"),
            whiteout("gone"),
            file("back", "copied up for nothing\n"),
            dir("opaque").xattr("trusted.overlay.opaque", "y"),
            dir("d").mode(0o700),
            dir("d/deep"),
            file("d/deep/x", "x\n"),
        ])
    };
    let shown = view(&odd()).without(&["mtime"]);
    let kept = odd();
    for (words, through) in [
        (&["vacuum"][..], &shown),
        (&["drop", "d"], &{
            done(&kept, &["drop", "d"]);
            view(&kept).without(&["mtime"])
        }),
    ] {
        for call in 1.. {
            assert!(call < 200, "it never comes through");
            let layers = odd();
            let output = faulty(&layers, words, &format!("kill {call}"));
            if output.status.success() {
                assert_same(through, &view(&layers).without(&["mtime"]), "through");
                break;
            }
            let now = view(&layers).without(&["mtime"]);
            let same = |tree: &Tree| tree.differences(&now, "expected", "found").is_empty();
            assert!(same(&shown) || same(through), "{words:?} killed at call {call}");
        }
    }
}
