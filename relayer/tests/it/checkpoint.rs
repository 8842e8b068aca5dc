//! The file: all or nothing, nobody else's, and never a panic.

use std::fs;

use proptest::prelude::*;
use relayer::{
    chain::TxHash,
    checkpoint::{decode, CheckpointError, Damage, DecodeError, Entry, Owner, Stage, State, Store, Transaction, FILE},
};
use schema::ItemId;

use crate::{
    fake_chain::{item, ME, OTHER},
    scene::{opened, Scene},
};

fn owner() -> Owner {
    Owner {
        chain_id: "fake-1".into(),
        orchestrator: "wasm1orchestrator".into(),
        provider: ME.into(),
    }
}

fn entry(job: u64, stage: Stage) -> Entry {
    Entry {
        item: item(job),
        attempt: 1,
        deadline: 5,
        attest_until: 6,
        evidence_until: 7,
        last_span: true,
        stage,
    }
}

fn transaction() -> Transaction {
    let bytes = b"signed".to_vec();
    Transaction {
        tx_hash: TxHash::of(&bytes),
        bytes,
    }
}

fn fill(state: &mut State) {
    state.height = Some(9);
    state.assigned(entry(1, Stage::Fresh {}));
    state.assigned(entry(2, Stage::Started {}));
    state.assigned(entry(
        3,
        Stage::Confirmed {
            tx_hash: transaction().tx_hash,
        },
    ));
    state.prepared(transaction(), &[(item(2), 1), (item(3), 1)]);
}

/// A valid file.
fn content() -> Vec<u8> {
    let home = tempfile::tempdir().unwrap();
    let (store, _) = opened(|| Store::open(home.path(), owner()));
    store.update(fill).unwrap();
    fs::read(home.path().join(FILE)).unwrap()
}

/// A file with the right sum over any body.
fn sealed(body: &str) -> Vec<u8> {
    format!("fxn-relayer-checkpoint 1 {}\n{body}", TxHash::of(body.as_bytes())).into_bytes()
}

#[test]
fn what_was_written_is_what_is_read_and_no_other_file_is_left() {
    let home = tempfile::tempdir().unwrap();
    let (store, aside) = opened(|| Store::open(home.path(), owner()));
    assert_eq!(aside, None);
    store.update(fill).unwrap();
    let before = store.state();
    drop(store);
    let (store, aside) = opened(|| Store::open(home.path(), owner()));
    assert_eq!((store.state(), aside), (before.clone(), None));
    let prepared = Stage::Prepared {
        tx_hash: transaction().tx_hash,
    };
    assert_eq!(before.entry(item(2)).unwrap().stage, prepared);
    assert!(matches!(before.entry(item(3)).unwrap().stage, Stage::Confirmed { .. }));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
}

#[test]
fn stages_only_go_forward_and_later_attempts_win() {
    let mut state = State::default();
    assert!(state.assigned(entry(1, Stage::Fresh {})));
    assert!(!state.assigned(entry(1, Stage::Fresh {})));
    state.prepared(transaction(), &[(item(1), 1)]);
    state.started(item(1), 1);
    assert!(matches!(state.entry(item(1)).unwrap().stage, Stage::Prepared { .. }));
    assert!(
        !state.ended(item(1), 0),
        "an earlier attempt says nothing about this one"
    );
    let later = Entry {
        attempt: 2,
        ..entry(1, Stage::Fresh {})
    };
    assert!(state.assigned(later));
    state.started(item(1), 1);
    assert_eq!(state.entry(item(1)).unwrap().stage, Stage::Fresh {});
    assert!(state.ended(item(1), 2));
    assert!(!state.ended(item(1), 2));
}

#[test]
fn what_a_transaction_says_nothing_about_goes_back_to_started() {
    let mut state = State::default();
    fill(&mut state);
    state.concluded(|_, _| None);
    assert_eq!(state.transaction(), None);
    assert_eq!(state.entry(item(2)).unwrap().stage, Stage::Started {});
    assert!(matches!(state.entry(item(3)).unwrap().stage, Stage::Confirmed { .. }));
}

