//! One request on its way over one chain: what each host has said about it, who is paid for it, and who is at fault.
//!
//! Guarantees:
//! - A host is paid only for a receipt that its pinned key has signed, for this request, with the units that the client has counted itself,
//!   and whose input is the output of the host before it; the last one only once the rows are here and are what its receipt says.
//! - Each host is paid at most once, whatever it repeats.
//! - A receipt that comes after the client has given up is still paid: the work was done.
//!
//! Pure: what follows from a message is returned as [`Effect`]s.

use prost::bytes::Bytes;
use schema::{
    merkle,
    price::Units,
    receipt::{Domain, Outcome},
    session::SignedSessionReceipt,
    Digest, PublicKey,
};

use crate::proto::Code;

/// What a host has said.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Nothing,
    /// Signed as it should be; whether it fits to what others said is open.
    Stated(SignedSessionReceipt),
    /// Checked, and owed.
    Paid(SignedSessionReceipt),
    Refused {
        code: Code,
        reason: String,
        retry_after_ms: u32,
    },
    /// What no honest host says.
    Wrong(String),
    /// Its stream has ended.
    Lost,
    /// Another stream has begun since.
    Forgotten,
}

/// Where a host stands in the chain.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) deployment: u64,
    pub(super) host_key: PublicKey,
    pub(super) said: Said,
    /// Whether money is still set aside for it.
    pub(super) is_reserved: bool,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// The host at this place has earned the units of the request.
    Pay(usize),
    /// It has done its part as far as can be told; another one has broken the chain.
    Concede(usize),
    /// Nothing needs to be set aside for it any more.
    Release(usize),
    /// Everybody has done his part, and the output is here.
    Done,
    /// The request will not be answered over this chain.
    Failed(Fault),
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// No host would take it.
    Request(String),
    /// These may be at fault; false: they only did not do it, true: they lied.
    Hosts {
        deployments: Vec<u64>,
        is_lie: bool,
        reason: String,
    },
    /// It has no room now.
    Busy {
        deployment: u64,
        retry_after_ms: u32,
        reason: String,
    },
    /// It wants to be paid for something first.
    Credit { deployment: u64, reason: String },
    /// It takes nothing any more in this session.
    Over { deployment: u64, reason: String },
}

#[derive(Debug)]
pub(super) struct Attempt {
    domain: Domain,
    session: u64,
    pub(super) number: u64,
    pub(super) legs: Vec<Leg>,
    /// Root over the rows that went out.
    digest: Digest,
    pub(super) units: Units,
    /// Rows of the output.
    pub(super) output: Vec<Bytes>,
    output_bytes: usize,
    output_bytes_max: usize,
    /// The client does not wait any more.
    pub(super) is_over: bool,
}

impl Leg {
    /// Whether it may still be at work.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.said, Said::Nothing)
    }
}

impl Fault {
    /// A sentence for people.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Request(reason)
            | Self::Hosts { reason, .. }
            | Self::Busy { reason, .. }
            | Self::Credit { reason, .. }
            | Self::Over { reason, .. } => reason,
        }
    }
}

impl Attempt {
    /// `chain` from the first stage to the last.
    pub(super) fn new(
        (domain, session): (Domain, u64),
        number: u64,
        chain: impl IntoIterator<Item = (u64, PublicKey)>,
        (digest, units): (Digest, Units),
        output_bytes_max: usize,
    ) -> Self {
        let leg = |(deployment, host_key)| Leg {
            deployment,
            host_key,
            said: Said::Nothing,
            is_reserved: true,
        };
        Self {
            domain,
            session,
            number,
            legs: chain.into_iter().map(leg).collect(),
            digest,
            units,
            output: vec![],
            output_bytes: 0,
            output_bytes_max,
            is_over: false,
        }
    }

    fn place(&self, deployment: u64) -> Option<usize> {
        self.legs.iter().position(|leg| leg.deployment == deployment)
    }

    /// Everybody is paid.
    pub(super) fn is_done(&self) -> bool {
        self.legs.iter().all(|leg| matches!(leg.said, Said::Paid(_)))
    }

    /// Nobody will say anything any more that matters.
    pub(super) fn is_silent(&self) -> bool {
        self.legs
            .iter()
            .all(|leg| !matches!(leg.said, Said::Nothing | Said::Stated(_)))
    }

    /// A receipt for this number, from the stream of this deployment.
    pub(super) fn receipt(&mut self, deployment: u64, signed: SignedSessionReceipt) -> Vec<Effect> {
        let Some(place) = self.place(deployment) else {
            return vec![];
        };
        let checked = self.check(place, &signed);
        let Some(leg) = self.legs.get_mut(place) else {
            return vec![];
        };
        match (&leg.said, checked) {
            // Also after it has refused, or its stream was lost: done is done.
            (Said::Nothing | Said::Lost | Said::Refused { .. }, Ok(())) => leg.said = Said::Stated(signed),
            (Said::Nothing | Said::Lost, Err(reason)) => leg.said = Said::Wrong(reason),
            // What it says twice is worth nothing, and what it takes back neither.
            _ => return vec![],
        }
        self.advance()
    }

