//! A chain with one validator and the network's contracts on it, as `fxn deploy` puts them there.

use anyhow::Context as _;
use fxn_tests::{deployer::Deployer, localnet::Localnet, people::People, people::FAUCET, program::root};

use crate::node::Node;

/// Everything stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Stage {
    // First: it goes before the folder with its network file does.
    pub(crate) net: Localnet,
    pub(crate) deployer: Deployer,
    pub(crate) people: People,
    pub(crate) node: Node,
}

impl Stage {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let net = Localnet::start(1);
        let rpc = net.rpc(0);
        let deployer = Deployer::named(FAUCET);
        deployer.deploys(&rpc, &root().join("artifacts"), &[]);
        let people = People {
            client: deployer.client().await,
        };
        let pid = net.status()[0].pid.context("the validator runs")?;
        Ok(Self {
            node: Node::new(&rpc, pid)?,
            net,
            deployer,
            people,
        })
    }

    /// Version of the node's application.
    pub(crate) fn wasmd(&self) -> anyhow::Result<String> {
        let up = self.net.status()[0].up.clone().context("the validator answers")?;
        Ok(up.app_version)
    }
}
