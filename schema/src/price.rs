//! What work costs and who gets which part of it: one pure function for quotes, holds, draws and settlement.
//!
//! Price of a span = F + R + G:
//! - F, the compute fee, `ceil((per_1k_in x units_in + per_1k_out x units_out) / 1000) + per_request x requests`
//! - R, the creator's royalty, `floor(F x royalty_bps / 10^4) + ceil(per_1k_units x units x compute_share_bps / 10^7)`; the second
//!   part is spread over the spans by their share of the compute, so a fixed royalty is charged once over a whole chain
//! - G, the gateway's fee, `floor(F x gateway_bps / 10^4)`
//!
//! The protocol, audit and burn parts come out of F, rounded down each; the provider has the rest, dust included.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::Uint128;
use thiserror::Error;

use crate::TOTAL_SUPPLY;

/// Highest price component, in ufunc: more than all FUNC can never be paid.
pub const RATE_MAX: u128 = TOTAL_SUPPLY;
/// Highest sum of protocol, audit and burn parts.
pub const FEE_BPS_MAX: u16 = 2_000;
/// Highest royalty on the compute fee: as much again as the compute itself.
pub const ROYALTY_BPS_MAX: u16 = 10_000;
/// Highest gateway fee on the compute fee.
pub const GATEWAY_BPS_MAX: u16 = 2_000;

/// What a provider asks for its stages, in ufunc.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct Ask {
    /// For 1000 units read (tokens after truncation, special tokens included).
    pub per_1k_in: Uint128,
    /// For 1000 units generated.
    pub per_1k_out: Uint128,
    /// For each row.
    pub per_request: Uint128,
}

/// What a creator asks for each use of an endpoint.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct RoyaltyRate {
    /// Part of the compute fee, paid on top of it. At most 10000.
    pub royalty_bps: u16,
    /// Ufunc for 1000 units of the whole chain, paid on top.
    pub royalty_per_1k_units: Uint128,
}

/// Counted work.
#[cw_serde]
#[derive(Copy, Eq, Default)]
pub struct Units {
    /// Rows.
    pub requests: u64,
    pub units_in: u64,
    pub units_out: u64,
}

/// Parts of the compute fee that do not go to the provider. The sum is at most 2000.
#[cw_serde]
#[derive(Copy, Eq, Default)]
pub struct FeeBps {
    pub protocol_bps: u16,
    /// Zero until the audit court exists.
    pub audit_bps: u16,
    pub burn_bps: u16,
}

/// Price of one span by its parts, in ufunc.
#[cw_serde]
#[derive(Copy, Eq, Default)]
pub struct SpanPrice {
    pub compute: Uint128,
    pub royalty: Uint128,
    pub gateway: Uint128,
}

/// A compute fee by its takers, in ufunc. The four sum to the fee.
#[cw_serde]
#[derive(Copy, Eq, Default)]
pub struct ComputeSplit {
    pub provider: Uint128,
    pub protocol: Uint128,
    pub audit: Uint128,
    pub burn: Uint128,
}

/// Numbers beyond what all FUNC could ever pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the price exceeds what can be counted")]
pub struct PriceOverflow;

impl Units {
    pub fn total(&self) -> Result<u64, PriceOverflow> {
        self.units_in.checked_add(self.units_out).ok_or(PriceOverflow)
    }
}

impl Ask {
    /// F of the module documentation.
    pub fn compute_fee(&self, units: Units) -> Result<Uint128, PriceOverflow> {
        let rated = product(self.per_1k_in, units.units_in)?
            .checked_add(product(self.per_1k_out, units.units_out)?)
            .ok_or(PriceOverflow)?
            .div_ceil(1000);
        let fixed = product(self.per_request, units.requests)?;
        rated.checked_add(fixed).map(Uint128::new).ok_or(PriceOverflow)
    }

