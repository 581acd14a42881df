//! `plyfs container inspect`.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Failure;
use crate::cli::inspect::{FORMAT_HELP, Template, print_objects};
use crate::cli::store::open;
use crate::store::container::{Container, Status, Use};

/// Show containers as docker does: a JSON array.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  plyfs container inspect web
  plyfs container inspect -f '{{{{json .GraphDriver.Data }}}}' web   its four directories
  plyfs container inspect -f '{{{{ .State.ExitCode }}}}' web

{FORMAT_HELP}"))]
pub(super) struct InspectArgs {
    /// Names or ids.
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Print only what this template says.
    #[arg(long, short, value_name = "TEMPLATE")]
    format: Option<Template>,
}

impl InspectArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let store = open(root)?;
        let objects = self
            .containers
            .iter()
            .map(|reference| {
                let mut container = store.container(reference)?;
                let found = container.settle()?;
                object(&container, found)
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        print_objects(&objects, self.format.as_ref())
    }
}

fn object(container: &Container<'_>, found: Use) -> Result<Value, Failure> {
    let record = &container.record;
    let state = &record.state;
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::Failed(format!("{} is not UTF-8, which JSON cannot hold", path.display()))
        })
    };
    let directories = container.directories();
    let (upper, work) = directories.upper.unwrap_or_default();
    let argv = record.config.argv();
    let mounts: Vec<Value> = record
        .host_config
        .binds
        .iter()
        .filter_map(|bind| bind.parse::<crate::store::runtime::Volume>().ok())
        .map(|volume| {
            json!({
                "Type": "bind",
                "Source": volume.source.display().to_string(),
                "Destination": volume.target,
                "RW": !volume.read_only,
            })
        })
        .collect();
    Ok(json!({
        "Id": record.id,
        "Created": record.created,
        "Path": argv.first(),
        "Args": argv.get(1..).unwrap_or_default(),
        "State": {
            "Status": state.status.word(),
            "Running": state.status == Status::Running,
            "Mounted": found != Use::Idle,
            "Pid": state.pid,
            "ExitCode": state.exit_code,
            "StartedAt": state.started_at,
            "FinishedAt": state.finished_at,
        },
        "Image": record.image,
        "Name": format!("/{}", record.name),
        "Driver": "overlay",
        "Platform": "linux",
        "HostConfig": record.host_config,
        "GraphDriver": {
            "Name": "overlay",
            "Data": {
                "LowerDir": text(&directories.lowers.first().cloned().unwrap_or_default())?,
                "UpperDir": text(&upper)?,
                "WorkDir": text(&work)?,
                "MergedDir": text(&directories.merged)?,
            },
        },
        "Mounts": mounts,
        "Config": record.config,
    }))
}
