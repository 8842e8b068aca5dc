//! Secrets stay where they belong: with logs at their most talkative, everything that the program writes, shows or passes on is searched.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;

use crate::{
    market::{Market, MODEL},
    programs::{bare, binary, ended, fed, finished, root, said, signal, until},
};

const PASSPHRASE: &str = "zq7-unlikely-PASSPHRASE-zq7";

/// A phrase with a valid checksum, from the test vectors of BIP 39.
fn words() -> String {
    format!("{}art", "abandon ".repeat(23))
}

/// What must not be seen, each with its name.
struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// Nothing of them in a text.
    fn absent(&self, place: &str, text: &[u8]) {
        let text = said(text);
        for (name, secret) in &self.0 {
            assert!(!text.contains(secret), "{place} shows {name}");
        }
    }

    /// Nothing of them in the files of a folder, but for what is allowed to be there.
    fn absent_from_files(&self, folder: &Path, allowed: &[(&str, &str)]) {
        for path in files(folder) {
            let content = said(&fs::read(&path).unwrap());
            for (name, secret) in &self.0 {
                let is_allowed = allowed.iter().any(|(file, of)| path.ends_with(file) && of == name);
                assert!(
                    is_allowed || !content.contains(secret),
                    "{} holds {name}",
                    path.display()
                );
            }
        }
    }

    /// Nothing of them in what everybody, or a curious child, can see of a process.
    fn absent_from_process(&self, pid: u32) {
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{pid}/{file}");
            self.absent(&path, &fs::read(&path).unwrap_or_default());
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file() {
            found.push(path);
        }
    }
    found
}

