//! What hosts do with an assignment: honestly, lazily, or lying. And what relayers make of it.

use cosmwasm_std::Uint128;
use schema::{
    orchestrator,
    orchestrator::{ItemResponse, ItemStatus, JobResponse},
    receipt::{
        Acknowledgement, Attestation, Domain, Link, Outcome as SpanOutcome, Receipt, SignedAcknowledgement,
        SignedReceipt,
    },
    staking::{Ended, ExecuteMsg, Occupation, Penalty, Vacancy},
    Digest, Event, ItemId, PublicKey, BATCH_MAX,
};

use crate::{Host, Outcome, Protocol, DEVELOPER, PROVIDERS};

/// Of no job.
const NOBODYS_ITEM: ItemId = ItemId {
    job: u64::MAX,
    shard: 0,
    replica: 0,
};

/// How a chain works on an item. All chains of a shard that work honestly come to the same boundaries, however they are cut.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    pub units_in: u64,
    pub units_out: u64,
    /// From this stage on the outputs are made up, in a way of its own for each number.
    pub lie: Option<(u8, u64)>,
}

impl Work {
    /// Every row computed, `units_in` tokens read.
    pub fn honest(units_in: u64) -> Self {
        Self {
            units_in,
            units_out: 0,
            lie: None,
        }
    }

    /// Outputs from `stage` on are made up.
    pub fn lying_from(self, stage: u8, lie: u64) -> Self {
        Self {
            lie: Some((stage, lie)),
            ..self
        }
    }

    fn boundary(&self, item: ItemId, stage: u8) -> Digest {
        let lie = self.lie.filter(|(from, _)| *from <= stage).map(|(_, lie)| lie);
        Digest::of(format!("{}.{} after {stage} {lie:?}", item.job, item.shard).as_bytes())
    }
}

impl Protocol {
    /// All links of the current attempt of an item.
    pub fn links(&self, item: ItemId, work: Work) -> Vec<Link> {
        self.links_with(item, work, |_, _, _| {})
    }

    /// As `links`, with every receipt and acknowledgement changed before it is signed.
    pub fn links_with(
        &self,
        id: ItemId,
        work: Work,
        change: impl Fn(usize, &mut Receipt, &mut Option<Acknowledgement>),
    ) -> Vec<Link> {
        links_of(&self.domain(), &self.job(id.job), &self.item(id), work, change)
    }

    /// An attestation of the current attempt.
    pub fn attestation(&self, item: ItemId, work: Work) -> Attestation {
        Attestation {
            item,
            attempt: self.item(item).attempt,
            links: self.links(item, work),
        }
    }

    /// Somebody's relayer submits attestations.
    pub fn attests(&mut self, attestations: Vec<Attestation>) -> Outcome {
        self.orchestrator(
            "relayer",
            &orchestrator::ExecuteMsg::SubmitAttestations { attestations },
        )
    }

    /// Proves one item.
    pub fn proves(&mut self, item: ItemId, work: Work) -> Vec<Event> {
        let attestation = self.attestation(item, work);
        self.attests(vec![attestation])
            .expect("attestations never fail as a whole")
    }

    /// Proves everything of a job that is open.
    pub fn proves_all(&mut self, job: u64, work: Work) -> Vec<Event> {
        let open: Vec<ItemId> = self
            .items(job)
            .into_iter()
            .filter(|item| item.status == ItemStatus::Assigned {})
            .map(|item| item.item)
            .collect();
        let mut events = vec![];
        for batch in open.chunks(BATCH_MAX) {
            let attestations = batch.iter().map(|item| self.attestation(*item, work)).collect();
            events.extend(self.attests(attestations).expect("attestations never fail as a whole"));
        }
        events
    }

    /// Somebody posts what hosts have signed.
    pub fn posts_evidence(&mut self, item: ItemId, links: Vec<Link>) -> Outcome {
        let attempt = self.item(item).attempt;
        self.orchestrator(
            "relayer",
            &orchestrator::ExecuteMsg::PostEvidence { item, attempt, links },
        )
    }

    /// Time passes until the deadline of an item is over and evidence is taken.
    pub fn deadline_passes(&mut self, item: ItemId) {
        let deadline = self.item(item).deadline;
        self.seconds_pass(deadline.saturating_sub(self.now()) + 1);
    }

