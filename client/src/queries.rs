//! The contracts' queries, typed: `client.registry().model(&id)` instead of a message and a guess at its answer.
//!
//! A page has at most 30 rows; the `all_…` forms turn the pages, up to [`ROWS_MAX`] rows.

use std::future::Future;

use schema::{escrow, orchestrator, randomness, registry, staking, token, ItemId, ModelId, Namespace, Round};
use serde::{de::DeserializeOwned, Serialize};

use crate::{client::Client, error::ClientError};

mod sessions;

/// Rows of one page, the contracts' maximum.
const PAGE: u32 = 30;
/// Most rows that an `all_…` form reads; a longer list is an error, not a cut one.
pub const ROWS_MAX: usize = 100_000;

macro_rules! contract {
    ($(#[$doc:meta])* $name:ident, $method:ident, $field:ident, $query:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<'a> {
            client: &'a Client,
        }

        impl Client {
            $(#[$doc])*
            pub fn $method(&self) -> $name<'_> {
                $name { client: self }
            }
        }

        impl $name<'_> {
            /// Any query of the contract.
            pub async fn ask<R: DeserializeOwned>(&self, query: &$query) -> Result<R, ClientError> {
                ask(self.client, &self.client.contracts().$field, query).await
            }
        }
    };
}

contract!(
    /// FUNC, the token.
    Token, token, func_token, token::QueryMsg
);
contract!(
    /// Models, versions, endpoints and payout rules.
    Registry, registry, model_registry, registry::QueryMsg
);
contract!(
    /// Providers, bonds and deployments.
    Staking, staking, provider_staking, staking::QueryMsg
);
contract!(
    /// The ledger.
    Escrow, escrow, royalty_escrow, escrow::QueryMsg
);
contract!(
    /// Jobs and their items.
    Orchestrator, orchestrator, job_orchestrator, orchestrator::QueryMsg
);

/// Rounds of randomness, where the network has a beacon.
#[derive(Clone, Copy, Debug)]
pub struct Randomness<'a> {
    client: &'a Client,
    address: &'a str,
}

impl Client {
    /// The beacon, if the network has one.
    pub fn randomness(&self) -> Option<Randomness<'_>> {
        let address = self.contracts().randomness_beacon.as_deref()?;
        Some(Randomness { client: self, address })
    }
}

impl Randomness<'_> {
    /// Where it is.
    pub fn address(&self) -> &str {
        self.address
    }

    /// Key and schedule.
    pub async fn config(&self) -> Result<randomness::ConfigResponse, ClientError> {
        ask(self.client, self.address, &randomness::QueryMsg::Config {}).await
    }

    /// The newest round that is known.
    pub async fn latest(&self) -> Result<Option<Round>, ClientError> {
        ask(self.client, self.address, &randomness::QueryMsg::Latest {}).await
    }

    /// A round, if it is known.
    pub async fn round(&self, round: u64) -> Result<Option<Round>, ClientError> {
        ask(self.client, self.address, &randomness::QueryMsg::Round { round }).await
    }
}

impl Token<'_> {
    /// Balance of an account, in ufunc.
    pub async fn balance(&self, address: &str) -> Result<u128, ClientError> {
        let address = address.to_owned();
        let answer: cw20::BalanceResponse = self.ask(&token::QueryMsg::Balance { address }).await?;
        Ok(answer.balance.u128())
    }
}

impl Registry<'_> {
    /// Parameters and siblings.
    pub async fn config(&self) -> Result<registry::ConfigResponse, ClientError> {
        self.ask(&registry::QueryMsg::Config {}).await
    }

    /// Owner of a namespace.
    pub async fn namespace(&self, namespace: &Namespace) -> Result<registry::NamespaceResponse, ClientError> {
        let namespace = namespace.clone();
        self.ask(&registry::QueryMsg::Namespace { namespace }).await
    }

    /// One model.
    pub async fn model(&self, model: &ModelId) -> Result<registry::ModelResponse, ClientError> {
        self.ask(&registry::QueryMsg::Model { model: model.clone() }).await
    }

    /// A page of models, by name.
    pub async fn models(
        &self,
        namespace: Option<Namespace>,
        start_after: Option<ModelId>,
        limit: Option<u32>,
    ) -> Result<Vec<registry::ModelResponse>, ClientError> {
        let query = registry::QueryMsg::Models {
            namespace,
            start_after,
            limit,
        };
        let answer: registry::ModelsResponse = self.ask(&query).await?;
        Ok(answer.models)
    }

    /// All models, by name.
    pub async fn all_models(&self) -> Result<Vec<registry::ModelResponse>, ClientError> {
        all(
            |row: &registry::ModelResponse| row.model.clone(),
            |after| self.models(None, after, Some(PAGE)),
        )
        .await
    }

    /// One version of a model.
    pub async fn version(&self, model: &ModelId, version: u32) -> Result<registry::VersionResponse, ClientError> {
        let model = model.clone();
        self.ask(&registry::QueryMsg::Version { model, version }).await
    }

    /// All versions of a model, oldest first.
    pub async fn all_versions(&self, model: &ModelId) -> Result<Vec<registry::VersionResponse>, ClientError> {
        let page = |after| async move {
            let query = registry::QueryMsg::Versions {
                model: model.clone(),
                start_after: after,
                limit: Some(PAGE),
            };
            let answer: registry::VersionsResponse = self.ask(&query).await?;
            Ok(answer.versions)
        };
        all(|row: &registry::VersionResponse| row.version, page).await
    }

    /// What work on an endpoint would pin now.
    pub async fn offer(
        &self,
        model: &ModelId,
        version: Option<u32>,
        endpoint: &str,
    ) -> Result<registry::OfferResponse, ClientError> {
        let query = registry::QueryMsg::Offer {
            model: model.clone(),
            version,
            endpoint: endpoint.to_owned(),
        };
        self.ask(&query).await
    }

    /// Who gets a model's royalty.
    pub async fn payout(&self, model: &ModelId) -> Result<registry::PayoutResponse, ClientError> {
        self.ask(&registry::QueryMsg::Payout { model: model.clone() }).await
    }
}

