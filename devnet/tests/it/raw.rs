//! Transactions without a simulation before them: what a careless or hostile client sends.

use base64::{engine::general_purpose::STANDARD, Engine};
use client::{Client, Wallet};
use cosmrs::{
    bank::MsgSend,
    cosmwasm::MsgExecuteContract,
    crypto::secp256k1::SigningKey,
    tx::{Body, Fee, Msg, SignDoc, SignerInfo},
    AccountId, Any, Coin,
};
use serde_json::{json, Value};

use crate::probe::{Do, PROBE};

pub(crate) const GAS: u64 = 10_000_000;

/// A development account that counts its own sequence.
pub(crate) struct Raw {
    pub(crate) wallet: Wallet,
    pub(crate) number: u64,
    pub(crate) sequence: u64,
    pub(crate) gas: u64,
}

pub(crate) fn gas_coin(amount: u128) -> Coin {
    Coin {
        denom: "ustake".parse().unwrap(),
        amount,
    }
}

impl Raw {
    pub(crate) async fn new(client: &Client, name: &str) -> Raw {
        let wallet = Wallet::dev(name);
        let account = client.account(&wallet.address("wasm")).await.unwrap();
        Raw {
            wallet,
            number: account.number,
            sequence: account.sequence,
            gas: GAS,
        }
    }

    pub(crate) fn address(&self) -> AccountId {
        self.wallet.address("wasm").parse().unwrap()
    }

    pub(crate) fn call(&self, msg: &Do, funds: u128) -> Any {
        self.execute(PROBE, &serde_json::to_vec(msg).unwrap(), funds)
    }

    pub(crate) fn execute(&self, contract: &str, msg: &[u8], funds: u128) -> Any {
        let message = MsgExecuteContract {
            sender: self.address(),
            contract: contract.parse().unwrap(),
            msg: msg.to_vec(),
            funds: if funds == 0 { vec![] } else { vec![gas_coin(funds)] },
        };
        message.to_any().unwrap()
    }

    pub(crate) fn send(&self, to: &str, amount: u128) -> Any {
        let message = MsgSend {
            from_address: self.address(),
            to_address: to.parse().unwrap(),
            amount: vec![gas_coin(amount)],
        };
        message.to_any().unwrap()
    }

    /// Signs with the next sequence, which then counts as used.
    pub(crate) fn sign(&mut self, messages: Vec<Any>) -> Vec<u8> {
        let key = SigningKey::from_slice(self.wallet.secret().as_slice()).unwrap();
        let body = Body::new(messages, "", 0u32);
        let fee = Fee::from_amount_and_gas(gas_coin(u128::from(self.gas).div_ceil(40)), self.gas);
        let auth = SignerInfo::single_direct(Some(key.public_key()), self.sequence).auth_info(fee);
        let chain = "fxn-devnet-1".parse().unwrap();
        let document = SignDoc::new(&body, &auth, &chain, self.number).unwrap();
        self.sequence += 1;
        document.sign(&key).unwrap().to_bytes().unwrap()
    }
}

/// One JSON-RPC request by POST.
pub(crate) async fn rpc(url: &str, method: &str, params: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let request = reqwest::Client::new().post(url).json(&body);
    request.send().await.unwrap().json().await.unwrap()
}

/// Hands over; the check's code.
pub(crate) async fn broadcast(url: &str, tx: &[u8]) -> Value {
    let answer = rpc(url, "broadcast_tx_sync", json!({ "tx": STANDARD.encode(tx) })).await;
    assert!(answer.get("error").is_none(), "{answer}");
    answer["result"].clone()
}

/// Hands over and waits for the block; the whole answer.
pub(crate) async fn commit(url: &str, tx: &[u8]) -> Value {
    let answer = rpc(url, "broadcast_tx_commit", json!({ "tx": STANDARD.encode(tx) })).await;
    assert!(answer.get("error").is_none(), "{answer}");
    answer["result"].clone()
}
