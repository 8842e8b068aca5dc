//! What is to be deployed: the contracts, in one order, with these messages. No chain here, and no file.

use std::collections::BTreeMap;

use client::{Call, ClientError, Contracts};
use cosmwasm_std::Uint128;
use cw20::Cw20Coin;
use schema::{escrow, orchestrator, params::Params, randomness, registry, staking, token, Digest};
use serde::{Deserialize, Serialize};

/// One of the contracts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    #[serde(rename = "func-token")]
    Token,
    #[serde(rename = "model-registry")]
    Registry,
    #[serde(rename = "provider-staking")]
    Staking,
    #[serde(rename = "royalty-escrow")]
    Escrow,
    #[serde(rename = "randomness-beacon")]
    Beacon,
    #[serde(rename = "job-orchestrator")]
    Orchestrator,
}

impl Kind {
    /// In the order in which they are made: each is told of those before it. The embedded chain has the same order, so both have
    /// the same addresses when the chain is new.
    pub(crate) const ALL: [Self; 6] = [
        Self::Token,
        Self::Registry,
        Self::Staking,
        Self::Escrow,
        Self::Beacon,
        Self::Orchestrator,
    ];

    /// What the contract calls itself, and its label on the chain.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "func-token",
            Self::Registry => "model-registry",
            Self::Staking => "provider-staking",
            Self::Escrow => "royalty-escrow",
            Self::Beacon => "randomness-beacon",
            Self::Orchestrator => "job-orchestrator",
        }
    }

    /// Its file among the artifacts.
    pub(crate) fn file(self) -> String {
        format!("{}.wasm", self.name().replace('-', "_"))
    }

    /// Whether it can ever have other code. Where money lies it cannot.
    pub(crate) fn is_migratable(self) -> bool {
        matches!(self, Self::Registry | Self::Staking | Self::Orchestrator)
    }

    /// Whether parameters of it can be set, and by whom that is decided.
    fn has_admin(self) -> bool {
        !matches!(self, Self::Token | Self::Beacon)
    }

    pub(crate) fn address(self, contracts: &Contracts) -> &str {
        match self {
            Self::Token => &contracts.func_token,
            Self::Registry => &contracts.model_registry,
            Self::Staking => &contracts.provider_staking,
            Self::Escrow => &contracts.royalty_escrow,
            Self::Beacon => contracts.randomness_beacon.as_deref().unwrap_or_default(),
            Self::Orchestrator => &contracts.job_orchestrator,
        }
    }
}

/// Everything that decides what is deployed. A half-done deployment goes on with the same and with nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    pub(crate) chain_id: String,
    /// Account that signs.
    pub(crate) deployer: String,
    /// Who is to set parameters and propose migrations.
    pub(crate) admin: String,
    /// Who gets the protocol's part.
    pub(crate) treasury: String,
    pub(crate) params: Params,
    /// All FUNC there will ever be.
    pub(crate) supply: Vec<Cw20Coin>,
    pub(crate) checksums: BTreeMap<Kind, Digest>,
}

impl Inputs {
    /// The contracts that this network has.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Kind> {
        let has_beacon = self.params.beacon.is_some();
        let kinds = Kind::ALL.into_iter();
        kinds.filter(move |kind| has_beacon || *kind != Kind::Beacon)
    }

    /// What differs, in a word.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        let differs = [
            ("chain id", self.chain_id != other.chain_id),
            ("account", self.deployer != other.deployer),
            ("admin", self.admin != other.admin),
            ("treasury", self.treasury != other.treasury),
            ("parameters", self.params != other.params),
            ("owners of the supply", self.supply != other.supply),
            ("artifacts", self.checksums != other.checksums),
        ];
        differs.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what)
    }

    /// The call that makes a contract. The deployer is its first admin, because it has to wire it.
    pub(crate) fn instantiate(
        &self,
        kind: Kind,
        code_id: u64,
        made: &BTreeMap<Kind, String>,
    ) -> Result<Call, ClientError> {
        let address = |kind: Kind| made.get(&kind).cloned().unwrap_or_default();
        let (admin, params) = (self.deployer.clone(), self.params.clone());
        let func_token = address(Kind::Token);
        let model_registry = address(Kind::Registry);
        let msg = match kind {
            Kind::Token => to_json(&token::InstantiateMsg {
                initial_balances: self.supply.clone(),
                marketing: None,
            }),
            Kind::Registry => to_json(&registry::InstantiateMsg {
                admin,
                func_token,
                params: params.registry,
            }),
            Kind::Staking => to_json(&staking::InstantiateMsg {
                admin,
                func_token,
                model_registry,
                params: params.staking,
            }),
            Kind::Escrow => to_json(&escrow::InstantiateMsg {
                admin,
                func_token,
                model_registry,
                treasury: self.treasury.clone(),
                params: params.escrow,
            }),
            Kind::Beacon => {
                let beacon = params
                    .beacon
                    .ok_or_else(|| ClientError::BadCall("no beacon".to_owned()))?;
                to_json(&randomness::InstantiateMsg {
                    public_key: beacon.public_key,
                    schedule: beacon.schedule(),
                    rounds_kept: beacon.rounds_kept,
                })
            }
            Kind::Orchestrator => to_json(&orchestrator::InstantiateMsg {
                admin,
                model_registry,
                provider_staking: address(Kind::Staking),
                royalty_escrow: address(Kind::Escrow),
                randomness_beacon: made.get(&Kind::Beacon).cloned(),
                params: params.orchestrator,
            }),
        }?;
        Ok(Call::Instantiate {
            code_id,
            msg,
            label: kind.name().to_owned(),
            admin: kind.is_migratable().then(|| self.deployer.clone()),
        })
    }

    /// The calls after which nothing is the deployer's any more: siblings know each other, contracts own themselves, and the role of
    /// admin is offered to whom it is for. One transaction, so all or nothing.
    pub(crate) fn wire(&self, contracts: &Contracts) -> Result<Vec<Call>, ClientError> {
        let Contracts {
            model_registry,
            provider_staking,
            royalty_escrow,
            job_orchestrator,
            ..
        } = contracts.clone();
        let mut calls = vec![
            Call::execute(
                &model_registry,
                &registry::ExecuteMsg::Wire {
                    royalty_escrow: royalty_escrow.clone(),
                },
            )?,
            Call::execute(
                &provider_staking,
                &staking::ExecuteMsg::Wire {
                    royalty_escrow: royalty_escrow.clone(),
                    job_orchestrator: job_orchestrator.clone(),
                },
            )?,
            Call::execute(
                &royalty_escrow,
                &escrow::ExecuteMsg::Wire {
                    job_orchestrator,
                    provider_staking,
                },
            )?,
        ];
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_migratable()) {
            let contract = kind.address(contracts).to_owned();
            let admin = contract.clone();
            calls.push(Call::UpdateAdmin { contract, admin });
        }
        if self.admin != self.deployer {
            // The same message for all that have an admin.
            let admin = Some(self.admin.clone());
            let offer = escrow::ExecuteMsg::ProposeAdmin { admin };
            for kind in Kind::ALL.into_iter().filter(|kind| kind.has_admin()) {
                calls.push(Call::execute(kind.address(contracts), &offer)?);
            }
        }
        Ok(calls)
    }
}

