//! All processes of a container, by its control group: signals, pauses, limits, statistics.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::Container;
use crate::cgroup::{Group, Stats};
use crate::child::{Events, Execs};
use crate::durable::CreatedState;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::oci::problems::Problems;
use crate::oci::state::Status;
use crate::oci::translate::limits_of;
use crate::oci::update::{Update, complete};
use crate::sys::pidfd;

const FREEZE_PATIENCE: Duration = Duration::from_secs(10);

impl Container {
    /// Sends a signal to the container's first process; with `all` to every process in its control
    /// group. SIGKILL goes to all in any case if they do not end with the first one. It also ends a
    /// container that is being created, while hooks run: the create fails then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that does not run, and with EINVAL for a number that
    /// is no signal.
    pub fn kill(&self, signal: i32, all: bool) -> Result<()> {
        let saved = self.saved()?;
        let is_kill = signal == libc::SIGKILL;
        let everything = all || is_kill && !saved.own_pid_ns;
        let (status, _) = self.look(None)?;
        if status == Status::Creating
            && is_kill
            && let Some(first) = self.first()
        {
            // Whoever runs a hook for it gives up.
            let failed = |errno| Error::new(Step::Signal, errno).with_kind(ErrorKind::Control);
            return pidfd::send_signal(first.as_fd(), signal).map_err(failed);
        }
        if everything && let Some(group) = self.group()? {
            if is_kill {
                group.kill()?;
            } else {
                signal_all(&group, signal)?;
            }
        } else if matches!(status, Status::Stopped | Status::Creating) {
            return Err(self.refuse(Step::Signal, "container not running"));
        } else {
            let created = self.open()?.ok_or_else(|| self.refuse(Step::Signal, "container not running"))?;
            created.signal(signal)?;
        }
        if is_kill && status == Status::Paused {
            // A process that is frozen by v1 ends once it is thawed.
            self.need_group(Step::Freeze)?.thaw()?;
        }
        Ok(())
    }

    /// Freezes all processes of the container.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that does not run, or is paused, or has no control
    /// group.
    pub fn pause(&self) -> Result<()> {
        let lock = self.dir.lock()?;
        match self.look(Some(&lock))?.0 {
            Status::Running => self.need_group(Step::Freeze)?.freeze(FREEZE_PATIENCE),
            status => Err(self.refuse(Step::Freeze, &format!("container not running: {status}"))),
        }
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that is not paused.
    pub fn resume(&self) -> Result<()> {
        let lock = self.dir.lock()?;
        match self.look(Some(&lock))?.0 {
            Status::Paused => self.need_group(Step::Freeze)?.thaw(),
            status => Err(self.refuse(Step::Freeze, &format!("container not paused: {status}"))),
        }
    }

    /// Changes limits of the container. What `update` does not set stays as it is, as do the rules
    /// for devices.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] and [`ErrorKind::Unsupported`] with the paths of properties;
    /// [`ErrorKind::Control`] for a container that has stopped, without a control group, and for a
    /// limit that the kernel refuses: those before it are set then.
    pub fn update(&mut self, update: &Update) -> Result<()> {
        let mut update = update.resources.clone();
        let lock = self.dir.lock()?;
        self.read_again(&lock)?;
        let mut saved = self.saved()?.clone();
        let known = complete(&mut update, &saved.limits);
        let mut problems = Problems::default();
        let limits = limits_of(&update, &mut problems);
        let limits = problems.unless_any(limits)?;
        match self.look(Some(&lock))?.0 {
            Status::Stopped | Status::Creating => return Err(self.refuse(Step::SetLimit, "container not running")),
            _ => {
                let group = self.need_group(Step::SetLimit)?;
                match &self.created {
                    Some(created) => created.set_limits_of_unit(&limits)?,
                    None => self.open()?.map_or(Ok(()), |created| created.set_limits_of_unit(&limits))?,
                }
                // systemd may round, so the files come last.
                group.update(&limits)?;
            }
        }
        saved.limits = known;
        self.dir.write(&saved.to_json())?;
        self.saved = Some(saved);
        Ok(())
    }

    /// Returns what the container uses.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that has stopped, and without a control group.
    pub fn stats(&self) -> Result<Stats> {
        match self.look(None)?.0 {
            Status::Stopped | Status::Creating => Err(self.refuse(Step::Stats, "container not running")),
            _ => self.need_group(Step::Stats)?.stats(),
        }
    }

    /// Returns what happens in the container from here on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] for a container that has stopped, and without a control group.
    pub fn events(&self) -> Result<Events> {
        let stopped = || self.refuse(Step::Events, "container not running");
        let created = self.open()?.ok_or_else(stopped)?;
        let process = created.pidfd().filter(|_| !matches!(created.state(), Ok(CreatedState::Stopped)));
        let process = process.ok_or_else(stopped)?.try_clone_to_owned();
        let process = process.map_err(|error| Error::io(Step::Events, &error).with_kind(ErrorKind::Control))?;
        Events::of_other(process, Some(&self.need_group(Step::Events)?), &Arc::new(Execs::default()))
    }

    /// Returns the pids of all processes, in this process's pid namespace. Without a pid namespace
    /// of its own, a container that has stopped may have left some.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] without a control group.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let pids = self.need_group(Step::Stats)?.processes()?;
        Ok(pids.into_iter().map(i32::unsigned_abs).collect())
    }

    fn group(&self) -> Result<Option<Group>> {
        match &self.created {
            Some(created) => created.group(),
            None => self.open()?.map_or(Ok(None), |created| created.group()),
        }
    }

    fn need_group(&self, step: Step) -> Result<Group> {
        self.group()?.ok_or_else(|| {
            let reason = format!("container {} has no control group", self.id);
            Error::message(ErrorKind::Control, step, reason).hint("name one with linux.cgroupsPath")
        })
    }
}

/// Signals every process of a group, and none that has got the pid of one meanwhile.
fn signal_all(group: &Group, signal: i32) -> Result<()> {
    let failed = |errno| Error::new(Step::Signal, errno).with_kind(ErrorKind::Control);
    let opened: Vec<_> =
        group.processes()?.into_iter().filter_map(|pid| Some((pid, pidfd::open_any(pid).ok()?))).collect();
    let still = group.processes()?;
    for (_, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
        match pidfd::send_signal(process.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}
