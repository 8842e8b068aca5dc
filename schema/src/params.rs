//! Parameters of the contracts. The checked-in profiles `params/local.toml` and `params/public.toml` are values of [`Params`].

use cosmwasm_schema::cw_serde;
use cosmwasm_std::Uint128;

use thiserror::Error;

use crate::{price::FeeBps, BeaconKey, Schedule};

/// Longest notice of a migration that the contracts take: 90 days, as the longest unbonding.
pub const MIGRATION_NOTICE_SECONDS_MAX: u64 = 90 * 24 * 3_600;

/// All parameters of a network, one table a contract.
#[cw_serde]
#[derive(Eq)]
pub struct Params {
    pub registry: RegistryParams,
    pub staking: StakingParams,
    pub escrow: EscrowParams,
    pub orchestrator: OrchestratorParams,
    /// Absent: a network without a beacon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<BeaconParams>,
}

/// Whose randomness seeds draws. Never changes.
#[cw_serde]
#[derive(Eq)]
pub struct BeaconParams {
    pub public_key: BeaconKey,
    /// Unix seconds of round 1.
    pub genesis_seconds: u64,
    /// Seconds between two rounds.
    pub period_seconds: u64,
    /// Rounds up to the newest, in time, that are taken and kept. Jobs must not outlive them.
    pub rounds_kept: u64,
    /// Where rounds can be had, told in the network file. No contract knows them.
    #[serde(default)]
    pub urls: Vec<String>,
}

impl BeaconParams {
    /// When rounds are due.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            genesis_seconds: self.genesis_seconds,
            period_seconds: self.period_seconds,
        }
    }
}

/// A contract could get new code before somebody who does not want it has got his bond out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{contract}.migration_notice_seconds is {notice_seconds}, at least {least} = {seconds} is needed")]
pub struct NoticeTooShort {
    pub contract: &'static str,
    pub notice_seconds: u64,
    pub least: &'static str,
    pub seconds: u64,
}

/// Nobody could ever open a session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "escrow.allocation_min is {least}, at most staking.bond_per_slot = {slot_bond} may be at stake with a deployment"
)]
pub struct NoSessions {
    pub least: Uint128,
    pub slot_bond: Uint128,
}

impl Params {
    /// Refuses a network on which the least allocation of a session is more than a slot is backed with.
    pub fn check_sessions(&self) -> Result<(), NoSessions> {
        let (least, slot_bond) = (self.escrow.allocation_min, self.staking.bond_per_slot);
        if least > slot_bond {
            return Err(NoSessions { least, slot_bond });
        }
        Ok(())
    }

    /// Refuses a network on which a migration could outrun an unbonding. Unbonding may grow up to staking's notice, so that one is
    /// the measure of the others.
    pub fn check_notices(&self) -> Result<(), NoticeTooShort> {
        let staking = &self.staking;
        let unbonding = ("staking.unbonding_seconds", staking.unbonding_seconds);
        let notice = ("staking.migration_notice_seconds", staking.migration_notice_seconds);
        for (contract, notice_seconds, (least, seconds)) in [
            ("staking", staking.migration_notice_seconds, unbonding),
            ("registry", self.registry.migration_notice_seconds, notice),
            ("orchestrator", self.orchestrator.migration_notice_seconds, notice),
        ] {
            if notice_seconds < seconds {
                return Err(NoticeTooShort {
                    contract,
                    notice_seconds,
                    least,
                    seconds,
                });
            }
        }
        Ok(())
    }
}

#[cw_serde]
#[derive(Eq)]
pub struct RegistryParams {
    /// Ufunc burnt by the first publisher of a namespace.
    pub namespace_fee: Uint128,
    /// From `ProposeMigration` to `ExecuteMigration`. Never changes; at least staking's, at most 90 days.
    pub migration_notice_seconds: u64,
}

