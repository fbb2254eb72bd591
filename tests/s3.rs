//! The S3 door against clients that people use: the newest boto3, and rclone. The scripts are the gateway's own.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::Dev;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python with boto3, and rclone beside it: made by `make deps`.
fn python() -> PathBuf {
    let default = || {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
        target.join("tools/venv/bin/python")
    };
    let python = std::env::var_os("CAIRN_TEST_PYTHON").map_or_else(default, PathBuf::from);
    assert!(python.exists(), "{} is not there; `make deps` installs it", python.display());
    python
}

/// Runs one of the gateway's scripts against a cluster.
#[track_caller]
fn script(name: &str) {
    let python = python();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("object-gateway/tests/s3").join(name);
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 3);
    let told = |name: &str| dev.told[name].as_str().expect("told").to_owned();
    let path = format!("{}:{}", python.parent().expect("in a folder").display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new(&python)
        .arg(&script)
        .env("PATH", path)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("CAIRN_S3_ENDPOINT", dev.told["nodes"][0]["s3"].as_str().expect("told"))
        .env("CAIRN_ACCESS_KEY_ID", told("access_key_id"))
        .env("CAIRN_SECRET_ACCESS_KEY", told("secret_access_key"))
        .env("CAIRN_S3_REGION", told("region"))
        .output()
        .expect("python runs");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{name}:\n{}", String::from_utf8_lossy(&text));
}

#[test]
fn the_newest_boto3_finds_what_it_expects() {
    script("boto.py");
}

#[test]
fn rclone_finds_what_it_expects() {
    script("rclone.py");
}
