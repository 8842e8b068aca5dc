//! Reads. Lists follow the key order and never look at what they do not answer.

use cosmwasm_std::{Addr, Deps, Order, StdResult, Storage};
use cw_storage_plus::Bound;
use governed::admin;
use schema::{
    msg::MigrationResponse,
    registry::{
        ConfigResponse, ModelResponse, ModelStatus, ModelsResponse, NamespaceResponse, OfferResponse, PayoutResponse,
        Share, VersionResponse, VersionsResponse,
    },
    ModelId, Namespace,
};

use crate::{
    model,
    state::{Model, Recipient, Version, CONFIG, METADATA, MODELS, NAMESPACES, USAGES, VERSIONS},
    version, ContractError,
};

const LIMIT_DEFAULT: u32 = 10;
const LIMIT_MAX: u32 = 30;

fn page(limit: Option<u32>) -> usize {
    // At most 30, which every usize holds.
    usize::try_from(limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX)).unwrap_or_default()
}

pub(crate) fn config(deps: Deps) -> StdResult<ConfigResponse> {
    let config = CONFIG.load(deps.storage)?;
    Ok(ConfigResponse {
        admin: admin::response(deps.storage)?,
        func_token: config.func_token.into(),
        royalty_escrow: config.royalty_escrow.map(Addr::into_string),
        params: config.params,
    })
}

pub(crate) fn migration(storage: &dyn Storage) -> StdResult<MigrationResponse> {
    let notice_seconds = CONFIG.load(storage)?.params.migration_notice_seconds;
    governed::migration::response(storage, notice_seconds)
}

pub(crate) fn namespace(deps: Deps, namespace: &Namespace) -> StdResult<NamespaceResponse> {
    let owner = NAMESPACES.may_load(deps.storage, namespace.as_str())?;
    Ok(NamespaceResponse {
        owner: owner.map(Addr::into_string),
    })
}

pub(crate) fn model(deps: Deps, id: ModelId) -> Result<ModelResponse, ContractError> {
    let model = model::load(deps.storage, &id)?;
    Ok(describe(deps, id, model)?)
}

/// Models of one namespace lie between `namespace/` and `namespace0`, because `0` follows `/`.
pub(crate) fn models(
    deps: Deps,
    namespace: Option<&Namespace>,
    start_after: Option<&ModelId>,
    limit: Option<u32>,
) -> Result<ModelsResponse, ContractError> {
    let (first, end) = match namespace {
        Some(namespace) => (format!("{namespace}/"), Some(format!("{namespace}0"))),
        None => (String::new(), None),
    };
    let min = match start_after.map(ModelId::as_str) {
        Some(after) if after >= first.as_str() => Bound::exclusive(after),
        _ => Bound::inclusive(first.as_str()),
    };
    let max = end.as_deref().map(Bound::exclusive);
    let found = MODELS.range(deps.storage, Some(min), max, Order::Ascending);
    let models = found.take(page(limit)).map(|entry| {
        let (id, model) = entry?;
        Ok(describe(deps, id.parse()?, model)?)
    });
    let models = models.collect::<Result<_, ContractError>>()?;
    Ok(ModelsResponse { models })
}

fn describe(deps: Deps, id: ModelId, model: Model) -> StdResult<ModelResponse> {
    let metadata = METADATA.load(deps.storage, id.as_str())?;
    let usage = USAGES.may_load(deps.storage, id.as_str())?.unwrap_or_default();
    Ok(ModelResponse {
        model: id,
        owner: model.owner.into(),
        proposed_owner: model.proposed_owner.map(Addr::into_string),
        metadata,
        status: model.status,
        payout: shares(model.payout),
        parents: model.parents,
        endpoints: model.endpoints,
        versions: model.versions,
        usage,
        published_at: model.published_at,
    })
}

pub(crate) fn shares(payout: Vec<Recipient>) -> Vec<Share> {
    let share = |recipient: Recipient| Share {
        address: recipient.address.into(),
        bps: recipient.bps,
    };
    payout.into_iter().map(share).collect()
}

pub(crate) fn version(deps: Deps, id: &ModelId, number: u32) -> Result<VersionResponse, ContractError> {
    let version = version::load(deps.storage, id, number)?;
    Ok(describe_version(deps, id, number, version))
}

pub(crate) fn versions(
    deps: Deps,
    id: &ModelId,
    start_after: Option<u32>,
    limit: Option<u32>,
) -> StdResult<VersionsResponse> {
    let min = start_after.map(Bound::exclusive);
    let versions = VERSIONS
        .prefix(id.as_str())
        .range(deps.storage, min, None, Order::Ascending)
        .take(page(limit))
        .map(|entry| entry.map(|(number, version)| describe_version(deps, id, number, version)));
    Ok(VersionsResponse {
        versions: versions.collect::<StdResult<_>>()?,
    })
}

fn describe_version(deps: Deps, id: &ModelId, number: u32, version: Version) -> VersionResponse {
    VersionResponse {
        version: number,
        manifest: version.manifest,
        manifest_uris: version.manifest_uris,
        stages: version.stages,
        tolerance: version.tolerance,
        units_per_request_max: version.units_per_request_max,
        retired: !version::is_live(deps.storage, id, number),
        published_at: version.published_at,
    }
}

pub(crate) fn offer(
    deps: Deps,
    id: ModelId,
    number: Option<u32>,
    endpoint: &str,
) -> Result<OfferResponse, ContractError> {
    let model = model::load(deps.storage, &id)?;
    match model.status {
        ModelStatus::Active => (),
        ModelStatus::Paused => return Err(ContractError::ModelPaused { model: id }),
        ModelStatus::Retired => return Err(ContractError::ModelRetired { model: id }),
    }
    let number = match number {
        Some(number) => number,
        None => version::newest(deps.storage, &id)?,
    };
    let version = version::load(deps.storage, &id, number)?;
    version::require_live(deps.storage, &id, number)?;
    let terms = model.terms(&id, endpoint)?;
    let task = METADATA.load(deps.storage, id.as_str())?.task;
    Ok(OfferResponse {
        model: id,
        version: number,
        manifest: version.manifest,
        task,
        stages: version.stages,
        units_per_request_max: version.units_per_request_max,
        terms,
    })
}

pub(crate) fn payout(deps: Deps, id: &ModelId) -> Result<PayoutResponse, ContractError> {
    let model = model::load(deps.storage, id)?;
    Ok(PayoutResponse {
        payout: shares(model.payout),
        parents: model.parents,
    })
}
