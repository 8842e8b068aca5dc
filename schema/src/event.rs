//! Events of all contracts: how a fact is written into a transaction and read out of a block.
//!
//! Encode and decode stand in this one file. An event's type is its name below in snake case; its attributes are named like its
//! fields and carry their text forms; an absent option has no attribute. Nobody else spells an attribute key.

use std::{fmt::Display, str::FromStr};

use cosmwasm_std::{Attribute, Event as WasmEvent, Uint128};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    escrow::{Holder, Reason, VoucherRefusal},
    Digest, ItemId, ModelId, Namespace,
};

/// Prefix that a CosmWasm chain puts before the type of a contract's event.
const CHAIN_PREFIX: &str = "wasm-";

/// Why attributes are not the event that their type promises.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventError {
    #[error("event {event} lacks the attribute {key}")]
    Missing { event: String, key: String },
    #[error("event {event} has a wrong attribute {key}: {value:?}")]
    Malformed { event: String, key: String, value: String },
}

/// A field's text forms. None: the attribute is absent.
trait Field: Sized {
    fn write(&self) -> Option<String>;
    /// None: not the text of such a value.
    fn read(text: Option<&str>) -> Option<Self>;
}

macro_rules! plain_fields {
    ($($type:ty),+) => { $(
        impl Field for $type {
            fn write(&self) -> Option<String> {
                Some(self.to_string())
            }

            fn read(text: Option<&str>) -> Option<Self> {
                text?.parse().ok()
            }
        }
    )+ };
}

plain_fields!(
    u8,
    u16,
    u32,
    u64,
    bool,
    Uint128,
    String,
    Digest,
    ItemId,
    ModelId,
    Namespace,
    Holder,
    Reason,
    VoucherRefusal
);

impl<T: Field> Field for Option<T> {
    fn write(&self) -> Option<String> {
        self.as_ref().and_then(Field::write)
    }

    fn read(text: Option<&str>) -> Option<Self> {
        match text {
            None => Some(None),
            some => T::read(some).map(Some),
        }
    }
}

/// Numbers of deployments, first span first: `4,9,2`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentList(pub Vec<u64>);

impl Field for DeploymentList {
    fn write(&self) -> Option<String> {
        Some(join(&self.0))
    }

    fn read(text: Option<&str>) -> Option<Self> {
        let text = text?;
        if text.is_empty() {
            return Some(Self(vec![]));
        }
        text.split(',')
            .map(|part| u64::from_str(part).ok())
            .collect::<Option<_>>()
            .map(Self)
    }
}

fn join<T: Display>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

macro_rules! events {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal { $( $(#[$field_doc:meta])* $field:ident: $type:ty ),* $(,)? } )*) => {
        /// Everything that a contract of ours ever announces.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        pub enum Event {
            $( $(#[$doc])* $variant { $( $(#[$field_doc])* $field: $type ),* } ),*
        }

        impl Event {
            /// The type of the event without the chain's prefix.
            pub fn name(&self) -> &'static str {
                match self { $( Self::$variant { .. } => $name ),* }
            }

            /// As an event of a contract's response.
            pub fn encode(&self) -> WasmEvent {
                let event = WasmEvent::new(self.name());
                match self {
                    $( Self::$variant { $($field),* } => {
                        let attributes = [$( (stringify!($field), Field::write($field)) ),*];
                        event.add_attributes(attributes.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))))
                    } ),*
                }
            }

            /// Reads the event of this type and these attributes. None: no event of ours. Further attributes are ignored.
            pub fn decode<'a>(
                event_type: &str,
                attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
            ) -> Result<Option<Self>, EventError> {
                let attributes: Vec<(&str, &str)> = attributes.into_iter().collect();
                match event_type.strip_prefix(CHAIN_PREFIX).unwrap_or(event_type) {
                    $( $name => Ok(Some(Self::$variant { $( $field: read($name, stringify!($field), &attributes)? ),* })), )*
                    _ => Ok(None),
                }
            }
        }

        /// Names of all events, in the order of the documentation.
        pub const EVENT_NAMES: &[&str] = &[$($name),*];
    };
}

