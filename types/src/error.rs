//! Errors by what the caller can do about them; the kinds are also the exit codes of the command line.

use serde::{Deserialize, Serialize};

/// What went wrong, seen from the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A defect in Conun, or a machine that fails it (disk full): report it.
    Internal,
    /// The command was misused: change its arguments.
    Usage,
    /// SQL or data are wrong: change the query or the file.
    Data,
    /// Nodes or coordinator cannot be reached, or too few are left: try again or check the network.
    Unavailable,
    /// The job would cost more than its budget.
    Budget,
    /// Replicas disagreed, or too few independent operators exist to reach the asked bound.
    Verification,
}

impl ErrorKind {
    /// The exit code of the command line (DESIGN section 8; `docs/CLI.md`).
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Internal => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Data => 3,
            ErrorKind::Unavailable => 4,
            ErrorKind::Budget => 5,
            ErrorKind::Verification => 6,
        }
    }
}

/// An error with one clear line and, where there is one, a hint on what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Error {
    /// What the caller can do about it.
    pub kind: ErrorKind,
    /// One line: what went wrong, with the names concerned.
    pub message: String,
    /// What to try next.
    pub hint: Option<String>,
}

/// Result with Conun's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// A defect or a failing machine.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A misused command.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Wrong SQL or data.
    #[must_use]
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Nobody there, or too few.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// No agreement among replicas.
    #[must_use]
    pub fn verification(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Verification, message)
    }

    /// The same error with a hint on what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error, its message preceded by `context` ("reading flights.parquet: …").
    #[must_use]
    pub fn context(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

/// Files that cannot be read or written: the caller's data where they are missing, else the machine's.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound | Io::PermissionDenied | Io::InvalidData | Io::IsADirectory | Io::NotADirectory => {
                ErrorKind::Data
            }
            Io::ConnectionRefused | Io::ConnectionReset | Io::ConnectionAborted | Io::TimedOut | Io::BrokenPipe => {
                ErrorKind::Unavailable
            }
            Io::AddrInUse => ErrorKind::Usage,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
