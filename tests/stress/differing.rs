//! A provider whose machine computes something else: four providers a stage, one of the middle ones flips a bit.
//!
//! Nobody can tell from two differing receipts who is right, so nobody is paid, both are left out, and the shard gets one more try.

use std::collections::BTreeSet;

use client::{verify_digest, Account, Call};
use cosmwasm_std::{Binary, Uint128};
use schema::{
    orchestrator::{Blame, ExecuteMsg, ItemResponse, ItemStatus, JobResponse, JobStatus, NewJob, NewShard},
    receipt::Link,
    Event, UFUNC,
};

use crate::{
    accountant::Books,
    machine,
    market::{fxn_with_keys, import_key, Market, Plan, Provider, ENDPOINT},
    model::text,
    processes::eventually,
};

const DEPOSIT: u128 = 50_000 * UFUNC;
const TEXTS: usize = 4;
/// A job draws a given one of four with probability 1/2, and one of two and not the other with 2/3.
const TRIES: usize = 24;

struct Scene {
    market: Market,
    developer: Account,
    texts: Vec<String>,
}

/// A job that has ended.
struct Ended {
    job: JobResponse,
    items: Vec<ItemResponse>,
    events: Vec<Event>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_tensor_costs_both_replicas_their_pay_and_the_job_completes_without_them() {
    let _machine = machine().await;
    let mut scene = Scene::open().await;
    scene.one_liar_is_drawn_around().await;
    scene.two_liars_end_the_job_disputed_and_refunded().await;
    let books = Books::read(&scene.market.client).await;
    books.check(&scene.market, &[(scene.developer.clone(), DEPOSIT)]).await;
    scene.market.crew.assert_alive();
}

impl Scene {
    async fn open() -> Self {
        let plan = Plan {
            block_time: "250ms",
            providers: 12,
            liars: 2,
            slots: 4,
            host_settings: &[],
        };
        let market = Market::open(plan).await;
        let developer = market.developer(DEPOSIT).await;
        let home = market.folder().join("developer");
        std::fs::create_dir(&home).unwrap();
        market.client.network().save(&home.join("network.json")).unwrap();
        import_key(&home, "developer", developer.wallet());
        Self {
            market,
            developer,
            texts: (0..TEXTS).map(|number| text(number * 11, 3 + 4 * number)).collect(),
        }
    }

    fn liars(&self) -> Vec<&Provider> {
        let liars = self.market.providers.iter().filter(|provider| provider.can_lie);
        liars.collect()
    }

    /// Submits the texts as one shard in two replicas and waits for the end.
    async fn job(&mut self) -> Ended {
        let client = &self.market.client;
        let job = NewJob {
            model: self.market.model.clone(),
            version: None,
            endpoint: ENDPOINT.to_owned(),
            engine_class: None,
            shards: vec![NewShard {
                inline: self.texts.iter().map(|text| Binary::from(text.as_bytes())).collect(),
            }],
            replicas: 2,
            units_max: self.texts.iter().map(|text| self.market.tiny.units(text)).sum(),
            max_price: (20 * UFUNC).into(),
            deadline_seconds: None,
            chain: None,
            gateway: None,
        };
        let call = Call::execute(&client.contracts().job_orchestrator, &ExecuteMsg::SubmitJob { job });
        let outcome = self.developer.execute(&[call.unwrap()]).await.unwrap();
        let submitted = outcome
            .events
            .iter()
            .find_map(|event| match Event::from_wasm(event).unwrap() {
                Some(Event::JobSubmitted { job, .. }) => Some(job),
                _ => None,
            });
        let job = submitted.unwrap();
        let ended = async || {
            let found = client.orchestrator().job(job).await.ok()?;
            (found.status != JobStatus::Running).then_some(found)
        };
        let ended = eventually(&format!("job {job} ends"), ended).await;
        let transactions = crate::accountant::chronicle(client).await;
        Ended {
            job: ended,
            items: client.orchestrator().all_items(job).await.unwrap(),
            events: transactions
                .into_iter()
                .flat_map(|tx| tx.events)
                .filter(|event| is_about(event, job))
                .collect(),
        }
    }

