//! Names of containers.

use crate::store::{Result, StoreError};
use crate::sys;

const QUALITIES: [&str; 32] = [
    "agile", "amber", "bold", "brave", "bright", "brisk", "calm", "clever", "crisp", "deft", "eager",
    "early", "fair", "fresh", "gentle", "glad", "golden", "keen", "kind", "lively", "lucid", "merry", "mild",
    "neat", "noble", "plain", "quick", "quiet", "sharp", "steady", "swift", "warm",
];
const THINGS: [&str; 32] = [
    "alder", "ash", "aspen", "badger", "beech", "birch", "cedar", "crane", "elm", "falcon", "fern", "finch",
    "fir", "hazel", "heron", "ibis", "juniper", "larch", "linden", "lynx", "maple", "marten", "oak", "otter",
    "pine", "plover", "rowan", "spruce", "stoat", "swift", "willow", "yew",
];

/// Checks a name that somebody wishes: docker's rule.
///
/// # Errors
/// When it cannot be one.
pub(super) fn check(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric());
    let goes_on = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if starts && goes_on && name.len() > 1 {
        return Ok(());
    }
    Err(StoreError::Grammar {
        text: name.to_owned(),
        what: "a container's name",
        why: "it takes two or more letters, digits, '_', '.' and '-', and begins with a letter or digit",
    })
}

/// A name that `taken` does not know, such as `quiet_otter`.
///
/// # Errors
/// When there are no random numbers.
pub(super) fn invent(taken: impl Fn(&str) -> bool) -> sys::Result<String> {
    let mut tries = 0_u32;
    loop {
        let [quality, thing, ..] = random::<2>()?;
        let pick = |list: &[&'static str; 32], byte: u8| {
            list.get(usize::from(byte % 32)).copied().unwrap_or("plain")
        };
        let mut name = format!("{}_{}", pick(&QUALITIES, quality), pick(&THINGS, thing));
        if tries > 8 {
            name.push_str(&tries.to_string());
        }
        if !taken(&name) {
            return Ok(name);
        }
        tries = tries.saturating_add(1);
    }
}

/// Random bytes.
///
/// # Errors
/// As getrandom(2).
pub(super) fn random<const N: usize>() -> sys::Result<[u8; N]> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_can_be() {
        for name in ["web", "w2", "a.b-c_d", "0a"] {
            check(name).unwrap();
        }
        for name in ["", "a", "-web", ".web", "we b", "wéb", "a/b", "a\n"] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn invented_names_are_fresh() {
        let name = invent(|name| !name.ends_with('9')).unwrap();
        check(&name).unwrap();
        assert!(name.ends_with('9'));
    }
}
