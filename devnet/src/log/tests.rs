#![allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]

use super::*;

fn identity(chain_id: &str) -> Identity {
    Identity {
        format: FORMAT,
        chain_id: chain_id.into(),
        denom: "ustake".into(),
        accounts: "aa".into(),
        parameters: String::new(),
        codes: vec!["probe 1".into()],
    }
}

fn header() -> Header {
    Header {
        identity: identity("chain-1"),
        genesis_nanos: 7,
        genesis: "ff".into(),
    }
}

fn txs(height: u64) -> Vec<Vec<u8>> {
    let byte = u8::try_from(height).unwrap();
    (0..height % 3).map(|_| vec![byte; 20]).collect()
}

/// A log of so many blocks; gives the file and where each block's record begins.
fn written(folder: &Path, blocks: u64) -> (PathBuf, Vec<u64>) {
    let mut log = Folder::open(folder).unwrap().create(&header()).unwrap();
    let mut starts = vec![];
    for height in 1..=blocks {
        starts.push(log.bytes());
        let txs = txs(height);
        let txs = txs.iter().map(Vec::as_slice);
        log.append(height, height * 10, &[3; 32], txs).unwrap();
    }
    let path = folder.join(FILE);
    assert_eq!(fs::metadata(&path).unwrap().len(), log.bytes());
    (path, starts)
}

/// Reads to the end: the heights, or why not.
fn read(folder: &Path) -> Result<(Vec<u64>, Reader, Folder), StateError> {
    let folder = Folder::open(folder)?;
    let mut reader = folder.read(&identity("chain-1"))?.expect("a log is there");
    let mut heights = vec![];
    while let Some(record) = reader.next()? {
        assert_eq!(record.txs, txs(record.height));
        assert_eq!((record.time_nanos, record.outcome), (record.height * 10, [3; 32]));
        heights.push(record.height);
    }
    Ok((heights, reader, folder))
}

/// The names and contents of all files, the lock apart.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .filter(|(name, _)| name != LOCK)
        .collect();
    files.sort();
    files
}

#[test]
fn what_was_written_is_read_and_the_log_goes_on_after_it() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), 5);
    for round in 0..3 {
        let (heights, reader, taken) = read(folder.path()).unwrap();
        assert_eq!(heights, (1..=5 + round).collect::<Vec<_>>());
        let Recovered { mut log, notice } = reader.resume(taken).unwrap();
        assert_eq!(notice, None);
        let height = 6 + round;
        let txs = txs(height);
        log.append(height, height * 10, &[3; 32], txs.iter().map(Vec::as_slice))
            .unwrap();
    }
}

#[test]
fn a_tail_cut_anywhere_is_put_aside_byte_by_byte_and_the_rest_goes_on() {
    for blocks in [1, 5] {
        let origin = tempfile::tempdir().unwrap();
        let (path, starts) = written(origin.path(), blocks);
        let whole = fs::read(path).unwrap();
        let last = usize::try_from(*starts.last().unwrap()).unwrap();
        for cut in last + 1..whole.len() {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(FILE), &whole[..cut]).unwrap();
            let (heights, reader, taken) = read(folder.path()).unwrap();
            assert_eq!(heights, (1..blocks).collect::<Vec<_>>(), "cut at {cut}");
            let notice = reader.resume(taken).unwrap().notice.unwrap();
            assert!(notice.contains("cut short by a crash") && notice.contains(&format!("block {}", blocks - 1)));
            let kept = [
                (FILE.to_owned(), whole[..last].to_vec()),
                (format!("{FILE}.torn-1"), whole[last..cut].to_vec()),
            ];
            assert_eq!(files(folder.path()), kept);
            assert_eq!(read(folder.path()).unwrap().0.len(), heights.len());
        }
    }
}

#[test]
fn pages_that_were_never_written_are_a_torn_tail_too() {
    let folder = tempfile::tempdir().unwrap();
    let (path, starts) = written(folder.path(), 3);
    let whole = fs::read(&path).unwrap();
    let last = usize::try_from(starts[2]).unwrap();
    for written in [last, last + HEAD, whole.len() - CHECKSUM] {
        let mut zeros = whole.clone();
        zeros[written..].fill(0);
        fs::write(&path, zeros).unwrap();
        assert_eq!(read(folder.path()).unwrap().0, [1, 2], "written to {written}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_damage_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = written(folder.path(), 3);
    let whole = fs::read(&path).unwrap();
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << bit;
            fs::write(&path, &flipped).unwrap();
            let error = read(folder.path()).unwrap_err();
            assert!(matches!(error, StateError::Damaged { .. }), "byte {place}: {error}");
            assert_eq!(files(folder.path()), [(FILE.to_owned(), flipped)]);
        }
    }
    fs::write(&path, whole).unwrap();
    read(folder.path()).unwrap();
}

#[test]
fn missing_doubled_exchanged_and_foreign_records_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (path, starts) = written(folder.path(), 4);
    let whole = fs::read(&path).unwrap();
    let at = |block: usize| usize::try_from(starts[block]).unwrap();
    let (head, second, third) = (&whole[..at(1)], &whole[at(1)..at(2)], &whole[at(2)..at(3)]);
    let variants = [
        [head, third].concat(),
        [head, second, second, third].concat(),
        [head, third, second].concat(),
        [&whole, b"and more that is no record at all".as_slice()].concat(),
    ];
    for variant in variants {
        fs::write(&path, variant).unwrap();
        let error = read(folder.path()).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("Nothing was changed"), "{error}");
    }
    // The header is put there whole or not at all.
    for cut in 0..at(0) {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = read(folder.path()).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "cut at {cut}: {error}");
    }
}

#[test]
fn a_log_of_another_chain_is_refused_with_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), 2);
    let other = |change: fn(&mut Identity)| {
        let mut ours = identity("chain-1");
        change(&mut ours);
        let folder = Folder::open(folder.path()).unwrap();
        folder.read(&ours).unwrap_err().to_string()
    };
    let text = other(|ours| ours.chain_id = "chain-2".into());
    assert!(
        text.contains("chain id \"chain-1\", and this one has \"chain-2\""),
        "{text}"
    );
    assert!(other(|ours| ours.format = 2).contains("format \"1\""));
    assert!(other(|ours| ours.accounts = "bb".into()).contains("accounts"));
    assert!(other(|ours| ours.parameters = "cc".into()).contains("parameters"));
    assert!(other(|ours| ours.codes.clear()).contains("probe 1"));
}

#[test]
fn a_folder_belongs_to_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Folder::open(folder.path()).unwrap();
    let error = Folder::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(first);
    Folder::open(folder.path()).unwrap();
}

#[test]
fn a_log_that_is_taken_away_takes_no_further_block() {
    for replaced in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut log = Folder::open(folder.path()).unwrap().create(&header()).unwrap();
        log.append(1, 10, &[3; 32], [].into_iter()).unwrap();
        let copy = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        if replaced {
            fs::write(&path, copy).unwrap();
        }
        let refused = log.append(2, 20, &[3; 32], [].into_iter()).unwrap_err();
        assert!(matches!(refused, StateError::Removed(found) if found == path));
    }
}
