//! The deployment, step by step, so that it may be stopped anywhere and gone on with.
//!
//! Guarantees:
//! - However often it is stopped and started again, each contract is made once. Two things see to that: a transaction stands in the
//!   journal before it is sent, and every transaction of a step is signed for the sequence that the newest block asks for, so that of
//!   those that might still come at most one ever does.
//! - A step is given up for another try only when the chain shows that none of its transactions can be in a block any more.
//! - Every wait has an end; what is then still open is told, and the next run looks again.

use std::collections::BTreeMap;

use anyhow::{bail, ensure, Context as _};
use client::{Call, ClientError, Contracts, TxHash, TxOutcome};

use super::{
    artifacts::Artifacts,
    chain::Chain,
    journal::{Attempt, Done, Journal, Step},
    plan::{Inputs, Kind},
};

/// Looks for a transaction that was sent: a minute and more.
const LOOKS_MAX: u32 = 400;
/// Looks for a transaction whose sequence is used up: a node's index may be a second behind its state.
const LOOKS_BEHIND: u32 = 50;
/// Calls of one wait that a node may leave unanswered.
const UNANSWERED_MAX: u32 = 100;
/// Looks that take as long as a block or two.
const LOOKS_BETWEEN: u32 = 10;
/// Transactions that are signed for one step in one run.
const TRIES: u32 = 5;

/// What was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) contracts: Contracts,
    /// Transactions that this run has sent, and the gas they have used.
    pub(crate) transactions: u32,
    pub(crate) gas_used: u64,
}

#[derive(Debug)]
pub(crate) struct Deployment<'a, C> {
    pub(crate) chain: &'a C,
    pub(crate) inputs: &'a Inputs,
    pub(crate) artifacts: &'a Artifacts,
    pub(crate) journal: &'a mut Journal,
    transactions: u32,
    gas_used: u64,
}

impl<'a, C: Chain> Deployment<'a, C> {
    pub(crate) fn new(chain: &'a C, inputs: &'a Inputs, artifacts: &'a Artifacts, journal: &'a mut Journal) -> Self {
        Self {
            chain,
            inputs,
            artifacts,
            journal,
            transactions: 0,
            gas_used: 0,
        }
    }

    /// Does what is left to do. `told` hears of each step.
    pub(crate) async fn run(mut self, told: impl Fn(Step)) -> anyhow::Result<Made> {
        let mut codes = BTreeMap::new();
        for kind in self.inputs.kinds() {
            told(Step::Store(kind));
            codes.insert(kind, self.store(kind).await?);
        }
        let mut made = BTreeMap::new();
        for kind in self.inputs.kinds() {
            told(Step::Instantiate(kind));
            let code_id = codes.get(&kind).copied().unwrap_or_default();
            let address = self.instantiate(kind, code_id, &made).await?;
            made.insert(kind, address);
        }
        let contracts = contracts(&made)?;
        told(Step::Wire);
        let calls = self.inputs.wire(&contracts)?;
        self.perform(Step::Wire, &calls, |_| Some(Done::Wired)).await?;
        Ok(Made {
            contracts,
            transactions: self.transactions,
            gas_used: self.gas_used,
        })
    }

    /// The code's number: of one that is there already, else of one that is stored now.
    async fn store(&mut self, kind: Kind) -> anyhow::Result<u64> {
        let step = Step::Store(kind);
        let artifact = self.artifacts.of(kind);
        // Storing twice would do no harm but cost, so what is there decides and not what was sent.
        if self.journal.done(step).is_none() && self.journal.attempts(step).is_empty() {
            if let Some(code_id) = self.chain.find_code(&artifact.checksum).await? {
                self.journal.finish(step, Done::CodeId(code_id))?;
            }
        }
        let calls = match self.journal.done(step) {
            Some(_) => vec![],
            None => vec![Call::StoreCode {
                wasm: artifact.zipped()?,
            }],
        };
        let code_id = |outcome: &TxOutcome| {
            let number = outcome.attribute("store_code", "code_id")?;
            number.parse().ok().map(Done::CodeId)
        };
        match self.perform(step, &calls, code_id).await? {
            Done::CodeId(code_id) => Ok(code_id),
            other => bail!("{step} came to {other:?}"),
        }
    }

