//! The messages of sessions: who may, what the siblings are asked, and what they are told.

use cosmwasm_std::{
    to_json_binary, Addr, Api, Deps, DepsMut, Env, QuerierWrapper, Response, StdError, Storage, SubMsg, Uint128,
};
use cw20::Cw20ExecuteMsg;
use schema::{
    escrow::{Consent, NewAllocation, NewSession, VoucherRefusal, WorkTerms, ALLOCATIONS_MAX},
    receipt::Domain,
    registry::{self, OfferResponse, StageInfo, VersionResponse},
    session::{CloseConsent, SignedVoucher},
    staking::{self, DeploymentOffer, OffersResponse, ProviderResponse},
    Digest, Event, PublicKey, Signature, BATCH_MAX,
};

use super::{announce, ask_payout, checked_terms, message};
use crate::{
    forced, lane,
    ledger::Ledger,
    payroll::{Paid, Payroll},
    session::{Allocation, Session},
    split::Payment,
    state::{Config, CONFIG, SIBLINGS},
    ContractError,
};

/// Replies come when staking has refused to take a slot back, or to count what was paid.
pub(super) const TOLD_STAKING: u64 = 1;

fn provider_staking(storage: &dyn Storage) -> Result<Addr, ContractError> {
    let siblings = SIBLINGS.may_load(storage)?.ok_or(ContractError::NotWired)?;
    Ok(siblings.provider_staking)
}

/// What a query that failed has said, without the layers around it: a chain may hide it, what was asked for is said beside it.
fn reason(err: StdError) -> String {
    match err {
        StdError::GenericErr { msg, .. } => {
            let said = msg.trim_start_matches("Querier contract error: ");
            said.trim_end_matches(": query wasm contract failed").to_owned()
        }
        other => other.to_string(),
    }
}

pub(super) fn open(deps: DepsMut<'_>, env: &Env, owner: Addr, new: NewSession) -> Result<Response, ContractError> {
    let config = CONFIG.load(deps.storage)?;
    let staking = provider_staking(deps.storage)?;
    check_count(new.allocations.len(), new.allocations.len())?;
    let offer = ask_offer(&deps.querier, &config.model_registry, &new)?;
    let terms = WorkTerms {
        model: offer.model.clone(),
        royalty: offer.terms.royalty,
        gateway: new.gateway.clone(),
    };
    let terms = checked_terms(deps.api, terms)?;
    let now = env.block.time.seconds();
    let mut session = Session::new(owner, &new, &offer, terms, &config.params, now)?;
    let offers = ask_offers(&deps.querier, &staking, &new.allocations)?;
    let joining = join_all(&config, &session, &offer.stages, offers, &new.allocations, now)?;
    let mut ledger = Ledger::open(deps.storage)?;
    let number = lane::open(&mut ledger, &mut session, joining)?;
    let response = announce(ledger.close()?);
    Ok(response.add_message(reserve(&staking, number, new.allocations.iter())?))
}

/// What one message names, and what the session has with it.
pub(super) fn check_count(named: usize, total: usize) -> Result<(), ContractError> {
    let count = if named == 0 { 0 } else { named.max(total) };
    if count == 0 || count > ALLOCATIONS_MAX {
        return Err(ContractError::AllocationCount {
            count,
            max: ALLOCATIONS_MAX,
        });
    }
    Ok(())
}

fn ask_offer(querier: &QuerierWrapper<'_>, registry: &Addr, new: &NewSession) -> Result<OfferResponse, ContractError> {
    let question = registry::QueryMsg::Offer {
        model: new.model.clone(),
        version: new.version,
        endpoint: new.endpoint.clone(),
    };
    let answer = querier.query_wasm_smart(registry, &question);
    answer.map_err(|err| ContractError::NoOffer {
        model: new.model.clone(),
        endpoint: new.endpoint.chars().take(64).collect(),
        reason: reason(err),
    })
}

