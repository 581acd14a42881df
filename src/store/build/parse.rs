//! Reading a Containerfile: text -> stages of steps, with the lines they stand on.
//!
//! The crate `parse-dockerfile` does the reading; here its borrowed pieces are turned into owned ones, here-documents
//! (see [`super::heredoc`]) are given back to their instructions, and options are told apart by name.

use parse_dockerfile as dockerfile;

use super::heredoc::{self, At, HereDoc};
pub use super::instruction::{Command, Copy, File, Instruction, Run, Source, Stage, Step};
use super::words;

/// Reads `text`.
///
/// # Errors
/// The line, 0 for the whole file, and the reason.
pub fn parse(text: &str) -> Result<File, At> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let covered = heredoc::cover(text)?;
    let parsed = dockerfile::parse(&covered.text).map_err(|error| (error.line(), format!("{error:#}")))?;
    let reader = Reader {
        text: &covered.text,
        escape: covered.escape,
        docs: covered.docs,
    };
    let mut global_args = Vec::new();
    for arg in parsed.global_args() {
        let line = heredoc::line_of(reader.text, arg.arg.span.start);
        global_args.extend(args(&arg.arguments.value, reader.escape).map_err(|reason| (line, reason))?);
    }
    // Where each instruction ends is where the next begins: so here-documents find their instruction.
    let starts: Vec<usize> = parsed.instructions.iter().map(keyword_start).collect();
    let end_of = |start: usize| {
        let next = starts.iter().find(|other| **other > start);
        next.copied().unwrap_or(reader.text.len())
    };
    let mut stages = Vec::new();
    for stage in parsed.stages() {
        let from = stage.from;
        let start = from.from.span.start;
        let line = heredoc::line_of(reader.text, start);
        let mut platform = None;
        for option in &from.options {
            match (&*option.name.value, &option.value) {
                ("platform", Some(value)) => platform = Some(value.value.to_string()),
                (name, _) => return Err((line, format!("FROM does not know --{name}"))),
            }
        }
        let mut steps = Vec::new();
        for instruction in stage.instructions {
            let start = keyword_start(instruction);
            let line = heredoc::line_of(reader.text, start);
            steps.push(Step {
                line,
                text: reader.joined(start, end_of(start)),
                instruction: reader
                    .instruction(instruction, start, end_of(start))
                    .map_err(|reason| (line, reason))?,
            });
        }
        stages.push(Stage {
            line,
            text: reader.joined(start, end_of(start)),
            image: from.image.value.to_string(),
            platform,
            name: from.as_.as_ref().map(|(_, name)| name.value.to_lowercase()),
            steps,
        });
    }
    Ok(File {
        global_args,
        stages,
        escape: covered.escape,
    })
}

/// Reads one instruction that stands alone, as an ONBUILD trigger does.
///
/// # Errors
/// The reason.
pub fn parse_trigger(text: &str) -> Result<Step, String> {
    let file = parse(&format!("FROM scratch\n{text}\n")).map_err(|(_, reason)| reason)?;
    let mut steps = file.stages.into_iter().flat_map(|stage| stage.steps);
    match (steps.next(), steps.next()) {
        (Some(step), None) => Ok(step),
        _ => Err(format!("{text:?} is not one instruction")),
    }
}

struct Reader<'a> {
    text: &'a str,
    escape: char,
    docs: Vec<HereDoc>,
}

