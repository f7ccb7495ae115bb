//! Why something could not be tried.

use std::fmt;
use std::io;

use weir_tests::process::ProcessError;

/// A failure that keeps a figure from being measured.
#[derive(Debug)]
pub(crate) enum Error {
    /// A program does not run.
    Process(ProcessError),
    /// The system refuses something.
    System { what: &'static str, source: io::Error },
    /// A proxy did not do what it was told.
    Refused { said: String },
    /// What should have happened did not, so that the figure would mean nothing.
    Void { why: String },
}

impl Error {
    /// What the system refused.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(source) => source.fmt(f),
            Self::System { what, source } => write!(f, "{what}: {source}"),
            Self::Refused { said } => write!(f, "it refused: {}", said.trim()),
            Self::Void { why } => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Process(source) => Some(source),
            Self::System { source, .. } => Some(source),
            Self::Refused { .. } | Self::Void { .. } => None,
        }
    }
}

impl From<ProcessError> for Error {
    fn from(error: ProcessError) -> Self {
        Self::Process(error)
    }
}
