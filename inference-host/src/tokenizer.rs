//! Text to the rows that a model receives.
//!
//! A model's `tokenizer.json` may switch on truncation and padding of its own; both are overridden: rows are never padded (batches are, and
//! only inside the engine), and texts are cut at the model's `max_positions`, special tokens included.
//!
//! The file is a stranger's, and the library panics at some of what it should refuse: such a file is an error here like any other.

use std::panic::{catch_unwind, AssertUnwindSafe};

use partition::{Row, Tensor, TensorError, TensorSpec};
use tokenizers::{Tokenizer, TruncationParams};

/// Longest text; anything longer is refused before time is spent on it.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Why a text did not become a row.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("the model's tokenizer.json cannot be used: {source}")]
    Invalid { source: tokenizers::Error },
    #[error("{positions} positions leave no room for text beside {special} special tokens")]
    NoRoom { positions: u64, special: usize },
    #[error("the text has {bytes} bytes, at most {limit} are allowed")]
    TooLong { bytes: usize, limit: usize },
    #[error("the text cannot be tokenised: {source}")]
    Text { source: tokenizers::Error },
    #[error("the text has no tokens")]
    Empty,
    #[error("the model wants an input {input}, which text does not give")]
    UnknownInput { input: String },
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// A model's tokeniser.
#[derive(Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
}

/// A text as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub ids: Vec<u32>,
    /// 1 for every token: rows are not padded.
    pub attention_mask: Vec<u32>,
    pub type_ids: Vec<u32>,
}

impl TextTokenizer {
    /// A tokeniser from the bytes of `tokenizer.json`, cutting at `max_positions` tokens.
    pub fn new(tokenizer_json: &[u8], max_positions: u64) -> Result<Self, TokenizerError> {
        let invalid = |source| TokenizerError::Invalid { source };
        let mut tokenizer = guarded(|| Tokenizer::from_bytes(tokenizer_json)).map_err(invalid)?;
        let max_length = usize::try_from(max_positions).unwrap_or(usize::MAX);
        let special = tokenizer.get_post_processor().map_or(0, |processor| {
            use tokenizers::PostProcessor;
            processor.added_tokens(false)
        });
        if max_length <= special {
            return Err(TokenizerError::NoRoom {
                positions: max_positions,
                special,
            });
        }
        tokenizer.with_padding(None);
        let truncation = TruncationParams {
            max_length,
            ..TruncationParams::default()
        };
        tokenizer.with_truncation(Some(truncation)).map_err(invalid)?;
        Ok(Self { tokenizer })
    }

    /// The tokens of a text, special tokens included.
    pub fn encode(&self, text: &str) -> Result<Tokens, TokenizerError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenizerError::TooLong {
                bytes: text.len(),
                limit: TEXT_BYTES_MAX,
            });
        }
        let encoding =
            guarded(|| self.tokenizer.encode(text, true)).map_err(|source| TokenizerError::Text { source })?;
        match encoding.is_empty() {
            true => Err(TokenizerError::Empty),
            false => Ok(Tokens {
                ids: encoding.get_ids().to_vec(),
                attention_mask: encoding.get_attention_mask().to_vec(),
                type_ids: encoding.get_type_ids().to_vec(),
            }),
        }
    }
}

/// A panic as an error. A tokeniser has no state but a cache, which it gives up where a panic has left it locked.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("the library panicked at it".into()))
}

impl Tokens {
    /// Number of tokens after truncation, special tokens included: the units that are paid.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// The row of a model with these inputs.
    pub fn row(&self, inputs: &[TensorSpec]) -> Result<Row, TokenizerError> {
        inputs.iter().map(|input| self.tensor(&input.name)).collect()
    }

    /// The same tensors with their names, as the splitter takes its samples.
    pub fn named(&self) -> Result<Vec<(String, Tensor)>, TokenizerError> {
        let names = ["input_ids", "attention_mask", "token_type_ids"];
        names
            .into_iter()
            .map(|name| Ok((name.to_owned(), self.tensor(name)?)))
            .collect()
    }

    fn tensor(&self, input: &str) -> Result<Tensor, TokenizerError> {
        let tokens = match input {
            "input_ids" => &self.ids,
            "attention_mask" => &self.attention_mask,
            "token_type_ids" => &self.type_ids,
            _ => {
                return Err(TokenizerError::UnknownInput {
                    input: input.to_owned(),
                })
            }
        };
        let values: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let positions = u64::try_from(values.len()).unwrap_or(u64::MAX);
        Ok(Tensor::from_i64(vec![positions], &values)?)
    }
}

#[cfg(test)]
mod tests {
    use partition::{DType, Dim};

    use super::*;

    /// Splits at white space; like the real one, it asks for padding and a truncation of its own.
    const TINY: &str = r#"{"version":"1.0","truncation":{"max_length":3,"strategy":"LongestFirst","stride":0,"direction":"Right"},
        "padding":{"strategy":{"Fixed":9},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"a"},
        "added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"a":0,"b":1,"c":2},"unk_token":"c"}}"#;

    #[test]
    fn rows_are_not_padded_and_cut_at_the_models_length() {
        let tokenizer = TextTokenizer::new(TINY.as_bytes(), 5).unwrap();
        assert_eq!(tokenizer.encode("a b").unwrap().ids, [0, 1]);
        let tokens = tokenizer.encode("a b a b a b a b").unwrap();
        assert_eq!((tokens.count(), tokens.attention_mask), (5, vec![1; 5]));
    }

    #[test]
    fn a_row_has_the_models_inputs_in_its_order() {
        let tokens = TextTokenizer::new(TINY.as_bytes(), 5).unwrap().encode("b c").unwrap();
        let input = |name| TensorSpec::new(name, DType::Int64, vec![Dim::Batch, Dim::Positions("s".to_owned())]);
        let row = tokens.row(&[input("attention_mask"), input("input_ids")]).unwrap();
        assert_eq!(row[0], Tensor::from_i64(vec![2], &[1, 1]).unwrap());
        assert_eq!(row[1], Tensor::from_i64(vec![2], &[1, 2]).unwrap());
        let refused = tokens.row(&[input("pixel_values")]);
        assert!(matches!(refused, Err(TokenizerError::UnknownInput { input }) if input == "pixel_values"));
    }

    #[test]
    fn a_file_at_which_the_library_panics_is_refused() {
        let (cut, _) = TINY.split_once("null,\n        \"model\"").unwrap();
        assert!(cut.ends_with("\"decoder\":"));
        assert!(matches!(
            TextTokenizer::new(cut.as_bytes(), 5),
            Err(TokenizerError::Invalid { .. })
        ));
    }

    #[test]
    fn what_cannot_be_tokenised_is_refused() {
        assert!(matches!(
            TextTokenizer::new(b"{}", 5),
            Err(TokenizerError::Invalid { .. })
        ));
        assert!(matches!(
            TextTokenizer::new(TINY.as_bytes(), 0),
            Err(TokenizerError::NoRoom { positions: 0, .. })
        ));
        let tokenizer = TextTokenizer::new(TINY.as_bytes(), 5).unwrap();
        assert!(matches!(tokenizer.encode("   "), Err(TokenizerError::Empty)));
        let long = "a ".repeat(TEXT_BYTES_MAX);
        assert!(matches!(
            tokenizer.encode(&long),
            Err(TokenizerError::TooLong {
                limit: TEXT_BYTES_MAX,
                ..
            })
        ));
    }
}
