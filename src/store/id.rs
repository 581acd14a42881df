//! Digests, and what each of them names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::StoreError;

const ALGORITHM: &str = "sha256:";

fn parse(text: &str) -> Result<[u8; 32], StoreError> {
    let refuse = |why| StoreError::Grammar {
        text: text.to_owned(),
        what: "a digest",
        why,
    };
    let digits = text
        .strip_prefix(ALGORITHM)
        .ok_or_else(|| refuse("it must begin with 'sha256:', the one algorithm that is supported"))?;
    if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
        return Err(refuse("its digits must be in lower case"));
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes)
        .map_err(|_| refuse("64 hexadecimal digits must follow 'sha256:'"))?;
    Ok(bytes)
}

macro_rules! digest_of {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Shown and read as `sha256:` and 64 hexadecimal digits.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From the bytes of the digest.
            pub fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The digest of these bytes.
            pub fn hash(data: &[u8]) -> Self {
                Self(Sha256::digest(data).into())
            }

            /// The bytes of the digest.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// 64 hexadecimal digits, without the algorithm: a file name.
            pub fn hex(&self) -> String {
                hex::encode(self.0)
            }

            /// From 64 hexadecimal digits without the algorithm, a file name; none for anything else.
            pub fn from_hex(digits: &str) -> Option<Self> {
                parse(&format!("{ALGORITHM}{digits}")).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{ALGORITHM}{}", self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = StoreError;

            fn from_str(text: &str) -> Result<Self, StoreError> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                parse(&text).map(Self).map_err(serde::de::Error::custom)
            }
        }
    };
}

digest_of!(
    /// The digest of a layer's uncompressed archive.
    DiffId
);
digest_of!(
    /// Names a layer and everything below it, as OCI has it: the same tree has the same chain id everywhere.
    ChainId
);
digest_of!(
    /// The digest of an image's config.
    ImageId
);
digest_of!(
    /// The digest of a blob: a config, a manifest, a layer as it was packed.
    BlobId
);

impl ChainId {
    /// The chain id of the layer `diff` on `parent`.
    pub fn of(parent: Option<&Self>, diff: &DiffId) -> Self {
        match parent {
            None => Self(diff.0),
            Some(parent) => Self::hash(format!("{parent} {diff}").as_bytes()),
        }
    }

    /// The chain ids of the layers with these diff ids, the base first.
    pub fn chain(diffs: &[DiffId]) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::with_capacity(diffs.len());
        for diff in diffs {
            chain.push(Self::of(chain.last(), diff));
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes() {
        let id = DiffId::hash(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse::<DiffId>().unwrap(), id);
        assert_eq!(DiffId::from_hex(&id.hex()), Some(id));
        for wrong in [
            "",
            "sha256:",
            "sha256:e3",
            "sha512:e3b0",
            &text.to_uppercase(),
            &format!("{text}0"),
            "sha256:../../../../../../../../../../../../../../../../../../../../../x",
        ] {
            assert!(wrong.parse::<DiffId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_chain_as_the_specification_has_it() {
        let (a, b) = (DiffId::hash(b"a"), DiffId::hash(b"b"));
        let chain = ChainId::chain(&[a, b]);
        assert_eq!(chain[0].as_bytes(), a.as_bytes());
        assert_eq!(chain[1], ChainId::hash(format!("{a} {b}").as_bytes()));
        assert!(ChainId::chain(&[]).is_empty());
    }
}
