//! The parts of a profile: an action, a comparison of an argument, and a rule that combines them
//! with calls.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;

/// The kernel's action for a system call: seccomp(2). If the program also has filters of its own,
/// the most severe action applies.
///
/// ```
/// use ringfence::{Action, Errno, Rule, Sandbox, Seccomp, Verdict};
///
/// let kills = Rule::new(["mkdir", "mkdirat"], Action::KillProcess);
/// let refuses = Rule::new(["chmod", "fchmodat"], Errno::EACCES);
/// let profile = Seccomp::deny_list().rule(kills).rule(refuses);
/// let outcome = Sandbox::new().seccomp(profile).command("mkdir").arg("/tmp/never").status()?;
/// assert_eq!(outcome.verdict(), Verdict::Seccomp);
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Executes the call.
    Allow,
    /// Executes the call, and writes a line to the kernel's log (Linux 4.14).
    Log,
    /// Returns this errno, 1 to 4095, without executing the call.
    Errno(i32),
    /// Asks the supervisor, which answers a [`Notification`](crate::Notification) (Linux 5.0).
    Notify,
    /// Notifies a ptrace(2) tracer with this number. Without a tracer, the call fails with ENOSYS.
    Trace(u16),
    /// Sends SIGSYS to the thread. If the thread does not catch the signal, the program is killed.
    Trap,
    /// Kills the thread. The rest of the program continues.
    KillThread,
    /// Kills the program with a SIGSYS that it cannot catch (Linux 4.14):
    /// [`Verdict::Seccomp`](crate::Verdict::Seccomp).
    KillProcess,
}

impl Action {
    /// Refuses a known call with EPERM.
    pub const EPERM: Action = Action::Errno(libc::EPERM);
    /// Refuses a call with ENOSYS, as a kernel without this call does. C libraries then use an
    /// older call.
    pub const ENOSYS: Action = Action::Errno(libc::ENOSYS);

    /// Returns the return value of a filter for this action.
    pub(super) fn code(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Log => libc::SECCOMP_RET_LOG,
            Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | (errno as u32 & libc::SECCOMP_RET_DATA),
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Action::Trace(number) => libc::SECCOMP_RET_TRACE | u32::from(number),
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }

    /// Returns the severity in the kernel's order: among several filters, the most severe action
    /// applies.
    #[cfg(feature = "seccomp-json")]
    pub(super) fn severity(self) -> u8 {
        match self {
            Action::Allow => 0,
            Action::Log => 1,
            Action::Trace(_) => 2,
            Action::Notify => 3,
            Action::Errno(_) => 4,
            Action::Trap => 5,
            Action::KillThread => 6,
            Action::KillProcess => 7,
        }
    }

    /// Returns true if the action can lead to the execution of the call.
    pub(super) fn may_allow(self) -> bool {
        matches!(self, Action::Allow | Action::Log | Action::Notify | Action::Trace(_))
    }

    pub(super) fn is_valid(self) -> bool {
        const MAX_ERRNO: i32 = 4095;
        !matches!(self, Action::Errno(errno) if !(1..=MAX_ERRNO).contains(&errno))
    }
}

impl From<Errno> for Action {
    fn from(errno: Errno) -> Self {
        Action::Errno(errno as i32)
    }
}

/// A comparison of a system call's argument. Arguments are 64-bit words, compared as unsigned
/// numbers.
///
/// ```
/// use ringfence::{Action, Compare, Errno, Rule, Seccomp};
///
/// // socket(2) for two families and no other; a call for W and X pages is refused.
/// let families = [libc::AF_UNIX, libc::AF_INET].map(|family| {
///     Rule::new(["socket"], Action::Allow).arg(0, Compare::int(family as u32))
/// });
/// let both = (libc::PROT_WRITE | libc::PROT_EXEC) as u64;
/// let wx = Compare::MaskedEq { mask: both, value: both };
/// let pages = Rule::new(["mmap"], Errno::EPERM).arg(2, wx);
/// let profile = Seccomp::deny_list().deny(["socket"]).rule(pages);
/// let profile = families.into_iter().fold(profile, Seccomp::rule);
/// # drop(profile);
/// ```
///
/// # Half-used arguments
///
/// If an argument is an `int`, the kernel uses only its lower 32 bits, and the caller can put any
/// value into the upper bits. A rule that *refuses* a value must ignore the upper bits, or it can
/// be bypassed (CVE-2019-7303): use [`Compare::int`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compare {
    /// The argument is equal to this value.
    Eq(u64),
    /// The argument is not equal to this value.
    Ne(u64),
    /// The argument is less than this value.
    Lt(u64),
    /// The argument is less than or equal to this value.
    Le(u64),
    /// The argument is greater than this value.
    Gt(u64),
    /// The argument is greater than or equal to this value.
    Ge(u64),
    /// The argument's bits that are set in `mask` are equal to those of `value`.
    MaskedEq {
        /// The bits to compare.
        mask: u64,
        /// The value of these bits.
        value: u64,
    },
}

