//! The query language of subscriptions and searches: conditions joined by `AND`.
//!
//! Both dialects are taken: `tm.event = 'Tx' AND a.b = 'c'` of Rust clients and `tm.event='Tx' AND a.b='c'` of JavaScript ones.

use std::{cmp::Ordering, collections::BTreeMap};

use crate::history::Included;

/// Longest query text; a subscriber needs a tenth of it.
const QUERY_BYTES_MAX: usize = 512;

/// All values of each `type.attribute`.
pub(crate) type Attributes = BTreeMap<String, Vec<String>>;

/// A query that parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Contains(String),
    Compare(Operator, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The query does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse query: {reason} in {query:?}")]
pub(crate) struct BadQuery {
    query: String,
    reason: &'static str,
}

impl Filter {
    pub(crate) fn parse(query: &str) -> Result<Filter, BadQuery> {
        let failed = |reason| BadQuery {
            query: query.chars().take(QUERY_BYTES_MAX).collect(),
            reason,
        };
        if query.len() > QUERY_BYTES_MAX {
            return Err(failed("more than 512 bytes"));
        }
        let mut rest = query.trim();
        let mut conditions = vec![];
        while !rest.is_empty() {
            if !conditions.is_empty() {
                rest = rest
                    .strip_prefix("AND ")
                    .ok_or_else(|| failed("AND expected"))?
                    .trim_start();
            }
            let (condition, after) = condition(rest).map_err(failed)?;
            conditions.push(condition);
            rest = after.trim_start();
        }
        if conditions.is_empty() {
            return Err(failed("no condition"));
        }
        Ok(Filter { conditions })
    }

    pub(crate) fn matches(&self, attributes: &Attributes) -> bool {
        self.conditions.iter().all(|condition| {
            let values = attributes.get(&condition.key).map(Vec::as_slice).unwrap_or_default();
            match &condition.test {
                Test::Exists => !values.is_empty(),
                Test::Contains(part) => values.iter().any(|value| value.contains(part)),
                Test::Compare(operator, operand) => values.iter().any(|value| holds(*operator, value, operand)),
            }
        })
    }

    /// The least and the greatest number that a key may have, so that a search need not look at everything.
    pub(crate) fn range(&self, key: &str) -> (u64, u64) {
        let (mut least, mut most) = (0, u64::MAX);
        for Condition { test, .. } in self.conditions.iter().filter(|condition| condition.key == key) {
            let Test::Compare(operator, operand) = test else {
                continue;
            };
            let Ok(operand) = operand.parse::<u64>() else { continue };
            match operator {
                Operator::Equal => (least, most) = (least.max(operand), most.min(operand)),
                Operator::Less => most = most.min(operand.saturating_sub(1)),
                Operator::LessOrEqual => most = most.min(operand),
                Operator::Greater => least = least.max(operand.saturating_add(1)),
                Operator::GreaterOrEqual => least = least.max(operand),
            }
        }
        (least, most)
    }

    /// The value that a key must equal, where the query says so: a search by hash or height need not look at everything.
    pub(crate) fn equals(&self, key: &str) -> Option<&str> {
        self.conditions.iter().find_map(|condition| match &condition.test {
            Test::Compare(Operator::Equal, operand) if condition.key == key => Some(operand.as_str()),
            _ => None,
        })
    }
}

fn condition(text: &str) -> Result<(Condition, &str), &'static str> {
    let end = text.find(|letter: char| letter.is_whitespace() || "=<>".contains(letter));
    let (key, rest) = text.split_at(end.unwrap_or(text.len()));
    if key.is_empty() {
        return Err("a key expected");
    }
    let rest = rest.trim_start();
    let with = |test| Condition {
        key: key.to_owned(),
        test,
    };
    if let Some(rest) = rest.strip_prefix("EXISTS") {
        return Ok((with(Test::Exists), rest));
    }
    if let Some(rest) = rest.strip_prefix("CONTAINS") {
        let (part, rest) = operand(rest.trim_start())?;
        return Ok((with(Test::Contains(part)), rest));
    }
    let operators = [
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("=", Operator::Equal),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let found = operators
        .into_iter()
        .find_map(|(sign, operator)| Some((operator, rest.strip_prefix(sign)?)));
    let (operator, rest) = found.ok_or("an operator expected")?;
    let (operand, rest) = operand(rest.trim_start())?;
    Ok((with(Test::Compare(operator, operand)), rest))
}

fn operand(text: &str) -> Result<(String, &str), &'static str> {
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, rest) = quoted.split_once('\'').ok_or("an open quote")?;
        return Ok((value.to_owned(), rest));
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (value, rest) = text.split_at(end);
    if value.is_empty() {
        return Err("a value expected");
    }
    Ok((value.to_owned(), rest))
}

