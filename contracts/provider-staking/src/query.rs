//! Reads. Lists follow the key order and never look at what they do not answer.

use cosmwasm_std::{Addr, Deps, Order, StdResult, Storage};
use cw_storage_plus::Bound;
use governed::admin;
use schema::{
    msg::MigrationResponse,
    staking::{
        Chain, ConfigResponse, DeploymentOffer, DeploymentResponse, DeploymentsResponse, DrawRequest, DrawResponse,
        OffersResponse, Profile, ProviderResponse, ProvidersResponse, Span,
    },
    ModelId,
};

use crate::{
    book,
    deployment::Deployment,
    draw::{self, DrawnChain, DrawnSpan},
    index::{market_key, StoredMarket},
    provider,
    state::{CONFIG, DEPLOYMENTS, PROFILES, SERVING},
    ContractError,
};

const LIMIT_DEFAULT: u32 = 10;
const LIMIT_MAX: u32 = 30;

fn page(limit: Option<u32>) -> usize {
    // At most 30, which every usize holds.
    usize::try_from(limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX)).unwrap_or_default()
}

pub(crate) fn config(deps: Deps) -> StdResult<ConfigResponse> {
    let config = CONFIG.load(deps.storage)?;
    let (royalty_escrow, job_orchestrator) = match config.siblings {
        Some(siblings) => (Some(siblings.royalty_escrow), Some(siblings.job_orchestrator)),
        None => (None, None),
    };
    Ok(ConfigResponse {
        admin: admin::response(deps.storage)?,
        func_token: config.func_token.into(),
        model_registry: config.model_registry.into(),
        royalty_escrow: royalty_escrow.map(Addr::into_string),
        job_orchestrator: job_orchestrator.map(Addr::into_string),
        params: config.params,
    })
}

pub(crate) fn migration(storage: &dyn Storage) -> StdResult<MigrationResponse> {
    let notice_seconds = CONFIG.load(storage)?.params.migration_notice_seconds;
    governed::migration::response(storage, notice_seconds)
}

pub(crate) fn provider(deps: Deps, owner: &str, now: u64) -> Result<ProviderResponse, ContractError> {
    let owner = deps.api.addr_validate(owner)?;
    // The stake first: it is what tells a stranger from a provider.
    provider::stake(deps.storage, &owner)?;
    let profile = PROFILES.load(deps.storage, &owner)?;
    describe_provider(deps, owner, profile, now)
}

pub(crate) fn providers(
    deps: Deps,
    start_after: Option<&str>,
    limit: Option<u32>,
    now: u64,
) -> Result<ProvidersResponse, ContractError> {
    let after = start_after.map(|owner| deps.api.addr_validate(owner)).transpose()?;
    let min = after.as_ref().map(Bound::exclusive);
    let found = PROFILES
        .range(deps.storage, min, None, Order::Ascending)
        .take(page(limit));
    let providers = found.map(|entry| {
        let (owner, profile) = entry?;
        describe_provider(deps, owner, profile, now)
    });
    Ok(ProvidersResponse {
        providers: providers.collect::<Result<_, _>>()?,
    })
}

fn describe_provider(deps: Deps, owner: Addr, profile: Profile, now: u64) -> Result<ProviderResponse, ContractError> {
    let stake = provider::stake(deps.storage, &owner)?;
    let conduct = CONFIG.load(deps.storage)?.params.conduct;
    Ok(ProviderResponse {
        provider: owner.into(),
        profile,
        bond: stake.bond,
        committed: stake.committed,
        backing: stake.backing,
        settled: stake.settled.at(now),
        reserve: stake.reserve(now),
        free: stake.free(now),
        strikes: stake.strikes_inside(now, &conduct),
        jailed_until: stake.jailed_until,
        // At most 32.
        deployments: u32::try_from(stake.deployments.len()).unwrap_or(u32::MAX),
        unbonding: stake.unbonding,
        penalties: stake.penalties,
    })
}

pub(crate) fn deployment(deps: Deps, number: u64, now: u64) -> Result<DeploymentResponse, ContractError> {
    Ok(describe_deployment(number, book::load(deps.storage, number)?, now))
}

