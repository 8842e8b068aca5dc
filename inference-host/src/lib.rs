//! Runs stages of partitioned models on ONNX Runtime.

pub mod onnx;
pub mod tokenizer;