/// The program at its most talkative. The passphrase comes by a private file, so that no environment holds it.
fn talkative(home: &Path, format: &str) -> Command {
    let file = home.join("passphrase.txt");
    if !file.exists() {
        fs::write(&file, format!("{PASSPHRASE}\n")).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let mut command = bare(&binary());
    command.arg("--home").arg(home).arg("--passphrase-file").arg(file);
    command.args(["--log-format", format]).env("RUST_LOG", "trace");
    command
}

#[test]
fn commands_at_their_most_talkative_show_no_secret() {
    let market = Market::open();
    let home = market.path();
    let secret = client::Wallet::from_mnemonic(&words()).unwrap().secret();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let secrets = Secrets(vec![
        ("the words".to_owned(), words()),
        ("the hex key".to_owned(), hex.clone()),
        ("the passphrase".to_owned(), PASSPHRASE.to_owned()),
    ]);
    let imported = {
        let mut command = talkative(home, "text");
        command.args(["keys", "import", "carol"]);
        fed(command, words().as_bytes())
    };
    assert!(imported.status.success(), "{}", said(&imported.stderr));
    let address = market.done(&["keys", "show", "carol"])["address"]
        .as_str()
        .unwrap()
        .to_owned();
    market.done(&["wallet", "send", &address, "20"]);
    market.done(&["wallet", "send", &address, "100000000", "--gas"]);
    let mut outputs = vec![imported];
    for format in ["text", "json"] {
        for arguments in [
            vec!["keys", "show", "carol"],
            vec!["keys", "list"],
            vec!["keys", "new", "carol"],
            vec!["keys", "export", "carol"],
            vec!["wallet", "deposit", "5", "--key", "carol"],
            vec!["wallet", "send", &address, "1", "--key", "carol"],
            vec!["wallet", "deposit", "5000", "--key", "carol"],
            vec!["doctor"],
        ] {
            let mut command = talkative(home, format);
            command.args(&arguments);
            outputs.push(finished(command));
        }
    }
    let told: usize = outputs.iter().map(|output| output.stderr.len()).sum();
    assert!(told > 10_000, "nothing was logged, so nothing was tested");
    for output in &outputs {
        secrets.absent("stdout", &output.stdout);
        secrets.absent("stderr", &output.stderr);
    }
    // Asked for, the secret is on stdout and nowhere else.
    let mut export = talkative(home, "json");
    export.args(["keys", "export", "carol", "--yes"]);
    let exported = finished(export);
    assert_eq!(said(&exported.stdout).trim(), hex);
    secrets.absent("stderr", &exported.stderr);
    let mut made = talkative(home, "json");
    made.args(["keys", "new", "dave", "--output", "json"]);
    let made = finished(made);
    let document: Value = serde_json::from_slice(&made.stdout).unwrap();
    let words = document["mnemonic"].as_str().unwrap().to_owned();
    assert_eq!(words.split(' ').count(), 24);
    assert!(!said(&made.stderr).contains(&words));
    secrets.absent_from_files(home, &[("passphrase.txt", "the passphrase")]);
    Secrets(vec![("new words".to_owned(), words)]).absent_from_files(home, &[]);
}

/// A service and what it has logged so far.
struct Running {
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(vec![]));
        let (mut stream, shared) = (child.stderr.take().unwrap(), Arc::clone(&log));
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                shared.lock().unwrap().extend(&buffer[..read]);
            }
        });
        Self { child, log }
    }

    fn has_said(&self, words: &str) -> Option<()> {
        said(&self.log.lock().unwrap()).contains(words).then_some(())
    }

    fn stop(&mut self) -> Vec<u8> {
        signal(&self.child, "TERM");
        let status = until("the service has stopped", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn services_at_their_most_talkative_show_no_secret_and_log_objects_if_asked_to() {
    let market = Market::with_model();
    let home = market.path();
    // The services' own key, with the passphrase that must not be seen.
    let mut command = talkative(home, "text");
    command.args(["keys", "import", "carol"]);
    assert!(fed(command, words().as_bytes()).status.success());
    let keys = market.done(&["keys", "show", "alice"]);
    let (alice, carol) = (
        keys["address"].as_str().unwrap(),
        market.done(&["keys", "show", "carol"]),
    );
    market.done(&[
        "wallet",
        "send",
        carol["address"].as_str().unwrap(),
        "100000000",
        "--gas",
    ]);
    let folder = home.join("service");
    let service = |arguments: &[&str], format: &str| {
        let mut command = talkative(home, format);
        command.args(arguments).args(["--provider", alice, "--key", "carol"]);
        command.env("FXN_HOST_HOME", &folder).env("FXN_RELAYER_HOME", &folder);
        command
    };
    let mut host = Running::start(service(
        &["host", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0"],
        "json",
    ));
    until("the host is there", || folder.join("host.json").exists().then_some(()));
    let token = fs::read_to_string(folder.join("host.token")).unwrap().trim().to_owned();
    let relaying = [
        "relayer",
        "--relayer-status",
        "127.0.0.1:0",
        "--host-home",
        folder.to_str().unwrap(),
    ];
    let mut relayer = Running::start(service(&relaying, "text"));
    until("the relayer is there", || {
        folder.join("relayer.json").exists().then_some(())
    });
    let secrets = Secrets(vec![
        ("the words".to_owned(), words()),
        ("the passphrase".to_owned(), PASSPHRASE.to_owned()),
        ("the token".to_owned(), token),
    ]);
    for running in [&host, &relayer] {
        secrets.absent_from_process(running.child.id());
    }
    // A job makes the relayer show its token to the host. The host has another engine class than promised and refuses.
    let texts = market.file("texts.txt", b"hello world\n");
    market.done(&["job", "submit", "--model", MODEL, "--input", &texts]);
    // It answers those who show it alone.
    until("the host has answered the relayer", || {
        relayer.has_said("waiting for the host item=1.0.0")
    });
    let (relayed, hosted) = (relayer.stop(), host.stop());
    for (place, log) in [("the relayer's log", &relayed), ("the host's log", &hosted)] {
        assert!(log.len() > 5_000, "{place} is short");
        secrets.absent(place, log);
    }
    secrets.absent_from_files(
        home,
        &[("passphrase.txt", "the passphrase"), ("host.token", "the token")],
    );
    let mut lines = 0;
    for line in said(&hosted).lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no object: {line}"));
        for field in ["timestamp", "level", "target", "fields"] {
            assert!(!object[field].is_null(), "{line}");
        }
        lines += 1;
    }
    assert!(lines > 10);
}

/// Children of a process, by the kernel's table.
fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may hold anything; the parent comes second after its bracket.
        let after = stat
            .rsplit_once(") ")
            .map(|(_, after)| after.to_owned())
            .unwrap_or_default();
        after.split(' ').nth(1).is_some_and(|found| found == parent.to_string())
    };
    pids.filter(is_child).collect()
}

#[test]
fn the_demonstrations_children_do_not_learn_the_callers_passphrase() {
    let home = tempfile::tempdir().unwrap();
    let mut command = bare(&binary());
    command.arg("--home").arg(home.path()).arg("demo").current_dir(root());
    command
        .env("FXN_PASSPHRASE", PASSPHRASE)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let secrets = Secrets(vec![("the passphrase".to_owned(), PASSPHRASE.to_owned())]);
    let pid = child.id();
    let devnet = until("the demonstration has a child at work", || {
        let children = children_of(pid);
        let ready =
            |child: &u32| said(&fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default()).contains("devnet");
        children.into_iter().find(ready)
    });
    let environment = said(&fs::read(format!("/proc/{devnet}/environ")).unwrap());
    assert!(environment.contains("FXN_STOP_WITH_STDIN"), "this is its environment");
    secrets.absent_from_process(devnet);
    signal(&child, "INT");
    let output = ended(child);
    secrets.absent("stderr", &output.stderr);
    secrets.absent_from_files(home.path(), &[]);
}
