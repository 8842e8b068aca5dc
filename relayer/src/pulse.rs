//! Looks now and then at what nobody else asks for: the chain's height, its time, its nodes, and the money for gas.
//!
//! Nothing is decided here; it only tells. Deadlines go by the chain's clock alone, so a clock of this machine that is wrong is told and
//! harmless.

use std::time::{Duration, SystemTime};

use crate::{
    chain::{Chain, Head, Standing},
    status::{Board, Subject},
    RelayerError,
};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(2);
/// Seconds by which chain and machine may differ before it is told. A chain of slow blocks and a lazy clock stay below.
const SKEW_SECONDS_MAX: u64 = 60;

/// Looks until it is dropped. `balance_low`: below this balance an alarm is raised.
pub async fn run<C: Chain>(chain: C, board: Board, balance_low: u64) -> Result<(), RelayerError> {
    let mut balance_before = None;
    loop {
        match chain.head().await {
            Ok(head) => {
                board.chain(head);
                tell_the_time(&board, head);
            }
            Err(error) => {
                board.chain_failed(&error);
                board.trouble(Subject::Node, &error);
            }
        }
        tell_the_nodes(&board, &chain);
        if let Ok(balance) = chain.balance().await {
            tell_the_balance(&board, balance, balance_low);
            board.note(|snapshot| snapshot.balance = Some(u64::try_from(balance).unwrap_or(u64::MAX)));
            match balance_before {
                _ if balance == 0 => board.trouble(
                    Subject::Gas,
                    &"the account has no gas coin: nothing can be sent until it gets some",
                ),
                // Whether it is enough now, the next transaction will tell.
                Some(before) if balance > before => board.well(Subject::Gas),
                _ => {}
            }
            balance_before = Some(balance);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn tell_the_balance(board: &Board, balance: u128, low: u64) {
    match balance < u128::from(low) {
        true => board.trouble(
            Subject::Balance,
            &format!("the account that pays has {balance} of the gas coin left, the alarm is set at {low}"),
        ),
        false => board.well(Subject::Balance),
    }
}

fn tell_the_nodes<C: Chain>(board: &Board, chain: &C) {
    let nodes = chain.endpoints();
    let others = nodes.iter().filter(|node| node.standing == Standing::OtherChain);
    let others: Vec<String> = others
        .map(|node| {
            format!(
                "{} is on {}",
                node.name,
                node.chain_id.as_deref().unwrap_or("another chain")
            )
        })
        .collect();
    match others.as_slice() {
        [] => board.well(Subject::Endpoint),
        others => board.trouble(
            Subject::Endpoint,
            &format!("nodes of another chain are not used: {}", others.join(", ")),
        ),
    }
    board.note(|snapshot| snapshot.endpoints = nodes);
}

fn tell_the_time(board: &Board, head: Head) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let (now, block) = (now.unwrap_or_default().as_secs(), head.moment.seconds);
    match (now.saturating_sub(block), block.saturating_sub(now)) {
        (age, _) if age > SKEW_SECONDS_MAX => board.trouble(
            Subject::Clock,
            &format!("the newest block is {age} s old by this machine's clock: the chain stands still or a clock is wrong; deadlines go by the chain's"),
        ),
        (_, ahead) if ahead > SKEW_SECONDS_MAX => board.trouble(
            Subject::Clock,
            &format!("the newest block is {ahead} s ahead of this machine's clock: a clock is wrong; deadlines go by the chain's"),
        ),
        _ => board.well(Subject::Clock),
    }
}
