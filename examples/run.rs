//! `cgcreate`, `cgset`, `cgexec`, `unshare` and `chroot` in one line:
//!
//!     cargo run --release --example run -- --memory 64M --pids 32 --cpus 0.5 -- sh -c 'ps aux; id'
//!
//! See `--help`.

use std::ffi::OsString;
use std::io::{IsTerminal, Write, stderr, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use ringfence::{
    Bind, Bytes, Child, Enforced, Enforcement, Error, ErrorKind, Feature, IoLimit, Outcome, RootFs, Sandbox, Session,
    Verdict,
};

/// The control group below which root's groups are made, unless --cgroup-parent names another.
const PARENT: &str = "/ringfence-run";

const AFTER_HELP: &str = "\
Examples:
  A shell that sees nothing but itself, on the host's files, read-only:
      run
  An Alpine tree as the root, throw-away changes, 64 MiB and half a core:
      run --memory 64M --swap 0 --cpus 0.5 --overlay /srv/alpine -- /bin/sh
  A build that may write its own directory and nothing else, for a minute:
      run --bind $PWD:/tmp/src --cwd /tmp/src --time 60s --memory 2G -- make
  What could be enforced here, without running anything:
      run --check --memory 64M --pids 32 --cpuset 0

What the second example replaces:
  cgcreate -g memory,cpu:/box
  cgset -r memory.max=64M -r memory.swap.max=0 -r cpu.max='50000 100000' box
  mount -t overlay -o lowerdir=/srv/alpine,upperdir=...,workdir=... overlay /mnt
  cgexec -g memory,cpu:/box unshare --fork --pid --mount --ipc --uts --net \\
      --cgroup chroot /mnt /bin/sh
  (then mount /proc and /dev in it; and afterwards kill what is left,
  umount, rmdir, cgdelete)

As root:
  The program is root, too, towards everything that it can reach. Run what you
  do not trust with --user or --rootless.

Files:
  With the host's files /tmp, /dev and /proc are the sandbox's own, and the rest
  is read-only: binds and file systems in memory go to places that exist, or
  below /tmp. Every file that you may read can be read inside.

Exit code:
  the program's own; 128 + N when signal N ended it, which a limit does with
  SIGKILL (137), and says so on stderr. 125: the command line is wrong, or
  the sandbox could not be made.
  126: the program cannot be executed. 127: there is no such program.

The terminal:
  When stdin is a terminal the program stays in the terminal's session, so
  that a shell works as usual. It can then put input into that terminal
  (TIOCSTI, where the kernel still has it) and send signals to this command's
  process group: give hostile programs </dev/null or a pipe.
  (dash complains at its exit that it cannot give the terminal back: it can.)";

/// Runs a program in namespaces of its own, on a root of its own, under limits.
#[derive(Parser, Debug)]
#[command(name = "run", after_help = AFTER_HELP)]
struct Args {
    /// Most memory of all processes together (64M, 2G)
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    memory: Option<Bytes>,
    /// Most swap beside it; 0 for none
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    swap: Option<Bytes>,
    /// Most processes and threads, the init included
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pids: Option<u64>,
    /// Processor time in cores: 0.5 is half of one
    #[arg(long, value_name = "CORES", help_heading = "Limits")]
    cpus: Option<f64>,
    /// Share of contended processors, 1 to 10000; others have 100
    #[arg(long, value_name = "WEIGHT", help_heading = "Limits")]
    cpu_weight: Option<u64>,
    /// Processors that may be used, as in 0-3,8
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    cpuset: Option<String>,
    /// Rates on a disk: 8:0:rbps=1M,wbps=1M,riops=99,wiops=99
    #[arg(long, value_name = "DEV:RATES", value_parser = io_limit, help_heading = "Limits")]
    io: Vec<IoLimit>,
    /// Longest run (5s, 200ms, 2m)
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Limits")]
    time: Option<Duration>,
    /// Most processor time of all processes together
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Limits")]
    cpu_time: Option<Duration>,
    /// Most output, which then comes at the end, all at once
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    output_limit: Option<Bytes>,
    /// Go without what this host cannot enforce, and say so
    #[arg(long, help_heading = "Limits")]
    best_effort: bool,
    /// Control group to work below [root: /ringfence-run]
    #[arg(long, value_name = "PATH", help_heading = "Limits")]
    cgroup_parent: Option<PathBuf>,

    /// Directory that becomes the root, writable
    #[arg(long, value_name = "DIR", group = "root", help_heading = "Files")]
    rootfs: Option<PathBuf>,
    /// Layers of the root, the first on top; changes are lost
    #[arg(long, value_name = "LOWER", num_args = 1.., group = "root", help_heading = "Files")]
    overlay: Vec<PathBuf>,
    /// The host's own files, read-only [default]
    #[arg(long, group = "root", help_heading = "Files")]
    host: bool,
    /// Show a directory or file of the host at DST
    #[arg(long, value_name = "SRC:DST[:ro]", value_parser = bind, help_heading = "Files")]
    bind: Vec<Bind>,
    /// An empty file system in memory [default size: 64M]
    #[arg(long, value_name = "DST[:SIZE]", value_parser = tmpfs, help_heading = "Files")]
    tmpfs: Vec<(PathBuf, Bytes)>,

    /// none: loopback alone; host: the host's network
    #[arg(long, value_enum, default_value_t = Net::None, hide_possible_values = true, help_heading = "Isolation")]
    net: Net,
    /// Host name inside
    #[arg(long, value_name = "NAME", default_value = "sandbox", help_heading = "Isolation")]
    hostname: String,
    /// Ids that the program runs as, inside [default: root's]
    #[arg(long, value_name = "UID:GID", value_parser = user, help_heading = "Isolation")]
    user: Option<(u32, u32)>,
    /// Make a user namespace; always on when not run by root
    #[arg(long, help_heading = "Isolation")]
    rootless: bool,
    /// No init above the program, which then is pid 1 itself
    #[arg(long, overrides_with = "init", help_heading = "Isolation")]
    no_init: bool,
    /// A tiny pid 1 that reaps and passes signals on [default]
    #[arg(long, help_heading = "Isolation")]
    init: bool,

    /// Begin with this profile, in TOML or, as NAME.json, in JSON (feature serde); options of
    /// limits, files and the program are added
    #[cfg(feature = "serde")]
    #[arg(long, value_name = "FILE", value_parser = profile, help_heading = "Program", conflicts_with_all = [
        "rootfs", "overlay", "host", "net", "hostname", "user", "rootless", "no_init", "init",
    ])]
    profile: Option<Sandbox>,
    /// Working directory inside [default: /]
    #[arg(long, value_name = "DIR", help_heading = "Program")]
    cwd: Option<PathBuf>,
    /// Set a variable
    #[arg(long, value_name = "K=V", value_parser = variable, help_heading = "Program")]
    env: Vec<(String, String)>,
    /// Begin with no variables
    #[arg(long, help_heading = "Program")]
    clear_env: bool,
    /// Say at the end, on stderr, what was used
    #[arg(long, help_heading = "Program")]
    stats: bool,
    /// Say what could be enforced, and run nothing
    #[arg(long, help_heading = "Program")]
    check: bool,
    /// The program and its arguments [default: /bin/sh]
    #[arg(value_name = "PROGRAM", trailing_var_arg = true)]
    program: Vec<OsString>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq)]
