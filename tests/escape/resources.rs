//! What no control group counts. One sandbox takes all that it can get; another, and the host, have some still.
//!
//! | resource | whose | bound of a sandbox of `Sandbox::strict()` |
//! | --- | --- | --- |
//! | inotify instances, watches | the creator's user, 128 and some 190,000 | 8 and 4,096 |
//! | fanotify groups | the creator's user, 128 | none: refused by the filter, and by the user namespace's limit |
//! | POSIX message queues | the creator's user, 800 KiB | 96 KiB, one queue |
//! | asynchronous requests (`io_setup`) | the machine, 65,536 | none: refused by the filter |
//! | unread netlink replies | no limit | none: refused by the filter |
//! | compiled filters of sockets | the machine, `net.core.bpf_jit_limit` | none: refused by the filter |
//! | compiled filters of system calls | the machine, `net.core.bpf_jit_limit` | as many as its processes; none by a rule of the filter |
//! | labels of IPv6 flows | the machine, 4,096 | none: refused by the filter |
//! | large pages of the kernel's map (`memfd_secret`) | the machine | none: refused by the filter (tests/isolation/seccomp.rs) |
//! | TCP connections that outlast the sandbox | the machine, `tcp_max_orphans` and `tcp_mem` | those that it has, for a few minutes |
//! | huge pages | the machine | none: refused by the filter (tests/isolation/seccomp.rs) |
//! | keys | the user | none: refused by the filter (kernel.rs) |
//! | pseudoterminals | the machine, 3,072 | 16 |
//! | TCP and UDP buffers | the machine, `tcp_mem` and `udp_mem` | v1: a quarter of the memory limit; v2: the memory limit |
//! | AF_UNIX buffers, pipes | counted | the memory limit |
//! | queued signals, timers | the creator's user | 1,024 of both together |
//! | watches of epoll(7) | the user, a twenty-fifth of the memory | an id of its own, and the memory limit |
//! | locks of ranges of files | no limit | none but time: 192 bytes a lock, uncounted; none by a rule of the filter |
//! | flock(2) | no limit | one for each open file |
//! | descriptors in flight, pages of pipes | the user | an id of its own (ids.rs) |

use std::io::{BufRead, BufReader};

use ringfence::{
    Action, Bytes, Child, Compare, Dev, Enforcement, Feature, Resource, Rule, Sandbox, Seccomp, Stdio, UserLimit,
    Verdict,
};

use crate::take::{EPOLL_WATCHES, FILTERING, LOCKS};
use crate::{Answers, attack, attack_at, attack_inside, common};

/// What a limit of memory does not count, as `check` tells it. `None` is a host without control groups for this user.
fn uncounted(sandbox: &Sandbox) -> Option<String> {
    let limited = sandbox.clone().memory_limit(Bytes::mib(32)).best_effort(Feature::MemoryLimit);
    match limited.check().unwrap().get(Feature::MemoryLimit).unwrap() {
        Enforcement::Full => Some(String::new()),
        Enforcement::Partial(gap) => Some((*gap).to_owned()),
        _ => None,
    }
}

/// Takes, and holds what it has until the child's stdin is closed.
fn holder(sandbox: Sandbox, kind: &str) -> (Child, Answers) {
    let exe = std::env::current_exe().unwrap();
    let sandbox = attack_at(sandbox.bind_ro(exe, "/tmp/attack"), "/tmp/attack", &format!("take {kind} hold"));
    let mut child = sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    while !text.contains("ends=") {
        assert_ne!(stdout.read_line(&mut text).unwrap(), 0, "{kind}: {text}");
    }
    (child, Answers::of(&text))
}

#[track_caller]
fn taken(sandbox: Sandbox, kind: &str) -> (u64, String) {
    let answers = attack_inside(sandbox, &format!("take {kind}"));
    (answers.get("taken").parse().unwrap(), answers.get("ends").to_owned())
}

/// One sandbox gets `most` of `kind` and then `ends`; a second gets as many while the first has them, the host some, and
/// `relaxed` more than `most`.
#[track_caller]
fn shared(kind: &str, most: u64, ends: &str, relaxed: Sandbox) {
    let (mut first, answers) = holder(common::strict(), kind);
    let expected = (most, ends.to_owned());
    assert_eq!((answers.get("taken").parse().unwrap(), answers.get("ends").to_owned()), expected, "{kind}");
    assert_eq!(taken(common::strict(), kind), expected, "{kind}: the second");
    if kind != "watches" {
        let host = attack(Sandbox::new(), &format!("take {kind}"));
        assert!(host.get("taken").parse::<u64>().unwrap() > 0, "{kind}: the host, {host:?}");
    }
    drop(first.stdin.take());
    assert_eq!(first.wait().unwrap().verdict(), Verdict::Exited(0));
    let (more, _) = taken(relaxed, kind);
    assert!(more > most, "{kind}: {more} without the limit");
}

