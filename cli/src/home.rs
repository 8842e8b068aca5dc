//! The program's own folder: private to its owner.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context as _};

/// `~/.fxn`.
pub(crate) fn default() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.context("no home folder is known: give --home DIR")?;
    Ok(PathBuf::from(home).join(".fxn"))
}

/// Creates a folder and those above it with mode 0700. One that exists stays as it is.
pub(crate) fn create_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The folder as an absolute path, created if needed.
pub(crate) fn prepared(folder: &Path) -> anyhow::Result<PathBuf> {
    if fs::metadata(folder).is_ok_and(|found| !found.is_dir()) {
        bail!("{} is not a folder: give another --home DIR", folder.display());
    }
    create_private(folder)
        .with_context(|| format!("give another --home DIR: {} cannot be created", folder.display()))?;
    fs::canonicalize(folder).with_context(|| format!("failed to open {}", folder.display()))
}