enum Net {
    None,
    Host,
}

// What the options mean.

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is none of ms, s, m, h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<Bytes, String> {
    text.parse().map_err(|error: ringfence::ParseBytesError| error.to_string())
}

fn io_limit(text: &str) -> Result<IoLimit, String> {
    let (device, rates) = text.rsplit_once(':').ok_or("write it as DEV:rbps=1M,wiops=100")?;
    let numbers = device.split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let limit = match numbers {
        Some((major, minor)) => IoLimit::device(major, minor),
        None => IoLimit::for_path(device).map_err(|error| error.to_string())?,
    };
    rates.split(',').try_fold(limit, |limit, rate| match rate.split_once('=') {
        Some(("rbps", rate)) => Ok(limit.read_bps(size(rate)?)),
        Some(("wbps", rate)) => Ok(limit.write_bps(size(rate)?)),
        Some(("riops", rate)) => Ok(limit.read_iops(size(rate)?.get())),
        Some(("wiops", rate)) => Ok(limit.write_iops(size(rate)?.get())),
        _ => Err(format!("{rate:?} is none of rbps=, wbps=, riops=, wiops=")),
    })
}

fn bind(text: &str) -> Result<Bind, String> {
    let (paths, read_only) = text.strip_suffix(":ro").map_or((text, false), |paths| (paths, true));
    let (source, target) = paths.split_once(':').ok_or("write it as SRC:DST or SRC:DST:ro")?;
    let bind = Bind::new(source, target);
    Ok(if read_only { bind.read_only() } else { bind })
}

