//! What can go wrong for a user of flowctl: one line each.

use std::{io, path::PathBuf};

use crate::policy;

/// A command that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum CtlError {
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    #[error(
        "no daemon listens on {}: start it with `systemctl start flowd`, or name another socket \
         with --socket", .0.display()
    )]
    NoDaemon(PathBuf),
    #[error("no permission for {}: join the group flowd, or use sudo", .0.display())]
    NoPermission(PathBuf),
    #[error("cannot connect to {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the daemon did not answer within {0} seconds; see its log")]
    Timeout(u64),
    #[error("the connection to the daemon broke: {0}")]
    Broken(#[from] hyper::Error),
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What the daemon said, which tells what to do.
    #[error("{0}")]
    Refused(String),
    /// A policy that is wrong: what, where.
    #[error("the policy has {} problems", .0.len())]
    Policy(Vec<policy::Problem>),
    /// A file that the user named.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The store's own files.
    #[error("{0}; name it with `--store`, or run as a member of its group")]
    Store(crate::store::OpenError),
    /// The audit log's own file.
    #[error("{0}")]
    Audit(crate::store::AuditError),
    /// The history of a store.
    #[error("{0}")]
    Prove(crate::store::ProveError),
    /// The chain of seals, or a key.
    #[error("{0}")]
    Seal(crate::store::SealError),
    /// Where an export ended.
    #[error("{0}")]
    Bookmark(super::bookmark::BookmarkError),
    #[error(
        "there is no record {after} yet, the last one is record {last}: is the store another one? \
         Begin anew with a lower number, or without the file"
    )]
    BeyondStore { after: u64, last: u64 },
    #[error(
        "record {0} is not the one that was exported: the store is another one, which begins with \
         record 1; remove the file of `--resume`, and everything in it is new"
    )]
    OtherStore(u64),
    #[error("{0} is no text: send it into a file (`> FILE`) or a pipe")]
    NotForTerminals(&'static str),
    #[error("nobody read the export to its end: the next one begins where this one did")]
    Unread,
    /// Told by the exit code.
    #[error("nothing is new")]
    NothingNew,
    /// The command has said it all already.
    #[error("it has been told")]
    Told,
    #[error("the daemon's answer makes no sense ({0}); is it another version?")]
    Nonsense(String),
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// Whoever read the output has enough.
    #[error("nobody reads any more")]
    ClosedPipe,
}

impl From<io::Error> for CtlError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Write(error),
        }
    }
}