impl Reader<'_> {
    /// The instruction at `start`, its continuations joined.
    fn joined(&self, start: usize, end: usize) -> String {
        heredoc::uncover(&join(self.text.get(start..end).unwrap_or_default(), self.escape))
    }

    fn docs_in(&self, start: usize, end: usize) -> impl Iterator<Item = &HereDoc> {
        self.docs.iter().filter(move |doc| (start..end).contains(&doc.at))
    }

    fn command(&self, command: &dockerfile::Command<'_>) -> Command {
        match command {
            dockerfile::Command::Exec(words) => {
                Command::Exec(words.value.iter().map(|word| word.value.to_string()).collect())
            }
            dockerfile::Command::Shell(line) => {
                Command::Shell(heredoc::uncover(&join(line.value, self.escape)))
            }
            // The enum may grow; what it would hold then was typed as a shell line.
            _ => Command::Shell(String::new()),
        }
    }

    fn instruction(
        &self,
        instruction: &dockerfile::Instruction<'_>,
        start: usize,
        end: usize,
    ) -> Result<Instruction, String> {
        use dockerfile::Instruction as Parsed;
        Ok(match instruction {
            Parsed::Arg(arg) => Instruction::Arg(args(&arg.arguments.value, self.escape)?),
            Parsed::Env(env) => Instruction::Env(words::pairs(&env.arguments.value, self.escape, "ENV")?),
            Parsed::Label(label) => {
                Instruction::Label(words::pairs(&label.arguments.value, self.escape, "LABEL")?)
            }
            Parsed::Copy(copy) => Instruction::Copy(self.copy("COPY", copy, start, end)?),
            Parsed::Add(add) => {
                let mut docs = self.docs_in(start, end);
                let sources = add
                    .src
                    .iter()
                    .map(|source| source_of(source, &mut docs))
                    .collect();
                Instruction::Add(copy_of("ADD", &add.options, sources, &add.dest.value)?)
            }
            Parsed::Run(run) => {
                let mut network = None;
                for option in &run.options {
                    match (&*option.name.value, &option.value) {
                        ("network", Some(value)) => network = Some(value.value.to_string()),
                        ("mount", _) => {
                            return Err("RUN --mount is not supported: COPY what the command needs, \
                                        and remove it in the same RUN that used it"
                                .to_owned());
                        }
                        (name, _) => return Err(format!("RUN --{name} is not supported")),
                    }
                }
                Instruction::Run(Run {
                    command: self.command(&run.arguments),
                    docs: self.docs_in(start, end).cloned().collect(),
                    network,
                })
            }
            Parsed::Cmd(cmd) => Instruction::Cmd(self.command(&cmd.arguments)),
            Parsed::Entrypoint(entrypoint) => Instruction::Entrypoint(self.command(&entrypoint.arguments)),
            Parsed::Shell(shell) => Instruction::Shell(strings(&shell.arguments)),
            Parsed::Expose(expose) => Instruction::Expose(strings(&expose.arguments)),
            Parsed::Volume(volume) => Instruction::Volume(match &volume.arguments {
                dockerfile::JsonOrStringArray::Json(array) => strings(&array.value),
                dockerfile::JsonOrStringArray::String(array) => strings(array),
            }),
            Parsed::User(user) => Instruction::User(user.arguments.value.to_string()),
            Parsed::Workdir(workdir) => Instruction::Workdir(workdir.arguments.value.to_string()),
            Parsed::Stopsignal(signal) => Instruction::Stopsignal(signal.arguments.value.to_string()),
            Parsed::Healthcheck(check) => {
                let mut options = Vec::new();
                for option in &check.options {
                    let name = option.name.value.to_string();
                    let Some(value) = &option.value else {
                        return Err(format!("HEALTHCHECK --{name} needs a value"));
                    };
                    options.push((name, value.value.to_string()));
                }
                match &check.arguments {
                    dockerfile::HealthcheckArguments::Cmd { arguments, .. } => {
                        Instruction::Healthcheck(options, Some(self.command(arguments)))
                    }
                    _ => Instruction::Healthcheck(options, None),
                }
            }
            Parsed::Onbuild(onbuild) => {
                let inner = keyword_start(&onbuild.instruction);
                if self.docs_in(start, end).next().is_some() {
                    return Err("ONBUILD with a here-document is not supported".to_owned());
                }
                if matches!(*onbuild.instruction, Parsed::From(_) | Parsed::Maintainer(_)) {
                    return Err("ONBUILD takes neither FROM nor MAINTAINER".to_owned());
                }
                // Read now, so that a fault shows where it was made.
                self.instruction(&onbuild.instruction, inner, end)?;
                Instruction::Onbuild(self.joined(inner, end))
            }
            Parsed::Maintainer(maintainer) => Instruction::Maintainer(maintainer.name.value.to_string()),
            _ => return Err("this instruction is not supported".to_owned()),
        })
    }

    fn copy(
        &self,
        name: &str,
        copy: &dockerfile::CopyInstruction<'_>,
        start: usize,
        end: usize,
    ) -> Result<Copy, String> {
        let mut docs = self.docs_in(start, end);
        let sources = copy
            .src
            .iter()
            .map(|source| source_of(source, &mut docs))
            .collect();
        copy_of(name, &copy.options, sources, &copy.dest.value)
    }
}

fn source_of<'a>(source: &dockerfile::Source<'_>, docs: &mut impl Iterator<Item = &'a HereDoc>) -> Source {
    let text = match source {
        dockerfile::Source::Path(path) => heredoc::uncover(&path.value),
        // Covered, so that the parser sees none.
        _ => String::new(),
    };
    if text.starts_with("<<")
        && let Some(doc) = docs.next()
    {
        return Source::Inline(doc.clone());
    }
    Source::Path(text)
}

