//! How the cumulative amount of vouchers is divided: a million settlements round like one.
//!
//! A voucher promises an amount A, at most the price P = F + R + G of what it counts. Of A the royalty is due `floor(A x R / P)`, the
//! gateway `floor(A x G / P)`, and compute the rest; of compute, protocol and burn have their floor parts and the provider the rest. All
//! of these are sums since the session was opened. A settlement pays what they are short of, royalty first, then gateway, then compute, and
//! out of compute protocol, then burn, then the provider.
//!
//! Whatever the counters say, and whether they rise or fall from one voucher to the next:
//! - Parts sum to what the amount adds, and nobody gets less than nothing. Only a higher amount is settled, so what is open is never
//!   negative; each part is at most what is open and lowers it; the provider has what is left. Royalty and gateway together never have more
//!   than the amount, for what they had was paid out of the amount before and what they get out of the difference: compute is never negative.
//! - Royalty and gateway never have more than the most that any of the settled vouchers owes them, and no more work is counted than the most that
//!   one of them counts.
//! - What somebody has, nobody takes back. Where two vouchers tell two different stories of the work, what the first gave too much to one is missing
//!   for the others, until higher amounts make it good.
//!
//! Proof that the order of payment does not matter where amounts are prices and counters grow, as they do with an honest client: with A = P
//! the sums due are R, G and F themselves, none of which falls when counters grow, so each is paid exactly and no step is cut short. A step
//! is cut short only where a voucher pays less than its price, where counters fall, or where so little is paid that protocol and burn both
//! want the same unit; what was short is made good by the next.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::Uint128;
use schema::price::{FeeBps, PriceOverflow, SpanPrice, Units};

/// Sums paid out of an allocation since it was opened.
#[cw_serde]
#[derive(Copy, Eq, Default)]
pub(crate) struct Taken {
    /// Of the last settled voucher: the sum of all parts.
    pub(crate) amount: Uint128,
    pub(crate) royalty: Uint128,
    pub(crate) gateway: Uint128,
    pub(crate) protocol: Uint128,
    pub(crate) burn: Uint128,
    /// Work that was paid for, as far as it was paid for.
    pub(crate) counted: Units,
}

/// What one settlement pays. The parts sum to the amount.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Payment {
    pub(crate) amount: Uint128,
    pub(crate) provider: Uint128,
    pub(crate) protocol: Uint128,
    pub(crate) burn: Uint128,
    pub(crate) royalty: Uint128,
    pub(crate) gateway: Uint128,
    /// Work that these parts pay for.
    pub(crate) counted: Units,
}

/// `floor(amount x part / whole)`, nothing of nothing.
fn share(amount: Uint128, part: Uint128, whole: Uint128) -> Result<Uint128, PriceOverflow> {
    if whole.is_zero() {
        return Ok(Uint128::zero());
    }
    amount.checked_multiply_ratio(part, whole).map_err(|_| PriceOverflow)
}

fn add(first: Uint128, second: Uint128) -> Result<Uint128, PriceOverflow> {
    first.checked_add(second).map_err(|_| PriceOverflow)
}

fn sub(whole: Uint128, part: Uint128) -> Result<Uint128, PriceOverflow> {
    whole.checked_sub(part).map_err(|_| PriceOverflow)
}

impl Taken {
    /// Pays up to `amount`, at least what was paid before and at most the price of `units`. These may be lower than before.
    pub(crate) fn pay(
        &mut self,
        amount: Uint128,
        units: Units,
        price: &SpanPrice,
        fees: FeeBps,
    ) -> Result<Payment, PriceOverflow> {
        let whole = price.total()?;
        let mut open = sub(amount, self.amount)?;
        let mut take = |due: Uint128, before: Uint128| {
            let part = due.saturating_sub(before).min(open);
            open = open.saturating_sub(part);
            part
        };
        let royalty = take(share(amount, price.royalty, whole)?, self.royalty);
        let gateway = take(share(amount, price.gateway, whole)?, self.gateway);
        let compute = sub(sub(amount, add(self.royalty, royalty)?)?, add(self.gateway, gateway)?)?;
        let due = fees.split(compute)?;
        // There is no audit pot yet and no audit fee: `check_params` sees to it. Were there one, the protocol would keep it.
        let protocol = take(add(due.protocol, due.audit)?, self.protocol);
        let burn = take(due.burn, self.burn);
        let counted = self.count(amount, units, whole)?;
        let payment = Payment {
            amount: sub(amount, self.amount)?,
            provider: open,
            protocol,
            burn,
            royalty,
            gateway,
            counted,
        };
        self.amount = amount;
        self.royalty = add(self.royalty, royalty)?;
        self.gateway = add(self.gateway, gateway)?;
        self.protocol = add(self.protocol, protocol)?;
        self.burn = add(self.burn, burn)?;
        Ok(payment)
    }

