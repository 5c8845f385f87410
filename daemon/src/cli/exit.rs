//! Exit codes, and errors that say what to do.

use holdfast_content::{dagcbor::FormatError, head::HeadError};
use holdfast_fs::{drive::error::DriveError, rows::RowError, vfs::FsError};
use holdfast_store::StoreError;

use crate::{
    control::{ClientError, ControlError, ErrorKind},
    drive::ledger::LedgerError,
    home::{HomeError, mountpoint::MountpointError, passphrase::SecretError},
    metrics::MetricsError,
    provide::ProvideError,
    restore::{NotFound, TooFew},
    sealing::SealingError,
};

/// What the program ends with. The numbers are documented in daemon/CLI.md and do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// clap's own number.
    Usage = 2,
    Secrets = 3,
    NotMounted = 4,
    Home = 5,
    Mountpoint = 6,
    NoFuse = 7,
    InUse = 8,
    Network = 9,
    NotSafe = 10,
    Damage = 11,
    NoSpace = 12,
    Permission = 13,
    NewerFormat = 14,
    /// A program or parameters that the command needs are not there.
    Missing = 15,
}

impl Exit {
    const ALL: [Exit; 16] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::Secrets,
        Exit::NotMounted,
        Exit::Home,
        Exit::Mountpoint,
        Exit::NoFuse,
        Exit::InUse,
        Exit::Network,
        Exit::NotSafe,
        Exit::Damage,
        Exit::NoSpace,
        Exit::Permission,
        Exit::NewerFormat,
        Exit::Missing,
    ];

    pub fn code(self) -> i32 {
        self as i32
    }

    /// From the number that the background process reports.
    pub fn from_code(code: i32) -> Exit {
        Exit::ALL.into_iter().find(|e| e.code() == code).unwrap_or(Exit::Failed)
    }
}

/// Why a command failed, for the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The output says it already; only the exit code is left to give.
    pub(super) silent: bool,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None, silent: false }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    pub fn internal(error: impl std::fmt::Display) -> Failure {
        Failure::new(Exit::Failed, format!("{error:#}"))
    }

    pub fn silent(mut self) -> Failure {
        self.silent = true;
        self
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
        eprintln!("holdfast: {}", self.message);
        if let Some(hint) = &self.hint {
            eprintln!("  {hint}");
        }
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Failure {
        let message = error.to_string();
        match error {
            HomeError::Missing(_) => Failure::new(Exit::Home, message).hint(
                "`holdfast init` makes a new drive, `holdfast restore` brings one back; --home names another folder.",
            ),
            HomeError::Exists(_) => Failure::new(Exit::Home, message)
                .hint("Mount it with `holdfast mount`, or name another folder with --home."),
            HomeError::NotEmpty(_) => {
                Failure::new(Exit::Home, message).hint("Name an empty or a new folder with --home.")
            }
            HomeError::InUse { .. } => Failure::new(Exit::InUse, message)
                .hint("It is mounted already, or another command works on it: see `holdfast status`; `holdfast unmount` ends it."),
            HomeError::WrongPassphrase => Failure::new(Exit::Secrets, message).hint(
                "The words open the drive as well: `holdfast restore` makes a new home folder with a new passphrase.",
            ),
            HomeError::NewerFormat { .. } => {
                Failure::new(Exit::NewerFormat, message).hint("Update this program; nothing was changed.")
            }
            HomeError::Damaged { .. } => Failure::new(Exit::Home, message)
                .hint("What is Placed comes back with `holdfast restore` and the words, into another home folder."),
            HomeError::Permission { .. } => Failure::new(Exit::Permission, message),
            HomeError::NoSpace { .. } => Failure::new(Exit::NoSpace, message),
            HomeError::NotLocked(_) | HomeError::Io { .. } | HomeError::Keys(_) => Failure::new(Exit::Home, message),
        }
    }
}

