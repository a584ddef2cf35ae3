//! System call filters: seccomp(2).
//!
//! Stage: last before the program's exec, in the stub. The filter is compiled before a child
//! exists.

mod bpf;
mod compile;
mod denial;
mod emit;
#[cfg(feature = "seccomp-json")]
mod json;
mod notify;
mod presets;
mod remote;
mod rule;
mod sockets;
mod table;
mod text;
mod uncounted;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;

pub(crate) use denial::DenialRecord;
pub use denial::{Denial, Denials};
#[cfg(feature = "oci")]
pub(crate) use json::Leniencies;
pub use notify::{Notification, Notifications};
pub(crate) use remote::{RemoteConnection, RemoteSupervisor};
pub use rule::{Action, Compare, DenialRule, Rule};
pub use table::Architecture;
pub(crate) use uncounted::WITHOUT_FILTER;

use crate::error::Problem;
use crate::feature::Feature;
use crate::sys::fork_mark::PerProcess;
use crate::sys::seccomp as kernel;
use compile::{CallRules, Compiled};
use table::Known;

/// The largest number of comparisons in one rule: twice the number of a system call's arguments.
/// More are a mistake.
const MAX_COMPARISONS: usize = 12;
/// A filter of the system calls that the program, and everything that it starts, may make:
/// seccomp(2).
///
/// [`Seccomp::default`] is for untrusted programs. [`Seccomp::compute`] is much stricter, for
/// programs that only compute. [`allow_list`](Seccomp::allow_list) and
/// [`deny_list`](Seccomp::deny_list) start empty. All accept further rules; **the rule added last
/// that matches a call decides**.
///
/// ```
/// use ringfence::{Action, Compare, Rule, Sandbox, Seccomp, Verdict};
///
/// # fn main() -> Result<(), ringfence::Error> {
/// let filter = Seccomp::default()
///     .allow(["ptrace"]) // for strace(1)
///     .deny(["socket"])
///     .rule(Rule::new(["kill"], Action::KillProcess).arg(1, Compare::int(libc::SIGSTOP as u32)));
/// let command = Sandbox::new().command("sh").args(["-c", "kill -STOP $$"]);
/// let outcome = command.seccomp(filter).status()?;
/// assert_eq!(outcome.verdict(), Verdict::Seccomp);
/// # Ok(())
/// # }
/// ```
///
/// # What always holds
///
/// - Calls of another architecture are refused with ENOSYS, without regard to the list: those of
///   32-bit programs (i386, arm), and x32 calls on x86_64. [`architecture`](Seccomp::architecture)
///   applies the list to them, [`foreign`](Seccomp::foreign) refuses them otherwise.
/// - If calls that are not listed get an errno, calls with numbers newer than this crate get
///   ENOSYS, so that a C library uses an older call.
/// - The filter is in force before the program's first instruction, applies to all its descendants,
///   and cannot be removed.
/// - The filter implies `no_new_privs`: otherwise a set-user-ID program would run under a filter
///   that its author did not expect. [`allow_new_privs`](Seccomp::allow_new_privs) does without.
///
/// # The default
///
/// The default profile allows everything that the default profiles of Docker and containerd (2026)
/// allow a program without capabilities, except what the list below says, and in addition `unshare`
/// of what is not a namespace, `file_getattr` and `file_setattr`. It is suitable for shells,
/// compilers, interpreters, threads, ordinary servers and clients.
///
/// - `clone` and `unshare` with a flag for a new namespace, `setns`: EPERM. Namespaces expose more
///   of the kernel than all other calls together.
/// - `clone` with CLONE_PARENT: EINVAL, unless [`allow_new_privs`](Seccomp::allow_new_privs) needs
///   it. The siblings of a further program ([`Child::exec`](crate::Child::exec)) would be children
///   of the caller, for whom the end of the sandbox would wait.
/// - `clone3`: ENOSYS. Its flags are in memory, which a filter cannot see; C libraries fall back to
///   `clone`.
/// - `mount`, `umount2`, `pivot_root`, `chroot`, `open_tree`, `open_tree_attr`, `move_mount`,
///   `fsopen`, `fsconfig`, `fsmount`, `fspick`, `mount_setattr`: EPERM.
/// - `io_uring_setup`, `io_uring_enter`, `io_uring_register`: EPERM. io_uring executes operations
///   that a filter does not see.
/// - `bpf`, `perf_event_open`, `userfaultfd`: EPERM.
/// - `keyctl`, `add_key`, `request_key`: EPERM. Keyrings are not in any namespace.
/// - `ptrace`, `process_vm_readv`, `process_vm_writev`, `process_madvise`, `pidfd_getfd`, `kcmp`:
///   EPERM. Debuggers need `allow(["ptrace"])`.
/// - `open_by_handle_at`, `fanotify_init`, `lookup_dcookie`: EPERM.
/// - `init_module`, `finit_module`, `delete_module`, `kexec_load`, `kexec_file_load`, `reboot`:
///   EPERM.
/// - `settimeofday`, `clock_settime`, `swapon`, `swapoff`, `quotactl`, `quotactl_fd`, `acct`,
///   `syslog`, `sethostname`, `setdomainname`, `iopl`, `ioperm`, `vhangup`, `modify_ldt`: EPERM.
///   `adjtimex` and `clock_adjtime` are allowed, as the kernel lets only the owner of the clock
///   change it.
/// - `mbind`, `set_mempolicy`, `get_mempolicy`, `move_pages`, `migrate_pages`,
///   `set_mempolicy_home_node`: EPERM.
/// - `personality`, except for Linux, 32-bit Linux, UNAME26 and the query: EPERM. So programs
///   cannot make data executable or addresses fixed.
/// - `ioctl` with TIOCSTI, TIOCLINUX or TIOCSETD, for any value in the upper half of the argument:
///   EPERM. The first two type into the caller's terminal. The third gives a terminal another line
///   discipline, and has the kernel load a module for it.
/// - `socket` of families other than AF_UNIX, AF_INET and AF_INET6, `socketpair` of families other
///   than AF_UNIX: EAFNOSUPPORT. This excludes AF_VSOCK, AF_PACKET, AF_ALG, AF_CAN, AF_NETLINK and
///   others.
/// - `socket` of AF_INET and AF_INET6 with a protocol other than 0, TCP, UDP and ICMP:
///   EPROTONOSUPPORT; or with a type other than SOCK_STREAM, SOCK_DGRAM and SOCK_RAW:
///   ESOCKTNOSUPPORT. This excludes MPTCP, SMC, SCTP, DCCP, L2TP and others.
/// - `io_setup`: ENOSYS. The number of asynchronous requests is limited for the whole machine
///   (`fs.aio-max-nr`), and four calls use it up.
/// - `memfd_secret`: ENOSYS. Each page is taken out of the kernel's own map of the memory, which has
///   smaller pages there from then on, for the whole machine and until it is booted anew.
/// - `mmap` with MAP_HUGETLB, `memfd_create` with MFD_HUGETLB, `shmget` with SHM_HUGETLB: ENOMEM.
///   The memory limit does not count huge pages.
/// - `setsockopt` with SO_ATTACH_FILTER or SO_ATTACH_REUSEPORT_CBPF: ENOPROTOOPT. Compiled filters
///   use memory that is limited for the whole machine (`net.core.bpf_jit_limit`).
/// - `setsockopt` with TCP_USER_TIMEOUT, TCP_TX_DELAY or SO_MAX_PACING_RATE: ENOPROTOOPT. A program
///   that keeps both ends of a connection from hearing each other could have the kernel wait for
///   weeks after the sandbox's end, with the memory of the connection and its network namespace.
/// - `setsockopt` with IPV6_FLOWLABEL_MGR: ENOPROTOOPT. The whole machine has 4,096 such labels.
/// - All other calls that the crate knows: EPERM.
///
/// # Netlink
///
/// Unread replies in a netlink socket use memory that no control group counts: up to twice
/// `net.core.rmem_max` for each socket. So the default profile refuses AF_NETLINK. C libraries
/// resolve names without it; programs that list interfaces, such as getifaddrs(3) and ip(8), fail.
/// A rule can allow it again. Then only the number of descriptors limits this memory, here 16 in
/// each of 16 processes:
///
/// ```
/// use ringfence::{Action, Compare, Resource, Rule, Sandbox, Seccomp};
///
/// let route = Rule::new(["socket"], Action::Allow)
///     .arg(0, Compare::int(libc::AF_NETLINK as u32))
///     .arg(2, Compare::int(libc::NETLINK_ROUTE as u32));
/// let sandbox = Sandbox::strict().seccomp(Seccomp::default().rule(route));
/// let sandbox = sandbox.rlimit(Resource::OpenFiles, 16, 16).pids_limit(16);
/// # drop(sandbox);
/// ```
///
/// # Locks of ranges
///
/// A lock of a range of a file, fcntl_locking(2), is 192 bytes of the kernel's memory that no
/// control group counts. No limit bounds their number: a program takes some 300,000 a second on
/// each processor, which is 60 MB, and has them until it closes the file or ends. Databases and
/// package managers need a few, so the default profile allows them. Where that memory matters,
/// refuse them:
///
/// ```
/// use ringfence::{Action, Compare, Rule, Sandbox, Seccomp};
///
/// let commands = [libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK, libc::F_OFD_SETLKW];
/// let filter = commands.iter().fold(Seccomp::default(), |filter, command| {
///     let refusal = Rule::new(["fcntl"], Action::Errno(libc::ENOLCK));
///     filter.rule(refusal.arg(1, Compare::int(*command as u32)))
/// });
/// let sandbox = Sandbox::strict().seccomp(filter);
/// # drop(sandbox);
/// ```
///
/// flock(2) makes one lock for each open file, which the limit on descriptors bounds.
#[must_use = "a builder does nothing by itself: each call returns it"]
#[derive(Debug, Clone)]
pub struct Seccomp(Arc<Profile>);

