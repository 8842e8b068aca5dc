//! Every reader of bytes that strangers send or that a disk may have spoilt, as pure functions: what fuzzers call. An answer is a value or the
//! reason why there is none, and never a panic, whatever the bytes are.

use prost::Message;

use crate::{
    home, journal,
    proto::{frame::Content, Frame},
    server,
    span::Pushed,
};

/// A frame of a push that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushFrame {
    /// What the sender says is coming: rows, their bytes, and how many links prove where they come from.
    Header { rows: u32, bytes: u64, links: usize },
    /// Bytes of a row.
    Row(Vec<u8>),
}

/// Reads a frame of a push: the protobuf message, and the header in it with its links.
pub fn decode_push_frame(bytes: &[u8]) -> Result<PushFrame, String> {
    let frame = Frame::decode(bytes).map_err(|error| error.to_string())?;
    match frame.content {
        None => Err("the frame is empty".to_owned()),
        Some(Content::Row(row)) => Ok(PushFrame::Row(row.to_vec())),
        Some(Content::Header(header)) => {
            let pushed = Pushed::parse(&header).map_err(|refusal| refusal.to_string())?;
            Ok(PushFrame::Header {
                rows: pushed.rows,
                bytes: pushed.bytes,
                links: pushed.links.len(),
            })
        }
    }
}

/// Reads a record of the journal, and names the piece of work that it is about.
pub fn decode_record(bytes: &[u8]) -> Result<String, String> {
    journal::decode_record(bytes).map(|record| record.key().to_string())
}

/// Reads `host.json`.
pub fn decode_host_file(bytes: &[u8]) -> Result<schema::work::HostFile, String> {
    home::announced(bytes)
}

/// Reads `host.token`.
pub fn decode_token(bytes: &[u8]) -> Result<String, String> {
    home::parse_token(bytes)
}

/// Reads the range header of a request for a blob of so many bytes: first and last byte.
pub fn decode_range(range: &str, bytes: u64) -> Result<(u64, u64), String> {
    server::parse_range(range, bytes).map_err(|refused| refused.to_string())
}

/// Reads the values of the headers by which a developer asks for an output, in the order item, end of validity, public key, signature.
pub fn decode_output_request(values: [&str; 4]) -> Result<(), String> {
    let [item, valid_until, public_key, signature] = values;
    let refuse = |name: &str| format!("header {name} is malformed");
    item.parse::<schema::ItemId>().map_err(|_| refuse("x-fxn-item"))?;
    valid_until.parse::<u64>().map_err(|_| refuse("x-fxn-valid-until"))?;
    let key = public_key.parse::<schema::PublicKey>();
    let key = key.map_err(|_| refuse("x-fxn-public-key"))?;
    let signature = signature.parse::<schema::Signature>();
    let signature = signature.map_err(|_| refuse("x-fxn-signature"))?;
    // A key that is no point and a signature that is out of range are judged here too.
    match client::verify_digest(key.as_bytes(), &[0; 32], signature.as_bytes()) {
        true => Ok(()),
        false => Err("the signature is not by this key".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        proto::Header,
        rows::{decode_rows, encode_rows},
    };

    /// A header as a neighbour sends it.
    fn header() -> Vec<u8> {
        let link = serde_json::json!([{
            "receipt": {
                "receipt": {
                    "domain": { "chain_id": "fxn-test-1", "contract": "wasm1orchestrator" },
                    "item": { "job": "7", "shard": 0, "replica": 0 },
                    "attempt": 0,
                },
            },
        }]);
        let header = Header {
            job: 7,
            span: 1,
            rows: 2,
            bytes: 300,
            links: link.to_string().into_bytes(),
            ..Header::default()
        };
        Frame {
            content: Some(Content::Header(header)),
        }
        .encode_to_vec()
    }

    /// Does every reader the favour of these bytes. Whether they like them does not matter here.
    fn read_everything(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let _ = decode_push_frame(bytes);
        let _ = decode_record(bytes);
        let _ = decode_host_file(bytes);
        let _ = decode_token(bytes);
        let _ = decode_range(&text, 100);
        let _ = decode_output_request([&text; 4]);
        if let Ok(rows) = decode_rows(bytes) {
            assert_eq!(encode_rows(&rows), bytes);
        }
    }

    fn valid() -> Vec<Vec<u8>> {
        let row = Frame {
            content: Some(Content::Row(vec![1, 2, 3].into())),
        };
        let host = br#"{"pid":1,"listen":"a:1","status":"b:2","provider":"p","started_at":5}"#;
        vec![
            header(),
            row.encode_to_vec(),
            encode_rows(&["abc", "", "defg"]),
            host.to_vec(),
            "0a".repeat(32).into_bytes(),
            b"bytes=3-5".to_vec(),
        ]
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_an_answer_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            read_everything(&bytes);
        }

        #[test]
        fn spoilt_bytes_are_an_answer_and_never_a_panic(
            which in 0..6_usize, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(), twice in any::<bool>(),
        ) {
            let mut bytes = valid().swap_remove(which);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            read_everything(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            if twice {
                bytes.extend_from_within(..);
            }
            read_everything(&bytes);
        }
    }

    #[test]
    fn what_is_sound_is_read() {
        let sound = valid();
        assert_eq!(decode_push_frame(&sound[1]), Ok(PushFrame::Row(vec![1, 2, 3])));
        assert_eq!(decode_push_frame(&[]), Err("the frame is empty".to_owned()));
        assert!(decode_push_frame(&sound[0])
            .unwrap_err()
            .starts_with("the push is malformed: its links"));
        assert_eq!(decode_host_file(&sound[3]).map(|file| file.pid), Ok(1));
        decode_token(&sound[4]).unwrap();
        assert_eq!(decode_range("bytes=3-5", 10), Ok((3, 5)));
    }
}
