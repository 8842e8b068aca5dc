//! Result codes and their words, as the SDK and wasmd have them. Clients match on both.

use std::fmt::Display;

/// A registered error: codespace, code and the words that end its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) codespace: &'static str,
    pub(crate) code: u32,
    words: &'static str,
}

/// Why something was refused, as it goes into an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) codespace: &'static str,
    pub(crate) code: u32,
    pub(crate) log: String,
}

const fn sdk(code: u32, words: &'static str) -> Code {
    Code {
        codespace: "sdk",
        code,
        words,
    }
}

const fn wasm(code: u32, words: &'static str) -> Code {
    Code {
        codespace: "wasm",
        code,
        words,
    }
}

pub(crate) const TX_PARSE: Code = sdk(2, "tx parse error");
pub(crate) const UNAUTHORIZED: Code = sdk(4, "unauthorized");
pub(crate) const INSUFFICIENT_FUNDS: Code = sdk(5, "insufficient funds");
pub(crate) const UNKNOWN_REQUEST: Code = sdk(6, "unknown request");
pub(crate) const INVALID_ADDRESS: Code = sdk(7, "invalid address");
pub(crate) const INVALID_PUBKEY: Code = sdk(8, "invalid pubkey");
pub(crate) const UNKNOWN_ADDRESS: Code = sdk(9, "unknown address");
pub(crate) const INVALID_COINS: Code = sdk(10, "invalid coins");
pub(crate) const OUT_OF_GAS: Code = sdk(11, "out of gas");
pub(crate) const MEMO_TOO_LARGE: Code = sdk(12, "memo too large");
pub(crate) const INSUFFICIENT_FEE: Code = sdk(13, "insufficient fee");
pub(crate) const INVALID_REQUEST: Code = sdk(18, "invalid request");
pub(crate) const NOT_FOUND: Code = sdk(22, "key not found");
pub(crate) const INVALID_HEIGHT: Code = sdk(26, "invalid height");
pub(crate) const TIMEOUT_HEIGHT: Code = sdk(30, "tx timeout height");
pub(crate) const WRONG_SEQUENCE: Code = sdk(32, "incorrect account sequence");
pub(crate) const INSTANTIATE_FAILED: Code = wasm(4, "instantiate wasm contract failed");
pub(crate) const EXECUTE_FAILED: Code = wasm(5, "execute wasm contract failed");
pub(crate) const QUERY_FAILED: Code = wasm(9, "query wasm contract failed");
pub(crate) const MIGRATE_FAILED: Code = wasm(11, "migrate wasm contract failed");
pub(crate) const EMPTY: Code = wasm(12, "empty");
pub(crate) const INVALID: Code = wasm(14, "invalid");
pub(crate) const NO_SUCH_CONTRACT: Code = wasm(22, "no such contract");
pub(crate) const QUERY_DEPTH: Code = wasm(27, "max query stack size exceeded");
pub(crate) const NO_SUCH_CODE: Code = wasm(28, "no such code");
pub(crate) const VM: Code = wasm(29, "wasmvm error");
pub(crate) const CALL_DEPTH: Code = wasm(30, "max call depth exceeded");

impl Code {
    /// The refusal with its reason before the registered words.
    pub(crate) fn with(self, reason: impl Display) -> Refusal {
        Refusal {
            codespace: self.codespace,
            code: self.code,
            log: format!("{reason}: {}", self.words),
        }
    }
}

impl Refusal {
    /// What the SDK says of a failure that nobody has registered a code for.
    pub(crate) fn unregistered(log: String) -> Refusal {
        let (codespace, code) = ("undefined", 1);
        Refusal { codespace, code, log }
    }

    /// The same refusal as the failure of one message of a transaction.
    pub(crate) fn of_message(mut self, index: usize) -> Refusal {
        self.log = format!("failed to execute message; message index: {index}: {}", self.log);
        self
    }

    /// The same refusal as the answer to a query: the chain folds all codes but "not found" into one.
    pub(crate) fn of_query(self) -> Refusal {
        match self.code {
            code if code == NOT_FOUND.code && self.codespace == "sdk" => self,
            _ => UNKNOWN_REQUEST.with(self.log),
        }
    }
}
