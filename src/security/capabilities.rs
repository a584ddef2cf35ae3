//! The five sets of capabilities(7), and the securebits.

use std::fmt;
use std::fs;

use caps::Capability;

use super::prctl;
use crate::error::{Problem, Step};
use crate::plan::Plan;
use crate::sys::fork_mark::PerProcess;

/// Version 3 of capset(2): 64 capabilities, in two halves.
const VERSION_3: u32 = 0x2008_0522;
/// The last capability that the crate has a name for (5.9).
const LAST_NAMED: u8 = 40;

bitflags::bitflags! {
    /// How a change of user, and an exec by root, act on capabilities: the securebits of capabilities(7), since 2.6.26. A
    /// locked bit can never be changed again.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct SecureBits: u32 {
        /// An exec by uid 0 gives no capabilities.
        const NOROOT = 1 << 0;
        /// Locks [`NOROOT`](SecureBits::NOROOT).
        const NOROOT_LOCKED = 1 << 1;
        /// A change of uid leaves capabilities alone.
        const NO_SETUID_FIXUP = 1 << 2;
        /// Locks [`NO_SETUID_FIXUP`](SecureBits::NO_SETUID_FIXUP).
        const NO_SETUID_FIXUP_LOCKED = 1 << 3;
        /// Permitted capabilities outlast the change from uid 0 to another. Cleared by every exec.
        const KEEP_CAPS = 1 << 4;
        /// Locks [`KEEP_CAPS`](SecureBits::KEEP_CAPS).
        const KEEP_CAPS_LOCKED = 1 << 5;
        /// Nothing can be raised in the ambient set; since 4.3.
        const NO_CAP_AMBIENT_RAISE = 1 << 6;
        /// Locks [`NO_CAP_AMBIENT_RAISE`](SecureBits::NO_CAP_AMBIENT_RAISE).
        const NO_CAP_AMBIENT_RAISE_LOCKED = 1 << 7;
    }
}

/// The five capability sets, as they are when the program is executed, and the securebits.
///
/// What the program then has is what the kernel makes of them, see capabilities(7), "Transformation of capabilities during
/// execve()": uid 0 gets the bounding set, every other user the ambient set. So [`keep`](Capabilities::keep) serves a
/// program that runs as uid 0 inside, and [`ambient`](Capabilities::ambient) one that does not.
///
/// ```
/// use ringfence::{Capabilities, Capability, Sandbox};
///
/// // A server that may bind port 80, as an ordinary user.
/// let port_80 = Capabilities::none().ambient([Capability::CAP_NET_BIND_SERVICE]);
/// let sandbox = Sandbox::new().user(33, 33).capabilities(port_80);
/// # drop(sandbox);
/// ```
#[must_use = "a builder does nothing by itself: each call gives it back"]
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    bounding: u64,
    permitted: u64,
    effective: u64,
    inheritable: u64,
    ambient: u64,
    securebits: Option<SecureBits>,
}

impl Capabilities {
    /// All five sets empty: nothing that is executed in the sandbox has, or gets, a capability.
    pub fn none() -> Self {
        Capabilities::default()
    }

    /// These in the bounding, permitted and effective set; inheritable and ambient are empty.
    pub fn keep(kept: impl IntoIterator<Item = Capability>) -> Self {
        let kept = set_of(kept);
        Capabilities { bounding: kept, permitted: kept, effective: kept, ..Capabilities::default() }
    }

    /// Everything that the kernel knows, but these.
    pub fn all_but(dropped: impl IntoIterator<Item = Capability>) -> Self {
        let kept = ((2u64 << last_capability()) - 1) & !set_of(dropped);
        Capabilities { bounding: kept, permitted: kept, effective: kept, ..Capabilities::default() }
    }

    /// The ceiling of what an exec can give.
    pub fn bounding(mut self, set: impl IntoIterator<Item = Capability>) -> Self {
        self.bounding = set_of(set);
        self
    }

    /// What can be made effective.
    pub fn permitted(mut self, set: impl IntoIterator<Item = Capability>) -> Self {
        self.permitted = set_of(set);
        self
    }

    /// What counts; a part of the permitted set.
    pub fn effective(mut self, set: impl IntoIterator<Item = Capability>) -> Self {
        self.effective = set_of(set);
        self
    }

    /// What an exec of a file with the same inheritable capabilities keeps. Few programs are made for it, and those that
    /// find it filled get more than was meant (CVE-2022-24769): leave it empty.
    pub fn inheritable(mut self, set: impl IntoIterator<Item = Capability>) -> Self {
        self.inheritable = set_of(set);
        self
    }

    /// What every exec of an ordinary program keeps, as whatever user (4.3). Adds the set to the permitted and the
    /// inheritable one, without which the kernel does not take it.
    pub fn ambient(mut self, set: impl IntoIterator<Item = Capability>) -> Self {
        self.ambient = set_of(set);
        self.permitted |= self.ambient;
        self.inheritable |= self.ambient;
        self
    }

    /// The securebits; without this call they stay the caller's.
    pub fn securebits(mut self, bits: SecureBits) -> Self {
        self.securebits = Some(bits);
        self
    }