#[test]
fn one_process_a_home() {
    let home = tempfile::tempdir().unwrap();
    let _first = Store::open(home.path(), owner()).unwrap();
    let second = Store::open(home.path(), owner());
    assert!(matches!(second, Err(CheckpointError::Locked { .. })));
}

#[test]
fn a_checkpoint_of_another_provider_or_chain_stops_the_program_and_stays() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(FILE), content()).unwrap();
    for other in [
        Owner {
            provider: OTHER.into(),
            ..owner()
        },
        Owner {
            chain_id: "fake-2".into(),
            ..owner()
        },
    ] {
        let opened = Store::open(home.path(), other);
        assert!(matches!(opened, Err(CheckpointError::Foreign { .. })));
    }
    assert_eq!(fs::read(home.path().join(FILE)).unwrap(), content());
}

#[test]
fn a_checkpoint_of_a_newer_version_stops_the_program() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(FILE), "fxn-relayer-checkpoint 2 whatever\n\u{1}").unwrap();
    let error = Store::open(home.path(), owner()).unwrap_err().to_string();
    assert!(
        error.ends_with("is of version 2, this program knows version 1"),
        "{error}"
    );
}

#[test]
fn content_that_contradicts_itself_is_damage() {
    let text = String::from_utf8(content()).unwrap();
    let body = text.split_once('\n').unwrap().1;
    assert!(decode(&sealed(body)).is_ok());
    for (from, to, words) in [
        ("\"height\":9", "\"height\":9,\"colour\":1", "unknown field `colour`"),
        ("\"job\":3", "\"job\":1", "item 1.0.0 is there twice"),
        ("c2lnbmVk", "c2lnbmVl", "have the hash"),
        (
            "\"evidence_until\":7",
            "\"evidence_until\":4",
            "ends before its deadline",
        ),
        ("\"attempt\":1", "\"attempt\":256", "invalid value"),
    ] {
        assert!(body.contains(from), "{from}");
        let Err(DecodeError::Damaged(Damage::Content(reason))) = decode(&sealed(&body.replacen(from, to, 1))) else {
            panic!("{from} -> {to} was taken");
        };
        assert!(reason.contains(words), "{reason}");
    }
    let without = body.split_once(",\"transaction\":").unwrap().0.to_owned() + ",\"transaction\":null}";
    let Err(DecodeError::Damaged(Damage::Content(reason))) = decode(&sealed(&without)) else {
        panic!("a prepared item without its transaction was taken");
    };
    assert!(reason.contains("in a transaction that is not there"), "{reason}");
}

/// Opens a home with these bytes as its checkpoint: they are kept, told, and the state begins anew.
fn is_kept_aside(bytes: &[u8]) {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(FILE), bytes).unwrap();
    let (store, aside) = opened(|| Store::open(home.path(), owner()));
    let aside = aside.unwrap();
    assert_eq!(fs::read(&aside.path).unwrap(), bytes, "{}", aside.damage);
    assert_eq!(store.state(), State::default());
    store.update(fill).unwrap();
    assert_eq!(fs::read(&aside.path).unwrap(), bytes, "written over");
}

#[test]
fn a_checkpoint_cut_off_at_any_byte_is_kept_aside() {
    let whole = content();
    for length in 0..whole.len() {
        assert!(
            matches!(decode(&whole[..length]), Err(DecodeError::Damaged(_))),
            "{length}"
        );
        // A disk syncs slowly: some of them as files.
        if length % 50 == 0 {
            is_kept_aside(&whole[..length]);
        }
    }
}

#[test]
fn a_checkpoint_with_any_bit_turned_is_kept_aside_or_stops_the_program_and_never_begins_anew() {
    let whole = content();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match decode(&bytes) {
            // A digit of the version has become another.
            Err(DecodeError::Version(_)) => {
                let home = tempfile::tempdir().unwrap();
                fs::write(home.path().join(FILE), &bytes).unwrap();
                assert!(Store::open(home.path(), owner()).is_err());
                assert_eq!(fs::read(home.path().join(FILE)).unwrap(), bytes);
            }
            Err(DecodeError::Damaged(_)) if bit % 401 == 0 => is_kept_aside(&bytes),
            Err(DecodeError::Damaged(_)) => {}
            Ok(_) => panic!("bit {bit} makes no difference"),
        }
    }
}

