//! The code of contracts: who may change it, and what newer versions would be.

use std::collections::BTreeMap;

use cosmwasm_std::{Addr, DepsMut, Env, Record, Response};
use schema::{
    msg::{MigrateMsg, MigrationResponse},
    orchestrator,
    params::{OrchestratorParams, StakingParams},
    staking,
};
use serde_json::json;

use crate::{
    chain::{contract, Chain},
    Contracts, Outcome, Protocol,
};

/// Version of the codes that are stored for migrations.
pub const NEXT_VERSION: &str = "999.0.0";

/// The same contract, as its next version would say of itself.
macro_rules! next {
    ($name:ident, $text:literal) => {{
        fn migrate(deps: DepsMut<'_>, _: Env, _: MigrateMsg) -> Result<Response, $name::ContractError> {
            let event = governed::migration::complete(deps.storage, $text, NEXT_VERSION)?;
            Ok(Response::new().add_event(event.encode()))
        }
        contract!($name).with_migrate(migrate)
    }};
}

/// Codes to migrate to, by the contract that they are for.
pub(crate) fn store_next(app: &mut Chain, contracts: &Contracts) -> BTreeMap<Addr, u64> {
    let author = app.api().addr_make("author");
    let registry = app.store_code_with_creator(author.clone(), Box::new(next!(model_registry, "model-registry")));
    let staking = app.store_code_with_creator(author.clone(), Box::new(next!(provider_staking, "provider-staking")));
    let orchestrator = next!(job_orchestrator, "job-orchestrator").with_reply(job_orchestrator::contract::reply);
    let orchestrator = app.store_code_with_creator(author, Box::new(orchestrator));
    BTreeMap::from([
        (contracts.model_registry.clone(), registry),
        (contracts.provider_staking.clone(), staking),
        (contracts.job_orchestrator.clone(), orchestrator),
    ])
}

impl Protocol {
    /// The contracts that can have new code.
    pub fn migratable(&self) -> [Addr; 3] {
        let contracts = &self.contracts;
        [
            contracts.model_registry.clone(),
            contracts.provider_staking.clone(),
            contracts.job_orchestrator.clone(),
        ]
    }

    /// The code that a contract runs.
    pub fn code_of(&self, contract: &Addr) -> u64 {
        self.chain().contract_data(contract).expect("it is there").code_id
    }

    /// Who may migrate a contract, as far as the chain is concerned.
    pub fn wasm_admin_of(&self, contract: &Addr) -> Option<Addr> {
        self.chain().contract_data(contract).expect("it is there").admin
    }

    /// The version that a contract has recorded of itself.
    pub fn version_of(&self, contract: &Addr) -> String {
        let recorded = self.chain().wrap().query_wasm_raw(contract, b"contract_info");
        let recorded = recorded.expect("it answers").expect("it is recorded");
        let recorded: cw2::ContractVersion = cosmwasm_std::from_json(recorded).expect("it reads");
        recorded.version
    }

    /// Everything that a contract has stored.
    pub fn state_of(&self, contract: &Addr) -> Vec<Record> {
        self.chain().dump_wasm_raw(contract)
    }

    /// Keys of everything that the orchestrator keeps and that is no setting.
    pub fn records_of_jobs(&self) -> Vec<String> {
        const SETTINGS: [&str; 5] = ["admin", "config", "contract_info", "last_job", "migration"];
        let kept = self.state_of(&self.contracts.job_orchestrator).into_iter();
        let kept = kept.map(|(key, _)| key.escape_ascii().to_string());
        kept.filter(|key| !SETTINGS.contains(&key.as_str())).collect()
    }

    /// A second staking beside ours, with these parameters.
    pub fn starts_another_staking(&mut self, params: &StakingParams) -> anyhow::Result<Addr> {
        let code = self.code_of(&self.contracts.provider_staking);
        let msg = staking::InstantiateMsg {
            admin: self.addr("admin").into_string(),
            func_token: self.contracts.func_token.to_string(),
            model_registry: self.contracts.model_registry.to_string(),
            params: params.clone(),
        };
        self.instantiates(code, &msg)
    }

    /// A second orchestrator beside ours, with these parameters.
    pub fn starts_another_orchestrator(&mut self, params: &OrchestratorParams) -> anyhow::Result<Addr> {
        let code = self.code_of(&self.contracts.job_orchestrator);
        let msg = orchestrator::InstantiateMsg {
            admin: self.addr("admin").into_string(),
            model_registry: self.contracts.model_registry.to_string(),
            provider_staking: self.contracts.provider_staking.to_string(),
            royalty_escrow: self.contracts.royalty_escrow.to_string(),
            randomness_beacon: self.contracts.randomness_beacon.as_ref().map(ToString::to_string),
            params: params.clone(),
        };
        self.instantiates(code, &msg)
    }

    /// What is proposed to a contract.
    pub fn migration_of(&self, contract: &Addr) -> MigrationResponse {
        self.ask(contract, &json!({ "migration": {} }))
    }

    /// Proposes a code to a contract.
    pub fn proposes_code(&mut self, name: &str, contract: &Addr, code_id: u64) -> Outcome {
        let sender = self.addr(name);
        let msg = json!({ "propose_migration": { "code_id": code_id, "msg": cosmwasm_std::Binary::from(b"{}") } });
        self.execute(&sender, contract, &msg)
    }

    /// Has a contract go over to what was proposed.
    pub fn migrates(&mut self, name: &str, contract: &Addr) -> Outcome {
        let sender = self.addr(name);
        self.execute(&sender, contract, &json!({ "execute_migration": {} }))
    }

    /// Takes a proposal back.
    pub fn cancels_migration(&mut self, name: &str, contract: &Addr) -> Outcome {
        let sender = self.addr(name);
        self.execute(&sender, contract, &json!({ "cancel_migration": {} }))
    }
}
