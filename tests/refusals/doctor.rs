//! `fxn doctor` and `fxn completions`, as people run them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::Value;

use crate::{
    files::old_library,
    market::Market,
    network::stranger,
    programs::{bare, binary, fed, finished, root, said},
};

fn doctor(home: &Path, arguments: &[&str]) -> Command {
    let mut command = bare(&binary());
    command.arg("--home").arg(home).arg("doctor").args(arguments);
    command
}

/// The document, whatever the doctor thinks, and the exit code.
fn diagnosed(mut command: Command) -> (Value, Option<i32>) {
    command.args(["--output", "json"]);
    let output = finished(command);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output.stderr)));
    if output.status.success() {
        assert_eq!(said(&output.stderr), "");
    } else {
        let sentence = said(&output.stderr);
        assert!(
            sentence.starts_with("fxn: ") && sentence.contains("fail: "),
            "{sentence}"
        );
        assert_eq!(sentence.lines().count(), 1);
    }
    (report, output.status.code())
}

fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks
        .iter()
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("no {check}: {report}"))
}

fn status<'a>(report: &'a Value, check: &str) -> &'a str {
    finding(report, check)["status"].as_str().unwrap()
}

#[test]
fn a_machine_with_nothing_set_up_is_told_what_to_do_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("a/home");
    let (report, _) = diagnosed(doctor(&home, &[]));
    assert_eq!(status(&report, "network"), "warn");
    assert!(finding(&report, "network")["fix"]
        .as_str()
        .unwrap()
        .contains("fxn devnet"));
    for check in ["home", "key"] {
        assert_eq!(status(&report, check), "ok");
    }
    for check in ["onnxruntime", "processor", "disk", "port", "machine", "files"] {
        finding(&report, check);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    let mut homeless = bare(&binary());
    homeless.arg("doctor").env_remove("HOME");
    let (report, code) = diagnosed(homeless);
    assert_eq!((status(&report, "home"), code), ("fail", Some(1)));
}

#[test]
fn a_gpu_that_cannot_compute_is_a_failure_that_names_what_is_missing() {
    let home = tempfile::tempdir().unwrap();
    let library = root().join(".runtime/onnxruntime/libonnxruntime.so");
    let library = library.display().to_string();
    let (report, code) = diagnosed(doctor(home.path(), &["--device", "cuda:1", "--onnxruntime", &library]));
    assert_eq!((status(&report, "device"), code), ("fail", Some(1)));
    let told = finding(&report, "device")["told"].as_str().unwrap();
    assert!(
        told.starts_with("cuda:1: ") && told.contains("computes on the CPU only"),
        "{told}"
    );
    assert!(finding(&report, "device")["fix"]
        .as_str()
        .unwrap()
        .contains("LD_LIBRARY_PATH"));
    // What works without a GPU is not blamed for it.
    assert_eq!(status(&report, "onnxruntime"), "ok");
    let output = finished(doctor(home.path(), &["--device", "gpu"]));
    assert!(said(&output.stderr).contains("\"gpu\" is no device: write cpu, cuda or cuda:N"));
}

#[test]
fn a_network_at_work_is_found_fit_and_every_failure_has_its_fix() {
    let market = Market::open();
    let library = root().join(".runtime/onnxruntime/libonnxruntime.so");
    let (report, code) = diagnosed(doctor(
        market.path(),
        &["--onnxruntime", &library.display().to_string()],
    ));
    for check in ["onnxruntime", "network", "node", "contracts", "head", "clock", "key"] {
        assert_eq!(status(&report, check), "ok", "{report}");
    }
    assert!(finding(&report, "contracts")["told"]
        .as_str()
        .unwrap()
        .contains("job-orchestrator 0."));
    assert!(finding(&report, "processor")["told"]
        .as_str()
        .unwrap()
        .contains("engine class ort-1."));
    // The temporary folder is private, and this machine may have little room.
    assert_eq!(code == Some(0), report["ok"] == true);

    let kind = market.network("kind.json", |network| {
        network["contracts"]["model_registry"] = network["contracts"]["func_token"].clone();
    });
    let chain = market.network("chain.json", |network| network["chain_id"] = "other-1".into());
    let down = market.network("down.json", |network| network["rpc"] = "http://127.0.0.1:1".into());
    let broken = market.file("broken.json", b"{");
    let old = old_library(market.path()).display().to_string();
    let key = market.path().join("keys/alice.json");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    for (arguments, check, says) in [
        (["--network", kind.as_str()], "contracts", "func-token"),
        (["--network", &chain], "node", "other-1"),
        (["--network", &down], "node", "127.0.0.1:1"),
        (["--network", &broken], "network", "broken.json"),
        (["--onnxruntime", &old], "onnxruntime", "1.17.0"),
        (["--onnxruntime", "/nonexistent.so"], "onnxruntime", "/nonexistent.so"),
        (["--node", "http://127.0.0.1:1"], "key", "mode 644"),
    ] {
        let (report, code) = diagnosed(doctor(market.path(), &arguments));
        let found = finding(&report, check);
        assert_eq!(
            (code, found["status"].as_str()),
            (Some(1), Some("fail")),
            "{arguments:?}: {found}"
        );
        assert!(found["told"].as_str().unwrap().contains(says), "{found}");
        assert!(!found["fix"].as_str().unwrap().is_empty(), "{found}");
    }
}

