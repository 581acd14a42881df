//! The words after `-o` as engines write them, on bytes and without a system call.
//!
//! Three kinds: the words of a mount that [`Options`] knows; the words of `fuse-overlayfs`, which are understood here;
//! and all others, which are noted and passed over. A word that is known and malformed is an error if it would have
//! changed what the view shows.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::mount::{OptionError, Options};
use crate::overlay::{FsyncMode, StatedIn};

/// A word that has no effect, to be told on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// As typed.
    pub word: String,
    /// Why, of a word that is known.
    pub why: Option<&'static str>,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.why {
            // In the words of fuse-overlayfs, which scripts may look for.
            None => write!(f, "unknown argument ignored: {}", self.word),
            Some(why) => write!(f, "argument without effect: {}: {why}", self.word),
        }
    }
}

/// Everything an engine can say by words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// What every mount knows.
    pub options: Options,
    /// What has no effect, in the order of the words.
    pub notes: Vec<Note>,
}

/// Words of `fuse-overlayfs` and of its library that say how requests are served, which plyfs decides by itself.
const SERVING: &[&str] = &[
    "async_read",
    "atomic_o_trunc",
    "attr_timeout",
    "auto_cache",
    "blkdev",
    "clone_fd",
    "congestion_threshold",
    "entry_timeout",
    "fast_ino",
    "fast_ino_check",
    "hard_remove",
    "intr",
    "kernel_cache",
    "large_read",
    "max_background",
    "max_idle_threads",
    "max_readahead",
    "max_threads",
    "max_write",
    "negative_timeout",
    "no_remote_lock",
    "no_splice_move",
    "no_splice_read",
    "no_splice_write",
    "readdir_ino",
    "splice_move",
    "splice_read",
    "splice_write",
    "sync_read",
    "threaded",
    "use_ino",
];

/// Labels of SELinux, which engines write in quotes, with commas in them.
const LABELS: &[&str] = &["context", "fscontext", "defcontext", "rootcontext"];

impl Words {
    /// Reads one `-o` argument on top of what earlier ones said; later words win.
    ///
    /// # Errors
    /// The first word that is known and malformed, or that would change the view in a way plyfs cannot.
    pub fn parse(&mut self, argument: &OsStr) -> Result<(), OptionError> {
        split(argument.as_bytes())
            .into_iter()
            .filter(|word| !word.is_empty())
            .try_for_each(|word| self.word(word))
    }

    fn word(&mut self, word: &[u8]) -> Result<(), OptionError> {
        let (name, value) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, rest) = word.split_at(at);
                (name, rest.get(1..))
            }
            None => (word, None),
        };
        let bad = |wanted| OptionError::BadValue {
            word: lossy(word),
            wanted,
        };
        let unsupported = |why| OptionError::Unsupported {
            word: lossy(word),
            why,
        };
        let owners = |reason| OptionError::Owners {
            word: lossy(word),
            reason,
        };
        // No number has other letters, so that they are refused.
        let text = str::from_utf8(value.unwrap_or_default()).unwrap_or("?");
        let presentation = &mut self.options.presentation;
        let name = str::from_utf8(name).unwrap_or_default();
        match (name, value) {
            (name, _) if SERVING.contains(&name) => {}
            (name, Some(value)) if LABELS.contains(&name) => {
                presentation.labels.set(name, OsStr::from_bytes(value));
            }
            ("uidmapping", Some(_)) => presentation.ids.map_users(text).map_err(owners)?,
            ("gidmapping", Some(_)) => presentation.ids.map_groups(text).map_err(owners)?,
            ("squash_to_root", None) => presentation.ids.squash_to_root(),
            ("squash_to_uid", Some(_)) => presentation.ids.squash_users(text).map_err(owners)?,
            ("squash_to_gid", Some(_)) => presentation.ids.squash_groups(text).map_err(owners)?,
            ("xattr_permissions", Some(value)) => {
                presentation.stated = match value {
                    b"0" => None,
                    b"1" => Some(StatedIn::Security),
                    b"2" => Some(StatedIn::User),
                    _ => return Err(bad("the value is 0, 1 or 2")),
                }
            }
            ("noacl", None) => presentation.no_acl = true,
            ("static_nlink", None) => presentation.static_nlink = true,
            ("squash_to_root" | "noacl" | "static_nlink", Some(_)) => return Err(bad("it takes no value")),
            ("uidmapping" | "gidmapping" | "squash_to_uid" | "squash_to_gid" | "xattr_permissions", None) => {
                return Err(bad("it needs a value, as in 'name=value'"));
            }
            ("fsync", Some(value)) if number(value).is_some() => {
                self.options.fsync = if number(value) == Some(0) {
                    FsyncMode::Volatile
                } else {
                    FsyncMode::Auto
                };
            }
            // Whether writes are gathered does not show, and with files passed through there is nothing to gather.
            ("writeback", Some(b"0" | b"1")) => {}
            ("noxattrs", Some(b"0")) => {}
            ("noxattrs", _) => return Err(unsupported("the view always has extended attributes")),
            ("plugins", None | Some(b"")) => {}
            ("plugins", Some(_)) => return Err(unsupported("plyfs loads no plugins of fuse-overlayfs")),
            // The private mounts that `podman run -v DIR:/X:O` makes.
            ("private" | "shared" | "slave" | "rprivate" | "rshared" | "rslave", None) => {}
            ("ino32_t", _) => self.note(word, Some("inode numbers have 64 bits")),
            _ => return self.word_of_a_mount(word),
        }
        Ok(())
    }

    /// A word for [`Options`]. What it does not know, and what it cannot do that nobody would see, is noted.
    fn word_of_a_mount(&mut self, word: &[u8]) -> Result<(), OptionError> {
        match self.options.parse(OsStr::from_bytes(word)) {
            Err(OptionError::Unknown(_)) => self.note(word, None),
            Err(OptionError::Unsupported { why, .. }) if !changes_the_view(word) => {
                self.note(word, Some(why))
            }
            done => return done,
        }
        Ok(())
    }

    fn note(&mut self, word: &[u8], why: Option<&'static str>) {
        self.notes.push(Note {
            word: lossy(word),
            why,
        });
    }
}

