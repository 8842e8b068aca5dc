//! Sessions: a client that signs vouchers, hosts that consent.

use cosmwasm_std::Binary;
use schema::{
    escrow::{AllocationResponse, Consent, ExecuteMsg, NewAllocation, NewSession, QueryMsg, SessionResponse},
    orchestrator::ForcedRequest,
    price::{SpanPrice, Units},
    receipt::Domain,
    session::{CloseConsent, SignedVoucher, Voucher},
    staking, Digest, Event, Signature,
};

use crate::{found, Host, Outcome, Protocol, MODEL};

/// Whose key signs the vouchers of every session in the stories.
pub const SESSION_KEY: &str = "session";

impl Protocol {
    /// What vouchers, session receipts and consents are signed for.
    pub fn escrow_domain(&self) -> Domain {
        Domain {
            contract: self.contracts.royalty_escrow.to_string(),
            ..self.domain()
        }
    }

    /// A session of ten minutes for the model of most stories.
    pub fn new_session(&self, allocations: &[(u64, u128)]) -> NewSession {
        NewSession {
            model: MODEL.parse().expect("the name is valid"),
            version: None,
            endpoint: "embeddings".to_owned(),
            allocations: Self::allocations(allocations),
            session_key: Host::named(SESSION_KEY).public_key(),
            gateway: None,
            expires_at: self.now() + 600,
        }
    }

    /// Deployments with what is set apart for each.
    pub fn allocations(allocations: &[(u64, u128)]) -> Vec<NewAllocation> {
        let put = |(deployment, amount): &(u64, u128)| NewAllocation {
            deployment: *deployment,
            amount: (*amount).into(),
        };
        allocations.iter().map(put).collect()
    }

    /// Opens a session that has to be accepted, and says its number.
    pub fn opens_session(&mut self, name: &str, session: NewSession) -> u64 {
        let events = self
            .escrow(name, &ExecuteMsg::OpenSession { session })
            .expect("the session is valid");
        let opened = found(&events, |event| match event {
            Event::SessionOpened { session, .. } => Some(*session),
            _ => None,
        });
        opened[0]
    }

    /// The owner of a session asks these deployments on chain.
    pub fn forces(&mut self, name: &str, session: u64, deployments: &[u64], rows: usize) -> Outcome {
        let row = |row: usize| Binary::from(format!("row {row}").as_bytes());
        let force = ExecuteMsg::ForceRequest {
            session,
            deployments: deployments.to_vec(),
            rows: (0..rows).map(row).collect(),
        };
        self.escrow(name, &force)
    }

    /// What the escrow tells the orchestrator of it.
    pub fn forced_request(&self, session: u64, deployments: &[u64]) -> ForcedRequest {
        let pinned = self.session(session);
        let question = staking::QueryMsg::Offers {
            deployments: deployments.to_vec(),
        };
        let offers: staking::OffersResponse = self.ask(&self.contracts.provider_staking, &question);
        ForcedRequest {
            session,
            owner: pinned.owner,
            model: pinned.model,
            version: pinned.version,
            endpoint: pinned.endpoint,
            royalty: pinned.royalty,
            gateway: pinned.gateway,
            units_per_request_max: pinned.units_per_request_max,
            offers: offers.offers,
            rows: vec![Binary::from(b"row")],
        }
    }

    /// A session as the escrow knows it.
    pub fn session(&self, session: u64) -> SessionResponse {
        self.ask(&self.contracts.royalty_escrow, &QueryMsg::Session { session })
    }

    /// A deployment's part of a session.
    pub fn allocation(&self, session: u64, deployment: u64) -> AllocationResponse {
        let mut allocations = self.session(session).allocations.into_iter();
        allocations
            .find(|allocation| allocation.deployment == deployment)
            .expect("the deployment is in the session")
    }

    /// What a deployment's work costs by the terms that the session has pinned.
    pub fn session_price(&self, session: u64, deployment: u64, units: Units) -> u128 {
        let (pinned, own) = (self.session(session), self.allocation(session, deployment));
        let gateway_bps = pinned.gateway.map_or(0, |gateway| gateway.bps);
        let price = SpanPrice::of(&own.ask, &pinned.royalty, gateway_bps, own.compute_share_bps, units);
        let total = price.and_then(|price| price.total());
        total.expect("stories count what can be paid").u128()
    }

    /// A voucher that the session key has signed.
    pub fn signs(&self, voucher: Voucher) -> SignedVoucher {
        SignedVoucher {
            signature: self.signs_for_session(&voucher.digest(&self.escrow_domain())),
            voucher,
        }
    }

    fn signs_for_session(&self, digest: &Digest) -> Signature {
        Host::named(SESSION_KEY).sign(digest)
    }

    /// A voucher that pays in full for this many rows of ten units each.
    pub fn voucher(&self, session: u64, deployment: u64, sequence: u64, rows: u64) -> SignedVoucher {
        let units = Units {
            requests: rows,
            units_in: rows * 10,
            units_out: 0,
        };
        self.signs(Voucher {
            session,
            deployment,
            sequence,
            requests: units.requests,
            units_in: units.units_in,
            units_out: units.units_out,
            amount: self.session_price(session, deployment, units).into(),
        })
    }

    /// A stranger settles vouchers, which never fails as a whole.
    pub fn settles(&mut self, vouchers: Vec<SignedVoucher>) -> Vec<Event> {
        self.escrow("stranger", &ExecuteMsg::SettleVouchers { vouchers })
            .expect("vouchers never fail as a whole")
    }

    /// A host's word that this voucher was its last.
    pub fn consent(&self, host: &str, session: u64, deployment: u64, sequence: u64) -> Consent {
        let consent = CloseConsent {
            session,
            deployment,
            sequence,
        };
        Consent {
            deployment,
            signature: Host::named(host).sign(&consent.digest(&self.escrow_domain())),
        }
    }
}
