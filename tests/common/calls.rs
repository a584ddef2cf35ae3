//! System calls that a program makes to see what it is told: each so that it changes nothing where it is allowed.

use std::ffi::CStr;

/// Makes the calls that are named and says `name errno` for each, 0 for one that succeeded.
pub fn make(names: &[&str]) {
    for name in names {
        println!("{name} {}", errno_of(name));
    }
}

/// Makes the calls with these numbers, without arguments.
pub fn make_numbers(numbers: &[&str]) {
    for number in numbers {
        // SAFETY: no pointers; the numbers are those of no call of this architecture.
        let result = unsafe { libc::syscall(number.parse().unwrap(), 0, 0, 0, 0, 0, 0) };
        println!("{number} {}", if result < 0 { nix::errno::Errno::last_raw() } else { 0 });
    }
}

/// Every call that the default profile refuses and that this program can make, with its errno.
pub fn refused() -> Vec<(&'static str, i32)> {
    let eperm = [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "bpf",
        "userfaultfd",
        "perf_event_open",
        "keyctl",
        "add_key",
        "request_key",
        "open_by_handle_at",
        "fanotify_init",
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "process_madvise",
        "pidfd_getfd",
        "kcmp",
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "open_tree",
        "move_mount",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "quotactl",
        "quotactl_fd",
        "swapon",
        "swapoff",
        "settimeofday",
        "clock_settime",
        "sethostname",
        "setdomainname",
        "syslog",
        "acct",
        "reboot",
        "personality-no-randomize",
        "clone-user",
        "setns",
        "mbind",
        "tiocsti",
        "tiocsti-high",
        "tioclinux",
        "tioclinux-high",
        "tiocsetd",
        // Where they are allowed, they change what the others would be told.
        "unshare-time",
        "unshare-mount",
        "unshare-user",
    ];
    let no_family = ["vsock", "packet", "alg", "can", "netlink-diag", "netlink-route", "socketpair-tipc"];
    let mut all: Vec<_> = eperm.into_iter().map(|name| (name, libc::EPERM)).collect();
    all.extend(no_family.map(|name| (name, libc::EAFNOSUPPORT)));
    all.extend(["clone3", "io_setup", "memfd_secret"].map(|name| (name, libc::ENOSYS)));
    all.extend(["mmap-huge", "mmap-huge-1g", "memfd-huge", "shmget-huge"].map(|name| (name, libc::ENOMEM)));
    let no_option = ["attach-filter", "attach-reuseport", "pacing-rate", "user-timeout", "tx-delay", "flow-labels"];
    all.extend(no_option.map(|name| (name, libc::ENOPROTOOPT)));
    all
}

/// Calls that it allows, which look much like those.
pub const ALLOWED: [&str; 11] = [
    "getpid",
    "personality-ask",
    "personality-linux",
    "unshare-files",
    "clone-plain",
    "unix",
    "inet",
    "inet6",
    "socketpair-unix",
    "adjtimex-read",
    "tcgets",
];

const NONE: usize = -1isize as usize;
const HUGE: usize = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB) as usize;

fn text(text: &'static CStr) -> usize {
    text.as_ptr() as usize
}

