//! What it costs to be paid: the same sentences over the same stream to the same host, with a voucher after each answer and with none at all.
//!
//! Unpaid is a client that has credit for a whole round: nothing is promised, checked, signed or waited for until its round is over, and then
//! outside of the clock. Everything else is the same: the conversation, the batches, the receipts that the host signs. What a receipt costs the
//! host is measured by itself and told beside it. The sides take turns in short rounds, so that whatever else the machine does meets both.
//!
//! `FXN_SLOW=1` measures long enough to be told, and holds a release build to the promise.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use inference_host::{chain::ModelVersion, Source};
use lane::proto::{to_client::Content as Said, to_host::Content as Heard, Row};
use partition::Runtime;
use schema::{
    merkle,
    price::Units,
    session::{SignedSessionReceipt, Voucher},
    Digest,
};

use super::client::{opened, request, units, Attendant};
use crate::{
    kit::{Market, Provider},
    lane::client::{signed, voucher},
    minilm::MiniLm,
    partition_proof::runtime,
};

/// Requests that a round of the unpaid side has at most.
const CREDIT: u32 = 1024;
/// Promised for a request and span at the median, and of the throughput.
const PROMISED_MS: f64 = 0.3;
const PROMISED_PERCENT: f64 = 3.0;

fn is_slow() -> bool {
    std::env::var("FXN_SLOW").is_ok_and(|slow| slow == "1")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Paid,
    Unpaid,
}

/// Each side goes first as often as the other.
const TURNS: [Side; 4] = [Side::Paid, Side::Unpaid, Side::Unpaid, Side::Paid];

/// One client, as far as it has come.
struct Client {
    attendant: Attendant,
    host_key: Vec<u8>,
    /// Of the newest request.
    number: u64,
    /// Of the newest voucher.
    sequence: u64,
    owed: Units,
}

/// A request that is on its way.
struct Sent {
    at: Instant,
    receipt: Option<SignedSessionReceipt>,
}

impl Client {
    async fn ask(&mut self, text: &str, sent: &mut HashMap<u64, Sent>) {
        self.number += 1;
        let (number, receipt) = (self.number, None);
        let texts = [text];
        let asked = request(number, &[self.attendant.deployment], &texts);
        sent.insert(
            number,
            Sent {
                at: Instant::now(),
                receipt,
            },
        );
        self.attendant.gives(asked, &texts).await;
    }

