//! What is written down of a container: `containers/<id>`, in the shape of docker's inspect.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, without docker's slash.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The id of its image: `sha256:...`.
    pub image: String,
    /// How its command is run.
    pub config: Settings,
    /// What it sees of the machine.
    pub host_config: HostSettings,
    /// Its latest run.
    pub state: State,
}

/// How a container's command is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Settings {
    /// The host name it sees.
    pub hostname: String,
    /// Who runs it, as in an image's config; empty for root.
    pub user: String,
    /// It gets a terminal.
    pub tty: bool,
    /// It gets the standard input.
    pub open_stdin: bool,
    /// `NAME=value`
    pub env: Vec<String>,
    /// The command, or the arguments of the entry point.
    pub cmd: Vec<String>,
    /// The image as it was asked for.
    pub image: String,
    /// The working directory; empty for `/`.
    pub working_dir: String,
    /// The program that gets `cmd` as arguments.
    pub entrypoint: Vec<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
}

impl Settings {
    /// Everything that is executed: the entry point and its arguments.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        [self.entrypoint.as_slice(), self.cmd.as_slice()].concat()
    }
}

/// What a container sees of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostSettings {
    /// `SOURCE:TARGET[:ro]`
    pub binds: Vec<String>,
    /// `host` or `none`
    pub network_mode: String,
    /// Changes of the root file system are refused.
    pub readonly_rootfs: bool,
    /// It is removed when its command ends.
    pub auto_remove: bool,
}

/// The latest run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// `created`, `running` or `exited`
    pub status: Status,
    /// The runtime's process while it runs, else 0.
    pub pid: u32,
    /// What the last run ended with.
    pub exit_code: u8,
    /// RFC 3339, empty before the first run.
    pub started_at: String,
    /// RFC 3339, empty before the first end.
    pub finished_at: String,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its command never ran.
    #[default]
    Created,
    /// It runs.
    Running,
    /// It ran.
    Exited,
}

impl Status {
    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_has_dockers_names() {
        let record = Record {
            id: "ab".repeat(32),
            name: "web".to_owned(),
            created: "2026-01-01T00:00:00Z".to_owned(),
            image: format!("sha256:{}", "00".repeat(32)),
            config: Settings {
                cmd: vec!["sh".to_owned()],
                entrypoint: vec!["/init".to_owned()],
                ..Settings::default()
            },
            host_config: HostSettings::default(),
            state: State::default(),
        };
        let text = serde_json::to_string(&record).unwrap();
        for name in [
            "\"Id\"",
            "\"HostConfig\"",
            "\"WorkingDir\"",
            "\"ReadonlyRootfs\"",
            "\"Status\":\"created\"",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        assert_eq!(record.config.argv(), ["/init", "sh"]);
    }
}