impl Staking<'_> {
    /// Parameters and siblings.
    pub async fn config(&self) -> Result<staking::ConfigResponse, ClientError> {
        self.ask(&staking::QueryMsg::Config {}).await
    }

    /// One provider.
    pub async fn provider(&self, provider: &str) -> Result<staking::ProviderResponse, ClientError> {
        let provider = provider.to_owned();
        self.ask(&staking::QueryMsg::Provider { provider }).await
    }

    /// All providers, by address.
    pub async fn all_providers(&self) -> Result<Vec<staking::ProviderResponse>, ClientError> {
        let page = |after| async move {
            let query = staking::QueryMsg::Providers {
                start_after: after,
                limit: Some(PAGE),
            };
            let answer: staking::ProvidersResponse = self.ask(&query).await?;
            Ok(answer.providers)
        };
        all(|row: &staking::ProviderResponse| row.provider.clone(), page).await
    }

    /// One deployment.
    pub async fn deployment(&self, deployment: u64) -> Result<staking::DeploymentResponse, ClientError> {
        self.ask(&staking::QueryMsg::Deployment { deployment }).await
    }

    /// All deployments of one provider, or of all, by number.
    pub async fn all_deployments(
        &self,
        provider: Option<&str>,
    ) -> Result<Vec<staking::DeploymentResponse>, ClientError> {
        let page = |after| async move {
            let query = staking::QueryMsg::Deployments {
                provider: provider.map(str::to_owned),
                start_after: after,
                limit: Some(PAGE),
            };
            let answer: staking::DeploymentsResponse = self.ask(&query).await?;
            Ok(answer.deployments)
        };
        all(|row: &staking::DeploymentResponse| row.deployment, page).await
    }

    /// Deployments that serve a version, by number, in whatever state they are.
    pub async fn deployments_of(
        &self,
        model: &ModelId,
        version: u32,
    ) -> Result<Vec<staking::DeploymentResponse>, ClientError> {
        let page = |after| async move {
            let query = staking::QueryMsg::DeploymentsOf {
                model: model.clone(),
                version,
                start_after: after,
                limit: Some(PAGE),
            };
            let answer: staking::DeploymentsResponse = self.ask(&query).await?;
            Ok(answer.deployments)
        };
        all(|row: &staking::DeploymentResponse| row.deployment, page).await
    }

    /// What a job would get.
    pub async fn draw(&self, request: staking::DrawRequest) -> Result<staking::DrawResponse, ClientError> {
        self.ask(&staking::QueryMsg::Draw { request }).await
    }

    /// What the contract's FUNC is made of.
    pub async fn totals(&self) -> Result<staking::TotalsResponse, ClientError> {
        self.ask(&staking::QueryMsg::Totals {}).await
    }
}

impl Escrow<'_> {
    /// Parameters and siblings.
    pub async fn config(&self) -> Result<escrow::ConfigResponse, ClientError> {
        self.ask(&escrow::QueryMsg::Config {}).await
    }

    /// Where a holder's money is, with the first page of holds. `holder` is an address or `model:namespace/name`.
    pub async fn money(&self, holder: &str) -> Result<escrow::MoneyResponse, ClientError> {
        let query = escrow::QueryMsg::Money {
            holder: holder.to_owned(),
            start_after: None,
            sessions_after: None,
            limit: Some(PAGE),
        };
        self.ask(&query).await
    }

    /// Everything ever credited to a holder, by reason.
    pub async fn earnings(&self, holder: &str) -> Result<Vec<escrow::Credit>, ClientError> {
        let holder = holder.to_owned();
        let answer: escrow::EarningsResponse = self.ask(&escrow::QueryMsg::Earnings { holder }).await?;
        Ok(answer.credits)
    }

    /// What is held for a job.
    pub async fn hold(&self, job: u64) -> Result<escrow::HoldResponse, ClientError> {
        self.ask(&escrow::QueryMsg::Hold { job }).await
    }

    /// All holders with what they have.
    pub async fn all_ledger(&self) -> Result<Vec<escrow::LedgerEntry>, ClientError> {
        let page = |after| async move {
            let query = escrow::QueryMsg::Ledger {
                start_after: after,
                limit: Some(PAGE),
            };
            let answer: escrow::LedgerResponse = self.ask(&query).await?;
            Ok(answer.entries)
        };
        all(|row: &escrow::LedgerEntry| row.holder.clone(), page).await
    }

    /// Sums of the whole ledger.
    pub async fn totals(&self) -> Result<escrow::TotalsResponse, ClientError> {
        self.ask(&escrow::QueryMsg::Totals {}).await
    }
}

