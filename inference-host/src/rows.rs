//! Rows as one byte string: how outputs are answered and how rows lie on disk.
//!
//! The number of rows (u32 big-endian), then every row with its length (u32 big-endian) before it. Guarantees: bytes that decode are
//! the encoding of what they decode to; decoding reads no further and allocates no more than it was given.

/// Bytes that are not rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowsFormatError {
    #[error("the rows end at byte {bytes}, inside row {row} of {rows}")]
    Truncated { bytes: usize, row: u32, rows: u32 },
    #[error("{bytes} bytes are left after the last row")]
    TrailingBytes { bytes: usize },
}

/// The bytes of rows, each of which is shorter than 4 GiB.
pub fn encode_rows<T: AsRef<[u8]>>(rows: &[T]) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = length(rows.len()).to_vec();
    for row in rows {
        bytes.extend_from_slice(&length(row.as_ref().len()));
        bytes.extend_from_slice(row.as_ref());
    }
    bytes
}

/// The rows that these bytes encode.
pub fn decode_rows(bytes: &[u8]) -> Result<Vec<Vec<u8>>, RowsFormatError> {
    let total = bytes.len();
    let truncated = |row, rows| RowsFormatError::Truncated {
        bytes: total,
        row,
        rows,
    };
    let (count, mut rest) = bytes.split_first_chunk::<4>().ok_or(truncated(0, 0))?;
    let count = u32::from_be_bytes(*count);
    // The count is a stranger's word: memory grows with the bytes that are really there.
    let mut rows = Vec::new();
    for index in 0..count {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(truncated(index, count))?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (row, after) = after.split_at_checked(length).ok_or(truncated(index, count))?;
        rows.push(row.to_vec());
        rest = after;
    }
    match rest.len() {
        0 => Ok(rows),
        bytes => Err(RowsFormatError::TrailingBytes { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_encoding_is_the_documented_one() {
        assert_eq!(
            hex::encode(encode_rows(&["ab", ""])),
            "00000002000000026162".to_owned() + "00000000"
        );
    }

    #[test]
    fn cut_and_overlong_bytes_are_refused_with_their_numbers() {
        let bytes = encode_rows(&["abc"]);
        let cut = decode_rows(&bytes[..9]);
        assert_eq!(
            cut,
            Err(RowsFormatError::Truncated {
                bytes: 9,
                row: 0,
                rows: 1
            })
        );
        let long = [bytes.as_slice(), b"x"].concat();
        assert_eq!(decode_rows(&long), Err(RowsFormatError::TrailingBytes { bytes: 1 }));
    }

    proptest! {
        #[test]
        fn rows_read_back(rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            prop_assert_eq!(decode_rows(&encode_rows(&rows)), Ok(rows));
        }

        #[test]
        fn arbitrary_bytes_are_an_answer_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(rows) = decode_rows(&bytes) {
                prop_assert_eq!(encode_rows(&rows), bytes);
            }
        }
    }
}
