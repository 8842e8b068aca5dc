//! `fxn deploy`, as a person runs it: a home with a development account's key, and a network file that comes of it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use client::{Client, Network, Wallet};
use serde_json::Value;
use tempfile::TempDir;

use crate::program::fxn;

/// Of every key of it.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// A home with one key.
#[derive(Debug)]
pub struct Deployer {
    home: TempDir,
    pub key: String,
}

impl Deployer {
    /// With the key of a development account.
    pub fn named(name: &str) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let key = name.to_owned();
        let deployer = Self { home, key };
        deployer.takes_in(name);
        deployer
    }

    /// Has one more key: what `Wallet::dev` gives for this name.
    pub fn takes_in(&self, name: &str) {
        let mut import = self.fxn(&["keys", "import", name, "--hex"]);
        let mut child = import
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("fxn runs");
        let secret = hex::encode(Wallet::dev(name).secret().as_slice());
        let mut stdin = child.stdin.take().expect("it reads the secret");
        stdin.write_all(secret.as_bytes()).expect("it takes the secret");
        drop(stdin);
        assert!(child.wait().expect("it ends").success(), "the key is imported");
    }

    /// A command in this home that can open its keys.
    pub fn fxn(&self, words: &[&str]) -> Command {
        let mut command = fxn(self.home.path());
        command.args(words).env("FXN_PASSPHRASE", PASSPHRASE);
        command
    }

    /// Runs a command that has to succeed.
    pub fn runs(&self, words: &[&str]) {
        let output = self.fxn(words).stdin(Stdio::null()).output().expect("fxn runs");
        assert!(output.status.success(), "{words:?}: {}", said(&output));
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where its network file is written.
    pub fn out(&self) -> PathBuf {
        self.home.path().join("network.json")
    }

    /// What a half-done deployment leaves.
    pub fn journal(&self) -> PathBuf {
        self.home.path().join("network.json.partial")
    }

    /// The command with its usual arguments and these.
    pub fn command(&self, rpc: &str, artifacts: &Path, further: &[&str]) -> Command {
        let mut command = self.fxn(&["deploy", "--rpc", rpc, "--key", &self.key, "--profile", "local"]);
        command.arg("--artifacts").arg(artifacts).args(further);
        command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        command
    }

    /// Runs it and reads its one JSON document.
    pub fn deploys(&self, rpc: &str, artifacts: &Path, further: &[&str]) -> Value {
        let mut command = self.command(rpc, artifacts, further);
        let output = command.args(["--output", "json"]).output().expect("fxn runs");
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
    }

    /// What it says instead of deploying.
    pub fn refusal(&self, rpc: &str, artifacts: &Path, further: &[&str]) -> String {
        let output = self.command(rpc, artifacts, further).output().expect("fxn runs");
        let told = said(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        told
    }

    /// A client of what was deployed.
    pub async fn client(&self) -> Client {
        let network = Network::load(&self.out()).expect("the network file reads");
        Client::connect(network).await.expect("the node answers")
    }
}

/// The last line of stderr: the refusal, after the progress of what went well.
pub fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().last().unwrap_or_default().to_owned()
}
