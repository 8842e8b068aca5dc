//! Who a provider is and how it is reached.

use cosmwasm_std::{Addr, Storage};
use schema::{staking::Profile, text};

use crate::{
    stake::Stake,
    state::{PROFILES, STAKES},
    ContractError,
};

const NAME_BYTES_MAX: usize = 64;
const ENDPOINT_BYTES_MAX: usize = 256;
const HARDWARE_BYTES_MAX: usize = 256;

pub(crate) fn register(storage: &mut dyn Storage, owner: &Addr, profile: &Profile) -> Result<(), ContractError> {
    if PROFILES.has(storage, owner) {
        let account = owner.to_string();
        return Err(ContractError::AlreadyRegistered { account });
    }
    check(profile)?;
    PROFILES.save(storage, owner, profile)?;
    Ok(STAKES.save(storage, owner, &Stake::default())?)
}

pub(crate) fn update(storage: &mut dyn Storage, owner: &Addr, profile: &Profile) -> Result<(), ContractError> {
    stake(storage, owner)?;
    check(profile)?;
    Ok(PROFILES.save(storage, owner, profile)?)
}

/// The stake of a registered provider.
pub(crate) fn stake(storage: &dyn Storage, owner: &Addr) -> Result<Stake, ContractError> {
    STAKES
        .may_load(storage, owner)?
        .ok_or_else(|| ContractError::NotRegistered {
            account: owner.to_string(),
        })
}

fn check(profile: &Profile) -> Result<(), ContractError> {
    text::check_present("name", &profile.name, NAME_BYTES_MAX)?;
    text::check_present("endpoint", &profile.endpoint, ENDPOINT_BYTES_MAX)?;
    text::check("hardware", &profile.hardware, HARDWARE_BYTES_MAX)?;
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| profile.endpoint.strip_prefix(scheme));
    let is_url = |rest: &str| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace);
    if !rest.is_some_and(is_url) {
        let found = profile.endpoint.clone();
        return Err(ContractError::WrongEndpoint { found });
    }
    match profile.host_key.0 {
        [2 | 3, ..] => Ok(()),
        [found, ..] => Err(ContractError::WrongHostKey { found }),
    }
}

#[cfg(test)]
mod tests {
    use schema::PublicKey;

    use super::*;

    #[test]
    fn a_profile_has_the_bounds_of_its_documentation() {
        let good = Profile {
            name: "n".repeat(64),
            endpoint: "https://host.example:9000/fxn".into(),
            host_key: PublicKey([3; 33]),
            operator: None,
            hardware: String::new(),
        };
        assert_eq!(check(&good), Ok(()));
        let refused = |change: fn(&mut Profile)| {
            let mut profile = good.clone();
            change(&mut profile);
            check(&profile).unwrap_err().to_string()
        };
        assert_eq!(refused(|p| p.name.clear()), "name is empty");
        assert_eq!(
            refused(|p| p.name.push('n')),
            "name is 65 bytes long, at most 64 are allowed"
        );
        assert_eq!(
            refused(|p| p.hardware = "\n".into()),
            "hardware contains a control character"
        );
        assert_eq!(
            refused(|p| p.hardware = "h".repeat(257)),
            "hardware is 257 bytes long, at most 256 are allowed"
        );
        assert_eq!(
            refused(|p| p.endpoint = format!("http://{}", "h".repeat(250))),
            "endpoint is 257 bytes long, at most 256 are allowed"
        );
        for wrong in ["ftp://x", "http://", "https:///x", "http://a b", "x"] {
            let profile = Profile {
                endpoint: wrong.into(),
                ..good.clone()
            };
            let found = wrong.to_owned();
            assert_eq!(check(&profile), Err(ContractError::WrongEndpoint { found }));
        }
        assert_eq!(
            refused(|p| p.host_key.0[0] = 4),
            "a compressed secp256k1 key starts with 02 or 03, found 04"
        );
    }
}
