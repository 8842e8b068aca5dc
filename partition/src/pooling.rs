//! Appends pooling and normalisation to a graph, so that they are computed, hashed and attested like everything else.
//!
//! Mean over the positions whose attention mask is 1 (as a product with the mask), then division by the L2 norm, at least 1e-12, as the common sentence-embedding
//! libraries do. The result is the graph's only output, `sentence_embedding`.

use crate::{
    error::SplitError,
    graph::Graph,
    manifest::Pooling,
    proto::{attribute_proto::AttributeType, tensor_proto::DataType, AttributeProto, NodeProto},
    source::Weight,
};

const OUTPUT: &str = "sentence_embedding";
const MASK: &str = "attention_mask";
const PREFIX: &str = "/fxn/pooling";
/// Outputs that hold the positions' hidden states, as exporters name them.
const HIDDEN: [&str; 3] = ["last_hidden_state", "token_embeddings", "hidden_states"];

/// Appends what was asked for; does nothing when nothing was.
pub(crate) fn append(graph: &mut Graph, pooling: Option<Pooling>, normalize: bool) -> Result<(), SplitError> {
    let mut tail = Tail { graph, made: 0 };
    let mut current = match pooling {
        Some(Pooling::Mean) => tail.mean()?,
        None if normalize => match tail.graph.outputs.as_slice() {
            [only] => only.clone(),
            _ => {
                return Err(SplitError::Pooling {
                    missing: "a single output to normalise",
                })
            }
        },
        None => return Ok(()),
    };
    if normalize {
        current = tail.normalize(&current);
    }
    tail.op("Identity", &[&current], Some(OUTPUT), vec![]);
    graph.outputs = vec![OUTPUT.to_owned()];
    graph.prune();
    Ok(())
}

struct Tail<'a> {
    graph: &'a mut Graph,
    made: u32,
}

impl Tail<'_> {
    fn op(&mut self, op: &str, inputs: &[&str], output: Option<&str>, attribute: Vec<AttributeProto>) -> String {
        self.made = self.made.saturating_add(1);
        let name = format!("{PREFIX}/{op}_{}", self.made);
        let output = output.map_or_else(|| format!("{name}_output_0"), str::to_owned);
        self.graph.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.clone()],
            name: Some(name),
            op_type: Some(op.to_owned()),
            attribute,
            ..NodeProto::default()
        });
        output
    }

    fn constant(&mut self, name: &str, weight: Weight) -> String {
        let name = format!("{PREFIX}/{name}");
        self.graph.weights.insert(name.clone(), weight);
        name
    }

    /// An operation along axes, which are an input since operator set 13 and were an attribute before.
    fn along(&mut self, op: &str, input: &str, axis: i64, keep: Option<bool>) -> String {
        let mut attributes: Vec<_> = keep.map(|keep| integer("keepdims", keep.into())).into_iter().collect();
        if self.graph.opset() >= 13 {
            let weight = Weight::constant(DataType::Int64, vec![1], axis.to_le_bytes().to_vec());
            let axes = self.constant(&format!("axis_{axis}"), weight);
            return self.op(op, &[input, &axes], None, attributes);
        }
        attributes.push(AttributeProto {
            name: Some("axes".to_owned()),
            r#type: Some(AttributeType::Ints as i32),
            ints: vec![axis],
            ..AttributeProto::default()
        });
        self.op(op, &[input], None, attributes)
    }

    fn mean(&mut self) -> Result<String, SplitError> {
        if self.graph.input(MASK).is_none() {
            return Err(SplitError::Pooling {
                missing: "an input named attention_mask",
            });
        }
        let hidden = HIDDEN
            .into_iter()
            .find(|name| self.graph.outputs.iter().any(|output| output == name));
        let Some(hidden) = hidden else {
            return Err(SplitError::Pooling {
                missing: "an output named last_hidden_state",
            });
        };
        let to_float = vec![integer("to", i64::from(DataType::Float as i32))];
        let mask = self.op("Cast", &[MASK], None, to_float);
        let row = self.along("Unsqueeze", &mask, 1, None);
        // A sum along the positions takes another path, and other bits, for a batch of one and for padded rows; so does a product with
        // a single row. A product with two equal rows does not: measured over all groupings, lengths 3 to 256. One of them is the answer.
        let rows = self.op("Concat", &[&row, &row], None, vec![integer("axis", 1)]);
        let sums = self.op("MatMul", &[&rows, hidden], None, vec![]);
        let first = Weight::constant(DataType::Int64, vec![], 0_i64.to_le_bytes().to_vec());
        let first = self.constant("first", first);
        let sum = self.op("Gather", &[&sums, &first], None, vec![integer("axis", 1)]);
        let count = self.along("ReduceSum", &mask, 1, Some(true));
        Ok(self.op("Div", &[&sum, &count], None, vec![]))
    }

    fn normalize(&mut self, input: &str) -> String {
        let squares = self.op("Mul", &[input, input], None, vec![]);
        let sum = self.along("ReduceSum", &squares, -1, Some(true));
        let norm = self.op("Sqrt", &[&sum], None, vec![]);
        let least = Weight::constant(DataType::Float, vec![], 1e-12_f32.to_le_bytes().to_vec());
        let least = self.constant("least_norm", least);
        let norm = self.op("Max", &[&norm, &least], None, vec![]);
        self.op("Div", &[input, &norm], None, vec![])
    }
}

fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    }
}
