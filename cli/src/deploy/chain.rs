//! What a deployment needs of a chain: a narrow port, and the real one behind it.

use std::time::Duration;

use client::{Account, Call, Client, ClientError, Contracts, Network, TxHash, TxOutcome, Wallet};
use schema::Digest;

/// Pause between two looks at the chain.
const PAUSE: Duration = Duration::from_millis(200);

/// A transaction that was signed and not sent.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) hash: TxHash,
    /// The account's next sequence by the newest block: nothing else of the account can be in a block with it.
    pub(crate) sequence: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A chain on which one account deploys.
pub(crate) trait Chain {
    /// Sequence of the account's next transaction, by the newest block.
    async fn sequence(&self) -> Result<u64, ClientError>;
    /// Signs calls, with the gas that they take now.
    async fn prepare(&self, calls: &[Call]) -> Result<Signed, ClientError>;
    async fn broadcast(&self, signed: &Signed) -> Result<(), ClientError>;
    /// The transaction, if it is in a block.
    async fn find(&self, hash: TxHash) -> Result<Option<TxOutcome>, ClientError>;
    /// A code with this checksum that the account may make contracts of.
    async fn find_code(&self, checksum: &Digest) -> Result<Option<u64>, ClientError>;
    /// Waits until something may have happened.
    async fn pause(&self);
}

/// The chain behind a node.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    client: Client,
    wallet: Wallet,
    address: String,
}

impl Live {
    /// Connects to a chain whose contracts are still to be made: wherever one is expected, there is an account that is no contract.
    pub(crate) async fn connect(network: Network, wallet: Wallet) -> Result<Self, ClientError> {
        let address = wallet.address(&network.bech32_prefix);
        let nowhere = || address.clone();
        let contracts = Contracts {
            func_token: nowhere(),
            model_registry: nowhere(),
            provider_staking: nowhere(),
            royalty_escrow: nowhere(),
            job_orchestrator: nowhere(),
            randomness_beacon: None,
            audit_court: None,
        };
        let client = Client::connect(Network { contracts, ..network }).await?;
        Ok(Self {
            client,
            wallet,
            address,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

impl Chain for Live {
    async fn sequence(&self) -> Result<u64, ClientError> {
        Ok(self.client.account(&self.address).await?.sequence)
    }

    async fn prepare(&self, calls: &[Call]) -> Result<Signed, ClientError> {
        // A new account object asks the chain for its sequence; an older one would count what it has sent itself.
        let account = Account::new(self.client.clone(), self.wallet.clone());
        let prepared = account.prepare(calls).await?;
        Ok(Signed {
            hash: prepared.hash,
            sequence: prepared.sequence,
            bytes: prepared.bytes,
        })
    }

    async fn broadcast(&self, signed: &Signed) -> Result<(), ClientError> {
        self.client.broadcast_bytes(&signed.bytes).await.map(drop)
    }

    async fn find(&self, hash: TxHash) -> Result<Option<TxOutcome>, ClientError> {
        self.client.tx(hash).await
    }

    async fn find_code(&self, checksum: &Digest) -> Result<Option<u64>, ClientError> {
        let found = self.client.find_code(&checksum.0, &self.address).await?;
        Ok(found.map(|code| code.code_id))
    }

    async fn pause(&self) {
        tokio::time::sleep(PAUSE).await;
    }
}