#[derive(Debug, Clone)]
struct Profile {
    calls: CallRules,
    log: bool,
    speculation: bool,
    new_privs: bool,
    /// True if the filter asks about each call that it would answer with an errno.
    reports: bool,
    /// The same profile, but one that reports.
    reporting: OnceLock<Seccomp>,
    /// The problems, found once for all spawns. Every change resets them.
    problems: OnceLock<Vec<Problem>>,
    compiled: OnceLock<Compiled>,
}

impl Default for Seccomp {
    fn default() -> Self {
        static DEFAULT: OnceLock<Seccomp> = OnceLock::new();
        DEFAULT.get_or_init(presets::containers).clone()
    }
}

impl Seccomp {
    /// Returns whether this is the default profile, unchanged.
    pub(crate) fn is_default(&self) -> bool {
        Arc::ptr_eq(&self.0, &Seccomp::default().0)
    }

    /// Returns the default profile with the calls that make and enter namespaces.
    pub(crate) fn default_with_namespaces() -> Self {
        static PROFILE: OnceLock<Seccomp> = OnceLock::new();
        let make = || Seccomp::default().rule(Rule::new(["clone", "unshare", "setns"], Action::Allow));
        PROFILE.get_or_init(make).clone()
    }

    fn with_default(default: Action) -> Self {
        Seccomp(Arc::new(Profile {
            calls: CallRules { list: Vec::new(), default, foreign: Action::ENOSYS, architectures: BTreeSet::new() },
            log: false,
            speculation: false,
            new_privs: false,
            reports: false,
            reporting: OnceLock::new(),
            problems: OnceLock::new(),
            compiled: OnceLock::new(),
        }))
    }

