//! How a command fails: one line that says what, one that says what to do, and an exit code that a script can rely on.

use metadb_proto::Error;
use std::process::ExitCode;

/// The exit codes, as `--help` documents them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line or the settings are wrong
  3  what was named does not exist
  4  it exists already, or somebody else changed it meanwhile
  5  the cluster can't answer now; nothing was done
  6  the outcome is not known: it may or may not have been done
  7  denied, or the credentials are missing or wrong
  8  asked and answered, and there are problems (`cairn admin status`; --exit-zero makes it 0)";

/// Why the process ends, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Unavailable = 5,
    UnknownOutcome = 6,
    Denied = 7,
    Problems = 8,
}

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Failure { code, message: message.into(), hint: None }
    }

    /// Something went wrong that no other code tells.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Failure::new(Code::Failed, message)
    }

    /// The person must change the command line or the settings.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::new(Code::Usage, message)
    }

    /// A file could not be read or written.
    pub(crate) fn io(operation: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Failure::failed(format!("can't {operation} {}: {error}", path.display()))
    }

    /// With what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With what was being done, in front.
    #[must_use]
    pub(crate) fn during(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code as u8)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The one translation from the cluster's errors to what a person reads.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Conflict { .. } | Error::AlreadyExists { .. } => Code::Conflict,
            Error::Moved { .. } | Error::Unavailable { .. } | Error::Exhausted { .. } => Code::Unavailable,
            Error::UnknownOutcome { .. } => Code::UnknownOutcome,
            Error::Invalid { .. } => Code::Usage,
            Error::NotFound { .. } => Code::NotFound,
            Error::Denied { .. } | Error::Unauthenticated { .. } | Error::Suspended { .. } => Code::Denied,
            Error::Corrupt { .. } | Error::Internal { .. } => Code::Failed,
        };
        let hint = match &error {
            Error::Conflict { .. } => Some("somebody else changed it at the same time; try again"),
            Error::Moved { .. } | Error::Unavailable { .. } => {
                Some("is the cluster up? `cairn admin status` shows what answers; `cairn dev` starts one here")
            }
            Error::Exhausted { .. } => Some("a quota or a queue is full; wait a moment, then try again"),
            Error::UnknownOutcome { .. } => Some("look whether it was done before you do it again"),
            Error::Denied { .. } => Some("use an operator's key, or a key of the tenant meant: `cairn admin key list` shows them"),
            Error::Unauthenticated { .. } => {
                Some("give --access-key-id and --secret-access-key, or --context with the file that `cairn dev` wrote")
            }
            Error::Suspended { .. } => Some(
                "an operator switched it off; `cairn admin setting list` shows who and why, `cairn admin tenant resume` or `cairn admin service enable` ends it",
            ),
            Error::Corrupt { .. } => Some("the bytes were not served; `cairn admin status` shows the replicas"),
            Error::Invalid { .. } | Error::NotFound { .. } | Error::AlreadyExists { .. } | Error::Internal { .. } => None,
        };
        Failure { code, message: error.to_string(), hint: hint.map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_duty_has_its_exit_code() {
        let code = |error: Error| Failure::from(error).code;
        assert_eq!(code(Error::not_found("x")), Code::NotFound);
        assert_eq!(code(Error::AlreadyExists { message: "x".into() }), Code::Conflict);
        assert_eq!(code(Error::unavailable("x", Duration::ZERO)), Code::Unavailable);
        assert_eq!(code(Error::UnknownOutcome { message: "x".into() }), Code::UnknownOutcome);
        assert_eq!(code(Error::Denied { message: "x".into() }), Code::Denied);
        assert_eq!(code(Error::invalid("f", "l", "v")), Code::Usage);
        assert_eq!(code(Error::internal("x")), Code::Failed);
    }

    #[test]
    fn the_help_documents_every_code() {
        for code in 0..=8 {
            assert!(EXIT_CODES.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))), "{code}");
        }
    }
}
