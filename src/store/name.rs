//! Names of images, as docker has them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::StoreError;

const LONGEST_REPOSITORY: usize = 255;
const LONGEST_TAG: usize = 128;

/// A repository and a tag: `debian:12`, `localhost/app:latest`, `example.org:5000/team/app:v1`.
///
/// In the short form that docker shows: `docker.io/library/debian` is `debian`. The tag is `latest` where none is
/// given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    repository: String,
    tag: String,
}

impl Name {
    /// Everything before the tag.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// With the registry that the short form leaves out: `docker.io/library/debian:12`.
    pub fn full(&self) -> String {
        if has_domain(&self.repository) {
            self.to_string()
        } else if self.repository.contains('/') {
            format!("docker.io/{self}")
        } else {
            format!("docker.io/library/{self}")
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first part is a registry if it has a dot or a port, or is `localhost`.
fn has_domain(repository: &str) -> bool {
    repository
        .split_once('/')
        .is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
}

/// Letters and digits in lower case, with single `.`, one or two `_` or any number of `-` between them.
fn is_component(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = part.bytes().next().is_some_and(alphanumeric) && part.bytes().last().is_some_and(alphanumeric);
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && separators
        .filter(|between| !between.is_empty())
        .all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether this can be a tag: letters, digits, `_`, `.` and `-`, not beginning with the last two.
pub(crate) fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// The short form of a repository, checked.
pub(crate) fn repository(text: &str) -> Result<String, &'static str> {
    if text.len() > LONGEST_REPOSITORY {
        return Err("it is longer than 255 bytes");
    }
    let short = ["docker.io/", "index.docker.io/"]
        .iter()
        .find_map(|registry| text.strip_prefix(registry))
        .map(|path| path.strip_prefix("library/").unwrap_or(path));
    let short = match short {
        // Without its registry the first part must not look like another one.
        Some(path) if !has_domain(path) => path,
        _ => text,
    };
    let path = match short.split_once('/') {
        Some((domain, path)) if has_domain(short) => {
            if !is_domain(domain) {
                return Err("the registry before the first '/' is not a host name with an optional port");
            }
            path
        }
        _ => short,
    };
    if !path.split('/').all(is_component) {
        return Err(
            "between '/' only lower-case letters and digits, joined by '.', '_', '__' or '-', may stand",
        );
    }
    if short.len() == 64 && short.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("64 hexadecimal digits are an id");
    }
    Ok(short.to_owned())
}

impl FromStr for Name {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let refuse = |why| StoreError::Grammar {
            text: text.to_owned(),
            what: "an image name",
            why,
        };
        if text.contains('@') {
            return Err(refuse("a digest cannot be given as a name"));
        }
        // A colon before the last '/' belongs to the registry's port.
        let (before, tag) = match text.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => (before, tag),
            _ => (text, "latest"),
        };
        if !is_tag(tag) {
            return Err(refuse(
                "the tag after ':' must be of letters, digits, '_', '.' and '-', at most 128, and not begin with \
                 '.' or '-'",
            ));
        }
        Ok(Self {
            repository: repository(before).map_err(refuse)?,
            tag: tag.to_owned(),
        })
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form() {
        for (typed, shown, full) in [
            ("debian", "debian:latest", "docker.io/library/debian:latest"),
            (
                "docker.io/library/debian:12",
                "debian:12",
                "docker.io/library/debian:12",
            ),
            ("docker.io/a/b", "a/b:latest", "docker.io/a/b:latest"),
            ("localhost/a:1", "localhost/a:1", "localhost/a:1"),
            (
                "localhost:5000/a",
                "localhost:5000/a:latest",
                "localhost:5000/a:latest",
            ),
            (
                "Example.org/a__b-c.d:V_1",
                "Example.org/a__b-c.d:V_1",
                "Example.org/a__b-c.d:V_1",
            ),
        ] {
            let name: Name = typed.parse().unwrap();
            assert_eq!(name.to_string(), shown);
            assert_eq!(name.full(), full);
            assert_eq!(shown.parse::<Name>().unwrap(), name);
        }
    }

    #[test]
    fn what_is_none() {
        let long = "a".repeat(256);
        let id = "0".repeat(64);
        for wrong in [
            "",
            ":",
            "a:",
            ":a",
            "A",
            "a//b",
            "/a",
            "a/",
            "..",
            "a/../b",
            "a:.b",
            "a:-",
            "a@sha256:00",
            "a b",
            "-a",
            "a\n",
            "a._b",
            "a___b",
            "ex ample.org/a",
            &long,
            &id,
        ] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }
}
