//! `run`: a container from its beginning to its end.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ringfence::oci::{Config, Container, Runtime};
use ringfence::{ErrorKind, Step};

use super::args::CreateArgs;
use super::log::Log;
use super::terminal::{Ended, Host, passed_on};
use super::{Failure, config_of, make, start};

/// The time that a program has to end, once its terminal has been hung up.
const GRACE: Duration = Duration::from_secs(1);

pub fn run(runtime: &Runtime, args: &CreateArgs, detach: bool, keep: bool, log: &Log) -> Result<u8, Failure> {
    let config = config_of(args)?;
    if detach {
        started(runtime, args, &config, None, log).map_err(in_words_of_runtimes)?;
        return Ok(0);
    }
    // Signals are blocked before the library has threads, so that only those get them who wait for them.
    let ended = if config.has_terminal() && args.console_socket.is_none() {
        at_terminal(runtime, args, &config, log)
    } else {
        with_streams(runtime, args, &config, log)
    };
    match ended {
        Ok((status, container)) => {
            if !keep {
                let failed = container.delete(true).or_else(ignore_missing)?;
                failed.iter().for_each(|error| log.warning(&error.to_string()));
            }
            Ok(code_of(status))
        }
        // There is no container any more.
        Err(error) => match error.downcast_ref() {
            Some(Interrupted(signal)) => {
                log.error(&error.to_string());
                Ok(code_of(ExitStatus::from_raw(*signal as i32)))
            }
            None => match exec_error(&error) {
                Some(line) => {
                    log.exec_error(&line, &error.to_string());
                    Ok(1)
                }
                None => Err(in_words_of_runtimes(error)),
            },
        },
    }
}

/// Returns the line of other runtimes about a program, named by a path, that could not be executed.
fn exec_error(error: &Failure) -> Option<String> {
    let failed = error.downcast_ref::<ringfence::Error>().filter(|failed| failed.kind() == ErrorKind::Exec)?;
    let (path, errno) = (failed.path()?, Errno::from_raw(failed.raw_os_error()?));
    path.is_absolute().then(|| format!("exec {}: {}", path.display(), errno.desc().to_lowercase()))
}

/// Begins the error of a mount's flags as other runtimes begin it, for what looks for that.
fn in_words_of_runtimes(error: Failure) -> Failure {
    let Some((failed, path)) =
        error.downcast_ref::<ringfence::Error>().and_then(|failed| Some((failed, failed.path()?)))
    else {
        return error;
    };
    if failed.step() != Step::MountAttr {
        return error;
    }
    let name = std::env::args_os().next().map(PathBuf::from);
    let name = name.as_deref().and_then(Path::file_name).unwrap_or_default().display();
    let begun = "unable to start container process: error during container init";
    format!("{name} run failed: {begun}: error mounting {path:?} to rootfs: {error}").into()
}

/// Another command may have deleted the container meanwhile.
fn ignore_missing(error: ringfence::Error) -> Result<Vec<ringfence::Error>, ringfence::Error> {
    if error.kind() == ErrorKind::NotFound { Ok(Vec::new()) } else { Err(error) }
}

/// How a program has ended, and its container, which is still there.
type Run = (ExitStatus, Container);

/// The end by a signal that came before the program ran.
#[derive(Debug)]
struct Interrupted(Signal);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended by {} before the program ran", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// The signals that end this command as long as there is no program to pass them on to.
struct Interrupts(SignalFd);