    fn check(&self, place: usize, signed: &SignedSessionReceipt) -> Result<(), String> {
        let SignedSessionReceipt { receipt, signature } = signed;
        let leg = self.legs.get(place).ok_or("it has no part in the request")?;
        if receipt.domain != self.domain {
            return Err("its receipt is for another chain or contract".into());
        }
        if (receipt.session, receipt.deployment, receipt.sequence) != (self.session, leg.deployment, self.number) {
            return Err("its receipt is for another request".into());
        }
        let Outcome::Done = receipt.outcome;
        let (found, counted) = (
            (receipt.units_in, receipt.units_out),
            (self.units.units_in, self.units.units_out),
        );
        if found != counted {
            return Err(format!(
                "its receipt has {} units in and {} out, the request has {} and {}",
                found.0, found.1, counted.0, counted.1
            ));
        }
        match client::verify_digest(leg.host_key.as_bytes(), &receipt.digest().0, signature.as_bytes()) {
            true => Ok(()),
            false => Err("its receipt is not signed by the key that the session has pinned".into()),
        }
    }

    /// A row of the output, from the stream of this deployment.
    pub(super) fn row(&mut self, deployment: u64, bytes: Bytes) -> Vec<Effect> {
        if self.is_over {
            return vec![];
        }
        let last = self.legs.len().saturating_sub(1);
        let Some(place) = self.place(deployment) else {
            return vec![];
        };
        if place != last {
            return self.wrong(place, "it sent an output, which is the last one's part".into());
        }
        self.output_bytes = self.output_bytes.saturating_add(bytes.len());
        let rows = u64::try_from(self.output.len()).unwrap_or(u64::MAX);
        if rows >= self.units.requests {
            return self.wrong(
                place,
                format!("it sent more than the {} rows of the request", self.units.requests),
            );
        }
        if self.output_bytes > self.output_bytes_max {
            return self.wrong(
                place,
                format!("its output has more than {} bytes", self.output_bytes_max),
            );
        }
        self.output.push(bytes);
        self.advance()
    }

    pub(super) fn refused(&mut self, deployment: u64, code: Code, reason: String, retry_after_ms: u32) -> Vec<Effect> {
        let Some(place) = self.place(deployment) else {
            return vec![];
        };
        let said = Said::Refused {
            code,
            reason,
            retry_after_ms,
        };
        self.ended(place, said)
    }

    /// A new stream has told everything that this deployment has counted: what it says of this request later is counted already.
    pub(super) fn forget(&mut self, deployment: u64) {
        let legs = self.legs.iter_mut().filter(|leg| leg.deployment == deployment);
        for leg in legs.filter(|leg| leg.said == Said::Lost) {
            leg.said = Said::Forgotten;
        }
    }

    /// The stream of this deployment has ended.
    pub(super) fn lost(&mut self, deployment: u64) -> Vec<Effect> {
        self.place(deployment)
            .map_or_else(Vec::new, |place| self.ended(place, Said::Lost))
    }

    fn wrong(&mut self, place: usize, reason: String) -> Vec<Effect> {
        self.ended(place, Said::Wrong(reason))
    }

    fn ended(&mut self, place: usize, said: Said) -> Vec<Effect> {
        let is_last = place == self.legs.len().saturating_sub(1);
        let Some(leg) = self.legs.get_mut(place) else {
            return vec![];
        };
        // A last host that has stated a result and does not hand it over has failed like any other.
        match &leg.said {
            Said::Nothing => leg.said = said,
            Said::Stated(_) if is_last && !self.is_over => leg.said = said,
            _ => return vec![],
        }
        self.advance()
    }