    async fn instantiate(&mut self, kind: Kind, code_id: u64, made: &BTreeMap<Kind, String>) -> anyhow::Result<String> {
        let step = Step::Instantiate(kind);
        let call = self.inputs.instantiate(kind, code_id, made)?;
        let address = |outcome: &TxOutcome| {
            let address = outcome.attribute("instantiate", "_contract_address")?;
            Some(Done::Address(address.to_owned()))
        };
        match self.perform(step, &[call], address).await? {
            Done::Address(address) => Ok(address),
            other => bail!("{step} came to {other:?}"),
        }
    }

    /// Sees one step through: what was sent before is looked for, and only if it can be in no block is it sent anew.
    async fn perform(
        &mut self,
        step: Step,
        calls: &[Call],
        read: impl Fn(&TxOutcome) -> Option<Done>,
    ) -> anyhow::Result<Done> {
        if let Some(done) = self.journal.done(step) {
            return Ok(done.clone());
        }
        let mut looks = 0;
        for _ in 0..TRIES {
            if let Some(outcome) = self.settle(step, looks).await? {
                return self.conclude(step, outcome, read);
            }
            looks = LOOKS_MAX;
            let signed = match self.chain.prepare(calls).await {
                // Something of this account is on its way; the next look shows what.
                Err(ClientError::SequenceMismatch { .. }) => {
                    self.let_blocks_pass().await;
                    continue;
                }
                Err(error) => match self.settle(step, 0).await? {
                    Some(outcome) => return self.conclude(step, outcome, read),
                    None => return Err(self.failed(step, error)),
                },
                Ok(signed) => signed,
            };
            let (hash, sequence) = (signed.hash, signed.sequence);
            // One of those sent before came into a block since they were looked for: beside this one there would be two.
            if self.journal.attempts(step).iter().any(|open| open.sequence != sequence) {
                continue;
            }
            self.journal.attempt(step, Attempt { hash, sequence })?;
            match self.chain.broadcast(&signed).await {
                Ok(()) => self.transactions = self.transactions.saturating_add(1),
                // The node has another transaction of this account with this sequence: one of ours, or somebody else's.
                Err(ClientError::SequenceMismatch { .. }) => {}
                // It may have come through: the next run looks.
                Err(error) => return Err(self.failed(step, error)),
            }
        }
        if let Some(outcome) = self.settle(step, looks).await? {
            return self.conclude(step, outcome, read);
        }
        bail!("{step} failed: other transactions of this account come in between again and again; stop them and run this again")
    }

    /// The transaction of a step that is in a block, after at most so many looks where one may still come. None: none is, and none that
    /// was sent before can come beside one that is signed now.
    async fn settle(&mut self, step: Step, looks: u32) -> anyhow::Result<Option<TxOutcome>> {
        let attempts = self.journal.attempts(step).to_vec();
        let Some(first) = attempts.first() else {
            return Ok(None);
        };
        let (mut behind, mut unanswered): (u32, u32) = (0, 0);
        // What is in a block stays there: it is not asked for again.
        let mut found: Vec<TxOutcome> = vec![];
        for look in 0.. {
            let sequence = match self.look(&attempts, &mut found).await {
                // A node may be away for a moment while it is waited for, and while the index is given its time.
                Err(error) if error.is_transient() && (look < looks || (1..=LOOKS_BEHIND).contains(&behind)) => {
                    unanswered = unanswered.saturating_add(1);
                    ensure!(unanswered <= UNANSWERED_MAX, error);
                    self.chain.pause().await;
                    continue;
                }
                looked => looked?,
            };
            if let Some(success) = found.iter().position(|outcome| outcome.code == 0) {
                return Ok(Some(found.swap_remove(success)));
            }
            let newest = attempts
                .iter()
                .map(|attempt| attempt.sequence)
                .max()
                .unwrap_or_default();
            ensure!(
                attempts.iter().all(|attempt| attempt.sequence <= sequence),
                "{step} was sent with sequence {newest}, and the chain is at {sequence}: the chain was started anew or the node is \
                 behind; if it is another chain, remove {}",
                self.journal.path().display()
            );
            if sequence > newest {
                behind = behind.saturating_add(1);
                // One that failed may have failed because another has used its sequence: that one has to be seen too.
                if missing(&attempts, &found).is_empty() || behind > LOOKS_BEHIND {
                    let failure = found.pop();
                    if failure.is_none() {
                        self.journal.forget(step)?;
                    }
                    return Ok(failure);
                }
            } else if look >= looks {
                // Whatever is signed now has the same sequence, so it and these exclude each other.
                ensure!(
                    looks == 0,
                    "{step} is in doubt: transaction {} is in no block so far; run the command again, and it will be looked for",
                    first.hash
                );
                return Ok(None);
            }
            self.chain.pause().await;
        }
        Ok(None)
    }

