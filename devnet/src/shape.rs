//! Events as wasmd writes them: what cw-multi-test leaves out is added here, what it adds is taken away.
//!
//! The table of differences is in the design facts; the tests below hold each line of it.

use cosmwasm_std::{Attribute, Coin, Event};

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

/// The events of one message: its action, the coins it moves, then what the contracts did, each with the message's index.
pub(crate) fn message(index: usize, sender: &str, message: &Message, raw: Vec<Event>) -> Vec<Event> {
    let marks = [
        ("action", message.action()),
        ("sender", sender.to_owned()),
        ("module", message.module().to_owned()),
    ];
    let mut events = vec![with(Event::new("message"), marks)];
    if let Some((receiver, funds)) = funds_receiver(message, &raw) {
        events.extend(moved(sender, &receiver, &text(funds)));
    }
    raw.into_iter().for_each(|raw| events.extend(chained(raw)));
    if matches!(message, Message::Send { .. }) {
        events.push(event("message", &[("sender", sender)]));
    }
    let index = index.to_string();
    events
        .into_iter()
        .map(|event| with(event, [("msg_index", index.clone())]))
        .collect()
}

/// Where coins that ride on a message go; cw-multi-test moves them silently.
fn funds_receiver<'a>(message: &'a Message, raw: &[Event]) -> Option<(String, &'a [Coin])> {
    let (receiver, funds) = match message {
        Message::Send { .. } => return None,
        Message::Execute { contract, funds, .. } => (contract.clone(), funds),
        Message::Instantiate { funds, .. } => {
            let made = raw.iter().find(|event| event.ty == "instantiate")?;
            (attribute(made, "_contract_address")?.to_owned(), funds)
        }
    };
    (!funds.is_empty()).then_some((receiver, funds.as_slice()))
}

/// One event of cw-multi-test as the chain has it.
fn chained(raw: Event) -> Vec<Event> {
    match raw.ty.as_str() {
        "transfer" => {
            let part = |key| attribute(&raw, key).unwrap_or_default().to_owned();
            moved(&part("sender"), &part("recipient"), &part("amount")).into()
        }
        "reply" => {
            let kept = raw.attributes.into_iter().filter(|attribute| attribute.key != "mode");
            vec![Event::new("reply").add_attributes(kept)]
        }
        _ => vec![raw],
    }
}

fn moved(from: &str, to: &str, amount: &str) -> [Event; 3] {
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

    fn execute(funds: Vec<Coin>) -> Message {
        Message::Execute {
            contract: "wasm1contract".into(),
            msg: b"{}".to_vec(),
            funds,
        }
    }

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
    fn funds_of_an_execution_show_before_it() {
        let raw = vec![event("execute", &[]), event("wasm-held", &[("job", "1")])];
        let events = message(2, "wasm1sender", &execute(vec![Coin::new(5u128, "ustake")]), raw);
        assert_eq!(
            lines(&events),
            [
                "message action=/cosmwasm.wasm.v1.MsgExecuteContract sender=wasm1sender module=wasm msg_index=2",
                "coin_spent spender=wasm1sender amount=5ustake msg_index=2",
                "coin_received receiver=wasm1contract amount=5ustake msg_index=2",
                "transfer recipient=wasm1contract sender=wasm1sender amount=5ustake msg_index=2",
                "execute msg_index=2",
                "wasm-held job=1 msg_index=2",
            ]
        );
    }

    #[test]
    fn a_reply_has_no_mode_and_a_contracts_transfer_shows_both_sides() {
        let raw = vec![
            event("reply", &[("mode", "handle_success"), ("k", "v")]),
            event(
                "transfer",
                &[("recipient", "b"), ("sender", "a"), ("amount", "1ustake")],
            ),
        ];
        let events = message(0, "s", &execute(vec![]), raw);
        assert_eq!(
            lines(&events)[1..],
            [
                "reply k=v msg_index=0",
                "coin_spent spender=a amount=1ustake msg_index=0",
                "coin_received receiver=b amount=1ustake msg_index=0",
                "transfer recipient=b sender=a amount=1ustake msg_index=0",
            ]
        );
    }
}
