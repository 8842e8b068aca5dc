//! Signed transactions: decoding and the checks that need no state. The one file here that knows cosmrs's transaction types.
//!
//! One signer, one secp256k1 signature, over the bytes (direct) or over a JSON form (amino): what wallets make. Several signers
//! and every other mode are refused by name.

mod amino;

use cosmrs::{
    proto::{
        cosmos::{
            bank::v1beta1::MsgSend,
            base::{abci::v1beta1::TxMsgData, v1beta1::Coin as ProtoCoin},
            crypto::secp256k1::PubKey,
            tx::v1beta1::{mode_info, AuthInfo, SignDoc, TxBody, TxRaw},
        },
        cosmwasm::wasm::v1::{
            MsgClearAdmin, MsgExecuteContract, MsgInstantiateContract, MsgMigrateContract, MsgStoreCode, MsgUpdateAdmin,
        },
        traits::{Message as _, Name},
    },
    Any,
};
use cosmwasm_std::Coin;
use k256::ecdsa::{signature::hazmat::PrehashVerifier, Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::{
    addresses,
    code::{self, Refusal},
};

/// `SIGN_MODE_UNSPECIFIED`.
const UNSPECIFIED: i32 = 0;
/// `SIGN_MODE_DIRECT`.
const DIRECT: i32 = 1;
/// `SIGN_MODE_LEGACY_AMINO_JSON`.
const AMINO_JSON: i32 = 127;
/// Longest memo, as the chain's default.
const MEMO_MAX: usize = 256;

/// One message that this chain runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Execute {
        contract: String,
        msg: Vec<u8>,
        funds: Vec<Coin>,
    },
    Instantiate {
        code_id: u64,
        msg: Vec<u8>,
        label: String,
        admin: Option<String>,
        funds: Vec<Coin>,
    },
    Send {
        to: String,
        amount: Vec<Coin>,
    },
    Migrate {
        contract: String,
        code_id: u64,
        msg: Vec<u8>,
    },
    /// `None`: nobody may migrate it any more.
    UpdateAdmin {
        contract: String,
        admin: Option<String>,
    },
}

impl Message {
    /// Type URL, the value of the `action` attribute.
    pub(crate) fn action(&self) -> String {
        match self {
            Message::Execute { .. } => MsgExecuteContract::type_url(),
            Message::Instantiate { .. } => MsgInstantiateContract::type_url(),
            Message::Send { .. } => MsgSend::type_url(),
            Message::Migrate { .. } => MsgMigrateContract::type_url(),
            Message::UpdateAdmin { admin: Some(_), .. } => MsgUpdateAdmin::type_url(),
            Message::UpdateAdmin { admin: None, .. } => MsgClearAdmin::type_url(),
        }
    }

    /// The module that runs it.
    pub(crate) fn module(&self) -> &'static str {
        match self {
            Message::Send { .. } => "bank",
            _ => "wasm",
        }
    }
}

/// A transaction that decoded.
#[derive(Clone, Debug)]
pub(crate) struct Tx {
    pub(crate) hash: [u8; 32],
    pub(crate) bytes: Vec<u8>,
    pub(crate) messages: Vec<Message>,
    /// The sender of every message.
    pub(crate) sender: String,
    /// Compressed public key; `None` when the signer left it out because the chain knows it.
    pub(crate) public_key: Option<[u8; 33]>,
    pub(crate) sequence: u64,
    pub(crate) gas_wanted: u64,
    pub(crate) fee: Vec<Coin>,
    pub(crate) signature: Vec<u8>,
    /// The signature was found good before.
    pub(crate) is_verified: bool,
    mode: i32,
    timeout_height: u64,
    body_bytes: Vec<u8>,
    auth_info_bytes: Vec<u8>,
}

