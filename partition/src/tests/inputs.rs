//! What a model says about its inputs before it is split.

use super::models::{encoder, export, graph, integer, model, node, positions, value};
use crate::{
    model_inputs,
    proto::{GraphProto, ModelProto, NodeProto},
    DType, Dim, ModelInput,
};

fn inputs_of(model: &ModelProto) -> Vec<ModelInput> {
    let folder = tempfile::tempdir().unwrap();
    export(model, folder.path());
    model_inputs(folder.path()).unwrap()
}

fn lookups(model: &ModelProto) -> Vec<Option<String>> {
    inputs_of(model).into_iter().map(|input| input.looked_up_by).collect()
}

#[test]
fn token_ids_are_looked_up_and_a_mask_is_not() {
    let inputs = inputs_of(&encoder());
    let names: Vec<_> = inputs.iter().map(|input| input.spec.name.as_str()).collect();
    assert_eq!(names, ["input_ids", "attention_mask"]);
    assert_eq!(inputs[0].spec.shape, [Dim::Batch, positions()]);
    assert_eq!(lookups(&encoder()), [Some("/x0".to_owned()), None]);
}

#[test]
fn rearranged_ids_are_still_looked_up_and_fractions_of_them_are_not() {
    let mut shifted = encoder();
    let nodes = &mut graph(&mut shifted).node;
    nodes[0] = node("Gather", &["words", "places"], "x0");
    nodes.insert(0, node("Add", &["input_ids", "last"], "places"));
    assert_eq!(lookups(&shifted), [Some("/x0".to_owned()), None]);

    let tokens = [Dim::Batch, positions()];
    let to_float = NodeProto {
        attribute: vec![integer("to", 1)],
        ..node("Cast", &["ids"], "fractions")
    };
    let measured = model(GraphProto {
        node: vec![
            to_float,
            node("Shape", &["ids"], "lengths"),
            node("Gather", &["fractions", "lengths"], "y"),
        ],
        input: vec![value("ids", DType::Int64, &tokens)],
        output: vec![value("y", DType::Float32, &tokens)],
        ..GraphProto::default()
    });
    assert_eq!(
        lookups(&measured),
        [None],
        "places that the graph measured have a bound"
    );
}
