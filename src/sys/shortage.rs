//! Failures that say nothing about the host: the process lacks something for the moment.

use std::io;

use nix::errno::Errno;

/// Returns true if the process, or the machine, has no descriptor, memory or thread left. A later
/// call may succeed, so nobody may conclude from this errno that the kernel lacks a feature.
pub(crate) fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN)
}

/// Returns the errno of a failed read if it is a shortage, and otherwise `other`.
pub(crate) fn shortage_or(error: &io::Error, other: Errno) -> Errno {
    error.raw_os_error().map(Errno::from_raw).filter(|errno| is_shortage(*errno)).unwrap_or(other)
}

/// Returns what the thread of a result has found out, if the thread could be started. A shortage is
/// an error; any other failure means that the kernel refuses, and gives `None`.
pub(crate) fn unless_refused<T>(joined: io::Result<std::thread::Result<Result<T, Errno>>>) -> Result<Option<T>, Errno> {
    match joined {
        Ok(Ok(Ok(made))) => Ok(Some(made)),
        Ok(Ok(Err(errno))) if is_shortage(errno) => Err(errno),
        Err(error) => Err(error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw)),
        _ => Ok(None),
    }
}
