//! Exit codes, the same as those of `holdfast`, and errors that say what to do.

use std::io;

use crate::params::{KeyError, ParamsError};
use crate::proof::ProofFileError;

/// What the program ends with; the numbers do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    InUse = 8,
    /// The proof does not show what it claims.
    Refused = 11,
    NoSpace = 12,
    Permission = 13,
    NewerFormat = 14,
    /// Parameters, memory or disk that the command needs are not there.
    Missing = 15,
}

impl Exit {
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Why a command failed, for the person or program that called it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    pub hint: Option<String>,
    /// The output says it already; only the exit code is left to give.
    silent: bool,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, silent: false }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure in other words.
    pub fn worded(self, message: String) -> Self {
        Self { message, ..self }
    }

    pub fn silent(exit: Exit) -> Self {
        Self { silent: true, ..Self::new(exit, "") }
    }

    /// As programs read it.
    pub fn object(&self) -> serde_json::Value {
        serde_json::json!({
            "error": {"exit_code": self.exit.code(), "message": self.message, "hint": self.hint}
        })
    }

    pub fn print(&self, json: bool) {
        if self.silent {
            return;
        }
        if json {
            println!("{}", self.object());
        }
        eprintln!("holdfast-prover: {}", self.message);
        if let Some(hint) = &self.hint {
            eprintln!("  {hint}");
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Exit::NoSpace,
            io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<ProofFileError> for Failure {
    fn from(error: ProofFileError) -> Self {
        let message = error.to_string();
        match error {
            ProofFileError::Io(source) => source.into(),
            ProofFileError::Version(_) => Self::new(Exit::NewerFormat, message).hint("Update this program."),
            ProofFileError::Key(KeyError::Unknown(_)) => Self::new(Exit::Missing, message).hint(
                "The file names its verifying key and does not carry it: put the key into --parameters.",
            ),
            _ => Self::new(Exit::Refused, message),
        }
    }
}

impl From<ParamsError> for Failure {
    fn from(error: ParamsError) -> Self {
        let message = error.to_string();
        match error {
            ParamsError::Io { source, .. } => Self::from(source).worded(message),
            ParamsError::Busy { .. } => Self::new(Exit::InUse, message),
            ParamsError::NeverLocal(_) => Self::new(Exit::Usage, message).hint(
                "Fetch Filecoin's published parameters into the folder; their hashes are verified here.",
            ),
            ParamsError::Library(_) => Self::new(Exit::Failed, message),
            _ => Self::new(Exit::Missing, message),
        }
    }
}
