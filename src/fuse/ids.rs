//! Which owner of the layers is shown as which, and the reverse: the words `uidmapping=`, `gidmapping=` and
//! `squash_to_*` of container engines. Pure: nothing here makes a system call.
//!
//! An engine keeps its layers as the container means them, root is 0, and tells where each range of ids is to show: a
//! triple is *id in the layers* : *id in the view* : *how many*. The view's ids are those of the server's user
//! namespace, of which the container's is a part.
//!
//! ```text
//! uidmapping=0:1:1000:1000:0:1:1001:1001:64535      for --userns=keep-id of uid 1000
//!
//! in the layers     0 ..  999 | 1000 | 1001 .. 65535
//! in the view       1 .. 1000 |    0 | 1001 .. 65535
//! ```
//!
//! An id outside all ranges shows as the overflow id (65534), and what a caller with such an id makes belongs to it: an
//! engine itself, whose id the container does not have, makes mount points and gives them away afterwards. To give a
//! file to an id that no layer can hold is EOVERFLOW, as on the kernel's id-mapped mounts.

use crate::sys::creds::Ids;
use crate::sys::{Errno, Result};

/// The kernel's overflow id, unless an administrator chose another.
pub const OVERFLOW: u32 = 65_534;

/// Why ranges of ids are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdMapError {
    /// Not numbers in threes.
    #[error("'{0}' is not made of triples ID-IN-LAYERS:ID-IN-VIEW:COUNT, as in 0:1:1000")]
    Malformed(String),
    /// No ids in it, or ids that there are none of.
    #[error("the range {0} is empty or goes beyond the last id, 4294967294")]
    Range(String),
    /// Two ranges have an id in common.
    #[error("the ranges {0} and {1} overlap, so that one id would mean two")]
    Overlap(String, String),
    /// Not the number of a user or group.
    #[error("'{0}' is not an id: a number from 0 to 4294967294")]
    Id(String),
}

/// `size` ids from `from` on become those from `to` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: u32,
    to: u32,
    size: u32,
}

impl Range {
    fn words(&self) -> String {
        format!("{}:{}:{}", self.from, self.to, self.size)
    }

    fn turned(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            size: self.size,
        }
    }
}

/// Ranges in the order of `from`, none of which overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(Vec<Range>);

impl Ranges {
    /// `turned` says that the ranges are given the other way round, for the message.
    fn sorted(mut ranges: Vec<Range>, turned: bool) -> std::result::Result<Self, IdMapError> {
        ranges.sort_unstable_by_key(|range| range.from);
        let as_given = |range: &Range| if turned { range.turned() } else { *range }.words();
        for pair in ranges.windows(2) {
            if let [a, b] = pair
                && b.from - a.from < a.size
            {
                return Err(IdMapError::Overlap(as_given(a), as_given(b)));
            }
        }
        Ok(Self(ranges))
    }

    fn get(&self, id: u32) -> Option<u32> {
        let after = self.0.partition_point(|range| range.from <= id);
        let range = self.0.get(after.checked_sub(1)?)?;
        let offset = id - range.from;
        (offset < range.size).then(|| range.to + offset)
    }
}

/// Both directions of one kind of id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Side {
    /// From the layers to the view, and back; `None` where every id means itself.
    ranges: Option<(Ranges, Ranges)>,
    /// All objects show this one.
    squash: Option<u32>,
    overflow: u32,
}

impl Default for Side {
    fn default() -> Self {
        Self {
            ranges: None,
            squash: None,
            overflow: OVERFLOW,
        }
    }
}

impl Side {
    fn set(&mut self, text: &str) -> std::result::Result<(), IdMapError> {
        let malformed = || IdMapError::Malformed(text.to_owned());
        // Engines put a colon before each triple.
        let words: Vec<&str> = text.split(':').filter(|word| !word.is_empty()).collect();
        let (triples, rest) = words.as_chunks::<3>();
        if !rest.is_empty() {
            return Err(malformed());
        }
        if triples.is_empty() {
            self.ranges = None;
            return Ok(());
        }
        let mut ranges = Vec::with_capacity(triples.len());
        for [from, to, size] in triples {
            let number = |word: &str| word.parse::<u32>().map_err(|_| malformed());
            let range = Range {
                from: number(from)?,
                to: number(to)?,
                size: number(size)?,
            };
            // The last number is no id: it stands for "none".
            let fits = |start: u32| start.checked_add(range.size).is_some();
            if range.size == 0 || !fits(range.from) || !fits(range.to) {
                return Err(IdMapError::Range(range.words()));
            }
            ranges.push(range);
        }
        let turned = ranges.iter().map(|range| range.turned()).collect();
        self.ranges = Some((Ranges::sorted(ranges, false)?, Ranges::sorted(turned, true)?));
        Ok(())
    }

