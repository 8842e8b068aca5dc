//! What cannot be split is refused, each with its own reason.

use super::{
    interpreter::{Interpreter, Quirk},
    models::{encoder, export, graph, node, options, positions, sample, samples, value},
};
use crate::{
    proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, SparseTensorProto, TrainingInfoProto},
    split, Bundle, DType, Dim, SplitError, SplitOptions, Stages, Tensor,
};

fn split_changed(change: impl Fn(&mut ModelProto)) -> Result<Bundle, SplitError> {
    let mut model = encoder();
    change(&mut model);
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("export");
    export(&model, &source);
    split(
        &source,
        &folder.path().join("bundle"),
        &options(2),
        &Interpreter(Quirk::None),
        &samples(),
    )
}

macro_rules! refused {
    ($change:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = split_changed($change).unwrap_err();
        assert!(matches!(&error, $pattern $(if $guard)?), "{error}");
    };
}

#[test]
fn operations_that_cannot_be_attested_or_cut_are_refused() {
    let rename = |op: &'static str| move |model: &mut ModelProto| graph(model).node[4].op_type = Some(op.to_owned());
    refused!(rename("If"), SplitError::Subgraph { .. });
    refused!(rename("DynamicQuantizeLinear"), SplitError::DynamicQuantisation { .. });
    refused!(rename("RandomNormalLike"), SplitError::Random { .. });
    refused!(rename("SequenceConstruct"), SplitError::NotATensor { .. });
    let with_body = |model: &mut ModelProto| {
        let body = AttributeProto {
            g: Some(GraphProto::default()),
            ..AttributeProto::default()
        };
        graph(model).node[4].attribute.push(body);
    };
    refused!(with_body, SplitError::Subgraph { .. });
}

#[test]
fn what_a_stage_could_not_carry_along_is_refused() {
    refused!(
        |model| model.functions.push(FunctionProto::default()),
        SplitError::LocalFunctions { count: 1, .. }
    );
    refused!(
        |model| model.training_info.push(TrainingInfoProto::default()),
        SplitError::Training
    );
    refused!(
        |model| graph(model).sparse_initializer.push(SparseTensorProto::default()),
        SplitError::SparseInitializer { .. }
    );
    refused!(|model| model.opset_import.clear(), SplitError::NoOperatorSet);
    refused!(|model| model.graph = None, SplitError::NoGraph { .. });
    refused!(|model| graph(model).node.clear(), SplitError::MissingOutput { .. });
    let cache = value("past_key_values.0.key", DType::Float32, &[Dim::Batch, positions()]);
    refused!(
        |model| graph(model).input.push(cache.clone()),
        SplitError::KeyValueCache { .. }
    );
}

#[test]
fn graphs_that_are_not_graphs_are_refused() {
    refused!(|model| graph(model).node.swap(0, 3), SplitError::NotTopological { .. });
    refused!(
        |model| graph(model).node[4].output[0] = "x0".to_owned(),
        SplitError::DuplicateTensor { tensor } if tensor == "x0"
    );
    refused!(
        |model| graph(model).output[0].name = Some("nowhere".to_owned()),
        SplitError::MissingOutput { output } if output == "nowhere"
    );
    let twice = |model: &mut ModelProto| {
        let again = graph(model).initializer[0].clone();
        graph(model).initializer.push(again);
    };
    refused!(twice, SplitError::DuplicateTensor { .. });
    let short = |model: &mut ModelProto| graph(model).initializer[0].dims = vec![16, 5];
    refused!(
        short,
        SplitError::InitializerSize {
            bytes: 256,
            expected: 320,
            ..
        }
    );
    refused!(
        |model| graph(model).initializer[0].dims = vec![-4, -16],
        SplitError::InitializerSize { .. }
    );
    refused!(
        |model| graph(model).initializer[0].data_type = Some(8),
        SplitError::InitializerType { code: 8, .. }
    );
}

