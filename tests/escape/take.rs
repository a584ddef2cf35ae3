//! Takes as much as it can get of one resource, up to a bound that leaves the host the most of it; says how much that was and
//! what ended it, and with `hold` keeps it until its stdin ends.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use crate::attack::{call, errno};

const MIB: u64 = 1 << 20;
/// What is asked for where a memory limit of 32 MiB has to say no.
pub const BEYOND: u64 = 64 * MIB;

pub fn run(words: &[&str]) {
    // Kept until the end of the process, or there would be nothing taken.
    let mut kept = Vec::new();
    let (taken, ends) = match words[0] {
        "inotify" => count(20, &mut kept, |_| fd(call(libc::SYS_inotify_init1, [0; 6]))),
        "watches" => watches(&mut kept),
        "fanotify" => count(4, &mut kept, |_| fd(call(libc::SYS_fanotify_init, [FAN_REPORT_FID, 0, 0, 0, 0, 0]))),
        "queues" => count(3, &mut kept, queue),
        "aio" => count(1, &mut kept, |_| aio()),
        "route" => count(1, &mut kept, |_| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
        "terminals" => {
            count(20, &mut kept, |_| File::options().read(true).write(true).open("/dev/ptmx").map(OwnedFd::from))
        }
        "udp" => bytes(&mut kept, udp),
        "tcp" => bytes(&mut kept, tcp),
        "unix" => bytes(&mut kept, unix),
        "pipes" => bytes(&mut kept, pipe),
        "epoll" => watched_by_epoll(&mut kept),
        "filters" => count(1, &mut kept, |_| filter()),
        "labels" => count(1, &mut kept, |_| label()),
        "lasting" => count(1, &mut kept, |_| lasting(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT)),
        "pacing" => count(1, &mut kept, |_| lasting(libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE)),
        "call-filters" => call_filters(),
        "names" => names(),
        "ranges" => ranges(&mut kept),
        "flocks" => flocks(&mut kept),
        "signals" => count(2000, &mut Vec::new(), signal),
        "timers" => count(2000, &mut Vec::new(), timer),
        other => panic!("nothing {other} to take"),
    };
    println!("taken={taken}\nends={ends}");
    let _ = io::stdout().flush();
    if words.get(1) == Some(&"hold") {
        let _ = io::stdin().read(&mut [0]);
    }
}

/// How many epoll sets, and how many descriptors that each of them watches.
const EACH: u64 = 240;
pub const EPOLL_WATCHES: u64 = EACH * EACH;
const FAN_REPORT_FID: usize = 0x200;

/// How many files, and how many ranges of each of them. The kernel goes through all of one file for each new one.
const FILES: u64 = 400;
const RANGES: u64 = 500;
pub const LOCKS: u64 = FILES * RANGES;

fn count<T>(most: u64, kept: &mut Vec<T>, take: impl Fn(u64) -> io::Result<T>) -> (u64, String) {
    for number in 0..most {
        match take(number) {
            Ok(one) => kept.push(one),
            Err(error) => return (number, errno(&error)),
        }
    }
    (most, "none".to_owned())
}

/// Fills one after another; `fill` gives the descriptors, and how many bytes lie in them.
fn bytes(kept: &mut Vec<OwnedFd>, fill: impl Fn() -> io::Result<(Vec<OwnedFd>, u64)>) -> (u64, String) {
    let mut total = 0;
    // As many as have room in the table of descriptors.
    for _ in 0..480 {
        match fill() {
            Ok((fds, held)) => {
                kept.extend(fds);
                total += held;
            }
            Err(error) => return (total, errno(&error)),
        }
        if total >= BEYOND {
            return (total, "none".to_owned());
        }
    }
    (total, "descriptors".to_owned())
}

fn fd(result: io::Result<i64>) -> io::Result<OwnedFd> {
    // SAFETY: the system call has just made it.
    result.map(|number| unsafe { OwnedFd::from_raw_fd(number as RawFd) })
}

fn socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    fd(call(libc::SYS_socket, [family as usize, (kind | libc::SOCK_CLOEXEC) as usize, 0, 0, 0, 0]))
}