    /// Creates a profile that refuses all calls with EPERM, except those that rules name.
    pub fn allow_list() -> Self {
        Seccomp::with_default(Action::EPERM)
    }

    /// Creates a profile that allows all calls, except those that rules name.
    pub fn deny_list() -> Self {
        Seccomp::with_default(Action::Allow)
    }

    /// Creates a profile for programs that compute: they can read files, use memory, threads,
    /// clocks and signals, and write to inherited descriptors. In addition to what the
    /// [default](Seccomp::default) refuses, the profile refuses sockets, new processes, and
    /// creating, changing or removing files with EPERM; opening files for writing with EACCES;
    /// `openat2` with ENOSYS, as its flags are in memory; and locks of ranges of files with ENOLCK.
    pub fn compute() -> Self {
        static COMPUTE: OnceLock<Seccomp> = OnceLock::new();
        COMPUTE.get_or_init(presets::compute).clone()
    }

    /// Creates the filter beside Landlock's rules for TCP ports. `listens` says whether the program
    /// may accept connections.
    pub(crate) fn beside_landlock(listens: bool) -> Self {
        static FILTERS: [OnceLock<Seccomp>; 2] = [OnceLock::new(), OnceLock::new()];
        FILTERS[usize::from(listens)].get_or_init(|| sockets::beside_landlock(listens)).clone()
    }

