//! The golden vectors of everything that is signed: `vectors/signed.json`, from which other languages learn whether they read
//! `docs/wire.md` as it is meant. `UPDATE_EXPECT=1` writes them anew.

use std::path::PathBuf;

use cosmwasm_std::Uint128;
use expect_test::expect_file;
use k256::ecdsa::{
    signature::hazmat::{PrehashSigner, PrehashVerifier},
    Signature, SigningKey, VerifyingKey,
};
use schema::{
    receipt::{Acknowledgement, Domain, Outcome, OutputRequest, Receipt},
    session::{CloseConsent, SessionHello, SessionReceipt, Voucher},
    Digest, ItemId,
};
use serde_json::{json, Value};

fn domain(contract: &str) -> Domain {
    Domain {
        chain_id: "fxn-local-1".into(),
        contract: contract.into(),
    }
}

/// Name, domain beside the value where it does not carry it, value, digest.
type Case = (&'static str, Option<Domain>, Value, Digest);

fn of_items() -> Vec<Case> {
    let domain = domain("wasm1orchestrator");
    let item = ItemId {
        job: 1,
        shard: 2,
        replica: 3,
    };
    let receipt = Receipt {
        domain: domain.clone(),
        item,
        attempt: 4,
        deployment: 5,
        first: 6,
        last: 7,
        input_digest: Digest([8; 32]),
        output_digest: Digest([9; 32]),
        tokens_digest: None,
        seed: Some(10),
        units_in: 11,
        units_out: 12,
        outcome: Outcome::Done,
        previous: Some(Digest([13; 32])),
    };
    let acknowledgement = Acknowledgement {
        domain: domain.clone(),
        item,
        attempt: 4,
        deployment: 5,
        input_digest: Digest([8; 32]),
    };
    let request = OutputRequest {
        domain,
        item,
        output_digest: Digest([9; 32]),
        valid_until: 1_700_000_000,
    };
    vec![
        ("receipt", None, json!(receipt), receipt.digest()),
        (
            "acknowledgement",
            None,
            json!(acknowledgement),
            acknowledgement.digest(),
        ),
        ("output-request", None, json!(request), request.digest()),
    ]
}

fn of_sessions() -> Vec<Case> {
    let domain = domain("wasm1escrow");
    let voucher = Voucher {
        session: 1,
        deployment: 2,
        sequence: 3,
        requests: 4,
        units_in: 5,
        units_out: 6,
        amount: 7u128.into(),
    };
    // Numbers beyond what a double can hold exactly.
    let large = Voucher {
        session: u64::MAX,
        deployment: u64::MAX - 1,
        sequence: 9_007_199_254_740_993,
        requests: u64::MAX,
        units_in: u64::MAX,
        units_out: 0,
        amount: Uint128::MAX,
    };
    let consent = CloseConsent {
        session: 1,
        deployment: 2,
        sequence: 3,
    };
    let receipt = SessionReceipt {
        domain: domain.clone(),
        session: 1,
        deployment: 2,
        sequence: 3,
        request_digest: Digest([4; 32]),
        output_digest: Digest([5; 32]),
        tokens_digest: Some(Digest([6; 32])),
        seed: Some(7),
        units_in: 8,
        units_out: 9,
        outcome: Outcome::Done,
    };
    let hello = SessionHello {
        session: 1,
        deployment: 2,
        nonce: Digest([3; 32]),
    };
    let plain = SessionReceipt {
        tokens_digest: None,
        seed: None,
        ..receipt.clone()
    };
    let beside = || Some(domain.clone());
    vec![
        ("voucher", beside(), json!(voucher), voucher.digest(&domain)),
        ("voucher", beside(), json!(large), large.digest(&domain)),
        ("close-consent", beside(), json!(consent), consent.digest(&domain)),
        ("session-hello", beside(), json!(hello), hello.digest(&domain)),
        ("session-receipt", None, json!(receipt), receipt.digest()),
        ("session-receipt", None, json!(plain), plain.digest()),
    ]
}

/// Nobody's key: sha256 of a sentence.
fn key() -> SigningKey {
    let secret = Digest::of(b"the key of the golden vectors");
    SigningKey::from_bytes(&secret.0.into()).expect("below the order of the group")
}

/// Numbers as texts: a double would round some of them.
fn as_texts(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::String(number.to_string()),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, as_texts(value)))
            .collect(),
        other => other,
    }
}

#[test]
fn everything_signed_is_golden() {
    let key = key();
    let mut vectors = vec![];
    for (name, domain, value, digest) in of_items().into_iter().chain(of_sessions()) {
        let signature: Signature = key.sign_prehash(&digest.0).unwrap();
        let signature = signature.normalize_s().unwrap_or(signature);
        VerifyingKey::from(&key).verify_prehash(&digest.0, &signature).unwrap();
        let bytes = schema::Signature(signature.to_bytes().into());
        assert!(bytes.is_low_s());
        let (r, s) = signature.split_scalars();
        let twin = Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
        assert!(
            !schema::Signature(twin.to_bytes().into()).is_low_s(),
            "its twin is none of ours"
        );
        let mut vector = json!({
            "type": name, "value": as_texts(value), "digest": digest.to_string(), "signature": bytes.to_string(),
        });
        if let Some(domain) = domain {
            vector["domain"] = json!(domain);
        }
        vectors.push(vector);
    }
    let all = json!({
        "secret_key": hex::encode(key.to_bytes()),
        "public_key": hex::encode(VerifyingKey::from(&key).to_encoded_point(true).as_bytes()),
        "vectors": vectors,
    });
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/signed.json");
    expect_file![path].assert_eq(&format!("{}\n", serde_json::to_string_pretty(&all).unwrap()));
}
