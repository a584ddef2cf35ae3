//! The predefined profiles. The documentation of [`Seccomp`] says what each one answers, and why.

use nix::errno::Errno;

use super::sockets::plain_protocols;
use super::{Action, Compare, Rule, Seccomp, uncounted};

/// The calls that any program makes: reading, memory, clocks, signals, threads.
const COMPUTE: &[&str] = &[
    "access",
    "alarm",
    "arch_prctl",
    "brk",
    "capget",
    "chdir",
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "close_range",
    "copy_file_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "eventfd",
    "eventfd2",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fchdir",
    "fcntl",
    "fdatasync",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fstat",
    "fstatfs",
    "fsync",
    "futex",
    "futex_requeue",
    "futex_wait",
    "futex_waitv",
    "futex_wake",
    "get_robust_list",
    "get_thread_area",
    "getcpu",
    "getcwd",
    "getdents",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getitimer",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getpriority",
    "getrandom",
    "getresgid",
    "getresuid",
    "getrlimit",
    "getrusage",
    "getsid",
    "gettid",
    "gettimeofday",
    "getuid",
    "getxattr",
    "getxattrat",
    "lgetxattr",
    "listxattr",
    "listxattrat",
    "llistxattr",
    "lseek",
    "lstat",
    "madvise",
    "map_shadow_stack",
    "membarrier",
    "memfd_create",
    "mincore",
    "mlock",
    "mlock2",
    "mlockall",
    "mmap",
    "mprotect",
    "mremap",
    "mseal",
    "msync",
    "munlock",
    "munlockall",
    "munmap",
    "nanosleep",
    "newfstatat",
    "pause",
    "pipe",
    "pipe2",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "preadv",
    "preadv2",
    "prlimit64",
    "pselect6",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readahead",
    "readlink",
    "readlinkat",
    "readv",
    "remap_file_pages",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_tgsigqueueinfo",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_getaffinity",
    "sched_getattr",
    "sched_getparam",
    "sched_getscheduler",
    "sched_rr_get_interval",
    "sched_setaffinity",
    "sched_yield",
    "select",
    "sendfile",
    "sendto",
    "set_robust_list",
    "set_thread_area",
    "set_tid_address",
    "setitimer",
    "setrlimit",
    "sigaltstack",
    "signalfd",
    "signalfd4",
    "splice",
    "stat",
    "statfs",
    "statx",
    "sync_file_range",
    "sysinfo",
    "tee",
    "tgkill",
    "time",
    "timer_create",
    "timer_delete",
    "timer_getoverrun",
    "timer_gettime",
    "timer_settime",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
    "times",
    "tkill",
    "umask",
    "uname",
    "uprobe",
    "uretprobe",
    "vmsplice",
    "wait4",
    "waitid",
    "write",
    "writev",
];

/// The additional calls for processes, files, sockets and IPC.
const CONTAINERS: &[&str] = &[
    "accept",
    "accept4",
    "adjtimex",
    "bind",
    "cachestat",
    "capset",
    "chmod",
    "chown",
    "clock_adjtime",
    "connect",
    "creat",
    "fallocate",
    "fanotify_mark",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    "fchownat",
    "file_getattr",
    "file_setattr",
    "fork",
    "fremovexattr",
    "fsetxattr",
    "ftruncate",
    "futimesat",
    "getpeername",
    "getsockname",
    "getsockopt",
    "inotify_add_watch",
    "inotify_init",
    "inotify_init1",
    "inotify_rm_watch",
    "io_cancel",
    "io_destroy",
    "io_getevents",
    "io_pgetevents",
    "io_submit",
    "ioctl",
    "ioprio_get",
    "ioprio_set",
    "kill",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "lchown",
    "link",
    "linkat",
    "listen",
    "listmount",
    "lremovexattr",
    "lsetxattr",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "mq_getsetattr",
    "mq_notify",
    "mq_open",
    "mq_timedreceive",
    "mq_timedsend",
    "mq_unlink",
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "name_to_handle_at",
    "open",
    "openat",
    "openat2",
    "pidfd_open",
    "pidfd_send_signal",
    "process_mrelease",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "removexattr",
    "removexattrat",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "sched_setattr",
    "sched_setparam",
    "sched_setscheduler",
    "seccomp",
    "semctl",
    "semget",
    "semop",
    "semtimedop",
    "sendmmsg",
    "sendmsg",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setgroups",
    "setpgid",
    "setpriority",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "setsid",
    "setsockopt",
    "setuid",
    "setxattr",
    "setxattrat",
    "shmat",
    "shmctl",
    "shmdt",
    "shmget",
    "shutdown",
    "statmount",
    "symlink",
    "symlinkat",
    "sync",
    "syncfs",
    "truncate",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "utimes",
    "vfork",
];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NEW_NAMESPACES: u64 = 0x7E02_0000;
/// In clone(2), this bit is part of the exit signal.
const NEW_TIME: u64 = 0x80;

