//! Rules for internet sockets, and the filter beside Landlock's rules for TCP ports.

use nix::errno::Errno;

use super::{Action, Compare, Rule, Seccomp};

/// `SOCK_TYPE_MASK`: the bits above it are flags of socket(2).
const TYPES: u64 = 0xf;
/// Bits of which one is set in each type except streams, datagrams and raw sockets: SOCK_SEQPACKET
/// is SCTP, SOCK_DCCP is DCCP, and SOCK_PACKET gives packets of the link layer in any family.
const OTHER_TYPES: [u64; 2] = [4, 8];

/// Restricts the AF_INET and AF_INET6 sockets that `profile` allows to the protocols 0, TCP, UDP
/// and ICMP. Other protocols use TCP (MPTCP, SMC), or are kernel code that few programs need.
pub(super) fn plain_protocols(mut profile: Seccomp) -> Seccomp {
    let families = [(libc::AF_INET, libc::IPPROTO_ICMP), (libc::AF_INET6, libc::IPPROTO_ICMPV6)];
    for (family, icmp) in families {
        let of_family = |action: Action| Rule::new(["socket"], action).arg(0, Compare::int(family as u32));
        profile = profile.rule(of_family(Errno::EPROTONOSUPPORT.into()));
        for protocol in [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP, icmp] {
            profile = profile.rule(of_family(Action::Allow).arg(2, Compare::int(protocol as u32)));
        }
        for bit in OTHER_TYPES {
            let other = Compare::MaskedEq { mask: bit, value: bit };
            profile = profile.rule(of_family(Errno::ESOCKTNOSUPPORT.into()).arg(1, other));
        }
    }
    profile
}

/// Refuses the ways to a TCP connection that Landlock does not control: it controls connect(2) and
/// bind(2) of ordinary TCP sockets. `listens` says whether the program may accept connections.
pub(super) fn beside_landlock(listens: bool) -> Seccomp {
    const MSG_FASTOPEN: u64 = libc::MSG_FASTOPEN as u64;
    let mut filter = Seccomp::deny_list()
        // io_uring creates sockets, and sends, without a filter's control.
        .deny(["io_uring_setup", "io_uring_enter", "io_uring_register"])
        .rule(Rule::new(["socket"], Errno::EAFNOSUPPORT));
    // None of these families uses TCP, as AF_SMC and AF_RDS do, or lets programs send TCP packets
    // of their own, as AF_PACKET and AF_XDP do.
    for family in [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_ALG, libc::AF_VSOCK] {
        filter = filter.rule(Rule::new(["socket"], Action::Allow).arg(0, Compare::int(family as u32)));
    }
    filter = plain_protocols(filter);
    let raw = Compare::MaskedEq { mask: TYPES, value: libc::SOCK_RAW as u64 };
    for family in [libc::AF_INET, libc::AF_INET6] {
        let of_family = Rule::new(["socket"], Action::EPERM).arg(0, Compare::int(family as u32));
        filter = filter.rule(of_family.arg(1, raw));
    }
    // TCP Fast Open connects and sends in one call. The answer is that of a host where the sysctl
    // tcp_fastopen is off, upon which programs connect first.
    let fast = Compare::MaskedEq { mask: MSG_FASTOPEN, value: MSG_FASTOPEN };
    for (name, flags) in [("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)] {
        filter = filter.rule(Rule::new([name], Errno::EOPNOTSUPP).arg(flags, fast));
    }
    // An upper layer protocol can turn a TCP socket into an AF_SMC socket.
    let upper = Rule::new(["setsockopt"], Errno::ENOPROTOOPT).arg(1, Compare::int(libc::IPPROTO_TCP as u32));
    filter = filter.rule(upper.arg(2, Compare::int(libc::TCP_ULP as u32)));
    // Listening without bind(2) uses a port that the kernel chooses. A filter cannot distinguish
    // TCP from AF_UNIX here.
    if listens { filter } else { filter.rule(Rule::new(["listen"], Errno::EACCES)) }
}