pub(crate) fn deployments(
    deps: Deps,
    owner: Option<&str>,
    (start_after, limit): (Option<u64>, Option<u32>),
    now: u64,
) -> Result<DeploymentsResponse, ContractError> {
    let limit = page(limit);
    let deployments = match owner {
        Some(owner) => {
            let stake = provider::stake(deps.storage, &deps.api.addr_validate(owner)?)?;
            let numbers = stake.deployments.into_iter();
            let numbers = numbers.filter(|number| start_after.is_none_or(|after| *number > after));
            let found = numbers.take(limit).map(|number| deployment(deps, number, now));
            found.collect::<Result<_, _>>()?
        }
        None => {
            let min = start_after.map(Bound::exclusive);
            let found = DEPLOYMENTS.range(deps.storage, min, None, Order::Ascending).take(limit);
            let describe = |(number, deployment)| describe_deployment(number, deployment, now);
            let found = found.map(|entry| entry.map(describe));
            found.collect::<StdResult<_>>()?
        }
    };
    Ok(DeploymentsResponse { deployments })
}

/// Deployments of one version by number, whoever serves it.
pub(crate) fn deployments_of(
    deps: Deps,
    (model, version): (&ModelId, u32),
    (start_after, limit): (Option<u64>, Option<u32>),
    now: u64,
) -> Result<DeploymentsResponse, ContractError> {
    let numbers = SERVING
        .prefix(&market_key(model, version))
        .keys(deps.storage, start_after.map(Bound::exclusive), None, Order::Ascending)
        .take(page(limit));
    let deployments = numbers.map(|number| deployment(deps, number?, now));
    Ok(DeploymentsResponse {
        deployments: deployments.collect::<Result<_, _>>()?,
    })
}

/// What sessions pin of deployments.
pub(crate) fn offers(deps: Deps, deployments: Vec<u64>) -> Result<OffersResponse, ContractError> {
    let offer = |number| {
        let deployment = book::load(deps.storage, number)?;
        let host_key = PROFILES.load(deps.storage, &deployment.owner)?.host_key;
        Ok(DeploymentOffer {
            deployment: number,
            provider: deployment.owner.into(),
            host_key,
            terms: deployment.terms,
            slot_bond: deployment.slot_bond,
        })
    };
    let offers = deployments
        .into_iter()
        .map(offer)
        .collect::<Result<_, ContractError>>()?;
    Ok(OffersResponse { offers })
}

fn describe_deployment(number: u64, deployment: Deployment, now: u64) -> DeploymentResponse {
    DeploymentResponse {
        link_faults: deployment.link_faults(now),
        deployment: number,
        provider: deployment.owner.into(),
        terms: deployment.terms,
        state: deployment.state,
        busy: deployment.busy,
        slot_bond: deployment.slot_bond,
    }
}

// Put into its only caller, the variables of both would pass the 100 that a chain allows a function.
#[inline(never)]
pub(crate) fn draw(deps: Deps, request: &DrawRequest, now: u64) -> Result<DrawResponse, ContractError> {
    draw::check(request)?;
    let mut market = StoredMarket::new(deps.storage, (&request.model, request.version), now);
    let drawn = draw::draw(&mut market, request)?;
    let chains = drawn.map(|chains| chains.into_iter().map(|chain| describe_chain(deps, chain)).collect());
    Ok(DrawResponse {
        chains: chains.transpose()?,
    })
}

fn describe_chain(deps: Deps, chain: DrawnChain) -> StdResult<Chain> {
    let spans = chain.spans.into_iter().map(|span| describe_span(deps, span));
    Ok(Chain {
        engine_class: chain.engine_class,
        spans: spans.collect::<StdResult<_>>()?,
    })
}

fn describe_span(deps: Deps, span: DrawnSpan) -> StdResult<Span> {
    let listing = span.listing;
    let host_key = PROFILES.load(deps.storage, &listing.owner)?.host_key;
    Ok(Span {
        deployment: listing.deployment,
        provider: listing.owner.into(),
        host_key,
        first: listing.first,
        last: listing.last,
        compute_share_bps: span.compute_share_bps,
        ask: listing.ask,
        sla: listing.sla,
        price_max: span.price,
    })
}