fn ask_offers(
    querier: &QuerierWrapper<'_>,
    staking: &Addr,
    allocations: &[NewAllocation],
) -> Result<Vec<DeploymentOffer>, ContractError> {
    let deployments = allocations.iter().map(|new| new.deployment).collect();
    let answer = querier.query_wasm_smart(staking, &staking::QueryMsg::Offers { deployments });
    let answer: OffersResponse = answer.map_err(|err| ContractError::NoDeployment { reason: reason(err) })?;
    Ok(answer.offers)
}

/// Deployments that are new to the session, each with its money.
fn join_all(
    config: &Config,
    session: &Session,
    stages: &[StageInfo],
    offers: Vec<DeploymentOffer>,
    allocations: &[NewAllocation],
    now: u64,
) -> Result<Vec<Allocation>, ContractError> {
    let least = config.params.allocation_min;
    let join = |(offer, new): (DeploymentOffer, &NewAllocation)| {
        if new.amount < least {
            return Err(ContractError::AllocationTooSmall {
                deployment: new.deployment,
                amount: new.amount,
                least,
            });
        }
        let share_bps = compute_share(&offer, stages);
        let mut allocation = Allocation::new(session, offer, share_bps, now)?;
        allocation.put_in(new.amount, Uint128::zero())?;
        Ok(allocation)
    };
    offers.into_iter().zip(allocations).map(join).collect()
}

/// Stages that do not exist do no work. Staking lists none of those.
fn compute_share(offer: &DeploymentOffer, stages: &[StageInfo]) -> u16 {
    let served = usize::from(offer.terms.first)..=usize::from(offer.terms.last);
    let shares = stages.get(served).unwrap_or_default().iter();
    shares.map(|stage| stage.compute_share_bps).fold(0, u16::saturating_add)
}

fn reserve<'a>(
    staking: &Addr,
    session: u64,
    allocations: impl Iterator<Item = &'a NewAllocation>,
) -> Result<cosmwasm_std::CosmosMsg, ContractError> {
    let deployments = allocations.map(|new| new.deployment).collect();
    let reserve = staking::ExecuteMsg::Reserve { session, deployments };
    Ok(message(staking, to_json_binary(&reserve)?))
}

pub(super) fn top_up(
    deps: DepsMut<'_>,
    env: &Env,
    sender: &Addr,
    number: u64,
    allocations: Vec<NewAllocation>,
) -> Result<Response, ContractError> {
    let now = env.block.time.seconds();
    let mut session = lane::load(deps.storage, number)?;
    session.require_owner(number, sender)?;
    session.require_unexpired(number, now)?;
    let members = lane::deployments(deps.storage, number)?;
    let named = allocations.len();
    let (known, new): (Vec<_>, Vec<_>) = allocations
        .into_iter()
        .partition(|named| members.contains(&named.deployment));
    check_count(named, members.len().saturating_add(new.len()))?;
    if known.iter().any(|known| known.amount.is_zero()) {
        return Err(ContractError::ZeroAmount);
    }
    let joining = if new.is_empty() {
        vec![]
    } else {
        ask_and_join(deps.as_ref(), &session, &new, now)?
    };
    let mut ledger = Ledger::open(deps.storage)?;
    lane::top_up(&mut ledger, number, &mut session, (&known, joining), now)?;
    let response = announce(ledger.close()?);
    if new.is_empty() {
        return Ok(response);
    }
    let staking = provider_staking(deps.storage)?;
    Ok(response.add_message(reserve(&staking, number, new.iter())?))
}

/// Running work goes on whatever has become of the model or the version: only the stages are asked for.
fn ask_and_join(
    deps: Deps<'_>,
    session: &Session,
    new: &[NewAllocation],
    now: u64,
) -> Result<Vec<Allocation>, ContractError> {
    let config = CONFIG.load(deps.storage)?;
    let question = registry::QueryMsg::Version {
        model: session.terms.model.clone(),
        version: session.version,
    };
    let version: VersionResponse = deps.querier.query_wasm_smart(&config.model_registry, &question)?;
    let offers = ask_offers(&deps.querier, &provider_staking(deps.storage)?, new)?;
    join_all(&config, session, &version.stages, offers, new, now)
}

