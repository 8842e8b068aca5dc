//! A chain in memory with the orchestrator's rules for one item, accounts with sequences, a mempool, and points at which it stands still.

mod parts;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use client::events::Block;
use futures::Stream;
use relayer::chain::{
    Batch, Chain, ChainError, ChainResult, Endpoint, Evidence, Failure, Head, Identity, Moment, Outcome, Signed,
    Trusted, TxHash,
};
use schema::{
    orchestrator::{FailureReason, ItemResponse, ItemResult, ItemStatus},
    price::Units,
    receipt::{Attestation, Link},
    staking::Span,
    Digest, Event, ItemId,
};
use tokio::sync::watch;

pub use self::parts::{assigned_event, item, link};
use self::parts::{block, domain, settle, span};

pub const ME: &str = "wasm1me";
pub const OTHER: &str = "wasm1other";
pub const GRACE: u64 = 1;
pub const WINDOW: u64 = 4;

/// A transaction as bytes: account, sequence, content, and what differs from one signing to the next.
pub type Wire = (String, u64, Batch, u32);

/// Where a call may be made to hang, as if the process were stopped there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Signed, and nobody knows.
    Signed,
    /// Written down; the node has not got it.
    BeforeBroadcast,
    /// The node has it; we do not know.
    AfterBroadcast,
    /// We know; it is in no block.
    Confirm,
}

#[derive(Debug, Clone, Default)]
pub struct World {
    pub height: u64,
    pub seconds: u64,
    pub earliest: u64,
    pub blocks: Vec<Block>,
    pub items: BTreeMap<ItemId, ItemResponse>,
    pub links: BTreeMap<(ItemId, u8), Vec<Link>>,
    pub deployments: BTreeSet<u64>,
    pub mempool: Vec<Vec<u8>>,
    pub included: BTreeMap<TxHash, Outcome>,
    /// Content of the transactions in blocks, in order, and whether they succeeded.
    pub transactions: Vec<(Batch, bool)>,
    pub sequences: BTreeMap<String, u64>,
    pub broken: BTreeSet<ItemId>,
    /// So many of the next transactions need more gas in their block than they had in their simulation.
    pub out_of_gas: u32,
    pub hold: Option<Point>,
    pub held: u32,
    pub item_queries: u32,
    pub link_queries: u32,
    /// Batches that somebody wanted to sign, and those that were signed.
    pub simulations: u32,
    pub signatures: u32,
    pub fee_money: bool,
    pub wrong_name: bool,
    /// Whether transactions cannot be found, until the next block, although they are in one.
    pub index_lag: bool,
    /// Transactions that came with a wrong sequence.
    pub refusals: u32,
    /// Height of the last block that may hold the transaction of this number; any block may hold others.
    pub last_heights: BTreeMap<u32, u64>,
    /// So many blocks after its signing a transaction can be in no block.
    pub blocks_max: Option<u64>,
    /// Whether transactions stay in the mempool, and the node says that it has them.
    pub is_stuck: bool,
    /// What a transaction may not cost, by the number of its entries.
    pub entries_max: Option<usize>,
    pub endpoints: Vec<Endpoint>,
    /// Gas coin of every account, if it has any.
    pub balance: u64,
    /// Whether it answers nobody who asks what it is.
    pub is_down: bool,
    /// By session and deployment, what vouchers were paid.
    pub paid: BTreeMap<(u64, u64), u128>,
    /// Sessions whose vouchers are refused, for whatever reason.
    pub broken_sessions: BTreeSet<u64>,
    /// Rounds that the beacon knows, if there is a beacon.
    pub rounds: Option<BTreeSet<u64>>,
    pending_events: Vec<Event>,
}

#[derive(Debug, Clone)]
pub struct FakeChain {
    account: String,
    world: Arc<Mutex<World>>,
    changed: Arc<watch::Sender<u64>>,
}

