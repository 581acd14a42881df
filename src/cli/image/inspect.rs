//! `plyfs image inspect`.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Failure;
use crate::cli::inspect::{FORMAT_HELP, Template, print_objects};
use crate::cli::store::open;
use crate::store::{BlobId, Image, Name, Store};

/// Show images as docker does: a JSON array.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  plyfs image inspect debian
  plyfs image inspect -f '{{{{ .GraphDriver.Data.RootDir }}}}' debian   the tree
  plyfs image inspect -f '{{{{json .GraphDriver.Data }}}}' debian

{FORMAT_HELP}"))]
pub(super) struct InspectArgs {
    /// Names or ids.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Print only what this template says.
    #[arg(long, short, value_name = "TEMPLATE")]
    format: Option<Template>,
}

impl InspectArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        let objects = self
            .images
            .iter()
            .map(|reference| object(&store, &store.image(reference)?))
            .collect::<Result<Vec<_>, Failure>>()?;
        print_objects(&objects, self.format.as_ref())
    }
}

fn object(store: &Store, image: &Image) -> Result<Value, Failure> {
    // The whole config, with what OCI does not know of: a health check, say.
    let config: Value = serde_json::from_slice(image.raw_config()).map_err(std::io::Error::from)?;
    let of = |key: &str| config.get(key).cloned();
    let data = match image.top() {
        Some(top) => {
            let root = store.layer(&top)?.root_path();
            json!({"RootDir": root.to_str().ok_or_else(|| not_utf8(&root))?})
        }
        None => Value::Null,
    };
    let digests: Vec<String> = image.raw_manifest().map_or_else(Vec::new, |manifest| {
        let digest = BlobId::hash(manifest);
        let mut repositories: Vec<&str> = image.names().iter().map(Name::repository).collect();
        repositories.dedup();
        repositories
            .iter()
            .map(|repository| format!("{repository}@{digest}"))
            .collect()
    });
    let mut object = json!({
        "Id": image.id(),
        "RepoTags": image.names(),
        "RepoDigests": digests,
        "Parent": "",
        "Comment": of("comment").unwrap_or_else(|| "".into()),
        "Created": of("created"),
        "Author": of("author").unwrap_or_else(|| "".into()),
        "Config": of("config"),
        "Architecture": of("architecture"),
        "Os": of("os"),
        "Size": store.image_size(image)?,
        "GraphDriver": {"Name": "overlay", "Data": data},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids()},
    });
    if let (Some(variant), Some(fields)) = (of("variant"), object.as_object_mut()) {
        fields.insert("Variant".to_owned(), variant);
    }
    Ok(object)
}

fn not_utf8(path: &Path) -> Failure {
    Failure::Failed(format!("{} is not UTF-8, which JSON cannot hold", path.display()))
}