fn to_json<M: Serialize>(msg: &M) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(msg).map_err(|error| ClientError::BadCall(error.to_string()))
}

/// All FUNC: what some are given, and the rest for one account.
pub(crate) fn supply(given: Vec<(String, u128)>, rest_to: &str, total: u128) -> anyhow::Result<Vec<Cw20Coin>> {
    let mut balances: BTreeMap<String, u128> = BTreeMap::new();
    for (address, amount) in given {
        let balance = balances.entry(address).or_default();
        *balance = balance.saturating_add(amount);
    }
    let sum = balances.values().fold(0u128, |sum, amount| sum.saturating_add(*amount));
    let rest = total
        .checked_sub(sum)
        .ok_or_else(|| anyhow::anyhow!("{sum} ufunc are to be given away, there are {total}"))?;
    let balance = balances.entry(rest_to.to_owned()).or_default();
    *balance = balance.saturating_add(rest);
    let with_func = balances.into_iter().filter(|(_, amount)| *amount > 0);
    Ok(with_func
        .map(|(address, amount)| Cw20Coin {
            address,
            amount: Uint128::new(amount),
        })
        .collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn inputs() -> Inputs {
        // Short waits, and every contract that there is.
        let public: Params = toml::from_str(include_str!("../../../params/public.toml")).unwrap();
        let local: Params = toml::from_str(include_str!("../../../params/local.toml")).unwrap();
        let beacon = public.beacon;
        Inputs {
            chain_id: "chain-1".into(),
            deployer: "deployer".into(),
            admin: "admin".into(),
            treasury: "treasury".into(),
            params: Params { beacon, ..local },
            supply: supply(vec![], "deployer", schema::TOTAL_SUPPLY).unwrap(),
            checksums: Kind::ALL
                .into_iter()
                .map(|kind| (kind, Digest::of(kind.name().as_bytes())))
                .collect(),
        }
    }

    #[test]
    fn the_supply_is_whole_and_names_nobody_twice() {
        let given = vec![("a".to_owned(), 3), ("b".to_owned(), 0), ("a".to_owned(), 4)];
        let balances = supply(given, "a", 100).unwrap();
        assert_eq!(balances.len(), 1);
        assert_eq!(balances[0].amount.u128(), 100);
        let balances = supply(vec![("a".to_owned(), 30)], "c", 100).unwrap();
        assert_eq!(balances.iter().map(|coin| coin.amount.u128()).sum::<u128>(), 100);
        let balances = supply(vec![("a".to_owned(), 100)], "c", 100).unwrap();
        assert_eq!(balances.len(), 1, "an account with nothing is none");
        assert!(supply(vec![("a".to_owned(), 101)], "c", 100).is_err());
    }

    #[test]
    fn a_difference_is_told_by_its_name() {
        let inputs = inputs();
        assert_eq!(inputs.difference(&inputs), None);
        let mut other = inputs.clone();
        other.params.staking.miss_min = Uint128::new(1);
        assert_eq!(inputs.difference(&other), Some("parameters"));
        other = inputs.clone();
        other.checksums.insert(Kind::Token, Digest([0; 32]));
        assert_eq!(inputs.difference(&other), Some("artifacts"));
    }

    #[test]
    fn money_is_where_no_code_ever_changes() {
        let migratable: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.is_migratable()).collect();
        assert_eq!(migratable, [Kind::Registry, Kind::Staking, Kind::Orchestrator]);
    }
}
