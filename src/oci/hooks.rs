//! Runs hooks: programs that get the state of the container on their stdin.

use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use oci_spec::runtime::Hook;

use super::state::{Saved, State, Status};
use super::translate::Hooks;
use crate::command::Command as Inside;
use crate::durable::Created;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::launch::Unentered;
use crate::security::RemoteSupervisor;
use crate::stdio::Stdio as InsideStdio;
use crate::sys::{file_size, memfd, parent_death, pidfd, sigmask, timeout};

/// The events that end a hook before its own end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watch<'w> {
    /// The first process of the container: a hook for a container that was killed has nothing to
    /// do.
    pub(super) first: Option<BorrowedFd<'w>>,
    /// The descriptor that the caller has given: [`Runtime::interrupted_by`](super::Runtime::interrupted_by).
    pub(super) interrupt: Option<BorrowedFd<'w>>,
}

/// The things that a start has for the hooks inside.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) supervisor: Option<&'a RemoteSupervisor>,
    pub(super) interrupt: Option<&'a OwnedFd>,
}

/// The end of the wait for a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Own,
    Timeout,
    Killed,
    Interrupted,
}

/// Runs the hooks that come when the mounts are made, and before the root is entered.
pub(super) fn run_before_entry(
    hooks: &Hooks,
    saved: &Saved,
    unentered: &Unentered<'_>,
    interrupt: Option<&OwnedFd>,
) -> Result<()> {
    let first = pidfd::open(unentered.pid().cast_signed()).map_err(failed)?;
    let watch = Watch { first: Some(first.as_fd()), interrupt: interrupt.map(AsFd::as_fd) };
    let state = saved.shown(Status::Creating, Some(unentered.pid()));
    run_all("prestart", &hooks.prestart, &state, watch)?;
    run_all("createRuntime", &hooks.create_runtime, &state, watch)?;
    if hooks.create_container.is_empty() {
        return Ok(());
    }
    let state = saved.shown(Status::Creating, Some(unentered.pid_inside()?));
    each("createContainer", &hooks.create_container, |hook| {
        let running = unentered.start(&command_inside(hook, &state)?, &saved.rootfs)?;
        let process = running.pidfd.as_fd();
        let ended = wait(process, hook, watch);
        if !matches!(ended, Ok(End::Own)) {
            // It may have ended by now.
            let _ = pidfd::send_signal(process, libc::SIGKILL);
        }
        let status = loop {
            match pidfd::wait(process, true) {
                Err(Errno::EINTR) | Ok(None) => {}
                other => break other,
            }
        };
        running.guest.into_iter().for_each(|guest| guest.reaped());
        judge(ended, || Ok(ExitStatus::from_raw(status.map_err(failed)?.map_or(0, |ended| ended.wait_status))), hook)
    })
}

/// Runs the hooks in a container that waits for its start. `pid` is that of the first process as
/// the container sees it. A filter that asks asks the supervisor.
pub(super) fn run_inside(hooks: &[Hook], state: &State, created: &Created, asked: Asked<'_>) -> Result<()> {
    let watch = Watch { first: created.pidfd(), interrupt: asked.interrupt.map(AsFd::as_fd) };
    let supervisor = asked.supervisor;
    each("startContainer", hooks, |hook| {
        let command = command_inside(hook, state)?.cwd("/");
        let mut child = created.exec_ahead(&supervisor.cloned().into_iter().fold(command, Inside::supervised))?;
        let process = child.pidfd().ok_or_else(|| failed(Errno::ESRCH))?;
        let ended = wait(process, hook, watch);
        if !matches!(ended, Ok(End::Own)) {
            let _ = child.kill();
        }
        judge(ended, || Ok(child.wait()?.status()), hook)
    })
}

/// Runs hooks of the host, one after the other, until one fails.
pub(super) fn run_all(kind: &str, hooks: &[Hook], state: &State, watch: Watch<'_>) -> Result<()> {
    each(kind, hooks, |hook| run(hook, state, watch))
}

