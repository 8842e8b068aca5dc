//! The section on settlement: how much, how fast, and what bounds it.

use std::fmt::Write as _;

use serde_json::{json, Value};

use crate::{
    latency::{self, Spread, Times},
    report::Circumstances,
    stage::Stage,
    throughput::{self, Rate},
};

pub(crate) const HEADING: &str = "Settlement";

pub(crate) async fn measure(circumstances: &Circumstances) -> anyhow::Result<(String, Value)> {
    let stage = Stage::open().await?;
    let times = latency::measure(&stage).await?;
    let rates = throughput::measure(&stage).await?;
    let wasmd = stage.wasmd()?;
    let mut text = String::new();
    let told = circumstances.told("scripts/bench.sh settlement");
    writeln!(
        text,
        "{told} One validator, wasmd {wasmd}, as `scripts/localnet.sh` sets it.\n"
    )?;
    // Blocks of a chain with little to do: no load makes them shorter.
    let block_ms = times.first().map_or(f64::NAN, |times| times.block_ms);
    how_many(&mut text, &rates)?;
    bounds(&mut text, &rates, block_ms)?;
    how_long(&mut text, &times)?;
    Ok((
        text,
        json!({ "wasmd": wasmd, "idle_block_ms": block_ms, "throughput": rates, "latency": times }),
    ))
}

fn how_many(text: &mut String, rates: &[Rate]) -> anyhow::Result<()> {
    writeln!(
        text,
        "### Items settled a second\n\n\
         Eight accounts hand over signed attestations of one span as fast as the node takes them; jobs and receipts are made beforehand. Items\n\
         count when their `settled` stands in a block, seconds are those of the chain's clock from the first such block to the last, executions\n\
         included.\n"
    )?;
    writeln!(
        text,
        "| items a transaction | **items/s** | items | blocks | s a block | items in the fullest | gas an item | bytes an item | executing, ms an item | \
         processor, ms an item | checked again, a transaction | machine busy |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )?;
    for rate in rates {
        writeln!(
            text,
            "| {} | **{:.0}** | {} | {} | {:.2} | {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.1} | {:.0} % |",
            rate.items_a_transaction,
            rate.items_per_second,
            rate.items,
            rate.blocks,
            rate.block_seconds,
            rate.items_a_block_max,
            rate.gas_used_per_item,
            rate.bytes_per_item,
            rate.execution_ms_per_item,
            rate.cpu_ms_per_item,
            rate.rechecks_per_transaction,
            rate.machine_busy_percent,
        )?;
    }
    Ok(())
}

/// What each limit would allow if it were the only one.
fn bounds(text: &mut String, rates: &[Rate], block_ms: f64) -> anyhow::Result<()> {
    writeln!(
        text,
        "\n### What bounds it\n\n\
         Items/s that each limit would allow were it the only one: block gas at blocks of {block_ms:.0} ms, as they are without load; one thread that\n\
         executes blocks; all processors for everything that the validator does (the load generator wants some of them too).\n\n\
         | items a transaction | block gas | executing | processors | the lowest | block gas asked for, mean and most |\n\
         |---:|---:|---:|---:|---|---:|"
    )?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    for rate in rates {
        let limits = [
            ("block gas", rate.gas_ceiling(block_ms / 1_000.0)),
            ("executing", 1_000.0 / rate.execution_ms_per_item),
            ("processors", 1_000.0 * cores / rate.cpu_ms_per_item),
        ];
        let lowest = limits.iter().min_by(|left, right| left.1.total_cmp(&right.1));
        let [gas, executing, processors] = limits.map(|(_, limit)| limit);
        writeln!(
            text,
            "| {} | {gas:.0} | {executing:.0} | {processors:.0} | {} | {:.0} %, {:.0} % |",
            rate.items_a_transaction,
            lowest.map_or("", |(name, _)| name),
            rate.block_gas_percent,
            rate.block_gas_percent_max,
        )?;
    }
    Ok(())
}

fn how_long(text: &mut String, times: &[Times]) -> anyhow::Result<()> {
    writeln!(
        text,
        "\n### From `job_assigned` to the settlement\n\n\
         One `fxn host` and one `fxn relayer` with the tiny model of the fixtures in one stage, a job every half second. By the clock on the wall it\n\
         is the time between reading the two blocks, by the chain's that between their times.\n\n\
         | items a job | items | on the wall, ms: p50, p95, max | by the chain, ms: p50, p95, max | blocks: items | ms a block | transaction to block, ms | items a transaction |\n\
         |---:|---:|---:|---:|---|---:|---:|---:|"
    )?;
    let three = |Spread { p50, p95, max }: &Spread| format!("{p50}, {p95}, {max}");
    for times in times {
        let blocks: Vec<String> = times
            .blocks
            .iter()
            .map(|(blocks, items)| format!("{blocks}: {items}"))
            .collect();
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.0} | {:.0} | {:.1} |",
            times.items_a_job,
            times.items,
            three(&times.wall_ms),
            three(&times.chain_ms),
            blocks.join(", "),
            times.block_ms,
            times.confirm_ms,
            times.items as f64 / times.transactions as f64,
        )?;
    }
    let Some(alone) = times.first() else { return Ok(()) };
    writeln!(
        text,
        "\nWhat bounds it is the block. An item of its own is in the next one: {:.0} ms of its time are those from handing the transaction over to\n\
         reading it, {} ms the relayer waits for company (`batch_wait`), the rest is reading, running, looking once more and simulating. A relayer has\n\
         one transaction under way, so with {} items in each it settles at most {:.0} items/s; more come from more providers.",
        alone.confirm_ms,
        relayer::Config::default().batch_wait.as_millis(),
        schema::BATCH_MAX,
        schema::BATCH_MAX as f64 * 1_000.0 / alone.block_ms
    )?;
    Ok(())
}