    fn change(mut self, change: impl FnOnce(&mut Profile)) -> Self {
        let profile = Arc::make_mut(&mut self.0);
        (profile.problems, profile.compiled) = (OnceLock::new(), OnceLock::new());
        profile.reporting = OnceLock::new();
        change(profile);
        self
    }

    /// Returns the rules, the action for other calls, that for calls of another architecture, and
    /// whether refused calls are logged and speculation is allowed.
    #[cfg(feature = "serde")]
    pub(crate) fn parts(&self) -> (&[Rule], Action, Action, bool, bool) {
        let profile = &self.0;
        (&profile.calls.list, profile.calls.default, profile.calls.foreign, profile.log, profile.speculation)
    }

    /// Returns the further architectures.
    #[cfg(feature = "serde")]
    pub(crate) fn architectures(&self) -> &BTreeSet<Architecture> {
        &self.0.calls.architectures
    }

    /// Adds a rule. If several rules match a call, the one added last decides.
    pub fn rule(self, rule: Rule) -> Self {
        self.change(|profile| profile.calls.list.push(rule))
    }

    /// Allows system calls with any arguments.
    pub fn allow(self, names: impl IntoIterator<Item = impl Into<Cow<'static, str>>>) -> Self {
        self.rule(Rule::new(names, Action::Allow))
    }

    /// Refuses system calls with EPERM, with any arguments.
    pub fn deny(self, names: impl IntoIterator<Item = impl Into<Cow<'static, str>>>) -> Self {
        self.rule(Rule::new(names, Action::EPERM))
    }

    /// Sets the action for calls that no rule matches.
    pub fn otherwise(self, action: impl Into<Action>) -> Self {
        self.change(|profile| profile.calls.default = action.into())
    }

    /// Applies the rules to the calls of a further architecture as well, by their names there. An
    /// architecture that this machine does not run changes nothing.
    ///
    /// The presets name the calls of 64-bit programs. 32-bit programs need others, such as `mmap2`
    /// and `fstat64`, and some of their calls have arguments in memory that a rule cannot compare.
    /// Profiles of container engines, read by `from_json`, have those.
    ///
    /// ```
    /// use ringfence::{Architecture, Seccomp};
    ///
    /// // No 32-bit program gets around the rule by calling mount(2) by its number there.
    /// let profile = Seccomp::deny_list().deny(["mount"]);
    /// let profile = profile.architecture(Architecture::X86).architecture(Architecture::Arm);
    /// # drop(profile);
    /// ```
    pub fn architecture(self, architecture: Architecture) -> Self {
        self.change(|profile| profile.calls.architectures.extend([architecture]))
    }

    /// Sets the action for calls of an architecture that is neither this machine's own nor a
    /// [further](Seccomp::architecture) one. By default, ENOSYS. Such calls cannot be allowed, as
    /// their numbers mean other calls.
    pub fn foreign(self, action: impl Into<Action>) -> Self {
        self.change(|profile| profile.calls.foreign = action.into())
    }

    /// Logs every refused call to the kernel's audit log (`SECCOMP_FILTER_FLAG_LOG`, Linux 4.14).
    pub fn log(self, wanted: bool) -> Self {
        self.change(|profile| profile.log = wanted)
    }

    /// Disables the mitigation of speculative store bypass, which kernels before 5.16 enable for
    /// every program under a filter (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`, Linux 4.17).
    pub fn allow_speculation(self, wanted: bool) -> Self {
        self.change(|profile| profile.speculation = wanted)
    }

    /// Leaves `no_new_privs` as it is, so that set-user-ID programs and files with capabilities
    /// give what they give elsewhere, under this filter. A mistake in such a program that the
    /// filter causes can then be turned into the rights of that program: only for filters that
    /// containers are used to, and programs that need it.
    ///
    /// Without `no_new_privs`, the kernel takes a filter only from a process with CAP_SYS_ADMIN in
    /// its user namespace. The process that becomes the program holds that capability until the
    /// exec, which takes it away: the program has what [`Capabilities`](crate::Capabilities) says.
    /// The caller needs the capability, unless the sandbox has a user namespace. It contradicts
    /// [`no_new_privs`](crate::Sandbox::no_new_privs) and
    /// [`landlock`](crate::Sandbox::landlock), which ask for the opposite, and
    /// [`init`](crate::Sandbox::init), which would keep the capability.
    pub fn allow_new_privs(self, wanted: bool) -> Self {
        self.change(|profile| profile.new_privs = wanted)
    }

