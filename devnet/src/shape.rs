//! Events as wasmd writes them: what cw-multi-test leaves out is added here, what it adds is taken away.
//!
//! The table of differences is in the design facts; the tests below hold each line of it.

use cosmwasm_std::{Attribute, Coin, Event, WasmMsg};

use crate::transaction::{Message, Tx};

/// The events of fee and signature, present even when the transaction's messages fail. They carry no message index.
pub(crate) fn ante(tx: &Tx, collector: &str, public_signature: &str) -> Vec<Event> {
    let fee = text(&tx.fee);
    let mut events = vec![];
    if !tx.fee.is_empty() {
        events.extend(moved(&tx.sender, collector, &fee));
        events.push(event("message", &[("sender", &tx.sender)]));
    }
    events.push(event("tx", &[("fee", &fee), ("fee_payer", &tx.sender)]));
    events.push(event("tx", &[("acc_seq", &format!("{}/{}", tx.sender, tx.sequence))]));
    events.push(event("tx", &[("signature", public_signature)]));
    events
}

/// The events of one message: its action, then what the bank and the contracts did, each with the message's index.
pub(crate) fn message(index: usize, sender: &str, message: &Message, raw: Vec<Event>) -> Vec<Event> {
    let marks = [
        ("action", message.action()),
        ("sender", sender.to_owned()),
        ("module", message.module().to_owned()),
    ];
    let mut events = vec![with(Event::new("message"), marks)];
    events.extend(raw.into_iter().map(chained));
    if matches!(message, Message::Send { .. }) {
        events.push(event("message", &[("sender", sender)]));
    }
    let index = index.to_string();
    events
        .into_iter()
        .map(|event| with(event, [("msg_index", index.clone())]))
        .collect()
}

/// One event of cw-multi-test as the chain has it: a reply does not tell how its message ended.
fn chained(raw: Event) -> Event {
    if raw.ty != "reply" {
        return raw;
    }
    let kept = raw.attributes.into_iter().filter(|attribute| attribute.key != "mode");
    Event::new("reply").add_attributes(kept)
}

/// The events of coins that a contract destroys: they go through the wasm module's account.
pub(crate) fn burnt(from: &str, module: &str, coins: &[Coin]) -> Vec<Event> {
    let amount = text(coins);
    let mut events = moved(from, module, &amount).to_vec();
    events.push(event("coin_spent", &[("spender", module), ("amount", &amount)]));
    events.push(event("burn", &[("burner", module), ("amount", &amount)]));
    events
}

/// The event of a contract that gets other code or another admin, as wasmd writes it.
pub(crate) fn of_code(message: &WasmMsg) -> Option<Event> {
    let admin = |contract: &str, admin: &str| {
        let attributes = [("_contract_address", contract), ("new_admin_address", admin)];
        event("update_contract_admin", &attributes)
    };
    match message {
        WasmMsg::Migrate {
            contract_addr,
            new_code_id,
            ..
        } => {
            let code_id = new_code_id.to_string();
            let attributes = [("code_id", code_id.as_str()), ("_contract_address", contract_addr)];
            Some(event("migrate", &attributes))
        }
        WasmMsg::UpdateAdmin {
            contract_addr,
            admin: new,
        } => Some(admin(contract_addr, new)),
        WasmMsg::ClearAdmin { contract_addr } => Some(admin(contract_addr, "")),
        _ => None,
    }
}

/// Orders the attributes of every event by their keys, as wasmd does with all that a message of a contract has led to.
pub(crate) fn sort(events: &mut [Event]) {
    for event in events {
        event.attributes.sort_by(|left, right| left.key.cmp(&right.key));
    }
}

/// The events of coins that move.
pub(crate) fn moved(from: &str, to: &str, amount: &str) -> [Event; 3] {
    [
        event("coin_spent", &[("spender", from), ("amount", amount)]),
        event("coin_received", &[("receiver", to), ("amount", amount)]),
        event("transfer", &[("recipient", to), ("sender", from), ("amount", amount)]),
    ]
}

/// Coins in the chain's text form.
pub(crate) fn text(coins: &[Coin]) -> String {
    let texts: Vec<String> = coins
        .iter()
        .map(|coin| format!("{}{}", coin.amount, coin.denom))
        .collect();
    texts.join(",")
}

/// The first value of an attribute.
pub(crate) fn attribute<'a>(event: &'a Event, key: &str) -> Option<&'a str> {
    let found = event.attributes.iter().find(|attribute| attribute.key == key);
    found.map(|attribute| attribute.value.as_str())
}

fn event(ty: &str, attributes: &[(&str, &str)]) -> Event {
    let attributes = attributes.iter().map(|(key, value)| (*key, (*value).to_owned()));
    with(Event::new(ty), attributes)
}

fn with<'a>(event: Event, attributes: impl IntoIterator<Item = (&'a str, String)>) -> Event {
    event.add_attributes(attributes.into_iter().map(|(key, value)| Attribute {
        key: key.to_owned(),
        value,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(events: &[Event]) -> Vec<String> {
        let line = |event: &Event| {
            let attributes = event
                .attributes
                .iter()
                .map(|attribute| format!("{}={}", attribute.key, attribute.value));
            format!("{} {}", event.ty, attributes.collect::<Vec<_>>().join(" "))
        };
        events.iter().map(line).collect()
    }

    #[test]
    fn a_reply_has_no_mode_and_every_event_ends_with_the_messages_index() {
        let raw = vec![event("reply", &[("mode", "handle_success"), ("k", "v")])];
        let execute = Message::Execute {
            contract: "wasm1contract".into(),
            msg: b"{}".to_vec(),
            funds: vec![],
        };
        assert_eq!(
            lines(&message(2, "wasm1sender", &execute, raw)),
            [
                "message action=/cosmwasm.wasm.v1.MsgExecuteContract sender=wasm1sender module=wasm msg_index=2",
                "reply k=v msg_index=2",
            ]
        );
    }

    #[test]
    fn a_native_transfer_ends_with_its_sender() {
        let send = Message::Send {
            to: "b".into(),
            amount: vec![Coin::new(1u128, "ustake")],
        };
        assert_eq!(
            lines(&message(0, "a", &send, moved("a", "b", "1ustake").into())),
            [
                "message action=/cosmos.bank.v1beta1.MsgSend sender=a module=bank msg_index=0",
                "coin_spent spender=a amount=1ustake msg_index=0",
                "coin_received receiver=b amount=1ustake msg_index=0",
                "transfer recipient=b sender=a amount=1ustake msg_index=0",
                "message sender=a msg_index=0",
            ]
        );
    }

    #[test]
    fn the_ante_events_are_fee_payer_sequence_and_signature_without_an_index() {
        let tx = crate::transaction::example(vec![Coin::new(7u128, "ustake")]);
        let sender = tx.sender.clone();
        assert_eq!(
            lines(&ante(&tx, "collector", "c2ln")),
            [
                format!("coin_spent spender={sender} amount=7ustake"),
                "coin_received receiver=collector amount=7ustake".to_owned(),
                format!("transfer recipient=collector sender={sender} amount=7ustake"),
                format!("message sender={sender}"),
                format!("tx fee=7ustake fee_payer={sender}"),
                format!("tx acc_seq={sender}/0"),
                "tx signature=c2ln".to_owned(),
            ]
        );
    }
}
