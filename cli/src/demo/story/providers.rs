//! Providers of the story: a host and a relayer each, registered, bonded, deployed, and ready before anybody orders.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context as _;
use futures::future::try_join_all;
use schema::{
    staking::{DeploymentTerms, Profile},
    work::HostFile,
    Event, ModelId, PublicKey,
};
use serde::de::DeserializeOwned;

use super::{super::jobs::Killed, Scene};
use crate::{
    demo::{
        cast::{Cast, Provider},
        plan, Demo,
    },
    provider::{bond_call, deploy_call, dues, register_call},
};

/// Longest wait for a status page.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The part of a host's status that says whether it serves.
#[derive(Debug, serde::Deserialize)]
struct HostStatus {
    deployments: Vec<Served>,
}

#[derive(Debug, serde::Deserialize)]
struct Served {
    deployment: u64,
    state: String,
}

async fn page(address: &str, path: &str) -> Option<reqwest::Response> {
    let client = reqwest::Client::builder().timeout(STATUS_TIMEOUT).build().ok()?;
    let answer = client.get(format!("http://{address}{path}")).send().await.ok()?;
    answer.status().is_success().then_some(answer)
}

impl Scene<'_> {
    /// Starts all providers. Returns the host process of each deployment.
    pub(super) async fn start_providers(
        &mut self,
        cast: &Cast,
        model: &ModelId,
        uri: &str,
        engine_class: &str,
        demo: &Demo,
    ) -> anyhow::Result<BTreeMap<u64, String>> {
        self.progress.step("starting six hosts");
        for provider in &cast.providers {
            self.start_host(provider, "127.0.0.1:0", uri, demo)?;
        }
        let mut endpoints = vec![];
        for provider in &cast.providers {
            endpoints.push(self.host_file(provider).await?);
        }
        self.progress.step("six providers register, bond and deploy");
        let dues = dues(cast.developer.account.client()).await?;
        let listings = cast.providers.iter().zip(&endpoints).map(async |(provider, host)| {
            let terms = DeploymentTerms {
                model: model.clone(),
                version: 1,
                first: provider.stage,
                last: provider.stage,
                engine_class: engine_class.to_owned(),
                ask: provider.ask,
                reservation_per_hour: dues.reservation_per_hour_min.into(),
                slots: plan::SLOTS,
                sla: plan::sla(),
            };
            enlist(provider, &host.listen, terms, dues.listing_fee).await
        });
        let deployments = try_join_all(listings).await?;
        for provider in &cast.providers {
            self.start_relayer(provider)?;
        }
        self.progress
            .step("hosts fetch their stages by digest and prove themselves");
        let mut hosts = BTreeMap::new();
        for ((provider, host), deployment) in cast.providers.iter().zip(&endpoints).zip(deployments) {
            self.host_ready(provider, &host.status, deployment).await?;
            self.relayer_ready(provider).await?;
            hosts.insert(deployment, provider.host_role());
        }
        Ok(hosts)
    }

    fn start_host(&mut self, provider: &Provider, listen: &str, uri: &str, demo: &Demo) -> anyhow::Result<()> {
        let address = provider.owner.account.address();
        // One thread each: six hosts share the machine.
        let mut arguments = vec![
            "host",
            "--key",
            "host",
            "--provider",
            address,
            "--listen",
            listen,
            "--status",
            "127.0.0.1:0",
            "--source",
            uri,
            "--threads",
            "1",
            "--allow-private-peers",
        ];
        let library = demo.library.onnxruntime.as_ref().map(|path| path.display().to_string());
        if let Some(library) = &library {
            arguments.extend(["--onnxruntime", library]);
        }
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        self.crew.start(&provider.host_role(), &provider.owner.home, &arguments)
    }

    /// Where the host listens, once it says so itself.
    async fn host_file(&mut self, provider: &Provider) -> anyhow::Result<HostFile> {
        let role = provider.host_role();
        let path = provider.owner.home.join("host.json");
        let pid = self.crew.pid(&role)?;
        // A killed host leaves its file behind.
        let told = async || read::<HostFile>(&path).filter(|file| file.pid == pid);
        let file = self
            .crew
            .until(&role, "did not start", plan::START_PATIENCE, told)
            .await?;
        self.crew.listens(&role, &[&file.listen, &file.status])?;
        Ok(file)
    }

    async fn host_ready(&mut self, provider: &Provider, status: &str, deployment: u64) -> anyhow::Result<()> {
        let serves = async || -> Option<()> {
            let told: HostStatus = page(status, "/status").await?.json().await.ok()?;
            let mut served = told.deployments.iter();
            served
                .any(|served| served.deployment == deployment && served.state == "ready")
                .then_some(())
        };
        self.crew
            .until(
                &provider.host_role(),
                "did not serve its stage",
                plan::READY_PATIENCE,
                serves,
            )
            .await
    }

    fn start_relayer(&mut self, provider: &Provider) -> anyhow::Result<()> {
        let address = provider.owner.account.address();
        let arguments = [
            "relayer",
            "--key",
            "relayer",
            "--provider",
            address,
            "--relayer-status",
            "127.0.0.1:0",
        ];
        self.crew.start(
            &provider.relayer_role(),
            &provider.owner.home,
            &arguments.map(str::to_owned),
        )
    }

    async fn relayer_ready(&mut self, provider: &Provider) -> anyhow::Result<()> {
        let role = provider.relayer_role();
        let path = provider.owner.home.join("relayer.json");
        let told = async || read::<relayer::RelayerFile>(&path);
        let file = self
            .crew
            .until(&role, "did not start", plan::START_PATIENCE, told)
            .await?;
        self.crew.listens(&role, &[&file.status])?;
        let ready = async || page(&file.status, "/ready").await.map(|_| ());
        self.crew
            .until(&role, "was not ready", plan::READY_PATIENCE, ready)
            .await
    }

    /// The killed host starts again where it is registered, so that whoever comes next finds six providers.
    pub(super) async fn bring_back(
        &mut self,
        cast: &Cast,
        killed: &Killed,
        uri: &str,
        demo: &Demo,
    ) -> anyhow::Result<()> {
        let provider = cast
            .providers
            .iter()
            .find(|provider| provider.host_role() == killed.role);
        let provider = provider.with_context(|| format!("{} belongs to nobody", killed.role))?;
        let path = provider.owner.home.join("host.json");
        let before: HostFile = read(&path).context("the killed host left no file")?;
        self.start_host(provider, &before.listen, uri, demo)?;
        let file = self.host_file(provider).await?;
        self.host_ready(provider, &file.status, killed.deployment).await
    }
}

/// Registers, bonds and deploys in one transaction; returns the deployment.
async fn enlist(
    provider: &Provider,
    listen: &str,
    terms: DeploymentTerms,
    fee: crate::amount::Func,
) -> anyhow::Result<u64> {
    let account = &provider.owner.account;
    let client = account.client();
    let profile = Profile {
        name: provider.owner.name.clone(),
        endpoint: format!("http://{listen}"),
        host_key: PublicKey(provider.host_key.public_key()),
        operator: Some(provider.relayer.clone()),
        hardware: "the demonstration's machine".to_owned(),
    };
    let calls = [
        register_call(client, account.address(), profile).await?,
        bond_call(client, plan::BOND)?,
        deploy_call(client, fee, terms)?,
    ];
    let outcome = account
        .execute(&calls)
        .await
        .with_context(|| format!("{} could not deploy", provider.owner.name))?;
    let mut events = outcome.events.iter().filter_map(|event| Event::from_wasm(event).ok()?);
    let deployment = events.find_map(|event| match event {
        Event::DeploymentListed { deployment, .. } => Some(deployment),
        _ => None,
    });
    deployment.context("the chain told no deployment_listed event")
}
