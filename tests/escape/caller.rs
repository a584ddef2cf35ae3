//! Attacks on the library's caller: processes that use the library themselves, in surroundings that a test process cannot
//! have.

use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use ringfence::{RootFs, Sandbox, Stdio};

use crate::attack::{errno, say};

pub fn run(what: &str, words: &[&str]) {
    match what {
        "inheritable" => inheritable(),
        "owner" => owner(),
        "reuse" => reuse(),
        "null-device" => null_device(words[0]),
        "fake-proc" => fake_proc(),
        "submount" => submount(words[0]),
        "locked" => locked(words[0]),
        "protects" => protects(words[0]),
        "propagation" => propagation(words[0], words[1]),
        other => panic!("no attack {other}"),
    }
}

/// A program without the orders that this process has.
fn plain(command: &str) -> Sandbox {
    Sandbox::new().env_remove("RINGFENCE_ATTACK").command(command)
}

fn text(sandbox: &Sandbox) -> String {
    match sandbox.output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().replace('\n', ","),
        Err(error) => error.to_string().replace('\n', " "),
    }
}

/// CVE-2022-29162: the caller itself has inheritable capabilities.
fn inheritable() {
    let grep = ["CapInh", "/proc/self/status"];
    let own = Command::new("grep").args(grep).env_remove("RINGFENCE_ATTACK").output().unwrap();
    say("plain", Ok(String::from_utf8_lossy(&own.stdout).trim().replace("CapInh:\t", "")));
    say("sandbox", Ok(text(&plain("grep").args(grep)).replace("CapInh:\t", "")));
}

/// Protects a path below the working directory, which the program takes over and reaches that path from.
fn protects(place: &str) {
    let script = "say() { \"$2\" 2>/dev/null && echo $1=ok || echo $1=refused; }
        move() { mv .git .git2; }; write() { echo evil >.git/hooks/hook; }
        say rename move; say write write";
    let sandbox = plain("/bin/sh").args(["-c", script]).read_only_path(place);
    let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
    println!("{}", String::from_utf8_lossy(&sandbox.output().unwrap().stdout));
}

/// Spawns from a thread that ends, says the programs' pids, and lives on.
fn owner() {
    // Takes its death signal off itself, and lets go of its parent.
    let script = "trap '' TERM HUP INT; (setsid sleep 1000 &) ; sleep 1000";
    let spawn = |dies: bool| {
        let sandbox =
            plain("/bin/sh").args(["-c", script]).pid_ns().init(true).die_with_owner(dies).stdin(Stdio::null());
        let sandbox = if nix::unistd::geteuid().is_root() { sandbox } else { sandbox.user_ns() };
        let child = sandbox.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        println!("{dies}={}", child.id());
        std::mem::forget(child);
    };
    std::thread::spawn(move || [true, false].map(spawn)).join().unwrap();
    let _ = std::io::stdout().flush();
    std::thread::sleep(std::time::Duration::from_secs(1000));
}

/// Somebody else gets the number of a program that has ended; then the handle is told to kill.
fn reuse() {
    let mut child = plain("/bin/true").spawn().unwrap();
    let number = child.id();
    child.wait().unwrap();
    let mut victim = loop {
        let last = (number - 1).to_string();
        if let Err(error) = fs::write("/proc/sys/kernel/ns_last_pid", last) {
            return println!("victim={}", errno(&error));
        }
        let mut sleeper = Command::new("/bin/sleep").arg("1000").env_remove("RINGFENCE_ATTACK").spawn().unwrap();
        if sleeper.id() == number {
            break sleeper;
        }
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    };
    let _ = child.kill();
    let _ = child.signal(libc::SIGTERM);
    drop(child);
    std::thread::sleep(std::time::Duration::from_millis(100));
    println!("victim={}", victim.try_wait().unwrap().map_or("lives".to_owned(), |status| status.to_string()));
    // What a library does that keeps a number instead.
    // SAFETY: no memory is involved.
    unsafe { libc::kill(number as i32, libc::SIGKILL) };
    println!("by-number={}", if victim.wait().unwrap().code().is_none() { "killed" } else { "lives" });
}

