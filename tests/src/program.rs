//! `fxn` itself, for the suites that run it as people do.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The root of the repository.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the workspace").to_owned()
}

/// The program under test: what `FXN_BIN` names, else the newest `fxn` of this target folder.
pub fn binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("FXN_BIN") {
        return binary.into();
    }
    let own = std::env::current_exe().expect("a running test has a file");
    // target/<profile>/deps/<test>-...
    let target = own.ancestors().nth(3).expect("a test lies in its target folder");
    let built = ["release", "debug"].map(|profile| target.join(profile).join("fxn"));
    let newest = built
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok());
    newest.expect("there is no fxn to test: `cargo build -p fxn-cli` makes it, or FXN_BIN names it")
}

/// `fxn` with a home, without anybody's settings.
pub fn fxn(home: &Path) -> Command {
    let mut command = clean(Command::new(binary()));
    command.arg("--home").arg(home);
    command
}

/// A command without anybody's settings, in the folder from which the library and the models are found.
pub fn clean(mut command: Command) -> Command {
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("FXN_") && variable != "FXN_ONNXRUNTIME" {
            command.env_remove(variable);
        }
    }
    command.current_dir(root());
    command
}
