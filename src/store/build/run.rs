//! RUN: a command in a merged view of the tree so far, and what it changed as a layer archive.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use super::error::{Reason, Result};
use super::parse::{Command, Run};
use super::stage::Stage;
use crate::builder::diff::{Upper, diff_upper};
use crate::builder::layer_tar::write_layer_upper;
use crate::format::links::Links;
use crate::store::container::Scratch;
use crate::store::runtime::{Network, Process, Volume};
use crate::store::view::marks;
use crate::store::{Layer, Store, StoreError, TmpDir};
use crate::sys::{Errno, at};

/// What a command finds, beside its files.
#[derive(Debug)]
pub struct Environment {
    /// ARGs of the stage, which history and cache name.
    pub args: Vec<(String, String)>,
    /// Variables that they do not name.
    pub unsaid: Vec<(String, String)>,
    /// The network it sees.
    pub network: Network,
}

/// The words of a command, and a script of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// A here-document that names its own interpreter: its name and text, seen as `/dev/pipes/NAME`.
    pub script: Option<(String, String)>,
}

/// The words of a RUN, here-documents in their place.
pub fn words(run: &Run, stage: &Stage) -> Words {
    let Command::Shell(line) = &run.command else {
        return Words {
            argv: stage.config.words(&run.command),
            script: None,
        };
    };
    let shell = |line: String| Words {
        argv: stage.config.words(&Command::Shell(line)),
        script: None,
    };
    match run.docs.as_slice() {
        [] => shell(line.clone()),
        [doc] if line.starts_with("<<") && !line.contains(char::is_whitespace) => {
            if doc.content.starts_with("#!") {
                let path = format!("/dev/pipes/{}", doc.name);
                return Words {
                    argv: vec![path],
                    script: Some((doc.name.clone(), doc.content.clone())),
                };
            }
            shell(doc.content.clone())
        }
        // The shell itself knows what a here-document is.
        docs => {
            let mut whole = line.clone();
            for doc in docs {
                whole.push('\n');
                whole.push_str(&doc.content);
                whole.push_str(&doc.name);
            }
            whole.push('\n');
            shell(whole)
        }
    }
}

/// How history words a RUN: the ARGs that it saw, and the command.
pub fn created_by(words: &Words, args: &[(String, String)]) -> String {
    let mut shown = String::new();
    if !args.is_empty() {
        shown.push_str(&format!("|{}", args.len()));
        for (name, value) in args {
            shown.push_str(&format!(" {name}={value}"));
        }
        shown.push(' ');
    }
    match &words.script {
        Some((_, text)) => shown.push_str(text),
        None => shown.push_str(&words.argv.join(" ")),
    }
    shown
}

/// What a command changed: its upper, and what it lay over.
#[derive(Debug)]
pub struct Changed<'a> {
    scratch: Scratch<'a>,
    lower: OwnedFd,
    links: Option<Links>,
}

impl<'a> Changed<'a> {
    /// Runs a command over `layer`.
    ///
    /// To be called while this process has no threads.
    ///
    /// # Errors
    /// [`Reason::Ended`] and [`Reason::NotStarted`]; when the view cannot be mounted or there is no runtime.
    pub fn by(
        store: &'a Store,
        stage: &Stage,
        layer: &Layer,
        words: &Words,
        environment: &Environment,
    ) -> Result<Self> {
        let scratch = Scratch::new(store, layer)?;
        let script = script(store, words)?;
        let volumes = script.iter().map(|(_, volume)| volume.clone()).collect();
        let variables = stage.config.env().into_iter();
        let variables = variables.chain(environment.args.iter().cloned());
        let variables = variables.chain(environment.unsaid.iter().cloned());
        let process = Process {
            argv: words.argv.clone(),
            env: variables.map(|(name, value)| format!("{name}={value}")).collect(),
            cwd: stage.config.workdir(),
            user: stage.config.user(),
            tty: false,
            stdin: false,
        };
        let ended = scratch.run(process, volumes, environment.network)?;
        match ended.reason {
            Some(reason) => return Err(Reason::NotStarted(reason)),
            None if ended.status != 0 => return Err(Reason::Ended(ended.status)),
            None => {}
        }
        Ok(Self {
            scratch,
            lower: layer.root_fd()?,
            links: links_of(layer)?,
        })
    }

