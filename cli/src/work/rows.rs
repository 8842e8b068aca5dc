//! The rows of a job out of files, as its endpoint says: texts, or one safetensors file a row.
//!
//! Guarantees: the order is that of the arguments, and of names inside a folder; what cannot ride in a job is refused by its name and size
//! before it is read.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure, Context as _};
use inference_host::request::Format;
use schema::INLINE_BYTES_MAX;

use super::texts;

/// What a row file is called in a folder.
const EXTENSION: &str = "safetensors";
/// Most row files of one command: as many of the smallest as a job can carry.
const FILES_MAX: usize = 8_192;

/// A row and what to call it when something is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Texts as rows.
pub(crate) fn of_texts(texts: &[String]) -> Vec<Row> {
    let row = |(text, number): (&String, usize)| Row {
        name: format!("text {number}"),
        bytes: text.as_bytes().to_vec(),
    };
    texts.iter().zip(1..).map(row).collect()
}

/// The rows of files, or of stdin for `-`. Those of tensors may also lie in a folder.
pub(crate) fn read(format: Format, paths: &[PathBuf]) -> anyhow::Result<Vec<Row>> {
    match format {
        Format::Text => {
            let mut all = vec![];
            for path in paths {
                all.extend(texts::read(path).with_context(|| path.display().to_string())?);
            }
            Ok(of_texts(&all))
        }
        Format::Tensors => {
            let row = |path: &PathBuf| {
                let name = path.display().to_string();
                let bytes = read_file(path, INLINE_BYTES_MAX, "can ride in a job; nothing was spent")?;
                Ok(Row { name, bytes })
            };
            row_files(paths)?.iter().map(row).collect()
        }
    }
}

/// The row files among these paths and in these folders.
pub(crate) fn row_files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = vec![];
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = vec![];
        let failed = || format!("failed to read the folder {}", path.display());
        for entry in fs::read_dir(path).with_context(failed)? {
            let entry = entry.with_context(failed)?.path();
            if is_row_file(&entry) {
                inside.push(entry);
            }
            ensure!(
                inside.len() <= FILES_MAX,
                "{} has more than {FILES_MAX} row files",
                path.display()
            );
        }
        ensure!(!inside.is_empty(), "{} has no .{EXTENSION} file", path.display());
        inside.sort();
        files.extend(inside);
    }
    let found = files.len();
    ensure!(
        found <= FILES_MAX,
        "there are {found} row files, at most {FILES_MAX} are read at once"
    );
    Ok(files)
}

/// Whether a path is named as a row file is.
pub(crate) fn is_row_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// The content of a file of at most `limit` bytes; `why` ends the sentence about a longer one.
pub(crate) fn read_file(path: &Path, limit: usize, why: &str) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let (source, length): (Box<dyn Read>, _) = if path == Path::new("-") {
        (Box::new(io::stdin()), 0)
    } else {
        let file = File::open(path).with_context(|| format!("failed to read {name}"))?;
        let length = file.metadata().with_context(|| format!("failed to read {name}"))?.len();
        (Box::new(file), length)
    };
    if length > most {
        bail!("{name} has {length} bytes, at most {limit} {why}");
    }
    let mut bytes = vec![];
    let read = source.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.with_context(|| format!("failed to read {name}"))?;
    ensure!(
        bytes.len() <= limit,
        "{name} has more than {limit} bytes, which is the most that {why}"
    );
    ensure!(!bytes.is_empty(), "{name} is empty");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.name.rsplit('/').next().unwrap()).collect()
    }

    #[test]
    fn a_folder_is_its_row_files_by_name_and_arguments_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["b.safetensors", "a.safetensors", "notes.txt"] {
            fs::write(at(name), name).unwrap();
        }
        let rows = read(Format::Tensors, &[at("b.safetensors"), folder.path().to_owned()]).unwrap();
        assert_eq!(named(&rows), ["b.safetensors", "a.safetensors", "b.safetensors"]);
        assert_eq!(rows[1].bytes, b"a.safetensors");
        let empty = tempfile::tempdir().unwrap();
        let refused = read(Format::Tensors, &[empty.path().to_owned()])
            .unwrap_err()
            .to_string();
        assert!(refused.ends_with("has no .safetensors file"), "{refused}");
    }

    #[test]
    fn a_row_that_cannot_ride_is_refused_by_name_and_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo.safetensors");
        fs::write(&path, vec![0; 602_192]).unwrap();
        let refused = read(Format::Tensors, std::slice::from_ref(&path))
            .unwrap_err()
            .to_string();
        assert!(
            refused.ends_with("photo.safetensors has 602192 bytes, at most 8192 can ride in a job; nothing was spent"),
            "{refused}"
        );
        fs::write(&path, b"").unwrap();
        let refused = read(Format::Tensors, &[path]).unwrap_err().to_string();
        assert!(refused.ends_with("is empty"), "{refused}");
    }

    #[test]
    fn texts_of_several_files_are_numbered_through() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["one\ntwo", "three"].map(|text| {
            let path = folder.path().join(text.len().to_string());
            fs::write(&path, text).unwrap();
            path
        });
        let names = read(Format::Text, &files).unwrap();
        assert_eq!(named(&names), ["text 1", "text 2", "text 3"]);
    }
}