impl From<MountpointError> for Failure {
    fn from(error: MountpointError) -> Failure {
        let message = error.to_string();
        match error {
            MountpointError::NoFuse(_) => Failure::new(Exit::NoFuse, message),
            MountpointError::NotEmpty(_) => {
                Failure::new(Exit::Mountpoint, message).hint("Name another folder, or move what is in it.")
            }
            MountpointError::Mounted { .. } => Failure::new(Exit::Mountpoint, message)
                .hint("If it is this drive: `holdfast unmount`. Otherwise name another folder."),
            MountpointError::Io { ref source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Failure::new(Exit::Permission, message)
            }
            _ => Failure::new(Exit::Mountpoint, message),
        }
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Failure {
        let message = error.to_string();
        match error {
            SecretError::File(error) => error.into(),
            SecretError::NoTerminal { what: "words" } => {
                Failure::new(Exit::Secrets, message).hint("Give them in a file: --words-file FILE (or `-`).")
            }
            SecretError::NoTerminal { .. } => Failure::new(Exit::Secrets, message)
                .hint("Give it in a file: --passphrase-file FILE (or `-`)."),
            _ => Failure::new(Exit::Secrets, message),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let message = error.to_string();
        match error {
            ClientError::NotRunning(_) => {
                Failure::new(Exit::NotMounted, "the drive is not mounted").hint("`holdfast mount` mounts it.")
            }
            ClientError::Silent => Failure::new(Exit::Failed, message)
                .hint("See daemon.log in the home folder. `holdfast unmount --force` ends it; nothing is lost by that."),
            ClientError::Refused(error) => error.into(),
            _ => Failure::new(Exit::Failed, message),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Failure {
        match error.kind {
            ErrorKind::Busy => Failure::new(Exit::InUse, error.message).hint(
                "Close the programs that use it (`fuser -vm MOUNTPOINT` names them), or unmount with --lazy.",
            ),
            ErrorKind::Timeout => Failure::new(Exit::NotSafe, error.message)
                .hint("It goes on in the background; `holdfast status` tells what it waits for."),
            ErrorKind::Unavailable => {
                Failure::new(Exit::NotSafe, error.message).hint("`holdfast status` tells what is missing.")
            }
            ErrorKind::Invalid => Failure::new(Exit::Usage, error.message),
            ErrorKind::ReadOnly => Failure::new(Exit::Failed, error.message),
            ErrorKind::NoSpace => Failure::new(Exit::NoSpace, error.message),
            ErrorKind::Internal => Failure::new(Exit::Failed, error.message),
        }
    }
}

impl From<ProvideError> for Failure {
    fn from(error: ProvideError) -> Failure {
        let message = error.to_string();
        match error {
            ProvideError::InUse { .. } => Failure::new(Exit::InUse, message),
            ProvideError::Address(_) | ProvideError::Tags | ProvideError::List { .. } => Failure::new(Exit::Usage, message),
            ProvideError::Listen { port_in_use: true, .. } => Failure::new(Exit::InUse, message)
                .hint("Another program uses this port: give another one with --listen."),
            ProvideError::Listen { .. } => Failure::new(Exit::Network, message),
            ProvideError::Metrics(error) => error.into(),
            ProvideError::Folder(HomeError::NotEmpty(dir)) => Failure::new(
                Exit::Home,
                format!("{} is not empty and is not a provider's folder", dir.display()),
            )
            .hint("Name an empty or a new folder."),
            ProvideError::Folder(error) => error.into(),
            ProvideError::Prover(error) => error.into(),
            ProvideError::Sealing(SealingError::Refused { code, .. }) => {
                Failure::new(Exit::from_code(code), message)
                    .hint("`--seal off` provides without sealing; `holdfast proofs params --profile ...` says what is missing.")
            }
            ProvideError::Sealing(SealingError::Start(_)) => Failure::new(Exit::Missing, message),
            ProvideError::Net(_) => Failure::new(Exit::Failed, message),
            ProvideError::Io(_) => from_causes(&error.into()),
        }
    }
}

impl From<MetricsError> for Failure {
    fn from(error: MetricsError) -> Failure {
        let message = error.to_string();
        if error.in_use() {
            return Failure::new(Exit::InUse, message)
                .hint("Another program uses this port: give another one with --metrics.");
        }
        let exit = match error.source.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Network,
        };
        Failure::new(exit, message)
    }
}

impl From<anyhow::Error> for Failure {
    /// Looks through the causes for one that has a code of its own.
    fn from(error: anyhow::Error) -> Failure {
        match error.downcast::<HomeError>() {
            Ok(home) => home.into(),
            Err(error) => match error.downcast::<MountpointError>() {
                Ok(mountpoint) => mountpoint.into(),
                Err(error) => match error.downcast::<ControlError>() {
                    Ok(control) => control.into(),
                    Err(error) => match error.downcast::<MetricsError>() {
                        Ok(metrics) => metrics.into(),
                        Err(error) => from_causes(&error),
                    },
                },
            },
        }
    }
}

/// What the store, the rows or the ledger have to say, where they are the cause.
fn from_storage(error: &anyhow::Error) -> Option<(Exit, Option<&'static str>)> {
    const RESTORE: &str = "Nothing was changed. What is Placed comes back with `holdfast restore` and the words, into another home folder.";
    const NO_INDEX: &str = "Nothing was changed. The log does not reach back far enough to make the index again: a copy of the whole home \
                            folder, or `holdfast restore` and the words into another one, brings the drive back.";
    const INDEX: &str = "Nothing was changed. Rename the folder `index` in the home folder and try again: it is made again if the log reaches \
                         back to the first record. If that is refused, give it its name back; then only a copy of the whole home folder, or \
                         `holdfast restore` and the words into another one, helps.";
    let newer = (Exit::NewerFormat, Some("Update this program; nothing was changed."));
    error.chain().find_map(|cause| {
        if let Some(LedgerError::Newer { .. }) = cause.downcast_ref() {
            return Some(newer);
        }
        if let Some(LedgerError::BadRow(..)) = cause.downcast_ref() {
            return Some((Exit::Home, Some(RESTORE)));
        }
        let store = match cause.downcast_ref::<DriveError>() {
            Some(
                DriveError::Store(store)
                | DriveError::Row(RowError::Store(store))
                | DriveError::Fs(FsError::Rows(RowError::Store(store))),
            ) => Some(store),
            Some(
                DriveError::Row(RowError::Newer { .. })
                | DriveError::Fs(FsError::Rows(RowError::Newer { .. })),
            ) => return Some(newer),
            Some(
                DriveError::Damaged { .. }
                | DriveError::Row(RowError::Corrupt { .. })
                | DriveError::Fs(FsError::Damaged(_) | FsError::Rows(RowError::Corrupt { .. })),
            ) => return Some((Exit::Home, Some(RESTORE))),
            _ => cause.downcast_ref::<StoreError>(),
        };
        match store? {
            StoreError::NewerFormat { .. } => Some(newer),
            StoreError::NoSpace { .. } => Some((Exit::NoSpace, None)),
            StoreError::InUse(_) => Some((Exit::InUse, None)),
            StoreError::IndexDamaged(_) => Some((Exit::Home, Some(INDEX))),
            StoreError::IndexMissing { .. } => Some((Exit::Home, Some(NO_INDEX))),
            StoreError::Corrupt { .. }
            | StoreError::WrongKey
            | StoreError::IndexForeign
            | StoreError::IndexBehind { .. }
            | StoreError::LogMissing { .. } => Some((Exit::Home, Some(RESTORE))),
            StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some((Exit::Permission, None))
            }
            StoreError::Io { .. } | StoreError::Index(_) => Some((Exit::Home, None)),
            _ => None,
        }
    })
}

/// What the search for a drive by its words, and for its newest head, has to say.
pub(super) fn from_search(error: &anyhow::Error) -> Option<Failure> {
    const UPDATE: &str = "Update this program; nothing was changed.";
    let (exit, hint) = error.chain().find_map(|cause| {
        if cause.is::<TooFew>() {
            const FEW: &str =
                "Wait until more of them answer. If they never will, --minority takes what there is. Nothing was changed.";
            return Some((Exit::Network, FEW));
        }
        let newer = |error: &FormatError| matches!(error, FormatError::Newer { .. });
        if cause.downcast_ref::<FormatError>().is_some_and(newer)
            || matches!(cause.downcast_ref::<HeadError>(), Some(HeadError::Format(error)) if newer(error))
        {
            return Some((Exit::NewerFormat, UPDATE));
        }
        Some(match cause.downcast_ref::<NotFound>()? {
            NotFound::Newer { .. } => (Exit::NewerFormat, UPDATE),
            NotFound::Damaged { .. } => {
                (Exit::Damage, "Name another of its providers with --peer: one good answer is enough. Nothing was changed.")
            }
            NotFound::Unknown { .. } => (
                Exit::Network,
                "Compare the words with what you wrote down, and the drive's name with what `holdfast status` showed; name one of \
                 its providers with --peer. Nothing was changed.",
            ),
            NotFound::NothingPlaced => (
                Exit::Network,
                "If there was a drive with data, another of its providers may keep its head: name it with --peer. Nothing was \
                 changed.",
            ),
        })
    })?;
    Some(Failure::new(exit, format!("{error:#}")).hint(hint))
}

fn from_causes(error: &anyhow::Error) -> Failure {
    if let Some(failure) = from_search(error) {
        return failure;
    }
    if let Some((exit, hint)) = from_storage(error) {
        let failure = Failure::new(exit, format!("{error:#}"));
        return match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
    }
    let kind =
        error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    let exit = match kind {
        Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => Exit::NoSpace,
        Some(std::io::ErrorKind::PermissionDenied) => Exit::Permission,
        Some(std::io::ErrorKind::AddrInUse) => Exit::InUse,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_search_found_has_codes_of_its_own() {
        let of = |error: NotFound| Failure::from(anyhow::Error::new(error).context("restoring")).exit;
        assert_eq!(of(NotFound::Newer { what: "head", version: 2 }), Exit::NewerFormat);
        assert_eq!(of(NotFound::Damaged { what: "head", why: "cut short".into() }), Exit::Damage);
        assert_eq!(of(NotFound::Unknown { drive: "k51".into(), answered: 1 }), Exit::Network);
        assert_eq!(of(NotFound::NothingPlaced), Exit::Network);
        let newer = || FormatError::Newer { what: "head", found: 2, known: 1 };
        for error in [anyhow::Error::new(newer()), HeadError::Format(newer()).into()] {
            assert_eq!(Failure::from(error).exit, Exit::NewerFormat);
        }
        let few = TooFew { shown: 1, named: 3, needed: 2 };
        assert!(Failure::from(anyhow::Error::new(few)).hint.is_some_and(|hint| hint.contains("--minority")));
    }
}