    /// Returns whether the filter is installed without `no_new_privs`.
    pub(crate) fn allows_new_privs(&self) -> bool {
        self.0.new_privs
    }

    /// Returns the mistakes in rules.
    fn mistakes(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut report = |reason: String, remedy: &str| problems.push(Problem::invalid("seccomp", reason, remedy));
        for rule in &self.0.calls.list {
            for name in rule.names.iter().filter(|name| table::look_up(name) == Known::Unknown) {
                report(format!("no system call has the name {name:?}"), "use the name in its man page");
            }
            if rule.args.iter().any(|(index, _)| *index > 5) || rule.args.len() > MAX_COMPARISONS {
                report(format!("{:?}: a call has six arguments, 0 to 5", rule.names), "compare those");
            }
            if let Some((_, compare)) = rule.args.iter().find(|(_, compare)| !compare.can_match()) {
                report(format!("{compare:?} never holds"), "use a value within the mask");
            }
        }
        let rules = self.0.calls.list.iter().map(|rule| rule.action);
        if let Some(bad) = rules.chain([self.0.calls.default, self.0.calls.foreign]).find(|action| !action.is_valid()) {
            report(format!("{bad:?} is not an errno"), "use one from 1 to 4095");
        }
        if self.0.calls.foreign.may_allow() {
            let reason =
                format!("{:?} for calls of another architecture, whose numbers mean other calls", self.0.calls.foreign);
            report(reason, "refuse them");
        }
        problems
    }

