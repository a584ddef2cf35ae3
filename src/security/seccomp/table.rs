//! System calls by name: the tables of the crate `syscalls`, which are generated from the kernel's
//! own.

#[cfg(target_arch = "aarch64")]
use syscalls::aarch64 as here;
#[cfg(target_arch = "x86_64")]
use syscalls::x86_64 as here;

use here::Sysno;

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
    match name.parse::<Sysno>() {
        Ok(call) => Known::Number(call.id().unsigned_abs()),
        Err(()) if is_elsewhere(name) => Known::Elsewhere,
        Err(()) => Known::Unknown,
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

/// Returns the highest number in the table. Higher numbers belong to newer kernels.
pub(super) fn newest() -> u32 {
    Sysno::last().id().unsigned_abs()
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
        assert!(newest() >= 469, "the table is older than Linux 6.17");
    }
}
