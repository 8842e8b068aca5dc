//! What a developer may order: every bound of a new job, checked before anything is asked of anybody.

use cosmwasm_std::{Binary, Uint128};
use schema::{
    escrow::ALLOCATIONS_MAX,
    merkle,
    orchestrator::{NewJob, ShardInfo, ShardStatus},
    registry::{OfferResponse, Task},
    text, INLINE_BYTES_MAX,
};

use crate::ContractError;

/// Shards x replicas x stages of one job: what one transaction assigns, and the bound of every loop over a job.
pub(crate) const RUNS_MAX: usize = 64;
const REPLICAS_MAX: u8 = 3;
/// No more rows than bytes that may ride along: binds only shards of empty rows.
const ROWS_MAX: usize = INLINE_BYTES_MAX;

/// A job that is inside all bounds.
#[derive(Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) shards: Vec<ShardInfo>,
    pub(crate) units_out_max: u64,
    /// floor(max_price / items).
    pub(crate) item_price_max: Uint128,
    /// item_price_max x items. All of it, although the first draw may cost less: a redraw may cost more.
    pub(crate) held: Uint128,
    pub(crate) items: usize,
}

impl Order {
    pub(crate) fn of(job: &NewJob, offer: &OfferResponse) -> Result<Self, ContractError> {
        check_runs(job, offer.stages.len())?;
        if let Some(class) = &job.engine_class {
            text::check_present("engine_class", class, 128)?;
        }
        let as_text = offer.task == Task::Embeddings;
        let mut shards = vec![];
        for (index, shard) in job.shards.iter().enumerate() {
            shards.push(self::shard(index, &shard.inline, as_text)?);
        }
        let rows = shards.iter().map(|shard| u64::from(shard.rows)).max().unwrap_or(0);
        let max = rows.saturating_mul(offer.units_per_request_max);
        if job.units_max == 0 || job.units_max > max {
            return Err(ContractError::UnitsOutOfBounds {
                units_max: job.units_max,
                max,
            });
        }
        let items = shards.len().saturating_mul(job.replicas.into());
        let count = Uint128::new(items as u128);
        let item_price_max = job.max_price.checked_div(count).unwrap_or_default();
        if item_price_max.is_zero() {
            return Err(ContractError::MaxPriceTooLow {
                max_price: job.max_price,
                items: count.u128(),
            });
        }
        Ok(Self {
            shards,
            units_out_max: if as_text { 0 } else { job.units_max },
            item_price_max,
            held: item_price_max.checked_mul(count)?,
            items,
        })
    }
}

/// Rows that are inside all bounds, as a shard that is running.
pub(crate) fn shard(index: usize, rows: &[Binary], as_text: bool) -> Result<ShardInfo, ContractError> {
    Ok(ShardInfo {
        rows: check_rows(index, rows, as_text)?,
        root: merkle::root(rows),
        status: ShardStatus::Running,
    })
}

fn check_runs(job: &NewJob, stages: usize) -> Result<(), ContractError> {
    if job.shards.is_empty() {
        return Err(ContractError::NoShards);
    }
    // A chain that is named has one owner or another, and no owner holds two replicas.
    let max = if job.chain.is_some() { 1 } else { REPLICAS_MAX };
    if job.replicas == 0 || job.replicas > max {
        let replicas = job.replicas;
        return Err(ContractError::ReplicaCount { replicas, max });
    }
    let (named, max) = (job.chain.as_ref().map_or(1, Vec::len), stages.min(ALLOCATIONS_MAX));
    if named == 0 || named > max {
        return Err(ContractError::ChainLength { named, max });
    }
    let shards = job.shards.len();
    let runs = shards.saturating_mul(job.replicas.into()).saturating_mul(stages);
    if runs > RUNS_MAX {
        return Err(ContractError::TooManyRuns {
            shards,
            replicas: job.replicas,
            stages,
            max: RUNS_MAX,
        });
    }
    Ok(())
}

/// The number of rows. A row that could never ride along is named before the sum is.
fn check_rows(shard: usize, rows: &[Binary], as_text: bool) -> Result<u32, ContractError> {
    let max = INLINE_BYTES_MAX;
    let mut bytes: usize = 0;
    for (row, content) in rows.iter().enumerate() {
        if content.len() > max {
            return Err(ContractError::RowTooLarge {
                shard,
                row,
                bytes: content.len(),
                max,
            });
        }
        if as_text && std::str::from_utf8(content).is_err() {
            return Err(ContractError::RowNotText { shard, row });
        }
        bytes = bytes.saturating_add(content.len());
    }
    if bytes > max {
        return Err(ContractError::ShardTooLarge { shard, bytes, max });
    }
    match u32::try_from(rows.len()) {
        Ok(0) => Err(ContractError::EmptyShard { shard }),
        Ok(count) if rows.len() <= ROWS_MAX => Ok(count),
        _ => Err(ContractError::TooManyRows {
            shard,
            rows: rows.len(),
            max: ROWS_MAX,
        }),
    }
}

#[cfg(test)]
mod tests {
    use schema::{
        orchestrator::NewShard,
        price::RoyaltyRate,
        registry::{EndpointTerms, StageInfo, Unit},
        Digest,
    };

    use super::*;

