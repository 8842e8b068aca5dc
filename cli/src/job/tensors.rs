//! Outputs of a model as people and programs want to see them.

use std::fmt;

use half::{bf16, f16};
use partition::{DType, Row, Tensor, TensorSpec};
use serde::{ser::SerializeMap, Serialize, Serializer};

use crate::output::Table;

/// Entries of a vector, or values of another tensor, that people are shown.
const SHOWN: usize = 5;

/// The outputs of a row by name, in the graph's order. As JSON: `{"scores": {"dtype": "float32", "shape": [4], "values": [...]}}`, values in
/// row-major order; what is no number is null.
#[derive(Debug)]
pub(super) struct NamedTensors(Vec<(String, Tensor)>);

#[derive(Serialize)]
struct Document<'a> {
    dtype: DType,
    shape: &'a [u64],
    values: Vec<Element>,
}

impl NamedTensors {
    pub(super) fn new(specs: &[TensorSpec], row: Row) -> Self {
        let names = specs.iter().map(|spec| spec.name.clone());
        Self(names.zip(row).collect())
    }
}

impl Serialize for NamedTensors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, tensor) in &self.0 {
            let document = Document {
                dtype: tensor.dtype,
                shape: &tensor.shape,
                values: elements(tensor),
            };
            map.serialize_entry(name, &document)?;
        }
        map.end()
    }
}

/// An element as JSON and as people read it: a float32 is the shortest decimal that reads back to it, which no float64 would be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
enum Element {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Single(f32),
    Double(f64),
}

impl Element {
    fn new(dtype: DType, bytes: &[u8]) -> Self {
        let mut eight = [0; 8];
        let length = bytes.len().min(8);
        eight[..length].copy_from_slice(&bytes[..length]);
        let [a, b, c, d, ..] = eight;
        match dtype {
            DType::Bool => Self::Bool(a != 0),
            // What is shorter was filled up with zeros at its upper end.
            DType::Uint8 | DType::Uint16 | DType::Uint32 | DType::Uint64 => Self::Unsigned(u64::from_le_bytes(eight)),
            DType::Int8 => Self::Signed(i8::from_le_bytes([a]).into()),
            DType::Int16 => Self::Signed(i16::from_le_bytes([a, b]).into()),
            DType::Int32 => Self::Signed(i32::from_le_bytes([a, b, c, d]).into()),
            DType::Int64 => Self::Signed(i64::from_le_bytes(eight)),
            DType::Float16 => Self::Single(f16::from_le_bytes([a, b]).to_f32()),
            DType::Bfloat16 => Self::Single(bf16::from_le_bytes([a, b]).to_f32()),
            DType::Float32 => Self::Single(f32::from_le_bytes([a, b, c, d])),
            DType::Float64 => Self::Double(f64::from_le_bytes(eight)),
        }
    }

