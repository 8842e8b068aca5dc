//! Sessions of the escrow: what they hold, and the messages that open, fill, settle and end them.

use cosmwasm_std::Binary;
use schema::{
    escrow::{self, Consent, ExecuteMsg, NewAllocation, NewSession, QueryMsg, SessionResponse, SESSIONS_PAGE_MAX},
    receipt::Domain,
    session::SignedVoucher,
    staking::{self, DeploymentOffer},
    Event,
};

use super::{all_pages, Escrow, Staking};
use crate::{call::Call, error::ClientError, outcome::TxOutcome};

impl Staking<'_> {
    /// What a session would pin of deployments, in the order asked for.
    pub async fn offers(&self, deployments: &[u64]) -> Result<Vec<DeploymentOffer>, ClientError> {
        let query = staking::QueryMsg::Offers {
            deployments: deployments.to_vec(),
        };
        let answer: staking::OffersResponse = self.ask(&query).await?;
        Ok(answer.offers)
    }
}

impl Escrow<'_> {
    /// What vouchers, session receipts and consents are signed for.
    pub fn domain(&self) -> Domain {
        Domain {
            chain_id: self.client.network().chain_id.clone(),
            contract: self.address().to_owned(),
        }
    }

    /// One session. What has ended is forgotten, and refused.
    pub async fn session(&self, session: u64) -> Result<SessionResponse, ClientError> {
        self.ask(&QueryMsg::Session { session }).await
    }

    /// All open sessions of an account, by number.
    pub async fn all_sessions(&self, account: &str) -> Result<Vec<SessionResponse>, ClientError> {
        let page = |after| async move {
            let query = QueryMsg::Sessions {
                account: account.to_owned(),
                start_after: after,
                limit: Some(SESSIONS_PAGE_MAX),
            };
            let answer: escrow::SessionsResponse = self.ask(&query).await?;
            Ok(answer.sessions)
        };
        all_pages(SESSIONS_PAGE_MAX, |row: &SessionResponse| row.session, page).await
    }

    /// All sessions with an allocation to a deployment that is not closed, by number.
    pub async fn all_sessions_of(&self, deployment: u64) -> Result<Vec<SessionResponse>, ClientError> {
        let page = |after| async move {
            let query = QueryMsg::SessionsOf {
                deployment,
                start_after: after,
                limit: Some(SESSIONS_PAGE_MAX),
            };
            let answer: escrow::SessionsResponse = self.ask(&query).await?;
            Ok(answer.sessions)
        };
        all_pages(SESSIONS_PAGE_MAX, |row: &SessionResponse| row.session, page).await
    }

    /// Opens a session; [`opened_session`](TxOutcome::opened_session) says its number.
    pub fn open_session(&self, session: NewSession) -> Result<Call, ClientError> {
        self.call(&ExecuteMsg::OpenSession { session })
    }

    /// Adds money, or deployments.
    pub fn top_up(&self, session: u64, allocations: Vec<NewAllocation>) -> Result<Call, ClientError> {
        self.call(&ExecuteMsg::TopUp { session, allocations })
    }

    /// Pays what vouchers promise.
    pub fn settle_vouchers(&self, vouchers: Vec<SignedVoucher>) -> Result<Call, ClientError> {
        self.call(&ExecuteMsg::SettleVouchers { vouchers })
    }

    /// Ends a session: at once where a provider consents, after the notice elsewhere.
    pub fn close_session(&self, session: u64, consents: Vec<Consent>) -> Result<Call, ClientError> {
        self.call(&ExecuteMsg::CloseSession { session, consents })
    }

    /// Closes whatever of a session is past its date.
    pub fn finalise_session(&self, session: u64) -> Result<Call, ClientError> {
        self.call(&ExecuteMsg::FinaliseSession { session })
    }

    /// Asks deployments of a session on chain; [`forced_job`](TxOutcome::forced_job) says as which job.
    pub fn force_request(&self, session: u64, deployments: &[u64], rows: Vec<Binary>) -> Result<Call, ClientError> {
        self.call(&ExecuteMsg::ForceRequest {
            session,
            deployments: deployments.to_vec(),
            rows,
        })
    }

    fn address(&self) -> &str {
        &self.client.contracts().royalty_escrow
    }

    fn call(&self, message: &ExecuteMsg) -> Result<Call, ClientError> {
        Call::execute(self.address(), message)
    }
}

impl TxOutcome {
    /// Our contracts' events among the transaction's, in order.
    pub fn contract_events(&self) -> Vec<Event> {
        let ours = self.events.iter().filter_map(|event| Event::from_wasm(event).ok()?);
        ours.collect()
    }

    /// Number of the session that the transaction opened.
    pub fn opened_session(&self) -> Option<u64> {
        self.contract_events().into_iter().find_map(|event| match event {
            Event::SessionOpened { session, .. } => Some(session),
            _ => None,
        })
    }

    /// The job that a forced request has become, and until when it is waited for.
    pub fn forced_job(&self) -> Option<(u64, u64)> {
        self.contract_events().into_iter().find_map(|event| match event {
            Event::RequestForced { job, until, .. } => Some((job, until)),
            _ => None,
        })
    }
}