impl FakeChain {
    pub fn new() -> FakeChain {
        let world = World {
            height: 10,
            seconds: 1_000,
            earliest: 1,
            deployments: BTreeSet::from([7]),
            fee_money: true,
            balance: 10_000_000,
            ..World::default()
        };
        let mut world = world;
        world.blocks = (1..=10).map(|height| block(height, 1_000, vec![])).collect();
        FakeChain {
            account: ME.into(),
            world: Arc::new(Mutex::new(world)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The same chain, seen from another account.
    pub fn as_account(&self, account: &str) -> FakeChain {
        FakeChain {
            account: account.into(),
            ..self.clone()
        }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn change<R>(&self, change: impl FnOnce(&mut World) -> R) -> R {
        let result = change(&mut self.world());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// Waits until the world looks like this.
    pub async fn until(&self, what: &str, is_so: impl Fn(&World) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = changed.wait_for(|_| is_so(&self.world()));
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await.map(drop);
        assert!(waited.is_ok(), "never: {what}; {:?}", self.world().transactions);
    }

    /// Waits until somebody has handed in so many transactions.
    pub async fn until_mempool(&self, len: usize) {
        self.until("transactions in the mempool", |world| world.mempool.len() >= len)
            .await;
    }

    /// Makes a block so many seconds after the last one.
    pub fn mine(&self, seconds: u64) {
        self.change(|world| world.mine(seconds));
    }

    /// Makes a block whenever a transaction comes, and now and then without one, until the world looks like this.
    pub async fn mine_until(&self, what: &str, is_so: impl Fn(&World) -> bool) {
        let since = tokio::time::Instant::now();
        let mut changed = self.changed.subscribe();
        while !is_so(&self.world()) {
            assert!(since.elapsed() < Duration::from_secs(20), "never: {what}");
            let wait = changed.wait_for(|_| is_so(&self.world()) || !self.world().mempool.is_empty());
            let _ = tokio::time::timeout(Duration::from_millis(300), wait).await.map(drop);
            if !is_so(&self.world()) {
                self.mine(0);
            }
        }
    }

    /// An item on two deployments, ours among them, announced in the next block.
    pub fn assign(&self, item: ItemId, attempt: u8, providers: [&str; 2], seconds: u64) {
        self.change(|world| world.assign(item, attempt, providers, seconds));
    }

    /// Announces something in the next block.
    pub fn announce(&self, event: Event) {
        self.change(|world| world.pending_events.push(event));
    }

    pub fn attested(&self, item: ItemId) -> usize {
        let world = self.world();
        let events = world
            .included
            .values()
            .flat_map(|outcome| outcome.result.iter().flatten());
        events
            .filter(|event| matches!(event, Event::Attested { item: i, .. } if *i == item))
            .count()
    }

    async fn pass(&self, point: Point) {
        let is_held = self.change(|world| {
            let is_held = world.hold == Some(point);
            world.held += u32::from(is_held);
            is_held
        });
        if is_held {
            std::future::pending::<()>().await;
        }
    }
}

impl World {
    pub fn assign(&mut self, item: ItemId, attempt: u8, providers: [&str; 2], seconds: u64) {
        let deadline = self.seconds + seconds;
        let spans: Vec<Span> = providers
            .iter()
            .zip(0u8..)
            .map(|(provider, stage)| span(provider, stage))
            .collect();
        let deployments = spans.iter().map(|span| span.deployment).collect();
        let response = ItemResponse {
            item,
            attempt,
            status: ItemStatus::Assigned {},
            engine_class: "fake".into(),
            spans,
            assigned_at: self.seconds,
            deadline,
            evidence_until: deadline + WINDOW,
            redraw_round: None,
            history: vec![],
        };
        self.pending_events.push(assigned_event(&response, deployments));
        self.items.insert(item, response);
    }

    fn mine(&mut self, seconds: u64) {
        self.height += 1;
        self.index_lag = false;
        self.seconds += seconds;
        let mut events = std::mem::take(&mut self.pending_events);
        let handed_in = match self.is_stuck {
            true => vec![],
            false => std::mem::take(&mut self.mempool),
        };
        for bytes in handed_in {
            let (account, sequence, batch, number): Wire = serde_json::from_slice(&bytes).unwrap();
            if self.last_heights.get(&number).is_some_and(|last| *last < self.height) {
                continue;
            }
            let next = self.sequences.entry(account).or_default();
            if *next != sequence {
                continue;
            }
            *next += 1;
            let mut after = self.clone();
            let result = match self.out_of_gas {
                0 => after.execute(&batch).map_err(Failure::Refused),
                _ => Err(Failure::OutOfGas("wanted 1, used 2".into())),
            };
            self.out_of_gas = self.out_of_gas.saturating_sub(1);
            after.out_of_gas = self.out_of_gas;
            if result.is_ok() {
                *self = after;
            }
            self.transactions.push((batch, result.is_ok()));
            events.extend(result.clone().unwrap_or_default());
            let height = self.height;
            self.included.insert(TxHash::of(&bytes), Outcome { height, result });
        }
        self.blocks.push(block(self.height, self.seconds, events));
    }

    fn execute(&mut self, batch: &Batch) -> Result<Vec<Event>, String> {
        match batch {
            Batch::Attest(attestations) => Ok(attestations.iter().map(|one| self.attest(one)).collect()),
            Batch::Evidence(all) => all.iter().map(|one| self.evidence(one)).collect(),
            Batch::Rounds(posted) => {
                let rounds = self.rounds.as_mut().ok_or("there is no beacon")?;
                rounds.extend(posted.iter().map(|round| round.round));
                Ok(vec![])
            }
            Batch::Settle(vouchers) => Ok(vouchers.iter().map(|one| settle(self, &one.voucher)).collect()),
            Batch::Expire(items) => {
                let expired: Result<Vec<_>, String> = items.iter().map(|item| self.expire(*item)).collect();
                Ok(expired?.concat())
            }
        }
    }

    fn open(&mut self, item: ItemId, attempt: u8) -> Result<&mut ItemResponse, String> {
        let found = self.items.get_mut(&item).ok_or("no such item")?;
        let is_open = found.status == ItemStatus::Assigned {} && found.attempt == attempt;
        is_open
            .then_some(found)
            .ok_or(format!("attempt {attempt} of {item} is not open"))
    }

    fn attest(&mut self, one: &Attestation) -> Event {
        let (item, attempt) = (one.item, one.attempt);
        let (now, is_broken) = (self.seconds, self.broken.contains(&item));
        let refused = |reason: String| Event::AttestationRefused { item, attempt, reason };
        let result = ItemResult {
            output_digest: Digest([1; 32]),
            tokens_digest: None,
            units: Units::default(),
        };
        match self.open(item, attempt) {
            Err(reason) => refused(reason),
            Ok(_) if is_broken => refused("bad signature".into()),
            Ok(found) if now > found.deadline + GRACE => refused("too late".into()),
            Ok(found) => {
                let paid = 1u128.into();
                found.status = ItemStatus::Settled { result, paid };
                Event::Attested {
                    item,
                    attempt,
                    output_digest: result.output_digest,
                    units_in: 1,
                    units_out: 0,
                }
            }
        }
    }

    fn evidence(&mut self, one: &Evidence) -> Result<Event, String> {
        let Evidence { item, attempt, links } = one.clone();
        let now = self.seconds;
        let found = self.open(item, attempt)?;
        if now <= found.deadline || now > found.evidence_until {
            return Err("not in the window".into());
        }
        self.links.insert((item, attempt), links);
        Ok(Event::EvidencePosted {
            item,
            attempt,
            spans: 1,
        })
    }

    fn expire(&mut self, item: ItemId) -> Result<Vec<Event>, String> {
        let (now, is_broken) = (self.seconds, self.broken.contains(&item));
        let attempt = self.items.get(&item).ok_or("no such item")?.attempt;
        let rounds = self.rounds.clone();
        let found = self.open(item, attempt)?;
        if let (Some(rounds), Some(round)) = (rounds, found.redraw_round) {
            if !rounds.contains(&round) {
                return Err(format!("round {round} is missing"));
            }
        }
        if now <= found.evidence_until {
            return Err("not overdue".into());
        }
        if is_broken {
            return Err("too few blocks have passed".into());
        }
        let reason = FailureReason::Attempts;
        found.status = ItemStatus::Failed { reason };
        let missed = Event::ItemMissed {
            item,
            attempt,
            deployment: 7,
        };
        let reason = "attempts".into();
        Ok(vec![missed, Event::ItemFailed { item, reason }])
    }

    pub fn expiries(&self) -> usize {
        self.transactions
            .iter()
            .filter(|(batch, done)| matches!(batch, Batch::Expire(_)) && *done)
            .count()
    }

    pub fn evidences(&self) -> usize {
        self.transactions
            .iter()
            .filter(|(batch, _)| matches!(batch, Batch::Evidence(_)))
            .count()
    }
}

impl Chain for FakeChain {
    async fn identity(&self) -> ChainResult<Identity> {
        if self.world().is_down {
            return Err(ChainError::Unavailable("down".into()));
        }
        let name = if self.world().wrong_name {
            "cw20-base"
        } else {
            "job-orchestrator"
        };
        Ok(Identity {
            chain_id: "fake-1".into(),
            names: vec![("job-orchestrator", name.into())],
            siblings: vec![("provider_staking", "wasm1staking".into(), "wasm1staking".into())],
            domain: domain(),
            orchestrator: "wasm1orchestrator".into(),
        })
    }

    async fn head(&self) -> ChainResult<Head> {
        let world = self.world();
        Ok(Head {
            moment: Moment {
                height: world.height,
                seconds: world.seconds,
            },
            earliest: world.earliest,
        })
    }

    fn blocks(&self, from: u64) -> impl Stream<Item = ChainResult<Block>> + Send + Unpin + 'static {
        let state = (self.clone(), self.changed.subscribe(), from);
        Box::pin(futures::stream::unfold(
            state,
            |(chain, mut changed, next)| async move {
                let found = |chain: &FakeChain| chain.world().blocks.iter().find(|block| block.height == next).cloned();
                let is_gone = |chain: &FakeChain| next < chain.world().earliest;
                changed
                    .wait_for(|_| is_gone(&chain) || found(&chain).is_some())
                    .await
                    .ok()?;
                if is_gone(&chain) {
                    let error = ChainError::Pruned(format!("block {next} is no longer there"));
                    return Some((Err(error), (chain, changed, next)));
                }
                let block = found(&chain)?;
                Some((Ok(block), (chain, changed, next + 1)))
            },
        ))
    }

    async fn grace_seconds(&self) -> ChainResult<u64> {
        Ok(GRACE)
    }

    async fn deployments(&self, _provider: &str) -> ChainResult<Vec<u64>> {
        Ok(self.world().deployments.iter().copied().collect())
    }

    async fn item(&self, item: ItemId) -> ChainResult<ItemResponse> {
        self.change(|world| world.item_queries += 1);
        let found = self.world().items.get(&item).cloned();
        found.ok_or(ChainError::Refused("no such item".into()))
    }

    async fn running(&self, _now_seconds: u64, _jobs_max: u32) -> ChainResult<Vec<ItemResponse>> {
        Ok(self.world().items.values().cloned().collect())
    }

    async fn links(&self, item: ItemId, attempt: u8) -> ChainResult<Vec<Link>> {
        self.change(|world| world.link_queries += 1);
        Ok(self.world().links.get(&(item, attempt)).cloned().unwrap_or_default())
    }

    async fn overdue(&self, limit: u32) -> ChainResult<Vec<ItemId>> {
        let world = self.world();
        let is_overdue =
            |item: &&ItemResponse| item.status == ItemStatus::Assigned {} && item.evidence_until < world.seconds;
        let items = world.items.values().filter(is_overdue).map(|item| item.item);
        Ok(items.take(usize::try_from(limit).unwrap()).collect())
    }

    async fn beacon(&self) -> ChainResult<Option<Trusted>> {
        Ok(None)
    }

    async fn newest_round(&self) -> ChainResult<Option<u64>> {
        Ok(self.world().rounds.iter().flatten().max().copied())
    }

    async fn knows_round(&self, round: u64) -> ChainResult<bool> {
        Ok(self.world().rounds.iter().flatten().any(|known| *known == round))
    }

    async fn paid(&self, session: u64, deployment: u64) -> ChainResult<Option<u128>> {
        Ok(self.world().paid.get(&(session, deployment)).copied())
    }

    async fn balance(&self) -> ChainResult<u128> {
        let world = self.world();
        Ok(if world.fee_money { world.balance.into() } else { 0 })
    }

    async fn prepare(&self, batch: &Batch) -> ChainResult<Signed> {
        let bytes = {
            let mut world = self.world();
            world.simulations += 1;
            if !world.fee_money {
                return Err(ChainError::Gas("insufficient funds".into()));
            }
            world.clone().execute(batch).map_err(ChainError::Refused)?;
            let sequence = world.sequences.get(&self.account).copied().unwrap_or_default();
            let entries = batch.messages().len().max(match batch {
                Batch::Attest(attestations) => attestations.len(),
                Batch::Settle(vouchers) => vouchers.len(),
                _ => 0,
            });
            if world.entries_max.is_some_and(|max| entries > max) {
                return Err(ChainError::TooDear(format!("{entries} entries")));
            }
            // Gas and fee differ from one signing to the next, and so do the bytes.
            world.signatures += 1;
            if let Some(blocks) = world.blocks_max {
                let (number, last) = (world.signatures, world.height + blocks);
                world.last_heights.insert(number, last);
            }
            serde_json::to_vec(&(&self.account, sequence, batch, world.signatures)).unwrap()
        };
        self.pass(Point::Signed).await;
        Ok(Signed::new(bytes))
    }

    async fn broadcast(&self, signed: Signed) -> ChainResult<()> {
        self.pass(Point::BeforeBroadcast).await;
        self.rebroadcast(&signed.bytes).await?;
        self.pass(Point::AfterBroadcast).await;
        Ok(())
    }

    async fn rebroadcast(&self, bytes: &[u8]) -> ChainResult<()> {
        let (account, sequence, ..): Wire = serde_json::from_slice(bytes).unwrap();
        self.change(|world| {
            let next = world.sequences.get(&account).copied().unwrap_or_default();
            let is_included = world.included.contains_key(&TxHash::of(bytes)) && !world.index_lag;
            if is_included || world.mempool.iter().any(|known| known == bytes) {
                return Ok(());
            }
            if sequence != next {
                world.refusals += 1;
                return Err(ChainError::Sequence(format!("expected {next}, got {sequence}")));
            }
            world.mempool.push(bytes.to_vec());
            Ok(())
        })
    }

    fn last_height(&self, bytes: &[u8]) -> Option<u64> {
        let (_, _, _, number): Wire = serde_json::from_slice(bytes).unwrap();
        self.world().last_heights.get(&number).copied()
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.world().endpoints.clone()
    }

    async fn confirm(&self, hash: TxHash, timeout: Duration) -> ChainResult<Outcome> {
        self.pass(Point::Confirm).await;
        let mut changed = self.changed.subscribe();
        let wait = changed.wait_for(|_| self.world().included.contains_key(&hash));
        let waited = tokio::time::timeout(timeout, wait).await.map(drop);
        let found = self.find(hash).await?;
        waited
            .ok()
            .and(found)
            .ok_or(ChainError::NotConfirmed(format!("{hash} is in no block")))
    }

    async fn find(&self, hash: TxHash) -> ChainResult<Option<Outcome>> {
        if self.world().index_lag {
            return Ok(None);
        }
        Ok(self.world().included.get(&hash).cloned())
    }
}
