//! Compiles the protos with a pure-Rust compiler, so that no `protoc` is needed.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["error", "kv", "node", "peer", "directory", "settings", "shard"].map(|name| format!("metadb/v1/{name}.proto"));
    let descriptors = protox::compile(protos, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("metadb.v1.descriptors.bin");
    std::fs::write(&out, descriptors.encode_to_vec())?;
    tonic_build::configure().btree_map(["."]).bytes(["."]).file_descriptor_set_path(&out).skip_protoc_run().compile_protos_with_config(
        without_secrets(),
        &["metadb/v1/kv.proto"],
        &["proto"],
    )?;
    Ok(())
}

/// A record that holds a secret writes its own `Debug`.
fn without_secrets() -> prost_build::Config {
    let mut config = prost_build::Config::new();
    config.skip_debug(["metadb.v1.KeyRecord"]);
    // Every result carries the room of an error.
    config.boxed(".metadb.v1.Redirect.keys");
    config
}
