//! Running the program, with limits.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest run of one command, on a machine that builds something at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("FXN_BIN") {
        return binary.into();
    }
    // target/<profile>/deps/refusals-...
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(3).unwrap();
    let built = ["release", "debug"].map(|profile| target.join(profile).join("fxn"));
    let newest = built
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(|path| std::fs::metadata(path).and_then(|file| file.modified()).unwrap());
    newest.expect("there is no fxn to test: `cargo build -p fxn-cli` makes it, or FXN_BIN names it")
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `fxn` with a home, without anybody's settings.
pub(crate) fn fxn(home: &Path) -> Command {
    let mut command = bare(&binary());
    command.arg("--home").arg(home).env("FXN_PASSPHRASE", PASSPHRASE);
    command
}

/// A program without anybody's settings.
pub(crate) fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("FXN_") && variable != "FXN_ONNXRUNTIME" {
            command.env_remove(variable);
        }
    }
    command
        .env_remove("RUST_LOG")
        .env_remove("RUST_BACKTRACE")
        .current_dir(root())
        .stdin(Stdio::null());
    command
}

/// Runs to the end, or fails after the patience.
pub(crate) fn finished(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(command.spawn().unwrap())
}

/// The same with something on stdin.
pub(crate) fn fed(mut command: Command, stdin: &[u8]) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that refuses before it reads closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    ended(child)
}

/// Waits for the end of a child whose output is piped.
pub(crate) fn ended(mut child: Child) -> Output {
    let mut streams = (child.stdout.take(), child.stderr.take());
    let reader = thread::spawn(move || {
        let mut stderr = vec![];
        let errors = streams.1.take().map(|mut stream| {
            thread::spawn(move || {
                let mut bytes = vec![];
                stream.read_to_end(&mut bytes).unwrap();
                bytes
            })
        });
        let mut stdout = vec![];
        if let Some(mut stream) = streams.0.take() {
            stream.read_to_end(&mut stdout).unwrap();
        }
        if let Some(errors) = errors {
            stderr = errors.join().unwrap();
        }
        (stdout, stderr)
    });
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            let (stdout, stderr) = reader.join().unwrap();
            panic!("no end after {PATIENCE:?}: {}{}", said(&stdout), said(&stderr));
        }
        thread::sleep(Duration::from_millis(10));
    };
    let (stdout, stderr) = reader.join().unwrap();
    Output { status, stdout, stderr }
}

pub(crate) fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The one JSON document of a command that succeeded.
pub(crate) fn document(mut command: Command) -> Value {
    command.args(["--output", "json"]);
    let output = finished(command);
    assert!(output.status.success(), "{}: {}", output.status, said(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
}

/// Sends a signal to a child.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string())
        .status();
    assert!(sent.unwrap().success());
}

/// Waits until something is there.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