fn read<T: Field>(event: &str, key: &str, attributes: &[(&str, &str)]) -> Result<T, EventError> {
    let text = attributes
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, value)| *value);
    T::read(text).ok_or_else(|| match text {
        None => EventError::Missing {
            event: event.to_owned(),
            key: key.to_owned(),
        },
        Some(value) => EventError::Malformed {
            event: event.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        },
    })
}

events! {
    // model-registry
    NamespaceClaimed = "namespace_claimed" { namespace: Namespace, owner: String, burnt: Uint128 }
    ModelPublished = "model_published" { model: ModelId, owner: String }
    ModelUpdated = "model_updated" { model: ModelId }
    ModelStatusChanged = "model_status_changed" {
        model: ModelId,
        /// active, paused or retired.
        status: String,
    }
    ModelOwnerProposed = "model_owner_proposed" { model: ModelId, owner: Option<String> }
    ModelOwnerChanged = "model_owner_changed" { model: ModelId, owner: String }
    VersionPublished = "version_published" { model: ModelId, version: u32, manifest: Digest }
    VersionRetired = "version_retired" { model: ModelId, version: u32 }
    EndpointSet = "endpoint_set" { model: ModelId, endpoint: String, royalty_bps: u16, royalty_per_1k_units: Uint128 }
    PayoutSet = "payout_set" { model: ModelId }

    // provider-staking
    ProviderRegistered = "provider_registered" { provider: String, endpoint: String }
    ProviderUpdated = "provider_updated" { provider: String, endpoint: String }
    Bonded = "bonded" { provider: String, amount: Uint128, bond: Uint128 }
    UnbondingStarted = "unbonding_started" { provider: String, amount: Uint128, release_at: u64 }
    BondWithdrawn = "bond_withdrawn" { provider: String, amount: Uint128 }
    DeploymentListed = "deployment_listed" {
        deployment: u64, provider: String, model: ModelId, version: u32, first: u8, last: u8, burnt: Uint128,
    }
    DeploymentDraining = "deployment_draining" { deployment: u64, provider: String }
    DeploymentRemoved = "deployment_removed" { deployment: u64, provider: String }
    BondPenalised = "bond_penalised" {
        provider: String, deployment: u64, item: ItemId, amount: Uint128, beneficiary: String,
    }
    /// A miss was counted: `strikes` inside the window, this one included.
    ProviderStruck = "provider_struck" { provider: String, deployment: u64, item: ItemId, strikes: u32 }
    /// No new work before `Unjail`, which is taken from `until` on.
    ProviderJailed = "provider_jailed" { provider: String, until: u64 }
    ProviderUnjailed = "provider_unjailed" { provider: String, by: String }

    // royalty-escrow
    /// Money came to a holder. Every increase of anybody's money is one of these.
    Credited = "credited" {
        holder: Holder, reason: Reason, amount: Uint128, item: Option<ItemId>, deployment: Option<u64>, model: Option<ModelId>,
    }
    Withdrawn = "withdrawn" { account: String, amount: Uint128 }
    Held = "held" { job: u64, account: String, amount: Uint128, expires_at: u64 }
    HoldReleased = "hold_released" { job: u64, account: String, amount: Uint128 }
    /// One item was paid for: `paid` left the hold, of which `burnt` left the world.
    Settled = "settled" { item: ItemId, paid: Uint128, burnt: Uint128 }
    RoyaltiesDistributed = "royalties_distributed" { model: ModelId, amount: Uint128 }
    /// Slots are taken and vouchers may come. What is pinned stands in `Session`.
    SessionOpened = "session_opened" {
        session: u64, owner: String, model: ModelId, version: u32, endpoint: String, deployments: DeploymentList,
        /// For vouchers and reservations.
        held: Uint128,
        expires_at: u64,
    }
    /// Money came to these deployments, which may be new to the session.
    SessionToppedUp = "session_topped_up" { session: u64, deployments: DeploymentList, held: Uint128 }
    /// The owner wants it back: after this date anyone may close it.
    AllocationClosing = "allocation_closing" { session: u64, deployment: u64, closes_at: u64 }
    /// The slot is free again.
    AllocationClosed = "allocation_closed" {
        session: u64, deployment: u64,
        /// To the provider, of what was prepaid.
        reservation: Uint128,
        /// To the owner.
        released: Uint128,
    }
    /// A voucher was paid: everything but the sequence is what it adds to the one settled before it. A counter that is lower adds nothing.
    VoucherSettled = "voucher_settled" {
        session: u64, deployment: u64, sequence: u64, requests: u64, units_in: u64, units_out: u64,
        /// Out of the allocation, of which `burnt` left the world.
        paid: Uint128,
        burnt: Uint128,
    }
    VoucherRefused = "voucher_refused" { session: u64, deployment: u64, sequence: u64, reason: VoucherRefusal }
    /// An owner asks on chain: these deployments wait for the end of the job, at most until this date.
    RequestForced = "request_forced" { session: u64, job: u64, deployments: DeploymentList, until: u64 }
    ForcedEnded = "forced_ended" {
        session: u64, job: u64,
        /// Deployment that did not answer, if one is known not to have.
        missed: Option<u64>,
    }

    // job-orchestrator
    JobSubmitted = "job_submitted" {
        job: u64, developer: String, model: ModelId, version: u32, endpoint: String, shards: u16, replicas: u8, held: Uint128,
        expires_at: u64,
    }
    /// A chain has to work now. What it needs stands in `Item` and `Input`.
    JobAssigned = "job_assigned" {
        item: ItemId, attempt: u8, model: ModelId, version: u32, deployments: DeploymentList, deadline: u64, evidence_until: u64,
    }
    /// Chains were drawn with this seed: for a whole job, or anew for a shard. `round` is the beacon's round that it was made of; none
    /// where the network has no beacon, or the beacon no round yet.
    Drawn = "drawn" { job: u64, shard: Option<u16>, attempt: u8, seed: Digest, round: Option<u64> }
    /// Replicas differ: the item is drawn anew once this round of the beacon is known, which is due at a time.
    RoundAwaited = "round_awaited" { item: ItemId, round: u64, due_at: u64 }
    Attested = "attested" { item: ItemId, attempt: u8, output_digest: Digest, units_in: u64, units_out: u64 }
    AttestationRefused = "attestation_refused" { item: ItemId, attempt: u8, reason: String }
    EvidencePosted = "evidence_posted" { item: ItemId, attempt: u8, spans: u8 }
    ItemMissed = "item_missed" { item: ItemId, attempt: u8, deployment: u64 }
    ItemLinkFault = "item_link_fault" { item: ItemId, attempt: u8, sender: u64, receiver: u64 }
    ItemDiffers = "item_differs" { item: ItemId, attempt: u8, deployment: u64 }
    ItemFailed = "item_failed" {
        item: ItemId,
        /// no_supply, attempts, time or covered.
        reason: String,
    }
    ShardDone = "shard_done" { job: u64, shard: u16, output_digest: Digest }
    ShardFailed = "shard_failed" { job: u64, shard: u16 }
    JobEnded = "job_ended" {
        job: u64, developer: String,
        /// completed or incomplete.
        status: String,
        paid: Uint128, refunded: Uint128,
    }

    /// All records of a job that had ended are gone.
    JobPruned = "job_pruned" { job: u64 }
    PruneRefused = "prune_refused" { job: u64, reason: String }

    // randomness-beacon
    /// A round is known from now on. `randomness` is sha256 of its signature.
    RoundPosted = "round_posted" { round: u64, randomness: Digest }
    /// The same round was posted before: nothing has changed.
    RoundKnown = "round_known" { round: u64 }

    // every contract with an admin
    ParamsUpdated = "params_updated" { admin: String }
    AdminProposed = "admin_proposed" { admin: Option<String> }
    AdminChanged = "admin_changed" { admin: String }
    Wired = "wired" { by: String }

    // every contract that can be migrated
    MigrationProposed = "migration_proposed" { code_id: u64, checksum: Digest, executable_at: u64 }
    MigrationCancelled = "migration_cancelled" { code_id: u64 }
    MigrationExecuted = "migration_executed" { code_id: u64, by: String }
    /// The new code has taken over: versions.
    Migrated = "migrated" { from: String, to: String }
}

