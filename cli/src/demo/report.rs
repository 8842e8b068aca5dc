//! What the demonstration ends with. The JSON form is a promise.

use std::{collections::BTreeMap, fmt};

use client::Validator;
use schema::{
    escrow::{Holder, Reason},
    orchestrator::{ItemResponse, JobResponse},
    Event,
};
use serde::Serialize;
use serde_json::Value;

use super::{
    checker::{Books, Facts},
    facts::Placed,
    processes::Told,
};
use crate::{
    amount::Func,
    job,
    output::{bold, green, Table},
};

/// All amounts in ufunc.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Vectors of job 1, one a sentence.
    pub(crate) embeddings: Vec<Vec<f32>>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) ledger: Vec<Line>,
    /// Whether everything added up; the demonstration fails where it does not.
    pub(crate) conserved: bool,
    pub(crate) chain: ChainTold,
    pub(crate) balances: BTreeMap<&'static str, Balance>,
    pub(crate) processes: Vec<Told>,
    pub(crate) events: Vec<Value>,
    pub(crate) seconds: f64,
    /// Largest difference of a value from the independent implementation.
    pub(crate) largest_difference: f32,
    /// Which network file, for commands in a second terminal.
    pub(crate) network: String,
}

/// The chain that it was played on, as its nodes tell at the end.
#[derive(Debug, Serialize)]
pub(crate) struct ChainTold {
    pub(crate) chain_id: String,
    /// Of the application of the node that was asked.
    pub(crate) app_version: String,
    pub(crate) validators: Vec<Validator>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Job {
    pub(crate) job: u64,
    pub(crate) status: &'static str,
    pub(crate) shards: usize,
    pub(crate) replicas: u8,
    pub(crate) paid: Func,
    pub(crate) items: Vec<ItemResponse>,
}

/// A session that was used and has ended.
#[derive(Debug, Serialize)]
pub(crate) struct Session {
    pub(crate) session: u64,
    /// Requests that were answered, and texts in them.
    pub(crate) requests: usize,
    pub(crate) texts: usize,
    /// For all of them, in ufunc.
    pub(crate) paid: Func,
    /// Vouchers that were settled: one for each host is enough, however many requests there were.
    pub(crate) settlements: usize,
    /// Allocations that were closed at once, because their hosts consented.
    pub(crate) consents: usize,
    /// Allocations that were closed after the notice.
    pub(crate) notices: usize,
}

/// Who got how much, and why.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) account: String,
    /// Address or model.
    pub(crate) holder: String,
    pub(crate) reason: Reason,
    pub(crate) amount: Func,
}

#[derive(Debug, Serialize)]
pub(crate) struct Balance {
    pub(crate) cw20_balance: Func,
    pub(crate) ledger_sum: Func,
}

impl From<Books> for Balance {
    fn from(books: Books) -> Self {
        Self {
            cw20_balance: Func(books.cw20_balance),
            ledger_sum: Func(books.ledger_sum),
        }
    }
}

pub(crate) fn jobs(facts: &Facts) -> Vec<Job> {
    let told = |found: &JobResponse| Job {
        job: found.job,
        status: job::status(found.status),
        shards: found.shards.len(),
        replicas: found.replicas,
        paid: found.paid.into(),
        items: facts
            .items
            .iter()
            .filter(|item| item.item.job == found.job)
            .cloned()
            .collect(),
    };
    facts.jobs.iter().map(told).collect()
}

/// Sums of all credits by account and reason.
pub(crate) fn ledger(facts: &Facts, names: &BTreeMap<String, String>) -> Vec<Line> {
    let mut sums: BTreeMap<(String, Reason), u128> = BTreeMap::new();
    for event in &facts.events {
        if let Event::Credited {
            holder, reason, amount, ..
        } = event
        {
            let sum = sums.entry((holder.to_string(), *reason)).or_default();
            *sum = sum.saturating_add(amount.u128());
        }
    }
    let line = |((holder, reason), amount): ((String, Reason), u128)| Line {
        account: names.get(&holder).cloned().unwrap_or_else(|| holder.clone()),
        holder,
        reason,
        amount: Func(amount),
    };
    let mut lines: Vec<Line> = sums.into_iter().map(line).collect();
    lines.sort_by(|a, b| (&a.account, a.reason).cmp(&(&b.account, b.reason)));
    lines
}

/// An event's fields with where it stands.
pub(crate) fn event(placed: &Placed) -> Value {
    let mut value = serde_json::to_value(&placed.event).unwrap_or(Value::Null);
    if let Value::Object(fields) = &mut value {
        fields.insert("height".into(), placed.height.into());
        fields.insert("tx_hash".into(), placed.hash.to_string().into());
    }
    value
}

/// The name of a model's holder, as the ledger has it.
pub(crate) fn model_holder(model: &schema::ModelId) -> String {
    Holder::Model(model.clone()).to_string()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", bold("Who earned what"))?;
        let mut table = Table::new(["account", "reason", ">FUNC"]);
        for line in &self.ledger {
            table.row([line.account.clone(), line.reason.to_string(), line.amount.column()]);
        }
        writeln!(f, "{table}")?;
        let mut books = Table::new(["contract", ">FUNC by the token", ">FUNC by its books"]);
        for (contract, balance) in &self.balances {
            books.row([
                (*contract).to_owned(),
                balance.cw20_balance.column(),
                balance.ledger_sum.column(),
            ]);
        }
        writeln!(f, "{books}")?;
        for job in &self.jobs {
            let Job {
                job,
                status,
                shards,
                replicas,
                paid,
                ..
            } = job;
            writeln!(
                f,
                "job {job}: {status}, {shards} shards x {replicas} replicas, {paid} FUNC paid"
            )?;
        }
        for session in &self.sessions {
            let Session {
                session,
                requests,
                paid,
                settlements,
                ..
            } = session;
            writeln!(
                f,
                "session {session}: {requests} requests, {settlements} vouchers settled, {paid} FUNC paid"
            )?;
        }
        writeln!(
            f,
            "{} embeddings, bit-equal to the unsplit graph, within {:.1e} of an independent implementation",
            self.embeddings.len(),
            self.largest_difference
        )?;
        let ChainTold {
            chain_id,
            app_version,
            validators,
        } = &self.chain;
        let heights: Vec<String> = validators
            .iter()
            .map(|validator| format!("{} at {}", validator.moniker, validator.height))
            .collect();
        writeln!(f, "chain {chain_id}, application {app_version}, {}", heights.join(", "))?;
        let (told, seconds) = (
            green("every amount was recomputed from chain data and adds up"),
            self.seconds,
        );
        write!(
            f,
            "{told}; {} events, {} processes, {seconds:.1} s",
            self.events.len(),
            self.processes.len()
        )
    }
}
