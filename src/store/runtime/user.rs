//! Which ids a name of the image's own /etc/passwd and /etc/group means.

use std::io::Read;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::store::{Result, StoreError};
use crate::sys::Errno;

/// The largest /etc/passwd that is read, bytes.
const LARGEST: u64 = 16 << 20;

/// A user of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Further groups.
    pub(super) groups: Vec<u32>,
    /// The home directory, if /etc/passwd names one.
    pub(super) home: Option<String>,
}

/// Resolves `name|uid[:group|gid]` inside the tree `root`; empty means root.
pub(super) fn resolve(root: impl AsFd, text: &str) -> Result<Resolved> {
    let passwd = read(&root, "etc/passwd")?;
    let group = read(&root, "etc/group")?;
    find(text, &passwd, &group).map_err(StoreError::Refused)
}

/// A small file, found as a process inside would find it; empty if there is none.
fn read(root: impl AsFd, path: &'static str) -> Result<String> {
    let opened = rustix::fs::openat2(
        root,
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let file = match opened {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(String::new()),
        Err(errno) => return Err(StoreError::errno("open the image's", path)(errno)),
    };
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read the image's", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn find(text: &str, passwd: &str, group: &str) -> std::result::Result<Resolved, String> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| match fields.as_slice() {
            [name, _, uid, ..] => *name == user || *uid == user,
            _ => false,
        });
    let field = |at: usize| line.as_ref().and_then(|fields| fields.get(at)).copied();
    let number = |at: usize| field(at).and_then(|text| text.parse::<u32>().ok());
    let uid = number(2)
        .or_else(|| user.parse().ok())
        .ok_or_else(|| format!("the image has no user {user}: its /etc/passwd does not name one"))?;
    let mut resolved = Resolved {
        uid,
        gid: number(3).unwrap_or(0),
        groups: Vec::new(),
        home: field(5).filter(|home| home.starts_with('/')).map(str::to_owned),
    };
    let groups = || {
        group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next());
            Some((name, gid.parse::<u32>().ok()?, members.unwrap_or("")))
        })
    };
    if let Some(wanted) = wanted_group {
        resolved.gid = groups()
            .find(|(name, gid, _)| *name == wanted || gid.to_string() == wanted)
            .map(|(_, gid, _)| gid)
            .or_else(|| wanted.parse().ok())
            .ok_or_else(|| format!("the image has no group {wanted}: its /etc/group does not name one"))?;
    } else if let Some(name) = field(0) {
        resolved.groups = groups()
            .filter(|(_, gid, members)| {
                *gid != resolved.gid && members.split(',').any(|member| member == name)
            })
            .map(|(_, gid, _)| gid)
            .collect();
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv/web:/bin/false\nshort\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:web,ann\nwebgroup:x:34:web\nssl:x:90:web\n";

    #[test]
    fn by_name_and_by_number() {
        let found = |text| find(text, PASSWD, GROUP).unwrap();
        let ids = |text| (found(text).uid, found(text).gid);
        assert_eq!(ids(""), (0, 0));
        assert_eq!(ids("web"), (33, 34));
        assert_eq!(found("web").groups, [4, 90]);
        assert_eq!(found("33").home.as_deref(), Some("/srv/web"));
        assert_eq!(ids("33"), (33, 34));
        assert_eq!(ids("1234"), (1234, 0));
        assert_eq!(ids("web:ssl"), (33, 90));
        assert_eq!(ids("7:8"), (7, 8));
        assert!(found("web:ssl").groups.is_empty());
        assert!(find("nobody", PASSWD, GROUP).unwrap_err().contains("nobody"));
        assert!(find("web:none", PASSWD, GROUP).unwrap_err().contains("none"));
        assert_eq!(find("", "", "").unwrap(), Resolved::default());
    }
}
