//! What a draw is seeded with.
//!
//! With a beacon, a redraw has one round, fixed by a date that is fixed before anybody can know the round: the end of an attempt's
//! evidence window, or the moment at which replicas differed. Without that round there is no redraw, until the job has no time left for
//! one. So whoever calls chooses nothing: not by the block of the call, not by posting other rounds, not by withholding one that anybody
//! else can post.
//!
//! The first draw of a job takes the newest known round. Its developer could have named the chain, so the developer may know.
//!
//! Without a beacon, or as long as it has no round, seeds are taken from the block: whoever makes blocks can choose.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, BlockInfo, QuerierWrapper, StdResult};
use schema::{
    beacon::draw_seed,
    canonical::Preimage,
    orchestrator::ItemStatus,
    randomness::{ConfigResponse, QueryMsg},
    receipt::Domain,
    Digest, ItemId, Round, Schedule,
};

use crate::{
    course::Course,
    state::{Item, Job, CONFIG},
    ContractError,
};

/// Beyond a job's life: a round may be known some seconds before its time, and lives as much shorter.
const KEPT_MARGIN_SECONDS: u64 = 60;

/// The beacon that the contract was told of when it was made.
#[cw_serde]
pub(crate) struct Beacon {
    pub(crate) contract: Addr,
    pub(crate) schedule: Schedule,
    /// How long a round can be posted and read, from its time on.
    pub(crate) kept_seconds: u64,
}

impl Beacon {
    pub(crate) fn ask(querier: QuerierWrapper<'_>, contract: Addr) -> StdResult<Self> {
        let config: ConfigResponse = querier.query_wasm_smart(&contract, &QueryMsg::Config {})?;
        Ok(Self {
            contract,
            schedule: config.schedule,
            kept_seconds: config.rounds_kept.saturating_mul(config.schedule.period_seconds),
        })
    }

    /// Refuses a beacon that forgets rounds before jobs of so many seconds have ended.
    pub(crate) fn check_keeps(&self, seconds: u64) -> Result<(), ContractError> {
        let required = seconds.saturating_add(KEPT_MARGIN_SECONDS);
        if self.kept_seconds < required {
            return Err(ContractError::BeaconForgets {
                kept_seconds: self.kept_seconds,
                required,
            });
        }
        Ok(())
    }

    /// The newest round that is known.
    pub(crate) fn latest(&self, querier: QuerierWrapper<'_>) -> StdResult<Option<Round>> {
        querier.query_wasm_smart(&self.contract, &QueryMsg::Latest {})
    }

    /// A round, if it is known.
    pub(crate) fn find(&self, querier: QuerierWrapper<'_>, round: u64) -> StdResult<Option<Round>> {
        querier.query_wasm_smart(&self.contract, &QueryMsg::Round { round })
    }

    /// The first round after a date that has passed, by so much that nobody could know it then.
    fn round_after(&self, date: u64, job: &Job) -> u64 {
        self.schedule
            .first_from(date.saturating_add(job.params.beacon_delay_seconds))
    }

    /// The round that a redraw of an item takes, if the item may need one.
    pub(crate) fn redraw_round(&self, item: &Item, job: &Job) -> Option<u64> {
        match item.status {
            ItemStatus::Assigned {} | ItemStatus::Attested { .. } => Some(self.round_after(item.evidence_until, job)),
            ItemStatus::AwaitingRound { round } => Some(round),
            _ => None,
        }
    }
}

/// What a seed is made of.
#[cw_serde]
#[derive(Copy)]
pub(crate) enum Source {
    Block { height: u64, nanos: u64 },
    Beacon(Round),
}

impl Source {
    pub(crate) fn block(block: &BlockInfo) -> Self {
        Self::Block {
            height: block.height,
            nanos: block.time.nanos(),
        }
    }

    /// Number of the beacon's round, if it is one.
    pub(crate) fn round(&self) -> Option<u64> {
        match self {
            Self::Beacon(round) => Some(round.round),
            Self::Block { .. } => None,
        }
    }

    /// Seed for one attempt of one shard of a job; for a whole job that of its first shard.
    pub(crate) fn seed(&self, domain: &Domain, job: u64, (shard, attempt): (u16, u8)) -> Digest {
        match self {
            Self::Beacon(round) => draw_seed(domain, job, (shard, attempt), round),
            Self::Block { height, nanos } => Preimage::new("draw-seed")
                .bytes(&domain.chain_id)
                .bytes(&domain.contract)
                .u64(job)
                .u64(shard)
                .u64(attempt)
                .u64(*height)
                .u64(*nanos)
                .digest(),
        }
    }
}

/// Asks the beacon for a round.
pub(crate) type Find<'a> = &'a dyn Fn(&Beacon, u64) -> StdResult<Option<Round>>;

impl Course<'_> {
    pub(crate) fn beacon(&self) -> StdResult<Option<Beacon>> {
        Ok(CONFIG.load(self.storage)?.randomness_beacon)
    }

    /// What a redraw of this item is seeded with.
    pub(crate) fn source(&self, id: ItemId, item: &Item, job: &Job, find: Find<'_>) -> Result<Source, ContractError> {
        let Some(beacon) = self.beacon()? else {
            return Ok(self.block);
        };
        let round = beacon
            .redraw_round(item, job)
            .ok_or(ContractError::NotAssigned { item: id })?;
        let due_at = beacon.schedule.time_of(round);
        let missing = ContractError::RoundMissing {
            item: id,
            round,
            due_at,
        };
        find(&beacon, round)?.map(Source::Beacon).ok_or(missing)
    }

    /// For a redraw that is decided now: its round, and when that is due. None: there is no beacon.
    pub(crate) fn round_from_now(&self, job: &Job) -> Result<Option<(u64, u64)>, ContractError> {
        let Some(beacon) = self.beacon()? else {
            return Ok(None);
        };
        let round = beacon.round_after(self.now, job);
        Ok(Some((round, beacon.schedule.time_of(round))))
    }

    /// When an awaited round is due.
    pub(crate) fn time_of(&self, round: u64) -> StdResult<u64> {
        Ok(self.beacon()?.map_or(0, |beacon| beacon.schedule.time_of(round)))
    }
}
