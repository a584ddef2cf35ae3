//! Pulls an image, if the store does not have it, and runs it under limits:
//!
//!     cargo run --release --features registry --example pull-run -- --memory 64M debian:12 cat /etc/os-release
//!
//! Progress goes to stderr; stdin, stdout and the exit code are the program's own. Without a
//! network, `pack` makes an image of the host's programs first.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use ringfence::image::{Image, Reference, Store};
use ringfence::registry::{Event, Present, Registry};
use ringfence::{Bytes, Error, ErrorKind, Outcome, Sandbox, Verdict};

/// The control group below which root's groups are made.
const PARENT: &str = "/ringfence-run";

/// Pulls an image, if the store does not have it, and runs it under limits.
///
/// The exit code is the program's, 128 + N if signal N ended it; 125 if there is no image or no
/// sandbox, 126 and 127 if the program cannot be executed or is not there.
#[derive(Parser)]
#[command(name = "pull-run")]
struct Args {
    /// Most memory of all processes together (64M, 2G)
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Most processes
    #[arg(long, value_name = "N")]
    pids: Option<u64>,
    /// Most processors' worth of time
    #[arg(long, value_name = "CORES")]
    cpus: Option<f64>,
    /// Longest time, in seconds
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
    /// No network but a loopback of its own
    #[arg(long)]
    no_network: bool,
    /// The walls for code that nobody vouches for
    #[arg(long)]
    strict: bool,
    /// The image's registry speaks HTTP without TLS
    #[arg(long)]
    plain_http: bool,
    /// The store [default: ringfence/images in the user's data directory]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Pulls also what the store has
    #[arg(long)]
    pull: bool,
    /// The image: debian:12, registry.example/team/app@sha256:…
    image: Reference,
    /// A program instead of the image's own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(text) => {
            let _ = text.print();
            return ExitCode::from(if text.use_stderr() { 125 } else { 0 });
        }
    };
    match run(&args) {
        Ok(outcome) => exit_code(&outcome),
        Err(error) => {
            eprintln!("pull-run: {error}");
            // These exit codes are those of env(1).
            match error.kind() {
                ErrorKind::Exec if error.raw_os_error() == Some(nix::libc::ENOENT) => ExitCode::from(127),
                ErrorKind::Exec => ExitCode::from(126),
                _ => ExitCode::from(125),
            }
        }
    }
}

fn run(args: &Args) -> Result<Outcome, Error> {
    let store = match &args.store {
        Some(dir) => Store::open(dir)?,
        None => Store::open_default()?,
    };
    let image = image(args, &store)?;
    sandbox(args, &image)?.status()
}

/// Returns the image from the store, or else from the registry.
fn image(args: &Args, store: &Store) -> Result<Image, Error> {
    match store.image(&args.image) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        found if !args.pull => return found,
        _ => {}
    }
    let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
    let bar = ProgressBar::no_length().with_message(args.image.to_string());
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let registry = if args.plain_http { Registry::new().plain_http(args.image.registry()) } else { Registry::new() };
    let progress = Progress { bar: bar.clone(), blobs: Default::default() };
    let pulled = registry.progress(move |event| progress.tell(event)).pull_and_unpack(store, &args.image);
    bar.finish_and_clear();
    pulled.map(|(image, _)| image)
}

/// A bar that shows the bytes of all blobs.
struct Progress {
    bar: ProgressBar,
    blobs: std::sync::Mutex<std::collections::HashMap<String, u64>>,
}

impl Progress {
    fn tell(&self, event: Event) {
        match event {
            Event::Resolved { bytes, .. } => self.bar.set_length(bytes),
            Event::Moved { digest, done, .. } => self.at(digest, done),
            Event::Complete { digest, size } => self.at(digest, size),
            Event::Present { digest, size, because: Present::Already | Present::Unpacked, .. } => self.at(digest, size),
            Event::Retry { name, wait, reason, .. } => {
                self.bar.suspend(|| eprintln!("pull-run: {name}: {reason}; again in {wait:.0?}"));
            }
            Event::Finished(timings) => {
                let (moved, total) = (HumanBytes(timings.moved), timings.total);
                self.bar.suspend(|| eprintln!("pull-run: {moved} in {total:.1?}, unpacked in {:.1?}", timings.unpack));
            }
            _ => {}
        }
    }

    fn at(&self, digest: String, done: u64) {
        let Ok(mut blobs) = self.blobs.lock() else { return };
        blobs.insert(digest, done);
        self.bar.set_position(blobs.values().sum());
    }
}

fn sandbox(args: &Args, image: &Image) -> Result<Sandbox, Error> {
    let mut sandbox = if args.strict { Sandbox::strict().image(image)? } else { Sandbox::from_image(image)? };
    if nix::unistd::geteuid().is_root() {
        sandbox = sandbox.cgroup_parent(PARENT);
    }
    if let Some((program, rest)) = args.command.split_first() {
        sandbox = sandbox.command(program).args(rest);
    }
    if args.no_network {
        sandbox = sandbox.net_ns();
    }
    if let Some(memory) = args.memory {
        sandbox = sandbox.memory_limit(memory);
    }
    if let Some(pids) = args.pids {
        sandbox = sandbox.pids_limit(pids);
    }
    if let Some(cores) = args.cpus {
        sandbox = sandbox.cpu_limit(cores);
    }
    if let Some(seconds) = args.time {
        sandbox = sandbox.wall_time(Duration::from_secs(seconds));
    }
    Ok(sandbox)
}

fn exit_code(outcome: &Outcome) -> ExitCode {
    if !matches!(outcome.verdict(), Verdict::Exited(_) | Verdict::Signaled(_)) {
        eprintln!("pull-run: {}", outcome.verdict());
    }
    let code = outcome
        .code()
        .unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&outcome.status()).unwrap_or_default());
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
