//! A stage while it is built: its config, its variables, its uppermost layer; and the steps that only change those.

use super::config::Config;
use super::error::Result;
use super::parse::Instruction;
use super::variables::{Args, Globals};
use crate::store::Layer;

/// A stage while it is built, or when it is done.
#[derive(Debug)]
pub struct Stage {
    /// The image config so far.
    pub config: Config,
    /// Its ARGs so far.
    pub args: Args,
    /// Its uppermost layer.
    pub layer: Option<Layer>,
    /// The digest of everything that was done so far: part of the key of the steps that make no layer.
    pub identity: [u8; 32],
}

impl Stage {
    /// Expands a word with the variables of this stage.
    ///
    /// # Errors
    /// The reason.
    pub fn expand(&self, word: &str, escape: char) -> std::result::Result<String, String> {
        self.args.expand(&self.config, word, escape)
    }

    /// Does a step that only changes the config; answers how history words it, or none if the step is of another
    /// sort.
    ///
    /// # Errors
    /// The reason, for what makes no sense.
    pub fn configure(
        &mut self,
        instruction: &Instruction,
        globals: &mut Globals,
        escape: char,
    ) -> Result<Option<String>> {
        let words = match instruction {
            Instruction::Arg(args) => {
                let mut shown = Vec::new();
                for (name, default) in args {
                    let arg = (name.as_str(), default.as_deref());
                    self.args.declare(globals, &self.config, escape, arg)?;
                    shown.push(match default {
                        Some(default) => format!("{name}={default}"),
                        None => name.clone(),
                    });
                }
                format!("ARG {}", shown.join(" "))
            }
            Instruction::Env(pairs) => {
                let pairs = self.pairs(pairs, escape)?;
                for (name, value) in &pairs {
                    self.config.set_env(name, value);
                }
                format!("ENV {}", joined(&pairs))
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(pairs, escape)?;
                for (name, value) in &pairs {
                    self.config.set_label(name, value);
                }
                format!("LABEL {}", joined(&pairs))
            }
            Instruction::Cmd(command) => {
                self.config.set_cmd(command);
                format!("CMD {}", json(&self.config.words(command)))
            }
            Instruction::Entrypoint(command) => {
                self.config.set_entrypoint(command);
                format!("ENTRYPOINT {}", json(&self.config.words(command)))
            }
            Instruction::Shell(shell) => {
                self.config.set_shell(shell);
                format!("SHELL {}", json(shell))
            }
            Instruction::Expose(ports) => {
                let mut shown = Vec::new();
                for port in ports {
                    for port in self.expand(port, escape)?.split_whitespace() {
                        self.config.expose(port)?;
                        shown.push(port.to_owned());
                    }
                }
                format!("EXPOSE {}", shown.join(" "))
            }
            Instruction::Volume(paths) => {
                let mut shown = Vec::new();
                for path in paths {
                    let path = self.expand(path, escape)?;
                    if path.is_empty() {
                        return Err("VOLUME needs a path".to_owned().into());
                    }
                    self.config.add_volume(&path);
                    shown.push(path);
                }
                format!("VOLUME {}", json(&shown))
            }
            Instruction::User(user) => {
                let user = self.expand(user, escape)?;
                if user.is_empty() {
                    return Err("USER needs a name or a number".to_owned().into());
                }
                self.config.set_user(&user);
                format!("USER {user}")
            }
            Instruction::Stopsignal(signal) => {
                let signal = self.expand(signal, escape)?;
                if !is_signal(&signal) {
                    return Err(format!("STOPSIGNAL {signal}: not a signal's name or number").into());
                }
                self.config.set_stop_signal(&signal);
                format!("STOPSIGNAL {signal}")
            }
            Instruction::Healthcheck(options, command) => {
                self.config.set_health_check(options, command.as_ref())?;
                let words = command.as_ref().map(|command| self.config.words(command));
                match words {
                    Some(words) => format!("HEALTHCHECK CMD {}", json(&words)),
                    None => "HEALTHCHECK NONE".to_owned(),
                }
            }
            Instruction::Onbuild(trigger) => {
                self.config.add_trigger(trigger);
                format!("ONBUILD {trigger}")
            }
            Instruction::Maintainer(name) => {
                self.config.set_author(name);
                format!("MAINTAINER {name}")
            }
            Instruction::Copy(_) | Instruction::Add(_) | Instruction::Run(_) | Instruction::Workdir(_) => {
                return Ok(None);
            }
        };
        Ok(Some(self.config.not_run(&words)))
    }