/// The hash by which a transaction is known.
pub(crate) fn hash_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Tx {
    /// Decodes the bytes of a `TxRaw`.
    pub(crate) fn decode(bytes: Vec<u8>) -> Result<Tx, Refusal> {
        let raw = TxRaw::decode(bytes.as_slice()).map_err(parse_error)?;
        let body = TxBody::decode(raw.body_bytes.as_slice()).map_err(parse_error)?;
        let auth = AuthInfo::decode(raw.auth_info_bytes.as_slice()).map_err(parse_error)?;
        if body.memo.len() > MEMO_MAX {
            let log = format!(
                "maximum number of characters is {MEMO_MAX} but received {} characters",
                body.memo.len()
            );
            return Err(code::MEMO_TOO_LARGE.with(log));
        }
        let [signer] = auth.signer_infos.as_slice() else {
            let log = format!("{} signers, this chain takes exactly one", auth.signer_infos.len());
            return Err(code::UNAUTHORIZED.with(log));
        };
        let mode = signer.mode_info.as_ref().and_then(|mode| mode.sum.as_ref());
        let mode = match mode {
            Some(mode_info::Sum::Single(single)) => single.mode,
            // Simulations may leave it out, so it is only refused where a signature counts.
            _ => UNSPECIFIED,
        };
        let [signature] = raw.signatures.as_slice() else {
            let log = format!("wrong number of signers; expected 1, got {}", raw.signatures.len());
            return Err(code::UNAUTHORIZED.with(log));
        };
        let fee = auth.fee.ok_or_else(|| code::TX_PARSE.with("no fee"))?;
        let (sender, messages) = messages(&body.messages)?;
        Ok(Tx {
            hash: hash_of(&bytes),
            messages,
            sender,
            public_key: signer.public_key.as_ref().map(public_key).transpose()?,
            sequence: signer.sequence,
            gas_wanted: fee.gas_limit,
            // A fee of "0ustake" is no fee to the chain either.
            fee: coins(
                &fee.amount
                    .into_iter()
                    .filter(|coin| coin.amount != "0")
                    .collect::<Vec<_>>(),
            )?,
            signature: signature.clone(),
            is_verified: false,
            mode,
            timeout_height: body.timeout_height,
            body_bytes: raw.body_bytes,
            auth_info_bytes: raw.auth_info_bytes,
            bytes,
        })
    }

    /// Refuses a sign mode that this chain does not know.
    pub(crate) fn check_mode(&self) -> Result<(), Refusal> {
        if ![DIRECT, AMINO_JSON].contains(&self.mode) {
            let log = "this chain takes the sign modes DIRECT and LEGACY_AMINO_JSON of a single signer only";
            return Err(code::UNAUTHORIZED.with(log));
        }
        Ok(())
    }

    /// Whether the key signed exactly this transaction for this chain and account.
    pub(crate) fn is_signed_by(&self, public_key: &[u8; 33], chain_id: &str, account_number: u64) -> bool {
        let Some(document) = self.signed_document(chain_id, account_number) else {
            return false;
        };
        let digest = Sha256::digest(document);
        let (Ok(key), Ok(signature)) = (
            VerifyingKey::from_sec1_bytes(public_key),
            Signature::from_slice(&self.signature),
        ) else {
            return false;
        };
        // The chain takes low-s only, or every transaction would have a second hash.
        signature.normalize_s().is_none() && key.verify_prehash(&digest, &signature).is_ok()
    }

    fn signed_document(&self, chain_id: &str, account_number: u64) -> Option<Vec<u8>> {
        let (body, auth) = (&self.body_bytes, &self.auth_info_bytes);
        if self.mode == AMINO_JSON {
            return amino::document(body, auth, chain_id, account_number, self.sequence);
        }
        let document = SignDoc {
            body_bytes: body.clone(),
            auth_info_bytes: auth.clone(),
            chain_id: chain_id.to_owned(),
            account_number,
        };
        Some(document.encode_to_vec())
    }

    /// Refuses a transaction whose last height has passed.
    pub(crate) fn check_timeout(&self, height: u64) -> Result<(), Refusal> {
        if self.timeout_height != 0 && height > self.timeout_height {
            let log = format!("block height: {height}, timeout height: {}", self.timeout_height);
            return Err(code::TIMEOUT_HEIGHT.with(log));
        }
        Ok(())
    }
}

