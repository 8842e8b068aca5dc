//! What the hosts of a session have not answered, asked on chain: there silence costs them, and an answer nothing.

mod follow;

use std::{fmt, path::Path};

use anyhow::{anyhow, bail, ensure};
use clap::Args;
use client::{Account, Client, Forcing};
use cosmwasm_std::Binary;
use inference_host::request::Format;
use schema::{
    escrow::{AllocationState, SessionResponse},
    INLINE_BYTES_MAX,
};
use serde::Serialize;

use self::follow::Outcome;
use super::{chain_seconds, find, from_now};
use crate::{
    amount::Func,
    context::Context,
    embed::write_vectors,
    output::counted,
    progress::Progress,
    refusal::unless_interrupted,
    work::{order, texts},
};

#[derive(Debug, Args)]
pub(crate) struct Force {
    /// Number of the session
    session: u64,
    /// One text; or a file of texts as `fxn embed` takes it, - for stdin
    #[arg(value_name = "TEXT|FILE")]
    texts: String,
    /// These deployments of the session, one after the other from the first stage to the last [default: the cheapest chain that is open]
    #[arg(long, value_name = "DEPLOYMENT,...", value_delimiter = ',')]
    chain: Option<Vec<u64>>,
    /// Do not wait for the answer
    #[arg(long)]
    no_wait: bool,
}

/// The answer. Its JSON is a promise.
#[derive(Debug, Serialize)]
struct Forced {
    session: u64,
    /// The request is this job's only item.
    job: u64,
    /// Who is asked, from the first stage to the last.
    deployments: Vec<u64>,
    /// Held for the price and for the gas of an answer, in ufunc. What is not used comes back.
    held: Func,
    /// Block time in seconds: after it nobody is blamed any more.
    until: u64,
    tx_hash: String,
    height: u64,
    /// What it has come to; none if that was not waited for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip)]
    now: u64,
}

impl fmt::Display for Forced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, job, held, .. } = self;
        let chain = named(&self.deployments);
        match &self.outcome {
            None => {
                let when = from_now(self.until, self.now);
                writeln!(
                    f,
                    "Job {job} asks {chain} of session {session}, at the latest until {} ({when}); {held} FUNC are held.",
                    self.until
                )?;
                write!(
                    f,
                    "`fxn job watch {job}` follows it, `fxn job result {job}` fetches the answer."
                )
            }
            Some(Outcome::Answered { embeddings, price, .. }) => {
                write_vectors(f, embeddings)?;
                let texts = counted(embeddings.len(), "text");
                write!(
                    f,
                    "\n{texts} answered by {chain} as job {job}, {price} FUNC with the fee for an answer on chain"
                )
            }
            Some(Outcome::Missed {
                deployment,
                provider,
                penalty,
                refunded,
            }) => {
                writeln!(f, "Deployment {deployment} of {provider} has not answered job {job}.")?;
                writeln!(
                    f,
                    "It has paid you {penalty} FUNC, {refunded} came back, and it gets nothing for its slot since it was asked."
                )?;
                write!(
                    f,
                    "`fxn session show {session}` says when its part of the session comes back."
                )
            }
            Some(Outcome::Failed { refunded }) => write!(
                f,
                "Job {job} came to nothing, and nobody can be shown to be guilty; {refunded} FUNC came back.\n\
                 `fxn job show {job}` shows what is known, `fxn session force` asks once more."
            ),
        }
    }
}

fn named(deployments: &[u64]) -> String {
    let numbers: Vec<String> = deployments.iter().map(u64::to_string).collect();
    let what = if numbers.len() == 1 {
        "deployment"
    } else {
        "deployments"
    };
    format!("{what} {}", numbers.join(", "))
}

