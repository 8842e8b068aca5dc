//! A developer's row to what the model receives, by endpoint; one rule for hosts and for whoever sends them work.
//!
//! Endpoint `embeddings` takes UTF-8 text; `chat` is reserved; every other endpoint takes one safetensors blob a row, holding exactly the
//! inputs of the graph. A row is one request, so its tensors have no batch axis, as everywhere between hosts.
//!
//! Guarantees: bytes become a row that fits the model's inputs, or an error that names what is wrong; nothing is read beyond the bytes
//! given, and nothing is allocated beyond a small multiple of them. A developer's numbers are finite: a NaN has many encodings, which no two
//! machines need treat alike, so nothing computed from one could be compared. What a graph makes of finite rows is only bytes, whatever it is
//! (masks between stages are often infinite), and is signed as it came.

use std::collections::{BTreeMap, BTreeSet};

use half::{bf16, f16};
use partition::{
    row::{self, RowError, ROW_BYTES_MAX},
    DType, Dim, Manifest, Row, Tensor, TensorError, TensorSpec,
};
use safetensors::{tensor::TensorView, Dtype, SafeTensors};

use crate::tokenizer::{TextTokenizer, TokenizerError};

/// Longest header of a safetensors blob: room for 256 inputs with long names.
pub const HEADER_BYTES_MAX: u64 = 256 << 10;

/// What the rows of an endpoint are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// UTF-8 text, tokenised and truncated as the model says.
    Text,
    /// A safetensors blob with the inputs of the graph.
    Tensors,
}

/// Why a row is not what the model receives.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(
        "endpoint {endpoint} is reserved; this version serves texts at embeddings, and tensors at any other endpoint"
    )]
    Reserved { endpoint: String },
    #[error("the model has no tokenizer, so it takes no text")]
    NoTokenizer,
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Tensors(#[from] TensorsError),
}

/// Why bytes are not the tensors that a model wants.
#[derive(Debug, thiserror::Error)]
pub enum TensorsError {
    #[error("the row has {bytes} bytes, at most {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the header has {bytes} bytes, at most {limit} are allowed")]
    Header { bytes: u64, limit: u64 },
    #[error("it is not safetensors: {problem}")]
    NotSafetensors { problem: String },
    #[error("tensor {input} is missing: the model's inputs are {inputs}")]
    Missing { input: String, inputs: String },
    #[error("tensor {name} is no input of the model, whose inputs are {inputs}")]
    Unknown { name: String, inputs: String },
    #[error("tensor {input} has element type {found}, {expected} expected")]
    DType {
        input: String,
        found: String,
        expected: String,
    },
    #[error("tensor {input} has shape {found:?}, but a row is one request and has no batch axis: {expected} expected")]
    BatchAxis {
        input: String,
        found: Vec<u64>,
        expected: String,
    },
    #[error("tensor {input} has shape {found:?}, {expected} expected")]
    Shape {
        input: String,
        found: Vec<u64>,
        expected: String,
    },
    #[error("tensor {input} is boolean and has the byte {byte}, only 0 and 1 are allowed")]
    Bool { input: String, byte: u8 },
    #[error("tensor {input} is {value} at index {index}: numbers must be finite")]
    NotFinite {
        input: String,
        index: usize,
        value: &'static str,
    },
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl Format {
    /// What the rows of this endpoint are.
    pub fn of(endpoint: &str) -> Result<Self, RequestError> {
        match endpoint {
            "embeddings" => Ok(Self::Text),
            "chat" => Err(RequestError::Reserved {
                endpoint: endpoint.to_owned(),
            }),
            _ => Ok(Self::Tensors),
        }
    }
}

/// Reads the rows of a model.
#[derive(Debug)]
pub struct RowReader {
    inputs: Vec<TensorSpec>,
    max_positions: u64,
    tokenizer: Option<TextTokenizer>,
}

impl RowReader {
    /// A reader for a model, with the content of its `tokenizer.json` if it has one.
    pub fn new(manifest: &Manifest, tokenizer_json: Option<&[u8]>) -> Result<Self, TokenizerError> {
        let tokenizer = tokenizer_json.map(|json| TextTokenizer::new(json, manifest.max_positions));
        Ok(Self {
            inputs: manifest.inputs.clone(),
            max_positions: manifest.max_positions,
            tokenizer: tokenizer.transpose()?,
        })
    }

