//! System calls by name: the tables of the crate `syscalls`, which are generated from the kernel's
//! own.

#[cfg(target_arch = "aarch64")]
use syscalls::aarch64 as here;
#[cfg(target_arch = "x86_64")]
use syscalls::x86_64 as here;

use here::Sysno;

#[cfg(target_arch = "x86_64")]
pub(super) const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
pub(super) const AUDIT_ARCH: u32 = 0xC000_00B7;
/// The bit that marks the number of an x32 call, which has the architecture of x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// An architecture whose programs a machine runs beside its own: [`Seccomp::architecture`].
///
/// [`Seccomp::architecture`]: crate::Seccomp::architecture
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// 32-bit programs on x86_64. Their calls `socketcall` and `ipc` stand for many others, and a
    /// filter cannot see for which: allow them only if all of these may be made.
    X86,
    /// Programs with 64-bit registers and 32-bit addresses on x86_64. Few kernels have them.
    X32,
    /// 32-bit programs on aarch64.
    Arm,
}

impl Architecture {
    /// Returns the architecture's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Architecture::X86 => "x86",
            Architecture::X32 => "x32",
            Architecture::Arm => "arm",
        }
    }

    /// Returns the architecture with this name.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        [Architecture::X86, Architecture::X32, Architecture::Arm].into_iter().find(|arch| arch.name() == name)
    }

    /// Returns whether this machine may have programs of the architecture.
    pub(super) fn runs_here(self) -> bool {
        match self {
            Architecture::X86 | Architecture::X32 => cfg!(target_arch = "x86_64"),
            Architecture::Arm => cfg!(target_arch = "aarch64"),
        }
    }

    /// Returns the number in audit(7). X32 has that of x86_64.
    pub(super) fn audit(self) -> u32 {
        match self {
            Architecture::X86 => 0x4000_0003,
            Architecture::X32 => AUDIT_ARCH,
            Architecture::Arm => 0x4000_0028,
        }
    }
}

/// The calls that have a number of their own on x32, from 512 on (arch/x86/entry/syscalls).
const X32_CALLS: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];
const FIRST_X32_CALL: u32 = 512;

/// The result of looking up a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// A call of this architecture, with its number.
    Number(u32),
    /// A call of other architectures only, such as `open` on aarch64. A rule for it has no effect
    /// here.
    Elsewhere,
    /// Not a system call, or one that is newer than the table.
    Unknown,
}

pub(super) fn look_up(name: &str) -> Known {
    match number(None, name) {
        Some(number) => Known::Number(number),
        None if is_elsewhere(name) => Known::Elsewhere,
        None => Known::Unknown,
    }
}

/// Returns the number of a call on an architecture; `None` is this machine's own. That of X32 is
/// without its bit.
pub(super) fn number(arch: Option<Architecture>, name: &str) -> Option<u32> {
    let id = |id: Result<i32, ()>| id.ok().map(i32::unsigned_abs);
    match arch {
        None => id(name.parse::<Sysno>().map(|call| call.id())),
        Some(Architecture::X86) => id(name.parse::<syscalls::x86::Sysno>().map(|call| call.id())),
        Some(Architecture::Arm) => id(name.parse::<syscalls::arm::Sysno>().map(|call| call.id())),
        Some(Architecture::X32) => match (FIRST_X32_CALL..).zip(X32_CALLS).find(|(_, own)| *own == name) {
            Some((number, _)) => Some(number),
            None => id(name.parse::<syscalls::x86_64::Sysno>().map(|call| call.id())),
        },
    }
}

fn is_elsewhere(name: &str) -> bool {
    name.parse::<syscalls::x86_64::Sysno>().is_ok()
        || name.parse::<syscalls::aarch64::Sysno>().is_ok()
        || name.parse::<syscalls::x86::Sysno>().is_ok()
        || name.parse::<syscalls::arm::Sysno>().is_ok()
}

/// Returns the name of a call of this architecture.
pub(super) fn name_of(number: u32) -> Option<&'static str> {
    Sysno::new(number as usize).map(|call| call.name())
}

/// Returns the name of a call, with its architecture as audit(7) numbers that.
pub(super) fn name_on(audit: u32, number: u32) -> Option<&'static str> {
    match audit {
        AUDIT_ARCH if cfg!(target_arch = "x86_64") && number & X32_BIT != 0 => {
            let number = number & !X32_BIT;
            let own = number.checked_sub(FIRST_X32_CALL).and_then(|index| X32_CALLS.get(index as usize).copied());
            own.or_else(|| name_of(number))
        }
        AUDIT_ARCH => name_of(number),
        _ if audit == Architecture::X86.audit() => syscalls::x86::Sysno::new(number as usize).map(|call| call.name()),
        _ if audit == Architecture::Arm.audit() => syscalls::arm::Sysno::new(number as usize).map(|call| call.name()),
        _ => None,
    }
}

/// Returns the highest number in an architecture's table. Higher numbers belong to newer kernels.
pub(super) fn newest(arch: Option<Architecture>) -> u32 {
    match arch {
        None => Sysno::last().id().unsigned_abs(),
        Some(Architecture::X86) => syscalls::x86::Sysno::last().id().unsigned_abs(),
        // Those of ARM itself lie far above: a table of them all would be as long as the distance.
        Some(Architecture::Arm) => 0x3ff,
        Some(Architecture::X32) => FIRST_X32_CALL + X32_CALLS.len() as u32 - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_the_c_librarys() {
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("execveat", libc::SYS_execveat),
            ("mseal", libc::SYS_mseal),
        ] {
            assert_eq!(look_up(name), Known::Number(number as u32), "{name}");
            assert_eq!(name_of(number as u32), Some(name));
        }
        assert_eq!(look_up("_llseek"), Known::Elsewhere);
        assert_eq!(look_up("opne"), Known::Unknown);
        assert_eq!(number(Some(Architecture::X86), "getpid"), Some(20));
        assert_eq!(number(Some(Architecture::X86), "socketcall"), Some(102));
        assert_eq!(number(Some(Architecture::Arm), "getpid"), Some(20));
        assert_eq!(number(Some(Architecture::X32), "execve"), Some(520));
        assert_eq!(number(Some(Architecture::X32), "pwritev2"), Some(547));
        assert_eq!(name_on(Architecture::X86.audit(), 20), Some("getpid"));
        assert_eq!(name_on(0x1234, 20), None);
        assert!(newest(None) >= 469, "the table is older than Linux 6.17");
    }
}
