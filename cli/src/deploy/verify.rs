//! Whether what is on the chain is what was to be deployed. Everything is asked, nothing is taken from what was sent.

use client::{Client, ClientError, Contracts};
use cw20::{MinterResponse, TokenInfoResponse};
use schema::{escrow, msg::AdminResponse, orchestrator, randomness, registry, staking, token, Digest, TOTAL_SUPPLY};
use serde::{de::DeserializeOwned, Serialize};

use super::plan::{Inputs, Kind};

/// What the chain says of one contract.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Facts {
    pub(crate) contract: &'static str,
    pub(crate) address: String,
    pub(crate) code_id: u64,
    pub(crate) checksum: Option<Digest>,
    pub(crate) version: String,
    /// Who may migrate it: nobody, or the contract itself.
    pub(crate) wasm_admin: Option<String>,
}

/// What was looked at.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) facts: Vec<Facts>,
    /// Who still holds a role that was offered to somebody else: contract by contract.
    pub(crate) offered: Vec<&'static str>,
    /// What is not as it has to be, a sentence each.
    pub(crate) differences: Vec<String>,
}

/// Compares and collects.
struct Checks {
    differences: Vec<String>,
    offered: Vec<&'static str>,
}

impl Checks {
    fn equal<T: PartialEq + std::fmt::Display>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.differences
                .push(format!("{what} is {found}, {expected} was to be"));
        }
    }

    fn sibling(&mut self, of: Kind, which: Kind, found: Option<&str>, contracts: &Contracts) {
        let what = format!("the {} of {}", which.name(), of.name());
        self.equal(&what, found.unwrap_or("nobody"), which.address(contracts));
    }

    /// The admin has the role, or it was offered to him.
    fn admin(&mut self, of: Kind, found: &AdminResponse, inputs: &Inputs) {
        let is_offered = found.admin == inputs.deployer && found.proposed.as_ref() == Some(&inputs.admin);
        if is_offered {
            self.offered.push(of.name());
        } else {
            let what = format!("the admin of {}", of.name());
            self.equal(&what, &found.admin, &inputs.admin);
        }
    }

    fn params<T: Serialize>(&mut self, table: &str, found: &T, expected: &T) {
        let json = |params: &T| serde_json::to_value(params).unwrap_or_default();
        self.values(table, &json(found), &json(expected));
    }

    fn values(&mut self, name: &str, found: &serde_json::Value, expected: &serde_json::Value) {
        match (found.as_object(), expected.as_object()) {
            (Some(found), Some(expected)) => {
                for (key, expected) in expected {
                    let found = found.get(key).unwrap_or(&serde_json::Value::Null);
                    self.values(&format!("{name}.{key}"), found, expected);
                }
            }
            _ => self.equal(&format!("parameter {name}"), found, expected),
        }
    }
}

/// Asks for everything.
pub(crate) async fn verify(client: &Client, contracts: &Contracts, inputs: &Inputs) -> Result<Verified, ClientError> {
    let mut checks = Checks {
        differences: vec![],
        offered: vec![],
    };
    let mut facts = vec![];
    for kind in inputs.kinds() {
        facts.push(one(client, kind, contracts, inputs, &mut checks).await?);
    }
    // A contract of another name cannot be asked further.
    if checks.differences.is_empty() {
        configs(client, contracts, inputs, &mut checks).await?;
    }
    Ok(Verified {
        facts,
        offered: checks.offered,
        differences: checks.differences,
    })
}

async fn one(
    client: &Client,
    kind: Kind,
    contracts: &Contracts,
    inputs: &Inputs,
    checks: &mut Checks,
) -> Result<Facts, ClientError> {
    let (contract, address) = (kind.name(), kind.address(contracts).to_owned());
    let info = client.contract_info(&address).await?;
    let recorded = client.cw2(&address).await?;
    let code = client.code(info.code_id).await?;
    let checksum = code.map(|code| Digest(code.checksum));
    checks.equal(
        &format!("the contract at {address}"),
        recorded.contract.as_str(),
        contract,
    );
    let text = |digest: Option<&Digest>| digest.map_or("nothing".to_owned(), ToString::to_string);
    let what = format!("the checksum of {contract}'s code");
    checks.equal(&what, text(checksum.as_ref()), text(inputs.checksums.get(&kind)));
    let expected = kind.is_migratable().then_some(address.as_str());
    let what = format!("the wasm admin of {contract}");
    checks.equal(
        &what,
        info.admin.as_deref().unwrap_or("nobody"),
        expected.unwrap_or("nobody"),
    );
    Ok(Facts {
        contract,
        address,
        code_id: info.code_id,
        checksum,
        version: recorded.version,
        wasm_admin: info.admin,
    })
}

