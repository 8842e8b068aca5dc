//! Rounds of the beacon: where they are had, and when the chain needs a new one though nobody waits for it.

use std::time::Duration;

use beacon::{SignedRound, Source, SourceError};
use schema::Schedule;

use crate::chain::{Chain, ChainResult, Moment, Trusted};

/// Longest wait for a round, however many servers are asked.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Jobs that are looked through for one that runs.
const JOBS_MAX: u32 = 30;

/// Servers of the network's beacon.
#[derive(Debug)]
pub struct Rounds {
    source: Source,
    schedule: Schedule,
    /// How old the newest round may become.
    age_seconds: u64,
    /// When it is looked at next, by block time.
    look_from: u64,
    /// It was too old: from this height on it is looked at again, and then renewed.
    renew_at: Option<u64>,
}

impl Rounds {
    /// Servers whose rounds count if the chain's key has signed them. None: there is nobody to ask.
    pub fn new(
        servers: &[String],
        trusted: Trusted,
        timeout: Duration,
        age: Duration,
    ) -> Result<Option<Self>, SourceError> {
        let source = Source::new(servers, trusted.key, timeout)?;
        Ok((!source.is_empty()).then_some(Self {
            source,
            schedule: trusted.schedule,
            age_seconds: age.as_secs(),
            look_from: 0,
            renew_at: None,
        }))
    }

    pub(crate) fn due_at(&self, round: u64) -> u64 {
        self.schedule.time_of(round)
    }

    /// A round that is signed, of the first server that has it. What the servers say instead is told in the log.
    pub(crate) async fn fetch(&self, round: u64) -> Option<SignedRound> {
        let reason = match tokio::time::timeout(FETCH_TIMEOUT, self.source.round(round)).await {
            Ok(Ok(signed)) => return Some(signed),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(round, %reason, "nobody has the round that somebody waits for");
        None
    }

    /// The round to bring now, if the newest one is too old, there are jobs, and it still is so some blocks later.
    pub(crate) async fn renew<C: Chain>(&mut self, chain: &C, now: Moment, blocks: u8) -> ChainResult<Option<u64>> {
        let is_second_look = match self.renew_at {
            Some(height) if now.height < height => return Ok(None),
            Some(_) => true,
            None if now.seconds < self.look_from => return Ok(None),
            None => false,
        };
        self.renew_at = None;
        self.look_from = now.seconds.saturating_add((self.age_seconds / 4).max(1));
        if !self.is_needed(chain, now).await? {
            return Ok(None);
        }
        if is_second_look {
            return Ok(self.schedule.newest_at(now.seconds));
        }
        self.renew_at = Some(now.height.saturating_add(blocks.into()));
        Ok(None)
    }

    async fn is_needed<C: Chain>(&self, chain: &C, now: Moment) -> ChainResult<bool> {
        let Some(newest) = chain.newest_round().await? else {
            return Ok(true);
        };
        let age_seconds = now.seconds.saturating_sub(self.schedule.time_of(newest));
        Ok(age_seconds > self.age_seconds && !chain.running(now.seconds, JOBS_MAX).await?.is_empty())
    }
}