    /// Of every provider: bond, penalties ever paid, strikes.
    async fn bonds(&self) -> Vec<(Uint128, Uint128, Vec<u64>)> {
        let providers = self.market.client.staking().all_providers().await.unwrap();
        let bonds = providers.into_iter();
        bonds
            .map(|provider| (provider.bond, provider.penalties, provider.strikes))
            .collect()
    }

    async fn one_liar_is_drawn_around(&mut self) {
        let liar = self.liars()[0].deployment;
        self.liars()[0].lies(12);
        let before = self.bonds().await;
        for _ in 0..TRIES {
            let ended = self.job().await;
            self.assert_completed(&ended).await;
            let first = drawn(&ended, 0);
            if !first.contains(&liar) {
                assert!(
                    ended.items.iter().all(|item| item.history.is_empty()),
                    "nobody has lied"
                );
                continue;
            }
            assert_eq!(
                differences(&ended),
                first,
                "both are named, at the first span that differs"
            );
            self.assert_drawn_once_more(&ended, &first).await;
            self.assert_nobody_of_the_first_try_was_paid(&ended);
            assert_eq!(
                before,
                self.bonds().await,
                "a difference proves nobody's fault, so no bond pays"
            );
            return;
        }
        panic!("{TRIES} jobs never drew the liar");
    }

    async fn two_liars_end_the_job_disputed_and_refunded(&mut self) {
        let liars: BTreeSet<u64> = self.liars().iter().map(|provider| provider.deployment).collect();
        // Another bit: two lies that agree would be believed.
        self.liars()[1].lies(13);
        for _ in 0..TRIES {
            let before = self.available().await;
            let ended = self.job().await;
            let first = drawn(&ended, 0);
            if first.intersection(&liars).count() != 1 {
                // Both lie, and the honest two are drawn next; or none does.
                self.assert_completed(&ended).await;
                continue;
            }
            let second = drawn(&ended, 1);
            assert_eq!(differences(&ended), &first | &second, "twice, each time both");
            assert!(first.is_disjoint(&second) && second.intersection(&liars).count() == 1);
            assert_eq!((ended.job.status, ended.job.paid.u128()), (JobStatus::Incomplete, 0));
            for item in &ended.items {
                assert!(matches!(item.status, ItemStatus::Disputed { .. }), "{:?}", item.status);
                assert_eq!((item.attempt, item.history.len()), (1, 2), "there is no third try");
                for attempt in [0, 1] {
                    self.assert_links_are_kept(item, attempt).await;
                }
            }
            assert!(!ended.events.iter().any(|event| matches!(event, Event::Settled { .. })));
            assert_eq!(self.available().await, before, "all of it came back");
            return;
        }
        panic!("{TRIES} jobs never drew one liar and one honest provider");
    }

    async fn available(&self) -> u128 {
        let money = self
            .market
            .client
            .escrow()
            .money(self.developer.address())
            .await
            .unwrap();
        money.available.u128()
    }