fn domain(env: &Env) -> Domain {
    Domain {
        chain_id: env.block.chain_id.clone(),
        contract: env.contract.address.to_string(),
    }
}

/// A signature that cannot even be read is no signature.
fn is_signed(api: &dyn Api, digest: &Digest, signature: &Signature, key: &PublicKey) -> bool {
    signature.is_low_s() && api.secp256k1_verify(&digest.0, &signature.0, &key.0).unwrap_or(false)
}

pub(super) fn settle(deps: DepsMut<'_>, env: &Env, vouchers: &[SignedVoucher]) -> Result<Response, ContractError> {
    let count = vouchers.len();
    if count == 0 || count > BATCH_MAX {
        return Err(ContractError::VoucherCount { count, max: BATCH_MAX });
    }
    let domain = domain(env);
    let mut payroll = Payroll::default();
    let mut ledger = Ledger::open(deps.storage)?;
    for signed in vouchers {
        let event = settle_one(deps.api, &mut ledger, &mut payroll, &domain, signed)?;
        ledger.announce(event);
    }
    let config = CONFIG.load(ledger.storage())?;
    let rule_of = |model: &_| ask_payout(&deps.querier, &config.model_registry, model);
    let paid = payroll.pay(&mut ledger, &config.treasury, rule_of)?;
    let staking = provider_staking(ledger.storage());
    let response = announce(ledger.close()?);
    tell(response, &config, paid, staking)
}

/// What follows of payments: the burn, and one record for the registry and one for staking, whatever the latter says to it.
fn tell(
    mut response: Response,
    config: &Config,
    paid: Paid,
    staking: Result<Addr, ContractError>,
) -> Result<Response, ContractError> {
    let Paid { burnt, usages, settled } = paid;
    if !burnt.is_zero() {
        let burn = to_json_binary(&Cw20ExecuteMsg::Burn { amount: burnt })?;
        response = response.add_message(message(&config.func_token, burn));
    }
    if !usages.is_empty() {
        let record = to_json_binary(&registry::ExecuteMsg::Record { usages })?;
        response = response.add_message(message(&config.model_registry, record));
    }
    if !settled.is_empty() {
        let record = staking::ExecuteMsg::RecordSettled { work: settled };
        response = response.add_submessage(told(&staking?, &record)?);
    }
    Ok(response)
}

/// Whatever staking says to that, the money has moved: this contract has no say over a sibling's new code, and nobody's money waits
/// for it.
fn told(staking: &Addr, msg: &staking::ExecuteMsg) -> Result<SubMsg, ContractError> {
    Ok(SubMsg::reply_on_error(
        message(staking, to_json_binary(msg)?),
        TOLD_STAKING,
    ))
}

/// Says what has become of a voucher. Only what is wrong with the contract itself is an error.
fn settle_one(
    api: &dyn Api,
    ledger: &mut Ledger<'_>,
    payroll: &mut Payroll,
    domain: &Domain,
    signed: &SignedVoucher,
) -> Result<Event, ContractError> {
    let voucher = &signed.voucher;
    let refused = |reason: VoucherRefusal| Event::VoucherRefused {
        session: voucher.session,
        deployment: voucher.deployment,
        sequence: voucher.sequence,
        reason,
    };
    let Some(mut allocation) = lane::find(ledger.storage(), voucher.session, voucher.deployment)? else {
        return Ok(refused(VoucherRefusal::Unknown));
    };
    let session = lane::load(ledger.storage(), voucher.session)?;
    let before = allocation.standing.units;
    let is_signed = || is_signed(api, &voucher.digest(domain), &signed.signature, &session.session_key);
    let payment: Payment = match allocation.settle(&session, voucher, is_signed) {
        Ok(payment) => payment,
        Err(reason) => return Ok(refused(reason)),
    };
    lane::save_standing(ledger.storage_mut(), voucher.session, &allocation)?;
    payroll.add(&session, &allocation, &payment)?;
    Ok(Event::VoucherSettled {
        session: voucher.session,
        deployment: voucher.deployment,
        sequence: voucher.sequence,
        requests: voucher.requests.saturating_sub(before.requests),
        units_in: voucher.units_in.saturating_sub(before.units_in),
        units_out: voucher.units_out.saturating_sub(before.units_out),
        paid: payment.amount,
        burnt: payment.burn,
    })
}