/// The address of a key under a prefix.
pub(crate) fn address_of(public_key: &[u8; 33], prefix: &str) -> Option<String> {
    let key = VerifyingKey::from_sec1_bytes(public_key).ok()?;
    let id = cosmrs::crypto::PublicKey::from(key).account_id(prefix).ok()?;
    Some(id.to_string())
}

/// Whether the text is an address with this prefix.
pub(crate) fn is_address(text: &str, prefix: &str) -> bool {
    text.parse::<cosmrs::AccountId>().is_ok_and(|id| id.prefix() == prefix)
}

/// The protobuf `TxMsgData` of a successful transaction: one response a message.
pub(crate) fn responses(messages: &[Message], data: Vec<Vec<u8>>) -> Vec<u8> {
    let responses = messages.iter().zip(data).map(|(message, value)| Any {
        type_url: format!("{}Response", message.action()),
        value,
    });
    #[allow(
        deprecated,
        reason = "the deprecated field stays empty, but a struct literal must name it"
    )]
    let data = TxMsgData {
        data: vec![],
        msg_responses: responses.collect(),
    };
    data.encode_to_vec()
}

fn messages(anys: &[Any]) -> Result<(String, Vec<Message>), Refusal> {
    let decoded: Result<Vec<(String, Message)>, Refusal> = anys.iter().map(message).collect();
    let (senders, messages): (Vec<String>, Vec<Message>) = decoded?.into_iter().unzip();
    let Some(sender) = senders.first().cloned() else {
        return Err(code::INVALID_REQUEST.with("must contain at least one message"));
    };
    if senders.iter().any(|other| *other != sender) {
        return Err(code::UNAUTHORIZED.with("messages of several senders, this chain takes one signer"));
    }
    Ok((sender, messages))
}

fn message(any: &Any) -> Result<(String, Message), Refusal> {
    let value = any.value.as_slice();
    if any.type_url == MsgExecuteContract::type_url() {
        let decoded = MsgExecuteContract::decode(value).map_err(parse_error)?;
        check_address("contract", &decoded.contract)?;
        let (contract, msg, funds) = (decoded.contract, decoded.msg, coins(&decoded.funds)?);
        check_payload(&msg)?;
        return Ok((decoded.sender, Message::Execute { contract, msg, funds }));
    }
    if any.type_url == MsgSend::type_url() {
        let decoded = MsgSend::decode(value).map_err(parse_error)?;
        // The bank looks at the amount when it moves it.
        let amount: Result<Vec<Coin>, Refusal> = decoded.amount.iter().map(coin).collect();
        let (to, amount) = (decoded.to_address, amount?);
        return Ok((decoded.from_address, Message::Send { to, amount }));
    }
    if any.type_url == MsgInstantiateContract::type_url() {
        let decoded = MsgInstantiateContract::decode(value).map_err(parse_error)?;
        check_instantiation(&decoded)?;
        let message = Message::Instantiate {
            code_id: decoded.code_id,
            msg: decoded.msg,
            label: decoded.label,
            admin: Some(decoded.admin).filter(|admin| !admin.is_empty()),
            funds: coins(&decoded.funds)?,
        };
        return Ok((decoded.sender, message));
    }
    if let Some(decoded) = about_code(any)? {
        return Ok(decoded);
    }
    let reason = if any.type_url == MsgStoreCode::type_url() {
        "contracts are compiled into this chain, and no other code can be stored".to_owned()
    } else {
        format!("this chain does not run {}", any.type_url)
    };
    Err(code::UNKNOWN_REQUEST.with(reason))
}

/// What a chain looks at before anything else, and charges nothing for.
fn check_instantiation(message: &MsgInstantiateContract) -> Result<(), Refusal> {
    if message.code_id == 0 {
        return Err(code::INVALID_REQUEST.with("code id is required"));
    }
    if message.label.is_empty() {
        return Err(code::EMPTY.with("label: is required"));
    }
    if !message.admin.is_empty() {
        check_address("admin", &message.admin)?;
    }
    check_payload(&message.msg)
}

