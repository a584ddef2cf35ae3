//! The five sets of capabilities(7), and the securebits.

use std::fmt;
use std::fs;

use caps::Capability;

use super::prctl;
use crate::error::{Problem, Step};
use crate::plan::Plan;
use crate::sys::fork_mark::PerProcess;
use crate::text::hex;

/// Version 3 of capset(2): 64 capabilities in two halves.
const VERSION_3: u32 = 0x2008_0522;
/// The last capability that the crate `caps` has a name for (Linux 5.9).
const LAST_NAMED: u8 = 40;

bitflags::bitflags! {
    /// The securebits of capabilities(7), since Linux 2.6.26: they control how a change of user,
    /// and an exec by root, affect capabilities. A locked bit can never be changed again.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct SecureBits: u32 {
        /// An exec by uid 0 gives no capabilities.
        const NOROOT = 1 << 0;
        /// Locks [`NOROOT`](SecureBits::NOROOT).
        const NOROOT_LOCKED = 1 << 1;
        /// A change of uid does not affect capabilities.
        const NO_SETUID_FIXUP = 1 << 2;
        /// Locks [`NO_SETUID_FIXUP`](SecureBits::NO_SETUID_FIXUP).
        const NO_SETUID_FIXUP_LOCKED = 1 << 3;
        /// Permitted capabilities stay after the change from uid 0 to another uid. Every exec
        /// clears this bit.
        const KEEP_CAPS = 1 << 4;
        /// Locks [`KEEP_CAPS`](SecureBits::KEEP_CAPS).
        const KEEP_CAPS_LOCKED = 1 << 5;
        /// Nothing can be added to the ambient set. Since Linux 4.3.
        const NO_CAP_AMBIENT_RAISE = 1 << 6;
        /// Locks [`NO_CAP_AMBIENT_RAISE`](SecureBits::NO_CAP_AMBIENT_RAISE).
        const NO_CAP_AMBIENT_RAISE_LOCKED = 1 << 7;
    }
}

