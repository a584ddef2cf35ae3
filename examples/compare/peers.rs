//! The other tools: their settings for a sandbox as close as possible to the one of this bench, and
//! their runs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::elsewhere::{Elsewhere, hybrid};
use super::fixture::Fixture;
use super::group;
use super::watch;

/// The example `oci-runtime`, built beside this one.
const OWN_RUNTIME: &str = "oci-run";

pub const NAMES: [&str; 7] = ["unshare", "bwrap", OWN_RUNTIME, "crun", "runc", "youki", "systemd-nspawn"];

/// A tool that is installed.
#[derive(Debug)]
pub enum Tool {
    Here(Command),
    /// Runs in a mount namespace without the v2 hierarchy.
    Elsewhere(Elsewhere<Job, Result<Duration, String>>),
}

/// A job for the thread in the other mount namespace.
#[derive(Debug)]
pub enum Job {
    Explain,
    Run,
}

impl Tool {
    /// Returns the tool and a text that says how it is run, or the reason why the tool cannot be
    /// used.
    pub fn new(name: &str, fixture: &Fixture) -> Result<(Self, String), String> {
        let path = if name == OWN_RUNTIME { built() } else { find(name).ok_or_else(|| "not in PATH".to_owned()) };
        let path = path?;
        let mut command = Command::new(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let how = match name {
            "unshare" => unshare(&mut command, fixture),
            "bwrap" => bwrap(&mut command, fixture),
            "systemd-nspawn" => nspawn(&mut command, fixture).map_err(|error| error.to_string())?,
            _ => oci(name, &mut command, fixture).map_err(|error| error.to_string())?,
        };
        // crun refuses a hybrid host, and youki looks for controllers in the hierarchy that has
        // none.
        match hybrid().filter(|_| ["crun", "youki"].contains(&name)) {
            None => Ok((Tool::Here(command), how)),
            Some(v2) => {
                let how =
                    format!("{how}; on this hybrid host in a mount namespace where {} is unmounted", v2.display());
                let work = move |job| match job {
                    Job::Explain => explain(&mut command).map(|()| Duration::ZERO),
                    Job::Run => run(&mut command),
                };
                let there = Elsewhere::without(v2, work).map_err(|error| format!("a mount namespace: {error}"))?;
                Ok((Tool::Elsewhere(there), how))
            }
        }
    }

    /// Runs the tool, and returns its messages if it fails.
    pub fn explain(&mut self) -> Result<(), String> {
        match self {
            Tool::Here(command) => explain(command),
            Tool::Elsewhere(there) => there.ask(Job::Explain).unwrap_or_else(gone).map(drop),
        }
    }

    pub fn run(&mut self) -> Result<Duration, String> {
        match self {
            Tool::Here(command) => run(command),
            Tool::Elsewhere(there) => there.ask(Job::Run).unwrap_or_else(gone),
        }
    }
}

fn gone() -> Result<Duration, String> {
    Err("its thread has ended".to_owned())
}

fn run(command: &mut Command) -> Result<Duration, String> {
    let start = Instant::now();
    let child = command.spawn().map_err(|error| error.to_string())?;
    let status = watch::wait(child);
    let time = start.elapsed();
    match status {
        Ok(status) if status.success() => Ok(time),
        Ok(status) => Err(told(status)),
        Err(error) => Err(error.to_string()),
    }
}

fn told(status: ExitStatus) -> String {
    match status.signal() {
        Some(9) => format!("it had not ended after {:?}", watch::LIMIT),
        _ => status.to_string(),
    }
}

/// Runs a command and reads its messages, which are at most a few lines.
fn explain(command: &mut Command) -> Result<(), String> {
    let child = command.stderr(Stdio::piped()).spawn().map_err(|error| error.to_string());
    command.stderr(Stdio::null());
    let mut child = child?;
    let words = child.stderr.take();
    let status = watch::wait(child).map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    let words = words.map(io::read_to_string).transpose().map_err(|error| error.to_string())?.unwrap_or_default();
    Err(format!("{} {}", told(status), words.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Returns the path of the example `oci-runtime`, which has to be of the same build.
fn built() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = own.with_file_name("oci-runtime");
    if path.is_file() { Ok(path) } else { Err("not built: --example oci-runtime --features oci".to_owned()) }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn unshare(command: &mut Command, fixture: &Fixture) -> String {
    let mut root = OsString::from("--root=");
    root.push(&fixture.root);
    command.args(["--pid", "--fork", "--mount", "--uts", "--ipc", "--cgroup", "--mount-proc"]).arg(root).arg("/true");
    "does less: chroot instead of pivot_root, no /dev, no /tmp".to_owned()
}

fn bwrap(command: &mut Command, fixture: &Fixture) -> String {
    command.args(["--unshare-pid", "--unshare-uts", "--unshare-ipc", "--unshare-cgroup", "--as-pid-1"]);
    command.arg("--bind").arg(&fixture.root).arg("/");
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/true"]);
    "the same, without an init".to_owned()
}

fn nspawn(command: &mut Command, fixture: &Fixture) -> io::Result<String> {
    // The tool refuses a root that does not look like an operating system.
    fs::create_dir_all(fixture.root.join("usr"))?;
    let mut root = OsString::from("--directory=");
    root.push(&fixture.root);
    command.arg(root).arg(format!("--machine=ringfence-compare-{}", std::process::id()));
    command.args(["--quiet", "--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off"]);
    command.args(["--timezone=off", "--console=pipe", "/true"]);
    Ok("does more: capabilities, a seccomp filter, /sys, a /dev/console".to_owned())
}

/// Prepares the `run` of a bundle. The bundle is beside the root, as are the files that the runtime
/// keeps.
fn oci(name: &str, command: &mut Command, fixture: &Fixture) -> io::Result<String> {
    let bundle = fixture.file(&format!("{name}-bundle"));
    fs::create_dir_all(&bundle)?;
    fs::write(bundle.join("config.json"), config(name, &fixture.root).to_string())?;
    let state = fixture.file(&format!("{name}-state"));
    command.args([OsStr::new("--root"), state.as_os_str()]);
    command.args([OsStr::new("run"), OsStr::new("--bundle"), bundle.as_os_str()]);
    command.arg(format!("ringfence-compare-{}", std::process::id()));
    Ok("`run` of a bundle with the same namespaces and mounts, with a control group, as it always makes one".to_owned())
}

fn config(name: &str, root: &Path) -> Value {
    let mount = |fstype: &str, at: &str, options: &[&str]| json!({"destination": at, "type": fstype, "source": fstype, "options": options});
    let namespaces: Vec<Value> =
        ["pid", "mount", "uts", "ipc", "cgroup"].iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/true"], "env": ["PATH=/"], "cwd": "/"},
        "root": {"path": root},
        "hostname": "compare",
        "mounts": [
            mount("proc", "/proc", &["nosuid", "nodev", "noexec"]),
            mount("tmpfs", "/dev", &["nosuid", "noexec", "mode=755", "size=64k"]),
            mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("tmpfs", "/dev/shm", &["nosuid", "nodev", "noexec", "mode=1777", "size=64m"]),
            mount("tmpfs", "/tmp", &["nosuid", "nodev", "mode=1777", "size=64m"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("{}/{name}", group::parent()),
        },
    })
}