fn copy_of(
    name: &str,
    options: &[dockerfile::Flag<'_>],
    sources: Vec<Source>,
    destination: &str,
) -> Result<Copy, String> {
    let mut copy = Copy {
        sources,
        destination: destination.to_owned(),
        ..Copy::default()
    };
    for option in options {
        let value = option.value.as_ref().map(|value| value.value.to_string());
        match (&*option.name.value, value) {
            ("from", Some(value)) if name == "COPY" => copy.from = Some(value),
            ("chown", Some(value)) => copy.chown = Some(value),
            ("chmod", Some(value)) => copy.chmod = Some(value),
            ("exclude", Some(value)) => copy.excludes.push(value),
            // Every step is a layer of its own here, whatever lies below it: nothing is left to ask for.
            ("link", None) => {}
            ("link", Some(value)) if value == "true" || value == "false" => {}
            ("from" | "chown" | "chmod" | "exclude", None) => {
                return Err(format!("{name} --{} needs a value", option.name.value));
            }
            (other, _) => return Err(format!("{name} --{other} is not supported")),
        }
    }
    Ok(copy)
}

/// `NAME` or `NAME=DEFAULT`, any number.
fn args(text: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    words::split(text, escape)
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(format!("ARG: {word} has no name before the =")),
            Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
            None => Ok((word, None)),
        })
        .collect()
}

