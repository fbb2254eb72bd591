//! Compiles the two small protos that only the measurement needs.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["etcd.proto", "echo.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("benches.descriptors.bin");
    std::fs::write(&out, descriptors.encode_to_vec())?;
    tonic_build::configure()
        .bytes(["."])
        .file_descriptor_set_path(&out)
        .skip_protoc_run()
        .compile_protos(&["etcd.proto", "echo.proto"], &["proto"])?;
    Ok(())
}
