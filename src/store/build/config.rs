//! The config of the image being built: what each step changes in it, and its history, as docker writes them.

use serde_json::{Map, Value, json};

use super::parse::Command;

/// The PATH of an image that names none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a new image takes from the config it builds on, beside `config`, `history` and `rootfs`.
const INHERITED: [&str; 6] = [
    "architecture",
    "os",
    "variant",
    "os.version",
    "os.features",
    "author",
];

/// An image config that is being changed.
#[derive(Debug, Clone)]
pub struct Config {
    image: Map<String, Value>,
    config: Map<String, Value>,
    history: Vec<Value>,
    diff_ids: Vec<String>,
    /// CMD was given since FROM: ENTRYPOINT leaves it alone then.
    cmd_is_ours: bool,
}

impl Config {
    /// The config of an empty image for this machine.
    pub fn scratch() -> Self {
        let mut image = Map::new();
        image.insert("architecture".to_owned(), json!(architecture()));
        image.insert("os".to_owned(), json!("linux"));
        let mut config = Self {
            image,
            config: Map::new(),
            history: Vec::new(),
            diff_ids: Vec::new(),
            cmd_is_ours: false,
        };
        config.set_default_path();
        config
    }

    /// Starts from the config of an image.
    ///
    /// # Errors
    /// The reason, for a text that is no image config.
    pub fn of_image(raw: &[u8]) -> Result<Self, String> {
        let whole: Map<String, Value> = serde_json::from_slice(raw)
            .map_err(|error| format!("its config is not an image config: {error}"))?;
        let image = whole
            .iter()
            .filter(|(name, _)| INHERITED.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let diff_ids = whole
            .get("rootfs")
            .map(|rootfs| strings(rootfs.get("diff_ids")))
            .unwrap_or_default();
        let mut config = Self {
            image,
            config: whole
                .get("config")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
            history: whole
                .get("history")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            diff_ids,
            cmd_is_ours: false,
        };
        config.set_default_path();
        Ok(config)
    }

    fn set_default_path(&mut self) {
        if self.env_of("PATH").is_none() {
            self.set_env("PATH", DEFAULT_PATH);
        }
    }

    /// The environment, in order.
    pub fn env(&self) -> Vec<(String, String)> {
        strings(self.config.get("Env"))
            .into_iter()
            .map(|entry| match entry.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (entry, String::new()),
            })
            .collect()
    }

    /// One variable of the environment.
    pub fn env_of(&self, name: &str) -> Option<String> {
        self.env()
            .into_iter()
            .rfind(|(other, _)| other == name)
            .map(|(_, value)| value)
    }

