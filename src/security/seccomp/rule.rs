//! What a profile is made of: an action, a comparison of an argument, and a rule that joins them to calls.

use std::borrow::Cow;

use nix::errno::Errno;

/// What the kernel does with a system call: seccomp(2). Where the program stands under filters of its own as well, the
/// most severe answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Carries it out.
    Allow,
    /// Carries it out, and writes a line to the kernel's log (4.14).
    Log,
    /// Does not carry it out; the program is given this errno, 1 to 4095.
    Errno(i32),
    /// Asks the supervisor, who answers a [`Notification`](crate::Notification) (5.0).
    Notify,
    /// Tells a ptrace(2) tracer with this number; without a tracer the program is given ENOSYS.
    Trace(u16),
    /// Sends SIGSYS to the thread, which may catch it; where it does not, the program is killed.
    Trap,
    /// Kills the thread. The rest of the program runs on.
    KillThread,
    /// Kills the program with a SIGSYS that it cannot catch (4.14): [`Verdict::Seccomp`](crate::Verdict::Seccomp).
    KillProcess,
}

impl Action {
    /// The refusal of a call that is known: EPERM.
    pub const EPERM: Action = Action::Errno(libc::EPERM);
    /// The call is made to look as if the kernel did not have it, upon which a C library falls back to an older one.
    pub const ENOSYS: Action = Action::Errno(libc::ENOSYS);

    /// The value that a filter returns.
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

    /// The kernel's order: among several filters, the most severe answer counts.
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

    /// Whether the call can come to be carried out.
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

/// What an argument of a system call is compared with. Arguments are 64-bit words, compared unsigned.
///
/// # Half-used arguments
///
/// Of an argument that is an `int` the kernel uses the lower 32 bits only, and whoever calls can put anything into the
/// upper ones. A rule that *refuses* such a value must not look at them, or it does not hold (CVE-2019-7303): write
/// [`Compare::int`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compare {
    /// It is this value.
    Eq(u64),
    /// It is another.
    Ne(u64),
    /// It is less.
    Lt(u64),
    /// It is less, or the same.
    Le(u64),
    /// It is greater.
    Gt(u64),
    /// It is greater, or the same.
    Ge(u64),
    /// Those of its bits that are set in `mask` are those of `value`.
    MaskedEq {
        /// The bits that count.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

impl Compare {
    /// Its lower 32 bits are these: for arguments that are an `int` to the kernel.
    pub const fn int(value: u32) -> Compare {
        Compare::MaskedEq { mask: u32::MAX as u64, value: value as u64 }
    }

    /// None of these bits is set.
    pub const fn no_bits(mask: u64) -> Compare {
        Compare::MaskedEq { mask, value: 0 }
    }

    /// A value outside of its mask never matches.
    pub(super) fn can_match(self) -> bool {
        !matches!(self, Compare::MaskedEq { mask, value } if value & !mask != 0)
    }
}

/// Some system calls, what their arguments have to be, and what then happens.
///
/// ```
/// use ringfence::{Action, Compare, Rule};
///
/// // socket(AF_VSOCK, …) looks as on a kernel without it.
/// let rule = Rule::new(["socket"], Action::Errno(libc::EAFNOSUPPORT)).arg(0, Compare::int(libc::AF_VSOCK as u32));
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(super) names: Vec<Cow<'static, str>>,
    pub(super) args: Vec<(u8, Compare)>,
    pub(super) action: Action,
}

impl Rule {
    /// A rule for every call of these system calls, by name.
    pub fn new(names: impl IntoIterator<Item = impl Into<Cow<'static, str>>>, action: impl Into<Action>) -> Self {
        Rule { names: names.into_iter().map(Into::into).collect(), args: Vec::new(), action: action.into() }
    }

    /// Only for calls whose argument `index`, from 0 to 5, compares so. With several, all of them have to.
    pub fn arg(mut self, index: u8, compare: Compare) -> Self {
        self.args.push((index, compare));
        self
    }
}
