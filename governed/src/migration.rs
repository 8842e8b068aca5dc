//! New code for a contract: proposed by its admin, executed by anyone once the notice has passed.
//!
//! The contract is its own wasm admin, so nobody but itself can migrate it, and it does so only for a proposal of its own.
//!
//! Guarantees:
//! - What will run can be read for the whole notice: the code is on the chain when it is proposed, codes never change there, and
//!   neither do the date and the message of a proposal.
//! - The notice never changes, so whoever wants to leave before the new code runs has the time that he was promised when he came.
//! - The new code is the same contract in a newer version. Nothing goes back, and no two codes of a contract have one version.
//! - A proposal that fails stays, with the whole state as it was; its admin may cancel it.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, Binary, QuerierWrapper, StdResult, Storage, WasmMsg};
use cw_storage_plus::Item;
use schema::{
    msg::{MigrationResponse, PendingMigration},
    params::MIGRATION_NOTICE_SECONDS_MAX,
    Digest, Event,
};
use semver::Version;

use crate::{admin, GovernedError};

/// Longest message to the new code: it is stored for the whole notice.
pub const MESSAGE_BYTES_MAX: usize = 4_096;

const PENDING: Item<Proposal> = Item::new("migration");

/// The code to run next, and what it is told then.
#[cw_serde]
pub struct Proposal {
    pub code_id: u64,
    /// sha256 of the code, as the chain says it.
    pub checksum: Digest,
    pub msg: Binary,
    /// Block time in seconds.
    pub executable_at: u64,
}

impl Proposal {
    /// What the contract says to the chain about itself.
    pub fn into_message(self, contract: &Addr) -> WasmMsg {
        WasmMsg::Migrate {
            contract_addr: contract.to_string(),
            new_code_id: self.code_id,
            msg: self.msg,
        }
    }
}

/// Refuses a notice outside its bounds. `min` is the time that somebody needs to leave.
pub fn check_notice(seconds: u64, min: u64) -> Result<(), GovernedError> {
    let min = min.max(1);
    let max = MIGRATION_NOTICE_SECONDS_MAX;
    if !(min..=max).contains(&seconds) {
        return Err(GovernedError::NoticeOutOfBounds { seconds, min, max });
    }
    Ok(())
}

/// Refuses another notice than the one that the contract began with: an admin who could shorten it would propose the moment after.
pub fn check_notice_is_fixed(fixed: u64, found: u64) -> Result<(), GovernedError> {
    if found != fixed {
        return Err(GovernedError::NoticeChanged { fixed, found });
    }
    Ok(())
}

/// Refuses a sibling that could have other code before somebody has left this contract.
pub fn check_sibling_notice(sibling: &Addr, notice_seconds: u64, min: u64) -> Result<(), GovernedError> {
    if notice_seconds < min {
        let sibling = sibling.to_string();
        return Err(GovernedError::SiblingNotice {
            sibling,
            notice_seconds,
            min,
        });
    }
    Ok(())
}

/// The admin proposes a code that is on the chain already. `clock` is now and the notice, in seconds.
pub fn propose(
    storage: &mut dyn Storage,
    querier: QuerierWrapper<'_>,
    sender: &Addr,
    code_id: u64,
    msg: Binary,
    clock: (u64, u64),
) -> Result<Event, GovernedError> {
    admin::require(storage, sender)?;
    if let Some(Proposal { code_id, .. }) = PENDING.may_load(storage)? {
        return Err(GovernedError::MigrationPending { code_id });
    }
    let (bytes, max) = (msg.len(), MESSAGE_BYTES_MAX);
    if bytes > max {
        return Err(GovernedError::MessageTooLong { bytes, max });
    }
    let checksum = checksum(querier, code_id).ok_or(GovernedError::NoCode { code_id })?;
    let executable_at = clock.0.saturating_add(clock.1);
    let proposal = Proposal {
        code_id,
        checksum,
        msg,
        executable_at,
    };
    PENDING.save(storage, &proposal)?;
    Ok(Event::MigrationProposed {
        code_id,
        checksum,
        executable_at,
    })
}

fn checksum(querier: QuerierWrapper<'_>, code_id: u64) -> Option<Digest> {
    let code = querier.query_wasm_code_info(code_id).ok()?;
    code.checksum.as_slice().try_into().ok().map(Digest)
}

