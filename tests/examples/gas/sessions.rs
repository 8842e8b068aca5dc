//! Every message of a session, by people of its own, in an order in which each succeeds.

use anyhow::Context as _;
use client::{Account, Call, TxOutcome};
use fxn_tests::{
    goods::{claim, endpoint, model, profile, publish, terms, version, ENDPOINT},
    people::{send, People},
    Host, SESSION_KEY,
};
use schema::{
    escrow::{Consent, ExecuteMsg, NewAllocation, NewSession, ReceiveMsg},
    receipt::Domain,
    session::{CloseConsent, SignedVoucher, Voucher},
    staking, Event, ModelId,
};

use crate::{
    crowd::CROWD,
    meter::Meter,
    story::{ESCROW, REGISTRY, STAKING},
};

/// Vouchers in one message.
const BATCHES: [u64; 3] = [1, 8, 32];
const AMOUNT: u128 = 1_000_000;

struct Lane<'a> {
    meter: &'a mut Meter,
    name: String,
    developer: Account,
    provider: Account,
    model: ModelId,
    deployment: u64,
    /// Number of the first session.
    first: u64,
}

pub(crate) async fn tell(meter: &mut Meter, name: &str) -> anyhow::Result<()> {
    let mut lane = begin(meter, &format!("{name}-lane")).await?;
    lane.opens().await?;
    lane.settles().await?;
    lane.forces().await?;
    lane.ends().await
}

/// A model of one stage, a provider with slots for forty sessions, a developer with money.
async fn begin<'a>(meter: &'a mut Meter, name: &str) -> anyhow::Result<Lane<'a>> {
    let developer = meter.people.actor(&format!("{name}-developer"), 1_000).await?;
    let creator = meter.people.actor(&format!("{name}-creator"), 100).await?;
    let provider = meter.people.actor(&format!("{name}-host"), 3_000).await?;
    let model = model(name, "m")?;
    send(&creator, &[meter.people.paying(REGISTRY, 10, &claim(name)?)?]).await?;
    let mut calls = vec![];
    for msg in [publish(&creator, &model, vec![]), version(&model, 1), endpoint(&model)] {
        calls.push(Call::execute(meter.people.address(REGISTRY)?, &msg)?);
    }
    send(&creator, &calls).await?;
    let register = staking::ExecuteMsg::RegisterProvider {
        profile: profile(&format!("{name}-host")),
    };
    let calls = [
        Call::execute(meter.people.address(STAKING)?, &register)?,
        meter.people.paying(STAKING, 2_500, &staking::ReceiveMsg::Bond {})?,
        meter.people.paying(STAKING, 1, &terms(&model, 0, 48, 600))?,
    ];
    let (_, listed) = send(&provider, &calls).await?;
    let deployment = *deployments(&listed).first().context("a listing is announced")?;
    let deposit = ReceiveMsg::Deposit { beneficiary: None };
    send(&developer, &[meter.people.paying(ESCROW, 900, &deposit)?]).await?;
    Ok(Lane {
        meter,
        name: name.to_owned(),
        developer,
        provider,
        model,
        deployment,
        first: 0,
    })
}

async fn opening(people: &People, model: &ModelId, deployment: u64) -> anyhow::Result<ExecuteMsg> {
    let now = people.now().await?;
    Ok(ExecuteMsg::OpenSession {
        session: NewSession {
            model: model.clone(),
            version: None,
            endpoint: ENDPOINT.into(),
            allocations: vec![NewAllocation {
                deployment,
                amount: AMOUNT.into(),
            }],
            session_key: Host::named(SESSION_KEY).public_key(),
            gateway: None,
            expires_at: now + 3_000,
        },
    })
}