pub(super) async fn run(context: &Context, force: &Force) -> anyhow::Result<()> {
    let progress = Progress::for_people();
    let account = context.account().await?;
    let client = account.client();
    let session = find(client, force.session).await?;
    let texts = read(&force.texts)?;
    let now = chain_seconds(client).await?;
    check(&session, account.address(), now)?;
    let (deployments, held) = choose(client, &session, &texts, force.chain.as_deref()).await?;
    check_funds(&account, held).await?;
    progress.step("asking on chain");
    let rows = texts.iter().map(|text| Binary::from(text.as_bytes())).collect();
    let call = client.escrow().force_request(session.session, &deployments, rows)?;
    let outcome = account.execute(&[call]).await?;
    let told = outcome.forced_job();
    let (job, until) = told.ok_or_else(|| anyhow!("the chain told no request_forced event"))?;
    let mut forced = Forced {
        session: session.session,
        job,
        deployments,
        held,
        until,
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
        outcome: None,
        now,
    };
    if !force.no_wait {
        progress.at_work(job);
        progress.step(&format!("waiting for {}", named(&forced.deployments)));
        let life = until.saturating_sub(now);
        let ended = follow::end(&account, &session, job, outcome.height, life);
        forced.outcome = Some(unless_interrupted(ended, || progress.goes_on()).await?);
    }
    progress.finish();
    context.output.print(&forced)
}

/// A file if there is one of this name, else the text itself.
fn read(given: &str) -> anyhow::Result<Vec<String>> {
    let path = Path::new(given);
    let texts = match given == "-" || path.is_file() {
        true => texts::read(path)?,
        false => vec![given.to_owned()],
    };
    let bytes = texts.iter().map(String::len).fold(0_usize, usize::saturating_add);
    ensure!(
        bytes <= INLINE_BYTES_MAX,
        "{} have {bytes} bytes together, at most {INLINE_BYTES_MAX} can be asked on chain; nothing was spent",
        counted(texts.len(), "text")
    );
    Ok(texts)
}

fn check(session: &SessionResponse, address: &str, now: u64) -> anyhow::Result<()> {
    let number = session.session;
    ensure!(
        session.owner == address,
        "session {number} belongs to {}: nobody else can force a request in it",
        session.owner
    );
    ensure!(
        now < session.expires_at,
        "session {number} has expired: `fxn session close {number}` brings back what is left"
    );
    if let Some(forced) = session.forced.as_ref().filter(|forced| now <= forced.until) {
        let job = forced.job;
        bail!(
            "job {job} of session {number} is waited for, and one is asked at a time: `fxn job watch {job}` follows it"
        );
    }
    let endpoint = &session.endpoint;
    ensure!(
        Format::of(endpoint)? == Format::Text,
        "only texts for the endpoint embeddings can be forced, session {number} is for {endpoint}"
    );
    Ok(())
}

/// Whom to ask, and what is held for it.
async fn choose(
    client: &Client,
    session: &SessionResponse,
    texts: &[String],
    wanted: Option<&[u64]>,
) -> anyhow::Result<(Vec<u64>, Func)> {
    let number = session.session;
    let version = client.registry().version(&session.model, session.version).await?;
    let shares: Vec<u16> = version.stages.iter().map(|stage| stage.compute_share_bps).collect();
    let mut listed = vec![];
    for allocation in &session.allocations {
        listed.push(client.staking().deployment(allocation.deployment).await?);
    }
    let forcing = Forcing {
        session,
        listed: &listed,
        compute_shares: &shares,
        rows: u64::try_from(texts.len()).unwrap_or(u64::MAX),
    };
    let chain = match wanted {
        Some(chain) => chain.to_vec(),
        None => forcing
            .chain()
            .map_err(|why| anyhow!("nobody of session {number} can be asked: {why}; nothing was spent"))?,
    };
    let mut sum = client.escrow().config().await?.params.force_fee.u128();
    for deployment in &chain {
        let mut allocations = session.allocations.iter();
        let Some(allocation) = allocations.find(|it| it.deployment == *deployment) else {
            let there_are: Vec<u64> = session.allocations.iter().map(|it| it.deployment).collect();
            bail!(
                "deployment {deployment} is not in session {number}: it has {}",
                named(&there_are)
            );
        };
        ensure!(
            allocation.state == AllocationState::Open,
            "deployment {deployment} is on its way out of session {number}; `fxn session show {number}` shows who is left"
        );
        sum = sum.saturating_add(forcing.price(allocation)?);
    }
    Ok((chain, Func(sum)))
}

/// A voucher may be out for everything that is allocated: this is other money.
async fn check_funds(account: &Account, held: Func) -> anyhow::Result<()> {
    let available = order::available(account.client(), account.address()).await?;
    if available < held {
        let missing = Func(held.0.saturating_sub(available.0));
        bail!(
            "{held} FUNC are held while an answer is waited for, beside what the session has; {available} are available in the escrow: \
             `fxn wallet deposit {missing}` adds what is missing"
        );
    }
    Ok(())
}
