//! A journal on a disk that rots: whatever byte is lost or changed, nothing is believed, everything is kept and reported.

#![allow(clippy::arithmetic_side_effects, reason = "numbers in tests are small")]

use super::*;
use crate::{
    chain::Assignment,
    work::{Phase, Record},
};

/// A record that says how often it was changed.
pub(super) fn record(job: u64, version: usize) -> Record {
    Record {
        assignment: assignment(job),
        span: 0,
        phase: Phase::Failed {
            reason: format!("version {version}"),
        },
        links: Vec::new(),
    }
}

fn assignment(job: u64) -> Assignment {
    Assignment {
        domain: schema::receipt::Domain {
            chain_id: "fxn-test-1".to_owned(),
            contract: "wasm1orchestrator".to_owned(),
        },
        item: schema::ItemId {
            job,
            shard: 0,
            replica: 0,
        },
        attempt: 0,
        open: true,
        developer: "wasm1developer".to_owned(),
        model: "demo/tiny".parse().unwrap(),
        version: 1,
        endpoint: "embeddings".to_owned(),
        manifest: Digest([0; 32]),
        rows: 3,
        root: Digest([1; 32]),
        units_max: 100,
        engine_class: "tiny-1/cpu".to_owned(),
        spans: Vec::new(),
        deadline: 1_000_000,
        evidence_until: 1_000_010,
    }
}

fn journal() -> (tempfile::TempDir, Journal, Aside) {
    let home = tempfile::tempdir().unwrap();
    let aside = Aside::default();
    let journal = Journal::open(home.path().join("work"), aside.clone()).unwrap();
    (home, journal, aside)
}

#[test]
fn a_record_that_is_cut_anywhere_or_has_one_wrong_bit_is_set_aside_and_reported() {
    let (_home, journal, aside) = journal();
    let (rotten, sound) = (record(1, 0), record(2, 0));
    journal.write(&sound).unwrap();
    journal.write(&rotten).unwrap();
    let path = journal.folder.join(rotten.key().to_string()).join(RECORD);
    let whole = fs::read(&path).unwrap();
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    let flipped = (0..whole.len() * 8).map(|bit| {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    for (count, bytes) in cut.chain(flipped).enumerate() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &bytes).unwrap();
        let found = journal.read_all().unwrap();
        assert_eq!(
            found.records,
            std::slice::from_ref(&sound),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
        assert_eq!(aside.count(Kind::Record), count as u64 + 1);
        let kept = aside.reports().remove(0).kept_at.unwrap();
        assert_eq!(
            fs::read(kept.join(RECORD)).unwrap(),
            bytes,
            "what was found is kept as it was"
        );
    }
    assert_eq!(fs::read_dir(journal.folder.join(ASIDE)).unwrap().count(), ROOM.files);
}

#[test]
fn a_number_that_changed_into_another_number_is_not_believed() {
    let (_home, journal, _) = journal();
    journal.write(&record(1, 0)).unwrap();
    let path = journal.folder.join("1.0.0-0-0").join(RECORD);
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replace("1000000", "9000000");
    assert_ne!(text, changed);
    let (_, body) = changed.split_once('\n').unwrap();
    serde_json::from_str::<Record>(body).expect("it is a record all the same");
    let reason = decode_record(changed.as_bytes()).unwrap_err();
    assert!(reason.starts_with("its digest is "), "{reason}");
}

#[test]
fn a_record_in_the_wrong_folder_is_set_aside() {
    let (_home, journal, aside) = journal();
    journal.write(&record(1, 0)).unwrap();
    let folder = journal.folder.join("2.0.0-0-0");
    fs::rename(journal.folder.join("1.0.0-0-0"), &folder).unwrap();
    assert!(journal.read_all().unwrap().records.is_empty());
    assert_eq!(aside.reports()[0].reason, "it holds the record of 1.0.0-0-0");
}

#[test]
fn rows_that_are_cut_anywhere_are_no_rows() {
    let (_home, journal, _) = journal();
    let key = record(1, 0).key();
    journal.write_rows(key, RowFile::Input, &["abc", "", "de"]).unwrap();
    let path = journal.path(key, RowFile::Input);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(
            journal.read_rows(key, RowFile::Input),
            Err(JournalError::Corrupt { .. })
        ));
    }
    fs::remove_file(&path).unwrap();
    let gone = journal.read_rows(key, RowFile::Input).unwrap_err().to_string();
    assert!(gone.ends_with("it is gone"), "{gone}");
}

#[test]
fn what_a_killed_host_had_not_finished_is_removed_and_what_it_had_is_kept() {
    let (_home, journal, aside) = journal();
    let kept = record(1, 0);
    journal.write(&kept).unwrap();
    let folder = journal.folder.join(kept.key().to_string());
    // Rows that its record does not speak of, temporary files, and a piece that got no record.
    fs::write(folder.join("output"), b"x").unwrap();
    fs::write(folder.join(".fxn-host-abc"), b"x").unwrap();
    journal
        .write_rows(record(2, 0).key(), RowFile::Input, &["abc"])
        .unwrap();
    fs::create_dir(journal.folder.join("3.0.0-0-0")).unwrap();
    let found = journal.read_all().unwrap();
    assert_eq!((found.records, found.leftovers), (vec![kept], 4));
    let left = |folder: &Path| fs::read_dir(folder).unwrap().count();
    assert_eq!((left(&journal.folder), left(&folder)), (1, 1));
    assert!(aside.reports().is_empty(), "none of it was ever promised");
    assert_eq!(journal.read_all().unwrap().leftovers, 0);
}

#[test]
fn what_nobody_knows_is_kept_aside_and_never_deleted() {
    let (_home, journal, aside) = journal();
    fs::write(journal.folder.join("notes.txt"), b"mine").unwrap();
    fs::create_dir(journal.folder.join("4.0.0-0-0")).unwrap();
    fs::write(journal.folder.join("4.0.0-0-0").join("other"), b"x").unwrap();
    assert!(journal.read_all().unwrap().records.is_empty());
    assert_eq!(aside.count(Kind::Record), 2);
}
