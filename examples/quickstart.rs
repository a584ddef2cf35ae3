//! A tour of the things that a sandbox shows, stops and counts, on this machine:
//!
//!     cargo run --release --example quickstart
//!
//! The tour works for root and for an ordinary user, needs no image, and leaves nothing behind. It
//! exits with 1 if something fails that should work.

use std::fs;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use ringfence::{Bytes, Enforcement, Feature, Output, Resource, Result, RootFs, Sandbox, Verdict};

/// The user nobody, as whom the programs run.
const NOBODY: u32 = 65534;
const MEMORY: Bytes = Bytes::mib(64);
const PIDS: u64 = 16;
const MS: fn(u64) -> Duration = Duration::from_millis;

fn main() -> ExitCode {
    let mut tour = Tour { root: nix::unistd::geteuid().is_root(), failures: 0 };
    let end = tour.walk();
    match (end, tour.failures) {
        (Ok(()), 0) => {
            println!("\nEverything held.");
            ExitCode::SUCCESS
        }
        (Ok(()), failures) => {
            println!("\n{failures} of the above did not hold.");
            ExitCode::FAILURE
        }
        (Err(error), _) => {
            println!("\nThe tour ends here: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the control group below which root's groups are made.
fn parent() -> String {
    format!("/ringfence-quickstart-{}", std::process::id())
}

struct Tour {
    root: bool,
    failures: u32,
}

impl Tour {
    /// Returns a sandbox for `sh -c script` with all isolation: namespaces of its own, the host's
    /// files read-only, no rights.
    fn walls(&self, script: &str) -> Sandbox {
        let sandbox = Sandbox::new()
            .command("/bin/sh")
            .args(["-c", script])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .rootfs(RootFs::host())
            .pid_ns()
            .net_ns()
            .ipc_ns()
            .uts_ns()
            .hostname("sandbox")
            .user(NOBODY, NOBODY)
            .no_new_privs(true);
        // An ordinary user makes namespaces inside a user namespace, where "nobody" is the user's
        // own id.
        if self.root { sandbox } else { sandbox.user_ns() }
    }

    /// Returns the same sandbox for tests of limits. Limits that this host cannot enforce are left
    /// out; without `best_effort` they would be an error.
    fn limits(&self, script: &str) -> Sandbox {
        let sandbox = self.walls(script).wall_time(Duration::from_secs(10));
        let sandbox = Feature::ALL.iter().copied().fold(sandbox, Sandbox::best_effort);
        if self.root { sandbox.cgroup_parent(parent()) } else { sandbox }
    }

    fn walk(&mut self) -> Result<()> {
        let who = if self.root { "root: no user namespace is needed" } else { "an ordinary user: in a user namespace" };
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        println!("Linux {}, as {who}.", kernel.trim());
        self.sights()?;
        self.stops()?;
        self.languages()?;
        self.handle()?;
        self.gaps()?;
        self.leavings();
        Ok(())
    }

    /// Counts a failure, and returns the mark for its line.
    fn mark(&mut self, holds: bool) -> &'static str {
        self.failures += u32::from(!holds);
        if holds { "" } else { "  <-- DOES NOT HOLD" }
    }
}

fn title(text: &str) {
    println!("\n{text}\n{}", "-".repeat(text.chars().count()));
}

// What a program sees.

impl Tour {
    fn sights(&mut self) -> Result<()> {
        title("What a program sees");
        println!("{:<15} {:<28} in the sandbox", "", "out here");
        let inside = |script: &str| self.walls(script).output().map(|output| text(&output.stdout));
        let hostname = inside("cat /proc/sys/kernel/hostname")?;
        let processes = processes(&inside("exec ls /proc")?);
        let interfaces = interfaces(&inside("cat /proc/net/dev")?);
        let user = inside("id -u")?;
        let rights = capabilities(&inside("cat /proc/self/status")?);
        let files = inside("ls -A /tmp")?.lines().count();
        let variables = inside("env")?;
        let secrets = variables.lines().filter(|line| !["PATH=", "PWD="].iter().any(|own| line.starts_with(own)));
        let written = self.walls("echo x > /usr/ringfence-was-here").output()?.outcome.success();

        let mine = nix::unistd::geteuid().to_string();
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let held = secrets.count() <= 2;
        self.sight("processes", count_entries("/proc", is_number), processes, processes == 1);
        self.sight("host name", read("/proc/sys/kernel/hostname").trim(), &hostname, hostname == "sandbox");
        self.sight("interfaces", self::interfaces(&read("/proc/net/dev")), &interfaces, interfaces == "lo");
        self.sight("user", mine, &user, user == NOBODY.to_string());
        self.sight("capabilities", capabilities(&read("/proc/self/status")), rights, rights == 0);
        self.sight("files in /tmp", count_entries("/tmp", |_| true), files, files == 0);
        self.sight("variables", std::env::vars_os().count(), variables.lines().count(), held);
        self.sight("write to /usr", "", if written { "done" } else { "refused" }, !written);
        Ok(())
    }

    fn sight(&mut self, what: &str, outside: impl ToString, inside: impl ToString, holds: bool) {
        let mark = self.mark(holds);
        println!("{what:<15} {:<28} {}{mark}", short(&outside.to_string(), 26), inside.to_string());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

fn short(text: &str, width: usize) -> String {
    let start: String = text.chars().take(width).collect();
    if start.len() < text.len() { start + "…" } else { start }
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

fn count_entries(dir: &str, wanted: fn(&str) -> bool) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| wanted(&entry.file_name().to_string_lossy())).count()
}

fn processes(listing: &str) -> usize {
    listing.lines().filter(|name| is_number(name)).count()
}

/// Returns the names in /proc/net/dev.
fn interfaces(table: &str) -> String {
    table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect::<Vec<_>>().join(" ")
}

/// Returns the number of effective capabilities, from /proc/PID/status.
fn capabilities(status: &str) -> u32 {
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).map_or(0, u64::count_ones)
}

// What stops a program.

/// A fork bomb: every process of `bomb` starts two more and stays.
const BOMB: &str = "bomb() { bomb & bomb & exec sleep 5; }; bomb";
const HOG: &str = "exec dd if=/dev/zero of=/dev/null bs=512M count=1";
const BUSY: &str = "while :; do :; done";

impl Tour {
    fn stops(&mut self) -> Result<()> {
        title("What stops a program");
        println!("{:<12} {:<21} {:<22} {:>7} {:>7} {:>9}", "", "limit", "how it ended", "wall", "cpu", "memory");
        self.memory_hog()?;
        self.fork_bomb()?;
        let sleeper = self.limits("exec sleep 60").wall_time(MS(200)).output()?;
        self.stop("sleeper", "0.2 s of wall time", &sleeper, sleeper.outcome.verdict() == Verdict::WallTime);
        let flood = self.limits("exec cat /dev/zero").output_limit(Bytes::mib(1)).output()?;
        let cut = flood.stdout.len() == 1 << 20;
        self.stop("flood", "1 MiB of output", &flood, cut && flood.outcome.verdict() == Verdict::OutputLimit);
        self.busy_loops()
    }

    fn stop(&mut self, program: &str, limit: &str, output: &Output, holds: bool) {
        let (verdict, usage) = (output.outcome.verdict().to_string(), output.outcome.usage());
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let (wall, cpu) = (seconds(usage.wall), seconds(usage.user + usage.system));
        let memory = usage.peak_memory.map_or("-".to_owned(), |memory| memory.to_string());
        println!("{program:<12} {limit:<21} {verdict:<22} {wall:>7} {cpu:>7} {memory:>9}{}", self.mark(holds));
    }

    /// Shows the memory limit. Without a control group, RLIMIT_DATA makes the allocation fail, and
    /// the kernel kills nothing.
    fn memory_hog(&mut self) -> Result<()> {
        let hog = self.limits(HOG).memory_limit(MEMORY).swap_limit(0);
        if holds(&hog, Feature::MemoryLimit)? {
            let output = hog.output()?;
            self.stop("memory hog", "64 MiB of memory", &output, output.outcome.verdict() == Verdict::OutOfMemory);
        } else {
            let output = hog.rlimit(Resource::Data, MEMORY.get(), MEMORY.get()).output()?;
            self.stop("memory hog", "64 MiB (RLIMIT_DATA)", &output, !output.outcome.success());
        }
        Ok(())
    }

    /// Shows the limit of processes. Without a control group, RLIMIT_NPROC counts: inside a user
    /// namespace only the processes in that namespace (since 5.14).
    fn fork_bomb(&mut self) -> Result<()> {
        let bomb = self.limits(BOMB).pids_limit(PIDS).wall_time(MS(400));
        let (limit, bomb) = match holds(&bomb, Feature::PidsLimit)? {
            true => ("16 processes", bomb),
            false => ("16 (RLIMIT_NPROC)", bomb.rlimit(Resource::Processes, PIDS, PIDS)),
        };
        let output = bomb.output()?;
        let refused = text(&output.stderr).lines().filter(|line| line.contains("fork")).count();
        self.stop("fork bomb", limit, &output, refused > 0 && output.outcome.verdict() == Verdict::WallTime);
        println!("{:<12} {refused} forks were refused, until its 0.4 s were over", "");
        Ok(())
    }

    fn busy_loops(&mut self) -> Result<()> {
        // A program that is pid 1 itself would ignore SIGXCPU, so there is an init above it.
        let loops = self.limits(BUSY).cpu_time(MS(300)).init(true);
        let precise = holds(&loops, Feature::CpuTime)?;
        let output = loops.output()?;
        // Without a control group, each process has its own limit, in whole seconds.
        let limit = if precise { "0.3 s of cpu time" } else { "1 s (RLIMIT_CPU)" };
        self.stop("busy loop", limit, &output, output.outcome.verdict() == Verdict::CpuTime);
        let quota = self.limits(BUSY).cpu_limit(0.2).wall_time(MS(500));
        if holds(&quota, Feature::CpuLimit)? {
            let output = quota.output()?;
            let usage = output.outcome.usage();
            self.stop("busy loop", "0.2 cores, for 0.5 s", &output, usage.user + usage.system < MS(250));
        }
        Ok(())
    }
}

/// Returns true if this host enforces the feature for the sandbox. Starts nothing.
fn holds(sandbox: &Sandbox, feature: Feature) -> Result<bool> {
    Ok(match sandbox.check()?.get(feature) {
        // A limit for each process is no limit for all of them.
        Some(Enforcement::Partial(_)) => feature != Feature::CpuTime,
        Some(Enforcement::Missing(_)) => false,
        _ => true,
    })
}

// What runs in it.

const C: &str = r#"cc -x c -o /tmp/hello - <<'END' && /tmp/hello
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("compiled and run inside, as pid %d's child\n", getppid()); }
END"#;

const PYTHON: &str = r#"python3 - <<'END'
import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
    print("reached the network")
except OSError as error:
    print("no way out:", error.strerror)
END"#;

impl Tour {
    fn languages(&mut self) -> Result<()> {
        title("What it runs");
        for (tool, script, want) in [("cc", C, "compiled and run inside"), ("python3", PYTHON, "no way out")] {
            let looked_for = self.walls(&format!("command -v {tool}")).output()?;
            if !looked_for.outcome.success() {
                println!("{tool:<12} is not there on this machine");
                continue;
            }
            let output = self.limits(script).memory_limit(Bytes::mib(512)).pids_limit(64).output()?;
            let (said, errors) = (text(&output.stdout), text(&output.stderr));
            let mark = self.mark(said.starts_with(want));
            println!("{tool:<12} {said}{errors}{mark}");
        }
        Ok(())
    }

    /// Shows the handle of a running program: measures, freezes and ends the program.
    fn handle(&mut self) -> Result<()> {
        let busy = self.limits(BUSY).pids_limit(PIDS).cpu_time(Duration::from_secs(9));
        if !holds(&busy, Feature::PidsLimit)? {
            return Ok(());
        }
        title("What the handle does");
        let child = busy.spawn()?;
        sleep(MS(100));
        let cpu = || child.stats().map(|stats| stats.cpu_usage.unwrap_or_default());
        let running = cpu()?;
        println!("{:<12} {running:.0?} of cpu", "after 0.1 s");
        child.freeze()?;
        let before = cpu()?;
        sleep(MS(100));
        let frozen = cpu()? - before;
        println!("{:<12} {frozen:.0?} of cpu in 0.1 s more{}", "frozen", self.mark(frozen < MS(5)));
        child.thaw()?;
        sleep(MS(50));
        let outcome = child.close()?;
        let held = outcome.verdict() == Verdict::Signaled(nix::libc::SIGKILL);
        println!("{:<12} {}{}", "closed", outcome.verdict(), self.mark(held && running > Duration::ZERO));
        Ok(())
    }
}

// What does not hold here, and what is left.

impl Tour {
    fn gaps(&mut self) -> Result<()> {
        let all = self.limits("exit").memory_limit(MEMORY).swap_limit(0).pids_limit(PIDS);
        let all = all.cpu_limit(0.5).cpu_weight(50).cpuset("0").cpu_time(Duration::from_secs(1));
        let enforced = all.check()?;
        if enforced.is_full() {
            return Ok(());
        }
        title("What this host does not enforce");
        let mut missing: Vec<(String, Vec<Feature>)> = Vec::new();
        for (feature, how) in enforced.iter() {
            let why = match how {
                Enforcement::Full => continue,
                Enforcement::Partial(gap) => format!("with a gap: {gap}"),
                Enforcement::Missing(why) => why.clone(),
                other => format!("{other:?}"),
            };
            match missing.iter_mut().find(|(seen, _)| *seen == why) {
                Some((_, features)) => features.push(feature),
                None => missing.push((why, vec![feature])),
            }
        }
        for (why, features) in &missing {
            println!("{}", features.iter().map(Feature::to_string).collect::<Vec<_>>().join(", "));
            wrapped(why).iter().for_each(|line| println!("    {line}"));
        }
        // In this case, nothing may be missing.
        let strict = self.root && std::env::var_os("CI").is_some_and(|ci| ci == "true");
        let gap = enforced.iter().any(|(f, how)| f != Feature::SwapLimit && matches!(how, Enforcement::Missing(_)));
        print!("{}", self.mark(!(strict && gap)));
        Ok(())
    }

    /// Checks that the groups are gone with the sandboxes, and the parent with the last of them.
    fn leavings(&mut self) {
        title("What is left");
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let roots = hierarchies.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
        let left = roots.filter(|root| root.join(&parent()[1..]).exists()).count();
        let mark = self.mark(left == 0);
        println!("control groups: {left}{mark}");
    }
}

/// Returns the text in lines of at most 72 characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < 72 => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
