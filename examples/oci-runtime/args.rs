//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use clap::error::{ContextKind, ErrorKind};
use clap::{ArgAction, Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use nix::sys::signal::Signal;

/// Open Container Initiative runtime, on ringfence
#[derive(Parser, Debug)]
#[command(name = "oci-runtime", version = version())]
#[command(disable_version_flag = true)]
pub struct Args {
    /// Directory in which containers are kept [default: /run/ringfence-oci, or below $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File to which errors and warnings are added
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the lines of the log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Log the commands, too
    #[arg(long)]
    pub debug: bool,
    /// Have systemd make the control groups: cgroupsPath is slice:prefix:name
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Who makes control groups: this runtime, systemd, or nobody (refused)
    #[arg(long, value_name = "MANAGER", default_value = "cgroupfs")]
    pub cgroup_manager: CgroupManager,
    /// Taken for the sake of engines: a limit that cannot be set is an error in any case
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub rootless: Rootless,
    /// Show the version
    #[arg(short, long, visible_short_alias = 'V', action = ArgAction::Version)]
    pub version: Option<bool>,
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// Parses the words of a command line, of which the first is the name of the program: the one that
    /// help and version show, as an engine may know this runtime by another.
    pub fn of(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let words: Vec<OsString> = words.into_iter().collect();
        let program = words.first().and_then(|word| Path::new(word).file_name()?.to_str()).unwrap_or("oci-runtime");
        let command = Args::command().display_name(program).help_template(help_of(program));
        let command = command.mut_subcommands(|command| {
            let template = help_of(&format!("{program} {}", command.get_name()));
            command.help_template(template)
        });
        let matches = command.try_get_matches_from(&words)?;
        Args::from_arg_matches(&matches)
    }
}

/// Returns the form of a help that begins as that of other runtimes: with NAME, the name and what it does.
fn help_of(name: &str) -> String {
    format!("NAME:\n   {name} - {{about}}\n\n{{usage-heading}} {{usage}}\n\n{{all-args}}")
}

/// Returns the name that no command has, if that is the error.
pub fn unknown_command(error: &clap::Error) -> Option<String> {
    let named = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string);
    named.filter(|_| error.kind() == ErrorKind::InvalidSubcommand)
}

fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| version_text(option_env!("RINGFENCE_COMMIT")));
    &TEXT
}

