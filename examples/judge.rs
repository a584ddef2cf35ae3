//! A judge for programs by strangers: compiles a submission in one sandbox, runs it on every test
//! in another, and prints the verdict of each test.
//!
//!     cargo run --release --example judge -- --time 1s --memory 64M solution.c tests/
//!
//! `tests/` contains pairs of NAME.in and NAME.out. Without a submission, it judges one of its own
//! for each verdict, and exits with 0 if every verdict is as expected.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use ringfence::{Bind, Bytes, Enforcement, Feature, Output, Resource, RootFs, Sandbox, Stdio, Usage, Verdict};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// The control group below which root's groups are made.
const PARENT: &str = "/ringfence-judge";
const NOBODY: u32 = 65534;
/// The path of the submission inside.
const WORK: &str = "/tmp/work";
/// The path inside of a compiler that is not among the system's own.
const TOOLCHAIN: &str = "/tmp/toolchain";

/// Judges a submission: a .c, .rs, .py or .sh file, or anything that can be executed.
#[derive(Parser, Debug)]
#[command(name = "judge")]
struct Args {
    /// Most processor time for one test (1s, 500ms); twice as much, and half a second, of wall time
    #[arg(long, default_value = "1s", value_parser = duration)]
    time: Duration,
    /// Most memory
    #[arg(long, default_value = "64M")]
    memory: Bytes,
    /// Most processes and threads
    #[arg(long, default_value_t = 16)]
    pids: u64,
    /// Most output
    #[arg(long, default_value = "1M")]
    output: Bytes,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// The submission; without it the built-in demonstration
    #[arg(requires = "tests")]
    program: Option<PathBuf>,
    /// The directory with NAME.in and NAME.out
    tests: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 0.001),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (text, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| "write it as 1s, 1.5s or 500ms")?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// Judges by the words of a command line, and returns the exit code: 0 if every verdict is a good
/// one.
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    let args = Args::parse_from(words);
    let judge = Judge { root: nix::unistd::geteuid().is_root(), args };
    let good = match (&judge.args.program, &judge.args.tests) {
        (Some(program), Some(tests)) => judge.submission(program, tests),
        _ => judge.demonstration(),
    };
    match good {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("judge: {error}");
            2
        }
    }
}

/// The verdict of one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ok,
    WrongAnswer,
    TimeLimit,
    MemoryLimit,
    OutputLimit,
    RuntimeError,
    CompileError,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mark::Ok => "OK",
            Mark::WrongAnswer => "WA",
            Mark::TimeLimit => "TLE",
            Mark::MemoryLimit => "MLE",
            Mark::OutputLimit => "OLE",
            Mark::RuntimeError => "RE",
            Mark::CompileError => "CE",
        })
    }
}

/// A mark, with its details.
struct Judged {
    mark: Mark,
    usage: Usage,
    /// The end of the program, or the messages of the compiler.
    detail: String,
}

struct Judge {
    args: Args,
    root: bool,
}

// The sandboxes.

impl Judge {
    /// Returns a sandbox for a command, with all isolation and the limits that this host can
    /// enforce. The command sees the host's programs, its own directory, and no other file: the
    /// tests stay outside, and their input comes as bytes.
    fn sandbox(&self, command: &[String]) -> Result<Sandbox> {
        let (program, args) = command.split_first().ok_or("an empty command")?;
        let sandbox = Sandbox::new()
            .command(program)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .rootfs(RootFs::programs())
            .pid_ns()
            .init(true)
            .net_ns()
            .ipc_ns()
            .uts_ns()
            .hostname("judge")
            .user(NOBODY, NOBODY)
            .rlimit(Resource::Core, 0, 0)
            .cwd(WORK);
        let sandbox = Feature::ALL.iter().copied().fold(sandbox, Sandbox::best_effort);
        Ok(if self.root { sandbox.cgroup_parent(PARENT) } else { sandbox.user_ns() })
    }