/// Runs all hooks of the host, and returns the errors of those that fail.
pub(super) fn run_each(kind: &str, hooks: &[Hook], state: &State) -> Vec<Error> {
    let runs = |(i, hook): (usize, &Hook)| {
        run(hook, state, Watch::default()).map_err(|error| named(kind, i, hook, &error)).err()
    };
    hooks.iter().enumerate().filter_map(runs).collect()
}

/// Calls `run` for one hook after the other, until one fails.
fn each(kind: &str, hooks: &[Hook], run: impl Fn(&Hook) -> Result<()>) -> Result<()> {
    for (i, hook) in hooks.iter().enumerate() {
        run(hook).map_err(|error| named(kind, i, hook, &error))?;
    }
    Ok(())
}

/// Returns the error of a hook, with what other runtimes say of it.
fn named(kind: &str, i: usize, hook: &Hook, error: &Error) -> Error {
    let (text, step) = (error.to_string(), format!("{}: ", Step::Hook.as_str()));
    let text = format!("error running {kind} hook #{i}: {}", text.strip_prefix(&step).unwrap_or(&text));
    let kind = if error.kind() == ErrorKind::Timeout { ErrorKind::Timeout } else { ErrorKind::Control };
    Error::message(kind, Step::Hook, text).at(hook.path())
}

/// Runs one hook of the host to its end, in the bundle. Its stdin is the state, its stderr the
/// caller's, its environment what the configuration says, and the caller's if that says nothing, as
/// with other runtimes. It has no signals blocked. It ends with this thread. If it does not end in
/// time, what it has started ends with it, as far as that has stayed in its process group.
fn run(hook: &Hook, state: &State, watch: Watch<'_>) -> Result<()> {
    let io = |error: std::io::Error| Error::io(Step::Hook, &error).with_kind(ErrorKind::Control);
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(args);
    }
    if hook.env().is_some() {
        command.env_clear().envs(variables(hook));
    }
    command.stdin(stdin(state)?).stdout(Stdio::null()).process_group(0);
    parent_death::kill_with_thread(&mut command);
    if state.bundle.is_dir() {
        command.current_dir(&state.bundle);
    }
    sigmask::clear_in(&mut command);
    let mut child = command.spawn().map_err(io)?;
    let pid = child.id().cast_signed();
    let ended = pidfd::open(pid).map_err(failed).and_then(|process| wait(process.as_fd(), hook, watch));
    if !matches!(ended, Ok(End::Own)) {
        // It may have ended by now, but is not reaped: the number is its own.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    judge(ended, || child.wait().map_err(io), hook)
}

/// Returns a hook that runs in the container's namespaces.
fn command_inside(hook: &Hook, state: &State) -> Result<Inside> {
    let mut command = Inside::new(hook.path()).env_clear().envs(variables(hook));
    if let Some((name, args)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command = command.argv0(name).args(args);
    }
    Ok(command.stdin(stdin(state)?).stdout(InsideStdio::null()).stderr(InsideStdio::inherit()))
}

fn variables(hook: &Hook) -> impl Iterator<Item = (&str, &str)> {
    hook.env().iter().flatten().filter_map(|variable| variable.split_once('='))
}

/// Returns the state as a file, which never makes its writer wait.
fn stdin(state: &State) -> Result<File> {
    let mut file = File::from(memfd::create(c"state").map_err(failed)?);
    let written = file_size::append(&file, state.to_json().as_bytes()).and_then(|()| file.rewind());
    written.map_err(|error| Error::io(Step::Hook, &error).with_kind(ErrorKind::Control))?;
    Ok(file)
}

