use cosmwasm_std::StdError;
use thiserror::Error;

#[derive(Debug, PartialEq, Error)]
pub enum GovernedError {
    #[error("{sender} is not the admin")]
    NotAdmin { sender: String },
    #[error("the role of admin was not offered to {sender}")]
    NotProposedAdmin { sender: String },

    #[error("there is no code {code_id} on this chain: what is proposed must be there to be read")]
    NoCode { code_id: u64 },
    #[error("the message of a migration has {bytes} bytes, at most {max} are allowed")]
    MessageTooLong { bytes: usize, max: usize },
    #[error("a migration to code {code_id} is proposed already: cancel it before another is proposed")]
    MigrationPending { code_id: u64 },
    #[error("no migration is proposed")]
    NoMigration,
    #[error("the migration can be executed from {executable_at} on, now it is {now}")]
    MigrationEarly { executable_at: u64, now: u64 },
    #[error("migration_notice_seconds is {seconds}, {min} to {max} are allowed")]
    NoticeOutOfBounds { seconds: u64, min: u64, max: u64 },
    #[error("migration_notice_seconds is {fixed} for ever, found {found}")]
    NoticeChanged { fixed: u64, found: u64 },
    #[error("{sibling} gives {notice_seconds} seconds notice of a migration, at least {min} are required")]
    SiblingNotice {
        sibling: String,
        notice_seconds: u64,
        min: u64,
    },

    #[error("the contract is {contract}, the new code is {code}")]
    OtherContract { contract: String, code: String },
    #[error("the contract has version {from}, the new code has {to}, which is not newer")]
    NotNewer { from: String, to: String },
    #[error("{version:?} is no version")]
    NoVersion { version: String },

    #[error(transparent)]
    Std(#[from] StdError),
}
