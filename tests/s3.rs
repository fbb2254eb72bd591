//! The S3 door against clients that people use: the newest boto3, and rclone. The scripts are the gateway's own.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::Dev;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python with boto3, and rclone beside it: made by `make deps`.
fn python() -> PathBuf {
    let default = || {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
        target.join("tools/venv/bin/python")
    };
    let python = std::env::var_os("CAIRN_TEST_PYTHON").map_or_else(default, PathBuf::from);
    assert!(python.exists(), "{} is not there; `make deps` installs it", python.display());
    python
}

#[test]
fn clients_that_people_use_find_what_they_expect() {
    let python = python();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("object-gateway/tests/s3");
    let mut found: Vec<_> = std::fs::read_dir(&scripts).expect("the scripts").map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "py"));
    found.sort();
    assert!(!found.is_empty(), "no scripts in {}", scripts.display());
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 3);
    let told = |name: &str| dev.told[name].as_str().expect("told").to_owned();
    for script in found {
        let output = Command::new(&python)
            .arg(&script)
            .env("CAIRN_S3_ENDPOINT", dev.told["nodes"][0]["s3"].as_str().expect("told"))
            .env("AWS_ACCESS_KEY_ID", told("access_key_id"))
            .env("AWS_SECRET_ACCESS_KEY", told("secret_access_key"))
            .env("AWS_REGION", told("region"))
            .env("RCLONE", python.with_file_name("rclone"))
            .output()
            .expect("python runs");
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}:\n{}", script.display(), String::from_utf8_lossy(&text));
    }
}
