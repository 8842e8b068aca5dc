//! Everything that can be wrong with a model file, each with the sentence that its owner reads: one line, the true reason, no panic.

use prost::Message;

use super::{
    hostile::externalise,
    interpreter::{Interpreter, Quirk},
    models::{encoder, export, floats, graph, node, options, samples},
};
use crate::{
    inspect,
    proto::{
        tensor_proto::DataLocation, tensor_shape_proto::Dimension, type_proto, AttributeProto, FunctionProto,
        GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto, TensorProto, TensorShapeProto,
        TrainingInfoProto, TypeProto,
    },
    split, SplitError, SplitOptions, Stages,
};

type Change = fn(&mut ModelProto);

fn op(model: &mut ModelProto, op: &str) {
    graph(model).node[4].op_type = Some(op.to_owned());
}

fn input_type(model: &mut ModelProto, kind: type_proto::Value) {
    graph(model).input[0].r#type = Some(TypeProto {
        value: Some(kind),
        ..TypeProto::default()
    });
}

fn tensor_type(code: i32, axes: usize) -> type_proto::Value {
    let symbol = |index: usize| Dimension {
        value: Some(crate::proto::tensor_shape_proto::dimension::Value::DimParam(format!(
            "axis{index}"
        ))),
        ..Dimension::default()
    };
    type_proto::Value::TensorType(type_proto::Tensor {
        elem_type: Some(code),
        shape: Some(TensorShapeProto {
            dim: (0..axes).map(symbol).collect(),
        }),
    })
}

/// What is wrong, and words of the sentence that says so.
const WRONG: [(Change, &str); 34] = [
    (
        |model| op(model, "If"),
        "(If) has a subgraph; models with If, Loop or Scan cannot be split",
    ),
    (|model| op(model, "Loop"), "(Loop) has a subgraph"),
    (|model| op(model, "Scan"), "(Scan) has a subgraph"),
    (
        |model| {
            let g = Some(GraphProto::default());
            graph(model).node[4].attribute.push(AttributeProto {
                g,
                ..AttributeProto::default()
            });
        },
        "(Relu) has a subgraph",
    ),
    (|model| op(model, "DynamicQuantizeLinear"), "is dynamic quantisation"),
    (|model| op(model, "RandomNormalLike"), "draws random numbers"),
    (
        |model| op(model, "SequenceConstruct"),
        "handles sequences or optional values",
    ),
    (
        |model| {
            model.functions.push(FunctionProto {
                name: Some("Gelu".to_owned()),
                ..FunctionProto::default()
            })
        },
        "defines 1 local functions, the first is Gelu; inline them first",
    ),
    (
        |model| model.training_info.push(TrainingInfoProto::default()),
        "carries training information",
    ),
    (
        |model| graph(model).node[4].domain = Some("com.example".to_owned()),
        "(Relu) is of the domain com.example, of which the model imports no version",
    ),
    (
        |model| model.opset_import.clear(),
        "imports no version of the standard operator set",
    ),
    (
        |model| model.opset_import[0].version = Some(-1),
        "imports no version of the standard operator set",
    ),
    (
        |model| model.ir_version = Some(99),
        "has IR version 99; 1 to 14 are read",
    ),
    (|model| model.ir_version = None, "has IR version 0; 1 to 14 are read"),
    (|model| model.graph = None, " has no graph"),
    (|model| graph(model).output.clear(), "the graph has no outputs"),
    (
        |model| graph(model).output[0].name = Some("input_ids".to_owned()),
        "output input_ids is made by no node",
    ),
    (
        |model| {
            let again = graph(model).output[0].clone();
            graph(model).output.push(again);
        },
        "last_hidden_state is made twice",
    ),
    (
        |model| {
            let again = graph(model).input[0].clone();
            graph(model).input.push(again);
        },
        "input_ids is made twice",
    ),
    (
        |model| graph(model).node[4].output[0] = "x0".to_owned(),
        "x0 is made twice",
    ),
    (
        |model| {
            let again = graph(model).initializer[0].clone();
            graph(model).initializer.push(again);
        },
        "words is made twice",
    ),
    (
        |model| graph(model).node.swap(0, 3),
        "is used by node /product0 before any node makes it",
    ),
    (
        // The first layer waits for the last.
        |model| graph(model).node[3].input[0] = "x4".to_owned(),
        "tensor x4 is used by node /product0 before any node makes it",
    ),
    (
        |model| graph(model).node[3].input[0] = "nobody".to_owned(),
        "node /product0 uses tensor nobody, which no input, initialiser or node gives",
    ),
    (
        |model| {
            graph(model).initializer.remove(0);
        },
        "uses tensor words, which no input, initialiser or node gives",
    ),
    (
        |model| graph(model).sparse_initializer.push(SparseTensorProto::default()),
        "sparse initialisers",
    ),
    (
        |model| graph(model).initializer[0].dims = vec![-4, -16],
        "initialiser words has the impossible shape [-4, -16]",
    ),
    (
        |model| graph(model).initializer[0].dims = vec![i64::MAX, i64::MAX],
        "initialiser words has the impossible shape [9223372036854775807, ",
    ),
    (
        |model| graph(model).initializer[0].dims = vec![1; 100_000],
        "initialiser words has 100000 axes, at most 64 are read",
    ),
    (
        |model| graph(model).initializer[0].data_type = Some(8),
        "initialiser words has element type 8",
    ),
    (
        |model| graph(model).initializer[0].data_type = Some(1_000),
        "initialiser words has element type 1000",
    ),
    (
        |model| input_type(model, tensor_type(17, 2)),
        "input input_ids: has an element type that rows cannot carry",
    ),
    (
        |model| input_type(model, tensor_type(7, 40)),
        "input input_ids: has more axes than a row can have",
    ),
    (
        |model| input_type(model, type_proto::Value::SequenceType(Box::default())),
        "input input_ids: is not a tensor",
    ),
];