/// The five capability sets, as they are when the program is executed, and the securebits.
///
/// The kernel derives the program's capabilities from these sets, see capabilities(7),
/// "Transformation of capabilities during execve()": uid 0 gets the bounding set, and other users
/// get the ambient set. So [`keep`](Capabilities::keep) is for a program that runs as uid 0 inside,
/// and [`ambient`](Capabilities::ambient) for other programs.
///
/// ```
/// use ringfence::{Capabilities, Capability, Sandbox};
///
/// // A server that may bind port 80, as an ordinary user.
/// let port_80 = Capabilities::none().ambient([Capability::CAP_NET_BIND_SERVICE]);
/// let sandbox = Sandbox::new().user(33, 33).capabilities(port_80);
/// # drop(sandbox);
/// ```
#[must_use = "a builder does nothing by itself: each call returns it"]
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
    /// Leaves all five sets empty: no program that is executed in the sandbox has or gets a
    /// capability.
    pub fn none() -> Self {
        Capabilities::default()
    }

    /// Puts these capabilities into the bounding, permitted and effective sets. The inheritable and
    /// ambient sets are empty.
    pub fn keep(kept: impl IntoIterator<Item = Capability>) -> Self {
        let kept = set_of(kept);
        Capabilities { bounding: kept, permitted: kept, effective: kept, ..Capabilities::default() }
    }

    /// Keeps every capability that the kernel knows, except these.
    pub fn all_but(dropped: impl IntoIterator<Item = Capability>) -> Self {
        let kept = ((2u64 << last_capability()) - 1) & !set_of(dropped);
        Capabilities { bounding: kept, permitted: kept, effective: kept, ..Capabilities::default() }
    }

    /// Sets the bounding set: the most that an exec can give.
    pub fn bounding(mut self, set: impl IntoIterator<Item = Capability>) -> Self {
        self.bounding = set_of(set);
        self
    }

    /// Sets the permitted set: what can be made effective.
    pub fn permitted(mut self, set: impl IntoIterator<Item = Capability>) -> Self {
        self.permitted = set_of(set);
        self
    }

    /// Sets the effective set: what the kernel checks. It must be a subset of the permitted set.
    pub fn effective(mut self, set: impl IntoIterator<Item = Capability>) -> Self {
        self.effective = set_of(set);
        self
    }

    /// Sets the inheritable set: what an exec of a file with the same inheritable capabilities
    /// keeps. Few programs use it, and a set that is not empty gives some programs more than
    /// intended (CVE-2022-24769): leave it empty.
    pub fn inheritable(mut self, set: impl IntoIterator<Item = Capability>) -> Self {
        self.inheritable = set_of(set);
        self
    }

    /// Sets the ambient set: what every exec of an ordinary program keeps, for any user (Linux
    /// 4.3). Adds the set to the permitted and the inheritable sets, as the kernel requires.
    pub fn ambient(mut self, set: impl IntoIterator<Item = Capability>) -> Self {
        self.ambient = set_of(set);
        self.permitted |= self.ambient;
        self.inheritable |= self.ambient;
        self
    }

    /// Sets the securebits. By default, they are those of the caller.
    pub fn securebits(mut self, bits: SecureBits) -> Self {
        self.securebits = Some(bits);
        self
    }

    /// Returns the sets: bounding, permitted, effective, inheritable and ambient; and the
    /// securebits.
    pub(crate) fn sets(&self) -> ([u64; 5], Option<SecureBits>) {
        ([self.bounding, self.permitted, self.effective, self.inheritable, self.ambient], self.securebits)
    }

    /// Makes capabilities of their sets, in the order of [`sets`](Capabilities::sets).
    pub(crate) fn of_sets(sets: [u64; 5], securebits: Option<SecureBits>) -> Self {
        let [bounding, permitted, effective, inheritable, ambient] = sets;
        Capabilities { bounding, permitted, effective, inheritable, ambient, securebits }
    }

    /// Returns the sets and the securebits as a word for a later process.
    pub(crate) fn to_text(&self) -> String {
        let (sets, securebits) = self.sets();
        let bits = securebits.map_or_else(|| "-".to_owned(), |bits| format!("{:x}", bits.bits()));
        let sets = sets.map(|set| format!("{set:x}"));
        format!("{}.{bits}", sets.join("."))
    }

    /// Reads what [`to_text`](Capabilities::to_text) has written.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split('.').collect();
        let [bounding, permitted, effective, inheritable, ambient, bits] = words[..] else { return None };
        let securebits = match bits {
            "-" => None,
            bits => Some(SecureBits::from_bits(hex(bits)?.try_into().ok()?)?),
        };
        let sets = [hex(bounding)?, hex(permitted)?, hex(effective)?, hex(inheritable)?, hex(ambient)?];
        let read = Self::of_sets(sets, securebits);
        read.invalid().is_empty().then_some(read)
    }

    /// Returns the settings that every kernel refuses.
    pub(crate) fn invalid(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.effective & !self.permitted != 0 {
            let reason = format!("{} effective without being permitted", Names(self.effective & !self.permitted));
            problems.push(Problem::invalid("capabilities", reason, "add it to the permitted set"));
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

    /// Returns the capabilities that the caller must have to keep them.
    pub(crate) fn wanted(&self) -> u64 {
        self.permitted | self.inheritable
    }

    /// Returns true if a process in the sandbox can get the capability.
    pub(crate) fn reaches(&self, capability: Capability) -> bool {
        (self.permitted | self.bounding) & capability.bitmask() != 0
    }

    /// Returns true if `set` is a subset of the bounding set.
    pub(crate) fn bounds(&self, set: u64) -> bool {
        set & !self.bounding == 0
    }

    /// Returns the largest set that a process in the sandbox can get.
    pub(crate) fn most(&self) -> u64 {
        self.all()
    }

    /// Returns what an exec as an ordinary user can keep.
    pub(crate) fn kept(&self) -> u64 {
        self.ambient | self.inheritable
    }

    /// Returns every capability of this kernel.
    pub(crate) fn everything() -> u64 {
        (2u64 << last_capability()) - 1
    }

    /// Returns true if something besides the bounding set needs CAP_SETPCAP.
    pub(crate) fn sets_securebits(&self) -> bool {
        self.securebits.is_some()
    }

    fn all(&self) -> u64 {
        self.bounding | self.permitted | self.effective | self.inheritable | self.ambient
    }

    /// Emits the ops that set the sets. The change of user has cleared the effective set, so
    /// CAP_SETPCAP is raised once more for the bounding set and for securebits.
    ///
    /// `until_exec` is permitted and effective beside them. The exec takes it away: it gives uid 0
    /// the bounding set, and others the ambient one.
    pub(super) fn emit(&self, plan: &mut Plan, setpcap: bool, until_exec: u64) {
        let own = if setpcap { Capability::CAP_SETPCAP.bitmask() } else { 0 };
        capset(plan, own, self.wanted() | own | until_exec, self.inheritable);
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
        self.emit_final(plan, until_exec);
    }

    /// Emits these capabilities, permitted and effective, and no others.
    pub(super) fn emit_only(plan: &mut Plan, set: u64) {
        capset(plan, set, set, 0);
    }

    /// Emits the sets that the exec finds, with `until_exec` beside them.
    pub(super) fn emit_final(&self, plan: &mut Plan, until_exec: u64) {
        capset(plan, self.effective | until_exec, self.permitted | until_exec, self.inheritable);
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

/// A capability set that is displayed by names.
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

/// Returns the highest capability of this kernel, which is in /proc since Linux 3.2.
fn last_capability() -> u8 {
    static LAST: PerProcess<u8> = PerProcess::new();
    let read = || {
        let text = fs::read_to_string("/proc/sys/kernel/cap_last_cap");
        Ok::<_, nix::errno::Errno>(text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(LAST_NAMED).min(62))
    };
    LAST.get_or_try(read).map_or(LAST_NAMED, |last| *last)
}

/// Emits capset(2): effective, permitted, inheritable; first the low 32 capabilities, then the high
/// ones.
fn capset(plan: &mut Plan, effective: u64, permitted: u64, inheritable: u64) {
    let sets = [effective, permitted, inheritable];
    let halves = sets.map(|set| set as u32).into_iter().chain(sets.map(|set| (set >> 32) as u32));
    let data: Vec<u8> = halves.flat_map(u32::to_ne_bytes).collect();
    let header = plan.words(&[VERSION_3.into()]);
    let data = plan.bytes(&data);
    plan.call(Step::Capabilities, libc::SYS_capset, [header.into(), data.into()])
        .hint("the sandbox cannot have more than the caller has, except in a user namespace of its own");
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
    fn sets_are_read_as_they_were_written() {
        let kill = [Capability::CAP_KILL];
        for sets in [
            Capabilities::none(),
            Capabilities::all_but(kill).securebits(SecureBits::NOROOT),
            Capabilities::none().ambient(kill),
        ] {
            assert_eq!(Capabilities::from_text(&sets.to_text()), Some(sets));
        }
        for text in
            ["", "0.0.0.0.0", "0.0.1.0.0.-", "0.0.0.0.0.ffffffff", "ffffffffffffffff.0.0.0.0.-", "0.0.0.0.0.-.0"]
        {
            assert_eq!(Capabilities::from_text(text), None, "{text}");
        }
        crate::fuzz::texts(&["1.1.1.0.0.-", "0.0.0.0.0.3"], |text| _ = Capabilities::from_text(text));
    }

    #[test]
    fn a_set_is_shown_by_its_names() {
        let set = Capabilities::keep([Capability::CAP_BPF, Capability::CAP_CHOWN]);
        assert!(format!("{set:?}").contains("bounding: CAP_CHOWN, CAP_BPF"), "{set:?}");
        assert!(format!("{set:?}").contains("ambient: none"));
    }
}