/// CVE-2025-31133: in this process's root, /dev/null is a link to `victim`.
fn null_device(victim: &str) {
    say("spawn", Ok(text(&plain("/bin/true").mask("/etc/file"))));
    say("unchanged", fs::read_to_string(victim));
    // What others do: a bind by path, and the program writes to what it was told is a mask.
    let bind = |from: &str, to: &str| {
        let (from, to) = (CString::new(from).unwrap(), CString::new(to).unwrap());
        // SAFETY: strings with their NUL, and null where nothing is given.
        Errno::result(unsafe {
            libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null())
        })
    };
    say("bind", bind("/dev/null", "/etc/file").map(|_| "ok").map_err(std::io::Error::from));
    fs::write("/etc/file", "attacked").unwrap();
    say("by-path", fs::read_to_string(victim));
}

/// CVE-2025-52881: in this process's root, /proc holds files that lead elsewhere.
fn fake_proc() {
    say("spawn", Ok(text(&plain("/bin/true").user_ns())));
    say("limit", Ok(text(&plain("/bin/true").user_ns().max_user_namespaces(0))));
    say("victim", fs::read_to_string("/etc/victim"));
    say("by-path", fs::write("/proc/self/uid_map", "attacked").map(|()| "ok"));
    say("after", fs::read_to_string("/etc/victim"));
}

/// A writable mount below a directory that becomes a read-only root.
fn submount(dir: &str) {
    let sub = format!("{dir}/data");
    mount_tmpfs(&sub);
    let root = |root: RootFs| {
        let sandbox = plain("/bin/sh").args(["-c", "echo x > /data/file && echo written || echo refused"]);
        text(&sandbox.rootfs(root).stderr(Stdio::null()))
    };
    say("read-only", Ok(root(RootFs::dir(dir).read_only())));
    say("writable", Ok(root(RootFs::dir(dir))));
}

/// Binds a mount that is read-only outside for programs that may remount.
fn locked(dir: &str) {
    mount_tmpfs(dir);
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let place = CString::new(dir).unwrap();
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
    // SAFETY: a path with its NUL, and null where nothing is given.
    let result = unsafe { libc::mount(std::ptr::null(), place.as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    Errno::result(result).unwrap();
    let run = |sandbox: Sandbox| {
        let script = "mount -o remount,bind,rw /mnt; echo x > /mnt/file && echo written || echo refused";
        text(&sandbox.args(["-c", script]).rootfs(RootFs::host()).bind(dir, "/mnt").stderr(Stdio::null()))
    };
    let all = ringfence::Capabilities::all_but([]);
    say("user-ns", Ok(run(plain("/bin/sh").user_ns().capabilities(all))));
    say("without", Ok(run(plain("/bin/sh"))));
}

fn mount_tmpfs(at: &str) {
    let (kind, place) = (c"tmpfs", CString::new(at).unwrap());
    // SAFETY: strings with their NUL, and null where nothing is given.
    let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    Errno::result(result).unwrap();
}

/// With all mounts shared, mounts something inside a sandbox and outside.
fn propagation(inside: &str, outside: &str) {
    // SAFETY: a path with its NUL, and null where nothing is given.
    let shared = unsafe {
        libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), libc::MS_REC | libc::MS_SHARED, std::ptr::null())
    };
    Errno::result(shared).unwrap();
    let is_mounted = |at: &str| fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&format!(" {at} "));
    let script =
        format!("mount -t tmpfs tmpfs {inside} && echo up; read line; grep -c ' {outside} ' /proc/self/mountinfo");
    let sandbox = plain("/bin/sh").args(["-c", &script]).mount_ns();
    let mut child = sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut answer = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    say("inside-seen-outside", Ok(is_mounted(inside)));
    mount_tmpfs(outside);
    writeln!(child.stdin.as_mut().unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    say("outside-seen-inside", Ok(String::from_utf8_lossy(&output.stdout).trim() != "0"));
    // Where propagation is left as it is, both are seen: unshare(1) by itself.
    let script = format!("mount -t tmpfs tmpfs {inside}");
    let unshare = ["--mount", "--propagation", "unchanged", "sh", "-c", &script];
    assert!(Command::new("unshare").args(unshare).env_remove("RINGFENCE_ATTACK").status().unwrap().success());
    say("unprotected", Ok(is_mounted(inside)));
    assert!(Path::new(inside).exists());
}
