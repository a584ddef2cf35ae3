//! Compiles the stub, the static program that sets a sandbox up from inside, for the crate's
//! target.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

fn main() {
    println!("cargo::rerun-if-changed=src/stub");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let out = PathBuf::from(variable("OUT_DIR")).join("stub");
    if env::var_os("DOCS_RS").is_some() {
        // Documentation needs no stub, and the builder there may have no linker for the target.
        return std::fs::write(&out, b"").unwrap_or_else(|error| fail(&error.to_string()));
    }
    let target = variable("TARGET");
    if !target.contains("linux") || !(target.starts_with("x86_64") || target.starts_with("aarch64")) {
        fail(&format!("ringfence runs on Linux on x86_64 and aarch64, not on {target}"));
    }
    compile(&target, &out);
}

/// Compiles the stub. Rust's own flags (RUSTFLAGS) are for the crate, not for the stub: coverage or
/// a sanitizer needs a runtime, which the stub does not have. For the same reason the compiler runs
/// without a wrapper (sccache and the like): the stub is small.
fn compile(target: &str, out: &Path) {
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--edition", "2024", "--crate-name", "ringfence_stub", "--crate-type", "bin", "--target", target])
        .args(["-C", "opt-level=2", "-C", "panic=abort", "-C", "debuginfo=0", "-C", "strip=symbols"])
        .args(["-C", "codegen-units=1", "-C", "relocation-model=static", "-C", "overflow-checks=off"])
        .args(["-C", "target-feature=+crt-static", "-C", "default-linker-libraries=no"]);
    for arg in
        ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-Tsrc/stub/program/stub.ld"]
    {
        rustc.arg("-C").arg(format!("link-arg={arg}"));
    }
    if target.contains("musl") {
        rustc.args(["-C", "link-self-contained=no"]);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    rustc.arg("-o").arg(out).arg("src/stub/program/main.rs");
    rustc.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    match rustc.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            fail(&format!("the stub does not compile for {target}: {}", text.replace('\n', " ")));
        }
        Err(error) => fail(&format!("cannot run the compiler for the stub: {error}")),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("cargo did not set {name}")))
}

fn fail(reason: &str) -> ! {
    println!("cargo::error={reason}");
    exit(1)
}
