//! Compiles the vendored `onnx.proto` without `protoc`.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/onnx.proto");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let files = protox::compile([root.join("proto/onnx.proto")], [root.join("proto")])?;
    // Weights stay where the file was read: `Bytes` slices share its buffer. The schema's comments are not Rust documentation.
    prost_build::Config::new()
        .bytes(["."])
        .disable_comments(["."])
        .compile_fds(files)?;
    Ok(())
}