    /// Returns the settings that contradict each other.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        self.0.problems.get_or_init(|| self.contradictions()).clone()
    }

    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = self.mistakes();
        if !problems.is_empty() {
            return problems;
        }
        let compiled = self.compiled();
        if compiled.program.len() > bpf::MAX_LEN * 8 {
            let reason = "the filter is longer than the 4,096 instructions that the kernel takes";
            problems.push(Problem::invalid("seccomp", reason, "use fewer comparisons"));
        }
        if !compiled.exec.actions().any(Action::may_allow) {
            let reason = "the profile refuses execve(2), by which the program itself is started";
            problems.push(Problem::invalid("seccomp", reason, "allow execve"));
        }
        problems
    }

    /// Returns what this kernel does not support.
    pub(crate) fn unsupported(&self) -> Option<Problem> {
        let missing = self.compiled().actions.iter().find_map(|action| {
            let errno = kernel::has_action(action.code()).err()?;
            Some(match errno {
                Errno::EOPNOTSUPP => format!("this kernel does not know the action {action:?}"),
                errno => format!("this kernel has no seccomp filters, or the caller may not use them ({errno})"),
            })
        })?;
        let remedy = "use Linux 5.0 or newer, built with CONFIG_SECCOMP_FILTER";
        Some(Problem::unsupported("seccomp", missing, remedy).for_feature(Feature::Seccomp))
    }

    /// Returns the same profile with a filter that asks about each call that it would answer with
    /// an errno, so that the call can be [recorded](DenialRecord).
    pub(crate) fn reporting(&self) -> Seccomp {
        self.0.reporting.get_or_init(|| self.clone().change(|profile| profile.reports = true)).clone()
    }

    /// Returns why this host cannot report what a filter refuses, and the remedy.
    pub(crate) fn cannot_report() -> Option<(String, &'static str)> {
        static TRIED: PerProcess<Result<(), Errno>> = PerProcess::new();
        let tried = TRIED.get_or_try(|| Ok::<_, Errno>(kernel::try_listener()));
        let errno = tried.and_then(|tried| tried.as_ref().copied().map_err(|errno| *errno)).err()?;
        Some(match errno {
            Errno::EBUSY => (
                "a seccomp filter around the caller has a supervisor, and the kernel lets no second one in".to_owned(),
                "run the caller outside of the container or service with that filter",
            ),
            errno => (
                format!("this kernel does not notify of refused calls ({errno})"),
                "use Linux 5.8 or newer, built with CONFIG_SECCOMP_FILTER",
            ),
        })
    }

    /// Makes an empty record for a program under this profile, if the profile reports.
    pub(crate) fn record(&self) -> Option<DenialRecord> {
        self.compiled().answers.clone().map(DenialRecord::new)
    }

    /// Returns true if the filter has a listener.
    pub(crate) fn has_listener(&self) -> bool {
        self.asks() || self.0.reports
    }

    /// Returns the memory that no control group counts, and that a program under this profile can
    /// have without a bound.
    pub(crate) fn uncounted_memory(&self) -> Option<&'static str> {
        self.compiled().uncounted
    }

    /// Returns true if the profile asks a supervisor about any call.
    pub(crate) fn asks(&self) -> bool {
        self.compiled().actions.contains(&Action::Notify)
    }

    /// Returns true if the profile asks a supervisor about the exec of the program itself.
    pub(crate) fn asks_about_exec(&self) -> bool {
        self.compiled().exec.actions().any(|action| action == Action::Notify)
    }

    fn compiled(&self) -> &Compiled {
        self.0.compiled.get_or_init(|| {
            let mut calls = Cow::Borrowed(&self.0.calls);
            if self.0.new_privs {
                // A further program enters under this filter, as a sibling of the stub.
                calls.to_mut().list.retain(|rule| *rule != presets::without_siblings());
            }
            calls.compile(self.0.reports)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::bpf::Decision;
    use super::*;

    #[test]
    fn the_rule_added_last_decides() {
        let profile = Seccomp::allow_list()
            .rule(Rule::new(["socket"], Action::Trap).arg(0, Compare::int(1)))
            .allow(["socket", "clone3"])
            .rule(Rule::new(["socket"], Errno::EAFNOSUPPORT).arg(0, Compare::int(40)))
            .rule(Rule::new(["socket"], Action::Log).arg(0, Compare::int(40)).arg(1, Compare::int(2)));
        let answers = profile.0.calls.answers(None);
        let decision = answers.of(libc::SYS_socket as u32);
        assert_eq!(decision.actions().collect::<Vec<_>>(), [Action::Log, Action::Errno(97), Action::Allow]);
        assert_eq!(answers.of(libc::SYS_clone3 as u32), Decision::always(Action::Allow));
        assert_eq!(answers.of(libc::SYS_read as u32), Decision::always(Action::EPERM));
        assert_eq!(answers.of(9999), Decision::always(Action::ENOSYS), "newer than the table");
        assert_eq!(Seccomp::deny_list().0.calls.answers(None).of(9999), Decision::always(Action::Allow));
        let kills = Seccomp::allow_list().otherwise(Action::KillProcess);
        assert_eq!(kills.0.calls.answers(None).of(9999), Decision::always(Action::KillProcess));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let reasons = |profile: Seccomp| {
            profile.invalid().into_iter().map(|problem| problem.reason).collect::<Vec<_>>().join("\n")
        };
        assert!(reasons(Seccomp::default().deny(["opne"])).contains("opne"));
        assert!(reasons(Seccomp::default().deny(["_llseek"])).is_empty(), "a call of another architecture");
        assert!(reasons(Seccomp::default().otherwise(Action::Errno(0))).contains("errno"));
        let rule = |index, compare| Seccomp::default().rule(Rule::new(["read"], Action::Trap).arg(index, compare));
        assert!(reasons(rule(6, Compare::Eq(0))).contains("six arguments"));
        assert!(reasons(rule(0, Compare::MaskedEq { mask: 1, value: 2 })).contains("never"));
        assert!(reasons(Seccomp::allow_list().allow(["read"])).contains("execve"));
        assert!(reasons(Seccomp::default().deny(["execve"])).contains("execve"));
        assert!(reasons(Seccomp::default().foreign(Action::Allow)).contains("architecture"));
        assert!(reasons(Seccomp::default()).is_empty());
        let mut long = Seccomp::default();
        for value in 0..1000 {
            long = long.rule(Rule::new(["read"], Action::Trap).arg(0, Compare::Ne(value)));
        }
        assert!(reasons(long).contains("longer"));
    }

    #[test]
    fn a_filter_comes_first_where_the_stub_can_wait_under_it() {
        assert!(Seccomp::default().comes_before_the_program());
        for call in ["getcwd", "recvmsg", "execve", "sendto"] {
            assert!(!Seccomp::default().deny([call]).comes_before_the_program(), "{call}");
        }
        // Without sockets there is nothing by which the program could come.
        assert!(!Seccomp::compute().comes_before_the_program());
    }

    #[test]
    fn the_presets_are_short() {
        for (preset, most) in [(Seccomp::default(), 350), (Seccomp::compute(), 350)] {
            let len = preset.compiled().program.len() / 8;
            assert!((50..most).contains(&len), "{len} instructions");
            assert!(!preset.needs_failure_page());
            assert_eq!(preset.unsupported(), None);
        }
    }
}
