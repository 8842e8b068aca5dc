//! What a transaction asks of the chain: one [`Call`] a message.

use cosmwasm_std::{to_json_binary, Coin, Uint128};
use serde::Serialize;

use crate::error::ClientError;

/// One message of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Executes a contract.
    Execute {
        /// The contract.
        contract: String,
        /// Its message, JSON.
        msg: Vec<u8>,
        /// Native coins sent along.
        funds: Vec<Coin>,
    },
    /// Sends gas coin.
    Send {
        /// The receiver.
        to: String,
        /// Amount in the network's gas coin.
        amount: u128,
    },
    /// Stores contract code. The code id is in the event `store_code`.
    StoreCode {
        /// The wasm module, plain or gzipped.
        wasm: Vec<u8>,
    },
    /// Instantiates stored code. The address is in the event `instantiate`.
    Instantiate {
        /// The code.
        code_id: u64,
        /// Its message, JSON.
        msg: Vec<u8>,
        /// A name for people.
        label: String,
        /// Who may migrate it.
        admin: Option<String>,
    },
    /// Makes somebody else the one who may migrate a contract, which may be the contract itself.
    UpdateAdmin {
        /// The contract.
        contract: String,
        /// Who may migrate it from now on.
        admin: String,
    },
}

impl Call {
    /// Executes a contract without sending coins.
    pub fn execute<M: Serialize + ?Sized>(contract: impl Into<String>, msg: &M) -> Result<Call, ClientError> {
        Ok(Call::Execute {
            contract: contract.into(),
            msg: to_json(msg)?,
            funds: vec![],
        })
    }

    /// The same call with native coins sent along. Only an execution carries coins; others stay as they are.
    pub fn with_funds(mut self, coins: Vec<Coin>) -> Call {
        if let Call::Execute { funds, .. } = &mut self {
            *funds = coins;
        }
        self
    }

    /// Sends gas coin.
    pub fn send(to: impl Into<String>, amount: u128) -> Call {
        Call::Send { to: to.into(), amount }
    }

    /// Sends cw20 tokens to a contract together with a message for it.
    pub fn cw20_send<M: Serialize + ?Sized>(
        token: impl Into<String>,
        contract: impl Into<String>,
        amount: u128,
        msg: &M,
    ) -> Result<Call, ClientError> {
        let send = cw20::Cw20ExecuteMsg::Send {
            contract: contract.into(),
            amount: Uint128::new(amount),
            msg: to_json_binary(msg).map_err(|error| ClientError::BadCall(error.to_string()))?,
        };
        Call::execute(token, &send)
    }

    /// Sends cw20 tokens to an account.
    pub fn cw20_transfer(
        token: impl Into<String>,
        recipient: impl Into<String>,
        amount: u128,
    ) -> Result<Call, ClientError> {
        let transfer = cw20::Cw20ExecuteMsg::Transfer {
            recipient: recipient.into(),
            amount: Uint128::new(amount),
        };
        Call::execute(token, &transfer)
    }
}

fn to_json<M: Serialize + ?Sized>(msg: &M) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(msg).map_err(|error| ClientError::BadCall(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sent_with_the_message_that_the_receiver_reads() {
        let call = Call::cw20_send("token", "escrow", 5, &serde_json::json!({ "deposit": {} })).unwrap();
        let Call::Execute { contract, msg, funds } = call else {
            panic!("not an execution");
        };
        assert_eq!((contract.as_str(), funds.len()), ("token", 0));
        let sent: serde_json::Value = serde_json::from_slice(&msg).unwrap();
        // The inner message is base64 of {"deposit":{}}.
        assert_eq!(
            sent,
            serde_json::json!({ "send": { "contract": "escrow", "amount": "5", "msg": "eyJkZXBvc2l0Ijp7fX0=" } })
        );
    }
}
