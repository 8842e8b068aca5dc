//! Creators, providers and developers: what they publish, serve, bond, deposit and order.

use cosmwasm_std::{Binary, Decimal, Uint128};
use schema::{
    escrow, orchestrator,
    orchestrator::{ItemResponse, ItemsResponse, JobResponse, NewJob, NewShard},
    params::ConductParams,
    price::{Ask, RoyaltyRate},
    registry,
    registry::{EndpointTerms, Metadata, NewVersion, Parent, Share, StageInfo, Task, Unit},
    staking,
    staking::{DeploymentTerms, DeploymentsResponse, Profile, ProviderResponse, Sla},
    Digest, ItemId,
};

use crate::{Host, Outcome, Protocol, FUNC};

/// The model of most stories: three stages, royalty with a fixed part, a quarter of it to its parent.
pub const MODEL: &str = "demo/minilm";
/// The model it stands on.
pub const PARENT: &str = "demo/bert";
/// Orders most jobs.
pub const DEVELOPER: &str = "dora";
/// Two for each stage of the model, in order of the stages.
pub const PROVIDERS: [&str; 6] = ["anna", "axel", "bea", "bert", "cora", "carl"];

const CLASS: &str = "ort-cpu-avx2";

/// A model to be published with one version and one endpoint.
#[derive(Debug, Clone)]
pub struct Creation {
    pub owner: String,
    pub model: String,
    pub task: Task,
    /// Compute share of each stage, in bps.
    pub shares: Vec<u16>,
    pub royalty: RoyaltyRate,
    /// By name.
    pub payout: Vec<(String, u16)>,
    pub parents: Vec<(String, u16)>,
}

impl Creation {
    /// An embeddings model with three stages; everything goes to its owner.
    pub fn of(owner: &str, model: &str) -> Self {
        Self {
            owner: owner.to_owned(),
            model: model.to_owned(),
            task: Task::Embeddings,
            shares: vec![3_000, 4_000, 3_000],
            royalty: RoyaltyRate {
                royalty_bps: 1_000,
                royalty_per_1k_units: 333u128.into(),
            },
            payout: vec![(owner.to_owned(), 10_000)],
            parents: vec![],
        }
    }
}

/// What a provider offers.
#[derive(Debug, Clone)]
pub struct Serving {
    pub stages: (u8, u8),
    pub class: String,
    pub per_1k_in: u128,
    pub slots: u16,
    pub sla: Sla,
}

impl Serving {
    /// Stages `first..=last` at a price that differs from stage to stage.
    pub fn stages(first: u8, last: u8) -> Self {
        Self {
            stages: (first, last),
            class: CLASS.to_owned(),
            per_1k_in: [101_001, 202_003, 303_007][usize::from(first) % 3],
            slots: 8,
            sla: Sla {
                base_seconds: 5,
                seconds_per_1k_units: 2,
                units_max: 10_000,
                penalty_bps: 2_000,
            },
        }
    }

    /// As terms of a deployment of the model of most stories.
    pub fn terms(&self) -> DeploymentTerms {
        DeploymentTerms {
            model: MODEL.parse().expect("the name is valid"),
            version: 1,
            first: self.stages.0,
            last: self.stages.1,
            engine_class: self.class.clone(),
            ask: self.ask(),
            reservation_per_hour: 100_000u128.into(),
            slots: self.slots,
            sla: self.sla,
        }
    }

    /// The ask that follows from the price.
    pub fn ask(&self) -> Ask {
        Ask {
            per_1k_in: self.per_1k_in.into(),
            per_1k_out: self.per_1k_in.into(),
            per_request: 17u128.into(),
        }
    }
}

impl Protocol {
    /// The model with its parent, its six providers, and a developer with 100 FUNC in the escrow.
    pub fn with_market() -> Self {
        Self::new().opens_market()
    }

    /// The same with other consequences of misses, link faults and settled work.
    pub fn with_market_and_conduct(change: impl FnOnce(&mut ConductParams)) -> Self {
        Self::with_conduct(change).opens_market()
    }

    pub(crate) fn opens_market(self) -> Self {
        let mut protocol = self;
        protocol.claims("clara", "demo");
        let mut parent = Creation::of("clara", PARENT);
        parent.payout = vec![("pavel".to_owned(), 6_000), ("petra".to_owned(), 4_000)];
        protocol.publishes(&parent).expect("the parent is valid");
        let mut child = Creation::of("clara", MODEL);
        child.payout = vec![("clara".to_owned(), 6_667), ("chloe".to_owned(), 3_333)];
        child.parents = vec![(PARENT.to_owned(), 2_500)];
        protocol.publishes(&child).expect("the child is valid");
        for (name, stage) in PROVIDERS.iter().zip([0, 0, 1, 1, 2, 2]) {
            protocol.provides(name, &Serving::stages(stage, stage));
        }
        protocol.deposits(DEVELOPER, 100 * FUNC);
        protocol
    }