impl Event {
    /// As [`Event::decode`], from the attributes of cosmwasm-std.
    pub fn from_wasm(event: &WasmEvent) -> Result<Option<Self>, EventError> {
        let pairs = event
            .attributes
            .iter()
            .map(|Attribute { key, value }| (key.as_str(), value.as_str()));
        Self::decode(&event.ty, pairs)
    }
}

impl From<Event> for WasmEvent {
    fn from(event: Event) -> Self {
        event.encode()
    }
}

mod holder_serde {
    use serde::{de, Deserialize, Deserializer, Serialize, Serializer};

    use super::Holder;

    impl Serialize for Holder {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for Holder {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Event> {
        let item = ItemId {
            job: 1,
            shard: 2,
            replica: 0,
        };
        let holder = Holder::Model("demo/parent".parse().unwrap());
        vec![
            Event::JobAssigned {
                item,
                attempt: 1,
                model: "demo/m".parse().unwrap(),
                version: 1,
                deployments: DeploymentList(vec![4, 9, 2]),
                deadline: 10,
                evidence_until: 12,
            },
            Event::Credited {
                holder,
                reason: Reason::Lineage,
                amount: 5u128.into(),
                item: Some(item),
                deployment: None,
                model: None,
            },
            Event::Credited {
                holder: Holder::Address("wasm1a".into()),
                reason: Reason::Compute,
                amount: 5u128.into(),
                item: None,
                deployment: Some(3),
                model: Some("a/b".parse().unwrap()),
            },
            Event::Attested {
                item,
                attempt: 0,
                output_digest: Digest([1; 32]),
                units_in: 7,
                units_out: 0,
            },
            Event::AdminProposed { admin: None },
            Event::VoucherRefused {
                session: 3,
                deployment: 4,
                sequence: 5,
                reason: VoucherRefusal::Stale,
            },
            Event::AllocationClosed {
                session: 3,
                deployment: 4,
                reservation: 5u128.into(),
                released: 0u128.into(),
            },
            Event::MigrationProposed {
                code_id: 7,
                checksum: Digest([2; 32]),
                executable_at: 1_800_000_030,
            },
            Event::MigrationCancelled { code_id: 7 },
            Event::MigrationExecuted {
                code_id: 7,
                by: "wasm1a".into(),
            },
            Event::Migrated {
                from: "0.1.0".into(),
                to: "0.2.0".into(),
            },
        ]
    }

