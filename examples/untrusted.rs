//! Runs a script that nobody has read under `Sandbox::strict()`, and prints the result.
//!
//!     cargo run --release --example untrusted -- downloaded.sh
//!
//! Without a script, it tries ten forbidden actions, one after the other, and prints the answer to
//! each. It exits with 0 if none of them succeeded.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ringfence::{Bytes, Denials, Enforced, Enforcement, Error, Feature, Output, Sandbox, Verdict};

/// The control group below which root's groups are made.
const PARENT: &str = "/ringfence-untrusted";

/// Runs a script under the preset for untrusted code.
#[derive(Parser, Debug)]
#[command(name = "untrusted")]
struct Args {
    /// The script, with its #! line; without one, ten forbidden actions are tried
    script: Option<PathBuf>,
    /// Arguments for the script
    args: Vec<String>,
}

/// The forbidden actions, each with a name and a shell command. A command that succeeds is a hole,
/// unless it prints `nothing`.
const FORBIDDEN: [(&str, &str); 10] = [
    ("read the passwords", "cat /etc/shadow"),
    ("look for homes and secrets", "ls /root /home /var /run"),
    ("kill the one who started it", "kill -9 $OWNER"),
    ("find a network", "tail -n +3 /proc/net/dev | grep -v ' lo:' || echo nothing but loopback"),
    ("become root in a namespace", "unshare --user --map-root-user id"),
    ("mount something", "mount -t tmpfs none /tmp"),
    ("put a program of its own into /usr", "echo evil > /usr/bin/ls"),
    (FORKS, "while :; do sleep 9 & done"),
    (MEMORY, "tail /dev/zero"),
    (TIME, "while :; do :; done"),
];
const FORKS: &str = "start processes without end";
const MEMORY: &str = "take all the memory";
const TIME: &str = "never end";

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.script {
        Some(script) => run(script, &args.args),
        None => try_all(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("untrusted: {error}");
        ExitCode::FAILURE
    })
}

/// Returns the preset, with a record of what it refuses where the host can make one. For an ordinary
/// user without a delegated control group, leaves out two limits, and says so.
fn strict() -> Sandbox {
    let sandbox = Sandbox::strict().denials(true).best_effort(Feature::Denials);
    if nix::unistd::geteuid().is_root() {
        return sandbox.cgroup_parent(PARENT);
    }
    [Feature::MemoryLimit, Feature::PidsLimit].into_iter().fold(sandbox, Sandbox::best_effort)
}

/// Prints the features that the host does not enforce, and returns all.
fn tell_gaps(sandbox: &Sandbox) -> Result<Enforced, Error> {
    let enforced = sandbox.check()?;
    for (feature, enforcement) in enforced.iter() {
        if let Enforcement::Missing(why) = enforcement {
            println!("without {feature}: {why}");
        }
    }
    Ok(enforced)
}

fn run(script: &Path, args: &[String]) -> Result<ExitCode, Error> {
    let sandbox = strict().bind_ro(script, "/tmp/script").command("/tmp/script").args(args);
    tell_gaps(&sandbox)?;
    let output = sandbox.output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.stderr.is_empty() {
        println!("--- what it complained of\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    tell_denials(output.denials.as_ref());
    let usage = output.outcome.usage();
    let memory = usage.peak_memory.map_or(String::new(), |memory| format!(", with {memory} of memory"));
    println!("--- {}, after {:.2?}{memory}", output.outcome.verdict(), usage.wall);
    Ok(if output.outcome.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the system calls that the filter has refused, each with the builder's call that would
/// allow it.
fn tell_denials(denials: Option<&Denials>) {
    let Some(denials) = denials.filter(|denials| !denials.is_empty()) else { return };
    println!("--- what the filter refused it");
    for denial in denials {
        println!("{denial}\n    allowed by {}", denial.allowed_by());
    }
    if denials.dropped() > 0 {
        println!("and {} more", denials.dropped());
    }
}

fn try_all() -> Result<ExitCode, Error> {
    let enforced = tell_gaps(&strict())?;
    let holds = |limit| enforced.get(limit) == Some(&Enforcement::Full);
    let full = holds(Feature::MemoryLimit) && holds(Feature::PidsLimit);
    println!("{:<36} what it was told", "what it tried");
    let mut through = 0;
    for (what, command) in FORBIDDEN {
        if !full && [FORKS, MEMORY].contains(&what) {
            println!("{what:<36} (not tried: there is no limit)");
            continue;
        }
        let (answer, stopped) = answer(what, command)?;
        through += u32::from(!stopped);
        println!("{what:<36} {answer}{}", if stopped { "" } else { "  <-- WENT THROUGH" });
    }
    Ok(if through == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes one attempt. Returns its result (how it ended, where it was ended, or else the first line
/// that it wrote), and whether the sandbox stopped it.
fn answer(what: &str, command: &str) -> Result<(String, bool), Error> {
    let sandbox = strict()
        .command("sh")
        .args(["-c", command])
        .env("OWNER", std::process::id().to_string())
        .memory_limit(Bytes::mib(64))
        .pids_limit(32);
    let sandbox = if what == TIME { sandbox.wall_time(Duration::from_millis(500)) } else { sandbox };
    let output = sandbox.output()?;
    let text = match output.outcome.verdict() {
        Verdict::Exited(_) => first_line(&output),
        Verdict::OutOfMemory => match output.outcome.usage().peak_memory {
            Some(memory) => format!("ended: out of memory, at {memory}"),
            None => "ended: out of memory".to_owned(),
        },
        Verdict::WallTime => format!("ended: out of wall time, after {:.1?}", output.outcome.usage().wall),
        other => format!("ended: {other}"),
    };
    let stopped = !output.outcome.success() || text.starts_with("nothing");
    Ok((text, stopped))
}

fn first_line(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].map(String::from_utf8_lossy).concat();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.next().unwrap_or("(no word)").to_owned()
}
