//! What a session has pinned for one deployment, and how it stands on chain.

use cosmwasm_std::Uint128;
use schema::{
    escrow::{AllocationState, SessionResponse},
    price::{Ask, PriceOverflow, RoyaltyRate, SpanPrice, Units},
    receipt::Domain,
    Digest, PublicKey, Signature,
};

/// What a session has pinned for one deployment. Never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// That of the escrow.
    pub domain: Domain,
    pub session: u64,
    pub deployment: u64,
    /// Signs the vouchers.
    pub session_key: PublicKey,
    pub ask: Ask,
    pub royalty: RoyaltyRate,
    pub gateway_bps: u16,
    pub compute_share_bps: u16,
    /// Most units of one row.
    pub units_per_request_max: u64,
}

/// How an allocation stands on chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub state: AllocationState,
    /// Everything ever put in.
    pub amount: Uint128,
    /// Of it, what vouchers have taken.
    pub paid: Uint128,
    /// Highest of all settled vouchers.
    pub sequence: u64,
    /// Of the voucher that was settled last, whose amount `paid` is.
    pub units: Units,
}

impl Terms {
    /// What a session says of a deployment, if it has it.
    pub fn of(domain: Domain, session: &SessionResponse, deployment: u64) -> Option<(Self, Standing)> {
        let mut allocations = session.allocations.iter();
        let own = allocations.find(|allocation| allocation.deployment == deployment)?;
        let terms = Self {
            domain,
            session: session.session,
            deployment,
            session_key: session.session_key,
            ask: own.ask,
            royalty: session.royalty,
            gateway_bps: session.gateway.as_ref().map_or(0, |gateway| gateway.bps),
            compute_share_bps: own.compute_share_bps,
            units_per_request_max: session.units_per_request_max,
        };
        let standing = Standing {
            state: own.state,
            amount: own.amount,
            paid: own.paid,
            sequence: own.sequence,
            units: own.units,
        };
        Some((terms, standing))
    }

    /// F + R + G of counted work.
    pub fn price(&self, units: Units) -> Result<Uint128, PriceOverflow> {
        let (ask, royalty) = (&self.ask, &self.royalty);
        SpanPrice::of(ask, royalty, self.gateway_bps, self.compute_share_bps, units)?.total()
    }

    /// Whether what is paid is the price of what was counted for it, as with every voucher that a host takes.
    pub(crate) fn is_paid_in_full(&self, standing: &Standing) -> bool {
        self.price(standing.units) == Ok(standing.paid)
    }

    /// Most units that so many rows may have.
    pub(crate) fn units_max(&self, rows: u64) -> u128 {
        u128::from(rows).saturating_mul(self.units_per_request_max.into())
    }

    /// Whether the session key has signed this.
    pub(crate) fn is_signed(&self, digest: &Digest, signature: &Signature) -> bool {
        client::verify_digest(self.session_key.as_bytes(), &digest.0, signature.as_bytes())
    }
}

pub(crate) fn total(units: Units) -> u128 {
    u128::from(units.units_in).saturating_add(units.units_out.into())
}

pub(crate) fn add(one: Units, other: Units) -> Units {
    Units {
        requests: one.requests.saturating_add(other.requests),
        units_in: one.units_in.saturating_add(other.units_in),
        units_out: one.units_out.saturating_add(other.units_out),
    }
}

pub(crate) fn highest(one: Units, other: Units) -> Units {
    Units {
        requests: one.requests.max(other.requests),
        units_in: one.units_in.max(other.units_in),
        units_out: one.units_out.max(other.units_out),
    }
}

/// Whether no counter is lower than the floor's.
pub(crate) fn reaches(units: Units, floor: Units) -> bool {
    units.requests >= floor.requests && units.units_in >= floor.units_in && units.units_out >= floor.units_out
}
