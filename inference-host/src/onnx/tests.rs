//! The runtime on the real library of `.runtime/`, without a GPU.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "numbers in tests are small"
)]

use partition::{DType, Tensor};

use super::{
    session::{Probe, CONVOLUTION, PRODUCT},
    *,
};

fn runtime() -> OnnxRuntime {
    OnnxRuntime::load(&find_library(None).unwrap()).unwrap()
}

#[test]
fn a_missing_or_foreign_library_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = OnnxRuntime::load(&folder.path().join("missing.so"));
    assert!(matches!(missing, Err(LibraryError::Read { .. })));
    let foreign = folder.path().join("foreign.so");
    std::fs::write(&foreign, "not a library").unwrap();
    let refused = OnnxRuntime::load(&foreign);
    assert!(matches!(
        refused,
        Err(LibraryError::NotALibrary { .. } | LibraryError::AlreadyLoaded { .. })
    ));
}

#[test]
fn the_probes_compute_and_a_wrong_answer_is_found_out() {
    for probe in [PRODUCT, CONVOLUTION] {
        let session = |probe: Probe| runtime().builder().unwrap().commit_from_memory(&probe.model()).unwrap();
        probe.run(&mut session(probe)).unwrap();
        let other = if probe.model() == PRODUCT.model() {
            CONVOLUTION
        } else {
            PRODUCT
        };
        assert!(other.run(&mut session(probe)).is_err());
    }
    let mut sum = PRODUCT.model();
    let at = sum.windows(6).position(|window| window == b"MatMul").unwrap();
    // An operator of as many letters that takes two tensors as well and gives something else.
    sum[at..at + 6].copy_from_slice(b"BitAnd");
    assert!(runtime().builder().unwrap().commit_from_memory(&sum).is_err());
}

#[test]
fn bound_runs_give_the_same_bits_as_others_in_whatever_order_shapes_come() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("any");
    std::fs::write(&graph, squares_of_any_length()).unwrap();
    let session = || runtime().builder().unwrap().commit_from_file(&graph).unwrap();
    let (mut plain, mut bound) = (OnnxSession::on_cpu(session()), OnnxSession::bound(session()).unwrap());
    // More shapes than are kept, each of them again before and after it was forgotten.
    for round in 0..120_u16 {
        let length = usize::from(round * 7 % 23 + 1);
        let numbers: Vec<f32> = (0..length * 2).map(|n| f32::from(round) + n as f32 * 0.37).collect();
        let x = Tensor::from_f32(vec![length as u64, 2], &numbers).unwrap();
        let input = || vec![("x".to_owned(), x.clone())];
        let expected = plain.run(input()).unwrap();
        assert_eq!(expected[0].1.shape, [length as u64, 2]);
        assert_eq!(bound.run(input()).unwrap(), expected, "round {round}");
    }
    let wrong = vec![(
        "x".to_owned(),
        Tensor::new(DType::Int64, vec![2, 2], vec![0; 32]).unwrap(),
    )];
    assert!(bound.run(wrong.clone()).is_err());
    assert!(plain.run(wrong).is_err());
    // An error leaves nothing behind.
    let x = Tensor::from_f32(vec![1, 2], &[3.0, 4.0]).unwrap();
    let input = || vec![("x".to_owned(), x.clone())];
    assert_eq!(bound.run(input()).unwrap(), plain.run(input()).unwrap());
}

/// `y = x * x`, number by number, for any number of rows.
fn squares_of_any_length() -> Vec<u8> {
    let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let number = |of: u8, value: u8| vec![of << 3, value];
    let axes = [field(1, &field(2, b"n")), field(1, &number(1, 2))].concat();
    let kind = field(1, &[number(1, 1), field(2, &axes)].concat());
    let value = |name: &[u8]| [field(1, name), field(2, &kind)].concat();
    let node = [field(1, b"x"), field(1, b"x"), field(2, b"y"), field(4, b"Mul")].concat();
    let graph = [
        field(1, &node),
        field(2, b"g"),
        field(11, &value(b"x")),
        field(12, &value(b"y")),
    ];
    [number(1, 8), field(7, &graph.concat()), field(8, &number(2, 13))].concat()
}

#[test]
fn a_device_that_is_not_there_is_a_sentence_and_the_cpu_is_never_taken_instead() {
    let cpu = runtime();
    let error = cpu.on(Device::Cuda(0), DEVICE_MEMORY_BYTES_MAX).unwrap_err();
    // The project's own library is built for the CPU.
    let expected = "libonnxruntime_providers_shared.so is missing: this ONNX Runtime computes on the CPU only";
    assert!(error.to_string().contains(expected), "{error}");
    let same = cpu.on(Device::Cpu, 1).unwrap();
    assert_eq!(same.engine_class(), cpu.engine_class());
    assert!(cpu.engine_class().contains("/cpu/"));
}

#[test]
fn what_the_library_says_about_placement_is_understood() {
    let listener = Listener::default();
    let ear = listener.clone();
    let hear = move |_: LogLevel, _: &str, _: &str, _: &str, message: &str| ear.hear(message);
    let builder = runtime().builder().unwrap();
    let mut builder = builder
        .with_logger(Arc::new(hear))
        .unwrap()
        .with_log_level(LogLevel::Verbose)
        .unwrap();
    builder.commit_from_memory(&PRODUCT.model()).unwrap();
    listener.check("CPUExecutionProvider").unwrap();
    assert!(matches!(
        listener.check(PROVIDER),
        Err(PlacementError::Elsewhere { .. })
    ));
}
