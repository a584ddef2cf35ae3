//! Pressure stall information: the time that the tasks of a group waited for a resource.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd;
use procfs::PressureRecord;

use super::kernfs;
use super::part::Part;
use crate::error::{Error, ErrorKind, Problem, Result, Step};
use crate::sys::{table, timeout};

/// The kernel's `WINDOW_MIN_US` and `WINDOW_MAX_US`.
const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(10);

/// A resource that tasks can be short of. Every v2 group has a file for each: `cpu.pressure`,
/// `memory.pressure`, `io.pressure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PsiResource {
    /// Processors: a task could run, but no processor is free, or the [cpu
    /// limit](crate::Sandbox::cpu_limit) holds the task back.
    Cpu,
    /// Memory: a task waits until pages are reclaimed or read in again.
    Memory,
    /// Block devices: a task waits for one.
    Io,
}

impl PsiResource {
    fn file(self) -> &'static CStr {
        match self {
            PsiResource::Cpu => c"cpu.pressure",
            PsiResource::Memory => c"memory.pressure",
            PsiResource::Io => c"io.pressure",
        }
    }
}

/// The pressure on the tasks of a sandbox for one resource:
/// [`Child::pressure`](crate::Child::pressure).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Pressure {
    /// The time in which at least one task waited.
    pub some: Stall,
    /// The time in which all tasks that were not idle waited at once. For [`Cpu`](PsiResource::Cpu)
    /// since 5.13.
    pub full: Option<Stall>,
}

/// The time lost by waiting: the kernel's running averages, and the total.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Stall {
    /// Percent of the last 10 seconds. The kernel updates the averages every two seconds.
    pub avg10: f32,
    /// Percent of the last minute.
    pub avg60: f32,
    /// Percent of the last five minutes.
    pub avg300: f32,
    /// The total since the sandbox began.
    pub total: Duration,
}

impl From<PressureRecord> for Stall {
    fn from(record: PressureRecord) -> Self {
        let PressureRecord { avg10, avg60, avg300, total } = record;
        Stall { avg10, avg60, avg300, total: Duration::from_micros(total) }
    }
}

impl Pressure {
    fn parse(text: &str) -> Option<Pressure> {
        let line = |kind: &str| {
            let line = text.lines().find(|line| line.starts_with(kind))?;
            procfs::parse_pressure_record(line).ok().map(Stall::from)
        };
        Some(Pressure { some: line("some ")?, full: line("full ") })
    }
}

/// The time lost within a time window at which a [`PressureTrigger`] fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PsiThreshold {
    full: bool,
    stall: Duration,
    window: Duration,
}

impl PsiThreshold {
    /// Fires when at least one task waited for `stall` in total within a `window` of 0.5 to 10
    /// seconds.
    pub fn some(stall: Duration, window: Duration) -> Self {
        PsiThreshold { full: false, stall, window }
    }

    /// Fires when all tasks that were not idle waited at once for `stall` in total, within a
    /// `window` of 0.5 to 10 seconds.
    pub fn full(stall: Duration, window: Duration) -> Self {
        PsiThreshold { full: true, stall, window }
    }

    /// Returns the lost time at which the trigger fires.
    pub(crate) fn stall(self) -> Duration {
        self.stall
    }

    /// Formats the threshold as the kernel reads it, in microseconds.
    fn line(self) -> String {
        let kind = if self.full { "full" } else { "some" };
        format!("{kind} {} {}", self.stall.as_micros(), self.window.as_micros())
    }

    fn invalid(self) -> Option<Problem> {
        let (stall, window) = (self.stall, self.window);
        let reason = if !WINDOWS.contains(&window) {
            format!("a window of {window:?} is outside of 0.5 to 10 seconds")
        } else if stall < Duration::from_micros(1) || stall > window {
            format!("{stall:?} are no part of a window of {window:?}")
        } else {
            return None;
        };
        Some(Problem::invalid("pressure_trigger", reason, "as in some(150 ms, 2 s)"))
    }
}

/// A trigger that fires when a sandbox was short of a resource for longer than a threshold:
/// [`Child::pressure_trigger`](crate::Child::pressure_trigger).
///
/// [`wait`](PressureTrigger::wait) blocks. For poll(2), epoll(7) and async runtimes the trigger
/// gives its descriptor ([`AsFd`]). The event is POLLPRI (EPOLLPRI); the first caller that polls
/// sees it, and it comes at most once in a window. POLLIN is always set and means nothing. POLLERR
/// says that the sandbox is gone. Dropping the value removes the trigger.
///
/// ```no_run
/// use ringfence::{Bytes, PsiResource, PsiThreshold, Sandbox};
/// use std::time::Duration;
///
/// let mut child = Sandbox::new().memory_limit(Bytes::mib(256)).command("server").spawn()?;
/// let threshold = PsiThreshold::some(Duration::from_millis(150), Duration::from_secs(2));
/// let trigger = child.pressure_trigger(PsiResource::Memory, threshold)?;
/// if trigger.wait(Some(Duration::from_secs(60)))? {
///     println!("the server waits for memory: {:?}", child.pressure(PsiResource::Memory)?.some);
/// }
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug)]
pub struct PressureTrigger {
    fd: OwnedFd,
    path: PathBuf,
}

