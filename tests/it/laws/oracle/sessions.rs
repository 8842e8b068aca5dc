//! Sessions once more, from the protocol's document: what is pinned, what a voucher is worth, what comes back.

use std::collections::BTreeMap;

use fxn_tests::{Host, SESSION_KEY};
use schema::{
    escrow::{Consent, NewAllocation, NewSession, VoucherRefusal},
    receipt::Domain,
    session::{CloseConsent, SignedVoucher},
    Event, ModelId, PublicKey,
};

use super::Oracle;
use crate::laws::price::{self, Count, Parts, Terms};

/// Of every version in the stories.
const UNITS_MAX: u128 = 256;

#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) owner: String,
    pub(crate) model: ModelId,
    pub(crate) version: u32,
    pub(crate) terms: Terms,
    pub(crate) gateway: Option<String>,
    pub(crate) expires_at: u64,
    pub(crate) notice: u64,
    pub(crate) parts: BTreeMap<u64, Allotted>,
    /// A request that is asked on chain.
    pub(crate) forced: Option<Forced>,
}

#[derive(Debug, Clone)]
pub(crate) struct Forced {
    pub(crate) job: u64,
    pub(crate) asked_at: u64,
    pub(crate) until: u64,
    pub(crate) fee: u128,
    pub(crate) deployments: Vec<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Allotted {
    pub(crate) provider: String,
    pub(crate) host_key: PublicKey,
    pub(crate) amount: u128,
    pub(crate) per_hour: u128,
    pub(crate) joined_at: u64,
    pub(crate) reservation: u128,
    /// Highest that was ever settled.
    pub(crate) sequence: u64,
    /// Of the voucher that was settled last, the best one.
    pub(crate) count: Count,
    /// Everything ever paid, by its takers.
    pub(crate) paid: Parts,
    /// The owner's wish.
    pub(crate) closes_at: Option<u64>,
    pub(crate) closed: bool,
    /// Date of the hold of a request that it was asked and that has not ended.
    pub(crate) waits_until: Option<u64>,
    /// When it was asked what it did not answer.
    pub(crate) missed: Option<u64>,
}

fn keeping(per_hour: u128, seconds: u64) -> u128 {
    (per_hour * u128::from(seconds)).div_ceil(3_600)
}

impl Opened {
    pub(crate) fn ends_at(&self) -> u64 {
        self.expires_at + self.notice
    }

    /// After which anyone may close it.
    pub(crate) fn date(&self, part: &Allotted) -> u64 {
        self.course(part).max(part.waits_until.unwrap_or_default())
    }

    fn course(&self, part: &Allotted) -> u64 {
        part.closes_at.map_or(self.ends_at(), |date| date.min(self.ends_at()))
    }

    /// Until when the slot is paid for.
    fn kept_until(&self, part: &Allotted) -> u64 {
        part.missed.unwrap_or(self.course(part))
    }

    /// Allocations that are not closed.
    pub(crate) fn open(&self) -> impl Iterator<Item = (&u64, &Allotted)> {
        self.parts.iter().filter(|(_, part)| !part.closed)
    }

    pub(crate) fn held(&self) -> u128 {
        self.open()
            .map(|(_, part)| part.reservation + part.amount - part.paid.total())
            .sum()
    }
}

impl Oracle {
    fn escrow_domain(&self) -> Domain {
        Domain {
            chain_id: self.chain_id.clone(),
            contract: self.contracts.royalty_escrow.to_string(),
        }
    }

    fn allot(&self, new: &NewAllocation, ends_at: u64, now: u64) -> Allotted {
        let listed = &self.deployments[&new.deployment];
        let per_hour = listed.terms.reservation_per_hour.u128();
        assert!(
            new.amount.u128() <= listed.slot_bond,
            "statement 7: more at stake than the slot is backed with"
        );
        Allotted {
            provider: listed.owner.clone(),
            host_key: self.host_keys[&listed.owner],
            amount: new.amount.u128(),
            per_hour,
            joined_at: now,
            reservation: keeping(per_hour, ends_at - now),
            sequence: 0,
            count: Count::default(),
            paid: Parts::default(),
            closes_at: None,
            closed: false,
            waits_until: None,
            missed: None,
        }
    }

    pub(super) fn lock(&mut self, owner: &str, held: u128) {
        let available = self.available.entry(owner.to_owned()).or_default();
        *available = available
            .checked_sub(held)
            .expect("statement 2: nobody holds more than he has");
    }

    pub(super) fn open_session(&mut self, owner: &str, new: &NewSession, events: &[Event], now: u64) {
        let opened = events.iter().find_map(|event| match event {
            Event::SessionOpened {
                session, version, held, ..
            } => Some((*session, *version, held.u128())),
            _ => None,
        });
        let (number, version, held) = opened.expect("a session is announced");
        let mut session = Opened {
            owner: owner.to_owned(),
            model: new.model.clone(),
            version,
            terms: Terms {
                royalty: self.royalties[&(new.model.clone(), new.endpoint.clone())],
                gateway_bps: new.gateway.as_ref().map_or(0, |gateway| gateway.bps),
                fees: self.params.escrow.fees,
            },
            gateway: new.gateway.as_ref().map(|gateway| gateway.address.clone()),
            expires_at: new.expires_at,
            notice: self.params.escrow.close_notice_seconds,
            parts: BTreeMap::new(),
            forced: None,
        };
        for allocation in &new.allocations {
            let part = self.allot(allocation, session.ends_at(), now);
            session.parts.insert(allocation.deployment, part);
        }
        assert_eq!(session.held(), held, "statement 6: what session {number} holds");
        self.lock(owner, held);
        assert!(self.sessions.insert(number, session).is_none(), "numbers never return");
    }