    /// Adds the limits of memory and processes. If no control group can enforce them, adds limits
    /// for each process instead: an allocation or a fork beyond then fails.
    fn limited(&self, sandbox: Sandbox, memory: Bytes, pids: u64) -> Result<Sandbox> {
        // The init counts as one process more.
        let sandbox = sandbox.memory_limit(memory).swap_limit(0).pids_limit(pids + 1);
        let enforced = sandbox.check()?;
        let missing = |feature| matches!(enforced.get(feature), Some(Enforcement::Missing(_)));
        let sandbox = match missing(Feature::MemoryLimit) {
            true => sandbox.rlimit(Resource::Data, memory.get(), memory.get()),
            false => sandbox,
        };
        Ok(match missing(Feature::PidsLimit) && !self.root {
            true => sandbox.rlimit(Resource::Processes, pids + 1, pids + 1),
            false => sandbox,
        })
    }

    /// Compiles, with the directory writable. Returns the errors of the compiler.
    fn compile(&self, work: &Path, language: &Language) -> Result<Option<Judged>> {
        if language.compile.is_empty() {
            return Ok(None);
        }
        let sandbox = self.sandbox(&language.compile)?.bind(work, WORK);
        let sandbox = language.toolchain.iter().fold(sandbox, |sandbox, dir| sandbox.bind_ro(dir, TOOLCHAIN));
        let sandbox = sandbox.wall_time(Duration::from_secs(60)).output_limit(Bytes::mib(1));
        let output = self.limited(sandbox, Bytes::gib(2), 64)?.output()?;
        if output.outcome.success() {
            return Ok(None);
        }
        let detail = match String::from_utf8_lossy(&output.stderr).lines().find(|line| line.contains("error")) {
            Some(line) => line.to_owned(),
            None => output.outcome.verdict().to_string(),
        };
        Ok(Some(Judged { mark: Mark::CompileError, usage: output.outcome.usage(), detail }))
    }

    /// Runs one test, with the directory read-only. The input is no file of the host: the
    /// descriptor of a file would show a submission the place of the tests.
    fn test(&self, work: &Path, language: &Language, test: &Test) -> Result<Judged> {
        let time = self.args.time;
        let sandbox = self
            .sandbox(&language.run)?
            .mount(Bind::new(work, WORK).read_only().nosuid().nodev())
            .stdin(Stdio::bytes(fs::read(&test.input)?))
            .cpu_time(time)
            .wall_time(time * 2 + Duration::from_millis(500))
            .output_limit(self.args.output);
        let output = self.limited(sandbox, self.args.memory, self.args.pids)?.output()?;
        let expected = fs::read(&test.expected)?;
        let mark = mark(&output, &expected);
        Ok(Judged { mark, usage: output.outcome.usage(), detail: output.outcome.verdict().to_string() })
    }
}

fn mark(output: &Output, expected: &[u8]) -> Mark {
    match output.outcome.verdict() {
        Verdict::OutOfMemory => Mark::MemoryLimit,
        Verdict::OutputLimit => Mark::OutputLimit,
        Verdict::WallTime | Verdict::CpuTime => Mark::TimeLimit,
        Verdict::Exited(0) if same_words(&output.stdout, expected) => Mark::Ok,
        Verdict::Exited(0) => Mark::WrongAnswer,
        _ => Mark::RuntimeError,
    }
}

/// Returns true if the two texts differ only in white space.
fn same_words(a: &[u8], b: &[u8]) -> bool {
    fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
        text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
    }
    words(a).eq(words(b))
}

// Languages.

/// The way to compile and to run a submission, inside.
struct Language {
    source: &'static str,
    compile: Vec<String>,
    run: Vec<String>,
    toolchain: Option<PathBuf>,
}

impl Language {
    fn of(program: &Path) -> Result<Language> {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let new = |source, compile: &str, run: &str| Language {
            source,
            compile: words(compile),
            run: words(run),
            toolchain: None,
        };
        Ok(match program.extension().and_then(|extension| extension.to_str()) {
            Some("c") => new("program.c", "cc -O2 -std=c11 -o program program.c -lm", "./program"),
            Some("rs") => {
                let toolchain = rust_toolchain()?;
                let compile = format!("{TOOLCHAIN}/bin/rustc -O -o program program.rs");
                Language { toolchain: Some(toolchain), ..new("program.rs", &compile, "./program") }
            }
            Some("py") => new("program.py", "", "python3 program.py"),
            Some("sh") => new("program.sh", "", "sh program.sh"),
            _ => new("program", "", "./program"),
        })
    }
}

