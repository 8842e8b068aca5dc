//! A new chain with the contracts, and what each step to it costs.

use std::fs;

use anyhow::Context as _;
use client::{Account, Call, Client, Contracts, Network, Wallet};
use cw20::Cw20Coin;
use fxn_tests::{
    people::{send, FAUCET},
    program::root,
};
use schema::{escrow, orchestrator, params::Params, randomness, registry, staking, token, TOTAL_SUPPLY};
use serde_json::{json, Value};

use crate::{
    meter::{Meter, Row},
    story::{BEACON, ESCROW, REGISTRY, STAKING},
};

/// How long a migration is announced here.
pub(crate) const MIGRATION_NOTICE_SECONDS: u64 = 1;

/// What a contract costs until it stands.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) contract: &'static str,
    pub(crate) artifact_bytes: usize,
    pub(crate) store_gas: u64,
    pub(crate) instantiate_gas: u64,
}

/// Draws are measured without the beacon, which stands alone.
const NAMES: [&str; 6] = [
    "func-token",
    "model-registry",
    "provider-staking",
    "royalty-escrow",
    "job-orchestrator",
    BEACON,
];

/// The local profile, with windows in which a transaction on a busy machine meets the second that it is for.
pub(crate) fn params() -> anyhow::Result<Params> {
    let mut params: Params = toml::from_str(include_str!("../../../params/local.toml"))?;
    params.staking.unbonding_seconds = 1;
    params.staking.migration_notice_seconds = MIGRATION_NOTICE_SECONDS;
    params.registry.migration_notice_seconds = MIGRATION_NOTICE_SECONDS;
    params.orchestrator.migration_notice_seconds = MIGRATION_NOTICE_SECONDS;
    params.orchestrator.evidence_seconds = 30;
    Ok(params)
}

/// The module of a contract.
pub(crate) fn artifact(contract: &str) -> anyhow::Result<Vec<u8>> {
    let path = root().join(format!("artifacts/{}.wasm", contract.replace('-', "_")));
    fs::read(&path).with_context(|| format!("{} is missing: scripts/build-wasm.sh makes it", path.display()))
}

fn network(rpc: String, made: &[String]) -> anyhow::Result<Network> {
    // An address that is none of a contract, for those that are not made yet.
    let address = |index: usize| {
        let unmade = || devnet::dev_address(FAUCET);
        made.get(index).cloned().unwrap_or_else(unmade)
    };
    Ok(Network {
        chain_id: "fxn-localnet-1".into(),
        rpc,
        further_rpc: vec![],
        denom: "ustake".into(),
        gas_price: "0.025".parse()?,
        bech32_prefix: devnet::PREFIX.into(),
        contracts: Contracts {
            func_token: address(0),
            model_registry: address(1),
            provider_staking: address(2),
            royalty_escrow: address(3),
            job_orchestrator: address(4),
            randomness_beacon: made.get(5).cloned(),
            audit_court: None,
        },
        beacon: None,
    })
}

fn instantiation(contract: &str, admin: &str, made: &[String], params: &Params) -> anyhow::Result<Value> {
    let admin = admin.to_owned();
    let sibling = |index: usize| made[index].clone();
    Ok(match contract {
        "func-token" => json!(token::InstantiateMsg {
            initial_balances: vec![Cw20Coin {
                address: admin,
                amount: TOTAL_SUPPLY.into()
            }],
            marketing: None,
        }),
        "model-registry" => json!(registry::InstantiateMsg {
            admin,
            func_token: sibling(0),
            params: params.registry.clone(),
        }),
        "provider-staking" => json!(staking::InstantiateMsg {
            admin,
            func_token: sibling(0),
            model_registry: sibling(1),
            params: params.staking.clone(),
        }),
        "royalty-escrow" => json!(escrow::InstantiateMsg {
            admin,
            func_token: sibling(0),
            model_registry: sibling(1),
            treasury: devnet::dev_address("treasury"),
            params: params.escrow.clone(),
        }),
        BEACON => {
            let beacon = params.beacon.as_ref().context("the profile has a beacon")?;
            json!(randomness::InstantiateMsg {
                public_key: beacon.public_key,
                schedule: beacon.schedule(),
                rounds_kept: beacon.rounds_kept,
            })
        }
        _ => json!(orchestrator::InstantiateMsg {
            admin,
            model_registry: sibling(1),
            provider_staking: sibling(2),
            royalty_escrow: sibling(3),
            randomness_beacon: None,
            params: params.orchestrator.clone(),
        }),
    })
}

/// Stores and makes the contracts, makes them known to each other, and returns a client of them with what the last step cost.
pub(crate) async fn deploy(rpc: String) -> anyhow::Result<(Client, Vec<Made>, Vec<Row>)> {
    let params = params()?;
    let bare = Client::connect(network(rpc.clone(), &[])?).await?;
    let admin = Account::new(bare, Wallet::dev(FAUCET));
    let (mut addresses, mut costs) = (vec![], vec![]);
    for contract in NAMES {
        let wasm = artifact(contract)?;
        let artifact_bytes = wasm.len();
        let (_, stored) = send(&admin, &[Call::StoreCode { wasm }]).await?;
        let code_id = stored
            .attribute("store_code", "code_id")
            .context("a code id")?
            .parse()?;
        let call = Call::Instantiate {
            code_id,
            msg: serde_json::to_vec(&instantiation(contract, admin.address(), &addresses, &params)?)?,
            label: contract.to_owned(),
            admin: Some(admin.address().to_owned()),
        };
        let (_, made) = send(&admin, &[call]).await?;
        let address = made
            .attribute("instantiate", "_contract_address")
            .context("an address")?;
        addresses.push(address.to_owned());
        costs.push(Made {
            contract,
            artifact_bytes,
            store_gas: stored.gas_used,
            instantiate_gas: made.gas_used,
        });
    }
    let network = network(rpc, &addresses)?;
    let mut meter = Meter::new(Client::connect(network).await?);
    wire(&mut meter).await?;
    Ok((meter.people.client, costs, meter.rows))
}

async fn wire(meter: &mut Meter) -> anyhow::Result<()> {
    let admin = meter.people.account(FAUCET);
    let Contracts {
        model_registry,
        provider_staking,
        royalty_escrow,
        job_orchestrator,
        ..
    } = meter.people.client.contracts().clone();
    let registry = registry::ExecuteMsg::Wire {
        royalty_escrow: royalty_escrow.clone(),
    };
    let staking = staking::ExecuteMsg::Wire {
        royalty_escrow,
        job_orchestrator: job_orchestrator.clone(),
    };
    let escrow = escrow::ExecuteMsg::Wire {
        job_orchestrator: job_orchestrator.clone(),
        provider_staking: provider_staking.clone(),
    };
    meter.execute(REGISTRY, "Wire", &admin, &registry).await?;
    meter.execute(STAKING, "Wire", &admin, &staking).await?;
    meter.execute(ESCROW, "Wire", &admin, &escrow).await?;
    // They may take new code on their own word, which the story measures.
    let own = [model_registry, provider_staking, job_orchestrator].map(|contract| Call::UpdateAdmin {
        contract: contract.clone(),
        admin: contract,
    });
    send(&admin, &own).await?;
    Ok(())
}