pub(super) fn close(
    deps: DepsMut<'_>,
    env: &Env,
    sender: &Addr,
    number: u64,
    consents: &[Consent],
) -> Result<Response, ContractError> {
    let now = env.block.time.seconds();
    let mut session = lane::load(deps.storage, number)?;
    session.require_owner(number, sender)?;
    let count = consents.len();
    if count > ALLOCATIONS_MAX {
        let max = ALLOCATIONS_MAX;
        return Err(ContractError::ConsentCount { count, max });
    }
    let domain = domain(env);
    let mut ledger = Ledger::open(deps.storage)?;
    let mut slots = vec![];
    for Consent { deployment, signature } in consents {
        let allocation = lane::find_open(ledger.storage(), number, *deployment)?;
        forced::require_free(ledger.storage(), number, *deployment, now)?;
        let consent = CloseConsent {
            session: number,
            deployment: *deployment,
            sequence: allocation.standing.sequence,
        };
        let key = allocation.pins.offer.host_key;
        if !is_signed(deps.api, &consent.digest(&domain), signature, &key) {
            return Err(ContractError::NoConsent {
                deployment: *deployment,
                sequence: consent.sequence,
            });
        }
        slots.extend(lane::close(&mut ledger, number, &mut session, allocation, now)?);
    }
    let closing = match session.open {
        0 => 0,
        _ => lane::start_closing(&mut ledger, number, &session, now)?,
    };
    if closing == 0 && consents.is_empty() {
        return Err(ContractError::NothingToClose { session: number });
    }
    closed_response(ledger, number, slots)
}

pub(super) fn leave(
    deps: DepsMut<'_>,
    env: &Env,
    sender: &Addr,
    number: u64,
    deployment: u64,
) -> Result<Response, ContractError> {
    let mut session = lane::load(deps.storage, number)?;
    let allocation = lane::find_open(deps.storage, number, deployment)?;
    require_provider(deps.as_ref(), &allocation, sender)?;
    let now = env.block.time.seconds();
    forced::require_free(deps.storage, number, deployment, now)?;
    let mut ledger = Ledger::open(deps.storage)?;
    let slot = lane::close(&mut ledger, number, &mut session, allocation, now)?;
    closed_response(ledger, number, slot.into_iter().collect())
}

/// The owner of the deployment, or whoever is its operator today.
fn require_provider(deps: Deps<'_>, allocation: &Allocation, sender: &Addr) -> Result<(), ContractError> {
    let provider = &allocation.pins.provider;
    if provider == sender {
        return Ok(());
    }
    let question = staking::QueryMsg::Provider {
        provider: provider.to_string(),
    };
    let answer: ProviderResponse = deps
        .querier
        .query_wasm_smart(provider_staking(deps.storage)?, &question)?;
    if answer.profile.operator.as_deref() == Some(sender.as_str()) {
        return Ok(());
    }
    Err(ContractError::NotProvider {
        sender: sender.to_string(),
        deployment: allocation.deployment(),
    })
}

pub(super) fn finalise(deps: DepsMut<'_>, env: &Env, number: u64) -> Result<Response, ContractError> {
    let mut session = lane::load(deps.storage, number)?;
    let mut ledger = Ledger::open(deps.storage)?;
    let slots = lane::finalise(&mut ledger, number, &mut session, env.block.time.seconds())?;
    closed_response(ledger, number, slots)
}

/// Slots go back to staking.
fn closed_response(ledger: Ledger<'_>, session: u64, deployments: Vec<u64>) -> Result<Response, ContractError> {
    let staking = provider_staking(ledger.storage())?;
    let response = announce(ledger.close()?);
    if deployments.is_empty() {
        return Ok(response);
    }
    let free = staking::ExecuteMsg::Free { session, deployments };
    Ok(response.add_submessage(told(&staking, &free)?))
}
