//! Compiles the push service from its description, without an installed protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/span.proto");
    let descriptors = protox::compile(["span.proto"], ["proto"])?;
    tonic_build::configure()
        .bytes(["fxn.span.v1.Frame.row"])
        .compile_fds(descriptors)?;
    Ok(())
}