#[cw_serde]
#[derive(Eq)]
pub struct StakingParams {
    /// Ufunc of bond behind each slot, and the most that one item on it may cost.
    pub bond_per_slot: Uint128,
    /// Ufunc burnt for each deployment.
    pub listing_fee: Uint128,
    /// From `Unbond` to `Withdraw`; the amount stays slashable meanwhile.
    pub unbonding_seconds: u64,
    /// Least penalty of a miss, in ufunc. At most `bond_per_slot`.
    pub miss_min: Uint128,
    /// Least penalty that an SLA may commit to, in bps of the item's price.
    pub penalty_bps_min: u16,
    /// Longest `base_seconds` and `seconds_per_1k_units` of an SLA.
    pub sla_seconds_max: u64,
    /// Least that a deployment may ask for a slot reserved for an hour, in ufunc. At least 1: holding capacity is never free.
    pub reservation_per_hour_min: Uint128,
    /// What is at stake for finished work, and what misses and link faults lead to.
    #[serde(default)]
    pub conduct: ConductParams,
    /// From `ProposeMigration` to `ExecuteMigration`. Never changes; at least `unbonding_seconds`, at most
    /// 90 days.
    pub migration_notice_seconds: u64,
}

/// How long work counts after it is done. What has been counted keeps the window that it was counted with.
#[cw_serde]
#[derive(Eq)]
pub struct ConductParams {
    /// Ufunc from which on every item would be audited. A provider keeps 1.5 times this or its slot bond, whichever is more, free of
    /// all work. Pinned when a deployment is listed.
    pub audit_unit: Uint128,
    /// Settled work counts against the bond for at least this long, and at most twice. At most `unbonding_seconds`.
    pub audit_window_seconds: u64,
    /// Strikes older than this are forgotten.
    pub strike_window_seconds: u64,
    /// So many strikes inside the window jail a provider, 1 to 32.
    pub jail_strikes: u8,
    /// From the last strike to `Unjail`, at most a week.
    pub jail_seconds: u64,
    /// For at least this long, and at most twice, a link fault lowers the chances of both deployments, and for this long the two are
    /// not paired.
    pub fault_window_seconds: u64,
}

/// What a network goes by that had no such parameters before: those of `params/public.toml`.
impl Default for ConductParams {
    fn default() -> Self {
        Self {
            audit_unit: Uint128::new(20_000_000),
            audit_window_seconds: 172_800,
            strike_window_seconds: 86_400,
            jail_strikes: 5,
            jail_seconds: 3_600,
            fault_window_seconds: 3_600,
        }
    }
}

#[cw_serde]
#[derive(Eq)]
pub struct EscrowParams {
    /// Parts of every compute fee, pinned when work is opened.
    pub fees: FeeBps,
    /// Longest time for which money may be held.
    pub hold_seconds_max: u64,
    /// Longest time from the opening of a session to its expiry, at most 30 days.
    pub session_seconds_max: u64,
    /// Time in which providers may still settle when a session closes or has expired, 1 second to 7 days. Pinned when it is opened.
    pub close_notice_seconds: u64,
    /// Least ufunc set apart for a deployment of a session. At least 1.
    pub allocation_min: Uint128,
    /// Ufunc that an owner who forces a request prepays for the gas of the answer; the provider of the last span has it, or it comes
    /// back. At least 1.
    #[serde(default = "force_fee")]
    pub force_fee: Uint128,
}

/// A network that was made before there was one.
fn force_fee() -> Uint128 {
    Uint128::new(50_000)
}

#[cw_serde]
#[derive(Eq)]
pub struct OrchestratorParams {
    /// Time for transactions to be included, part of every deadline.
    pub inclusion_seconds: u64,
    /// An attestation is taken until deadline + grace.
    pub grace_seconds: u64,
    /// Receipts and acknowledgements are taken until deadline + evidence; an item expires afterwards. At least `grace_seconds`.
    pub evidence_seconds: u64,
    /// Assignments of one item before it fails, 1 to 10.
    pub attempts_max: u8,
    /// From `SubmitJob` to the date at which whatever is still held may be released by anyone.
    pub job_seconds_max: u64,
    /// From the date that fixes a redraw to the time of its beacon round, at least: longer than the chain's clock is ever behind, so
    /// that nobody knows the round at that date. At most an hour.
    pub beacon_delay_seconds: u64,
    /// From `ProposeMigration` to `ExecuteMigration`. Never changes; at least staking's, at most 90 days.
    pub migration_notice_seconds: u64,
    /// Longest time between two blocks of a chain that does not stand still, 1 to 60. A date of an item has passed only when so many
    /// blocks were made as that takes; pinned when a job is submitted.
    #[serde(default = "block_seconds_max")]
    pub block_seconds_max: u64,
    /// From the end of a job to the date from which on anyone may prune its records; pinned when it is submitted. At least
    /// `job_seconds_max` and twice staking's audit window, at most a year.
    #[serde(default = "prune_after_seconds")]
    pub prune_after_seconds: u64,
    /// Part of a miss's penalty that goes to whoever expires the item, pinned when the job is submitted. At most 1000, so that nobody gets
    /// more than a tenth of his own penalty back.
    #[serde(default)]
    pub keeper_bps: u16,
}