/// What an export with this model is refused with; nothing may be left of the attempt.
fn refusal(bytes: &[u8]) -> SplitError {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("export");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("model.onnx"), bytes).unwrap();
    let target = folder.path().join("bundle");
    let refused = split(&source, &target, &options(2), &Interpreter(Quirk::None), &samples());
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "something is left: {left:?}");
    refused.unwrap_err()
}

#[test]
fn whatever_is_wrong_with_a_graph_is_said_in_one_sentence() {
    for (change, words) in WRONG {
        let mut model = encoder();
        change(&mut model);
        let bytes = model.encode_to_vec();
        let sentence = refusal(&bytes).to_string();
        assert!(sentence.contains(words), "{words:?} expected: {sentence:?}");
        assert!(sentence.len() < 400 && !sentence.contains('\n'), "{sentence:?}");
        let looked_at = inspect(&bytes).unwrap_err().to_string();
        assert!(looked_at.contains(words), "{looked_at:?}");
    }
}

#[test]
fn files_that_are_no_model_are_refused_as_such() {
    let text = b"{\"this\": \"is a configuration\"}";
    let refused = [
        (Vec::new(), "has no graph"),
        (text.to_vec(), "is not an ONNX model"),
        (vec![0xff; 4096], "is not an ONNX model"),
        (b"PK\x03\x04 an archive".to_vec(), "is not an ONNX model"),
    ];
    for (bytes, words) in refused {
        let sentence = refusal(&bytes).to_string();
        assert!(sentence.contains(words), "{sentence:?}");
    }
}

#[test]
fn a_model_cut_off_anywhere_is_refused() {
    let bytes = encoder().encode_to_vec();
    for end in (0..bytes.len()).step_by(7) {
        assert!(
            inspect(&bytes[..end]).is_err(),
            "the first {end} bytes of {}",
            bytes.len()
        );
    }
    assert!(inspect(&bytes).is_ok());
}

#[test]
fn what_a_model_says_about_itself_is_told_without_running_it() {
    let facts = inspect(&encoder().encode_to_vec()).unwrap();
    assert_eq!((facts.nodes, facts.opset, facts.single), (20, 17, false));
    assert_eq!(facts.outputs, ["last_hidden_state"]);
    assert_eq!(facts.inputs.len(), 2);
    assert_eq!(facts.weight_bytes, 16 * 4 * 4 + 8 + 4 * 64);
}