impl Orchestrator<'_> {
    /// Parameters, siblings and the domain of signatures.
    pub async fn config(&self) -> Result<orchestrator::ConfigResponse, ClientError> {
        self.ask(&orchestrator::QueryMsg::Config {}).await
    }

    /// One job.
    pub async fn job(&self, job: u64) -> Result<orchestrator::JobResponse, ClientError> {
        self.ask(&orchestrator::QueryMsg::Job { job }).await
    }

    /// A page of jobs, newest first.
    pub async fn jobs(
        &self,
        developer: Option<&str>,
        start_before: Option<u64>,
        limit: Option<u32>,
    ) -> Result<Vec<orchestrator::JobResponse>, ClientError> {
        let query = orchestrator::QueryMsg::Jobs {
            developer: developer.map(str::to_owned),
            start_before,
            limit,
        };
        let answer: orchestrator::JobsResponse = self.ask(&query).await?;
        Ok(answer.jobs)
    }

    /// One item with its spans.
    pub async fn item(&self, item: ItemId) -> Result<orchestrator::ItemResponse, ClientError> {
        self.ask(&orchestrator::QueryMsg::Item { item }).await
    }

    /// All items of a job, shard by shard, replica by replica.
    pub async fn all_items(&self, job: u64) -> Result<Vec<orchestrator::ItemResponse>, ClientError> {
        let page = |after| async move {
            let query = orchestrator::QueryMsg::Items {
                job,
                start_after: after,
                limit: Some(PAGE),
            };
            let answer: orchestrator::ItemsResponse = self.ask(&query).await?;
            Ok(answer.items)
        };
        all(|row: &orchestrator::ItemResponse| row.item, page).await
    }

    /// Rows of a shard.
    pub async fn input(&self, job: u64, shard: u16) -> Result<orchestrator::InputResponse, ClientError> {
        self.ask(&orchestrator::QueryMsg::Input { job, shard }).await
    }

    /// Links of an attempt.
    pub async fn links(&self, item: ItemId, attempt: u8) -> Result<orchestrator::LinksResponse, ClientError> {
        self.ask(&orchestrator::QueryMsg::Links { item, attempt }).await
    }

    /// Items that anybody may expire now, oldest first.
    pub async fn overdue(&self, limit: Option<u32>) -> Result<Vec<ItemId>, ClientError> {
        let answer: orchestrator::OverdueResponse = self.ask(&orchestrator::QueryMsg::Overdue { limit }).await?;
        Ok(answer.items)
    }
}

async fn ask<Q: Serialize, R: DeserializeOwned>(client: &Client, contract: &str, query: &Q) -> Result<R, ClientError> {
    client.query(contract, query).await
}

/// Turns pages until one is not full.
async fn all<Row, Key, Page>(
    key: impl Fn(&Row) -> Key,
    page: impl FnMut(Option<Key>) -> Page,
) -> Result<Vec<Row>, ClientError>
where
    Page: Future<Output = Result<Vec<Row>, ClientError>>,
{
    all_pages(PAGE, key, page).await
}

/// As [`all`], for pages of another size.
async fn all_pages<Row, Key, Page>(
    size: u32,
    key: impl Fn(&Row) -> Key,
    mut page: impl FnMut(Option<Key>) -> Page,
) -> Result<Vec<Row>, ClientError>
where
    Page: Future<Output = Result<Vec<Row>, ClientError>>,
{
    let mut rows: Vec<Row> = vec![];
    loop {
        let more = page(rows.last().map(&key)).await?;
        let full = more.len() >= usize::try_from(size).unwrap_or(usize::MAX);
        rows.extend(more);
        if !full {
            return Ok(rows);
        }
        if rows.len() >= ROWS_MAX {
            return Err(ClientError::BadAnswer {
                what: "list",
                reason: format!("more than {ROWS_MAX} rows"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]

    use super::*;

    async fn numbers(count: u64) -> Vec<u64> {
        let page = |after: Option<u64>| async move {
            let first = after.map_or(0, |after| after + 1);
            Ok((first..count).take(PAGE as usize).collect())
        };
        all(|row| *row, page).await.unwrap()
    }

    #[tokio::test]
    async fn pages_are_turned_until_the_last_row() {
        for count in [0, 1, 29, 30, 31, 60, 95] {
            assert_eq!(numbers(count).await, (0..count).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_contract_that_pages_for_ever_is_an_error() {
        let error = all(|row| *row, |_: Option<u64>| async { Ok(vec![7; PAGE as usize]) }).await;
        assert!(error.unwrap_err().to_string().contains("more than 100000 rows"));
    }
}
