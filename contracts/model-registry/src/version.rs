//! Versions of a model: numbered from 1, never changed, retired once.

use cosmwasm_std::{Addr, Decimal, Empty, Order, Storage};
use schema::{registry::NewVersion, text, ModelId, STAGES_MAX};

use crate::{
    model::{check_count, check_whole, load as load_model},
    state::{Version, LIVE_VERSIONS, MODELS, VERSIONS},
    ContractError,
};

const URIS_MAX: usize = 4;
const URI_BYTES_MAX: usize = 256;
/// Above this a "same" answer would be another one.
const TOLERANCE_MAX: Decimal = Decimal::percent(1);
const UNITS_PER_REQUEST_MAX: u64 = 1_000_000_000;

/// Adds the next version and answers its number.
pub(crate) fn publish(
    storage: &mut dyn Storage,
    id: &ModelId,
    sender: &Addr,
    version: NewVersion,
    now: u64,
) -> Result<u32, ContractError> {
    let mut model = load_model(storage, id)?;
    model.require_owner(id, sender)?;
    model.require_not_retired(id)?;
    check(&version)?;
    let number = model.versions.checked_add(1).ok_or(ContractError::TooManyVersions)?;
    model.versions = number;
    let version = Version {
        manifest: version.manifest,
        manifest_uris: version.manifest_uris,
        stages: version.stages,
        tolerance: version.tolerance,
        units_per_request_max: version.units_per_request_max,
        published_at: now,
    };
    VERSIONS.save(storage, (id.as_str(), number), &version)?;
    LIVE_VERSIONS.save(storage, (id.as_str(), number), &Empty {})?;
    MODELS.save(storage, id.as_str(), &model)?;
    Ok(number)
}

/// Takes a version out of new work.
pub(crate) fn retire(storage: &mut dyn Storage, id: &ModelId, sender: &Addr, number: u32) -> Result<(), ContractError> {
    load_model(storage, id)?.require_owner(id, sender)?;
    load(storage, id, number)?;
    require_live(storage, id, number)?;
    LIVE_VERSIONS.remove(storage, (id.as_str(), number));
    Ok(())
}

pub(crate) fn load(storage: &dyn Storage, id: &ModelId, number: u32) -> Result<Version, ContractError> {
    VERSIONS
        .may_load(storage, (id.as_str(), number))?
        .ok_or_else(|| ContractError::UnknownVersion {
            model: id.clone(),
            version: number,
        })
}

pub(crate) fn is_live(storage: &dyn Storage, id: &ModelId, number: u32) -> bool {
    LIVE_VERSIONS.has(storage, (id.as_str(), number))
}

pub(crate) fn require_live(storage: &dyn Storage, id: &ModelId, number: u32) -> Result<(), ContractError> {
    if is_live(storage, id, number) {
        return Ok(());
    }
    Err(ContractError::VersionRetired {
        model: id.clone(),
        version: number,
    })
}

/// The highest number that is not retired.
pub(crate) fn newest(storage: &dyn Storage, id: &ModelId) -> Result<u32, ContractError> {
    let mut live = LIVE_VERSIONS
        .prefix(id.as_str())
        .keys(storage, None, None, Order::Descending);
    match live.next() {
        Some(number) => Ok(number?),
        None => Err(ContractError::NoVersion { model: id.clone() }),
    }
}

fn check(version: &NewVersion) -> Result<(), ContractError> {
    check_count("manifest URIs", version.manifest_uris.len(), 0, URIS_MAX)?;
    for uri in &version.manifest_uris {
        text::check_present("manifest URI", uri, URI_BYTES_MAX)?;
    }
    check_count("stages", version.stages.len(), 1, STAGES_MAX)?;
    check_whole("stages", version.stages.iter().map(|stage| stage.compute_share_bps))?;
    if version.tolerance.is_zero() || version.tolerance > TOLERANCE_MAX {
        return Err(ContractError::WrongTolerance {
            found: version.tolerance.to_string(),
            max: TOLERANCE_MAX.to_string(),
        });
    }
    if !(1..=UNITS_PER_REQUEST_MAX).contains(&version.units_per_request_max) {
        return Err(ContractError::WrongUnitsMax {
            found: version.units_per_request_max,
            max: UNITS_PER_REQUEST_MAX,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use schema::{registry::StageInfo, Digest};

    use super::*;

    fn with_shares(shares: &[u16]) -> NewVersion {
        let stage = |share: &u16| StageInfo {
            digest: Digest([1; 32]),
            weight_bytes: 1,
            compute_share_bps: *share,
        };
        NewVersion {
            manifest: Digest([2; 32]),
            manifest_uris: vec!["https://x".into(); 4],
            stages: shares.iter().map(stage).collect(),
            tolerance: Decimal::permille(10),
            units_per_request_max: UNITS_PER_REQUEST_MAX,
        }
    }

    #[test]
    fn a_version_has_the_bounds_of_its_documentation() {
        assert_eq!(check(&with_shares(&[10_000])), Ok(()));
        let most: Vec<u16> = [vec![313; 31], vec![10_000 - 31 * 313]].concat();
        assert_eq!(check(&with_shares(&most)), Ok(()));
        let refused = |shares: &[u16], change: fn(&mut NewVersion)| {
            let mut version = with_shares(shares);
            change(&mut version);
            check(&version).unwrap_err().to_string()
        };
        assert_eq!(refused(&[], |_| ()), "0 stages, 1 to 32 are allowed");
        assert_eq!(refused(&[300; 33], |_| ()), "33 stages, 1 to 32 are allowed");
        assert_eq!(refused(&[5_000, 4_999], |_| ()), "stages sum to 9999 bps, not 10000");
        assert_eq!(refused(&[10_000, 0], |_| ()), "each of the stages has at least 1 bps");
        assert_eq!(
            refused(&[10_000], |v| v.tolerance = Decimal::zero()),
            "tolerance is above 0 and at most 0.01, found 0"
        );
        assert_eq!(
            refused(&[10_000], |v| v.tolerance = Decimal::permille(11)),
            "tolerance is above 0 and at most 0.01, found 0.011"
        );
        assert_eq!(
            refused(&[10_000], |v| v.units_per_request_max = 0),
            "a request has 1 to 1000000000 units at most, found 0"
        );
        assert_eq!(
            refused(&[10_000], |v| v.manifest_uris.push("x".into())),
            "5 manifest URIs, 0 to 4 are allowed"
        );
        assert_eq!(
            refused(&[10_000], |v| v.manifest_uris[0].clear()),
            "manifest URI is empty"
        );
        assert_eq!(
            refused(&[10_000], |v| v.manifest_uris[0] = "x".repeat(257)),
            "manifest URI is 257 bytes long, at most 256 are allowed"
        );
    }
}
