//! The end of a created sandbox: its processes, its groups, its unit of systemd, its directories.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Created;
#[cfg(feature = "oci")]
use crate::cgroup::{self, Group, Limits, Manager, UnitId};
#[cfg(not(feature = "oci"))]
use crate::cgroup::{self, Group, UnitId};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::owner;
use crate::sys::pidfd;

/// The longest time that the processes of a sandbox may take to end.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// The longest time that systemd may take to change or to stop a unit.
#[cfg(feature = "oci")]
const UNIT_PATIENCE: Duration = Duration::from_secs(30);

/// # The end
impl Created {
    /// Kills the sandbox, whether its program was started or not, and removes everything that was
    /// made for it: its control group, its scratch directory, and its own directory. An error
    /// leaves that directory, so that another process can go on.
    ///
    /// Without a [`pid_ns`](crate::Sandbox::pid_ns) and without a limit, which brings a control
    /// group, only the program itself is killed. A [`cgroup`](crate::Sandbox::cgroup) that another
    /// sandbox has taken since the program's end is left alone. Where no group can be marked
    /// (without cgroup v2, and before Linux 5.7), what the program has left in such a group after
    /// its end is not killed either, and is an error (EBUSY).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] if something cannot be removed, in another pid namespace than the
    /// creator's, or with EWOULDBLOCK while another process starts or removes the sandbox.
    pub fn remove(mut self) -> Result<()> {
        self.refuse_elsewhere(Step::RemoveCreated)?;
        let _lock = self.place.lock(Step::RemoveCreated)?;
        // Before the first process ends: it may be what tells whose the group is.
        let named = self.end_named_group();
        self.end()?;
        if self.unit().is_some() {
            self.stop_unit()?;
            self.remove_rest_of_group()?;
        }
        // systemd removes the group of a scope as soon as that is empty, also while it is given
        // back.
        match named {
            Err(_) if self.unit().is_some() && !self.has_named_group() => {}
            other => other?,
        }
        if let Some(belongings) = &self.record.belongings {
            for group in &belongings.groups {
                cgroup::end(group, END_PATIENCE)?;
            }
            for group in &belongings.missing {
                let is_above = |other: &PathBuf| other != group && other.starts_with(group);
                if belongings.missing.iter().any(is_above) {
                    cgroup::remove_parent(group);
                } else {
                    cgroup::remove_empty(group, END_PATIENCE)?;
                }
            }
            if let Some(base) = &belongings.scratch {
                owner::remove_scratch_of(&belongings.name, base)?;
            }
            // This is the last that the claim stands for, here or on the record of its owner.
            drop(self.claim.take());
            owner::end_claim(&belongings.name)?;
        }
        self.place.remove()
    }

    /// Kills what runs in the group that the caller has named, and gives the group back, if the
    /// sandbox has it yet.
    fn end_named_group(&self) -> Result<()> {
        let named = self.record.belongings.as_ref().filter(|belongings| !belongings.named.is_empty());
        let Some(belongings) = named else { return Ok(()) };
        if !self.is_of_this_boot(Step::RemoveCgroup)? {
            return Ok(());
        }
        let first = || self.first_pid();
        match Group::of_named(cgroup::host()?, &belongings.named)? {
            Some(group) => group.end_named(&belongings.name, &first, &|| self.has_unit(), END_PATIENCE),
            None => Ok(()),
        }
    }

    /// Removes what systemd has left of the group of the sandbox's unit, which is gone: the
    /// directories in hierarchies of v1 that it does not know. Where something runs by now, another
    /// sandbox has got the name.
    fn remove_rest_of_group(&self) -> Result<()> {
        let named = self.record.belongings.as_ref().map_or(&[][..], |belongings| &belongings.named);
        if named.is_empty() || !self.is_of_this_boot(Step::RemoveCgroup)? {
            return Ok(());
        }
        match Group::of_named(cgroup::host()?, named)? {
            Some(group) => group.remove_empty(END_PATIENCE),
            None => Ok(()),
        }
    }

    /// Returns the unit of systemd that was made for the sandbox.
    fn unit(&self) -> Option<&UnitId> {
        self.record.belongings.as_ref()?.unit.as_ref()
    }

    /// Returns whether systemd has the sandbox's unit; `None` for a sandbox without one.
    fn has_unit(&self) -> Result<Option<bool>> {
        #[cfg(feature = "oci")]
        if let Some(unit) = self.unit() {
            return Manager::of_caller(Instant::now() + UNIT_PATIENCE)?.has(unit).map(Some);
        }
        Ok(None)
    }

    fn has_named_group(&self) -> bool {
        let named = self.record.belongings.as_ref().map_or(&[][..], |belongings| &belongings.named);
        cgroup::host().and_then(|host| Group::of_named(host, named)).is_ok_and(|group| group.is_some())
    }

    /// Stops the unit, in which nothing runs any more, and waits until systemd has it no more.
    fn stop_unit(&self) -> Result<()> {
        let Some(unit) = self.unit() else { return Ok(()) };
        if !self.is_of_this_boot(Step::RemoveCreated)? {
            return Ok(());
        }
        #[cfg(feature = "oci")]
        {
            let stopped = Manager::of_caller(Instant::now() + UNIT_PATIENCE).and_then(|mut manager| manager.stop(unit));
            stopped.map_err(|error| error.with_kind(ErrorKind::Control))
        }
        #[cfg(not(feature = "oci"))]
        {
            let reason = format!("the sandbox has the unit {} of systemd", unit.name);
            let error = Error::message(ErrorKind::Unsupported, Step::RemoveCreated, reason).at(self.dir());
            Err(error.hint("remove it by a program that has the crate's feature oci"))
        }
    }

    /// Changes limits of the sandbox's unit, if it has one, so that systemd keeps them when it
    /// loads its units again.
    #[cfg(feature = "oci")]
    pub(crate) fn set_limits_of_unit(&self, limits: &Limits) -> Result<()> {
        let Some(unit) = self.unit() else { return Ok(()) };
        let host = cgroup::host()?;
        let set =
            Manager::of_caller(Instant::now() + UNIT_PATIENCE).and_then(|mut it| it.set_limits(unit, host, limits));
        set.map_err(|error| error.with_kind(ErrorKind::Control))
    }

    /// Ends the first process, and reaps it if it is a child of this process.
    fn end(&self) -> Result<()> {
        let Some(process) = self.pidfd() else { return Ok(()) };
        let failed = |errno| Error::new(Step::Kill, errno).at(self.dir()).with_kind(ErrorKind::Control);
        match pidfd::send_signal(process, libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(failed(errno)),
        }
        // A frozen process ends once its group is killed, which thaws the group.
        let groups = self.record.belongings.as_ref().map_or(&[][..], |belongings| &belongings.groups);
        for group in groups {
            cgroup::end(group, END_PATIENCE)?;
        }
        if !self.ends_by(Instant::now() + END_PATIENCE) {
            return Err(failed(Errno::ETIMEDOUT).hint("the kernel may block it, in a file system that hangs"));
        }
        // ECHILD: the parent is another process.
        let _ = pidfd::wait(process, false);
        Ok(())
    }
}
