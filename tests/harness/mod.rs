//! The real binary, run from outside.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// How long a cluster may take for what a test waits for: nothing here is slow, but a busy machine is late.
const WITHIN: Duration = Duration::from_secs(120);
/// Between two looks whether it has come about.
const LOOK: Duration = Duration::from_millis(100);

/// The binary under test.
pub(crate) const CAIRN: &str = env!("CARGO_BIN_EXE_cairn");

/// A command with an environment of its own: no setting of the person who runs the tests reaches it.
pub(crate) fn cairn(args: &[&str]) -> Command {
    let mut command = Command::new(CAIRN);
    command.env_clear().envs(std::env::vars().filter(|(name, _)| !name.starts_with("CAIRN_"))).args(args);
    command
}

/// Runs a command to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    cairn(args).stdin(Stdio::null()).output().expect("the binary runs")
}

/// What a command wrote to standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command wrote to standard output.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A cluster of `cairn dev`. Stopped in an orderly way when dropped.
pub(crate) struct Dev {
    process: Child,
    /// What it said of itself.
    pub(crate) told: serde_json::Value,
    /// Its folder.
    pub(crate) data: PathBuf,
}

impl Dev {
    /// Starts a cluster and waits until it is ready.
    pub(crate) fn start(data: &Path, nodes: u16) -> Dev {
        Dev::start_with(data, nodes, &[])
    }

    /// As [`Dev::start`], with settings of the nodes as environment variables.
    pub(crate) fn start_with(data: &Path, nodes: u16, settings: &[(&str, &str)]) -> Dev {
        let args = ["dev", "-o", "json", "--nodes", &nodes.to_string(), "--data", data.to_str().expect("a plain path")];
        let mut process =
            cairn(&args).envs(settings.iter().copied()).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("the binary runs");
        let mut text = String::new();
        for line in BufReader::new(process.stdout.take().expect("piped")).lines() {
            let line = line.expect("text");
            text.push_str(&line);
            if line == "}" {
                break;
            }
        }
        let told = serde_json::from_str(&text).unwrap_or_else(|error| panic!("not ready: {error}: {text:?}"));
        Dev { process, told, data: data.to_owned() }
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        cairn(args).env("CAIRN_CONTEXT", self.data.join("credentials.toml")).stdin(Stdio::null()).output().expect("the binary runs")
    }

    /// Runs a command that must do, and parses its JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.run(&[args, &["-o", "json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", stdout(&output)))
    }

    /// Runs a command that must fail with this code; gives what it said.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        stderr(&output)
    }

    /// The id of a node, by its place in what was told: nodes get their ids in the order in which they come.
    pub(crate) fn node_id(&self, node: usize) -> u64 {
        let identity = self.data.join(format!("node-{}", node + 1)).join("identity.toml");
        let identity = std::fs::read_to_string(identity).expect("an identity");
        let id = identity.lines().find_map(|line| line.strip_prefix("node_id = "));
        id.and_then(|id| id.parse().ok()).expect("it names the node")
    }

    /// The sum of a node's samples whose lines begin so; none: it does not answer.
    pub(crate) fn metric(&self, node: usize, start: &str) -> Option<f64> {
        let address = self.told["nodes"][node]["http"].as_str()?.strip_prefix("http://")?;
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let lines = answer.lines().filter(|line| line.starts_with(start));
        let numbers: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!numbers.is_empty()).then(|| numbers.iter().sum())
    }

    /// Asks it to stop; gives whether it did so by itself within 15 seconds.
    pub(crate) fn stop(&mut self) -> bool {
        let pid = rustix::process::Pid::from_raw(self.process.id().cast_signed()).expect("a pid");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        for _ in 0..150 {
            if let Ok(Some(status)) = self.process.try_wait() {
                return status.success();
            }
            pause(Duration::from_millis(100));
        }
        false
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if !self.stop() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// Waits until something holds. What is looked at may take its time, so time is counted and not looks.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + WITHIN;
    while !holds() {
        assert!(Instant::now() < end, "never within {WITHIN:?}: {what}");
        pause(LOOK);
    }
}

/// Waits, outside of any runtime.
#[expect(clippy::disallowed_methods, reason = "a test from outside has no runtime")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