fn errno_of(name: &str) -> i32 {
    // All of these fail for their arguments, or do nothing, where they are allowed.
    let unset = [0usize; 32];
    let (number, args): (libc::c_long, [usize; 6]) = match name {
        "io_uring_setup" => (libc::SYS_io_uring_setup, [0; 6]),
        "io_uring_enter" => (libc::SYS_io_uring_enter, [NONE, 0, 0, 0, 0, 0]),
        "io_uring_register" => (libc::SYS_io_uring_register, [NONE, 0, 0, 0, 0, 0]),
        "bpf" => (libc::SYS_bpf, [9999, 0, 0, 0, 0, 0]),
        "userfaultfd" => (libc::SYS_userfaultfd, [0xffff_ff00, 0, 0, 0, 0, 0]),
        "perf_event_open" => (libc::SYS_perf_event_open, [0, 0, NONE, NONE, 0, 0]),
        "keyctl" => (libc::SYS_keyctl, [9999, 0, 0, 0, 0, 0]),
        "add_key" => (libc::SYS_add_key, [0; 6]),
        "request_key" => (libc::SYS_request_key, [0; 6]),
        "open_by_handle_at" => (libc::SYS_open_by_handle_at, [NONE, 0, 0, 0, 0, 0]),
        "fanotify_init" => (libc::SYS_fanotify_init, [0xffff_0000, 0, 0, 0, 0, 0]),
        "kexec_load" => (libc::SYS_kexec_load, [0, 9999, 0, 0xffff, 0, 0]),
        "kexec_file_load" => (libc::SYS_kexec_file_load, [NONE, NONE, 0, 0, 0xffff, 0]),
        "init_module" => (libc::SYS_init_module, [0; 6]),
        "finit_module" => (libc::SYS_finit_module, [NONE, text(c""), 0, 0, 0, 0]),
        "delete_module" => (libc::SYS_delete_module, [text(c"no_such_module"), 0, 0, 0, 0, 0]),
        "ptrace" => (libc::SYS_ptrace, [9999, 0, 0, 0, 0, 0]),
        "process_vm_readv" => (libc::SYS_process_vm_readv, [std::process::id() as usize, 0, 0, 0, 0, 0]),
        "process_vm_writev" => (libc::SYS_process_vm_writev, [std::process::id() as usize, 0, 0, 0, 0, 0]),
        "process_madvise" => (libc::SYS_process_madvise, [NONE, 0, 0, 0, 0, 0]),
        "pidfd_getfd" => (libc::SYS_pidfd_getfd, [NONE, 0, 0, 0, 0, 0]),
        "kcmp" => (libc::SYS_kcmp, [std::process::id() as usize, std::process::id() as usize, 1, 0, 0, 0]),
        "mount" => (libc::SYS_mount, [text(c"x"), text(c"/no/such/place"), text(c"tmpfs"), 0, 0, 0]),
        "umount2" => (libc::SYS_umount2, [text(c"/no/such/place"), 0, 0, 0, 0, 0]),
        "pivot_root" => (libc::SYS_pivot_root, [text(c"/no/such/place"), text(c"/no/such/place"), 0, 0, 0, 0]),
        "chroot" => (libc::SYS_chroot, [text(c"/no/such/place"), 0, 0, 0, 0, 0]),
        "open_tree" => (libc::SYS_open_tree, [NONE, text(c""), 0xffff_0000, 0, 0, 0]),
        "move_mount" => (libc::SYS_move_mount, [NONE, text(c""), NONE, text(c""), 0xffff_0000, 0]),
        "fsopen" => (libc::SYS_fsopen, [text(c"tmpfs"), 0xffff_0000, 0, 0, 0, 0]),
        "fsconfig" => (libc::SYS_fsconfig, [NONE, 0, 0, 0, 0, 0]),
        "fsmount" => (libc::SYS_fsmount, [NONE, 0xffff_0000, 0, 0, 0, 0]),
        "fspick" => (libc::SYS_fspick, [NONE, text(c""), 0xffff_0000, 0, 0, 0]),
        "mount_setattr" => (libc::SYS_mount_setattr, [NONE, text(c""), 0xffff_0000, 0, 0, 0]),
        "quotactl" => (libc::SYS_quotactl, [0x7fff_ff00, 0, 0, 0, 0, 0]),
        "quotactl_fd" => (libc::SYS_quotactl_fd, [NONE, 0x7fff_ff00, 0, 0, 0, 0]),
        "swapon" => (libc::SYS_swapon, [text(c"/no/such/place"), 0xffff_0000, 0, 0, 0, 0]),
        "swapoff" => (libc::SYS_swapoff, [text(c"/no/such/place"), 0, 0, 0, 0, 0]),
        "settimeofday" => (libc::SYS_settimeofday, [0; 6]),
        "clock_settime" => (libc::SYS_clock_settime, [9999, unset.as_ptr() as usize, 0, 0, 0, 0]),
        "sethostname" => (libc::SYS_sethostname, [text(c"x"), 9999, 0, 0, 0, 0]),
        "setdomainname" => (libc::SYS_setdomainname, [text(c"x"), 9999, 0, 0, 0, 0]),
        "syslog" => (libc::SYS_syslog, [10, 0, 0, 0, 0, 0]),
        "acct" => (libc::SYS_acct, [text(c"/no/such/place"), 0, 0, 0, 0, 0]),
        "reboot" => (libc::SYS_reboot, [0; 6]),
        "personality-no-randomize" => (libc::SYS_personality, [0x004_0000, 0, 0, 0, 0, 0]),
        "personality-ask" => (libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]),
        "personality-linux" => (libc::SYS_personality, [0; 6]),
        "unshare-user" => (libc::SYS_unshare, [libc::CLONE_NEWUSER as usize, 0, 0, 0, 0, 0]),
        "unshare-mount" => (libc::SYS_unshare, [libc::CLONE_NEWNS as usize, 0, 0, 0, 0, 0]),
        "unshare-time" => (libc::SYS_unshare, [libc::CLONE_NEWTIME as usize, 0, 0, 0, 0, 0]),
        "unshare-files" => (libc::SYS_unshare, [libc::CLONE_FILES as usize, 0, 0, 0, 0, 0]),
        "setns" => (libc::SYS_setns, [NONE, 0, 0, 0, 0, 0]),
        "mbind" => (libc::SYS_mbind, [0, 0, 9999, 0, 0, 0]),
        // With a size that no kernel takes, where it is there.
        "clone3" => (libc::SYS_clone3, [0; 6]),
        "clone-user" => return clone(libc::CLONE_NEWUSER),
        "clone-plain" => return clone(0),
        // Of a descriptor that is no terminal: allowed, it is ENOTTY or EBADF. The kernel reads 32 bits of the request.
        "tiocsti" => (libc::SYS_ioctl, [NONE, libc::TIOCSTI as usize, text(c"x"), 0, 0, 0]),
        "tiocsti-high" => (libc::SYS_ioctl, [NONE, libc::TIOCSTI as usize | 1 << 32, text(c"x"), 0, 0, 0]),
        "tioclinux" => (libc::SYS_ioctl, [NONE, libc::TIOCLINUX as usize, text(c"x"), 0, 0, 0]),
        "tioclinux-high" => (libc::SYS_ioctl, [NONE, libc::TIOCLINUX as usize | 0xabcd << 40, text(c"x"), 0, 0, 0]),
        "tiocsetd" => (libc::SYS_ioctl, [NONE, libc::TIOCSETD as usize | 1 << 32, unset.as_ptr() as usize, 0, 0, 0]),
        "tcgets" => return terminal(),
        "vsock" => (libc::SYS_socket, [libc::AF_VSOCK as usize, 9999, 0, 0, 0, 0]),
        "packet" => (libc::SYS_socket, [libc::AF_PACKET as usize | 1 << 32, 9999, 0, 0, 0, 0]),
        "alg" => (libc::SYS_socket, [libc::AF_ALG as usize, 9999, 0, 0, 0, 0]),
        "can" => (libc::SYS_socket, [libc::AF_CAN as usize, 9999, 0, 0, 0, 0]),
        "netlink-diag" => (libc::SYS_socket, [libc::AF_NETLINK as usize, 9999, 4, 0, 0, 0]),
        "netlink-route" => (libc::SYS_socket, [libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, 0, 0, 0, 0]),
        // No length, no name, no size: where the flags are allowed, that is what the kernel finds fault with.
        "mmap-huge" => (libc::SYS_mmap, [0, 0, 0, HUGE, NONE, 0]),
        "mmap-huge-1g" => (libc::SYS_mmap, [0, 0, 0, HUGE | libc::MAP_HUGE_1GB as usize, NONE, 0]),
        "memfd-huge" => (libc::SYS_memfd_create, [0, libc::MFD_HUGETLB as usize, 0, 0, 0, 0]),
        "shmget-huge" => (libc::SYS_shmget, [0, 0, (libc::SHM_HUGETLB | libc::IPC_CREAT) as usize | 1 << 32, 0, 0, 0]),
        "io_setup" => (libc::SYS_io_setup, [0; 6]),
        "memfd_secret" => (libc::SYS_memfd_secret, [0xffff, 0, 0, 0, 0, 0]),
        "attach-filter" => (libc::SYS_setsockopt, [NONE, 1 | 1 << 32, libc::SO_ATTACH_FILTER as usize, 0, 0, 0]),
        "attach-reuseport" => (libc::SYS_setsockopt, [NONE, 1, 51 | 1 << 32, 0, 0, 0]),
        "pacing-rate" => (libc::SYS_setsockopt, [NONE, 1 | 1 << 32, 47, 0, 0, 0]),
        "user-timeout" => (libc::SYS_setsockopt, [NONE, 6, 18 | 1 << 32, 0, 0, 0]),
        "tx-delay" => (libc::SYS_setsockopt, [NONE, 6 | 1 << 32, 37, 0, 0, 0]),
        "flow-labels" => (libc::SYS_setsockopt, [NONE, 41, 32 | 1 << 32, 0, 0, 0]),
        "unix" => (libc::SYS_socket, [libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0, 0, 0, 0]),
        "inet" => (libc::SYS_socket, [libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0, 0, 0, 0]),
        "inet6" => (libc::SYS_socket, [libc::AF_INET6 as usize, libc::SOCK_STREAM as usize, 0, 0, 0, 0]),
        "socketpair-tipc" => (libc::SYS_socketpair, [libc::AF_TIPC as usize, 9999, 0, unset.as_ptr() as usize, 0, 0]),
        "socketpair-unix" => (
            libc::SYS_socketpair,
            [libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0, unset.as_ptr() as usize, 0, 0],
        ),
        "adjtimex-read" => (libc::SYS_adjtimex, [unset.as_ptr() as usize, 0, 0, 0, 0, 0]),
        "getpid" => (libc::SYS_getpid, [0; 6]),
        "newer-than-the-table" => (600, [0; 6]),
        "i386-getpid" => return i386_getpid(),
        "x32-getpid" => (0x4000_0000 + libc::SYS_getpid, [0; 6]),
        "read-nothing" => (libc::SYS_read, [NONE, 0, 0, 0, 0, 0]),
        // A number for a filter to compare: the call itself takes none, and nothing else calls it.
        other => match other.strip_prefix("yield:") {
            Some(number) => (libc::SYS_sched_yield, [number.parse::<u64>().unwrap() as usize, 0, 0, 0, 0, 0]),
            None => panic!("no call {other}"),
        },
    };
    // SAFETY: the calls read and write at most the buffers above, which outlive them.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    std::hint::black_box(unset);
    if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap() } else { 0 }
}

/// A child that ends at once.
fn clone(flags: i32) -> i32 {
    // SAFETY: as fork(2): this process has one thread, and the child only exits.
    unsafe {
        match libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) {
            -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
            0 => libc::_exit(0),
            pid => {
                libc::waitpid(pid as i32, std::ptr::null_mut(), 0);
                0
            }
        }
    }
}

/// An ioctl on /dev/null: ENOTTY says that it got through to it.
fn terminal() -> i32 {
    let null = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: /dev/null takes no such request, and writes nothing.
    unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&null), libc::TCGETS, 0) };
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap();
    if errno == libc::ENOTTY { 0 } else { errno }
}

/// getpid by the rules of i386, where it has the number 20.
#[cfg(target_arch = "x86_64")]
fn i386_getpid() -> i32 {
    let result: i64;
    // SAFETY: the call has no arguments and touches no memory; the entry preserves everything but rax and r8 to r11.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20i64 => result,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    let result = result as i32;
    if result < 0 { -result } else { 0 }
}

#[cfg(not(target_arch = "x86_64"))]
fn i386_getpid() -> i32 {
    libc::ENOSYS
}
