//! What a node tells while it runs: log lines on standard error, for people or for programs.

use crate::config::{LogConfig, LogFormat};
use crate::failure::Failure;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The S3 library tells every refused request as an error of ours. Counted out unless it is asked for by name.
const QUIET: &str = "s3s";

/// Checks what shall be logged.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let asked_for = level.split(',').any(|directive| directive.trim_start().starts_with(QUIET));
    if asked_for { EnvFilter::try_new(level) } else { EnvFilter::try_new(format!("{QUIET}=off,{level}")) }
}

/// Starts to log.
pub(crate) fn start(config: &LogConfig) -> Result<(), Failure> {
    let filter = filter(&config.level).map_err(|error| Failure::usage(format!("invalid setting log.level: {error}")))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|error| Failure::failed(format!("can't start to log: {error}")))
}