    /// A row and its units. Bytes of a text that are no UTF-8 are replaced the same way everywhere: a host cannot be blamed for what a
    /// developer sent. Slow for long texts: not for an async thread.
    pub fn read(&self, format: Format, bytes: &[u8]) -> Result<(Row, u64), RequestError> {
        match format {
            Format::Text => {
                let tokenizer = self.tokenizer.as_ref().ok_or(RequestError::NoTokenizer)?;
                let tokens = tokenizer.encode(&String::from_utf8_lossy(bytes))?;
                Ok((
                    tokens.row(&self.inputs)?,
                    u64::try_from(tokens.count()).unwrap_or(u64::MAX),
                ))
            }
            Format::Tensors => {
                let row = decode_tensors(bytes, &self.inputs, self.max_positions)?;
                let lengths = row::check(&row, &self.inputs, self.max_positions).map_err(TensorsError::from)?;
                Ok((row, units(&lengths)))
            }
        }
    }
}

/// What a row counts: the positions along its longest symbolic axis, or 1 where the model has none.
fn units(lengths: &BTreeMap<String, u64>) -> u64 {
    lengths.values().copied().max().unwrap_or(1)
}

/// The symbolic axes of these tensors.
pub(crate) fn symbols(specs: &[TensorSpec]) -> BTreeSet<&str> {
    let axes = specs.iter().flat_map(TensorSpec::row_shape);
    axes.filter_map(|axis| match axis {
        Dim::Positions(symbol) => Some(symbol.as_str()),
        _ => None,
    })
    .collect()
}

/// The row in a safetensors blob that holds exactly these tensors, without batch axis. Its metadata is not looked at.
pub fn decode_tensors(bytes: &[u8], inputs: &[TensorSpec], max_positions: u64) -> Result<Row, TensorsError> {
    if bytes.len() > ROW_BYTES_MAX {
        let (bytes, limit) = (bytes.len(), ROW_BYTES_MAX);
        return Err(TensorsError::TooLarge { bytes, limit });
    }
    check_header(bytes)?;
    let blob = SafeTensors::deserialize(bytes).map_err(|error| TensorsError::NotSafetensors {
        problem: printable(&error.to_string(), 200),
    })?;
    let known = |name: &str| inputs.iter().any(|input| input.name == name);
    if let Some(name) = blob.names().into_iter().filter(|name| !known(name)).min() {
        return Err(TensorsError::Unknown {
            name: printable(name, 80),
            inputs: names(inputs),
        });
    }
    let mut row = Row::with_capacity(inputs.len());
    for input in inputs {
        let view = blob.tensor(&input.name).map_err(|_| TensorsError::Missing {
            input: input.name.clone(),
            inputs: names(inputs),
        })?;
        row.push(tensor(input, &view)?);
    }
    row::check(&row, inputs, max_positions)?;
    Ok(row)
}

/// The safetensors blob of a row: what [`decode_tensors`] reads, with the names of `specs`.
pub fn encode_tensors(row: &[Tensor], specs: &[TensorSpec]) -> Result<Vec<u8>, TensorsError> {
    let not_safetensors = |error: safetensors::SafeTensorError| TensorsError::NotSafetensors {
        problem: error.to_string(),
    };
    let mut views = Vec::with_capacity(row.len());
    for (tensor, spec) in row.iter().zip(specs) {
        tensor.check()?;
        let length = |&length: &u64| usize::try_from(length).unwrap_or(usize::MAX);
        let shape = tensor.shape.iter().map(length).collect();
        let view = TensorView::new(outer(tensor.dtype), shape, &tensor.data).map_err(not_safetensors)?;
        views.push((spec.name.as_str(), view));
    }
    safetensors::serialize(views, None).map_err(not_safetensors)
}

/// Whether the header that the first 8 bytes promise can be there, and is not longer than it may be.
fn check_header(bytes: &[u8]) -> Result<(), TensorsError> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        let problem = format!(
            "it has {} bytes, and 8 of them would be the length of a header",
            bytes.len()
        );
        return Err(TensorsError::NotSafetensors { problem });
    };
    let (length, limit) = (u64::from_le_bytes(*length), HEADER_BYTES_MAX);
    if length > u64::try_from(rest.len()).unwrap_or(u64::MAX) {
        let problem = format!(
            "its first 8 bytes promise a header of {length} bytes, {} follow",
            rest.len()
        );
        return Err(TensorsError::NotSafetensors { problem });
    }
    match length > limit {
        true => Err(TensorsError::Header { bytes: length, limit }),
        false => Ok(()),
    }
}