async fn configs(
    client: &Client,
    contracts: &Contracts,
    inputs: &Inputs,
    checks: &mut Checks,
) -> Result<(), ClientError> {
    let ask = Asker { client, contracts };
    let token: TokenInfoResponse = ask.of(Kind::Token, &token::QueryMsg::TokenInfo {}).await?;
    checks.equal("the symbol of func-token", token.symbol.as_str(), "FUNC");
    if token.total_supply.u128() > TOTAL_SUPPLY {
        let supply = token.total_supply;
        checks
            .differences
            .push(format!("there are {supply} ufunc, at most {TOTAL_SUPPLY} were to be"));
    }
    let minter: Option<MinterResponse> = ask.of(Kind::Token, &token::QueryMsg::Minter {}).await?;
    checks.equal(
        "the minter of func-token",
        minter.map_or("nobody".into(), |it| it.minter),
        "nobody".into(),
    );

    let registry: registry::ConfigResponse = ask.of(Kind::Registry, &registry::QueryMsg::Config {}).await?;
    let at = Kind::Registry;
    checks.admin(at, &registry.admin, inputs);
    checks.sibling(at, Kind::Token, Some(&registry.func_token), contracts);
    checks.sibling(at, Kind::Escrow, registry.royalty_escrow.as_deref(), contracts);
    checks.params("registry", &registry.params, &inputs.params.registry);

    let staking: staking::ConfigResponse = ask.of(Kind::Staking, &staking::QueryMsg::Config {}).await?;
    let at = Kind::Staking;
    checks.admin(at, &staking.admin, inputs);
    checks.sibling(at, Kind::Token, Some(&staking.func_token), contracts);
    checks.sibling(at, Kind::Registry, Some(&staking.model_registry), contracts);
    checks.sibling(at, Kind::Escrow, staking.royalty_escrow.as_deref(), contracts);
    checks.sibling(at, Kind::Orchestrator, staking.job_orchestrator.as_deref(), contracts);
    checks.params("staking", &staking.params, &inputs.params.staking);

    let escrow: escrow::ConfigResponse = ask.of(Kind::Escrow, &escrow::QueryMsg::Config {}).await?;
    let at = Kind::Escrow;
    checks.admin(at, &escrow.admin, inputs);
    checks.sibling(at, Kind::Token, Some(&escrow.func_token), contracts);
    checks.sibling(at, Kind::Registry, Some(&escrow.model_registry), contracts);
    checks.sibling(at, Kind::Staking, escrow.provider_staking.as_deref(), contracts);
    checks.sibling(at, Kind::Orchestrator, escrow.job_orchestrator.as_deref(), contracts);
    checks.equal("the treasury of royalty-escrow", &escrow.treasury, &inputs.treasury);
    checks.params("escrow", &escrow.params, &inputs.params.escrow);

    let orchestrator: orchestrator::ConfigResponse =
        ask.of(Kind::Orchestrator, &orchestrator::QueryMsg::Config {}).await?;
    let at = Kind::Orchestrator;
    checks.admin(at, &orchestrator.admin, inputs);
    checks.sibling(at, Kind::Registry, Some(&orchestrator.model_registry), contracts);
    checks.sibling(at, Kind::Staking, Some(&orchestrator.provider_staking), contracts);
    checks.sibling(at, Kind::Escrow, Some(&orchestrator.royalty_escrow), contracts);
    checks.params("orchestrator", &orchestrator.params, &inputs.params.orchestrator);
    let beacon = orchestrator.randomness_beacon.as_deref();
    match &inputs.params.beacon {
        Some(expected) => {
            checks.sibling(at, Kind::Beacon, beacon, contracts);
            let found: randomness::ConfigResponse = ask.of(Kind::Beacon, &randomness::QueryMsg::Config {}).await?;
            checks.equal("the key of randomness-beacon", found.public_key, expected.public_key);
            checks.params("beacon", &found.schedule, &expected.schedule());
            checks.equal("parameter beacon.rounds_kept", found.rounds_kept, expected.rounds_kept);
        }
        None => checks.equal("the beacon of job-orchestrator", beacon.unwrap_or("nobody"), "nobody"),
    }
    Ok(())
}

struct Asker<'a> {
    client: &'a Client,
    contracts: &'a Contracts,
}

impl Asker<'_> {
    async fn of<Q: Serialize, R: DeserializeOwned>(&self, kind: Kind, question: &Q) -> Result<R, ClientError> {
        self.client.query(kind.address(self.contracts), question).await
    }
}
