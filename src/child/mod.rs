//! The handle of a sandboxed program: waits for it, signals it, measures it, and removes everything
//! when it is dropped.

mod clock;
mod events;
mod exec;
mod execs;
#[cfg(feature = "tokio")]
mod hurry;
mod killer;
mod left;
mod outcome;
mod output;
mod pressure;
mod resources;
mod shared;
mod stream;
mod terminal;
mod wait;
mod watch;

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::ChildStdin;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use events::{Event, Events};
pub(crate) use exec::{Enter, Inside, enter_running, has_ended};
pub(crate) use execs::Execs;
#[cfg(feature = "tokio")]
pub(crate) use hurry::ProcessEnd;
pub use killer::Killer;
pub(crate) use left::Left;
pub use outcome::{Outcome, Output, Usage, Verdict};
pub(crate) use resources::{MountNamespace, Resources};
pub(crate) use shared::Facts;
use shared::Shared;
pub(crate) use stream::Meter;
pub use stream::OutputStream;
pub use terminal::Terminal;
pub(crate) use watch::look_for_siblings;

use crate::cgroup::{Group, Limits, Stats};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::feature::Enforced;
use crate::security::{DenialRecord, Denials, Notifications};
use crate::spawn::{Running, Timings};

/// The longest time that a drop waits for the kernel. After that, the watching thread does the
/// rest.
const DROP_PATIENCE: Duration = Duration::from_millis(50);
/// The longest time that `wait` and `close` wait for the control group to become empty.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);

/// A program in its sandbox: what `std::process::Child` is for a program without a sandbox.
///
/// The sandbox ends with the program: processes that the program left running are killed, as far as
/// a pid namespace or a control group shows them.
///
/// # Drop
///
/// Dropping the handle kills everything in the sandbox, reaps the program, and removes its control
/// group and scratch directory. The drop waits for 50 ms at most; a thread of this library finishes
/// what takes longer. [`close`](Child::close) does the same and reports errors;
/// [`detach`](Child::detach) lets the program continue.
///
/// Without `pid_ns` and without a limit (which brings a control group), only the program's process
/// group holds its descendants together, if the program has a process group of its own.
///
/// In a fork of the caller the handle has no power: dropping the handle there does nothing.
///
/// ```
/// use std::io::{Read, Write};
///
/// use ringfence::{Sandbox, Stdio};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tr = Sandbox::new().command("tr").args(["a-z", "A-Z"]);
/// let mut child = tr.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// child.stdin.take().ok_or("no pipe")?.write_all(b"quiet")?;
/// let mut text = String::new();
/// child.stdout.take().ok_or("no pipe")?.read_to_string(&mut text)?;
/// assert_eq!(text, "QUIET");
/// assert!(child.wait()?.success());
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping the handle ends the program"]
pub struct Child {
    /// The writing end of the program's stdin, if it was [piped](crate::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The reading end of the program's stdout, if it was [piped](crate::Stdio::piped).
    pub stdout: Option<OutputStream>,
    /// The reading end of the program's stderr, if it was [piped](crate::Stdio::piped).
    pub stderr: Option<OutputStream>,
    /// The other end of the program's terminal, if it has one of its own
    /// ([`Stdio::pty`](crate::Stdio::pty)). Take this value before [`detach`](Child::detach), which
    /// would hang the terminal up. A wait does not close it.
    pub terminal: Option<Terminal>,
    /// The system calls about which the [`seccomp`](crate::Sandbox::seccomp) profile asks, if the
    /// profile has [`Action::Notify`](crate::Action::Notify) and was not
    /// [supervised](crate::Sandbox::spawn_supervised) from the start. Take this value and answer
    /// the calls in another thread, or before a wait: a wait closes it, as it closes stdin.
    pub notifications: Option<Notifications>,
    /// `None` after the handle was given up.
    shared: Option<Arc<Shared>>,
    killer: Killer,
    /// True if the drop must not wait.
    hurries: bool,
    enforced: Enforced,
    meter: Option<Arc<Meter>>,
    denials: Option<Arc<DenialRecord>>,
    /// The way to start further programs; `None` for the handle of such a program.
    enter: Option<Arc<dyn Enter>>,
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What lies behind the handle is long, and has the environment of the program.
        let Child { stdin, stdout, stderr, terminal, notifications, shared, enforced, .. } = self;
        f.debug_struct("Child")
            .field("pid", &shared.as_ref().map(|shared| shared.running.pid))
            .field("group", &shared.as_ref().and_then(|shared| shared.group.as_ref()).map(Group::name))
            .field("stdin", &stdin.is_some())
            .field("stdout", &stdout.is_some())
            .field("stderr", &stderr.is_some())
            .field("terminal", &terminal.is_some())
            .field("notifications", &notifications.is_some())
            .field("enforced", enforced)
            .finish_non_exhaustive()
    }
}

