//! Everything goes well: a published model, six providers, 64 rows, and every ufunc accounted for.

use std::collections::BTreeMap;

use fxn_tests::{found, Protocol, Serving, Work, DEVELOPER, FUNC, MODEL, PARENT, PROVIDERS};
use schema::{
    escrow::{self, Holder, Reason},
    orchestrator::{ItemStatus, JobStatus, ShardStatus},
    price::{part, SpanPrice, Units},
    registry::{self, ModelResponse},
    Event, ItemId,
};

const ROWS: u64 = 16;
const UNITS_IN: u64 = 733;

/// What the formula of the documentation says about one item, computed here once more.
#[derive(Default)]
struct Expected {
    providers: BTreeMap<String, u128>,
    paid: u128,
    protocol: u128,
    burnt: u128,
    royalty: u128,
}

fn expected(protocol: &Protocol, item: ItemId) -> Expected {
    let job = protocol.job(item.job);
    let mut expected = Expected::default();
    for span in protocol.item(item).spans {
        let units = Units {
            requests: ROWS,
            units_in: UNITS_IN,
            units_out: 0,
        };
        let price = SpanPrice::of(&span.ask, &job.royalty, 0, span.compute_share_bps, units).unwrap();
        let compute = price.compute.u128();
        let (protocol, burn) = (compute * 200 / 10_000, compute * 100 / 10_000);
        *expected.providers.entry(span.provider).or_default() += compute - protocol - burn;
        expected.protocol += protocol;
        expected.burnt += burn;
        expected.royalty += price.royalty.u128();
        expected.paid += compute + price.royalty.u128();
    }
    expected
}

/// Providers: ask x units, less protocol and burn.
fn assert_providers_have_what_they_asked(protocol: &Protocol, all: &[Expected]) {
    let mut earned: BTreeMap<String, u128> = BTreeMap::new();
    for item in all {
        for (provider, amount) in &item.providers {
            *earned.entry(provider.clone()).or_default() += amount;
        }
    }
    for name in PROVIDERS {
        let address = protocol.addr(name);
        let amount = earned.get(address.as_str()).copied().unwrap_or(0);
        assert_eq!(protocol.earned(&address, Reason::Compute), amount, "{name}");
    }
}

#[test]
fn four_shards_of_two_replicas_are_run_paid_and_split_to_the_last_ufunc() {
    let mut protocol = Protocol::with_market();
    let supply = protocol.supply();
    let job = protocol.starts(Protocol::order(4, 16, 2));
    assert_eq!(protocol.money(DEVELOPER), (92 * FUNC, 8 * FUNC));
    assert_eq!(protocol.busy_slots(), 4 * 2 * 3);

    let items = protocol.items(job);
    assert_eq!(items.len(), 8);
    let all: Vec<Expected> = items.iter().map(|item| expected(&protocol, item.item)).collect();
    let events = protocol.proves_all(job, Work::honest(UNITS_IN));
    protocol.assert_conserved();

    assert_providers_have_what_they_asked(&protocol, &all);
    let sum = |of: fn(&Expected) -> u128| all.iter().map(of).sum::<u128>();
    let (paid, burnt) = (sum(|item| item.paid), sum(|item| item.burnt));
    assert_eq!(protocol.money("treasury"), (sum(|item| item.protocol), 0));
    assert_eq!(protocol.supply(), supply - burnt);

    // Royalty: a quarter to the parent, the rest by the rule, dust to the first recipient.
    let lineage: u128 = all.iter().map(|item| item.royalty * 2_500 / 10_000).sum();
    let chloe: u128 = all
        .iter()
        .map(|item| (item.royalty - item.royalty * 2_500 / 10_000) * 3_333 / 10_000)
        .sum();
    let clara = sum(|item| item.royalty) - lineage - chloe;
    assert!(lineage > 0 && chloe > 0);
    assert_eq!(protocol.money_of(&format!("model:{PARENT}")), (lineage, 0));
    assert_eq!(protocol.money("chloe"), (chloe, 0));
    assert_eq!(protocol.money("clara"), (clara, 0));

    // The rest of the hold is back, slots are free, and the job says so.
    assert_eq!(protocol.money(DEVELOPER), (100 * FUNC - paid, 0));
    assert_eq!(protocol.busy_slots(), 0);
    let ended = protocol.job(job);
    assert_eq!((ended.status, ended.paid.u128()), (JobStatus::Completed, paid));
    assert!(ended.shards.iter().all(|shard| shard.status == ShardStatus::Done));
    assert!(events.contains(&Event::JobEnded {
        job,
        developer: protocol.addr(DEVELOPER).into_string(),
        status: "completed".into(),
        paid: paid.into(),
        refunded: (8 * FUNC - paid).into(),
    }));
    for (item, expected) in items.iter().zip(&all) {
        assert!(matches!(
            protocol.item(item.item).status,
            ItemStatus::Settled { paid, .. } if paid.u128() == expected.paid
        ));
    }
    let usage = protocol.ask::<ModelResponse>(
        &protocol.contracts.model_registry,
        &registry::QueryMsg::Model {
            model: MODEL.parse().unwrap(),
        },
    );
    assert_eq!(usage.usage.paid.u128(), paid);
    assert_eq!(usage.usage.sunk.u128(), sum(|item| item.protocol) + burnt);
    assert_eq!(usage.usage.units.units_in, 8 * UNITS_IN);

    // The parent passes on what it has earned, by its own rule.
    let distribute = escrow::ExecuteMsg::DistributeRoyalties {
        model: PARENT.parse().unwrap(),
    };
    protocol.escrow("stranger", &distribute).unwrap();
    let petra = lineage * 4_000 / 10_000;
    assert_eq!(protocol.money("petra"), (petra, 0));
    assert_eq!(protocol.money("pavel"), (lineage - petra, 0));
    protocol.assert_conserved();
}

