//! Bounds of free texts that strangers write on chain.

use thiserror::Error;

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextError {
    #[error("{field} is {length} bytes long, at most {max} are allowed")]
    TooLong { field: String, length: usize, max: usize },
    #[error("{field} is empty")]
    Empty { field: String },
    #[error("{field} contains a control character")]
    Control { field: String },
}

/// Refuses texts that are longer than `max` bytes or contain control characters.
pub fn check(field: &str, text: &str, max: usize) -> Result<(), TextError> {
    if text.len() > max {
        return Err(TextError::TooLong {
            field: field.to_owned(),
            length: text.len(),
            max,
        });
    }
    if text.chars().any(char::is_control) {
        return Err(TextError::Control {
            field: field.to_owned(),
        });
    }
    Ok(())
}

/// As [`check`], and refuses the empty text.
pub fn check_present(field: &str, text: &str, max: usize) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty {
            field: field.to_owned(),
        });
    }
    check(field, text, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_empty_and_control_texts_are_refused() {
        assert_eq!(check("title", "MiniLM ✓", 64), Ok(()));
        assert!(matches!(
            check("title", "abc", 2),
            Err(TextError::TooLong { length: 3, max: 2, .. })
        ));
        assert!(matches!(check("title", "a\u{7}", 9), Err(TextError::Control { .. })));
        assert!(matches!(check_present("title", "", 9), Err(TextError::Empty { .. })));
    }
}
