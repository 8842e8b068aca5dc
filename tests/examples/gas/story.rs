//! Every message that somebody outside can send, once, in an order in which each succeeds. Told twice, with different people, it shows
//! whether a message costs more in a larger market. What only contracts send each other is part of what makes them send it.

use anyhow::Context as _;
use beacon::Secret;
use client::{Account, Call};
use cosmwasm_std::{to_json_binary, Binary};
use cw20::Cw20ExecuteMsg;
use fxn_tests::{
    goods::{claim, endpoint, job, metadata, model, profile, publish, terms, version},
    people::{send, FAUCET},
    proofs::{domain, evidence, items, job_of, proofs, Hosts},
    Host,
};
use schema::{
    escrow, orchestrator,
    params::Params,
    randomness,
    receipt::Attestation,
    registry::{self, ModelStatus},
    staking, ModelId, UFUNC,
};
use serde_json::json;

use crate::{
    deployment::{artifact, params, MIGRATION_NOTICE_SECONDS},
    meter::Meter,
};

pub(crate) const TOKEN: &str = "func-token";
pub(crate) const REGISTRY: &str = "model-registry";
pub(crate) const STAKING: &str = "provider-staking";
pub(crate) const ESCROW: &str = "royalty-escrow";
pub(crate) const ORCHESTRATOR: &str = "job-orchestrator";
pub(crate) const BEACON: &str = "randomness-beacon";

/// Those with an admin.
const GOVERNED: [&str; 4] = [REGISTRY, STAKING, ESCROW, ORCHESTRATOR];
/// Those that may have new code.
const MIGRATING: [&str; 3] = [REGISTRY, STAKING, ORCHESTRATOR];

/// How many items are proven in one message.
pub(crate) const BATCHES: [usize; 3] = [1, 8, 32];
/// Into how many spans an item may be cut.
pub(crate) const SPANS: [u8; 2] = [1, 3];
/// Life of a job that is to be forgotten or pruned, and how long the latter is kept: as short as the windows for evidence allow.
const FORGOTTEN_SECONDS: u64 = 45;
/// What the provider promises who is late: time for a proof, and not much to wait for.
const LATE_SECONDS: u64 = 5;
/// Items of jobs that one message prunes.
const PRUNED: [usize; 2] = [1, 64];
/// Shards of a job, so that three stages of each stay below what a job may have.
const SHARDS: usize = 16;

pub(crate) fn attestation_row(items: usize, spans: u8) -> String {
    format!("SubmitAttestations, {items} of {spans}")
}

struct Story<'a> {
    meter: &'a mut Meter,
    namespace: String,
    admin: Account,
    creator: Account,
    developer: Account,
    hosts: Hosts,
    params: Params,
}

impl Story<'_> {
    fn model(&self, name: &str) -> anyhow::Result<ModelId> {
        model(&self.namespace, name)
    }
}

/// `release` is the version that contracts go over to, as long as their own.
pub(crate) async fn tell(meter: &mut Meter, name: &str, release: &str) -> anyhow::Result<()> {
    let creator = meter.people.actor(&format!("{name}-creator"), 1_000).await?;
    let developer = meter.people.actor(&format!("{name}-developer"), 1_000).await?;
    let mut story = Story {
        admin: meter.people.account(FAUCET),
        meter,
        namespace: name.to_owned(),
        creator,
        developer,
        hosts: Hosts::new(),
        params: params()?,
    };
    story.token().await?;
    story.publishing().await?;
    story.providing().await?;
    story.money().await?;
    story.working().await?;
    let done = story.done().await?;
    story.failing().await?;
    story.leaving().await?;
    story.drawing_lots().await?;
    story.governing().await?;
    story.pruning(done).await?;
    for contract in MIGRATING {
        story.migrating(contract, release).await?;
    }
    Ok(())
}

