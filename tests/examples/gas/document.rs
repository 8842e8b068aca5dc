//! The tables of docs/gas.md.

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::Context as _;

use crate::{
    crowd::{Draw, CROWD, DRAWN},
    deployment::Made,
    meter::Row,
    story::{attestation_row, BATCHES, ESCROW, REGISTRY, SPANS, STAKING, TOKEN},
};

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) made: Vec<Made>,
    /// What is sent once in the life of a contract.
    pub(crate) wired: Vec<Row>,
    pub(crate) drawn: Vec<Draw>,
    pub(crate) small: Vec<Row>,
    pub(crate) large: Vec<Row>,
}

/// What contracts send each other: it is part of what makes them send it. A test compares all of them with the schemas.
const INNER: [(&str, &str, &str); 13] = [
    (
        TOKEN,
        "Send",
        "`ClaimNamespace`, `Bond`, `Deploy`, `Deposit`: whatever FUNC is sent for",
    ),
    (REGISTRY, "Receive", "`ClaimNamespace`"),
    (REGISTRY, "Record", "`SubmitAttestations`, `SettleVouchers`"),
    (STAKING, "Receive", "`Bond`, `Deploy`"),
    (STAKING, "Occupy", "`SubmitJob`, `Expire`"),
    (STAKING, "Vacate", "`SubmitAttestations`, `Expire`"),
    (STAKING, "Reserve", "`OpenSession`, `TopUp`"),
    (STAKING, "Free", "`CloseSession`, `LeaveSession`, `FinaliseSession`"),
    (ESCROW, "Receive", "`Deposit`, `SendFrom`"),
    (ESCROW, "Penalty", "`Expire`, where somebody missed"),
    (ESCROW, "Hold", "`SubmitJob`"),
    (ESCROW, "Settle, Release", "`SubmitAttestations`"),
    (ESCROW, "DistributeUnder", "`SetPayout`"),
];
/// What nobody can send: FUNC has no minter and, as `fxn deploy` makes it, nobody for its marketing.
const NEVER: [(&str, &str); 4] = [
    (TOKEN, "Mint"),
    (TOKEN, "UpdateMinter"),
    (TOKEN, "UpdateMarketing"),
    (TOKEN, "UploadLogo"),
];

/// Most that a message may cost more in the large market, in per cent: numbers there have a digit or two more.
const CHANGE_MAX: f64 = 2.0;

/// A number with a space between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// How much more, in per cent.
fn change(small: u64, large: u64) -> f64 {
    (large as f64 - small as f64) * 100.0 / small as f64
}

pub(crate) fn write(version: &str, measured: &Measured) -> anyhow::Result<String> {
    let Measured {
        made,
        wired,
        drawn,
        small,
        large,
    } = measured;
    anyhow::ensure!(small.len() == large.len(), "the story was told differently");
    let mut text = String::new();
    writeln!(text, "# Gas\n")?;
    writeln!(
        text,
        "Written by `scripts/gas.sh` on wasmd {version}: gas that committed transactions of one message each have used. On the local chain\n\
         a unit of gas costs 0.025 ustake. Of an empty call 113 000 are wasmd's own, and a further call of the same contract in a\n\
         transaction pays a tenth of that.\n"
    )?;
    writeln!(text, "## Contracts\n")?;
    writeln!(
        text,
        "| contract | artifact, bytes | store | instantiate |\n|---|---:|---:|---:|"
    )?;
    for made in made {
        let bytes = grouped(u64::try_from(made.artifact_bytes)?);
        let (store, instantiate) = (grouped(made.store_gas), grouped(made.instantiate_gas));
        writeln!(text, "| `{}` | {bytes} | {store} | {instantiate} |", made.contract)?;
    }
    attestations(&mut text, small, large)?;
    draws(&mut text, drawn)?;
    messages(&mut text, small, large)?;
    once(&mut text, wired)?;
    inner(&mut text)?;
    Ok(text)
}

fn draws(text: &mut String, drawn: &[Draw]) -> anyhow::Result<()> {
    writeln!(text, "\n## SubmitJob among many\n")?;
    writeln!(
        text,
        "A job is drawn among the deployments of its model: of the cheapest that can do it, 16 are weighed, however many there are. Gas by\n\
         shards, while more and more deployments of the same stage of the same model are there.\n"
    )?;
    let columns: Vec<String> = DRAWN.map(|shards| format!(" {shards} |")).to_vec();
    writeln!(
        text,
        "| deployments |{}\n|---:|{}",
        columns.concat(),
        "---:|".repeat(DRAWN.len())
    )?;
    for draw in drawn {
        let cells: Vec<String> = draw.gas.iter().map(|gas| format!(" {} |", grouped(*gas))).collect();
        writeln!(text, "| {} |{}", draw.offers, cells.concat())?;
    }
    let last = drawn.last().context("draws")?;
    for draw in drawn {
        for (few, many) in draw.gas.iter().zip(&last.gas) {
            let change = change(*few, *many);
            anyhow::ensure!(
                change < CHANGE_MAX,
                "a draw among {} costs {change:.1} % more than among {}",
                last.offers,
                draw.offers
            );
        }
    }
    Ok(())
}

