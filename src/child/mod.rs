//! The handle: wait, signal, measure, and the taking away of everything when it is dropped.

mod outcome;
mod output;
mod pressure;
mod resources;
mod shared;
mod stream;
mod wait;
mod watch;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::ChildStdin;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use outcome::{Outcome, Output, Usage, Verdict};
pub(crate) use resources::{MountNamespace, Resources};
pub(crate) use shared::Facts;
use shared::Shared;
use stream::Meter;
pub use stream::OutputStream;

use crate::cgroup::{Limits, Stats};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::feature::Enforced;
use crate::security::Notifications;
use crate::spawn::{Running, Timings};

/// How long a drop waits for the kernel before it leaves the rest to the watching thread.
const DROP_PATIENCE: Duration = Duration::from_millis(50);
/// How long wait and close wait for the control group to empty.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);

/// A program in its sandbox, as `std::process::Child` is one without.
///
/// When the program ends, the sandbox ends: what it left running is killed, as far as a pid namespace or a control group
/// shows it.
///
/// # Drop
///
/// Dropping the handle kills everything in the sandbox, reaps the program, and removes its control group and scratch
/// directory. It waits for 50 ms at most; what takes longer is finished by a thread of the library's.
/// [`close`](Child::close) does the same and tells what went wrong; [`detach`](Child::detach) lets the program go on.
///
/// Without `pid_ns` and without a limit (which brings a control group) there is nothing that holds the program's
/// descendants together but its process group, if it has one of its own.
///
/// In a fork of the caller the handle has no power: dropping it there does nothing.
#[must_use = "dropping the handle ends the program"]
#[derive(Debug)]
pub struct Child {
    /// The writing end of the program's stdin, if it was [piped](crate::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The reading end of the program's stdout, if it was [piped](crate::Stdio::piped).
    pub stdout: Option<OutputStream>,
    /// The reading end of the program's stderr, if it was [piped](crate::Stdio::piped).
    pub stderr: Option<OutputStream>,
    /// What the [`seccomp`](crate::Sandbox::seccomp) profile asks about, where it has [`Action::Notify`](crate::Action::Notify)
    /// and was not [supervised](crate::Sandbox::spawn_supervised) from the start. To be taken and answered by another thread,
    /// or before a wait, which closes it as it closes stdin.
    pub notifications: Option<Notifications>,
    /// `None` once the handle has been given up.
    shared: Option<Arc<Shared>>,
    enforced: Enforced,
    meter: Option<Arc<Meter>>,
}

/// The time limits that are watched from outside.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) wall_time: Option<Duration>,
    /// Read off the control group.
    pub(crate) cpu_time: Option<Duration>,
}

/// The limit of what the program writes to the streams that the library reads.
#[derive(Debug)]
pub(crate) struct OutputLimit {
    pub(crate) bytes: u64,
    /// Output beyond the limit is cut off, and the program goes on.
    pub(crate) cuts: bool,
}

/// A program that has just been executed, with all that its handle takes over.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) running: Running,
    pub(crate) at: Instant,
    /// The caller's ends of stdin, stdout and stderr.
    pub(crate) streams: [Option<OwnedFd>; 3],
    pub(crate) resources: Resources,
    pub(crate) facts: Facts,
    pub(crate) enforced: Enforced,
    pub(crate) output_limit: Option<OutputLimit>,
    /// What the filter asks, if nobody else hears it.
    pub(crate) notifications: Option<Notifications>,
    pub(crate) watch: Watch,
}

impl Child {
    /// Takes charge of a program that runs, and has its time limits watched.
    pub(crate) fn new(started: Started) -> Result<Child> {
        let Started { running, at, streams, resources, facts, watch: Watch { wall_time, cpu_time }, .. } = started;
        let [stdin, stdout, stderr] = streams;
        let asks = facts.asks;
        let shared = Arc::new(Shared::new(running, at, resources, facts)?);
        let meter = started.output_limit.map(|limit| Meter::new(limit.bytes, limit.cuts, &shared));
        let child = Child {
            stdin: stdin.map(ChildStdin::from),
            stdout: stdout.map(|pipe| OutputStream::new(pipe, meter.clone())),
            stderr: stderr.map(|pipe| OutputStream::new(pipe, meter.clone())),
            notifications: started.notifications,
            shared: Some(shared.clone()),
            enforced: started.enforced,
            meter,
        };
        // On an error the handle made above is dropped, and with it the program.
        if let Some(limit) = wall_time.and_then(|limit| at.checked_add(limit)) {
            watch::at(limit, &shared, watch::Due::WallTime)?;
        }
        if let Some(limit) = cpu_time.map(|limit| limit.saturating_add(shared.cpu_before())) {
            watch::at(at, &shared, watch::Due::CpuTime(watch::CpuWatch::new(limit)))?;
        }
        if asks {
            watch::reap(&shared)?;
        }
        shared.leave_unattended();
        Ok(child)
    }