    pub(super) fn top_up(&mut self, number: u64, allocations: &[NewAllocation], now: u64) {
        let mut session = self.sessions[&number].clone();
        let before = session.held();
        for new in allocations {
            let ends_at = session.ends_at();
            match session.parts.get_mut(&new.deployment) {
                Some(part) => {
                    part.amount += new.amount.u128();
                    let slot_bond = self.deployments[&new.deployment].slot_bond;
                    assert!(
                        part.amount - part.paid.total() <= slot_bond,
                        "statement 7: more at stake than the slot is backed with"
                    );
                }
                None => {
                    let part = self.allot(new, ends_at, now);
                    session.parts.insert(new.deployment, part);
                }
            }
        }
        self.lock(&session.owner, session.held() - before);
        self.sessions.insert(number, session);
    }

    /// What each voucher is worth, in their order, and who has it.
    pub(super) fn settle_vouchers(&mut self, vouchers: &[SignedVoucher], events: &[Event], now: u64) {
        let told: Vec<Result<(u128, u128), VoucherRefusal>> = fxn_tests::found(events, |event| match event {
            Event::VoucherSettled { paid, burnt, .. } => Some(Ok((paid.u128(), burnt.u128()))),
            Event::VoucherRefused { reason, .. } => Some(Err(*reason)),
            _ => None,
        });
        let mut royalties: BTreeMap<ModelId, u128> = BTreeMap::new();
        let mut expected = vec![];
        for signed in vouchers {
            let worth = self.settle_voucher(signed);
            if let Ok((model, parts)) = &worth {
                *royalties.entry(model.clone()).or_default() += parts.royalty;
                self.count_settled(signed.voucher.deployment, parts.total(), now);
            }
            expected.push(worth.map(|(_, parts)| (parts.total(), parts.burn)));
        }
        assert_eq!(
            told, expected,
            "statements 4 and 5: what vouchers are worth, one by one"
        );
        for (model, royalty) in royalties {
            self.distribute(&model, royalty);
        }
    }

    fn settle_voucher(&mut self, signed: &SignedVoucher) -> Result<(ModelId, Parts), VoucherRefusal> {
        let voucher = signed.voucher;
        let session = self
            .sessions
            .get(&voucher.session)
            .filter(|session| session.open().count() > 0);
        let session = session.ok_or(VoucherRefusal::Unknown)?;
        let part = session.parts.get(&voucher.deployment).ok_or(VoucherRefusal::Unknown)?;
        if part.closed {
            return Err(VoucherRefusal::Closed);
        }
        let amount = voucher.amount.u128();
        if amount <= part.paid.total() {
            return Err(VoucherRefusal::Stale);
        }
        let expected = Host::named(SESSION_KEY).sign(&voucher.digest(&self.escrow_domain()));
        if signed.signature != expected {
            return Err(VoucherRefusal::Signature);
        }
        let count = Count {
            rows: voucher.requests,
            units_in: voucher.units_in,
            units_out: voucher.units_out,
        };
        let units = u128::from(count.units_in) + u128::from(count.units_out);
        let rows = u128::from(count.rows);
        if units < rows || units > rows * UNITS_MAX {
            return Err(VoucherRefusal::Counters);
        }
        if amount > part.amount {
            return Err(VoucherRefusal::Allocation);
        }
        let whole = self.session_price(session, voucher.deployment, count);
        if amount > whole.total() {
            return Err(VoucherRefusal::Price);
        }
        let parts = divide(amount, &part.paid, &whole, &session.terms);
        self.pay_voucher(signed, count, parts);
        Ok((self.sessions[&voucher.session].model.clone(), parts))
    }

    pub(crate) fn session_price(&self, session: &Opened, deployment: u64, count: Count) -> Parts {
        let terms = &self.deployments[&deployment].terms;
        let shares = &self.shares[&(session.model.clone(), session.version)];
        let share = shares[usize::from(terms.first)..=usize::from(terms.last)].iter().sum();
        price::span(&terms.ask, share, count, &session.terms)
    }

    fn pay_voucher(&mut self, signed: &SignedVoucher, count: Count, parts: Parts) {
        let voucher = signed.voucher;
        let session = self.sessions.get_mut(&voucher.session).unwrap();
        let part = session.parts.get_mut(&voucher.deployment).unwrap();
        part.sequence = part.sequence.max(voucher.sequence);
        part.count = count;
        part.paid = add(part.paid, parts);
        let (provider, gateway) = (part.provider.clone(), session.gateway.clone());
        *self.available.entry(provider).or_default() += parts.provider;
        *self.available.entry(self.treasury.clone()).or_default() += parts.protocol;
        match gateway {
            Some(gateway) => *self.available.entry(gateway).or_default() += parts.gateway,
            None => assert_eq!(parts.gateway, 0),
        }
        let escrow = self.contracts.royalty_escrow.clone();
        self.burn(&escrow, parts.burn);
    }