    /// Work is counted in the part in which it is paid: otherwise anybody could write any number into a model's record for nothing.
    fn count(&mut self, amount: Uint128, units: Units, whole: Uint128) -> Result<Units, PriceOverflow> {
        let part = |count: u64, before: u64| {
            let due = share(amount, count.into(), whole)?;
            let due = u64::try_from(due.u128()).map_err(|_| PriceOverflow)?;
            Ok(due.saturating_sub(before))
        };
        let counted = Units {
            requests: part(units.requests, self.counted.requests)?,
            units_in: part(units.units_in, self.counted.units_in)?,
            units_out: part(units.units_out, self.counted.units_out)?,
        };
        self.counted = Units {
            requests: self.counted.requests.saturating_add(counted.requests),
            units_in: self.counted.units_in.saturating_add(counted.units_in),
            units_out: self.counted.units_out.saturating_add(counted.units_out),
        };
        Ok(counted)
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "expected values are written as plain formulas"
)]
mod tests {
    use proptest::prelude::*;
    use schema::price::{Ask, RoyaltyRate};

    use super::*;

    #[derive(Debug, Clone)]
    struct Terms {
        ask: Ask,
        royalty: RoyaltyRate,
        gateway_bps: u16,
        share_bps: u16,
        fees: FeeBps,
    }

    impl Terms {
        fn price(&self, units: Units) -> SpanPrice {
            SpanPrice::of(&self.ask, &self.royalty, self.gateway_bps, self.share_bps, units).unwrap()
        }
    }

    fn terms() -> impl Strategy<Value = Terms> {
        let rates = (0..5_000_000u128, 0..5_000_000u128, 0..100_000u128, 0..1_000_000u128);
        let bps = (0..=10_000u16, 0..=2_000u16, 1..=10_000u16, 0..=1_000u16, 0..=1_000u16);
        (rates, bps).prop_map(|(rates, bps)| Terms {
            ask: Ask {
                per_1k_in: rates.0.into(),
                per_1k_out: rates.1.into(),
                per_request: rates.2.into(),
            },
            royalty: RoyaltyRate {
                royalty_bps: bps.0,
                royalty_per_1k_units: rates.3.into(),
            },
            gateway_bps: bps.1,
            share_bps: bps.2,
            fees: FeeBps {
                protocol_bps: bps.3,
                audit_bps: 0,
                burn_bps: bps.4,
            },
        })
    }

    /// Requests, units in and out, and the part of the price that is paid, in percent.
    fn history() -> impl Strategy<Value = Vec<(u64, u64, u64, u128)>> {
        prop::collection::vec((0..4u64, 0..3_000u64, 0..2_000u64, 0..=100u128), 1..12)
    }

    /// Counters of any kind, one after the other, and the part of the price that is paid, in percent.
    fn vouchers() -> impl Strategy<Value = Vec<(Units, u128)>> {
        let count = || prop_oneof![4 => 0..3_000u64, 1 => 0..=u64::from(u32::MAX)];
        let voucher = (count(), count(), count(), 0..=100u128);
        let voucher = voucher.prop_map(|(requests, units_in, units_out, percent)| {
            let units = Units {
                requests,
                units_in,
                units_out,
            };
            (units, percent)
        });
        prop::collection::vec(voucher, 1..12)
    }

    fn highest(one: Units, other: Units) -> Units {
        Units {
            requests: one.requests.max(other.requests),
            units_in: one.units_in.max(other.units_in),
            units_out: one.units_out.max(other.units_out),
        }
    }

    fn sum(payments: &[Payment]) -> Payment {
        payments.iter().fold(Payment::default(), |sum, payment| Payment {
            amount: sum.amount + payment.amount,
            provider: sum.provider + payment.provider,
            protocol: sum.protocol + payment.protocol,
            burn: sum.burn + payment.burn,
            royalty: sum.royalty + payment.royalty,
            gateway: sum.gateway + payment.gateway,
            counted: Units {
                requests: sum.counted.requests + payment.counted.requests,
                units_in: sum.counted.units_in + payment.counted.units_in,
                units_out: sum.counted.units_out + payment.counted.units_out,
            },
        })
    }