    /// Time passes until an item may be expired.
    pub fn evidence_window_passes(&mut self, item: ItemId) {
        let evidence_until = self.item(item).evidence_until;
        self.seconds_pass(evidence_until.saturating_sub(self.now()) + 1);
    }

    /// The orchestrator names a provider's newest deployment as the culprit of as many misses as jail.
    pub fn jails(&mut self, name: &str) {
        let (deployments, item) = (vec![self.deployment_of(name)], NOBODYS_ITEM);
        let penalty = Penalty {
            deployment: deployments[0],
            price: Uint128::zero(),
            beneficiary: self.addr(DEVELOPER).into_string(),
            keeper: None,
        };
        let occupation = Occupation {
            item,
            deployments: deployments.clone(),
        };
        let vacancy = Vacancy {
            item,
            deployments,
            ended: Ended::Missed(penalty),
        };
        let (orchestrator, staking) = (
            self.contracts.job_orchestrator.clone(),
            self.contracts.provider_staking.clone(),
        );
        for _ in 0..self.params.staking.conduct.jail_strikes {
            for msg in [
                ExecuteMsg::Occupy {
                    items: vec![occupation.clone()],
                },
                ExecuteMsg::Vacate {
                    items: vec![vacancy.clone()],
                },
            ] {
                self.execute(&orchestrator, &staking, &msg)
                    .expect("the provider has a free slot");
            }
        }
    }

    /// A stranger expires an item.
    pub fn expires(&mut self, item: ItemId) -> Outcome {
        self.orchestrator("stranger", &orchestrator::ExecuteMsg::Expire { item })
    }
}

/// All links of the current attempt of an item, whatever chain it is on, with every receipt and acknowledgement changed before it is signed.
pub fn links_of(
    domain: &Domain,
    job: &JobResponse,
    item: &ItemResponse,
    work: Work,
    change: impl Fn(usize, &mut Receipt, &mut Option<Acknowledgement>),
) -> Vec<Link> {
    let hosts: Vec<Host> = item.spans.iter().map(|span| host_of(&span.host_key)).collect();
    links_by(&hosts, domain, job, item, work, change)
}

/// The same, signed by these hosts, one for each span.
pub(crate) fn links_by(
    hosts: &[Host],
    domain: &Domain,
    job: &JobResponse,
    item: &ItemResponse,
    work: Work,
    change: impl Fn(usize, &mut Receipt, &mut Option<Acknowledgement>),
) -> Vec<Link> {
    let shard = job.shards[usize::from(item.item.shard)];
    let mut links: Vec<Link> = vec![];
    for (index, (span, host)) in item.spans.iter().zip(hosts).enumerate() {
        let previous = links.last().map(|link| &link.receipt.receipt);
        let mut receipt = Receipt {
            domain: domain.clone(),
            item: item.item,
            attempt: item.attempt,
            deployment: span.deployment,
            first: span.first,
            last: span.last,
            input_digest: previous.map_or(shard.root, |previous| previous.output_digest),
            output_digest: work.boundary(item.item, span.last),
            tokens_digest: None,
            seed: None,
            units_in: work.units_in,
            units_out: work.units_out,
            outcome: SpanOutcome::Done,
            previous: previous.map(Receipt::digest),
        };
        let next = item.spans.get(index + 1);
        let mut acknowledgement = next.map(|next| Acknowledgement {
            domain: domain.clone(),
            item: item.item,
            attempt: item.attempt,
            deployment: next.deployment,
            input_digest: receipt.output_digest,
        });
        change(index, &mut receipt, &mut acknowledgement);
        let receiver = hosts.get(index + 1).unwrap_or(host);
        links.push(Link {
            receipt: SignedReceipt {
                signature: host.sign(&receipt.digest()),
                receipt,
            },
            acknowledgement: acknowledgement.map(|acknowledgement| SignedAcknowledgement {
                signature: receiver.sign(&acknowledgement.digest()),
                acknowledgement,
            }),
        });
    }
    links
}

/// Everybody in the stories can sign for every host, so that they can tell of every fraud.
pub fn host_of(key: &PublicKey) -> Host {
    let names = PROVIDERS
        .iter()
        .copied()
        .chain(["gina", "gus", "wanda", "walt", "omar", "mallory"]);
    names
        .map(Host::named)
        .find(|host| host.public_key() == *key)
        .expect("stories use providers whose hosts are known")
}

/// The events of one kind, in order.
pub fn found<T>(events: &[Event], pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
    events.iter().filter_map(pick).collect()
}