    /// What no kernel would take.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.effective & !self.permitted != 0 {
            let reason = format!("{} in effect without being permitted", Names(self.effective & !self.permitted));
            problems.push(Problem::invalid("capabilities", reason, "permit what is to be effective"));
        }
        if self.ambient & !(self.permitted & self.inheritable) != 0 {
            let reason = "an ambient capability is permitted and inheritable as well";
            problems.push(Problem::invalid("capabilities", reason, "call ambient() last"));
        }
        let all = self.all();
        let unknown = if all == 0 { 0 } else { all & !((2u64 << last_capability()) - 1) };
        if unknown != 0 {
            let reason = format!("this kernel does not know {}", Names(unknown));
            problems.push(Problem::unsupported("capabilities", reason, "leave it out"));
        }
        problems
    }

    /// What has to be had already to be kept.
    pub(crate) fn wanted(&self) -> u64 {
        self.permitted | self.inheritable
    }

    /// Whether a process in the sandbox can come to have it.
    pub(crate) fn reaches(&self, capability: Capability) -> bool {
        (self.permitted | self.bounding) & capability.bitmask() != 0
    }

    /// Whether `set` holds nothing that the bounding set would not.
    pub(crate) fn bounds(&self, set: u64) -> bool {
        set & !self.bounding == 0
    }

    /// Whether something of it needs CAP_SETPCAP besides the bounding set.
    pub(crate) fn sets_securebits(&self) -> bool {
        self.securebits.is_some()
    }

    fn all(&self) -> u64 {
        self.bounding | self.permitted | self.effective | self.inheritable | self.ambient
    }

    /// The change of user has cleared the effective set, and CAP_SETPCAP is needed once more: for the bounding set, and
    /// for securebits.
    pub(super) fn emit(&self, plan: &mut Plan, setpcap: bool) {
        let own = if setpcap { Capability::CAP_SETPCAP.bitmask() } else { 0 };
        capset(plan, own, self.wanted() | own, self.inheritable);
        if setpcap {
            plan.drop_bounding(self.bounding);
        }
        let ambient = libc::PR_CAP_AMBIENT as u64;
        prctl(plan, Step::Capabilities, [ambient, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64]);
        for number in (0..64u64).filter(|number| self.ambient & 1 << number != 0) {
            prctl(plan, Step::Capabilities, [ambient, libc::PR_CAP_AMBIENT_RAISE as u64, number]);
        }
        if let Some(bits) = self.securebits {
            prctl(plan, Step::Capabilities, [libc::PR_SET_SECUREBITS as u64, bits.bits().into()]);
        }
        capset(plan, self.effective, self.permitted, self.inheritable);
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capabilities")
            .field("bounding", &Names(self.bounding))
            .field("permitted", &Names(self.permitted))
            .field("effective", &Names(self.effective))
            .field("inheritable", &Names(self.inheritable))
            .field("ambient", &Names(self.ambient))
            .field("securebits", &self.securebits)
            .finish()
    }
}

/// A set as people write it.
pub(crate) struct Names(pub(crate) u64);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut named: Vec<Capability> =
            caps::all().into_iter().filter(|capability| self.0 & capability.bitmask() != 0).collect();
        named.sort_by_key(Capability::index);
        let names: Vec<String> = named.iter().map(Capability::to_string).collect();
        f.write_str(if names.is_empty() { "none".to_owned() } else { names.join(", ") }.as_str())
    }
}

fn set_of(set: impl IntoIterator<Item = Capability>) -> u64 {
    set.into_iter().fold(0, |all, capability| all | capability.bitmask())
}

/// The highest capability of this kernel, which names it in /proc since 3.2.
fn last_capability() -> u8 {
    static LAST: PerProcess<u8> = PerProcess::new();
    let read = || {
        let text = fs::read_to_string("/proc/sys/kernel/cap_last_cap");
        Ok::<_, nix::errno::Errno>(text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(LAST_NAMED).min(62))
    };
    LAST.get_or_try(read).map_or(LAST_NAMED, |last| *last)
}

/// effective, permitted, inheritable: the low 32 capabilities, then the high ones.
fn capset(plan: &mut Plan, effective: u64, permitted: u64, inheritable: u64) {
    let sets = [effective, permitted, inheritable];
    let halves = sets.map(|set| set as u32).into_iter().chain(sets.map(|set| (set >> 32) as u32));
    let data: Vec<u8> = halves.flat_map(u32::to_ne_bytes).collect();
    let header = plan.words(&[VERSION_3.into()]);
    let data = plan.bytes(&data);
    plan.call(Step::Capabilities, libc::SYS_capset, [header.into(), data.into()])
        .hint("more than the caller has cannot be given, unless in a user namespace of the sandbox's own");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_that_the_kernel_would_refuse_are_named() {
        let kill = [Capability::CAP_KILL];
        assert!(Capabilities::keep(kill).invalid().is_empty());
        assert!(Capabilities::none().ambient(kill).invalid().is_empty());
        let problems = Capabilities::none().effective(kill).invalid();
        assert!(problems[0].reason.contains("CAP_KILL"), "{problems:?}");
        assert_eq!(Capabilities::none().ambient(kill).inheritable([]).invalid().len(), 1);
    }

    #[test]
    fn a_set_is_shown_by_its_names() {
        let set = Capabilities::keep([Capability::CAP_BPF, Capability::CAP_CHOWN]);
        assert!(format!("{set:?}").contains("bounding: CAP_CHOWN, CAP_BPF"), "{set:?}");
        assert!(format!("{set:?}").contains("ambient: none"));
    }
}