fn tensor(input: &TensorSpec, view: &TensorView<'_>) -> Result<Tensor, TensorsError> {
    let expected = outer(input.dtype);
    if view.dtype() != expected {
        return Err(TensorsError::DType {
            input: input.name.clone(),
            found: view.dtype().to_string(),
            expected: expected.to_string(),
        });
    }
    let length = |&length: &usize| u64::try_from(length).unwrap_or(u64::MAX);
    let shape: Vec<u64> = view.shape().iter().map(length).collect();
    if !fits(&shape, input.row_shape()) {
        let (name, expected) = (input.name.clone(), described(input));
        return Err(match shape.split_first() {
            Some((1, rest)) if fits(rest, input.row_shape()) => TensorsError::BatchAxis {
                input: name,
                found: shape,
                expected,
            },
            _ => TensorsError::Shape {
                input: name,
                found: shape,
                expected,
            },
        });
    }
    // Runtimes take a boolean for a byte that is 0 or 1, and nothing says what another one means.
    if let Some(&byte) = view.data().iter().find(|&&byte| input.dtype == DType::Bool && byte > 1) {
        let input = input.name.clone();
        return Err(TensorsError::Bool { input, byte });
    }
    if let Some((index, value)) = first_not_finite(input.dtype, view.data()) {
        let input = input.name.clone();
        return Err(TensorsError::NotFinite { input, index, value });
    }
    Ok(Tensor::new(input.dtype, shape, view.data().to_vec())?)
}

/// The first number of a tensor that is not finite, if its type has such numbers.
pub(crate) fn first_not_finite(dtype: DType, data: &[u8]) -> Option<(usize, &'static str)> {
    match dtype {
        DType::Float16 => find(data, |bytes| f16::from_le_bytes(bytes).to_f64()),
        DType::Bfloat16 => find(data, |bytes| bf16::from_le_bytes(bytes).to_f64()),
        DType::Float32 => find(data, |bytes| f32::from_le_bytes(bytes).into()),
        DType::Float64 => find(data, f64::from_le_bytes),
        _ => None,
    }
}

fn find<const WIDTH: usize>(data: &[u8], number: fn([u8; WIDTH]) -> f64) -> Option<(usize, &'static str)> {
    let (numbers, _) = data.as_chunks::<WIDTH>();
    let mut numbers = numbers.iter().map(|bytes| number(*bytes)).enumerate();
    let (index, found) = numbers.find(|(_, number)| !number.is_finite())?;
    let value = match () {
        () if found.is_nan() => "NaN",
        () if found > 0.0 => "infinity",
        () => "-infinity",
    };
    Some((index, value))
}

/// Whether lengths are those of fixed axes; symbolic ones are checked together, for the whole row.
fn fits(shape: &[u64], axes: &[Dim]) -> bool {
    let same = |(found, axis): (&u64, &Dim)| match axis {
        Dim::Fixed(expected) => found == expected,
        Dim::Positions(_) | Dim::Batch => true,
    };
    shape.len() == axes.len() && shape.iter().zip(axes).all(same)
}

/// The shape of a row's tensor, for people: `[3, height, width]`.
pub fn described(spec: &TensorSpec) -> String {
    let axis = |axis: &Dim| match axis {
        Dim::Batch => "1".to_owned(),
        Dim::Positions(symbol) => symbol.clone(),
        Dim::Fixed(length) => length.to_string(),
    };
    format!("[{}]", spec.row_shape().iter().map(axis).collect::<Vec<_>>().join(", "))
}

fn names(inputs: &[TensorSpec]) -> String {
    let named = |input: &TensorSpec| format!("{} {}{}", input.name, outer(input.dtype), described(input));
    inputs.iter().map(named).collect::<Vec<_>>().join(", ")
}

/// A stranger's text, cut and without what could speak to a terminal.
fn printable(text: &str, characters: usize) -> String {
    let clean = |character: char| if character.is_control() { ' ' } else { character };
    text.chars().take(characters).map(clean).collect()
}

