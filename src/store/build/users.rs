//! Names of users and groups, as an image's own files know them.

use super::tree::Tree;
use crate::builder::Result;

/// Larger files of users are not believed.
const LIMIT: u64 = 16 * 1024 * 1024;

/// The numbers that `user[:group]` stands for.
///
/// Without a group, a number stands for both and a name has the group of its entry in `/etc/passwd`. `tree` is none
/// for an image without files.
///
/// # Errors
/// If the files cannot be read; the inner error is the reason, for a name that is not in them.
pub fn owner(tree: Option<Tree<'_>>, spec: &str) -> Result<std::result::Result<(u32, u32), String>> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) => match entry(tree, b"/etc/passwd", user)? {
            Some(fields) => match (number(&fields, 2), number(&fields, 3)) {
                (Some(uid), Some(gid)) => (uid, gid),
                _ => {
                    return Ok(Err(format!(
                        "the entry of {user:?} in the image's /etc/passwd is damaged"
                    )));
                }
            },
            None => return Ok(Err(format!("the image's /etc/passwd has no user {user:?}"))),
        },
    };
    let Some(group) = group else {
        return Ok(Ok((uid, own_group)));
    };
    if let Ok(gid) = group.parse::<u32>() {
        return Ok(Ok((uid, gid)));
    }
    Ok(match entry(tree, b"/etc/group", group)? {
        Some(fields) => number(&fields, 2)
            .map(|gid| (uid, gid))
            .ok_or_else(|| format!("the entry of {group:?} in the image's /etc/group is damaged")),
        None => Err(format!("the image's /etc/group has no group {group:?}")),
    })
}

fn entry(tree: Option<Tree<'_>>, path: &[u8], name: &str) -> Result<Option<Vec<String>>> {
    let Some(content) = tree.map(|tree| tree.read(path, LIMIT)).transpose()?.flatten() else {
        return Ok(None);
    };
    let content = String::from_utf8_lossy(&content);
    let found = content
        .lines()
        .map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>())
        .find(|fields| fields.first().is_some_and(|first| first == name));
    Ok(found)
}

fn number(fields: &[String], at: usize) -> Option<u32> {
    fields.get(at)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn names_and_numbers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/:\nwww:x:33:44::/:\nbad:x:y\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "www:x:33:\nstaff:x:50:a\n").unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let of = |spec| owner(Some(Tree::new(root.as_fd())), spec).unwrap();
        assert_eq!(of("www"), Ok((33, 44)));
        assert_eq!(of("www:staff"), Ok((33, 50)));
        assert_eq!(of("7"), Ok((7, 7)));
        assert_eq!(of("7:8"), Ok((7, 8)));
        assert_eq!(of("www:9"), Ok((33, 9)));
        assert!(of("none").unwrap_err().contains("none"));
        assert!(of("www:none").is_err() && of("bad").is_err());
        assert!(owner(None, "www").unwrap().is_err());
        assert_eq!(owner(None, "1:2").unwrap(), Ok((1, 2)));
    }
}