    fn parts(payment: &Payment) -> [u128; 5] {
        let Payment {
            provider,
            protocol,
            burn,
            royalty,
            gateway,
            ..
        } = payment;
        [provider, protocol, burn, royalty, gateway].map(|part| part.u128())
    }

    /// Counters of one settlement after the other.
    fn grown(history: &[(u64, u64, u64, u128)]) -> Vec<Units> {
        let mut units = Units::default();
        let grow = |(requests, units_in, units_out, _): &(u64, u64, u64, u128)| {
            units.requests += requests;
            units.units_in += units_in;
            units.units_out += units_out;
            units
        };
        history.iter().map(grow).collect()
    }

    proptest! {
        #[test]
        fn parts_of_every_settlement_sum_to_the_whole(terms in terms(), history in history()) {
            let mut taken = Taken::default();
            let mut amount = Uint128::zero();
            for (units, (.., percent)) in grown(&history).into_iter().zip(&history) {
                let price = terms.price(units);
                // Never less than before: a voucher does not fall.
                amount = amount.max(price.total().unwrap().multiply_ratio(*percent, 100u128));
                let before = taken;
                let payment = taken.pay(amount, units, &price, terms.fees).unwrap();
                prop_assert_eq!(parts(&payment).iter().sum::<u128>(), payment.amount.u128());
                prop_assert_eq!(payment.amount, amount - before.amount);
                prop_assert!(taken.counted.units_in <= units.units_in && taken.counted.requests <= units.requests);
            }
        }

        /// Wherever a history is cut into settlements, everybody has the same in the end.
        #[test]
        fn any_cut_of_a_history_pays_everybody_the_same(terms in terms(), history in history(), cuts in any::<u16>()) {
            let grown = grown(&history);
            let last = *grown.last().unwrap();
            let whole = {
                let price = terms.price(last);
                Taken::default().pay(price.total().unwrap(), last, &price, terms.fees).unwrap()
            };
            let mut taken = Taken::default();
            let mut payments = vec![];
            for (index, units) in grown.iter().enumerate() {
                if index + 1 < grown.len() && cuts & (1 << index) == 0 {
                    continue;
                }
                let price = terms.price(*units);
                payments.push(taken.pay(price.total().unwrap(), *units, &price, terms.fees).unwrap());
            }
            let sum = sum(&payments);
            prop_assert_eq!(sum.counted, last_if_paid(last, whole.amount));
            // So little that protocol and burn want the same unit: then the provider has it.
            let last_compute = payments.last().map_or(0, |last| (last.provider + last.protocol + last.burn).u128());
            if last_compute >= 2 {
                prop_assert_eq!(parts(&sum), parts(&whole));
            } else {
                prop_assert_eq!((sum.amount, sum.royalty, sum.gateway), (whole.amount, whole.royalty, whole.gateway));
                prop_assert!(whole.burn - sum.burn <= Uint128::one() && whole.protocol == sum.protocol);
            }
        }

        /// Whatever the session key signs, counters that fall and stories that contradict each other: nobody gets less than nothing, nobody
        /// more than there is, royalty and gateway no more than one of the vouchers owes them.
        #[test]
        fn parts_sum_to_the_whole_and_nobody_gives_anything_back_whatever_counters_say(
            terms in terms(), vouchers in vouchers(),
        ) {
            let mut taken = Taken::default();
            let (mut most_royalty, mut most_gateway) = (Uint128::zero(), Uint128::zero());
            let mut most_counted = Units::default();
            let mut provider = 0u128;
            for (units, percent) in vouchers {
                let price = terms.price(units);
                let whole = price.total().unwrap();
                let amount = whole.multiply_ratio(percent, 100u128);
                if amount <= taken.amount {
                    continue;
                }
                let before = taken;
                let payment = taken.pay(amount, units, &price, terms.fees).unwrap();
                prop_assert_eq!(parts(&payment).iter().sum::<u128>(), (amount - before.amount).u128());
                prop_assert_eq!((taken.amount, payment.amount), (amount, amount - before.amount));
                provider += payment.provider.u128();
                let others = taken.royalty + taken.gateway + taken.protocol + taken.burn;
                prop_assert_eq!(provider + others.u128(), amount.u128(), "all of it is somebody's");
                most_royalty = most_royalty.max(amount.multiply_ratio(price.royalty, whole));
                most_gateway = most_gateway.max(amount.multiply_ratio(price.gateway, whole));
                prop_assert!(taken.royalty <= most_royalty && taken.gateway <= most_gateway);
                most_counted = highest(most_counted, units);
                prop_assert_eq!(highest(most_counted, taken.counted), most_counted);
                prop_assert_eq!(highest(before.counted, taken.counted), taken.counted, "nothing is uncounted");
            }
        }

        /// Vouchers that pay less than they count: the last one in full makes everything good, but for dust.
        #[test]
        fn what_was_paid_late_is_made_good(terms in terms(), history in history()) {
            let mut taken = Taken::default();
            let (mut amount, mut payments) = (Uint128::zero(), vec![]);
            let grown = grown(&history);
            for (units, (.., percent)) in grown.iter().zip(&history) {
                let price = terms.price(*units);
                amount = amount.max(price.total().unwrap().multiply_ratio(*percent, 100u128));
                payments.push(taken.pay(amount, *units, &price, terms.fees).unwrap());
            }
            let last = *grown.last().unwrap();
            let price = terms.price(last);
            payments.push(taken.pay(price.total().unwrap(), last, &price, terms.fees).unwrap());
            let whole = Taken::default().pay(price.total().unwrap(), last, &price, terms.fees).unwrap();
            for (found, expected) in parts(&sum(&payments)).into_iter().zip(parts(&whole)) {
                prop_assert!(found.abs_diff(expected) <= 4, "{} for {}", found, expected);
            }
        }
    }