impl PressureTrigger {
    /// Waits until the trigger fires: without end, or for `timeout`. Returns false if `timeout` has
    /// passed.
    ///
    /// # Errors
    ///
    /// Fails with [`ErrorKind::Control`] if the sandbox's control group is gone, because the
    /// trigger goes with the group.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        let fail = |errno| Error::new(Step::Pressure, errno).at(&self.path).with_kind(ErrorKind::Control);
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLPRI)];
            match poll(&mut fds, until.map_or(PollTimeout::NONE, timeout::until)) {
                Ok(0) if until.is_some_and(|until| Instant::now() >= until) => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => continue,
                Err(errno) => return Err(fail(errno)),
                Ok(_) => {}
            }
            let events = fds[0].revents().unwrap_or(PollFlags::empty());
            if events.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL | PollFlags::POLLHUP) {
                return Err(fail(Errno::ENODEV).hint("the sandbox has ended"));
            }
            return Ok(true);
        }
    }
}

impl AsFd for PressureTrigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads the pressure of a v2 group.
pub(super) fn read(part: &Part, resource: PsiResource) -> Result<Pressure> {
    let file = resource.file();
    let text = kernfs::read(part.dir(), file).map_err(|errno| explained(part, errno, file))?;
    Pressure::parse(&text).ok_or_else(|| {
        Error::message(ErrorKind::Control, Step::Pressure, format!("{text:?} are no figures"))
            .at(kernfs::join(&part.path, file))
    })
}

/// Returns the time lost so far, as a threshold counts it.
pub(super) fn lost(part: &Part, resource: PsiResource, threshold: PsiThreshold) -> Result<Duration> {
    let pressure = read(part, resource)?;
    Ok(if threshold.full { pressure.full.map_or(Duration::ZERO, |full| full.total) } else { pressure.some.total })
}

/// Sets up a trigger. The trigger lives as long as the open file to which it was written.
pub(super) fn trigger(part: &Part, resource: PsiResource, threshold: PsiThreshold) -> Result<PressureTrigger> {
    if let Some(problem) = threshold.invalid() {
        return Err(Error::refused(vec![problem]));
    }
    let file = resource.file();
    let opened = openat(part.dir(), file, OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty());
    let written = opened.and_then(table::above_stdio).and_then(|fd| {
        unistd::write(&fd, threshold.line().as_bytes())?;
        Ok(fd)
    });
    let fd = written.map_err(|errno| match errno {
        // Since 6.5 the kernel refuses other windows to a caller without the capability. Earlier
        // kernels demand the capability for every trigger, or for none.
        Errno::EINVAL => explained(part, errno, file).hint("without CAP_SYS_RESOURCE windows are multiples of 2 s"),
        Errno::EPERM | Errno::EACCES => explained(part, errno, file).hint("it needs CAP_SYS_RESOURCE"),
        _ => explained(part, errno, file),
    })?;
    Ok(PressureTrigger { fd, path: kernfs::join(&part.path, file) })
}

fn explained(part: &Part, errno: Errno, file: &CStr) -> Error {
    let error = part.failed(Step::Pressure, errno, file);
    match errno {
        // With accounting switched off, the file is missing, or reading it fails, depending on the
        // kernel's version.
        Errno::ENOENT | Errno::EOPNOTSUPP => error
            .with_kind(ErrorKind::Unsupported)
            .hint("this kernel counts no pressure: boot with psi=1, on Linux 5.2 or newer with CONFIG_PSI"),
        _ => error,
    }
}

/// Returns the error for a sandbox without a v2 group.
pub(super) fn without_v2() -> Error {
    Error::message(ErrorKind::Unsupported, Step::Pressure, "cgroup v1 counts no pressure")
        .hint("mount cgroup2, with or without controllers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_survived() {
        let both =
            "some avg10=12.50 avg60=3.00 avg300=0.10 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        crate::fuzz::texts(&[both], |text| {
            let _ = Pressure::parse(text);
        });
    }

    #[test]
    fn figures_are_read_with_and_without_full() {
        let some = "some avg10=12.50 avg60=3.00 avg300=0.10 total=1500000\n";
        let pressure = Pressure::parse(some).unwrap();
        let want = Stall { avg10: 12.5, avg60: 3.0, avg300: 0.1, total: Duration::from_millis(1500) };
        assert_eq!(pressure, Pressure { some: want, full: None });
        let both = format!("{some}full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n");
        assert_eq!(Pressure::parse(&both).unwrap().full.unwrap().total, Duration::from_micros(7));
        for text in ["", "some", "some \n", "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n", "some avg10=x\n"] {
            assert_eq!(Pressure::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn thresholds_are_what_the_kernel_takes() {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        assert_eq!(PsiThreshold::some(ms(150), s(1)).line(), "some 150000 1000000");
        assert_eq!(PsiThreshold::full(s(2), s(10)).line(), "full 2000000 10000000");
        for (stall, window, valid) in [
            (ms(150), ms(500), true),
            (ms(500), ms(500), true),
            (ms(501), ms(500), false),
            (ms(0), s(1), false),
            (Duration::from_nanos(900), s(1), false),
            (ms(1), ms(499), false),
            (ms(1), Duration::from_nanos(10_000_000_001), false),
            (Duration::MAX, Duration::MAX, false),
        ] {
            assert_eq!(PsiThreshold::some(stall, window).invalid().is_none(), valid, "{stall:?} {window:?}");
        }
    }
}