    fn offer(task: Task, stages: usize) -> OfferResponse {
        let stage = StageInfo {
            digest: Digest::of(b"stage"),
            weight_bytes: 1,
            compute_share_bps: 10,
        };
        OfferResponse {
            model: "demo/m".parse().unwrap(),
            version: 1,
            manifest: Digest::of(b"manifest"),
            task,
            stages: vec![stage; stages],
            units_per_request_max: 256,
            terms: EndpointTerms {
                unit: Unit::Token,
                royalty: RoyaltyRate {
                    royalty_bps: 0,
                    royalty_per_1k_units: 0u128.into(),
                },
            },
        }
    }

    fn job(shards: &[&[&[u8]]]) -> NewJob {
        let shard = |rows: &&[&[u8]]| NewShard {
            inline: rows.iter().map(|row| Binary::from(*row)).collect(),
        };
        NewJob {
            model: "demo/m".parse().unwrap(),
            version: None,
            endpoint: "embeddings".into(),
            engine_class: None,
            shards: shards.iter().map(shard).collect(),
            replicas: 1,
            units_max: 256,
            max_price: 1_000u128.into(),
            deadline_seconds: None,
            chain: None,
            gateway: None,
        }
    }

    fn order(job: &NewJob) -> Result<Order, ContractError> {
        Order::of(job, &offer(Task::Embeddings, 3))
    }

    #[test]
    fn an_order_has_the_root_of_each_shard_and_holds_its_equal_parts() {
        let mut job = job(&[&[b"one", b"two"], &[b"three"], &[b"four"]]);
        job.replicas = 2;
        let order = order(&job).unwrap();
        assert_eq!(order.shards[0].root, merkle::root([b"one", b"two"]));
        assert_eq!((order.shards[0].rows, order.shards[1].rows), (2, 1));
        assert_eq!((order.items, order.units_out_max), (6, 0));
        assert_eq!((order.item_price_max.u128(), order.held.u128()), (166, 996));
    }

    #[test]
    fn a_model_that_generates_may_generate_as_much_as_was_ordered() {
        let order = Order::of(&job(&[&[b"row"]]), &offer(Task::TextGeneration, 1)).unwrap();
        assert_eq!(order.units_out_max, 256);
    }

    #[test]
    fn a_job_is_bounded_in_shards_replicas_and_stages() {
        assert_eq!(order(&job(&[])), Err(ContractError::NoShards));
        for replicas in [0, 4] {
            let mut job = job(&[&[b"row"]]);
            job.replicas = replicas;
            assert_eq!(order(&job), Err(ContractError::ReplicaCount { replicas, max: 3 }));
        }
        let shard: &[&[u8]] = &[b"row"];
        assert!(order(&job(&[shard; 21])).is_ok());
        assert_eq!(
            order(&job(&[shard; 22])),
            Err(ContractError::TooManyRuns {
                shards: 22,
                replicas: 1,
                stages: 3,
                max: 64
            })
        );
    }

    #[test]
    fn rows_ride_along_only_if_they_fit_and_the_one_that_never_could_is_named() {
        let large = vec![b'a'; 8_193];
        let half = vec![b'a'; 4_097];
        assert_eq!(
            order(&job(&[&[b"row"], &[b"row", &half, &large]])),
            Err(ContractError::RowTooLarge {
                shard: 1,
                row: 2,
                bytes: 8_193,
                max: 8_192
            })
        );
        assert_eq!(
            order(&job(&[&[&half, &half]])),
            Err(ContractError::ShardTooLarge {
                shard: 0,
                bytes: 8_194,
                max: 8_192
            })
        );
        assert!(order(&job(&[&[&large[1..]]])).is_ok());
        assert_eq!(
            order(&job(&[&[b"row"], &[]])),
            Err(ContractError::EmptyShard { shard: 1 })
        );
        let empty: &[u8] = b"";
        assert_eq!(
            order(&job(&[&vec![empty; 8_193]])),
            Err(ContractError::TooManyRows {
                shard: 0,
                rows: 8_193,
                max: 8_192
            })
        );
    }

    #[test]
    fn rows_of_an_embeddings_model_are_text() {
        let binary: &[&[u8]] = &[b"row", &[0xff, 0xfe]];
        assert_eq!(
            order(&job(&[binary])),
            Err(ContractError::RowNotText { shard: 0, row: 1 })
        );
        assert!(Order::of(&job(&[binary]), &offer(Task::Image, 1)).is_ok());
    }

    #[test]
    fn units_are_at_most_those_of_the_largest_shard() {
        let mut job = job(&[&[b"row"], &[b"row", b"row"]]);
        job.units_max = 512;
        assert!(order(&job).is_ok());
        for units_max in [0, 513] {
            job.units_max = units_max;
            assert_eq!(
                order(&job),
                Err(ContractError::UnitsOutOfBounds { units_max, max: 512 })
            );
        }
    }

    #[test]
    fn a_price_that_leaves_nothing_for_an_item_is_refused() {
        let mut job = job(&[&[b"row"], &[b"row"]]);
        for max_price in [0u128, 1] {
            job.max_price = max_price.into();
            let max_price = max_price.into();
            assert_eq!(order(&job), Err(ContractError::MaxPriceTooLow { max_price, items: 2 }));
        }
    }
}
