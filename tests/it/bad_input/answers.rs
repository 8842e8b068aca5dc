//! Tries a message and writes down the answer.

use cosmwasm_std::Addr;
use fxn_tests::{Outcome, Protocol, Serving, DEVELOPER};
use schema::{
    orchestrator::{self, NewJob},
    registry::{self, Metadata, NewVersion, Parent, Share},
    staking::{self, DeploymentTerms, Profile},
};
use serde::Serialize;

use crate::permissions::table::model;

/// Phrases of libraries that tell a stranger nothing.
const VAGUE: [&str; 7] = [
    "Overflow",
    "Cannot Sub",
    "not found",
    "Error parsing",
    "unwrap",
    "may not do this",
    "Querier",
];

/// What was tried, and what it was answered.
pub(super) struct Table {
    pub(super) protocol: Protocol,
    pub(super) golden: String,
}

impl Table {
    pub(super) fn told(&mut self, message: &str, wrong: &str, outcome: Outcome, before: &(String, u128)) {
        let error = outcome.expect_err(wrong);
        let mut told = error.root_cause().to_string();
        let contracts = self.protocol.contracts.clone();
        let fake = self.protocol.addr("fake token");
        for (address, name) in [
            (contracts.func_token, "func-token"),
            (contracts.model_registry, "model-registry"),
            (contracts.provider_staking, "provider-staking"),
            (contracts.royalty_escrow, "royalty-escrow"),
            (contracts.job_orchestrator, "job-orchestrator"),
            (fake, "fake-token"),
        ] {
            told = told.replace(address.as_str(), name);
        }
        for name in ["stranger", DEVELOPER, "anna", "clara", "mallory", "admin"] {
            told = told.replace(self.protocol.addr(name).as_str(), &name.to_uppercase());
        }
        assert!(
            told.len() < 400 && VAGUE.iter().all(|vague| !told.contains(vague)),
            "{message}, {wrong}: {told}"
        );
        assert_eq!(
            *before,
            picture(&self.protocol),
            "{message}, {wrong}: something changed"
        );
        self.golden.push_str(&format!("{message} | {wrong} | {told}\n"));
    }

    pub(super) fn refuses(
        &mut self,
        name: &str,
        to: &Addr,
        message: &str,
        wrong: &str,
        msg: &(impl Serialize + std::fmt::Debug),
    ) {
        let before = picture(&self.protocol);
        let sender = self.protocol.addr(name);
        let outcome = self.protocol.execute(&sender, to, msg);
        self.told(message, wrong, outcome, &before);
    }

    pub(super) fn refuses_sent(
        &mut self,
        name: &str,
        to: &Addr,
        amount: u128,
        message: &str,
        wrong: &str,
        hook: &impl Serialize,
    ) {
        let before = picture(&self.protocol);
        let outcome = self.protocol.send(name, to, amount, hook);
        self.told(message, wrong, outcome, &before);
    }

    pub(super) fn job(&mut self, wrong: &str, change: impl FnOnce(&mut NewJob)) {
        let mut job = Protocol::order(2, 2, 1);
        change(&mut job);
        let to = self.protocol.contracts.job_orchestrator.clone();
        let msg = orchestrator::ExecuteMsg::SubmitJob { job };
        self.refuses(DEVELOPER, &to, "submit_job", wrong, &msg);
    }

    pub(super) fn deploy(&mut self, wrong: &str, change: impl FnOnce(&mut DeploymentTerms)) {
        let mut terms = Serving::stages(0, 0).terms();
        terms.slots = 1;
        change(&mut terms);
        let (to, fee) = (
            self.protocol.contracts.provider_staking.clone(),
            self.protocol.params.staking.listing_fee.u128(),
        );
        self.refuses_sent(
            "anna",
            &to,
            fee,
            "deploy",
            wrong,
            &staking::ReceiveMsg::Deploy { terms },
        );
    }

    pub(super) fn profile(&mut self, wrong: &str, change: impl FnOnce(&mut Profile)) {
        let mut profile = self.protocol.profile("gina");
        change(&mut profile);
        let to = self.protocol.contracts.provider_staking.clone();
        let msg = staking::ExecuteMsg::RegisterProvider { profile };
        self.refuses("stranger", &to, "register_provider", wrong, &msg);
    }

    pub(super) fn version(&mut self, wrong: &str, change: impl FnOnce(&mut NewVersion)) {
        let known: registry::VersionResponse = self.protocol.ask(
            &self.protocol.contracts.model_registry,
            &registry::QueryMsg::Version {
                model: model(),
                version: 1,
            },
        );
        let mut version = NewVersion {
            manifest: known.manifest,
            manifest_uris: known.manifest_uris,
            stages: known.stages,
            tolerance: known.tolerance,
            units_per_request_max: known.units_per_request_max,
        };
        change(&mut version);
        let msg = registry::ExecuteMsg::PublishVersion {
            model: model(),
            version,
        };
        self.registry("publish_version", wrong, &msg);
    }

    pub(super) fn publish(
        &mut self,
        wrong: &str,
        change: impl FnOnce(&mut Metadata, &mut Vec<Share>, &mut Vec<Parent>),
    ) {
        let known: registry::ModelResponse = self.protocol.ask(
            &self.protocol.contracts.model_registry,
            &registry::QueryMsg::Model { model: model() },
        );
        let (mut metadata, mut payout, mut parents) = (known.metadata, known.payout, known.parents);
        change(&mut metadata, &mut payout, &mut parents);
        let msg = registry::ExecuteMsg::PublishModel {
            model: "demo/new".parse().unwrap(),
            metadata,
            payout,
            parents,
        };
        self.registry("publish_model", wrong, &msg);
    }

    pub(super) fn registry(&mut self, message: &str, wrong: &str, msg: &registry::ExecuteMsg) {
        let to = self.protocol.contracts.model_registry.clone();
        self.refuses("clara", &to, message, wrong, msg);
    }
}

/// All money, all slots and all names, as text.
pub(super) fn picture(protocol: &Protocol) -> (String, u128) {
    let contracts = &protocol.contracts;
    let ask = |contract: &Addr, question: serde_json::Value| protocol.ask::<serde_json::Value>(contract, &question);
    let limit = Some(30);
    let all = [
        ask(
            &contracts.provider_staking,
            serde_json::json!(staking::QueryMsg::Deployments {
                provider: None,
                start_after: None,
                limit
            }),
        ),
        ask(
            &contracts.provider_staking,
            serde_json::json!(staking::QueryMsg::Providers {
                start_after: None,
                limit
            }),
        ),
        ask(
            &contracts.model_registry,
            serde_json::json!(registry::QueryMsg::Models {
                namespace: None,
                start_after: None,
                limit
            }),
        ),
        ask(
            &contracts.job_orchestrator,
            serde_json::json!(orchestrator::QueryMsg::Jobs {
                developer: None,
                start_before: None,
                limit
            }),
        ),
    ];
    (format!("{:?} {all:?}", protocol.books()), protocol.supply())
}