#[test]
fn tables_of_the_creators_user_are_not_taken_whole() {
    let _clean = common::clean();
    let open = |limit, count| common::strict().user_limit(limit, count);
    shared("inotify", 8, "EMFILE", open(UserLimit::InotifyInstances, 12));
    shared("watches", 4096, "ENOSPC", open(UserLimit::InotifyWatches, 4100));
    shared("queues", 1, "EMFILE", common::strict().rlimit(Resource::MessageQueue, 300 << 10, 300 << 10));
    let no_filter = || common::strict().seccomp(None);
    assert_eq!(taken(no_filter(), "fanotify"), (0, "EMFILE".to_owned()));
    assert_eq!(taken(no_filter().user_limit(UserLimit::FanotifyGroups, 2), "fanotify"), (2, "EMFILE".to_owned()));
    assert_eq!(taken(common::strict(), "fanotify"), (0, "EPERM".to_owned()));
}

/// One process gets as many as its descriptors make, in a table of an id of its own: where the table has room for just one
/// such process (tests/vm/guest makes it so), a second sandbox's id still has a whole one, and so has the host.
#[test]
fn watches_of_epoll_are_counted_for_each_sandbox_and_are_memory() {
    let _clean = common::clean();
    let expected = (EPOLL_WATCHES, "descriptors".to_owned());
    let (mut first, answers) = holder(common::strict(), "epoll");
    assert_eq!((answers.get("taken").parse().unwrap(), answers.get("ends").to_owned()), expected);
    assert_eq!(taken(common::strict(), "epoll"), expected, "the second");
    assert_eq!(attack(Sandbox::new(), "take epoll").get("ends"), "descriptors", "the host");
    drop(first.stdin.take());
    assert_eq!(first.wait().unwrap().verdict(), Verdict::Exited(0));
    if common::no_cgroups() {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let small = common::strict().memory_limit(Bytes::mib(8)).bind_ro(exe, "/tmp/attack");
    let output = attack_at(small, "/tmp/attack", "take epoll").output().unwrap();
    assert_eq!(output.outcome.verdict(), Verdict::OutOfMemory);
}

#[test]
fn tables_of_the_machine_are_refused() {
    let _clean = common::clean();
    let options = ["filters", "labels", "lasting", "pacing"].map(|kind| (kind, "ENOPROTOOPT"));
    for (kind, ends) in [("aio", "ENOSYS"), ("route", "EAFNOSUPPORT")].into_iter().chain(options) {
        assert_eq!(taken(common::strict(), kind), (0, ends.to_owned()), "{kind}");
        assert_eq!(taken(common::strict().seccomp(None), kind).0, 1, "{kind} without the filter");
    }
    // What the documentation tells who needs it.
    let route = Rule::new(["socket"], Action::Allow)
        .arg(0, Compare::int(libc::AF_NETLINK as u32))
        .arg(2, Compare::int(libc::NETLINK_ROUTE as u32));
    let allowing = common::strict().seccomp(Seccomp::default().rule(route));
    assert_eq!(taken(allowing.clone(), "route").0, 1);
    assert!(uncounted(&allowing).is_none_or(|gap| gap.contains("netlink")), "told");
}

/// Where a table of the machine holds several such sandboxes, the second one has a filter of its own, and so has its program;
/// with the rules of the documentation, no program has.
#[test]
fn filters_of_programs_leave_some_to_others() {
    let _clean = common::clean();
    let all = format!("{FILTERING} processes");
    let (mut first, answers) = holder(common::strict(), "call-filters");
    let (some, ends) = (answers.get("taken").parse::<u64>().unwrap(), answers.get("ends"));
    assert!(some >= 5 * FILTERING && ends == all, "{answers:?}");
    assert_eq!(taken(common::strict(), "call-filters"), (some, all), "the second");
    drop(first.stdin.take());
    assert_eq!(first.wait().unwrap().verdict(), Verdict::Exited(0));
    let invalid = |name| Rule::new([name], Action::Errno(libc::EINVAL));
    let prctl = invalid("prctl").arg(0, Compare::int(libc::PR_SET_SECCOMP as u32));
    let refusing = Seccomp::default().rule(invalid("seccomp")).rule(prctl);
    assert_eq!(taken(common::strict().seccomp(refusing), "call-filters"), (0, "EINVAL".to_owned()));
}

#[test]
fn terminals_are_counted() {
    let _clean = common::clean();
    shared("terminals", 16, "ENOSPC", common::strict().mount(Dev::new("/dev").terminals(18)));
    assert_eq!(taken(common::strict().mount(Dev::new("/dev").terminals(0)), "terminals"), (1, "ENOSPC".to_owned()));
}

#[test]
fn buffers_of_sockets_and_pipes_are_memory() {
    let _clean = common::clean();
    if common::no_cgroups() {
        return;
    }
    let limit = Bytes::mib(32);
    for kind in ["udp", "tcp", "unix", "pipes"] {
        let exe = std::env::current_exe().unwrap();
        let small = common::strict().memory_limit(limit).bind_ro(exe, "/tmp/attack");
        let output = attack_at(small, "/tmp/attack", &format!("take {kind}")).output().unwrap();
        if output.outcome.verdict() == Verdict::OutOfMemory {
            continue;
        }
        // On v1 the buffers of sockets have a counter of their own, beyond which nothing is received and nobody is killed.
        let answers = Answers::of(&String::from_utf8_lossy(&output.stdout));
        let held: u64 = answers.get("taken").parse().unwrap();
        assert!(["udp", "tcp"].contains(&kind), "{kind}: {answers:?}");
        assert!(held < limit.get() && answers.get("ends") == "descriptors", "{kind}: {answers:?}");
    }
    for kind in ["udp", "tcp", "unix", "pipes"] {
        assert_eq!(taken(common::strict(), kind).1, "none", "{kind} with more memory");
    }
}

/// What stays: 38 MiB of locks under a limit of 32 MiB. While one sandbox has them, another and the host have as many; with
/// the rule of the documentation there are none.
#[test]
fn locks_of_ranges_are_not_memory_until_they_are_refused() {
    let _clean = common::clean();
    let whole = (LOCKS, "none".to_owned());
    let strict = || if common::is_root() { common::strict().memory_limit(Bytes::mib(32)) } else { common::strict() };
    let (mut first, answers) = holder(strict(), "ranges");
    assert_eq!((answers.get("taken").parse().unwrap(), answers.get("ends").to_owned()), whole);
    assert_eq!(taken(strict(), "ranges"), whole, "the second");
    assert_eq!(attack(Sandbox::new(), "take ranges").get("ends"), "none", "the host");
    drop(first.stdin.take());
    assert_eq!(first.wait().unwrap().verdict(), Verdict::Exited(0));
    let commands = [libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK, libc::F_OFD_SETLKW];
    let refusing = commands.iter().fold(Seccomp::default(), |filter, command| {
        filter.rule(Rule::new(["fcntl"], Action::Errno(libc::ENOLCK)).arg(1, Compare::int(*command as u32)))
    });
    assert!(uncounted(&strict()).is_none_or(|gap| gap.contains("locks of ranges")), "told");
    assert_eq!(taken(strict().seccomp(refusing.clone()), "ranges"), (0, "ENOLCK".to_owned()));
    assert!(uncounted(&strict().seccomp(refusing)).is_none_or(|gap| !gap.contains("locks of ranges")), "not told");
}

/// The kernel counts a timer as a signal that may come of it.
#[test]
fn signals_and_timers_are_counted() {
    let _clean = common::clean();
    if !common::is_root() && common::kernel() < (5, 14) {
        return common::skip("the kernel counts these by the caller's user, whom all sandboxes share", true);
    }
    for kind in ["signals", "timers"] {
        let relaxed = common::strict().rlimit(Resource::SignalsPending, 1500, 1500);
        shared(kind, 1024, "EAGAIN", relaxed);
    }
}

#[test]
fn locks_of_whole_files_are_as_many_as_descriptors() {
    let _clean = common::clean();
    let few = |most| common::strict().rlimit(Resource::OpenFiles, most, most);
    let (some, ends) = taken(few(64), "flocks");
    assert!(ends == "EMFILE" && (40..64).contains(&some), "{some} {ends}");
    assert_eq!(taken(few(128), "flocks"), (some + 64, "EMFILE".to_owned()));
}

#[test]
fn names_are_resolved_without_netlink() {
    let _clean = common::clean();
    let dir = common::TempDir::new();
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 name.example\n").unwrap();
    let sandbox = || common::strict().bind_ro(&hosts, "/etc/hosts");
    for sandbox in [sandbox(), sandbox().seccomp(None)] {
        let found = attack_inside(sandbox, "take names");
        assert_eq!((found.get("taken"), found.get("ends")), ("1", "none"));
    }
}