    #[test]
    fn events_read_back_with_and_without_the_chains_prefix() {
        for event in samples() {
            let mut wasm = event.encode();
            assert_eq!(Event::from_wasm(&wasm), Ok(Some(event.clone())));
            wasm.ty = format!("wasm-{}", wasm.ty);
            wasm = wasm
                .add_attribute("msg_index", "0")
                .add_attribute("_contract_address", "wasm1x");
            assert_eq!(Event::from_wasm(&wasm), Ok(Some(event)));
        }
    }

    #[test]
    fn json_reads_back_and_its_tag_is_the_event_type() {
        for event in samples() {
            let json = serde_json::to_value(&event).unwrap();
            assert_eq!(json["type"], event.name());
            assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        }
    }

    #[test]
    fn foreign_events_are_none_and_broken_ones_are_errors() {
        assert_eq!(Event::decode("wasm-transfer", []), Ok(None));
        let missing = Event::decode("wasm-withdrawn", [("account", "a")]);
        assert!(matches!(missing, Err(EventError::Missing { key, .. }) if key == "amount"));
        let malformed = Event::decode("wasm-withdrawn", [("account", "a"), ("amount", "-1")]);
        assert!(matches!(malformed, Err(EventError::Malformed { key, .. }) if key == "amount"));
    }
}