/// The time limits that this process watches from outside the sandbox.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) wall_time: Option<Duration>,
    /// The limit for the processor time that the control group counts.
    pub(crate) cpu_time: Option<Duration>,
}

/// The limit for what the program writes to the streams that the library reads.
#[derive(Debug)]
pub(crate) struct OutputLimit {
    pub(crate) bytes: u64,
    /// If true, output beyond the limit is cut off, and the program continues.
    pub(crate) cuts: bool,
}

/// A program that has just been executed, with everything that its handle takes over.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) running: Running,
    pub(crate) at: Instant,
    /// The caller's ends of stdin, stdout and stderr.
    pub(crate) streams: [Option<OwnedFd>; 3],
    /// The master of the program's terminal.
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) resources: Resources,
    pub(crate) facts: Facts,
    pub(crate) enforced: Enforced,
    pub(crate) output_limit: Option<OutputLimit>,
    /// The questions of the filter, if no other receiver takes them.
    pub(crate) notifications: Option<Notifications>,
    /// The record of what the filter refuses.
    pub(crate) denials: Option<Arc<DenialRecord>>,
    pub(crate) watch: Watch,
    pub(crate) enter: Option<Arc<dyn Enter>>,
}

/// # Waiting, measuring, ending
impl Child {
    /// Creates the handle of a running program, and starts to watch its time limits.
    pub(crate) fn new(started: Started) -> Result<Child> {
        let Started { running, at, streams, resources, facts, watch: Watch { wall_time, cpu_time }, .. } = started;
        let [stdin, stdout, stderr] = streams;
        let reaped_at_once = facts.reaped_at_once;
        let shared = Arc::new(Shared::new(running, at, wall_time, resources, facts)?);
        let meter = started.output_limit.map(|limit| Meter::new(limit.bytes, limit.cuts, &shared));
        let child = Child {
            stdin: stdin.map(ChildStdin::from),
            stdout: stdout.map(|pipe| OutputStream::new(pipe, meter.clone())),
            stderr: stderr.map(|pipe| OutputStream::new(pipe, meter.clone())),
            terminal: started.terminal.map(|master| Terminal::new(master, meter.clone())),
            notifications: started.notifications,
            denials: started.denials,
            killer: Killer::new(&shared),
            hurries: false,
            shared: Some(shared.clone()),
            enforced: started.enforced,
            meter,
            enter: started.enter,
        };
        // On an error the handle made above is dropped, which ends the program.
        watch::watch_wall_time(&shared)?;
        if let Some(limit) = cpu_time.map(|limit| limit.saturating_add(shared.cpu_before())) {
            watch::add_deadline(at, &shared, watch::Due::CpuTime(watch::CpuWatch::new(limit)))?;
        }
        if reaped_at_once {
            watch::reap(&shared)?;
        }
        shared.leave_unattended();
        Ok(child)
    }

    fn shared(&self) -> Result<&Arc<Shared>> {
        self.shared.as_ref().ok_or_else(|| Error::message(ErrorKind::Control, Step::Wait, "the handle was given up"))
    }

    /// Returns the pid of the program, or of its init, in the caller's pid namespace.
    pub fn id(&self) -> u32 {
        self.shared.as_ref().map_or(0, |shared| shared.running.pid.unsigned_abs())
    }

