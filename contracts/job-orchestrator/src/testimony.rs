//! Taking in what hosts have signed: attestations while there is time, evidence when there is none left.

use schema::{
    orchestrator::{ItemResult, ItemStatus},
    receipt::{Attestation, Domain, Link},
    Event, ItemId,
};

use crate::{
    course::Course,
    proof::{Assignment, Refusal, Verify},
    state::{load_item, load_links, Item, Job, DUE, ITEMS, JOBS, LINKS, SHARDS},
    ContractError,
};

impl Course<'_> {
    /// Takes proof of an item. A refusal changes nothing and is announced; only a broken store is an error.
    pub(crate) fn attest(
        &mut self,
        attestation: &Attestation,
        domain: &Domain,
        verify: Verify<'_>,
    ) -> Result<bool, ContractError> {
        let Attestation { item, attempt, .. } = *attestation;
        match self.proven(attestation, domain, verify)? {
            Ok(result) => {
                let mut proven = load_item(self.storage, item)?;
                DUE.remove(self.storage, (proven.evidence_until, item.key()));
                proven.status = ItemStatus::Attested { result };
                ITEMS.save(self.storage, item.key(), &proven)?;
                LINKS.save(self.storage, (item.key(), attempt), &attestation.links)?;
                self.announce(Event::Attested {
                    item,
                    attempt,
                    output_digest: result.output_digest,
                    units_in: result.units.units_in,
                    units_out: result.units.units_out,
                });
                Ok(true)
            }
            Err(refusal) => {
                self.announce(Event::AttestationRefused {
                    item,
                    attempt,
                    reason: refusal.to_string(),
                });
                Ok(false)
            }
        }
    }

    fn proven(
        &self,
        attestation: &Attestation,
        domain: &Domain,
        verify: Verify<'_>,
    ) -> Result<Result<ItemResult, Refusal>, ContractError> {
        let id = attestation.item;
        let Some(item) = ITEMS.may_load(self.storage, id.key())? else {
            return Ok(Err(Refusal::NoItem));
        };
        if !item.is_assigned() {
            return Ok(Err(Refusal::NotAssigned));
        }
        if item.attempt != attestation.attempt {
            return Ok(Err(Refusal::OtherAttempt { current: item.attempt }));
        }
        let job = JOBS.load(self.storage, id.job)?;
        let latest = item.deadline.saturating_add(job.params.grace_seconds);
        if self.is_past(&item, &job, latest) {
            return Ok(Err(Refusal::TooLate { latest, now: self.now }));
        }
        let assignment = self.assignment(id, &item, &job, domain)?;
        Ok(assignment.check_complete(&attestation.links, verify))
    }

    fn assignment<'b>(
        &self,
        id: ItemId,
        item: &'b Item,
        job: &Job,
        domain: &'b Domain,
    ) -> Result<Assignment<'b>, ContractError> {
        let shard = SHARDS.load(self.storage, (id.job, id.shard))?;
        Ok(Assignment {
            domain,
            item: id,
            attempt: item.attempt,
            spans: &item.spans,
            root: shard.root,
            units_max: job.units(shard.rows),
        })
    }

    /// Keeps links of an overdue item if they prove more than what is known.
    pub(crate) fn post_evidence(
        &mut self,
        id: ItemId,
        attempt: u8,
        links: &[Link],
        domain: &Domain,
        verify: Verify<'_>,
    ) -> Result<(), ContractError> {
        let item = load_item(self.storage, id)?;
        let now = self.now;
        if !item.is_assigned() {
            return Err(ContractError::NotAssigned { item: id });
        }
        if item.attempt != attempt {
            return Err(ContractError::OtherAttempt {
                item: id,
                attempt,
                current: item.attempt,
            });
        }
        let Item {
            deadline,
            evidence_until,
            ..
        } = item;
        if now <= deadline {
            return Err(ContractError::EvidenceEarly { deadline, now });
        }
        let job = JOBS.load(self.storage, id.job)?;
        if self.is_past(&item, &job, evidence_until) {
            return Err(ContractError::EvidenceLate { evidence_until, now });
        }
        self.assignment(id, &item, &job, domain)?.check_prefix(links, verify)?;
        let known = load_links(self.storage, id, attempt)?;
        if weight(links) <= weight(&known) {
            return Err(ContractError::NothingNew { receipts: links.len() });
        }
        LINKS.save(self.storage, (id.key(), attempt), &links.to_vec())?;
        // A chain has at most 32 spans.
        let spans = u8::try_from(links.len()).unwrap_or(u8::MAX);
        self.announce(Event::EvidencePosted {
            item: id,
            attempt,
            spans,
        });
        Ok(())
    }
}

/// How much links prove: more receipts first, then the acknowledgement of the last one.
fn weight(links: &[Link]) -> (usize, bool) {
    let acknowledged = links.last().is_some_and(|link| link.acknowledgement.is_some());
    (links.len(), acknowledged)
}