#[test]
fn royalties_are_credited_in_the_transaction_that_settles() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(1, 2, 1));
    let events = protocol.proves_all(job, Work::honest(100));
    let item = ItemId {
        job,
        shard: 0,
        replica: 0,
    };
    let credits = found(&events, |event| match event {
        Event::Credited {
            holder,
            reason,
            amount,
            item: Some(of),
            ..
        } if *of == item => Some((holder.clone(), *reason, amount.u128())),
        _ => None,
    });
    let settled = found(&events, |event| match event {
        Event::Settled { paid, burnt, .. } => Some((paid.u128(), burnt.u128())),
        _ => None,
    });
    let sum: u128 = credits.iter().map(|(_, _, amount)| amount).sum();
    let [(paid, burnt)] = settled[..] else {
        panic!("one settlement, found {settled:?}")
    };
    assert_eq!(sum + burnt, paid);
    let has = |holder: Holder, reason| credits.iter().any(|(to, why, _)| *to == holder && *why == reason);
    assert!(has(Holder::Model(PARENT.parse().unwrap()), Reason::Lineage));
    assert!(has(Holder::Address(protocol.addr("clara").into()), Reason::Royalty));
    assert!(has(Holder::Address(protocol.addr("chloe").into()), Reason::Royalty));
    assert!(has(Holder::Address(protocol.addr("treasury").into()), Reason::Protocol));
}

#[test]
fn a_gateway_has_its_part_on_top_of_the_compute_fee() {
    let mut protocol = Protocol::with_market();
    let mut order = Protocol::order(1, 2, 1);
    order.gateway = Some(escrow::Gateway {
        address: protocol.addr("gateway").into_string(),
        bps: 1_500,
    });
    let job = protocol.starts(order);
    let spans = protocol.items(job)[0].spans.clone();
    protocol.proves_all(job, Work::honest(100));
    let units = Units {
        requests: 2,
        units_in: 100,
        units_out: 0,
    };
    let gateway: u128 = spans
        .iter()
        .map(|span| part(span.ask.compute_fee(units).unwrap(), 1_500).unwrap().u128())
        .sum();
    assert!(gateway > 0);
    assert_eq!(protocol.money("gateway"), (gateway, 0));
    protocol.assert_conserved();
}

#[test]
fn one_provider_may_hold_a_whole_chain_and_no_owner_holds_two_replicas_of_a_shard() {
    let mut protocol = Protocol::with_market();
    let whole = Serving {
        per_1k_in: 10,
        ..Serving::stages(0, 2)
    };
    protocol.provides("wanda", &whole);
    let job = protocol.starts(Protocol::order(4, 4, 2));
    for pair in protocol.items(job).chunks(2) {
        let owners = |index: usize| pair[index].spans.iter().map(|span| span.provider.clone());
        assert!(owners(0).all(|owner| owners(1).all(|other| other != owner)));
    }
    protocol.proves_all(job, Work::honest(100));
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
    protocol.assert_conserved();
}

#[test]
fn a_price_change_never_touches_work_that_is_open() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(1, 4, 1));
    let item = protocol.items(job)[0].item;
    let before = {
        let spans = protocol.item(item).spans;
        let units = Units {
            requests: 4,
            units_in: 100,
            units_out: 0,
        };
        let royalty = protocol.job(job).royalty;
        let price = |share, ask| SpanPrice::of(ask, &royalty, 0, share, units).unwrap().total().unwrap();
        spans
            .iter()
            .map(|span| price(span.compute_share_bps, &span.ask).u128())
            .sum::<u128>()
    };
    let dearer = registry::ExecuteMsg::SetEndpoint {
        model: MODEL.parse().unwrap(),
        endpoint: "embeddings".into(),
        terms: registry::EndpointTerms {
            unit: registry::Unit::Token,
            royalty: schema::price::RoyaltyRate {
                royalty_bps: 10_000,
                royalty_per_1k_units: FUNC.into(),
            },
        },
    };
    protocol.registry("clara", &dearer).unwrap();
    let pause = registry::ExecuteMsg::SetStatus {
        model: MODEL.parse().unwrap(),
        status: registry::ModelStatus::Paused,
    };
    protocol.registry("clara", &pause).unwrap();
    protocol.proves_all(job, Work::honest(100));
    assert_eq!(protocol.job(job).paid.u128(), before);
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
}
