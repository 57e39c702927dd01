//! The socket: made, or handed over by the service manager.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::{
            fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
            net::UnixListener as StdListener,
        },
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// The socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers on it.
    #[error("{} is in use by a running flowd: stop it, or set another `api.socket`", .0.display())]
    InUse(PathBuf),
    /// It is a file of another kind, which flowd does not touch.
    #[error("{} exists and is no socket: move it away, or set another `api.socket`", .0.display())]
    NoSocket(PathBuf),
    /// The operating system refused.
    #[error("cannot make the socket {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A socket on which nobody can connect yet.
#[derive(Debug)]
pub struct Prepared {
    listener: StdListener,
    /// Where it is for now and where it belongs; the service manager's own is in its place.
    unready: Option<(PathBuf, PathBuf)>,
}

/// Binds a socket for `path`, or takes the one that the service manager has bound. A socket that a
/// killed daemon left is replaced; one that answers is not.
pub fn bind(path: &Path) -> Result<Prepared, BindError> {
    let fail = |source| BindError::Io { path: path.to_owned(), source };
    match inherited().map_err(fail)? {
        Some(listener) => Ok(Prepared { listener, unready: None }),
        None => make(path),
    }
}

impl Prepared {
    /// Whether the daemon made the socket, and so removes it when it stops.
    pub fn is_own(&self) -> bool {
        self.unready.is_some()
    }

    /// Puts the socket into its place: from here on clients connect. Call it inside a tokio
    /// runtime.
    pub fn publish(mut self) -> io::Result<UnixListener> {
        if let Some((from, to)) = self.unready.take() {
            fs::rename(from, to)?;
        }
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some((unready, _)) = &self.unready
            && let Err(error) = fs::remove_file(unready)
        {
            tracing::debug!(%error, "an unused socket stays behind");
        }
    }
}

fn inherited() -> io::Result<Option<StdListener>> {
    let Some(fd) = sd_notify::listen_fds()?.next() else {
        return Ok(None);
    };
    // SAFETY: the service manager made this descriptor for us, and nobody else here takes it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Some(StdListener::from(fd)))
}

fn make(path: &Path) -> Result<Prepared, BindError> {
    let fail = |source| BindError::Io { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(fail)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NoSocket(path.to_owned()));
        }
        Ok(_) => remove_stale(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    // Bound under another name and moved when the daemon is ready, so that nobody connects before.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let unready = PathBuf::from(name);
    // One that was killed before it was ready had the same number.
    match fs::remove_file(&unready) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = StdListener::bind(&unready).map_err(fail)?;
    let prepared = Prepared { listener, unready: Some((unready.clone(), path.to_owned())) };
    permit(&unready).map_err(fail)?;
    Ok(prepared)
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "replacing the socket of a flowd that was killed");
            fs::remove_file(path).map_err(|source| BindError::Io { path: path.to_owned(), source })
        }
        Err(source) => Err(BindError::Io { path: path.to_owned(), source }),
        Ok(_) => Err(BindError::InUse(path.to_owned())),
    }
}

/// Everybody may connect: who may ask is decided by whom the kernel says it is, and who may not
/// leaves a trace.
fn permit(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
}
