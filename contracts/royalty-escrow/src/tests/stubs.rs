//! What the siblings would answer, and somebody who opens sessions and signs vouchers.

use cosmwasm_std::{to_json_binary, Binary, Decimal, StdError};
use k256::ecdsa::{signature::hazmat::PrehashSigner, Signature as Ecdsa, SigningKey, VerifyingKey};
use schema::{
    escrow::{AllocationResponse, Consent, NewAllocation, NewSession, SessionResponse, VoucherRefusal},
    receipt::Domain,
    registry::{EndpointTerms, OfferResponse, StageInfo, Task, Unit, VersionResponse},
    session::{CloseConsent, SignedVoucher, Voucher},
    staking::{self, DeploymentOffer, DeploymentTerms, OffersResponse, Profile, ProviderResponse, Sla},
    Digest, PublicKey, Signature,
};

use super::*;

pub(super) const SLOT_BOND: u128 = 50_000;
/// An hour of a slot: one ufunc a second.
pub(super) const PER_HOUR: u128 = 3_600;
pub(super) const UNITS_MAX: u64 = 10_000;

fn answer<T: serde::Serialize>(answer: &T) -> Result<Binary, StdError> {
    to_json_binary(answer)
}

fn shares() -> Vec<StageInfo> {
    let stage = |share| StageInfo {
        digest: Digest([0; 32]),
        weight_bytes: 1,
        compute_share_bps: share,
    };
    [6_000, 4_000].map(stage).to_vec()
}

/// `demo/child` has version 1 and 2 with two stages each.
pub(super) fn registry(question: &registry::QueryMsg) -> Result<Binary, StdError> {
    match question {
        registry::QueryMsg::Payout { model } => answer(&payout_of(model)),
        registry::QueryMsg::Offer {
            model,
            version,
            endpoint,
        } if model.as_str() == "demo/child" && endpoint == "embeddings" => answer(&OfferResponse {
            model: model.clone(),
            version: version.unwrap_or(1),
            manifest: Digest([0; 32]),
            task: Task::Embeddings,
            stages: shares(),
            units_per_request_max: UNITS_MAX,
            terms: EndpointTerms {
                unit: Unit::Token,
                royalty: terms().royalty,
            },
        }),
        registry::QueryMsg::Version { version, .. } => answer(&VersionResponse {
            version: *version,
            manifest: Digest([0; 32]),
            manifest_uris: vec![],
            stages: shares(),
            tolerance: Decimal::permille(1),
            units_per_request_max: UNITS_MAX,
            retired: true,
            published_at: 0,
        }),
        _ => Err(StdError::generic_err("model demo/none is unknown")),
    }
}

/// Deployments 1 to 39 exist: the first two of paula and peter, who serve a stage each; 30 serves version 2; the rest are spares.
pub(super) fn offer_of(deployment: u64) -> DeploymentOffer {
    let provider = match deployment {
        1 => "paula",
        2 => "peter",
        _ => "spare",
    };
    let stage = u8::from(deployment.is_multiple_of(2));
    DeploymentOffer {
        deployment,
        provider: addr(provider).into_string(),
        host_key: public(&key(provider)),
        terms: DeploymentTerms {
            model: model("child"),
            version: if deployment == 30 { 2 } else { 1 },
            first: stage,
            last: stage,
            engine_class: "cpu".into(),
            ask: Ask {
                per_1k_in: 1_000u128.into(),
                per_1k_out: 3_000u128.into(),
                per_request: 10u128.into(),
            },
            reservation_per_hour: PER_HOUR.into(),
            slots: 1,
            sla: Sla {
                base_seconds: 1,
                seconds_per_1k_units: 1,
                units_max: 1,
                penalty_bps: 1,
            },
        },
        slot_bond: SLOT_BOND.into(),
    }
}

pub(super) fn staking(question: staking::QueryMsg) -> Result<Binary, StdError> {
    match question {
        staking::QueryMsg::Offers { deployments } => {
            if let Some(unknown) = deployments.iter().find(|number| **number >= 40) {
                return Err(StdError::generic_err(format!("there is no deployment {unknown}")));
            }
            let offers = deployments.into_iter().map(offer_of).collect();
            answer(&OffersResponse { offers })
        }
        staking::QueryMsg::Provider { provider } => answer(&ProviderResponse {
            provider,
            profile: Profile {
                name: "p".into(),
                endpoint: "http://p.example".into(),
                host_key: public(&key("paula")),
                operator: Some(addr("operator").into_string()),
                hardware: String::new(),
            },
            bond: 0u128.into(),
            committed: 0u128.into(),
            backing: 0u128.into(),
            settled: 0u128.into(),
            reserve: 0u128.into(),
            free: 0u128.into(),
            strikes: vec![],
            jailed_until: None,
            unbonding: vec![],
            deployments: 1,
            penalties: 0u128.into(),
        }),
        other => panic!("unexpected question {other:?}"),
    }
}

