//! Why something could not be measured.

use std::fmt;
use std::io;
use std::path::PathBuf;

use weir_tests::process::ProcessError;

/// A failure that keeps a figure from being measured.
#[derive(Debug)]
pub(crate) enum Error {
    /// A file is missing or cannot be copied; what to run to have it.
    Missing { path: PathBuf, hint: &'static str },
    /// A file or a directory cannot be read or written.
    File { path: PathBuf, source: io::Error },
    /// The system refuses a port or a thread.
    System { what: &'static str, source: io::Error },
    /// A program does not run.
    Process(ProcessError),
    /// The load generator failed.
    Load { target: String, reason: String },
    /// The certificate made here is not one.
    Certificate { reason: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path, hint } => write!(f, "{} is missing: {hint}", path.display()),
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::System { what, source } => write!(f, "{what}: {source}"),
            Self::Process(source) => source.fmt(f),
            Self::Load { target, reason } => write!(f, "{target}: {reason}"),
            Self::Certificate { reason } => write!(f, "the certificate made for this run: {reason}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::System { source, .. } => Some(source),
            Self::Process(source) => Some(source),
            Self::Missing { .. } | Self::Load { .. } | Self::Certificate { .. } => None,
        }
    }
}

impl From<ProcessError> for Error {
    fn from(error: ProcessError) -> Self {
        Self::Process(error)
    }
}
