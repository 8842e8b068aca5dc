//! The real chain: the port over the `client` crate, which works unchanged on devnet and on wasmd.

use std::time::Duration;

use beacon::SignedRound;
use client::{events, events::Block, Account, Call, ClientError, Endpoint, TxHash, TxOutcome};
use futures::{Stream, StreamExt};
use schema::{
    escrow,
    orchestrator::{ItemResponse, JobStatus},
    randomness::ExecuteMsg,
    receipt::Link,
    ItemId,
};

use super::{Batch, Chain, ChainError, ChainResult, Failure, Head, Identity, Moment, Outcome, Signed, Trusted};

/// Largest page that the contracts give out.
const PAGE: u32 = 30;
/// Codes of the SDK for an account that cannot pay the fee, and for a fee below the node's least.
const CANNOT_PAY: [u32; 2] = [5, 13];
/// Codes of the SDK for a transaction that came too late, and for one with a sequence that is not the account's next.
const OUTDATED: [u32; 2] = [30, 32];
/// Code of the SDK for a transaction that needed more gas than it had paid for.
const OUT_OF_GAS: u32 = 11;

/// An account on a network.
#[derive(Debug, Clone)]
pub struct LiveChain {
    account: Account,
}

impl LiveChain {
    /// Signs with this account, on its client's network.
    pub fn new(account: Account) -> LiveChain {
        LiveChain { account }
    }

    /// The address that pays the gas.
    pub fn address(&self) -> &str {
        self.account.address()
    }

    fn orchestrator(&self) -> &str {
        &self.account.client().contracts().job_orchestrator
    }

    fn escrow(&self) -> &str {
        &self.account.client().contracts().royalty_escrow
    }

    fn calls(&self, batch: &Batch) -> Result<Vec<Call>, ClientError> {
        if let Batch::Settle(vouchers) = batch {
            let vouchers = vouchers.clone();
            let settle = escrow::ExecuteMsg::SettleVouchers { vouchers };
            return Ok(vec![Call::execute(self.escrow(), &settle)?]);
        }
        let Batch::Rounds(rounds) = batch else {
            let messages = batch.messages().into_iter();
            return messages
                .map(|message| Call::execute(self.orchestrator(), &message))
                .collect();
        };
        let beacon = &self.account.client().contracts().randomness_beacon;
        let beacon = beacon.as_deref().unwrap_or_default();
        let post = |signed: &SignedRound| {
            let (round, signature) = (signed.round, signed.signature);
            Call::execute(beacon, &ExecuteMsg::PostRound { round, signature })
        };
        rounds.iter().map(post).collect()
    }

    fn outcome(&self, tx: TxOutcome) -> ChainResult<Outcome> {
        let height = tx.height;
        let result = match tx.code {
            0 => {
                let emitted = tx.decoded(&[self.orchestrator().to_owned(), self.escrow().to_owned()]);
                // An event that this version cannot read stays unreadable however often it is asked for.
                let emitted = emitted.map_err(|error| ChainError::Fatal(error.to_string()))?;
                Ok(emitted.into_iter().map(|emitted| emitted.event).collect())
            }
            OUT_OF_GAS if tx.codespace == "sdk" => Err(Failure::OutOfGas(tx.message())),
            code if tx.codespace == "sdk" && OUTDATED.contains(&code) => Err(Failure::Outdated(tx.message())),
            _ => Err(Failure::Refused(tx.message())),
        };
        Ok(Outcome { height, result })
    }
}

impl Chain for LiveChain {
    async fn identity(&self) -> ChainResult<Identity> {
        let client = self.account.client();
        let file = client.contracts();
        let mut names = vec![];
        for (name, address) in [
            ("model-registry", &file.model_registry),
            ("provider-staking", &file.provider_staking),
            ("royalty-escrow", &file.royalty_escrow),
            ("job-orchestrator", &file.job_orchestrator),
        ] {
            names.push((name, client.cw2(address).await?.contract));
        }
        let config = client.orchestrator().config().await?;
        let nobody = || "nobody".to_owned();
        let siblings = vec![
            (
                "randomness_beacon",
                file.randomness_beacon.clone().unwrap_or_else(nobody),
                config.randomness_beacon.unwrap_or_else(nobody),
            ),
            ("model_registry", file.model_registry.clone(), config.model_registry),
            (
                "provider_staking",
                file.provider_staking.clone(),
                config.provider_staking,
            ),
            ("royalty_escrow", file.royalty_escrow.clone(), config.royalty_escrow),
        ];
        Ok(Identity {
            chain_id: client.status().await?.chain_id,
            names,
            siblings,
            domain: config.domain,
            orchestrator: file.job_orchestrator.clone(),
        })
    }

    async fn head(&self) -> ChainResult<Head> {
        let status = self.account.client().status().await?;
        Ok(Head {
            moment: Moment::of(status.height, status.time_nanos),
            earliest: status.earliest_height,
        })
    }