/// The name that safetensors has for an element type.
fn outer(dtype: DType) -> Dtype {
    match dtype {
        DType::Bool => Dtype::BOOL,
        DType::Uint8 => Dtype::U8,
        DType::Int8 => Dtype::I8,
        DType::Uint16 => Dtype::U16,
        DType::Int16 => Dtype::I16,
        DType::Uint32 => Dtype::U32,
        DType::Int32 => Dtype::I32,
        DType::Uint64 => Dtype::U64,
        DType::Int64 => Dtype::I64,
        DType::Float16 => Dtype::F16,
        DType::Bfloat16 => Dtype::BF16,
        DType::Float32 => Dtype::F32,
        DType::Float64 => Dtype::F64,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "sizes in tests are small")]

    use proptest::prelude::*;

    use super::*;

    fn spec(name: &str, dtype: DType, rest: &[Dim]) -> TensorSpec {
        TensorSpec::new(name, dtype, [&[Dim::Batch], rest].concat())
    }

    fn symbol(name: &str) -> Dim {
        Dim::Positions(name.to_owned())
    }

    /// A detector: an image of any size, a mask beside it, and a switch.
    fn detector() -> Vec<TensorSpec> {
        vec![
            spec(
                "image",
                DType::Uint8,
                &[Dim::Fixed(3), symbol("height"), symbol("width")],
            ),
            spec("mask", DType::Bool, &[symbol("height"), symbol("width")]),
            spec("threshold", DType::Float32, &[]),
        ]
    }

    fn detection(height: u64, width: u64) -> Row {
        let area = usize::try_from(height * width).unwrap();
        vec![
            Tensor::new(DType::Uint8, vec![3, height, width], vec![7; area * 3]).unwrap(),
            Tensor::new(DType::Bool, vec![height, width], vec![1; area]).unwrap(),
            Tensor::from_f32(vec![], &[0.5]).unwrap(),
        ]
    }

    fn refusal(row: &[Tensor], specs: &[TensorSpec]) -> String {
        let bytes = encode_tensors(row, specs).unwrap();
        decode_tensors(&bytes, &detector(), 64).unwrap_err().to_string()
    }

    fn blob(header: &str, data: &[u8]) -> Vec<u8> {
        let length = u64::try_from(header.len()).unwrap().to_le_bytes();
        [&length[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn endpoints_say_what_their_rows_are() {
        assert_eq!(Format::of("embeddings").unwrap(), Format::Text);
        assert_eq!(Format::of("classify").unwrap(), Format::Tensors);
        let refused = Format::of("chat").unwrap_err().to_string();
        assert!(refused.starts_with("endpoint chat is reserved"), "{refused}");
    }

    #[test]
    fn the_tensors_of_a_row_are_found_by_name_in_any_order() {
        let (specs, row) = (detector(), detection(4, 6));
        let turned: Vec<_> = row.iter().rev().cloned().collect();
        let names: Vec<_> = specs.iter().rev().cloned().collect();
        let bytes = encode_tensors(&turned, &names).unwrap();
        assert_eq!(decode_tensors(&bytes, &specs, 64).unwrap(), row);
    }

    #[test]
    fn a_blob_written_by_hand_is_read() {
        let header = r#"{"__metadata__":{"format":"np"},"x":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}}"#;
        let data = [1_i64.to_le_bytes(), (-2_i64).to_le_bytes()].concat();
        let inputs = [spec("x", DType::Int64, &[symbol("n")])];
        let row = decode_tensors(&blob(header, &data), &inputs, 8).unwrap();
        assert_eq!(row, [Tensor::from_i64(vec![2], &[1, -2]).unwrap()]);
    }

    #[test]
    fn a_row_counts_its_longest_symbolic_axis_and_a_row_of_fixed_size_counts_one() {
        let lengths = row::check(&detection(4, 6), &detector(), 64).unwrap();
        assert_eq!(units(&lengths), 6);
        assert_eq!(units(&BTreeMap::new()), 1);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_names_types_and_shapes() {
        let (specs, row) = (detector(), detection(4, 6));
        let missing = refusal(&row[..2], &specs[..2]);
        let inputs = "image U8[3, height, width], mask BOOL[height, width], threshold F32[]";
        assert_eq!(
            missing,
            format!("tensor threshold is missing: the model's inputs are {inputs}")
        );
        let mut renamed = specs.clone();
        renamed[1].name = "masks".to_owned();
        assert_eq!(
            refusal(&row, &renamed),
            format!("tensor masks is no input of the model, whose inputs are {inputs}")
        );

        let mut wrong = row.clone();
        wrong[2] = Tensor::new(DType::Float64, vec![], vec![0; 8]).unwrap();
        assert_eq!(
            refusal(&wrong, &specs),
            "tensor threshold has element type F64, F32 expected"
        );
        wrong = row.clone();
        wrong[0].shape.insert(0, 1);
        assert_eq!(
            refusal(&wrong, &specs),
            "tensor image has shape [1, 3, 4, 6], but a row is one request and has no batch axis: [3, height, width] expected"
        );
        wrong = row.clone();
        wrong[0].shape = vec![4, 6, 3];
        assert_eq!(
            refusal(&wrong, &specs),
            "tensor image has shape [4, 6, 3], [3, height, width] expected"
        );
        wrong = row.clone();
        wrong[1].shape = vec![6, 4];
        assert_eq!(
            refusal(&wrong, &specs),
            "axis 0 of tensor mask has length 6, 4 expected"
        );
        wrong = row;
        wrong[1].data[5] = 2;
        assert_eq!(
            refusal(&wrong, &specs),
            "tensor mask is boolean and has the byte 2, only 0 and 1 are allowed"
        );
        assert_eq!(
            refusal(&detection(2, 65), &specs),
            "axis 2 of tensor image has 65 positions, 1 to 64 are allowed"
        );
    }

    #[test]
    fn a_number_that_is_not_finite_is_refused_by_its_tensor_and_place() {
        let put = |bits: &[u8], width: usize| [vec![0; 3 * width], bits.to_vec(), bits.to_vec()].concat();
        let cases = [
            (DType::Float16, put(&[0x00, 0x7c], 2), "infinity"),
            (DType::Bfloat16, put(&[0x81, 0xff], 2), "NaN"),
            (DType::Float32, put(&f32::NEG_INFINITY.to_le_bytes(), 4), "-infinity"),
            (DType::Float32, put(&[0x01, 0x00, 0x80, 0x7f], 4), "NaN"),
            (DType::Float64, put(&f64::NAN.to_le_bytes(), 8), "NaN"),
        ];
        for (dtype, data, value) in cases {
            let specs = [spec("x", dtype, &[symbol("n")])];
            let row = [Tensor::new(dtype, vec![5], data).unwrap()];
            let expected = format!("tensor x is {value} at index 3: numbers must be finite");
            let blob = encode_tensors(&row, &specs).unwrap();
            assert_eq!(decode_tensors(&blob, &specs, 8).unwrap_err().to_string(), expected);
        }
        // The largest and the smallest are numbers like others, and integers have no such thing.
        for number in [f32::MAX, f32::MIN_POSITIVE / 2.0, -0.0] {
            assert_eq!(first_not_finite(DType::Float32, &number.to_le_bytes()), None);
        }
        assert_eq!(first_not_finite(DType::Int64, &[0xff; 8]), None);
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let inputs = [spec("x", DType::Uint8, &[Dim::Fixed(4)])];
        let read = |bytes: &[u8]| decode_tensors(bytes, &inputs, 8).unwrap_err();
        let long = blob(&" ".repeat(usize::try_from(HEADER_BYTES_MAX).unwrap() + 1), b"");
        assert!(matches!(read(&long), TensorsError::Header { bytes, .. } if bytes == HEADER_BYTES_MAX + 1));
        let text = read(b"hello world").to_string();
        assert_eq!(
            text,
            "it is not safetensors: its first 8 bytes promise a header of 8031924123371070824 bytes, 3 follow"
        );
        assert!(read(b"short").to_string().contains("it has 5 bytes"));
        for (header, data) in [
            ("", &b""[..]),
            ("{", b""),
            (r#"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, b"abc"),
            (r#"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, b"abcde"),
            (r#"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,3]}}"#, b"abc"),
            (
                r#"{"x":{"dtype":"U8","shape":[18446744073709551615,4],"data_offsets":[0,4]}}"#,
                b"abcd",
            ),
            (r#"{"x":{"dtype":"U9","shape":[4],"data_offsets":[0,4]}}"#, b"abcd"),
            (r#"{"x":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#, b"abcdefgh"),
        ] {
            assert!(
                matches!(read(&blob(header, data)), TensorsError::NotSafetensors { .. }),
                "{header}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(height in 1_u64..9, width in 1_u64..9) {
            let row = detection(height, width);
            let bytes = encode_tensors(&row, &detector()).unwrap();
            prop_assert_eq!(decode_tensors(&bytes, &detector(), 8).unwrap(), row);
        }

        #[test]
        fn arbitrary_bytes_are_an_error_with_a_sentence(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(error) = decode_tensors(&bytes, &detector(), 8) {
                prop_assert!(!error.to_string().is_empty());
            }
        }

        /// Damaged blobs get further than noise does: whatever is read fits the model and has one meaning.
        #[test]
        fn damaged_rows_are_refused_or_fit(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in 0_usize..40) {
            let mut bytes = encode_tensors(&detection(3, 5), &detector()).unwrap();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Ok(row) = decode_tensors(&bytes, &detector(), 8) {
                prop_assert!(row::check(&row, &detector(), 8).is_ok());
                let again = encode_tensors(&row, &detector()).unwrap();
                prop_assert_eq!(decode_tensors(&again, &detector(), 8).unwrap(), row);
            }
        }
    }
}
