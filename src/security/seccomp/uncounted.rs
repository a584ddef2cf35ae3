//! Memory of the kernel that no control group counts, and that a filter leaves to the program
//! without a bound.

use super::bpf::{Answers, Filter};
use super::table::{self, Architecture};

/// The commands of fcntl(2) that lock a range. Nothing limits the number of such locks.
pub(super) const LOCKS: [i32; 4] = [libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK, libc::F_OFD_SETLKW];
/// Those that only 32-bit programs have: F_SETLK64, F_SETLKW64.
const LOCKS_OF_32_BITS: [i32; 2] = [13, 14];
/// The protocols of netlink, from 0 (MAX_LINKS).
const NETLINK_PROTOCOLS: u64 = 32;

/// The text for a program that can have all of it, as one without a filter.
pub(crate) const WITHOUT_FILTER: &str = "no control group counts unread replies of netlink sockets and locks of ranges of files: \
                         Seccomp::default() refuses the first, Seccomp::compute() both";
const NETLINK: &str = "no control group counts unread replies of netlink sockets, which the filter allows: limit the open \
                       files, or leave the rule out";
const RANGES: &str = "no control group counts locks of ranges of files (fcntl), which the filter allows: Seccomp::compute() \
                      refuses them, as do the rules in the documentation of Seccomp";

/// Returns the memory that a program under the filter can have beyond its limit.
pub(super) fn under(filter: &Filter) -> Option<&'static str> {
    let mut all = vec![(None, &filter.own)];
    all.extend(filter.x32.iter().map(|answers| (Some(Architecture::X32), answers)));
    all.extend(filter.others.iter().map(|(arch, answers)| (Some(*arch), answers)));
    let foreign = filter.foreign.may_allow();
    let netlink = foreign || all.iter().any(|(arch, answers)| allows_netlink(*arch, answers));
    let ranges = foreign || all.iter().any(|(arch, answers)| allows_ranges(*arch, answers));
    match (netlink, ranges) {
        (true, true) => Some(WITHOUT_FILTER),
        (true, false) => Some(NETLINK),
        (false, true) => Some(RANGES),
        (false, false) => None,
    }
}

fn allows(arch: Option<Architecture>, answers: &Answers, name: &str, args: [u64; 6]) -> bool {
    table::number(arch, name).is_some_and(|number| answers.of(number).on(args).may_allow())
}

fn allows_netlink(arch: Option<Architecture>, answers: &Answers) -> bool {
    let of = |kind: i32, protocol| [libc::AF_NETLINK as u64, kind as u64, protocol, 0, 0, 0];
    let kinds = [libc::SOCK_RAW, libc::SOCK_DGRAM];
    let mut sockets = kinds.iter().flat_map(|kind| (0..NETLINK_PROTOCOLS).map(|protocol| of(*kind, protocol)));
    // The arguments of socketcall(2) are in memory, and the other ways make sockets as well.
    sockets.any(|args| allows(arch, answers, "socket", args))
        || ["socketcall", "io_uring_setup"].iter().any(|name| allows(arch, answers, name, [1, 0, 0, 0, 0, 0]))
}

fn allows_ranges(arch: Option<Architecture>, answers: &Answers) -> bool {
    let has_others = matches!(arch, Some(Architecture::X86 | Architecture::Arm));
    let commands = LOCKS.into_iter().chain(LOCKS_OF_32_BITS.into_iter().filter(|_| has_others));
    let mut asked = commands.flat_map(|command| ["fcntl", "fcntl64"].map(|name| (name, command as u64)));
    asked.any(|(name, command)| allows(arch, answers, name, [0, command, 0, 0, 0, 0]))
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Compare, Rule, Seccomp};
    use super::*;

    fn gap(profile: &Seccomp) -> Option<&'static str> {
        profile.uncounted_memory()
    }

    #[test]
    fn each_profile_tells_what_it_leaves_uncounted() {
        assert_eq!(gap(&Seccomp::compute()), None);
        assert_eq!(gap(&Seccomp::default()), Some(RANGES));
        assert_eq!(gap(&Seccomp::deny_list()), Some(WITHOUT_FILTER));
        assert_eq!(gap(&Seccomp::allow_list()), None);
    }

    #[test]
    fn a_rule_opens_and_closes_each_kind() {
        let lock =
            |command: i32| Rule::new(["fcntl"], Action::Errno(libc::ENOLCK)).arg(1, Compare::int(command as u32));
        let without =
            |left: usize| LOCKS[left..].iter().fold(Seccomp::default(), |all, command| all.rule(lock(*command)));
        assert_eq!(gap(&without(0)), None);
        assert_eq!(gap(&without(1)), Some(RANGES));
        let netlink = |protocol: i32| {
            let of = Rule::new(["socket"], Action::Allow).arg(0, Compare::int(libc::AF_NETLINK as u32));
            of.arg(2, Compare::int(protocol as u32))
        };
        for protocol in [libc::NETLINK_ROUTE, libc::NETLINK_SOCK_DIAG, 31] {
            assert_eq!(gap(&without(0).rule(netlink(protocol))), Some(NETLINK), "{protocol}");
        }
        assert_eq!(gap(&without(0).allow(["io_uring_setup"])), Some(NETLINK));
        assert_eq!(gap(&without(0).foreign(Action::Allow)), Some(WITHOUT_FILTER));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_further_architecture_has_ways_of_its_own() {
        let lock = |name: &'static str, command: i32| {
            Rule::new([name], Action::Errno(libc::ENOLCK)).arg(1, Compare::int(command as u32))
        };
        let profile = Seccomp::default().architecture(Architecture::X86).allow(["fcntl64"]);
        let all = LOCKS.iter().fold(profile, |all, command| all.rule(lock("fcntl", *command)));
        assert_eq!(gap(&all), Some(RANGES), "fcntl64 is a call of its own");
        let all = LOCKS.iter().fold(all, |all, command| all.rule(lock("fcntl64", *command)));
        assert_eq!(gap(&all), Some(RANGES), "with commands of its own");
        let all = LOCKS_OF_32_BITS
            .iter()
            .fold(all, |all, command| all.rule(lock("fcntl64", *command)).rule(lock("fcntl", *command)));
        assert_eq!(gap(&all), None);
        assert_eq!(gap(&all.allow(["socketcall"])), Some(NETLINK));
    }
}
