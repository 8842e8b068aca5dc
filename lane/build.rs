//! Compiles the lane from its description, without an installed protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/lane.proto");
    let descriptors = protox::compile(["lane.proto"], ["proto"])?;
    tonic_build::configure()
        .bytes(["fxn.lane.v1.Row.bytes", "fxn.lane.v1.Boundary.row"])
        .compile_fds(descriptors)?;
    Ok(())
}