#[test]
fn a_checkpoint_or_a_lock_that_cannot_be_read_stops_the_program_with_its_name() {
    for name in [FILE.to_owned(), format!("{FILE}.lock")] {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(&name)).unwrap();
        let error = Store::open(home.path(), owner()).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: Is a directory")), "{error}");
    }
}

#[tokio::test]
async fn a_corrupt_checkpoint_is_kept_aside_reported_and_nothing_is_lost() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    let mut damaged = content();
    damaged.truncate(damaged.len() - 3);
    fs::write(scene.home.path().join(FILE), &damaged).unwrap();
    let mut running = scene.start().await;
    let aside = running.snapshots.borrow().set_aside.clone().unwrap();
    assert_eq!(fs::read(aside).unwrap(), damaged);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.until("attested", |s| s.totals.attested == 1).await;
    running.stop().await.unwrap();
    assert_eq!(scene.store().await.state().height, Some(scene.chain.world().height));
}

#[test]
fn quiet_blocks_reach_the_disk_now_and_then() {
    let home = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(home.path(), owner()).unwrap();
    let on_disk = || {
        fs::read(home.path().join(FILE))
            .ok()
            .and_then(|content| decode(&content).unwrap().1.height)
    };
    for height in 1..=31 {
        store.quiet_block(height).unwrap();
    }
    assert_eq!((on_disk(), store.state().height), (None, Some(31)));
    store.quiet_block(32).unwrap();
    assert_eq!(on_disk(), Some(32));
    store.quiet_block(33).unwrap();
    store.update(|state| state.assigned(entry(1, Stage::Fresh {}))).unwrap();
    assert_eq!(on_disk(), Some(33));
    store.quiet_block(34).unwrap();
    store.flush().unwrap();
    assert_eq!(on_disk(), Some(34));
}

fn stages() -> impl Strategy<Value = Stage> {
    let hash = any::<[u8; 32]>().prop_map(TxHash::from);
    prop_oneof![
        Just(Stage::Fresh {}),
        Just(Stage::Started {}),
        hash.clone().prop_map(|tx_hash| Stage::Confirmed { tx_hash }),
        hash.prop_map(|tx_hash| Stage::Refused { tx_hash }),
    ]
}

fn entries() -> impl Strategy<Value = Entry> {
    let item = (0..9u64, 0..3u16, 0..3u8).prop_map(|(job, shard, replica)| ItemId { job, shard, replica });
    let times = (any::<u64>(), any::<u64>(), any::<u64>());
    (item, any::<u8>(), times, any::<bool>(), stages()).prop_map(|(item, attempt, (a, b, c), last_span, stage)| Entry {
        item,
        attempt,
        deadline: a.min(b),
        attest_until: c,
        evidence_until: a.max(b),
        last_span,
        stage,
    })
}

proptest! {
    #[test]
    fn any_bytes_are_a_checkpoint_or_damaged_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn any_text_with_a_right_sum_is_a_checkpoint_or_damaged(body in "\\PC{0,400}") {
        prop_assert!(decode(&sealed(&body)).is_err());
    }

    #[test]
    fn a_single_changed_byte_is_noticed(at in any::<prop::sample::Index>(), by in 1..=255u8) {
        let mut bytes = content();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn any_state_survives_the_disk(
        height in any::<Option<u64>>(),
        entries in prop::collection::vec(entries(), 0..20),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        claims in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let home = tempfile::tempdir().unwrap();
        let (store, _) = opened(|| Store::open(home.path(), owner()));
        store.update(|state| {
            state.height = height;
            for entry in &entries {
                state.assigned(*entry);
            }
            let claims = claims.iter().filter(|_| !entries.is_empty()).map(|index| index.get(&entries));
            let claims: Vec<(ItemId, u8)> = claims.map(|entry| (entry.item, entry.attempt)).collect();
            state.prepared(Transaction { tx_hash: TxHash::of(&bytes), bytes }, &claims);
        }).unwrap();
        let before = store.state();
        drop(store);
        let (store, aside) = opened(|| Store::open(home.path(), owner()));
        prop_assert_eq!((store.state(), aside), (before, None));
    }
}
