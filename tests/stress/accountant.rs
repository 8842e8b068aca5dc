//! Who must have what, computed once more from the chain's events and the formula of the documentation, and held against every book.
//!
//! The formula is written out here: nothing of `schema::price` is used.

use std::{collections::BTreeMap, time::Duration};

use client::{events, Account, Client};
use futures::StreamExt;
use schema::{
    escrow::{Holder, LedgerEntry, Reason},
    orchestrator::{ItemResponse, ItemStatus, JobResponse, JobStatus},
    price::Units,
    staking::Span,
    token, Event, ItemId, TOTAL_SUPPLY,
};

use crate::market::Market;

/// Parts of a compute fee in the local parameters, in hundredths of a per cent.
const PROTOCOL_BPS: u128 = 200;
const BURN_BPS: u128 = 100;
/// Whoever expires a miss has one part in so many of the penalty.
const KEEPER: u128 = 10;
/// Longest wait for a block that is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// A transaction with events of ours.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) events: Vec<Event>,
}

/// Everything that the contracts ever announced, in order.
pub(crate) async fn chronicle(client: &Client) -> Vec<Transaction> {
    let until = client.status().await.unwrap().height;
    let mut blocks = events::follow(client.clone(), client.contracts().addresses(), 1);
    let mut transactions = vec![];
    loop {
        let block = tokio::time::timeout(PATIENCE, blocks.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        transactions.extend(block.txs.into_iter().map(|tx| Transaction {
            events: tx.events.into_iter().map(|emitted| emitted.event).collect(),
        }));
        if block.height >= until {
            return transactions;
        }
    }
}

/// What the books are about.
pub(crate) struct Books {
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) jobs: Vec<JobResponse>,
    pub(crate) items: Vec<ItemResponse>,
}

/// What one span of a settled item costs, by its takers.
struct Bill {
    provider: u128,
    protocol: u128,
    burnt: u128,
    royalty: u128,
}

fn bill(span: &Span, job: &JobResponse, units: Units) -> Bill {
    let (asks, royalty) = (&span.ask, &job.royalty);
    let (units_in, units_out) = (u128::from(units.units_in), u128::from(units.units_out));
    let rated = asks.per_1k_in.u128() * units_in + asks.per_1k_out.u128() * units_out;
    let compute = rated.div_ceil(1_000) + asks.per_request.u128() * u128::from(units.requests);
    let fixed = royalty.royalty_per_1k_units.u128() * (units_in + units_out) * u128::from(span.compute_share_bps);
    let (protocol, burnt) = (compute * PROTOCOL_BPS / 10_000, compute * BURN_BPS / 10_000);
    Bill {
        provider: compute - protocol - burnt,
        protocol,
        burnt,
        royalty: compute * u128::from(royalty.royalty_bps) / 10_000 + fixed.div_ceil(10_000_000),
    }
}

impl Books {
    /// Reads everything; the jobs are all that there ever were.
    pub(crate) async fn read(client: &Client) -> Self {
        let transactions = chronicle(client).await;
        let submitted = transactions
            .iter()
            .flat_map(|tx| &tx.events)
            .filter_map(|event| match event {
                Event::JobSubmitted { job, .. } => Some(*job),
                _ => None,
            });
        let (mut jobs, mut items) = (vec![], vec![]);
        for job in submitted {
            jobs.push(client.orchestrator().job(job).await.unwrap());
            items.extend(client.orchestrator().all_items(job).await.unwrap());
        }
        Self {
            transactions,
            jobs,
            items,
        }
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.transactions.iter().flat_map(|tx| &tx.events)
    }