/// An export whose first weight is external data in this state.
fn external(prepare: impl Fn(&std::path::Path), change: impl Fn(&mut TensorProto)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("export");
    let mut model = encoder();
    change(&mut graph(&mut model).initializer[0]);
    export(&model, &source);
    prepare(&source);
    let target = folder.path().join("bundle");
    let refused = split(&source, &target, &options(2), &Interpreter(Quirk::None), &samples());
    assert!(!target.exists());
    refused.unwrap_err().to_string()
}

#[test]
fn external_data_is_read_from_files_of_the_folder_and_nothing_else() {
    let fields = |offset: &'static str, length: &'static str| {
        move |tensor: &mut TensorProto| {
            externalise(tensor, "weights.bin", 0, Some(256));
            for (entry, value) in tensor.external_data.iter_mut().skip(1).zip([offset, length]) {
                entry.value = Some(value.to_owned());
            }
        }
    };
    let whole = |source: &std::path::Path| std::fs::write(source.join("weights.bin"), [7; 256]).unwrap();
    for (offset, length, words) in [
        ("-8", "256", "field offset is \"-8\", not a number"),
        ("0", "-256", "field length is \"-256\", not a number"),
        ("0", "many", "field length is \"many\", not a number"),
        ("8", "256", "weights.bin has 256 bytes, 264 needed"),
        ("18446744073709551615", "256", "weights.bin has 256 bytes"),
        ("0", "18446744073709551615", "weights.bin has 256 bytes"),
        ("0", "128", "has 128 bytes, 256 expected"),
        ("99999999999999999999", "256", "not a number"),
    ] {
        let sentence = external(whole, fields(offset, length));
        assert!(sentence.contains(words), "{sentence:?}");
    }
    let nothing = |_: &std::path::Path| {};
    assert!(external(nothing, fields("0", "256")).contains("failed to read"));
    let folder = |source: &std::path::Path| std::fs::create_dir(source.join("weights.bin")).unwrap();
    assert!(external(folder, fields("0", "256")).contains("weights.bin is not a file"));
    // Reading an attribute of a node is the runtime's work, which would follow the location.
    let mut model = encoder();
    let reach = AttributeProto {
        name: Some("value".to_owned()),
        t: Some(TensorProto {
            data_location: Some(DataLocation::External as i32),
            ..floats("", &[1], 0.0)
        }),
        ..AttributeProto::default()
    };
    let body = graph(&mut model);
    body.node.push(NodeProto {
        attribute: vec![reach],
        ..node("ConstantOfShape", &["last"], "filled")
    });
    assert!(refusal(&model.encode_to_vec())
        .to_string()
        .contains("node /filled refers to a file from an attribute"));
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_out_of_the_folder_is_not_followed() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), [7; 256]).unwrap();
    let link =
        |source: &std::path::Path| std::os::unix::fs::symlink(secret.path(), source.join("weights.bin")).unwrap();
    let point = |tensor: &mut TensorProto| externalise(tensor, "weights.bin", 0, None);
    let sentence = external(link, point);
    assert!(
        sentence.contains("weights.bin is a link that leads out of the model's folder"),
        "{sentence:?}"
    );
    // A link inside is as good as a copy.
    let folder = tempfile::tempdir().unwrap();
    let mut model = encoder();
    point(&mut graph(&mut model).initializer[0]);
    let source = folder.path().join("export");
    export(&model, &source);
    std::fs::write(source.join("real.bin"), [0; 256]).unwrap();
    std::os::unix::fs::symlink("real.bin", source.join("weights.bin")).unwrap();
    let target = folder.path().join("bundle");
    split(&source, &target, &options(2), &Interpreter(Quirk::None), &samples()).unwrap();
}

