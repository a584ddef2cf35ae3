//! Programs to run inside. A test binary that finds `RINGFENCE_PROBE` in its environment is such a program: it does what
//! the variable says, and never gets to its tests.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringfence::Sandbox;

/// Makes the sandbox run this test binary as the program `what`; the binary stands at `path` inside.
pub fn at(sandbox: Sandbox, path: &str, what: &str) -> Sandbox {
    sandbox.command(path).env("RINGFENCE_PROBE", what)
}

/// The same, where the host's paths are those inside.
pub fn run(sandbox: Sandbox, what: &str) -> Sandbox {
    let exe = std::env::current_exe().unwrap();
    at(sandbox, exe.to_str().unwrap(), what)
}

/// This test binary as a process of its own, which does what a table of [`callers`](super::callers)
/// has for `what`: for tests of callers that a test process cannot be.
pub fn caller(what: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("RINGFENCE_CALLER", what);
    command
}

/// What this process is to do, if [`caller`] made it and the table with these names has it. To be
/// asked before main, while there is one thread.
pub fn is_caller(names: &[&str]) -> Option<String> {
    let what = std::env::var("RINGFENCE_CALLER").ok()?;
    if !names.contains(&what.split(' ').next().unwrap()) {
        return None;
    }
    super::place::settle();
    // SAFETY: no other thread has been started yet.
    unsafe { std::env::remove_var("RINGFENCE_CALLER") };
    Some(what)
}

/// Runs a caller to its end and gives what it wrote; anything but exit 0 within four minutes fails the test.
#[track_caller]
pub fn succeeds(mut command: Command) -> String {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id() as i32;
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if is_done.recv_timeout(Duration::from_secs(240)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // SAFETY: no memory is involved, and the process has not been waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    watch.join().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\nstdout: {text}\nstderr: {errors}", output.status);
    text.trim_end().to_owned()
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let Some(what) = std::env::var_os("RINGFENCE_PROBE") else { return };
    let what = what.to_string_lossy().into_owned();
    let words: Vec<&str> = what.split(' ').collect();
    let number = |i: usize| words[i].parse::<u64>().unwrap();
    match words[0] {
        "unmourned" => unmourned(),
        "hold" => hold(),
        "sibling" => sibling(false),
        "living-sibling" => sibling(true),
        "misnamed-sibling" => {
            misname();
            sibling(false);
        }
        "misnamed" => misnamed(),
        "hog" => hog(number(1) as usize),
        "huge" => huge(number(1) as usize),
        "pulse" => pulse(number(1), Duration::from_millis(number(2))),
        "forks" => forks(number(1)),
        "spin" => spin(Duration::from_millis(number(1))),
        "listen" => listen(number(1) as u16),
        "write" => write_direct(words[1], number(2) as usize),
        "flood" => flood(),
        "forge-end" => forge_end(),
        "nest" => nest(number(1)),
        "spawn-on" => spawn_on(words[1]),
        "deep" => deep(words[1], number(2)),
        "spawn-below" => spawn_below(words[1]),
        "fds" => fds(),
        "clocks" => clocks(),
        "loopback" => loopback(),
        "connect" => connect(words[1]),
        "pty" => pty(),
        "escape" => escape(words[1]),
        "calls" => super::calls::make(&words[1..]),
        "numbers" => super::calls::make_numbers(&words[1..]),
        "bind-80" => bind_80(),
        "open-write" => open_write(&words[1..]),
        "read" => read(&words[1..]),
        "spawn-masked" => spawn_masked(),
        "securebits" => securebits(),
        "keyring" => keyring(),
        "keyring-owner" => keyring_owner(),
        "spawn-bare" => spawn_bare(),
        "devices" => devices(&words[1..]),
        "devices-again" => devices_again(&words[1..]),
        "own-supervisor" => own_supervisor(words[1]),
        "xattrs" => xattrs(words[1], &words[2..]),
        other => panic!("no probe {other}"),
    }
    std::process::exit(0);
}

/// Traces every process that appears, and never waits for one: none of them can be reaped as long as this one lives.
fn hold() -> ! {
    println!("ready");
    loop {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) {
                // SAFETY: no memory is involved.
                unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
            }
        }
    }
}

