//! Amounts of FUNC as people write them. On the chain and in JSON they are whole numbers of ufunc.

use std::{fmt, str::FromStr};

use cosmwasm_std::Uint128;
use schema::UFUNC;
use serde::{Serialize, Serializer};

/// Digits after the point.
const DECIMALS: usize = 6;

/// Ufunc. Reads `12.5`, `12.5FUNC` or `12500000ufunc`; shows `12.5`. JSON: the number of ufunc, which is exact because all FUNC
/// there is (10^15) is below 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Func(pub(crate) u128);

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no amount of FUNC: write for example 12.5, 12.5FUNC or 12500000ufunc (at most 6 digits after the point)")]
pub(crate) struct ParseFuncError {
    text: String,
}

impl FromStr for Func {
    type Err = ParseFuncError;

    fn from_str(text: &str) -> Result<Self, ParseFuncError> {
        let parsed = match text.strip_suffix("ufunc") {
            Some(units) => whole(units.trim_end()),
            None => decimal(text.strip_suffix("FUNC").unwrap_or(text).trim_end()),
        };
        let refused = || ParseFuncError {
            text: text.chars().take(80).collect(),
        };
        parsed.map(Self).ok_or_else(refused)
    }
}

fn whole(text: &str) -> Option<u128> {
    // `u128::from_str` would take a plus sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn decimal(text: &str) -> Option<u128> {
    let (units, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.len() > DECIMALS {
        return None;
    }
    let scaled = whole(&format!("{fraction:0<DECIMALS$}")).filter(|_| !fraction.is_empty())?;
    whole(units)?.checked_mul(UFUNC)?.checked_add(scaled)
}

impl Func {
    /// With all six digits after the point, so that a column of amounts lines up.
    pub(crate) fn column(self) -> String {
        format!("{}.{:06}", self.0 / UFUNC, self.0 % UFUNC)
    }
}

impl fmt::Display for Func {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.column();
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Serialize for Func {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u128(self.0)
    }
}

impl From<Uint128> for Func {
    fn from(amount: Uint128) -> Self {
        Self(amount.u128())
    }
}

impl From<Func> for Uint128 {
    fn from(amount: Func) -> Self {
        Self::new(amount.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        for (text, ufunc) in [
            ("1", 1_000_000),
            ("12.5", 12_500_000),
            ("0.000001", 1),
            ("12.5FUNC", 12_500_000),
            ("7 FUNC", 7_000_000),
            ("7ufunc", 7),
        ] {
            assert_eq!(text.parse(), Ok(Func(ufunc)), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        let long = "9".repeat(60);
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1.0000001",
            "1,5",
            "ufunc",
            "1.5ufunc",
            "FUNC",
            &long,
        ] {
            assert!(text.parse::<Func>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ufunc in 0..=schema::TOTAL_SUPPLY) {
            prop_assert_eq!(Func(ufunc).to_string().parse(), Ok(Func(ufunc)));
        }
    }
}