/// A node that repeats the answers of a real one, with one block more each time and its clock set back or ahead.
fn node_with_clock(shift_seconds: i64) -> String {
    let height = AtomicU64::new(10);
    stranger(move |request| {
        let asked: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1)?).ok()?;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let time = i64::try_from(now.as_secs()).unwrap() + shift_seconds;
        let height = height.fetch_add(1, Ordering::Relaxed);
        let zeros = "0".repeat(64);
        let answer = serde_json::json!({ "jsonrpc": "2.0", "id": asked["id"], "result": {
            "node_info": {
                "protocol_version": { "p2p": "8", "block": "11", "app": "0" }, "id": "0".repeat(40), "listen_addr": "tcp://0.0.0.0:1",
                "network": "fxn-1", "version": "0.38.0", "channels": "40", "moniker": "n",
                "other": { "tx_index": "on", "rpc_address": "tcp://127.0.0.1:1" },
            },
            "sync_info": {
                "latest_block_hash": zeros, "latest_app_hash": zeros, "latest_block_height": height.to_string(),
                "latest_block_time": rfc3339(time), "earliest_block_hash": zeros, "earliest_app_hash": zeros,
                "earliest_block_height": "1", "earliest_block_time": rfc3339(time), "catching_up": false,
            },
            "validator_info": {
                "address": "0".repeat(40), "voting_power": "1",
                "pub_key": { "type": "tendermint/PubKeyEd25519", "value": format!("{}=", "A".repeat(43)) },
            },
        }});
        Some(answer.to_string())
    })
}

/// Seconds since 1970 as text, by the rule of the Gregorian calendar.
fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (
        day - (153 * month + 2) / 5 + 1,
        if month < 10 { month + 3 } else { month - 9 },
    );
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[test]
fn a_clock_that_is_far_off_is_a_failure_with_its_seconds() {
    let home = tempfile::tempdir().unwrap();
    for (shift, expected, words) in [(0, "ok", "s "), (-7200, "fail", "ahead of"), (7200, "fail", "behind")] {
        let (report, _) = diagnosed(doctor(home.path(), &["--node", &node_with_clock(shift)]));
        let clock = finding(&report, "clock");
        assert_eq!(clock["status"], expected, "{report}");
        let told = clock["told"].as_str().unwrap();
        assert!(told.contains(words), "{told}");
        let seconds: u64 = told.split(' ').next().unwrap().parse().unwrap();
        assert!(seconds.abs_diff(shift.unsigned_abs()) < 20, "{told}");
    }
}

#[test]
fn a_node_that_hangs_does_not_hang_the_doctor() {
    let home = tempfile::tempdir().unwrap();
    let since = std::time::Instant::now();
    let (report, code) = diagnosed(doctor(home.path(), &["--node", &stranger(|_| None)]));
    assert_eq!((status(&report, "node"), code), ("fail", Some(1)));
    assert!(since.elapsed() < Duration::from_secs(45));
}

#[test]
fn text_is_one_line_a_check_without_colours_where_nobody_sees_them() {
    let home = tempfile::tempdir().unwrap();
    let output = finished(doctor(home.path(), &["--onnxruntime", "/nonexistent.so"]));
    let text = said(&output.stdout);
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(text.contains("fail  onnxruntime"), "{text}");
    for line in text.lines() {
        let begins = ["ok    ", "warn  ", "fail  ", "      "];
        assert!(begins.iter().any(|begin| line.starts_with(begin)), "{line}");
    }
}

#[test]
fn completions_of_every_shell_name_real_commands_and_bash_reads_them() {
    let home = tempfile::tempdir().unwrap().path().join("never-made");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let mut command = bare(&binary());
        command.arg("--home").arg(&home).args(["completions", shell]);
        let output = finished(command);
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}");
        let script = said(&output.stdout);
        for word in ["doctor", "embed", "relayer", "withdraw", "log-format"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
        if shell == "bash" {
            let mut bash = Command::new("bash");
            bash.arg("-n").stdout(Stdio::null());
            let read = fed(bash, script.as_bytes());
            assert!(
                read.status.success() && read.stderr.is_empty(),
                "{}",
                said(&read.stderr)
            );
        }
    }
    assert!(!home.exists());
}
