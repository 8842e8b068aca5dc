//! Files, ports, folders and settings that cannot be used.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{symlink, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    market::{Market, MODEL},
    programs::{bare, binary, ended, fed, finished, fxn, root, said, PASSPHRASE},
    table::{check, faults, misused, refused},
};

#[test]
fn a_file_that_holds_no_texts_is_refused_and_nothing_is_spent() {
    let market = Market::with_model();
    let before = market.money();
    let many: Vec<u8> = b"hello\n".repeat(400_000);
    let files: Vec<(String, Vec<&str>)> = vec![
        (market.file("empty", b""), vec!["the input is empty"]),
        (market.file("array", b"[]"), vec!["the input is empty"]),
        (
            market.file("mixed", br#"["a", 5]"#),
            vec!["element 2 of the JSON array"],
        ),
        (
            market.file("line", &[b'a'; 10_000_000]),
            vec!["text 1 has 10000000 bytes", "nothing was spent"],
        ),
        (
            market.file("latin", b"good\ncaf\xe9\n"),
            vec!["line 2 is not valid UTF-8"],
        ),
        (
            market.file("binary", &[0x7f, b'E', b'L', b'F', 0xff, 0, 1]),
            vec!["not valid UTF-8"],
        ),
        (
            market.file("huge", &vec![b'a'; (64 << 20) + 1]),
            vec!["more than 64 MiB"],
        ),
        (market.file("many", &many), vec!["runs of one job"]),
        ("/nonexistent.txt".to_owned(), vec!["/nonexistent.txt", "No such file"]),
        (market.path().display().to_string(), vec!["directory"]),
    ];
    let mut mistakes = vec![];
    for (file, says) in &files {
        mistakes.push(refused(
            market.fxn(&["job", "submit", "--model", MODEL, "--input", file]),
            says,
        ));
        // Many texts are many jobs for `embed`, which then has no fault to find.
        if !file.ends_with("many") {
            mistakes.push(refused(market.fxn(&["embed", "--model", MODEL, file]), says));
        }
    }
    // The same on stdin.
    mistakes.push(refused(
        market.fxn(&["embed", "--model", MODEL, "-"]),
        &["the input is empty"],
    ));
    check(mistakes);
    let output = fed(market.fxn(&["embed", "--model", MODEL]), b"\xff\xfe");
    assert_eq!(
        faults(&output, &["line 1 is not valid UTF-8".to_owned()], 1),
        Vec::<String>::new()
    );
    let mut closed = shell(market.path(), "exec \"$0\" \"$@\" <&-");
    closed.args(["embed", "--model", MODEL]);
    let output = finished(closed);
    assert_eq!(
        faults(&output, &["fxn: ".to_owned()], 1),
        Vec::<String>::new(),
        "{}",
        said(&output.stderr)
    );
    assert_eq!(market.money(), before);
}

/// `fxn` started by a shell that first changes something. The words that follow are its arguments.
fn shell(home: &Path, script: &str) -> Command {
    let mut command = bare(Path::new("/bin/sh"));
    command.arg("-c").arg(script).arg(binary()).arg("--home").arg(home);
    command.env("FXN_PASSPHRASE", PASSPHRASE);
    command
}

#[test]
fn a_full_disk_is_told_and_leaves_no_half_key() {
    let home = tempfile::tempdir().unwrap();
    // A limit of zero bytes a file is a disk without room; the signal that comes with it is for programs that do not look.
    let mut command = shell(home.path(), "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"");
    command.args(["keys", "new", "alice"]);
    let output = finished(command);
    assert_eq!(
        faults(&output, &["keys".to_owned()], 1),
        Vec::<String>::new(),
        "{}",
        said(&output.stderr)
    );
    assert_eq!(fs::read_dir(home.path().join("keys")).unwrap().count(), 0);

    let mut command = shell(home.path(), "exec \"$0\" \"$@\" > /dev/full");
    command.args(["keys", "list"]);
    let output = finished(command);
    let says = ["stdout".to_owned(), "No space left".to_owned()];
    assert_eq!(
        faults(&output, &says, 1),
        Vec::<String>::new(),
        "{}",
        said(&output.stderr)
    );

    // Where not even the refusal can be told, the exit code still is.
    let mut command = shell(home.path(), "exec \"$0\" \"$@\" 2> /dev/full");
    command.args(["keys", "show", "nobody"]);
    assert_eq!(finished(command).status.code(), Some(1));
}

#[test]
fn keys_that_are_missing_taken_wrong_or_hostile_are_refused_and_stay_as_they_are() {
    let home = tempfile::tempdir().unwrap();
    let keys = home.path().join("keys");
    let alice = |arguments: &[&str]| {
        let mut command = fxn(home.path());
        command.args(arguments);
        command
    };
    assert!(finished(alice(&["keys", "new", "alice"])).status.success());
    let whole = fs::read(keys.join("alice.json")).unwrap();
    let changed = |from: &str, to: &str| String::from_utf8(whole.clone()).unwrap().replace(from, to).into_bytes();
    let bad: [(&str, Vec<u8>, &str); 7] = [
        ("half", whole[..whole.len() / 2].to_vec(), "EOF"),
        ("empty", vec![], "EOF"),
        ("text", b"passphrase".to_vec(), "expected value"),
        ("future", changed("\"format\": 1", "\"format\": 2"), "format 2"),
        (
            "greedy",
            changed("\"memory_kib\": 65536", "\"memory_kib\": 67108864"),
            "67108864 KiB",
        ),
        ("weak", changed("\"memory_kib\": 65536", "\"memory_kib\": 0"), "0 KiB"),
        ("long", vec![b' '; 1 << 20], "16384 bytes"),
    ];
    for (name, content, _) in &bad {
        fs::write(keys.join(format!("{name}.json")), content).unwrap();
    }
    fs::create_dir(keys.join("folder.json")).unwrap();
    symlink(home.path().join("elsewhere"), keys.join("link.json")).unwrap();
    let mut mistakes = vec![
        refused(
            alice(&["keys", "show", "carol"]),
            &["there is no key \"carol\"", "`fxn keys list`"],
        ),
        refused(
            alice(&["keys", "export", "carol", "--yes"]),
            &["there is no key \"carol\""],
        ),
        refused(alice(&["keys", "export", "alice"]), &["say --yes"]),
        refused(alice(&["keys", "show", "folder"]), &["not a regular file"]),
        misused(alice(&["keys", "new", "../evil"]), &["no name of a key"]),
        misused(alice(&["keys", "new", "A b"]), &["no name of a key"]),
        misused(alice(&["keys", "new", &"a".repeat(65)]), &["no name of a key"]),
        misused(alice(&["keys", "new", "a\u{1b}[31m"]), &["no name of a key"]),
    ];
    for name in ["alice", "folder", "link"] {
        mistakes.push(refused(
            alice(&["keys", "new", name]),
            &["exists already", "never overwritten", "another name"],
        ));
        mistakes.push(refused(alice(&["keys", "import", name]), &["exists already"]));
    }
    for (name, _, says) in &bad {
        mistakes.push(refused(alice(&["keys", "show", name]), &[says, "left as it is"]));
        mistakes.push(refused(alice(&["keys", "export", name, "--yes"]), &[says]));
    }
    for wrong in ["wrong", "", PASSPHRASE.trim_end_matches('e')] {
        let mut command = alice(&["keys", "export", "alice", "--yes"]);
        command.env("FXN_PASSPHRASE", wrong);
        mistakes.push(refused(command, &["the passphrase does not open", "alice.json"]));
    }
    let mut unasked = alice(&["keys", "export", "alice", "--yes"]);
    unasked.env_remove("FXN_PASSPHRASE");
    mistakes.push(refused(unasked, &["nobody can be asked", "--passphrase-file"]));
    let open = home.path().join("open.txt");
    fs::write(&open, PASSPHRASE).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let open = open.display().to_string();
    mistakes.push(refused(
        alice(&["keys", "new", "dave", "--passphrase-file", &open]),
        &["every account", "chmod 600"],
    ));
    mistakes.push(refused(
        alice(&["keys", "import", "dave", "--file", &open]),
        &["chmod 600"],
    ));
    mistakes.push(refused(
        alice(&["keys", "import", "dave", "--dev"]),
        &["no development account", "faucet", "provider-1"],
    ));
    mistakes.push(misused(
        alice(&["keys", "import", "faucet", "--dev", "--hex"]),
        &["--hex"],
    ));
    check(mistakes);
    for (stdin, hex, says) in [
        (&b""[..], false, "0 words"),
        (b"abandon abandon", false, "2 words"),
        (&b"word ".repeat(24), false, "24 words"),
        (b"\xff", false, "stdin"),
        (b"zz", true, "64 hex digits"),
        (&b"00".repeat(32), true, "secp256k1"),
    ] {
        let mut command = alice(&["keys", "import", "erin"]);
        command.args(hex.then_some("--hex"));
        let output = fed(command, stdin);
        assert_eq!(
            faults(&output, &[says.to_owned()], 1),
            Vec::<String>::new(),
            "{}",
            said(&output.stderr)
        );
    }
    for (name, content, _) in &bad {
        assert_eq!(&fs::read(keys.join(format!("{name}.json"))).unwrap(), content, "{name}");
    }
    assert_eq!(fs::read(keys.join("alice.json")).unwrap(), whole);
    assert!(!home.path().join("elsewhere").exists() && !keys.join("dave.json").exists());
}

#[test]
fn key_files_are_private_whatever_the_umask_and_two_at_once_never_mix() {
    let home = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = shell(home.path(), "umask 000; exec \"$0\" \"$@\"");
        command
            .args(["keys", "new", "alice"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    let outputs: Vec<_> = children.into_iter().map(ended).collect();
    let made: Vec<_> = outputs.iter().filter(|output| output.status.success()).collect();
    assert_eq!(made.len(), 1);
    let told = said(&made[0].stdout);
    let shown = finished({
        let mut command = fxn(home.path());
        command.args(["keys", "show", "alice"]);
        command
    });
    let public_key = |text: &str| {
        text.lines()
            .find(|line| line.starts_with("public key"))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        public_key(&told),
        public_key(&said(&shown.stdout)),
        "the words that were shown belong to the key that stayed"
    );
    let keys = home.path().join("keys");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&keys), mode(&keys.join("alice.json"))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&keys).unwrap().count(), 1);
}

#[test]
fn ports_folders_and_settings_that_cannot_be_used_are_named() {
    let market = Market::open();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let fxn = |arguments: &[&str]| market.fxn(arguments);
    let bundle = market.bundle().display().to_string();
    let other = market.path().join("other.json").display().to_string();
    let in_use = [taken.as_str(), "use"];
    let config = |name: &str, text: &str| market.file(name, text.as_bytes());
    let (unknown, kind, broken) = (
        config("unknown.toml", "foo = 1\n"),
        config("kind.toml", "threads = \"x\"\nitems_max = \"x\"\nblock_time = 5\n"),
        config("broken.toml", "threads = = 1\n"),
    );
    let mut mistakes = vec![
        refused(fxn(&["devnet", "--rpc", &taken, "--network", &other]), &in_use),
        refused(fxn(&["model", "serve", &bundle, "--listen", &taken]), &in_use),
        refused(fxn(&["relayer", "--relayer-status", &taken]), &in_use),
        refused(fxn(&["host", "--listen", &taken, "--status", "127.0.0.1:0"]), &in_use),
        refused(fxn(&["host", "--listen", "127.0.0.1:0", "--status", &taken]), &in_use),
        refused(fxn(&["host", "--provider", "wasm1x"]), &["a letter is wrong"]),
        refused(
            fxn(&["provider", "run"]),
            &["is not a provider", "`fxn provider register`"],
        ),
        refused(
            fxn(&[
                "devnet",
                "--rpc",
                "127.0.0.1:0",
                "--network",
                &other,
                "--block-time",
                "0s",
            ]),
            &["at least 10 ms"],
        ),
        misused(fxn(&["devnet", "--rpc", "nonsense"]), &["nonsense"]),
        misused(fxn(&["model", "list", "--log-format", "xml"]), &["xml", "json"]),
        misused(fxn(&["model", "list", "--output", "xml"]), &["xml"]),
        refused(fxn(&["model", "serve", "/nonexistent"]), &["is no bundle"]),
    ];
    for service in ["devnet", "host", "relayer"] {
        let with = |file: &str| {
            let mut command = fxn(&[service, "--config", file, "--network"]);
            command.arg(market.path().join("network.json"));
            command
        };
        mistakes.extend([
            refused(with(&unknown), &["unknown field `foo`", service]),
            refused(with(&kind), &[service]),
            refused(with(&broken), &["broken.toml", "line 1"]),
            refused(with("/nonexistent.toml"), &["/nonexistent.toml"]),
        ]);
        let mut command = fxn(&[service]);
        command.env(format!("FXN_{}_NONSENSE", service.to_uppercase()), "1");
        mistakes.push(refused(command, &["unknown field `nonsense`"]));
    }
    for (variable, value, service, says) in [
        ("FXN_HOST_THREADS", "many", "host", "whole number"),
        ("FXN_HOST_LISTEN", "here", "host", "listen"),
        ("FXN_RELAYER_ITEMS_MAX", "0", "relayer", "1 to 4096"),
        ("FXN_DEVNET_BLOCK_TIME", "soon", "devnet", "block_time"),
        ("RUST_LOG", "a=b=c", "relayer", "RUST_LOG"),
    ] {
        let mut command = fxn(&[service]);
        command.env(variable, value);
        mistakes.push(refused(command, &[says]));
    }
    for home in [
        "/proc/nothing",
        "/dev/null",
        &market.path().join("network.json").display().to_string(),
    ] {
        let mut command = bare(&binary());
        command.args(["--home", home, "keys", "list"]);
        mistakes.push(refused(command, &[home, "--home DIR"]));
    }
    check(mistakes);
}

#[test]
fn an_inference_library_that_cannot_be_used_is_named() {
    let home = tempfile::tempdir().unwrap();
    let text = home.path().join("text.so");
    fs::write(&text, "not a library").unwrap();
    let old = old_library(home.path());
    let foreign = foreign_library(home.path());
    let command = |library: &Path| {
        let mut command = fxn(home.path());
        command
            .args(["model", "split", "--stages", "1", "--onnxruntime"])
            .arg(library)
            .arg(root())
            .arg(home.path().join("b"));
        command
    };
    let mut missing = fxn(home.path());
    let out = home.path().join("b");
    missing.args(["model", "split", "--stages", "1"]).arg(root()).arg(&out);
    missing.env("FXN_ONNXRUNTIME", "/nonexistent.so");
    check(vec![
        refused(missing, &["/nonexistent.so", "FXN_ONNXRUNTIME"]),
        refused(
            command(Path::new("/nonexistent.so")),
            &["/nonexistent.so", "--onnxruntime"],
        ),
        refused(command(&text), &["text.so"]),
        refused(command(&foreign), &["foreign.so"]),
        refused(command(&old), &["1.17.0", "22"]),
    ]);
}

/// A library that says that it is ONNX Runtime 1.17.0, and can nothing.
pub(crate) fn old_library(folder: &Path) -> std::path::PathBuf {
    library(
        folder,
        "old",
        r#"
        #[repr(C)] pub struct Base { get_api: extern "C" fn(u32) -> *const u8, version: extern "C" fn() -> *const u8 }
        extern "C" fn get_api(_: u32) -> *const u8 { std::ptr::null() }
        extern "C" fn version() -> *const u8 { b"1.17.0\0".as_ptr() }
        static BASE: Base = Base { get_api, version };
        #[no_mangle] pub extern "C" fn OrtGetApiBase() -> *const Base { &BASE }
        "#,
    )
}

fn foreign_library(folder: &Path) -> std::path::PathBuf {
    library(
        folder,
        "foreign",
        "#[no_mangle] pub extern \"C\" fn something_else() {}",
    )
}

fn library(folder: &Path, name: &str, source: &str) -> std::path::PathBuf {
    let (file, library) = (folder.join(format!("{name}.rs")), folder.join(format!("{name}.so")));
    fs::write(&file, source).unwrap();
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args(["--edition", "2021", "--crate-type", "cdylib", "-o"])
        .arg(&library)
        .arg(&file)
        .current_dir(root());
    assert!(rustc.status().unwrap().success());
    library
}
