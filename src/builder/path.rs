//! The path of an object inside a tree.

use std::fmt;

/// A path relative to a tree's root: names joined by `/`, with none in front; empty for the root itself.
///
/// For messages, manifests and archives only: files are reached by a directory descriptor and one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root of a tree.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path from bytes that are known to be clean: no empty name, no `.`, no `..`.
    pub fn from_clean(path: impl Into<Vec<u8>>) -> Self {
        Self(path.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of `name` in the directory at this path.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = Vec::with_capacity(self.0.len() + 1 + name.len());
        path.extend_from_slice(&self.0);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }

    /// The names, from the root down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The directory and the name in it; none for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => Some((Self(self.0.get(..at)?.to_vec()), self.0.get(at + 1..)?)),
            None => Some((Self::root(), &self.0)),
        }
    }
}

impl fmt::Display for TreePath {
    /// As a person reads it: with a `/` in front, and control characters and what is not UTF-8 escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/")?;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::TreePath;

    #[test]
    fn split_and_join_are_inverse() {
        for path in ["a", "a/b", "a/b/c"] {
            let path = TreePath::from_clean(path);
            let (dir, name) = path.split().unwrap();
            assert_eq!(dir.join(name), path);
        }
        assert_eq!(TreePath::root().split(), None);
        assert_eq!(TreePath::root().names().count(), 0);
    }

    #[test]
    fn shown_without_surprises() {
        let path = TreePath::from_clean(b"a\nb/\xffc".to_vec());
        assert_eq!(path.to_string(), "/a\\nb/\\xffc");
        assert_eq!(TreePath::root().to_string(), "/");
    }
}
