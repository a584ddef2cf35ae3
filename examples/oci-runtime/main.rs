//! A runtime for container engines, by the OCI runtime specification:
//!
//!     cargo run --release --example oci-runtime --features oci -- run --bundle /srv/bundle box
//!
//! See `--help`. Every decision is the library's: this is the command line alone.

pub mod args;
mod events;
mod exec;
mod foreground;
mod log;
mod show;
mod terminal;
mod update;

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use ringfence::oci::{
    Config, Container, Runtime, Status, default_config, features, preserve_fds, send_pidfd, send_terminal,
};
use ringfence::{ErrorKind, Sandbox};

use self::args::{Args, CgroupManager, Command, CreateArgs};
use self::log::Log;

/// The exit code of an `exec` that fails, as with other runtimes: 1 may be the program's own.
const EXEC_FAILED: u8 = 255;

/// The longest file of an option that is read, in bytes: that of a configuration.
const SIZE_MAX: u64 = 16 << 20;

/// What ends a command: the text for the engine.
type Failure = Box<dyn std::error::Error>;

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// Does what the arguments say, and returns the exit code: 1 for an error of the runtime's own.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args = match Args::of(args) {
        Ok(args) => args,
        Err(text) => {
            let _ = text.print();
            if let Some(name) = args::unknown_command(&text) {
                let _ = writeln!(std::io::stderr(), "No help topic for '{name}'");
            }
            return u8::from(text.use_stderr());
        }
    };
    let log = match Log::new(args.log.clone(), args.log_format, args.debug) {
        Ok(log) => log,
        Err(text) => {
            let _ = writeln!(std::io::stderr(), "error: {text}");
            return 1;
        }
    };
    match carry_out(args, &log) {
        Ok(code) => code,
        Err(error) => {
            log.error(&error.to_string());
            1
        }
    }
}

fn carry_out(args: Args, log: &Log) -> Result<u8, Failure> {
    if args.cgroup_manager == CgroupManager::Disabled {
        return Err("--cgroup-manager disabled: a container of root has a control group in any case".into());
    }
    let by_systemd = args.systemd_cgroup || args.cgroup_manager == CgroupManager::Systemd;
    let is_default_root = args.root.is_none();
    let runtime = Runtime::new(args.root.unwrap_or_else(Runtime::default_root)).systemd_cgroups(by_systemd);
    match args.command {
        Command::Create(create) => drop(make(&runtime, &create, &config_of(&create)?, true, log)?),
        Command::Run { create, detach, keep, no_subreaper: _ } => {
            return foreground::run(&runtime, &create, detach, keep, log);
        }
        Command::Start { id } => start(&mut runtime.open(&id)?, log)?,
        Command::State { id } => say(&runtime.open(&id)?.state()?.to_json())?,
        Command::Kill { id, signal, all } => {
            let container = runtime.open(&id)?;
            // With --all, it is no error that none is left.
            if !(all && container.state()?.status == Status::Stopped) {
                container.kill(signal.0, all)?;
            }
        }
        Command::Delete { id, force } => {
            let failed = if force { runtime.delete_by_force(&id)? } else { runtime.open(&id)?.delete(false)? };
            failed.iter().for_each(|error| log.warning(&error.to_string()));
        }
        Command::List { format, quiet } => {
            let states = match runtime.list() {
                // The default root is made by the first create. One that was named may be misspelt.
                Err(error) if error.kind() == ErrorKind::NotFound && is_default_root => Vec::new(),
                other => other?,
            };
            say(&show::list(&states, format, quiet)?)?;
        }
        Command::Ps { id, format, words } => say(&show::processes(&runtime.open(&id)?, format, &words)?)?,
        Command::Pause { id } => runtime.open(&id)?.pause()?,
        Command::Resume { id } => runtime.open(&id)?.resume()?,
        Command::Exec(exec) => {
            return exec::run(&runtime, &exec, log).or_else(|error| {
                log.error(&format!("exec failed: {error}"));
                Ok(EXEC_FAILED)
            });
        }
        Command::Features => say(&features())?,
        Command::Spec { bundle, rootless } => write_spec(&bundle, rootless)?,
        Command::Checkpoint { .. } => return Err("checkpoint: containers are not checkpointed".into()),
        Command::Restore { .. } => return Err("restore: containers are not checkpointed".into()),
        Command::Update(update) => update::run(&runtime, &update, log)?,
        Command::Events { id, stats, interval } => events::run(&runtime, &id, stats, interval)?,
    }
    Ok(0)
}

fn config_of(args: &CreateArgs) -> ringfence::Result<Config> {
    Config::load_file(args.bundle.join(&args.config))
}