impl Story<'_> {
    async fn token(&mut self) -> anyhow::Result<()> {
        let (from, to) = (self.creator.clone(), self.developer.clone());
        let amount = UFUNC.into();
        let transfer = Cw20ExecuteMsg::Transfer {
            recipient: to.address().to_owned(),
            amount,
        };
        self.meter.execute(TOKEN, "Transfer", &from, &transfer).await?;
        let allow = Cw20ExecuteMsg::IncreaseAllowance {
            spender: to.address().to_owned(),
            amount,
            expires: None,
        };
        self.meter.execute(TOKEN, "IncreaseAllowance", &from, &allow).await?;
        let take = Cw20ExecuteMsg::TransferFrom {
            owner: from.address().to_owned(),
            recipient: to.address().to_owned(),
            amount,
        };
        self.meter.execute(TOKEN, "TransferFrom", &to, &take).await?;
        self.meter
            .execute(TOKEN, "Burn", &from, &Cw20ExecuteMsg::Burn { amount })
            .await?;
        self.allowed(&from, &to).await
    }

    /// What an allowance is good for beside a transfer, and its end.
    async fn allowed(&mut self, from: &Account, to: &Account) -> anyhow::Result<()> {
        let amount = UFUNC.into();
        let allow = |amount: u128| Cw20ExecuteMsg::IncreaseAllowance {
            spender: to.address().to_owned(),
            amount: amount.into(),
            expires: None,
        };
        send(from, &[self.meter.people.telling(TOKEN, &allow(3 * UFUNC))?]).await?;
        let owner = from.address().to_owned();
        let measured = [
            (
                "SendFrom",
                to,
                Cw20ExecuteMsg::SendFrom {
                    owner: owner.clone(),
                    contract: self.meter.people.address(ESCROW)?,
                    amount,
                    msg: to_json_binary(&escrow::ReceiveMsg::Deposit { beneficiary: None })?,
                },
            ),
            ("BurnFrom", to, Cw20ExecuteMsg::BurnFrom { owner, amount }),
            (
                "DecreaseAllowance",
                from,
                Cw20ExecuteMsg::DecreaseAllowance {
                    spender: to.address().to_owned(),
                    amount,
                    expires: None,
                },
            ),
        ];
        for (message, sender, msg) in measured {
            self.meter.execute(TOKEN, message, sender, &msg).await?;
        }
        Ok(())
    }

    async fn publishing(&mut self) -> anyhow::Result<()> {
        let creator = self.creator.clone();
        let claim = claim(&self.namespace)?;
        self.meter
            .pay(REGISTRY, "ClaimNamespace", &creator, (10, &claim))
            .await?;
        let [parent, one, three, late] = ["parent", "one", "three", "late"].map(|name| self.model(name));
        let (parent, one, three, late) = (parent?, one?, three?, late?);
        let of_parent = vec![registry::Parent {
            model: parent.clone(),
            bps: 2_500,
        }];
        let measured = [
            ("PublishModel", publish(&creator, &parent, vec![])),
            ("PublishModel, with a parent", publish(&creator, &one, of_parent)),
            ("PublishVersion, 1 stage", version(&one, 1)),
            ("SetEndpoint", endpoint(&one)),
        ];
        for (message, msg) in measured {
            self.meter.execute(REGISTRY, message, &creator, &msg).await?;
        }
        let calls = [
            publish(&creator, &three, vec![]),
            publish(&creator, &late, vec![]),
            version(&late, 1),
            endpoint(&late),
        ];
        let registry = self.meter.people.address(REGISTRY)?;
        let calls: Result<Vec<Call>, _> = calls.iter().map(|msg| Call::execute(registry.clone(), msg)).collect();
        send(&creator, &calls?).await?;
        self.meter
            .execute(REGISTRY, "PublishVersion, 3 stages", &creator, &version(&three, 3))
            .await?;
        send(&creator, &[Call::execute(registry, &endpoint(&three))?]).await?;
        self.keeping(&parent).await
    }

    async fn keeping(&mut self, model: &ModelId) -> anyhow::Result<()> {
        let (creator, other, model) = (self.creator.clone(), self.developer.clone(), model.clone());
        let update = registry::ExecuteMsg::UpdateMetadata {
            model: model.clone(),
            metadata: metadata(),
        };
        self.meter
            .execute(REGISTRY, "UpdateMetadata", &creator, &update)
            .await?;
        send(
            &creator,
            &[Call::execute(
                self.meter.people.address(REGISTRY)?,
                &version(&model, 1),
            )?],
        )
        .await?;
        let status = |status| registry::ExecuteMsg::SetStatus {
            model: model.clone(),
            status,
        };
        self.meter
            .execute(REGISTRY, "SetStatus", &creator, &status(ModelStatus::Paused))
            .await?;
        let retire = registry::ExecuteMsg::RetireVersion {
            model: model.clone(),
            version: 1,
        };
        self.meter.execute(REGISTRY, "RetireVersion", &creator, &retire).await?;
        let propose = registry::ExecuteMsg::ProposeOwner {
            model: model.clone(),
            owner: Some(other.address().to_owned()),
        };
        self.meter.execute(REGISTRY, "ProposeOwner", &creator, &propose).await?;
        let accept = registry::ExecuteMsg::AcceptOwner { model: model.clone() };
        self.meter.execute(REGISTRY, "AcceptOwner", &other, &accept).await?;
        Ok(())
    }

    /// Ten deployments: four of the whole model, two of each stage of the other.
    async fn providing(&mut self) -> anyhow::Result<()> {
        let (one, three, late) = (self.model("one")?, self.model("three")?, self.model("late")?);
        for number in 0..10u8 {
            let (model, stage) = if number < 4 {
                (&one, 0)
            } else {
                (&three, (number - 4) / 2)
            };
            self.provider(&format!("{}-{number}", self.namespace), model, stage, 300, number == 0)
                .await?;
        }
        self.provider(&format!("{}-late", self.namespace), &late, 0, LATE_SECONDS, false)
            .await
    }

    async fn provider(
        &mut self,
        name: &str,
        model: &ModelId,
        stage: u8,
        seconds: u64,
        is_measured: bool,
    ) -> anyhow::Result<()> {
        const SLOTS: u16 = 64;
        let provider = self.meter.people.actor(name, 10_000).await?;
        self.hosts.insert(provider.address().to_owned(), Host::named(name));
        let register = staking::ExecuteMsg::RegisterProvider { profile: profile(name) };
        let (bond, terms) = (staking::ReceiveMsg::Bond {}, terms(model, stage, SLOTS, seconds));
        let amount = u128::from(SLOTS) * 50 + 100;
        if is_measured {
            self.meter
                .execute(STAKING, "RegisterProvider", &provider, &register)
                .await?;
            self.meter.pay(STAKING, "Bond", &provider, (amount, &bond)).await?;
            self.meter.pay(STAKING, "Deploy", &provider, (1, &terms)).await?;
            let update = staking::ExecuteMsg::UpdateProvider { profile: profile(name) };
            self.meter
                .execute(STAKING, "UpdateProvider", &provider, &update)
                .await?;
            return Ok(());
        }
        let calls = [
            Call::execute(self.meter.people.address(STAKING)?, &register)?,
            self.meter.people.paying(STAKING, amount, &bond)?,
            self.meter.people.paying(STAKING, 1, &terms)?,
        ];
        send(&provider, &calls).await?;
        Ok(())
    }

    async fn money(&mut self) -> anyhow::Result<()> {
        let developer = self.developer.clone();
        let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
        self.meter.pay(ESCROW, "Deposit", &developer, (100, &deposit)).await?;
        let withdraw = escrow::ExecuteMsg::Withdraw {
            amount: Some(UFUNC.into()),
        };
        self.meter.execute(ESCROW, "Withdraw", &developer, &withdraw).await?;
        Ok(())
    }

    async fn working(&mut self) -> anyhow::Result<()> {
        let developer = self.developer.clone();
        for spans in SPANS {
            let model = self.model(if spans == 1 { "one" } else { "three" })?;
            for items in BATCHES {
                let mut proofs: Vec<Attestation> = vec![];
                while proofs.len() < items {
                    let shards = SHARDS.min(items - proofs.len());
                    let label = format!("SubmitJob, {shards} of {spans}");
                    let outcome = self
                        .meter
                        .execute(ORCHESTRATOR, label, &developer, &job(&model, shards))
                        .await?;
                    proofs.extend(self.proofs(job_of(&outcome)?).await?);
                }
                self.prove(attestation_row(items, spans), proofs).await?;
            }
        }
        let distribute = escrow::ExecuteMsg::DistributeRoyalties {
            model: self.model("parent")?,
        };
        self.meter
            .execute(ESCROW, "DistributeRoyalties", &developer, &distribute)
            .await?;
        let payout = registry::ExecuteMsg::SetPayout {
            model: self.model("one")?,
            payout: vec![registry::Share {
                address: self.creator.address().to_owned(),
                bps: 10_000,
            }],
        };
        let creator = self.creator.clone();
        self.meter.execute(REGISTRY, "SetPayout", &creator, &payout).await?;
        Ok(())
    }

    /// Of every item of a job.
    async fn proofs(&self, job: u64) -> anyhow::Result<Vec<Attestation>> {
        let client = &self.meter.people.client;
        let all = proofs(client, &self.hosts, &domain(client).await?, job).await?;
        Ok(all.into_iter().map(|(_, attestation)| attestation).collect())
    }

    async fn prove(&mut self, label: String, attestations: Vec<Attestation>) -> anyhow::Result<()> {
        let count = attestations.len();
        let msg = orchestrator::ExecuteMsg::SubmitAttestations { attestations };
        let sender = self.developer.clone();
        let outcome = self.meter.execute(ORCHESTRATOR, label, &sender, &msg).await?;
        let attested = outcome
            .events
            .iter()
            .filter(|event| event.ty == "wasm-attested")
            .count();
        anyhow::ensure!(attested == count, "{attested} of {count} attestations were taken");
        Ok(())
    }

    /// A job of a short life that nobody works on: after it, anyone gives its money back.
    async fn forgotten(&mut self) -> anyhow::Result<u64> {
        let mut short = self.params.orchestrator.clone();
        short.job_seconds_max = FORGOTTEN_SECONDS;
        let usual = self.params.orchestrator.clone();
        let [short, usual] = [short, usual].map(|params| orchestrator::ExecuteMsg::UpdateParams { params });
        send(&self.admin, &[self.meter.people.telling(ORCHESTRATOR, &short)?]).await?;
        let order = self.meter.people.telling(ORCHESTRATOR, &job(&self.model("late")?, 1))?;
        let (_, outcome) = send(&self.developer, &[order]).await?;
        send(&self.admin, &[self.meter.people.telling(ORCHESTRATOR, &usual)?]).await?;
        job_of(&outcome)
    }

    /// Jobs that are proven at once and kept for a short while, by the message that is to prune them.
    async fn done(&mut self) -> anyhow::Result<Vec<Vec<u64>>> {
        let mut short = self.params.orchestrator.clone();
        (short.job_seconds_max, short.prune_after_seconds) = (FORGOTTEN_SECONDS, FORGOTTEN_SECONDS);
        let usual = self.params.orchestrator.clone();
        let [short, usual] = [short, usual].map(|params| orchestrator::ExecuteMsg::UpdateParams { params });
        send(&self.admin, &[self.meter.people.telling(ORCHESTRATOR, &short)?]).await?;
        let mut done = vec![];
        for items in PRUNED {
            let mut jobs = vec![];
            for _ in 0..items.div_ceil(SHARDS) {
                let order = job(&self.model("late")?, items.min(SHARDS));
                let order = self.meter.people.telling(ORCHESTRATOR, &order)?;
                let job = job_of(&send(&self.developer, &[order]).await?.1)?;
                let attestations = self.proofs(job).await?;
                let prove = orchestrator::ExecuteMsg::SubmitAttestations { attestations };
                send(&self.developer, &[self.meter.people.telling(ORCHESTRATOR, &prove)?]).await?;
                jobs.push(job);
            }
            done.push(jobs);
        }
        send(&self.admin, &[self.meter.people.telling(ORCHESTRATOR, &usual)?]).await?;
        Ok(done)
    }

    async fn pruning(&mut self, done: Vec<Vec<u64>>) -> anyhow::Result<()> {
        let orchestrator = self.meter.people.address(ORCHESTRATOR)?;
        let developer = self.developer.clone();
        for (jobs, items) in done.into_iter().zip(PRUNED) {
            let job = *jobs.last().context("a message prunes a job")?;
            let question = orchestrator::QueryMsg::Job { job };
            let told: orchestrator::JobResponse = self.meter.people.client.query(&orchestrator, &question).await?;
            let date = told.prunable_at.context("the job has ended")?;
            self.meter.people.until(date).await?;
            let count = jobs.len();
            let label = format!("Prune, {items} items");
            let prune = orchestrator::ExecuteMsg::Prune { jobs };
            let outcome = self.meter.execute(ORCHESTRATOR, label, &developer, &prune).await?;
            let events = outcome.events.iter();
            let pruned = events.filter(|event| event.ty == "wasm-job_pruned").count();
            anyhow::ensure!(pruned == count, "{pruned} of {count} jobs were pruned");
        }
        Ok(())
    }

    async fn releasing(&mut self, job: u64) -> anyhow::Result<()> {
        let people = &self.meter.people;
        let question = orchestrator::QueryMsg::Job { job };
        let orchestrator = people.address(ORCHESTRATOR)?;
        let told: orchestrator::JobResponse = people.client.query(&orchestrator, &question).await?;
        people.until(told.expires_at).await?;
        let developer = self.developer.clone();
        let release = escrow::ExecuteMsg::ReleaseExpired { job };
        self.meter
            .execute(ESCROW, "ReleaseExpired", &developer, &release)
            .await?;
        Ok(())
    }

    /// A host that never proves: evidence of what it did, and the end of its item.
    async fn failing(&mut self) -> anyhow::Result<()> {
        let forgotten = self.forgotten().await?;
        let developer = self.developer.clone();
        let order = Call::execute(self.meter.people.address(ORCHESTRATOR)?, &job(&self.model("late")?, 1))?;
        let (_, outcome) = send(&developer, &[order]).await?;
        let job = job_of(&outcome)?;
        let proof = self.proofs(job).await?.remove(0);
        let item = items(&self.meter.people.client, job).await?.remove(0);
        self.meter.people.until(item.deadline + 1).await?;
        self.meter
            .execute(ORCHESTRATOR, "PostEvidence", &developer, &evidence(proof))
            .await?;
        self.meter.people.until(item.evidence_until).await?;
        let expire = orchestrator::ExecuteMsg::Expire { item: item.item };
        self.meter.execute(ORCHESTRATOR, "Expire", &developer, &expire).await?;
        let late = self.meter.people.account(&format!("{}-late", self.namespace));
        let provider = late.address().to_owned();
        let unjail = staking::ExecuteMsg::Unjail { provider };
        self.meter.execute(STAKING, "Unjail", &late, &unjail).await?;
        self.releasing(forgotten).await
    }

    /// The first provider leaves.
    /// The round that is due, by the development key, and the same once more.
    async fn drawing_lots(&mut self) -> anyhow::Result<()> {
        let beacon = self.params.beacon.as_ref().context("the profile has a beacon")?;
        let now = self.meter.people.now().await?;
        let round = beacon.schedule().newest_at(now).context("a round is due")?;
        let post = randomness::ExecuteMsg::PostRound {
            round,
            signature: Secret::development().sign(round),
        };
        let developer = self.developer.clone();
        for message in ["PostRound", "PostRound, known"] {
            self.meter.execute(BEACON, message, &developer, &post).await?;
        }
        Ok(())
    }

    async fn leaving(&mut self) -> anyhow::Result<()> {
        let provider = self.meter.people.account(&format!("{}-0", self.namespace));
        let question = staking::QueryMsg::Deployments {
            provider: Some(provider.address().to_owned()),
            start_after: None,
            limit: None,
        };
        let staking = &self.meter.people.client.contracts().provider_staking;
        let listed: staking::DeploymentsResponse = self.meter.people.client.query(staking, &question).await?;
        let deployment = listed.deployments[0].deployment;
        let measured = [
            ("Drain", staking::ExecuteMsg::Drain { deployment }),
            ("Remove", staking::ExecuteMsg::Remove { deployment }),
            ("Unbond", staking::ExecuteMsg::Unbond { amount: UFUNC.into() }),
        ];
        for (message, msg) in measured {
            self.meter.execute(STAKING, message, &provider, &msg).await?;
        }
        let now = self.meter.people.now().await?;
        self.meter
            .people
            .until(now + self.params.staking.unbonding_seconds)
            .await?;
        self.meter
            .execute(STAKING, "Withdraw", &provider, &staking::ExecuteMsg::Withdraw {})
            .await?;
        Ok(())
    }

    async fn governing(&mut self) -> anyhow::Result<()> {
        let (admin, other) = (self.admin.clone(), self.developer.clone());
        let params = self.params.clone();
        let update = registry::ExecuteMsg::UpdateParams {
            params: params.registry,
        };
        self.meter.execute(REGISTRY, "UpdateParams", &admin, &update).await?;
        let update = staking::ExecuteMsg::UpdateParams { params: params.staking };
        self.meter.execute(STAKING, "UpdateParams", &admin, &update).await?;
        let update = escrow::ExecuteMsg::UpdateParams { params: params.escrow };
        self.meter.execute(ESCROW, "UpdateParams", &admin, &update).await?;
        let update = orchestrator::ExecuteMsg::UpdateParams {
            params: params.orchestrator,
        };
        self.meter
            .execute(ORCHESTRATOR, "UpdateParams", &admin, &update)
            .await?;
        for contract in GOVERNED {
            self.handing_over(contract, &admin, &other).await?;
        }
        Ok(())
    }

    /// To somebody else, which is measured, and back. Every contract that has an admin takes the same messages.
    async fn handing_over(&mut self, contract: &'static str, admin: &Account, other: &Account) -> anyhow::Result<()> {
        let propose = |to: &Account| json!({ "propose_admin": { "admin": to.address() } });
        let accept = json!({ "accept_admin": {} });
        self.meter
            .execute(contract, "ProposeAdmin", admin, &propose(other))
            .await?;
        self.meter.execute(contract, "AcceptAdmin", other, &accept).await?;
        send(other, &[self.meter.people.telling(contract, &propose(admin))?]).await?;
        send(admin, &[self.meter.people.telling(contract, &accept)?]).await?;
        Ok(())
    }

    /// A contract goes over to its own code under another version.
    async fn migrating(&mut self, contract: &'static str, release: &str) -> anyhow::Result<()> {
        let admin = self.admin.clone();
        let wasm = renamed(artifact(contract)?, release)?;
        let (_, stored) = send(&admin, &[Call::StoreCode { wasm }]).await?;
        let code_id: u64 = stored.attribute("store_code", "code_id").unwrap_or_default().parse()?;
        let propose = json!({ "propose_migration": { "code_id": code_id, "msg": Binary::from(b"{}") } });
        self.meter
            .execute(contract, "ProposeMigration", &admin, &propose)
            .await?;
        let cancel = json!({ "cancel_migration": {} });
        self.meter.execute(contract, "CancelMigration", &admin, &cancel).await?;
        send(&admin, &[self.meter.people.telling(contract, &propose)?]).await?;
        let now = self.meter.people.now().await?;
        self.meter.people.until(now + MIGRATION_NOTICE_SECONDS).await?;
        let execute = json!({ "execute_migration": {} });
        self.meter
            .execute(contract, "ExecuteMigration", &admin, &execute)
            .await?;
        Ok(())
    }
}

/// The same module as another version, wherever it tells it.
fn renamed(mut wasm: Vec<u8>, release: &str) -> anyhow::Result<Vec<u8>> {
    let old = env!("CARGO_PKG_VERSION").as_bytes();
    anyhow::ensure!(release.len() == old.len(), "{release} does not fit into the module");
    let places: Vec<usize> = (0..wasm.len())
        .filter(|place| wasm[*place..].starts_with(old))
        .collect();
    anyhow::ensure!(!places.is_empty(), "the module does not tell its version");
    for place in places {
        wasm[place..place + old.len()].copy_from_slice(release.as_bytes());
    }
    Ok(wasm)
}
