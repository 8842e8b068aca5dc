//! However the program ends, it says why and leaves nothing behind.

use std::fs;

use crate::{fxn, machine, refusal, wait_until_gone, Kept, Stage};

#[test]
fn children_of_a_killed_demonstration_stop_by_themselves() {
    let _machine = machine();
    let stage = Stage::open();
    // Somebody's own network file is left alone, and no key is put beside it.
    let own = stage.home().join("network.json");
    if !stage.is_real {
        fs::write(&own, "{}").unwrap();
    }
    let looks = || {
        let keys = fs::read_dir(stage.home().join("keys"));
        (fs::read_to_string(&own).unwrap(), keys.map_or(0, Iterator::count))
    };
    let before = looks();
    let (code, report) = Kept::start(&stage).signal("KILL");
    assert_eq!(code, None);
    wait_until_gone(&report);
    assert_eq!(looks(), before);
}

#[test]
fn wrong_usage_ends_with_two_and_a_refusal_with_one() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [
        vec!["dmeo"],
        vec!["embed"],
        vec!["keys", "new"],
        vec!["keys", "new", "../evil"],
        vec!["wallet", "deposit", "1.2.3"],
        vec![
            "provider",
            "deploy",
            "--model",
            "demo/m",
            "--stages",
            "2..1",
            "--ask",
            "per_1k_in=1",
            "--sla",
            "base=1",
        ],
        vec!["job", "submit", "--model", "demo/m", "--input", "-", "--replicas", "4"],
    ] {
        let output = fxn(home.path()).args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    let refused = refusal(&fxn(home.path()).args(["model", "list"]).output().unwrap());
    assert!(refused.starts_with("fxn: no network is known: "), "{refused}");
}

#[test]
fn every_command_has_help_with_an_example() {
    let home = tempfile::tempdir().unwrap();
    let groups = [
        ("keys", vec!["new", "import", "list", "show", "export"]),
        ("wallet", vec!["money", "deposit", "withdraw", "send", "faucet"]),
        (
            "model",
            vec![
                "split",
                "publish",
                "serve",
                "list",
                "show",
                "price",
                "retire",
                "royalties",
            ],
        ),
        (
            "provider",
            vec![
                "register", "bond", "unbond", "deploy", "drain", "unjail", "show", "list", "run",
            ],
        ),
        ("job", vec!["submit", "show", "watch", "result", "list"]),
        ("session", vec!["open", "topup", "close", "force", "show", "list"]),
    ];
    let mut commands: Vec<Vec<&str>> = [
        "demo",
        "deploy",
        "embed",
        "devnet",
        "host",
        "relayer",
        "doctor",
        "completions",
    ]
    .map(|command| vec![command])
    .to_vec();
    for (group, names) in groups {
        commands.extend(names.into_iter().map(|name| vec![group, name]));
    }
    for command in commands {
        let output = fxn(home.path()).args(&command).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && help.contains("Example"), "{command:?}");
        assert!(help.contains(&format!("fxn {}", command.join(" "))), "{command:?}");
    }
}