impl Compare {
    /// Compares the lower 32 bits, for arguments that are an `int` to the kernel.
    pub const fn int(value: u32) -> Compare {
        Compare::MaskedEq { mask: u32::MAX as u64, value: value as u64 }
    }

    /// Matches if none of these bits is set.
    pub const fn no_bits(mask: u64) -> Compare {
        Compare::MaskedEq { mask, value: 0 }
    }

    /// Returns whether the comparison holds for this argument.
    pub(super) fn holds(self, arg: u64) -> bool {
        match self {
            Compare::Eq(value) => arg == value,
            Compare::Ne(value) => arg != value,
            Compare::Lt(value) => arg < value,
            Compare::Le(value) => arg <= value,
            Compare::Gt(value) => arg > value,
            Compare::Ge(value) => arg >= value,
            Compare::MaskedEq { mask, value } => arg & mask == value,
        }
    }

    /// Returns the bits that are compared.
    pub(super) fn mask(self) -> u64 {
        if let Compare::MaskedEq { mask, .. } = self { mask } else { u64::MAX }
    }

    /// Returns false if a value has bits outside of its mask, as it never matches.
    pub(super) fn can_match(self) -> bool {
        !matches!(self, Compare::MaskedEq { mask, value } if value & !mask != 0)
    }
}

/// A rule: system calls, conditions for their arguments, and the action.
///
/// ```
/// use ringfence::{Action, Compare, Rule};
///
/// // socket(AF_VSOCK, …) looks as on a kernel without it.
/// let action = Action::Errno(libc::EAFNOSUPPORT);
/// let rule = Rule::new(["socket"], action).arg(0, Compare::int(libc::AF_VSOCK as u32));
/// ```
#[must_use = "a builder does nothing by itself: each call returns it"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(crate) names: Vec<Cow<'static, str>>,
    pub(crate) args: Vec<(u8, Compare)>,
    pub(crate) action: Action,
}

impl Rule {
    /// Creates a rule for all calls of these system calls, by name.
    pub fn new(names: impl IntoIterator<Item = impl Into<Cow<'static, str>>>, action: impl Into<Action>) -> Self {
        Rule { names: names.into_iter().map(Into::into).collect(), args: Vec::new(), action: action.into() }
    }

    /// Restricts the rule to calls whose argument `index`, from 0 to 5, matches. If there are
    /// several conditions, all must match.
    pub fn arg(mut self, index: u8, compare: Compare) -> Self {
        self.args.push((index, compare));
        self
    }
}

/// The part of a [`Seccomp`](crate::Seccomp) profile that refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DenialRule {
    /// A rule that names the call, and that the call's arguments match.
    Named,
    /// No rule allows the call, or none allows it with these arguments.
    Unlisted,
    /// The call has a number that is newer than this crate, so no rule can name the call.
    Newer,
    /// The call is one of another architecture, such as that of a 32-bit program
    /// ([`Seccomp::foreign`](crate::Seccomp::foreign)).
    Foreign,
}

impl fmt::Display for DenialRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DenialRule::Named => "a rule of the seccomp profile",
            DenialRule::Unlisted => "the seccomp profile, which does not allow the call",
            DenialRule::Newer => "the seccomp profile, which does not know the call",
            DenialRule::Foreign => "the seccomp profile, which refuses other architectures",
        })
    }
}
