//! `docs/observability.md` names exactly the metrics that the running services answer with. `UPDATE_EXPECT=1` writes its table anew out of
//! their HELP and TYPE lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use fxn_tests::program::root;

use crate::{market::Market, processes::page};

const DOCUMENT: &str = "docs/observability.md";
const BEGIN: &str = "<!-- metrics -->\n";
const END: &str = "<!-- end of metrics -->\n";

/// What a service tells about one of its numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// Asks every service of the market.
pub(crate) async fn check(market: &Market) {
    let mut found: BTreeMap<String, Metric> = BTreeMap::new();
    let mut silent = BTreeSet::new();
    for (service, address) in market.services() {
        match page(&address, "/metrics").await {
            // A chain's node answers any path, with an error.
            Some(text) if !text.starts_with('{') => found.extend(parse(&text)),
            _ => drop(silent.insert(service)),
        }
    }
    let table = table(&found, &silent);
    let path = root().join(DOCUMENT);
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document
        .split_once(BEGIN)
        .expect("the document has a place for the table");
    let (written, after) = rest.split_once(END).expect("the table has an end");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, [before, BEGIN, &table, END, after].concat()).unwrap();
        return;
    }
    assert_eq!(
        written, table,
        "{DOCUMENT} is not what the services say; UPDATE_EXPECT=1 writes it anew"
    );
}

/// Every metric of a page: each has a help text, a type and a value.
fn parse(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    let mut valued = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|family| metrics.contains_key(*family)))
                .unwrap_or(name);
            let metric = metrics
                .get_mut(family)
                .unwrap_or_else(|| panic!("{line:?} has no # TYPE before it"));
            metric.labels.extend(labels(line).filter(|label| label != "le"));
            valued.insert(family.to_owned());
        }
    }
    for (name, metric) in &metrics {
        assert!(!metric.kind.is_empty(), "{name} has no # TYPE");
        assert!(!metric.help.is_empty(), "{name} has no # HELP");
        assert!(valued.contains(name), "{name} has no value");
    }
    metrics
}

fn labels(line: &str) -> impl Iterator<Item = String> + '_ {
    let inside = line
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map_or("", |(inside, _)| inside);
    inside
        .split(',')
        .filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()))
}

/// The unit stands in the name, as Prometheus wants it.
fn unit(name: &str) -> &'static str {
    let name = name.trim_end_matches("_total");
    match name {
        name if name.ends_with("_bytes") => "bytes",
        name if name.ends_with("_seconds") => "seconds",
        _ => "",
    }
}

fn table(metrics: &BTreeMap<String, Metric>, silent: &BTreeSet<&str>) -> String {
    let mut table = "\n| metric | type | unit | meaning |\n|---|---|---|---|\n".to_owned();
    for (name, Metric { kind, help, labels }) in metrics {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!(" by {}", labels.join(", ")),
        };
        table += &format!("| `{name}`{labels} | {kind} | {} | {help} |\n", unit(name));
    }
    for service in silent {
        table += &format!("\nThe {service} has no metrics yet.\n");
    }
    table + "\n"
}
