//! The removal of a container.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use super::{Container, LOCK_PAUSE};
use crate::durable::Created;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::oci::hooks;
use crate::oci::state::{Saved, Status};
use crate::oci::state_dir::Lock;
use crate::sys::pidfd;

/// The longest time that a delete by force waits for another call to let the container go.
const FORCE_PATIENCE: Duration = Duration::from_secs(60);

impl Container {
    /// Opens the sandbox to remove it: by the copy of its record if its own is garbled, or empty.
    fn open_to_remove(&self, _lock: &Lock) -> Result<Option<Created>> {
        let copy = self.saved.as_ref().and_then(|saved| saved.sandbox.as_deref());
        let by_copy = |copy: &str| Created::open_by_copy(&self.dir.sandbox(), copy).map(Some);
        match (self.open(), copy) {
            // There is a copy of what was made whole.
            (Ok(Some(created)), Some(copy)) if !created.is_whole() => by_copy(copy),
            (Err(error), Some(copy)) if error.kind() != ErrorKind::NotFound => by_copy(copy),
            (Err(error), None) => {
                let group = self.saved.as_ref().and_then(|saved| saved.cgroup.as_deref());
                let group = group.map(|path| format!(" and its control group {}", path.display())).unwrap_or_default();
                let stays = format!("the container's processes{group} stay: end them, and remove the directory");
                Err(error.hint(stays))
            }
            (opened, _) => opened,
        }
    }

    /// Removes the container for the error of a hook.
    pub(super) fn destroyed_for(&mut self, error: Error, lock: &Lock) -> Error {
        match self.destroy(lock) {
            Ok(_) => error,
            Err(other) => error.hint(format!("the container cannot be removed either: {other}")),
        }
    }

    /// Removes the sandbox, runs the hooks `poststop`, and removes the directory. Returns the
    /// errors of hooks.
    fn destroy(&mut self, lock: &Lock) -> Result<Vec<Error>> {
        let created = match self.created.take() {
            Some(created) => Some(created),
            None => self.open_to_remove(lock)?,
        };
        if let Some(saved) = &mut self.saved {
            saved.deleting = true;
            // It is for those who ask meanwhile, and no reason to leave the container.
            let _ = self.dir.write(&saved.to_json());
        }
        if let Some(created) = created {
            created.remove()?;
        }
        let failed = match &self.saved {
            Some(saved) => hooks::run_each("poststop", &saved.poststop, &saved.shown(Status::Stopped, None)),
            None => Vec::new(),
        };
        self.dir.remove()?;
        Ok(failed)
    }

    /// Removes a container that has stopped, or waits for its start; with `force` also one that
    /// runs, or is being made. Then runs the hooks `poststop`, and returns the errors of those that
    /// fail: they end nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that runs, without `force`; and if something cannot
    /// be removed: then the call may be repeated. [`ErrorKind::NotFound`] if another call has
    /// deleted it. With `force`, [`ErrorKind::Timeout`] if another call holds the container for
    /// longer than a minute, although its first process is killed.
    pub fn delete(mut self, force: bool) -> Result<Vec<Error>> {
        let lock = if force { self.lock_by_force()? } else { self.dir.lock()? };
        match self.read_again(&lock) {
            // What can be read of the sandbox is enough.
            Err(_) if force => self.saved = None,
            other => other?,
        }
        if !force {
            let (status, _) = self.look(Some(&lock))?;
            if matches!(status, Status::Running | Status::Paused) {
                let reason = format!("cannot delete a container that is not stopped: {status}");
                return Err(self.refuse(Step::RemoveCreated, &reason));
            }
        }
        let failed = self.destroy(&lock)?;
        drop(lock);
        Ok(failed)
    }

    /// Takes the lock from a call that has it as long as the container lives: one that waits for a
    /// hook gives up once the first process is killed.
    fn lock_by_force(&mut self) -> Result<Lock> {
        let until = Instant::now() + FORCE_PATIENCE;
        loop {
            if let Some(lock) = self.dir.try_lock()? {
                return Ok(lock);
            }
            if Instant::now() >= until {
                let seconds = FORCE_PATIENCE.as_secs();
                let reason = format!("container {}: another call has not let it go within {seconds} s", self.id);
                let error = Error::message(ErrorKind::Timeout, Step::RemoveCreated, reason);
                return Err(error.hint("it may wait for a poststop hook that has no timeout, or stand still"));
            }
            // The creator notes the process while this call waits.
            if let Some(text) = self.dir.read().ok().flatten() {
                self.saved = Saved::from_json(&text, &self.id).ok();
            }
            // A look at a sandbox that is not whole would be in the way of the other call.
            let is_whole = self.saved.as_ref().is_some_and(|saved| saved.sandbox.is_some());
            match self.first() {
                Some(first) => drop(pidfd::send_signal(first.as_fd(), libc::SIGKILL)),
                None if is_whole => drop(self.open().map(|created| created.map(|it| it.signal(libc::SIGKILL)))),
                None => {}
            }
            thread::sleep(LOCK_PAUSE);
        }
    }
}