/// Whether the view would be another one if plyfs did what the word says: other directories, other files, or a promise
/// about their content.
fn changes_the_view(word: &[u8]) -> bool {
    ["redirect_dir", "verity", "lowerdir", "datadir"]
        .iter()
        .any(|name| word.starts_with(name.as_bytes()))
}

/// Cuts at every comma that has no backslash before it and does not stand in the quotes of a label. Escapes stay in.
fn split(text: &[u8]) -> Vec<&[u8]> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        let quoted = LABELS.iter().any(|name| {
            rest.strip_prefix(name.as_bytes())
                .is_some_and(|value| value.starts_with(b"=\""))
        });
        let mut escaped = false;
        let mut quotes = 0_usize;
        let end = rest.iter().position(|byte| {
            quotes = quotes.saturating_add(usize::from(*byte == b'"'));
            let open = quoted && quotes == 1;
            let cut = *byte == b',' && !escaped && !open;
            escaped = *byte == b'\\' && !escaped;
            cut
        });
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push(word);
        match after.get(1..) {
            Some(after) => rest = after,
            None => return words,
        }
    }
}

fn number(text: &[u8]) -> Option<u32> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

fn lossy(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

/// A word with `value` in it, whatever bytes that has: the opposite of parsing.
#[must_use]
pub fn word(name: &str, value: &OsStr) -> OsString {
    let mut word = Vec::from(name.as_bytes());
    word.push(b'=');
    word.extend_from_slice(crate::mount::options::escape(value).as_bytes());
    OsString::from_vec(word)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::sys::creds::Ids;
    use crate::sys::fusedev::Labels;

    fn parse(text: &str) -> Result<Words, OptionError> {
        let mut words = Words::default();
        words.parse(OsStr::new(text))?;
        Ok(words)
    }

    fn noted(text: &str) -> Vec<String> {
        parse(text).unwrap().notes.iter().map(Note::to_string).collect()
    }

    #[test]
    fn what_podman_and_dockerd_write() {
        let words = parse("lowerdir=/g/l/A,upperdir=/g/ID/diff,workdir=/g/ID/work,,volatile,").unwrap();
        assert_eq!(words.options.upper.as_deref(), Some(OsStr::new("/g/ID/diff")));
        assert_eq!(words.options.fsync, FsyncMode::Volatile);
        assert_eq!(words.notes, []);
        let words =
            parse("lowerdir=/l,private,uidmapping=:0:1:1000:1001:1001:64535,gidmapping=:0:0:5").unwrap();
        let ids = words.options.presentation.ids;
        assert_eq!(ids.shown(Ids { uid: 0, gid: 4 }), Ids { uid: 1, gid: 4 });
        assert_eq!(ids.shown(Ids { uid: 1001, gid: 5 }).uid, 1001);
        assert_eq!(words.notes, []);
    }

    #[test]
    fn words_of_fuse_overlayfs() {
        assert_eq!(parse("fsync=0").unwrap().options.fsync, FsyncMode::Volatile);
        assert_eq!(parse("fsync=0,fsync=1").unwrap().options.fsync, FsyncMode::Auto);
        assert_eq!(parse("fsync=strict").unwrap().options.fsync, FsyncMode::Strict);
        let presentation = |words| parse(words).unwrap().options.presentation;
        assert_eq!(presentation("xattr_permissions=2").stated, Some(StatedIn::User));
        assert_eq!(
            presentation("xattr_permissions=1").stated,
            Some(StatedIn::Security)
        );
        assert_eq!(parse("xattr_permissions=0").unwrap(), Words::default());
        let any = Ids { uid: 5, gid: 6 };
        assert_eq!(
            presentation("squash_to_root").ids.shown(any),
            Ids { uid: 0, gid: 0 }
        );
        let one = presentation("squash_to_uid=7,squash_to_gid=8").ids;
        assert_eq!(one.shown(any), Ids { uid: 7, gid: 8 });
        assert!(presentation("noacl").no_acl && presentation("static_nlink").static_nlink);
        assert_eq!(
            parse("timeout=0.5").unwrap().options.timeout,
            Duration::from_millis(500)
        );
    }

    #[test]
    fn how_it_is_served_is_for_plyfs_to_decide() {
        let words = "threaded=1,fast_ino=1,max_idle_threads=4,clone_fd,writeback=1,writeback=0,noxattrs=0,plugins=,\
            kernel_cache,max_write=4096,splice_read,xino=auto,lazytime,suid,dev,exec,rw,default_permissions,\
            redirect_dir=off,big_writes,private";
        assert_eq!(parse(words).unwrap(), Words::default());
        assert!(parse("writeback").unwrap().options.writeback);
    }

    #[test]
    fn a_label_ends_with_its_quotes() {
        let words = parse("context=\"a:b,c\",ro,rootcontext=\"d,e\"").unwrap();
        assert!(words.options.attributes.read_only);
        assert_eq!(words.notes, []);
        let mut labels = Labels::default();
        assert!(labels.set("context", OsStr::new("a:b,c")) && labels.set("rootcontext", OsStr::new("d,e")));
        assert_eq!(words.options.presentation.labels, labels);
        // Without an end it takes what is left, and quotes elsewhere are a part of the name.
        assert!(!parse("context=\"a,ro").unwrap().options.attributes.read_only);
        let words = parse("upperdir=\"a,ro,b\"").unwrap();
        assert_eq!(words.options.upper.unwrap(), "\"a");
        assert!(words.options.attributes.read_only);
    }

    #[test]
    fn what_nobody_knows_is_noted() {
        assert_eq!(
            noted("frobnicate,frob=1,,ino32_t,metacopy=on"),
            [
                "unknown argument ignored: frobnicate",
                "unknown argument ignored: frob=1",
                "argument without effect: ino32_t: inode numbers have 64 bits",
                "argument without effect: metacopy=on: a copy-up always copies the data",
            ]
        );
        for word in [
            "index=on",
            "nfs_export=on",
            "uuid=on",
            "setuid=5",
            "subtype=other",
            "max_read=9",
        ] {
            assert_eq!(noted(word).len(), 1, "{word}");
        }
        let odd = OsStr::from_bytes(b"\xff\xfe=1,\xff");
        let mut words = Words::default();
        words.parse(odd).unwrap();
        assert_eq!(words.notes.len(), 2);
    }

    #[test]
    fn what_would_change_the_view_is_refused() {
        for word in [
            "redirect_dir=on",
            "redirect_dir=follow",
            "verity=require",
            "lowerdir+=/a",
            "noxattrs=1",
            "plugins=/p.so",
        ] {
            let error = parse(word).unwrap_err();
            assert!(
                matches!(error, OptionError::Unsupported { .. }),
                "{word}: {error}"
            );
        }
        for word in [
            "uidmapping",
            "squash_to_uid",
            "squash_to_root=1",
            "xattr_permissions=3",
            "xattr_permissions",
            "noacl=1",
            "static_nlink=0",
            "timeout=soon",
            "fsync=maybe",
            "fsync=",
            "redirect_dir=perhaps",
            "lowerdir=",
            "lowerdir=/a::/b",
            "upperdir=",
            "ro=1",
        ] {
            let error = parse(word).unwrap_err();
            assert!(matches!(error, OptionError::BadValue { .. }), "{word}: {error}");
        }
    }

    #[test]
    fn the_last_word_counts_and_arguments_add_up() {
        let mut words = Words::default();
        for text in ["upperdir=/a,ro", "rw,upperdir=/b", "workdir=/w"] {
            words.parse(OsStr::new(text)).unwrap();
        }
        assert_eq!(words.options.upper.unwrap(), "/b");
        assert_eq!(words.options.work.unwrap(), "/w");
        assert!(!words.options.attributes.read_only);
    }

    proptest! {
        #[test]
        fn any_name_comes_back(name in "[^\0]{1,40}", before in "[a-z]{0,5}") {
            let mut text = OsString::from(before);
            text.push(",");
            text.push(word("upperdir", OsStr::new(&name)));
            text.push(",ro");
            let mut words = Words::default();
            words.parse(&text).unwrap();
            prop_assert_eq!(words.options.upper, Some(OsString::from(name)));
            prop_assert!(words.options.attributes.read_only);
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // Whatever it answers, it answers.
            let mut words = Words::default();
            let answer = words.parse(OsStr::from_bytes(&bytes));
            prop_assert!(answer.is_ok() || !answer.unwrap_err().to_string().is_empty());
        }

        #[test]
        fn no_part_of_an_argument_is_lost(bytes in prop::collection::vec(prop::sample::select(b"a,\\\"=:context".to_vec()), 0..60)) {
            let words = split(&bytes);
            prop_assert_eq!(words.join(&b','), bytes);
        }
    }
}