/// Makes a container, tells the engine what it wants to know, and returns the container. With `detached`
/// this command ends before the container.
fn make(
    runtime: &Runtime,
    args: &CreateArgs,
    config: &Config,
    detached: bool,
    log: &Log,
) -> Result<Container, Failure> {
    match (args.console_socket.is_some(), config.has_terminal(), detached) {
        (false, true, true) => {
            return Err("cannot allocate tty if oci-runtime will detach without setting console socket".into());
        }
        (true, false, _) | (true, _, false) => {
            return Err("cannot use console socket if oci-runtime will not detach or allocate tty".into());
        }
        _ => {}
    }
    for warning in config.warnings() {
        log.warning(warning);
    }
    log.debug(&format!("nsexec container setup: the namespaces of {}", args.id));
    // The whole filter is read for that.
    if let Some(flags) = log.tells_debug().then(|| config.filter_flags()).flatten() {
        log.debug(&format!("seccomp filter flags: {flags}"));
    }
    let activated = activated();
    let with = |sandbox: Sandbox| {
        let sandbox = sandbox.session_keyring(!args.no_new_keyring);
        let sandbox = match activated {
            0 => sandbox,
            count => sandbox.env("LISTEN_FDS", count.to_string()).env("LISTEN_PID", "1"),
        };
        preserve_fds(sandbox, activated.saturating_add(args.preserve_fds))
    };
    let runtime = runtime.clone().no_pivot(args.no_pivot);
    let mut container = runtime.create_by(config, &args.id, &args.bundle, with)?;
    match tell(&mut container, args) {
        Ok(()) => {
            log.debug(&format!("child process in init(): {} waits for its start", args.id));
            Ok(container)
        }
        Err(error) => {
            // The error counts. What is left can be deleted.
            let _ = container.delete(true);
            Err(error)
        }
    }
}

/// Starts the program of a container.
fn start(container: &mut Container, log: &Log) -> ringfence::Result<()> {
    container.start()?;
    // The pipe by which the first process reports ends with its exec.
    log.debug(&format!("init: closing the pipe to signal completion: {} has executed its program", container.id()));
    Ok(())
}

/// Returns the number of sockets that this process was started with, from descriptor 3 on:
/// sd_listen_fds(3).
fn activated() -> u16 {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let is_own = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS").filter(|_| is_own).and_then(|count| u16::try_from(count).ok()).unwrap_or(0)
}

/// Tells the engine of a new container: by the sockets for the terminal and the pidfd, and the file with
/// the pid, which comes last.
fn tell(container: &mut Container, args: &CreateArgs) -> Result<(), Failure> {
    if let Some(socket) = &args.console_socket {
        let terminal = container.take_terminal().ok_or("--console-socket: the container has no terminal")?;
        send_terminal(socket, terminal.as_fd(), &terminal.name()?.to_string_lossy())?;
    }
    if let Some(socket) = &args.pidfd_socket {
        send_pidfd(socket, container.pidfd().ok_or("--pidfd-socket: the container has ended")?)?;
    }
    if let Some(path) = &args.pid_file {
        write_pid(path, container.state()?.pid)?;
    }
    Ok(())
}

/// Writes a file with a pid, which is whole when it has its name. What stands where it is begun, such as
/// the file of a killed command, is neither followed nor opened.
fn write_pid(path: &Path, pid: u32) -> Result<(), Failure> {
    let name = path.file_name().ok_or("--pid-file: it names no file")?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let new = path.with_file_name(hidden);
    let begin = || fs::File::options().write(true).create_new(true).open(&new);
    let begun = begin().or_else(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => fs::remove_file(&new).and_then(|()| begin()),
        _ => Err(error),
    });
    let written =
        begun.and_then(|mut file| file.write_all(pid.to_string().as_bytes())).and_then(|()| fs::rename(&new, path));
    written.map_err(|error| format!("--pid-file {}: {error}", path.display()).into())
}

/// Reads the file of an option, which nobody may make longer than a command has memory for.
fn read_file(path: &Path, option: &str) -> Result<Vec<u8>, Failure> {
    let file = fs::File::open(path).map_err(|error| format!("{option} {}: {error}", path.display()))?;
    read_bounded(file, option)
}

fn read_bounded(from: impl Read, option: &str) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    from.take(SIZE_MAX + 1).read_to_end(&mut text).map_err(|error| format!("{option}: {error}"))?;
    if text.len() as u64 > SIZE_MAX {
        return Err(format!("{option}: it has more than {SIZE_MAX} bytes").into());
    }
    Ok(text)
}

fn write_spec(bundle: &Path, rootless: bool) -> Result<(), Failure> {
    let path = bundle.join("config.json");
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = fs::File::options().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(default_config(rootless).as_bytes()).map_err(failed)?;
    Ok(())
}

fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    // A list of nothing is empty.
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write!(stdout, "{text}{end}").and_then(|()| stdout.flush())?;
    Ok(())
}
