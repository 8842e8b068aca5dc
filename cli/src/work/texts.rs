//! The texts of a file: one a line, or a JSON array of strings.
//!
//! Guarantees: the order is kept; nothing is left out, an empty line is an empty text, so line n is text n; what cannot be sent is
//! refused by its number before anything is spent.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use schema::INLINE_BYTES_MAX;

/// Longest file that is read: half a million long sentences. More belongs into several runs.
pub(crate) const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why a file gives no texts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TextsError {
    #[error("failed to read {path}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the input has more than {} MiB: cut it into several files", FILE_BYTES_MAX >> 20)]
    FileTooLong,
    #[error("line {line} is not valid UTF-8: texts in another encoding have to be converted first")]
    NotUtf8 { line: usize },
    #[error("the input is empty: one text a line, or a JSON array of strings, is needed")]
    Empty,
    #[error("element {number} of the JSON array is not a string; nothing was spent")]
    NotText { number: usize },
    #[error("text {number} has {bytes} bytes, at most {INLINE_BYTES_MAX} can ride in a job; nothing was spent")]
    TooLong { number: usize, bytes: usize },
}

/// Reads a file, or stdin for `-`.
pub(crate) fn read(path: &Path) -> Result<Vec<String>, TextsError> {
    let failed = |source| TextsError::Read {
        path: path.to_owned(),
        source,
    };
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    let mut bytes = vec![];
    reader
        .take(FILE_BYTES_MAX.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(TextsError::FileTooLong);
    }
    parse(&bytes)
}

/// The texts of a file's content.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<String>, TextsError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
        TextsError::NotUtf8 { line }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let texts = match array(text) {
        Some(elements) => elements?,
        None => text.lines().map(str::to_owned).collect(),
    };
    if texts.is_empty() {
        return Err(TextsError::Empty);
    }
    let numbered = texts.iter().zip(1_usize..);
    match numbered
        .map(|(text, number)| (text.len(), number))
        .find(|(bytes, _)| *bytes > INLINE_BYTES_MAX)
    {
        Some((bytes, number)) => Err(TextsError::TooLong { number, bytes }),
        None => Ok(texts),
    }
}

/// None: not a JSON array, so a file of lines, of which some may begin with a bracket.
fn array(text: &str) -> Option<Result<Vec<String>, TextsError>> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    let elements: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let strings = elements
        .into_iter()
        .zip(1_usize..)
        .map(|(element, number)| match element {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(TextsError::NotText { number }),
        });
    Some(strings.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn line_n_is_text_n_and_empty_lines_are_texts() {
        let texts = parse("\u{feff}one\r\n\n  two\t\n😀\n".as_bytes()).unwrap();
        assert_eq!(texts, ["one", "", "  two\t", "😀"]);
        assert_eq!(parse(b"no newline at the end").unwrap(), ["no newline at the end"]);
        assert_eq!(parse(b"\n").unwrap(), [""]);
    }

    #[test]
    fn a_json_array_of_strings_may_hold_line_breaks() {
        assert_eq!(parse(br#" ["a\nb", ""] "#).unwrap(), ["a\nb", ""]);
        let refused = parse(br#"["a", 5]"#).unwrap_err().to_string();
        assert_eq!(
            refused,
            "element 2 of the JSON array is not a string; nothing was spent"
        );
        assert!(matches!(parse(b"[]"), Err(TextsError::Empty)));
    }

    #[test]
    fn lines_that_begin_with_a_bracket_are_lines() {
        assert_eq!(
            parse(b"[note] first\n[note] second]\n").unwrap(),
            ["[note] first", "[note] second]"]
        );
    }

    #[test]
    fn empty_and_binary_files_are_refused() {
        assert!(matches!(parse(b""), Err(TextsError::Empty)));
        assert!(matches!(parse(b"good\n\xff\xfe"), Err(TextsError::NotUtf8 { line: 2 })));
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_by_its_number() {
        let fits = "é".repeat(INLINE_BYTES_MAX / 2);
        assert_eq!(parse(fits.as_bytes()).unwrap().len(), 1);
        let refused = parse(format!("short\n{fits}x\n").as_bytes()).unwrap_err();
        assert!(matches!(refused, TextsError::TooLong { number: 2, bytes } if bytes == INLINE_BYTES_MAX + 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_texts_or_a_sentence(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            match parse(&bytes) {
                Ok(texts) => prop_assert!(!texts.is_empty()),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }

        #[test]
        fn every_line_is_kept_in_order(lines in prop::collection::vec("[a-zé ]{0,20}", 1..50)) {
            let file = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            prop_assert_eq!(parse(file.as_bytes()).unwrap(), lines);
        }
    }
}
