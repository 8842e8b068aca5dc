//! Every element type passes through ONNX Runtime unchanged, and what it refuses is an error.

use std::path::PathBuf;

use partition::{DType, Runtime, RuntimeError, Tensor};

use crate::partition_proof::runtime;

/// One field of a protobuf message: a number or bytes.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
}

fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// `y = Identity(x)`, x of this type and of shape [batch, 2].
fn identity(dtype: DType) -> Vec<u8> {
    let dims = [field(1, &field(2, b"batch")), field(1, &number(1, 2))].concat();
    let tensor = [number(1, dtype.code()), field(2, &dims)].concat();
    let value = |name: &[u8]| [field(1, name), field(2, &field(1, &tensor))].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Identity")].concat();
    let graph = [
        field(1, &node),
        field(2, b"identity"),
        field(11, &value(b"x")),
        field(12, &value(b"y")),
    ]
    .concat();
    [number(1, 8), field(7, &graph), field(8, &number(2, 17))].concat()
}

fn write(folder: &tempfile::TempDir, dtype: DType) -> PathBuf {
    let path = folder.path().join(format!("{dtype:?}"));
    std::fs::write(&path, identity(dtype)).unwrap();
    path
}

#[test]
fn every_element_type_passes_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in DType::ALL {
        let mut loaded = runtime().load(&write(&folder, dtype)).unwrap();
        // Bytes of 0 and 1 are a legal value of any type, a boolean included.
        let data: Vec<u8> = (0..6 * dtype.size()).map(|index| u8::from(index % 3 == 0)).collect();
        let tensor = Tensor::new(dtype, vec![3, 2], data).unwrap();
        let answer = loaded.run(vec![("x".to_owned(), tensor.clone())]).unwrap();
        assert_eq!(answer, [("y".to_owned(), tensor)], "{dtype:?}");
    }
}

#[test]
fn a_session_moves_to_the_thread_that_owns_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut loaded = runtime().load(&write(&folder, DType::Int64)).unwrap();
    let owner =
        std::thread::spawn(move || loaded.run(vec![("x".to_owned(), Tensor::from_i64(vec![1, 2], &[5, 6]).unwrap())]));
    assert_eq!(owner.join().unwrap().unwrap()[0].1.shape, [1, 2]);
}

#[test]
fn wrong_names_types_shapes_and_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let mut loaded = runtime().load(&write(&folder, DType::Int64)).unwrap();
    let tensor = Tensor::from_i64(vec![1, 2], &[5, 6]).unwrap();
    let wide = Tensor::from_i64(vec![1, 3], &[5, 6, 7]).unwrap();
    let other = Tensor::from_f32(vec![1, 2], &[5.0, 6.0]).unwrap();
    let torn = Tensor {
        shape: vec![1, 4],
        ..tensor.clone()
    };
    for (name, tensor) in [("z", tensor.clone()), ("x", wide), ("x", other), ("x", torn)] {
        assert!(matches!(
            loaded.run(vec![(name.to_owned(), tensor)]),
            Err(RuntimeError::Run { .. })
        ));
    }
    assert!(loaded.run(vec![]).is_err());
    assert!(
        loaded.run(vec![("x".to_owned(), tensor)]).is_ok(),
        "a refused run does no harm"
    );
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "not a graph").unwrap();
    assert!(matches!(runtime().load(&broken), Err(RuntimeError::Load { graph, .. }) if graph == broken));
}

#[test]
fn the_engine_class_says_what_bits_depend_on() {
    let class = runtime().engine_class();
    let version =
        std::fs::read_to_string(crate::partition_proof::project().join(".runtime/onnxruntime/VERSION")).unwrap();
    assert!(class.starts_with(&format!("ort-{}/cpu/", version.trim())), "{class}");
    assert!(class.ends_with("/f32/opt=all/wire=f32"), "{class}");
}