fn tmpfs(text: &str) -> Result<(PathBuf, Bytes), String> {
    match text.split_once(':') {
        Some((target, bytes)) => Ok((target.into(), size(bytes)?)),
        None => Ok((text.into(), Bytes::mib(64))),
    }
}

fn user(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is no id"));
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Ok((number(uid)?, number(gid)?))
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

#[cfg(feature = "serde")]
fn profile(path: &str) -> Result<Sandbox, String> {
    use std::io::Read;

    use ringfence::Profile;

    /// More than the library reads.
    const MOST: u64 = 2 << 20;

    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MOST).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let read = if path.ends_with(".json") { Profile::from_json(&text) } else { Profile::from_toml(&text) };
    read.and_then(|profile| profile.sandbox()).map_err(|error| error.to_string())
}

// From the options to a sandbox.

impl Args {
    fn sandbox(&self) -> Sandbox {
        #[cfg(feature = "serde")]
        if let Some(sandbox) = self.profile.clone() {
            let sandbox = set(sandbox, self.cgroup_parent.as_ref(), Sandbox::cgroup_parent);
            return self.program(self.places(self.limits(sandbox)));
        }
        let sandbox = Sandbox::new().pid_ns().ipc_ns().uts_ns().cgroup_ns().hostname(&self.hostname);
        let sandbox =
            sandbox.init(!self.no_init).session(if stdin().is_terminal() { Session::Inherit } else { Session::New });
        let sandbox = if self.net == Net::None { sandbox.net_ns() } else { sandbox };
        let root = nix::unistd::geteuid().is_root();
        let sandbox = if self.rootless || !root { sandbox.user_ns() } else { sandbox };
        let sandbox = set(sandbox, self.user, |sandbox, (uid, gid)| sandbox.user(uid, gid));
        let parent = self.cgroup_parent.clone().or(root.then(|| PARENT.into()));
        let sandbox = set(sandbox, parent, Sandbox::cgroup_parent);
        self.program(self.files(self.limits(sandbox)))
    }

    fn limits(&self, sandbox: Sandbox) -> Sandbox {
        let sandbox = set(sandbox, self.memory, Sandbox::memory_limit);
        let sandbox = set(sandbox, self.swap, Sandbox::swap_limit);
        let sandbox = set(sandbox, self.pids, Sandbox::pids_limit);
        let sandbox = set(sandbox, self.cpus, Sandbox::cpu_limit);
        let sandbox = set(sandbox, self.cpu_weight, Sandbox::cpu_weight);
        let sandbox = set(sandbox, self.cpuset.clone(), Sandbox::cpuset);
        let sandbox = self.io.iter().cloned().fold(sandbox, Sandbox::io_limit);
        let sandbox = set(sandbox, self.time, Sandbox::wall_time);
        let sandbox = set(sandbox, self.cpu_time, Sandbox::cpu_time);
        let sandbox = set(sandbox, self.output_limit, Sandbox::output_limit);
        let dispensable = Feature::ALL.iter().copied().filter(|_| self.best_effort);
        dispensable.fold(sandbox, Sandbox::best_effort)
    }

    fn files(&self, sandbox: Sandbox) -> Sandbox {
        let root = match &self.rootfs {
            Some(dir) => RootFs::dir(dir),
            None if !self.overlay.is_empty() => RootFs::overlay(&self.overlay),
            None => RootFs::host(),
        };
        self.places(sandbox.rootfs(root))
    }

    fn places(&self, sandbox: Sandbox) -> Sandbox {
        let sandbox = self.tmpfs.iter().fold(sandbox, |sandbox, (at, size)| sandbox.tmpfs(at, *size));
        self.bind.iter().cloned().fold(sandbox, Sandbox::mount)
    }

    fn program(&self, sandbox: Sandbox) -> Sandbox {
        let sandbox = if self.clear_env { sandbox.env_clear() } else { sandbox };
        let sandbox = set(sandbox.envs(self.env.clone()), self.cwd.as_ref(), Sandbox::cwd);
        match self.program.split_first() {
            Some((program, args)) => sandbox.command(program).args(args),
            None => sandbox,
        }
    }
}

/// Calls a setter if there is a value.
fn set<T>(sandbox: Sandbox, value: Option<T>, setter: impl FnOnce(Sandbox, T) -> Sandbox) -> Sandbox {
    match value {
        Some(value) => setter(sandbox, value),
        None => sandbox,
    }
}

