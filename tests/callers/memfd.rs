//! The stub where no memfd may be executed: it is a file then, of which a sandbox can make nothing. Each case is a process
//! of its own, this binary again.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{
    self, probe,
    refuse::{Call, Only, all_refused, errno_of, refuse},
};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use ringfence::{Sandbox, Stdio, Step};

/// What is asked for to execute it: close-on-exec, sealing allowed, MFD_EXEC.
const EXECUTABLE_MEMFD: Call = Call { number: libc::SYS_memfd_create, only: Only::Equal(1, 0x13) };
const FSOPEN: Call = Call { number: libc::SYS_fsopen, only: Only::Always };
const NAMELESS: Call = Call { number: libc::SYS_openat, only: Only::Ours(|args| args[2] & O_TMPFILE == O_TMPFILE) };
const O_TMPFILE: u64 = libc::O_TMPFILE as u64;

common::callers! {
    |words|
    "making" => making_is_refused(errno_of(&words)),
    "making-no-mounts" => making_is_refused_and_mounts_are(errno_of(&words)),
    "nowhere" => there_is_no_place(errno_of(&words)),
    "sysctl" => the_sysctl_forbids(),
    "exec" => the_exec_is_refused(),
}

#[track_caller]
fn run(case: &str, errno: Errno) {
    probe::succeeds(probe::caller(&format!("{case} {}", errno as i32)));
}

/// A sandbox whose init, which is the stub, the program can see, and has as much power over as there can be.
fn with_init() -> Sandbox {
    let sandbox = common::mounting().pid_ns().mount_ns().init(true);
    if common::is_root() { sandbox } else { sandbox.user(0, 0) }
}

/// Sandboxes run, and what the stub is cannot be changed from inside.
fn works() {
    let _clean = common::clean();
    assert_eq!(common::stdout(&common::sh("echo $0 is here").arg("sh")), "sh is here");
    let script = "echo $(cat /proc/1/comm); exe=/proc/1/exe; stat -L -c %a $exe; \
        (echo x >$exe) 2>/dev/null && echo written; \
        mkdir -p $1/in && mount --bind $exe $1/in 2>/dev/null && echo bound; \
        mount -o remount,rw,bind $exe 2>/dev/null && echo remounted; rmdir $1/in; stat -L -c %d:%i $exe; cat";
    let dir = common::TempDir::new();
    let look = with_init().command("/bin/sh").args(["-c", script, "sh", dir.path().to_str().unwrap()]);
    let spawn = || look.clone().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let [first, second] = [spawn(), spawn()].map(|mut child| {
        drop(child.stdin.take());
        (child.stdout.take().unwrap(), child)
    });
    let [first, second] = [first, second].map(|(out, mut child)| {
        let text = std::io::read_to_string(out).unwrap();
        assert!(child.wait().unwrap().success());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1], lines.len()), ("ringfence-stub", "500", 3), "{text}");
        text
    });
    assert_ne!(first, second, "two spawns had one file");
    let started = common::sandbox().command("/no/such/program").spawn().unwrap_err();
    assert_eq!(started.step(), Step::Exec);
}

/// For root on a file system of its own, for others in a file without a name.
fn making_is_refused(errno: Errno) {
    refuse(&[EXECUTABLE_MEMFD], errno);
    works();
    all_refused(&[EXECUTABLE_MEMFD]);
}

/// Root too takes a file without a name where it may make no file system.
fn making_is_refused_and_mounts_are(errno: Errno) {
    refuse(&[EXECUTABLE_MEMFD, FSOPEN], errno);
    works();
    all_refused(&[EXECUTABLE_MEMFD, FSOPEN]);
}

fn there_is_no_place(errno: Errno) {
    refuse(&[EXECUTABLE_MEMFD, FSOPEN, NAMELESS], errno);
    let error = common::sh("true").spawn().unwrap_err();
    assert_eq!(error.step(), Step::LoadStub, "{error}");
    assert!(error.to_string().contains("vm.memfd_noexec"), "{error}");
    all_refused(&[EXECUTABLE_MEMFD, FSOPEN, NAMELESS]);
}

fn executable_memfd() -> nix::Result<OwnedFd> {
    memfd_create(c"test", MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_EXEC))
}