    /// All values with the variables from before the step, as docker has it.
    fn pairs(&self, pairs: &[(String, String)], escape: char) -> Result<Vec<(String, String)>> {
        let mut expanded = Vec::new();
        for (name, value) in pairs {
            expanded.push((self.expand(name, escape)?, self.expand(value, escape)?));
        }
        Ok(expanded)
    }
}

fn joined(pairs: &[(String, String)]) -> String {
    let words: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    words.join(" ")
}

fn json(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let known = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    known.contains(&name) || name.starts_with("RTMIN") || name.starts_with("RTMAX")
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn stage(text: &str) -> Result<(Stage, Vec<String>)> {
        let file = parse(&format!("FROM scratch\n{text}")).unwrap();
        let mut globals = Globals::new([]);
        let mut stage = Stage {
            config: Config::scratch(),
            args: Args::default(),
            layer: None,
            identity: [0; 32],
        };
        let mut history = Vec::new();
        for step in &file.stages[0].steps {
            history.extend(stage.configure(&step.instruction, &mut globals, file.escape)?);
        }
        Ok((stage, history))
    }

    #[test]
    fn steps_of_config_alone() {
        let text = "ARG V=2\nENV A=1 B=\"x $V\"\nENV A=$V C=$A\nLABEL l='$A' m=$A\nUSER u$V\nEXPOSE $V/udp 3\n\
                    VOLUME /v$V\nSTOPSIGNAL SIGTERM\nCMD echo $A\nENTRYPOINT [\"a\", \"$A\"]\nSHELL [\"b\"]\nONBUILD RUN $A";
        let (mut stage, history) = stage(text).unwrap();
        assert_eq!(stage.config.env_of("A").as_deref(), Some("2"));
        assert_eq!(stage.config.env_of("B").as_deref(), Some("x 2"));
        assert_eq!(stage.config.env_of("C").as_deref(), Some("1"));
        let json: serde_json::Value = serde_json::from_slice(&stage.config.render().unwrap()).unwrap();
        let config = &json["config"];
        assert_eq!(config["Labels"], serde_json::json!({ "l": "$A", "m": "2" }));
        assert_eq!(config["User"], "u2");
        assert_eq!(
            config["ExposedPorts"],
            serde_json::json!({ "2/udp": {}, "3/tcp": {} })
        );
        assert_eq!(config["Volumes"], serde_json::json!({ "/v2": {} }));
        assert_eq!(config["Cmd"], serde_json::json!(["/bin/sh", "-c", "echo $A"]));
        assert_eq!(config["Entrypoint"], serde_json::json!(["a", "$A"]));
        assert_eq!(history[1], "/bin/sh -c #(nop) ENV A=1 B=x 2");
        assert_eq!(
            history[8],
            "/bin/sh -c #(nop) CMD [\"/bin/sh\" \"-c\" \"echo $A\"]"
        );
        assert_eq!(stage.config.take_triggers(), ["RUN $A"]);
    }

    #[test]
    fn what_makes_no_sense() {
        for text in [
            "STOPSIGNAL nope",
            "STOPSIGNAL 99",
            "USER $none",
            "VOLUME $none",
            "EXPOSE x",
            "ENV A='x",
        ] {
            assert!(stage(text).is_err(), "{text}");
        }
    }
}
