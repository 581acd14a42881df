//! The words after `-o`, on bytes and without a system call: what each means, or why it is refused.
//!
//! A word that would change what the view shows, and that plyfs does not do, is an error that names it. A word
//! that changes nothing here, or that belongs to mount(8), is accepted.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use super::presentation::Presentation;
use crate::fuse::{IdMapError, Passthrough};
use crate::overlay::{FsyncMode, MOST_LOWERS, XattrNamespace};
use crate::sys::fusedev::{Atime, Attributes};

/// How long the kernel trusts an answer unless told otherwise: the view is the only writer of its layers.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Everything that can be said by words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `lowerdir=`, the topmost first; empty if it was not given.
    pub lowers: Vec<OsString>,
    /// `upperdir=`
    pub upper: Option<OsString>,
    /// `workdir=`
    pub work: Option<OsString>,
    /// What the kernel does with the mounted view.
    pub attributes: Attributes,
    /// `allow_other`: let other users in, where that is not so anyway.
    pub allow_other: bool,
    /// `allow_root`: let root in, and nobody else.
    pub allow_root: bool,
    /// `auto_unmount`: a server that dies takes its mount along.
    pub auto_unmount: bool,
    /// `fsync=` or `volatile`
    pub fsync: FsyncMode,
    /// `userxattr`
    pub xattr: XattrNamespace,
    /// `timeout=`
    pub timeout: Duration,
    /// `latency=`
    pub low_latency: bool,
    /// `passthrough=`
    pub passthrough: Passthrough,
    /// `writeback`
    pub writeback: bool,
    /// `foreign`: marks of other tools in the lowers count.
    pub foreign: bool,
    /// `fsname=`
    pub fsname: Option<OsString>,
    /// `debug`
    pub debug: bool,
    /// What only container engines ask for; no word of the kernel's form sets it.
    pub presentation: Presentation,
    /// `remount`: not a new view, only other attributes of the one that is there.
    pub remount: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lowers: Vec::new(),
            upper: None,
            work: None,
            attributes: Attributes::default(),
            allow_other: false,
            allow_root: false,
            auto_unmount: false,
            fsync: FsyncMode::Auto,
            xattr: XattrNamespace::Auto,
            timeout: DEFAULT_TIMEOUT,
            low_latency: true,
            passthrough: Passthrough::default(),
            writeback: false,
            foreign: false,
            fsname: None,
            debug: false,
            presentation: Presentation::default(),
            remount: false,
        }
    }
}

/// Why a word is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error("unknown mount option '{0}'")]
    Unknown(String),
    /// It needs another value, or one at all.
    #[error("mount option '{word}': {wanted}")]
    BadValue {
        /// As typed.
        word: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// Ids that make no sense.
    #[error("mount option '{word}': {reason}")]
    Owners {
        /// As typed.
        word: String,
        /// What is wrong with them.
        reason: IdMapError,
    },
    /// Known, and it would change the view, and it is not done here.
    #[error("mount option '{word}' is not supported: {why}")]
    Unsupported {
        /// As typed.
        word: String,
        /// What it would have meant.
        why: &'static str,
    },
}

/// Words that mount(8), systemd or other helpers keep for themselves, or that change nothing here.
const ACCEPTED: &[&str] = &[
    "_netdev",
    "async",
    "auto",
    "big_writes",
    "default_permissions",
    "defaults",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "nofail",
    "noiversion",
    "nolazytime",
    "noauto",
    "nomand",
    "noowner",
    "nostrictatime",
    "nouser",
    "nousers",
    "nonempty",
    "owner",
    "silent",
    "user",
    "users",
];

const FLAG: &str = "it takes no value";
const ON_OFF: &str = "the value is 'on' or 'off'";

