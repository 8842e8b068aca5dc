//! Models as anybody sees them.

use std::fmt;

use clap::Args;
use schema::{
    registry::{ModelResponse, ModelStatus, Task, Unit, VersionResponse},
    ModelId, Namespace,
};
use serde::Serialize;

use crate::{
    amount::Func,
    context::Context,
    output::{bold, Table},
};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only models of this namespace
    #[arg(long)]
    namespace: Option<Namespace>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// namespace/name
    model: ModelId,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Models(Vec<ModelResponse>);

impl fmt::Display for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "No model has been published yet.");
        }
        let mut table = Table::new([
            "model",
            "task",
            "status",
            ">versions",
            "endpoints",
            ">units",
            ">paid FUNC",
        ]);
        for model in &self.0 {
            let endpoints: Vec<_> = model.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
            let units = model.usage.units.units_in.saturating_add(model.usage.units.units_out);
            table.row([
                model.model.to_string(),
                task(model.metadata.task).to_owned(),
                status(model.status).to_owned(),
                model.versions.to_string(),
                endpoints.join(", "),
                units.to_string(),
                Func::from(model.usage.paid).to_string(),
            ]);
        }
        table.fmt(f)
    }
}

pub(crate) async fn list(context: &Context, list: List) -> anyhow::Result<()> {
    let client = context.client().await?;
    let mut models = client.registry().all_models().await?;
    models.retain(|model| {
        list.namespace
            .as_ref()
            .is_none_or(|namespace| model.model.namespace() == *namespace)
    });
    context.output.print(&Models(models))
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    model: ModelResponse,
    /// The newest one, if there is any.
    version: Option<VersionResponse>,
}

pub(crate) async fn show(context: &Context, show: Show) -> anyhow::Result<()> {
    let client = context.client().await?;
    let model = client.registry().model(&show.model).await?;
    let version = match model.versions {
        0 => None,
        version => Some(client.registry().version(&show.model, version).await?),
    };
    context.output.print(&Shown { model, version })
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = &self.model;
        writeln!(f, "{}  {}", bold(model.model.as_str()), model.metadata.title)?;
        writeln!(
            f,
            "task {}, {}, licence {}",
            task(model.metadata.task),
            status(model.status),
            model.metadata.licence
        )?;
        writeln!(f, "owner {}\n", model.owner)?;
        let mut endpoints = Table::new(["endpoint", "unit", ">royalty bps", ">royalty FUNC per 1000"]);
        for endpoint in &model.endpoints {
            let royalty = endpoint.terms.royalty;
            endpoints.row([
                endpoint.name.clone(),
                unit(endpoint.terms.unit).to_owned(),
                royalty.royalty_bps.to_string(),
                Func::from(royalty.royalty_per_1k_units).to_string(),
            ]);
        }
        writeln!(f, "{endpoints}")?;
        let mut shares = Table::new(["royalty to", ">bps"]);
        for share in &model.payout {
            shares.row([share.address.clone(), share.bps.to_string()]);
        }
        for parent in &model.parents {
            shares.row([
                format!("parent {}, before all others", parent.model),
                parent.bps.to_string(),
            ]);
        }
        write!(f, "{shares}")?;
        self.version.as_ref().map_or(Ok(()), |version| stages(f, version))
    }
}

fn stages(f: &mut fmt::Formatter<'_>, version: &VersionResponse) -> fmt::Result {
    writeln!(f, "\nversion {}, manifest {}", version.version, version.manifest)?;
    let mut table = Table::new(["stage", ">weights MB", ">compute bps", "digest"]);
    for (number, stage) in version.stages.iter().enumerate() {
        table.row([
            number.to_string(),
            (stage.weight_bytes / 1_000_000).to_string(),
            stage.compute_share_bps.to_string(),
            stage.digest.to_string(),
        ]);
    }
    write!(f, "{table}")
}

fn task(task: Task) -> &'static str {
    match task {
        Task::TextGeneration => "text-generation",
        Task::Embeddings => "embeddings",
        Task::Classification => "classification",
        Task::Image => "image",
        Task::Audio => "audio",
        Task::Other => "other",
    }
}

fn status(status: ModelStatus) -> &'static str {
    match status {
        ModelStatus::Active => "active",
        ModelStatus::Paused => "paused",
        ModelStatus::Retired => "retired",
    }
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Token => "token",
        Unit::Request => "request",
        Unit::Image => "image",
        Unit::Second => "second",
    }
}
