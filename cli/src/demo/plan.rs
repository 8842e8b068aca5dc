//! What the demonstration plays: prices, terms, amounts. Everything that a person may want to change stands here.

use std::time::Duration;

use cosmwasm_std::Uint128;
use schema::{
    price::{Ask, RoyaltyRate},
    registry::{EndpointTerms, Metadata, Task, Unit},
    staking::Sla,
    UFUNC,
};

use crate::amount::Func;

/// Role of the chain's process.
pub(crate) const DEVNET: &str = "devnet";
/// Role of the beacon's process, where the chain does not bring its own.
pub(crate) const BEACON: &str = "beacon";
pub(crate) const STAGES: u8 = 3;
/// Two on every stage.
pub(crate) const PROVIDERS: u8 = 6;
pub(crate) const NAMESPACE: &str = "demo";
pub(crate) const MODEL: &str = "all-minilm-l6-v2";
pub(crate) const PARENT_NAMESPACE: &str = "demo-research";
pub(crate) const PARENT: &str = "minilm-base";
pub(crate) const ENDPOINT: &str = "embeddings";
/// Short blocks: every step waits for a few of them.
pub(crate) const BLOCK_TIME: &str = "250ms";
/// Job 1: parallel parts, and independent runs of each.
pub(crate) const SHARDS: usize = 4;
pub(crate) const REPLICAS: u8 = 2;
/// Gas coin of every account: enough for a thousand transactions.
pub(crate) const GAS: u128 = 20_000_000;
/// What the developer gets, and puts into the escrow.
pub(crate) const DEVELOPER_FUNC: Func = Func(1_000 * UFUNC);
pub(crate) const DEPOSIT: Func = Func(500 * UFUNC);
/// For the fees of publishing, which are burnt.
pub(crate) const CREATOR_FUNC: Func = Func(200 * UFUNC);
/// Bond of a provider: its slots at 50 FUNC each, the reserve of 75, and some to spare.
pub(crate) const BOND: Func = Func(525 * UFUNC);
/// Also for the listing fee.
pub(crate) const PROVIDER_FUNC: Func = Func(600 * UFUNC);
pub(crate) const SLOTS: u16 = 8;
/// Parts of the royalty: to the parent model, and of the rest to the creator and to whom it names.
pub(crate) const LINEAGE_BPS: u16 = 2_000;
pub(crate) const CREATOR_BPS: u16 = 8_000;
pub(crate) const DESIGNER_BPS: u16 = 2_000;
/// The parent's own payout rule.
pub(crate) const RESEARCH_BPS: u16 = 7_000;
pub(crate) const ARCHIVE_BPS: u16 = 3_000;

/// Texts in one request of the session: as small as they come.
pub(crate) const TEXTS_A_REQUEST: usize = 1;
/// Chains of the session beside the first.
pub(crate) const SPARES: usize = 1;
/// For hosts to settle and to consent: their relayers look every second.
pub(crate) const CONSENT_PATIENCE: Duration = Duration::from_secs(60);
/// For the end of a notice, where one did not consent.
pub(crate) const NOTICE_PATIENCE: Duration = Duration::from_secs(60);

/// How often the kill is tried: a host that had done everything before it died is no story.
pub(crate) const KILLS_MAX: u32 = 5;
/// Longest waits. Each is a multiple of what is usual, for a machine that does other things too.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const READY_PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const JOB_PATIENCE: Duration = Duration::from_secs(90);

/// Of the provider with this number, counted from 0: stages and neighbours differ.
pub(crate) fn ask(provider: u8) -> Ask {
    let (stage, second) = (u128::from(provider / 2), u128::from(provider % 2));
    let step = |base: u128, by_stage: u128, by_neighbour: u128| {
        let stages = stage.saturating_mul(by_stage);
        Uint128::new(
            base.saturating_add(stages)
                .saturating_add(second.saturating_mul(by_neighbour)),
        )
    };
    Ask {
        per_1k_in: step(200_000, 40_000, 25_000),
        per_1k_out: Uint128::zero(),
        per_request: step(500, 100, 50),
    }
}

pub(crate) fn sla() -> Sla {
    Sla {
        base_seconds: 1,
        seconds_per_1k_units: 1,
        units_max: 4_096,
        penalty_bps: 5_000,
    }
}

pub(crate) fn endpoint() -> EndpointTerms {
    EndpointTerms {
        unit: Unit::Token,
        royalty: RoyaltyRate {
            royalty_bps: 1_000,
            royalty_per_1k_units: Uint128::new(50_000),
        },
    }
}

pub(crate) fn metadata(title: &str, description: &str, task: Task) -> Metadata {
    Metadata {
        title: title.to_owned(),
        description: description.to_owned(),
        task,
        licence: "Apache-2.0".to_owned(),
        tags: vec!["sentence-embeddings".to_owned(), "demonstration".to_owned()],
        homepage: None,
        card: None,
    }
}