impl Options {
    /// Reads one `-o` argument on top of what earlier ones said; later words win.
    ///
    /// # Errors
    /// The first word that is unknown, malformed or not supported.
    pub fn parse(&mut self, argument: &OsStr) -> Result<(), OptionError> {
        let words = split(argument.as_bytes(), b',');
        // It decides how the other words are taken, wherever it stands.
        self.remount |= words.iter().any(|word| **word == *b"remount");
        words
            .into_iter()
            .filter(|word| !word.is_empty())
            .try_for_each(|word| self.word(word))
    }

    fn word(&mut self, word: &[u8]) -> Result<(), OptionError> {
        let (name, value) = match word
            .iter()
            .position(|&byte| byte == b'=')
            .map(|at| word.split_at(at))
        {
            Some((name, rest)) => (name, rest.get(1..)),
            None => (word, None),
        };
        let bad = |wanted| OptionError::BadValue {
            word: lossy(word),
            wanted,
        };
        let unsupported = |why| {
            Err(OptionError::Unsupported {
                word: lossy(word),
                why,
            })
        };
        let Ok(name) = str::from_utf8(name) else {
            return Err(OptionError::Unknown(lossy(word)));
        };
        if name.starts_with("x-") || name.starts_with("X-") || name == "comment" {
            return Ok(());
        }
        let Some(value) = value else {
            return self.flag(name, word);
        };
        match name {
            "lowerdir" => {
                let layers = split(value, b':');
                if layers.len() > 1 && layers.iter().any(|layer| layer.is_empty()) {
                    return Err(bad(
                        "a ':' separates directories and may not lead, trail or be doubled; write '\\:' for one in a name",
                    ));
                }
                if layers.len() > MOST_LOWERS {
                    return Err(bad("a view has at most 500 lowers"));
                }
                let layers: Option<Vec<_>> = layers.into_iter().map(path).collect();
                self.lowers = layers.ok_or_else(|| bad("it needs a directory"))?;
            }
            "upperdir" => self.upper = Some(path(value).ok_or_else(|| bad("it needs a directory"))?),
            "workdir" => self.work = Some(path(value).ok_or_else(|| bad("it needs a directory"))?),
            "lowerdir+" | "datadir+" => {
                return unsupported("it exists only in fsconfig(2), not in a mount option string");
            }
            "fsname" => self.fsname = Some(path(value).ok_or_else(|| bad("it needs a name"))?),
            "subtype" => {
                if value != b"plyfs" {
                    return unsupported("the type is always fuse.plyfs, by which mounts are found again");
                }
            }
            "fsync" => {
                self.fsync = match value {
                    b"auto" => FsyncMode::Auto,
                    b"strict" => FsyncMode::Strict,
                    b"volatile" => FsyncMode::Volatile,
                    _ => return Err(bad("the value is 'auto', 'strict' or 'volatile'")),
                }
            }
            "timeout" => {
                self.timeout =
                    seconds(value).ok_or_else(|| bad("the value is a number of seconds, 0 or more"))?
            }
            "latency" => {
                self.low_latency = match value {
                    b"low" => true,
                    b"any" => false,
                    _ => return Err(bad("the value is 'low' or 'any'")),
                }
            }
            "passthrough" => {
                self.passthrough = match value {
                    b"upper" => Passthrough::Upper,
                    b"all" => Passthrough::All,
                    b"off" => Passthrough::Off,
                    _ => return Err(bad("the value is 'upper', 'all' or 'off'")),
                }
            }
            "index" => match value {
                b"off" => {}
                b"on" => {
                    return unsupported(
                        "hard links of the lower are separated by a copy-up, and layers are locked anyway",
                    );
                }
                _ => return Err(bad(ON_OFF)),
            },
            "xino" => match value {
                b"on" | b"off" | b"auto" => {}
                _ => return Err(bad("the value is 'on', 'off' or 'auto'")),
            },
            "redirect_dir" => match value {
                b"off" | b"nofollow" => {}
                b"on" | b"follow" => {
                    return unsupported("a directory of the lower is not renamed (EXDEV; mv(1) then copies)");
                }
                _ => return Err(bad("the value is 'on', 'off', 'follow' or 'nofollow'")),
            },
            "metacopy" => match value {
                b"off" => {}
                b"on" => return unsupported("a copy-up always copies the data"),
                _ => return Err(bad(ON_OFF)),
            },
            "nfs_export" => match value {
                b"off" => {}
                b"on" => return unsupported("the view has no file handles that outlive its server"),
                _ => return Err(bad(ON_OFF)),
            },
            "uuid" => match value {
                b"auto" | b"off" | b"null" => {}
                b"on" => return unsupported("the view has no file system identifier of its own"),
                _ => return Err(bad("the value is 'auto', 'on', 'off' or 'null'")),
            },
            "verity" => match value {
                b"off" => {}
                b"on" | b"require" => {
                    return unsupported("lower files are not checked against fs-verity digests");
                }
                _ => return Err(bad("the value is 'off', 'on' or 'require'")),
            },
            // mount(8) copies these from the mount table.
            "fd" | "rootmode" | "user_id" | "group_id" | "max_read" | "blksize" if self.remount => {}
            "fd" | "rootmode" | "user_id" | "group_id" | "max_read" | "blksize" => {
                return unsupported("plyfs speaks to the kernel itself and sets this one");
            }
            "setuid" => return unsupported("only mount.fuse3 can act on it: use mount -t fuse.plyfs"),
            "ro" | "rw" | "suid" | "nosuid" | "dev" | "nodev" | "exec" | "noexec" | "atime" | "noatime"
            | "relatime" | "norelatime" | "strictatime" | "nodiratime" | "symfollow" | "nosymfollow"
            | "sync" | "dirsync" | "allow_other" | "allow_root" | "auto_unmount" | "volatile"
            | "userxattr" | "debug" | "writeback" | "foreign" => return Err(bad(FLAG)),
            name if ACCEPTED.contains(&name) => return Err(bad(FLAG)),
            _ => return Err(OptionError::Unknown(lossy(word))),
        }
        Ok(())
    }

