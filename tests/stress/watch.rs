//! What the processes of a network use while they work: memory and open files out of /proc, files on disk, and their own gauges.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc, Mutex,
    },
    time::Duration,
};

use tokio::task::JoinHandle;

use crate::{market::Market, processes::page};

const EVERY: Duration = Duration::from_secs(1);

/// What one process uses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Use {
    pub(crate) resident_kib: u64,
    pub(crate) files: usize,
}

pub(crate) fn used(pid: u32) -> Use {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    Use {
        resident_kib: line.trim().trim_end_matches(" kB").parse().unwrap(),
        files: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
    }
}

/// What all processes use now, by role.
pub(crate) fn everybody(market: &Market) -> BTreeMap<String, Use> {
    let of = |(role, pid): (&str, u32)| (role.to_owned(), used(pid));
    market.crew.pids().map(of).collect()
}

/// Bytes of all files of a folder, and how many entries the folder itself has.
pub(crate) fn folder(path: &Path) -> (u64, usize) {
    let Ok(entries) = fs::read_dir(path) else {
        return (0, 0);
    };
    let (mut bytes, mut count) = (0, 0);
    // What is removed between two looks takes no room.
    for entry in entries.flatten() {
        count += 1;
        bytes += match entry.metadata() {
            Ok(facts) if facts.is_dir() => folder(&entry.path()).0,
            Ok(facts) => facts.len(),
            Err(_) => 0,
        };
    }
    (bytes, count)
}

/// The numbers of a `/metrics` page, by name and labels as they stand there; those with labels also summed under their name alone.
pub(crate) fn numbers(text: &str) -> BTreeMap<String, f64> {
    let mut numbers = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, Ok(value))) = line
            .rsplit_once(' ')
            .map(|(series, value)| (series, value.parse::<f64>()))
        else {
            continue;
        };
        *numbers.entry(series.to_owned()).or_default() += value;
        if let Some((name, _)) = series.split_once('{') {
            *numbers.entry(name.to_owned()).or_default() += value;
        }
    }
    numbers
}

fn keep_highest(highest: &mut BTreeMap<String, f64>, seen: Vec<(String, f64)>) {
    for (name, value) in seen {
        let most = highest.entry(name).or_default();
        *most = most.max(value);
    }
}

/// Looks at everybody once a second and keeps the highest of every number.
pub(crate) struct Watch {
    highest: Arc<Mutex<BTreeMap<String, f64>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(market: &Market) -> Self {
        let (highest, stop) = (
            Arc::<Mutex<BTreeMap<String, f64>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (services, into, until) = (market.services(), Arc::clone(&highest), Arc::clone(&stop));
        let homes: Vec<_> = market.providers.iter().map(|provider| provider.home.clone()).collect();
        let task = tokio::spawn(async move {
            while !until.load(Ordering::Relaxed) {
                let mut seen = vec![];
                for (_, address) in &services {
                    seen.extend(
                        page(address, "/metrics")
                            .await
                            .map(|text| numbers(&text))
                            .unwrap_or_default(),
                    );
                }
                for home in &homes {
                    let checkpoint = fs::metadata(home.join("relayer.checkpoint")).map_or(0, |facts| facts.len());
                    let (bytes, entries) = folder(&home.join("work"));
                    seen.push(("checkpoint bytes".to_owned(), checkpoint as f64));
                    seen.push(("journal bytes".to_owned(), bytes as f64));
                    seen.push(("journal entries".to_owned(), entries as f64));
                }
                keep_highest(&mut into.lock().unwrap(), seen);
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { highest, stop, task }
    }

    pub(crate) async fn end(self) -> BTreeMap<String, f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        std::mem::take(&mut self.highest.lock().unwrap())
    }
}