/// For contracts that pruned nothing before: 30 days, which no job outlives.
fn prune_after_seconds() -> u64 {
    30 * 24 * 3_600
}

/// What contracts went by before it was a parameter.
fn block_seconds_max() -> u64 {
    10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_both_profiles_whoever_unbonds_in_time_is_out_before_new_code_runs() {
        for profile in [
            include_str!("../../params/local.toml"),
            include_str!("../../params/public.toml"),
        ] {
            let params: Params = toml::from_str(profile).unwrap();
            assert_eq!(params.check_notices(), Ok(()));
        }
    }

    #[test]
    fn in_both_profiles_sessions_can_be_opened_and_a_network_without_them_is_told() {
        for profile in [
            include_str!("../../params/local.toml"),
            include_str!("../../params/public.toml"),
        ] {
            let mut params: Params = toml::from_str(profile).unwrap();
            assert_eq!(params.check_sessions(), Ok(()));
            params.staking.bond_per_slot = params.escrow.allocation_min;
            assert_eq!(params.check_sessions(), Ok(()));
            params.escrow.allocation_min = 50_000_001u128.into();
            params.staking.bond_per_slot = 50_000_000u128.into();
            let told = params.check_sessions().unwrap_err().to_string();
            assert_eq!(
                told,
                "escrow.allocation_min is 50000001, at most staking.bond_per_slot = 50000000 may be at stake with a deployment"
            );
        }
    }

    #[test]
    fn in_public_a_bond_on_its_way_out_outlasts_every_session_and_its_audit_window() {
        let params: Params = toml::from_str(include_str!("../../params/public.toml")).unwrap();
        let (staking, escrow) = (params.staking, params.escrow);
        let session = escrow.session_seconds_max + escrow.close_notice_seconds;
        assert!(staking.unbonding_seconds >= session + 2 * staking.conduct.audit_window_seconds);
        assert_eq!(staking.conduct, ConductParams::default());
    }

    #[test]
    fn in_both_profiles_records_outlast_all_that_could_be_about_them() {
        for profile in [
            include_str!("../../params/local.toml"),
            include_str!("../../params/public.toml"),
        ] {
            let params: Params = toml::from_str(profile).unwrap();
            let (work, money) = (params.orchestrator, params.escrow);
            let kept = work.prune_after_seconds;
            assert!(kept >= work.job_seconds_max && kept >= work.evidence_seconds);
            assert!(kept >= 2 * params.staking.conduct.audit_window_seconds);
            assert!(work.job_seconds_max <= money.hold_seconds_max);
        }
        let params: Params = toml::from_str(include_str!("../../params/public.toml")).unwrap();
        // As long as a bond that has backed the work may be on its way out.
        assert!(params.orchestrator.prune_after_seconds >= params.staking.unbonding_seconds);
    }

    #[test]
    fn a_notice_that_is_too_short_is_told_by_its_contract() {
        let mut params: Params = toml::from_str(include_str!("../../params/public.toml")).unwrap();
        params.orchestrator.migration_notice_seconds = 2_419_199;
        let told = params.check_notices().unwrap_err().to_string();
        assert_eq!(
            told,
            "orchestrator.migration_notice_seconds is 2419199, at least staking.migration_notice_seconds = 2419200 is needed"
        );
        params.staking.migration_notice_seconds = 1_814_399;
        let told = params.check_notices().unwrap_err().to_string();
        assert_eq!(
            told,
            "staking.migration_notice_seconds is 1814399, at least staking.unbonding_seconds = 1814400 is needed"
        );
    }
}
