//! `exec`: a further program in a container.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use ringfence::oci::{
    Container, ExecProcess, Runtime, preserve_fds_of_exec, send_pidfd, send_terminal, subgroups_of_exec,
};
use ringfence::{Capability, Child, Command};
use serde_json::{Value, json};

use super::args::ExecArgs;
use super::foreground::code_of;
use super::log::Log;
use super::terminal::{Ended, Host, passed_on};
use super::{Failure, read_file, write_pid};

/// The time that a program has to end, once its terminal has been hung up.
const GRACE: Duration = Duration::from_secs(1);

pub fn run(runtime: &Runtime, args: &ExecArgs, log: &Log) -> Result<u8, Failure> {
    let container = runtime.open(&args.id)?.ignoring_pause(args.ignore_paused);
    let process = match &args.process {
        Some(path) => read_file(path, "--process")?,
        None => process_of(&container, args)?,
    };
    let process = ExecProcess::from_json(&process)?;
    for warning in process.warnings() {
        log.warning(warning);
    }
    if let Some(mask) = process.initial_cpus().and_then(mask_of) {
        log.debug(&format!("nsexec: affinity: 0x{mask}"));
    }
    let has_terminal = process.has_terminal();
    if args.detach && has_terminal && args.console_socket.is_none() {
        return Err("cannot allocate tty if oci-runtime will detach without setting console socket".into());
    }
    if args.console_socket.is_some() && !(args.detach && has_terminal) {
        return Err("cannot use console socket if oci-runtime will not detach or allocate tty".into());
    }
    // Signals are blocked before the library has threads, so that only those get them who wait for them.
    if args.detach {
        detached(&container, &process, args, log)
    } else if has_terminal {
        at_terminal(&container, process, args, log)
    } else {
        with_streams(&container, &process, args, log)
    }
}

/// Starts the program, and tells the engine of it.
fn started(container: &Container, process: &ExecProcess, args: &ExecArgs, log: &Log) -> Result<Child, Failure> {
    log.debug(&format!("nsexec container setup: the namespaces of {} are entered", args.id));
    log.debug("setns_init: about to exec");
    let with = |command: Command| {
        let command = subgroups_of_exec(command, &args.cgroup)?;
        preserve_fds_of_exec(command, args.preserve_fds)
    };
    let started = if args.detach { container.exec_detached(process, with) } else { container.exec(process, with) };
    let mut child = started?;
    log.debug(&format!("child process in init(): it has executed its program as {}", child.id()));
    match tell(&mut child, args) {
        Ok(()) => Ok(child),
        Err(error) => {
            let _ = child.kill();
            Err(error)
        }
    }
}

fn tell(child: &mut Child, args: &ExecArgs) -> Result<(), Failure> {
    if let Some(socket) = &args.console_socket {
        let terminal = child.terminal.take().ok_or("--console-socket: the program has no terminal")?;
        send_terminal(socket, terminal.as_fd(), &terminal.name()?.to_string_lossy())?;
    }
    if let Some(socket) = &args.pidfd_socket {
        send_pidfd(socket, child.pidfd().ok_or("--pidfd-socket: the program has no pidfd")?)?;
    }
    if let Some(path) = &args.pid_file {
        write_pid(path, child.id())?;
    }
    Ok(())
}

fn detached(container: &Container, process: &ExecProcess, args: &ExecArgs, log: &Log) -> Result<u8, Failure> {
    started(container, process, args, log)?.detach()?;
    Ok(0)
}

/// Runs a program that has this command's streams.
fn with_streams(container: &Container, process: &ExecProcess, args: &ExecArgs, log: &Log) -> Result<u8, Failure> {
    let set = passed_on();
    set.thread_block()?;
    let signals = SignalFd::new(&set)?;
    let mut child = started(container, process, args, log)?;
    while let Some(pidfd) = child.pidfd() {
        // Only to wait as long as it takes, whatever the library's limits are.
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        if fds[0].any() == Some(true) {
            break;
        }
        if let Some(signal) = signals.read_signal()? {
            // A program that has just ended needs none.
            let _ = child.signal(signal.ssi_signo.cast_signed());
        }
    }
    Ok(code_of(child.wait()?.status()))
}

