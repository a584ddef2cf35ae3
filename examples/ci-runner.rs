//! The steps of a file, each in a sandbox for untrusted code, one after the other on the same work
//! tree:
//!
//!     cargo run --release --example ci-runner -- steps.yaml .
//!
//! The file has a list of steps, in a small part of YAML: one key a line, and nothing nested.
//!
//! ```yaml
//! steps:
//!   - name: build
//!     run: make -j2
//!     memory: 1G
//!     time: 120
//!   - name: test
//!     run: make check
//! ```
//!
//! Each line of output comes at once, with the name of its step. Ctrl-C ends the step and the run,
//! and nothing but the work tree stays.

use std::io::{self, Read, Write, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use ringfence::{Bytes, Child, Feature, IdMap, Outcome, OutputStream, Sandbox, Stdio};

/// The time that a step has to end after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);
/// The longest line that is shown in one piece.
const LINE_MAX: usize = 4096;
/// The longest file of steps.
const FILE_MAX: u64 = 1 << 20;
/// The user of the steps, inside.
const NOBODY: u32 = 65_534;

#[derive(Debug, PartialEq)]
struct Step {
    name: String,
    run: String,
    memory: Bytes,
    time: Duration,
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() {
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    std::process::exit(match &words[..] {
        [file, tree] => run(file, tree),
        _ => {
            eprintln!("usage: ci-runner STEPS TREE");
            125
        }
    });
}

/// Runs the steps of a file, and returns the exit code: that of the step that failed, 128 + N if
/// signal N ended the run, 125 if there was no run.
pub fn run(file: &Path, tree: &Path) -> i32 {
    run_steps(file, tree).unwrap_or_else(|error| {
        let _ = writeln!(stderr(), "ci-runner: {error}");
        125
    })
}

fn run_steps(file: &Path, tree: &Path) -> io::Result<i32> {
    // First of all: threads that are started later leave these signals to the descriptor.
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect::<SigSet>();
    signals.thread_block()?;
    let signals = SignalFd::new(&signals)?;
    let mut text = String::new();
    std::fs::File::open(file)?.take(FILE_MAX).read_to_string(&mut text)?;
    let steps = parse(&text).map_err(|why| io::Error::other(format!("{}: {why}", file.display())))?;
    let base = base(tree)?;
    // Hidden where stderr is no terminal.
    let bar = ProgressBar::new(steps.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:20} {pos}/{len} {msg} {elapsed}").map_err(io::Error::other)?);
    bar.enable_steady_tick(Duration::from_millis(500));
    for step in &steps {
        bar.set_message(step.name.clone());
        let sandbox = base.clone().args(["-c", &step.run]).memory_limit(step.memory).wall_time(step.time);
        let mut child = sandbox.spawn()?;
        let signal = follow(&mut child, &step.name, &signals, &bar)?;
        let outcome = if signal.is_some() { child.stop(GRACE)? } else { child.wait()? };
        tell(&bar, &step.name, &summary(&outcome));
        if let Some(signal) = signal {
            return Ok(128 + signal as i32);
        }
        if !outcome.success() {
            return Ok(outcome.code().unwrap_or(1));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(0)
}

/// The sandbox of every step. The tree is its owner's, who the steps are outside.
fn base(tree: &Path) -> io::Result<Sandbox> {
    let owner = std::fs::metadata(tree)?;
    let sandbox = Sandbox::strict()
        .command("/bin/sh")
        .bind(tree, "/work")
        .cwd("/work")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .best_effort(Feature::MemoryLimit)
        .best_effort(Feature::PidsLimit);
    if !nix::unistd::geteuid().is_root() {
        return Ok(sandbox);
    }
    if owner.uid() == 0 || owner.gid() == 0 {
        let why = "the tree belongs to root, who the steps must not be: give it to another user";
        return Err(io::Error::other(why));
    }
    Ok(sandbox.uid_map(IdMap::new(NOBODY, owner.uid(), 1)).gid_map(IdMap::new(NOBODY, owner.gid(), 1)))
}

fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines =
        (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.trim().starts_with('#'));
    match lines.next() {
        Some((_, "steps:")) => {}
        _ => return Err("the first line is `steps:`".to_owned()),
    }
    for (number, line) in lines {
        let line = line.trim();
        let (is_new, line) = line.strip_prefix("- ").map_or((false, line), |rest| (true, rest.trim_start()));
        let (key, value) = line.split_once(": ").ok_or_else(|| format!("line {number}: write it as KEY: VALUE"))?;
        let value = value.trim();
        if is_new {
            steps.push(Step {
                name: format!("step {}", steps.len() + 1),
                run: String::new(),
                memory: Bytes::mib(512),
                time: Duration::from_secs(60),
            });
        }
        let step = steps.last_mut().ok_or_else(|| format!("line {number}: a step begins with `- `"))?;
        match key {
            "name" => step.name = value.chars().filter(|c| !c.is_control()).collect(),
            "run" => step.run = value.to_owned(),
            "memory" => step.memory = value.parse().map_err(|error| format!("line {number}: {error}"))?,
            "time" => {
                let seconds = value.parse().map_err(|_| format!("line {number}: {value:?} is no number of seconds"))?;
                step.time = Duration::from_secs(seconds);
            }
            other => return Err(format!("line {number}: {other:?} is none of name, run, memory, time")),
        }
    }
    match steps.iter().find(|step| step.run.is_empty()) {
        Some(step) => Err(format!("{}: nothing to `run`", step.name)),
        None => Ok(steps),
    }
}

/// Shows the output of a step until its end, or until a signal asks this command to end.
fn follow(child: &mut Child, name: &str, signals: &SignalFd, bar: &ProgressBar) -> io::Result<Option<Signal>> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else { return Ok(None) };
    let mut streams = [Lines::new(stdout), Lines::new(stderr)];
    while streams.iter().any(|lines| lines.is_open) {
        let wants = |lines: &Lines| if lines.is_open { PollFlags::POLLIN } else { PollFlags::empty() };
        let [out, err] = &streams;
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(out.stream.as_fd(), wants(out)),
            PollFd::new(err.stream.as_fd(), wants(err)),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        let [signalled, ready @ ..] = fds.map(|fd| fd.any() == Some(true));
        if signalled && let Some(info) = signals.read_signal()? {
            return Ok(Signal::try_from(info.ssi_signo as i32).ok());
        }
        for (lines, ready) in streams.iter_mut().zip(ready) {
            if ready && lines.is_open {
                lines.read(|line| tell(bar, name, line))?;
            }
        }
    }
    Ok(None)
}

/// A stream, and the line that has not come to its end yet.
struct Lines {
    stream: OutputStream,
    begun: Vec<u8>,
    is_open: bool,
}

impl Lines {
    fn new(stream: OutputStream) -> Lines {
        Lines { stream, begun: Vec::new(), is_open: true }
    }

    fn read(&mut self, mut tell: impl FnMut(&str)) -> io::Result<()> {
        let mut bytes = [0; 8192];
        let count = self.stream.read(&mut bytes)?;
        self.is_open = count > 0;
        for byte in &bytes[..count] {
            if *byte != b'\n' {
                self.begun.push(*byte);
            }
            if *byte == b'\n' || self.begun.len() == LINE_MAX {
                tell(&String::from_utf8_lossy(&std::mem::take(&mut self.begun)));
            }
        }
        if !self.is_open && !self.begun.is_empty() {
            tell(&String::from_utf8_lossy(&std::mem::take(&mut self.begun)));
        }
        Ok(())
    }
}

/// Prints a line of a step. What a step prints must not move the cursor of whoever looks.
fn tell(bar: &ProgressBar, name: &str, line: &str) {
    let shown: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    // The reader of this output may be gone.
    bar.suspend(|| drop(writeln!(io::stdout(), "[{name}] {shown}")));
}

fn summary(outcome: &Outcome) -> String {
    let usage = outcome.usage();
    let memory = usage.peak_memory.map_or_else(String::new, |memory| format!(", {memory} at the most"));
    format!("-- {} after {:.1} s{memory}", outcome.verdict(), usage.wall.as_secs_f64())
}