    fn flag(&mut self, name: &str, word: &[u8]) -> Result<(), OptionError> {
        let attributes = &mut self.attributes;
        match name {
            "ro" => attributes.read_only = true,
            "rw" => attributes.read_only = false,
            "nosuid" => attributes.nosuid = true,
            "suid" => attributes.nosuid = false,
            "nodev" => attributes.nodev = true,
            "dev" => attributes.nodev = false,
            "noexec" => attributes.noexec = true,
            "exec" => attributes.noexec = false,
            "noatime" => attributes.atime = Atime::Never,
            "strictatime" => attributes.atime = Atime::Always,
            "atime" | "relatime" | "norelatime" => attributes.atime = Atime::Relative,
            "nodiratime" => attributes.nodiratime = true,
            "diratime" => attributes.nodiratime = false,
            "nosymfollow" => attributes.nosymfollow = true,
            "symfollow" => attributes.nosymfollow = false,
            "sync" => attributes.sync = true,
            "async" => attributes.sync = false,
            "dirsync" => attributes.dirsync = true,
            "allow_other" => self.allow_other = true,
            "allow_root" => self.allow_root = true,
            "auto_unmount" => self.auto_unmount = true,
            "volatile" => self.fsync = FsyncMode::Volatile,
            "userxattr" => self.xattr = XattrNamespace::User,
            "debug" => self.debug = true,
            "writeback" => self.writeback = true,
            "foreign" => self.foreign = true,
            "drop_privileges" => {
                return Err(OptionError::Unsupported {
                    word: lossy(word),
                    why: "the server needs its rights to keep owners and modes",
                });
            }
            "remount" => self.remount = true,
            "lowerdir" | "upperdir" | "workdir" | "fsname" | "subtype" | "fsync" | "timeout" | "latency"
            | "passthrough" | "index" | "xino" | "redirect_dir" | "metacopy" | "nfs_export" | "uuid"
            | "verity" | "lowerdir+" | "datadir+" => {
                return Err(OptionError::BadValue {
                    word: lossy(word),
                    wanted: "it needs a value, as in 'name=value'",
                });
            }
            name if ACCEPTED.contains(&name) => {}
            _ => return Err(OptionError::Unknown(lossy(word))),
        }
        Ok(())
    }
}