/// Returns the directory of rustc, which is often in a user's home that the program may not read:
/// the sandbox shows it at another path.
fn rust_toolchain() -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().map_err(|_| "rustc is not installed")?;
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

// Submissions.

struct Test {
    name: String,
    input: PathBuf,
    expected: PathBuf,
}

/// Returns the pairs of NAME.in and NAME.out, by name.
fn tests(dir: &Path) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let input = entry?.path();
        let expected = input.with_extension("out");
        if input.extension().is_some_and(|extension| extension == "in") && expected.exists() {
            let name = input.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            tests.push(Test { name, input, expected });
        }
    }
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    if tests.is_empty() { Err(format!("no NAME.in with a NAME.out in {}", dir.display()).into()) } else { Ok(tests) }
}

/// A directory that belongs to nobody. A drop removes it.
struct WorkDir(PathBuf);

impl WorkDir {
    fn new(parent: &Path, owner: Option<u32>) -> Result<WorkDir> {
        let template = parent.join("judge-XXXXXX");
        let dir = WorkDir(nix::unistd::mkdtemp(&template)?);
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o755))?;
        chown(&dir.0, owner, owner)?;
        Ok(dir)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Judge {
    /// Judges a submission. Returns true if it passed every test.
    fn submission(&self, program: &Path, dir: &Path) -> Result<bool> {
        let tests = tests(dir)?;
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let all = self.judge(program, &tests)?;
        if !self.args.json {
            println!("{:<16} {:<7} {:>9} {:>10}  how it ended", name, "", "time", "memory");
        }
        for (name, judged) in &all {
            println!("{}", if self.args.json { json(name, judged) } else { line(name, judged) });
        }
        let passed = all.iter().filter(|(_, judged)| judged.mark == Mark::Ok).count();
        let first = all.iter().find(|(_, judged)| judged.mark != Mark::Ok);
        if !self.args.json {
            let failure =
                first.map_or(String::new(), |(name, judged)| format!(", first failure: {name} ({})", judged.mark));
            println!("{passed} of {} passed{failure}", tests.len());
        }
        Ok(first.is_none())
    }

    /// Returns every test with its mark, or only the failed compilation.
    fn judge(&self, program: &Path, tests: &[Test]) -> Result<Vec<(String, Judged)>> {
        let language = Language::of(program)?;
        let work = WorkDir::new(&std::env::temp_dir(), self.root.then_some(NOBODY))?;
        let source = work.0.join(language.source);
        fs::copy(program, &source).map_err(|error| format!("{}: {error}", program.display()))?;
        fs::set_permissions(&source, fs::Permissions::from_mode(0o755))?;
        if let Some(complaint) = self.compile(&work.0, &language)? {
            return Ok(vec![("compilation".into(), complaint)]);
        }
        tests.iter().map(|test| Ok((test.name.clone(), self.test(&work.0, &language, test)?))).collect()
    }
}

fn line(name: &str, judged: &Judged) -> String {
    let usage = judged.usage;
    let time = format!("{:.3} s", (usage.user + usage.system).as_secs_f64());
    let memory = usage.peak_memory.map_or("-".to_owned(), |memory| memory.to_string());
    format!("{name:<16} {:<7} {time:>9} {memory:>10}  {}", judged.mark, judged.detail)
}

fn json(name: &str, judged: &Judged) -> String {
    let usage = judged.usage;
    format!(
        r#"{{"test":{},"verdict":"{}","cpu_ms":{},"wall_ms":{},"memory":{},"detail":{}}}"#,
        quoted(name),
        judged.mark,
        (usage.user + usage.system).as_millis(),
        usage.wall.as_millis(),
        usage.peak_memory.map_or("null".to_owned(), |memory| memory.get().to_string()),
        quoted(&judged.detail),
    )
}

/// Returns the text as a JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04x}", c as u32),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

// The demonstration: programs that add two numbers, each in its own way.