/// The setting is that of a pid namespace (6.3): a new one's, whose first process this becomes.
fn the_sysctl_forbids() {
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).unwrap();
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {}
        child => {
            let mut status = 0;
            // SAFETY: the status lives across the call.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
            return;
        }
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).unwrap();
    // The names of temporary directories are made of pids.
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), Some("mode=1777")).unwrap();
    assert_eq!(std::process::id(), 1, "the machine's own setting stays as it is");
    executable_memfd().unwrap();
    fs::write("/proc/sys/vm/memfd_noexec", "2").unwrap();
    assert_eq!(executable_memfd().unwrap_err(), Errno::EACCES);
    works();
}

/// As a security module does it, whose word comes when the memfd is executed: fanotify(7) has one too.
fn the_exec_is_refused() {
    static DENIED: AtomicUsize = AtomicUsize::new(0);
    assert!(common::sh("true").status().unwrap().success());
    let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC;
    // SAFETY: numbers only.
    let group = unsafe { libc::fanotify_init(flags, libc::O_RDONLY as u32) };
    assert!(group >= 0);
    // SAFETY: the kernel has just made this descriptor.
    let group = unsafe { OwnedFd::from_raw_fd(group) };
    for task in fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path()) {
        let stub = task.join("fd/4");
        let is_memfd = fs::read_link(&stub).is_ok_and(|link| link.to_string_lossy().contains("memfd:ringfence-stub"));
        if is_memfd && fs::read_to_string(task.join("comm")).unwrap().trim() == "ringfence" {
            let stub = std::ffi::CString::new(stub.to_str().unwrap()).unwrap();
            let (mode, mask) = (libc::FAN_MARK_ADD, libc::FAN_OPEN_EXEC_PERM);
            // SAFETY: a path with its NUL.
            let marked = unsafe { libc::fanotify_mark(group.as_raw_fd(), mode, mask, libc::AT_FDCWD, stub.as_ptr()) };
            assert_eq!(marked, 0, "{}", std::io::Error::last_os_error());
        }
    }
    std::thread::spawn(move || {
        loop {
            // SAFETY: zeroed bytes are valid, and both structures live across the calls.
            unsafe {
                let mut event: libc::fanotify_event_metadata = std::mem::zeroed();
                let size = size_of_val(&event);
                assert!(libc::read(group.as_raw_fd(), (&raw mut event).cast(), size) > 0);
                DENIED.fetch_add(1, Ordering::SeqCst);
                let answer = libc::fanotify_response { fd: event.fd, response: libc::FAN_DENY };
                libc::write(group.as_raw_fd(), (&raw const answer).cast(), size_of_val(&answer));
                libc::close(event.fd);
            }
        }
    });
    assert!(common::sh("true").status().unwrap().success());
    assert_eq!(DENIED.load(Ordering::SeqCst), 1);
    works();
    assert_eq!(DENIED.load(Ordering::SeqCst), 1, "what was refused is not tried again");
}

#[test]
fn where_no_memfd_is_made_to_be_executed_the_stub_is_a_file() {
    let _clean = common::clean();
    for errno in [Errno::EACCES, Errno::EPERM, Errno::ENOSYS] {
        run("making", errno);
    }
}

#[test]
fn where_no_file_system_is_made_either_the_file_has_no_name() {
    let _clean = common::clean();
    run("making-no-mounts", Errno::EPERM);
    run("making-no-mounts", Errno::ENOSYS);
}

#[test]
fn where_there_is_no_place_for_it_the_error_says_so() {
    let _clean = common::clean();
    run("nowhere", Errno::EPERM);
}

#[test]
fn where_the_sysctl_forbids_memfds_the_stub_is_a_file() {
    let _clean = common::clean();
    if common::needs_root("a setting of a pid namespace") {
        return;
    }
    if !Path::new("/proc/sys/vm/memfd_noexec").exists() {
        common::skip("vm.memfd_noexec needs Linux 6.3", true);
        return;
    }
    run("sysctl", Errno::EACCES);
}

#[test]
fn where_the_exec_of_a_memfd_is_refused_the_stub_is_a_file() {
    let _clean = common::clean();
    if common::needs_root("fanotify's permission events") {
        return;
    }
    run("exec", Errno::EPERM);
}