// Running it.

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// Does what the words of the command line say, and returns the exit code.
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(text) => {
            // The reader of this output may be gone.
            let _ = text.print();
            return if text.use_stderr() { 125 } else { 0 };
        }
    };
    match args.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("run: {error}");
            // These exit codes are those of env(1).
            match error.kind() {
                ErrorKind::Exec if error.raw_os_error() == Some(nix::libc::ENOENT) => 127,
                ErrorKind::Exec => 126,
                _ => 125,
            }
        }
    }
}

impl Args {
    fn run(&self) -> Result<u8, Error> {
        let sandbox = self.sandbox();
        if self.check {
            return Ok(check(&sandbox));
        }
        // An earlier run that ended by SIGKILL has left its group behind.
        if let Err(error) = ringfence::reap_stale() {
            eprintln!("run: {error}");
        }
        let outcome = if self.output_limit.is_some() {
            let output = sandbox.stdin(ringfence::Stdio::inherit()).output()?;
            // The reader of this output may be gone.
            let _ = stdout().write_all(&output.stdout).and(stderr().write_all(&output.stderr));
            output.outcome
        } else {
            // This comes before the first thread: all threads leave these signals to the descriptor.
            let signals = signals();
            let child = sandbox.spawn()?;
            tell_missing(child.enforced());
            supervise(child, signals.as_ref())?
        };
        tell_end(&outcome, self.stats);
        let code = outcome.status().code().unwrap_or_else(|| 128 + outcome.status().signal().unwrap_or(0));
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }
}

/// Returns a descriptor for the signals that would end this command, and that are passed on to the
/// program instead.
fn signals() -> Option<SignalFd> {
    let all = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect::<SigSet>();
    all.thread_block().ok().and_then(|()| SignalFd::new(&all).ok())
}

/// Waits for the end, and passes signals on. The signals of the terminal's keys reach the program,
/// or its init, without help.
fn supervise(mut child: Child, signals: Option<&SignalFd>) -> Result<Outcome, Error> {
    while let (Some(signals), Some(pidfd)) = (signals, child.pidfd()) {
        let mut fds = [pidfd, signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) if fds[0].any() == Some(true) => break,
            Err(errno) if errno != nix::errno::Errno::EINTR => break,
            _ => {}
        }
        if fds[1].any() == Some(true)
            && let Ok(Some(info)) = signals.read_signal()
        {
            // The signal comes from the kernel: the terminal has sent it to all processes.
            let from_keys = info.ssi_code == nix::libc::SI_KERNEL;
            if !from_keys {
                // ESRCH: the program has just ended.
                let _ = child.signal(info.ssi_signo as i32);
            }
        }
    }
    child.wait()
}

fn tell_missing(enforced: &Enforced) {
    for (feature, how) in enforced.iter() {
        if let Enforcement::Missing(why) = how {
            eprintln!("run: without {feature}: {why}");
        }
    }
}

fn tell_end(outcome: &Outcome, stats: bool) {
    if !matches!(outcome.verdict(), Verdict::Exited(_)) {
        eprintln!("run: {}", outcome.verdict());
    }
    if !stats {
        return;
    }
    let usage = outcome.usage();
    eprintln!("wall    {:.3} s", usage.wall.as_secs_f64());
    eprintln!("user    {:.3} s", usage.user.as_secs_f64());
    eprintln!("system  {:.3} s", usage.system.as_secs_f64());
    if let Some(memory) = usage.peak_memory {
        eprintln!("memory  {memory} at the most");
    }
    if let (Some(read), Some(written)) = (usage.io_read, usage.io_written) {
        eprintln!("io      {read} read, {written} written");
    }
}

/// Prints one line for each limit, or for each problem.
fn check(sandbox: &Sandbox) -> u8 {
    let enforced = match sandbox.check() {
        Ok(enforced) => enforced,
        Err(error) => {
            for problem in error.problems() {
                println!("no      {:<13} {}\n{:<21} {}", problem.subject, problem.reason, "", problem.remedy);
            }
            return 125;
        }
    };
    for (feature, how) in enforced.iter() {
        match how {
            Enforcement::Full => println!("full    {feature}"),
            Enforcement::Partial(gap) => println!("partial {:<13} {gap}", feature.as_str()),
            Enforcement::Missing(why) => println!("missing {:<13} {why}", feature.as_str()),
            other => println!("{other:?} {feature}"),
        }
    }
    println!("nothing stands in the way");
    0
}
