//! Compiles the proto with a pure-Rust compiler, so that no `protoc` is needed.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["content/v1/content.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("content.v1.descriptors.bin");
    std::fs::write(&out, descriptors.encode_to_vec())?;
    tonic_build::configure()
        .btree_map(["."])
        .bytes(["."])
        .file_descriptor_set_path(&out)
        .skip_protoc_run()
        .compile_protos(&["content/v1/content.proto"], &["proto"])?;
    Ok(())
}