    fn blocks(&self, from: u64) -> impl Stream<Item = ChainResult<Block>> + Send + Unpin + 'static {
        let client = self.account.client().clone();
        let contracts = [
            &client.contracts().job_orchestrator,
            &client.contracts().provider_staking,
        ];
        let contracts = contracts.map(String::clone).to_vec();
        events::follow(client, contracts, from).map(|block| block.map_err(ChainError::from))
    }

    async fn grace_seconds(&self) -> ChainResult<u64> {
        let config = self.account.client().orchestrator().config().await?;
        Ok(config.params.grace_seconds)
    }

    async fn deployments(&self, provider: &str) -> ChainResult<Vec<u64>> {
        let deployments = self.account.client().staking().all_deployments(Some(provider)).await?;
        Ok(deployments.iter().map(|deployment| deployment.deployment).collect())
    }

    async fn item(&self, item: ItemId) -> ChainResult<ItemResponse> {
        Ok(self.account.client().orchestrator().item(item).await?)
    }

    async fn running(&self, now_seconds: u64, jobs_max: u32) -> ChainResult<Vec<ItemResponse>> {
        let orchestrator = self.account.client().orchestrator();
        let mut items = vec![];
        let mut start_before = None;
        for _ in 0..jobs_max.div_ceil(PAGE) {
            let jobs = orchestrator.jobs(None, start_before, Some(PAGE)).await?;
            let Some(oldest) = jobs.last() else { break };
            start_before = Some(oldest.job);
            for job in jobs.iter().filter(|job| job.status == JobStatus::Running) {
                items.extend(orchestrator.all_items(job.job).await?);
            }
            // Holds are equally long, so older jobs have expired too.
            if jobs.iter().all(|job| job.expires_at < now_seconds) {
                break;
            }
        }
        Ok(items)
    }

    async fn links(&self, item: ItemId, attempt: u8) -> ChainResult<Vec<Link>> {
        Ok(self.account.client().orchestrator().links(item, attempt).await?.links)
    }

    async fn overdue(&self, limit: u32) -> ChainResult<Vec<ItemId>> {
        Ok(self.account.client().orchestrator().overdue(Some(limit)).await?)
    }

    async fn beacon(&self) -> ChainResult<Option<Trusted>> {
        let Some(beacon) = self.account.client().randomness() else {
            return Ok(None);
        };
        let config = beacon.config().await?;
        Ok(Some(Trusted {
            key: config.public_key,
            schedule: config.schedule,
        }))
    }

    async fn newest_round(&self) -> ChainResult<Option<u64>> {
        match self.account.client().randomness() {
            Some(beacon) => Ok(beacon.latest().await?.map(|latest| latest.round)),
            None => Ok(None),
        }
    }

    async fn knows_round(&self, round: u64) -> ChainResult<bool> {
        match self.account.client().randomness() {
            Some(beacon) => Ok(beacon.round(round).await?.is_some()),
            None => Ok(false),
        }
    }

    async fn paid(&self, session: u64, deployment: u64) -> ChainResult<Option<u128>> {
        let query = escrow::QueryMsg::Session { session };
        let found: Result<escrow::SessionResponse, _> = self.account.client().query(self.escrow(), &query).await;
        match found {
            Ok(found) => {
                let mut allocations = found.allocations.iter();
                let own = allocations.find(|allocation| allocation.deployment == deployment);
                Ok(own.map(|allocation| allocation.paid.u128()))
            }
            Err(ClientError::QueryRefused { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn balance(&self) -> ChainResult<u128> {
        let client = self.account.client();
        Ok(client.balance(self.address(), &client.network().denom).await?)
    }

    async fn prepare(&self, batch: &Batch) -> ChainResult<Signed> {
        let prepared = self.account.prepare(&self.calls(batch)?).await?;
        Ok(Signed {
            hash: prepared.hash,
            bytes: prepared.bytes.clone(),
            permit: Some(prepared),
        })
    }

    async fn broadcast(&self, signed: Signed) -> ChainResult<()> {
        match signed.permit {
            Some(prepared) => self.account.broadcast(prepared).await?,
            None => self.account.client().broadcast_bytes(&signed.bytes).await?,
        };
        Ok(())
    }

    async fn rebroadcast(&self, bytes: &[u8]) -> ChainResult<()> {
        self.account.client().spread_bytes(bytes).await?;
        Ok(())
    }

    fn last_height(&self, bytes: &[u8]) -> Option<u64> {
        Account::last_height(bytes)
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.account.client().endpoints()
    }

    async fn confirm(&self, hash: TxHash, timeout: Duration) -> ChainResult<Outcome> {
        match self.account.client().confirm(hash, timeout).await {
            Ok(tx) => self.outcome(tx),
            Err(error) => {
                self.account.ask_anew().await?;
                Err(error.into())
            }
        }
    }

    async fn find(&self, hash: TxHash) -> ChainResult<Option<Outcome>> {
        let tx = self.account.client().tx(hash).await?;
        tx.map(|tx| self.outcome(tx)).transpose()
    }
}

impl From<ClientError> for ChainError {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::SequenceMismatch { .. } => Self::Sequence(text),
            ClientError::NotConfirmed { .. } => Self::NotConfirmed(text),
            // A node that answers nonsense can be mended while we wait.
            ClientError::Unreachable { .. }
            | ClientError::Behind { .. }
            | ClientError::Busy { .. }
            | ClientError::BadAnswer { .. } => Self::Unavailable(text),
            ClientError::FeeTooHigh { .. } => Self::TooDear(text),
            ClientError::Pruned { .. } => Self::Pruned(text),
            ClientError::Refused { code, codespace, .. } if codespace == "sdk" && OUTDATED.contains(&code) => {
                Self::Sequence(text)
            }
            ClientError::UnknownAccount { .. } => Self::Gas(text),
            ClientError::Refused { code, codespace, .. } if codespace == "sdk" && CANNOT_PAY.contains(&code) => {
                Self::Gas(text)
            }
            ClientError::Refused { .. } | ClientError::QueryRefused { .. } | ClientError::BadCall(_) => {
                Self::Refused(text)
            }
            ClientError::ChainIdMismatch { .. }
            | ClientError::UnknownContract { .. }
            | ClientError::WrongChains { .. }
            | ClientError::WrongContract { .. }
            | ClientError::ChainWentBack { .. }
            | ClientError::Network(_)
            | ClientError::Wallet(_) => Self::Fatal(text),
        }
    }
}