/// Makes a child of its own parent's, which ends at once or sleeps, and says whether it could.
fn sibling(sleeps: bool) {
    // SAFETY: as fork(2): this process has one thread, and the child only exits.
    let made = unsafe {
        let made = libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0);
        if made == 0 {
            if sleeps {
                libc::sleep(1000);
            }
            libc::_exit(0);
        }
        made
    };
    if made < 0 { println!("{:?}", nix::errno::Errno::last()) } else { println!("made") }
}

/// Gives this process a name that is no text.
fn misname() {
    // SAFETY: a string with its NUL.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NAME, c"\xff) Z\xff".as_ptr()) }, 0);
}

/// Has a name that is no text, says so, and ends with 7 when stdin does.
fn misnamed() -> ! {
    misname();
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(7);
}

/// Takes off the signal that comes with the owner's death, says so, and stays.
fn unmourned() -> ! {
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) }, 0);
    println!("ready");
    std::thread::sleep(Duration::from_secs(1000));
    std::process::exit(0);
}

/// Touches so many bytes of memory, page by page.
fn hog(bytes: usize) {
    let mut memory = vec![0u8; bytes];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    println!("{}", memory.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>());
}

/// Maps and touches so many bytes in huge pages of 2 MiB; says what came of it.
fn huge(bytes: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    // SAFETY: a new mapping, at a place of the kernel's choice.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        println!("{:?}", nix::errno::Errno::last());
        return;
    }
    for at in (0..bytes).step_by(2 << 20) {
        // SAFETY: within the mapping.
        unsafe { memory.cast::<u8>().add(at).write_volatile(1) };
    }
    println!("mapped");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// So many times rests for a third of a second, then needs `work` of processor time at once. Then waits for the end of
/// stdin.
fn pulse(times: u64, work: Duration) {
    let used = || Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
    for _ in 0..times {
        std::thread::sleep(Duration::from_millis(330));
        let until = used() + work;
        while used() < until {}
    }
    println!("done");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// Tries to have so many children at once; says how many it got.
fn forks(wanted: u64) {
    let mut got = 0;
    for _ in 0..wanted {
        // SAFETY: this process has one thread, and the child only sleeps.
        match unsafe { libc::fork() } {
            0 => {
                std::thread::sleep(Duration::from_secs(60));
                std::process::exit(0);
            }
            -1 => {}
            _ => got += 1,
        }
    }
    println!("{got}");
}

/// Keeps one processor busy for so long; says how many milliseconds of processor time it got.
fn spin(wall: Duration) {
    let start = Instant::now();
    let mut x = 0u64;
    while start.elapsed() < wall {
        for _ in 0..10_000 {
            x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(7));
        }
    }
    let used = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    println!("{}", Duration::from(used).as_millis());
}

/// Listens on a port of the loopback interface until stdin ends; says so.
fn listen(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    println!("listening on {}", listener.local_addr().unwrap().port());
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// Writes so many KiB past the page cache; says how many milliseconds that took.
fn write_direct(path: &str, kib: usize) {
    let block = std::alloc::Layout::from_size_align(64 << 10, 4096).unwrap();
    // SAFETY: the layout has a size, and the memory is never freed.
    let block = unsafe { std::slice::from_raw_parts(std::alloc::alloc_zeroed(block), block.size()) };
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let start = Instant::now();
    for _ in 0..kib / 64 {
        file.write_all(block).unwrap();
    }
    println!("{}", start.elapsed().as_millis());
}

/// Makes so many directories, each in the one before.
fn deep(at: &str, levels: u64) {
    std::env::set_current_dir(at).unwrap();
    for _ in 0..levels {
        std::fs::create_dir("d").unwrap();
        std::env::set_current_dir("d").unwrap();
    }
}

/// Writes for ever.
fn flood() {
    let block = [b'x'; 4096];
    while std::io::stdout().write_all(&block).is_ok() {}
}

/// Says which descriptors are open, as `number=target`.
fn fds() {
    let dir = std::fs::read_dir("/proc/self/fd").unwrap();
    let all: Vec<_> = dir.flatten().map(|e| (e.file_name(), std::fs::read_link(e.path()))).collect();
    for (name, link) in all {
        let link = link.map(|l| l.to_string_lossy().into_owned()).unwrap_or_default();
        if !link.starts_with("/proc/") {
            println!("{}={link}", name.to_string_lossy());
        }
    }
}

/// Says what the monotonic and the boot-time clock show, in nanoseconds.
fn clocks() {
    use nix::time::{ClockId, clock_gettime};
    for clock in [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_BOOTTIME] {
        println!("{}", Duration::from(clock_gettime(clock).unwrap()).as_nanos());
    }
}

/// Talks to itself over the loopback interface.
fn loopback() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.write_all(b"heard").unwrap();
    drop(near);
    println!("{}", std::io::read_to_string(listener.accept().unwrap().0).unwrap());
}