    fn mapped_to_view(&self, id: u32) -> Option<u32> {
        match &self.ranges {
            None => Some(id),
            Some((to_view, _)) => to_view.get(id),
        }
    }

    fn mapped_to_layers(&self, id: u32) -> Option<u32> {
        match &self.ranges {
            None => Some(id),
            Some((_, to_layers)) => to_layers.get(id),
        }
    }

    fn shown(&self, id: u32) -> u32 {
        self.squash
            .unwrap_or_else(|| self.mapped_to_view(id).unwrap_or(self.overflow))
    }
}

/// How the ids of the layers and those of the view belong together. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    uid: Side,
    gid: Side,
}

/// An id given by a word such as `squash_to_uid=`.
fn id(text: &str) -> std::result::Result<u32, IdMapError> {
    match text.parse() {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(IdMapError::Id(text.to_owned())),
    }
}

impl IdMap {
    /// Takes the value of `uidmapping=`, in the place of an earlier one; an empty one says that every user is himself.
    ///
    /// # Errors
    /// [`IdMapError`]; nothing is changed then.
    pub fn map_users(&mut self, value: &str) -> std::result::Result<(), IdMapError> {
        self.uid.set(value)
    }

    /// Takes the value of `gidmapping=`, in the place of an earlier one; an empty one says that every group is itself.
    ///
    /// # Errors
    /// [`IdMapError`]; nothing is changed then.
    pub fn map_groups(&mut self, value: &str) -> std::result::Result<(), IdMapError> {
        self.gid.set(value)
    }

    /// Everything shows as root's (`squash_to_root`), but for what [`IdMap::squash_users`] and
    /// [`IdMap::squash_groups`] say.
    pub fn squash_to_root(&mut self) {
        self.uid.squash.get_or_insert(0);
        self.gid.squash.get_or_insert(0);
    }

    /// Everything shows as owned by this user (the value of `squash_to_uid=`).
    ///
    /// # Errors
    /// [`IdMapError::Id`].
    pub fn squash_users(&mut self, value: &str) -> std::result::Result<(), IdMapError> {
        self.uid.squash = Some(id(value)?);
        Ok(())
    }

    /// Everything shows as owned by this group (the value of `squash_to_gid=`).
    ///
    /// # Errors
    /// [`IdMapError::Id`].
    pub fn squash_groups(&mut self, value: &str) -> std::result::Result<(), IdMapError> {
        self.gid.squash = Some(id(value)?);
        Ok(())
    }

    /// The ids for what has none: those of `/proc/sys/kernel/overflowuid` and `overflowgid`.
    pub fn set_overflow(&mut self, ids: Ids) {
        self.uid.overflow = ids.uid;
        self.gid.overflow = ids.gid;
    }

    /// True if every id means itself.
    pub fn is_plain(&self) -> bool {
        self.is_unmapped() && !self.is_squashed()
    }

    /// True without ranges: only what shows as owner may differ.
    pub fn is_unmapped(&self) -> bool {
        self.uid.ranges.is_none() && self.gid.ranges.is_none()
    }

    /// True if all objects show one owner or one group, so that it matters little whose they are.
    pub fn is_squashed(&self) -> bool {
        self.uid.squash.is_some() || self.gid.squash.is_some()
    }

    /// The owner of an object as the view shows it.
    pub fn shown(&self, owner: Ids) -> Ids {
        Ids {
            uid: self.uid.shown(owner.uid),
            gid: self.gid.shown(owner.gid),
        }
    }

    /// The ids under which a caller's objects are born in the layers.
    pub fn of_caller(&self, caller: Ids) -> Ids {
        Ids {
            uid: self.uid.mapped_to_layers(caller.uid).unwrap_or(self.uid.overflow),
            gid: self.gid.mapped_to_layers(caller.gid).unwrap_or(self.gid.overflow),
        }
    }

