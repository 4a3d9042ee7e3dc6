//! Why a transaction was taken back.

use rusqlite::ErrorCode;

/// Why a transaction was taken back.
pub(super) enum Fault {
    /// SQLite said so.
    Sql(rusqlite::Error),
    /// What was to be written panicked.
    Panic,
}

impl Fault {
    /// Whether nothing at all can be written, rather than one thing.
    pub(super) fn is_outage(&self) -> bool {
        let Self::Sql(error) = self else {
            return false;
        };
        matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
                    | ErrorCode::PermissionDenied
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::OutOfMemory
                    | ErrorCode::NotADatabase
            )
        )
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sql(error) => write!(f, "{error}"),
            Self::Panic => f.write_str("a bug: writing panicked; see the log"),
        }
    }
}
