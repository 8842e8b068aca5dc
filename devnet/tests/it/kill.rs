//! A devnet process that is killed in the middle of its work has lost nothing that it had told anybody.

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use client::{Account, Client, TxHash, Wallet};
use rand::{rngs::StdRng, Rng, SeedableRng};

use crate::{
    probe::{instantiation, network, resume_as, Do, PROBE},
    raw::{broadcast, Raw},
    state::config,
};

const FOLDER: &str = "FXN_DEVNET_KILL_FOLDER";
const MINUTE: Duration = Duration::from_secs(60);

/// Not a test of its own: the process that the test below kills. Without a folder it has nothing to do.
#[tokio::test]
async fn a_process_to_be_killed() {
    let Ok(folder) = env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let chain = resume_as(config(&folder.join("state"))).await.unwrap();
    fs::write(folder.join("url.new"), chain.url()).unwrap();
    fs::rename(folder.join("url.new"), folder.join("url")).unwrap();
    std::future::pending::<()>().await;
}

/// Killed when the test ends, however it ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn start(folder: &Path) -> (Process, Client) {
    let _ = fs::remove_file(folder.join("url"));
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["kill::a_process_to_be_killed", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let process = Process(command.spawn().unwrap());
    let begun = Instant::now();
    loop {
        if let Ok(url) = fs::read_to_string(folder.join("url")) {
            return (process, Client::connect(network(&url)).await.unwrap());
        }
        assert!(begun.elapsed() < MINUTE, "the process does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends without end and collects what was told to be in a block.
async fn load(client: Client, name: &'static str, confirmed: tokio::sync::mpsc::UnboundedSender<(TxHash, u64)>) {
    let url = client.network().rpc.clone();
    let mut raw = Raw::new(&client, name).await;
    loop {
        let mut hashes = vec![];
        for amount in 0..5 {
            let message = raw.call(&Do::Announce { amount }, 0);
            let tx = raw.sign(vec![message]);
            assert_eq!(broadcast(&url, &tx).await["code"], 0);
            hashes.push(TxHash::of(&tx));
        }
        for hash in hashes {
            let height = loop {
                match client.tx(hash).await.unwrap() {
                    Some(outcome) => break outcome.height,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            };
            confirmed.send((hash, height)).unwrap();
        }
    }
}

#[tokio::test]
async fn every_transaction_that_was_told_to_be_in_a_block_is_there_after_a_kill() {
    let slow = env::var("FXN_SLOW").is_ok_and(|slow| slow == "1");
    let seed = env::var("FXN_SEED").map_or(11, |seed| seed.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for round in 0..if slow { 60 } else { 4 } {
        let (mut process, client) = start(folder.path()).await;
        if round == 0 {
            let admin = Account::new(client.clone(), Wallet::dev("admin"));
            admin.execute(&[instantiation()]).await.unwrap();
        }
        // The clients die with the node: that is not what is tested.
        let tasks: Vec<_> = ["developer", "creator", "provider-1"]
            .map(|name| tokio::spawn(load(client.clone(), name, sender.clone())))
            .into();
        let more = random.gen_range(1..60);
        let received = async {
            let mut told = vec![];
            while told.len() < more {
                told.push(receiver.recv().await.unwrap());
            }
            told
        };
        let mut told = tokio::time::timeout(MINUTE, received)
            .await
            .expect("nothing is confirmed");
        tokio::time::sleep(Duration::from_micros(random.gen_range(0..60_000))).await;
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        for task in tasks {
            let _ = task.await;
        }
        while let Ok(more) = receiver.try_recv() {
            told.push(more);
        }
        let chain = resume_as(config(&folder.path().join("state"))).await.unwrap();
        for (hash, height) in told {
            let found = chain.client.tx(hash).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("{hash} is lost, FXN_SEED={seed}"));
            assert_eq!(found.height, height);
        }
        assert!(chain.client.contract_info(PROBE).await.is_ok());
        chain.running.shutdown().await;
    }
}