#[test]
fn inputs_without_a_batch_axis_are_refused() {
    let fixed = value("input_ids", DType::Int64, &[Dim::Fixed(1), positions()]);
    refused!(
        |model| graph(model).input[0] = fixed.clone(),
        SplitError::NoBatchAxis { .. }
    );
    let scalar = value("input_ids", DType::Int64, &[]);
    refused!(
        |model| graph(model).input[0] = scalar.clone(),
        SplitError::NoBatchAxis { .. }
    );
    let other = value("input_ids", DType::Int64, &[positions(), Dim::Batch]);
    refused!(
        |model| graph(model).input[0] = other.clone(),
        SplitError::NoBatchAxis { .. } | SplitError::Input { .. }
    );
}

#[test]
fn pooling_wants_hidden_states_and_a_mask() {
    let renamed = |model: &mut ModelProto| {
        graph(model).output[0].name = Some("logits".to_owned());
        let last = graph(model).node.len() - 1;
        graph(model).node[last].output[0] = "logits".to_owned();
    };
    refused!(
        renamed,
        SplitError::Pooling {
            missing: "an output named last_hidden_state"
        }
    );
    let unmasked = |model: &mut ModelProto| {
        graph(model).input.pop();
        graph(model).node[1].input[0] = "input_ids".to_owned();
    };
    refused!(
        unmasked,
        SplitError::Pooling {
            missing: "an input named attention_mask"
        }
    );
}

#[test]
fn an_output_that_is_no_row_is_refused() {
    // The table itself: no batch axis.
    let table = |model: &mut ModelProto| {
        graph(model).node.push(node("Identity", &["words"], "table"));
        graph(model).output = vec![value("table", DType::Float32, &[Dim::Fixed(16), Dim::Fixed(4)])];
    };
    let mut model = encoder();
    table(&mut model);
    let folder = tempfile::tempdir().unwrap();
    export(&model, folder.path());
    let plain = SplitOptions {
        pooling: None,
        normalize: false,
        ..options(1)
    };
    let refused = split(
        folder.path(),
        &folder.path().join("bundle"),
        &plain,
        &Interpreter(Quirk::None),
        &samples(),
    );
    assert!(matches!(refused, Err(SplitError::OutputShape { output }) if output == "table"));
}

#[test]
fn requests_that_cannot_be_met_are_refused_by_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("export");
    export(&encoder(), &source);
    let target = folder.path().join("bundle");
    let ask = |options: &SplitOptions, samples: &[Vec<(String, Tensor)>]| {
        split(&source, &target, options, &Interpreter(Quirk::None), samples).unwrap_err()
    };
    assert!(matches!(
        ask(&options(0), &samples()),
        SplitError::Option { value: 0, max: 64, .. }
    ));
    assert!(matches!(
        ask(&options(65), &samples()),
        SplitError::Option { value: 65, .. }
    ));
    assert!(matches!(
        ask(&options(2), &[]),
        SplitError::Option {
            what: "sample rows",
            ..
        }
    ));
    let error = ask(&options(40), &samples());
    assert!(
        matches!(error, SplitError::TooManyStages { stages: 40, positions } if positions < 39),
        "{error}"
    );
    let alike = [sample(&[1, 2, 3]), sample(&[4, 5, 6])];
    assert!(matches!(ask(&options(2), &alike), SplitError::SampleLengths { symbol } if symbol == "sequence_length"));
    let short = SplitOptions {
        max_positions: 4,
        ..options(2)
    };
    assert!(matches!(ask(&short, &samples()), SplitError::Sample { sample: 0, .. }));
    let nameless = [vec![]];
    assert!(matches!(
        ask(&options(2), &nameless),
        SplitError::SampleInput { sample: 0, .. }
    ));
    let tiny = SplitOptions {
        stages: Stages::MaxBytes(1),
        ..options(1)
    };
    assert!(matches!(
        ask(&tiny, &samples()),
        SplitError::StageTooLarge { limit: 1, .. }
    ));
    std::fs::create_dir(&target).unwrap();
    assert!(matches!(ask(&options(2), &samples()), SplitError::TargetExists { .. }));
}
