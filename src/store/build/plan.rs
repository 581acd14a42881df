//! Which stages a build needs, and what each of them stands on.

use super::heredoc::At;
use super::parse::{File, Instruction};
use super::variables::Globals;

/// What a stage, or a COPY, takes files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing.
    Scratch,
    /// An earlier stage, by its place in the file.
    Stage(usize),
    /// An image of the store.
    Image(String),
}

/// The stages to build.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Their places in the file, in order; the last is the one asked for.
    pub stages: Vec<usize>,
    /// What each stage of the file stands on, whether it is built or not.
    pub origins: Vec<Origin>,
}

/// Plans the build of `target`, a stage's name or number, or of the last stage.
///
/// # Errors
/// The line, 0 for none, and the reason: no such stage, a name that cannot be expanded, a foreign platform.
pub fn plan(file: &File, globals: &Globals, target: Option<&str>) -> Result<Plan, At> {
    let mut origins = Vec::new();
    for (place, stage) in file.stages.iter().enumerate() {
        let at = |reason| (stage.line, reason);
        if let Some(platform) = &stage.platform {
            let platform = globals.expand(platform, file.escape).map_err(at)?;
            is_ours(&platform).map_err(at)?;
        }
        let image = globals.expand(&stage.image, file.escape).map_err(at)?;
        origins.push(match image.as_str() {
            "" => {
                return Err(at(format!(
                    "FROM {}: names nothing; give it a default with ARG before the first FROM",
                    stage.image
                )));
            }
            "scratch" => Origin::Scratch,
            name => match stage_named(file, name, place) {
                Some(stage) => Origin::Stage(stage),
                None => Origin::Image(image),
            },
        });
    }
    let last = match target {
        None => file.stages.len().saturating_sub(1),
        Some(target) => stage_named(file, target, file.stages.len())
            .or_else(|| target.parse().ok().filter(|place| *place < file.stages.len()))
            .ok_or_else(|| (0, format!("there is no stage {target:?}")))?,
    };
    let mut needed = vec![false; file.stages.len()];
    let mut open = vec![last];
    while let Some(place) = open.pop() {
        match needed.get_mut(place) {
            Some(needed) if !*needed => *needed = true,
            _ => continue,
        }
        if let Some(Origin::Stage(below)) = origins.get(place) {
            open.push(*below);
        }
        let steps = file
            .stages
            .get(place)
            .map(|stage| stage.steps.as_slice())
            .unwrap_or_default();
        for step in steps {
            if let Instruction::Copy(copy) = &step.instruction
                && let Some(from) = &copy.from
                && let Origin::Stage(other) = origin_of_copy(file, from, place)
            {
                open.push(other);
            }
        }
    }
    let stages = (0..file.stages.len())
        .filter(|place| needed.get(*place) == Some(&true))
        .collect();
    Ok(Plan { stages, origins })
}

/// What `COPY --from=name` in the stage at `place` means: an earlier stage by name or number, or an image.
pub fn origin_of_copy(file: &File, name: &str, place: usize) -> Origin {
    if let Some(stage) = stage_named(file, name, place) {
        return Origin::Stage(stage);
    }
    match name.parse::<usize>() {
        Ok(number) if number < place => Origin::Stage(number),
        _ => Origin::Image(name.to_owned()),
    }
}

fn stage_named(file: &File, name: &str, before: usize) -> Option<usize> {
    let name = name.to_lowercase();
    file.stages
        .iter()
        .take(before)
        .rposition(|stage| stage.name.as_deref() == Some(name.as_str()))
}

/// Only images of this machine's platform can be built here.
fn is_ours(platform: &str) -> Result<(), String> {
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next());
    let ours = super::config::architecture();
    let os_only = architecture.is_none() && os == "linux";
    if os_only || (os == "linux" && architecture == Some(ours)) || (architecture.is_none() && os == ours) {
        return Ok(());
    }
    Err(format!(
        "--platform={platform} is not this machine's linux/{ours}, and no other can be built here"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn plan_of(text: &str, target: Option<&str>) -> Result<Plan, At> {
        let file = parse(text).unwrap();
        let mut globals = Globals::new([]);
        for (name, default) in &file.global_args {
            globals.declare(name, default.as_deref(), file.escape).unwrap();
        }
        plan(&file, &globals, target)
    }

    const FILE: &str = "ARG BASE=debian\nFROM $BASE AS a\nRUN x\nFROM a AS unused\nFROM scratch AS b\n\
                        COPY --from=a / /\nFROM other\nCOPY --from=2 / /\nCOPY --from=busybox / /\n";

    #[test]
    fn only_what_is_needed() {
        let plan = plan_of(FILE, None).unwrap();
        assert_eq!(plan.stages, [0, 2, 3]);
        assert_eq!(
            plan.origins,
            [
                Origin::Image("debian".into()),
                Origin::Stage(0),
                Origin::Scratch,
                Origin::Image("other".into())
            ]
        );
    }

    #[test]
    fn a_target_by_name_or_number() {
        assert_eq!(plan_of(FILE, Some("A")).unwrap().stages, [0]);
        assert_eq!(plan_of(FILE, Some("1")).unwrap().stages, [0, 1]);
        assert!(plan_of(FILE, Some("none")).is_err());
        assert!(plan_of(FILE, Some("4")).is_err());
    }

    #[test]
    fn what_cannot_be() {
        assert_eq!(plan_of("\nFROM $NONE", None).unwrap_err().0, 2);
        assert!(plan_of("FROM --platform=plan9/mips a", None).is_err());
        assert!(plan_of("FROM --platform=linux a", None).is_ok());
        assert!(plan_of("FROM --platform=$BUILDPLATFORM a", None).is_ok());
    }

    #[test]
    fn a_stage_is_seen_only_below_itself() {
        let file = parse("FROM a AS x\nCOPY --from=y / /\nFROM b AS y").unwrap();
        assert_eq!(origin_of_copy(&file, "y", 0), Origin::Image("y".into()));
        assert_eq!(origin_of_copy(&file, "X", 1), Origin::Stage(0));
        assert_eq!(origin_of_copy(&file, "0", 1), Origin::Stage(0));
        assert_eq!(origin_of_copy(&file, "1", 1), Origin::Image("1".into()));
    }
}