    /// Recomputes every amount. `deposits` are all accounts that have put money into the escrow, with how much.
    pub(crate) async fn check(&self, market: &Market, deposits: &[(Account, u128)]) {
        let mut expected: BTreeMap<String, i128> = BTreeMap::new();
        let mut add = |holder: &str, amount: u128| {
            *expected.entry(holder.to_owned()).or_default() += i128::try_from(amount).unwrap();
        };
        let treasury = market.client.escrow().config().await.unwrap().treasury;
        let (mut burnt, mut spent) = (0, BTreeMap::<&str, u128>::new());
        let settled = self.settled();
        for job in &self.jobs {
            let mut paid_for_job = 0;
            for item in self.items.iter().filter(|item| item.item.job == job.job) {
                let ItemStatus::Settled { result, paid } = &item.status else {
                    assert_eq!(settled.get(&item.item), None, "{:?}", item.status);
                    continue;
                };
                let mut total = 0;
                for span in &item.spans {
                    let bill = bill(span, job, result.units);
                    add(&span.provider, bill.provider);
                    add(&treasury, bill.protocol);
                    add(market.creator.address(), bill.royalty);
                    burnt += bill.burnt;
                    total += bill.provider + bill.protocol + bill.burnt + bill.royalty;
                }
                assert_eq!(
                    (paid.u128(), settled.get(&item.item)),
                    (total, Some(&total)),
                    "{}",
                    item.item
                );
                paid_for_job += total;
            }
            assert_eq!(job.paid.u128(), paid_for_job, "job {}", job.job);
            assert!(paid_for_job <= job.held.u128());
            assert_ne!(job.status, JobStatus::Running, "job {}", job.job);
            *spent.entry(&job.developer).or_default() += paid_for_job;
        }
        let penalties = self.penalties();
        for (developer, deposit) in deposits {
            let compensation: u128 = penalties
                .iter()
                .filter(|(_, beneficiary, _)| beneficiary == developer.address())
                .map(|(_, _, amount)| amount - amount / KEEPER)
                .sum();
            add(
                developer.address(),
                deposit + compensation - spent.remove(developer.address()).unwrap_or(0),
            );
        }
        assert!(spent.is_empty(), "nobody else has ordered: {spent:?}");
        let keepers = self.keepers();
        let owed: u128 = penalties.iter().map(|(_, _, amount)| amount / KEEPER).sum();
        assert_eq!(keepers.iter().map(|(_, fee)| fee).sum::<u128>(), owed);
        for (keeper, fee) in &keepers {
            add(keeper, *fee);
        }
        self.check_escrow(market, expected).await;
        self.check_staking(market, &penalties).await;
        let fees: u128 = self.events().map(fee).sum();
        let answer: cw20::TokenInfoResponse = market.client.token().ask(&token::QueryMsg::TokenInfo {}).await.unwrap();
        assert_eq!(answer.total_supply.u128(), TOTAL_SUPPLY - burnt - fees);
    }

    /// What was paid for each item. Nothing is settled twice.
    fn settled(&self) -> BTreeMap<ItemId, u128> {
        let mut settled = BTreeMap::new();
        for event in self.events() {
            if let Event::Settled { item, paid, .. } = event {
                assert_eq!(settled.insert(*item, paid.u128()), None, "{item} was settled twice");
            }
        }
        settled
    }

    /// Who has expired misses, and for how much.
    fn keepers(&self) -> Vec<(String, u128)> {
        let fee = |event: &Event| match event {
            Event::Credited {
                holder: Holder::Address(keeper),
                reason: Reason::Keeper,
                amount,
                ..
            } => Some((keeper.clone(), amount.u128())),
            _ => None,
        };
        self.events().filter_map(fee).collect()
    }

    /// Provider, beneficiary, amount.
    fn penalties(&self) -> Vec<(String, String, u128)> {
        let penalty = |event: &Event| match event {
            Event::BondPenalised {
                provider,
                beneficiary,
                amount,
                ..
            } => Some((provider.clone(), beneficiary.clone(), amount.u128())),
            _ => None,
        };
        self.events().filter_map(penalty).collect()
    }

    /// The ledger is exactly what is expected, holder by holder, and the escrow has it.
    async fn check_escrow(&self, market: &Market, mut expected: BTreeMap<String, i128>) {
        let client = &market.client;
        let ledger = client.escrow().all_ledger().await.unwrap();
        let mut sum = 0;
        for LedgerEntry {
            holder,
            available,
            held,
        } in &ledger
        {
            let has = i128::try_from(available.u128()).unwrap();
            assert_eq!(
                (has, held.u128()),
                (expected.remove(holder).unwrap_or(0), 0),
                "{holder}"
            );
            sum += available.u128();
        }
        assert!(
            expected.values().all(|amount| *amount == 0),
            "not in the ledger: {expected:?}"
        );
        let escrow = &client.contracts().royalty_escrow;
        assert_eq!(client.token().balance(escrow).await.unwrap(), sum);
    }

    /// Bonds are what was put in less penalties, and no slot is busy.
    async fn check_staking(&self, market: &Market, penalties: &[(String, String, u128)]) {
        let client = &market.client;
        let bonded = |provider: &str| -> u128 {
            let amounts = self.events().filter_map(|event| match event {
                Event::Bonded {
                    provider: by, amount, ..
                } if by == provider => Some(amount.u128()),
                _ => None,
            });
            amounts.sum()
        };
        let mut sum = 0;
        for provider in client.staking().all_providers().await.unwrap() {
            let paid: u128 = penalties
                .iter()
                .filter(|(by, ..)| *by == provider.provider)
                .map(|(_, _, amount)| amount)
                .sum();
            assert_eq!(provider.bond.u128(), bonded(&provider.provider) - paid);
            assert_eq!(provider.penalties.u128(), paid);
            sum += provider.bond.u128();
        }
        let staking = &client.contracts().provider_staking;
        assert_eq!(client.token().balance(staking).await.unwrap(), sum);
        for deployment in client.staking().all_deployments(None).await.unwrap() {
            assert_eq!(deployment.busy, 0, "deployment {}", deployment.deployment);
        }
    }
}

/// What left the world with this event, other than by a settlement.
fn fee(event: &Event) -> u128 {
    match event {
        Event::NamespaceClaimed { burnt, .. } | Event::DeploymentListed { burnt, .. } => burnt.u128(),
        _ => 0,
    }
}
