//! Who may change parameters, and how the role is handed over: offered by its holder, taken by the new one.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, StdResult, Storage};
use cw_storage_plus::Item;
use schema::{msg::AdminResponse, Event};

use crate::ContractError;

const ADMIN: Item<Admin> = Item::new("admin");

#[cw_serde]
struct Admin {
    admin: Addr,
    proposed: Option<Addr>,
}

pub(crate) fn start(storage: &mut dyn Storage, admin: Addr) -> StdResult<()> {
    ADMIN.save(storage, &Admin { admin, proposed: None })
}

pub(crate) fn assert(storage: &dyn Storage, sender: &Addr) -> Result<(), ContractError> {
    if ADMIN.load(storage)?.admin != *sender {
        let sender = sender.to_string();
        return Err(ContractError::NotAdmin { sender });
    }
    Ok(())
}

pub(crate) fn propose(
    storage: &mut dyn Storage,
    sender: &Addr,
    proposed: Option<Addr>,
) -> Result<Event, ContractError> {
    assert(storage, sender)?;
    let admin = sender.clone();
    let text = proposed.as_ref().map(ToString::to_string);
    ADMIN.save(storage, &Admin { admin, proposed })?;
    Ok(Event::AdminProposed { admin: text })
}

pub(crate) fn accept(storage: &mut dyn Storage, sender: &Addr) -> Result<Event, ContractError> {
    if ADMIN.load(storage)?.proposed.as_ref() != Some(sender) {
        let sender = sender.to_string();
        return Err(ContractError::NotProposedAdmin { sender });
    }
    start(storage, sender.clone())?;
    Ok(Event::AdminChanged {
        admin: sender.to_string(),
    })
}

pub(crate) fn query(storage: &dyn Storage) -> StdResult<AdminResponse> {
    let Admin { admin, proposed } = ADMIN.load(storage)?;
    Ok(AdminResponse {
        admin: admin.into_string(),
        proposed: proposed.map(Addr::into_string),
    })
}