#[cfg(unix)]
#[test]
fn no_file_of_an_export_is_read_through_a_link_that_leads_out_of_it() {
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "tokenizer.json", "config.json"] {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("export"), folder.path().join("bundle"));
        export(&encoder(), &source);
        // What lies behind the link would do.
        let secret = elsewhere.path().join(name);
        match name {
            "model.onnx" => std::fs::rename(source.join(name), &secret).unwrap(),
            _ => std::fs::write(&secret, r#"{"max_position_embeddings":16}"#).unwrap(),
        }
        let _ = std::fs::remove_file(source.join(name));
        std::os::unix::fs::symlink(&secret, source.join(name)).unwrap();
        let expected = format!(
            "{} is a link that leads out of the model's folder; copy the file there",
            source.join(name).display()
        );
        let attempt = || split(&source, &target, &options(2), &Interpreter(Quirk::None), &samples());
        assert_eq!(attempt().unwrap_err().to_string(), expected);
        if name != "model.onnx" {
            let options = SplitOptions::for_export(&source, Stages::Count(1));
            assert_eq!(options.unwrap_err().to_string(), expected);
        }
        assert!(!target.exists());
        // A folder of the export's own is as good as a copy.
        std::fs::remove_file(source.join(name)).unwrap();
        std::fs::create_dir(source.join("onnx")).unwrap();
        std::fs::copy(&secret, source.join("onnx").join(name)).unwrap();
        std::os::unix::fs::symlink(format!("onnx/{name}"), source.join(name)).unwrap();
        attempt().unwrap();
    }
}

#[test]
fn files_beside_the_model_that_are_no_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("export");
    export(&encoder(), &source);
    std::fs::create_dir(source.join("tokenizer.json")).unwrap();
    let target = folder.path().join("bundle");
    let attempt = || split(&source, &target, &options(2), &Interpreter(Quirk::None), &samples()).unwrap_err();
    assert!(attempt().to_string().ends_with("tokenizer.json is not a file"));
    std::fs::remove_dir(source.join("tokenizer.json")).unwrap();
    let huge = std::fs::File::create(source.join("tokenizer.json")).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert!(matches!(
        attempt(),
        SplitError::FileTooLarge {
            bytes: 1_099_511_627_776,
            ..
        }
    ));
    assert!(!target.exists());
}

#[test]
fn absurd_numbers_in_a_configuration_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("export");
    export(&encoder(), &source);
    for number in [
        "0",
        "-1",
        "1e30",
        "\"512\"",
        "null",
        "512.5",
        "99999999999999999999",
        "[]",
    ] {
        let text = format!("{{\"max_position_embeddings\": {number}}}");
        std::fs::write(source.join("config.json"), text).unwrap();
        let refused = SplitOptions::for_export(&source, Stages::Count(2)).and_then(|options| {
            let target = folder.path().join("bundle");
            split(&source, &target, &options, &Interpreter(Quirk::None), &samples())
        });
        let sentence = refused.unwrap_err().to_string();
        assert!(sentence.contains("position"), "{number}: {sentence:?}");
    }
}

/// Types that no row carries may still be inside: only borders have to be rows.
#[test]
fn weights_of_narrow_types_are_stored_whatever_they_are() {
    for (code, bytes) in [(17, 8), (18, 8), (21, 4), (22, 4), (10, 16), (16, 16), (14, 64)] {
        let mut model = encoder();
        graph(&mut model).initializer.push(TensorProto {
            name: Some("narrow".to_owned()),
            dims: vec![8],
            data_type: Some(code),
            raw_data: Some(vec![0; bytes].into()),
            ..TensorProto::default()
        });
        assert!(inspect(&model.encode_to_vec()).is_ok(), "element type {code}");
    }
    let empty = |name: &str| TensorProto {
        dims: vec![0, 4],
        raw_data: Some(Vec::new().into()),
        ..floats(name, &[1], 0.0)
    };
    let mut model = encoder();
    graph(&mut model).initializer.push(empty("empty"));
    assert!(inspect(&model.encode_to_vec()).is_ok());
}

#[test]
fn a_vendors_domain_that_is_imported_stays_whole_and_is_the_runtimes_to_refuse() {
    let mut model = encoder();
    model.opset_import.push(OperatorSetIdProto {
        domain: Some("com.microsoft".to_owned()),
        version: Some(1),
    });
    graph(&mut model).node[4].domain = Some("com.microsoft".to_owned());
    assert!(inspect(&model.encode_to_vec()).is_ok());
}
