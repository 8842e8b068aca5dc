//! Leaving while something takes its time.

use std::{
    io::Read,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    market::{Market, MODEL},
    programs::{ended, said, signal, until},
    table::faults,
};

/// Longest way out, on a machine that builds something at the same time.
const EXIT: Duration = Duration::from_secs(20);

#[test]
fn an_interrupted_wait_ends_at_once_and_tells_the_job_that_goes_on() {
    let market = Market::with_model();
    let texts = market.file("texts.txt", b"hello world\n");
    for (arguments, job) in [
        (["embed", "--model", MODEL, &texts], "1"),
        (["job", "watch", "1", "--output=text"], "1"),
    ] {
        let mut command = market.fxn(&arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        until("the job is on chain", || {
            let jobs = market.done(&["job", "list"]);
            (jobs[0]["job"] == 1).then_some(())
        });
        // Its own look at the job comes a moment later than ours.
        std::thread::sleep(Duration::from_secs(3));
        signal(&child, "INT");
        let since = Instant::now();
        let output = ended(child);
        assert!(since.elapsed() < EXIT, "{:?}", since.elapsed());
        let says = [format!("job {job} goes on"), format!("`fxn job result {job}`")];
        assert_eq!(
            faults(&output, &says, 1),
            Vec::<String>::new(),
            "{}",
            said(&output.stderr)
        );
    }
    let job = market.done(&["job", "show", "1"]);
    assert!(job["status"] == "running" || job["status"] == "incomplete", "{job}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let market = Market::open();
    for arguments in [&["completions", "bash"][..], &["wallet", "money"], &["--help"]] {
        let mut command = market.fxn(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut first = [0];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = ended(child);
        assert!(!said(&output.stderr).contains("panicked"), "{}", said(&output.stderr));
        assert_eq!(said(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn a_service_that_is_told_to_stop_before_it_runs_stops() {
    let market = Market::open();
    let network = market.network("down.json", |network| network["rpc"] = "http://127.0.0.1:1".into());
    let mut command = market.fxn(&["relayer", "--network", &network, "--relayer-status", "127.0.0.1:0"]);
    command
        .env("RUST_LOG", "relayer=debug")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = [0; 64];
    let read = child.stderr.as_mut().unwrap().read(&mut line).unwrap();
    assert!(read > 0, "it waits for the node");
    signal(&child, "INT");
    let since = Instant::now();
    let output = ended(child);
    assert!(since.elapsed() < EXIT && output.status.success(), "{}", output.status);
}