fn strings(words: &[dockerfile::UnescapedString<'_>]) -> Vec<String> {
    words.iter().map(|word| word.value.to_string()).collect()
}

/// Joins the lines of one instruction: continuations, comments and empty lines between them fall.
fn join(text: &str, escape: char) -> String {
    let mut joined = String::new();
    let mut first = true;
    for line in text.split('\n') {
        let trimmed = line.trim_start();
        if !first && (trimmed.is_empty() || trimmed.starts_with('#')) {
            continue;
        }
        first = false;
        match heredoc::continued(line, escape) {
            Some(before) => joined.push_str(before),
            None => {
                joined.push_str(line);
                break;
            }
        }
    }
    joined.trim().to_owned()
}

fn keyword_start(instruction: &dockerfile::Instruction<'_>) -> usize {
    use dockerfile::Instruction as Parsed;
    match instruction {
        Parsed::Add(i) => i.add.span.start,
        Parsed::Arg(i) => i.arg.span.start,
        Parsed::Cmd(i) => i.cmd.span.start,
        Parsed::Copy(i) => i.copy.span.start,
        Parsed::Entrypoint(i) => i.entrypoint.span.start,
        Parsed::Env(i) => i.env.span.start,
        Parsed::Expose(i) => i.expose.span.start,
        Parsed::From(i) => i.from.span.start,
        Parsed::Healthcheck(i) => i.healthcheck.span.start,
        Parsed::Label(i) => i.label.span.start,
        Parsed::Maintainer(i) => i.maintainer.span.start,
        Parsed::Onbuild(i) => i.onbuild.span.start,
        Parsed::Run(i) => i.run.span.start,
        Parsed::Shell(i) => i.shell.span.start,
        Parsed::Stopsignal(i) => i.stopsignal.span.start,
        Parsed::User(i) => i.user.span.start,
        Parsed::Volume(i) => i.volume.span.start,
        Parsed::Workdir(i) => i.workdir.span.start,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Step> {
        let file = parse(&format!("FROM base\n{text}")).unwrap();
        file.stages.into_iter().next().unwrap().steps
    }

    fn one(text: &str) -> Instruction {
        let mut steps = steps(text);
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps.remove(0).instruction
    }

    fn fault(text: &str) -> At {
        parse(&format!("FROM base\n{text}")).unwrap_err()
    }

    fn shell(line: &str) -> Command {
        Command::Shell(line.to_owned())
    }

    #[test]
    fn stages_names_and_lines() {
        let file = parse(
            "# c\nARG V=1 W\nFROM --platform=linux/amd64 base:$V as Build\nRUN a\n\nFROM scratch\nCOPY --from=build /a /b\n",
        )
        .unwrap();
        assert_eq!(
            file.global_args,
            [("V".into(), Some("1".into())), ("W".into(), None)]
        );
        let [build, last] = &file.stages[..] else { panic!() };
        assert_eq!(
            (build.line, build.name.as_deref(), build.image.as_str()),
            (3, Some("build"), "base:$V")
        );
        assert_eq!(build.platform.as_deref(), Some("linux/amd64"));
        assert_eq!(build.steps[0].line, 4);
        assert_eq!(last.steps[0].text, "COPY --from=build /a /b");
        let Instruction::Copy(copy) = &last.steps[0].instruction else {
            panic!()
        };
        assert_eq!(copy.from.as_deref(), Some("build"));
        assert_eq!(copy.sources, [Source::Path("/a".into())]);
    }

    #[test]
    fn commands_in_both_forms() {
        let Instruction::Run(run) = one("RUN a \\\n  # no\n\n  && b $X\n") else {
            panic!()
        };
        assert_eq!(run.command, shell("a   && b $X"));
        let Instruction::Run(run) = one("RUN [\"a\", \"b c\"]") else {
            panic!()
        };
        assert_eq!(run.command, Command::Exec(vec!["a".into(), "b c".into()]));
        assert_eq!(one("CMD []"), Instruction::Cmd(Command::Exec(vec![])));
        assert_eq!(one("ENTRYPOINT a b"), Instruction::Entrypoint(shell("a b")));
        assert_eq!(one("CMD [ not json"), Instruction::Cmd(shell("[ not json")));
    }

    #[test]
    fn here_documents() {
        let steps = steps(
            "RUN <<EOF\na\nb\nEOF\nCOPY <<x.txt <<'y' z /d/\n$v\nx.txt\n2\ny\nRUN cat <<A <<B\n1\nA\n2\nB\n",
        );
        let Instruction::Run(run) = &steps[0].instruction else {
            panic!()
        };
        assert_eq!(run.command, shell("<<EOF"));
        assert_eq!(run.docs[0].content, "a\nb\n");
        let Instruction::Copy(copy) = &steps[1].instruction else {
            panic!()
        };
        let [Source::Inline(x), Source::Inline(y), Source::Path(z)] = &copy.sources[..] else {
            panic!("{copy:?}")
        };
        assert_eq!(
            (x.name.as_str(), x.content.as_str(), x.expand),
            ("x.txt", "$v\n", true)
        );
        assert_eq!((y.name.as_str(), y.expand, z.as_str()), ("y", false, "z"));
        let Instruction::Run(run) = &steps[2].instruction else {
            panic!()
        };
        assert_eq!((run.docs.len(), &run.command), (2, &shell("cat <<A <<B")));
        assert_eq!(steps[2].line, 11);
    }

    #[test]
    fn words_and_pairs() {
        assert_eq!(
            one("ENV A=1 \\\n B=\"x y\""),
            Instruction::Env(vec![("A".into(), "1".into()), ("B".into(), "\"x y\"".into())])
        );
        assert_eq!(
            one("EXPOSE 80 443/udp"),
            Instruction::Expose(vec!["80".into(), "443/udp".into()])
        );
        assert_eq!(one("VOLUME [\"/a b\"]"), Instruction::Volume(vec!["/a b".into()]));
        assert_eq!(
            one("VOLUME /a /b"),
            Instruction::Volume(vec!["/a".into(), "/b".into()])
        );
        assert_eq!(one("HEALTHCHECK NONE"), Instruction::Healthcheck(vec![], None));
        assert_eq!(
            one("HEALTHCHECK --interval=5s CMD a b"),
            Instruction::Healthcheck(vec![("interval".into(), "5s".into())], Some(shell("a b")))
        );
        assert_eq!(
            one("ONBUILD COPY a \\\n b"),
            Instruction::Onbuild("COPY a  b".into())
        );
        assert_eq!(
            one("LABEL a.b=c"),
            Instruction::Label(vec![("a.b".into(), "c".into())])
        );
    }

    #[test]
    fn the_escape_character_can_be_changed() {
        let file = parse("# escape=`\nFROM a\nRUN a `\n b\nCOPY a\\ b\n").unwrap();
        let Instruction::Run(run) = &file.stages[0].steps[0].instruction else {
            panic!()
        };
        assert_eq!(run.command, shell("a  b"));
        assert_eq!(file.escape, '`');
    }

    #[test]
    fn faults_name_their_line() {
        assert_eq!(fault("\nFOO a\n").0, 3);
        assert_eq!(fault("RUN --mount=type=cache,target=/x a\n").0, 2);
        assert!(
            fault("RUN --mount=type=cache,target=/x a\n")
                .1
                .contains("--mount")
        );
        assert!(fault("COPY --parents a b").1.contains("--parents"));
        assert!(fault("COPY a").1.contains("two arguments"));
        assert!(fault("ADD --from=x a b").1.contains("--from"));
        assert!(fault("ONBUILD FROM x").1.contains("FROM"));
        assert!(fault("ENV A").1.contains("needs a value"));
        assert_eq!(parse("").unwrap_err().0, 0);
        assert_eq!(parse("RUN a\nFROM b").unwrap_err().0, 1);
        assert!(parse_trigger("RUN a").is_ok() && parse_trigger("RUN a\nRUN b").is_err());
    }
}
