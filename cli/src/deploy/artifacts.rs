//! The contracts as the chain takes them: wasm files with a list of their checksums.
//!
//! Guarantees: what is deployed is what the list says, byte by byte; a file that is missing, changed or too large is named.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure, Context as _};
use flate2::{write::GzEncoder, Compression};
use schema::Digest;

use super::plan::Kind;

/// The list, as `sha256sum` writes it and `scripts/build-wasm.sh` leaves it.
const CHECKSUMS: &str = "checksums.txt";
/// wasmd takes no larger module, zipped or not.
const WASM_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// Far more lines than contracts.
const LIST_BYTES_MAX: u64 = 64 * 1024;

/// The code of one contract.
#[derive(Debug, Clone)]
pub(crate) struct Artifact {
    pub(crate) checksum: Digest,
    wasm: Vec<u8>,
}

impl Artifact {
    /// As it travels: a node refuses requests of more than a megabyte, and a module shrinks to a third.
    pub(crate) fn zipped(&self) -> anyhow::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(vec![], Compression::best());
        encoder.write_all(&self.wasm).context("failed to zip a contract")?;
        encoder.finish().context("failed to zip a contract")
    }
}

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts(Vec<(Kind, Artifact)>);

impl Artifacts {
    /// Reads and checks the artifacts of a folder.
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Self> {
        let list = folder.join(CHECKSUMS);
        let text = read(&list, LIST_BYTES_MAX).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.with_context(|| built(folder))?;
        let artifact = |kind: Kind| Ok((kind, one(folder, &text, kind)?));
        Ok(Self(
            Kind::ALL.into_iter().map(artifact).collect::<anyhow::Result<_>>()?,
        ))
    }

    pub(crate) fn of(&self, kind: Kind) -> &Artifact {
        let found = self.0.iter().find(|(known, _)| *known == kind);
        &found.unwrap_or(&self.0[0]).1
    }
}

fn built(folder: &Path) -> String {
    format!(
        "{} has no built contracts: `scripts/build-wasm.sh` builds them",
        folder.display()
    )
}

fn one(folder: &Path, list: &str, kind: Kind) -> anyhow::Result<Artifact> {
    let (name, path) = (kind.file(), folder.join(kind.file()));
    let listed = list.lines().find_map(|line| {
        let (checksum, file) = line.split_once(char::is_whitespace)?;
        (file.trim().trim_start_matches('*') == name).then_some(checksum)
    });
    let listed = listed.with_context(|| format!("{} does not list {name}", folder.join(CHECKSUMS).display()))?;
    let listed: Digest = listed.parse().map_err(|_| {
        anyhow::anyhow!(
            "{} has no checksum of {name}: {listed:?}",
            folder.join(CHECKSUMS).display()
        )
    })?;
    let wasm = read(&path, WASM_BYTES_MAX).with_context(|| built(folder))?;
    let checksum = Digest::of(&wasm);
    ensure!(
        checksum == listed,
        "{} has the checksum {checksum}, {CHECKSUMS} says {listed}: build the contracts anew",
        path.display()
    );
    ensure!(wasm.starts_with(b"\0asm"), "{} is no wasm module", path.display());
    Ok(Artifact { checksum, wasm })
}

fn read(path: &PathBuf, max: u64) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("failed to read {}", path.display());
    let bytes = fs::metadata(path).with_context(failed)?.len();
    if bytes > max {
        bail!("{} is {bytes} bytes long, at most {max} are taken", path.display());
    }
    fs::read(path).with_context(failed)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read as _;

    use super::*;

    /// A folder with five small modules that differ.
    pub(crate) fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut list = String::new();
        for kind in Kind::ALL {
            let wasm = format!("\0asm {}", kind.name());
            fs::write(folder.path().join(kind.file()), &wasm).unwrap();
            list.push_str(&format!("{}  {}\n", Digest::of(wasm.as_bytes()), kind.file()));
        }
        fs::write(folder.path().join(CHECKSUMS), list).unwrap();
        folder
    }

    fn refusal(folder: &Path) -> String {
        format!("{:#}", Artifacts::load(folder).unwrap_err())
    }

    #[test]
    fn artifacts_are_what_their_list_says_and_unzip_to_themselves() {
        let folder = folder();
        let artifacts = Artifacts::load(folder.path()).unwrap();
        let staking = artifacts.of(Kind::Staking);
        let mut unzipped = vec![];
        flate2::read::GzDecoder::new(staking.zipped().unwrap().as_slice())
            .read_to_end(&mut unzipped)
            .unwrap();
        assert_eq!(Digest::of(&unzipped), staking.checksum);
        assert_eq!(staking.zipped().unwrap(), staking.zipped().unwrap());
    }

    #[test]
    fn a_file_that_is_missing_changed_unlisted_or_no_module_is_named() {
        let place = folder();
        let path = place.path().join("provider_staking.wasm");
        fs::write(&path, "\0asm changed").unwrap();
        assert!(refusal(place.path()).contains("provider_staking.wasm has the checksum"));
        fs::remove_file(&path).unwrap();
        let told = refusal(place.path());
        assert!(
            told.contains("scripts/build-wasm.sh") && told.contains("provider_staking.wasm"),
            "{told}"
        );
        let list = place.path().join(CHECKSUMS);
        let text = fs::read_to_string(&list).unwrap();
        let text: String = text
            .lines()
            .filter(|line| !line.contains("staking"))
            .collect::<Vec<_>>()
            .join("\n");
        fs::write(&list, text).unwrap();
        assert!(refusal(place.path()).contains("does not list provider_staking.wasm"));
        fs::write(&list, "zz  func_token.wasm").unwrap();
        assert!(refusal(place.path()).contains("has no checksum of func_token.wasm"));
        fs::remove_file(&list).unwrap();
        assert!(refusal(place.path()).contains("has no built contracts"));
        let place = folder();
        let text = b"no module";
        fs::write(place.path().join("func_token.wasm"), text).unwrap();
        fs::write(
            place.path().join(CHECKSUMS),
            format!("{}  func_token.wasm\n", Digest::of(text)),
        )
        .unwrap();
        assert!(refusal(place.path()).contains("is no wasm module"));
    }
}
