//! A device that is short of memory, and devices that are not there.

use std::{path::Path, sync::Arc};

use client::{Network, Wallet};
use inference_host::{
    onnx::{find_library, Device},
    Config,
};
use partition::{Loaded, Runtime, RuntimeError};
use reqwest::StatusCode;
use schema::work::WorkState;

use crate::{
    kit::{item, Market},
    refusals::TEXTS,
    tiny::TinyRuntime,
};

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_find_no_memory_on_the_device_wait_for_it_and_more_work_is_told_to_come_back() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    let controls = Arc::clone(&host.controls);
    // The batch of two, then its first row alone three times.
    controls.starve(4);
    market.assign(1, &TEXTS, &[(&host, 1, 0, 2)]);
    market.assign(2, &TEXTS, &[(&host, 1, 0, 2)]);
    host.begin_surely(item(1)).await;
    host.eventually("shortage", async |host| {
        host.metric("device_memory_exhausted_total").await > 0
    })
    .await;
    let refused = async |host: &crate::kit::Provider| {
        let (status, body) = host.begin(item(2), 0).await;
        if status == StatusCode::ACCEPTED {
            return false;
        }
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
        assert_eq!(body, "deployment 1 waits for memory of its device");
        true
    };
    // The shortage may have passed on a machine that was busy elsewhere for a second.
    if refused(&host).await {
        assert!(host.metric("refusals_total{reason=\"device_memory\"}").await > 0);
    }
    let done = host.done(item(1)).await;
    let expected = schema::merkle::root(market.tiny.expected(&TEXTS, 2));
    assert_eq!(
        done.links[0].receipt.receipt.output_digest, expected,
        "the same bits as ever"
    );
    host.eventually("the end of the shortage", async |host| !refused(host).await)
        .await;
    host.done(item(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_never_finds_memory_fails_with_the_reason_and_the_host_goes_on() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    host.controls.starve(usize::MAX);
    market.assign(1, &["hello"], &[(&host, 1, 0, 2)]);
    host.begin_surely(item(1)).await;
    let failed = host.ended(item(1)).await;
    assert_eq!(failed.state, WorkState::Failed);
    let reason = failed.error.unwrap();
    assert!(
        reason.contains("the device has no memory left: Failed to allocate memory"),
        "{reason}"
    );
    assert_eq!(host.get("/ready").await.0, StatusCode::OK);
    host.controls.starve(0);
    market.assign(2, &["hello"], &[(&host, 1, 0, 2)]);
    host.eventually("room", async |host| {
        host.begin(item(2), 0).await.0 == StatusCode::ACCEPTED
    })
    .await;
    host.done(item(2)).await;
}

/// A device on which a batch may change the bits of its rows.
#[derive(Debug, Default)]
struct Moody(TinyRuntime);

impl Runtime for Moody {
    fn engine_class(&self) -> String {
        self.0.engine_class()
    }

    fn batches_keep_bits(&self) -> bool {
        false
    }

    fn load(&self, graph: &Path) -> Result<Box<dyn Loaded>, RuntimeError> {
        self.0.load(graph)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_batches_may_change_bits_every_row_runs_alone_unless_the_operator_wants_it_otherwise() {
    for (wanted, largest) in [(false, 1), (true, 2)] {
        let market = Market::new();
        let mut host = market.provider("whole", 1, 0, 2);
        let moody = Moody::default();
        let controls = Arc::clone(&moody.0.controls);
        host.runtime = Arc::new(moody);
        host.config.device_batches = wanted;
        host.start().await;
        market.assign(1, &["hello world", "a b"], &[(&host, 1, 0, 2)]);
        host.begin_surely(item(1)).await;
        let done = host.done(item(1)).await;
        assert_eq!(done.links[0].receipt.receipt.units_in, 4);
        assert_eq!(controls.batches().into_iter().max(), Some(largest));
    }
}

#[tokio::test]
async fn a_host_that_is_told_to_compute_on_a_gpu_that_is_not_there_does_not_start() {
    let network: Network = serde_json::from_value(serde_json::json!({
        "chain_id": "fxn-1", "rpc": "http://127.0.0.1:9", "denom": "ustake", "gas_price": "0.025", "bech32_prefix": "wasm",
        "contracts": { "func_token": "a", "model_registry": "b", "provider_staking": "c", "royalty_escrow": "d", "job_orchestrator": "e" },
    }))
    .unwrap();
    let home = tempfile::tempdir().unwrap();
    let key = Wallet::dev("host");
    let config = Config {
        device: Device::Cuda(0),
        onnxruntime: Some(find_library(None).unwrap()),
        ..Config::new(home.path().join("home"), key.address("wasm"))
    };
    let started = inference_host::run(config, network, key, std::future::pending()).await;
    let sentence = format!("{:#}", started.unwrap_err());
    assert!(
        sentence.starts_with("stages cannot run on cuda:0: ") && sentence.contains("computes on the CPU only"),
        "{sentence}"
    );
    assert!(!home.path().join("home").exists());
}