    /// The user of the layers that the view's `uid` is; `None` for one outside the ranges. Squashing has no part in it.
    pub fn user_in_layers(&self, uid: u32) -> Option<u32> {
        self.uid.mapped_to_layers(uid)
    }

    /// The group of the layers that the view's `gid` is; `None` for one outside the ranges.
    pub fn group_in_layers(&self, gid: u32) -> Option<u32> {
        self.gid.mapped_to_layers(gid)
    }

    /// The user that shows for the layers' `uid` where no owner is meant: in ACLs and capabilities.
    pub fn user_in_view(&self, uid: u32) -> u32 {
        self.uid.mapped_to_view(uid).unwrap_or(self.uid.overflow)
    }

    /// The group that shows for the layers' `gid` where no owner is meant: in ACLs.
    pub fn group_in_view(&self, gid: u32) -> u32 {
        self.gid.mapped_to_view(gid).unwrap_or(self.gid.overflow)
    }

    /// New owner and new group, as the layers are to hold them. Of a squashed view an id without a place is left as it
    /// is.
    ///
    /// # Errors
    /// EOVERFLOW for an id that no layer can hold.
    pub fn new_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(Option<u32>, Option<u32>)> {
        let place = |side: &Side, id: Option<u32>| match id {
            None => Ok(None),
            Some(id) => match side.mapped_to_layers(id) {
                None if !self.is_squashed() => Err(Errno::OVERFLOW),
                place => Ok(place),
            },
        };
        Ok((place(&self.uid, uid)?, place(&self.gid, gid)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn users(value: &str) -> std::result::Result<IdMap, IdMapError> {
        let mut ids = IdMap::default();
        ids.map_users(value)?;
        Ok(ids)
    }

    fn one(uid: u32, gid: u32) -> Ids {
        Ids { uid, gid }
    }

    #[test]
    fn as_podman_gives_them() {
        let ids = users(":0:1:1000").unwrap();
        assert_eq!(ids.shown(one(0, 0)), one(1, 0));
        assert_eq!(ids.shown(one(999, 7)), one(1000, 7));
        assert_eq!(ids.shown(one(1000, 7)), one(OVERFLOW, 7));
        assert_eq!(ids.of_caller(one(1, 1)), one(0, 1));
        assert_eq!(ids.of_caller(one(0, 0)), one(OVERFLOW, 0));
        assert_eq!(ids.new_owner(Some(1000), None), Ok((Some(999), None)));
        assert_eq!(ids.new_owner(Some(0), None), Err(Errno::OVERFLOW));
        assert_eq!(ids.new_owner(None, Some(0)), Ok((None, Some(0))));
        assert!(!ids.is_plain() && !ids.is_squashed());
    }

    #[test]
    fn several_ranges_in_any_order() {
        let ids = users(":0:1:1001:1001:0:1:1002:1002:64535").unwrap();
        for (layer, view) in [
            (0, 1),
            (1000, 1001),
            (1001, 0),
            (1002, 1002),
            (65_536, 65_536),
            (65_537, OVERFLOW),
        ] {
            assert_eq!(ids.shown(one(layer, 0)).uid, view, "{layer}");
        }
        assert_eq!(ids.user_in_layers(0), Some(1001));
        assert_eq!(ids.user_in_layers(65_537), None);
        assert_eq!(users("1002:1002:64535:1001:0:1:0:1:1001").unwrap(), ids);
        // The word's last value counts, as with all words.
        let mut twice = users("5:6:7").unwrap();
        twice.map_users(":0:1:1001:1001:0:1:1002:1002:64535").unwrap();
        assert_eq!(twice, ids);
    }

    #[test]
    fn to_the_last_id() {
        let ids = users("0:0:4294967295").unwrap();
        assert_eq!(ids.shown(one(4_294_967_294, 0)).uid, 4_294_967_294);
        assert_eq!(ids.shown(one(u32::MAX, 0)).uid, OVERFLOW);
        assert!(matches!(users("1:0:4294967295"), Err(IdMapError::Range(_))));
        assert!(matches!(users("0:1:4294967295"), Err(IdMapError::Range(_))));
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "0",
            "0:1",
            "0:1:2:3",
            "a:1:2",
            "0:-1:2",
            "0:1:+2x",
            "0:1:4294967296",
            "0:1:2,",
        ] {
            assert_eq!(users(bad), Err(IdMapError::Malformed(bad.to_owned())), "{bad}");
        }
        assert_eq!(users("0:1:0"), Err(IdMapError::Range("0:1:0".to_owned())));
        // In the layers, and in the view.
        for bad in ["0:100:10:9:200:10", "0:100:10:50:109:10"] {
            let (a, b) = bad.split_at(8);
            assert_eq!(
                users(bad),
                Err(IdMapError::Overlap(a.to_owned(), b[1..].to_owned()))
            );
        }
        assert!(users("0:100:10:10:110:10").is_ok());
        for none in ["", ":"] {
            assert_eq!(users(none), Ok(IdMap::default()));
        }
        // A refused value leaves the earlier one.
        let mut ids = users("0:1:5").unwrap();
        assert!(ids.map_users("0:1").is_err());
        assert_eq!(ids, users("0:1:5").unwrap());
    }

    #[test]
    fn squashing() {
        let mut ids = users("0:1000:10").unwrap();
        ids.squash_to_root();
        assert_eq!(ids.shown(one(5, 6)), one(0, 0));
        ids.squash_users("7").unwrap();
        assert_eq!(ids.shown(one(5, 6)), one(7, 0));
        assert_eq!(ids.of_caller(one(1003, 9)), one(3, 9));
        // What has no place in the layers is not given away, and that is no error here.
        assert_eq!(ids.new_owner(Some(1003), Some(9)), Ok((Some(3), Some(9))));
        assert_eq!(ids.new_owner(Some(5), Some(9)), Ok((None, Some(9))));
        assert!(ids.is_squashed() && !ids.is_unmapped());
        // One id for the users goes before root, whichever word comes first.
        let mut other = IdMap::default();
        other.squash_users("7").unwrap();
        other.squash_to_root();
        assert_eq!(other.shown(one(5, 6)), one(7, 0));
        assert!(other.is_unmapped() && !other.is_plain());
        for bad in ["", "-1", "x", "4294967295"] {
            assert_eq!(other.squash_groups(bad), Err(IdMapError::Id(bad.to_owned())));
        }
    }

    #[test]
    fn nothing_said_is_nothing_done() {
        let ids = IdMap::default();
        assert!(ids.is_plain());
        for id in [0, 1, OVERFLOW, u32::MAX] {
            assert_eq!(ids.shown(one(id, id)), one(id, id));
            assert_eq!(ids.of_caller(one(id, id)), one(id, id));
        }
    }

    prop_compose! {
        /// Ranges that fit, from how many ids each has and how many lie between, laid out in two different orders.
        fn ranges()(parts in prop::collection::vec((1..5000_u32, 0..5000_u32, 0..5000_u32), 1..12), seed in any::<u64>())
            -> Vec<Range>
        {
            let mut from = 0;
            let mut order: Vec<usize> = (0..parts.len()).collect();
            order.sort_by_key(|at| (*at as u64).wrapping_mul(seed | 1).rotate_left(17));
            let mut ranges = Vec::new();
            for (size, gap, _) in &parts {
                from += gap;
                ranges.push(Range { from, to: 0, size: *size });
                from += size;
            }
            let mut to = 0;
            for at in order {
                to += parts[at].2;
                ranges[at].to = to;
                to += parts[at].0;
            }
            ranges
        }
    }

    proptest! {
        #[test]
        fn there_and_back(ranges in ranges(), id in 0..100_000_u32) {
            let text: String = ranges.iter().map(|range| format!(":{}", range.words())).collect();
            let ids = users(&text).unwrap();
            // The plain way to say it.
            let plain = ranges
                .iter()
                .find(|range| id >= range.from && id < range.from + range.size)
                .map(|range| range.to + (id - range.from));
            prop_assert_eq!(ids.user_in_view(id), plain.unwrap_or(OVERFLOW));
            if let Some(shown) = plain {
                prop_assert_eq!(ids.user_in_layers(shown), Some(id));
            }
            if let Some(layer) = ids.user_in_layers(id) {
                prop_assert_eq!(ids.user_in_view(layer), id);
            }
        }

        #[test]
        fn no_text_is_too_much(text in "[0-9:]{0,40}") {
            if let Ok(ids) = users(&text) {
                for id in [0, 1, 65_534, u32::MAX] {
                    prop_assert!(ids.user_in_layers(id).is_none_or(|layer| ids.user_in_view(layer) == id));
                }
            }
        }
    }
}
