//! What an error means: whether it passes, whether the file is damaged, and what to do.

use std::io::ErrorKind;

use rusqlite::{Error, ErrorCode};

use super::OpenError;
use crate::chunk::ChunkError;

/// Whether what is in the file cannot be right.
pub(super) fn is_damage(error: &Error) -> bool {
    match error {
        // A value that its column cannot have.
        Error::FromSqlConversionFailure(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..)
        | Error::IntegralValueOutOfRange(..) => true,
        _ => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ),
    }
}

/// Whether somebody ended the query.
pub(super) fn is_interruption(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

/// Whether the file's own content is at fault, wherever the error was wrapped.
pub(super) fn is_damaged_file(error: &OpenError) -> bool {
    match error {
        OpenError::Sqlite(error) => is_damage(error),
        OpenError::Segment { source, .. } => is_damaged_file(source),
        _ => false,
    }
}

/// Whether it may work later without anybody changing the configuration: a full disk, a read-only
/// file system, one that fails.
pub(super) fn may_pass(error: &OpenError) -> bool {
    match error {
        OpenError::Io { source, .. } => may_pass_of_kernel(source),
        OpenError::Sqlite(error) => may_pass_of_sqlite(error),
        OpenError::Segment { source, .. } => may_pass(source),
        _ => false,
    }
}

/// The same of what the kernel says.
pub(super) fn may_pass_of_kernel(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem | ErrorKind::QuotaExceeded
    ) || error.raw_os_error() == Some(libc::EIO)
}

/// The same of what SQLite says.
pub(super) fn may_pass_of_sqlite(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
        )
    )
}

/// What is wrong with the file, without what to do about it.
pub(super) fn said(error: &OpenError) -> String {
    match error {
        OpenError::Sqlite(error) => error.to_string(),
        OpenError::Segment { source, .. } => said(source),
        other => other.to_string(),
    }
}

/// What SQLite said, and what to do about it.
pub(super) fn with_remedy(error: &Error) -> String {
    // What is wrong with a chunk says itself what to do.
    if let Error::FromSqlConversionFailure(_, _, source) = error
        && source.is::<ChunkError>()
    {
        return source.to_string();
    }
    let remedy = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room on the disk",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "make the file system and the store's files writable"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "restore the file from a backup"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "end what else has the file open for writing"
        }
        _ => "check the disk's space and health",
    };
    format!("{error}: {remedy}")
}