const DEMONSTRATION: [(&str, Mark, &str); 13] = [
    ("right.sh", Mark::Ok, "read a b; echo $((a + b))"),
    ("right.py", Mark::Ok, "print(sum(map(int, input().split())))"),
    (
        "right.c",
        Mark::Ok,
        "#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a + b); }",
    ),
    (
        "right.rs",
        Mark::Ok,
        "fn main() {\n    let line = std::io::read_to_string(std::io::stdin()).unwrap();\n    \
         println!(\"{}\", line.split_whitespace().map(|n| n.parse::<i32>().unwrap()).sum::<i32>());\n}",
    ),
    (
        "cheat.sh",
        Mark::WrongAnswer,
        // The expected output is beside the input, and the input's descriptor shows the name.
        "input=$(readlink /proc/self/fd/0); cat \"${input%.in}.out\" 2>/dev/null || echo none",
    ),
    ("wrong.sh", Mark::WrongAnswer, "read a b; echo $((a - b))"),
    ("endless.sh", Mark::TimeLimit, "while :; do :; done"),
    ("asleep.sh", Mark::TimeLimit, "exec sleep 60"),
    ("greedy.sh", Mark::MemoryLimit, "exec dd if=/dev/zero of=/dev/null bs=512M count=1"),
    ("talkative.sh", Mark::OutputLimit, "exec cat /dev/zero"),
    ("bomb.py", Mark::RuntimeError, "import os, time\nwhile os.fork():\n    pass\ntime.sleep(9)"),
    ("crash.c", Mark::RuntimeError, "int main(void) { __builtin_trap(); }"),
    ("typo.c", Mark::CompileError, "int main(void) { retrun 0; }"),
];

impl Judge {
    /// Runs the demonstration. Returns true if every verdict is the expected one.
    fn demonstration(&self) -> Result<bool> {
        // This directory is not where each sandbox has a directory of its own: only the sandbox's
        // root keeps the cheat away from the tests.
        let dir = WorkDir::new(Path::new("/var/tmp"), None)?;
        let test = Test { name: "sum".into(), input: dir.0.join("sum.in"), expected: dir.0.join("sum.out") };
        fs::write(&test.input, "19 23\n")?;
        fs::write(&test.expected, "42\n")?;
        let mut good = true;
        println!("{:<16} {:<7} {:>9} {:>10}  how it ended", "", "", "time", "memory");
        for (name, expected, source) in DEMONSTRATION {
            if let Some(missing) = self.missing_tool(name)? {
                println!("{name:<16} skipped: {missing} is not there on this machine");
                continue;
            }
            let program = dir.0.join(name);
            fs::write(&program, source)?;
            let all = self.judge(&program, std::slice::from_ref(&test))?;
            for (_, judged) in &all {
                let as_expected = judged.mark == self.expected(expected)?;
                good &= as_expected;
                let complaint = if as_expected { "" } else { "  <-- NOT AS EXPECTED" };
                println!("{}{complaint}", line(name, judged));
            }
        }
        println!("{}", if good { "Every verdict is as expected." } else { "Not every verdict is as expected." });
        Ok(good)
    }

    /// Returns the mark to expect. Without a memory limit of a control group, an allocation fails
    /// instead: a runtime error.
    fn expected(&self, mark: Mark) -> Result<Mark> {
        let enforced = self.sandbox(&["sh".into()])?.memory_limit(self.args.memory).check()?;
        let lacks = matches!(enforced.get(Feature::MemoryLimit), Some(Enforcement::Missing(_)));
        Ok(if mark == Mark::MemoryLimit && lacks { Mark::RuntimeError } else { mark })
    }

    /// Returns the compiler or interpreter that the program needs, if it does not exist inside.
    fn missing_tool(&self, name: &str) -> Result<Option<&'static str>> {
        let tool = match name.rsplit_once('.') {
            Some((_, "c")) => "cc",
            Some((_, "py")) => "python3",
            Some((_, "rs")) => {
                let there = rust_toolchain().is_ok_and(|dir| fs::metadata(dir.join("bin/rustc")).is_ok());
                return Ok((!there || self.lacks("cc")?).then_some("rustc or cc"));
            }
            _ => return Ok(None),
        };
        Ok(self.lacks(tool)?.then_some(tool))
    }

    fn lacks(&self, tool: &str) -> Result<bool> {
        let look = ["sh".into(), "-c".into(), format!("command -v {tool}")];
        Ok(!self.sandbox(&look)?.cwd("/").output()?.outcome.success())
    }
}
