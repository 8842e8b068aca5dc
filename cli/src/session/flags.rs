//! What people say about a session: how much work it is for, and which deployments get how much.

use std::{str::FromStr, time::Duration};

use clap::Args;
use humantime_serde::re::humantime;
use schema::{escrow::NewAllocation, price::Units, registry::Task};

use crate::amount::Func;

/// How much work money is set apart for.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkFlags {
    /// Texts that it is good for
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) requests: u64,
    /// Tokens that each of them has [default: the most that the model takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) tokens: Option<u64>,
}

impl WorkFlags {
    /// All of it together.
    pub(crate) fn units(&self, tokens_max: u64, task: &Task) -> Units {
        let tokens = self.tokens.unwrap_or(tokens_max).min(tokens_max);
        let all = self.requests.saturating_mul(tokens);
        Units {
            requests: self.requests,
            units_in: all,
            // What is not a model of embeddings may generate as much as it reads.
            units_out: if *task == Task::Embeddings { 0 } else { all },
        }
    }
}

/// `3=2.5`: deployment 3 gets 2.5 FUNC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocate {
    pub(crate) deployment: u64,
    pub(crate) amount: Func,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no allocation: write DEPLOYMENT=FUNC, for example 3=2.5")]
pub(crate) struct AllocateError {
    text: String,
}

impl FromStr for Allocate {
    type Err = AllocateError;

    fn from_str(text: &str) -> Result<Self, AllocateError> {
        let refused = || AllocateError {
            text: text.chars().take(80).collect(),
        };
        let (deployment, amount) = text.split_once('=').ok_or_else(refused)?;
        Ok(Self {
            deployment: deployment.parse().map_err(|_| refused())?,
            amount: amount.parse().map_err(|_| refused())?,
        })
    }
}

impl Allocate {
    pub(crate) fn allocation(&self) -> NewAllocation {
        NewAllocation {
            deployment: self.deployment,
            amount: self.amount.into(),
        }
    }
}

/// `90s`, `30m`, `2h`, `1day`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text);
    let seconds = parsed.ok().filter(|time| time.as_secs() > 0);
    seconds.ok_or_else(|| "write for example 90s, 30m or 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_a_deployment_and_an_amount() {
        let read = "3=2.5".parse::<Allocate>().unwrap();
        assert_eq!((read.deployment, read.amount), (3, Func(2_500_000)));
        for bad in ["", "3", "=5", "3=", "x=1", "3=-1", "-3=1", "3=1=2"] {
            assert!(bad.parse::<Allocate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn work_is_requests_of_so_many_tokens_and_never_longer_ones_than_the_model_takes() {
        let flags = |tokens| WorkFlags { requests: 10, tokens };
        assert_eq!(flags(None).units(256, &Task::Embeddings).units_in, 2_560);
        assert_eq!(flags(Some(64)).units(256, &Task::Embeddings).units_in, 640);
        assert_eq!(flags(Some(999)).units(256, &Task::Embeddings).units_in, 2_560);
        assert_eq!(flags(Some(64)).units(256, &Task::TextGeneration).units_out, 640);
    }

    #[test]
    fn a_time_is_read_and_nothing_is_no_time() {
        assert_eq!(duration("30m"), Ok(Duration::from_secs(1_800)));
        assert!(duration("0s").is_err() && duration("soon").is_err());
    }
}
