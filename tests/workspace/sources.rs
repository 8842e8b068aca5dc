//! What sources may contain: who names which foreign library, and how long a file may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

const LINES_MAX: usize = 600;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .to_path_buf()
}

pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return vec![];
    };
    let mut files = vec![];
    for path in entries.map(|entry| entry.expect("a folder reads").path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            files.extend(rust_files(&path));
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files
}

/// True if `text` names a path of `library`: `library::` that is not the end of a longer word.
pub(crate) fn names(text: &str, library: &str) -> bool {
    let path = format!("{}::", library.replace('-', "_"));
    let starts = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    text.match_indices(&path).any(|(at, _)| starts(at))
}

/// Shipped files, relative to the root, that name a library.
fn files_with(library: &str) -> Vec<String> {
    let shipped = rust_files(&root())
        .into_iter()
        .filter(|path| path.components().any(|part| part.as_os_str() == "src"));
    let mut found: Vec<String> = shipped
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| names(&text, library)))
        .map(|path| {
            path.strip_prefix(root())
                .expect("inside the root")
                .display()
                .to_string()
        })
        .collect();
    found.sort();
    found
}

#[test]
fn one_folder_names_the_inference_engine() {
    let found = files_with("ort");
    assert!(found.len() > 1, "{found:?}");
    let elsewhere: Vec<&String> = found
        .iter()
        .filter(|file| !file.starts_with("inference-host/src/onnx/"))
        .collect();
    assert_eq!(elsewhere, Vec::<&String>::new());
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    for file in rust_files(&root()) {
        let lines = fs::read_to_string(&file).expect("a source reads").lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", file.display());
    }
}
