//! Which image has which name: the file `repositories.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::layout::read_if_there;
use super::tmp::{Turn, replace_file};
use super::{ImageId, Name, Result, Store, StoreError};

const FILE: &str = "repositories.json";
/// A hundred thousand names of usual length.
const LARGEST: u64 = 64 << 20;

/// All names of images.
pub type Names = BTreeMap<Name, ImageId>;

/// As docker writes it: repository, then whole name, then id.
#[derive(Serialize, Deserialize, Default)]
struct Record {
    #[serde(rename = "Repositories")]
    repositories: BTreeMap<String, BTreeMap<Name, ImageId>>,
}

impl Store {
    /// All names of images.
    ///
    /// # Errors
    /// When `repositories.json` cannot be read or understood.
    pub fn names(&self) -> Result<Names> {
        let Some(text) = read_if_there(self.dir(), self.path(), FILE, LARGEST)? else {
            return Ok(Names::new());
        };
        let record: Record = serde_json::from_slice(&text).map_err(|error| StoreError::Damaged {
            path: self.path().join(FILE),
            why: error.to_string(),
        })?;
        Ok(record.repositories.into_values().flatten().collect())
    }

    /// Changes the names, in one step. The caller holds the store's lock.
    pub(super) fn change_names<T>(&self, change: impl FnOnce(&mut Names) -> T) -> Result<T> {
        let _turn = Turn::take(self, "names".to_owned())?;
        let before = self.names()?;
        let mut names = before.clone();
        let answer = change(&mut names);
        if names != before {
            let mut record = Record::default();
            for (name, id) in names {
                record
                    .repositories
                    .entry(name.repository().to_owned())
                    .or_default()
                    .insert(name, id);
            }
            let mut text = serde_json::to_vec_pretty(&record)
                .map_err(|error| StoreError::io("write", self.path().join(FILE))(error.into()))?;
            text.push(b'\n');
            replace_file(self, self.dir(), self.path(), FILE, &text)?;
        }
        Ok(answer)
    }

    /// Gives an image a name; another image that had it loses it, which is answered.
    ///
    /// # Errors
    /// When there is no such image, or the names cannot be written.
    pub fn tag(&self, id: &ImageId, name: &Name) -> Result<Option<ImageId>> {
        let _shared = self.hold()?;
        self.open_image(id, Vec::new())?;
        self.change_names(|names| names.insert(name.clone(), *id))
            .map(|before| before.filter(|before| before != id))
    }
}