impl Lane<'_> {
    async fn opens(&mut self) -> anyhow::Result<()> {
        let (developer, deployment) = (self.developer.clone(), self.deployment);
        let open = opening(&self.meter.people, &self.model, deployment).await?;
        let opened = self.meter.execute(ESCROW, "OpenSession", &developer, &open).await?;
        let events = opened.events.iter().filter_map(|event| Event::from_wasm(event).ok()?);
        let mut numbers = events.filter_map(|event| match event {
            Event::SessionOpened { session, .. } => Some(session),
            _ => None,
        });
        self.first = numbers.next().context("a session is announced")?;
        let calls = vec![Call::execute(self.meter.people.address(ESCROW)?, &open)?; 39];
        send(&developer, &calls).await?;
        let more = ExecuteMsg::TopUp {
            session: self.first,
            allocations: vec![NewAllocation {
                deployment,
                amount: AMOUNT.into(),
            }],
        };
        self.meter.execute(ESCROW, "TopUp", &developer, &more).await?;
        Ok(())
    }

    fn domain(&self) -> anyhow::Result<Domain> {
        Ok(Domain {
            chain_id: self.meter.people.client.network().chain_id.clone(),
            contract: self.meter.people.address(ESCROW)?,
        })
    }

    fn voucher(&self, session: u64, sequence: u64, requests: u64) -> anyhow::Result<SignedVoucher> {
        let voucher = Voucher {
            session: self.first + session,
            deployment: self.deployment,
            sequence,
            requests,
            units_in: requests * 10,
            units_out: 0,
            // Less than a request costs, so that one and a million may pay the same.
            amount: (500 + u128::from(sequence)).into(),
        };
        let signature = Host::named(SESSION_KEY).sign(&voucher.digest(&self.domain()?));
        Ok(SignedVoucher { voucher, signature })
    }

    async fn settles(&mut self) -> anyhow::Result<()> {
        let developer = self.developer.clone();
        // Everybody has been credited once before: what is measured is what a session costs every day.
        let first = self.voucher(0, 1, 1)?;
        let settle = |vouchers| ExecuteMsg::SettleVouchers { vouchers };
        let call = Call::execute(self.meter.people.address(ESCROW)?, &settle(vec![first]))?;
        send(&developer, &[call]).await?;
        for (session, requests) in [(1, 1), (2, 1_000_000)] {
            let vouchers = vec![self.voucher(session, 2, requests)?];
            let message = format!("SettleVouchers, {requests} requests");
            self.meter
                .execute(ESCROW, message, &developer, &settle(vouchers))
                .await?;
        }
        for (place, batch) in (0u64..).zip(BATCHES) {
            let vouchers = (3..3 + batch).map(|session| self.voucher(session, 3 + place, 100 + place));
            let vouchers = vouchers.collect::<anyhow::Result<Vec<_>>>()?;
            let message = format!("SettleVouchers, {batch} of as many sessions");
            self.meter
                .execute(ESCROW, message, &developer, &settle(vouchers))
                .await?;
        }
        let stale = vec![self.voucher(1, 2, 1)?];
        self.meter
            .execute(ESCROW, "SettleVouchers, one that is stale", &developer, &settle(stale))
            .await?;
        Ok(())
    }

    /// Of a session that nothing else is done with: the request stays open.
    async fn forces(&mut self) -> anyhow::Result<()> {
        let developer = self.developer.clone();
        let force = ExecuteMsg::ForceRequest {
            session: self.first + 36,
            deployments: vec![self.deployment],
            rows: vec![b"A sentence that nobody has answered.".into()],
        };
        self.meter.execute(ESCROW, "ForceRequest", &developer, &force).await?;
        Ok(())
    }

    async fn ends(&mut self) -> anyhow::Result<()> {
        let (developer, provider) = (self.developer.clone(), self.provider.clone());
        let deployment = self.deployment;
        let consent = CloseConsent {
            session: self.first + 1,
            deployment,
            sequence: 2,
        };
        let signature = Host::named(&format!("{}-host", self.name)).sign(&consent.digest(&self.domain()?));
        let close = ExecuteMsg::CloseSession {
            session: consent.session,
            consents: vec![Consent { deployment, signature }],
        };
        self.meter
            .execute(ESCROW, "CloseSession, with consent", &developer, &close)
            .await?;
        let session = self.first + 2;
        let leave = ExecuteMsg::LeaveSession { session, deployment };
        self.meter.execute(ESCROW, "LeaveSession", &provider, &leave).await?;
        let session = self.first;
        let close = ExecuteMsg::CloseSession {
            session,
            consents: vec![],
        };
        self.meter.execute(ESCROW, "CloseSession", &developer, &close).await?;
        let now = self.meter.people.now().await?;
        self.meter.people.until(now + 6).await?;
        let finalise = ExecuteMsg::FinaliseSession { session };
        self.meter
            .execute(ESCROW, "FinaliseSession", &developer, &finalise)
            .await?;
        Ok(())
    }
}

/// [`CROWD`] further sessions that stay open, with a provider that has a slot for each.
pub(crate) async fn fill(people: &People) -> anyhow::Result<()> {
    let creator = people.actor("crowd-lane", 10_000).await?;
    let provider = people.actor("crowd-lane-host", 101_000).await?;
    let crowd = model("crowd", "m0")?;
    let deposit = ReceiveMsg::Deposit { beneficiary: None };
    send(&creator, &[people.paying(ESCROW, 9_000, &deposit)?]).await?;
    let register = staking::ExecuteMsg::RegisterProvider {
        profile: profile("crowd-lane-host"),
    };
    let deploy = people.paying(STAKING, 1, &terms(&crowd, 0, 1_000, 600))?;
    let calls = [
        Call::execute(people.address(STAKING)?, &register)?,
        people.paying(STAKING, 100_100, &staking::ReceiveMsg::Bond {})?,
        deploy.clone(),
        deploy,
    ];
    let (_, listed) = send(&provider, &calls).await?;
    for deployment in deployments(&listed) {
        for _ in 0..CROWD / 40 {
            let open = opening(people, &crowd, deployment).await?;
            let call = Call::execute(people.address(ESCROW)?, &open)?;
            send(&creator, &vec![call; 20]).await?;
        }
    }
    eprintln!("{CROWD} further sessions");
    Ok(())
}

/// What a provider has listed.
fn deployments(listed: &TxOutcome) -> Vec<u64> {
    let events = listed.events.iter().filter_map(|event| Event::from_wasm(event).ok()?);
    let numbers = events.filter_map(|event| match event {
        Event::DeploymentListed { deployment, .. } => Some(deployment),
        _ => None,
    });
    numbers.collect()
}
