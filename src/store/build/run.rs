//! RUN: a command in a merged view of the tree so far, and what it changed as a layer archive.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use super::error::{Reason, Result};
use super::parse::{Command, Run};
use super::stage::Stage;
use crate::builder::diff::{Upper, diff_upper};
use crate::builder::layer_tar::write_layer_upper;
use crate::format::links::Links;
use crate::mount::Directories;
use crate::store::container::{furnish, now};
use crate::store::runtime::{self, Network, Process, Volume};
use crate::store::{Layer, Store, StoreError, TmpDir};

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
pub struct Changed {
    tmp: TmpDir,
    lower: OwnedFd,
    links: Option<Links>,
}

impl Changed {
    /// Runs a command over `layer`.
    ///
    /// To be called while this process has no threads.
    ///
    /// # Errors
    /// [`Reason::Ended`] and [`Reason::NotStarted`]; when the view cannot be mounted or there is no runtime.
    pub fn by(
        store: &Store,
        stage: &Stage,
        layer: &Layer,
        words: &Words,
        environment: &Environment,
    ) -> Result<Self> {
        let tmp = TmpDir::new(store, 0o700)?;
        let lower = layer.root_fd()?;
        let (now, _) = now();
        for (upper, work) in [("upper", "work"), ("init", "init-work")] {
            furnish(&tmp, layer.id(), lower.as_fd(), (upper, work), now)?;
        }
        tmp.make_dir("merged", 0o755)?;
        let mut volumes = Vec::new();
        if let Some((name, text)) = &words.script {
            tmp.write("script", text.as_bytes())?;
            let path = tmp.path().join("script");
            let script = crate::sys::at::open_path(tmp.dir()?, b"script");
            script
                .and_then(|script| crate::sys::at::chmod_fd(script, 0o755))
                .map_err(StoreError::errno("change the mode of", &path))?;
            volumes.push(Volume {
                source: path,
                target: format!("/dev/pipes/{name}"),
                read_only: true,
            });
        }
        let variables = stage.config.env().into_iter();
        let variables = variables.chain(environment.args.iter().cloned());
        let variables = variables.chain(environment.unsaid.iter().cloned());
        let run = runtime::Run {
            store,
            directories: Directories {
                lower: layer.root_path(),
                upper: Some((tmp.path().join("upper"), tmp.path().join("work"))),
                merged: tmp.path().join("merged"),
            },
            process: Process {
                argv: words.argv.clone(),
                env: variables.map(|(name, value)| format!("{name}={value}")).collect(),
                cwd: stage.config.workdir(),
                user: stage.config.user(),
                tty: false,
                stdin: false,
            },
            hostname: "plyfs-build".to_owned(),
            volumes,
            network: environment.network,
            read_only: false,
            volatile: true,
        };
        let ended = runtime::run(&run)?;
        match ended.reason {
            Some(reason) => return Err(Reason::NotStarted(reason)),
            None if ended.status != 0 => return Err(Reason::Ended(ended.status)),
            None => {}
        }
        let links = links_of(layer)?;
        Ok(Self { tmp, lower, links })
    }

    fn with_upper<T>(&self, use_it: impl FnOnce(Upper<'_>) -> crate::builder::Result<T>) -> Result<T> {
        let open = |name: &str| {
            crate::sys::at::open_dir_path(self.tmp.dir()?, name.as_bytes())
                .and_then(crate::sys::at::reopen_dir)
                .map_err(StoreError::errno("open", self.tmp.path().join(name)))
        };
        let (upper, init) = (open("upper")?, open("init")?);
        let names = self.links.as_ref().map(|links| |ino: u64| links.names_of(ino));
        let names = names.as_ref().map(|names| names as &dyn Fn(u64) -> u32);
        Ok(use_it(Upper {
            upper: upper.as_fd(),
            lower: self.lower.as_fd(),
            init: Some(init.as_fd()),
            namespace: None,
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

fn links_of(layer: &Layer) -> Result<Option<Links>> {
    let path = layer.path().join("links");
    match crate::sys::at::open_at(layer.dir(), b"links", libc::O_RDONLY) {
        Err(crate::sys::Errno::NOENT) => Ok(None),
        Err(errno) => Err(StoreError::errno("open", &path)(errno).into()),
        Ok(file) => {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut File::from(file), &mut content)
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
