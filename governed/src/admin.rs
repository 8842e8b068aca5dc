//! Who may change parameters and propose migrations, handed over in two steps so that a typing error cannot lose the role.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, StdResult, Storage};
use cw_storage_plus::Item;
use schema::{msg::AdminResponse, Event};

use crate::GovernedError;

#[cw_serde]
struct Admin {
    address: Addr,
    proposed: Option<Addr>,
}

const ADMIN: Item<Admin> = Item::new("admin");

/// The first admin, or the next one.
pub fn appoint(storage: &mut dyn Storage, address: Addr) -> StdResult<()> {
    let proposed = None;
    ADMIN.save(storage, &Admin { address, proposed })
}

/// Refuses everybody but the admin.
pub fn require(storage: &dyn Storage, sender: &Addr) -> Result<(), GovernedError> {
    if ADMIN.load(storage)?.address != sender {
        let sender = sender.to_string();
        return Err(GovernedError::NotAdmin { sender });
    }
    Ok(())
}

/// Offers the role, or withdraws the offer.
pub fn propose(storage: &mut dyn Storage, sender: &Addr, proposed: Option<Addr>) -> Result<Event, GovernedError> {
    require(storage, sender)?;
    let admin = proposed.as_ref().map(ToString::to_string);
    let address = sender.clone();
    ADMIN.save(storage, &Admin { address, proposed })?;
    Ok(Event::AdminProposed { admin })
}

/// The account to which the role was offered takes it.
pub fn accept(storage: &mut dyn Storage, sender: &Addr) -> Result<Event, GovernedError> {
    if ADMIN.load(storage)?.proposed.as_ref() != Some(sender) {
        let sender = sender.to_string();
        return Err(GovernedError::NotProposedAdmin { sender });
    }
    appoint(storage, sender.clone())?;
    let admin = sender.to_string();
    Ok(Event::AdminChanged { admin })
}

/// As the contracts' `Config` tells it.
pub fn response(storage: &dyn Storage) -> StdResult<AdminResponse> {
    let admin = ADMIN.load(storage)?;
    Ok(AdminResponse {
        admin: admin.address.into(),
        proposed: admin.proposed.map(Addr::into_string),
    })
}

#[cfg(test)]
mod tests {
    use cosmwasm_std::testing::MockStorage;

    use super::*;

    #[test]
    fn the_role_moves_only_if_both_sides_say_so() {
        let storage = &mut MockStorage::new();
        let [old, heir, stranger] = ["old", "heir", "stranger"].map(Addr::unchecked);
        appoint(storage, old.clone()).unwrap();
        let sender = stranger.to_string();
        let refusal = Err(GovernedError::NotAdmin { sender: sender.clone() });
        assert_eq!(propose(storage, &stranger, Some(stranger.clone())), refusal);
        propose(storage, &old, Some(heir.clone())).unwrap();
        assert_eq!(require(storage, &old), Ok(()), "an offer takes nothing away");
        assert_eq!(
            accept(storage, &stranger),
            Err(GovernedError::NotProposedAdmin { sender })
        );
        accept(storage, &heir).unwrap();
        assert!(require(storage, &old).is_err());
        assert_eq!(require(storage, &heir), Ok(()));
        assert!(accept(storage, &heir).is_err(), "an offer is taken once");
    }

    #[test]
    fn an_offer_that_was_withdrawn_cannot_be_taken() {
        let storage = &mut MockStorage::new();
        let [old, heir] = ["old", "heir"].map(Addr::unchecked);
        appoint(storage, old.clone()).unwrap();
        propose(storage, &old, Some(heir.clone())).unwrap();
        propose(storage, &old, None).unwrap();
        assert!(accept(storage, &heir).is_err());
        assert_eq!(response(storage).unwrap().proposed, None);
    }
}