    fn with_upper<T>(&self, use_it: impl FnOnce(Upper<'_>) -> crate::builder::Result<T>) -> Result<T> {
        let (upper, init) = (self.scratch.upper()?, self.scratch.init_upper()?);
        let names = self.links.as_ref().map(|links| |ino: u64| links.names_of(ino));
        let names = names.as_ref().map(|names| names as &(dyn Fn(u64) -> u32 + Sync));
        Ok(use_it(Upper {
            upper: upper.as_fd(),
            lower: self.lower.as_fd(),
            init: Some(init.as_fd()),
            namespace: Some(marks()),
            names,
        })?)
    }

    /// Whether nothing was changed.
    ///
    /// # Errors
    /// If the upper cannot be read.
    pub fn is_nothing(&self) -> Result<bool> {
        let mut count = 0_u64;
        self.with_upper(|upper| {
            diff_upper(upper, &mut |_| {
                count += 1;
                Ok(())
            })
        })?;
        Ok(count == 0)
    }

    /// Writes the changes as a layer archive; answers what no layer can hold.
    ///
    /// # Errors
    /// If the upper cannot be read; what writing answers.
    pub fn write(&self, to: impl Write) -> Result<Vec<String>> {
        let written = self.with_upper(|upper| write_layer_upper(upper, to))?;
        let skipped = written.skipped.into_iter();
        Ok(skipped.map(|(path, why)| format!("{path}: {why}")).collect())
    }
}

/// The file of a here-document that names its own interpreter.
fn script(store: &Store, words: &Words) -> Result<Option<(TmpDir, Volume)>> {
    let Some((name, text)) = &words.script else {
        return Ok(None);
    };
    let tmp = TmpDir::new(store, 0o700)?;
    tmp.write("script", text.as_bytes())?;
    let path = tmp.path().join("script");
    let script = at::open_path(tmp.dir()?, b"script");
    script
        .and_then(|script| at::chmod_fd(script, 0o755))
        .map_err(StoreError::errno("change the mode of", &path))?;
    let volume = Volume {
        source: path,
        target: format!("/dev/pipes/{name}"),
        read_only: true,
    };
    Ok(Some((tmp, volume)))
}

fn links_of(layer: &Layer) -> Result<Option<Links>> {
    let path = layer.path().join("links");
    match at::open_at(layer.dir(), b"links", libc::O_RDONLY) {
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(StoreError::errno("open", &path)(errno).into()),
        Ok(file) => {
            let mut content = Vec::new();
            File::from(file)
                .read_to_end(&mut content)
                .map_err(StoreError::io("read", &path))?;
            Ok(Links::decode(&content))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::super::parse::{Instruction, parse};
    use super::super::variables::Args;
    use super::*;

    fn words_of(text: &str) -> Words {
        let file = parse(&format!("FROM scratch\n{text}")).unwrap();
        let Instruction::Run(run) = &file.stages[0].steps[0].instruction else {
            panic!()
        };
        let stage = Stage {
            config: Config::scratch(),
            args: Args::default(),
            layer: None,
            identity: [0; 32],
        };
        words(run, &stage)
    }

    #[test]
    fn here_documents_in_all_their_forms() {
        let argv = |text: &str| words_of(text).argv;
        assert_eq!(argv("RUN [\"a\", \"b\"]"), ["a", "b"]);
        assert_eq!(argv("RUN a b"), ["/bin/sh", "-c", "a b"]);
        assert_eq!(argv("RUN <<EOF\na\nb\nEOF\n"), ["/bin/sh", "-c", "a\nb\n"]);
        assert_eq!(
            argv("RUN cat <<A <<B\n1\nA\n2\nB\n"),
            ["/bin/sh", "-c", "cat <<A <<B\n1\nA\n2\nB\n"]
        );
        let script = words_of("RUN <<X\n#!/usr/bin/env python\n1\nX\n");
        assert_eq!(script.argv, ["/dev/pipes/X"]);
        assert_eq!(script.script.unwrap().1, "#!/usr/bin/env python\n1\n");
        let words = words_of("RUN a");
        let args = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())];
        assert_eq!(created_by(&words, &args), "|2 A=1 B=2 /bin/sh -c a");
    }
}