    /// So many requests, so many of them at once; how long each took, and all together.
    async fn round(&mut self, side: Side, texts: &[String], count: usize, at_once: usize) -> (Vec<Duration>, Duration) {
        let begun = Instant::now();
        let mut texts = texts.iter().cycle().take(count);
        let (mut sent, mut took) = (HashMap::new(), vec![]);
        for text in texts.by_ref().take(at_once) {
            self.ask(text, &mut sent).await;
        }
        while !sent.is_empty() {
            match self.attendant.stream.next().await.expect("the host is there") {
                Said::Receipt(bytes) => {
                    let receipt: SignedSessionReceipt = serde_json::from_slice(&bytes).unwrap();
                    let number = receipt.receipt.sequence;
                    sent.get_mut(&number).unwrap().receipt = Some(receipt);
                }
                Said::Row(Row { number, bytes }) => {
                    let done = sent.remove(&number).expect("it was asked");
                    let receipt = done.receipt.expect("it comes before its rows");
                    self.owed.requests += 1;
                    self.owed.units_in += receipt.receipt.units_in;
                    if side == Side::Paid {
                        self.check(&receipt, &bytes);
                        self.pay().await;
                    }
                    took.push(done.at.elapsed());
                    if let Some(text) = texts.next() {
                        self.ask(text, &mut sent).await;
                    }
                }
                Said::Held(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let all = begun.elapsed();
        if side == Side::Unpaid {
            self.pay().await;
        }
        self.attendant.is_held(self.sequence).await;
        (took, all)
    }

    fn check(&self, signed: &SignedSessionReceipt, row: &[u8]) {
        assert_eq!(signed.receipt.output_digest, merkle::root([row]));
        let digest = signed.receipt.digest();
        assert!(client::verify_digest(
            &self.host_key,
            &digest.0,
            signed.signature.as_bytes()
        ));
    }

    async fn pay(&mut self) {
        self.sequence += 1;
        let Attendant { opened, deployment, .. } = &self.attendant;
        let paid = voucher(opened, *deployment, self.sequence, self.owed);
        let bytes = serde_json::to_vec(&paid).unwrap();
        self.attendant.stream.say(Heard::Voucher(bytes)).await;
    }
}

/// A host of the whole model, and a client in a session with it.
async fn open(minilm: &MiniLm) -> (Provider, Client) {
    let bundle = minilm.split(1);
    let market = Market::new();
    let version = ModelVersion {
        manifest: Digest(bundle.digest().to_bytes()),
        stages: vec![Digest(bundle.manifest().stages[0].digest.to_bytes())],
    };
    let publish = |version| {
        let mut facts = market.chain.0.lock().unwrap();
        facts.versions.insert("demo/minilm".to_owned(), version);
    };
    publish(version);
    let source = Source::Folder(minilm.folder.path().join("1"));
    let mut provider = Provider::new("provider-0", Arc::clone(&market.chain), source);
    provider.runtime = Arc::new(runtime());
    provider.config.credit_requests = CREDIT;
    provider.deploy("demo/minilm", &runtime().engine_class(), 1, 0, 0);
    provider.start().await;
    let mut opened = opened(1, &[(&provider, 1, 0, 0)], 1_000_000_000_000);
    opened.session.units_per_request_max = 256;
    market.put(&opened);
    let attendant = Attendant::at(&provider, &opened, 1).await;
    let client = Client {
        attendant,
        host_key: provider.key.public_key().to_vec(),
        number: 0,
        sequence: 0,
        owed: units(0, 0),
    };
    (provider, client)
}

/// In milliseconds.
fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Milliseconds of syncs so far, and how many there were.
async fn syncs(provider: &Provider) -> (f64, f64) {
    let text = provider.get("/metrics").await.1;
    let metric = |name: &str| -> f64 {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.expect("the host tells it").trim().parse().unwrap()
    };
    let of = "fxn_host_voucher_sync_seconds";
    (metric(&format!("{of}_sum ")) * 1e3, metric(&format!("{of}_count ")))
}

/// What signing a receipt and checking a voucher takes, in milliseconds at the median: both are one signature.
fn signatures(opened: &inference_host::chain::OpenedSession) -> (f64, f64) {
    let key = super::client::session_key();
    let (mut signing, mut checking) = (vec![], vec![]);
    for sequence in 1..=200 {
        let voucher = Voucher {
            sequence,
            ..voucher(opened, 1, 1, units(1, 1)).voucher
        };
        let begun = Instant::now();
        let signed = signed(opened, voucher);
        signing.push(begun.elapsed());
        let begun = Instant::now();
        let digest = voucher.digest(&opened.domain);
        assert!(client::verify_digest(
            &key.public_key(),
            &digest.0,
            signed.signature.as_bytes()
        ));
        checking.push(begun.elapsed());
    }
    (median(&signing), median(&checking))
}

/// Milliseconds that the processors have worked for this process: host and client are both in it.
fn worked() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<f64>().unwrap());
    // The kernel tells hundredths of a second, whatever it counts in.
    ticks.sum::<f64>() * 10.0
}

/// What many rounds of a side came to.
#[derive(Debug, Default)]
struct Measured {
    alone: Vec<Duration>,
    /// Of each round, for one request.
    together: Vec<Duration>,
    worked: f64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn being_paid_for_each_request_costs_next_to_nothing() {
    let minilm = MiniLm::new();
    let (provider, mut client) = open(&minilm).await;
    let (turns, alone, together) = if is_slow() { (10, 10, 64) } else { (1, 8, 32) };
    client.round(Side::Paid, &minilm.sentences, 64, 32).await;
    let mut measured: HashMap<Side, Measured> = HashMap::new();
    let before = syncs(&provider).await;
    for side in TURNS.repeat(turns) {
        let (took, _) = client.round(side, &minilm.sentences, alone, 1).await;
        measured.entry(side).or_default().alone.extend(took);
    }
    let after = syncs(&provider).await;
    for side in TURNS.repeat(turns) {
        let before = worked();
        let (_, all) = client.round(side, &minilm.sentences, together, 32).await;
        let own = measured.entry(side).or_default();
        own.together.push(all / together as u32);
        own.worked += (worked() - before) / (2 * turns * together) as f64;
    }
    let [paid, unpaid] = [Side::Paid, Side::Unpaid].map(|side| measured.remove(&side).unwrap());
    let (alone, together) = (
        [&paid, &unpaid].map(|it| median(&it.alone)),
        [&paid, &unpaid].map(|it| median(&it.together)),
    );
    let (signing, checking) = signatures(&client.attendant.opened);
    let sync = (after.0 - before.0) / (after.1 - before.1).max(1.0);
    let less = (1.0 - together[1] / together[0]) * 100.0;
    println!("| at the median | paid | unpaid | difference |\n|---|---:|---:|---:|");
    println!(
        "| one at a time, ms | {:.2} | {:.2} | {:.2} |",
        alone[0],
        alone[1],
        alone[0] - alone[1]
    );
    println!(
        "| 32 at a time, texts/s | {:.1} | {:.1} | {less:.1} % |",
        1e3 / together[0],
        1e3 / together[1]
    );
    println!(
        "| processors of host and client, ms a text | {:.2} | {:.2} | {:.2} |",
        paid.worked,
        unpaid.worked,
        paid.worked - unpaid.worked
    );
    println!("a sync {sync:.2} ms, a signature {signing:.3} ms, checking one {checking:.3} ms");
    assert!(together[0] < together[1] * 2.0, "{together:?}");
    if is_slow() && !cfg!(debug_assertions) {
        let overhead = alone[0] - alone[1] + signing;
        assert!(overhead <= PROMISED_MS, "{overhead} ms a request");
        assert!(less <= PROMISED_PERCENT, "{less} % of the throughput");
    }
}
