//! What differs between the objects of the view and those of the layers beyond the rules of the overlay, since the
//! caller of the mount asked for it: owners, link counts of directories, ACLs. Where nothing was asked it costs one
//! branch.

use std::borrow::Cow;

use fuser::Request;

use super::id_values;
use super::ids::IdMap;
use crate::overlay::{Caller, Ownership};
use crate::sys::creds::Ids;
use crate::sys::stat::Stat;
use crate::sys::{Errno, Result, xattr};

/// Stands between the protocol and the overlay.
#[derive(Debug)]
pub(super) struct Border {
    ids: IdMap,
    static_nlink: bool,
    no_acl: bool,
    /// No attribute of an object is shown differently.
    stats_stay: bool,
    /// No attribute value holds other ids.
    values_stay: bool,
}

impl Border {
    /// What `ids` says; with `static_nlink` directories show one link; with `no_acl` there are no ACLs.
    pub(super) fn new(ids: IdMap, static_nlink: bool, no_acl: bool) -> Self {
        Self {
            stats_stay: ids.is_plain() && !static_nlink,
            values_stay: ids.is_unmapped(),
            ids,
            static_nlink,
            no_acl,
        }
    }

    /// Which group of the view a group of the layers is; `None` if all are themselves.
    pub(super) fn groups(&self) -> Option<impl Fn(u32) -> u32 + Send + Sync + use<>> {
        let ids = (!self.values_stay).then(|| self.ids.clone())?;
        Some(move |gid| ids.group_in_view(gid))
    }

    /// Makes an object's attributes those that the view shows.
    pub(super) fn show(&self, stat: &mut Stat) {
        if self.stats_stay {
            return;
        }
        let owner = self.ids.shown(Ids {
            uid: stat.uid,
            gid: stat.gid,
        });
        (stat.uid, stat.gid) = (owner.uid, owner.gid);
        if self.static_nlink && stat.is_dir() {
            stat.nlink = stat.nlink.min(1);
        }
    }

    /// Who asks, under the ids that it has in the layers.
    pub(super) fn caller(&self, req: &Request, umask: u32) -> Caller {
        let ids = Ids {
            uid: req.uid(),
            gid: req.gid(),
        };
        Caller {
            ids: if self.values_stay {
                ids
            } else {
                self.ids.of_caller(ids)
            },
            umask,
            pid: req.pid(),
        }
    }

    /// The owner that a caller asks for, as the layers are to hold it.
    ///
    /// # Errors
    /// EOVERFLOW for an id that no layer can hold.
    pub(super) fn ownership(&self, uid: Option<u32>, gid: Option<u32>) -> Result<Ownership> {
        let (uid, gid) = if self.values_stay {
            (uid, gid)
        } else {
            self.ids.new_owner(uid, gid)?
        };
        Ok(Ownership { uid, gid })
    }

    /// Whether there is an attribute of this name.
    ///
    /// # Errors
    /// EOPNOTSUPP for an ACL in a view without ACLs.
    pub(super) fn admit(&self, name: &[u8]) -> Result<()> {
        if self.no_acl && id_values::is_acl(name) {
            Err(Errno::OPNOTSUPP)
        } else {
            Ok(())
        }
    }

    /// The value of an attribute as the view shows it.
    pub(super) fn value_to_view(&self, name: &[u8], value: Vec<u8>) -> Vec<u8> {
        if self.values_stay {
            return value;
        }
        match id_values::to_view(&self.ids, name, &value) {
            Cow::Owned(changed) => changed,
            Cow::Borrowed(_) => value,
        }
    }

    /// The value of an attribute as the layers are to hold it.
    ///
    /// # Errors
    /// EINVAL if an id in it has no place in the layers.
    pub(super) fn value_to_layers<'a>(&self, name: &[u8], value: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        if self.values_stay {
            Ok(Cow::Borrowed(value))
        } else {
            id_values::to_layers(&self.ids, name, value)
        }
    }

    /// The names of attributes that the view shows, each ended by a NUL byte.
    pub(super) fn names(&self, list: Vec<u8>) -> Vec<u8> {
        if !self.no_acl {
            return list;
        }
        let mut shown = Vec::with_capacity(list.len());
        for name in xattr::names(&list).filter(|name| !id_values::is_acl(name)) {
            shown.extend_from_slice(name);
            shown.push(0);
        }
        shown
    }

    /// There are no ACLs in the view.
    pub(super) fn has_no_acls(&self) -> bool {
        self.no_acl
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stat;

    fn some_dir() -> Stat {
        stat::stat_fd(std::fs::File::open("/").unwrap()).unwrap()
    }

    #[test]
    fn directories_with_one_link() {
        let border = Border::new(IdMap::default(), true, false);
        let mut dir = Stat {
            nlink: 5,
            ..some_dir()
        };
        border.show(&mut dir);
        assert_eq!(dir.nlink, 1);
        // A removed one stays removed, and files are left alone.
        dir.nlink = 0;
        border.show(&mut dir);
        assert_eq!(dir.nlink, 0);
        let mut file = Stat {
            mode: libc::S_IFREG,
            nlink: 5,
            ..dir
        };
        border.show(&mut file);
        assert_eq!(file.nlink, 5);
    }

    #[test]
    fn a_view_without_acls() {
        let border = Border::new(IdMap::default(), false, true);
        let list = b"user.a\0system.posix_acl_access\0security.b\0system.posix_acl_default\0".to_vec();
        assert_eq!(border.names(list), b"user.a\0security.b\0");
        assert_eq!(border.admit(b"system.posix_acl_default"), Err(Errno::OPNOTSUPP));
        assert_eq!(border.admit(b"user.system.posix_acl_default"), Ok(()));
        assert!(
            Border::new(IdMap::default(), false, false)
                .admit(b"system.posix_acl_access")
                .is_ok()
        );
    }

    #[test]
    fn nothing_asked_nothing_changed() {
        let border = Border::new(IdMap::default(), false, false);
        let before = some_dir();
        let mut after = before;
        border.show(&mut after);
        assert_eq!(after, before);
        assert!(border.groups().is_none());
        assert_eq!(
            border.ownership(Some(1), None),
            Ok(Ownership {
                uid: Some(1),
                gid: None
            })
        );
    }
}