fn bound(hook: &Hook) -> Option<Duration> {
    hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// Waits for the end of a hook, as long as its timeout and the container allow.
fn wait(process: BorrowedFd<'_>, hook: &Hook, watch: Watch<'_>) -> Result<End> {
    let until = bound(hook).and_then(|bound| Instant::now().checked_add(bound));
    let reads = |fd| PollFd::new(fd, PollFlags::POLLIN);
    loop {
        let all = [Some(process), watch.interrupt, watch.first];
        let mut fds: Vec<PollFd<'_>> = all.into_iter().flatten().map(reads).collect();
        let left = until.map_or(PollTimeout::NONE, timeout::until);
        match poll(&mut fds, left) {
            Ok(0) if until.is_some_and(|until| Instant::now() >= until) => return Ok(End::Timeout),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) if fds[0].any() == Some(true) => return Ok(End::Own),
            Ok(_) if watch.interrupt.is_some() && fds[1].any() == Some(true) => return Ok(End::Interrupted),
            Ok(_) => return Ok(End::Killed),
            Err(errno) => return Err(failed(errno)),
        }
    }
}

/// Returns what has become of a hook. `status` reaps it.
fn judge(ended: Result<End>, status: impl FnOnce() -> Result<ExitStatus>, hook: &Hook) -> Result<()> {
    let status = status();
    match ended? {
        End::Own => {}
        End::Interrupted => return Err(Error::message(ErrorKind::Control, Step::Hook, "interrupted by the caller")),
        End::Timeout => {
            let reason = format!("it has not ended within {} s", bound(hook).unwrap_or_default().as_secs());
            return Err(Error::message(ErrorKind::Timeout, Step::Hook, reason));
        }
        End::Killed => {
            let reason = "the container was killed meanwhile";
            return Err(Error::message(ErrorKind::Control, Step::Hook, reason));
        }
    }
    match status? {
        status if status.success() => Ok(()),
        // The end by a filter has the words of other runtimes.
        status if status.signal() == Some(Signal::SIGSYS as i32) => {
            let reason = format!("{status}: bad system call; a seccomp filter forbids it");
            Err(Error::message(ErrorKind::Control, Step::Hook, reason))
        }
        status => Err(Error::message(ErrorKind::Control, Step::Hook, status.to_string())),
    }
}

fn failed(errno: Errno) -> Error {
    Error::new(Step::Hook, errno).with_kind(ErrorKind::Control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::state::{Saved, Status};

    fn hook(script: &str, timeout: i64) -> Hook {
        let hook =
            serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=b"], "timeout": timeout});
        serde_json::from_value(hook).unwrap()
    }

    #[test]
    fn a_hook_gets_the_state_and_its_environment_alone() {
        let state = Saved::new("box", "1.3.0", None).shown(Status::Running, Some(7));
        run(&hook(r#"grep -q '"id": "box"' && test "$A" = b && test -z "$CARGO" "#, 60), &state, Watch::default())
            .unwrap();
        let error = run(&hook("exit 3", 60), &state, Watch::default()).unwrap_err();
        assert_eq!((error.step(), error.kind()), (Step::Hook, ErrorKind::Control));
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_hook_without_an_environment_has_the_callers() {
        let state = Saved::new("box", "1.3.0", None).shown(Status::Running, Some(7));
        let script = format!("test \"$PATH\" = '{}'", std::env::var("PATH").unwrap());
        let hook = |env: serde_json::Value| -> Hook {
            let args = ["sh", "-c", script.as_str()];
            serde_json::from_value(serde_json::json!({"path": "/bin/sh", "args": args, "env": env})).unwrap()
        };
        run(&hook(serde_json::Value::Null), &state, Watch::default()).unwrap();
        for env in [serde_json::json!([]), serde_json::json!(["PATH=/nowhere"])] {
            assert!(run(&hook(env.clone()), &state, Watch::default()).is_err(), "{env}");
        }
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let state = Saved::new("box", "1.3.0", None).shown(Status::Running, Some(7));
        let began = Instant::now();
        let error = run(&hook("exec sleep 600", 1), &state, Watch::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(began.elapsed() < Duration::from_secs(300));
    }
}
