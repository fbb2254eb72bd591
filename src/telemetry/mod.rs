//! What a node tells while it runs: log lines on standard error, for people or for programs, and numbers for whoever asks.

pub(crate) mod metrics;
pub(crate) mod otlp;
mod process;
mod recorder;
pub(crate) mod text;

use crate::config::{LogConfig, LogFormat};
use crate::failure::Failure;
use metadb_telemetry::Samples;
use recorder::{Registry, Shared};
use std::sync::Arc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The S3 library tells every refused request as an error of ours. Counted out unless it is asked for by name.
const QUIET: &str = "s3s";

/// Checks what shall be logged.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let asked_for = level.split(',').any(|directive| directive.trim_start().starts_with(QUIET));
    if asked_for { EnvFilter::try_new(level) } else { EnvFilter::try_new(format!("{QUIET}=off,{level}")) }
}

/// What the process uses of its machine, for the status of its node.
pub(crate) fn usage() -> metadb::node::Usage {
    process::usage()
}

/// What a process tells of itself, once it has started to.
#[derive(Clone)]
pub(crate) struct Telemetry {
    registry: Arc<Registry>,
}

impl Telemetry {
    /// Starts to log and to count. Before anything else: a part that asks for a handle earlier gets one that does nothing.
    pub(crate) fn start(config: &LogConfig) -> Result<Self, Failure> {
        start_logging(config)?;
        let registry = Arc::new(Registry::new(metrics::all().map(|(_, metric)| metric)));
        ::metrics::set_global_recorder(Shared(Arc::clone(&registry)))
            .map_err(|error| Failure::failed(format!("can't start to count: {error}")))?;
        Ok(Telemetry { registry })
    }

    /// All numbers as Prometheus reads them; `read` adds those that parts know when they are asked.
    pub(crate) fn scrape(&self, node_id: u64, read: impl FnOnce(&mut Samples)) -> String {
        let mut samples = Samples::default();
        samples.with(&metrics::BUILD, &[&crate::node::build(), &node_id], true);
        process::read(&mut samples);
        read(&mut samples);
        text::render(&self.registry, samples)
    }
}

fn start_logging(config: &LogConfig) -> Result<(), Failure> {
    let filter = filter(&config.level).map_err(|error| Failure::usage(format!("invalid setting log.level: {error}")))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|error| Failure::failed(format!("can't start to log: {error}")))
}
