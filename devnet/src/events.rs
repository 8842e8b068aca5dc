//! Events of a transaction as they are kept: one piece of memory instead of a hundred. Tens of thousands of transactions are
//! remembered, and events are most of what they are.

use cosmwasm_std::Event;

/// The events of one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events(Box<[u8]>);

/// One event of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept<'a> {
    pub(crate) ty: &'a str,
    attributes: &'a [u8],
}

impl Events {
    pub(crate) fn pack(events: &[Event]) -> Events {
        let mut bytes = vec![];
        let mut attributes = vec![];
        for event in events {
            attributes.clear();
            for attribute in &event.attributes {
                put(&mut attributes, attribute.key.as_bytes());
                put(&mut attributes, attribute.value.as_bytes());
            }
            put(&mut bytes, event.ty.as_bytes());
            put(&mut bytes, &attributes);
        }
        Events(bytes.into_boxed_slice())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Kept<'_>> {
        pairs(&self.0).map(|(ty, attributes)| Kept {
            ty: text(ty),
            attributes,
        })
    }

    /// All of it, for digests and sizes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> Kept<'a> {
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        pairs(self.attributes).map(|(key, value)| (text(key), text(value)))
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    bytes.extend(length.to_le_bytes());
    bytes.extend(part);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (part, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    *rest = after;
    Some(part)
}

fn pairs(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || Some((take(&mut rest)?, take(&mut rest)?)))
}

/// Only text is packed.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        let events = [
            Event::new("transfer")
                .add_attribute("amount", "5ustake")
                .add_attribute("empty", ""),
            Event::new("bare"),
            Event::new("wasm-ünïcode").add_attribute("clé", "värde"),
        ];
        let packed = Events::pack(&events);
        let unpacked: Vec<Event> = packed
            .iter()
            .map(|event| Event::new(event.ty).add_attributes(event.attributes()))
            .collect();
        assert_eq!(unpacked, events);
        assert_eq!(Events::pack(&[]).iter().count(), 0);
    }
}
