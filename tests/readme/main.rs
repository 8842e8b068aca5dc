//! README.md as a newcomer follows it: the commands of four of its sections, in one shell, as they stand there. Only the folder of the chain
//! and its ports are others, so that nobody's own chain is touched.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped fails its story")]

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fxn_tests::{
    localnet::free_place,
    program::{binary, clean, root},
};

const SECTIONS: [&str; 4] = [
    "Deploy to local wasmd",
    "Run an inference host",
    "Query with cosmrs",
    "Simulate",
];
/// The folder and the port that the README names.
const FOLDER: &str = ".runtime/localnet";
const PORT: &str = "26700";
/// All of it on a machine that has built nothing yet.
const PATIENCE: Duration = Duration::from_secs(45 * 60);

/// The shell blocks of a section.
fn commands(readme: &str, section: &str) -> String {
    let (_, rest) = readme
        .split_once(&format!("\n## {section}\n"))
        .unwrap_or_else(|| panic!("README.md has no section {section:?}"));
    let text = rest.split("\n## ").next().unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|block| {
        let (block, _) = block.split_once("\n```").expect("a block ends");
        block
    });
    let commands = blocks.collect::<Vec<_>>().join("\n");
    assert!(!commands.trim().is_empty(), "section {section:?} has no commands");
    commands
}

fn script(readme: &str, folder: &Path, port: u16) -> String {
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for section in SECTIONS {
        script += &format!("echo '## {section}'\n{}\n", commands(readme, section));
    }
    assert!(script.contains(FOLDER) && script.contains(PORT));
    let folder = folder.display().to_string();
    script
        .replace(&format!("$PWD/{FOLDER}"), &folder)
        .replace(FOLDER, &folder)
        .replace(PORT, &port.to_string())
}

/// Ends the chain whatever became of the story.
struct Chain<'a>(&'a Path);

impl Drop for Chain<'_> {
    fn drop(&mut self) {
        let stop = clean(Command::new(root().join("scripts/localnet.sh")))
            .args(["stop", "--home"])
            .arg(self.0)
            .status();
        assert!(std::thread::panicking() || stop.is_ok_and(|status| status.success()));
    }
}

#[test]
fn the_readme_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let chain = folder.path().join("localnet");
    fs::create_dir(&chain).unwrap();
    let port = free_place();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let said = folder.path().join("said");
    let told = File::create(&said).unwrap();
    let path = std::env::var("PATH").unwrap();
    let program = binary();
    let mut shell = clean(Command::new("bash"));
    shell
        .args(["-c", &script(&readme, &chain, port)])
        .env("PATH", format!("{}:{path}", program.parent().unwrap().display()))
        .env("FXN_HOME", folder.path().join("home"))
        .env("FXN_LOCALNET_HOME", &chain)
        .env("FXN_LOCALNET_BASE_PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(told.try_clone().unwrap())
        .stderr(told)
        .process_group(0);
    let _chain = Chain(&chain);
    let mut shell = shell.spawn().unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = shell.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            shell.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let said = fs::read_to_string(said).unwrap();
    assert!(status.success(), "{status} after {:?}: {said}", began.elapsed());
    for expected in [
        "every amount was recomputed from chain data and adds up",
        "models on fxn-localnet-1",
        "acme/minilm",
        "test result: ok",
    ] {
        assert!(said.contains(expected), "nothing said {expected:?}: {said}");
    }
}

#[test]
fn blocks_are_found_and_a_missing_section_is_told() {
    let readme = "\n## A\ntext\n```sh\none\ntwo\n```\nmore\n```sh\nthree\n```\n## B\n```sh\nno\n```\n";
    assert_eq!(commands(readme, "A"), "one\ntwo\nthree");
    assert!(std::panic::catch_unwind(|| commands(readme, "C")).is_err());
}
