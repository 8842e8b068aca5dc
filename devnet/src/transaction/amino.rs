//! The sign mode of hardware wallets and older web wallets: the signature is over a JSON form of the transaction, its keys sorted.

use cosmrs::proto::{
    cosmos::{
        bank::v1beta1::MsgSend,
        base::v1beta1::Coin,
        tx::v1beta1::{AuthInfo, TxBody},
    },
    cosmwasm::wasm::v1::{
        MsgClearAdmin, MsgExecuteContract, MsgInstantiateContract, MsgMigrateContract, MsgUpdateAdmin,
    },
    traits::{Message as _, Name},
};
use cosmrs::Any;
use serde_json::{json, Map, Value};

/// What is signed, or nothing if the transaction has no such form.
pub(super) fn document(
    body: &[u8],
    auth: &[u8],
    chain_id: &str,
    account_number: u64,
    sequence: u64,
) -> Option<Vec<u8>> {
    let body = TxBody::decode(body).ok()?;
    let fee = AuthInfo::decode(auth).ok()?.fee?;
    let mut stated = json!({ "amount": coins(&fee.amount), "gas": fee.gas_limit.to_string() });
    for (key, who) in [("payer", fee.payer), ("granter", fee.granter)] {
        if !who.is_empty() {
            stated[key] = json!(who);
        }
    }
    let messages: Option<Vec<Value>> = body.messages.iter().map(message).collect();
    let mut document = json!({
        "account_number": account_number.to_string(),
        "chain_id": chain_id,
        "fee": stated,
        "memo": body.memo,
        "msgs": messages?,
        "sequence": sequence.to_string(),
    });
    if body.timeout_height != 0 {
        document["timeout_height"] = json!(body.timeout_height.to_string());
    }
    // The maps of this crate's JSON are sorted. These characters stand in texts only, and Go escapes them there.
    let mut text = document.to_string();
    for (plain, escaped) in [
        ("&", "\\u0026"),
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("\u{2028}", "\\u2028"),
        ("\u{2029}", "\\u2029"),
    ] {
        text = text.replace(plain, escaped);
    }
    Some(text.into_bytes())
}

fn message(any: &Any) -> Option<Value> {
    let bytes = any.value.as_slice();
    let (name, value) = if any.type_url == MsgExecuteContract::type_url() {
        let message = MsgExecuteContract::decode(bytes).ok()?;
        let msg: Value = serde_json::from_slice(&message.msg).ok()?;
        let value = json!({
            "sender": message.sender, "contract": message.contract, "msg": msg, "funds": coins(&message.funds),
        });
        ("wasm/MsgExecuteContract", value)
    } else if any.type_url == MsgInstantiateContract::type_url() {
        let message = MsgInstantiateContract::decode(bytes).ok()?;
        let msg: Value = serde_json::from_slice(&message.msg).ok()?;
        let mut value = json!({
            "sender": message.sender, "code_id": message.code_id.to_string(), "msg": msg, "funds": coins(&message.funds),
        });
        for (key, text) in [("admin", message.admin), ("label", message.label)] {
            if !text.is_empty() {
                value[key] = json!(text);
            }
        }
        ("wasm/MsgInstantiateContract", value)
    } else if any.type_url == MsgSend::type_url() {
        let message = MsgSend::decode(bytes).ok()?;
        let value = json!({
            "from_address": message.from_address, "to_address": message.to_address, "amount": coins(&message.amount),
        });
        ("cosmos-sdk/MsgSend", value)
    } else if any.type_url == MsgMigrateContract::type_url() {
        let message = MsgMigrateContract::decode(bytes).ok()?;
        let msg: Value = serde_json::from_slice(&message.msg).ok()?;
        let value = json!({
            "sender": message.sender, "contract": message.contract, "code_id": message.code_id.to_string(), "msg": msg,
        });
        ("wasm/MsgMigrateContract", value)
    } else if any.type_url == MsgUpdateAdmin::type_url() {
        let message = MsgUpdateAdmin::decode(bytes).ok()?;
        let value = json!({ "sender": message.sender, "contract": message.contract, "new_admin": message.new_admin });
        ("wasm/MsgUpdateAdmin", value)
    } else if any.type_url == MsgClearAdmin::type_url() {
        let message = MsgClearAdmin::decode(bytes).ok()?;
        (
            "wasm/MsgClearAdmin",
            json!({ "sender": message.sender, "contract": message.contract }),
        )
    } else {
        return None;
    };
    let parts = [("type".to_owned(), json!(name)), ("value".to_owned(), value)];
    Some(Value::Object(Map::from_iter(parts)))
}

fn coins(coins: &[Coin]) -> Value {
    let coins = coins
        .iter()
        .map(|coin| json!({ "denom": coin.denom, "amount": coin.amount }));
    coins.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cosmrs::proto::cosmos::tx::v1beta1::Fee;

    #[test]
    fn the_document_is_sorted_and_escaped_as_wallets_sign_it() {
        let execute = MsgExecuteContract {
            sender: "wasm1a".into(),
            contract: "wasm1b".into(),
            msg: br#"{"z":{"b":"1 < 2 & 3","a":1}}"#.to_vec(),
            funds: vec![],
        };
        let body = TxBody {
            messages: vec![Any {
                type_url: MsgExecuteContract::type_url(),
                value: execute.encode_to_vec(),
            }],
            memo: "hello".into(),
            ..TxBody::default()
        };
        let coin = Coin {
            denom: "ustake".into(),
            amount: "5".into(),
        };
        let auth = AuthInfo {
            fee: Some(Fee {
                amount: vec![coin],
                gas_limit: 7,
                ..Fee::default()
            }),
            ..AuthInfo::default()
        };
        let document = document(&body.encode_to_vec(), &auth.encode_to_vec(), "chain", 3, 4).unwrap();
        let expected = concat!(
            r#"{"account_number":"3","chain_id":"chain","fee":{"amount":[{"amount":"5","denom":"ustake"}],"gas":"7"},"#,
            r#""memo":"hello","msgs":[{"type":"wasm/MsgExecuteContract","value":{"contract":"wasm1b","funds":[],"#,
            r#""msg":{"z":{"a":1,"b":"1 \u003c 2 \u0026 3"}},"sender":"wasm1a"}}],"sequence":"4"}"#
        );
        assert_eq!(String::from_utf8(document).unwrap(), expected);
    }
}