fn check_address(field: &str, address: &str) -> Result<(), Refusal> {
    addresses::check(address).map_err(|reason| Refusal::unregistered(format!("{field}: {reason}")))
}

fn check_payload(msg: &[u8]) -> Result<(), Refusal> {
    let json: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(msg);
    json.map(drop).map_err(|_| code::INVALID.with("payload msg"))
}

/// Messages about the code of a contract, and about who may change it.
fn about_code(any: &Any) -> Result<Option<(String, Message)>, Refusal> {
    let value = any.value.as_slice();
    if any.type_url == MsgMigrateContract::type_url() {
        let decoded = MsgMigrateContract::decode(value).map_err(parse_error)?;
        let (contract, code_id, msg) = (decoded.contract, decoded.code_id, decoded.msg);
        return Ok(Some((decoded.sender, Message::Migrate { contract, code_id, msg })));
    }
    if any.type_url == MsgUpdateAdmin::type_url() {
        let decoded = MsgUpdateAdmin::decode(value).map_err(parse_error)?;
        if decoded.sender.eq_ignore_ascii_case(&decoded.new_admin) {
            return Err(code::INVALID.with("new admin is the same as the old"));
        }
        let (contract, admin) = (decoded.contract, Some(decoded.new_admin));
        return Ok(Some((decoded.sender, Message::UpdateAdmin { contract, admin })));
    }
    if any.type_url == MsgClearAdmin::type_url() {
        let decoded = MsgClearAdmin::decode(value).map_err(parse_error)?;
        let (contract, admin) = (decoded.contract, None);
        return Ok(Some((decoded.sender, Message::UpdateAdmin { contract, admin })));
    }
    Ok(None)
}

fn public_key(any: &Any) -> Result<[u8; 33], Refusal> {
    let refused = || code::INVALID_PUBKEY.with("a compressed secp256k1 key is needed");
    if any.type_url != cosmrs::crypto::PublicKey::SECP256K1_TYPE_URL {
        return Err(refused());
    }
    let key = PubKey::decode(any.value.as_slice()).map_err(|_| refused())?;
    key.key.try_into().map_err(|_| refused())
}

/// Coins as the chain takes them: sorted, each denomination once, none zero.
fn coins(coins: &[ProtoCoin]) -> Result<Vec<Coin>, Refusal> {
    let parsed: Result<Vec<Coin>, Refusal> = coins.iter().map(coin).collect();
    let parsed = parsed?;
    let sorted = parsed.windows(2).all(|pair| match pair {
        [left, right] => left.denom < right.denom,
        _ => true,
    });
    if !sorted || parsed.iter().any(|coin| coin.amount.is_zero()) {
        return Err(code::INVALID_COINS.with("coins must be sorted, different and above zero"));
    }
    Ok(parsed)
}

fn coin(coin: &ProtoCoin) -> Result<Coin, Refusal> {
    let amount: u128 = coin
        .amount
        .parse()
        .map_err(|_| code::INVALID_COINS.with(format!("{:?} is no amount", coin.amount)))?;
    Ok(Coin::new(amount, coin.denom.clone()))
}

fn parse_error(error: impl std::fmt::Display) -> Refusal {
    code::TX_PARSE.with(error)
}

/// A transaction of nobody, for tests.
#[cfg(test)]
pub(crate) fn example(fee: Vec<Coin>) -> Tx {
    Tx {
        hash: [1; 32],
        bytes: vec![],
        messages: vec![],
        sender: "wasm1sender".into(),
        public_key: None,
        sequence: 0,
        gas_wanted: 0,
        fee,
        signature: vec![],
        is_verified: false,
        mode: DIRECT,
        timeout_height: 0,
        body_bytes: vec![],
        auth_info_bytes: vec![],
    }
}

#[cfg(test)]
mod tests;