/// Runs a program that has a terminal of its own, at this command's terminal.
fn at_terminal(container: &Container, process: ExecProcess, args: &ExecArgs, log: &Log) -> Result<u8, Failure> {
    let host = Host::open()?;
    // The program may look at once.
    let process = process.or_console_size(host.size()?);
    let mut child = started(container, &process, args, log)?;
    let terminal = child.terminal.take().ok_or("the program has no terminal")?;
    // Put back before anything is printed.
    let raw = host.enter(&terminal, false)?;
    if raw.relay(terminal, |signal| drop(child.signal(signal)))? == Ended::Gone {
        let _ = child.signal(Signal::SIGHUP as i32);
        if child.wait_timeout(GRACE)?.is_none() {
            child.kill()?;
        }
    }
    drop(raw);
    Ok(code_of(child.wait()?.status()))
}

/// Returns the process of a container's configuration with another program, and what the options say.
fn process_of(container: &Container, args: &ExecArgs) -> Result<Vec<u8>, Failure> {
    let mut process: Value = serde_json::from_str(&container.process()?)?;
    if args.words.is_empty() {
        return Err("exec: no program is named: give one, or --process".into());
    }
    process["args"] = json!(args.words);
    process["terminal"] = json!(args.tty);
    if let Some(cwd) = &args.cwd {
        process["cwd"] = json!(cwd);
    }
    add(&mut process["env"], &args.env);
    if let Some(user) = args.user {
        process["user"]["uid"] = json!(user.uid);
        if let Some(gid) = user.gid {
            process["user"]["gid"] = json!(gid);
        }
    }
    add(&mut process["user"]["additionalGids"], &args.additional_gids);
    for name in &args.cap {
        if name.parse::<Capability>().is_err() {
            return Err(format!("--cap {name}: there is no such capability").into());
        }
    }
    for set in ["bounding", "effective", "permitted"].iter().filter(|_| !args.cap.is_empty()) {
        add(&mut process["capabilities"][set], &args.cap);
    }
    // As in other runtimes, what exec gives on is among them if the container has such at all.
    let inheritable = process["capabilities"]["inheritable"].as_array().cloned().unwrap_or_default();
    let given_on: Vec<String> = args.cap.iter().filter(|name| inheritable.contains(&json!(name))).cloned().collect();
    add(&mut process["capabilities"]["ambient"], &given_on);
    if args.no_new_privs {
        process["noNewPrivileges"] = json!(true);
    }
    for (property, given) in [("apparmorProfile", &args.apparmor), ("selinuxLabel", &args.process_label)] {
        if let Some(given) = given {
            process[property] = json!(given);
        }
    }
    Ok(process.to_string().into_bytes())
}

/// Returns the mask of a list of processors, as in `0-2,7`, in hexadecimal digits: sched_setaffinity(2).
fn mask_of(list: &str) -> Option<String> {
    const MOST: usize = 8192;
    let mut digits = [0u8; MOST / 4];
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        for number in first..=last.min(MOST - 1) {
            *digits.get_mut(number / 4)? |= 1 << (number % 4);
        }
    }
    let text: String = digits.iter().rev().map(|digit| format!("{digit:x}")).collect();
    Some(text.trim_start_matches('0').to_owned()).filter(|text| !text.is_empty())
}

/// Adds to a list, which may not be there yet.
fn add<T: Clone + Into<Value>>(list: &mut Value, more: &[T]) {
    if !more.is_empty() {
        let mut all = list.as_array().cloned().unwrap_or_default();
        all.extend(more.iter().cloned().map(Into::into));
        *list = json!(all);
    }
}