/// One queue as mq_open(3) makes it without attributes.
fn queue(number: u64) -> io::Result<OwnedFd> {
    let name = CString::new(format!("ringfence-{}-{number}", std::process::id())).unwrap();
    let flags = (libc::O_CREAT | libc::O_RDWR) as usize;
    let made = fd(call(libc::SYS_mq_open, [name.as_ptr() as usize, flags, 0o600, 0, 0, 0]));
    // A queue without a name lasts as long as its descriptor.
    let _ = call(libc::SYS_mq_unlink, [name.as_ptr() as usize, 0, 0, 0, 0, 0]);
    made
}

fn aio() -> io::Result<OwnedFd> {
    let mut context = 0usize;
    call(libc::SYS_io_setup, [1, &raw mut context as usize, 0, 0, 0, 0])?;
    Ok(File::open("/dev/null")?.into())
}

fn watches(kept: &mut Vec<OwnedFd>) -> (u64, String) {
    let inotify = fd(call(libc::SYS_inotify_init1, [0; 6])).unwrap();
    let number = inotify.as_raw_fd() as usize;
    kept.push(inotify);
    let mut taken = 0;
    while taken < 4200 {
        let path = format!("/tmp/watched-{taken}");
        fs::write(&path, "").unwrap();
        let name = CString::new(path).unwrap();
        let args = [number, name.as_ptr() as usize, libc::IN_OPEN as usize, 0, 0, 0];
        match call(libc::SYS_inotify_add_watch, args) {
            Ok(_) => taken += 1,
            Err(error) => return (taken, errno(&error)),
        }
    }
    (taken, "none".to_owned())
}

/// Each of as many epoll sets as have room watches each of as many descriptors.
fn watched_by_epoll(kept: &mut Vec<OwnedFd>) -> (u64, String) {
    let new = |call_number| fd(call(call_number, [0; 6])).unwrap();
    let sets: Vec<OwnedFd> = (0..EACH).map(|_| new(libc::SYS_epoll_create1)).collect();
    let watched: Vec<OwnedFd> = (0..EACH).map(|_| new(libc::SYS_eventfd2)).collect();
    let event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    let mut taken = 0;
    for (set, one) in sets.iter().flat_map(|set| watched.iter().map(move |one| (set, one))) {
        let place = &raw const event as usize;
        let args = [set.as_raw_fd() as usize, libc::EPOLL_CTL_ADD as usize, one.as_raw_fd() as usize, place, 0, 0];
        match call(libc::SYS_epoll_ctl, args) {
            Ok(_) => taken += 1,
            Err(error) => return (taken, errno(&error)),
        }
    }
    kept.extend(sets.into_iter().chain(watched));
    (taken, "descriptors".to_owned())
}

