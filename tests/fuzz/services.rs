//! What services say to each other and keep for themselves: pushes, links, receipts, checkpoints, configurations.

use std::fs;

use client::{verify_digest, Wallet};
use cosmwasm_std::from_json;
use inference_host::proto::{frame::Content, Acknowledged, Frame, Header};
use prost::Message;
use relayer::checkpoint::{self, Entry, Owner, Stage, Store, Transaction};
use schema::{
    params::Params,
    receipt::{
        Acknowledgement, Attestation, Domain, Link, Outcome, OutputRequest, Receipt, SignedAcknowledgement,
        SignedReceipt,
    },
    work::{HostFile, WorkState, WorkStatus},
    Digest, ItemId, Signature,
};
use serde::{de::DeserializeOwned, Serialize};

use crate::target::Target;

const MIB: usize = 1 << 20;
const ITEM: ItemId = ItemId {
    job: 7,
    shard: 2,
    replica: 1,
};

fn domain() -> Domain {
    Domain {
        chain_id: "fxn-test-1".into(),
        contract: "wasm1orchestrator".into(),
    }
}

fn link(number: u64, previous: Option<Digest>) -> Link {
    let receipt = Receipt {
        domain: domain(),
        item: ITEM,
        attempt: 1,
        deployment: number,
        first: 0,
        last: 1,
        input_digest: Digest([1; 32]),
        output_digest: Digest([2; 32]),
        tokens_digest: None,
        seed: Some(u64::MAX),
        units_in: 40,
        units_out: 0,
        outcome: Outcome::Done,
        previous,
    };
    let acknowledgement = Acknowledgement {
        domain: domain(),
        item: ITEM,
        attempt: 1,
        deployment: number + 1,
        input_digest: Digest([2; 32]),
    };
    Link {
        receipt: SignedReceipt {
            signature: Signature(Wallet::dev("host").sign_digest(&receipt.digest().0)),
            receipt,
        },
        acknowledgement: previous.map(|_| SignedAcknowledgement {
            signature: Signature(Wallet::dev("host").sign_digest(&acknowledgement.digest().0)),
            acknowledgement,
        }),
    }
}

fn attestation() -> Attestation {
    let first = link(4, None);
    let digest = first.receipt.receipt.digest();
    Attestation {
        item: ITEM,
        attempt: 1,
        links: vec![first, link(5, Some(digest))],
    }
}

/// What JSON decodes to has one JSON form, and that one decodes to the same.
pub(crate) fn survives_json<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(decoded) = from_json::<T>(bytes) {
        let encoded = serde_json::to_vec(&decoded).unwrap();
        assert_eq!(from_json::<T>(&encoded).unwrap(), decoded);
    }
}

#[test]
fn frames_of_a_push_encode_to_what_they_were() {
    let links = serde_json::to_vec(&attestation().links).unwrap();
    let header = Header {
        job: 7,
        shard: 2,
        replica: 1,
        attempt: 1,
        span: 1,
        rows: 3,
        bytes: 900,
        links,
    };
    let frame = |content| Frame { content: Some(content) }.encode_to_vec();
    let target = Target {
        name: "frame",
        samples: vec![frame(Content::Header(header)), frame(Content::Row(vec![9; 300].into()))],
        memory: 8 * MIB,
    };
    target.attack(|bytes| {
        if let Ok(frame) = Frame::decode(bytes) {
            assert_eq!(Frame::decode(frame.encode_to_vec().as_slice()).unwrap(), frame);
            if let Some(Content::Header(header)) = &frame.content {
                survives_json::<Vec<Link>>(&header.links);
            }
        }
        if let Ok(answer) = Acknowledged::decode(bytes) {
            survives_json::<SignedAcknowledgement>(&answer.acknowledgement);
        }
    });
}

#[test]
fn receipts_are_worth_what_was_signed_and_nothing_else() {
    let signed = attestation();
    let digests: Vec<Digest> = signed.links.iter().map(|link| link.receipt.receipt.digest()).collect();
    let key = Wallet::dev("host").public_key();
    let target = Target {
        name: "attestation",
        samples: vec![serde_json::to_vec(&signed).unwrap()],
        memory: 16 * MIB,
    };
    target.attack(|bytes| {
        survives_json::<Attestation>(bytes);
        let Ok(found) = from_json::<Attestation>(bytes) else {
            return;
        };
        for link in &found.links {
            let (digest, signature) = (link.receipt.receipt.digest(), link.receipt.signature);
            let valid = verify_digest(&key, &digest.0, &signature.0);
            let theirs = signed.links.iter().any(|known| known.receipt == link.receipt);
            assert_eq!(
                valid,
                theirs && digests.contains(&digest),
                "only what was signed is valid"
            );
        }
    });
}

#[test]
fn any_key_digest_and_signature_have_an_answer() {
    let wallet = Wallet::dev("host");
    let request = OutputRequest {
        domain: domain(),
        item: ITEM,
        output_digest: Digest([2; 32]),
        valid_until: 9,
    };
    let signature = wallet.sign_digest(&request.digest().0);
    let sample = [wallet.public_key().as_slice(), &request.digest().0, &signature].concat();
    let target = Target {
        name: "signature",
        samples: vec![sample.clone()],
        memory: MIB,
    };
    target.attack(|bytes| {
        let Some((key, rest)) = bytes.split_at_checked(33) else {
            drop(client::address_of(bytes, "wasm"));
            return drop(Wallet::from_secret(bytes));
        };
        let Some((digest, signature)) = rest.split_first_chunk::<32>() else {
            return;
        };
        assert!(!verify_digest(key, digest, signature) || bytes == sample);
        if let Ok(address) = client::address_of(key, "wasm") {
            assert!(address.starts_with("wasm1"));
        }
    });
}

