//! What cannot be split is refused, each with its own reason.

use super::{
    interpreter::{Interpreter, Quirk},
    models::{axis, encoder, export, graph, node, options, positions, sample, samples, value},
};
use crate::{
    proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TrainingInfoProto},
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
    refused!(|model| graph(model).output.clear(), SplitError::NoOutputs);
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
        SplitError::InitializerShape { .. }
    );
    refused!(
        |model| graph(model).initializer[0].data_type = Some(8),
        SplitError::InitializerType { code: 8, .. }
    );
}

#[test]
fn inputs_without_one_batch_axis_are_refused() {
    let input = |dims: &[Dim]| value("input_ids", DType::Int64, dims);
    let one = input(&[Dim::Fixed(1), positions()]);
    // The mask still has a symbolic one.
    refused!(
        |model| graph(model).input[0] = one.clone(),
        SplitError::NoBatchAxis { input } if input == "attention_mask"
    );
    let eight = input(&[Dim::Fixed(8), positions()]);
    refused!(
        |model| graph(model).input[0] = eight.clone(),
        SplitError::FixedBatch { input, rows: 8 } if input == "input_ids"
    );
    let scalar = input(&[]);
    refused!(
        |model| graph(model).input[0] = scalar.clone(),
        SplitError::NoBatchAxis { .. }
    );
    let second = input(&[positions(), Dim::Batch]);
    refused!(
        |model| graph(model).input[0] = second.clone(),
        SplitError::NoBatchAxis { .. }
    );
    let twice = input(&[Dim::Batch, Dim::Batch]);
    refused!(
        |model| graph(model).input[0] = twice.clone(),
        SplitError::Input {
            problem: "has a second batch axis",
            ..
        }
    );
    let nothing = input(&[Dim::Batch, Dim::Fixed(0)]);
    refused!(
        |model| graph(model).input[0] = nothing.clone(),
        SplitError::Input {
            problem: "has an axis of length 0 or less",
            ..
        }
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
fn an_output_that_is_no_row_or_no_answer_is_refused() {
    let plain = SplitOptions {
        pooling: None,
        normalize: false,
        ..options(1)
    };
    let attempt = |op: NodeProto| {
        let mut model = encoder();
        graph(&mut model).initializer.push(axis("rows", 0));
        graph(&mut model).output = vec![value(&op.output[0], DType::Float32, &[Dim::Fixed(16), Dim::Fixed(4)])];
        graph(&mut model).node.push(op);
        let folder = tempfile::tempdir().unwrap();
        export(&model, folder.path());
        let target = folder.path().join("bundle");
        split(folder.path(), &target, &plain, &Interpreter(Quirk::None), &samples()).unwrap_err()
    };
    // The table itself.
    let table = attempt(node("Identity", &["words"], "table"));
    assert!(
        matches!(&table, SplitError::ConstantOutput { output } if output == "table"),
        "{table}"
    );
    // A sum over the rows.
    let sum = attempt(node("ReduceSum", &["x0", "rows"], "sum"));
    assert!(
        matches!(&sum, SplitError::OutputShape { output } if output == "sum"),
        "{sum}"
    );
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
        matches!(error, SplitError::TooManyStages { stages: 40, positions, .. } if positions < 39),
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

#[test]
fn options_are_what_the_export_says_and_unknown_pooling_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let read = || SplitOptions::for_export(folder.path(), Stages::Count(2));
    assert_eq!(
        read().unwrap(),
        SplitOptions::plain(Stages::Count(2)),
        "without a tokenizer nothing has to be told"
    );
    write("tokenizer.json", "{}");
    assert!(matches!(read(), Err(SplitError::Config { .. })));
    write("config.json", r#"{"max_position_embeddings": 512}"#);
    let plain = read().unwrap();
    assert_eq!(
        (plain.max_positions, plain.pooling, plain.normalize),
        (512, None, false)
    );
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(read().unwrap().max_positions, 512);

    let modules =
        |path: &str, last: &str| format!(r#"[{{"type": "a.b.Pooling", "path": "{path}"}}, {{"type": "a.b.{last}"}}]"#);
    write("modules.json", &modules("1_Pooling", "Normalize"));
    write("sentence_bert_config.json", r#"{"max_seq_length": 256}"#);
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    write(
        "1_Pooling/config.json",
        r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}"#,
    );
    assert_eq!(read().unwrap(), SplitOptions::embeddings(Stages::Count(2), 256));
    write("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#);
    assert!(matches!(read(), Err(SplitError::Config { .. })));
    for text in [
        modules("../1_Pooling", "Normalize"),
        modules("1_Pooling", "Dense"),
        "[".to_owned(),
    ] {
        write("modules.json", &text);
        assert!(matches!(read(), Err(SplitError::Config { .. })), "{text}");
    }
}