impl Interrupts {
    /// Takes these signals, which are blocked already.
    fn open() -> Result<Interrupts, Failure> {
        let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
        Ok(Interrupts(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Returns the runtime, with hooks that such a signal ends.
    fn of(&self, runtime: &Runtime) -> io::Result<Runtime> {
        Ok(runtime.clone().interrupted_by(self.0.as_fd().try_clone_to_owned()?))
    }

    fn check(&self) -> Result<(), Failure> {
        match self.0.read_signal()?.map(|info| Signal::try_from(info.ssi_signo.cast_signed())) {
            Some(Ok(signal)) => Err(Interrupted(signal).into()),
            _ => Ok(()),
        }
    }

    /// Returns the signal that has come, or else the error, of which it may be the reason.
    fn or(&self, error: Failure) -> Failure {
        self.check().err().unwrap_or(error)
    }
}

/// Creates the container and starts it. One that does not start is removed. Without `interrupts` it is
/// detached.
fn started(
    runtime: &Runtime,
    args: &CreateArgs,
    config: &Config,
    interrupts: Option<&Interrupts>,
    log: &Log,
) -> Result<Container, Failure> {
    let mut container = make(runtime, args, config, interrupts.is_none(), log)?;
    let started = interrupts.map_or(Ok(()), Interrupts::check).and_then(|()| Ok(start(&mut container, log)?));
    if let Err(error) = started {
        drop(container);
        let _ = runtime.delete_by_force(&args.id);
        return Err(error);
    }
    Ok(container)
}

/// Runs a container that has this command's streams.
fn with_streams(runtime: &Runtime, args: &CreateArgs, config: &Config, log: &Log) -> Result<Run, Failure> {
    let passed_on = passed_on();
    passed_on.thread_block()?;
    let interrupts = Interrupts::open()?;
    let container = started(&interrupts.of(runtime)?, args, config, Some(&interrupts), log);
    let container = container.map_err(|error| interrupts.or(error))?;
    let signals = SignalFd::with_flags(&passed_on, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    while !ends_or_is_signalled(&container, &signals)? {
        // sigwait(3) of the crate knows no realtime signals.
        while let Some(signal) = signals.read_signal()? {
            // A container that has just ended needs none.
            let _ = container.kill(signal.ssi_signo.cast_signed(), false);
        }
    }
    Ok((container.wait()?, container))
}

/// Waits for the end of the program or for a signal to this command. Returns whether it is the end.
fn ends_or_is_signalled(container: &Container, signals: &SignalFd) -> Result<bool, Failure> {
    let Some(process) = container.pidfd() else { return Ok(true) };
    let mut fds = [PollFd::new(process, PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::NONE) {
        Err(Errno::EINTR) => Ok(false),
        result => result.map(|_| fds[0].any() == Some(true)).map_err(Failure::from),
    }
}

/// Runs a container that has a terminal of its own, at this command's terminal.
fn at_terminal(runtime: &Runtime, args: &CreateArgs, config: &Config, log: &Log) -> Result<Run, Failure> {
    let host = Host::open()?;
    let interrupts = Interrupts::open()?;
    let made = make(&interrupts.of(runtime)?, args, config, false, log);
    let mut container = made.map_err(|error| interrupts.or(error))?;
    match interrupts.check().and_then(|()| relayed(&host, &mut container, log)) {
        Ok(status) => Ok((status, container)),
        Err(error) => {
            drop(container);
            let _ = runtime.delete_by_force(&args.id);
            Err(interrupts.or(error))
        }
    }
}

fn relayed(host: &Host, container: &mut Container, log: &Log) -> Result<ExitStatus, Failure> {
    let terminal = container.take_terminal().ok_or("the container has no terminal")?;
    // Put back before anything is printed.
    let raw = host.enter(&terminal, true)?;
    start(container, log)?;
    // A container that has just ended needs no signal.
    let pass_on = |signal: i32| drop(container.kill(signal, false));
    if raw.relay(terminal, pass_on)? == Ended::Gone {
        pass_on(Signal::SIGHUP as i32);
        end(container);
    }
    Ok(container.wait()?)
}

/// Kills a container that does not end by itself, now that its terminal is gone.
fn end(container: &Container) {
    let Some(process) = container.pidfd() else { return };
    let grace = PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::ZERO);
    if poll(&mut [PollFd::new(process, PollFlags::POLLIN)], grace) != Ok(1) {
        let _ = container.kill(Signal::SIGKILL as i32, true);
    }
}

/// Returns the exit code for how a program ended, as a shell has it.
pub fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}