    /// What costs nothing is not counted.
    fn last_if_paid(last: Units, paid: Uint128) -> Units {
        if paid.is_zero() {
            Units::default()
        } else {
            last
        }
    }

    /// The price of "one may settle any voucher": who signs chooses the counters, and these divide the amount.
    #[test]
    fn what_one_story_gave_to_the_royalty_is_not_taken_back_for_another() {
        let terms = Terms {
            ask: Ask {
                per_1k_in: 0u128.into(),
                per_1k_out: 0u128.into(),
                per_request: 100u128.into(),
            },
            royalty: RoyaltyRate {
                royalty_bps: 0,
                royalty_per_1k_units: 10_000u128.into(),
            },
            gateway_bps: 0,
            share_bps: 10_000,
            fees: FeeBps::default(),
        };
        let story = |requests, units_in| Units {
            requests,
            units_in,
            units_out: 0,
        };
        // A hundred short rows, of which the royalty is a tenth part as much as the compute; against few that were as long as can be.
        let (honest, hostile) = (story(100, 100), story(3, 1_500));
        let price = terms.price(honest);
        assert_eq!((price.compute.u128(), price.royalty.u128()), (10_000, 1_000));
        let mut taken = Taken::default();
        let first = taken
            .pay(10_999u128.into(), hostile, &terms.price(hostile), terms.fees)
            .unwrap();
        assert_eq!((first.royalty.u128(), first.provider.u128()), (10_783, 216));
        let rest = taken.pay(11_000u128.into(), honest, &price, terms.fees).unwrap();
        assert_eq!(
            (rest.amount.u128(), rest.royalty.u128(), rest.provider.u128()),
            (1, 0, 1)
        );
        // What is paid from here on is the provider's until it has its part.
        let more = taken
            .pay(
                22_000u128.into(),
                story(200, 200),
                &terms.price(story(200, 200)),
                terms.fees,
            )
            .unwrap();
        assert_eq!((more.royalty.u128(), more.provider.u128()), (0, 11_000));
    }

    #[test]
    fn what_is_not_paid_is_not_counted() {
        let units = Units {
            requests: 1_000_000,
            units_in: u64::MAX / 2,
            units_out: 0,
        };
        let price = SpanPrice {
            compute: 1_000_000u128.into(),
            royalty: 0u128.into(),
            gateway: 0u128.into(),
        };
        let mut taken = Taken::default();
        let nothing = taken.pay(0u128.into(), units, &price, FeeBps::default()).unwrap();
        assert_eq!(nothing, Payment::default());
        let half = taken.pay(500_000u128.into(), units, &price, FeeBps::default()).unwrap();
        assert_eq!((half.counted.requests, half.counted.units_in), (500_000, u64::MAX / 4));
        let free = SpanPrice::default();
        let mut taken = Taken::default();
        let gift = taken.pay(0u128.into(), units, &free, FeeBps::default()).unwrap();
        assert_eq!(gift, Payment::default());
    }
}