    /// Of a floating-point tensor; anything else is no score.
    fn score(self) -> Option<f64> {
        match self {
            Self::Single(value) => Some(value.into()),
            Self::Double(value) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Single(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
        }
    }
}

fn elements(tensor: &Tensor) -> Vec<Element> {
    let each = tensor.data.chunks_exact(tensor.dtype.size());
    each.map(|bytes| Element::new(tensor.dtype, bytes)).collect()
}

/// For people: the highest entries of every vector of scores, the beginning of everything else.
pub(super) fn write_rows(f: &mut fmt::Formatter<'_>, rows: &[NamedTensors], labels: &[String]) -> fmt::Result {
    let mut table = Table::new([">row", "output", "shape", "highest, or beginning"]);
    for (NamedTensors(outputs), number) in rows.iter().zip(1_u64..) {
        for (name, tensor) in outputs {
            let shown = highest(tensor, labels).unwrap_or_else(|| beginning(tensor));
            table.row([number.to_string(), name.clone(), format!("{:?}", tensor.shape), shown]);
        }
    }
    write!(f, "{table}")
}

/// The highest entries of a vector of scores, by their names or indices.
fn highest(tensor: &Tensor, labels: &[String]) -> Option<String> {
    // Exports often keep axes of length 1: a vector of scores is one all the same.
    if tensor.shape.iter().filter(|&&length| length > 1).count() != 1 {
        return None;
    }
    let scores: Option<Vec<f64>> = elements(tensor).into_iter().map(Element::score).collect();
    let mut entries: Vec<(usize, f64)> = scores?.into_iter().enumerate().collect();
    let named = labels.len() == entries.len();
    // What is no number comes last.
    let key = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
    entries.sort_by(|(_, a), (_, b)| key(*b).total_cmp(&key(*a)));
    let entry = |&(index, score): &(usize, f64)| match labels.get(index) {
        Some(label) if named => format!("{label} {score:.4}"),
        _ => format!("#{index} {score:.4}"),
    };
    Some(entries.iter().take(SHOWN).map(entry).collect::<Vec<_>>().join(", "))
}

fn beginning(tensor: &Tensor) -> String {
    let elements = elements(tensor);
    let first: Vec<String> = elements.iter().take(SHOWN).map(Element::to_string).collect();
    let more = if elements.len() > SHOWN { " ..." } else { "" };
    format!("{}{more}", first.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: DType, shape: &[u64], data: &[u8]) -> Tensor {
        Tensor::new(dtype, shape.to_vec(), data.to_vec()).unwrap()
    }

    #[test]
    fn every_element_type_has_its_numbers() {
        let cases = [
            (DType::Bool, vec![1], "true"),
            (DType::Uint8, vec![200], "200"),
            (DType::Int8, vec![200], "-56"),
            (DType::Uint16, vec![0, 1], "256"),
            (DType::Int16, vec![255, 255], "-1"),
            (DType::Float16, vec![0, 0x3c], "1.0"),
            (DType::Bfloat16, vec![0x80, 0x3f], "1.0"),
            (DType::Uint32, vec![0, 0, 0, 128], "2147483648"),
            (DType::Int32, vec![0, 0, 0, 128], "-2147483648"),
            (DType::Float32, 0.1_f32.to_le_bytes().to_vec(), "0.1"),
            (DType::Float32, f32::NAN.to_le_bytes().to_vec(), "null"),
            (DType::Uint64, u64::MAX.to_le_bytes().to_vec(), "18446744073709551615"),
            (DType::Int64, i64::MIN.to_le_bytes().to_vec(), "-9223372036854775808"),
            (DType::Float64, 0.25_f64.to_le_bytes().to_vec(), "0.25"),
        ];
        for (dtype, bytes, expected) in cases {
            let row = vec![tensor(dtype, &[1], &bytes)];
            let spec = TensorSpec::new("y", dtype, vec![]);
            let json = serde_json::to_string(&NamedTensors::new(&[spec], row)).unwrap();
            let name = serde_json::to_value(dtype).unwrap();
            assert_eq!(
                json,
                format!(r#"{{"y":{{"dtype":{name},"shape":[1],"values":[{expected}]}}}}"#)
            );
        }
    }

    #[test]
    fn scores_are_shown_highest_first_and_by_name_where_there_is_one_for_each() {
        let scores = Tensor::from_f32(vec![1, 3], &[0.2, 0.7, f32::NAN]).unwrap();
        let labels = ["cat", "dog", "fox"].map(str::to_owned);
        assert_eq!(highest(&scores, &labels).unwrap(), "dog 0.7000, cat 0.2000, fox NaN");
        assert_eq!(highest(&scores, &labels[..2]).unwrap(), "#1 0.7000, #0 0.2000, #2 NaN");
        let mask = tensor(DType::Uint8, &[6], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(highest(&mask, &[]), None);
        assert_eq!(beginning(&mask), "1 2 3 4 5 ...");
    }
}