    /// Claims a namespace.
    pub fn claims(&mut self, name: &str, namespace: &str) {
        let fee = self.params.registry.namespace_fee.u128();
        self.fund(name, fee);
        let claim = registry::ReceiveMsg::ClaimNamespace {
            namespace: namespace.parse().expect("stories name namespaces well"),
        };
        let registry = self.contracts.model_registry.clone();
        self.send(name, &registry, fee, &claim).expect("the namespace is free");
    }

    /// Publishes a model with one version and the endpoint `embeddings`.
    pub fn publishes(&mut self, creation: &Creation) -> Outcome {
        let owner = self.addr(&creation.owner);
        let registry = self.contracts.model_registry.clone();
        let model: schema::ModelId = creation.model.parse()?;
        let mut events = vec![];
        for msg in [
            registry::ExecuteMsg::PublishModel {
                model: model.clone(),
                metadata: metadata(&creation.model, creation.task),
                payout: self.shares(&creation.payout),
                parents: parents(&creation.parents)?,
            },
            registry::ExecuteMsg::PublishVersion {
                model: model.clone(),
                version: version(&creation.shares),
            },
            registry::ExecuteMsg::SetEndpoint {
                model: model.clone(),
                endpoint: "embeddings".to_owned(),
                terms: EndpointTerms {
                    unit: Unit::Token,
                    royalty: creation.royalty,
                },
            },
        ] {
            events.extend(self.execute(&owner, &registry, &msg)?);
        }
        Ok(events)
    }

    /// A payout rule by names.
    pub fn shares(&self, payout: &[(String, u16)]) -> Vec<Share> {
        let share = |(name, bps): &(String, u16)| Share {
            address: self.addr(name).into_string(),
            bps: *bps,
        };
        payout.iter().map(share).collect()
    }

    /// Registers a provider whose host has the key of its name, bonds for all slots and lists the deployment.
    pub fn provides(&mut self, name: &str, serving: &Serving) -> u64 {
        self.registers(name).expect("the provider is new");
        self.deploys(name, serving).expect("the deployment is valid");
        self.deployment_of(name)
    }

    /// Registers a provider whose host has the key of its name.
    pub fn registers(&mut self, name: &str) -> Outcome {
        let register = staking::ExecuteMsg::RegisterProvider {
            profile: self.profile(name),
        };
        let (owner, staking) = (self.addr(name), self.contracts.provider_staking.clone());
        self.execute(&owner, &staking, &register)
    }

    /// What a provider of this name says about itself.
    pub fn profile(&self, name: &str) -> Profile {
        Profile {
            name: name.to_owned(),
            endpoint: format!("http://{name}.example:7000"),
            host_key: Host::named(name).public_key(),
            operator: None,
            hardware: "two cores".to_owned(),
        }
    }

    /// Bonds for all slots and the reserve, and lists a deployment of the model.
    pub fn deploys(&mut self, name: &str, serving: &Serving) -> Outcome {
        let (staking, params) = (self.contracts.provider_staking.clone(), self.params.staking.clone());
        let reserve = (params.bond_per_slot.max(params.conduct.audit_unit).u128() * 3).div_ceil(2);
        let bond = params.bond_per_slot.u128() * u128::from(serving.slots) + reserve;
        let fee = params.listing_fee.u128();
        self.fund(name, bond + fee);
        self.send(name, &staking, bond, &staking::ReceiveMsg::Bond {})?;
        let deploy = staking::ReceiveMsg::Deploy { terms: serving.terms() };
        self.send(name, &staking, fee, &deploy)
    }

    /// A provider as staking knows it.
    pub fn provider(&self, name: &str) -> ProviderResponse {
        let provider = self.addr(name).into_string();
        self.ask(
            &self.contracts.provider_staking,
            &staking::QueryMsg::Provider { provider },
        )
    }

    /// The newest deployment of a provider.
    pub fn deployment_of(&self, name: &str) -> u64 {
        let question = staking::QueryMsg::Deployments {
            provider: Some(self.addr(name).into_string()),
            start_after: None,
            limit: Some(30),
        };
        let listed: DeploymentsResponse = self.ask(&self.contracts.provider_staking, &question);
        listed.deployments.last().expect("the provider has one").deployment
    }

    /// Slots of all deployments that hold an item now.
    pub fn busy_slots(&self) -> u32 {
        let question = staking::QueryMsg::Deployments {
            provider: None,
            start_after: None,
            limit: Some(30),
        };
        let listed: DeploymentsResponse = self.ask(&self.contracts.provider_staking, &question);
        listed
            .deployments
            .iter()
            .map(|deployment| u32::from(deployment.busy))
            .sum()
    }

