//! Names of things. Their text forms are what events, commands and files carry.

use std::{fmt, str::FromStr};

use cosmwasm_schema::cw_serde;
use schemars::{gen::SchemaGenerator, schema::Schema, JsonSchema};
use serde::{de, Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    #[error("a name is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit, found {found:?}")]
    Name { found: String },
    #[error("a model is named namespace/name, found {found:?}")]
    Model { found: String },
    #[error("an item is named job.shard.replica, found {found:?}")]
    Item { found: String },
}

fn is_name(text: &str) -> bool {
    let head = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let tail = |c: &u8| head(*c) || matches!(c, b'.' | b'_' | b'-');
    let bytes = text.as_bytes();
    bytes.len() <= 64 && bytes.first().copied().is_some_and(head) && bytes.iter().all(tail)
}

fn quoted(text: &str) -> String {
    text.chars().take(140).collect()
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> String {
                stringify!($name).to_owned()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                String::json_schema(generator)
            }
        }
    };
}

text_id!(
    /// The first half of a model's name: `[a-z0-9][a-z0-9._-]{0,63}`, owned by the account that claimed it.
    Namespace
);
text_id!(
    /// `namespace/name`, each half as [`Namespace`].
    ModelId
);

impl FromStr for Namespace {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Name { found: quoted(text) })
        }
    }
}

impl FromStr for ModelId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(Self(text.to_owned())),
            _ => Err(IdError::Model { found: quoted(text) }),
        }
    }
}

impl ModelId {
    pub fn namespace(&self) -> Namespace {
        let (namespace, _) = self.0.split_once('/').unwrap_or((&self.0, ""));
        Namespace(namespace.to_owned())
    }
}

/// One shard-replica of a job: what is assigned, timed and paid. Reads `job.shard.replica`.
#[cw_serde]
#[derive(Copy, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    pub job: u64,
    pub shard: u16,
    pub replica: u8,
}

impl ItemId {
    /// As a storage key.
    pub fn key(self) -> (u64, u16, u8) {
        (self.job, self.shard, self.replica)
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.job, self.shard, self.replica)
    }
}

impl FromStr for ItemId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let parse = || {
            let mut parts = text.split('.');
            let id = Self {
                job: parts.next()?.parse().ok()?,
                shard: parts.next()?.parse().ok()?,
                replica: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(id)
        };
        parse().ok_or_else(|| IdError::Item { found: quoted(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_names_are_model_ids() {
        for good in ["demo/all-minilm-l6-v2", "a/b", "0.x_y-z/0"] {
            assert_eq!(good.parse::<ModelId>().unwrap().as_str(), good);
        }
        let long = format!("{}/b", "a".repeat(65));
        for bad in ["", "/", "a/", "/b", "a", "a/b/c", "A/b", "-a/b", "a/b c", "a/é", &long] {
            assert!(bad.parse::<ModelId>().is_err(), "{bad}");
        }
        assert_eq!("a/b".parse::<ModelId>().unwrap().namespace().as_str(), "a");
    }

    #[test]
    fn item_ids_read_back() {
        let item = ItemId {
            job: 7,
            shard: 3,
            replica: 1,
        };
        assert_eq!(item.to_string().parse(), Ok(item));
        for bad in ["", "1.2", "1.2.3.4", "1.2.256", "1.-2.3", "a.b.c"] {
            assert!(bad.parse::<ItemId>().is_err(), "{bad}");
        }
    }
}
