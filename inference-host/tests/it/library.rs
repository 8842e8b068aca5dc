//! Libraries that are not the ONNX Runtime that a host needs. Each gets its own sentence; a process can load one library only, so every case
//! has a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use inference_host::onnx::OnnxRuntime;

const LIBRARY: &str = "FXN_TEST_LIBRARY";

#[test]
fn this_test_loads_a_library_when_its_environment_says_so() {
    let Ok(path) = std::env::var(LIBRARY) else { return };
    match OnnxRuntime::load(Path::new(&path)) {
        Ok(_) => println!("SAID: it was loaded"),
        Err(error) => println!("SAID: {error}"),
    }
}

/// What a host says about a library.
fn said(path: &Path) -> String {
    let name = "library::this_test_loads_a_library_when_its_environment_says_so";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(LIBRARY, path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().find_map(|line| line.split_once("SAID: "));
    said.map(|(_, said)| said.to_owned())
        .unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// Builds a library that answers as ONNX Runtime does: with a version, and with no API for anybody.
fn build(folder: &Path, name: &str, symbol: &str, version: &str) -> PathBuf {
    let source = format!(
        r#"
use std::ffi::{{c_char, c_void}};
#[repr(C)]
pub struct Base {{
    get_api: extern "C" fn(u32) -> *const c_void,
    get_version: extern "C" fn() -> *const c_char,
}}
extern "C" fn get_api(_: u32) -> *const c_void {{ std::ptr::null() }}
extern "C" fn get_version() -> *const c_char {{ c"{version}".as_ptr() }}
static BASE: Base = Base {{ get_api, get_version }};
#[unsafe(no_mangle)]
pub extern "C" fn {symbol}() -> *const Base {{ &BASE }}
"#
    );
    let (file, library) = (folder.join(format!("{name}.rs")), folder.join(format!("lib{name}.so")));
    fs::write(&file, source).unwrap();
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let built = Command::new(compiler)
        .args(["--edition", "2021", "--crate-type", "cdylib", "-C", "panic=abort", "-o"])
        .args([&library, &file])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

#[test]
fn a_library_that_is_missing_foreign_damaged_or_too_old_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let text = folder.join("text.so");
    fs::write(&text, "#!/bin/sh\necho not a library\n").unwrap();
    let empty = folder.join("empty.so");
    fs::write(&empty, "").unwrap();
    let foreign = build(folder, "foreign", "SomethingElse", "1.31.1");
    let cases = [
        (folder.join("missing.so"), "failed to read ", "missing.so"),
        (folder.to_owned(), "failed to read ", ""),
        (text, "", "text.so is no library that this machine can load"),
        (empty, "", "empty.so is no library that this machine can load"),
        (
            foreign,
            "",
            "libforeign.so is a library, but not ONNX Runtime: it does not export OrtGetApiBase",
        ),
        (
            build(folder, "old", "OrtGetApiBase", "1.10.0"),
            "",
            "libold.so is ONNX Runtime 1.10.0, this host needs 1.22 or newer",
        ),
        (
            build(folder, "hollow", "OrtGetApiBase", "1.31.1"),
            "",
            "but does not offer API 22: it is damaged",
        ),
    ];
    for (path, begins, contains) in cases {
        let said = said(&path);
        assert!(
            said.starts_with(begins) && said.contains(contains),
            "{}: {said}",
            path.display()
        );
    }
}
