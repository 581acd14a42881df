//! The archive of docker before version 1.10: `repositories` names the uppermost layers, each `<id>/json` its parent.
//!
//! Such an image has no config of today's form; one is made of what the layers' files say. Its id is therefore new.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::docker::{MOST_IMAGES, MOST_LAYERS};
use super::members::Members;
use super::plan::{Config, LayerSource, Plan, parse, small};
use crate::store::{DiffId, Result, StoreError};

pub(super) const FILE: &str = "repositories";

/// What the layers' files say, the base first.
#[derive(Debug, Clone)]
pub(super) struct Old {
    layers: Vec<Map<String, Value>>,
}

pub(super) fn plans(members: &mut Members) -> Result<Vec<Plan>> {
    let data = small(members, FILE, None)?;
    let repositories: BTreeMap<String, BTreeMap<String, String>> = parse(members, FILE, &data)?;
    let mut tops: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (repository, tags) in repositories {
        for (tag, id) in tags {
            tops.entry(id).or_default().push(format!("{repository}:{tag}"));
        }
    }
    if tops.len() > MOST_IMAGES {
        return Err(StoreError::archive(
            FILE,
            format!(
                "it names {} images, more than the limit of {MOST_IMAGES}",
                tops.len()
            ),
        ));
    }
    tops.into_iter()
        .map(|(top, names)| plan(members, &top, names))
        .collect()
}

fn plan(members: &mut Members, top: &str, names: Vec<String>) -> Result<Plan> {
    let mut layers = Vec::new();
    let mut sources = Vec::new();
    let mut next = Some(top.to_owned());
    while let Some(id) = next {
        if layers.len() >= MOST_LAYERS {
            return Err(StoreError::archive(
                FILE,
                format!("the image {top} has more than {MOST_LAYERS} layers, or they go round in a circle"),
            ));
        }
        let file = format!("{id}/json");
        let data = small(members, &file, None)?;
        let layer: Map<String, Value> = parse(members, &file, &data)?;
        next = layer
            .get("parent")
            .and_then(Value::as_str)
            .filter(|parent| !parent.is_empty())
            .map(str::to_owned);
        layers.push(layer);
        sources.push(LayerSource {
            member: format!("{id}/layer.tar"),
            promise: None,
            diff_id: None,
        });
    }
    layers.reverse();
    sources.reverse();
    Ok(Plan {
        config: Config::Old(Old { layers }),
        manifest: None,
        layers: sources,
        refs: names.clone(),
        names,
    })
}

impl Old {
    /// The config of an image with these layers.
    pub(super) fn config(&self, diff_ids: &[DiffId]) -> Result<Vec<u8>> {
        let Some(top) = self.layers.last() else {
            return Err(StoreError::archive(FILE, "an image without layers"));
        };
        let text =
            |layer: &Map<String, Value>, key: &str| layer.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut config = Map::new();
        for key in [
            "author",
            "created",
            "config",
            "container_config",
            "docker_version",
        ] {
            if let Some(value) = top.get(key) {
                config.insert(key.to_owned(), value.clone());
            }
        }
        for (key, usual) in [("architecture", "amd64"), ("os", "linux")] {
            let value = text(top, key).unwrap_or_else(|| usual.to_owned());
            config.insert(key.to_owned(), value.into());
        }
        let history: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| {
                let mut item = Map::new();
                for key in ["created", "author", "comment"] {
                    if let Some(value) = text(layer, key).filter(|value| !value.is_empty()) {
                        item.insert(key.to_owned(), value.into());
                    }
                }
                let command = layer
                    .get("container_config")
                    .and_then(|config| config.get("Cmd"))
                    .and_then(Value::as_array);
                if let Some(command) = command {
                    let words: Vec<&str> = command.iter().filter_map(Value::as_str).collect();
                    item.insert("created_by".to_owned(), words.join(" ").into());
                }
                item.into()
            })
            .collect();
        config.insert("history".to_owned(), history.into());
        config.insert(
            "rootfs".to_owned(),
            json!({"type": "layers", "diff_ids": diff_ids}),
        );
        serde_json::to_vec(&config).map_err(|error| StoreError::archive(FILE, error.to_string()))
    }
}