    /// Follows the chain of digests as far as it holds.
    fn advance(&mut self) -> Vec<Effect> {
        let mut effects = vec![];
        let mut input = self.digest;
        let count = self.legs.len();
        for place in 0..count {
            let is_last = place.saturating_add(1) == count;
            let Some(leg) = self.legs.get_mut(place) else { break };
            let signed = match &leg.said {
                Said::Paid(signed) => {
                    input = signed.receipt.output_digest;
                    continue;
                }
                Said::Stated(signed) => signed,
                _ => break,
            };
            if signed.receipt.request_digest != input {
                leg.said = Said::Wrong("its input is not what the host before it has signed as its output".into());
                break;
            }
            if is_last {
                if u64::try_from(self.output.len()).unwrap_or(u64::MAX) < self.units.requests {
                    break;
                }
                if merkle::root(&self.output) != signed.receipt.output_digest {
                    leg.said = Said::Wrong("its output is not what its receipt says".into());
                    break;
                }
            }
            input = signed.receipt.output_digest;
            leg.said = Said::Paid(signed.clone());
            if std::mem::take(&mut leg.is_reserved) {
                effects.push(Effect::Release(place));
            }
            effects.push(Effect::Pay(place));
        }
        for (place, leg) in self.legs.iter_mut().enumerate() {
            let has_ended = matches!(leg.said, Said::Refused { .. } | Said::Wrong(_) | Said::Lost);
            if has_ended && std::mem::take(&mut leg.is_reserved) {
                effects.push(Effect::Release(place));
            }
        }
        if !self.is_over {
            if self.legs.iter().all(|leg| matches!(leg.said, Said::Paid(_))) {
                self.is_over = true;
                effects.push(Effect::Done);
            } else if let Some(fault) = self.fault() {
                self.over();
                effects.push(Effect::Failed(fault));
            }
        }
        effects
    }

    /// The client does not wait any more.
    pub(super) fn over(&mut self) {
        self.is_over = true;
        self.output.clear();
    }

    /// Everybody has had time to say something. Who has stated what nobody before him can confirm has done his part as far as we know.
    pub(super) fn finish(&mut self) -> Vec<Effect> {
        self.over();
        let mut effects = vec![];
        let mut is_broken = false;
        let last = self.legs.len().saturating_sub(1);
        for (place, leg) in self.legs.iter_mut().enumerate() {
            let is_unlinked = is_broken && place != last && matches!(leg.said, Said::Stated(_));
            if std::mem::take(&mut leg.is_reserved) {
                effects.push(Effect::Release(place));
            }
            if is_unlinked {
                effects.push(Effect::Concede(place));
            }
            is_broken |= !matches!(leg.said, Said::Paid(_));
        }
        effects
    }

    /// Why it has failed, if it has.
    fn fault(&self) -> Option<Fault> {
        let faults = self
            .legs
            .iter()
            .enumerate()
            .filter_map(|(place, leg)| self.fault_of(place, leg));
        // A request at fault explains everything else.
        faults.min_by_key(|fault| match fault {
            Fault::Request(_) => 0,
            Fault::Hosts { is_lie: true, .. } => 1,
            _ => 2,
        })
    }

    fn fault_of(&self, place: usize, leg: &Leg) -> Option<Fault> {
        let deployment = leg.deployment;
        let at_fault = |deployments: Vec<u64>, is_lie, reason: &str| Fault::Hosts {
            deployments,
            is_lie,
            reason: format!("deployment {deployment}: {reason}"),
        };
        match &leg.said {
            Said::Nothing | Said::Stated(_) | Said::Paid(_) => None,
            Said::Wrong(reason) => Some(at_fault(vec![deployment], true, reason)),
            Said::Lost | Said::Forgotten => Some(at_fault(vec![deployment], false, "its stream has ended")),
            Said::Refused {
                code,
                reason,
                retry_after_ms,
            } => {
                let next = self.legs.get(place.saturating_add(1)).map(|next| next.deployment);
                let reason = format!("deployment {deployment}: {reason}");
                Some(match code {
                    Code::Invalid => Fault::Request(reason),
                    Code::Credit => Fault::Credit { deployment, reason },
                    Code::Session => Fault::Over { deployment, reason },
                    Code::Overloaded => Fault::Busy {
                        deployment,
                        retry_after_ms: *retry_after_ms,
                        reason,
                    },
                    // Which of the two it was cannot be told from here.
                    Code::Neighbour => Fault::Hosts {
                        deployments: next.map_or_else(|| vec![deployment], |next| vec![next]),
                        is_lie: false,
                        reason,
                    },
                    Code::Voucher | Code::Failed | Code::Late | Code::Unspecified => Fault::Hosts {
                        deployments: vec![deployment],
                        is_lie: false,
                        reason,
                    },
                })
            }
        }
    }

    /// Who keeps the others waiting.
    pub(super) fn slow(&self) -> u64 {
        let silent = self.legs.iter().find(|leg| matches!(leg.said, Said::Nothing));
        let waiting = silent.or_else(|| self.legs.last());
        waiting.map_or(0, |leg| leg.deployment)
    }

    /// The receipts, once it is done.
    pub(super) fn receipts(&self) -> Vec<SignedSessionReceipt> {
        let paid = self.legs.iter().filter_map(|leg| match &leg.said {
            Said::Paid(signed) => Some(signed.clone()),
            _ => None,
        });
        paid.collect()
    }
}