/// Connects to a port of the loopback interface, or to the abstract socket `@name`; says what came of it.
fn connect(to: &str) {
    use std::os::linux::net::SocketAddrExt;
    let result = match to.strip_prefix('@') {
        Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name)
            .and_then(|address| std::os::unix::net::UnixStream::connect_addr(&address))
            .map(drop),
        None => std::net::TcpStream::connect(("127.0.0.1", to.parse().unwrap())).map(drop),
    };
    println!("{}", result.map_or_else(|error| format!("{:?}", error.kind()), |()| "connected".to_owned()));
}

/// Opens a terminal of its own and says what came through it.
fn pty() {
    let open = |path: &str| std::fs::File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path);
    let mut master = open("/dev/ptmx").unwrap();
    let (mut number, unlock) = (0i32, 0i32);
    use std::os::fd::AsRawFd;
    // SAFETY: both calls are given the place of an int that outlives them.
    let results = unsafe {
        [
            libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock),
            libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number),
        ]
    };
    assert_eq!(results, [0, 0]);
    let path = format!("/dev/pts/{number}");
    open(&path).unwrap().write_all(b"through").unwrap();
    let mut text = [0; 7];
    master.read_exact(&mut text).unwrap();
    println!("{path} {}", String::from_utf8_lossy(&text));
}

/// Does each of the tries and says what came of it: `r:/dev/null` opens to read, `w:` to write, `rw:` both; `m:c:1:3:PATH`
/// makes a node, and leaves it.
fn devices(tries: &[&str]) {
    let results: Vec<String> = tries.iter().map(|what| try_device(what)).collect();
    println!("{}", results.join(" "));
}

/// The same for each line of stdin.
fn devices_again(tries: &[&str]) {
    for _ in std::io::stdin().lines() {
        devices(tries);
        std::io::stdout().flush().unwrap();
    }
}

fn try_device(what: &str) -> String {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let (how, path) = what.split_once(':').unwrap();
    let result = if how == "m" {
        let words: Vec<&str> = path.splitn(4, ':').collect();
        let number = |i: usize| words[i].parse().unwrap();
        let kind = if words[0] == "c" { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
        mknod(words[3], kind, Mode::from_bits_truncate(0o666), makedev(number(1), number(2)))
    } else {
        let mut options = std::fs::OpenOptions::new();
        options.read(how.contains('r')).write(how.contains('w')).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let opened = options.open(path).map(drop);
        opened.map_err(|error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0)))
    };
    result.map_or_else(|errno| format!("{errno:?}"), |()| "ok".to_owned())
}

/// Looks for the host's file `marker` in all the ways out of a root; says which ones led to it.
fn escape(marker: &str) {
    let here = marker.trim_start_matches('/').to_owned();
    let find = |how: &str, path: std::path::PathBuf| {
        if path.exists() {
            println!("{how}");
        }
    };
    let climb = |how: &str| {
        for _ in 0..64 {
            std::env::set_current_dir("..").unwrap();
        }
        find(how, here.clone().into());
    };
    find("path", marker.into());
    std::env::set_current_dir("/").unwrap();
    climb("dotdot");
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        for link in ["root", "cwd", "fd/0", "fd/1", "fd/2", "fd/3", "task/1/root"] {
            find("proc", process.path().join(link).join(&here));
        }
    }
    for top in [c"/", c".", c".."] {
        // SAFETY: a path with its NUL.
        unsafe { libc::umount2(top.as_ptr(), libc::MNT_DETACH) };
        find("umount", marker.into());
        find("umount", here.clone().into());
    }
    // Where nothing holds the program, the directory goes with the test's own.
    let mut jail = std::path::Path::new(marker).with_file_name("jail");
    if std::fs::create_dir(&jail).is_err() {
        jail = "/tmp/jail".into();
        let _ = std::fs::create_dir(&jail);
    }
    std::os::unix::fs::chroot(&jail).unwrap();
    climb("chroot");
    std::os::unix::fs::chroot(".").unwrap();
    find("chroot", marker.into());
    println!("looked everywhere");
}

