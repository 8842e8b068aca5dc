//! Configuration of a service: a TOML file, then flags, then `FXN_<SERVICE>_<FIELD>` of the environment, in rising precedence.
//!
//! All three only fill one table; the service's own type reads it and refuses what it does not know, so a misspelt name in any of them
//! stops the program.

use std::{fs, path::Path};

use anyhow::{anyhow, Context as _, Result};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// The fields collected so far.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    table: Table,
    service: &'static str,
    /// Fields that hold several values, in the environment separated by commas.
    lists: &'static [&'static str],
}

impl Layers {
    /// Starts with what the file says, if one is named.
    pub(crate) fn new(service: &'static str, lists: &'static [&'static str], file: Option<&Path>) -> Result<Self> {
        let table = match file {
            None => Table::new(),
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
                text.parse().with_context(|| format!("{} is no TOML", path.display()))?
            }
        };
        Ok(Self { table, service, lists })
    }

    /// What holds where nothing else is said.
    pub(crate) fn default(&mut self, field: &str, value: impl Into<Value>) {
        self.table.entry(field).or_insert_with(|| value.into());
    }

    /// A flag, if it was given.
    pub(crate) fn flag(&mut self, field: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.table.insert(field.to_owned(), value.into());
        }
    }

    /// Reads `FXN_<SERVICE>_<FIELD>`.
    pub(crate) fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let prefix = format!("FXN_{}_", self.service.to_uppercase());
        for (name, text) in variables {
            if let Some(field) = name.strip_prefix(&prefix) {
                let field = field.to_lowercase();
                let value = self.read(&field, &text);
                self.table.insert(field, value);
            }
        }
    }

    fn read(&self, field: &str, text: &str) -> Value {
        if self.lists.contains(&field) {
            let parts = text.split(',').filter(|part| !part.is_empty());
            return Value::Array(parts.map(|part| Value::String(part.to_owned())).collect());
        }
        // `8`, `true` and `"500ms"` are themselves; anything that is no TOML value is a text.
        let value = format!("value = {text}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("value"));
        value.unwrap_or_else(|| Value::String(text.to_owned()))
    }

    /// The finished configuration.
    pub(crate) fn finish<T: DeserializeOwned>(self) -> Result<T> {
        let service = self.service;
        self.table.try_into().map_err(|error: toml::de::Error| {
            // Names of Rust's types help nobody.
            let mut said = error.to_string();
            for number in ["usize", "u64", "u32", "u16", "u8"] {
                said = said.replace(&format!("expected {number}"), "expected a whole number");
            }
            anyhow!("the configuration of {service} cannot be used: {said}")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq, Eq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        listen: String,
        threads: u32,
        sources: Vec<String>,
    }

    fn layers(file: &str) -> Layers {
        let path = tempfile::NamedTempFile::new().unwrap();
        fs::write(path.path(), file).unwrap();
        Layers::new("host", &["sources"], Some(path.path())).unwrap()
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_environment_beats_flags_and_flags_beat_the_file() {
        let mut layers = layers("listen = \"file\"\nthreads = 1\nsources = [\"file\"]\n");
        layers.default("listen", "default");
        layers.flag("listen", Some("flag"));
        layers.flag("threads", Some(2));
        layers.flag("sources", None::<String>);
        layers.environment(variables(&[
            ("FXN_HOST_THREADS", "3"),
            ("FXN_HOST_SOURCES", "a,http://b:1"),
            ("FXN_HOME", "x"),
        ]));
        let config: Config = layers.finish().unwrap();
        let sources = vec!["a".to_owned(), "http://b:1".to_owned()];
        assert_eq!(
            config,
            Config {
                listen: "flag".into(),
                threads: 3,
                sources
            }
        );
    }

    #[test]
    fn a_misspelt_name_stops_the_program_wherever_it_stands() {
        let mut layers = layers("listen = \"a\"\nthreads = 1\nsources = []\n");
        layers.environment(variables(&[("FXN_HOST_TREADS", "3")]));
        let error = format!("{:#}", layers.finish::<Config>().unwrap_err());
        assert!(error.contains("treads"), "{error}");
    }
}
