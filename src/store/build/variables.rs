//! ARG and ENV: which names a step sees.
//!
//! ARGs before the first FROM are seen by FROM lines only; a stage takes one in by an ARG without a default. An ARG
//! of a stage is seen from its line to the stage's end. A name that ENV set hides an ARG. `--build-arg` replaces the
//! default of a declared ARG.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Config, architecture};
use super::expand::expand;

/// May be given by `--build-arg` without an ARG; they reach RUN, and neither history nor cache.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What the whole file sees.
#[derive(Debug)]
pub struct Globals {
    /// From the command line.
    given: BTreeMap<String, String>,
    /// Names of the platform, and ARGs before the first FROM.
    values: BTreeMap<String, String>,
    /// Given names that something asked for.
    used: BTreeSet<String>,
}

impl Globals {
    /// Starts with what the command line gave.
    pub fn new(given: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut values = BTreeMap::new();
        for side in ["BUILD", "TARGET"] {
            values.insert(format!("{side}PLATFORM"), format!("linux/{}", architecture()));
            values.insert(format!("{side}OS"), "linux".to_owned());
            values.insert(format!("{side}ARCH"), architecture().to_owned());
            values.insert(format!("{side}VARIANT"), String::new());
        }
        Self {
            given: given.into_iter().collect(),
            values,
            used: BTreeSet::new(),
        }
    }

    /// Takes an ARG before the first FROM.
    ///
    /// # Errors
    /// The reason, when its default cannot be expanded.
    pub fn declare(&mut self, name: &str, default: Option<&str>, escape: char) -> Result<(), String> {
        let value = match self.given(name) {
            Some(value) => Some(value),
            None => default
                .map(|default| expand(default, escape, &|name| self.values.get(name).cloned()))
                .transpose()?,
        };
        if let Some(value) = value {
            self.values.insert(name.to_owned(), value);
        }
        Ok(())
    }

    /// Expands a word of a FROM line.
    ///
    /// # Errors
    /// The reason.
    pub fn expand(&self, word: &str, escape: char) -> Result<String, String> {
        expand(word, escape, &|name| self.values.get(name).cloned())
    }

    fn given(&mut self, name: &str) -> Option<String> {
        let value = self.given.get(name)?;
        self.used.insert(name.to_owned());
        Some(value.clone())
    }

    /// Names given on the command line that nothing asked for.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        let names = self.given.keys().map(String::as_str);
        names.filter(|name| !self.used.contains(*name) && !PROXIES.contains(name))
    }
}

/// The ARGs of one stage.
#[derive(Debug, Clone, Default)]
pub struct Args(BTreeMap<String, String>);

impl Args {
    /// Takes an ARG.
    ///
    /// # Errors
    /// The reason, when its default cannot be expanded.
    pub fn declare(
        &mut self,
        globals: &mut Globals,
        config: &Config,
        escape: char,
        (name, default): (&str, Option<&str>),
    ) -> Result<(), String> {
        let value = match (globals.given(name), default) {
            (Some(given), _) => Some(given),
            (None, Some(default)) => Some(self.expand(config, default, escape)?),
            (None, None) => globals.values.get(name).cloned(),
        };
        match value {
            Some(value) => self.0.insert(name.to_owned(), value),
            None => self.0.remove(name),
        };
        Ok(())
    }

    /// Expands a word of a step.
    ///
    /// # Errors
    /// The reason.
    pub fn expand(&self, config: &Config, word: &str, escape: char) -> Result<String, String> {
        expand(word, escape, &|name| self.look_up(config, name))
    }

    /// A variable as a step sees it.
    pub fn look_up(&self, config: &Config, name: &str) -> Option<String> {
        config.env_of(name).or_else(|| self.0.get(name).cloned())
    }

    /// What RUN gets beside the image's environment, and history and cache name: sorted.
    pub fn for_run(&self, config: &Config) -> Vec<(String, String)> {
        let seen = self.0.iter().filter(|(name, _)| config.env_of(name).is_none());
        seen.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// What RUN gets beside that, unsaid.
    pub fn proxies(&self, globals: &Globals, config: &Config) -> Vec<(String, String)> {
        let unsaid = |name: &&str| !self.0.contains_key(*name) && config.env_of(name).is_none();
        PROXIES
            .into_iter()
            .filter(unsaid)
            .filter_map(|name| Some((name.to_owned(), globals.given.get(name)?.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(given: &[(&str, &str)]) -> Globals {
        Globals::new(given.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())))
    }

    #[test]
    fn a_stage_takes_globals_in_by_name_only() {
        let mut globals = globals(&[("V", "9")]);
        globals.declare("V", Some("1"), '\\').unwrap();
        globals.declare("W", Some("w$V"), '\\').unwrap();
        assert_eq!(globals.expand("base:$V$W", '\\').unwrap(), "base:9w9");
        let (mut args, config) = (Args::default(), Config::scratch());
        assert_eq!(args.expand(&config, "[$V]", '\\').unwrap(), "[]");
        args.declare(&mut globals, &config, '\\', ("W", None)).unwrap();
        args.declare(&mut globals, &config, '\\', ("TARGETARCH", None))
            .unwrap();
        args.declare(&mut globals, &config, '\\', ("X", Some("$W-x")))
            .unwrap();
        args.declare(&mut globals, &config, '\\', ("Y", None)).unwrap();
        assert_eq!(
            args.expand(&config, "$W $X [$Y] $TARGETARCH", '\\').unwrap(),
            format!("w9 w9-x [] {}", architecture())
        );
    }

    #[test]
    fn env_hides_an_arg_and_unused_ones_are_known() {
        let mut globals = globals(&[("A", "given"), ("B", "b"), ("http_proxy", "p")]);
        let (mut args, mut config) = (Args::default(), Config::scratch());
        args.declare(&mut globals, &config, '\\', ("A", Some("default")))
            .unwrap();
        assert_eq!(args.for_run(&config), [("A".to_owned(), "given".to_owned())]);
        config.set_env("A", "env");
        assert_eq!(args.expand(&config, "$A", '\\').unwrap(), "env");
        assert!(args.for_run(&config).is_empty());
        assert_eq!(globals.unused().collect::<Vec<_>>(), ["B"]);
        assert_eq!(args.proxies(&globals, &config).len(), 1);
    }
}