    /// Each of the consents is for the highest sequence that was settled of an open allocation, and each is named once.
    fn are_consents(&self, number: u64, consents: &[Consent], now: u64) -> bool {
        let session = &self.sessions[&number];
        let mut named = vec![];
        consents.iter().all(|consent| {
            let part = session.parts.get(&consent.deployment).filter(|part| !part.closed);
            let is_new = !named.contains(&consent.deployment);
            named.push(consent.deployment);
            is_new && part.is_some_and(|part| !waits(part, now) && self.is_consent(number, consent, part))
        })
    }

    fn is_consent(&self, number: u64, consent: &Consent, part: &Allotted) -> bool {
        let expected = CloseConsent {
            session: number,
            deployment: consent.deployment,
            sequence: part.sequence,
        };
        let host = fxn_tests::host_of(&part.host_key);
        consent.signature == host.sign(&expected.digest(&self.escrow_domain()))
    }

    /// Whether an owner's `CloseSession` goes through.
    pub(super) fn closes(&self, sender: &str, number: u64, consents: &[Consent], now: u64) -> bool {
        let Some(session) = self.sessions.get(&number).filter(|session| session.owner == sender) else {
            return false;
        };
        let mut open = session.open();
        let stays = open.any(|(_, part)| part.closes_at.is_none());
        session.open().count() > 0 && self.are_consents(number, consents, now) && (stays || !consents.is_empty())
    }

    pub(super) fn close_session(&mut self, number: u64, consents: &[Consent], now: u64) {
        for consent in consents {
            self.close_part(number, consent.deployment, now);
        }
        let session = self.sessions.get_mut(&number).unwrap();
        let closes_at = now + session.notice;
        for part in session.parts.values_mut().filter(|part| !part.closed) {
            part.closes_at.get_or_insert(closes_at);
        }
    }

    /// Whether a provider's `LeaveSession` goes through.
    pub(super) fn leaves(&self, sender: &str, number: u64, deployment: u64, now: u64) -> bool {
        let session = self.sessions.get(&number);
        let part = session.and_then(|session| session.parts.get(&deployment));
        part.is_some_and(|part| !part.closed && !waits(part, now) && part.provider == sender)
    }

    /// Allocations of a session whose dates have passed.
    pub(super) fn due(&self, number: u64, now: u64) -> Vec<u64> {
        let Some(session) = self.sessions.get(&number) else {
            return vec![];
        };
        let due = session.open().filter(|(_, part)| now > session.date(part));
        due.map(|(deployment, _)| *deployment).collect()
    }

    pub(super) fn finalise(&mut self, number: u64, now: u64) {
        for deployment in self.due(number, now) {
            self.close_part(number, deployment, now);
        }
    }

    /// The provider has its slot paid up to the date, the owner the rest.
    pub(super) fn close_part(&mut self, number: u64, deployment: u64, now: u64) {
        let session = self.sessions.get_mut(&number).unwrap();
        let part = &session.parts[&deployment];
        let until = now.min(session.kept_until(part));
        let earned = keeping(part.per_hour, until - part.joined_at);
        let back = part.amount - part.paid.total() + part.reservation - earned;
        let (owner, provider) = (session.owner.clone(), part.provider.clone());
        session.parts.get_mut(&deployment).unwrap().closed = true;
        *self.available.entry(provider).or_default() += earned;
        *self.available.entry(owner).or_default() += back;
    }
}

fn waits(part: &Allotted, now: u64) -> bool {
    part.waits_until.is_some_and(|until| now <= until)
}

fn add(first: Parts, second: Parts) -> Parts {
    Parts {
        provider: first.provider + second.provider,
        protocol: first.protocol + second.protocol,
        burn: first.burn + second.burn,
        royalty: first.royalty + second.royalty,
        gateway: first.gateway + second.gateway,
    }
}

/// What is still due of a cumulative amount: royalty and gateway in the parts of the price, of compute the fees, the provider the rest.
fn divide(amount: u128, paid: &Parts, whole: &Parts, terms: &Terms) -> Parts {
    let mut open = amount - paid.total();
    let mut take = |due: u128, before: u128| {
        let part = due.saturating_sub(before).min(open);
        open -= part;
        part
    };
    let total = whole.total().max(1);
    let royalty = take(amount * whole.royalty / total, paid.royalty);
    let gateway = take(amount * whole.gateway / total, paid.gateway);
    let compute = amount - paid.royalty - royalty - paid.gateway - gateway;
    let protocol = take(compute * u128::from(terms.fees.protocol_bps) / 10_000, paid.protocol);
    let burn = take(compute * u128::from(terms.fees.burn_bps) / 10_000, paid.burn);
    Parts {
        provider: open,
        protocol,
        burn,
        royalty,
        gateway,
    }
}
