//! Docker's archive: `manifest.json` names a config, and layers as tar files or links to such.

use serde::Deserialize;

use super::check::Promise;
use super::members::Members;
use super::plan::{Config, LayerSource, Plan, parse, small};
use crate::store::image::parse_config;
use crate::store::{BlobId, Result, StoreError};

pub(super) const FILE: &str = "manifest.json";
/// More images or layers than this are refused.
pub(super) const MOST_IMAGES: usize = 1000;
pub(super) const MOST_LAYERS: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

pub(super) fn plans(members: &mut Members) -> Result<Vec<Plan>> {
    let data = small(members, FILE, None)?;
    let items: Vec<Item> = parse(members, FILE, &data)?;
    if items.len() > MOST_IMAGES {
        return Err(StoreError::archive(
            FILE,
            format!(
                "it names {} images, more than the limit of {MOST_IMAGES}",
                items.len()
            ),
        ));
    }
    items.into_iter().map(|item| plan(members, item)).collect()
}

fn plan(members: &mut Members, item: Item) -> Result<Plan> {
    // Every writer names the config by its digest.
    let digits = item.config.rsplit('/').next().unwrap_or_default();
    let promise =
        BlobId::from_hex(digits.trim_end_matches(".json")).map(|digest| Promise { digest, size: None });
    let config = small(members, &item.config, promise.as_ref())?;
    let (_, diff_ids) = parse_config(&config).map_err(|why| StoreError::archive(&item.config, why))?;
    let layers = item.layers.unwrap_or_default();
    if layers.len() != diff_ids.len() || layers.len() > MOST_LAYERS {
        return Err(StoreError::archive(
            &item.config,
            format!(
                "the config has {} layers, {FILE} {}; both must be the same, and at most {MOST_LAYERS}",
                diff_ids.len(),
                layers.len()
            ),
        ));
    }
    let refs = item.repo_tags.unwrap_or_default();
    Ok(Plan {
        config: Config::Whole(config),
        manifest: None,
        layers: layers
            .into_iter()
            .zip(diff_ids)
            .map(|(member, diff)| LayerSource {
                member,
                promise: None,
                diff_id: Some(diff),
            })
            .collect(),
        names: refs.clone(),
        refs,
    })
}
