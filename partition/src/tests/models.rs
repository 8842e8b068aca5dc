//! Tiny models, built from the generated types.

use std::path::Path;

use prost::Message;

use crate::{
    graph::BatchAxis,
    proto::{
        attribute_proto::AttributeType, tensor_proto::DataType, AttributeProto, GraphProto, ModelProto, NodeProto,
        OperatorSetIdProto, TensorProto, ValueInfoProto,
    },
    DType, Dim, Pooling, SplitOptions, Stages, Tensor, TensorSpec,
};

pub(super) const LAYERS: usize = 4;
const WIDTH: usize = 4;
const WORDS: usize = 16;

pub(super) fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: Some(format!("/{output}")),
        op_type: Some(op.to_owned()),
        ..NodeProto::default()
    }
}

pub(super) fn integer(name: &str, value: i64) -> AttributeProto {
    let kind = Some(AttributeType::Int as i32);
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: kind,
        i: Some(value),
        ..AttributeProto::default()
    }
}

pub(super) fn floats(name: &str, dims: &[usize], seed: f32) -> TensorProto {
    let count: usize = dims.iter().product();
    let value = |index: usize| ((index as f32 * 0.37 + seed) * 12.9898).sin();
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.iter().map(|&dim| dim as i64).collect(),
        data_type: Some(DataType::Float as i32),
        raw_data: Some(
            (0..count)
                .flat_map(|index| value(index).to_le_bytes())
                .collect::<Vec<_>>()
                .into(),
        ),
        ..TensorProto::default()
    }
}

pub(super) fn axis(name: &str, value: i64) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: vec![1],
        data_type: Some(DataType::Int64 as i32),
        // Not every exporter writes raw data.
        int64_data: vec![value],
        ..TensorProto::default()
    }
}

pub(super) fn value(name: &str, dtype: DType, dims: &[Dim]) -> ValueInfoProto {
    crate::emit::typed(&TensorSpec::new(name, dtype, dims.to_vec()), BatchAxis::Symbolic)
}

pub(super) fn positions() -> Dim {
    Dim::Positions("sequence_length".to_owned())
}

pub(super) fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(17),
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// Embedding, then four residual layers, each masked by what derives from the attention mask alone.
pub(super) fn encoder() -> ModelProto {
    let mut nodes = vec![
        node("Gather", &["words", "input_ids"], "x0"),
        NodeProto {
            attribute: vec![integer("to", 1)],
            ..node("Cast", &["attention_mask"], "mask")
        },
        node("Unsqueeze", &["mask", "last"], "columns"),
    ];
    let mut weights = vec![floats("words", &[WORDS, WIDTH], 0.5), axis("last", 2)];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("{part}{layer}");
        let (x, next) = (format!("x{layer}"), format!("x{}", layer + 1));
        nodes.push(node("MatMul", &[&x, &name("w")], &name("product")));
        nodes.push(node("Relu", &[&name("product")], &name("relu")));
        nodes.push(node("Mul", &[&name("relu"), "columns"], &name("masked")));
        nodes.push(node("Add", &[&x, &name("masked")], &next));
        weights.push(floats(&name("w"), &[WIDTH, WIDTH], layer as f32));
    }
    nodes.push(node("Identity", &[&format!("x{LAYERS}")], "last_hidden_state"));
    let tokens = [Dim::Batch, positions()];
    model(GraphProto {
        node: nodes,
        name: Some("encoder".to_owned()),
        initializer: weights,
        input: vec![
            value("input_ids", DType::Int64, &tokens),
            value("attention_mask", DType::Int64, &tokens),
        ],
        output: vec![value(
            "last_hidden_state",
            DType::Float32,
            &[Dim::Batch, positions(), Dim::Fixed(4)],
        )],
        ..GraphProto::default()
    })
}

pub(super) fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

pub(super) fn export(model: &ModelProto, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model.onnx"), model.encode_to_vec()).unwrap();
    std::fs::write(folder.join("config.json"), "{}").unwrap();
}

/// Options under which the 64-byte matrices count as weights.
pub(super) fn options(stages: usize) -> SplitOptions {
    SplitOptions {
        external_bytes_min: 32,
        pooling: Some(Pooling::Mean),
        ..SplitOptions::embeddings(Stages::Count(stages), 16)
    }
}

pub(super) fn sample(ids: &[i64]) -> Vec<(String, Tensor)> {
    let tensor = |values: &[i64]| Tensor::from_i64(vec![values.len() as u64], values).unwrap();
    vec![
        ("input_ids".to_owned(), tensor(ids)),
        ("attention_mask".to_owned(), tensor(&vec![1; ids.len()])),
    ]
}

pub(super) fn samples() -> Vec<Vec<(String, Tensor)>> {
    vec![sample(&[3, 1, 4, 1, 5]), sample(&[2, 7]), sample(&[9, 8, 15])]
}