/// Returns what `--version` shows: with the commit, where the build has been told of it.
pub fn version_text(commit: Option<&str>) -> String {
    let commit = commit.map(|commit| format!("\ncommit: {commit}")).unwrap_or_default();
    format!("version {}{commit}\nspec: 1.3.0", env!("CARGO_PKG_VERSION"))
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rootless {
    True,
    False,
    Auto,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a container, up to the start of its program
    Create(CreateArgs),
    /// Create a container and start it
    Run {
        #[command(flatten)]
        create: CreateArgs,
        /// Return when the program has started
        #[arg(short, long)]
        detach: bool,
        /// Leave the container when the program has ended
        #[arg(long)]
        keep: bool,
        /// Taken for the sake of engines: this runtime is no subreaper
        #[arg(long)]
        no_subreaper: bool,
    },
    /// Start the program of a created container
    Start { id: String },
    /// Show the state of a container, as JSON
    State { id: String },
    /// Send a signal to a container
    Kill {
        id: String,
        /// Number or name of the signal
        #[arg(default_value = "SIGTERM")]
        signal: SignalArg,
        /// To all its processes
        #[arg(short, long)]
        all: bool,
    },
    /// Remove a container
    Delete {
        id: String,
        /// Kill it before, if it runs; a container that is not there is no error
        #[arg(short, long)]
        force: bool,
    },
    /// List the containers
    List {
        #[arg(short, long, default_value = "table")]
        format: Format,
        /// The names alone
        #[arg(short, long)]
        quiet: bool,
    },
    /// List the processes of a container
    Ps {
        #[arg(short, long, default_value = "table")]
        format: Format,
        id: String,
        /// Options of ps(1)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTIONS")]
        words: Vec<String>,
    },
    /// Freeze all processes of a container
    Pause { id: String },
    /// Let a paused container go on
    Resume { id: String },
    /// Run a further program in a container
    Exec(Box<ExecArgs>),
    /// Show what this runtime has, as JSON
    Features,
    /// Write a configuration to begin with
    Spec {
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
        /// For an ordinary user
        #[arg(long)]
        rootless: bool,
    },
    /// (refused)
    Checkpoint {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// (refused)
    Restore {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Change the limits of a container
    Update(Box<UpdateArgs>),
    /// Show what a container uses, and that memory has run out, as lines of JSON
    Events {
        id: String,
        /// Show what it uses once
        #[arg(long)]
        stats: bool,
        /// Time between what it uses and what it uses then, as in 5s
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
        interval: Duration,
    },
}

#[derive(ClapArgs, Debug)]
pub struct CreateArgs {
    pub id: String,
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// File with the configuration, from the bundle on
    #[arg(short = 'f', long, value_name = "FILE", default_value = "config.json")]
    pub config: PathBuf,
    /// File that gets the pid of the container's first process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Socket that gets the terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets the pidfd of the container's first process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Number of descriptors from 3 on that the program gets
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u16,
    /// Enter the root by chroot(2), for a host that runs on its initramfs: it only covers the host's
    #[arg(long)]
    pub no_pivot: bool,
    /// Leave the container in the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
}

#[derive(ClapArgs, Debug)]
pub struct UpdateArgs {
    pub id: String,
    /// File with `linux.resources`, or `-` for stdin
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Memory in bytes, or with k, m, g; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub memory: Option<Size>,
    /// Memory and swap together
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub memory_swap: Option<Size>,
    /// Memory that is kept for the container
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub memory_reservation: Option<Size>,
    /// (refused)
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub kernel_memory: Option<Size>,
    /// (refused)
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub kernel_memory_tcp: Option<Size>,
    /// Share of CPU time, 2 to 262144
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// CPU time in each period, in microseconds; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// Period of the quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_burst: Option<u64>,
    /// Period of realtime tasks, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<u64>,
    /// CPU time of realtime tasks in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// 1 for CPU time that nobody else wants
    #[arg(long, value_name = "0 OR 1")]
    pub cpu_idle: Option<i64>,
    /// CPUs, as in 0-3,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as in 0-3,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Most processes and threads; -1 for no limit, and 0 as 1
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Share of disks, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// (refused)
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// (refused)
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
}

/// A number of bytes; -1 means that there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub i64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-1" {
            return Ok(Size(-1));
        }
        let lower = text.to_ascii_lowercase();
        let bytes = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
        let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40), ('p', 50)];
        let unit = units.iter().find_map(|(unit, shift)| Some((bytes.strip_suffix(*unit)?, *shift)));
        let (number, shift) = unit.unwrap_or((bytes, 0));
        let number: i64 = number.trim().parse().map_err(|_| "it is not a number of bytes, as in 64m".to_owned())?;
        let size = number.checked_mul(1 << shift).filter(|size| *size >= 0);
        size.map(Size).ok_or_else(|| "it is not between 0 and the most that there is".to_owned())
    }
}

#[derive(ClapArgs, Debug)]
pub struct ExecArgs {
    pub id: String,
    /// File with the process, as JSON
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["words", "env", "cwd", "user", "additional_gids", "cap", "no_new_privs", "apparmor", "process_label"])]
    pub process: Option<PathBuf>,
    /// Return when the program has started
    #[arg(short, long)]
    pub detach: bool,
    /// File that gets the pid of the program
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Socket that gets the terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets the pidfd of the program
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Run the program on a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// User, and group: UID[:GID]
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<UserArg>,
    /// Supplementary group
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// Capability that the program has beside those of the container's
    #[arg(short, long, value_name = "CAPABILITY")]
    pub cap: Vec<String>,
    /// No exec gives the program privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Profile of AppArmor
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Label of SELinux
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Number of descriptors from 3 on that the program gets
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u16,
    /// Control group below that of the container; of some v1 hierarchies alone by CONTROLLER[,CONTROLLER]:PATH
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// In a paused container, wait until it is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// (has no effect: no subreaper is set)
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// Variable of the environment: NAME=VALUE
    #[arg(short, long, value_name = "VARIABLE")]
    pub env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub words: Vec<String>,
}

/// A user by numbers, and maybe a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserArg {
    pub uid: u32,
    pub gid: Option<u32>,
}

impl FromStr for UserArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number of a user or group"));
        let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
        Ok(UserArg { uid: number(uid)?, gid: gid.map(number).transpose()? })
    }
}

/// The number of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalArg(pub i32);

impl FromStr for SignalArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<i32>() {
            return if (0..=64).contains(&number) { Ok(SignalArg(number)) } else { Err("no such signal".into()) };
        }
        let upper = text.to_ascii_uppercase();
        let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        Signal::from_str(&name).map(|signal| SignalArg(signal as i32)).map_err(|_| "no such signal".into())
    }
}
