//! Vouchers become money: what the host holds goes on chain on a schedule, many sessions in one transaction.
//!
//! Guarantees:
//! - A voucher is settled when it is urgent (its session ends, or the client waits to leave), when it is worth the gas, or when it has waited long
//!   enough; and not otherwise.
//! - Nothing is written down here: the host has every voucher on its disk, and the chain pays each once. A relayer that comes back asks the host
//!   again, looks at the chain before it pays for gas, and tells the host what became of it.
//! - What the contract refuses is not paid for twice.
//! - A host that is away is asked again and again, and nothing else waits for it.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use schema::{
    escrow::VoucherRefusal,
    work::{HeldVoucher, SettlementNews, VoucherNews},
};
use tokio::sync::watch;

use crate::{
    chain::Moment,
    crash::{self, Point},
    host::Host,
    queue::{Queue, Request, Verdict},
    RelayerError,
};

/// Vouchers of one round: two full messages.
const ROUND: usize = 64;

/// When vouchers are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// How often the host is asked.
    pub interval: Duration,
    /// How long, by block time, a voucher waits for more.
    pub after: Duration,
    /// Ufunc that are worth a transaction.
    pub worth: u64,
}

impl Schedule {
    /// Whether a voucher is settled now.
    pub fn is_due(&self, held: &HeldVoucher, now_seconds: u64) -> bool {
        let waited = now_seconds.saturating_sub(held.since);
        held.urgent || held.worth.u128() >= u128::from(self.worth) || waited >= self.after.as_secs()
    }
}

/// Settles what the host holds.
#[derive(Debug)]
pub struct Settler {
    pub host: Host,
    pub queue: Queue,
    /// The chain's time.
    pub clock: watch::Receiver<Moment>,
    pub schedule: Schedule,
}

impl Settler {
    /// Asks and settles for as long as there is a chain.
    pub async fn run(self) -> Result<(), RelayerError> {
        // By session and deployment, the sequence that the contract has refused. Bounded by what the host holds.
        let mut refused: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        loop {
            tokio::time::sleep(self.schedule.interval).await;
            let held = match self.host.vouchers().await {
                Ok(held) => held.vouchers,
                Err(error) => {
                    tracing::debug!(%error, "the host does not say which vouchers it holds");
                    continue;
                }
            };
            refused.retain(|key, sequence| {
                held.iter()
                    .any(|held| (key_of(held), sequence_of(held)) == (*key, *sequence))
            });
            let now = self.clock.borrow().seconds;
            let is_due = |held: &&HeldVoucher| {
                self.schedule.is_due(held, now) && refused.get(&key_of(held)) != Some(&sequence_of(held))
            };
            let due: Vec<HeldVoucher> = held.iter().filter(is_due).take(ROUND).copied().collect();
            if due.is_empty() {
                continue;
            }
            crash::pass(Point::VouchersDue);
            let news = self.settle(&due).await;
            for (held, news) in due.iter().zip(&news) {
                if news.is_some_and(|news| news.refusal.is_some()) {
                    refused.insert(key_of(held), sequence_of(held));
                }
            }
            self.tell(news.into_iter().flatten().collect()).await;
        }
    }

    /// What became of each. None: nobody knows yet.
    async fn settle(&self, due: &[HeldVoucher]) -> Vec<Option<VoucherNews>> {
        let requests = due.iter().map(|held| self.queue.submit(Request::Settle(held.voucher)));
        let verdicts = join_all(requests).await;
        let news = |(held, verdict): (&HeldVoucher, Verdict)| {
            let voucher = held.voucher.voucher;
            let refusal = match verdict {
                Verdict::Done => None,
                Verdict::Refused(reason) => Some(reason.parse().unwrap_or(VoucherRefusal::Unknown)),
                Verdict::Failed(reason) => {
                    let (session, deployment) = (voucher.session, voucher.deployment);
                    tracing::warn!(session, deployment, %reason, "a voucher is not settled yet");
                    return None;
                }
            };
            Some(VoucherNews {
                session: voucher.session,
                deployment: voucher.deployment,
                sequence: voucher.sequence,
                refusal,
            })
        };
        due.iter().zip(verdicts).map(news).collect()
    }

    async fn tell(&self, vouchers: Vec<VoucherNews>) {
        if vouchers.is_empty() {
            return;
        }
        crash::pass(Point::VouchersSettled);
        match self.host.settled(&SettlementNews { vouchers }).await {
            Ok(()) => crash::pass(Point::HostHeard),
            // It looks at the chain by itself; and as long as it has not, it is told again.
            Err(error) => tracing::debug!(%error, "the host does not hear what was settled"),
        }
    }
}

fn key_of(held: &HeldVoucher) -> (u64, u64) {
    let voucher = held.voucher.voucher;
    (voucher.session, voucher.deployment)
}

fn sequence_of(held: &HeldVoucher) -> u64 {
    held.voucher.voucher.sequence
}

#[cfg(test)]
mod tests {
    use schema::{
        session::{SignedVoucher, Voucher},
        Signature,
    };

    use super::*;

    #[test]
    fn a_voucher_is_due_when_it_is_urgent_or_worth_it_or_old_enough() {
        let schedule = Schedule {
            interval: Duration::from_secs(1),
            after: Duration::from_secs(60),
            worth: 1_000,
        };
        let held = |worth: u128, since, urgent| HeldVoucher {
            voucher: SignedVoucher {
                voucher: Voucher {
                    session: 1,
                    deployment: 1,
                    sequence: 1,
                    requests: 1,
                    units_in: 1,
                    units_out: 0,
                    amount: worth.into(),
                },
                signature: Signature([0; 64]),
            },
            worth: worth.into(),
            since,
            urgent,
            closes_at: 9_999,
        };
        for (held, expected) in [
            (held(999, 100, false), false),
            (held(1_000, 100, false), true),
            (held(1, 41, false), false),
            (held(1, 40, false), true),
            (held(1, 100, true), true),
            // A clock that went back is no reason.
            (held(1, 500, false), false),
        ] {
            assert_eq!(schedule.is_due(&held, 100), expected, "{held:?}");
        }
    }
}
