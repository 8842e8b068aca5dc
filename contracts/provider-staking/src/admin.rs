//! Who may change parameters, handed over in two steps so that a typing error cannot lose the role.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, StdResult, Storage};
use cw_storage_plus::Item;
use schema::msg::AdminResponse;

use crate::ContractError;

#[cw_serde]
struct Admin {
    address: Addr,
    proposed: Option<Addr>,
}

const ADMIN: Item<Admin> = Item::new("admin");

pub(crate) fn appoint(storage: &mut dyn Storage, address: Addr) -> StdResult<()> {
    let proposed = None;
    ADMIN.save(storage, &Admin { address, proposed })
}

pub(crate) fn require(storage: &dyn Storage, sender: &Addr) -> Result<(), ContractError> {
    if ADMIN.load(storage)?.address != sender {
        let sender = sender.to_string();
        return Err(ContractError::NotAdmin { sender });
    }
    Ok(())
}

pub(crate) fn propose(storage: &mut dyn Storage, proposed: Option<Addr>) -> StdResult<()> {
    let address = ADMIN.load(storage)?.address;
    ADMIN.save(storage, &Admin { address, proposed })
}

pub(crate) fn accept(storage: &mut dyn Storage, sender: &Addr) -> Result<(), ContractError> {
    if ADMIN.load(storage)?.proposed.as_ref() != Some(sender) {
        let sender = sender.to_string();
        return Err(ContractError::NotProposedAdmin { sender });
    }
    Ok(appoint(storage, sender.clone())?)
}

pub(crate) fn response(storage: &dyn Storage) -> StdResult<AdminResponse> {
    let admin = ADMIN.load(storage)?;
    Ok(AdminResponse {
        admin: admin.address.into(),
        proposed: admin.proposed.map(Addr::into_string),
    })
}