    /// Gives somebody FUNC and deposits it.
    pub fn deposits(&mut self, name: &str, amount: u128) {
        self.fund(name, amount);
        let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
        let escrow = self.contracts.royalty_escrow.clone();
        self.send(name, &escrow, amount, &deposit)
            .expect("a deposit is always welcome");
    }

    /// A message to the escrow.
    pub fn escrow(&mut self, name: &str, msg: &escrow::ExecuteMsg) -> Outcome {
        let (sender, escrow) = (self.addr(name), self.contracts.royalty_escrow.clone());
        self.execute(&sender, &escrow, msg)
    }

    /// A message to the registry.
    pub fn registry(&mut self, name: &str, msg: &registry::ExecuteMsg) -> Outcome {
        let (sender, registry) = (self.addr(name), self.contracts.model_registry.clone());
        self.execute(&sender, &registry, msg)
    }

    /// A message to staking.
    pub fn staking(&mut self, name: &str, msg: &staking::ExecuteMsg) -> Outcome {
        let (sender, staking) = (self.addr(name), self.contracts.provider_staking.clone());
        self.execute(&sender, &staking, msg)
    }

    /// A message to the orchestrator.
    pub fn orchestrator(&mut self, name: &str, msg: &orchestrator::ExecuteMsg) -> Outcome {
        let (sender, orchestrator) = (self.addr(name), self.contracts.job_orchestrator.clone());
        self.execute(&sender, &orchestrator, msg)
    }

    /// A job for the model with `rows` rows in each shard, at most 1000 units a shard and 1 FUNC an item.
    pub fn order(shards: usize, rows: usize, replicas: u8) -> NewJob {
        let shard = |shard: usize| NewShard {
            inline: (0..rows)
                .map(|row| Binary::from(format!("sentence {row} of shard {shard}").as_bytes()))
                .collect(),
        };
        NewJob {
            model: MODEL.parse().expect("the name is valid"),
            version: None,
            endpoint: "embeddings".to_owned(),
            engine_class: None,
            shards: (0..shards).map(shard).collect(),
            replicas,
            units_max: 1_000.min(256 * rows as u64),
            max_price: Uint128::new(FUNC * shards as u128 * u128::from(replicas)),
            deadline_seconds: None,
            chain: None,
            gateway: None,
        }
    }

    /// Submits a job.
    pub fn submits(&mut self, name: &str, job: NewJob) -> Outcome {
        self.orchestrator(name, &orchestrator::ExecuteMsg::SubmitJob { job })
    }

    /// Submits a job that has to be accepted, and says its number.
    pub fn starts(&mut self, job: NewJob) -> u64 {
        self.submits(DEVELOPER, job).expect("the job is valid");
        let question = orchestrator::QueryMsg::Jobs {
            developer: None,
            start_before: None,
            limit: Some(1),
        };
        let jobs: orchestrator::JobsResponse = self.ask(&self.contracts.job_orchestrator, &question);
        jobs.jobs[0].job
    }

    /// A job as the orchestrator knows it.
    pub fn job(&self, job: u64) -> JobResponse {
        self.ask(&self.contracts.job_orchestrator, &orchestrator::QueryMsg::Job { job })
    }

    /// An item as the orchestrator knows it.
    pub fn item(&self, item: ItemId) -> ItemResponse {
        self.ask(&self.contracts.job_orchestrator, &orchestrator::QueryMsg::Item { item })
    }

    /// All items of a job, page by page.
    pub fn items(&self, job: u64) -> Vec<ItemResponse> {
        let mut items: Vec<ItemResponse> = vec![];
        loop {
            let question = orchestrator::QueryMsg::Items {
                job,
                start_after: items.last().map(|item| item.item),
                limit: Some(30),
            };
            let page: ItemsResponse = self.ask(&self.contracts.job_orchestrator, &question);
            if page.items.is_empty() {
                return items;
            }
            items.extend(page.items);
        }
    }
}

fn metadata(title: &str, task: Task) -> Metadata {
    Metadata {
        title: title.to_owned(),
        description: "A model of a story.".to_owned(),
        task,
        licence: "Apache-2.0".to_owned(),
        tags: vec!["story".to_owned()],
        homepage: None,
        card: None,
    }
}

fn version(shares: &[u16]) -> NewVersion {
    let stage = |(index, share): (usize, &u16)| StageInfo {
        digest: Digest::of(format!("stage {index}").as_bytes()),
        weight_bytes: 1_000,
        compute_share_bps: *share,
    };
    NewVersion {
        manifest: Digest::of(b"manifest"),
        manifest_uris: vec![],
        stages: shares.iter().enumerate().map(stage).collect(),
        tolerance: Decimal::permille(1),
        units_per_request_max: 256,
    }
}

fn parents(parents: &[(String, u16)]) -> anyhow::Result<Vec<Parent>> {
    let parent = |(model, bps): &(String, u16)| {
        Ok(Parent {
            model: model.parse()?,
            bps: *bps,
        })
    };
    parents.iter().map(parent).collect()
}