/// The options of sockets that take from the whole machine, each with its level: compiled filters;
/// what makes a connection that nobody has open any more last for hours or weeks, and with it the
/// sandbox's network namespace, as no answer has to come; labels of flows, of which there are 4,096.
const REFUSED_OPTIONS: [(i32, i32); 6] = [
    (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
    (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF),
    (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, TCP_TX_DELAY),
    (libc::IPPROTO_IPV6, IPV6_FLOWLABEL_MGR),
];
/// linux/tcp.h (5.3).
const TCP_TX_DELAY: i32 = 37;
/// linux/in6.h.
const IPV6_FLOWLABEL_MGR: i32 = 32;

/// Returns the profile of Docker and containerd for a program without capabilities, made stricter
/// as the list in [`Seccomp`] says.
pub(super) fn containers() -> Seccomp {
    const PER_LINUX: u32 = 0;
    const PER_LINUX32: u32 = 8;
    const UNAME26: u32 = 0x2_0000;
    const ONLY_ASK: u32 = u32::MAX;
    let mut profile = Seccomp::allow_list()
        .allow(COMPUTE.iter().copied())
        .allow(CONTAINERS.iter().copied())
        .rule(Rule::new(["clone"], Action::Allow).arg(0, Compare::no_bits(NEW_NAMESPACES)))
        .rule(without_siblings())
        .rule(Rule::new(["unshare"], Action::Allow).arg(0, Compare::no_bits(NEW_NAMESPACES | NEW_TIME)))
        .rule(Rule::new(["clone3", "io_setup", "memfd_secret"], Action::ENOSYS))
        .rule(Rule::new(["socket", "socketpair"], Errno::EAFNOSUPPORT));
    for persona in [PER_LINUX, PER_LINUX32, UNAME26, PER_LINUX32 | UNAME26, ONLY_ASK] {
        profile = profile.rule(Rule::new(["personality"], Action::Allow).arg(0, Compare::int(persona)));
    }
    for request in [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD] {
        profile = profile.rule(Rule::new(["ioctl"], Action::EPERM).arg(1, Compare::int(request as u32)));
    }
    profile =
        plain_protocols(profile).rule(Rule::new(["socket"], Action::Allow).arg(0, Compare::int(libc::AF_UNIX as u32)));
    for (level, option) in REFUSED_OPTIONS {
        let level = Rule::new(["setsockopt"], Errno::ENOPROTOOPT).arg(1, Compare::int(level as u32));
        profile = profile.rule(level.arg(2, Compare::int(option as u32)));
    }
    let pair = Rule::new(["socketpair"], Action::Allow).arg(0, Compare::int(libc::AF_UNIX as u32));
    without_huge_pages(profile).rule(pair).rule(huge_page_call("shmget", 2, libc::SHM_HUGETLB as u32))
}

/// Refuses clone(2) with CLONE_PARENT, with the answer that the first process of a pid namespace
/// gets. The siblings of a further program would be children of the caller, who knows nothing of
/// them, and as long as nobody reaps them, the pid namespace cannot end.
pub(super) fn without_siblings() -> Rule {
    const PARENT: u64 = libc::CLONE_PARENT as u64;
    Rule::new(["clone"], Errno::EINVAL).arg(0, Compare::MaskedEq { mask: PARENT, value: PARENT })
}

/// Refuses huge pages. The host has a fixed number of them, and the memory controller does not
/// count them.
fn without_huge_pages(profile: Seccomp) -> Seccomp {
    profile.rule(huge_page_call("mmap", 3, libc::MAP_HUGETLB as u32)).rule(huge_page_call(
        "memfd_create",
        1,
        libc::MFD_HUGETLB,
    ))
}

/// Refuses a call with the answer of a host that has no huge pages left.
fn huge_page_call(name: &'static str, flags: u8, flag: u32) -> Rule {
    let set = Compare::MaskedEq { mask: flag.into(), value: flag.into() };
    Rule::new([name], Errno::ENOMEM).arg(flags, set)
}

pub(super) fn compute() -> Seccomp {
    const THREAD: u64 = libc::CLONE_THREAD as u64;
    // Everything that writes, creates or truncates. O_TMPFILE is O_DIRECTORY and one more bit.
    const O_TMPFILE: u64 = 0o20000000;
    let writes = libc::O_ACCMODE as u64 | (libc::O_CREAT | libc::O_TRUNC) as u64 | O_TMPFILE;
    let mut profile = Seccomp::allow_list()
        .allow(COMPUTE.iter().copied())
        .rule(
            Rule::new(["clone"], Action::Allow)
                .arg(0, Compare::MaskedEq { mask: NEW_NAMESPACES | THREAD, value: THREAD }),
        )
        .rule(Rule::new(["clone3", "openat2"], Action::ENOSYS))
        .rule(Rule::new(["open", "openat"], Errno::EACCES))
        .rule(Rule::new(["open"], Action::Allow).arg(1, Compare::no_bits(writes)))
        .rule(Rule::new(["openat"], Action::Allow).arg(2, Compare::no_bits(writes)))
        .rule(Rule::new(["ioctl"], Errno::ENOTTY));
    // A lock of a range is memory that no control group counts, and nothing limits their number.
    for command in uncounted::LOCKS {
        profile = profile.rule(Rule::new(["fcntl"], Errno::ENOLCK).arg(1, Compare::int(command as u32)));
    }
    profile = without_huge_pages(profile);
    // The ioctls that stdio and interpreters use on descriptors.
    for request in [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONREAD, libc::FIOCLEX, libc::FIONCLEX, libc::FIONBIO] {
        profile = profile.rule(Rule::new(["ioctl"], Action::Allow).arg(1, Compare::int(request as u32)));
    }
    profile
}

#[cfg(test)]
mod tests {
    use super::super::table::{Known, look_up};
    use super::*;

    #[test]
    fn every_name_is_one_and_stands_once() {
        let all: Vec<&str> = COMPUTE.iter().chain(CONTAINERS).copied().collect();
        for (i, name) in all.iter().enumerate() {
            assert!(!all[..i].contains(name), "{name} stands twice");
            // Calls of architectures that the crate does not support are not mistakes, but have no
            // effect.
            assert_ne!(look_up(name), Known::Unknown, "{name}");
        }
        for list in [COMPUTE, CONTAINERS] {
            assert!(list.is_sorted());
        }
    }
}