/// A signal that waits until the end, as it is blocked.
fn signal(_: u64) -> io::Result<i64> {
    // SAFETY: a set and a value of this frame's.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGRTMIN());
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
        match libc::sigqueue(libc::getpid(), libc::SIGRTMIN(), value) {
            0 => Ok(0),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn timer(_: u64) -> io::Result<i64> {
    let mut timer = 0i32;
    call(libc::SYS_timer_create, [libc::CLOCK_MONOTONIC as usize, 0, &raw mut timer as usize, 0, 0, 0])
}

fn locked(number: u64) -> io::Result<File> {
    // Elsewhere than the files of another one who does this at the same time.
    let path = std::env::temp_dir().join(format!("locked-{}-{number}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    // It lasts as long as its descriptor.
    fs::remove_file(path)?;
    file
}

/// As many locks of ranges as were asked for, none beside another: those would become one.
fn ranges(kept: &mut Vec<OwnedFd>) -> (u64, String) {
    for number in 0..FILES {
        let file = locked(number).unwrap();
        for range in (0..RANGES).rev() {
            let lock = libc::flock {
                l_type: libc::F_WRLCK as i16,
                l_whence: libc::SEEK_SET as i16,
                l_start: 2 * range as i64,
                l_len: 1,
                l_pid: 0,
            };
            let args = [file.as_raw_fd() as usize, libc::F_SETLK as usize, &raw const lock as usize, 0, 0, 0];
            if let Err(error) = call(libc::SYS_fcntl, args) {
                return (number * RANGES + (RANGES - 1 - range), errno(&error));
            }
        }
        kept.push(file.into());
    }
    (LOCKS, "none".to_owned())
}

/// One lock for each open file, until there are no descriptors left.
fn flocks(kept: &mut Vec<OwnedFd>) -> (u64, String) {
    let file = locked(0).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    count(1 << 16, kept, |_| {
        let one = File::options().read(true).open(&path)?;
        call(libc::SYS_flock, [one.as_raw_fd() as usize, (libc::LOCK_SH | libc::LOCK_NB) as usize, 0, 0, 0, 0])?;
        Ok(one.into())
    })
}

/// The addresses of a name, which a C library would ask netlink about if it could.
fn names() -> (u64, String) {
    match ("name.example", 80).to_socket_addrs() {
        Ok(found) => (found.count() as u64, "none".to_owned()),
        Err(error) => (0, error.to_string()),
    }
}

fn set_buffer(socket: &impl AsRawFd, which: i32) {
    let size: i32 = 4 << 20;
    let place = &raw const size as usize;
    let args = [socket.as_raw_fd() as usize, libc::SOL_SOCKET as usize, which as usize, place, 4, 0];
    call(libc::SYS_setsockopt, args).unwrap();
}

/// What the kernel has charged for what lies unread in a socket.
fn unread(socket: &impl AsRawFd) -> u64 {
    let (mut info, mut size) = ([0u32; 9], 36u32);
    let args = [
        socket.as_raw_fd() as usize,
        libc::SOL_SOCKET as usize,
        libc::SO_MEMINFO as usize,
        info.as_mut_ptr() as usize,
        &raw mut size as usize,
        0,
    ];
    call(libc::SYS_getsockopt, args).unwrap();
    info[0].into()
}

fn udp() -> io::Result<(Vec<OwnedFd>, u64)> {
    let (from, to) = (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    set_buffer(&to, libc::SO_RCVBUF);
    for _ in 0..64 {
        let _ = from.send_to(&[1; 60_000], to.local_addr()?);
    }
    let held = unread(&to);
    Ok((vec![to.into()], held))
}

fn tcp() -> io::Result<(Vec<OwnedFd>, u64)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let from = TcpStream::connect(listener.local_addr()?)?;
    let (to, _) = listener.accept()?;
    set_buffer(&from, libc::SO_SNDBUF);
    set_buffer(&to, libc::SO_RCVBUF);
    from.set_nonblocking(true)?;
    let held = fill(&from);
    Ok((vec![from.into(), to.into()], held))
}

fn unix() -> io::Result<(Vec<OwnedFd>, u64)> {
    let (from, to) = UnixDatagram::pair()?;
    set_buffer(&from, libc::SO_SNDBUF);
    from.set_nonblocking(true)?;
    let mut held = 0;
    while let Ok(sent) = from.send(&[1; 60_000]) {
        held += sent as u64;
    }
    Ok((vec![from.into(), to.into()], held))
}

fn pipe() -> io::Result<(Vec<OwnedFd>, u64)> {
    let (to, from) = io::pipe()?;
    // SAFETY: numbers alone.
    unsafe {
        libc::fcntl(from.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 20);
        libc::fcntl(from.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
    }
    let held = fill(&from);
    Ok((vec![to.into(), from.into()], held))
}

fn fill<'w, W>(writer: &'w W) -> u64
where
    &'w W: Write,
{
    let (mut writer, mut held) = (writer, 0);
    while let Ok(sent) = writer.write(&[1; 1 << 16]) {
        held += sent as u64;
    }
    held
}

/// How many processes take filters, and how long a filter may be.
pub const FILTERING: u64 = 240;
const LONGEST: usize = 4096;

/// As many filters of system calls as many processes can install, each of the longest. They keep them until they are ended.
fn call_filters() -> (u64, String) {
    let (mut ends, end) = io::pipe().unwrap();
    let mut forked = 0;
    while forked < FILTERING {
        // SAFETY: the test's program has one thread; the child installs filters, writes to the pipe, and waits.
        match unsafe { libc::fork() } {
            0 => {
                let nothing = libc::sock_filter { code: 0, jt: 0, jf: 0, k: 1 };
                let mut longest = [nothing; LONGEST];
                longest[LONGEST - 1] = libc::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
                let program = libc::sock_fprog { len: LONGEST as u16, filter: longest.as_mut_ptr() };
                let args = [libc::SECCOMP_SET_MODE_FILTER as usize, 0, &raw const program as usize, 0, 0, 0];
                let (taken, why) = count(64, &mut Vec::new(), |_| call(libc::SYS_seccomp, args));
                let _ = (&end).write_all(&[taken as u8, u8::from(why == "EINVAL")]);
                loop {
                    // SAFETY: pause(2) takes nothing.
                    unsafe { libc::pause() };
                }
            }
            1.. => forked += 1,
            _ => break,
        }
    }
    let mut told = vec![0; 2 * forked as usize];
    ends.read_exact(&mut told).unwrap();
    let taken = told.chunks(2).map(|one| u64::from(one[0])).sum();
    let refused = told.chunks(2).all(|one| one[1] == 1);
    (taken, if refused { "EINVAL".to_owned() } else { format!("{forked} processes") })
}

/// A classic filter that lets everything through.
fn filter() -> io::Result<OwnedFd> {
    let one = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    let accept = libc::sock_filter { code: 6, jt: 0, jf: 0, k: u32::MAX };
    let program = libc::sock_fprog { len: 1, filter: (&raw const accept).cast_mut() };
    let args = [
        one.as_raw_fd() as usize,
        libc::SOL_SOCKET as usize,
        libc::SO_ATTACH_FILTER as usize,
        &raw const program as usize,
        size_of_val(&program),
        0,
    ];
    call(libc::SYS_setsockopt, args)?;
    Ok(one)
}

fn set_option<T>(one: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<i64> {
    let place = std::ptr::from_ref(value) as usize;
    call(libc::SYS_setsockopt, [one.as_raw_fd() as usize, level as usize, option as usize, place, size_of::<T>(), 0])
}

/// A label of a flow to ::1, which the socket has until it is closed.
fn label() -> io::Result<OwnedFd> {
    const IPV6_FLOWLABEL_MGR: i32 = 32;
    const CREATE_EXCLUSIVE: u16 = 3;
    #[repr(C)]
    struct Request {
        to: [u8; 16],
        label: u32,
        action: u8,
        share: u8,
        flags: u16,
        expires: u16,
        linger: u16,
        padding: u32,
    }
    let one = socket(libc::AF_INET6, libc::SOCK_DGRAM)?;
    let to = std::net::Ipv6Addr::LOCALHOST.octets();
    let wanted =
        Request { to, label: 0, action: 0, share: 255, flags: CREATE_EXCLUSIVE, expires: 6, linger: 6, padding: 0 };
    set_option(&one, libc::IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, &wanted)?;
    Ok(one)
}

/// A connection that may go on for long when nobody has it open any more.
fn lasting(level: i32, option: i32) -> io::Result<OwnedFd> {
    let one = socket(libc::AF_INET, libc::SOCK_STREAM)?;
    set_option(&one, level, option, &100_000_000i32)?;
    Ok(one)
}
