//! Finding the library of ONNX Runtime, and what it calls itself. A missing, foreign or too old one is an error that names it.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

/// Where `scripts/models.sh` puts the library, below the project or one of its folders.
const OWN_FOLDER: &str = ".runtime/onnxruntime";

#[cfg(target_os = "macos")]
const FILE_NAME: &str = "libonnxruntime.dylib";
#[cfg(target_os = "windows")]
const FILE_NAME: &str = "onnxruntime.dll";
#[cfg(not(any(target_os = "macos", target_os = "windows")))]
const FILE_NAME: &str = "libonnxruntime.so";

/// The API that is asked for, and the oldest minor version that has it.
pub(super) const API_MINOR: u32 = ort::MINOR_VERSION;

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error("no ONNX Runtime library: give --onnxruntime or FXN_ONNXRUNTIME, or run scripts/models.sh (looked for {OWN_FOLDER}/{FILE_NAME} in {searched} folders)")]
    NotFound { searched: usize },
    #[error("{path}, given by {given_by}, is not a file, and no folder with {FILE_NAME}")]
    NotAFile { path: PathBuf, given_by: &'static str },
    #[error("{path} is no library that this machine can load: {reason}")]
    NotALibrary { path: PathBuf, reason: String },
    #[error("{path} is a library, but not ONNX Runtime: it does not export OrtGetApiBase")]
    Foreign { path: PathBuf },
    #[error("{path} is ONNX Runtime {found}, this host needs 1.{API_MINOR} or newer: give a newer one by --onnxruntime, or run scripts/models.sh")]
    TooOld { path: PathBuf, found: String },
    #[error("{path} calls itself ONNX Runtime {version}, but does not offer API {API_MINOR}: it is damaged, or a build that this host cannot use")]
    NoApi { path: PathBuf, version: String },
    #[error("failed to start ONNX Runtime from {path}")]
    Start { path: PathBuf, source: ort::Error },
    #[error("failed to read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("this process already runs ONNX Runtime from {loaded}, not {asked}")]
    AlreadyLoaded { loaded: PathBuf, asked: PathBuf },
}

/// The library to load: the one given, `FXN_ONNXRUNTIME`, `ORT_DYLIB_PATH`, or the project's own, looked for in the current directory
/// and the executable's, and in the folders above them.
pub fn find_library(explicit: Option<&Path>) -> Result<PathBuf, LibraryError> {
    let roots = [env::current_dir().ok(), env::current_exe().ok()];
    search(explicit, env::var_os::<&str>, roots.into_iter().flatten())
}

fn search(
    explicit: Option<&Path>,
    variable: impl Fn(&'static str) -> Option<OsString>,
    roots: impl Iterator<Item = PathBuf>,
) -> Result<PathBuf, LibraryError> {
    let named = |name: &'static str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(|value| (name, value.into()))
    };
    let given = explicit.map(|path| ("--onnxruntime", path.to_owned()));
    if let Some((given_by, path)) = given
        .or_else(|| named("FXN_ONNXRUNTIME"))
        .or_else(|| named("ORT_DYLIB_PATH"))
    {
        // What somebody asked for is never silently replaced by something else.
        return match in_folder(&path) {
            Some(library) => Ok(library),
            None => Err(LibraryError::NotAFile { path, given_by }),
        };
    }
    let mut searched = 0_usize;
    for root in roots {
        for folder in root.ancestors() {
            searched = searched.saturating_add(1);
            let candidate = folder.join(OWN_FOLDER).join(FILE_NAME);
            if candidate.is_file() {
                return Ok(candidate);
            }
        }
    }
    Err(LibraryError::NotFound { searched })
}

/// The library that a path means: itself, or the one in a folder, whose name may end with its version as in Python's packages.
fn in_folder(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let names = path.read_dir().ok()?.flatten().map(|entry| entry.path());
    let is_library = |found: &PathBuf| {
        let name = found
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let version = name.strip_prefix(FILE_NAME);
        version.is_some_and(|version| version.is_empty() || version.starts_with('.')) && found.is_file()
    };
    // Without a version first, then the oldest: one answer, whatever order the folder has.
    names.filter(is_library).min()
}

/// The library's version, from the symbol version that its linker script gives every exported name (`VERS_1.31.1`). The API that would
/// tell it is out of reach without unsafe code, and a file name may lie.
pub(super) fn library_version(path: &Path) -> Result<String, LibraryError> {
    let read = |source| LibraryError::Read {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(read)?);
    let mut piece = Vec::new();
    while reader.read_until(b'V', &mut piece).map_err(read)? > 0 {
        if let Some(rest) = piece.strip_prefix(b"ERS_") {
            let digits: Vec<u8> = rest
                .iter()
                .copied()
                .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
                .collect();
            if digits.contains(&b'.') {
                return Ok(String::from_utf8_lossy(&digits).into_owned());
            }
        }
        piece.clear();
    }
    // Some other build: its size at least keeps it apart from the known ones.
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    Ok(format!("unknown-{bytes}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_given_wins_over_variables_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("given.so");
        let own = folder.path().join(OWN_FOLDER).join(FILE_NAME);
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::write(&given, "").unwrap();
        std::fs::write(&own, "").unwrap();
        let roots = || [folder.path().join("below/deep")].into_iter();
        let variable = |wanted: &'static str| {
            let given = given.clone();
            move |name: &'static str| (name == wanted).then(|| given.clone().into_os_string())
        };
        assert_eq!(search(Some(&given), |_| None, roots()).unwrap(), given);
        assert_eq!(search(None, variable("FXN_ONNXRUNTIME"), roots()).unwrap(), given);
        assert_eq!(search(None, variable("ORT_DYLIB_PATH"), roots()).unwrap(), given);
        assert_eq!(search(None, |_| None, roots()).unwrap(), own);
    }

    #[test]
    fn a_folder_stands_for_the_library_in_it_and_not_for_its_providers() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        file("libonnxruntime_providers_cuda.so");
        let found = || search(Some(folder.path()), |_| None, [].into_iter());
        assert!(matches!(found(), Err(LibraryError::NotAFile { .. })));
        file("libonnxruntime.so.1.24.1");
        assert_eq!(found().unwrap(), folder.path().join("libonnxruntime.so.1.24.1"));
        file("libonnxruntime.so");
        assert_eq!(found().unwrap(), folder.path().join("libonnxruntime.so"));
    }

    #[test]
    fn what_was_asked_for_is_never_replaced() {
        let missing = Path::new("nowhere/libonnxruntime.so");
        let found = search(Some(missing), |_| None, [].into_iter());
        assert!(matches!(
            found,
            Err(LibraryError::NotAFile {
                given_by: "--onnxruntime",
                ..
            })
        ));
        assert!(matches!(
            search(None, |_| None, [].into_iter()),
            Err(LibraryError::NotFound { searched: 0 })
        ));
    }

    #[test]
    fn the_version_is_read_out_of_the_symbols() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib.so");
        std::fs::write(&library, b"\x7fELF V VERSION\0VERS_1.22.1\0VV").unwrap();
        assert_eq!(library_version(&library).unwrap(), "1.22.1");
        std::fs::write(&library, b"no version").unwrap();
        assert_eq!(library_version(&library).unwrap(), "unknown-10");
    }
}