    /// Returns the pidfd of the program, pidfd_open(2). It becomes readable when the program has
    /// ended, for poll(2) and async runtimes.
    ///
    /// ```
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    /// use ringfence::Sandbox;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut child = Sandbox::new().command("true").spawn()?;
    /// let pidfd = child.pidfd().ok_or("the handle was given up")?;
    /// poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::NONE)?;
    /// assert!(child.try_wait()?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.shared.as_ref().map(|shared| shared.pidfd())
    }

    /// Returns the time that each part of the spawn took, if [`timings`](crate::Sandbox::timings)
    /// was set.
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

    /// Returns the parts of the policy that the kernel really enforces.
    pub fn enforced(&self) -> &Enforced {
        &self.enforced
    }

    /// Returns the system calls that the program has been refused so far, if
    /// [`denials`](crate::Sandbox::denials) was set and this host can record them. After a wait,
    /// these are all. `None` in a fork of the caller.
    ///
    /// ```
    /// use ringfence::{Feature, Sandbox, Seccomp};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let sandbox = Sandbox::new().seccomp(Seccomp::default()).denials(true);
    /// let sandbox = sandbox.best_effort(Feature::Denials).command("sh");
    /// let mut child = sandbox.args(["-c", "unshare --user true 2>/dev/null"]).spawn()?;
    /// child.wait()?;
    /// for denial in child.denials().unwrap_or_default() {
    ///     println!("{denial}; allowed by {}", denial.allowed_by());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn denials(&self) -> Option<Denials> {
        // In a fork, another thread of the parent may have held the lock, and nobody gives it back.
        let is_home = self.shared.as_ref().is_some_and(|shared| shared.is_home());
        self.denials.as_ref().filter(|_| is_home).map(|record| record.denials())
    }

    /// Closes the program's stdin and waits for the end of the program, then removes what was made
    /// for the sandbox. Later calls return the same outcome.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::StatusLost`] if the caller ignores SIGCHLD or waits for any child, no
    /// init is used, and the kernel (before 6.15) keeps no copy of the status.
    pub fn wait(&mut self) -> Result<Outcome> {
        drop((self.stdin.take(), self.notifications.take()));
        match self.wait_until(None)? {
            Some(outcome) => Ok(outcome),
            None => Err(Error::message(ErrorKind::Control, Step::Wait, "the wait returned before the program ended")),
        }
    }

    /// Returns the outcome if the program has ended, and `None` otherwise. The call does not wait.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let mut child = Sandbox::new().command("sleep").arg("60").spawn()?;
    /// assert_eq!(child.try_wait()?, None);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`wait`](Child::wait).
    pub fn try_wait(&mut self) -> Result<Option<Outcome>> {
        self.wait_until(Some(Instant::now()))
    }

    /// Waits for the end of the program, for `timeout` at most. Returns `None` if the program still
    /// runs.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::Sandbox;
    ///
    /// let mut child = Sandbox::new().command("sleep").arg("60").spawn()?;
    /// if child.wait_timeout(Duration::from_millis(10))?.is_none() {
    ///     child.kill()?;
    /// }
    /// assert_eq!(child.wait()?.code(), None);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`wait`](Child::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<Outcome>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&mut self, until: Option<Instant>) -> Result<Option<Outcome>> {
        let result = wait_and_remove(self.shared()?, until);
        result.map(|outcome| outcome.map(|outcome| self.with_output_limit(outcome)))
    }

    pub(crate) fn with_output_limit(&self, outcome: Outcome) -> Outcome {
        with_output_limit(self.meter.as_deref(), outcome)
    }

    /// Asks the program to end, with SIGTERM or the [`stop_signal`](crate::Sandbox::stop_signal).
    /// If the program still runs after `grace`, kills everything in the sandbox.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// let mut child = Sandbox::new().command("sleep").arg("60").spawn()?;
    /// let outcome = child.stop(Duration::from_secs(5))?;
    /// assert_eq!(outcome.verdict(), Verdict::Signaled(libc::SIGTERM));
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`wait`](Child::wait).
    pub fn stop(&mut self, grace: Duration) -> Result<Outcome> {
        // An error means that the program has ended by itself.
        let _ = self.signal(self.shared()?.facts.stop_signal);
        if let Some(outcome) = self.wait_timeout(grace)? {
            return Ok(outcome);
        }
        self.kill()?;
        self.wait()
    }

    /// Kills everything in the sandbox with SIGKILL. The caller must still wait for the program,
    /// whose verdict is [`Signaled`](Verdict::Signaled) then. A [`killer`](Child::killer) does the
    /// same from any thread, with a verdict of its own.
    ///
    /// ```
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// let mut child = Sandbox::new().command("sleep").arg("60").spawn()?;
    /// child.kill()?;
    /// assert_eq!(child.wait()?.verdict(), Verdict::Signaled(libc::SIGKILL));
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`] in a fork of the caller.
    pub fn kill(&mut self) -> Result<()> {
        self.shared()?.stop(None)
    }

    /// Sends a signal to the program; an [`init`](crate::Sandbox::init) passes the signal on. A
    /// program that runs as pid 1 itself receives only signals for which it has set an action, and
    /// SIGKILL.
    ///
    /// ```
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// let mut child = Sandbox::new().command("sleep").arg("60").spawn()?;
    /// child.signal(libc::SIGTERM)?;
    /// assert_eq!(child.wait()?.verdict(), Verdict::Signaled(libc::SIGTERM));
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns ESRCH after the program has ended, and EINVAL for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.shared()?.signal(signal)
    }

    /// Returns what everything in the sandbox uses now. The call needs a limit, which brings the
    /// control group that counts.
    ///
    /// ```no_run
    /// use ringfence::{Bytes, Sandbox};
    ///
    /// let child = Sandbox::new().memory_limit(Bytes::mib(64)).command("sleep").arg("60").spawn()?;
    /// println!("{:?}", child.stats()?);
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`] without a control group, or after the program has ended.
    pub fn stats(&self) -> Result<Stats> {
        self.shared()?.need_group(Step::Stats)?.stats()
    }

    /// Freezes everything in the sandbox, without a signal that the program could see: with
    /// cgroup.freeze, or the v1 freezer. Waits up to five seconds until all processes have stopped.
    /// The time until [`thaw`](Child::thaw) does not count as
    /// [`wall_time`](crate::Sandbox::wall_time).
    ///
    /// ```no_run
    /// use ringfence::{Bytes, Sandbox};
    ///
    /// let child = Sandbox::new().memory_limit(Bytes::mib(64)).command("make").spawn()?;
    /// child.freeze()?; // nothing inside runs
    /// child.thaw()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`] without a control group, EBUSY or ETIMEDOUT if a process
    /// cannot be stopped, and ECANCELED if another thread thaws the sandbox meanwhile.
    pub fn freeze(&self) -> Result<()> {
        self.shared()?.freeze(FREEZE_PATIENCE)
    }

    /// Lets a frozen sandbox continue.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`] without a control group.
    pub fn thaw(&self) -> Result<()> {
        let shared = self.shared()?;
        shared.thaw()?;
        watch::watch_wall_time(shared)
    }

    /// Changes the limit of [`wall_time`](crate::Sandbox::wall_time), which counts from the start
    /// of the program: a limit that has passed already ends the program now. `None` takes the limit
    /// away.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let sandbox = Sandbox::new().wall_time(Duration::from_secs(3600));
    /// let mut child = sandbox.command("sleep").arg("60").spawn()?;
    /// child.set_wall_time(Some(Duration::from_millis(10)))?;
    /// assert_eq!(child.wait()?.verdict(), Verdict::WallTime);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Control`] in a fork of the caller, and an error if the thread that
    /// watches cannot be started.
    pub fn set_wall_time(&self, limit: Option<Duration>) -> Result<()> {
        let shared = self.shared()?;
        shared.require_home(Step::SetLimit)?;
        shared.state().clock.set_limit(limit);
        watch::watch_wall_time(shared)
    }

    /// Changes limits while the program runs. Limits that are not set in `limits` stay as they are.
    ///
    /// ```no_run
    /// use ringfence::{Bytes, Limits, Sandbox};
    ///
    /// let child = Sandbox::new().memory_limit(Bytes::mib(64)).command("make").spawn()?;
    /// child.update(&Limits::new().memory(Bytes::mib(128)))?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error for a limit whose controller the sandbox was not spawned with, and for a
    /// value that the kernel refuses (EBUSY for a memory limit below the current use, on v1).
    pub fn update(&self, limits: &Limits) -> Result<()> {
        let problems = limits.invalid();
        if !problems.is_empty() {
            return Err(Error::refused(problems));
        }
        self.shared()?.need_group(Step::SetLimit)?.update(limits)
    }

    /// Ends the sandbox: kills what still runs, and removes everything that was made for the
    /// sandbox.
    ///
    /// ```
    /// use ringfence::{Sandbox, Verdict};
    ///
    /// let child = Sandbox::new().command("sleep").arg("60").spawn()?;
    /// assert_eq!(child.close()?.verdict(), Verdict::Signaled(libc::SIGKILL));
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors that a drop would ignore.
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
        let outcome = outcome.map(|outcome| self.with_output_limit(outcome));
        outcome
            .ok_or_else(|| Error::message(ErrorKind::Control, Step::Wait, "the wait returned before the program ended"))
    }

    /// Gives up the handle and lets the program continue. When the program ends, a thread of this
    /// library reaps it and removes what was made for it.
    ///
    /// The program still ends with the caller's process, unless
    /// [`die_with_owner(false)`](crate::Sandbox::die_with_owner) was set; in that case
    /// [`reap_stale`](crate::reap_stale) removes what is left after the program has ended, and an
    /// [`Attached`](crate::Attached) finds the sandbox again by its [`ticket`](Child::ticket).
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    ///
    /// // The program goes on, also after the end of this process.
    /// Sandbox::new().die_with_owner(false).command("server").spawn()?.detach()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be started; the sandbox is ended in that case.
    pub fn detach(mut self) -> Result<()> {
        let Some(shared) = self.shared.take() else { return Ok(()) };
        if shared.facts.left_to_parent {
            return Ok(());
        }
        let kept = shared.clone();
        watch::adopt(shared).inspect_err(|_| end(&kept))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            if self.hurries { end_later(&shared) } else { end(&shared) }
        }
    }
}

