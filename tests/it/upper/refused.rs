//! What is in use, or cannot be judged, is left alone.

use super::*;

#[test]
fn layers_of_a_live_mount() {
    if !need_root("layers_of_a_live_mount") {
        return;
    }
    for fs in Fs::sides() {
        let layers = changed(Layers::new(), "echo x > new");
        let mounted = layers.mount(fs, &[]);
        for words in [
            &["diff"][..],
            &["check"],
            &["apply"],
            &["drop", "new"],
            &["vacuum"],
        ] {
            let text = fails(&layers, words);
            assert!(text.contains("in use"), "{}: {text}", fs.name());
            assert!(
                text.contains(layers.merged.to_str().unwrap()),
                "{}: {text}",
                fs.name()
            );
        }
        // Another upper over the same lower.
        let other = Layers::new().with_upper(&[file("new", "x")]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command.args(["upper", "apply", "--lower"]).arg(&layers.lower);
        command
            .arg("--upper")
            .arg(&other.upper)
            .arg("--work")
            .arg(&other.work);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text.contains("lower directory") && text.contains("in use"),
            "{text}"
        );
        mounted.umount();
        done(&layers, &["apply"]);
    }
}

#[test]
fn wrong_directories() {
    let layers = Layers::new().with_upper(&[file("new", "x")]);
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command.arg("upper").args(words).output().unwrap()
    };
    let [lower, upper, work] =
        [&layers.lower, &layers.upper, &layers.work].map(|path| path.to_str().unwrap());
    let output = run(&["diff", "--lower", "/nowhere", "--upper", upper, "--work", work]);
    assert_eq!(output.status.code(), Some(1));
    let output = run(&["diff", "--lower", lower, "--upper", upper]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = run(&["apply", "--lower", upper, "--upper", upper, "--work", work]);
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("the same directory")
    );
    let text = fails(&layers, &["apply", "nothing/there"]);
    assert!(text.contains("/nothing/there: nothing changed there"), "{text}");
    let output = upper_status(&layers, &["apply", "../x"]);
    assert_eq!(output, Some(2));
    assert_eq!(upper_status(&layers, &["apply", "--undo", "--finish"]), Some(2));
    for option in ["--undo", "--finish", "--rollback"] {
        assert!(fails(&layers, &["apply", option]).contains("no apply of"));
    }
    assert_eq!(done(&layers, &["apply", "--forget"]), "nothing was kept\n");
}

fn upper_status(layers: &Layers, words: &[&str]) -> Option<i32> {
    upper(layers, words).status.code()
}

#[test]
fn marks_that_nobody_can_judge() {
    if !need_root("marks_that_nobody_can_judge") {
        return;
    }
    for mark in ["redirect", "metacopy"] {
        let layers = Layers::new().with_lower(&lower());
        let name = format!("trusted.overlay.{mark}");
        let node = match mark {
            "redirect" => dir("moved").xattr(&name, "/d"),
            _ => file("f", "").xattr(&name, ""),
        };
        let layers = layers.with_upper(&[node]);
        let before = exact(&layers.lower);
        let text = fails(&layers, &["apply"]);
        assert!(text.contains(mark), "{text}");
        assert_same(&before, &exact(&layers.lower), "the lower");
        let output = upper(&layers, &["check"]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("fault: ") && text.contains(mark), "{text}");
    }
}