    /// Two settled replicas with what the model says, bit by bit; and the developer's own program shows it.
    async fn assert_completed(&mut self, ended: &Ended) {
        assert_eq!(ended.job.status, JobStatus::Completed);
        let expected = self.market.tiny.output(&self.texts);
        for item in &ended.items {
            let ItemStatus::Settled { result, .. } = &item.status else {
                panic!("{:?}", item.status)
            };
            assert_eq!(result.output_digest, expected);
        }
        let mut command = fxn_with_keys(&self.market.folder().join("developer"));
        command.args(["job", "result", &ended.job.job.to_string(), "--output", "json"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let vectors: Vec<Vec<f32>> = serde_json::from_value(answer["embeddings"].clone()).unwrap();
        let bits = |vector: &[f32]| vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        for (text, vector) in self.texts.iter().zip(&vectors) {
            assert!(self.market.tiny.row(text).ends_with(&bits(vector)));
        }
    }

    async fn assert_drawn_once_more(&self, ended: &Ended, out: &BTreeSet<u64>) {
        let assigned = ended
            .events
            .iter()
            .filter(|event| matches!(event, Event::JobAssigned { .. }));
        assert_eq!(assigned.count(), 4, "two replicas, twice");
        for item in &ended.items {
            assert_eq!(item.attempt, 1);
            assert!(item.spans.iter().all(|span| !out.contains(&span.deployment)));
            let [past] = item.history.as_slice() else {
                panic!("{:?}", item.history)
            };
            assert_eq!(
                past.blame,
                Blame::Differs {
                    deployment: past.deployments[1]
                }
            );
            self.assert_links_are_kept(item, 0).await;
            self.assert_links_are_kept(item, 1).await;
        }
        let links = [&ended.items[0], &ended.items[1]].map(async |item| self.links(item, 0).await);
        let [one, other] = <[Vec<Link>; 2]>::try_from(futures::future::join_all(links).await).unwrap();
        let output = |links: &[Link], stage: usize| links[stage].receipt.receipt.output_digest;
        assert_eq!(output(&one, 0), output(&other, 0));
        assert_ne!(output(&one, 1), output(&other, 1));
    }

    async fn links(&self, item: &ItemResponse, attempt: u8) -> Vec<Link> {
        let links = self
            .market
            .client
            .orchestrator()
            .links(item.item, attempt)
            .await
            .unwrap();
        links.links
    }

    /// Three receipts of that attempt, each signed by the host that was assigned.
    async fn assert_links_are_kept(&self, item: &ItemResponse, attempt: u8) {
        let links = self.links(item, attempt).await;
        assert_eq!(links.len(), 3);
        for link in &links {
            let receipt = &link.receipt.receipt;
            assert_eq!((receipt.item, receipt.attempt), (item.item, attempt));
            let mut providers = self.market.providers.iter();
            let signer = providers
                .find(|provider| provider.deployment == receipt.deployment)
                .unwrap();
            let digest = receipt.digest();
            assert!(verify_digest(
                &signer.host_public_key(),
                &digest.0,
                &link.receipt.signature.0
            ));
        }
    }

    fn assert_nobody_of_the_first_try_was_paid(&self, ended: &Ended) {
        let paid: BTreeSet<u64> = ended.events.iter().filter_map(credited_deployment).collect();
        let worked: BTreeSet<u64> = ended
            .items
            .iter()
            .flat_map(|item| &item.spans)
            .map(|span| span.deployment)
            .collect();
        assert_eq!(paid, worked, "those of the second try, and nobody else");
        assert_eq!(
            ended
                .events
                .iter()
                .filter(|event| matches!(event, Event::Settled { .. }))
                .count(),
            2
        );
    }
}

fn credited_deployment(event: &Event) -> Option<u64> {
    match event {
        Event::Credited {
            reason: schema::escrow::Reason::Compute,
            deployment,
            ..
        } => *deployment,
        _ => None,
    }
}

fn is_about(event: &Event, number: u64) -> bool {
    match event {
        Event::JobAssigned { item, .. }
        | Event::ItemDiffers { item, .. }
        | Event::Settled { item, .. }
        | Event::Credited { item: Some(item), .. } => item.job == number,
        _ => false,
    }
}

/// Deployments on the middle stage in an attempt.
fn drawn(ended: &Ended, attempt: usize) -> BTreeSet<u64> {
    let of_item = |item: &ItemResponse| match item.history.get(attempt) {
        Some(past) => past.deployments[1],
        None => item.spans[1].deployment,
    };
    ended.items.iter().map(of_item).collect()
}

fn differences(ended: &Ended) -> BTreeSet<u64> {
    let deployment = |event: &Event| match event {
        Event::ItemDiffers { deployment, .. } => Some(*deployment),
        _ => None,
    };
    ended.events.iter().filter_map(deployment).collect()
}