/// Runs a sandbox below a control group of this name; says so, and ends it when stdin ends.
fn spawn_below(parent: &str) {
    let sandbox = Sandbox::new().cgroup_parent(parent).pids_limit(9).command("/bin/cat").env_remove("RINGFENCE_PROBE");
    let mut child = sandbox.stdin(ringfence::Stdio::piped()).spawn().unwrap();
    println!("up");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Says to the owner, over its init's own socket, that the program has ended with 0; then goes on.
fn forge_end() {
    const ENDED: u32 = 7;
    let record = [ENDED, 0, 0, 0].map(u32::to_ne_bytes).concat();
    // SAFETY: numbers, and a record that lives across the call.
    let send = || unsafe {
        let init = libc::syscall(libc::SYS_pidfd_open, 1, 0);
        let socket = libc::syscall(libc::SYS_pidfd_getfd, init, 0, 0);
        libc::send(socket as i32, record.as_ptr().cast(), record.len(), 0)
    };
    // init moves the socket to its place while the program begins.
    let start = Instant::now();
    while send() != 16 && start.elapsed() < Duration::from_millis(500) {}
    println!("{}", if start.elapsed() < Duration::from_millis(500) { "sent" } else { "not sent" });
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

/// Makes a directory in a directory, so many times.
fn nest(levels: u64) {
    std::env::set_current_dir("/").unwrap();
    for _ in 0..levels {
        std::fs::create_dir("d").unwrap();
        std::fs::write("file", "x").unwrap();
        std::env::set_current_dir("d").unwrap();
    }
    println!("{levels}");
}

/// Spawns on that directory as a read-only root, and says what came of it.
fn spawn_on(root: &str) {
    let root = ringfence::RootFs::dir(root).read_only();
    match Sandbox::new().rootfs(root).pid_ns().command("/x").spawn() {
        Ok(_) => println!("spawned"),
        Err(error) => println!("{error}"),
    }
}

/// Binds port 80 of the loopback interface; says what came of it.
fn bind_80() {
    let bound = TcpListener::bind("127.0.0.1:80");
    println!("{}", bound.map_or_else(|error| format!("{:?}", error.kind()), |_| "bound".to_owned()));
}

fn securebits() {
    // SAFETY: no memory is involved.
    println!("{}", unsafe { libc::prctl(libc::PR_GET_SECUREBITS) });
}

/// Says how many keys are in the session keyring.
fn keyring() {
    const KEYCTL_READ: i64 = 11;
    const KEY_SPEC_SESSION_KEYRING: i64 = -3;
    let mut keys = [0u32; 64];
    let (place, size) = (keys.as_mut_ptr(), size_of_val(&keys));
    // SAFETY: numbers, and the place of an array that outlives the call.
    let bytes = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_READ, KEY_SPEC_SESSION_KEYRING, place, size) };
    println!("{} keys", bytes / 4);
}