    /// True if every component is at most [`RATE_MAX`].
    pub fn is_bounded(&self) -> bool {
        [self.per_1k_in, self.per_1k_out, self.per_request]
            .iter()
            .all(|rate| rate.u128() <= RATE_MAX)
    }
}

impl RoyaltyRate {
    /// R of the module documentation.
    pub fn royalty(&self, compute: Uint128, units: Units, compute_share_bps: u16) -> Result<Uint128, PriceOverflow> {
        let fixed = product(self.royalty_per_1k_units, units.total()?)?
            .checked_mul(compute_share_bps.into())
            .ok_or(PriceOverflow)?
            .div_ceil(10_000_000);
        part(compute, self.royalty_bps)?
            .checked_add(Uint128::new(fixed))
            .map_err(|_| PriceOverflow)
    }

    /// True if both components are inside their bounds.
    pub fn is_bounded(&self) -> bool {
        self.royalty_bps <= ROYALTY_BPS_MAX && self.royalty_per_1k_units.u128() <= RATE_MAX
    }
}

impl FeeBps {
    /// Divides a compute fee among its takers.
    pub fn split(&self, compute: Uint128) -> Result<ComputeSplit, PriceOverflow> {
        let protocol = part(compute, self.protocol_bps)?;
        let audit = part(compute, self.audit_bps)?;
        let burn = part(compute, self.burn_bps)?;
        let taken = protocol
            .checked_add(audit)
            .and_then(|sum| sum.checked_add(burn))
            .map_err(|_| PriceOverflow)?;
        let provider = compute.checked_sub(taken).map_err(|_| PriceOverflow)?;
        Ok(ComputeSplit {
            provider,
            protocol,
            audit,
            burn,
        })
    }

    /// True if the sum is at most [`FEE_BPS_MAX`].
    pub fn is_bounded(&self) -> bool {
        let sum = u32::from(self.protocol_bps)
            .saturating_add(self.audit_bps.into())
            .saturating_add(self.burn_bps.into());
        sum <= FEE_BPS_MAX.into()
    }
}

impl SpanPrice {
    /// Price of `units` for a span that does `compute_share_bps` of the model's work.
    pub fn of(
        ask: &Ask,
        royalty: &RoyaltyRate,
        gateway_bps: u16,
        compute_share_bps: u16,
        units: Units,
    ) -> Result<Self, PriceOverflow> {
        let compute = ask.compute_fee(units)?;
        let royalty = royalty.royalty(compute, units, compute_share_bps)?;
        Ok(Self {
            compute,
            royalty,
            gateway: part(compute, gateway_bps)?,
        })
    }

    pub fn total(&self) -> Result<Uint128, PriceOverflow> {
        let sum = self
            .compute
            .checked_add(self.royalty)
            .and_then(|sum| sum.checked_add(self.gateway));
        sum.map_err(|_| PriceOverflow)
    }
}

/// `floor(amount x bps / 10^4)`.
pub fn part(amount: Uint128, bps: u16) -> Result<Uint128, PriceOverflow> {
    let scaled = amount.u128().checked_mul(bps.into()).ok_or(PriceOverflow)?;
    Ok(Uint128::new(scaled / 10_000))
}

/// Divides `amount` by `bps`, which sum to at most 10000, rounding down; the second value is what is left.
pub fn divide(amount: Uint128, bps: impl IntoIterator<Item = u16>) -> Result<(Vec<Uint128>, Uint128), PriceOverflow> {
    let mut rest = amount;
    let mut parts = Vec::new();
    for bps in bps {
        let share = part(amount, bps)?;
        rest = rest.checked_sub(share).map_err(|_| PriceOverflow)?;
        parts.push(share);
    }
    Ok((parts, rest))
}

