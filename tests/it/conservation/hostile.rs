//! Mallory tries everything that only siblings, admins and owners may do.

use cosmwasm_std::Uint128;
use fxn_tests::{Outcome, Protocol, Serving, FUNC, PARENT};
use schema::{escrow, price::Units, registry, staking, ItemId};

/// The `nth` attack, on a job and its money.
pub(crate) fn attack(protocol: &mut Protocol, job: u64, nth: usize) -> Outcome {
    let item = ItemId {
        job,
        shard: 0,
        replica: 0,
    };
    match nth % 11 {
        0..=4 => on_escrow(protocol, item, nth % 11),
        5..=7 => on_staking(protocol, item, nth % 11),
        _ => on_registry_and_token(protocol, item, nth % 11),
    }
}

fn on_escrow(protocol: &mut Protocol, item: ItemId, nth: usize) -> Outcome {
    let msg = match nth {
        0 => escrow::ExecuteMsg::Settle {
            settlements: vec![settlement(protocol, item)],
        },
        1 => escrow::ExecuteMsg::Release { job: item.job },
        2 => escrow::ExecuteMsg::Withdraw {
            amount: Some(Uint128::new(FUNC)),
        },
        3 => escrow::ExecuteMsg::DistributeUnder {
            model: PARENT.parse().unwrap(),
            payout: all_to_mallory(protocol),
            parents: vec![],
        },
        _ => escrow::ExecuteMsg::UpdateParams {
            params: protocol.params.escrow.clone(),
        },
    };
    protocol.escrow("mallory", &msg)
}

fn on_staking(protocol: &mut Protocol, item: ItemId, nth: usize) -> Outcome {
    let deployments = vec![1];
    let msg = match nth {
        5 => {
            let penalty = Some(staking::Penalty {
                deployment: 1,
                price: FUNC.into(),
                beneficiary: protocol.addr("mallory").into_string(),
            });
            let vacancy = staking::Vacancy {
                item,
                deployments,
                penalty,
            };
            staking::ExecuteMsg::Vacate { items: vec![vacancy] }
        }
        6 => staking::ExecuteMsg::Occupy {
            items: vec![staking::Occupation { item, deployments }],
        },
        _ => staking::ExecuteMsg::Unbond { amount: FUNC.into() },
    };
    protocol.staking("mallory", &msg)
}

fn on_registry_and_token(protocol: &mut Protocol, item: ItemId, nth: usize) -> Outcome {
    let model = PARENT.parse().unwrap();
    match nth {
        8 => {
            let payout = all_to_mallory(protocol);
            protocol.registry("mallory", &registry::ExecuteMsg::SetPayout { model, payout })
        }
        9 => {
            let usage = registry::Usage {
                model,
                units: Units::default(),
                paid: FUNC.into(),
                sunk: FUNC.into(),
            };
            protocol.registry("mallory", &registry::ExecuteMsg::Record { usages: vec![usage] })
        }
        _ => {
            let penalty = escrow::ReceiveMsg::Penalty {
                beneficiary: protocol.addr("mallory").into_string(),
                item,
            };
            protocol.fund("mallory", FUNC);
            let escrow = protocol.contracts.royalty_escrow.clone();
            protocol.send("mallory", &escrow, FUNC, &penalty)
        }
    }
}

fn settlement(protocol: &Protocol, item: ItemId) -> escrow::Settlement {
    let span = escrow::SettledSpan {
        provider: protocol.addr("mallory").into_string(),
        deployment: 1,
        compute_share_bps: 10_000,
        ask: Serving::stages(0, 2).ask(),
    };
    escrow::Settlement {
        item,
        units: Units {
            requests: 1,
            units_in: 1,
            units_out: 0,
        },
        spans: vec![span],
    }
}

fn all_to_mallory(protocol: &Protocol) -> Vec<registry::Share> {
    protocol.shares(&[("mallory".to_owned(), 10_000)])
}
