//! What the network can do, and what bounds it, by numbers: `scripts/bench.sh` runs it.
//!
//! A section is a chapter of docs/performance.md that is measured in one go, on a chain of its own; a further one is a line in [`SECTIONS`].
//! Every section gives a table for people and a JSON document for programs.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    reason = "a measurement that overflows is a measurement that fails, and no figure here has more than 53 bits"
)]

mod latency;
mod node;
mod report;
mod settlement;
mod stage;
mod throughput;

use std::path::PathBuf;

use anyhow::Context as _;
use fxn_tests::program::root;
use serde_json::{json, Value};

use crate::report::{replace, Circumstances};

/// The sections in the order of the document. Each is a name on the command line and a heading in the document.
const SECTIONS: [(&str, &str); 1] = [("settlement", settlement::HEADING)];

/// What was asked for on the command line.
#[derive(Debug, Default)]
struct Wanted {
    sections: Vec<String>,
    json: Option<PathBuf>,
    /// Put into the document, as measured on this day.
    write: bool,
    date: String,
}

impl Wanted {
    fn read(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut wanted = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => wanted.json = Some(words.next().context("--json needs a file")?.into()),
                "--date" => wanted.date = words.next().context("--date needs a day")?,
                "--write" => wanted.write = true,
                name if SECTIONS.iter().any(|(section, _)| *section == name) => wanted.sections.push(word),
                _ => {
                    let names = SECTIONS.map(|(section, _)| section).join(", ");
                    anyhow::bail!("there is no section {word}: there are {names}");
                }
            }
        }
        if wanted.sections.is_empty() {
            wanted.sections = SECTIONS.iter().map(|(section, _)| (*section).to_owned()).collect();
        }
        Ok(wanted)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wanted = Wanted::read(std::env::args().skip(1))?;
    tokio::select! {
        measured = measure(&wanted) => measured,
        // What was started is stopped on the way out.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

async fn measure(wanted: &Wanted) -> anyhow::Result<()> {
    let circumstances = Circumstances::here(&wanted.date);
    let mut measured = json!({ "circumstances": circumstances });
    for (name, heading) in SECTIONS {
        if !wanted.sections.iter().any(|section| section == name) {
            continue;
        }
        let (text, figures): (String, Value) = match name {
            "settlement" => settlement::measure(&circumstances).await?,
            _ => anyhow::bail!("the section {name} is named and not there"),
        };
        println!("## {heading}\n\n{text}");
        measured[name] = figures;
        if wanted.write {
            let path = root().join("docs/performance.md");
            let document = std::fs::read_to_string(&path)?;
            std::fs::write(&path, replace(&document, heading, &text))?;
        }
    }
    match &wanted.json {
        Some(path) => std::fs::write(path, format!("{measured:#}\n"))?,
        None => println!("{measured}"),
    }
    Ok(())
}