fn once(text: &mut String, wired: &[Row]) -> anyhow::Result<()> {
    writeln!(text, "\n## Once\n")?;
    writeln!(text, "What the admin sends once in the life of a contract.\n")?;
    writeln!(
        text,
        "| contract | message | transaction, bytes | gas |\n|---|---|---:|---:|"
    )?;
    for Row {
        contract,
        message,
        bytes,
        gas,
    } in wired
    {
        let (bytes, gas) = (grouped(u64::try_from(*bytes)?), grouped(*gas));
        writeln!(text, "| `{contract}` | {message} | {bytes} | {gas} |")?;
    }
    Ok(())
}

fn inner(text: &mut String) -> anyhow::Result<()> {
    writeln!(text, "\n## Inside others\n")?;
    writeln!(
        text,
        "What contracts send each other is part of the messages that make them.\n"
    )?;
    writeln!(text, "| contract | message | is in |\n|---|---|---|")?;
    for (contract, messages, place) in INNER {
        for message in messages.split(", ") {
            writeln!(text, "| `{contract}` | {message} | {place} |")?;
        }
    }
    for (contract, message) in NEVER {
        writeln!(text, "| `{contract}` | {message} | nothing: it is refused |")?;
    }
    Ok(())
}

fn attestations(text: &mut String, small: &[Row], large: &[Row]) -> anyhow::Result<()> {
    writeln!(text, "\n## SubmitAttestations\n")?;
    writeln!(
        text,
        "An item is a sentence that one host has run, or three one after the other. Everything that the message sets off is in it: signatures,\n\
         settlement, royalties, slots.\n"
    )?;
    writeln!(text, "| spans | items | transaction, bytes | gas | an item | with {CROWD} more | |\n|---:|---:|---:|---:|---:|---:|---:|")?;
    for spans in SPANS {
        for items in BATCHES {
            let name = attestation_row(items, spans);
            let find = |rows: &[Row]| rows.iter().find(|row| row.message == name).cloned();
            let (before, after) = (find(small).context("a row")?, find(large).context("a row")?);
            let each = before.gas / u64::try_from(items)?;
            writeln!(
                text,
                "| {spans} | {items} | {} | {} | {} | {} | {:+.1} % |",
                grouped(u64::try_from(before.bytes)?),
                grouped(before.gas),
                grouped(each),
                grouped(after.gas),
                change(before.gas, after.gas)
            )?;
        }
    }
    Ok(())
}

fn messages(text: &mut String, small: &[Row], large: &[Row]) -> anyhow::Result<()> {
    writeln!(text, "\n## Messages\n")?;
    writeln!(
        text,
        "Each was sent in a market of a few models and ten deployments, and once more by other people when {CROWD} further models, deployments,\n\
         open jobs and open sessions were there. `SubmitJob, 8 of 3` is a job of 8 shards that three hosts run one after the other. FUNC that is sent to\n\
         a contract (`ClaimNamespace`, `Bond`, `Deploy`, `Deposit`) goes through `func-token`.\n"
    )?;
    writeln!(
        text,
        "| contract | message | transaction, bytes | gas | with {CROWD} more | |\n|---|---|---:|---:|---:|---:|"
    )?;
    let mut told = BTreeSet::new();
    for (before, after) in small.iter().zip(large) {
        anyhow::ensure!(before.message == after.message, "the story was told differently");
        let change = change(before.gas, after.gas);
        anyhow::ensure!(
            change < CHANGE_MAX,
            "{} costs {change:.1} % more in a large market",
            before.message
        );
        // Proofs have a table of their own, and a large batch is of two jobs.
        if before.message.starts_with("SubmitAttestations") || !told.insert((before.contract, &before.message)) {
            continue;
        }
        writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {:+.1} % |",
            before.contract,
            before.message,
            grouped(u64::try_from(before.bytes)?),
            grouped(before.gas),
            grouped(after.gas),
            change
        )?;
    }
    Ok(())
}