fn owner() -> Owner {
    Owner {
        chain_id: "fxn-test-1".into(),
        orchestrator: "wasm1orchestrator".into(),
        provider: "wasm1provider".into(),
    }
}

/// A checkpoint in every stage, as the relayer itself writes it.
fn checkpoints() -> Vec<Vec<u8>> {
    let home = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(home.path(), owner()).unwrap();
    let mut written = vec![];
    let mut change = |change: &dyn Fn(&mut checkpoint::State)| {
        store.update(|state| change(state)).unwrap();
        store.flush().unwrap();
        written.push(fs::read(home.path().join(checkpoint::FILE)).unwrap());
    };
    let entry = |job| Entry {
        item: ItemId { job, ..ITEM },
        attempt: 0,
        deadline: 10,
        attest_until: 11,
        evidence_until: 12,
        last_span: true,
        stage: Stage::Fresh {},
    };
    change(&|state| state.height = Some(5));
    change(&|state| drop((1..4).map(|job| state.assigned(entry(job))).collect::<Vec<_>>()));
    change(&|state| state.started(ItemId { job: 1, ..ITEM }, 0));
    let bytes = b"a transaction".to_vec();
    let transaction = Transaction {
        tx_hash: relayer::chain::TxHash::of(&bytes),
        bytes,
    };
    change(&|state| state.prepared(transaction.clone(), &[(ItemId { job: 1, ..ITEM }, 0)]));
    change(&|state| {
        state.concluded(|_, _| {
            Some(Stage::Confirmed {
                tx_hash: transaction.tx_hash,
            })
        })
    });
    written
}

#[test]
fn a_checkpoint_is_a_state_or_damaged_and_a_damaged_one_is_kept() {
    let target = Target {
        name: "checkpoint",
        samples: checkpoints(),
        memory: 32 * MIB,
    };
    target.attack(|bytes| {
        let sound = checkpoint::decode(bytes);
        // With a right sum the content is looked at, too.
        let body = bytes.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
        let summed = [
            format!("fxn-relayer-checkpoint 1 {}\n", relayer::chain::TxHash::of(body)).as_bytes(),
            body,
        ]
        .concat();
        let _ = checkpoint::decode(&summed);
        // The file's way is slow: it syncs.
        if bytes.first().is_some_and(|byte| byte % 16 != 6) && sound.is_err() {
            return;
        }
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(checkpoint::FILE), bytes).unwrap();
        match (sound, Store::open(home.path(), owner())) {
            (Ok((found, state)), Ok((store, None))) => assert_eq!((found, state), (owner(), store.state())),
            (Ok((found, _)), Err(_)) => assert_ne!(found, owner(), "only another's is refused"),
            (Err(checkpoint::DecodeError::Version(_)), opened) => {
                assert!(opened.is_err(), "a newer one is not touched")
            }
            (Err(_), Ok((_, Some(aside)))) => assert_eq!(fs::read(aside.path).unwrap(), bytes),
            (sound, opened) => panic!("{sound:?}, {opened:?}"),
        }
    });
}

#[test]
fn configurations_are_checked_or_refused() {
    let network = r#"{"home":"h","provider":"p","listen":"127.0.0.1:0","sources":["http://a","b"],"threads":2}"#;
    let example = fs::read(fxn_tests::program::root().join("relayer/config.example.toml")).unwrap();
    let host = toml::to_string(&serde_json::from_str::<toml::Table>(network).unwrap()).unwrap();
    let local = fs::read(fxn_tests::program::root().join("params/local.toml")).unwrap();
    let target = Target {
        name: "configuration",
        samples: vec![example, host.into_bytes(), local],
        memory: 16 * MIB,
    };
    target.attack(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(config) = toml::from_str::<relayer::Config>(text) {
            let checked = config.check().is_ok();
            if let Ok(written) = toml::to_string(&config) {
                let again: relayer::Config = toml::from_str(&written).unwrap();
                assert!(again == config && again.check().is_ok() == checked);
            }
        }
        if let Ok(config) = toml::from_str::<inference_host::Config>(text) {
            let _ = config.check();
        }
        if let Ok(params) = toml::from_str::<Params>(text) {
            let again: Params = serde_json::from_slice(&serde_json::to_vec(&params).unwrap()).unwrap();
            assert_eq!(again, params);
        }
    });
}

#[test]
fn what_a_host_tells_its_relayer_survives_json() {
    let status = WorkStatus {
        item: ITEM,
        attempt: 1,
        state: WorkState::Failed,
        links: attestation().links,
        complete: false,
        error: Some("it could not".into()),
    };
    let file = HostFile {
        pid: 7,
        listen: "127.0.0.1:1".into(),
        status: "127.0.0.1:2".into(),
        provider: "wasm1provider".into(),
        started_at: 3,
    };
    let target = Target {
        name: "host-answers",
        samples: vec![serde_json::to_vec(&status).unwrap(), serde_json::to_vec(&file).unwrap()],
        memory: 16 * MIB,
    };
    target.attack(|bytes| {
        survives_json::<WorkStatus>(bytes);
        survives_json::<HostFile>(bytes);
        survives_json::<relayer::status::Snapshot>(bytes);
    });
}
