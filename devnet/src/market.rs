//! The market's contracts: their code, how they are deployed, and how they come to know each other.

use anyhow::{anyhow, Context};
use cosmwasm_std::Uint128;
use cw20::Cw20Coin;
use cw_multi_test::ContractWrapper;
use schema::{
    escrow, orchestrator,
    params::{BeaconParams, Params},
    randomness, registry, staking, token, TOTAL_SUPPLY,
};
use serde::Serialize;
use serde_json::{json, Value};

use crate::{
    genesis::{dev_address, Account, FAUCET},
    machine::{Code, Machine},
    shape,
    transaction::Message,
};

/// Development account that administers the contracts.
const ADMIN: &str = "admin";
/// Development account that gets the protocol's part.
const TREASURY: &str = "treasury";

/// Which code it is, in the same order: a log is replayed by the code that made it. The contracts have this crate's version.
pub(crate) const VERSIONS: [&str; 6] = [
    concat!("func-token ", env!("CARGO_PKG_VERSION")),
    concat!("model-registry ", env!("CARGO_PKG_VERSION")),
    concat!("provider-staking ", env!("CARGO_PKG_VERSION")),
    concat!("royalty-escrow ", env!("CARGO_PKG_VERSION")),
    concat!("randomness-beacon ", env!("CARGO_PKG_VERSION")),
    concat!("job-orchestrator ", env!("CARGO_PKG_VERSION")),
];

/// The codes, in the order of their numbers on the chain.
pub(crate) fn codes() -> Vec<Code> {
    vec![
        || {
            use func_token::contract::{execute, instantiate, query};
            Box::new(ContractWrapper::new(execute, instantiate, query))
        },
        || {
            use model_registry::contract::{execute, instantiate, migrate, query};
            Box::new(ContractWrapper::new(execute, instantiate, query).with_migrate(migrate))
        },
        || {
            use provider_staking::contract::{execute, instantiate, migrate, query};
            Box::new(ContractWrapper::new(execute, instantiate, query).with_migrate(migrate))
        },
        || {
            use royalty_escrow::contract::{execute, instantiate, query, reply};
            Box::new(ContractWrapper::new(execute, instantiate, query).with_reply(reply))
        },
        || {
            use randomness_beacon::contract::{execute, instantiate, query};
            Box::new(ContractWrapper::new(execute, instantiate, query))
        },
        || {
            use job_orchestrator::contract::{execute, instantiate, migrate, query, reply};
            let wrapper = ContractWrapper::new(execute, instantiate, query);
            Box::new(wrapper.with_reply(reply).with_migrate(migrate))
        },
    ]
}

/// Deploys and wires everything. Gives the `contracts` of `network.json`.
pub(crate) fn deploy(machine: &mut Machine, params: Params, accounts: &[Account]) -> anyhow::Result<Value> {
    let admin = dev_address(ADMIN);
    let mut deployer = Deployer {
        machine,
        admin: admin.clone(),
        code_id: 0,
    };
    let func_token = deployer.instantiate(
        ("func-token", false),
        &token::InstantiateMsg {
            initial_balances: balances(accounts)?,
            marketing: None,
        },
    )?;
    let model_registry = deployer.instantiate(
        ("model-registry", true),
        &registry::InstantiateMsg {
            admin: admin.clone(),
            func_token: func_token.clone(),
            params: params.registry,
        },
    )?;
    let provider_staking = deployer.instantiate(
        ("provider-staking", true),
        &staking::InstantiateMsg {
            admin: admin.clone(),
            func_token: func_token.clone(),
            model_registry: model_registry.clone(),
            params: params.staking,
        },
    )?;
    let royalty_escrow = deployer.instantiate(
        ("royalty-escrow", false),
        &escrow::InstantiateMsg {
            admin: admin.clone(),
            func_token: func_token.clone(),
            model_registry: model_registry.clone(),
            treasury: dev_address(TREASURY),
            params: params.escrow,
        },
    )?;
    let randomness_beacon = deployer.beacon(params.beacon)?;
    let job_orchestrator = deployer.instantiate(
        ("job-orchestrator", true),
        &orchestrator::InstantiateMsg {
            admin,
            model_registry: model_registry.clone(),
            provider_staking: provider_staking.clone(),
            royalty_escrow: royalty_escrow.clone(),
            randomness_beacon: randomness_beacon.clone(),
            params: params.orchestrator,
        },
    )?;
    let wire = registry::ExecuteMsg::Wire {
        royalty_escrow: royalty_escrow.clone(),
    };
    deployer.execute(&model_registry, &wire)?;
    let wire = staking::ExecuteMsg::Wire {
        royalty_escrow: royalty_escrow.clone(),
        job_orchestrator: job_orchestrator.clone(),
    };
    deployer.execute(&provider_staking, &wire)?;
    let wire = escrow::ExecuteMsg::Wire {
        job_orchestrator: job_orchestrator.clone(),
        provider_staking: provider_staking.clone(),
    };
    deployer.execute(&royalty_escrow, &wire)?;
    for own in [&model_registry, &provider_staking, &job_orchestrator] {
        deployer.give_to_itself(own)?;
    }
    let mut contracts = json!({
        "func_token": func_token,
        "model_registry": model_registry,
        "provider_staking": provider_staking,
        "royalty_escrow": royalty_escrow,
        "job_orchestrator": job_orchestrator,
    });
    if let Some(beacon) = randomness_beacon {
        contracts["randomness_beacon"] = beacon.into();
    }
    Ok(contracts)
}