pub(super) fn key(name: &str) -> SigningKey {
    let secret = Digest::of(name.as_bytes());
    SigningKey::from_bytes(&secret.0.into()).unwrap()
}

pub(super) fn public(key: &SigningKey) -> PublicKey {
    let point = VerifyingKey::from(key).to_encoded_point(true);
    PublicKey(point.as_bytes().try_into().unwrap())
}

pub(super) fn sign(name: &str, digest: Digest) -> Signature {
    let signature: Ecdsa = key(name).sign_prehash(&digest.0).unwrap();
    Signature(signature.normalize_s().unwrap_or(signature).to_bytes().into())
}

/// The same signature with the other s.
pub(super) fn twin(signature: Signature) -> Signature {
    let parsed = Ecdsa::from_slice(&signature.0).unwrap();
    let (r, s) = parsed.split_scalars();
    Signature(
        Ecdsa::from_scalars(r.to_bytes(), (-*s).to_bytes())
            .unwrap()
            .to_bytes()
            .into(),
    )
}

pub(super) fn put(deployment: u64, amount: u128) -> NewAllocation {
    NewAllocation {
        deployment,
        amount: amount.into(),
    }
}

/// For this deployment of session 1, with rows of ten units in.
pub(super) fn voucher(deployment: u64, sequence: u64, requests: u64, amount: u128) -> Voucher {
    Voucher {
        session: 1,
        deployment,
        sequence,
        requests,
        units_in: requests * 10,
        units_out: 0,
        amount: amount.into(),
    }
}

/// F + R + G of so many rows: F = 20 a row, R = a tenth and the fixed part, G = a twentieth.
pub(super) fn price(deployment: u64, requests: u64) -> u128 {
    let share = if deployment.is_multiple_of(2) { 4_000 } else { 6_000 };
    let (rows, units) = (u128::from(requests), u128::from(requests) * 10);
    let compute = units.div_ceil(1) + 10 * rows;
    compute + compute / 10 + (50 * units * share).div_ceil(10_000_000) + compute / 20
}

impl Escrow {
    pub(super) fn domain(&self) -> Domain {
        Domain {
            chain_id: self.env.block.chain_id.clone(),
            contract: self.env.contract.address.to_string(),
        }
    }

    pub(super) fn new_session(&self, allocations: Vec<NewAllocation>) -> NewSession {
        NewSession {
            model: model("child"),
            version: None,
            endpoint: "embeddings".into(),
            allocations,
            session_key: public(&key("session")),
            gateway: terms().gateway,
            expires_at: self.now() + 1_000,
        }
    }

    pub(super) fn open(&mut self, name: &str, allocations: Vec<NewAllocation>) -> Outcome {
        let session = self.new_session(allocations);
        self.by(name, ExecuteMsg::OpenSession { session })
    }

    /// Dave has 100000 and a session with paula and peter, 20000 for each, 1050 for each slot.
    pub(super) fn with_session() -> Self {
        let mut escrow = Self::new();
        escrow.deposit("dave", 100_000);
        escrow.open("dave", vec![put(1, 20_000), put(2, 20_000)]).unwrap();
        escrow
    }

    pub(super) fn signed(&self, voucher: Voucher) -> SignedVoucher {
        let signature = sign("session", voucher.digest(&self.domain()));
        SignedVoucher { voucher, signature }
    }

    pub(super) fn settles(&mut self, vouchers: Vec<SignedVoucher>) -> Outcome {
        self.by("stranger", ExecuteMsg::SettleVouchers { vouchers })
    }

    /// Settles one and says why not, or what was paid.
    pub(super) fn settled(&mut self, signed: SignedVoucher) -> Result<u128, VoucherRefusal> {
        let response = self.settles(vec![signed]).unwrap();
        let told = events(&response).into_iter().find_map(|event| match event {
            Event::VoucherSettled { paid, .. } => Some(Ok(paid.u128())),
            Event::VoucherRefused { reason, .. } => Some(Err(reason)),
            _ => None,
        });
        told.expect("every voucher has a status")
    }

    pub(super) fn consent(&self, name: &str, deployment: u64, sequence: u64) -> Consent {
        let consent = CloseConsent {
            session: 1,
            deployment,
            sequence,
        };
        Consent {
            deployment,
            signature: sign(name, consent.digest(&self.domain())),
        }
    }

    pub(super) fn session(&self, session: u64) -> Option<SessionResponse> {
        let question = QueryMsg::Session { session };
        let answer = contract::query(self.deps.as_ref(), self.env.clone(), question);
        answer.ok().map(|answer| from_json(answer).unwrap())
    }

    pub(super) fn allocation(&self, deployment: u64) -> AllocationResponse {
        let session = self.session(1).expect("session 1 is there");
        let mut allocations = session.allocations.into_iter();
        allocations
            .find(|allocation| allocation.deployment == deployment)
            .unwrap()
    }
}