    /// The account's sequence; those that have come into a block are put to what was found. The sequence first: what is missing
    /// afterwards was missing when the sequence was used up, but for the index.
    async fn look(&self, attempts: &[Attempt], found: &mut Vec<TxOutcome>) -> Result<u64, ClientError> {
        let sequence = self.chain.sequence().await?;
        for hash in missing(attempts, found) {
            found.extend(self.chain.find(hash).await?);
        }
        Ok(sequence)
    }

    async fn let_blocks_pass(&self) {
        for _ in 0..LOOKS_BETWEEN {
            self.chain.pause().await;
        }
    }

    /// A refusal with its step, and with what helps where that is known.
    fn failed(&self, step: Step, error: ClientError) -> anyhow::Error {
        let is_forbidden =
            matches!(&error, ClientError::Refused { message, .. } if message.contains("can not create code"));
        let error = anyhow::Error::new(error);
        match step {
            Step::Store(_) if is_forbidden => error.context(format!(
                "{step} failed: this chain does not let {} store code, so ask whoever may (governance, on many chains) to store the \
                 artifacts; code that is there is found by its checksum",
                self.inputs.deployer
            )),
            _ => error.context(format!("{step} failed")),
        }
    }

    /// A transaction that is in a block has done its step, or has failed and done nothing.
    fn conclude(
        &mut self,
        step: Step,
        outcome: TxOutcome,
        read: impl Fn(&TxOutcome) -> Option<Done>,
    ) -> anyhow::Result<Done> {
        self.gas_used = self.gas_used.saturating_add(outcome.gas_used);
        let outcome = match outcome.into_result() {
            Ok(outcome) => outcome,
            Err(error) => {
                self.journal.forget(step)?;
                return Err(self.failed(step, error));
            }
        };
        let done = read(&outcome).with_context(|| format!("transaction {} tells nothing of {step}", outcome.hash))?;
        self.journal.finish(step, done.clone())?;
        Ok(done)
    }
}

fn missing(attempts: &[Attempt], found: &[TxOutcome]) -> Vec<TxHash> {
    let hashes = attempts.iter().map(|attempt| attempt.hash);
    hashes
        .filter(|hash| found.iter().all(|outcome| outcome.hash != *hash))
        .collect()
}

fn contracts(made: &BTreeMap<Kind, String>) -> anyhow::Result<Contracts> {
    let address = |kind: Kind| made.get(&kind).cloned().with_context(|| format!("no {}", kind.name()));
    Ok(Contracts {
        func_token: address(Kind::Token)?,
        model_registry: address(Kind::Registry)?,
        provider_staking: address(Kind::Staking)?,
        royalty_escrow: address(Kind::Escrow)?,
        job_orchestrator: address(Kind::Orchestrator)?,
        randomness_beacon: made.get(&Kind::Beacon).cloned(),
        audit_court: None,
    })
}
