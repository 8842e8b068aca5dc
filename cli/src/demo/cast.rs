//! Who plays: accounts with homes and key files of their own, funded by the faucet.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use client::{Account, Call, Client, Wallet};
use futures::future::try_join_all;
use schema::price::Ask;

use super::plan;
use crate::{amount::Func, home, keys::seal, wallet::faucet_calls};

/// An account with its home.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    pub(crate) account: Account,
}

/// An owner, its host's key and its relayer's account.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    pub(crate) owner: Actor,
    pub(crate) host_key: Wallet,
    pub(crate) relayer: String,
    pub(crate) stage: u8,
    pub(crate) ask: Ask,
}

impl Provider {
    /// Role of its host among the processes.
    pub(crate) fn host_role(&self) -> String {
        format!("{}/host", self.owner.name)
    }

    pub(crate) fn relayer_role(&self) -> String {
        format!("{}/relayer", self.owner.name)
    }
}

#[derive(Debug)]
pub(crate) struct Cast {
    pub(crate) creator: Actor,
    pub(crate) research: Actor,
    pub(crate) developer: Actor,
    pub(crate) providers: Vec<Provider>,
    /// Recipients of royalties that do nothing else.
    pub(crate) designer: String,
    pub(crate) archive: String,
}

/// A new home with new keys. Their passphrase lies beside them, so that every command works with this home.
async fn move_in(folder: &Path, name: &str, keys: &[&str]) -> anyhow::Result<(PathBuf, Vec<Wallet>)> {
    let home = folder.join(name);
    let wallets: Vec<Wallet> = keys.iter().map(|_| Wallet::random()).collect();
    let named: Vec<(String, Wallet)> = keys
        .iter()
        .map(|key| (*key).to_owned())
        .zip(wallets.iter().cloned())
        .collect();
    let place = home.clone();
    // Sealing a key takes time on purpose.
    let sealed = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        home::create_private(&place).with_context(|| format!("failed to create {}", place.display()))?;
        named
            .iter()
            .try_for_each(|(key, wallet)| seal(&place, &key.parse()?, wallet))
    });
    sealed.await.context("sealing keys was interrupted")??;
    Ok((home, wallets))
}

impl Cast {
    /// Makes homes, keys and the network file of each.
    pub(crate) async fn assemble(client: &Client, folder: &Path) -> anyhow::Result<Self> {
        let actor = async |name: &str| -> anyhow::Result<Actor> {
            let (home, wallets) = move_in(folder, name, &[name]).await?;
            let wallet = wallets.into_iter().next().context("no key was made")?;
            client.network().save(&home.join("network.json"))?;
            Ok(Actor {
                name: name.to_owned(),
                home,
                account: Account::new(client.clone(), wallet),
            })
        };
        let providers = try_join_all((0..plan::PROVIDERS).map(|number| provider(client, folder, number)));
        let actors = async { tokio::try_join!(actor("creator"), actor("research"), actor("developer")) };
        let (providers, (creator, research, developer)) = tokio::try_join!(providers, actors)?;
        let stranger = || Wallet::random().address(&client.network().bech32_prefix);
        Ok(Self {
            creator,
            research,
            developer,
            providers,
            designer: stranger(),
            archive: stranger(),
        })
    }

    /// Calls by which the faucet gives everybody what the story takes.
    pub(crate) fn funding(&self, client: &Client) -> anyhow::Result<Vec<Call>> {
        let mut calls = vec![];
        let mut give = |to: &str, amount: Func| -> anyhow::Result<()> {
            calls.extend(faucet_calls(client, to, plan::GAS, amount)?);
            Ok(())
        };
        give(self.creator.account.address(), plan::CREATOR_FUNC)?;
        give(self.research.account.address(), plan::CREATOR_FUNC)?;
        give(self.developer.account.address(), plan::DEVELOPER_FUNC)?;
        for provider in &self.providers {
            give(provider.owner.account.address(), plan::PROVIDER_FUNC)?;
        }
        calls.extend(
            self.providers
                .iter()
                .map(|provider| Call::send(&provider.relayer, plan::GAS)),
        );
        Ok(calls)
    }

    /// Owners and their deployments; `hosts` names the host process of each deployment.
    pub(crate) fn listed(&self, hosts: &BTreeMap<u64, String>) -> Vec<(Account, u64)> {
        let owner_of = |role: &str| self.providers.iter().find(|provider| provider.host_role() == role);
        let listed = hosts.iter().filter_map(|(deployment, role)| {
            let owner = owner_of(role)?;
            Some((owner.owner.account.clone(), *deployment))
        });
        listed.collect()
    }

    /// Names of all accounts, for people.
    pub(crate) fn names(&self) -> BTreeMap<String, String> {
        let actors = [&self.creator, &self.research, &self.developer].into_iter();
        let owners = self.providers.iter().map(|provider| &provider.owner);
        let mut names: BTreeMap<String, String> = actors
            .chain(owners)
            .map(|actor| (actor.account.address().to_owned(), actor.name.clone()))
            .collect();
        names.insert(self.designer.clone(), "designer".to_owned());
        names.insert(self.archive.clone(), "archive".to_owned());
        names
    }
}

async fn provider(client: &Client, folder: &Path, number: u8) -> anyhow::Result<Provider> {
    let name = format!("provider-{}", number.saturating_add(1));
    let (home, wallets) = move_in(folder, &name, &["owner", "host", "relayer"]).await?;
    client.network().save(&home.join("network.json"))?;
    let [owner, host_key, relayer] = <[Wallet; 3]>::try_from(wallets).ok().context("three keys are needed")?;
    Ok(Provider {
        owner: Actor {
            name,
            home,
            account: Account::new(client.clone(), owner),
        },
        host_key,
        relayer: relayer.address(&client.network().bech32_prefix),
        stage: number / 2,
        ask: plan::ask(number),
    })
}