/// The admin takes a proposal back.
pub fn cancel(storage: &mut dyn Storage, sender: &Addr) -> Result<Event, GovernedError> {
    admin::require(storage, sender)?;
    let Proposal { code_id, .. } = load(storage)?;
    PENDING.remove(storage);
    Ok(Event::MigrationCancelled { code_id })
}

/// Anyone, once the notice has passed: what the chain is to be told, and the event.
pub fn execute(storage: &mut dyn Storage, sender: &Addr, now: u64) -> Result<(Proposal, Event), GovernedError> {
    let proposal = load(storage)?;
    let Proposal {
        code_id, executable_at, ..
    } = proposal;
    if now < executable_at {
        return Err(GovernedError::MigrationEarly { executable_at, now });
    }
    PENDING.remove(storage);
    let by = sender.to_string();
    Ok((proposal, Event::MigrationExecuted { code_id, by }))
}

/// The new code's first act: it takes the place of an older version of the same contract and of nothing else.
pub fn complete(storage: &mut dyn Storage, code: &str, version: &str) -> Result<Event, GovernedError> {
    let recorded = cw2::get_contract_version(storage)?;
    if recorded.contract != code {
        let (contract, code) = (recorded.contract, code.to_owned());
        return Err(GovernedError::OtherContract { contract, code });
    }
    let (from, to) = (recorded.version, version.to_owned());
    if parse(&to)? <= parse(&from)? {
        return Err(GovernedError::NotNewer { from, to });
    }
    cw2::set_contract_version(storage, code, version)?;
    Ok(Event::Migrated { from, to })
}

/// True while a proposal waits.
pub fn is_pending(storage: &dyn Storage) -> bool {
    PENDING.exists(storage)
}

/// As the contracts' `Migration` tells it.
pub fn response(storage: &dyn Storage, notice_seconds: u64) -> StdResult<MigrationResponse> {
    let pending = PENDING.may_load(storage)?.map(|proposal| PendingMigration {
        code_id: proposal.code_id,
        checksum: proposal.checksum,
        msg: proposal.msg,
        executable_at: proposal.executable_at,
    });
    Ok(MigrationResponse {
        admin: admin::response(storage)?.admin,
        notice_seconds,
        pending,
    })
}

fn load(storage: &dyn Storage) -> Result<Proposal, GovernedError> {
    PENDING.may_load(storage)?.ok_or(GovernedError::NoMigration)
}

