//! Other libraries, in a process of their own: a crate in `benches/peers`, which measures itself on
//! demand.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use ringfence::Bytes;

use super::fixture::Fixture;
use super::served::Served;

pub const NAMES: [&str; 2] = ["ferroday-cage", "hakoniwa"];

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
    match command.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("--libraries: cargo ended with {status}")),
        Err(error) => Err(format!("--libraries: cargo: {error}")),
    }
}

/// Starts the library's process, with this much memory in use.
pub fn start(name: &str, fixture: &Fixture, heap: Bytes) -> Result<Served, String> {
    let harness = here("target/peers/release/peers");
    if !harness.exists() {
        return Err("not built; --libraries does".to_owned());
    }
    let mut command = Command::new(harness);
    command.arg(name).arg(&fixture.root).arg(heap.get().to_string());
    Served::start(command)
}