fn holds(operator: Operator, value: &str, operand: &str) -> bool {
    if operator == Operator::Equal {
        return value == operand;
    }
    // Numbers only; anything else compares as nothing.
    let (Ok(value), Ok(operand)) = (value.parse::<i128>(), operand.parse::<i128>()) else {
        return false;
    };
    match value.cmp(&operand) {
        Ordering::Less => matches!(operator, Operator::Less | Operator::LessOrEqual),
        Ordering::Equal => matches!(operator, Operator::LessOrEqual | Operator::GreaterOrEqual),
        Ordering::Greater => matches!(operator, Operator::Greater | Operator::GreaterOrEqual),
    }
}

/// What a transaction can be found by.
pub(crate) fn of_tx(tx: &Included, height: u64) -> Attributes {
    let mut attributes = Attributes::new();
    for event in tx.result.events.iter() {
        for (key, value) in event.attributes() {
            let key = format!("{}.{key}", event.ty);
            attributes.entry(key).or_default().push(value.to_owned());
        }
    }
    attributes.insert("tm.event".into(), vec!["Tx".into()]);
    attributes.insert("tx.hash".into(), vec![hex::encode_upper(tx.hash)]);
    attributes.insert("tx.height".into(), vec![height.to_string()]);
    attributes
}

/// What a block can be found by.
pub(crate) fn of_block(height: u64) -> Attributes {
    Attributes::from([
        ("tm.event".into(), vec!["NewBlock".into()]),
        ("block.height".into(), vec![height.to_string()]),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        Attributes::from([
            ("tm.event".into(), vec!["Tx".into()]),
            ("tx.height".into(), vec!["17".into()]),
            ("wasm._contract_address".into(), vec!["wasm1a".into(), "wasm1b".into()]),
        ])
    }

    fn matches(query: &str) -> bool {
        Filter::parse(query).unwrap().matches(&attributes())
    }

    #[test]
    fn both_dialects_are_taken() {
        assert!(matches("tm.event = 'Tx' AND wasm._contract_address = 'wasm1b'"));
        assert!(matches("tm.event='Tx' AND wasm._contract_address='wasm1a'"));
        assert!(!matches("tm.event='Tx' AND wasm._contract_address='wasm1c'"));
        assert!(!matches("tm.event='NewBlock'"));
    }

    #[test]
    fn numbers_compare_as_numbers() {
        assert!(matches("tx.height > 9") && matches("tx.height>=17") && matches("tx.height <= 17"));
        assert!(!matches("tx.height<17") && !matches("tx.height > 17") && !matches("tm.event > 1"));
        assert!(matches("tx.height=17"));
    }

    #[test]
    fn parts_and_presence_are_found() {
        assert!(matches("wasm._contract_address CONTAINS 'm1b'") && !matches("tm.event CONTAINS 'Block'"));
        assert!(matches("tx.height EXISTS AND tm.event EXISTS") && !matches("wasm.job EXISTS"));
    }

    #[test]
    fn what_is_no_query_is_refused_with_its_reason() {
        let cases = [
            "",
            "tm.event",
            "tm.event=",
            "tm.event='Tx",
            "a=1 OR b=2",
            "= 'Tx'",
            &"a".repeat(600),
        ];
        for query in cases {
            assert!(Filter::parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_search_by_hash_is_known_as_one() {
        let filter = Filter::parse("tx.hash='AB'").unwrap();
        assert_eq!(filter.equals("tx.hash"), Some("AB"));
        assert_eq!(filter.equals("tx.height"), None);
    }

    #[test]
    fn the_heights_of_a_search_are_known() {
        let range = |query| Filter::parse(query).unwrap().range("tx.height");
        assert_eq!(range("tx.height>5 AND tx.height <= 9"), (6, 9));
        assert_eq!(range("tx.height = 7"), (7, 7));
        assert_eq!(range("tx.height<7 AND tx.height>=2"), (2, 6));
        assert_eq!(range("a.b = 'c'"), (0, u64::MAX));
    }
}
