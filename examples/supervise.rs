//! A program under supervision: the program can read one directory of the host, which is not in its
//! root, and the supervisor logs everything else that the program tries to open or to create.
//!
//! cargo run --release --example supervise

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use ringfence::{Action, Error, Notification, Notifications, RootFs, Rule, Sandbox, Seccomp};

const SCRIPT: &str = "cat /granted/letter; echo 'more' >/granted/letter; cat /granted/../etc/passwd | wc -l; mkdir /tmp/mine || echo so be it";

/// The result of one call.
struct Entry {
    what: String,
    told: &'static str,
}

fn main() -> Result<(), Error> {
    let granted = std::env::temp_dir().join(format!("ringfence-granted-{}", std::process::id()));
    std::fs::create_dir(&granted)
        .and_then(|()| std::fs::write(granted.join("letter"), "Dear program, …\n"))
        .expect("a scratch directory");

    let sandbox = Sandbox::new()
        .command("/bin/sh")
        .args(["-c", SCRIPT])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .rootfs(RootFs::host())
        .pid_ns()
        .net_ns()
        .seccomp(Seccomp::default().rule(Rule::new(["open", "openat", "mkdir", "mkdirat"], Action::Notify)));
    let sandbox = if nix::unistd::geteuid().is_root() { sandbox.user(65534, 65534) } else { sandbox.user_ns() };

    println!("$ {SCRIPT}\n");
    let (log, entries) = channel();
    let directory = granted.clone();
    let outcome = sandbox.spawn_supervised(move |calls| supervise(&calls, &directory, &log))?.wait()?;

    println!("\n{:<44} the answer", "the program called");
    for Entry { what, told } in entries {
        println!("{what:<44} {told}");
    }
    println!("\n{}", outcome.verdict());
    let _ = std::fs::remove_dir_all(&granted);
    Ok(())
}

/// Answers calls until no process is left in the sandbox.
fn supervise(calls: &Notifications, granted: &Path, log: &Sender<Entry>) {
    for call in calls.iter().flatten() {
        let Some(name) = call.syscall() else { continue };
        // The calls with names that end with "at" have the directory as their first argument.
        let at = usize::from(name.ends_with("at"));
        let Ok(path) = call.read_string(call.args()[at], 4096) else { continue };
        let path = PathBuf::from(OsStr::from_bytes(&path));
        let quiet = is_of_the_loader(&path);
        let what = format!("{name} {}", path.display());
        let told = answer(call, name, at, &path, granted);
        if !quiet {
            let _ = log.send(Entry { what, told });
        }
    }
}

fn answer(call: Notification, name: &str, at: usize, path: &Path, granted: &Path) -> &'static str {
    if name.starts_with("mkdir") {
        return told(call.errno(libc::EROFS), "EROFS: nothing is made here");
    }
    let writes = call.args()[at + 1] & (libc::O_WRONLY | libc::O_RDWR) as u64 != 0;
    match path.strip_prefix("/granted") {
        // The supervisor opens the file outside, by a path that no process inside can change any
        // more, and passes the descriptor in.
        Ok(rest) if !writes && rest.components().all(|part| matches!(part, Component::Normal(_))) => {
            match File::open(granted.join(rest)) {
                Ok(file) => told(call.fd(file, true), "a descriptor from outside"),
                Err(_) => told(call.errno(libc::ENOENT), "ENOENT"),
            }
        }
        Ok(_) => told(call.errno(libc::EACCES), "EACCES: only to be read, and only from there"),
        // The supervisor decides nothing here: the isolation of the sandbox applies.
        Err(_) => told(call.proceed(), "went on as usual"),
    }
}

fn told(answer: Result<bool, Error>, what: &'static str) -> &'static str {
    match answer {
        Ok(true) => what,
        Ok(false) => "nobody waited any more",
        Err(_) => "the kernel refused the answer",
    }
}

/// Returns true for libraries and locales, which programs open by the dozen.
fn is_of_the_loader(path: &Path) -> bool {
    ["/lib", "/lib64", "/usr", "/etc/ld.so.cache", "/etc/locale"].iter().any(|start| path.starts_with(start))
}