/// With a key in a session keyring of its own, spawns programs with that keyring and without.
fn keyring_owner() {
    const KEYCTL_JOIN_SESSION_KEYRING: i64 = 1;
    const KEY_SPEC_SESSION_KEYRING: i64 = -3;
    let (kind, name) = (c"user", c"ringfence-test");
    // SAFETY: numbers and strings with their NUL.
    let key = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0);
        libc::syscall(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), c"x".as_ptr(), 1, KEY_SPEC_SESSION_KEYRING)
    };
    if key < 0 {
        return println!("none");
    }
    for (how, apart) in [("shared", false), ("apart", true)] {
        let output = run(Sandbox::new().session_keyring(apart), "keyring").output().unwrap();
        print!("{how}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Spawns without capabilities, and says what came of it.
fn spawn_bare() {
    let bare = Sandbox::new().capabilities(ringfence::Capabilities::none()).command("/bin/true");
    println!("{}", bare.spawn().map_or_else(|error| error.to_string(), |_| "spawned".to_owned()));
}

fn outcome<T>(path: &str, result: std::io::Result<T>, show: impl Fn(T) -> String) {
    let errno = |error: std::io::Error| match error.raw_os_error() {
        Some(errno) => format!("{:?}", nix::errno::Errno::from_raw(errno)),
        None => error.to_string(),
    };
    println!("{path}={}", result.map_or_else(errno, show));
}

/// Opens files for writing, and writes nothing; says of each what came of it.
fn open_write(paths: &[&str]) {
    for path in paths {
        outcome(path, std::fs::File::options().write(true).open(path), |_| "opened".to_owned());
    }
}

/// Reads files, or lists directories; says of each how much there was, a megabyte at most.
fn read(paths: &[&str]) {
    for path in paths {
        let bytes = std::fs::File::open(path).and_then(|file| {
            if file.metadata()?.is_dir() {
                return std::fs::read_dir(path).map(Iterator::count);
            }
            file.take(1 << 20).read_to_end(&mut Vec::new())
        });
        outcome(path, bytes, |count| count.to_string());
    }
}

/// Spawns with a mask, and says what came of it.
fn spawn_masked() {
    let masked = Sandbox::new().mask("/usr/bin/env").command("/bin/true");
    println!("{}", masked.spawn().map_or_else(|error| error.to_string(), |_| "spawned".to_owned()));
}

/// Makes a directory that the sandbox's filter asks about, under a filter with a supervisor of the
/// program's own, which lets the call through.
fn own_supervisor(dir: &str) {
    const LET_THROUGH: u32 = 1;
    let (number, answer) = (libc::SYS_mkdirat as u32, std::sync::mpsc::channel::<i32>());
    let supervisor = std::thread::spawn(move || {
        let Ok(listener) = answer.1.recv() else { return };
        // SAFETY: both structures are plain numbers, and live longer than the calls.
        unsafe {
            let mut question: libc::seccomp_notif = std::mem::zeroed();
            let asked = libc::ioctl(listener, 0xc050_2100_u64 as _, &mut question);
            let through = libc::seccomp_notif_resp { id: question.id, val: 0, error: 0, flags: LET_THROUGH };
            println!("let through: {asked} {}", libc::ioctl(listener, 0xc018_2101_u64 as _, &through));
        }
    });
    let insn = |code: u32, k: u32, jf: u8| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut code = [
        insn(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        insn(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 1),
        insn(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF, 0),
        insn(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: code.as_mut_ptr() };
    // The kernel looks at the lower half of a flag word only.
    for flags in [libc::SECCOMP_FILTER_FLAG_NEW_LISTENER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | 1 << 32] {
        // SAFETY: the program and its instructions live longer than the call.
        let listener = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program)
        };
        println!(
            "listener: {}",
            if listener < 0 { std::io::Error::last_os_error().to_string() } else { "made".into() }
        );
        if listener >= 0 {
            answer.0.send(listener as i32).unwrap();
            break;
        }
    }
    drop(answer.0);
    let path = std::ffi::CString::new(dir).unwrap();
    // SAFETY: a path with its NUL.
    let made = unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path.as_ptr(), 0o700) };
    println!("mkdirat: {}", if made < 0 { std::io::Error::last_os_error().to_string() } else { "made".into() });
    supervisor.join().unwrap();
}

/// Writes the value of each attribute of a file, `-` for one that it does not have.
fn xattrs(path: &str, names: &[&str]) {
    let path = std::ffi::CString::new(path).unwrap();
    for name in names {
        let (name, mut value) = (std::ffi::CString::new(*name).unwrap(), vec![0u8; 4096]);
        // SAFETY: both strings end with a NUL, and the value has the length that is told.
        let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        let value = value.get(..length.max(0) as usize).filter(|_| length >= 0);
        println!("{}", value.map_or("-".into(), |value| String::from_utf8_lossy(value).into_owned()));
    }
}