fn product(rate: Uint128, count: u64) -> Result<u128, PriceOverflow> {
    rate.u128().checked_mul(count.into()).ok_or(PriceOverflow)
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "expected values are written as plain formulas"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(per_1k_in: u128, per_1k_out: u128, per_request: u128) -> Ask {
        Ask {
            per_1k_in: per_1k_in.into(),
            per_1k_out: per_1k_out.into(),
            per_request: per_request.into(),
        }
    }

    #[test]
    fn a_price_is_the_formula_of_the_documentation() {
        let units = Units {
            requests: 16,
            units_in: 333,
            units_out: 10,
        };
        let royalty = RoyaltyRate {
            royalty_bps: 1_250,
            royalty_per_1k_units: 70u128.into(),
        };
        let price = SpanPrice::of(&ask(1_000, 3_000, 5), &royalty, 100, 4_000, units).unwrap();
        // F = ceil((333000 + 30000) / 1000) + 80; R = floor(F / 8) + ceil(70 x 343 x 4000 / 10^7); G = floor(F / 100).
        assert_eq!(price.compute.u128(), 363 + 80);
        assert_eq!(price.royalty.u128(), 55 + 10);
        assert_eq!(price.gateway.u128(), 4);
        assert_eq!(price.total().unwrap().u128(), 443 + 65 + 4);
    }

    #[test]
    fn what_cannot_be_counted_is_an_error() {
        let units = Units {
            requests: u64::MAX,
            units_in: u64::MAX,
            units_out: u64::MAX,
        };
        assert_eq!(ask(u128::MAX, 0, 0).compute_fee(units), Err(PriceOverflow));
        assert_eq!(ask(0, 0, u128::MAX).compute_fee(units), Err(PriceOverflow));
        assert_eq!(units.total(), Err(PriceOverflow));
        assert!(!ask(RATE_MAX + 1, 0, 0).is_bounded());
        assert!(!FeeBps {
            protocol_bps: 1_000,
            audit_bps: 1_000,
            burn_bps: 1
        }
        .is_bounded());
    }

    proptest! {
        #[test]
        fn parts_of_a_compute_fee_sum_to_the_whole(
            fee in 0..=RATE_MAX, protocol_bps in 0..=700u16, audit_bps in 0..=700u16, burn_bps in 0..=600u16,
        ) {
            let split = FeeBps { protocol_bps, audit_bps, burn_bps }.split(fee.into()).unwrap();
            prop_assert_eq!((split.provider + split.protocol + split.audit + split.burn).u128(), fee);
        }

        #[test]
        fn a_division_loses_nothing(amount in 0..=RATE_MAX, cuts in prop::collection::vec(0..=1_000u16, 0..10)) {
            let (parts, rest) = divide(amount.into(), cuts).unwrap();
            prop_assert_eq!(parts.iter().map(|part| part.u128()).sum::<u128>() + rest.u128(), amount);
        }

        #[test]
        fn more_units_never_cost_less(
            rate in 0..=1_000_000u128, share in 1..=10_000u16, bps in 0..=10_000u16, fewer in 0..1_000_000u64, more in 0..1_000_000u64,
        ) {
            let royalty = RoyaltyRate { royalty_bps: bps, royalty_per_1k_units: rate.into() };
            let price = |units_in| {
                let units = Units { requests: 1, units_in, units_out: 0 };
                SpanPrice::of(&ask(rate, 0, rate), &royalty, 100, share, units).unwrap().total().unwrap()
            };
            prop_assert!(price(fewer) <= price(fewer + more));
        }

        #[test]
        fn a_fixed_royalty_is_charged_once_over_all_spans(
            rate in 0..=1_000_000u128, units_in in 0..1_000_000u64, first in 0..=10_000u16,
        ) {
            let royalty = RoyaltyRate { royalty_bps: 0, royalty_per_1k_units: rate.into() };
            let units = Units { requests: 1, units_in, units_out: 0 };
            let of = |share| royalty.royalty(Uint128::zero(), units, share).unwrap().u128();
            let (whole, parts) = (of(10_000), of(first) + of(10_000 - first));
            prop_assert!(whole <= parts && parts <= whole + 1);
        }
    }
}