fn parse(version: &str) -> Result<Version, GovernedError> {
    Version::parse(version).map_err(|_| GovernedError::NoVersion {
        version: version.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use cosmwasm_std::{
        testing::{MockQuerier, MockStorage},
        to_json_binary, Checksum, CodeInfoResponse, ContractResult, SystemError, SystemResult, WasmQuery,
    };

    use super::*;

    /// A chain with code 7 on it.
    fn chain() -> MockQuerier {
        let mut querier = MockQuerier::default();
        querier.update_wasm(|query| match query {
            WasmQuery::CodeInfo { code_id: 7 } => {
                let code = CodeInfoResponse::new(7, Addr::unchecked("author"), Checksum::from([7; 32]));
                SystemResult::Ok(ContractResult::Ok(to_json_binary(&code).unwrap()))
            }
            WasmQuery::CodeInfo { code_id } => SystemResult::Err(SystemError::NoSuchCode { code_id: *code_id }),
            other => panic!("{other:?}"),
        });
        querier
    }

    fn governed() -> (MockStorage, Addr, Addr) {
        let mut storage = MockStorage::new();
        let [admin, stranger] = ["admin", "stranger"].map(Addr::unchecked);
        crate::admin::appoint(&mut storage, admin.clone()).unwrap();
        cw2::set_contract_version(&mut storage, "noun", "1.2.3").unwrap();
        (storage, admin, stranger)
    }

    fn proposed(storage: &mut MockStorage, sender: &Addr, code_id: u64, msg: &[u8]) -> Result<Event, GovernedError> {
        let chain = chain();
        propose(
            storage,
            QuerierWrapper::new(&chain),
            sender,
            code_id,
            msg.into(),
            (100, 30),
        )
    }

    #[test]
    fn a_proposal_is_executed_by_anyone_from_its_date_on_and_once() {
        let (mut storage, admin, stranger) = governed();
        let announced = proposed(&mut storage, &admin, 7, b"{}").unwrap();
        let expected = Event::MigrationProposed {
            code_id: 7,
            checksum: Digest([7; 32]),
            executable_at: 130,
        };
        assert_eq!(announced, expected);
        let pending = response(&storage, 30).unwrap().pending.unwrap();
        assert_eq!((pending.code_id, pending.executable_at), (7, 130));
        let early = GovernedError::MigrationEarly {
            executable_at: 130,
            now: 129,
        };
        assert_eq!(execute(&mut storage, &admin, 129), Err(early));
        let (proposal, event) = execute(&mut storage, &stranger, 130).unwrap();
        let by = stranger.to_string();
        assert_eq!(event, Event::MigrationExecuted { code_id: 7, by });
        let expected = WasmMsg::Migrate {
            contract_addr: "me".into(),
            new_code_id: 7,
            msg: b"{}".into(),
        };
        assert_eq!(proposal.into_message(&Addr::unchecked("me")), expected);
        assert_eq!(execute(&mut storage, &stranger, 130), Err(GovernedError::NoMigration));
    }

    #[test]
    fn only_the_admin_proposes_and_cancels_and_one_at_a_time() {
        let (mut storage, admin, stranger) = governed();
        let sender = stranger.to_string();
        let refusal = || GovernedError::NotAdmin { sender: sender.clone() };
        assert_eq!(proposed(&mut storage, &stranger, 7, b""), Err(refusal()));
        proposed(&mut storage, &admin, 7, b"").unwrap();
        assert_eq!(cancel(&mut storage, &stranger), Err(refusal()));
        let pending = GovernedError::MigrationPending { code_id: 7 };
        assert_eq!(proposed(&mut storage, &admin, 7, b""), Err(pending));
        cancel(&mut storage, &admin).unwrap();
        assert_eq!(cancel(&mut storage, &admin), Err(GovernedError::NoMigration));
        assert_eq!(execute(&mut storage, &admin, 999), Err(GovernedError::NoMigration));
        proposed(&mut storage, &admin, 7, b"").unwrap();
    }

    #[test]
    fn what_nobody_can_read_cannot_be_proposed() {
        let (mut storage, admin, _) = governed();
        let refusal = GovernedError::NoCode { code_id: 8 };
        assert_eq!(proposed(&mut storage, &admin, 8, b""), Err(refusal));
        let refusal = GovernedError::MessageTooLong {
            bytes: 4_097,
            max: 4_096,
        };
        assert_eq!(proposed(&mut storage, &admin, 7, &[b' '; 4_097]), Err(refusal));
        assert!(!is_pending(&storage));
    }

    #[test]
    fn new_code_is_the_same_contract_in_a_newer_version() {
        let (mut storage, ..) = governed();
        let other = GovernedError::OtherContract {
            contract: "noun".into(),
            code: "verb".into(),
        };
        assert_eq!(complete(&mut storage, "verb", "9.0.0"), Err(other));
        for version in ["1.2.3", "1.2.2", "0.9.9", "1.2.3-rc.1"] {
            let refusal = complete(&mut storage, "noun", version);
            assert!(matches!(refusal, Err(GovernedError::NotNewer { .. })), "{version}");
        }
        assert!(matches!(
            complete(&mut storage, "noun", "next"),
            Err(GovernedError::NoVersion { .. })
        ));
        assert_eq!(cw2::get_contract_version(&storage).unwrap().version, "1.2.3");
        // As numbers, not as text.
        complete(&mut storage, "noun", "1.10.0").unwrap();
        assert_eq!(cw2::get_contract_version(&storage).unwrap().version, "1.10.0");
    }

    #[test]
    fn a_notice_has_bounds_and_never_changes() {
        assert_eq!(check_notice(30, 30), Ok(()));
        for (seconds, min) in [(29, 30), (0, 0), (MIGRATION_NOTICE_SECONDS_MAX + 1, 1)] {
            assert!(check_notice(seconds, min).is_err(), "{seconds}");
        }
        assert_eq!(check_notice_is_fixed(30, 30), Ok(()));
        for found in [29, 31] {
            let refusal = GovernedError::NoticeChanged { fixed: 30, found };
            assert_eq!(check_notice_is_fixed(30, found), Err(refusal));
        }
    }
}
