//! Other libraries, in a process of their own: a crate in `benches/peers`, that measures itself when it is told to.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use ringfence::Bytes;

use super::ground::Ground;

/// A library's process.
#[derive(Debug)]
pub struct Library {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Builds the harness, with the cargo that runs this example.
pub fn build() -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--quiet"]);
    command.arg("--manifest-path").arg(here("benches/peers/Cargo.toml"));
    command.arg("--target-dir").arg(here("target/peers"));
    // Its messages go where this example's do.
    match command.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("--libraries: cargo ended with {status}")),
        Err(error) => Err(format!("--libraries: cargo: {error}")),
    }
}

impl Library {
    pub const NAMES: [&str; 2] = ["ferroday-cage", "hakoniwa"];

    pub fn start(name: &str, ground: &Ground, heap: Bytes) -> Result<Self, String> {
        let harness = here("target/peers/release/peers");
        if !harness.exists() {
            return Err("not built; --libraries does".to_owned());
        }
        let mut command = Command::new(harness);
        command.arg(name).arg(&ground.root).arg(heap.get().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(|error| error.to_string())?;
        let (Some(orders), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("no pipes".to_owned());
        };
        let mut library = Library { process, orders: Some(orders), answers: BufReader::new(answers) };
        match library.answer()?.as_str() {
            "ready" => Ok(library),
            other => Err(format!("it said {other:?}")),
        }
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| error.to_string())?;
        Ok(line.trim_end().to_owned())
    }

    pub fn run(&mut self) -> Result<Duration, String> {
        let orders = self.orders.as_mut().ok_or("it has ended")?;
        writeln!(orders).map_err(|error| error.to_string())?;
        let answer = self.answer()?;
        answer.parse().map(Duration::from_nanos).map_err(|_| format!("it said {answer:?}"))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // It ends with its orders.
        self.orders = None;
        let _ = self.process.wait();
    }
}