/// Sets the verdict to the output limit if the limit was exceeded: cut output is no valid answer,
/// even if the program ended by itself before the output was read.
fn with_output_limit(meter: Option<&Meter>, outcome: Outcome) -> Outcome {
    let struck = meter.is_some_and(Meter::has_ended_program);
    if struck { outcome.with_verdict(Verdict::OutputLimit) } else { outcome }
}

/// Waits for the end until the given time, and removes what was made for a sandbox that has ended.
fn wait_and_remove(shared: &Arc<Shared>, until: Option<Instant>) -> Result<Option<Outcome>> {
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
        // The outcome is known and is returned; the watching thread tries the removal again.
        let _ = watch::adopt(shared.clone());
    }
    result
}

/// Kills and reaps the program and removes what was made for it. Hands over to the watching thread
/// what cannot be removed at once.
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
        // If no thread can take the sandbox, the record of the owner still names what is left.
        let _ = watch::adopt(shared.clone());
    }
}

/// Kills the program, and leaves all that could take a moment to the watching thread.
fn end_later(shared: &Arc<Shared>) {
    if !shared.is_home() {
        return shared.abandon();
    }
    if shared.is_removed() {
        return;
    }
    let handed = if shared.kills_at_once() {
        let _ = shared.stop(None);
        Ok(())
    } else {
        watch::add_deadline(Instant::now(), shared, watch::Due::Kill)
    };
    if handed.and_then(|()| watch::adopt(shared.clone())).is_err() {
        // There is no such thread, and it cannot be started.
        end(shared);
    }
}
