//! The commands of a walk on the kernel's overlay.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use plyfs::lesson::model::{Action, Change, Sort, tree};
use plyfs::lesson::shot::View;
use plyfs::lesson::{Lesson, model};

use crate::common::*;

/// What is compared of a name: its sort, content and whether it is opaque.
type Facts = BTreeMap<Vec<u8>, (Sort, Option<String>, bool)>;

fn facts(found: &model::Tree) -> Facts {
    let there = |entry: &&model::Entry| entry.change != Some(Change::Removed);
    let fact = |entry: &model::Entry| {
        (
            entry.path.0.clone(),
            (
                entry.sort,
                entry.text.clone(),
                entry.marks.iter().any(|mark| mark == "opaque"),
            ),
        )
    };
    found.entries.iter().filter(there).map(fact).collect()
}

/// Runs the commands of the walk, up to the crash, on the kernel's overlay, and compares layers and view after each.
pub fn beside_the_kernel(lesson: &Lesson) {
    let layers = Layers::new();
    let base = layers.base().join("room");
    fs::create_dir(&base).unwrap();
    let mut mounted = None;
    let mut compared = 0;
    for step in lesson.steps.iter().take_while(|step| step.name != "crash") {
        for scene in &step.scenes {
            match scene.action {
                Action::Mount => {
                    let options = format!("lowerdir={0}/L,upperdir={0}/U,workdir={0}/W", base.display());
                    mounted = Some(
                        layers::try_mount(Fs::Kernel, options.as_ref(), &base.join("M"))
                            .map_err(|refused| format!("{refused:?}"))
                            .unwrap(),
                    );
                }
                Action::Shell => {
                    let output = Command::new("sh")
                        .args(["-c", &scene.command])
                        .env("LC_ALL", "C")
                        .current_dir(&base)
                        .output()
                        .unwrap();
                    assert_eq!(output.status.code(), scene.status, "{}", scene.command);
                    // Inode numbers, dates and names of temporaries differ.
                    if !scene.command.starts_with("ls -l") {
                        let said = [output.stdout, output.stderr].concat();
                        assert_eq!(String::from_utf8_lossy(&said), scene.said, "{}", scene.command);
                    }
                }
                Action::Call => {
                    let words: Vec<&str> = scene.command.split('"').collect();
                    let done = sys::rename(base.join(words[1]), base.join(words[3]));
                    assert_eq!(done, Err(sys::EXDEV), "{}", scene.command);
                    assert!(scene.said.starts_with("EXDEV"), "{}", scene.said);
                }
                Action::Unmount | Action::Server => panic!("{}", scene.command),
            }
            for label in ["L", "U", "M"] {
                let ours = tree(&scene.trees, label).unwrap();
                if ours.absent.is_some() {
                    continue;
                }
                let theirs = View::new(label, "").look(&base.join(label)).unwrap();
                assert_eq!(
                    facts(ours),
                    facts(&theirs.tree),
                    "{label} after {}",
                    scene.command
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared}");
    mounted.unwrap().umount();
}