/// Cuts at every separator that has no backslash before it. Escapes stay in.
fn split(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut escaped = false;
    text.split(|&byte| {
        let cut = byte == separator && !escaped;
        escaped = byte == b'\\' && !escaped;
        cut
    })
    .collect()
}

/// A name with its escapes taken out; `None` if nothing is left of it or an escape has nothing to escape.
fn path(text: &[u8]) -> Option<OsString> {
    let mut name = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        name.push(if byte == b'\\' { bytes.next()? } else { byte });
    }
    if name.is_empty() {
        None
    } else {
        Some(OsString::from_vec(name))
    }
}

/// A word that [`Options::parse`] reads back as `name=value`, whatever bytes the value has.
#[must_use]
pub fn escape(value: &OsStr) -> OsString {
    let mut text = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            text.push(b'\\');
        }
        text.push(byte);
    }
    OsString::from_vec(text)
}

fn seconds(value: &[u8]) -> Option<Duration> {
    // A year and more is "for ever"; the kernel keeps lifetimes in ticks and would wrap around much later.
    const FOR_EVER: Duration = Duration::from_secs(1 << 30);
    let seconds: f64 = str::from_utf8(value).ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .map(|time| time.min(FOR_EVER))
}

fn lossy(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, OptionError> {
        let mut options = Options::default();
        options.parse(OsStr::new(text))?;
        Ok(options)
    }

    #[test]
    fn a_remount_takes_the_words_of_the_mount_table() {
        let mut options = Options::default();
        let words = "ro,nodev,noatime,remount,user_id=0,group_id=0,default_permissions,allow_other,suid";
        assert_eq!(options.parse(OsStr::new(words)), Ok(()));
        assert!(options.remount && options.attributes.read_only);
        let mut options = Options::default();
        assert!(options.parse(OsStr::new("ro,user_id=0")).is_err());
    }

    #[test]
    fn the_three_directories_and_empty_words() {
        let options = parse(",lowerdir=/l,,upperdir=/u,workdir=/w,").unwrap();
        assert_eq!(options.lowers, ["/l"]);
        assert_eq!(options.upper.unwrap(), "/u");
        assert_eq!(options.work.unwrap(), "/w");
    }

    #[test]
    fn escapes_of_the_kernel() {
        let options = parse(r"lowerdir=/a\:b\,c\\d,upperdir=/u\:v").unwrap();
        assert_eq!(options.lowers, [r"/a:b,c\d"]);
        assert_eq!(options.upper.unwrap(), "/u:v");
        assert!(matches!(
            parse(r"lowerdir=/a\"),
            Err(OptionError::BadValue { .. })
        ));
    }

    #[test]
    fn escape_is_undone_by_parsing() {
        let odd = OsStr::from_bytes(b"/a:b,c\\d\xff=e\\");
        let mut word = OsString::from("lowerdir=");
        word.push(escape(odd));
        let mut options = Options::default();
        options.parse(&word).unwrap();
        assert_eq!(options.lowers, [odd]);
    }

    #[test]
    fn colons_lead_trail_and_separate() {
        for bad in [
            "lowerdir=:/a",
            "lowerdir=/a:",
            "lowerdir=/a::/b",
            "lowerdir=",
            "lowerdir=:",
        ] {
            assert!(matches!(parse(bad), Err(OptionError::BadValue { .. })), "{bad}");
        }
        assert_eq!(
            parse(r"lowerdir=/a:/b\:c:/d").unwrap().lowers,
            ["/a", "/b:c", "/d"]
        );
        // The last word counts, as for every word.
        assert_eq!(parse("lowerdir=/a:/b,lowerdir=/c").unwrap().lowers, ["/c"]);
        let many = |count| format!("lowerdir={}", vec!["/l"; count].join(":"));
        assert_eq!(parse(&many(500)).unwrap().lowers.len(), 500);
        assert!(parse(&many(501)).unwrap_err().to_string().contains("at most 500"));
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for word in [
            "index=on",
            "redirect_dir=on",
            "redirect_dir=follow",
            "metacopy=on",
            "nfs_export=on",
            "verity=on",
            "verity=require",
            "uuid=on",
            "lowerdir+=/x",
            "datadir+=/x",
            "subtype=other",
            "setuid=1000",
            "fd=3",
        ] {
            let error = parse(word).unwrap_err();
            assert!(
                matches!(error, OptionError::Unsupported { .. }),
                "{word}: {error}"
            );
            assert!(error.to_string().contains(word));
        }
    }

    #[test]
    fn what_changes_nothing_is_accepted() {
        let words = "index=off,redirect_dir=off,redirect_dir=nofollow,metacopy=off,nfs_export=off,verity=off,uuid=auto,\
            uuid=null,uuid=off,xino=on,xino=off,xino=auto,x-systemd.automount,X-mount.mkdir=0755,_netdev,nofail,noauto,\
            auto,user,users,nouser,owner,group,defaults,lazytime,comment=hello,rw,suid,dev,exec,async,subtype=plyfs,\
            default_permissions";
        assert_eq!(parse(words).unwrap(), Options::default());
    }

    #[test]
    fn flags_and_their_opposites() {
        let options = parse("ro,nosuid,nodev,noexec,noatime,nodiratime,sync,dirsync,nosymfollow").unwrap();
        let expected = Attributes {
            read_only: true,
            nosuid: true,
            nodev: true,
            noexec: true,
            atime: Atime::Never,
            nodiratime: true,
            nosymfollow: true,
            sync: true,
            dirsync: true,
        };
        assert_eq!(options.attributes, expected);
        assert_eq!(parse("ro,noexec,rw,exec").unwrap(), Options::default());
    }

    #[test]
    fn values() {
        assert_eq!(parse("timeout=0").unwrap().timeout, Duration::ZERO);
        assert_eq!(parse("timeout=1.5").unwrap().timeout, Duration::from_millis(1500));
        assert_eq!(parse("passthrough=all").unwrap().passthrough, Passthrough::All);
        assert_eq!(parse("passthrough=off").unwrap().passthrough, Passthrough::Off);
        assert_eq!(parse("passthrough=upper").unwrap(), Options::default());
        assert_eq!(parse("fsync=strict").unwrap().fsync, FsyncMode::Strict);
        assert_eq!(parse("volatile").unwrap().fsync, FsyncMode::Volatile);
        assert!(parse("latency=low").unwrap().low_latency);
        assert!(!parse("latency=any").unwrap().low_latency);
        assert!(parse("writeback").unwrap().writeback);
        assert_eq!(parse("userxattr").unwrap().xattr, XattrNamespace::User);
        for bad in [
            "timeout=-1",
            "timeout=x",
            "timeout=inf",
            "timeout",
            "fsync=no",
            "latency=none",
            "writeback=on",
            "latency",
            "xino=maybe",
            "passthrough",
            "passthrough=on",
            "ro=1",
            "nofail=1",
            "metacopy",
        ] {
            assert!(matches!(parse(bad), Err(OptionError::BadValue { .. })), "{bad}");
        }
    }

    #[test]
    fn unknown_words() {
        for word in ["frobnicate", "frob=1", "rodeo", "context=system_u"] {
            assert_eq!(parse(word), Err(OptionError::Unknown(word.to_owned())));
        }
    }

    #[test]
    fn names_that_are_not_utf8() {
        let mut options = Options::default();
        options
            .parse(OsStr::from_bytes(b"lowerdir=/\xff\xfe,ro"))
            .unwrap();
        assert_eq!(options.lowers[0].as_bytes(), b"/\xff\xfe");
        assert!(options.parse(OsStr::from_bytes(b"\xff")).is_err());
    }
}