    fn shared(&self) -> Result<&Arc<Shared>> {
        self.shared.as_ref().ok_or_else(|| Error::message(ErrorKind::Control, Step::Wait, "the handle was given up"))
    }

    /// The program's pid, or its init's, as the caller's pid namespace counts.
    pub fn id(&self) -> u32 {
        self.shared.as_ref().map_or(0, |shared| shared.running.pid.unsigned_abs())
    }

    /// Readable once the program has ended: for poll(2) and async runtimes. pidfd_open(2).
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.shared.as_ref().map(|shared| shared.pidfd())
    }

    /// Where the time of the spawn went, where [`timings`](crate::Sandbox::timings) asked for it.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let mut child = Sandbox::new().command("true").timings(true).spawn()?;
    /// if let Some(timings) = child.timings() {
    ///     println!("{timings}");
    ///     println!("of these {:?} for the clone", timings.clone);
    /// }
    /// child.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn timings(&self) -> Option<&Timings> {
        self.shared.as_ref()?.running.timings.as_ref()
    }

    /// What of the policy the kernel really enforces.
    pub fn enforced(&self) -> &Enforced {
        &self.enforced
    }

    /// Waits for the program's end, after closing its stdin; then what was made for it is gone. Later calls give the same
    /// again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::StatusLost`] where the caller ignores SIGCHLD or waits for any child, no init is used, and the kernel
    /// (before 6.15) keeps no copy of the status.
    pub fn wait(&mut self) -> Result<Outcome> {
        drop((self.stdin.take(), self.notifications.take()));
        match self.wait_until(None)? {
            Some(outcome) => Ok(outcome),
            None => Err(Error::message(ErrorKind::Control, Step::Wait, "the wait came back without an end")),
        }
    }

    /// The outcome if the program has ended, without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Child::wait).
    pub fn try_wait(&mut self) -> Result<Option<Outcome>> {
        self.wait_until(Some(Instant::now()))
    }

    /// Waits for `timeout` at most; `None` if the program runs on.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Child::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<Outcome>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&mut self, until: Option<Instant>) -> Result<Option<Outcome>> {
        let shared = self.shared()?.clone();
        let blocks = until.is_none_or(|until| until > Instant::now());
        if blocks {
            shared.attend();
        }
        let result = shared.wait(until);
        if blocks && matches!(result, Ok(None)) {
            shared.leave_unattended();
        }
        let ended = match &result {
            Ok(outcome) => outcome.is_some(),
            Err(error) => error.kind() == ErrorKind::StatusLost,
        };
        if ended && shared.remove(REMOVE_PATIENCE).is_err() {
            // The outcome is known and counts; the rest is tried again from behind.
            let _ = watch::adopt(shared);
        }
        result.map(|outcome| outcome.map(|outcome| self.told(outcome)))
    }

    /// Output that is not all there is no answer, whether the program ended for it or before it was read.
    fn told(&self, outcome: Outcome) -> Outcome {
        let struck = self.meter.as_ref().is_some_and(|meter| meter.has_struck());
        if struck { outcome.with_verdict(Verdict::OutputLimit) } else { outcome }
    }

    /// Asks the program to end, with SIGTERM or the [`stop_signal`](crate::Sandbox::stop_signal), and kills everything in the
    /// sandbox if it has not within `grace`.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Child::wait).
    pub fn stop(&mut self, grace: Duration) -> Result<Outcome> {
        // It may have ended by itself.
        let _ = self.signal(self.shared()?.facts.stop_signal);
        if let Some(outcome) = self.wait_timeout(grace)? {
            return Ok(outcome);
        }
        self.kill()?;
        self.wait()
    }

    /// Kills everything in the sandbox with SIGKILL. The program is still to be waited for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] in a fork of the caller.
    pub fn kill(&mut self) -> Result<()> {
        self.shared()?.stop(None)
    }

    /// Sends a signal to the program; an [`init`](crate::Sandbox::init) passes it on. A program that is a bare pid 1 gets
    /// only signals for which it has set an action, and SIGKILL.
    ///
    /// # Errors
    ///
    /// ESRCH once the program has ended, EINVAL for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.shared()?.signal(signal)
    }

    /// What everything in the sandbox uses now. Needs a limit, which brings the control group that counts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] without a control group, or after the program has ended.
    pub fn stats(&self) -> Result<Stats> {
        self.shared()?.need_group(Step::Stats)?.stats()
    }

    /// Stops everything in the sandbox where it stands, without a signal that it could see: cgroup.freeze, or the v1
    /// freezer. Waits up to five seconds until all is still.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] without a control group; EBUSY or ETIMEDOUT where a process cannot be stopped,
    /// ECANCELED where another thread thaws it meanwhile.
    pub fn freeze(&self) -> Result<()> {
        self.shared()?.freeze(FREEZE_PATIENCE)
    }

    /// Lets a frozen sandbox go on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Control`] without a control group.
    pub fn thaw(&self) -> Result<()> {
        self.shared()?.thaw()
    }

    /// Changes limits while the program runs; those not named stay as they are.
    ///
    /// # Errors
    ///
    /// A limit whose controller the sandbox was not spawned with, or a value that the kernel refuses (EBUSY for a memory
    /// limit below what is in use on v1).
    pub fn update(&self, limits: &Limits) -> Result<()> {
        let problems = limits.invalid();
        if !problems.is_empty() {
            return Err(Error::refused(problems));
        }
        self.shared()?.need_group(Step::SetLimit)?.update(limits)
    }

    /// Ends the sandbox, killing what still runs, and removes all that was made for it.
    ///
    /// # Errors
    ///
    /// Whatever a drop would have kept to itself.
    pub fn close(mut self) -> Result<Outcome> {
        let Some(shared) = self.shared.take() else {
            return Err(Error::message(ErrorKind::Control, Step::Wait, "the handle was given up"));
        };
        if shared.wait(Some(Instant::now()))?.is_none() {
            shared.stop(None)?;
        }
        let outcome = shared.wait(None)?;
        if let Err(error) = shared.remove(REMOVE_PATIENCE) {
            let _ = watch::adopt(shared);
            return Err(error);
        }
        let outcome = outcome.map(|outcome| self.told(outcome));
        outcome.ok_or_else(|| Error::message(ErrorKind::Control, Step::Wait, "the wait came back without an end"))
    }

    /// Gives the handle up and lets the program go on. A thread of the library's reaps it and removes what was made for
    /// it once it ends.
    ///
    /// It still ends with the caller's process, unless [`die_with_owner(false)`](crate::Sandbox::die_with_owner) was
    /// asked for; then [`reap_stale`](crate::reap_stale) removes what is left of it, once it has ended.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started; the sandbox is ended then.
    pub fn detach(mut self) -> Result<()> {
        let Some(shared) = self.shared.take() else { return Ok(()) };
        let kept = shared.clone();
        watch::adopt(shared).inspect_err(|_| end(&kept))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            end(&shared);
        }
    }
}

/// Kills, reaps and removes; hands over to the watching thread what does not go at once.
fn end(shared: &Arc<Shared>) {
    if !shared.is_home() {
        return shared.abandon();
    }
    let until = Instant::now() + DROP_PATIENCE;
    let ended = match shared.wait(Some(Instant::now())) {
        Ok(None) => {
            let _ = shared.stop(None);
            !matches!(shared.wait(Some(until)), Ok(None))
        }
        _ => true,
    };
    let left = until.saturating_duration_since(Instant::now());
    if !ended || shared.remove(left).is_err() {
        // Without a thread to take it, the record of the owner is what remains.
        let _ = watch::adopt(shared.clone());
    }
}