/// All FUNC there is: what the accounts were given, and the rest for the faucet.
fn balances(accounts: &[Account]) -> anyhow::Result<Vec<Cw20Coin>> {
    let coin = |address: String, amount: u128| Cw20Coin {
        address,
        amount: Uint128::new(amount),
    };
    let given = accounts
        .iter()
        .try_fold(0u128, |sum, account| sum.checked_add(account.func));
    let rest = given.and_then(|given| TOTAL_SUPPLY.checked_sub(given));
    let rest = rest.with_context(|| format!("the accounts have more than all {TOTAL_SUPPLY} ufunc"))?;
    let with_func = accounts.iter().filter(|account| account.func > 0);
    let mut balances: Vec<Cw20Coin> = with_func
        .map(|account| coin(account.address.clone(), account.func))
        .collect();
    balances.push(coin(dev_address(FAUCET), rest));
    Ok(balances)
}

struct Deployer<'a> {
    machine: &'a mut Machine,
    admin: String,
    /// Code that was instantiated last; each code is instantiated once, in order.
    code_id: u64,
}

impl Deployer<'_> {
    fn instantiate<M: Serialize>(&mut self, (label, migratable): (&str, bool), msg: &M) -> anyhow::Result<String> {
        self.code_id = self.code_id.saturating_add(1);
        let message = Message::Instantiate {
            code_id: self.code_id,
            msg: serde_json::to_vec(msg)?,
            label: label.to_owned(),
            admin: migratable.then(|| self.admin.clone()),
            funds: vec![],
        };
        let effect = self.machine.execute(&self.admin, &message);
        let effect = effect.map_err(|refusal| anyhow!("{label}: {}", refusal.log))?;
        let made = effect.events.iter().find(|event| event.ty == "instantiate");
        let address = made.and_then(|event| shape::attribute(event, "_contract_address"));
        Ok(address.context("no address")?.to_owned())
    }

    /// The beacon, if the network is to have one. Its code is there in any case.
    fn beacon(&mut self, params: Option<BeaconParams>) -> anyhow::Result<Option<String>> {
        let Some(params) = params else {
            self.code_id = self.code_id.saturating_add(1);
            return Ok(None);
        };
        let msg = randomness::InstantiateMsg {
            public_key: params.public_key,
            schedule: params.schedule(),
            rounds_kept: params.rounds_kept,
        };
        self.instantiate(("randomness-beacon", false), &msg).map(Some)
    }

    /// From now on only the contract itself can have it migrated.
    fn give_to_itself(&mut self, contract: &str) -> anyhow::Result<()> {
        let message = Message::UpdateAdmin {
            contract: contract.to_owned(),
            admin: Some(contract.to_owned()),
        };
        let effect = self.machine.execute(&self.admin, &message);
        effect.map_err(|refusal| anyhow!("giving {contract} to itself: {}", refusal.log))?;
        Ok(())
    }

    fn execute<M: Serialize>(&mut self, contract: &str, msg: &M) -> anyhow::Result<()> {
        let message = Message::Execute {
            contract: contract.to_owned(),
            msg: serde_json::to_vec(msg)?,
            funds: vec![],
        };
        let effect = self.machine.execute(&self.admin, &message);
        effect.map_err(|refusal| anyhow!("wiring {contract}: {}", refusal.log))?;
        Ok(())
    }
}
