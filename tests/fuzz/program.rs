//! Key files, which only the program reads. Whatever is in them, it ends with 0, or with 1 and one sentence.

use std::{fs, process::Output};

use fxn_tests::program::fxn;

use crate::target::Target;

const MIB: usize = 1 << 20;

/// Refusals are one sentence; a panic would end with 101 and say so.
fn assert_refused_or_done(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => {}
        Some(1) => assert!(said.starts_with("fxn: ") && said.lines().count() == 1, "{said}"),
        other => panic!("it ended with {other:?}: {said}"),
    }
}

#[test]
fn any_file_in_the_folder_of_keys_is_a_key_or_refused() {
    let home = tempfile::tempdir().unwrap();
    let secret = home.path().join("secret");
    fs::write(&secret, "01".repeat(32)).unwrap();
    let mut import = fxn(home.path());
    import
        .args(["keys", "import", "alice", "--hex"])
        .env("FXN_PASSPHRASE", "p");
    let imported = import.stdin(fs::File::open(&secret).unwrap()).output().unwrap();
    assert!(
        imported.status.success(),
        "{}",
        String::from_utf8_lossy(&imported.stderr)
    );
    let path = home.path().join("keys/alice.json");
    let target = Target {
        name: "key-file",
        samples: vec![fs::read(&path).unwrap()],
        memory: MIB,
    };
    target.attack(|bytes| {
        fs::write(&path, bytes).unwrap();
        for arguments in [["keys", "show", "alice"].as_slice(), &["keys", "list"]] {
            assert_refused_or_done(&fxn(home.path()).args(arguments).output().unwrap());
        }
    });
}