    /// ENV. A name that is there keeps its place.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let mut env = self.env();
        match env.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => value.clone_into(old),
            None => env.push((name.to_owned(), value.to_owned())),
        }
        let env: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        self.config.insert("Env".to_owned(), json!(env));
    }

    /// Whether the image says something under this name of its settings.
    pub fn has(&self, name: &str) -> bool {
        self.config.get(name).is_some_and(|value| !value.is_null())
    }

    /// LABEL.
    pub fn set_label(&mut self, name: &str, value: &str) {
        self.extend("Labels", [(name.to_owned(), json!(value))]);
    }

    /// CMD.
    pub fn set_cmd(&mut self, command: &Command) {
        let words = self.words(command);
        self.config.insert("Cmd".to_owned(), json!(words));
        self.cmd_is_ours = true;
    }

    /// ENTRYPOINT: an inherited CMD was meant for another program and falls.
    pub fn set_entrypoint(&mut self, command: &Command) {
        let words = self.words(command);
        self.config.insert("Entrypoint".to_owned(), json!(words));
        if !self.cmd_is_ours {
            self.config.remove("Cmd");
        }
    }

    /// SHELL.
    pub fn set_shell(&mut self, shell: &[String]) {
        self.config.insert("Shell".to_owned(), json!(shell));
    }

    /// USER.
    pub fn set_user(&mut self, user: &str) {
        self.config.insert("User".to_owned(), json!(user));
    }

    /// WORKDIR: a relative path starts at the present one. Answers the whole path.
    pub fn set_workdir(&mut self, path: &str) -> String {
        let whole = absolute(&self.workdir(), path);
        self.config.insert("WorkingDir".to_owned(), json!(whole));
        whole
    }

    /// STOPSIGNAL.
    pub fn set_stop_signal(&mut self, signal: &str) {
        self.config.insert("StopSignal".to_owned(), json!(signal));
    }

    /// VOLUME.
    pub fn add_volume(&mut self, path: &str) {
        self.extend("Volumes", [(path.to_owned(), json!({}))]);
    }

    /// EXPOSE: `80`, `80/udp`, `7000-7010`.
    ///
    /// # Errors
    /// The reason, for what is no port.
    pub fn expose(&mut self, word: &str) -> Result<(), String> {
        let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
        let protocol = protocol.to_lowercase();
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
            return Err(format!("EXPOSE: {word} is no port, nor a range of ports"));
        };
        if first == 0 || last < first || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(format!("EXPOSE: {word} is no port, nor a range of ports"));
        }
        let ports = (first..=last).map(|port| (format!("{port}/{protocol}"), json!({})));
        self.extend("ExposedPorts", ports);
        Ok(())
    }

    /// HEALTHCHECK; no command for NONE.
    ///
    /// # Errors
    /// The reason, for an option that is not known or makes no sense.
    pub fn set_health_check(
        &mut self,
        options: &[(String, String)],
        command: Option<&Command>,
    ) -> Result<(), String> {
        let mut check = Map::new();
        let test = match command {
            None => vec!["NONE".to_owned()],
            Some(Command::Exec(words)) => std::iter::once("CMD".to_owned())
                .chain(words.iter().cloned())
                .collect(),
            Some(Command::Shell(line)) => vec!["CMD-SHELL".to_owned(), line.clone()],
        };
        check.insert("Test".to_owned(), json!(test));
        for (name, value) in options {
            let field = match name.as_str() {
                "interval" => "Interval",
                "timeout" => "Timeout",
                "start-period" => "StartPeriod",
                "start-interval" => "StartInterval",
                "retries" => {
                    let count: u32 = value
                        .parse()
                        .map_err(|_| format!("HEALTHCHECK --retries={value}: not a number"))?;
                    check.insert("Retries".to_owned(), json!(count));
                    continue;
                }
                other => return Err(format!("HEALTHCHECK does not know --{other}")),
            };
            let nanos = duration(value)
                .ok_or_else(|| format!("HEALTHCHECK --{name}={value}: not a time such as 30s or 1m30s"))?;
            check.insert(field.to_owned(), json!(nanos));
        }
        if command.is_none() && !options.is_empty() {
            return Err("HEALTHCHECK NONE takes no options".to_owned());
        }
        self.config.insert("Healthcheck".to_owned(), Value::Object(check));
        Ok(())
    }

    /// ONBUILD.
    pub fn add_trigger(&mut self, instruction: &str) {
        let mut triggers = strings(self.config.get("OnBuild"));
        triggers.push(instruction.to_owned());
        self.config.insert("OnBuild".to_owned(), json!(triggers));
    }

    /// The triggers that the image below left for this build.
    pub fn take_triggers(&mut self) -> Vec<String> {
        strings(self.config.remove("OnBuild").as_ref())
    }

    /// MAINTAINER.
    pub fn set_author(&mut self, name: &str) {
        self.image.insert("author".to_owned(), json!(name));
    }

    /// What runs the shell form.
    pub fn shell(&self) -> Vec<String> {
        match strings(self.config.get("Shell")) {
            none if none.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            shell => shell,
        }
    }

    /// Who runs commands; empty for root.
    pub fn user(&self) -> String {
        self.text("User")
    }

    /// Where commands run.
    pub fn workdir(&self) -> String {
        match self.text("WorkingDir") {
            none if none.is_empty() => "/".to_owned(),
            path => absolute("/", &path),
        }
    }

    /// The words of a command: the shell form behind the shell.
    pub fn words(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => {
                let mut words = self.shell();
                words.push(line.clone());
                words
            }
        }
    }

    /// How docker's history words a step that runs nothing.
    pub fn not_run(&self, what: &str) -> String {
        format!("{} #(nop) {what}", self.shell().join(" "))
    }

    /// Records a step, with the layer it made, if it made one.
    pub fn record(&mut self, created: &str, created_by: &str, diff_id: Option<String>) {
        let mut entry = json!({ "created": created, "created_by": created_by });
        if let (None, Some(entry)) = (&diff_id, entry.as_object_mut()) {
            entry.insert("empty_layer".to_owned(), json!(true));
        }
        self.history.push(entry);
        self.diff_ids.extend(diff_id);
    }

    /// When the image was made: the time of its last step.
    pub fn created(&self) -> Option<&str> {
        self.history.last()?.get("created")?.as_str()
    }

    /// The diff ids of the layers, from the bottom.
    pub fn diff_ids(&self) -> &[String] {
        &self.diff_ids
    }

    /// The whole config as JSON.
    ///
    /// # Errors
    /// None that a map of strings could cause; the serializer's are handed on.
    pub fn render(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut whole = self.image.clone();
        if let Some(created) = self.created() {
            whole.insert("created".to_owned(), json!(created));
        }
        whole.insert("config".to_owned(), Value::Object(self.config.clone()));
        whole.insert("history".to_owned(), json!(self.history));
        whole.insert(
            "rootfs".to_owned(),
            json!({ "type": "layers", "diff_ids": self.diff_ids }),
        );
        serde_json::to_vec(&whole)
    }

    fn text(&self, name: &str) -> String {
        self.config
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    /// Puts members into an object that may not be there yet.
    fn extend(&mut self, name: &str, members: impl IntoIterator<Item = (String, Value)>) {
        let mut object = match self.config.remove(name) {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        };
        object.extend(members);
        self.config.insert(name.to_owned(), Value::Object(object));
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let words = value
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    words
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// `path` seen from `from`, without `.`, `..` and double slashes; never above the root.
pub fn absolute(from: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{from}/{path}")
    };
    let clean = super::ignore::clean(whole.as_bytes());
    format!("/{}", String::from_utf8_lossy(&clean))
}

/// This machine's architecture, as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// `1m30s`, `500ms`, `1.5h` as nanoseconds.
fn duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match rest.get(..end)? {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = rest.get(end..)?;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked on the line itself
    (!text.is_empty() && (0.0..9e18).contains(&total)).then_some(total.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Command {
        Command::Shell(line.to_owned())
    }

    fn json_of(config: &Config) -> Value {
        serde_json::from_slice(&config.render().unwrap()).unwrap()
    }

    #[test]
    fn a_base_is_inherited_and_its_own_times_are_not() {
        let base = json!({
            "architecture": "amd64", "os": "linux", "created": "x", "container": "y", "author": "me",
            "config": { "Env": ["A=1"], "Cmd": ["sh"], "OnBuild": ["RUN a"], "Unknown": 1 },
            "rootfs": { "type": "layers", "diff_ids": ["sha256:aa"] },
            "history": [{ "created_by": "base" }],
        });
        let mut config = Config::of_image(base.to_string().as_bytes()).unwrap();
        assert_eq!(config.take_triggers(), ["RUN a"]);
        config.set_env("B", "2");
        config.set_env("A", "3");
        config.record("t1", "RUN", Some("sha256:bb".to_owned()));
        config.record("t2", "ENV", None);
        let json = json_of(&config);
        assert_eq!(
            json["config"]["Env"],
            json!(["A=3", format!("PATH={DEFAULT_PATH}"), "B=2"])
        );
        assert_eq!(json["config"]["Unknown"], 1);
        assert_eq!(json["rootfs"]["diff_ids"], json!(["sha256:aa", "sha256:bb"]));
        assert_eq!(json["history"][2]["empty_layer"], true);
        assert_eq!((&json["created"], &json["author"]), (&json!("t2"), &json!("me")));
        assert!(json.get("container").is_none() && json["config"].get("OnBuild").is_none());
        assert!(Config::of_image(b"[]").is_err());
    }

    #[test]
    fn an_entrypoint_takes_an_inherited_cmd_away_and_leaves_ours() {
        let base = json!({ "config": { "Cmd": ["old"] } }).to_string();
        let mut config = Config::of_image(base.as_bytes()).unwrap();
        config.set_entrypoint(&Command::Exec(vec!["a".into()]));
        assert!(json_of(&config)["config"].get("Cmd").is_none());
        config.set_cmd(&shell("b"));
        config.set_entrypoint(&shell("c"));
        let json = json_of(&config);
        assert_eq!(json["config"]["Cmd"], json!(["/bin/sh", "-c", "b"]));
        assert_eq!(json["config"]["Entrypoint"], json!(["/bin/sh", "-c", "c"]));
        config.set_shell(&["bash".into(), "-ec".into()]);
        assert_eq!(config.words(&shell("x")), ["bash", "-ec", "x"]);
        assert_eq!(config.not_run("USER a"), "bash -ec #(nop) USER a");
    }

    #[test]
    fn directories_ports_and_checks() {
        let mut config = Config::scratch();
        assert_eq!(config.workdir(), "/");
        assert_eq!(config.set_workdir("a/./b"), "/a/b");
        assert_eq!(config.set_workdir("../../../c"), "/c");
        assert_eq!(config.set_workdir("/x/"), "/x");
        for word in ["80", "90-91/UDP"] {
            config.expose(word).unwrap();
        }
        for word in ["0", "a", "2-1", "1/x", "70000"] {
            assert!(config.expose(word).is_err(), "{word}");
        }
        let options = [
            ("interval".to_owned(), "1m30s".to_owned()),
            ("retries".to_owned(), "3".to_owned()),
        ];
        config.set_health_check(&options, Some(&shell("a"))).unwrap();
        let json = json_of(&config);
        assert_eq!(
            json["config"]["ExposedPorts"],
            json!({ "80/tcp": {}, "90/udp": {}, "91/udp": {} })
        );
        assert_eq!(
            json["config"]["Healthcheck"],
            json!({ "Test": ["CMD-SHELL", "a"], "Interval": 90_000_000_000_u64, "Retries": 3 })
        );
        assert!(
            config
                .set_health_check(&[("x".into(), "1s".into())], None)
                .is_err()
        );
        assert!(
            config
                .set_health_check(&[("timeout".into(), "1".into())], Some(&shell("a")))
                .is_err()
        );
    }

    #[test]
    fn times() {
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration("2h3m"), Some(7_380_000_000_000));
        for text in ["", "1", "s", "1x", "-1s", "1s2"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
