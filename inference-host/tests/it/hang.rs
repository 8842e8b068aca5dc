//! Graphs that never come back: nobody waits for them longer than the limit, everybody is told, and other work goes on.

use std::{
    path::Path,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        Arc,
    },
    time::Duration,
};

use partition::{Loaded, Runtime, RuntimeError, Tensor};
use reqwest::StatusCode;
use schema::work::WorkState;

use crate::{
    kit::{item, Market, Provider},
    tiny::{TinyRuntime, CLASS},
};

/// The tiny model on a runtime that sticks whenever it is told to.
#[derive(Debug, Default)]
struct Sticky {
    tiny: TinyRuntime,
    switches: Arc<Switches>,
}

#[derive(Debug, Default)]
struct Switches {
    runs_stick: AtomicBool,
    loads_stick: AtomicBool,
    over: AtomicBool,
    loads: AtomicUsize,
}

impl Switches {
    fn stick(&self, switch: &AtomicBool) {
        let stuck = switch.load(Ordering::SeqCst);
        while stuck && !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

struct StickyGraph(Box<dyn Loaded>, Arc<Switches>);

impl Runtime for Sticky {
    fn engine_class(&self) -> String {
        CLASS.to_owned()
    }

    fn load(&self, graph: &Path) -> Result<Box<dyn Loaded>, RuntimeError> {
        self.switches.loads.fetch_add(1, Ordering::SeqCst);
        self.switches.stick(&self.switches.loads_stick);
        Ok(Box::new(StickyGraph(
            self.tiny.load(graph)?,
            Arc::clone(&self.switches),
        )))
    }
}

impl Loaded for StickyGraph {
    fn run(&mut self, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        self.1.stick(&self.1.runs_stick);
        self.0.run(inputs)
    }
}

fn host(market: &Market) -> (Provider, Arc<Switches>) {
    let mut host = market.provider("whole", 1, 0, 2);
    let sticky = Sticky::default();
    let switches = Arc::clone(&sticky.switches);
    host.runtime = Arc::new(sticky);
    host.config.run_timeout_seconds = 1;
    (host, switches)
}

async fn unready(host: &Provider, words: &str) {
    host.eventually(words, async |host| {
        let (status, reason) = host.get("/ready").await;
        status == StatusCode::SERVICE_UNAVAILABLE && reason.contains(words)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_that_hangs_fails_its_work_and_its_deployment_in_time_and_is_loaded_anew() {
    let market = Market::new();
    let (mut host, switches) = host(&market);
    host.start().await;
    switches.runs_stick.store(true, Ordering::SeqCst);
    market.assign(1, &["hello"], &[(&host, 1, 0, 2)]);
    host.begin_surely(item(1)).await;
    let failed = host.ended(item(1)).await;
    assert_eq!(failed.state, WorkState::Failed);
    let reason = failed.error.unwrap();
    assert!(reason.contains("a batch took longer than 1 s"), "{reason}");
    // Anew it hangs in its self-test, which is found out too: two threads hang, and no third is risked.
    unready(&host, "deployment 1: stage 0: the runtime took longer than 1 s").await;
    assert_eq!(host.metric("engine_threads_hung").await, 2);
    market.assign(2, &["hello"], &[(&host, 1, 0, 2)]);
    let (status, body) = host.begin(item(2), 0).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    unready(&host, "2 threads of this host hang in graphs").await;
    // Whatever held them has passed: the threads come back, and the deployment with them.
    switches.runs_stick.store(false, Ordering::SeqCst);
    switches.over.store(true, Ordering::SeqCst);
    for _ in 0..1200 {
        if host.metric("engine_threads_hung").await == 0 && host.get("/ready").await.0 == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    host.begin_surely(item(2)).await;
    host.done(item(2)).await;
    assert_eq!(host.metric("engine_threads_hung").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_graphs_hang_while_they_are_loaded_says_so_and_can_be_stopped() {
    let market = Market::new();
    let (mut host, switches) = host(&market);
    switches.loads_stick.store(true, Ordering::SeqCst);
    host.start_unready().await;
    unready(&host, "the runtime took longer than 1 s to load and test the graph").await;
    assert_eq!(host.get("/health").await.0, StatusCode::OK);
    let stopped = tokio::time::timeout(Duration::from_secs(30), host.running.take().unwrap().stop()).await;
    stopped.unwrap();
    switches.over.store(true, Ordering::SeqCst);
}
