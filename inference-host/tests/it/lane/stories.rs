//! What a client gets for its money, and a host for its work.

use lane::proto::Code;
use schema::{
    escrow::{AllocationState, Consent},
    merkle,
    session::{CloseConsent, SignedVoucher},
    Digest,
};

use super::client::{news, request, settle, units, voucher, Attendant};
use crate::kit::{now, Market, Provider};

/// One provider with all three stages as deployment 1.
pub(crate) async fn alone() -> (Market, Provider) {
    let market = Market::new();
    let mut provider = market.provider("alone", 1, 0, 2);
    provider.start().await;
    (market, provider)
}

#[tokio::test]
async fn each_request_is_paid_before_the_next_and_the_voucher_just_goes_ahead_of_it() {
    let (market, provider) = alone().await;
    let opened = market.session(&[(&provider, 1, 0, 2)]);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    assert_eq!((client.welcome.requests, client.welcome.credit_requests), (0, 1));
    let mut bought = units(0, 0);
    for number in 1..=20 {
        bought = client.buys(number, &["hello world", "a"], bought).await;
    }
    client.is_held(20).await;
    // On credit there is one and no more.
    client.asks_for(21, &["a"]).await;
    let receipt = client.receipt(21).await.receipt;
    client.asks_for(22, &["b"]).await;
    client
        .stream
        .is_refused(Code::Credit, "2 requests would be unpaid, at most 1")
        .await;
    let paid = units(bought.requests + 1, bought.units_in + receipt.units_in);
    client.pays(21, paid).await;
    client.asks_for(22, &["b"]).await;
    client.receipt(22).await;
    assert_eq!(provider.metric("session_requests_done_total").await, 22);
    let held = provider.held_vouchers().await.vouchers;
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].voucher, voucher(&opened, 1, 21, paid));
    assert_eq!((held[0].worth, held[0].urgent), (held[0].voucher.voucher.amount, false));
    let status = provider.status().await;
    assert_eq!(status["sessions"][0]["rows"], 42, "{status}");
    assert_eq!(
        (
            provider.metric("sessions").await,
            provider.metric("sessions_attended").await
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_session_computes_the_same_bits_as_a_job() {
    let (market, provider) = alone().await;
    let opened = market.session(&[(&provider, 1, 0, 2)]);
    let texts = ["hello world", "b c a"];
    let mut client = Attendant::at(&provider, &opened, 1).await;
    client.asks_for(1, &texts).await;
    let receipt = client.receipt(1).await.receipt;
    let assignment = market.assign(7, &texts, &[(&provider, 1, 0, 2)]);
    provider.begin_surely(assignment.item).await;
    let job = provider.done(assignment.item).await.links[0].receipt.receipt.clone();
    assert_eq!(
        (receipt.output_digest, receipt.units_in),
        (job.output_digest, job.units_in)
    );
    let given: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    assert_eq!(receipt.request_digest, merkle::root(&given));
}

#[tokio::test]
async fn a_chain_of_three_hosts_gives_three_receipts_that_fit_and_one_output() {
    let market = Market::new();
    let all = market.three().await;
    let opened = market.session(&[(&all[0], 1, 0, 0), (&all[1], 2, 1, 1), (&all[2], 3, 2, 2)]);
    let mut clients = vec![];
    for (provider, deployment) in all.iter().zip(1..) {
        clients.push(Attendant::at(provider, &opened, deployment).await);
    }
    let texts = ["hello world", "a", "b c"];
    let mut counted = units(0, 0);
    for number in 1..=5 {
        let asked = request(number, &[1, 2, 3], &texts);
        for client in &clients[1..] {
            client.asks(asked.clone()).await;
        }
        clients[0].gives(asked.clone(), &texts).await;
        let mut before = Digest(asked.digest.clone().try_into().unwrap());
        let mut spent = 0;
        for client in &mut clients {
            let receipt = client.receipt(number).await.receipt;
            assert_eq!(receipt.request_digest, before, "deployment {}", client.deployment);
            (before, spent) = (receipt.output_digest, receipt.units_in);
        }
        assert_eq!(merkle::root(&clients[2].rows(number, 3).await), before);
        counted = units(counted.requests + 3, counted.units_in + spent);
        for client in &clients {
            client.pays(number, counted).await;
        }
    }
    // Everybody is told in full, whichever host it is.
    for (provider, deployment) in all.iter().zip(1..) {
        provider
            .eventually("the last voucher is there", async |provider| {
                provider.held_vouchers().await.vouchers[0].voucher == voucher(&opened, deployment, 5, counted)
            })
            .await;
    }
}

#[tokio::test]
async fn a_host_that_starts_again_knows_the_voucher_and_the_work_and_its_relayer_hears_of_it() {
    let (market, mut provider) = alone().await;
    let opened = market.session(&[(&provider, 1, 0, 2)]);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    let mut bought = units(0, 0);
    for number in 1..=3 {
        bought = client.buys(number, &["hello world"], bought).await;
    }
    client.is_held(3).await;
    provider.kill();
    provider.start().await;
    // Without anybody who attends.
    provider
        .eventually("the voucher is found", async |provider| {
            provider.held_vouchers().await.vouchers.len() == 1
        })
        .await;
    let mut client = Attendant::at(&provider, &opened, 1).await;
    let best: SignedVoucher = serde_json::from_slice(&client.welcome.voucher).unwrap();
    assert_eq!(best, voucher(&opened, 1, 3, bought));
    assert_eq!((client.welcome.requests, client.welcome.units_in), (3, bought.units_in));
    client.asks_for(3, &["a"]).await;
    client
        .stream
        .is_refused(Code::Invalid, "its number is 3, and 3 was used before")
        .await;
    client.buys(4, &["a"], bought).await;
}

#[tokio::test]
async fn the_relayer_settles_and_the_client_leaves_with_a_consent_that_the_contract_would_take() {
    let (market, provider) = alone().await;
    let mut opened = market.session(&[(&provider, 1, 0, 2)]);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    client.asks_for(1, &["a"]).await;
    let receipt = client.receipt(1).await.receipt;
    client.leaves().await;
    client.stream.is_refused(Code::Credit, "not paid for").await;
    let paid = units(1, receipt.units_in);
    client.pays(1, paid).await;
    client.is_held(1).await;
    client.leaves().await;
    provider
        .eventually("it is urgent", async |provider| {
            provider.held_vouchers().await.vouchers[0].urgent
        })
        .await;
    client.asks_for(2, &["a"]).await;
    client.stream.is_refused(Code::Session, "asked to leave").await;
    let best = provider.held_vouchers().await.vouchers[0].voucher;
    // What the relayer says is not believed before the chain says it.
    provider.hears(vec![news(&best)]).await;
    assert_eq!(provider.held_vouchers().await.vouchers.len(), 1);
    settle(&mut opened, &best);
    market.put(&opened);
    provider.hears(vec![news(&best)]).await;
    assert_eq!(provider.held_vouchers().await.vouchers, []);
    let consent = client.stream.find(|said| match said {
        lane::proto::to_client::Content::Consent(bytes) => Some(bytes.clone()),
        _ => None,
    });
    let consent: Consent = serde_json::from_slice(&consent.await.unwrap()).unwrap();
    let said = CloseConsent {
        session: 1,
        deployment: 1,
        sequence: 1,
    };
    let (key, digest) = (provider.key.public_key(), said.digest(&opened.domain));
    assert!(client::verify_digest(&key, &digest.0, consent.signature.as_bytes()));
    // After it nothing more is done, also by the process that comes after.
    client.asks_for(3, &["a"]).await;
    client.stream.is_refused(Code::Session, "asked to leave").await;
    client.pays(2, units(2, 20)).await;
    client.stream.is_refused(Code::Session, "agreed").await;
    let mut provider = provider;
    provider.kill();
    provider.start().await;
    let mut client = Attendant::at(&provider, &opened, 1).await;
    client.asks_for(4, &["a"]).await;
    client.stream.is_refused(Code::Session, "asked to leave").await;
}

#[tokio::test]
async fn a_session_that_closes_or_expires_takes_no_request_and_its_last_voucher_is_urgent() {
    let (market, provider) = alone().await;
    let mut opened = market.session(&[(&provider, 1, 0, 2)]);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    client.asks_for(1, &["a"]).await;
    let receipt = client.receipt(1).await.receipt;
    opened.session.allocations[0].state = AllocationState::Closing;
    market.put(&opened);
    provider
        .eventually("the host has seen it", async |provider| {
            provider.status().await["sessions"][0]["state"] == "closing"
        })
        .await;
    client.asks_for(2, &["a"]).await;
    client.stream.is_refused(Code::Session, "closing").await;
    // What was done is paid all the same.
    client.pays(1, units(1, receipt.units_in)).await;
    client.is_held(1).await;
    assert!(provider.held_vouchers().await.vouchers[0].urgent);
    opened.session.allocations[0].state = AllocationState::Open;
    opened.session.expires_at = now();
    market.put(&opened);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    client.asks_for(3, &["a"]).await;
    client.stream.is_refused(Code::Session, "expired").await;
    assert!(provider.held_vouchers().await.vouchers[0].urgent);
    // Closed on chain, it is forgotten, and the stream ends.
    opened.session.allocations[0].state = AllocationState::Closed;
    market.put(&opened);
    provider
        .eventually("it is forgotten", async |provider| {
            provider.metric("sessions").await == 0
        })
        .await;
    while client.stream.next().await.is_some() {}
}

#[tokio::test]
async fn a_top_up_is_noticed_when_it_is_needed() {
    let (market, provider) = alone().await;
    let mut opened = super::client::opened(1, &[(&provider, 1, 0, 2)], 40);
    market.put(&opened);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    // A request of this size costs more than is there.
    let long = ["a b c a b c a b c a b c a b"; 4];
    client.asks_for(1, &long).await;
    client.stream.is_refused(Code::Credit, "are allocated").await;
    opened.session.allocations[0].amount = 1_000_000u128.into();
    market.put(&opened);
    // Not on every request is the chain asked again.
    let mut number = 1;
    loop {
        number += 1;
        client.asks_for(number, &long).await;
        let is_taken = client.stream.find(|said| match said {
            lane::proto::to_client::Content::Receipt(_) => Some(true),
            lane::proto::to_client::Content::Refused(refused) => {
                assert_eq!(refused.code(), Code::Credit, "{refused:?}");
                Some(false)
            }
            _ => None,
        });
        if is_taken.await.unwrap() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(number < 200, "the top-up was never noticed");
    }
}

#[tokio::test]
async fn a_later_voucher_for_next_to_nothing_that_was_settled_behind_our_back_takes_nothing_and_ends_the_work() {
    let (market, provider) = alone().await;
    let mut opened = market.session(&[(&provider, 1, 0, 2)]);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    let bought = client.buys(1, &["hello world"], units(0, 0)).await;
    client.is_held(1).await;
    let own = &mut opened.session.allocations[0];
    (own.sequence, own.units, own.paid) = (u64::MAX, bought, 1u128.into());
    market.put(&opened);
    provider
        .eventually("it is seen", async |provider| {
            provider.status().await["sessions"][0]["contradicted"] == true
        })
        .await;
    client.asks_for(2, &["a"]).await;
    client.stream.is_refused(Code::Session, "contradicts").await;
    // Ours is worth the rest of what it promises, at once.
    let held = provider.held_vouchers().await.vouchers[0];
    let best = voucher(&opened, 1, 1, bought);
    assert_eq!((held.voucher, held.urgent), (best, true));
    assert_eq!(held.worth.u128(), best.voucher.amount.u128() - 1);
    settle(&mut opened, &best);
    market.put(&opened);
    provider
        .eventually("it is paid", async |provider| {
            provider.held_vouchers().await.vouchers.is_empty()
        })
        .await;
}
